//! Coding and hashing of a stripe while its bytes are in the cache: what a PUT and a repair do with each stripe.
//!
//! A stripe of the default cells fits L2 ([`WHOLE_BYTES`]), so it is coded whole and then hashed: two passes over memory
//! become one, and coding (a tenth of the hashing's cost) disappears behind it. Stripes with larger cells go through in
//! column blocks that fit. Interleaving inside the kernels' loop would gain nothing more: BLAKE3 is bound by computing.
//!
//! The check of a cell is its plain BLAKE3 (ADR 1). [`ByteCheck`]s (CRC64NVME, CRC32C, anything of the caller's) take in
//! the object's bytes in order on the same occasion. MD5 runs over many streams at once instead: `md5_lanes`.
//!
//! Not here: which bytes a stripe holds (`geometry`), buffers, threads.
//!
//! **Invariant:** nothing is written before all arguments, and for a repair all hashes, were found right. With stripes
//! that go through whole and coefficients in the cache no call allocates.

mod checks;

#[cfg(test)]
mod tests;

pub use checks::{ByteCheck, Crc32c, Crc64Nvme};

use crate::codec::Codec;
use crate::error::CodecError;
use crate::scheme::SHARD_COUNT_MAX;

/// BLAKE3 of a cell.
pub type CellHash = [u8; 32];

/// Stripes up to this go through whole: a 1 MiB L2. Default stripes of up to 16 shards (k <= 10) or 32 shards fit.
pub const WHOLE_BYTES: usize = 1 << 20;
/// Larger ones go through in column blocks of at most this: three quarters of it.
pub const HOT_BYTES: usize = 768 << 10;
/// Least column block: BLAKE3 needs 16 KiB in one piece for its full speed.
const BLOCK_BYTES_MIN: usize = 16 << 10;

/// The data of a stripe.
#[derive(Clone, Copy, Debug)]
pub struct StripeData<'a> {
    /// The k data cells by slot, equally long.
    pub cells: &'a [&'a [u8]],
    /// How many of their bytes are the object's; the rest is padding, which the checks do not see.
    pub object_bytes: usize,
}

/// A cell to repair from, and the hash it must have.
#[derive(Clone, Copy, Debug)]
pub struct CheckedCell<'a> {
    /// Its slot.
    pub slot: usize,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// What they must hash to.
    pub hash: &'a CellHash,
}

/// Codes and hashes the stripes of one scheme, one at a time.
#[derive(Clone, Debug)]
pub struct StripeCoder {
    codec: Codec,
    /// One per slot, for stripes that go through in blocks.
    hashers: Vec<blake3::Hasher>,
}

impl StripeCoder {
    /// A coder for the codec's scheme.
    pub fn new(codec: Codec) -> Self {
        Self { codec, hashers: Vec::new() }
    }

    /// The codec.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Computes the parity of a stripe, the hash of each of its n cells (by slot, data first), and feeds the object's
    /// bytes to the checks.
    ///
    /// # Errors
    /// As [`Codec::encode`], and [`CodecError::SliceCount`] unless there are n hashes; then nothing is written and no
    /// check has moved.
    pub fn code(
        &mut self,
        stripe: StripeData<'_>,
        parity: &mut [&mut [u8]],
        hashes: &mut [CellHash],
        checks: &mut [&mut dyn ByteCheck],
    ) -> Result<(), CodecError> {
        let (n, k) = (self.codec.scheme().n(), self.codec.scheme().k());
        check_count(n, hashes.len())?;
        let cell_bytes = stripe.cells.first().map_or(0, |cell| cell.len());
        let block = block_bytes(n);
        if cell_bytes <= block || cell_bytes.saturating_mul(n) <= WHOLE_BYTES {
            self.codec.encode(stripe.cells, parity)?;
            let (data_hashes, parity_hashes) = hashes.split_at_mut(k);
            for (hash, cell) in parity_hashes.iter_mut().zip(parity.iter()) {
                *hash = hash_of(cell);
            }
            let mut rest = stripe.object_bytes;
            for (hash, cell) in data_hashes.iter_mut().zip(stripe.cells) {
                *hash = hash_of(cell);
                rest -= feed(checks, cell, rest);
            }
            return Ok(());
        }
        self.code_in_blocks(&stripe, parity, hashes, block)?;
        let mut rest = stripe.object_bytes;
        for cell in stripe.cells {
            rest -= feed(checks, cell, rest);
        }
        Ok(())
    }

    /// A stripe too large for the cache: column block by column block.
    fn code_in_blocks(
        &mut self,
        stripe: &StripeData<'_>,
        parity: &mut [&mut [u8]],
        hashes: &mut [CellHash],
        block: usize,
    ) -> Result<(), CodecError> {
        // The codec checks the arguments, on no bytes of them; lengths are for the whole to agree on.
        self.codec.check_encode(stripe.cells, parity)?;
        self.hashers.resize_with(hashes.len(), blake3::Hasher::new);
        self.hashers.iter_mut().for_each(|hasher| _ = hasher.reset());
        let cell_bytes = stripe.cells.first().map_or(0, |cell| cell.len());
        for from in (0..cell_bytes).step_by(block) {
            let to = cell_bytes.min(from + block);
            let data: Vec<&[u8]> = stripe.cells.iter().map(|cell| &cell[from..to]).collect();
            let mut targets: Vec<&mut [u8]> = parity.iter_mut().map(|cell| &mut cell[from..to]).collect();
            self.codec.encode(&data, &mut targets)?;
            let cells = data.into_iter().chain(targets.iter().map(|cell| &**cell));
            for (hasher, cell) in self.hashers.iter_mut().zip(cells) {
                hasher.update(cell);
            }
        }
        for (hash, hasher) in hashes.iter_mut().zip(&self.hashers) {
            *hash = *hasher.finalize().as_bytes();
        }
        Ok(())
    }

    /// Verifies the cells at hand, rebuilds the `wanted` ones from them and hashes those, in the order given.
    ///
    /// # Errors
    /// [`CodecError::HashDiffers`] for the first cell that is not what its hash says (drop it and ask again),
    /// [`CodecError::SliceCount`] unless there is a hash for each wanted cell and at most 255 cells, and the errors of
    /// [`Codec::reconstruct`]. Then nothing is written.
    pub fn rebuild(
        &mut self,
        present: &[CheckedCell<'_>],
        wanted: &mut [(usize, &mut [u8])],
        hashes: &mut [CellHash],
    ) -> Result<(), CodecError> {
        check_count(wanted.len(), hashes.len())?;
        if present.len() > SHARD_COUNT_MAX {
            return Err(CodecError::SliceCount { expected: SHARD_COUNT_MAX, got: present.len() });
        }
        if let Some(cell) = present.iter().find(|cell| hash_of(cell.bytes) != *cell.hash) {
            return Err(CodecError::HashDiffers { slot: cell.slot });
        }
        let mut cells: [(usize, &[u8]); SHARD_COUNT_MAX] = [(0, &[]); SHARD_COUNT_MAX];
        for (place, cell) in cells.iter_mut().zip(present) {
            *place = (cell.slot, cell.bytes);
        }
        self.codec.reconstruct(&cells[..present.len()], wanted)?;
        for (hash, (_, cell)) in hashes.iter_mut().zip(wanted) {
            *hash = hash_of(cell);
        }
        Ok(())
    }
}

/// Columns of n cells that are worked on at a time.
fn block_bytes(n: usize) -> usize {
    let even = (HOT_BYTES / n.max(1)).max(BLOCK_BYTES_MIN);
    // A power of two, so that BLAKE3's subtrees are whole.
    1 << even.ilog2()
}

fn hash_of(cell: &[u8]) -> CellHash {
    *blake3::hash(cell).as_bytes()
}

/// Feeds a cell to the checks, but no more than `rest` bytes; says how many.
fn feed(checks: &mut [&mut dyn ByteCheck], cell: &[u8], rest: usize) -> usize {
    let bytes = &cell[..cell.len().min(rest)];
    for check in checks {
        check.update(bytes);
    }
    bytes.len()
}

fn check_count(expected: usize, got: usize) -> Result<(), CodecError> {
    if expected == got { Ok(()) } else { Err(CodecError::SliceCount { expected, got }) }
}
