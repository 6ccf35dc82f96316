//! The loop that all vector kernels share, written over the few operations they differ in.
//!
//! A column is as many bytes of each slice as some registers hold. For each column the sums of up to M outputs stay in
//! registers while every input is read once; then the sums are stored. More outputs take several passes over blocks
//! short enough to be read from the cache again.
//!
//! Everything here is inlined into the `#[target_feature]` functions that `vector_engine` makes, which is what gives the
//! operations their instructions.

#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, unused_macros, unused_imports, reason = "no vector kernel on this processor")
)]
#![allow(clippy::needless_range_loop, reason = "r and u number registers, over arrays and coefficients alike")]
#![allow(unsafe_code, reason = "vector loads and stores by pointer; each block says why it stays inside its slices")]

use super::Combination;
use super::lanes::{Coefficients, Lanes};

/// Columns are worked through in blocks of this many bytes when there are more outputs than a kernel has registers
/// for: 20 inputs of 2 KiB are 40 KiB, read from L1 or L2 again for the next outputs rather than from memory.
pub(super) const BLOCK_BYTES: usize = 2 << 10;
/// How far ahead of a streaming pass its inputs are asked for. Measured on Zen 4: 256 to 448 are alike up to 12 inputs;
/// 512 costs a tenth with 17 inputs (more lines asked for than can be on their way), 576 and more cost as much with any.
const PREFETCH_BYTES: usize = 320;

/// How a pass stores.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PassStore {
    Replace,
    Stream,
    Add,
}

/// What one pass reads: the bytes `from..to` of all inputs, with the coefficients from row `first` on.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) inputs: &'a [&'a [u8]],
    pub(super) coefficients: Coefficients,
    /// Coefficients per input.
    pub(super) stride: usize,
    pub(super) first: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) store: PassStore,
}

impl<'a> Pass<'a> {
    pub(super) fn new<L: Lanes>(combination: &Combination, inputs: &'a [&'a [u8]], store: PassStore) -> Self {
        let tables = if L::TABLES { combination.tables().as_ptr().cast() } else { std::ptr::null() };
        let coefficients = Coefficients { tables, affine: combination.affine.as_ptr() };
        Self { inputs, coefficients, stride: combination.outputs, first: 0, from: 0, to: 0, store }
    }
}

/// Computes M outputs of one pass, in columns of U registers.
///
/// # Safety
/// The processor has the instructions of `L`. Every input and every one of the M `outputs` has at least `pass.to`
/// bytes; there are `stride` coefficients for each input and at least `first + M` of them.
#[inline(always)]
pub(super) unsafe fn columns<L: Lanes, const M: usize, const U: usize>(pass: &Pass<'_>, outputs: &mut [&mut [u8]]) {
    assert_eq!(outputs.len(), M, "one slice per sum");
    let mut to = [std::ptr::null_mut(); M];
    for (to, output) in to.iter_mut().zip(outputs) {
        *to = output.as_mut_ptr();
    }
    let mut pass = *pass;
    let mut offset = pass.from;
    // SAFETY: each column ends at or before `pass.to`, up to which all slices reach; the rest is the caller's.
    unsafe {
        if pass.store == PassStore::Stream {
            offset += align::<L, M, U>(&mut pass, &to);
        }
        while offset + U * L::BYTES <= pass.to {
            column::<L, M, U, false>(&pass, &to, offset, 0);
            offset += U * L::BYTES;
        }
        while U > 1 && offset + L::BYTES <= pass.to {
            column::<L, M, 1, false>(&pass, &to, offset, 0);
            offset += L::BYTES;
        }
        if offset < pass.to {
            pass.store = replaced(pass.store);
            column::<L, M, 1, true>(&pass, &to, offset, pass.to - offset);
        }
    }
}

/// Brings a streaming pass to an address where whole registers may be streamed, and says how many bytes that took; or
/// makes it a plain one, if there is no such address for all outputs.
///
/// # Safety
/// As of [`columns`].
#[inline(always)]
unsafe fn align<L: Lanes, const M: usize, const U: usize>(pass: &mut Pass<'_>, to: &[*mut u8; M]) -> usize {
    let beyond = |to: &*mut u8| (to.addr() + pass.from) % L::BYTES;
    let past = to.first().map_or(0, beyond);
    if to.iter().any(|to| beyond(to) != past) {
        pass.store = PassStore::Replace;
        return 0;
    }
    let head = (L::BYTES - past) % L::BYTES;
    if head == 0 || head > pass.to - pass.from {
        // Either aligned, or too short to get there: then nothing whole is left to stream.
        return 0;
    }
    let plain = Pass { store: PassStore::Replace, ..*pass };
    // SAFETY: `head` bytes from `from` end at or before `to`; the rest is the caller's.
    unsafe { column::<L, M, 1, true>(&plain, to, pass.from, head) };
    head
}

pub(super) fn replaced(store: PassStore) -> PassStore {
    if store == PassStore::Add { PassStore::Add } else { PassStore::Replace }
}

/// One column of U registers from `offset` on, or of `part` bytes of one register.
///
/// # Safety
/// As of [`columns`]; the column ends at or before `pass.to`. `part` is `1..BYTES` if `PART`. A streaming pass is at an
/// aligned address of every output.
#[inline(always)]
unsafe fn column<L: Lanes, const M: usize, const U: usize, const PART: bool>(
    pass: &Pass<'_>,
    to: &[*mut u8; M],
    offset: usize,
    part: usize,
) {
    let count = pass.inputs.len();
    // SAFETY: `i` is below `count` where it is used; the column is inside all slices; coefficients exist.
    unsafe {
        let mut sums = [[L::zero(); U]; M];
        if pass.store == PassStore::Add {
            for r in 0..M {
                for u in 0..U {
                    sums[r][u] = load::<L, PART>(to[r].add(offset + u * L::BYTES), part);
                }
            }
        }
        let mut i = 0;
        while L::PAIRS && i + 2 <= count {
            let a = sources::<L, U, PART>(pass, i, offset, part);
            let b = sources::<L, U, PART>(pass, i + 1, offset, part);
            let (row_a, row_b) = (i * pass.stride + pass.first, (i + 1) * pass.stride + pass.first);
            for r in 0..M {
                let by_a = L::factor(pass.coefficients, row_a + r);
                let by_b = L::factor(pass.coefficients, row_b + r);
                for u in 0..U {
                    sums[r][u] = L::xor3(sums[r][u], L::times(a[u], by_a), L::times(b[u], by_b));
                }
            }
            i += 2;
        }
        while i < count {
            let a = sources::<L, U, PART>(pass, i, offset, part);
            let row = i * pass.stride + pass.first;
            for r in 0..M {
                let by = L::factor(pass.coefficients, row + r);
                for u in 0..U {
                    sums[r][u] = L::xor(sums[r][u], L::times(a[u], by));
                }
            }
            i += 1;
        }
        for r in 0..M {
            put::<L, U, PART>(pass.store, to[r].add(offset), sums[r], part);
        }
    }
}

/// # Safety
/// A register, or `part` bytes, are readable at `from`.
#[inline(always)]
pub(super) unsafe fn load<L: Lanes, const PART: bool>(from: *const u8, part: usize) -> L::Vector {
    // SAFETY: the caller's.
    unsafe { if PART { L::load_part(from, part) } else { L::load(from) } }
}

/// The registers of input `i` at `offset`.
///
/// # Safety
/// The input exists; U registers, or `part` bytes, of it are readable there.
#[inline(always)]
pub(super) unsafe fn sources<L: Lanes, const U: usize, const PART: bool>(
    pass: &Pass<'_>,
    i: usize,
    offset: usize,
    part: usize,
) -> [L::Source; U] {
    // SAFETY: the caller's; a prefetch reads nothing.
    unsafe {
        let from = pass.inputs.get_unchecked(i).as_ptr().add(offset);
        if pass.store == PassStore::Stream {
            L::prefetch(from.wrapping_add(PREFETCH_BYTES));
        }
        let mut sources = [L::source(L::zero()); U];
        for (u, source) in sources.iter_mut().enumerate() {
            *source = L::source(load::<L, PART>(from.add(u * L::BYTES), part));
        }
        sources
    }
}

/// # Safety
/// U registers, or `part` bytes, are writable at `to`, which is aligned if `store` streams.
#[inline(always)]
pub(super) unsafe fn put<L: Lanes, const U: usize, const PART: bool>(
    store: PassStore,
    to: *mut u8,
    sums: [L::Vector; U],
    part: usize,
) {
    for (u, &sum) in sums.iter().enumerate() {
        // SAFETY: the caller's.
        unsafe {
            let to = to.add(u * L::BYTES);
            if PART {
                L::store_part(to, part, sum);
            } else if store == PassStore::Stream {
                L::stream(to, sum);
            } else {
                L::store(to, sum);
            }
        }
    }
}

/// Splits `outputs` rows into runs of at most `max`, as even as possible, and calls `run(first_row, rows, from, to)`
/// for each run and each block of columns. With one run there is one block: the whole length.
pub(super) fn for_each_run(outputs: usize, max: usize, len: usize, mut run: impl FnMut(usize, usize, usize, usize)) {
    let runs = outputs.div_ceil(max);
    let block = if runs <= 1 { len.max(1) } else { BLOCK_BYTES };
    for from in (0..len).step_by(block) {
        let to = len.min(from + block);
        let mut first = 0;
        for index in 0..runs {
            let rows = (outputs - first).div_ceil(runs - index);
            run(first, rows, from, to);
            first += rows;
        }
    }
}
