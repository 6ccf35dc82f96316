//! Object bytes: unique, incompressible, and known from the object's number alone, so that what is read can be
//! compared byte by byte without keeping it.
//!
//! A body is a run of 4 KiB blocks; each begins with 16 bytes that no other block of any object has (so nothing
//! deduplicates), the rest is a slice of 64 MiB of random bytes (so nothing compresses: no window reaches that far).
//! Invariant: making or checking a body costs one memory copy or comparison, no arithmetic per byte.

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use std::io::IoSlice;

/// Bytes of a block: the smallest piece any server deduplicates.
const BLOCK_BYTES: usize = 4096;
/// Bytes at the start of each block that no other block has.
const MARK_BYTES: usize = 16;
/// Random bytes that all bodies share.
const NOISE_BYTES: usize = 64 << 20;
/// Blocks written with one system call: 256 slices, a quarter of what Linux takes.
const BLOCKS_PER_WRITE: usize = 128;

/// The source of all bodies of a run.
pub(crate) struct Bodies {
    noise: Vec<u8>,
    seed: u64,
}

/// One body.
#[derive(Clone, Copy)]
pub(crate) struct Body<'a> {
    bodies: &'a Bodies,
    object: u64,
    len: u64,
}

impl Bodies {
    /// All bodies follow from the seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut noise = vec![0; NOISE_BYTES + BLOCK_BYTES];
        StdRng::seed_from_u64(seed).fill_bytes(&mut noise);
        Self { noise, seed }
    }

    /// The body of object `object`.
    pub(crate) fn body(&self, object: u64, len: u64) -> Body<'_> {
        Body { bodies: self, object, len }
    }
}

impl<'a> Body<'a> {
    /// Its bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn mark(&self, block: u64) -> [u8; MARK_BYTES] {
        let mut mark = [0; MARK_BYTES];
        mark[..8].copy_from_slice(&mix(self.bodies.seed ^ mix(self.object)).to_le_bytes());
        mark[8..].copy_from_slice(&mix(block ^ mix(self.object.wrapping_add(1))).to_le_bytes());
        mark
    }

    fn noise(&self, block: u64) -> &'a [u8] {
        let start = mix(self.object ^ self.bodies.seed) as usize % NOISE_BYTES;
        let at = (start + (block as usize % (NOISE_BYTES / BLOCK_BYTES)) * BLOCK_BYTES) % NOISE_BYTES;
        &self.bodies.noise[at..at + BLOCK_BYTES - MARK_BYTES]
    }

    /// Compares bytes that were read at `offset`; `false` at the first that differs or lies past the end.
    pub(crate) fn matches(&self, offset: u64, mut bytes: &[u8]) -> bool {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.len) {
            return false;
        }
        let mut at = offset;
        while !bytes.is_empty() {
            let (block, within) = (at / BLOCK_BYTES as u64, (at % BLOCK_BYTES as u64) as usize);
            let take = bytes.len().min(BLOCK_BYTES - within);
            let (head, rest) = bytes.split_at(take);
            if !self.block_matches(block, within, head) {
                return false;
            }
            at += take as u64;
            bytes = rest;
        }
        true
    }

    fn block_matches(&self, block: u64, within: usize, bytes: &[u8]) -> bool {
        let marked = MARK_BYTES.saturating_sub(within).min(bytes.len());
        let (mark, noise) = bytes.split_at(marked);
        if marked > 0 && self.mark(block)[within..within + marked] != *mark {
            return false;
        }
        let from = (within + marked).saturating_sub(MARK_BYTES);
        self.noise(block)[from..from + noise.len()] == *noise
    }

    /// Hands the bytes from `offset` on as slices to `write`, as many as one system call should take; `write` says how
    /// many bytes it took.
    pub(crate) fn with_slices<T>(&self, offset: u64, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let first = offset / BLOCK_BYTES as u64;
        let marks: Vec<[u8; MARK_BYTES]> = (0..BLOCKS_PER_WRITE as u64)
            .map(|block| first + block)
            .take_while(|block| block * (BLOCK_BYTES as u64) < self.len)
            .map(|block| self.mark(block))
            .collect();
        let mut slices = Vec::with_capacity(2 * marks.len());
        for (mark, block) in marks.iter().zip(first..) {
            let begin = block * BLOCK_BYTES as u64;
            // What of this block lies in the body and was not taken yet.
            let skip = usize::try_from(offset.saturating_sub(begin)).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
            let end = usize::try_from(self.len - begin).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
            if skip < end.min(MARK_BYTES) {
                slices.push(IoSlice::new(&mark[skip..end.min(MARK_BYTES)]));
            }
            let (from, to) = (skip.max(MARK_BYTES), end);
            if from < to {
                slices.push(IoSlice::new(&self.noise(block)[from - MARK_BYTES..to - MARK_BYTES]));
            }
        }
        write(&slices)
    }
}

/// SplitMix64's finaliser: every bit of the input reaches every bit of the output.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn bytes(body: Body<'_>, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while (all.len() as u64) < body.len() {
            let at = all.len() as u64;
            body.with_slices(at, |slices| {
                let part: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                assert!(!part.is_empty());
                all.extend_from_slice(&part[..part.len().min(step)]);
            });
        }
        all
    }

    #[test]
    fn what_is_written_is_what_matches_however_it_is_cut() {
        let bodies = Bodies::new(7);
        for len in [0, 1, 15, 16, 17, 4095, 4096, 4097, 100_000, 600_000] {
            let body = bodies.body(3, len);
            let whole = bytes(body, usize::MAX);
            assert_eq!(whole.len() as u64, len);
            assert_eq!(bytes(body, 1001), whole, "{len}");
            for cut in [1, 7, 16, 4096, 65_536] {
                let mut at = 0;
                for part in whole.chunks(cut) {
                    assert!(body.matches(at, part), "{len} {cut} {at}");
                    at += part.len() as u64;
                }
            }
        }
    }

    #[test]
    fn any_wrong_byte_is_seen() {
        let bodies = Bodies::new(7);
        let body = bodies.body(3, 9000);
        let whole = bytes(body, usize::MAX);
        for at in [0, 15, 16, 4095, 4096, 4111, 4112, 8999] {
            let mut wrong = whole.clone();
            wrong[at] ^= 1;
            assert!(!body.matches(0, &wrong), "byte {at}");
        }
        assert!(!body.matches(1, &whole), "too long");
        assert!(!body.matches(0, &whole[1..]), "shifted");
        assert!(!bodies.body(4, 9000).matches(0, &whole), "another object's");
        assert!(!bodies.body(3, 9000).matches(4096, &whole[..4096]), "another block's");
    }

    #[test]
    fn no_block_comes_twice() {
        let bodies = Bodies::new(7);
        let mut seen = HashSet::new();
        for object in 0..50 {
            for block in bytes(bodies.body(object, 40 * 4096), usize::MAX).chunks(BLOCK_BYTES) {
                assert!(seen.insert(block.to_vec()), "object {object}");
            }
        }
    }
}
