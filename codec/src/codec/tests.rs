//! The codec against the crate `reed-solomon-erasure` as a whole, on every engine: all loss patterns of small shapes,
//! random ones of large shapes, and every argument error.

use super::*;
use crate::error::CodecErrorKind;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reed_solomon_erasure::galois_8::ReedSolomon;

fn scheme(k: usize, m: usize) -> Scheme {
    Scheme::reed_solomon(k, m).unwrap()
}

/// n shards of `len` bytes as the crate makes them.
fn shards_by_the_crate(k: usize, m: usize, len: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut shards: Vec<Vec<u8>> = (0..k).map(|_| (0..len).map(|_| rng.random()).collect()).collect();
    shards.extend(vec![vec![0; len]; m]);
    if len > 0 {
        ReedSolomon::new(k, m).unwrap().encode(&mut shards).unwrap();
    }
    shards
}

fn check_encode(codec: &Codec, shards: &[Vec<u8>]) {
    let (data, parity) = shards.split_at(codec.scheme().k());
    let mut made = vec![vec![0xEE; shards[0].len()]; parity.len()];
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    codec.encode(&data, &mut made.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>()).unwrap();
    assert!(made == parity, "{codec:?}: parity differs from the crate's, {} bytes", shards[0].len());
}

/// Gives the codec the present shards in the order given and asks for the wanted ones.
fn check_reconstruct(codec: &Codec, shards: &[Vec<u8>], present: &[usize], wanted: &[usize]) {
    let given: Vec<(usize, &[u8])> = present.iter().map(|&slot| (slot, shards[slot].as_slice())).collect();
    let mut made: Vec<Vec<u8>> = vec![vec![0xEE; shards[0].len()]; wanted.len()];
    let mut targets: Vec<(usize, &mut [u8])> =
        wanted.iter().copied().zip(made.iter_mut().map(Vec::as_mut_slice)).collect();
    let result = codec.reconstruct(&given, &mut targets);
    let set: SlotSet = present.iter().copied().collect();
    assert_eq!(codec.decodable(&set), result.is_ok(), "{codec:?} from {present:?}");
    if present.len() >= codec.scheme().k() {
        assert_eq!(result, Ok(()));
        for (slot, made) in wanted.iter().zip(&made) {
            assert!(*made == shards[*slot], "{codec:?}: slot {slot} from {present:?}");
        }
    } else {
        let error = CodecError::TooFewShards { needed: codec.scheme().k(), present: present.len() };
        assert_eq!(error.kind(), CodecErrorKind::Damaged);
        assert_eq!(result, Err(error));
        assert!(made.iter().flatten().all(|&byte| byte == 0xEE), "a refused call wrote");
    }
}

#[test]
fn every_loss_pattern_of_small_shapes_on_every_engine() {
    for (k, m) in [(1, 1), (1, 3), (2, 1), (3, 2), (4, 2), (6, 3)] {
        let shards = shards_by_the_crate(k, m, 193, 1);
        for engine in engine::available() {
            let codec = Codec::with_engine(scheme(k, m), engine);
            check_encode(&codec, &shards);
            for pattern in 0u32..1 << (k + m) {
                let (present, lost): (Vec<usize>, Vec<usize>) = (0..k + m).partition(|slot| pattern & (1 << slot) != 0);
                check_reconstruct(&codec, &shards, &present, &lost);
                for slot in &lost {
                    check_reconstruct(&codec, &shards, &present, &[*slot]);
                }
            }
        }
    }
}

#[test]
fn large_shapes_on_every_engine() {
    for (k, m) in [(8, 4), (10, 4), (12, 4), (17, 3), (20, 10), (100, 20), (254, 1), (1, 254), (128, 127)] {
        for len in [0, 1, 31, 64, 65, 4096 + 17] {
            let shards = shards_by_the_crate(k, m, len, 2);
            for engine in engine::available() {
                let codec = Codec::with_engine(scheme(k, m), engine);
                check_encode(&codec, &shards);
                // The worst pattern: as many data shards lost as can be.
                let lost = k.min(m);
                let present: Vec<usize> = (lost..k + m).rev().collect();
                check_reconstruct(&codec, &shards, &present, &(0..lost).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn bytes_on_disk_are_frozen() {
    // RS(4,2) over bytes 1, 2, 3, 4 and over 0xFF of each slot: format, not a library's default.
    let codec = Codec::new(scheme(4, 2));
    let (mut p, mut q) = ([0u8; 2], [0u8; 2]);
    codec.encode(&[&[1, 0xFF], &[2, 0xFF], &[3, 0xFF], &[4, 0xFF]], &mut [&mut p, &mut q]).unwrap();
    assert_eq!((p, q), (FROZEN_P, FROZEN_Q));
}
const FROZEN_P: [u8; 2] = [69, 255];
const FROZEN_Q: [u8; 2] = [94, 255];

#[test]
fn a_range_of_every_cell_gives_the_same_range_of_the_lost_one() {
    let codec = Codec::new(scheme(4, 2));
    let shards = shards_by_the_crate(4, 2, 1000, 3);
    for range in [0..1, 333..777, 999..1000, 64..128] {
        let present: Vec<(usize, &[u8])> =
            [1, 3, 4, 5].map(|slot: usize| (slot, &shards[slot][range.clone()])).to_vec();
        let (mut a, mut b) = (vec![0; range.len()], vec![0; range.len()]);
        codec.reconstruct(&present, &mut [(2, &mut a), (0, &mut b)]).unwrap();
        assert_eq!((&a[..], &b[..]), (&shards[2][range.clone()], &shards[0][range]));
    }
}

#[test]
fn encode_refuses_wrong_arguments_and_writes_nothing() {
    let codec = Codec::new(scheme(4, 2));
    let memory = [7u8; 64];
    let cell: &[u8] = &memory;
    let check = |data: &[&[u8]], lens: &[usize], expected: CodecError| {
        let mut parity: Vec<Vec<u8>> = lens.iter().map(|&len| vec![0xEE; len]).collect();
        let result = codec.encode(data, &mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
        assert_eq!(expected.kind(), CodecErrorKind::Invalid);
        assert_eq!(result, Err(expected));
        assert!(parity.iter().flatten().all(|&byte| byte == 0xEE), "a refused call wrote");
    };
    check(&[], &[64, 64], CodecError::DataCount { expected: 4, got: 0 });
    check(&[cell; 3], &[64, 64], CodecError::DataCount { expected: 4, got: 3 });
    check(&[cell; 5], &[64, 64], CodecError::DataCount { expected: 4, got: 5 });
    check(&[cell; 4], &[64], CodecError::ParityCount { expected: 2, got: 1 });
    check(&[cell; 4], &[64; 3], CodecError::ParityCount { expected: 2, got: 3 });
    check(&[cell; 4], &[64, 65], CodecError::LengthsDiffer { slot: 5, expected: 64, got: 65 });
    check(&[cell, &cell[1..], cell, cell], &[64, 64], CodecError::LengthsDiffer { slot: 1, expected: 64, got: 63 });
}

#[test]
fn reconstruct_refuses_wrong_arguments_and_writes_nothing() {
    let codec = Codec::new(scheme(4, 2));
    let cell = [7u8; 64];
    let check = |present: &[(usize, usize)], wanted: &[(usize, usize)], expected: CodecError| {
        let present: Vec<(usize, &[u8])> = present.iter().map(|&(slot, len)| (slot, &cell[..len])).collect();
        let mut made: Vec<Vec<u8>> = wanted.iter().map(|&(_, len)| vec![0xEE; len]).collect();
        let mut targets: Vec<(usize, &mut [u8])> =
            wanted.iter().map(|w| w.0).zip(made.iter_mut().map(Vec::as_mut_slice)).collect();
        assert_eq!(codec.reconstruct(&present, &mut targets), Err(expected));
        assert!(made.iter().flatten().all(|&byte| byte == 0xEE), "a refused call wrote");
    };
    let four = [(0, 64), (1, 64), (2, 64), (3, 64)];
    check(&four[..3], &[(5, 64)], CodecError::TooFewShards { needed: 4, present: 3 });
    check(&[], &[(5, 64)], CodecError::TooFewShards { needed: 4, present: 0 });
    check(&four, &[(6, 64)], CodecError::SlotOutOfRange { slot: 6, slot_count: 6 });
    check(&four, &[(usize::MAX, 64)], CodecError::SlotOutOfRange { slot: usize::MAX, slot_count: 6 });
    check(&four, &[(4, 64), (4, 64)], CodecError::DuplicateSlot { slot: 4 });
    check(&four, &[(3, 64)], CodecError::PresentAndWanted { slot: 3 });
    check(&four, &[(4, 63)], CodecError::LengthsDiffer { slot: 4, expected: 64, got: 63 });
    let twice = [(0, 64), (1, 64), (1, 64), (3, 64)];
    check(&twice, &[(5, 64)], CodecError::DuplicateSlot { slot: 1 });
    let far = [(0, 64), (1, 64), (99, 64), (3, 64)];
    check(&far, &[(5, 64)], CodecError::SlotOutOfRange { slot: 99, slot_count: 6 });
    let short = [(0, 64), (1, 64), (2, 10), (3, 64)];
    check(&short, &[(5, 64)], CodecError::LengthsDiffer { slot: 2, expected: 64, got: 10 });
    let present = four.map(|(slot, len)| (slot, &cell[..len]));
    assert_eq!(codec.reconstruct(&present, &mut []), Ok(()), "nothing wanted is nothing to do");
}

#[test]
fn a_repair_reads_the_cheapest_shards_that_suffice() {
    let codec = Codec::new(scheme(4, 2));
    let set = |slots: &[usize]| slots.iter().copied().collect::<SlotSet>();
    let plan = |missing: &[usize], available: &[usize], costs: &[u64]| {
        codec.repair_plan(&set(missing), &set(available), costs).map(|plan| (plan.read, plan.write, plan.cost))
    };
    assert_eq!(plan(&[1], &[0, 2, 3, 4, 5], &[]), Ok((vec![0, 2, 3, 4], vec![1], 4)));
    assert_eq!(plan(&[1], &[0, 2, 3, 4, 5], &[9, 1, 1, 1, 1, 1]), Ok((vec![2, 3, 4, 5], vec![1], 4)));
    assert_eq!(plan(&[5, 0], &[1, 2, 3, 4], &[1; 6]), Ok((vec![1, 2, 3, 4], vec![0, 5], 4)));
    assert_eq!(plan(&[1], &[0, 2, 3, 4], &[u64::MAX; 6]), Ok((vec![0, 2, 3, 4], vec![1], u64::MAX)));
    assert_eq!(plan(&[], &[0], &[]), Ok((vec![], vec![], 0)));
    assert_eq!(plan(&[1], &[0, 2, 3], &[]), Err(CodecError::TooFewShards { needed: 4, present: 3 }));
    assert_eq!(plan(&[1], &[0, 1, 2, 3], &[]), Err(CodecError::PresentAndWanted { slot: 1 }));
    assert_eq!(plan(&[6], &[0, 1, 2, 3], &[]), Err(CodecError::SlotOutOfRange { slot: 6, slot_count: 6 }));
    assert_eq!(plan(&[5], &[0, 1, 2, 3], &[1; 4]), Err(CodecError::CostCount { expected: 6, got: 4 }));
}

#[test]
fn slots_that_do_not_exist_never_make_a_pattern_decodable() {
    let codec = Codec::new(scheme(4, 2));
    assert!(codec.decodable(&SlotSet::first(4)));
    assert!(!codec.decodable(&[0, 1, 2, 6, 7, 255].into_iter().collect()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Any shape, any pattern (also hopeless ones), any order, any length, any engine.
    #[test]
    fn random_patterns(k in 1usize..40, m in 1usize..16, len in 0usize..700, seed: u64, losses in 0usize..18) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut order: Vec<usize> = (0..k + m).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, rng.random_range(0..=i));
        }
        let (lost, present) = order.split_at(losses.min(m + 1).min(k + m));
        let shards = shards_by_the_crate(k, m, len, seed);
        for engine in engine::available() {
            let codec = Codec::with_engine(scheme(k, m), engine);
            check_encode(&codec, &shards);
            // Twice: the second time from the cache.
            check_reconstruct(&codec, &shards, present, lost);
            check_reconstruct(&codec, &shards, present, lost);
        }
    }
}
