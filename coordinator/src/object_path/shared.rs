//! What all reads and writes of an `ObjectPath` share.
//!
//! Shell: reads the clock and draws random ids, as its surroundings give them.

use super::ObjectPathOptions;
use super::api::{DamageHint, ObjectError};
use super::backend_memory::BackendMemory;
use super::budget::ByteBudget;
use super::cell_stock::CellStock;
use super::cpu_pool::CpuPool;
use super::digest_pool::DigestPool;
use super::hedge::HedgePolicy;
use super::in_flight::InFlight;
use super::readers::Readers;
use super::segment_writer::Patience;
use crate::health::SlowJudge;
use crate::layout::Layout;
use crate::metadata::Metadata;
use holdfast_codec::{Codec, Scheme, default_cell_bytes};
use holdfast_proto::node::NodeClient;
use holdfast_proto::{BackendId, BucketId, VersionId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::mpsc;

/// Whose bytes a segment holds, as its shards' headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebuildContext {
    /// The object's bucket.
    pub bucket: BucketId,
    /// BLAKE3 of its key.
    pub key_hash: [u8; 32],
    /// Its version; for a part, its upload's id.
    pub version: VersionId,
}

/// The parts of an `ObjectPath`.
pub(crate) struct Shared {
    pub(crate) metadata: Arc<dyn Metadata>,
    pub(crate) node: Arc<dyn NodeClient>,
    pub(crate) layout: Layout,
    pub(crate) options: ObjectPathOptions,
    pub(crate) hints: mpsc::Sender<DamageHint>,
    /// The newest session for which `layout` is known to be new enough.
    pub(crate) session_with_map: AtomicU64,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) write_budget: ByteBudget,
    pub(crate) read_budget: ByteBudget,
    /// Apart from the readers': its windows are many times larger than the least a reader waits for, and behind one that
    /// waits every reader would.
    pub(crate) rebuild_budget: ByteBudget,
    pub(crate) stock: CellStock,
    pub(crate) cpu: Arc<CpuPool>,
    pub(crate) digests: DigestPool,
    pub(crate) codecs: Codecs,
    /// Backends whose reads failed.
    pub(crate) backend_memory: BackendMemory,
    /// How long backends take to be read, and which are far slower than the others.
    pub(crate) slow_reads: Mutex<SlowJudge<BackendId>>,
    /// Backends whose writes hung.
    pub(crate) hung_writes: BackendMemory,
    pub(crate) hedge: HedgePolicy,
    pub(crate) patience: Patience,
    /// Cell length of new segments, for tests that need many stripes of few bytes.
    pub(crate) cell_bytes: Option<u32>,
}

impl Shared {
    /// Cell length of new segments of a code with `k` data shards.
    pub(crate) fn cell_bytes(&self, k: usize) -> u32 {
        self.cell_bytes.unwrap_or_else(|| default_cell_bytes(k))
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.options.surroundings.now_ms()
    }

    /// The random part of an id.
    pub(crate) fn random_id_bytes(&self) -> [u8; 10] {
        self.options.surroundings.random_id_bytes()
    }

    /// Tells repair. When the channel is full the hint is dropped: the inventory and scrub find the damage anyway.
    pub(crate) fn hint(&self, hint: DamageHint) {
        let _ = self.hints.try_send(hint);
    }
}

/// The codecs in use, made once per scheme: making one inverts a matrix.
#[derive(Default)]
pub(crate) struct Codecs {
    known: Mutex<BTreeMap<[u8; 4], Codec>>,
}

impl Codecs {
    pub(crate) fn get(&self, code: [u8; 4]) -> Result<Codec, ObjectError> {
        if let Some(known) = self.known.lock().get(&code) {
            return Ok(known.clone());
        }
        let scheme = Scheme::from_code(code).map_err(|error| ObjectError::Internal { reason: error.to_string() })?;
        let codec = Codec::new(scheme);
        self.known.lock().insert(code, codec.clone());
        Ok(codec)
    }
}
