//! AVX2 with GFNI, for processors without AVX-512 (Alder Lake and later desktop parts): as `gfni512` with half the
//! register width, half the registers and no masks.

#![allow(unsafe_code, reason = "vector loads and stores by pointer; each block says why it stays inside its slices")]
#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function of `Lanes` is one or two instructions; its contract is theirs"
)]

use super::avx2::Ymm;
use super::lanes::{Coefficients, Lanes};
use super::vector_engine::vector_engine;
use std::arch::x86_64::*;

// 2 x 5 sums, 2 inputs, coefficient and product fit the 16 ymm registers.
vector_engine!(
    Gfni256,
    "avx2-gfni",
    YmmGfni,
    "avx2,gfni",
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("gfni"),
    registers = 2,
    rows = [1, 2, 3, 4, 5],
    // Dense rows, groups, dense rows in each sum: the geo tables, then LRCs. Sums have registers too.
    grouped = [(3, 3, 1), (1, 2, 0), (2, 2, 0), (3, 2, 0), (2, 3, 0)]
);

/// A ymm register whose products are bit matrices.
#[derive(Clone, Copy)]
struct YmmGfni;

impl YmmGfni {
    #[inline(always)]
    unsafe fn fence() {
        Ymm::fence()
    }
}

impl Lanes for YmmGfni {
    type Vector = __m256i;
    type Source = __m256i;
    type Factor = __m256i;
    const BYTES: usize = Ymm::BYTES;
    const PAIRS: bool = false;
    const TABLES: bool = false;

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        Ymm::zero()
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256i {
        Ymm::load(from)
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, bytes: __m256i) {
        Ymm::store(to, bytes)
    }

    #[inline(always)]
    unsafe fn stream(to: *mut u8, bytes: __m256i) {
        Ymm::stream(to, bytes)
    }

    #[inline(always)]
    unsafe fn load_part(from: *const u8, count: usize) -> __m256i {
        Ymm::load_part(from, count)
    }

    #[inline(always)]
    unsafe fn store_part(to: *mut u8, count: usize, bytes: __m256i) {
        Ymm::store_part(to, count, bytes)
    }

    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        Ymm::prefetch(from)
    }

    #[inline(always)]
    unsafe fn xor(a: __m256i, b: __m256i) -> __m256i {
        Ymm::xor(a, b)
    }

    #[inline(always)]
    unsafe fn xor3(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        Ymm::xor3(a, b, c)
    }

    #[inline(always)]
    unsafe fn source(bytes: __m256i) -> __m256i {
        bytes
    }

    #[inline(always)]
    unsafe fn plain(source: __m256i) -> __m256i {
        source
    }

    #[inline(always)]
    unsafe fn factor(coefficients: Coefficients, at: usize) -> __m256i {
        _mm256_set1_epi64x((*coefficients.affine.add(at)).cast_signed())
    }

    #[inline(always)]
    unsafe fn times(source: __m256i, factor: __m256i) -> __m256i {
        _mm256_gf2p8affine_epi64_epi8::<0>(source, factor)
    }
}
