//! The calls of `NodeClient` as messages between nodes: the heads of frames on the data plane (docs/formats.md, "Shards
//! over the wire"). Bulk bytes travel beside them, in the frames' bodies.
//!
//! prost messages with hand-written tags: unknown fields are skipped, tags are never reused. Every message is converted
//! into the types of `proto::node` before it is used.
//!
//! **Invariant:** what is not what it should be (an id of another length, a number out of range, a state this build does
//! not know) is refused by the conversion; nothing a peer sends panics (`no_bytes_panic`).

mod error;
mod ping;
mod replies;
mod requests;

#[cfg(test)]
mod tests;

pub use error::{Fault, Reply};
pub use ping::{NodeLoad, Ping, Pong};
pub use replies::{
    BackendList, BackendSummary, Empty, ReadHead, ScrubReply, StatList, StatMessage, StatReply, StatusMessage,
    stat_from, status_from,
};
pub use requests::{
    AddBackend, DeleteShards, ListShards, NameBackend, NameShard, ReadCells, ScrubShards, WriteBegin, WriteCells,
};

use crate::ids::{BackendId, ShardId};
use bytes::Bytes;

/// Shards a single deletion names at most: 2 MiB of ids stay below a frame's head.
pub const DELETE_SHARDS_MAX: usize = 50_000;
/// Shards a page of a listing holds at most: about 1 MiB.
pub const LIST_SHARDS_MAX: usize = 10_000;
/// Bytes of cells one read answers at most: a frame's body.
pub const READ_BYTES_MAX: u64 = 16 << 20;
/// Largest cell a shard may be written with; those of every scheme are 64 KiB or less.
pub const CELL_BYTES_MAX: u32 = 1 << 20;
/// Bytes of cells one frame of a write carries at most; writers cut larger batches.
pub const WRITE_FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes one step of scrub reads at most.
pub const SCRUB_BYTES_MAX: u64 = 1 << 30;
/// Longest text (a reason, a location) that is taken in.
pub const TEXT_BYTES_MAX: usize = 4096;

/// A message that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {what}")]
pub struct Malformed {
    /// What is wrong with it.
    pub what: String,
}

impl Malformed {
    /// With what is wrong.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// Reads a message.
///
/// # Errors
/// The bytes are no such message.
pub fn decode<M: prost::Message + Default>(head: &[u8]) -> Result<M, Malformed> {
    M::decode(head).map_err(|error| Malformed::new(error.to_string()))
}

/// The bytes of a message.
pub fn encode(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

pub(crate) fn backend_bytes(id: BackendId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub(crate) fn shard_bytes(id: ShardId) -> Bytes {
    Bytes::copy_from_slice(&id.encode())
}

pub(crate) fn shards_bytes(ids: &[ShardId]) -> Bytes {
    ids.iter().flat_map(ShardId::encode).collect()
}

pub(crate) fn backend_from(bytes: &[u8]) -> Result<BackendId, Malformed> {
    BackendId::from_slice(bytes).ok_or_else(|| Malformed::new(format!("a backend id of {} bytes", bytes.len())))
}

pub(crate) fn shard_from(bytes: &[u8]) -> Result<ShardId, Malformed> {
    ShardId::decode(bytes).ok_or_else(|| Malformed::new(format!("a shard id of {} bytes", bytes.len())))
}

/// A shard id, or none for no bytes.
pub(crate) fn optional_shard_from(bytes: &[u8]) -> Result<Option<ShardId>, Malformed> {
    if bytes.is_empty() { Ok(None) } else { shard_from(bytes).map(Some) }
}

pub(crate) fn shards_from(bytes: &[u8], count_max: usize) -> Result<Vec<ShardId>, Malformed> {
    let (count, rest) = (bytes.len() / ShardId::ENCODED_BYTES, bytes.len() % ShardId::ENCODED_BYTES);
    if rest != 0 || count > count_max {
        return Err(Malformed::new(format!("{} bytes of shard ids, at most {count_max} ids allowed", bytes.len())));
    }
    bytes.chunks_exact(ShardId::ENCODED_BYTES).map(shard_from).collect()
}

pub(crate) fn hash_from(bytes: &[u8]) -> Result<[u8; 32], Malformed> {
    bytes.try_into().map_err(|_| Malformed::new(format!("a hash of {} bytes", bytes.len())))
}

pub(crate) fn text_from(text: String) -> Result<String, Malformed> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(text);
    }
    Err(Malformed::new(format!("a text of {} bytes, {TEXT_BYTES_MAX} allowed", text.len())))
}

/// Text for the wire: its first bytes, if it is longer than a receiver takes.
pub(crate) fn text_bounded(text: &str) -> String {
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text[..end].to_owned()
}
