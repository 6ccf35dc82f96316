//! Aligned buffers for reads, and for cells that cannot go to the disk as they are. Kept for reuse in classes of a
//! power of two, because a fresh page costs about as much as reading it from the cache.

use bytes::Bytes;
use holdfast_proto::cell_buffer::{CELL_ALIGNMENT, CellBuffer, CellPool};
use std::sync::{Arc, OnceLock};

const CLASS_BYTES_MIN: usize = 8 * 1024;
/// Longer buffers are made afresh: they are few, and keeping them would hold memory nobody uses.
const CLASS_BYTES_MAX: usize = 2 * 1024 * 1024;
const CLASSES: usize = (CLASS_BYTES_MAX / CLASS_BYTES_MIN).ilog2() as usize + 1;
/// Idle bytes kept per class, for all backends of a process together: as many buffers as sixteen streams give back and
/// take again between two looks (with 2 MiB, four buffers of a large read, a tenth of the server's time went into fresh
/// pages). Two or three of the classes see such use, so some tens of MiB stay idle at worst.
const IDLE_BYTES_PER_CLASS: usize = 12 * 1024 * 1024;

/// An aligned buffer of `bytes`. Its content is whatever was left there.
pub(crate) fn take(bytes: usize) -> CellBuffer {
    if bytes > CLASS_BYTES_MAX {
        return CellBuffer::new(bytes);
    }
    let class = bytes.max(CLASS_BYTES_MIN).next_power_of_two();
    let index = (class / CLASS_BYTES_MIN).ilog2() as usize;
    let mut buffer = pools()[index].take();
    buffer.truncate(bytes);
    buffer
}

fn pools() -> &'static [Arc<CellPool>; CLASSES] {
    static POOLS: OnceLock<[Arc<CellPool>; CLASSES]> = OnceLock::new();
    POOLS.get_or_init(|| {
        std::array::from_fn(|index| {
            let bytes = CLASS_BYTES_MIN << index;
            CellPool::new(bytes, IDLE_BYTES_PER_CLASS / bytes)
        })
    })
}

/// Whether the bytes can go to the disk around the page cache as they are.
pub(crate) fn is_aligned(bytes: &Bytes) -> bool {
    (bytes.as_ptr() as usize).is_multiple_of(CELL_ALIGNMENT) && bytes.len().is_multiple_of(CELL_ALIGNMENT)
}

/// Gathers bytes into pieces that are aligned and a whole number of blocks each, without copying where it can.
pub(crate) struct Stage {
    buffer_bytes: usize,
    pieces: Vec<Bytes>,
    piece_bytes: usize,
    open: Option<(CellBuffer, usize)>,
}

impl Stage {
    /// A stage that copies, where it must, into buffers of `buffer_bytes`.
    pub(crate) fn new(buffer_bytes: usize) -> Self {
        Self { buffer_bytes, pieces: Vec::new(), piece_bytes: 0, open: None }
    }

    /// Adds bytes, by reference if they are aligned and come at a block boundary.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        let at_boundary = self.open.as_ref().is_none_or(|(_, filled)| filled.is_multiple_of(CELL_ALIGNMENT));
        if at_boundary && is_aligned(&bytes) {
            self.close_buffer();
            self.push_piece(bytes);
        } else {
            self.push_copy(&bytes);
        }
    }

    /// Adds a copy of the bytes.
    pub(crate) fn push_copy(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (buffer, filled) = self.open.get_or_insert_with(|| (take(self.buffer_bytes), 0));
            let count = bytes.len().min(buffer.len() - *filled);
            buffer[*filled..*filled + count].copy_from_slice(&bytes[..count]);
            *filled += count;
            bytes = &bytes[count..];
            if *filled == buffer.len() && !bytes.is_empty() {
                self.close_buffer();
            }
        }
    }

    /// Replaces the first bytes gathered, all of which are still in one buffer.
    pub(crate) fn overwrite_begin(&mut self, bytes: &[u8]) {
        assert!(self.pieces.is_empty(), "nothing was handed over yet");
        let (buffer, filled) = self.open.as_mut().expect("something was copied in before");
        assert!(bytes.len() <= *filled, "only what was gathered is replaced");
        buffer[..bytes.len()].copy_from_slice(bytes);
    }

    /// Bytes that `take_pieces` would hand out now.
    pub(crate) fn ready_bytes(&self) -> usize {
        self.piece_bytes
    }

    /// Hands out the whole pieces gathered; what is in the open buffer stays.
    pub(crate) fn take_pieces(&mut self) -> Vec<Bytes> {
        self.piece_bytes = 0;
        std::mem::take(&mut self.pieces)
    }

    /// Fills up to a block with zeros and hands out all.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        if let Some((buffer, filled)) = &mut self.open {
            let end = filled.next_multiple_of(CELL_ALIGNMENT);
            buffer[*filled..end].fill(0);
            *filled = end;
        }
        self.close_buffer();
        self.pieces
    }

    fn close_buffer(&mut self) {
        if let Some((mut buffer, filled)) = self.open.take() {
            buffer.truncate(filled);
            self.push_piece(buffer.freeze());
        }
    }

    fn push_piece(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.piece_bytes += piece.len();
            self.pieces.push(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_cover_their_sizes() {
        for bytes in [0, 1, 4096, 8192, 8193, 65_536, 1_000_000, CLASS_BYTES_MAX, CLASS_BYTES_MAX + 1] {
            let buffer = take(bytes);
            assert_eq!(buffer.len(), bytes);
            assert_eq!(buffer.as_ptr() as usize % CELL_ALIGNMENT, 0);
        }
    }

    #[test]
    fn aligned_cells_pass_without_a_copy_and_odd_ones_keep_the_order() {
        let mut cell = CellBuffer::new(8192);
        cell.fill(1);
        let aligned = cell.freeze();
        let odd = Bytes::from(vec![2u8; 5000]);
        let mut stage = Stage::new(128 * 1024);
        stage.push(aligned.clone());
        stage.push(odd.clone());
        stage.push(aligned.clone()); // not at a boundary: copied
        stage.push_copy(&[3; 300_000]);
        let pieces = stage.finish();
        assert_eq!(pieces[0].as_ptr(), aligned.as_ptr());
        assert!(pieces.iter().all(is_aligned));
        let all: Vec<u8> = pieces.concat();
        let mut expected = [vec![1u8; 8192], vec![2; 5000], vec![1; 8192], vec![3; 300_000]].concat();
        expected.resize(expected.len().next_multiple_of(4096), 0);
        assert_eq!(all, expected);
    }
}
