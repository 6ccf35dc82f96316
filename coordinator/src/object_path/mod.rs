//! The object path: bytes in, coded shards out, and back. `api` is what the S3 layer calls.
//!
//!     put: body -> upload -> coding -> segment_writer -> node        read: read -> window (gather) -> node
//!                     \-> digest_pool             then -> metadata                \-> decode, where shards fail
//!
//! Not here: HTTP and S3's words (`s3`), when and what to repair (`maintenance`), records (`metadata`).
//!
//! **Invariant:** a version becomes visible only after at least k+1 shards of each of its segments are durable and its
//! checksums hold; what fails before that leaves nothing visible, and its shards are deleted.
//!
//! Order of a write: shards durable, then the record, then the answer. A later parallel commit would propose the record
//! as staged where `store` begins, and complete it in `commit`.

pub mod api;

mod activity;
mod backend_memory;
mod body;
mod budget;
mod cell_stock;
mod checksum;
mod coding;
mod cpu_pool;
mod digest_pool;
mod gather;
mod hedge;
mod in_flight;
mod precondition;
mod read;
mod readers;
mod rebuild;
mod segment_begin;
mod segment_layout;
mod segment_writer;
mod shared;
mod stand_ins;
mod uncommitted;
mod upload;
mod upload_budget;
mod window;

#[cfg(test)]
mod tests;
/// The same tests once more, with every backend on a node of its own behind the transport.
#[cfg(test)]
#[path = "tests/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "the tests ask by their module's name how to reach the backends")]
mod tests_over_nodes;

pub use activity::Activity;
pub use api::*;
pub(crate) use checksum::checksum_of;
pub use shared::RebuildContext;

use crate::layout::Layout;
use crate::metadata::{Metadata, MetadataResult, PutVersion, VersionSelector, WriterSession};
use crate::surroundings::Surroundings;
use backend_memory::{BackendMemory, READ_FAILURE, WRITE_HANG};
use budget::ByteBudget;
use cell_stock::CellStock;
use cpu_pool::CpuPool;
use digest_pool::DigestPool;
use hedge::HedgePolicy;
use holdfast_proto::manifest::{ObjectVersion, Part, Segment};
use holdfast_proto::node::NodeClient;
use holdfast_proto::{BackendId, BucketId, ErrorKind, Slot, VersionId};
use in_flight::InFlight;
use parking_lot::Mutex;
use segment_writer::Patience;
use shared::{Codecs, Shared};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use uncommitted::Uncommitted;
use upload::{Content, StoreRequest, store};

/// Largest object of one PUT, and largest part: S3's own limit.
pub const OBJECT_BYTES_MAX: u64 = 5 << 30;

/// Settings of the object path.
#[derive(Clone, Debug)]
pub struct ObjectPathOptions {
    /// Objects up to this many bytes live in their metadata record. (Parts never do: a completed version has either
    /// inline bytes or segments.)
    pub inline_bytes_max: u64,
    /// Object bytes in a full segment; rounded down to whole stripes.
    pub segment_bytes: u64,
    /// Bytes of cell buffers all uploads together may hold.
    pub write_buffer_bytes: u64,
    /// Bytes of cell buffers all reads together may hold.
    pub read_buffer_bytes: u64,
    /// Time, random numbers and threads.
    pub surroundings: Surroundings,
}

impl Default for ObjectPathOptions {
    fn default() -> Self {
        Self {
            inline_bytes_max: 16 << 10,
            segment_bytes: 64 << 20,
            write_buffer_bytes: 128 << 20,
            read_buffer_bytes: 96 << 20,
            surroundings: Surroundings::default(),
        }
    }
}

/// Reads and writes objects. Cheap to clone.
#[derive(Clone)]
pub struct ObjectPath {
    shared: Arc<Shared>,
}

impl ObjectPath {
    /// Puts the parts together. Damage found on the way is told to `hints`.
    pub fn new(
        metadata: Arc<dyn Metadata>,
        node: Arc<dyn NodeClient>,
        layout: Layout,
        options: ObjectPathOptions,
        hints: mpsc::Sender<DamageHint>,
    ) -> Self {
        Self::tuned(metadata, node, layout, options, hints, (None, Patience::default()))
    }

    /// As `new`, with another cell length for new segments and other patience.
    fn tuned(
        metadata: Arc<dyn Metadata>,
        node: Arc<dyn NodeClient>,
        layout: Layout,
        options: ObjectPathOptions,
        hints: mpsc::Sender<DamageHint>,
        (cell_bytes, patience): (Option<u32>, Patience),
    ) -> Self {
        let shared = Shared {
            session_with_map: AtomicU64::new(0),
            metadata,
            node,
            layout,
            hints,
            in_flight: Arc::new(InFlight::default()),
            readers: Arc::default(),
            write_budget: ByteBudget::new(options.write_buffer_bytes),
            read_budget: ByteBudget::new(options.read_buffer_bytes),
            rebuild_budget: ByteBudget::new(rebuild::BUFFER_BYTES),
            stock: CellStock::new(),
            cpu: Arc::new(CpuPool::new(options.surroundings.computing)),
            digests: DigestPool::new(options.surroundings.computing),
            options,
            codecs: Codecs::default(),
            backend_memory: BackendMemory::new(READ_FAILURE),
            slow_reads: Mutex::default(),
            hung_writes: BackendMemory::new(WRITE_HANG),
            hedge: HedgePolicy::new(),
            patience,
            cell_bytes,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Stores an object. On return the version is durable and visible.
    ///
    /// Dropping the future before the record was proposed leaves nothing visible, and the shards are deleted in the
    /// background; after that the outcome is decided without it.
    ///
    /// # Errors
    /// As [`ObjectError`] says; nothing is visible then. Only `Metadata` errors of the kind `Retry` may leave the outcome
    /// open.
    pub async fn put(&self, request: PutRequest, body: BodyStream) -> Result<PutOutcome, ObjectError> {
        let PutRequest { bucket, key, attributes, owner, object_bytes, object_bytes_max, expect, preconditions } =
            request;
        let bucket_id = BucketId(bucket.id);
        let metadata = self.shared.metadata.clone();
        if precondition::has_conditions(&preconditions) {
            let current = metadata.get_version(bucket_id, &key, VersionSelector::Current).await?;
            precondition::judge(&preconditions, current.as_ref())?;
        }
        // Fixed before anything is proposed: a retried proposal makes the same version.
        let version = VersionId::from_parts(self.shared.now_ms(), self.shared.random_id_bytes());
        let store_request = StoreRequest {
            owner: RebuildContext { bucket: bucket_id, key_hash: key_hash(&key), version },
            declared: object_bytes,
            limit: object_bytes_max.unwrap_or(OBJECT_BYTES_MAX).min(OBJECT_BYTES_MAX),
            inline_bytes_max: Some(self.shared.options.inline_bytes_max),
            expect,
        };
        let session = self.session().await?;
        let stored = Box::pin(store(&self.shared, store_request, body)).await?;
        let (inline, segments) = stored.content.into_parts();
        let session = (!segments.is_empty()).then_some(session);
        let record = ObjectVersion {
            version: version.as_bytes().to_vec().into(),
            object_bytes: stored.object_bytes,
            etag: hex::encode(stored.md5),
            modified_ms: self.shared.now_ms(),
            attributes: Some(attributes),
            checksums: vec![stored.checksum],
            inline,
            segments,
            owner,
            // `is_null` is decided in `apply`; a PUT has no parts and is no delete marker.
            ..Default::default()
        };
        // As the bucket is now: the body may have taken hours, and what was written since versioning came on must not be
        // replaced as if it had not.
        let newest = metadata.bucket(&bucket.name).filter(|newest| newest.id == bucket.id);
        let versioning = newest.as_ref().unwrap_or(&bucket).versioning();
        let put = PutVersion { bucket: bucket_id, key, version: record, versioning, preconditions, session };
        let call = async move { metadata.put_version(put).await };
        let version = self.commit(stored.uncommitted, stored.missing, call).await?;
        Ok(PutOutcome { version, receipt: stored.receipt })
    }

    /// Stores a part. On return it is durable and listed.
    ///
    /// # Errors
    /// As for [`Self::put`]; an upload that does not exist is refused before the body is read.
    pub async fn put_part(&self, request: PutPartRequest, body: BodyStream) -> Result<PutPartOutcome, ObjectError> {
        let PutPartRequest { bucket, key, upload, number, part_bytes, expect } = request;
        let bucket = BucketId(bucket.id);
        let metadata = self.shared.metadata.clone();
        metadata.upload_get(bucket, &key, upload).await?;
        let store_request = StoreRequest {
            owner: RebuildContext { bucket, key_hash: key_hash(&key), version: upload },
            declared: part_bytes,
            limit: OBJECT_BYTES_MAX,
            inline_bytes_max: None,
            expect,
        };
        let session = self.session().await?;
        let stored = Box::pin(store(&self.shared, store_request, body)).await?;
        let (inline, segments) = stored.content.into_parts();
        let part = Part {
            number,
            part_bytes: stored.object_bytes,
            etag: hex::encode(stored.md5),
            modified_ms: self.shared.now_ms(),
            checksums: vec![stored.checksum],
            inline,
            segments,
        };
        let record = part.clone();
        let call = async move { metadata.part_put(bucket, &key, upload, record, Some(session)).await };
        self.commit(stored.uncommitted, stored.missing, call).await?;
        Ok(PutPartOutcome { part, receipt: stored.receipt })
    }

    /// The session to write in, once this coordinator knows a map as new as any that was stored before the session was
    /// announced. Whoever bars a coordinator takes it for one that writes by no map older than the one stored before;
    /// what it writes in the session after that must not be placed by an older one either.
    async fn session(&self) -> MetadataResult<WriterSession> {
        let session = self.shared.metadata.writer_session().await?;
        if self.shared.session_with_map.load(Ordering::Acquire) < session.0 {
            if let Some(map) = self.shared.metadata.cluster_map().await? {
                self.shared.layout.advance(map);
            }
            self.shared.session_with_map.fetch_max(session.0, Ordering::AcqRel);
        }
        Ok(session)
    }

    /// Streams the bytes asked for; every byte was verified. An error ends the stream: the bytes before it are right,
    /// and fewer than asked for. Whoever wants to answer with a status should wait for the first item.
    ///
    /// Must be called and polled within a tokio runtime. Nothing is read before the first poll.
    pub fn read(&self, request: ReadRequest) -> ReadStream {
        read::read(&self.shared, request)
    }

    /// What this coordinator's requests write and read now. Once a newer map was given to `Layout::advance` and no
    /// write here is of an older one, no shard will be written by an older map any more.
    pub fn activity(&self) -> Activity {
        Activity { writing: self.shared.in_flight.segments(), reading: self.shared.readers.segments() }
    }

    /// Decodes the shards of `wanted` slots from k others and writes each to the backend named with it. Returns the
    /// bytes written; every one of them is durable then, and has the root the manifest names.
    ///
    /// Reads and writes a few MiB at a time. Dropped midway it leaves no shard behind.
    ///
    /// # Errors
    /// `Unreadable` if fewer than k cells of a stripe can be had; `TooFewBackends` if some of the shards could not be
    /// written (`durable` of `needed` were, and stay).
    pub async fn rebuild(
        &self,
        segment: &Segment,
        context: RebuildContext,
        wanted: &[(Slot, BackendId)],
    ) -> Result<u64, ObjectError> {
        rebuild::rebuild(&self.shared, segment, context, wanted).await
    }

    /// Makes the record durable with `call`, and decides what becomes of the shards. Goes on when its caller is dropped.
    async fn commit<T: Send + 'static>(
        &self,
        uncommitted: Uncommitted,
        missing: Vec<DamageHint>,
        call: impl Future<Output = MetadataResult<T>> + Send + 'static,
    ) -> Result<T, ObjectError> {
        if uncommitted.is_empty() {
            return Ok(call.await?);
        }
        let shared = self.shared.clone();
        let mut uncommitted = uncommitted;
        let committing = tokio::spawn(async move {
            uncommitted.begin_proposal();
            let result = call.await;
            match &result {
                Ok(_) => {
                    uncommitted.keep();
                    missing.into_iter().for_each(|hint| shared.hint(hint));
                }
                Err(error) if error.kind() == ErrorKind::Retry => uncommitted.leave(),
                Err(_) => uncommitted.give_up(),
            }
            result
        });
        let lost = |_| ObjectError::Internal { reason: "a commit ended without an answer".to_owned() };
        Ok(committing.await.map_err(lost)??)
    }
}

fn key_hash(key: &str) -> [u8; 32] {
    *blake3::hash(key.as_bytes()).as_bytes()
}

impl Content {
    fn into_parts(self) -> (bytes::Bytes, Vec<Segment>) {
        match self {
            Self::Inline(bytes) => (bytes, Vec::new()),
            Self::Segments(segments) => (bytes::Bytes::new(), segments),
        }
    }
}
