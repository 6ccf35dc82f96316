//! MD5 of up to 8 streams in the 32-bit lanes of a ymm register, for processors without AVX-512.

#![allow(unsafe_code, reason = "vector loads by pointer; each block says why it stays inside its slices")]

use super::{BLOCK_BYTES, Words, checked_len};
use std::arch::x86_64::*;

/// Streams per call.
pub(super) const LANES: usize = 8;

/// The kernel, if this processor can run it.
pub(super) fn advance() -> Option<fn(&mut [&mut Words], &[&[u8]])> {
    is_x86_feature_detected!("avx2").then_some(advance_detected)
}

/// Handed out by `advance` only.
fn advance_detected(words: &mut [&mut Words], inputs: &[&[u8]]) {
    let len = checked_len(LANES, words, inputs);
    // Lanes without a stream read the first one again; what they compute is dropped.
    let mut sources = [inputs[0]; LANES];
    sources[..inputs.len()].copy_from_slice(inputs);
    let mut columns = [[0u32; LANES]; 4];
    for (lane, words) in words.iter().enumerate() {
        for (column, word) in columns.iter_mut().zip(words.iter()) {
            column[lane] = *word;
        }
    }
    // SAFETY: `advance` has seen AVX2; every source has `len` bytes, which are whole blocks.
    unsafe { compress(&mut columns, &sources, len) };
    for (lane, words) in words.iter_mut().enumerate() {
        for (column, word) in columns.iter().zip(words.iter_mut()) {
            *word = column[lane];
        }
    }
}

/// # Safety
/// The processor has AVX2; every source has at least `len` bytes and `len` is a multiple of 64.
#[target_feature(enable = "avx2")]
unsafe fn compress(columns: &mut [[u32; LANES]; 4], sources: &[&[u8]; LANES], len: usize) {
    // SAFETY: each column is 8 words, one register.
    let [mut a, mut b, mut c, mut d] =
        columns.each_ref().map(|column| unsafe { _mm256_loadu_si256(column.as_ptr().cast()) });
    let mut offset = 0;
    while offset < len {
        // SAFETY: `offset + BLOCK_BYTES <= len`, because both are multiples of it.
        let first = sources.map(|source| unsafe { _mm256_loadu_si256(source.as_ptr().add(offset).cast()) });
        // SAFETY: as above; this is the second half of the block.
        let second = sources.map(|source| unsafe { _mm256_loadu_si256(source.as_ptr().add(offset + 32).cast()) });
        let mut w = [_mm256_setzero_si256(); 16];
        w[..8].copy_from_slice(&transpose(first));
        w[8..].copy_from_slice(&transpose(second));
        let before = [a, b, c, d];
        macro_rules! step {
            ($round:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:literal, $shift:literal, $constant:literal) => {
                let constant = _mm256_set1_epi32(u32::cast_signed($constant));
                let sum = _mm256_add_epi32(_mm256_add_epi32($a, w[$word]), constant);
                let sum = _mm256_add_epi32(sum, $round($b, $c, $d));
                let rotated =
                    _mm256_or_si256(_mm256_slli_epi32::<$shift>(sum), _mm256_srli_epi32::<{ 32 - $shift }>(sum));
                $a = _mm256_add_epi32(rotated, $b);
            };
        }
        md5_steps!(step, a, b, c, d);
        a = _mm256_add_epi32(a, before[0]);
        b = _mm256_add_epi32(b, before[1]);
        c = _mm256_add_epi32(c, before[2]);
        d = _mm256_add_epi32(d, before[3]);
        offset += BLOCK_BYTES;
    }
    for (column, register) in columns.iter_mut().zip([a, b, c, d]) {
        // SAFETY: each column is 8 words, one register.
        unsafe { _mm256_storeu_si256(column.as_mut_ptr().cast(), register) };
    }
}

/// Row l of the input is half a block of lane l; row i of the result is word i of that half of all lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    let mut pairs = rows;
    for i in (0..8).step_by(2) {
        pairs[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // In each 128-bit half h: word 4h + c of four rows.
    let mut fours = pairs;
    for i in (0..8).step_by(4) {
        fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    let mut words = fours;
    for c in 0..4 {
        words[c] = _mm256_permute2x128_si256::<0x20>(fours[c], fours[4 + c]);
        words[4 + c] = _mm256_permute2x128_si256::<0x31>(fours[c], fours[4 + c]);
    }
    words
}

// The round functions.

/// b ? c : d
#[inline]
#[target_feature(enable = "avx2")]
fn f(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_xor_si256(d, _mm256_and_si256(b, _mm256_xor_si256(c, d)))
}

/// d ? b : c
#[inline]
#[target_feature(enable = "avx2")]
fn g(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_xor_si256(c, _mm256_and_si256(d, _mm256_xor_si256(b, c)))
}

/// b ^ c ^ d
#[inline]
#[target_feature(enable = "avx2")]
fn h(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_xor_si256(_mm256_xor_si256(c, d), b)
}

/// c ^ (b | !d)
#[inline]
#[target_feature(enable = "avx2")]
fn i(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_xor_si256(c, _mm256_or_si256(b, _mm256_xor_si256(d, _mm256_set1_epi32(-1))))
}
