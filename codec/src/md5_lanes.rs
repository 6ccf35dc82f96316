//! MD5 of many streams at once: one stream cannot go faster than its chain of additions, but up to 16 independent ones
//! go through the lanes of a vector register for the price of about two.
//!
//! MD5 is here because S3's ETag of a single-part object is the MD5 of its bytes. It protects nothing.
//!
//! Not here: which streams are waiting (the caller collects them), any other hash.
//!
//! **Invariant:** every kernel gives the same digests (tests, against the crate `md-5`).
//!
//! Source: RFC 1321.

#[macro_use]
mod steps;
mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

/// Bytes that MD5 takes in at a time.
pub const BLOCK_BYTES: usize = 64;
/// Where in the last block the message length begins.
const LENGTH_AT: usize = BLOCK_BYTES - 8;

/// The four chaining words of one stream.
type Words = [u32; 4];

/// One MD5 stream: whole blocks go in by [`update_lanes`], the rest by [`Md5State::finalize`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Md5State {
    words: Words,
    /// Bytes taken in so far, modulo 2^64 as RFC 1321 has it.
    bytes: u64,
}

impl Default for Md5State {
    fn default() -> Self {
        Self::new()
    }
}

impl Md5State {
    /// An empty stream.
    pub fn new() -> Self {
        Self { words: [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476], bytes: 0 }
    }

    /// How many bytes it has taken in; a multiple of 64.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes in `tail`, the stream's last bytes (any number of them), and gives the digest.
    pub fn finalize(mut self, tail: &[u8]) -> [u8; 16] {
        let (whole, rest) = tail.split_at(tail.len() - tail.len() % BLOCK_BYTES);
        scalar::compress(&mut self.words, whole);
        let total = self.bytes.wrapping_add(byte_count(tail));

        // The rest, one bit 1, zeros, and the length in bits: one block, or two if the length does not fit the first.
        let mut last = [0u8; 2 * BLOCK_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        last[rest.len()] = 0x80;
        let end = if rest.len() < LENGTH_AT { BLOCK_BYTES } else { 2 * BLOCK_BYTES };
        last[end - 8..end].copy_from_slice(&total.wrapping_mul(8).to_le_bytes());
        scalar::compress(&mut self.words, &last[..end]);

        let mut digest = [0u8; 16];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        digest
    }
}

/// Why [`update_lanes`] refused a call; no stream has advanced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Md5LanesError {
    /// A stream's bytes are not whole blocks.
    #[error("stream {stream} has {got} bytes, which is not a multiple of {BLOCK_BYTES}")]
    PartialBlock {
        /// Its index in the call.
        stream: usize,
        /// How many bytes were given.
        got: usize,
    },
}

/// Advances every stream by its bytes, which must be whole 64-byte blocks (any number of them, also none, and another
/// number for each stream). Any number of streams; up to 16 advance at once, and the next takes the lane of one that
/// is done. Give it several streams, or large pieces: one stream alone goes at the speed of plain MD5.
///
/// # Errors
/// [`Md5LanesError::PartialBlock`]; then no stream has advanced.
pub fn update_lanes(streams: &mut [(&mut Md5State, &[u8])]) -> Result<(), Md5LanesError> {
    update_lanes_by(Kernel::best(), streams)
}

/// One way to advance several streams.
#[derive(Clone, Copy)]
struct Kernel {
    name: &'static str,
    /// Most streams per call.
    lanes: usize,
    /// Advances 1 to `lanes` streams, each by its bytes: equally long, whole blocks.
    advance: fn(&mut [&mut Words], &[&[u8]]),
}

impl Kernel {
    /// One stream after the other; runs everywhere.
    const SCALAR: Self = Self { name: "scalar", lanes: 1, advance: scalar::advance };

    /// Every kernel this processor can run, best first.
    fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vector = [
            avx512::advance().map(|advance| Self { name: "avx512", lanes: avx512::LANES, advance }),
            avx2::advance().map(|advance| Self { name: "avx2", lanes: avx2::LANES, advance }),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let vector: [Option<Self>; 0] = [];
        vector.into_iter().flatten().chain([Self::SCALAR])
    }

    fn best() -> Self {
        Self::available().next().unwrap_or(Self::SCALAR)
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with {} lanes", self.name, self.lanes)
    }
}

fn update_lanes_by(kernel: Kernel, streams: &mut [(&mut Md5State, &[u8])]) -> Result<(), Md5LanesError> {
    if let Some(stream) = streams.iter().position(|(_, bytes)| bytes.len() % BLOCK_BYTES != 0) {
        return Err(Md5LanesError::PartialBlock { stream, got: streams[stream].1.len() });
    }
    for (state, bytes) in streams.iter_mut() {
        state.bytes = state.bytes.wrapping_add(byte_count(bytes));
    }
    let mut waiting: Vec<(&mut Words, &[u8])> = streams
        .iter_mut()
        .filter(|(_, bytes)| !bytes.is_empty())
        .map(|(state, bytes)| (&mut state.words, *bytes))
        .collect();
    // The longest first, so that the lanes run dry together; equal ones keep their order.
    waiting.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.len()));
    run(kernel, waiting.into());
    Ok(())
}

/// Keeps the kernel's lanes filled until every stream is done.
fn run<'a>(kernel: Kernel, mut waiting: VecDeque<(&'a mut Words, &'a [u8])>) {
    let mut active: Vec<(&mut Words, &[u8])> = Vec::with_capacity(kernel.lanes);
    loop {
        while active.len() < kernel.lanes {
            let Some(next) = waiting.pop_front() else { break };
            active.push(next);
        }
        let Some(common) = active.iter().map(|(_, bytes)| bytes.len()).min() else { return };
        // A lane costs as much with company as alone: a lone stream is better off with the plain code.
        let kernel = if active.len() == 1 { Kernel::SCALAR } else { kernel };
        let inputs: Vec<&[u8]> = active.iter().map(|(_, bytes)| &bytes[..common]).collect();
        let mut words: Vec<&mut Words> = active.iter_mut().map(|(words, _)| &mut **words).collect();
        (kernel.advance)(&mut words, &inputs);
        for (_, bytes) in &mut active {
            *bytes = &bytes[common..];
        }
        active.retain(|(_, bytes)| !bytes.is_empty());
    }
}

/// A length as MD5 counts it.
fn byte_count(bytes: &[u8]) -> u64 {
    // No slice is longer than 2^63 bytes.
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Holds the caller of a vector kernel to its contract and gives the common length. The unsafe code relies on it.
#[cfg(target_arch = "x86_64")]
fn checked_len(lanes: usize, words: &[&mut Words], inputs: &[&[u8]]) -> usize {
    assert!((1..=lanes).contains(&inputs.len()), "1 to {lanes} streams");
    assert_eq!(words.len(), inputs.len(), "one state per stream");
    let len = inputs[0].len();
    assert!(inputs.iter().all(|input| input.len() == len), "streams are equally long");
    assert!(len % BLOCK_BYTES == 0, "streams are whole blocks");
    len
}
