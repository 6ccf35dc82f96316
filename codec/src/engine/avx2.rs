//! AVX2 without GFNI: two `pshufb` look-ups per product, one for the low and one for the high nibble.
//!
//! Source: Plank, Greenan, Miller, "Screaming Fast Galois Field Arithmetic Using Intel SIMD Instructions" (FAST'13).

#![allow(unsafe_code, reason = "vector loads and stores by pointer; each block says why it stays inside its slices")]
#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function of `Lanes` is one or two instructions; its contract is theirs"
)]

use super::lanes::{Coefficients, Lanes};
use super::vector_engine::vector_engine;
use std::arch::x86_64::*;

// 2 x 4 sums, 4 nibble vectors, 2 tables, the nibble mask and a product are 16 registers.
vector_engine!(
    Avx2,
    "avx2",
    Ymm,
    "avx2",
    is_x86_feature_detected!("avx2"),
    registers = 2,
    rows = [1, 2, 3, 4],
    grouped = []
);

/// A ymm register.
#[derive(Clone, Copy)]
pub(super) struct Ymm;

impl Ymm {
    /// Orders streamed stores before whatever follows.
    #[inline(always)]
    pub(super) unsafe fn fence() {
        _mm_sfence();
    }
}

impl Lanes for Ymm {
    type Vector = __m256i;
    /// The low and the high nibbles.
    type Source = (__m256i, __m256i);
    /// The products with all low and with all high nibbles, in both halves.
    type Factor = (__m256i, __m256i);
    const BYTES: usize = 32;
    const PAIRS: bool = false;
    const TABLES: bool = true;

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        _mm256_setzero_si256()
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256i {
        _mm256_loadu_si256(from.cast())
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, bytes: __m256i) {
        _mm256_storeu_si256(to.cast(), bytes)
    }

    #[inline(always)]
    unsafe fn stream(to: *mut u8, bytes: __m256i) {
        _mm256_stream_si256(to.cast(), bytes)
    }

    #[inline(always)]
    unsafe fn load_part(from: *const u8, count: usize) -> __m256i {
        let mut padded = [0u8; Self::BYTES];
        std::ptr::copy_nonoverlapping(from, padded.as_mut_ptr(), count);
        Self::load(padded.as_ptr())
    }

    #[inline(always)]
    unsafe fn store_part(to: *mut u8, count: usize, bytes: __m256i) {
        let mut padded = [0u8; Self::BYTES];
        Self::store(padded.as_mut_ptr(), bytes);
        std::ptr::copy_nonoverlapping(padded.as_ptr(), to, count);
    }

    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        _mm_prefetch::<_MM_HINT_T0>(from.cast())
    }

    #[inline(always)]
    unsafe fn xor(a: __m256i, b: __m256i) -> __m256i {
        _mm256_xor_si256(a, b)
    }

    #[inline(always)]
    unsafe fn xor3(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        _mm256_xor_si256(_mm256_xor_si256(a, b), c)
    }

    #[inline(always)]
    unsafe fn source(bytes: __m256i) -> (__m256i, __m256i) {
        let mask = _mm256_set1_epi8(0x0F);
        (_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi64::<4>(bytes), mask))
    }

    #[inline(always)]
    unsafe fn plain((low, high): (__m256i, __m256i)) -> __m256i {
        _mm256_or_si256(low, _mm256_slli_epi64::<4>(high))
    }

    #[inline(always)]
    unsafe fn factor(coefficients: Coefficients, at: usize) -> (__m256i, __m256i) {
        let table = coefficients.tables.add(32 * at);
        (
            _mm256_broadcastsi128_si256(_mm_loadu_si128(table.cast())),
            _mm256_broadcastsi128_si256(_mm_loadu_si128(table.add(16).cast())),
        )
    }

    #[inline(always)]
    unsafe fn times(source: (__m256i, __m256i), factor: (__m256i, __m256i)) -> __m256i {
        _mm256_xor_si256(_mm256_shuffle_epi8(factor.0, source.0), _mm256_shuffle_epi8(factor.1, source.1))
    }
}
