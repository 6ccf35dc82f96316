//! AVX-512 with GFNI: `gf2p8affineqb` multiplies 64 bytes by one coefficient, given as an 8x8 bit matrix.
//!
//! Inputs go in pairs, so that one `vpternlogq` adds two products at once; up to ten outputs times two registers stay
//! in the 32 zmm registers. Tails are masked loads and stores, so slices need no padding and nothing is overrun.

#![allow(unsafe_code, reason = "vector loads and stores by pointer; each block says why it stays inside its slices")]

use super::{Combination, Engine, for_each_run};
use std::arch::x86_64::*;

/// Most outputs in one pass: 2 x 10 sums, 4 inputs, coefficients and products make 32 registers.
const ROWS_MAX: usize = 10;
/// Bytes of a register.
const LANE: usize = 64;

/// Exists only where the processor has the instructions.
#[derive(Debug)]
pub(super) struct Gfni512 {
    _detected: (),
}

static ENGINE: Gfni512 = Gfni512 { _detected: () };

impl Gfni512 {
    /// The engine, if this processor can run it.
    pub(super) fn detect() -> Option<&'static Self> {
        let able = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("gfni");
        able.then_some(&ENGINE)
    }
}

impl Engine for Gfni512 {
    fn name(&self) -> &'static str {
        "avx512-gfni"
    }

    fn combine(&self, combination: &Combination, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        let len = combination.checked_len(inputs, outputs);
        for_each_run(combination.outputs, ROWS_MAX, len, |first, rows, from, to| {
            let outputs = &mut outputs[first..first + rows];
            let pass = Pass { combination, first, inputs, from, to };
            // SAFETY: a `Gfni512` is handed out by `detect` only, which has seen the target features of `columns`;
            // `checked_len` has seen that every slice has `len` bytes, and `from <= to <= len`.
            unsafe {
                match rows {
                    1 => columns::<1>(&pass, outputs),
                    2 => columns::<2>(&pass, outputs),
                    3 => columns::<3>(&pass, outputs),
                    4 => columns::<4>(&pass, outputs),
                    5 => columns::<5>(&pass, outputs),
                    6 => columns::<6>(&pass, outputs),
                    7 => columns::<7>(&pass, outputs),
                    8 => columns::<8>(&pass, outputs),
                    9 => columns::<9>(&pass, outputs),
                    10 => columns::<10>(&pass, outputs),
                    _ => unreachable!("runs have 1 to {ROWS_MAX} rows"),
                }
            }
        });
    }
}

/// What one pass reads: the bytes `from..to` of all inputs, with the coefficients from row `first` on.
struct Pass<'a> {
    combination: &'a Combination,
    first: usize,
    inputs: &'a [&'a [u8]],
    from: usize,
    to: usize,
}

/// Computes M outputs of one pass.
///
/// # Safety
/// The processor has AVX-512 F and BW and GFNI. Every input and output has at least `pass.to` bytes, `outputs` are M,
/// and the combination has `pass.first + M` or more outputs and as many inputs as `pass.inputs`.
#[target_feature(enable = "avx512f,avx512bw,gfni")]
unsafe fn columns<const M: usize>(pass: &Pass<'_>, outputs: &mut [&mut [u8]]) {
    let Pass { combination, first, inputs, from, to } = *pass;
    let (stride, count) = (combination.outputs, inputs.len());
    let matrices = combination.affine.as_ptr().wrapping_add(first);
    let mut offset = from;

    while offset + 2 * LANE <= to {
        let mut sums = [[_mm512_setzero_si512(); 2]; M];
        let mut i = 0;
        while i + 2 <= count {
            // SAFETY: `i + 1 < count`, the number of inputs; 2 * LANE bytes at `offset` end at or before `to`. The
            // matrices of an input are `stride` long and hold rows `first..first + M`.
            unsafe {
                let a = inputs.get_unchecked(i).as_ptr().add(offset);
                let b = inputs.get_unchecked(i + 1).as_ptr().add(offset);
                let (a0, a1) = (_mm512_loadu_si512(a.cast()), _mm512_loadu_si512(a.add(LANE).cast()));
                let (b0, b1) = (_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(LANE).cast()));
                let (row_a, row_b) = (matrices.add(i * stride), matrices.add((i + 1) * stride));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let by_a = _mm512_set1_epi64((*row_a.add(r)).cast_signed());
                    let by_b = _mm512_set1_epi64((*row_b.add(r)).cast_signed());
                    sum[0] = xor3(sum[0], times(a0, by_a), times(b0, by_b));
                    sum[1] = xor3(sum[1], times(a1, by_a), times(b1, by_b));
                }
            }
            i += 2;
        }
        if i < count {
            // SAFETY: as above, for the last input of an odd number.
            unsafe {
                let a = inputs.get_unchecked(i).as_ptr().add(offset);
                let (a0, a1) = (_mm512_loadu_si512(a.cast()), _mm512_loadu_si512(a.add(LANE).cast()));
                let row = matrices.add(i * stride);
                for (r, sum) in sums.iter_mut().enumerate() {
                    let by = _mm512_set1_epi64((*row.add(r)).cast_signed());
                    sum[0] = _mm512_xor_si512(sum[0], times(a0, by));
                    sum[1] = _mm512_xor_si512(sum[1], times(a1, by));
                }
            }
        }
        for (r, sum) in sums.iter().enumerate() {
            // SAFETY: `outputs` are M; 2 * LANE bytes at `offset` end at or before `to`.
            unsafe {
                let output = outputs.get_unchecked_mut(r).as_mut_ptr().add(offset);
                _mm512_storeu_si512(output.cast(), sum[0]);
                _mm512_storeu_si512(output.add(LANE).cast(), sum[1]);
            }
        }
        offset += 2 * LANE;
    }

    while offset < to {
        let rest = (to - offset).min(LANE);
        let mask = u64::MAX >> (LANE - rest);
        let mut sums = [_mm512_setzero_si512(); M];
        for (i, input) in inputs.iter().enumerate() {
            // SAFETY: the mask lets through `rest` bytes from `offset`, which end at or before `to`.
            let a = unsafe { _mm512_maskz_loadu_epi8(mask, input.as_ptr().add(offset).cast()) };
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the matrices of an input are `stride` long and hold rows `first..first + M`.
                let by = unsafe { _mm512_set1_epi64((*matrices.add(i * stride + r)).cast_signed()) };
                *sum = _mm512_xor_si512(*sum, times(a, by));
            }
        }
        for (output, sum) in outputs.iter_mut().zip(&sums) {
            // SAFETY: as for the load.
            unsafe { _mm512_mask_storeu_epi8(output.as_mut_ptr().add(offset).cast(), mask, *sum) };
        }
        offset += rest;
    }
}

/// Every byte of `bytes` times the coefficient whose bit matrix is in every quadword of `by`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,gfni")]
fn times(bytes: __m512i, by: __m512i) -> __m512i {
    _mm512_gf2p8affine_epi64_epi8::<0>(bytes, by)
}

/// `a ^ b ^ c` in one instruction (truth table 0x96).
#[inline]
#[target_feature(enable = "avx512f")]
fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x96>(a, b, c)
}
