//! What one core of this machine can do at all: products, cache traffic, copies.

use std::arch::x86_64::*;
use std::hint::black_box;

/// Bytes that one call of [`gfni_peak`] multiplies.
pub const PEAK_BYTES: usize = 64 * 16 * 4096;

/// Products with nothing to load or store: 16 independent registers, so that neither latency nor memory counts.
pub fn gfni_peak() {
    if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("gfni") {
        // SAFETY: just seen.
        unsafe { gfni_peak_512() }
    }
}

/// # Safety
/// The processor has AVX-512 F and BW and GFNI.
#[target_feature(enable = "avx512f,avx512bw,gfni")]
unsafe fn gfni_peak_512() {
    let by = _mm512_set1_epi64(black_box(0x0102_0408_1020_4080));
    let mut registers = [_mm512_set1_epi8(black_box(3)); 16];
    for _ in 0..PEAK_BYTES / 64 / 16 {
        for register in &mut registers {
            *register = _mm512_gf2p8affine_epi64_epi8::<0>(*register, by);
        }
    }
    black_box(registers);
}

/// The least any code must do: read all inputs and write all outputs, with XOR in between.
pub fn traffic(inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    if is_x86_feature_detected!("avx512bw") {
        // SAFETY: just seen.
        unsafe { traffic_512(inputs, outputs) }
    }
}

/// # Safety
/// The processor has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn traffic_512(inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    let len = inputs[0].len() / 128 * 128;
    assert!(inputs.iter().all(|input| input.len() >= len) && outputs.iter().all(|output| output.len() >= len));
    for offset in (0..len).step_by(128) {
        let (mut a, mut b) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        for input in inputs {
            // SAFETY: 128 bytes at `offset` end at or before `len`.
            unsafe {
                let from = input.as_ptr().add(offset);
                a = _mm512_xor_si512(a, _mm512_loadu_si512(from.cast()));
                b = _mm512_xor_si512(b, _mm512_loadu_si512(from.add(64).cast()));
            }
        }
        for output in outputs.iter_mut() {
            // SAFETY: 128 bytes at `offset` end at or before `len`.
            unsafe {
                let to = output.as_mut_ptr().add(offset);
                _mm512_storeu_si512(to.cast(), a);
                _mm512_storeu_si512(to.add(64).cast(), b);
            }
        }
    }
}
