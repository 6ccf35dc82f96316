//! Where cell buffers come from: reused, page-aligned memory for full cells, fresh memory for short ones, and a count of
//! the bytes alive.
//!
//! Not here: how many bytes a request may take (`budget`).

use bytes::Bytes;
use holdfast_proto::cell_buffer::{CellBuffer, CellPool};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lengths of full cells (`codec::default_cell_bytes`); only these are worth keeping.
const POOLED_BYTES: [usize; 2] = [64 << 10, 32 << 10];
/// Free buffers of one length are kept up to so many bytes: enough for the stripes between two batches of a few busy
/// uploads, and a third of the 100 MiB an idle server may take.
const IDLE_BYTES_MAX: usize = 32 << 20;

/// Gives out cell buffers.
pub(crate) struct CellStock {
    pools: [Arc<CellPool>; POOLED_BYTES.len()],
    live_bytes: Arc<AtomicU64>,
}

/// A cell's memory while it is written. Its content is undefined at first.
pub(crate) struct CellMemory {
    buffer: CellBuffer,
    bytes: u64,
    live_bytes: Arc<AtomicU64>,
}

impl CellStock {
    pub(crate) fn new() -> Self {
        let pools = POOLED_BYTES.map(|bytes| CellPool::new(bytes, IDLE_BYTES_MAX / bytes));
        Self { pools, live_bytes: Arc::default() }
    }

    /// A buffer of `len` bytes: overwrite all of it.
    pub(crate) fn take(&self, len: usize) -> CellMemory {
        let pool = POOLED_BYTES.iter().position(|&pooled| pooled == len).map(|at| &self.pools[at]);
        let buffer = pool.map_or_else(|| CellBuffer::new(len), CellPool::take);
        let bytes = u64::try_from(len).unwrap_or(u64::MAX);
        self.live_bytes.fetch_add(bytes, Ordering::Relaxed);
        CellMemory { buffer, bytes, live_bytes: self.live_bytes.clone() }
    }

    /// Bytes of all buffers taken and not yet dropped by their last user.
    #[cfg(test)]
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }
}

impl CellMemory {
    /// Freezes it without a copy; the memory goes back when the last clone is dropped.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for CellMemory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buffer
    }
}
impl DerefMut for CellMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
}
impl AsRef<[u8]> for CellMemory {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}
impl Drop for CellMemory {
    fn drop(&mut self) {
        self.live_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_until_its_last_user_is_gone() {
        let stock = CellStock::new();
        let (full, short) = (stock.take(64 << 10), stock.take(192));
        assert_eq!((full.len(), short.len()), (64 << 10, 192));
        let (frozen, at) = (full.freeze(), short.as_ptr() as usize);
        assert_eq!(at % 4096, 0);
        let slice = frozen.slice(5..10);
        drop((frozen, short));
        assert_eq!(stock.live_bytes(), 64 << 10);
        drop(slice);
        assert_eq!(stock.live_bytes(), 0);
    }
}
