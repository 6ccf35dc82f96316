//! What the rest of the coordinator may ask of the metadata: the trait, its commands, answers and errors.
//!
//! Every mutating call returns only when its effect is on stable storage and visible to every later read. Every read
//! is linearizable. Calls may be retried: a retry of a call that had succeeded gives the same answer.

use super::map_change::MapChange;
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_placement::{Promise, Proof};
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::cluster::NodeRecord;
use holdfast_proto::manifest::{
    AccessKey, Attributes, Bucket, Checksum, ObjectVersion, Pair, Part, Segment, Upload, Versioning,
};
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::{BackendId, BucketId, ClusterId, Epoch, ErrorKind, NodeId, SegmentId, VersionId};
use serde::{Deserialize, Serialize};

/// Why a metadata call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// No bucket of that name or id.
    #[error("no such bucket: {bucket}")]
    NoSuchBucket {
        /// Name or number.
        bucket: String,
    },
    /// A bucket of that name exists.
    #[error("bucket exists: {bucket}")]
    BucketExists {
        /// Name.
        bucket: String,
        /// Its owner.
        owner: String,
    },
    /// The bucket still holds objects, versions or uploads.
    #[error("bucket is not empty: {bucket}")]
    BucketNotEmpty {
        /// Name.
        bucket: String,
    },
    /// No such key, or no current version of it, where one is needed.
    #[error("no such key")]
    NoSuchKey,
    /// No such version of that key.
    #[error("no such version: {version}")]
    NoSuchVersion {
        /// As asked for.
        version: String,
    },
    /// No such upload of that key.
    #[error("no such upload: {upload}")]
    NoSuchUpload {
        /// Its id.
        upload: VersionId,
    },
    /// A part named at completion was never uploaded or has another ETag.
    #[error("invalid part {number}")]
    InvalidPart {
        /// Its number.
        number: u32,
    },
    /// A precondition does not hold.
    #[error("precondition failed: {condition}")]
    PreconditionFailed {
        /// `If-Match` or `If-None-Match`.
        condition: &'static str,
    },
    /// No such access key.
    #[error("no such access key: {access_key}")]
    NoSuchAccessKey {
        /// Which.
        access_key: String,
    },
    /// An access key of that name exists.
    #[error("access key exists: {access_key}")]
    AccessKeyExists {
        /// Which.
        access_key: String,
    },
    /// The PG table or backend list was changed by somebody else first.
    #[error("stale epoch: expected {expected}, the store is at {current}")]
    StaleEpoch {
        /// What the caller had.
        expected: Epoch,
        /// What is.
        current: Epoch,
    },
    /// Too large, too many, or malformed.
    #[error("invalid: {reason}")]
    Invalid {
        /// What and the limit.
        reason: String,
    },
    /// The metadata's file system has no room for more. Nothing was written.
    #[error("no room for metadata: {reason}")]
    Full {
        /// What to do.
        reason: String,
    },
    /// This coordinator was taken for dead while the call was under way, and what it had begun is barred. An earlier try
    /// of the call may have been carried out before that; the same request, begun again, may succeed.
    #[error("this coordinator was cut off from the others for a moment; what it had begun is barred")]
    Fenced,
    /// Consensus or storage failed; the outcome may be unknown.
    #[error("metadata unavailable: {reason}")]
    Unavailable {
        /// Cause.
        reason: String,
    },
}

impl MetadataError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchBucket { .. }
            | Self::NoSuchKey
            | Self::NoSuchVersion { .. }
            | Self::NoSuchUpload { .. }
            | Self::NoSuchAccessKey { .. } => ErrorKind::NotFound,
            Self::BucketExists { .. }
            | Self::BucketNotEmpty { .. }
            | Self::PreconditionFailed { .. }
            | Self::AccessKeyExists { .. } => ErrorKind::Conflict,
            Self::StaleEpoch { .. } => ErrorKind::Refresh,
            Self::InvalidPart { .. } | Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Full { .. } => ErrorKind::Full,
            Self::Fenced | Self::Unavailable { .. } => ErrorKind::Retry,
        }
    }
}

/// Result of a metadata call.
pub type MetadataResult<T> = Result<T, MetadataError>;

/// An ETag condition, as `If-Match` or `If-None-Match` carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EtagCondition {
    /// `*`
    Any,
    /// One of these ETags (without quotes).
    OneOf(Vec<String>),
}

/// Preconditions judged, inside `apply`, against the current version of the key (a delete marker counts as none).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preconditions {
    /// Must match; on a key that does not exist the call fails with `NoSuchKey`.
    pub if_match: Option<EtagCondition>,
    /// Must not match.
    pub if_none_match: Option<EtagCondition>,
    /// DELETE only: the version's modification time in milliseconds must equal this (seconds are compared).
    pub if_match_modified_ms: Option<u64>,
    /// DELETE only: the version's size must equal this.
    pub if_match_bytes: Option<u64>,
}

/// Which version of a key is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VersionSelector {
    /// The newest, delete marker or not.
    Current,
    /// The `null` version.
    Null,
    /// This one.
    Id(VersionId),
}

/// What a PUT or completed upload makes.
#[derive(Clone, Debug, PartialEq)]
pub struct PutVersion {
    /// The bucket.
    pub bucket: BucketId,
    /// The key: 1..=1024 bytes of UTF-8.
    pub key: String,
    /// The version with id, bytes, segments, etag and time filled in; `is_null` is decided in `apply` by the bucket's
    /// versioning state given here.
    pub version: ObjectVersion,
    /// The bucket's versioning as the caller saw it.
    pub versioning: Versioning,
    /// Conditions.
    pub preconditions: Preconditions,
    /// The session its segments were written in; `None` for a version without segments.
    pub session: Option<WriterSession>,
}

/// A span of this process during which nobody has taken it for dead. What is written in one session is not committed in
/// another: meanwhile others may have taken its segments for abandoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterSession(pub u64);

/// What a DELETE did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The S3 version id that was removed or, for a new delete marker, made; `None` when unversioned.
    pub version: Option<String>,
    /// Whether a delete marker was made or removed.
    pub delete_marker: bool,
}

/// What a DELETE asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteVersion {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: String,
    /// `Current`: make a delete marker or, unversioned, remove. Else remove that version for good.
    pub selector: VersionSelector,
    /// The bucket's versioning as the caller saw it.
    pub versioning: Versioning,
    /// Id for a delete marker, should one be made.
    pub marker: VersionId,
    /// Time for a delete marker.
    pub now_ms: u64,
    /// Owner recorded on a delete marker.
    pub owner: String,
    /// Conditions.
    pub preconditions: Preconditions,
}

/// A page of a listing asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Only keys that begin so.
    pub prefix: String,
    /// Roll up keys that have this after the prefix; empty for none.
    pub delimiter: String,
    /// Strictly after this key or common prefix; empty from the start.
    pub after: String,
    /// At most this many entries and common prefixes together (0..=1000).
    pub limit: usize,
}

/// A current version in a listing, without its bytes' whereabouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// The key.
    pub key: String,
    /// Bytes.
    pub object_bytes: u64,
    /// ETag without quotes.
    pub etag: String,
    /// Time.
    pub modified_ms: u64,
    /// Owner.
    pub owner: String,
    /// Checksum algorithms it has.
    pub checksum_algorithms: Vec<String>,
    /// Storage class, empty for STANDARD.
    pub storage_class: String,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Keys in order.
    pub entries: Vec<ListEntry>,
    /// Rolled-up prefixes in order.
    pub common_prefixes: Vec<String>,
    /// Whether there is more; then go on `after` this.
    pub next_after: Option<String>,
}

/// A page of a version listing asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListVersionsRequest {
    /// Only keys that begin so.
    pub prefix: String,
    /// Roll up; empty for none.
    pub delimiter: String,
    /// Go on after this key; empty from the start.
    pub key_marker: String,
    /// With a key marker: go on after this version of it (`null` or hex), there or not; empty: after all its versions.
    pub version_marker: String,
    /// At most this many (0..=1000).
    pub limit: usize,
}

/// A version in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionEntry {
    /// As a current version.
    pub entry: ListEntry,
    /// S3 version id.
    pub version: String,
    /// Whether it is the newest of its key.
    pub is_latest: bool,
    /// Whether it is a delete marker.
    pub delete_marker: bool,
}

/// A page of versions, newest first within a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionPage {
    /// Versions in order.
    pub entries: Vec<VersionEntry>,
    /// Rolled-up prefixes.
    pub common_prefixes: Vec<String>,
    /// Whether there is more; (key marker, version marker) to go on with.
    pub next: Option<(String, String)>,
}

/// An upload in a listing.
#[derive(Clone, Debug, PartialEq)]
pub struct UploadEntry {
    /// Its key.
    pub key: String,
    /// The record.
    pub upload: Upload,
}

/// A page of uploads in (key, upload id) order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UploadPage {
    /// Uploads in order.
    pub entries: Vec<UploadEntry>,
    /// Rolled-up prefixes.
    pub common_prefixes: Vec<String>,
    /// Whether there is more; (key marker, upload id marker) to go on with.
    pub next: Option<(String, String)>,
}

/// Completion of an upload. `apply` checks each part's presence and ETag and moves the parts' segments to the version.
#[derive(Clone, Debug, PartialEq)]
pub struct CompleteUpload {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: String,
    /// The upload.
    pub upload: VersionId,
    /// (number, ETag) of each part, strictly ascending.
    pub parts: Vec<(u32, String)>,
    /// The version to make: id, etag, checksums, time, attributes filled in by the caller (who listed the parts);
    /// `apply` fills in segments, parts and object_bytes.
    pub version: ObjectVersion,
    /// The bucket's versioning as the caller saw it.
    pub versioning: Versioning,
    /// Conditions.
    pub preconditions: Preconditions,
}

/// A segment whose shards are to be freed.
#[derive(Clone, Debug, PartialEq)]
pub struct Garbage {
    /// Its place in the queue; given back to `garbage_done`.
    pub sequence: u64,
    /// The segment.
    pub segment: Segment,
}

/// Who refers to a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentOwner {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: String,
    /// The version, or the upload for a part not yet completed.
    pub version: VersionId,
    /// The part's number if it belongs to an upload in progress.
    pub part: Option<u32>,
}

/// A backend as the root group records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendRecord {
    /// Which.
    pub id: BackendId,
    /// Short name: d1.
    pub name: String,
    /// `disk:PATH`.
    pub location: String,
    /// What the operator wants of it.
    pub intent: BackendIntent,
    /// The node it is attached to.
    #[serde(default = "first_node", skip_serializing_if = "is_first_node")]
    pub node: NodeId,
}

/// The node that made the cluster: whose all backends were before there were others.
fn first_node() -> NodeId {
    NodeId::FIRST
}

fn is_first_node(node: &NodeId) -> bool {
    *node == NodeId::FIRST
}

/// The cluster map: nodes, their backends and the PG table, changed together by compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// The cluster.
    pub cluster: ClusterId,
    /// Nodes known; empty on a store made before it could grow, which is a cluster of node 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeRecord>,
    /// Backends known.
    pub backends: Vec<BackendRecord>,
    /// Where shards go.
    pub table: PgTable,
    /// What must be survived; empty on a store that promises what its scheme survives: any so many backends.
    #[serde(default, skip_serializing_if = "Promise::is_empty")]
    pub promise: Promise,
    /// Whether an operator chose the promise. If not, it follows the nodes: the strongest of the usual promises that the
    /// scheme can keep on them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_promise_chosen: bool,
    /// That the table's targets keep the promise, as found when they were planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// What an operator holds back.
    #[serde(default, skip_serializing_if = "Holds::is_nothing")]
    pub held: Holds,
    /// What the change was that made this map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<MapChange>,
}

/// What an operator holds back until it is resumed. Part of the map, so that it outlives restarts and leaders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// No repair begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repair: bool,
    /// No healthy shard is moved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
    /// No layout is planned but for what is lost, or was ordered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub planning: bool,
}

impl Holds {
    /// Whether nothing is held back.
    pub fn is_nothing(&self) -> bool {
        !self.repair && !self.moves && !self.planning
    }
}

impl ClusterMap {
    /// A map without nodes and backends, that was told no promise.
    pub fn new(cluster: ClusterId, table: PgTable) -> Self {
        let (nodes, backends, promise) = (Vec::new(), Vec::new(), Promise::default());
        let (proof, held, change) = (None, Holds::default(), None);
        Self { cluster, nodes, backends, table, promise, is_promise_chosen: false, proof, held, change }
    }
}

/// The metadata of the store.
#[async_trait]
pub trait Metadata: Send + Sync + 'static {
    // --- root group: cluster map
    /// The current map; `None` before `cluster_map_set` was ever called.
    async fn cluster_map(&self) -> MetadataResult<Option<ClusterMap>>;
    /// Replaces the map if its table's epoch is still `expected` (0 before the first). The new epoch must be
    /// `expected + 1`.
    async fn cluster_map_set(&self, expected: Epoch, map: ClusterMap) -> MetadataResult<()>;
    /// The last changes of the map, newest first; of those only that told what they were.
    async fn map_history(&self) -> MetadataResult<Vec<MapChange>> {
        Ok(Vec::new())
    }

    // --- root group: access keys
    /// A key, from memory: on the path of every request, so it does not wait.
    fn access_key(&self, access_key: &str) -> Option<AccessKey>;
    /// Adds a key.
    async fn access_key_create(&self, key: AccessKey) -> MetadataResult<()>;
    /// All keys, by name of the key.
    async fn access_key_list(&self) -> MetadataResult<Vec<AccessKey>>;
    /// Removes a key. The root key cannot be removed (`Invalid`).
    async fn access_key_delete(&self, access_key: &str) -> MetadataResult<()>;

    // --- root group: buckets
    /// A bucket by name, from memory: on the path of every request, so it does not wait.
    fn bucket(&self, name: &str) -> Option<Bucket>;
    /// The same, but a bucket that is not in memory is looked for again once this node holds all that was acknowledged
    /// before the call: it may have been made at another coordinator a moment ago.
    async fn find_bucket(&self, name: &str) -> MetadataResult<Option<Bucket>>;
    /// Makes a bucket.
    async fn bucket_create(&self, name: &str, owner: &str, now_ms: u64) -> MetadataResult<Bucket>;
    /// All buckets by name.
    async fn bucket_list(&self) -> MetadataResult<Vec<Bucket>>;
    /// Removes the bucket if it is empty. Goes on when its caller is dropped.
    async fn bucket_delete(&self, name: &str) -> MetadataResult<()>;
    /// Sets versioning (never back to `Unversioned`).
    async fn bucket_set_versioning(&self, name: &str, versioning: Versioning) -> MetadataResult<()>;
    /// Replaces the bucket's tags.
    async fn bucket_set_tags(&self, name: &str, tags: Vec<Pair>) -> MetadataResult<()>;

    // --- who writes
    /// The session to write segments in. To be asked for before the first of them is begun, and given with the record that
    /// names them.
    async fn writer_session(&self) -> MetadataResult<WriterSession>;
    /// Bars what the coordinator on `node` has under way: once this returns, no record of a segment that it began before
    /// the call can become visible any more.
    async fn writer_fence(&self, node: NodeId) -> MetadataResult<()>;

    // --- ranges: objects
    /// Makes a version current. Segments of what it replaces become garbage in the same batch. Returns the version as
    /// stored.
    async fn put_version(&self, put: PutVersion) -> MetadataResult<ObjectVersion>;
    /// A version; `None` if there is none. Delete markers are returned as such.
    async fn get_version(
        &self,
        bucket: BucketId,
        key: &str,
        selector: VersionSelector,
    ) -> MetadataResult<Option<ObjectVersion>>;
    /// Deletes. Deleting what is not there succeeds.
    async fn delete_version(&self, delete: DeleteVersion) -> MetadataResult<Deleted>;
    /// Replaces attributes' tags of a version, nothing else. Returns its S3 version id.
    async fn set_tags(
        &self,
        bucket: BucketId,
        key: &str,
        selector: VersionSelector,
        tags: Vec<Pair>,
    ) -> MetadataResult<String>;
    /// A page of current versions (delete markers left out).
    async fn list(&self, bucket: BucketId, request: ListRequest) -> MetadataResult<ListPage>;
    /// A page of all versions.
    async fn list_versions(&self, bucket: BucketId, request: ListVersionsRequest) -> MetadataResult<VersionPage>;

    // --- ranges: multipart
    /// Begins an upload; its id is in the record.
    async fn upload_create(&self, bucket: BucketId, key: &str, upload: Upload) -> MetadataResult<()>;
    /// The upload's record.
    async fn upload_get(&self, bucket: BucketId, key: &str, upload: VersionId) -> MetadataResult<Upload>;
    /// Adds or replaces a part (the replaced one becomes garbage).
    async fn part_put(
        &self,
        bucket: BucketId,
        key: &str,
        upload: VersionId,
        part: Part,
        session: Option<WriterSession>,
    ) -> MetadataResult<()>;
    /// Up to `limit` parts with a number above `after`, ascending.
    async fn part_list(
        &self,
        bucket: BucketId,
        key: &str,
        upload: VersionId,
        after: u32,
        limit: usize,
    ) -> MetadataResult<Vec<Part>>;
    /// Completes. Unused parts become garbage. A retry after success returns the same version.
    async fn upload_complete(&self, complete: CompleteUpload) -> MetadataResult<ObjectVersion>;
    /// Aborts; all parts become garbage.
    async fn upload_abort(&self, bucket: BucketId, key: &str, upload: VersionId) -> MetadataResult<()>;
    /// A page of uploads in progress, after (key marker, upload id marker).
    async fn upload_list(&self, bucket: BucketId, request: ListVersionsRequest) -> MetadataResult<UploadPage>;

    // --- ranges: garbage and the reverse index
    /// The oldest garbage, at most `limit`.
    async fn garbage(&self, limit: usize) -> MetadataResult<Vec<Garbage>>;
    /// Forgets garbage whose shards were freed.
    async fn garbage_done(&self, sequences: Vec<u64>) -> MetadataResult<()>;
    /// Who refers to the segment and its record; `None` for an orphan or garbage.
    async fn segment_owner(&self, segment: SegmentId) -> MetadataResult<Option<(SegmentOwner, Segment)>>;
    /// Up to `limit` referenced segments after `after` in id order: the whole inventory, for repair's planning.
    async fn segments(&self, after: Option<SegmentId>, limit: usize) -> MetadataResult<Vec<(SegmentOwner, Segment)>>;
    /// Records which slots of a segment are durable now (after repair).
    async fn segment_set_durable(&self, segment: SegmentId, durable_slots: u64) -> MetadataResult<()>;

    /// Groups with fewer voters than there are coordinators for, by this node's copy of the root group: just made, or
    /// waiting for a coordinator to catch up. What they hold outlives fewer losses than was promised.
    fn thin_groups(&self) -> Vec<ThinGroup> {
        Vec::new()
    }

    /// Flushes everything and stops the groups. Later calls fail with `Unavailable`.
    async fn shutdown(&self) -> MetadataResult<()>;
}

/// A metadata group that has not all its voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThinGroup {
    /// Its number; 0 is the root group.
    pub group: u32,
    /// Voters it has.
    pub voters: usize,
    /// Voters it should have.
    pub wanted: usize,
}

/// A checksum record from its parts.
pub fn checksum(algorithm: &str, value: impl Into<Bytes>, part_count: u32) -> Checksum {
    Checksum { algorithm: algorithm.to_owned(), value: value.into(), part_count }
}

/// Attributes of a version, empty ones if it has none.
pub fn attributes_of(version: &ObjectVersion) -> Attributes {
    version.attributes.clone().unwrap_or_default()
}
