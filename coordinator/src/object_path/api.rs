//! What the S3 endpoint asks of the object path. No S3 type here, no IO type of a backend either.

use crate::metadata::MetadataError;
use bytes::Bytes;
use futures::stream::BoxStream;
use holdfast_proto::manifest::{Attributes, Bucket, ObjectVersion, Part};
use holdfast_proto::{ErrorKind, VersionId};
use std::ops::Range;
use std::sync::Arc;

/// Why a body ended early, as the door or the connection says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The client went away or sent fewer bytes than it said.
    #[error("incomplete body: {reason}")]
    Incomplete {
        /// What was missing.
        reason: String,
    },
    /// Bytes do not match what was signed (payload hash or chunk signature).
    #[error("body does not match its signature: {reason}")]
    Signature {
        /// Which check.
        reason: String,
    },
    /// Chunk framing is malformed.
    #[error("malformed body: {reason}")]
    Malformed {
        /// Where.
        reason: String,
    },
    /// The declared payload SHA-256 is not that of the bytes.
    #[error("x-amz-content-sha256 does not match the body")]
    ContentSha256,
    /// Longer than allowed.
    #[error("body is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Shorter than a POST policy asks for.
    #[error("body is smaller than {minimum} bytes")]
    TooSmall {
        /// The least.
        minimum: u64,
    },
    /// No byte came for too long.
    #[error("body timed out")]
    TimedOut,
}

/// Object bytes on their way in; an error is its last item.
pub type BodyStream = BoxStream<'static, Result<Bytes, BodyError>>;
/// Object bytes on their way out; an error is its last item (the connection must then be cut).
pub type ReadStream = BoxStream<'static, Result<Bytes, ObjectError>>;

/// Checksum algorithms S3 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO-HDLC).
    Crc32,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl ChecksumAlgorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// As S3 spells it: `CRC32C`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }
    /// By its S3 name, any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name().eq_ignore_ascii_case(name))
    }
    /// Bytes of a value.
    pub fn value_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// Where a value that comes after the body (an aws-chunked trailer) can be asked for once the body has ended:
/// name of the trailing header (lower case) to its value.
pub type TrailerSource = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What the client said the bytes hash to.
#[derive(Clone, Default)]
pub struct ChecksumExpectation {
    /// Content-MD5.
    pub content_md5: Option<[u8; 16]>,
    /// The algorithm to compute and keep; CRC64NVME is computed and kept when the client names none.
    pub algorithm: Option<ChecksumAlgorithm>,
    /// Its value, if sent ahead of the body.
    pub value: Option<Vec<u8>>,
    /// Asked for `x-amz-checksum-<algorithm>` (base64) after the body, if the value comes as a trailer.
    pub trailer: Option<TrailerSource>,
}

/// A PUT.
pub struct PutRequest {
    /// The bucket as looked up.
    pub bucket: Bucket,
    /// The key.
    pub key: String,
    /// What else to store.
    pub attributes: Attributes,
    /// Owner to record.
    pub owner: String,
    /// Bytes to come, where the client said.
    pub object_bytes: Option<u64>,
    /// At most this many (POST policies); `None` for the general limit of 5 GiB.
    pub object_bytes_max: Option<u64>,
    /// What they should hash to.
    pub expect: ChecksumExpectation,
    /// Conditions, judged first (cheaply, to refuse before reading the body) and again in `apply`.
    pub preconditions: crate::metadata::Preconditions,
}

/// One part of a multipart upload.
pub struct PutPartRequest {
    /// The bucket as looked up.
    pub bucket: Bucket,
    /// The key.
    pub key: String,
    /// The upload.
    pub upload: VersionId,
    /// 1..=10000.
    pub number: u32,
    /// Bytes to come, where the client said.
    pub part_bytes: Option<u64>,
    /// What they should hash to.
    pub expect: ChecksumExpectation,
}

/// What a write reached, for the `x-holdfast-durability` reply header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurabilityReceipt {
    /// Fewest shards durable of any segment; 0 for an inline object.
    pub shards: u32,
    /// Shards of a whole segment (k+m); 0 for an inline object.
    pub shards_total: u32,
    /// Most shards of any segment that are not where they belong but on backends that stand in.
    pub stand_ins: u32,
    /// Whether the bytes live in the metadata record.
    pub inline: bool,
}

impl std::fmt::Display for DurabilityReceipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.inline {
            return f.write_str("inline, regions=1, fsync=yes");
        }
        write!(f, "shards={}/{}, regions=1, fsync=yes", self.shards, self.shards_total)?;
        if self.stand_ins > 0 {
            write!(f, ", stand-ins={}", self.stand_ins)?;
        }
        Ok(())
    }
}

/// What a PUT made.
#[derive(Clone, Debug, PartialEq)]
pub struct PutOutcome {
    /// The version as stored.
    pub version: ObjectVersion,
    /// What is durable.
    pub receipt: DurabilityReceipt,
}

/// What a part upload made.
#[derive(Clone, Debug, PartialEq)]
pub struct PutPartOutcome {
    /// The part as stored.
    pub part: Part,
    /// What is durable.
    pub receipt: DurabilityReceipt,
}

/// Why an object operation failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ObjectError {
    /// Metadata said no.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The body ended wrongly.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// Content-MD5 is not that of the bytes.
    #[error("Content-MD5 does not match: sent {expected}, computed {computed}")]
    ContentMd5 {
        /// Hex.
        expected: String,
        /// Hex.
        computed: String,
    },
    /// A checksum is not that of the bytes.
    #[error("{algorithm} does not match: sent {expected}, computed {computed}")]
    Checksum {
        /// Its S3 name.
        algorithm: &'static str,
        /// Base64.
        expected: String,
        /// Base64.
        computed: String,
    },
    /// A trailer or header that should carry a checksum is missing or malformed.
    #[error("invalid checksum for {algorithm}: {reason}")]
    ChecksumInvalid {
        /// Its S3 name.
        algorithm: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Larger than allowed.
    #[error("object is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Fewer than k+1 shards could be made durable; nothing was acknowledged.
    #[error("only {durable} of the needed {needed} shards could be made durable: {reason}")]
    TooFewBackends {
        /// How many were.
        durable: u32,
        /// How many are needed.
        needed: u32,
        /// First cause.
        reason: String,
        /// Whether backends are full rather than gone.
        full: bool,
    },
    /// Fewer than k shards can be read now.
    #[error("segment {segment}: only {present} of the needed {needed} shards are readable now")]
    Unreadable {
        /// Which segment.
        segment: String,
        /// How many are.
        present: u32,
        /// k.
        needed: u32,
    },
    /// A bug or a fault of the machine.
    #[error("internal: {reason}")]
    Internal {
        /// What.
        reason: String,
    },
}

impl ObjectError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Metadata(e) => e.kind(),
            Self::Body(_)
            | Self::ContentMd5 { .. }
            | Self::Checksum { .. }
            | Self::ChecksumInvalid { .. }
            | Self::TooLarge { .. } => ErrorKind::Invalid,
            Self::TooFewBackends { full: true, .. } => ErrorKind::Full,
            Self::TooFewBackends { .. } => ErrorKind::Retry,
            Self::Unreadable { .. } => ErrorKind::Damaged,
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }
}

/// A read: which version and which of its bytes.
pub struct ReadRequest {
    /// The version, as metadata gave it.
    pub version: Arc<ObjectVersion>,
    /// Half-open range of object bytes, within the object.
    pub range: Range<u64>,
}

/// What repair and the status page are told by reads and writes, as it happens. Sent on a bounded channel; when it is
/// full the hint is dropped (scrub and the planner's scan find the damage anyway).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamageHint {
    /// The shard found missing or damaged, or left unwritten.
    pub shard: holdfast_proto::ShardId,
    /// Where it should be.
    pub backend: holdfast_proto::BackendId,
}
