//! SSSE3, for x86-64 processors of before 2013: as `avx2` with half the register width.

#![allow(unsafe_code, reason = "vector loads and stores by pointer; each block says why it stays inside its slices")]
#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function of `Lanes` is one or two instructions; its contract is theirs"
)]

use super::lanes::{Coefficients, Lanes};
use super::vector_engine::vector_engine;
use std::arch::x86_64::*;

// 2 x 3 sums, 4 nibble vectors, 2 tables and their copies (`pshufb` overwrites one), the nibble mask: 16 registers.
vector_engine!(
    Ssse3,
    "ssse3",
    Xmm,
    "ssse3",
    is_x86_feature_detected!("ssse3"),
    registers = 2,
    rows = [1, 2, 3],
    grouped = []
);

/// An xmm register.
#[derive(Clone, Copy)]
struct Xmm;

impl Xmm {
    /// Orders streamed stores before whatever follows.
    #[inline(always)]
    unsafe fn fence() {
        _mm_sfence();
    }
}

impl Lanes for Xmm {
    type Vector = __m128i;
    /// The low and the high nibbles.
    type Source = (__m128i, __m128i);
    /// The products with all low and with all high nibbles.
    type Factor = (__m128i, __m128i);
    const BYTES: usize = 16;
    const PAIRS: bool = false;
    const TABLES: bool = true;

    #[inline(always)]
    unsafe fn zero() -> __m128i {
        _mm_setzero_si128()
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m128i {
        _mm_loadu_si128(from.cast())
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, bytes: __m128i) {
        _mm_storeu_si128(to.cast(), bytes)
    }

    #[inline(always)]
    unsafe fn stream(to: *mut u8, bytes: __m128i) {
        _mm_stream_si128(to.cast(), bytes)
    }

    #[inline(always)]
    unsafe fn load_part(from: *const u8, count: usize) -> __m128i {
        let mut padded = [0u8; Self::BYTES];
        std::ptr::copy_nonoverlapping(from, padded.as_mut_ptr(), count);
        Self::load(padded.as_ptr())
    }

    #[inline(always)]
    unsafe fn store_part(to: *mut u8, count: usize, bytes: __m128i) {
        let mut padded = [0u8; Self::BYTES];
        Self::store(padded.as_mut_ptr(), bytes);
        std::ptr::copy_nonoverlapping(padded.as_ptr(), to, count);
    }

    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        _mm_prefetch::<_MM_HINT_T0>(from.cast())
    }

    #[inline(always)]
    unsafe fn xor(a: __m128i, b: __m128i) -> __m128i {
        _mm_xor_si128(a, b)
    }

    #[inline(always)]
    unsafe fn xor3(a: __m128i, b: __m128i, c: __m128i) -> __m128i {
        _mm_xor_si128(_mm_xor_si128(a, b), c)
    }

    #[inline(always)]
    unsafe fn source(bytes: __m128i) -> (__m128i, __m128i) {
        let mask = _mm_set1_epi8(0x0F);
        (_mm_and_si128(bytes, mask), _mm_and_si128(_mm_srli_epi64::<4>(bytes), mask))
    }

    #[inline(always)]
    unsafe fn plain((low, high): (__m128i, __m128i)) -> __m128i {
        _mm_or_si128(low, _mm_slli_epi64::<4>(high))
    }

    #[inline(always)]
    unsafe fn factor(coefficients: Coefficients, at: usize) -> (__m128i, __m128i) {
        let table = coefficients.tables.add(32 * at);
        (Self::load(table), Self::load(table.add(16)))
    }

    #[inline(always)]
    unsafe fn times(source: (__m128i, __m128i), factor: (__m128i, __m128i)) -> __m128i {
        _mm_xor_si128(_mm_shuffle_epi8(factor.0, source.0), _mm_shuffle_epi8(factor.1, source.1))
    }
}
