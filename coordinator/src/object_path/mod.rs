//! The object path: bytes in, coded shards out, and back. `api` is what the S3 layer calls.
pub mod api;
pub use api::*;

use crate::layout::Layout;
use crate::metadata::Metadata;
use holdfast_proto::SegmentId;
use holdfast_proto::node::NodeClient;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Settings of the object path.
#[derive(Clone, Debug)]
pub struct ObjectPathOptions {
    /// Objects and parts up to this many bytes live in their metadata record.
    pub inline_bytes_max: u64,
    /// Object bytes in a full segment.
    pub segment_bytes: u64,
    /// Bytes of cell buffers all uploads together may hold.
    pub write_buffer_bytes: u64,
    /// Bytes of cell buffers all reads together may hold.
    pub read_buffer_bytes: u64,
}

impl Default for ObjectPathOptions {
    fn default() -> Self {
        Self {
            inline_bytes_max: 16 << 10,
            segment_bytes: 64 << 20,
            write_buffer_bytes: 128 << 20,
            read_buffer_bytes: 96 << 20,
        }
    }
}

/// Reads and writes objects. Cheap to clone.
#[derive(Clone)]
pub struct ObjectPath {
    _inner: Arc<()>,
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
        let _ = (metadata, node, layout, options, hints);
        todo!()
    }
    /// Stores an object. On return the version is durable and visible.
    pub async fn put(&self, request: PutRequest, body: BodyStream) -> Result<PutOutcome, ObjectError> {
        let _ = (request, body);
        todo!()
    }
    /// Stores a part.
    pub async fn put_part(&self, request: PutPartRequest, body: BodyStream) -> Result<PutPartOutcome, ObjectError> {
        let _ = (request, body);
        todo!()
    }
    /// Streams the bytes asked for; every byte was verified. An error ends the stream.
    pub fn read(&self, request: ReadRequest) -> ReadStream {
        let _ = request;
        todo!()
    }
    /// Whether a segment is being written by a request under way (the orphan sweep must leave it alone).
    pub fn is_in_flight(&self, segment: SegmentId) -> bool {
        let _ = segment;
        todo!()
    }
}
