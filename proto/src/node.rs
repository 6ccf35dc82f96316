//! What a coordinator asks of a storage node: the trait both sides meet in. A co-located node is handed in as an
//! implementation; one across the network is another (`coordinator::runtime`), and so are all of them together.
//!
//! Invariant: whatever `read_shard` hands out was verified against the hashes stored beside it, and those against the
//! root the caller named; bytes that fail are reported as damaged, never returned.

use crate::error_kind::ErrorKind;
use crate::ids::{BackendId, Epoch, NodeId, PgId, ShardId};
use crate::shard_header::ShardHeader;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One cell on its way to a backend.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its bytes; best aligned to a page (`CellBuffer`), then they reach the disk without a copy.
    pub bytes: Bytes,
    /// BLAKE3 of the bytes. The backend stores it and does not hash again.
    pub hash: [u8; 32],
}

/// The root of a shard: BLAKE3 over its concatenated cell hashes.
pub fn shard_root(cell_hashes: impl IntoIterator<Item = [u8; 32]>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for hash in cell_hashes {
        hasher.update(&hash);
    }
    *hasher.finalize().as_bytes()
}

/// What a backend holds of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStat {
    /// Which shard.
    pub id: ShardId,
    /// Bytes of its cells.
    pub shard_bytes: u64,
    /// Bytes of a full cell.
    pub cell_bytes: u32,
    /// Its root hash; in a listing `NO_ROOT` for one that is quarantined.
    pub root: [u8; 32],
    /// When its cells were last verified by scrub or written, milliseconds since 1970.
    pub verified_ms: u64,
}

impl ShardStat {
    /// The root of a shard that is known to be damaged: it takes room and counts as missing.
    pub const NO_ROOT: [u8; 32] = [0; 32];
}

/// Verified cells.
#[derive(Clone, Debug)]
pub struct ShardRead {
    /// The shard's header.
    pub header: ShardHeader,
    /// The cells asked for, back to back in order. The bytes of a damaged cell are zeros.
    pub bytes: Bytes,
    /// Indexes (in the shard) of the cells that failed their hash.
    pub damaged: Vec<u32>,
    /// The hashes of all cells of the shard, in order, as stored beside them: whoever gets the read over a wire can hold
    /// it against the root that the manifest names.
    pub cell_hashes: Vec<[u8; 32]>,
}

impl ShardRead {
    /// Verifies what came from elsewhere: the hashes against `expected_root`, and each cell from `first` on against its
    /// hash. Cells that fail are added to `damaged`.
    ///
    /// # Errors
    /// The hashes do not give the root, or are not one for each cell: nothing of it can be trusted.
    pub fn verify(&mut self, first: u32, expected_root: Option<[u8; 32]>) -> Result<(), &'static str> {
        let count = usize::try_from(self.header.cell_count()).unwrap_or(usize::MAX);
        if self.cell_hashes.len() != count {
            return Err("it has not one hash for each cell");
        }
        if expected_root.is_some_and(|root| root != shard_root(self.cell_hashes.iter().copied())) {
            return Err("its hashes do not give the root expected");
        }
        let cell_bytes = usize::try_from(self.header.cell_bytes.max(1)).unwrap_or(usize::MAX);
        for (index, cell) in (first..).zip(self.bytes.chunks(cell_bytes)) {
            let hash = usize::try_from(index).ok().and_then(|at| self.cell_hashes.get(at));
            let is_known = self.damaged.contains(&index);
            if !is_known && hash != Some(blake3::hash(cell).as_bytes()) {
                self.damaged.push(index);
            }
        }
        Ok(())
    }
}

/// Why a shard operation failed. Names the backend and the cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// No such shard there.
    #[error("shard {shard} is not on backend {backend}")]
    NotFound {
        /// Which shard.
        shard: ShardId,
        /// Where.
        backend: BackendId,
    },
    /// The record's header, hashes or root fail their check: all of it counts as missing.
    #[error("shard {shard} on backend {backend} is damaged: {reason}")]
    Damaged {
        /// Which shard.
        shard: ShardId,
        /// Where.
        backend: BackendId,
        /// What does not hold.
        reason: String,
    },
    /// This node does not have that backend.
    #[error("backend {backend} is not attached to this node")]
    NoSuchBackend {
        /// Which.
        backend: BackendId,
    },
    /// The backend is missing, failed, wiped or foreign.
    #[error("backend {backend} is unavailable: {reason}")]
    Unavailable {
        /// Which.
        backend: BackendId,
        /// Since what happened.
        reason: String,
    },
    /// The backend takes no writes: poisoned by an fsync error, or set so.
    #[error("backend {backend} is read-only: {reason}")]
    ReadOnly {
        /// Which.
        backend: BackendId,
        /// Why.
        reason: String,
    },
    /// Writing would go below the free-space reserve.
    #[error("backend {backend} is full: {free_bytes} bytes free, reserve is {reserve_bytes}")]
    Full {
        /// Which.
        backend: BackendId,
        /// Bytes free on its file system.
        free_bytes: u64,
        /// Bytes it keeps free.
        reserve_bytes: u64,
    },
    /// Its queue is full; try again or elsewhere.
    #[error("backend {backend} is busy: {queued} operations queued")]
    Busy {
        /// Which.
        backend: BackendId,
        /// Queue length.
        queued: usize,
    },
    /// An operating system error, with what was being done.
    #[error("backend {backend}: {action}: {reason}")]
    Io {
        /// Which.
        backend: BackendId,
        /// Verb and object.
        action: String,
        /// The system's words.
        reason: String,
    },
    /// The caller acts by a cluster map that is older than this node still takes orders by.
    #[error("epoch {got} is stale: the node wants {minimum} or newer")]
    StaleEpoch {
        /// What the caller had.
        got: Epoch,
        /// The oldest that is taken.
        minimum: Epoch,
    },
    /// The caller broke the contract (cells out of order, too many bytes, a range past the end).
    #[error("invalid shard operation: {reason}")]
    Invalid {
        /// What was wrong.
        reason: String,
    },
}

impl ShardError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NoSuchBackend { .. } => ErrorKind::NotFound,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Unavailable { .. } | Self::ReadOnly { .. } | Self::Io { .. } => ErrorKind::Internal,
            Self::Full { .. } => ErrorKind::Full,
            Self::Busy { .. } => ErrorKind::Retry,
            Self::StaleEpoch { .. } => ErrorKind::Refresh,
            Self::Invalid { .. } => ErrorKind::Invalid,
        }
    }
}

/// Writes one shard, cell after cell. Dropped before `finish` returned, the shard does not exist and its room is
/// freed.
#[async_trait]
pub trait ShardWriter: Send {
    /// Takes the next cells in order; every cell but the last has `cell_bytes`. Returns once the node has taken them
    /// (not yet durable); waits when the disk falls behind, so a writer holds a bounded amount.
    async fn append(&mut self, cells: Vec<Cell>) -> Result<(), ShardError>;

    /// Ends the shard. On return header, cells and hashes are on stable storage and the shard can be read; an older
    /// record of the same id is superseded. Fails if fewer bytes came than the header said.
    async fn finish(self: Box<Self>) -> Result<ShardStat, ShardError>;
}

/// How a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendHealth {
    /// Reads and writes.
    Online,
    /// Reads only: poisoned by an fsync error, or out of room.
    ReadOnly,
    /// Its directory or device is not there.
    Missing,
    /// Its directory is there but empty of a backend.
    Wiped,
    /// It holds another backend or another cluster's.
    Foreign,
    /// It answers with IO errors.
    Failed,
}

impl BackendHealth {
    /// Whether its shards can be read.
    pub fn can_read(self) -> bool {
        matches!(self, Self::Online | Self::ReadOnly)
    }
    /// Whether it takes shards.
    pub fn can_write(self) -> bool {
        self == Self::Online
    }
}

/// A backend as its node sees it now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Which.
    pub id: BackendId,
    /// Short name for people: d1, d2, ...
    pub name: String,
    /// Where it is, as given: `disk:PATH`.
    pub location: String,
    /// How it is.
    pub health: BackendHealth,
    /// Why it is not online; empty when it is.
    pub reason: String,
    /// Bytes its file system has.
    pub capacity_bytes: u64,
    /// Bytes free there.
    pub free_bytes: u64,
    /// Bytes its shards take.
    pub used_bytes: u64,
    /// Shards it holds.
    pub shard_count: u64,
    /// When the last full scrub ended, milliseconds since 1970; 0 for never.
    pub scrubbed_ms: u64,
}

/// One bounded step of a scrub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// Shards read and verified.
    pub shards: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Shards that failed, quarantined: they count as missing until rewritten.
    pub damaged: Vec<ShardId>,
    /// Where to go on; `None` when the backend is through.
    pub next: Option<ShardId>,
}

/// A storage node, as a coordinator sees it.
#[async_trait]
pub trait NodeClient: Send + Sync + 'static {
    /// Begins a shard. The header says how many bytes will come; room is reserved for them. `epoch` is that of the
    /// cluster map it is placed by: a node that was told of a newer minimum refuses it, also when it is finished.
    async fn begin_shard(
        &self,
        backend: BackendId,
        header: ShardHeader,
        epoch: Epoch,
    ) -> Result<Box<dyn ShardWriter>, ShardError>;

    /// Reads cells `first..first + count` and verifies each; `expected_root`, if given, must be the shard's root.
    /// A range past the last cell is `Invalid`.
    async fn read_shard(
        &self,
        backend: BackendId,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError>;

    /// Whether and how the backend holds the shard; looks at the index only.
    async fn stat_shard(&self, backend: BackendId, shard: ShardId) -> Result<Option<ShardStat>, ShardError>;

    /// Frees shards. One that is not there is fine. Durable before any later crash can bring it back is not promised:
    /// a shard that comes back is an orphan and is swept.
    ///
    /// `superseded_by` is the epoch of the cluster map by which the shards are no longer wanted here, though their segment
    /// is. A node that was listed by a newer map refuses: whoever listed it may count on them. `None` for shards of
    /// segments that nobody owns.
    async fn delete_shards(
        &self,
        backend: BackendId,
        shards: Vec<ShardId>,
        superseded_by: Option<Epoch>,
    ) -> Result<(), ShardError>;

    /// Up to `limit` shards of `pg` after `after` in id order; quarantined ones without their root (`ShardStat::NO_ROOT`),
    /// so that what takes room is freed once it is not wanted. From the answer on, deletions by a map older than `epoch`
    /// are refused, also after a restart.
    async fn list_shards(
        &self,
        backend: BackendId,
        pg: PgId,
        after: Option<ShardId>,
        limit: usize,
        epoch: Epoch,
    ) -> Result<Vec<ShardStat>, ShardError>;

    /// Verifies up to about `budget_bytes` of shards after `after`.
    async fn scrub_shards(
        &self,
        backend: BackendId,
        after: Option<ShardId>,
        budget_bytes: u64,
    ) -> Result<ScrubStep, ShardError>;

    /// All backends configured on this node, missing ones too. Probes them: a directory that vanished since the last
    /// call is seen.
    async fn backends(&self) -> Vec<BackendStatus>;

    /// Formats `location` (`disk:PATH`, an empty or absent directory) on `node` as a new backend of this cluster named
    /// `name` and attaches it. Refuses a directory that holds anything, and a node it does not reach.
    async fn add_backend(&self, node: NodeId, location: &str, name: &str) -> Result<BackendStatus, ShardError>;

    /// Detaches a backend and forgets it. Its files stay as they are.
    async fn remove_backend(&self, backend: BackendId) -> Result<(), ShardError>;
}
