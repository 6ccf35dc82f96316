//! What a coordinator asks: the first head of a call, and the later ones of a write.

use super::{
    CELL_BYTES_MAX, DELETE_SHARDS_MAX, Malformed, backend_bytes, backend_from, hash_from, optional_shard_from,
    shard_bytes, shard_from, shards_bytes, shards_from, text_from,
};
use crate::cell_buffer::CellBuffer;
use crate::ids::{BackendId, PgId, ShardId};
use crate::node::Cell;
use crate::shard_header::ShardHeader;
use bytes::Bytes;

/// ShardWrite: begins a shard.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WriteBegin {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub backend: Bytes,
    /// The stored form of the shard header, 256 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub header: Bytes,
}

/// ShardWrite: the next cells, which are the frame's body, back to back.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WriteCells {
    /// The bytes of each.
    #[prost(uint32, repeated, tag = "1")]
    pub cell_bytes: Vec<u32>,
    /// The hash of each, 32 bytes each.
    #[prost(bytes = "bytes", tag = "2")]
    pub hashes: Bytes,
}

/// ShardRead.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReadCells {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub backend: Bytes,
    /// 21 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub shard: Bytes,
    /// First cell.
    #[prost(uint32, tag = "3")]
    pub first: u32,
    /// How many.
    #[prost(uint32, tag = "4")]
    pub count: u32,
    /// The root the shard must have, 32 bytes; empty for any.
    #[prost(bytes = "bytes", tag = "5")]
    pub expected_root: Bytes,
}

/// ShardStat.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NameShard {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub backend: Bytes,
    /// 21 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub shard: Bytes,
}

/// ShardDelete.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteShards {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub backend: Bytes,
    /// 21 bytes each.
    #[prost(bytes = "bytes", tag = "2")]
    pub shards: Bytes,
}

/// ShardList.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListShards {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub backend: Bytes,
    /// Of which PG.
    #[prost(uint32, tag = "2")]
    pub pg: u32,
    /// After which, 21 bytes; empty from the first.
    #[prost(bytes = "bytes", tag = "3")]
    pub after: Bytes,
    /// How many at most.
    #[prost(uint32, tag = "4")]
    pub limit: u32,
}

/// ShardScrub.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ScrubShards {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub backend: Bytes,
    /// After which, 21 bytes; empty from the first.
    #[prost(bytes = "bytes", tag = "2")]
    pub after: Bytes,
    /// About how many bytes to read.
    #[prost(uint64, tag = "3")]
    pub budget_bytes: u64,
}

/// BackendAdd.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AddBackend {
    /// `disk:PATH`.
    #[prost(string, tag = "1")]
    pub location: String,
    /// Short name.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// BackendRemove.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NameBackend {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub backend: Bytes,
}

impl WriteBegin {
    /// For a shard of `backend`.
    pub fn new(backend: BackendId, header: &ShardHeader) -> Self {
        Self { backend: backend_bytes(backend), header: Bytes::copy_from_slice(&header.encode()) }
    }

    /// What it asks.
    ///
    /// # Errors
    /// An id, a header or a cell length that cannot be.
    pub fn parse(&self) -> Result<(BackendId, ShardHeader), Malformed> {
        let header = ShardHeader::decode(&self.header).map_err(|error| Malformed::new(error.to_string()))?;
        if header.cell_bytes == 0 || header.cell_bytes > CELL_BYTES_MAX {
            return Err(Malformed::new(format!("cells of {} bytes", header.cell_bytes)));
        }
        Ok((backend_from(&self.backend)?, header))
    }
}

impl WriteCells {
    /// The head and body that carry `cells`; their bytes are not copied.
    pub fn new(cells: Vec<Cell>) -> (Self, Vec<Bytes>) {
        let cell_bytes = cells.iter().map(|cell| u32::try_from(cell.bytes.len()).unwrap_or(u32::MAX)).collect();
        let hashes = cells.iter().flat_map(|cell| cell.hash).collect();
        (Self { cell_bytes, hashes }, cells.into_iter().map(|cell| cell.bytes).collect())
    }

    /// The cells whose bytes are `body`. One that came in one piece is not copied; others are put together in memory
    /// aligned for the disk.
    ///
    /// # Errors
    /// Lengths that do not add up to the body, or not one hash a cell.
    pub fn into_cells(self, body: Vec<Bytes>) -> Result<Vec<Cell>, Malformed> {
        let total: u64 = self.cell_bytes.iter().map(|&bytes| u64::from(bytes)).sum();
        let given: usize = body.iter().map(Bytes::len).sum();
        if u64::try_from(given).unwrap_or(u64::MAX) != total || self.hashes.len() != 32 * self.cell_bytes.len() {
            let (cells, hashes) = (self.cell_bytes.len(), self.hashes.len());
            return Err(Malformed::new(format!(
                "{cells} cells of {total} bytes with {hashes} bytes of hashes, {given} came"
            )));
        }
        if self.cell_bytes.iter().any(|&bytes| bytes == 0 || bytes > CELL_BYTES_MAX) {
            return Err(Malformed::new("a cell without bytes, or with too many"));
        }
        let mut pieces = Pieces { left: body.into_iter().filter(|piece| !piece.is_empty()).collect() };
        let hashes = self.hashes.chunks_exact(32).map(hash_from);
        self.cell_bytes
            .iter()
            .zip(hashes)
            .map(|(&bytes, hash)| {
                Ok(Cell { bytes: pieces.take(usize::try_from(bytes).unwrap_or(usize::MAX)), hash: hash? })
            })
            .collect()
    }
}

/// Bytes in pieces, taken from the front.
struct Pieces {
    left: std::collections::VecDeque<Bytes>,
}

impl Pieces {
    /// The next `len` bytes (there are that many).
    fn take(&mut self, len: usize) -> Bytes {
        if let Some(first) = self.left.front_mut()
            && first.len() >= len
        {
            let cell = first.split_to(len);
            if first.is_empty() {
                self.left.pop_front();
            }
            return cell;
        }
        let mut cell = CellBuffer::new(len);
        let mut filled = 0;
        while filled < len
            && let Some(mut piece) = self.left.pop_front()
        {
            let part = piece.split_to(piece.len().min(len - filled));
            cell[filled..filled + part.len()].copy_from_slice(&part);
            filled += part.len();
            if !piece.is_empty() {
                self.left.push_front(piece);
            }
        }
        cell.freeze()
    }
}

/// The bytes of a body in one piece. Copied only if it came in several.
pub(super) fn joined(body: Vec<Bytes>) -> Bytes {
    let len = body.iter().map(Bytes::len).sum();
    if len == 0 {
        return Bytes::new();
    }
    Pieces { left: body.into_iter().filter(|piece| !piece.is_empty()).collect() }.take(len)
}

impl ReadCells {
    /// Cells `first..first + count` of a shard.
    pub fn new(backend: BackendId, shard: ShardId, (first, count): (u32, u32), root: Option<[u8; 32]>) -> Self {
        let expected_root = root.map_or_else(Bytes::new, |root| Bytes::copy_from_slice(&root));
        Self { backend: backend_bytes(backend), shard: shard_bytes(shard), first, count, expected_root }
    }

    /// Backend, shard and expected root.
    ///
    /// # Errors
    /// An id or hash of another length.
    pub fn parse(&self) -> Result<(BackendId, ShardId, Option<[u8; 32]>), Malformed> {
        let root = if self.expected_root.is_empty() { None } else { Some(hash_from(&self.expected_root)?) };
        Ok((backend_from(&self.backend)?, shard_from(&self.shard)?, root))
    }
}

impl NameShard {
    /// A shard on a backend.
    pub fn new(backend: BackendId, shard: ShardId) -> Self {
        Self { backend: backend_bytes(backend), shard: shard_bytes(shard) }
    }

    /// Which.
    ///
    /// # Errors
    /// An id of another length.
    pub fn parse(&self) -> Result<(BackendId, ShardId), Malformed> {
        Ok((backend_from(&self.backend)?, shard_from(&self.shard)?))
    }
}

impl DeleteShards {
    /// At most `DELETE_SHARDS_MAX` shards.
    pub fn new(backend: BackendId, shards: &[ShardId]) -> Self {
        Self { backend: backend_bytes(backend), shards: shards_bytes(shards) }
    }

    /// Which.
    ///
    /// # Errors
    /// An id of another length, or too many.
    pub fn parse(&self) -> Result<(BackendId, Vec<ShardId>), Malformed> {
        Ok((backend_from(&self.backend)?, shards_from(&self.shards, DELETE_SHARDS_MAX)?))
    }
}

impl ListShards {
    /// Shards of a PG.
    pub fn new(backend: BackendId, pg: PgId, after: Option<ShardId>, limit: u32) -> Self {
        Self { backend: backend_bytes(backend), pg: pg.0, after: after.map_or_else(Bytes::new, shard_bytes), limit }
    }

    /// Backend and where to begin.
    ///
    /// # Errors
    /// An id of another length.
    pub fn parse(&self) -> Result<(BackendId, Option<ShardId>), Malformed> {
        Ok((backend_from(&self.backend)?, optional_shard_from(&self.after)?))
    }
}

impl ScrubShards {
    /// A step of scrub.
    pub fn new(backend: BackendId, after: Option<ShardId>, budget_bytes: u64) -> Self {
        Self { backend: backend_bytes(backend), after: after.map_or_else(Bytes::new, shard_bytes), budget_bytes }
    }

    /// Backend and where to begin.
    ///
    /// # Errors
    /// An id of another length.
    pub fn parse(&self) -> Result<(BackendId, Option<ShardId>), Malformed> {
        Ok((backend_from(&self.backend)?, optional_shard_from(&self.after)?))
    }
}

impl AddBackend {
    /// Location and name.
    ///
    /// # Errors
    /// A text that is too long.
    pub fn parse(self) -> Result<(String, String), Malformed> {
        Ok((text_from(self.location)?, text_from(self.name)?))
    }
}

impl NameBackend {
    /// A backend.
    pub fn new(backend: BackendId) -> Self {
        Self { backend: backend_bytes(backend) }
    }

    /// Which.
    ///
    /// # Errors
    /// An id of another length.
    pub fn parse(&self) -> Result<BackendId, Malformed> {
        backend_from(&self.backend)
    }
}
