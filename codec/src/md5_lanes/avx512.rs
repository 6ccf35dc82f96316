//! MD5 of up to 16 streams with the instructions of AVX-512 in ymm registers: the round functions are one `vpternlogd`
//! each, the rotation one `vprold`.
//!
//! Two groups of 8 lanes, step by step in turn, rather than one of 16 in zmm registers: the work is one long chain of
//! dependent instructions, and those are slower in zmm registers. Measured on Zen 4, GB/s over all streams: 16 zmm lanes
//! 0.67 with 2 streams and 5.2 with 16; two groups of 8 1.1 and 6.1; plain code 0.67 whatever the number.

#![allow(unsafe_code, reason = "vector loads by pointer; each block says why it stays inside its slices")]

use super::avx2::{GROUP, block_words};
use super::{BLOCK_BYTES, Words, checked_len};
use std::arch::x86_64::*;

/// Streams per call.
pub(super) const LANES: usize = 2 * GROUP;

/// One chaining word of all lanes of all groups.
type Column<const G: usize> = [[u32; GROUP]; G];

/// The kernel, if this processor can run it.
pub(super) fn advance() -> Option<fn(&mut [&mut Words], &[&[u8]])> {
    (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl")).then_some(advance_detected)
}

/// Handed out by `advance` only.
fn advance_detected(words: &mut [&mut Words], inputs: &[&[u8]]) {
    if inputs.len() <= GROUP { advance_groups::<1>(words, inputs) } else { advance_groups::<2>(words, inputs) }
}

/// Handed out by `advance` only.
fn advance_groups<const G: usize>(words: &mut [&mut Words], inputs: &[&[u8]]) {
    let len = checked_len(G * GROUP, words, inputs);
    // Lanes without a stream read the first one again; what they compute is dropped.
    let mut sources = [[inputs[0]; GROUP]; G];
    let mut columns = [[[0u32; GROUP]; G]; 4];
    for (lane, (words, input)) in words.iter().zip(inputs).enumerate() {
        sources[lane / GROUP][lane % GROUP] = input;
        for (column, word) in columns.iter_mut().zip(words.iter()) {
            column[lane / GROUP][lane % GROUP] = *word;
        }
    }
    // SAFETY: `advance` has seen AVX-512 F and VL; every source has `len` bytes, which are whole blocks.
    unsafe { compress(&mut columns, &sources, len) };
    for (lane, words) in words.iter_mut().enumerate() {
        for (column, word) in columns.iter().zip(words.iter_mut()) {
            *word = column[lane / GROUP][lane % GROUP];
        }
    }
}

/// # Safety
/// The processor has AVX-512 F and VL; every source has at least `len` bytes and `len` is a multiple of 64.
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn compress<const G: usize>(columns: &mut [Column<G>; 4], sources: &[[&[u8]; GROUP]; G], len: usize) {
    // SAFETY: a group's column is 8 words, one register.
    let load = |group: &[u32; GROUP]| unsafe { _mm256_loadu_si256(group.as_ptr().cast()) };
    let [mut a, mut b, mut c, mut d] = columns.each_ref().map(|column| column.each_ref().map(load));
    let mut offset = 0;
    while offset < len {
        // SAFETY: `offset + BLOCK_BYTES <= len`, because both are multiples of it.
        let w = sources.each_ref().map(|group| unsafe { block_words(group, offset) });
        let before = [a, b, c, d];
        macro_rules! step {
            ($round:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:literal, $shift:literal, $constant:literal) => {
                let constant = _mm256_set1_epi32(u32::cast_signed($constant));
                for g in 0..G {
                    let sum = _mm256_add_epi32(_mm256_add_epi32($a[g], w[g][$word]), constant);
                    let rotated = _mm256_rol_epi32::<$shift>(_mm256_add_epi32(sum, $round($b[g], $c[g], $d[g])));
                    $a[g] = _mm256_add_epi32(rotated, $b[g]);
                }
            };
        }
        md5_steps!(step, a, b, c, d);
        for g in 0..G {
            a[g] = _mm256_add_epi32(a[g], before[0][g]);
            b[g] = _mm256_add_epi32(b[g], before[1][g]);
            c[g] = _mm256_add_epi32(c[g], before[2][g]);
            d[g] = _mm256_add_epi32(d[g], before[3][g]);
        }
        offset += BLOCK_BYTES;
    }
    for (column, registers) in columns.iter_mut().zip([a, b, c, d]) {
        for (group, register) in column.iter_mut().zip(registers) {
            // SAFETY: a group's column is 8 words, one register.
            unsafe { _mm256_storeu_si256(group.as_mut_ptr().cast(), register) };
        }
    }
}

// The round functions as truth tables over (b, c, d), except `g`, over (d, b, c).

/// b ? c : d
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn f(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_ternarylogic_epi32::<0xCA>(b, c, d)
}

/// d ? b : c
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn g(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_ternarylogic_epi32::<0xCA>(d, b, c)
}

/// b ^ c ^ d
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn h(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_ternarylogic_epi32::<0x96>(b, c, d)
}

/// c ^ (b | !d)
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn i(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_ternarylogic_epi32::<0x39>(b, c, d)
}
