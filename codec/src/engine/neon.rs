//! NEON: two `tbl` look-ups per product, one for the low and one for the high nibble, as `avx2` does with `pshufb`.

#![allow(unsafe_code, reason = "vector loads and stores by pointer; each block says why it stays inside its slices")]
#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function of `Lanes` is one or two instructions; its contract is theirs"
)]

use super::lanes::{Coefficients, Lanes};
use super::vector_engine::vector_engine;
use std::arch::aarch64::*;

// 2 x 8 sums, 4 nibble vectors, 2 tables, the nibble mask and 2 products fit the 32 registers.
vector_engine!(
    Neon,
    "neon",
    Quad,
    "neon",
    std::arch::is_aarch64_feature_detected!("neon"),
    registers = 2,
    rows = [1, 2, 3, 4, 5, 6, 7, 8],
    grouped = []
);

/// A q register.
#[derive(Clone, Copy)]
struct Quad;

impl Quad {
    /// Streamed stores are plain ones here, which need no fence.
    #[inline(always)]
    unsafe fn fence() {}
}

impl Lanes for Quad {
    type Vector = uint8x16_t;
    /// The low and the high nibbles.
    type Source = (uint8x16_t, uint8x16_t);
    /// The products with all low and with all high nibbles.
    type Factor = (uint8x16_t, uint8x16_t);
    const BYTES: usize = 16;
    const PAIRS: bool = false;
    const TABLES: bool = true;

    #[inline(always)]
    unsafe fn zero() -> uint8x16_t {
        vdupq_n_u8(0)
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> uint8x16_t {
        vld1q_u8(from)
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, bytes: uint8x16_t) {
        vst1q_u8(to, bytes)
    }

    #[inline(always)]
    unsafe fn stream(to: *mut u8, bytes: uint8x16_t) {
        vst1q_u8(to, bytes)
    }

    #[inline(always)]
    unsafe fn load_part(from: *const u8, count: usize) -> uint8x16_t {
        let mut padded = [0u8; Self::BYTES];
        std::ptr::copy_nonoverlapping(from, padded.as_mut_ptr(), count);
        Self::load(padded.as_ptr())
    }

    #[inline(always)]
    unsafe fn store_part(to: *mut u8, count: usize, bytes: uint8x16_t) {
        let mut padded = [0u8; Self::BYTES];
        Self::store(padded.as_mut_ptr(), bytes);
        std::ptr::copy_nonoverlapping(padded.as_ptr(), to, count);
    }

    #[inline(always)]
    unsafe fn prefetch(_from: *const u8) {}

    #[inline(always)]
    unsafe fn xor(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        veorq_u8(a, b)
    }

    #[inline(always)]
    unsafe fn xor3(a: uint8x16_t, b: uint8x16_t, c: uint8x16_t) -> uint8x16_t {
        veorq_u8(veorq_u8(a, b), c)
    }

    #[inline(always)]
    unsafe fn source(bytes: uint8x16_t) -> (uint8x16_t, uint8x16_t) {
        (vandq_u8(bytes, vdupq_n_u8(0x0F)), vshrq_n_u8::<4>(bytes))
    }

    #[inline(always)]
    unsafe fn plain((low, high): (uint8x16_t, uint8x16_t)) -> uint8x16_t {
        vorrq_u8(low, vshlq_n_u8::<4>(high))
    }

    #[inline(always)]
    unsafe fn factor(coefficients: Coefficients, at: usize) -> (uint8x16_t, uint8x16_t) {
        let table = coefficients.tables.add(32 * at);
        (Self::load(table), Self::load(table.add(16)))
    }

    #[inline(always)]
    unsafe fn times(source: (uint8x16_t, uint8x16_t), factor: (uint8x16_t, uint8x16_t)) -> uint8x16_t {
        veorq_u8(vqtbl1q_u8(factor.0, source.0), vqtbl1q_u8(factor.1, source.1))
    }
}
