//! MD5 of up to 16 streams in the 32-bit lanes of a zmm register: the round functions are one `vpternlogd` each, the
//! rotation one `vprold`.

#![allow(unsafe_code, reason = "vector loads by pointer; each block says why it stays inside its slices")]

use super::{BLOCK_BYTES, Words, checked_len};
use std::arch::x86_64::*;

/// Streams per call.
pub(super) const LANES: usize = 16;

/// The kernel, if this processor can run it.
pub(super) fn advance() -> Option<fn(&mut [&mut Words], &[&[u8]])> {
    is_x86_feature_detected!("avx512f").then_some(advance_detected)
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
    // SAFETY: `advance` has seen AVX-512F; every source has `len` bytes, which are whole blocks.
    unsafe { compress(&mut columns, &sources, len) };
    for (lane, words) in words.iter_mut().enumerate() {
        for (column, word) in columns.iter().zip(words.iter_mut()) {
            *word = column[lane];
        }
    }
}

/// # Safety
/// The processor has AVX-512F; every source has at least `len` bytes and `len` is a multiple of 64.
#[target_feature(enable = "avx512f")]
unsafe fn compress(columns: &mut [[u32; LANES]; 4], sources: &[&[u8]; LANES], len: usize) {
    // SAFETY: each column is 16 words, one register.
    let [mut a, mut b, mut c, mut d] =
        columns.each_ref().map(|column| unsafe { _mm512_loadu_si512(column.as_ptr().cast()) });
    let mut offset = 0;
    while offset < len {
        // SAFETY: `offset + BLOCK_BYTES <= len`, because both are multiples of it.
        let rows = sources.map(|source| unsafe { _mm512_loadu_si512(source.as_ptr().add(offset).cast()) });
        let w = transpose(rows);
        let before = [a, b, c, d];
        macro_rules! step {
            ($round:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:literal, $shift:literal, $constant:literal) => {
                let constant = _mm512_set1_epi32(u32::cast_signed($constant));
                let sum = _mm512_add_epi32(_mm512_add_epi32($a, w[$word]), constant);
                let rotated = _mm512_rol_epi32::<$shift>(_mm512_add_epi32(sum, $round($b, $c, $d)));
                $a = _mm512_add_epi32(rotated, $b);
            };
        }
        md5_steps!(step, a, b, c, d);
        a = _mm512_add_epi32(a, before[0]);
        b = _mm512_add_epi32(b, before[1]);
        c = _mm512_add_epi32(c, before[2]);
        d = _mm512_add_epi32(d, before[3]);
        offset += BLOCK_BYTES;
    }
    for (column, register) in columns.iter_mut().zip([a, b, c, d]) {
        // SAFETY: each column is 16 words, one register.
        unsafe { _mm512_storeu_si512(column.as_mut_ptr().cast(), register) };
    }
}

/// Row l of the input is lane l's block; row i of the result is word i of all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = rows;
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // In each 128-bit quarter q: word 4q + c of four rows.
    let mut fours = pairs;
    for i in (0..16).step_by(4) {
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    const EVEN: i32 = 0x88;
    const ODD: i32 = 0xDD;
    let mut words = fours;
    for c in 0..4 {
        let (low_even, high_even) = (
            _mm512_shuffle_i32x4::<EVEN>(fours[c], fours[4 + c]),
            _mm512_shuffle_i32x4::<EVEN>(fours[8 + c], fours[12 + c]),
        );
        let (low_odd, high_odd) = (
            _mm512_shuffle_i32x4::<ODD>(fours[c], fours[4 + c]),
            _mm512_shuffle_i32x4::<ODD>(fours[8 + c], fours[12 + c]),
        );
        words[c] = _mm512_shuffle_i32x4::<EVEN>(low_even, high_even);
        words[4 + c] = _mm512_shuffle_i32x4::<EVEN>(low_odd, high_odd);
        words[8 + c] = _mm512_shuffle_i32x4::<ODD>(low_even, high_even);
        words[12 + c] = _mm512_shuffle_i32x4::<ODD>(low_odd, high_odd);
    }
    words
}

// The round functions as truth tables over (b, c, d), except `g`, over (d, b, c).

/// b ? c : d
#[inline]
#[target_feature(enable = "avx512f")]
fn f(b: __m512i, c: __m512i, d: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xCA>(b, c, d)
}

/// d ? b : c
#[inline]
#[target_feature(enable = "avx512f")]
fn g(b: __m512i, c: __m512i, d: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xCA>(d, b, c)
}

/// b ^ c ^ d
#[inline]
#[target_feature(enable = "avx512f")]
fn h(b: __m512i, c: __m512i, d: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x96>(b, c, d)
}

/// c ^ (b | !d)
#[inline]
#[target_feature(enable = "avx512f")]
fn i(b: __m512i, c: __m512i, d: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x39>(b, c, d)
}
