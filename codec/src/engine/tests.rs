//! Every engine this machine can run, against the reference, over shapes, lengths and alignments.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// One combination on every engine: bytes before and after each output must stay as they were.
fn check(seed: u64, inputs: usize, outputs: usize, len: usize) {
    const GUARD: usize = 80;
    let mut rng = StdRng::seed_from_u64(seed);
    let rows: Vec<Vec<u8>> = (0..outputs).map(|_| (0..inputs).map(|_| rng.random()).collect()).collect();
    let combination = Combination::new(inputs, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let skew = rng.random_range(0..64);
    let source: Vec<Vec<u8>> = (0..inputs).map(|_| (0..len + skew).map(|_| rng.random()).collect()).collect();
    let slices: Vec<&[u8]> = source.iter().map(|s| &s[skew..]).collect();

    let mut expected = vec![vec![0xEEu8; len]; outputs];
    reference().combine(&combination, &slices, &mut expected.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
    for engine in available() {
        let mut memory = vec![vec![0xA5u8; GUARD + len + GUARD]; outputs];
        let mut targets: Vec<&mut [u8]> = memory.iter_mut().map(|m| &mut m[GUARD..GUARD + len]).collect();
        engine.combine(&combination, &slices, &mut targets);
        for (row, (memory, expected)) in memory.iter().zip(&expected).enumerate() {
            let at = format!("{}: seed {seed}, {inputs} -> {outputs}, {len} bytes, row {row}", engine.name());
            assert_eq!(&memory[GUARD..GUARD + len], expected.as_slice(), "{at}");
            assert!(memory[..GUARD].iter().chain(&memory[GUARD + len..]).all(|&b| b == 0xA5), "{at}: overrun");
        }
    }
}

#[test]
fn all_odd_lengths() {
    for len in 0..=300 {
        check(u64::try_from(len).unwrap(), 4, 2, len);
        check(u64::try_from(len).unwrap(), 5, 11, len);
    }
}

#[test]
fn all_shapes_up_to_twelve_inputs_and_twenty_two_outputs() {
    for inputs in 0..=12 {
        for outputs in 0..=22 {
            for len in [1, 64, 127, 257] {
                check(7, inputs, outputs, len);
            }
        }
    }
}

#[test]
fn long_slices_cross_the_block_bound_of_several_passes() {
    for (inputs, outputs) in [(20, 10), (3, 11), (17, 21), (60, 6), (200, 55)] {
        for len in [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 65] {
            check(11, inputs, outputs, len);
        }
    }
}

#[test]
fn every_coefficient_times_every_byte() {
    let bytes: Vec<u8> = (0..=255).collect();
    for engine in available() {
        for coefficient in 0..=255u8 {
            let mut product = vec![0; 256];
            engine.combine(&Combination::new(1, &[&[coefficient]]), &[&bytes], &mut [&mut product]);
            for (byte, &product) in bytes.iter().zip(&product) {
                assert_eq!(product, field::mul(coefficient, *byte), "{}: {coefficient} * {byte}", engine.name());
            }
        }
    }
}

#[test]
fn the_engines_this_machine_should_have_are_found() {
    let names: Vec<_> = available().iter().map(|engine| engine.name()).collect();
    assert_eq!(names.last(), Some(&"reference"));
    assert_eq!(names.first(), Some(&best().name()));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(names.contains(&"avx2"), is_x86_feature_detected!("avx2"));
}
