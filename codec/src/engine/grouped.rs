//! The loop of `columns` for codes with sums among their parities (LRC and geo): a sum costs no product, and the
//! parities it takes in are still in registers when it is finished. GEO-6 is then bound by the traffic with the cache,
//! as plain XOR would be.

#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, unused_macros, unused_imports, reason = "no vector kernel on this processor")
)]
#![allow(clippy::needless_range_loop, reason = "g, r and u number registers, over arrays and coefficients alike")]
#![allow(unsafe_code, reason = "vector loads and stores by pointer; each block says why it stays inside its slices")]

use super::columns::{Pass, PassStore, load, put, replaced, sources};
use super::combination::Grouped;
use super::lanes::Lanes;

/// Most sums of a grouped pass: as many regions as a geo code has.
const GROUPS_MAX: usize = 4;

/// Computes outputs some of which are sums: the M dense ones as [`columns`] does, and each of the G sums from the inputs
/// as they pass by and from P dense outputs while they are still in registers.
///
/// # Safety
/// As of [`columns`], for a pass over `grouped.dense` with `first` 0; `outputs` are all outputs of the combination
/// (dense and sums).
#[inline(always)]
pub(super) unsafe fn grouped<L: Lanes, const M: usize, const G: usize, const P: usize, const U: usize>(
    pass: &Pass<'_>,
    grouped: &Grouped,
    outputs: &mut [&mut [u8]],
) {
    assert!(grouped.shape() == Some((M, G, P)) && G <= GROUPS_MAX, "the kernel fits the combination");
    assert_eq!(grouped.groups[G - 1].inputs_end, pass.inputs.len(), "runs cover the inputs");
    let mut run = GroupedPass { pass: *pass, to: [std::ptr::null_mut(); M], sums: [(0, std::ptr::null_mut()); G] };
    for (to, &row) in run.to.iter_mut().zip(&grouped.dense_rows) {
        *to = outputs[row].as_mut_ptr();
    }
    for (sum, group) in run.sums.iter_mut().zip(&grouped.groups) {
        *sum = (group.inputs_end, outputs[group.row].as_mut_ptr());
    }
    // SAFETY: each column ends at or before `pass.to`, up to which all slices reach; the rest is the caller's.
    unsafe {
        let mut offset = pass.from;
        if pass.store == PassStore::Stream {
            let mut all = run.to.iter().chain(run.sums.iter().map(|(_, to)| to));
            let aligned = all.all(|to| (to.addr() + offset).is_multiple_of(L::BYTES));
            run.pass.store = if aligned { PassStore::Stream } else { PassStore::Replace };
        }
        while offset + U * L::BYTES <= pass.to {
            run.column::<L, P, U, false>(offset, 0);
            offset += U * L::BYTES;
        }
        while U > 1 && offset + L::BYTES <= pass.to {
            run.column::<L, P, 1, false>(offset, 0);
            offset += L::BYTES;
        }
        if offset < pass.to {
            run.pass.store = replaced(pass.store);
            run.column::<L, P, 1, true>(offset, pass.to - offset);
        }
    }
}

/// A pass of [`grouped`].
struct GroupedPass<'a, const M: usize, const G: usize> {
    pass: Pass<'a>,
    /// Where the dense outputs go.
    to: [*mut u8; M],
    /// For each sum where its run of inputs ends and where it goes.
    sums: [(usize, *mut u8); G],
}

impl<const M: usize, const G: usize> GroupedPass<'_, M, G> {
    /// # Safety
    /// As of [`grouped`] and of [`column`].
    #[inline(always)]
    unsafe fn column<L: Lanes, const P: usize, const U: usize, const PART: bool>(&self, offset: usize, part: usize) {
        // Groups are written out one by one, not looped over, so that their sums have registers of their own.
        // SAFETY: the caller's; runs follow each other and the last ends with the inputs.
        unsafe {
            let mut dense = [[L::zero(); U]; M];
            let mut locals = [[L::zero(); U]; GROUPS_MAX];
            locals[0] = self.run_of::<L, U, PART>(0, self.sums[0].0, &mut dense, offset, part);
            if G > 1 {
                locals[1] = self.run_of::<L, U, PART>(self.sums[0].0, self.sums[1].0, &mut dense, offset, part);
            }
            if G > 2 {
                locals[2] = self.run_of::<L, U, PART>(self.sums[1].0, self.sums[2].0, &mut dense, offset, part);
            }
            if G > 3 {
                locals[3] = self.run_of::<L, U, PART>(self.sums[2].0, self.sums[3].0, &mut dense, offset, part);
            }
            for g in 0..G {
                for p in 0..P {
                    for u in 0..U {
                        locals[g][u] = L::xor(locals[g][u], dense[g * P + p][u]);
                    }
                }
            }
            for g in 0..G {
                self.finish::<L, U, PART>(self.sums[g].1.add(offset), locals[g], part);
            }
            for r in 0..M {
                self.finish::<L, U, PART>(self.to[r].add(offset), dense[r], part);
            }
        }
    }

    /// The inputs `i..end`: their sum, and what they add to the dense outputs.
    ///
    /// # Safety
    /// As of [`Self::column`]; there are `end` inputs or more.
    #[inline(always)]
    unsafe fn run_of<L: Lanes, const U: usize, const PART: bool>(
        &self,
        mut i: usize,
        end: usize,
        dense: &mut [[L::Vector; U]; M],
        offset: usize,
        part: usize,
    ) -> [L::Vector; U] {
        let pass = &self.pass;
        // SAFETY: `i` is below `end` where it is used; the column is inside all slices; coefficients exist.
        unsafe {
            let mut local = [L::zero(); U];
            while i + 2 <= end {
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
                        dense[r][u] = L::xor3(dense[r][u], L::times(a[u], by_a), L::times(b[u], by_b));
                    }
                }
                i += 2;
            }
            while i < end {
                let a = sources::<L, U, PART>(pass, i, offset, part);
                for u in 0..U {
                    local[u] = L::xor(local[u], L::plain(a[u]));
                }
                let row = i * pass.stride;
                for r in 0..M {
                    let by = L::factor(pass.coefficients, row + r);
                    for u in 0..U {
                        dense[r][u] = L::xor(dense[r][u], L::times(a[u], by));
                    }
                }
                i += 1;
            }
            local
        }
    }

    /// # Safety
    /// U registers, or `part` bytes, are readable and writable at `to`, which is aligned if the pass streams.
    #[inline(always)]
    unsafe fn finish<L: Lanes, const U: usize, const PART: bool>(
        &self,
        to: *mut u8,
        mut sums: [L::Vector; U],
        part: usize,
    ) {
        // SAFETY: the caller's.
        unsafe {
            if self.pass.store == PassStore::Add {
                add::<L, U, PART>(to, &mut sums, part);
            }
            put::<L, U, PART>(self.pass.store, to, sums, part);
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
