//! AVX2 with GFNI, for processors without AVX-512 (Alder Lake and later desktop parts): as `gfni512` with half the
//! register width, half the registers and no masks.

#![allow(unsafe_code, reason = "vector loads and stores by pointer; each block says why it stays inside its slices")]

use super::{Combination, Engine, for_each_run};
use std::arch::x86_64::*;

/// Most outputs in one pass: 2 x 5 sums, 2 inputs, coefficient and product fit the 16 ymm registers.
const ROWS_MAX: usize = 5;
/// Bytes of a register.
const LANE: usize = 32;

/// Exists only where the processor has the instructions.
#[derive(Debug)]
pub(super) struct Gfni256 {
    _detected: (),
}

static ENGINE: Gfni256 = Gfni256 { _detected: () };

impl Gfni256 {
    /// The engine, if this processor can run it.
    pub(super) fn detect() -> Option<&'static Self> {
        let able = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("gfni");
        able.then_some(&ENGINE)
    }
}

impl Engine for Gfni256 {
    fn name(&self) -> &'static str {
        "avx2-gfni"
    }

    fn combine(&self, combination: &Combination, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        let len = combination.checked_len(inputs, outputs);
        for_each_run(combination.outputs, ROWS_MAX, len, |first, rows, from, to| {
            let outputs = &mut outputs[first..first + rows];
            let pass = Pass { combination, first, inputs, from, to };
            // SAFETY: a `Gfni256` is handed out by `detect` only, which has seen the target features of `columns`;
            // `checked_len` has seen that every slice has `len` bytes, and `from <= to <= len`.
            unsafe {
                match rows {
                    1 => columns::<1>(&pass, outputs),
                    2 => columns::<2>(&pass, outputs),
                    3 => columns::<3>(&pass, outputs),
                    4 => columns::<4>(&pass, outputs),
                    5 => columns::<5>(&pass, outputs),
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
/// The processor has AVX2 and GFNI. Every input and output has at least `pass.to` bytes, `outputs` are M, and the
/// combination has `pass.first + M` or more outputs and as many inputs as `pass.inputs`.
#[target_feature(enable = "avx2,gfni")]
unsafe fn columns<const M: usize>(pass: &Pass<'_>, outputs: &mut [&mut [u8]]) {
    let Pass { combination, first, inputs, from, to } = *pass;
    let stride = combination.outputs;
    let matrices = combination.affine.as_ptr().wrapping_add(first);
    let mut offset = from;

    while offset + 2 * LANE <= to {
        let mut sums = [[_mm256_setzero_si256(); 2]; M];
        for (i, input) in inputs.iter().enumerate() {
            // SAFETY: 2 * LANE bytes at `offset` end at or before `to`. The matrices of an input are `stride` long and
            // hold rows `first..first + M`.
            unsafe {
                let a = input.as_ptr().add(offset);
                let (a0, a1) = (_mm256_loadu_si256(a.cast()), _mm256_loadu_si256(a.add(LANE).cast()));
                let row = matrices.add(i * stride);
                for (r, sum) in sums.iter_mut().enumerate() {
                    let by = _mm256_set1_epi64x((*row.add(r)).cast_signed());
                    sum[0] = _mm256_xor_si256(sum[0], times(a0, by));
                    sum[1] = _mm256_xor_si256(sum[1], times(a1, by));
                }
            }
        }
        for (output, sum) in outputs.iter_mut().zip(&sums) {
            // SAFETY: 2 * LANE bytes at `offset` end at or before `to`.
            unsafe {
                let output = output.as_mut_ptr().add(offset);
                _mm256_storeu_si256(output.cast(), sum[0]);
                _mm256_storeu_si256(output.add(LANE).cast(), sum[1]);
            }
        }
        offset += 2 * LANE;
    }

    while offset < to {
        let rest = (to - offset).min(LANE);
        let mut sums = [_mm256_setzero_si256(); M];
        for (i, input) in inputs.iter().enumerate() {
            let mut padded = [0u8; LANE];
            padded[..rest].copy_from_slice(&input[offset..offset + rest]);
            // SAFETY: `padded` is LANE bytes long.
            let a = unsafe { _mm256_loadu_si256(padded.as_ptr().cast()) };
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the matrices of an input are `stride` long and hold rows `first..first + M`.
                let by = unsafe { _mm256_set1_epi64x((*matrices.add(i * stride + r)).cast_signed()) };
                *sum = _mm256_xor_si256(*sum, times(a, by));
            }
        }
        for (output, sum) in outputs.iter_mut().zip(&sums) {
            let mut padded = [0u8; LANE];
            // SAFETY: `padded` is LANE bytes long.
            unsafe { _mm256_storeu_si256(padded.as_mut_ptr().cast(), *sum) };
            output[offset..offset + rest].copy_from_slice(&padded[..rest]);
        }
        offset += rest;
    }
}

/// Every byte of `bytes` times the coefficient whose bit matrix is in every quadword of `by`.
#[inline]
#[target_feature(enable = "avx2,gfni")]
fn times(bytes: __m256i, by: __m256i) -> __m256i {
    _mm256_gf2p8affine_epi64_epi8::<0>(bytes, by)
}
