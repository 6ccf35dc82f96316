//! Page-aligned, reusable buffers for cells, so that shard bytes go from the coder to the disk by O_DIRECT without a
//! copy. Safe code only: a `Vec` a page longer than asked for, used from its first aligned byte.

use bytes::Bytes;
use std::sync::{Arc, Mutex};

/// Alignment of every buffer: what O_DIRECT asks of memory, offset and length on every disk we know (4096).
pub const CELL_ALIGNMENT: usize = 4096;

/// A zero-filled buffer whose first byte is aligned to [`CELL_ALIGNMENT`]. Returns to its pool, if it has one, when
/// dropped.
pub struct CellBuffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
    pool: Option<Arc<CellPool>>,
}

impl CellBuffer {
    /// A fresh buffer of `len` zero bytes, of no pool.
    pub fn new(len: usize) -> Self {
        let memory = vec![0u8; len + CELL_ALIGNMENT];
        let start = memory.as_ptr().align_offset(CELL_ALIGNMENT);
        Self { memory, start, len, pool: None }
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Uses only the first `len` bytes from here on. Panics if it holds fewer.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "a buffer of {} bytes cannot be cut to {len}", self.len);
        self.len = len;
    }

    /// Freezes the buffer without copying. The memory goes back to its pool when the last clone is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl std::ops::Deref for CellBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}
impl std::ops::DerefMut for CellBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}
impl AsRef<[u8]> for CellBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
impl Drop for CellBuffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.give_back(std::mem::take(&mut self.memory));
        }
    }
}

/// Keeps up to `buffers_max` free buffers of one size for reuse; more are given back to the allocator.
pub struct CellPool {
    buffer_bytes: usize,
    buffers_max: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

impl CellPool {
    /// A pool of buffers of `buffer_bytes` each that keeps at most `buffers_max` idle ones.
    pub fn new(buffer_bytes: usize, buffers_max: usize) -> Arc<Self> {
        Arc::new(Self { buffer_bytes, buffers_max, free: Mutex::new(Vec::new()) })
    }

    /// A buffer of `buffer_bytes`. Its content is whatever its last user left: overwrite it all, or fill the rest
    /// with zeros.
    pub fn take(self: &Arc<Self>) -> CellBuffer {
        let recycled = self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        let memory = recycled.unwrap_or_else(|| vec![0u8; self.buffer_bytes + CELL_ALIGNMENT]);
        let start = memory.as_ptr().align_offset(CELL_ALIGNMENT);
        CellBuffer { memory, start, len: self.buffer_bytes, pool: Some(self.clone()) }
    }

    fn give_back(&self, memory: Vec<u8>) {
        let mut free = self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if free.len() < self.buffers_max {
            free.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_come_back_to_their_pool() {
        let pool = CellPool::new(65536, 1);
        let buffer = pool.take();
        let first = buffer.as_ptr() as usize;
        assert_eq!(first % CELL_ALIGNMENT, 0);
        let frozen = buffer.freeze();
        assert_eq!(frozen.as_ptr() as usize, first);
        drop(frozen);
        assert_eq!(pool.take().as_ptr() as usize, first);
    }
}
