//! Copies one shard from backend to backend, and verifies one in place: every cell is read, checked against its hash,
//! and the whole against the root the manifest names.
//!
//! **Invariant:** a copy that returns `Ok` is durable at its target and has the manifest's root.

use holdfast_proto::node::{Cell, NodeClient, ShardError, ShardRead};
use holdfast_proto::{BackendId, Epoch, ShardId};

/// Cells read at a time: 1 MiB of full cells.
const CELLS_PER_READ: u32 = 16;

/// A shard to be read, and what it must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardSource {
    pub(crate) shard: ShardId,
    pub(crate) backend: BackendId,
    pub(crate) shard_bytes: u64,
    pub(crate) cell_bytes: u32,
    pub(crate) root: [u8; 32],
}

impl ShardSource {
    fn cell_count(&self) -> u32 {
        u32::try_from(self.shard_bytes.div_ceil(u64::from(self.cell_bytes.max(1)))).unwrap_or(u32::MAX)
    }

    async fn read(&self, node: &dyn NodeClient, first: u32) -> Result<ShardRead, ShardError> {
        let count = CELLS_PER_READ.min(self.cell_count() - first);
        let read = node.read_shard(self.backend, self.shard, first, count, Some(self.root)).await?;
        match read.damaged.first() {
            None => Ok(read),
            Some(cell) => Err(self.damaged(format!("cell {cell} fails its hash"))),
        }
    }

    fn damaged(&self, reason: String) -> ShardError {
        ShardError::Damaged { shard: self.shard, backend: self.backend, reason }
    }
}

/// Reads all of a shard. `Ok` if every cell is as it was written.
pub(crate) async fn verify_shard(node: &dyn NodeClient, source: &ShardSource) -> Result<(), ShardError> {
    let mut first = 0;
    while first < source.cell_count() {
        source.read(node, first).await?;
        first += CELLS_PER_READ;
    }
    Ok(())
}

/// Copies a shard to `to`, as the map of `epoch` wants. Returns the bytes of its cells. Dropped midway, nothing is left
/// at the target.
pub(crate) async fn copy_shard(
    node: &dyn NodeClient,
    source: &ShardSource,
    to: BackendId,
    epoch: Epoch,
) -> Result<u64, ShardError> {
    let mut writer = None;
    let mut first = 0;
    while first < source.cell_count() {
        let read = source.read(node, first).await?;
        if read.header.id != source.shard || read.header.shard_bytes != source.shard_bytes {
            return Err(source.damaged("its header is of another shard".to_owned()));
        }
        let cell_bytes = usize::try_from(source.cell_bytes.max(1)).unwrap_or(usize::MAX);
        let cells = (0..read.bytes.len()).step_by(cell_bytes).map(|at| {
            let bytes = read.bytes.slice(at..read.bytes.len().min(at.saturating_add(cell_bytes)));
            Cell { hash: *blake3::hash(&bytes).as_bytes(), bytes }
        });
        let cells = cells.collect();
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(node.begin_shard(to, read.header, epoch).await?),
        };
        writer.append(cells).await?;
        first += CELLS_PER_READ;
    }
    let Some(writer) = writer else {
        return Err(ShardError::Invalid { reason: format!("shard {} has no cells to copy", source.shard) });
    };
    let written = writer.finish().await?;
    match written.root == source.root {
        true => Ok(source.shard_bytes),
        false => Err(ShardError::Damaged {
            shard: source.shard,
            backend: to,
            reason: "the copy has another root than the manifest".to_owned(),
        }),
    }
}
