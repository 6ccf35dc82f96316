//! The few operations that vector kernels differ in.

#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, unused_macros, unused_imports, reason = "no vector kernel on this processor")
)]
#![allow(unsafe_code, reason = "the operations are instructions on memory; their contract is the trait's")]

/// A vector register and what kernels do with it.
///
/// # Safety
/// All functions need the instructions of the implementation. Those that take a pointer need as many readable or
/// writable bytes there as they move, `stream` an address that is a multiple of `BYTES`.
pub(super) trait Lanes: Copy {
    /// A register.
    type Vector: Copy;
    /// An input register made ready for products.
    type Source: Copy;
    /// A coefficient made ready for products.
    type Factor: Copy;
    /// Bytes of a register.
    const BYTES: usize;
    /// Whether inputs go in pairs, because a sum of three is one instruction and there are registers for it.
    const PAIRS: bool;
    /// Whether products are looked up in tables, which are made for it then.
    const TABLES: bool;

    unsafe fn zero() -> Self::Vector;
    unsafe fn load(from: *const u8) -> Self::Vector;
    unsafe fn store(to: *mut u8, bytes: Self::Vector);
    /// Past the cache.
    unsafe fn stream(to: *mut u8, bytes: Self::Vector);
    /// The first `count` bytes, `1..BYTES`; the others are zeros.
    unsafe fn load_part(from: *const u8, count: usize) -> Self::Vector;
    /// The first `count` bytes, `1..BYTES`.
    unsafe fn store_part(to: *mut u8, count: usize, bytes: Self::Vector);
    unsafe fn prefetch(from: *const u8);
    unsafe fn xor(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn xor3(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    unsafe fn source(bytes: Self::Vector) -> Self::Source;
    /// The register an input was made from, or one equal to it.
    unsafe fn plain(source: Self::Source) -> Self::Vector;
    /// Coefficient number `at`, which must exist.
    unsafe fn factor(coefficients: Coefficients, at: usize) -> Self::Factor;
    unsafe fn times(source: Self::Source, factor: Self::Factor) -> Self::Vector;
}

/// The forms of a combination's coefficients that kernels read, `[input][output]`.
#[derive(Clone, Copy)]
pub(super) struct Coefficients {
    /// Tables of 32 bytes; only there if the kernel has `TABLES`.
    pub(super) tables: *const u8,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "read by GFNI kernels only"))]
    pub(super) affine: *const u64,
}
