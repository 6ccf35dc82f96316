//! AVX2 without GFNI: two `pshufb` look-ups per product, one for the low and one for the high nibble.
//!
//! Source: Plank, Greenan, Miller, "Screaming Fast Galois Field Arithmetic Using Intel SIMD Instructions" (FAST'13).

#![allow(unsafe_code, reason = "vector loads and stores by pointer; each block says why it stays inside its slices")]

use super::{Combination, Engine, for_each_run};
use crate::field;
use std::arch::x86_64::*;

/// Most outputs in one pass: 2 x 4 sums, 4 nibble vectors, 2 tables, the nibble mask and a product are 16 registers.
const ROWS_MAX: usize = 4;
/// Bytes of a register.
const LANE: usize = 32;

/// Exists only where the processor has the instructions.
#[derive(Debug)]
pub(super) struct Avx2 {
    _detected: (),
}

static ENGINE: Avx2 = Avx2 { _detected: () };

impl Avx2 {
    /// The engine, if this processor can run it.
    pub(super) fn detect() -> Option<&'static Self> {
        is_x86_feature_detected!("avx2").then_some(&ENGINE)
    }
}

impl Engine for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    fn combine(&self, combination: &Combination, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        let len = combination.checked_len(inputs, outputs);
        for_each_run(combination.outputs, ROWS_MAX, len, |first, rows, from, to| {
            let outputs = &mut outputs[first..first + rows];
            let pass = Pass { combination, first, inputs, from, to };
            // SAFETY: an `Avx2` is handed out by `detect` only, which has seen the target feature of `columns`;
            // `checked_len` has seen that every slice has `len` bytes, and `from <= to <= len`.
            unsafe {
                match rows {
                    1 => columns::<1>(&pass, outputs),
                    2 => columns::<2>(&pass, outputs),
                    3 => columns::<3>(&pass, outputs),
                    4 => columns::<4>(&pass, outputs),
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
/// The processor has AVX2. Every input and output has at least `pass.to` bytes, and the combination has
/// `pass.first + M` or more outputs and as many inputs as `pass.inputs`.
#[target_feature(enable = "avx2")]
unsafe fn columns<const M: usize>(pass: &Pass<'_>, outputs: &mut [&mut [u8]]) {
    let Pass { combination, first, inputs, from, to } = *pass;
    let stride = combination.outputs;
    let mut offset = from;

    while offset + 2 * LANE <= to {
        let mut sums = [[_mm256_setzero_si256(); 2]; M];
        for (i, input) in inputs.iter().enumerate() {
            // SAFETY: 2 * LANE bytes at `offset` end at or before `to`.
            let (a0, a1) = unsafe {
                let a = input.as_ptr().add(offset);
                (_mm256_loadu_si256(a.cast()), _mm256_loadu_si256(a.add(LANE).cast()))
            };
            let (n0, n1) = (Nibbles::of(a0), Nibbles::of(a1));
            let coefficients = &combination.coefficients[i * stride + first..][..M];
            for (sum, &coefficient) in sums.iter_mut().zip(coefficients) {
                let table = Table::of(coefficient);
                sum[0] = _mm256_xor_si256(sum[0], n0.times(table));
                sum[1] = _mm256_xor_si256(sum[1], n1.times(table));
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
            let nibbles = Nibbles::of(unsafe { _mm256_loadu_si256(padded.as_ptr().cast()) });
            let coefficients = &combination.coefficients[i * stride + first..][..M];
            for (sum, &coefficient) in sums.iter_mut().zip(coefficients) {
                *sum = _mm256_xor_si256(*sum, nibbles.times(Table::of(coefficient)));
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

/// The low and the high nibbles of 32 bytes.
#[derive(Clone, Copy)]
struct Nibbles {
    low: __m256i,
    high: __m256i,
}

/// The products of one coefficient with all low and all high nibbles, in both halves of a register.
#[derive(Clone, Copy)]
struct Table {
    low: __m256i,
    high: __m256i,
}

impl Table {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn of(coefficient: u8) -> Self {
        let bytes = &field::NIBBLES[usize::from(coefficient)];
        // SAFETY: a row of the table is 32 bytes long: 16 for the low nibbles, then 16 for the high ones.
        unsafe {
            Self {
                low: _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast())),
                high: _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().add(16).cast())),
            }
        }
    }
}

impl Nibbles {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn of(bytes: __m256i) -> Self {
        let mask = _mm256_set1_epi8(0x0F);
        Self { low: _mm256_and_si256(bytes, mask), high: _mm256_and_si256(_mm256_srli_epi64::<4>(bytes), mask) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn times(self, table: Table) -> __m256i {
        _mm256_xor_si256(_mm256_shuffle_epi8(table.low, self.low), _mm256_shuffle_epi8(table.high, self.high))
    }
}
