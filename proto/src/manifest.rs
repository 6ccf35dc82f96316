//! The durable records of the namespace: object versions, their segments, uploads and parts, buckets and keys.
//!
//! prost messages with hand-written tags (docs/formats.md): unknown fields are skipped, tags are never reused. Sizes
//! are bytes, times are milliseconds since 1970 (UTC).

use crate::ids::{BackendId, PgId, SegmentId, ShardId, Slot, VersionId};
use bytes::Bytes;

/// One run of object bytes placed as one in a PG and coded as a run of stripes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Segment {
    /// 16 bytes, see `SegmentId`.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// The placement group.
    #[prost(uint32, tag = "2")]
    pub pg: u32,
    /// Object bytes in it (> 0).
    #[prost(uint64, tag = "3")]
    pub segment_bytes: u64,
    /// Code id, 4 bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub scheme: Bytes,
    /// Bytes of a full cell.
    #[prost(uint32, tag = "5")]
    pub cell_bytes: u32,
    /// BLAKE3 over the concatenated cell hashes of each slot's shard, in slot order: n x 32 bytes. A shard valid in
    /// itself but not this one is refused by it.
    #[prost(bytes = "bytes", tag = "6")]
    pub shard_roots: Bytes,
    /// Slots that were durable when the write was acknowledged, one bit a slot (slot 0 = lowest bit). The others are
    /// repair work.
    #[prost(uint64, tag = "7")]
    pub durable_slots: u64,
    /// Where the segment begins in what was uploaded as one (its object or its part), as its shard headers say.
    #[prost(uint64, tag = "8")]
    pub segment_offset: u64,
    /// Shards that were written elsewhere than the table says, because the backend of their slot did not answer. They may
    /// have gone home since.
    #[prost(message, repeated, tag = "9")]
    pub stand_ins: Vec<StandIn>,
}

/// A shard that another backend took in.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StandIn {
    /// Its slot.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// The backend that took it, 16 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub backend: Bytes,
}

impl StandIn {
    /// The shard of `slot` is on `backend`.
    pub fn new(slot: Slot, backend: BackendId) -> Self {
        Self { slot: u32::from(slot.0), backend: Bytes::copy_from_slice(&backend.0) }
    }
}

impl Segment {
    /// Its id; all zero if the record is damaged (never written so).
    pub fn segment_id(&self) -> SegmentId {
        SegmentId::from_slice(&self.id).unwrap_or_default()
    }
    /// The shard in `slot`.
    pub fn shard(&self, slot: Slot) -> ShardId {
        ShardId { pg: PgId(self.pg), segment: self.segment_id(), slot }
    }
    /// The backend that took the shard of `slot` in, if one did.
    pub fn stand_in(&self, slot: Slot) -> Option<BackendId> {
        let found = self.stand_ins.iter().find(|stand_in| stand_in.slot == u32::from(slot.0))?;
        Some(BackendId(found.backend.as_ref().try_into().ok()?))
    }
    /// The root hash of the shard in `slot`, if the record has one.
    pub fn shard_root(&self, slot: Slot) -> Option<[u8; 32]> {
        let at = usize::from(slot.0) * 32;
        self.shard_roots.get(at..at + 32)?.try_into().ok()
    }
}

/// A header or tag: a name and a value.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Pair {
    /// The name (for user metadata: lower case, without `x-amz-meta-`).
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value as the client sent it.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A checksum of the object's bytes (or, composite, of its parts' checksums).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Checksum {
    /// One of CRC32, CRC32C, CRC64NVME, SHA1, SHA256, as S3 spells them.
    #[prost(string, tag = "1")]
    pub algorithm: String,
    /// The raw value (big-endian for CRCs).
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// For a composite checksum: how many parts; 0 for a full-object one.
    #[prost(uint32, tag = "3")]
    pub part_count: u32,
}

/// What a client may set on an object besides its bytes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Attributes {
    /// Content-Type; empty means `binary/octet-stream`.
    #[prost(string, tag = "1")]
    pub content_type: String,
    /// The other stored content headers by their lower-case name: cache-control, content-disposition,
    /// content-encoding, content-language, expires, website redirect, storage class (`x-amz-storage-class`).
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<Pair>,
    /// User metadata, in the order sent.
    #[prost(message, repeated, tag = "3")]
    pub user_metadata: Vec<Pair>,
    /// Object tags.
    #[prost(message, repeated, tag = "4")]
    pub tags: Vec<Pair>,
}

/// One completed part of a multipart object, kept for `partNumber` reads and GetObjectAttributes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PartInfo {
    /// 1..=10000.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// Its bytes.
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    /// Its checksums.
    #[prost(message, repeated, tag = "3")]
    pub checksums: Vec<Checksum>,
}

/// One version of one key: the manifest. Either `inline` holds all its bytes, or `segments` do, in order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ObjectVersion {
    /// 16 bytes, see `VersionId`.
    #[prost(bytes = "bytes", tag = "1")]
    pub version: Bytes,
    /// Whether S3 calls it `null`: written while the bucket was unversioned or suspended.
    #[prost(bool, tag = "2")]
    pub is_null: bool,
    /// A delete marker: no bytes, no etag.
    #[prost(bool, tag = "3")]
    pub delete_marker: bool,
    /// Object bytes.
    #[prost(uint64, tag = "4")]
    pub object_bytes: u64,
    /// ETag without quotes: 32 hex digits, or `hex-parts` for multipart.
    #[prost(string, tag = "5")]
    pub etag: String,
    /// When it was written.
    #[prost(uint64, tag = "6")]
    pub modified_ms: u64,
    /// Headers, metadata, tags.
    #[prost(message, optional, tag = "7")]
    pub attributes: Option<Attributes>,
    /// Checksums given or computed.
    #[prost(message, repeated, tag = "8")]
    pub checksums: Vec<Checksum>,
    /// The bytes of a small object.
    #[prost(bytes = "bytes", tag = "9")]
    pub inline: Bytes,
    /// The bytes of any other object, in order.
    #[prost(message, repeated, tag = "10")]
    pub segments: Vec<Segment>,
    /// For a multipart object: its parts in order.
    #[prost(message, repeated, tag = "11")]
    pub parts: Vec<PartInfo>,
    /// Who wrote it (access key's owner id).
    #[prost(string, tag = "12")]
    pub owner: String,
}

impl ObjectVersion {
    /// Its id; all zero if the record is damaged (never written so).
    pub fn version_id(&self) -> VersionId {
        VersionId::from_slice(&self.version).unwrap_or_default()
    }
    /// The id as S3 shows it: `null` or 32 hexadecimal characters.
    pub fn s3_version_id(&self) -> String {
        if self.is_null { "null".to_owned() } else { self.version_id().to_string() }
    }
}

/// A multipart upload in progress.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Upload {
    /// 16 bytes: the upload's id (a `VersionId`), which parts' shard headers carry as their version.
    #[prost(bytes = "bytes", tag = "1")]
    pub upload: Bytes,
    /// When it was created.
    #[prost(uint64, tag = "2")]
    pub created_ms: u64,
    /// Attributes of the object to be.
    #[prost(message, optional, tag = "3")]
    pub attributes: Option<Attributes>,
    /// Checksum algorithm asked for at creation; empty for none.
    #[prost(string, tag = "4")]
    pub checksum_algorithm: String,
    /// `FULL_OBJECT`, `COMPOSITE` or empty.
    #[prost(string, tag = "5")]
    pub checksum_type: String,
    /// Who created it.
    #[prost(string, tag = "6")]
    pub owner: String,
}

/// A part that was uploaded.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Part {
    /// 1..=10000.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// Its bytes.
    #[prost(uint64, tag = "2")]
    pub part_bytes: u64,
    /// MD5 in hex.
    #[prost(string, tag = "3")]
    pub etag: String,
    /// When it was uploaded.
    #[prost(uint64, tag = "4")]
    pub modified_ms: u64,
    /// Its checksums.
    #[prost(message, repeated, tag = "5")]
    pub checksums: Vec<Checksum>,
    /// Small parts keep their bytes here until completion.
    #[prost(bytes = "bytes", tag = "6")]
    pub inline: Bytes,
    /// The segments of any other part.
    #[prost(message, repeated, tag = "7")]
    pub segments: Vec<Segment>,
}

/// Versioning of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Versioning {
    /// Never switched on.
    Unversioned = 0,
    /// Every write makes a version.
    Enabled = 1,
    /// Writes replace the `null` version; older versions stay.
    Suspended = 2,
}

/// A bucket, kept by the root group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Bucket {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// When it was created.
    #[prost(uint64, tag = "3")]
    pub created_ms: u64,
    /// Who created it.
    #[prost(string, tag = "4")]
    pub owner: String,
    /// Versioning state.
    #[prost(enumeration = "Versioning", tag = "5")]
    pub versioning: i32,
    /// Bucket tags.
    #[prost(message, repeated, tag = "6")]
    pub tags: Vec<Pair>,
    /// Set while the bucket is being deleted: no write is accepted.
    #[prost(bool, tag = "7")]
    pub deleting: bool,
}

/// An access key, kept by the root group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AccessKey {
    /// What requests name.
    #[prost(string, tag = "1")]
    pub access_key: String,
    /// What signs them.
    #[prost(string, tag = "2")]
    pub secret_key: String,
    /// A name for people; also the display name of what it owns.
    #[prost(string, tag = "3")]
    pub name: String,
    /// When it was created.
    #[prost(uint64, tag = "4")]
    pub created_ms: u64,
    /// Whether it may administer the store.
    #[prost(bool, tag = "5")]
    pub is_root: bool,
}
