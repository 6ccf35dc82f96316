//! Messages between coordinators beside consensus: what requests under way do, damage met by reads, and administrative
//! requests passed on. Drawn in docs/formats.md, "Between coordinators".

use bytes::Bytes;

/// Asks a coordinator what its requests write and read.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ActivityRequest {
    /// The asker wants the answer of a moment when the coordinator knew a cluster map of at least this epoch.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
}

/// What a coordinator's requests write and read.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ActivityReply {
    /// Epoch of the newest cluster map the coordinator knew before it looked.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// Segments being written.
    #[prost(message, repeated, tag = "2")]
    pub writing: Vec<SegmentWrite>,
    /// Ids of segments being read, 16 bytes each, back to back.
    #[prost(bytes = "bytes", tag = "3")]
    pub reading: Bytes,
}

/// A segment being written.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SegmentWrite {
    /// Its id, 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub segment: Bytes,
    /// The epoch its shards are placed by.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
}

/// Shards that failed, to be looked at by repair.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DamageHints {
    /// Which.
    #[prost(message, repeated, tag = "1")]
    pub hints: Vec<DamageHint>,
}

/// A shard that failed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DamageHint {
    /// The shard's id, 21 bytes (`ShardId::encode`).
    #[prost(bytes = "bytes", tag = "1")]
    pub shard: Bytes,
    /// The backend it should be on, 16 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub backend: Bytes,
}

/// An administrative request that its receiver cannot answer itself. Whoever sent it has checked its signature.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AdminForward {
    /// HTTP method.
    #[prost(string, tag = "1")]
    pub method: String,
    /// Path and query.
    #[prost(string, tag = "2")]
    pub target: String,
    /// Body.
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
    /// The root key's name, for the log.
    #[prost(string, tag = "4")]
    pub access_key: String,
}

/// The answer to be given to whoever sent the request.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AdminForwarded {
    /// HTTP status.
    #[prost(uint32, tag = "1")]
    pub status: u32,
    /// JSON.
    #[prost(bytes = "bytes", tag = "2")]
    pub body: Bytes,
    /// Whoever was asked does not lead any more: nothing was done, and another may be asked.
    #[prost(bool, tag = "3")]
    pub is_elsewhere: bool,
}
