//! AVX-512 with GFNI: `gf2p8affineqb` multiplies 64 bytes by one coefficient, given as an 8x8 bit matrix.
//!
//! Inputs go in pairs, so that one `vpternlogq` adds two products at once; up to ten outputs times two registers stay
//! in the 32 zmm registers (with 4 for inputs and the rest for coefficients and products). Tails are masked loads and
//! stores, so slices need no padding and nothing is overrun.

#![allow(unsafe_code, reason = "vector loads and stores by pointer; each block says why it stays inside its slices")]
#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function of `Lanes` is one or two instructions; its contract is theirs"
)]

use super::lanes::{Coefficients, Lanes};
use super::vector_engine::vector_engine;
use std::arch::x86_64::*;

vector_engine!(
    Gfni512,
    "avx512-gfni",
    Zmm,
    "avx512f,avx512bw,gfni",
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("gfni"),
    registers = 2,
    rows = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    // The geo tables, then LRCs; a sum takes registers as a dense row does.
    grouped = [
        (3, 3, 1),
        (6, 3, 2),
        (9, 3, 2),
        (4, 4, 1),
        (1, 1, 0),
        (2, 1, 0),
        (3, 1, 0),
        (4, 1, 0),
        (1, 2, 0),
        (2, 2, 0),
        (3, 2, 0),
        (4, 2, 0),
        (1, 3, 0),
        (2, 3, 0),
        (3, 3, 0),
        (4, 3, 0),
        (1, 4, 0),
        (2, 4, 0),
        (3, 4, 0),
        (4, 4, 0)
    ]
);

/// A zmm register.
#[derive(Clone, Copy)]
struct Zmm;

impl Zmm {
    /// Orders streamed stores before whatever follows.
    #[inline(always)]
    unsafe fn fence() {
        _mm_sfence();
    }
}

impl Lanes for Zmm {
    type Vector = __m512i;
    type Source = __m512i;
    type Factor = __m512i;
    const BYTES: usize = 64;
    const PAIRS: bool = true;
    const TABLES: bool = false;

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        _mm512_setzero_si512()
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        _mm512_loadu_si512(from.cast())
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, bytes: __m512i) {
        _mm512_storeu_si512(to.cast(), bytes)
    }

    #[inline(always)]
    unsafe fn stream(to: *mut u8, bytes: __m512i) {
        _mm512_stream_si512(to.cast(), bytes)
    }

    #[inline(always)]
    unsafe fn load_part(from: *const u8, count: usize) -> __m512i {
        _mm512_maskz_loadu_epi8(u64::MAX >> (64 - count), from.cast())
    }

    #[inline(always)]
    unsafe fn store_part(to: *mut u8, count: usize, bytes: __m512i) {
        _mm512_mask_storeu_epi8(to.cast(), u64::MAX >> (64 - count), bytes)
    }

    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        _mm_prefetch::<_MM_HINT_T0>(from.cast())
    }

    #[inline(always)]
    unsafe fn xor(a: __m512i, b: __m512i) -> __m512i {
        _mm512_xor_si512(a, b)
    }

    #[inline(always)]
    unsafe fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        _mm512_ternarylogic_epi64::<0x96>(a, b, c)
    }

    #[inline(always)]
    unsafe fn source(bytes: __m512i) -> __m512i {
        bytes
    }

    #[inline(always)]
    unsafe fn plain(source: __m512i) -> __m512i {
        source
    }

    #[inline(always)]
    unsafe fn factor(coefficients: Coefficients, at: usize) -> __m512i {
        _mm512_set1_epi64((*coefficients.affine.add(at)).cast_signed())
    }

    #[inline(always)]
    unsafe fn times(source: __m512i, factor: __m512i) -> __m512i {
        _mm512_gf2p8affine_epi64_epi8::<0>(source, factor)
    }
}
