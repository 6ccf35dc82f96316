//! Every engine this machine can run, against the reference, over shapes, lengths and alignments.

use super::columns::BLOCK_BYTES;
use super::*;
use crate::field;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// One combination on every engine, with every way to store: bytes before and after each output must stay as they were.
fn check(seed: u64, inputs: usize, outputs: usize, len: usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let rows: Vec<Vec<u8>> = (0..outputs).map(|_| (0..inputs).map(|_| rng.random()).collect()).collect();
    let combination = Combination::new(inputs, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
    check_combination(&combination, len, &mut rng);
}

fn check_combination(combination: &Combination, len: usize, rng: &mut StdRng) {
    const GUARD: usize = 128;
    let (inputs, outputs) = (combination.inputs(), combination.outputs());
    let skew = rng.random_range(0..64);
    let source: Vec<Vec<u8>> = (0..inputs).map(|_| (0..len + skew).map(|_| rng.random()).collect()).collect();
    let slices: Vec<&[u8]> = source.iter().map(|s| &s[skew..]).collect();

    // By the definition, with the field's own product.
    let mut sums = vec![vec![0u8; len]; outputs];
    for (row, sum) in sums.iter_mut().enumerate() {
        for (index, slice) in slices.iter().enumerate() {
            let factor = combination.coefficient(index, row);
            sum.iter_mut().zip(*slice).for_each(|(sum, &byte)| *sum ^= field::mul(factor, byte));
        }
    }
    for engine in available() {
        for store in [Store::Replace, Store::Stream, Store::Add] {
            // Outputs equally misaligned, and each in its own way.
            for spread in [0, 1] {
                let begins: Vec<usize> = (0..outputs).map(|row| GUARD - skew + row * spread % 5).collect();
                let mut memory = vec![vec![0xA5u8; GUARD + len + GUARD]; outputs];
                let targets = memory.iter_mut().zip(&begins).map(|(memory, &begin)| &mut memory[begin..begin + len]);
                engine.combine(combination, &slices, &mut targets.collect::<Vec<_>>(), store);
                for (row, ((memory, &begin), sum)) in memory.iter().zip(&begins).zip(&sums).enumerate() {
                    let at = format!("{}: {inputs} -> {outputs}, {len} bytes, row {row}, {store:?}", engine.name());
                    let before = if store == Store::Add { 0xA5 } else { 0 };
                    assert!(memory[begin..begin + len].iter().zip(sum).all(|(&b, &s)| b == s ^ before), "{at}");
                    let around = memory[..begin].iter().chain(&memory[begin + len..]);
                    assert!(around.into_iter().all(|&byte| byte == 0xA5), "{at}: overrun");
                }
            }
        }
    }
}

#[test]
fn codes_with_sums_for_parities() {
    let mut rng = StdRng::seed_from_u64(9);
    for scheme in crate::code::tests::schemes() {
        let code = crate::Code::new(scheme);
        let rows: Vec<&[u8]> = (scheme.k()..scheme.n()).map(|slot| code.row(slot).unwrap()).collect();
        let combination = Combination::with_sums(scheme.k(), &rows, code.xor_parities());
        assert_eq!(combination.grouped.is_some(), !code.groups().is_empty());
        for len in [0, 1, 63, 64, 65, 128, 129, 191, 300, 1000] {
            check_combination(&combination, len, &mut rng);
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
            let combination = Combination::new(1, &[&[coefficient]]);
            engine.combine(&combination, &[&bytes], &mut [&mut product], Store::Replace);
            for (byte, &product) in bytes.iter().zip(&product) {
                assert_eq!(product, field::mul(coefficient, *byte), "{}: {coefficient} * {byte}", engine.name());
            }
        }
    }
}

#[test]
fn the_engines_this_machine_should_have_are_found() {
    let names: Vec<_> = available().iter().map(|engine| engine.name()).collect();
    assert_eq!(names[names.len() - 2..], ["portable", "reference"]);
    assert!(available().iter().all(|engine| by_name(engine.name()).unwrap().name() == engine.name()));
    assert!(by_name("abacus").is_none());
    assert_eq!(names.first(), Some(&best().name()));
    #[cfg(target_arch = "x86_64")]
    for (name, is_there) in [
        ("avx512-gfni", is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("gfni")),
        ("avx2-gfni", is_x86_feature_detected!("avx2") && is_x86_feature_detected!("gfni")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("ssse3", is_x86_feature_detected!("ssse3")),
    ] {
        assert_eq!(names.contains(&name), is_there, "{name}");
    }
}

#[test]
fn every_changed_coefficient_changes_bytes_on_every_engine() {
    let bytes: Vec<Vec<u8>> =
        (0..5u8).map(|i| (0..150u8).map(|j| j.wrapping_mul(37).wrapping_add(i.wrapping_mul(91))).collect()).collect();
    let inputs: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let run = |engine: &dyn Engine, rows: &[Vec<u8>]| {
        let combination = Combination::new(5, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let mut made = vec![vec![0u8; 150]; rows.len()];
        engine.combine(
            &combination,
            &inputs,
            &mut made.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
            Store::Replace,
        );
        made
    };
    for engine in available() {
        let mut rows: Vec<Vec<u8>> = (0..12u8).map(|r| (0..5u8).map(|i| r * 19 + i * 7).collect()).collect();
        let right = run(engine, &rows);
        for (row, input) in (0..12).flat_map(|row| (0..5).map(move |input| (row, input))) {
            let before = rows[row][input];
            rows[row][input] ^= 0x10;
            let wrong = run(engine, &rows);
            let differs = |r: usize| right[r] != wrong[r];
            assert!((0..12).all(|r| differs(r) == (r == row)), "{}: [{row}][{input}]", engine.name());
            rows[row][input] = before;
        }
    }
}
