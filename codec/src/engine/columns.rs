//! The loop that all vector kernels share, written over the few operations they differ in.
//!
//! A column is as many bytes of each slice as some registers hold. For each column the sums of up to M outputs stay in
//! registers while every input is read once; then the sums are stored. More outputs take several passes over blocks
//! short enough to be read from the cache again.
//!
//! Everything here is inlined into the `#[target_feature]` functions that `vector_engine!` makes, which is what gives
//! the operations their instructions.

#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, unused_macros, unused_imports, reason = "no vector kernel on this processor")
)]
#![allow(clippy::needless_range_loop, reason = "r and u number registers, over arrays and coefficients alike")]
#![allow(unsafe_code, reason = "vector loads and stores by pointer; each block says why it stays inside its slices")]

use super::Combination;
use super::combination::Grouped;

/// Columns are worked through in blocks of this many bytes when there are more outputs than a kernel has registers
/// for: 20 inputs of 2 KiB are 40 KiB, read from L1 or L2 again for the next outputs rather than from memory.
pub(super) const BLOCK_BYTES: usize = 2 << 10;
/// How far ahead of a streaming pass its inputs are asked for: what memory delivers in the time of eight columns.
const PREFETCH_BYTES: usize = 512;
/// Most sums a grouped pass keeps for its end; an LRC has at most 15 groups.
pub(super) const GROUPS_MAX: usize = 15;

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

/// The two forms of a combination's coefficients, `[input][output]`.
#[derive(Clone, Copy)]
pub(super) struct Coefficients {
    pub(super) bytes: *const u8,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "read by GFNI kernels only"))]
    pub(super) affine: *const u64,
}

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
    pub(super) fn new(combination: &Combination, inputs: &'a [&'a [u8]], store: PassStore) -> Self {
        let coefficients =
            Coefficients { bytes: combination.coefficients.as_ptr(), affine: combination.affine.as_ptr() };
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

fn replaced(store: PassStore) -> PassStore {
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

/// Computes outputs some of which are sums: the M dense ones as [`columns`] does, and each sum from the inputs as they
/// pass by and from the dense outputs while they are still in registers.
///
/// # Safety
/// As of [`columns`], for a pass over `grouped.dense` with `first` 0; `outputs` are all outputs of the combination
/// (dense and sums), `grouped` has M dense rows and at most [`GROUPS_MAX`] groups whose runs end with the inputs.
#[inline(always)]
pub(super) unsafe fn grouped<L: Lanes, const M: usize, const U: usize>(
    pass: &Pass<'_>,
    grouped: &Grouped,
    outputs: &mut [&mut [u8]],
) {
    assert!(grouped.dense_rows.len() == M && grouped.groups.len() <= GROUPS_MAX, "the kernel fits the combination");
    assert_eq!(grouped.groups.last().map(|group| group.inputs_end), Some(pass.inputs.len()), "runs cover the inputs");
    let mut to = [std::ptr::null_mut(); M];
    for (to, &row) in to.iter_mut().zip(&grouped.dense_rows) {
        *to = outputs[row].as_mut_ptr();
    }
    let mut sums_to = [std::ptr::null_mut(); GROUPS_MAX];
    for (to, group) in sums_to.iter_mut().zip(&grouped.groups) {
        *to = outputs[group.row].as_mut_ptr();
    }
    let mut pass = *pass;
    // SAFETY: each column ends at or before `pass.to`, up to which all slices reach; the rest is the caller's.
    unsafe {
        let mut offset = pass.from;
        if pass.store == PassStore::Stream {
            let all = to.iter().chain(sums_to.iter().take(grouped.groups.len()));
            let aligned = all.into_iter().all(|to| (to.addr() + offset).is_multiple_of(L::BYTES));
            pass.store = if aligned { PassStore::Stream } else { PassStore::Replace };
        }
        while offset + U * L::BYTES <= pass.to {
            grouped_column::<L, M, U, false>(&pass, grouped, &to, &sums_to, offset, 0);
            offset += U * L::BYTES;
        }
        while U > 1 && offset + L::BYTES <= pass.to {
            grouped_column::<L, M, 1, false>(&pass, grouped, &to, &sums_to, offset, 0);
            offset += L::BYTES;
        }
        if offset < pass.to {
            pass.store = replaced(pass.store);
            grouped_column::<L, M, 1, true>(&pass, grouped, &to, &sums_to, offset, pass.to - offset);
        }
    }
}

/// # Safety
/// As of [`grouped`] and of [`column`].
#[inline(always)]
unsafe fn grouped_column<L: Lanes, const M: usize, const U: usize, const PART: bool>(
    pass: &Pass<'_>,
    grouped: &Grouped,
    to: &[*mut u8; M],
    sums_to: &[*mut u8; GROUPS_MAX],
    offset: usize,
    part: usize,
) {
    // SAFETY: `i` is below the number of inputs where it is used, because the last run ends there; the column is inside
    // all slices; coefficients exist; `dense` numbers are below M because they are rows of `grouped.dense`.
    unsafe {
        let mut sums = [[L::zero(); U]; M];
        let mut locals = [[L::zero(); U]; GROUPS_MAX];
        let mut i = 0;
        for (group, kept) in grouped.groups.iter().zip(&mut locals) {
            let mut local = [L::zero(); U];
            while i + 2 <= group.inputs_end {
                let a = sources::<L, U, PART>(pass, i, offset, part);
                let b = sources::<L, U, PART>(pass, i + 1, offset, part);
                for u in 0..U {
                    local[u] = L::xor3(local[u], L::plain(a[u]), L::plain(b[u]));
                }
                let (row_a, row_b) = (i * pass.stride, (i + 1) * pass.stride);
                for r in 0..M {
                    let by_a = L::factor(pass.coefficients, row_a + r);
                    let by_b = L::factor(pass.coefficients, row_b + r);
                    for u in 0..U {
                        sums[r][u] = L::xor3(sums[r][u], L::times(a[u], by_a), L::times(b[u], by_b));
                    }
                }
                i += 2;
            }
            while i < group.inputs_end {
                let a = sources::<L, U, PART>(pass, i, offset, part);
                let row = i * pass.stride;
                for u in 0..U {
                    local[u] = L::xor(local[u], L::plain(a[u]));
                }
                for r in 0..M {
                    let by = L::factor(pass.coefficients, row + r);
                    for u in 0..U {
                        sums[r][u] = L::xor(sums[r][u], L::times(a[u], by));
                    }
                }
                i += 1;
            }
            *kept = local;
        }
        // A copy that may be indexed by a number only known now, so that `sums` itself can stay in registers.
        let dense = sums;
        for (number, group) in grouped.groups.iter().enumerate() {
            let mut local = locals[number];
            for &row in &group.dense {
                let dense = dense[row];
                for u in 0..U {
                    local[u] = L::xor(local[u], dense[u]);
                }
            }
            if pass.store == PassStore::Add {
                add::<L, U, PART>(sums_to[number].add(offset), &mut local, part);
            }
            put::<L, U, PART>(pass.store, sums_to[number].add(offset), local, part);
        }
        for r in 0..M {
            if pass.store == PassStore::Add {
                add::<L, U, PART>(to[r].add(offset), &mut sums[r], part);
            }
            put::<L, U, PART>(pass.store, to[r].add(offset), sums[r], part);
        }
    }
}

/// Adds what is stored there already.
///
/// # Safety
/// U registers, or `part` bytes, are readable at `to`.
#[inline(always)]
unsafe fn add<L: Lanes, const U: usize, const PART: bool>(to: *mut u8, sums: &mut [L::Vector; U], part: usize) {
    for (u, sum) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's.
        *sum = unsafe { L::xor(*sum, load::<L, PART>(to.add(u * L::BYTES), part)) };
    }
}

/// # Safety
/// A register, or `part` bytes, are readable at `from`.
#[inline(always)]
unsafe fn load<L: Lanes, const PART: bool>(from: *const u8, part: usize) -> L::Vector {
    // SAFETY: the caller's.
    unsafe { if PART { L::load_part(from, part) } else { L::load(from) } }
}

/// The registers of input `i` at `offset`.
///
/// # Safety
/// The input exists; U registers, or `part` bytes, of it are readable there.
#[inline(always)]
unsafe fn sources<L: Lanes, const U: usize, const PART: bool>(
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
unsafe fn put<L: Lanes, const U: usize, const PART: bool>(
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

/// An engine from an implementation of [`Lanes`]: its type, its detection, and for each number of rows the loops above
/// compiled with the instructions they need.
macro_rules! vector_engine {
    ($engine:ident, $name:literal, $lanes:ty, $features:literal, $able:expr, registers = $unroll:literal,
     rows = [$($rows:literal),+], grouped = [$($dense:literal),*]) => {
        /// Exists only where the processor has the instructions.
        #[derive(Debug)]
        pub(super) struct $engine {
            _detected: (),
        }

        static ENGINE: $engine = $engine { _detected: () };

        /// Most outputs of one pass.
        const ROWS_MAX: usize = { const ROWS: &[usize] = &[$($rows),+]; ROWS[ROWS.len() - 1] };

        impl $engine {
            /// The engine, if this processor can run it.
            pub(super) fn detect() -> Option<&'static Self> {
                $able.then_some(&ENGINE)
            }
        }

        impl $crate::engine::Engine for $engine {
            fn name(&self) -> &'static str {
                $name
            }

            fn combine(
                &self,
                combination: &$crate::engine::Combination,
                inputs: &[&[u8]],
                outputs: &mut [&mut [u8]],
                store: $crate::engine::Store,
            ) {
                use $crate::engine::columns::{self, Pass, PassStore};
                let len = combination.checked_len(inputs, outputs);
                let is_streamed = store == $crate::engine::Store::Stream;
                let store = match store {
                    $crate::engine::Store::Replace => PassStore::Replace,
                    $crate::engine::Store::Stream => PassStore::Stream,
                    $crate::engine::Store::Add => PassStore::Add,
                };
                if let Some(grouped) = &combination.grouped && grouped.groups.len() <= columns::GROUPS_MAX {
                    let pass = Pass { to: len, ..Pass::new(&grouped.dense, inputs, store) };
                    let _ = &pass;
                    match grouped.dense_rows.len() {
                        // SAFETY: `detect` has seen the features; `checked_len` has seen that every slice has `len`
                        // bytes; a grouped combination's parts fit it and each other.
                        $($dense => return unsafe { grouped_pass::<$dense>(&pass, grouped, outputs, is_streamed) },)*
                        _ => {}
                    }
                }
                let pass = Pass::new(combination, inputs, store);
                columns::for_each_run(combination.outputs, ROWS_MAX, len, |first, rows, from, to| {
                    let outputs = &mut outputs[first..first + rows];
                    let pass = Pass { first, from, to, ..pass };
                    match rows {
                        // SAFETY: `detect` has seen the features; `checked_len` has seen that every slice has `len`
                        // bytes, and `from <= to <= len`; the runs are inside the combination's outputs.
                        $($rows => unsafe { pass_of::<$rows>(&pass, outputs, is_streamed) },)+
                        _ => unreachable!("runs have 1 to {ROWS_MAX} rows"),
                    }
                });
            }
        }

        /// # Safety
        /// The processor has the features; else as of `columns`.
        #[target_feature(enable = $features)]
        unsafe fn pass_of<const M: usize>(
            pass: &$crate::engine::columns::Pass<'_>,
            outputs: &mut [&mut [u8]],
            is_streamed: bool,
        ) {
            // SAFETY: the caller's.
            unsafe {
                if is_streamed {
                    $crate::engine::columns::columns::<$lanes, M, 1>(pass, outputs);
                    <$lanes>::fence();
                } else {
                    $crate::engine::columns::columns::<$lanes, M, $unroll>(pass, outputs);
                }
            }
        }

        /// # Safety
        /// The processor has the features; else as of `grouped`.
        #[target_feature(enable = $features)]
        #[allow(dead_code, reason = "not every engine has a grouped form")]
        unsafe fn grouped_pass<const M: usize>(
            pass: &$crate::engine::columns::Pass<'_>,
            grouped: &$crate::engine::combination::Grouped,
            outputs: &mut [&mut [u8]],
            is_streamed: bool,
        ) {
            // SAFETY: the caller's.
            unsafe {
                if is_streamed {
                    $crate::engine::columns::grouped::<$lanes, M, 1>(pass, grouped, outputs);
                    <$lanes>::fence();
                } else {
                    $crate::engine::columns::grouped::<$lanes, M, $unroll>(pass, grouped, outputs);
                }
            }
        }
    };
}
pub(super) use vector_engine;
