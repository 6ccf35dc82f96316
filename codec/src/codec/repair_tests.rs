//! Locally repairable codes through the codec: every loss, the plans, their cost, partial sums, updates.

use super::*;
use crate::code::tests::schemes;
use crate::repair_plan::{CostWeights, ShardCost};
use crate::scheme::GeoTable;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// All n shards of a stripe, coded on the reference engine.
fn shards(scheme: Scheme, len: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut shards: Vec<Vec<u8>> = (0..scheme.k()).map(|_| (0..len).map(|_| rng.random()).collect()).collect();
    let mut parity = vec![vec![0u8; len]; scheme.m()];
    let data: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
    let codec = Codec::with_engine(scheme, engine::reference());
    codec.encode(&data, &mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>()).unwrap();
    shards.extend(parity);
    shards
}

fn views<'a>(shards: &'a [Vec<u8>], slots: &[usize]) -> Vec<(usize, &'a [u8])> {
    slots.iter().map(|&slot| (slot, shards[slot].as_slice())).collect()
}

/// What `f` writes for these slots.
fn made<R>(slots: &[usize], len: usize, f: impl FnOnce(&mut [(usize, &mut [u8])]) -> R) -> (R, Vec<Vec<u8>>) {
    let mut made = vec![vec![0xEEu8; len]; slots.len()];
    let mut targets: Vec<(usize, &mut [u8])> =
        slots.iter().copied().zip(made.iter_mut().map(Vec::as_mut_slice)).collect();
    let result = f(&mut targets);
    drop(targets);
    (result, made)
}

/// Reconstruction, plan, repair and partial sums of one pattern: all right, or all refused alike.
fn check(codec: &Codec, shards: &[Vec<u8>], present: &[usize], wanted: &[usize], costs: &[u64]) {
    let (given, len) = (views(shards, present), shards[0].len());
    let (result, rebuilt) = made(wanted, len, |targets| codec.reconstruct(&given, targets));
    let (missing, available): (SlotSet, SlotSet) =
        (wanted.iter().copied().collect(), present.iter().copied().collect());
    let plan = codec.repair_plan(&missing, &available, costs);
    let at = format!("{codec:?}: {wanted:?} from {present:?}");
    if codec.decodable(&available) {
        assert_eq!(result, Ok(()), "{at}");
    }
    let Ok(plan) = plan else {
        assert_eq!(plan.unwrap_err(), result.unwrap_err(), "{at}");
        assert!(rebuilt.iter().flatten().all(|&byte| byte == 0xEE), "{at}: a refused call wrote");
        return;
    };
    assert_eq!(result, Ok(()), "{at}");
    let expected: Vec<&Vec<u8>> = wanted.iter().map(|&slot| &shards[slot]).collect();
    assert!(rebuilt.iter().eq(expected.iter().copied()), "{at}: reconstruct");

    assert!(plan.read.iter().all(|slot| available.contains(*slot)), "{at}");
    assert_eq!(plan.cost, plan.read.iter().map(|&slot| costs.get(slot).copied().unwrap_or(1)).sum::<u64>(), "{at}");
    let (result, rebuilt) = made(wanted, len, |targets| codec.repair(&plan, &views(shards, &plan.read), targets));
    assert_eq!(result, Ok(()), "{at}");
    assert!(rebuilt.iter().eq(expected.iter().copied()), "{at}: plan {plan:?}");

    // Helpers in three parts, by slot number; their vectors add up.
    let mut sums = vec![vec![0u8; len]; wanted.len()];
    for helper in 0..3 {
        let own: SlotSet = plan.read.iter().copied().filter(|slot| slot % 3 == helper).collect();
        let part = plan.partial_sum(&own).unwrap();
        let (result, vectors) =
            made(wanted, len, |targets| codec.partial_sum(&part, &views(shards, &part.read), targets));
        assert_eq!(result, Ok(()));
        for (sum, vector) in sums.iter_mut().zip(&vectors) {
            codec.add_partial(vector, sum).unwrap();
        }
    }
    assert!(sums.iter().eq(expected), "{at}: partial sums");
}

#[test]
fn nothing_is_made_from_nothing() {
    for scheme in schemes() {
        check(&Codec::new(scheme), &shards(scheme, 5, 3), &[], &[], &[]);
    }
}

#[test]
fn every_loss_pattern_of_geo_6_on_every_engine() {
    let scheme = Scheme::geo(GeoTable::Geo6);
    let shards = shards(scheme, 70, 1);
    for engine in engine::available() {
        let codec = Codec::with_engine(scheme, engine);
        for pattern in 0u32..1 << 12 {
            let (present, lost): (Vec<usize>, Vec<usize>) = (0..12).partition(|slot| pattern & (1 << slot) != 0);
            check(&codec, &shards, &present, &lost, &[]);
        }
    }
}

#[test]
fn up_to_three_losses_of_every_code_on_every_engine() {
    for scheme in schemes() {
        let shards = shards(scheme, 33, 2);
        for engine in engine::available() {
            let codec = Codec::with_engine(scheme, engine);
            let n = scheme.n();
            for pattern in 0..n * n.min(14) * n.min(6) {
                let lost: SlotSet = [pattern % n, pattern / n % n, pattern / n / n.min(14)].into_iter().collect();
                let present: Vec<usize> = (0..n).filter(|&slot| !lost.contains(slot)).collect();
                check(&codec, &shards, &present, &lost.iter().collect::<Vec<_>>(), &[]);
            }
        }
    }
}

#[test]
fn one_lost_shard_is_mended_by_its_group() {
    // Reads of one repair: data, global parity, local parity (section 7 of the anchors).
    for (text, data, global, local) in [
        ("geo-6", 3, 3, 3),
        ("geo-12", 6, 6, 6),
        ("geo-12+", 6, 6, 6),
        ("geo-12/4r", 4, 4, 4),
        ("lrc-12-2-2", 6, 12, 6),
    ] {
        let codec = Codec::new(text.parse().unwrap());
        let (k, n) = (codec.scheme().k(), codec.scheme().n());
        for slot in 0..n {
            let missing: SlotSet = [slot].into_iter().collect();
            let available = SlotSet::first(n).difference(&missing);
            let plan = codec.repair_plan(&missing, &available, &[]).unwrap();
            let is_local_parity =
                codec.code().group_of(slot).is_some() && codec.code().xor_parities().iter().any(|x| x.row + k == slot);
            let expected = if slot < k {
                data
            } else if is_local_parity {
                local
            } else {
                global
            };
            assert_eq!(plan.read.len(), expected, "{text}: slot {slot}");
            assert_eq!(plan.is_local, codec.code().group_of(slot).is_some(), "{text}: slot {slot}");
            if codec.code().regions() > 1 {
                let home = codec.code().region_of(slot);
                assert!(plan.read.iter().all(|&read| codec.code().region_of(read) == home), "no byte crosses regions");
            }
        }
    }
    // Two losses in a region of GEO-12+ stay inside too.
    let codec = Codec::new("geo-12+".parse().unwrap());
    let missing: SlotSet = [0, 13].into_iter().collect();
    assert!(codec.code().slots_in(0).contains(13));
    let plan = codec.repair_plan(&missing, &SlotSet::first(24).difference(&missing), &[]).unwrap();
    assert_eq!((plan.read.len(), plan.is_local), (6, true));
}

#[test]
fn costs_decide_when_the_group_is_dear() {
    let codec = Codec::new(Scheme::geo(GeoTable::Geo6));
    let missing: SlotSet = [0].into_iter().collect();
    let available = SlotSet::first(12).difference(&missing);
    // Region 0's other shards (1, 6, 9) are far away and slow; the other two regions hold what is needed.
    let costs: Vec<u64> = (0..12).map(|slot| if codec.code().region_of(slot) == Some(0) { 100 } else { 1 }).collect();
    let plan = codec.repair_plan(&missing, &available, &costs).unwrap();
    assert_eq!((plan.cost, plan.is_local), (6, false));
    assert!(plan.read.iter().all(|&slot| codec.code().region_of(slot) != Some(0)));

    // One region away, repaired from home: 6 reads for 4 lost shards.
    let shard = |slot: usize| ShardCost { region: codec.code().region_of(slot).unwrap(), price: 2, latency_us: 500 };
    let weights = CostWeights { home: 1, cross_region: 10_000, price: 100, latency: 1 };
    let costs = weights.costs(&(0..12).map(shard).collect::<Vec<_>>());
    assert_eq!((costs[0], costs[2]), (10_700, 700));
    let missing = codec.code().slots_in(0);
    let plan = codec.repair_plan(&missing, &SlotSet::first(12).difference(&missing), &costs).unwrap();
    assert_eq!((plan.read.len(), plan.write.len(), plan.is_local), (6, 4, false));
    assert_eq!(weights.cost(&ShardCost { region: 0, price: u64::MAX, latency_us: u64::MAX }), u64::MAX);
}

/// The cheapest set by trying all: what the plan is measured against.
fn least_cost(codec: &Codec, missing: &SlotSet, available: &[usize], costs: &[u64]) -> u64 {
    (0u32..1 << available.len())
        .filter_map(|pick| {
            let set: SlotSet =
                available.iter().enumerate().filter(|(i, _)| pick & (1 << i) != 0).map(|(_, &s)| s).collect();
            solve::express(codec.code().generator(), &set, missing)?;
            Some(set.iter().map(|slot| costs[slot]).sum())
        })
        .min()
        .unwrap()
}

#[test]
fn plans_of_geo_6_are_the_cheapest() {
    let codec = Codec::new(Scheme::geo(GeoTable::Geo6));
    let mut rng = StdRng::seed_from_u64(5);
    for round in 0..60 {
        let missing: SlotSet = (0..1 + round % 3).map(|_| rng.random_range(0..12)).collect();
        let available: Vec<usize> = (0..12).filter(|&slot| !missing.contains(slot)).collect();
        let costs: Vec<u64> = (0..12).map(|_| if round < 20 { 1 } else { rng.random_range(1..20) }).collect();
        let plan = codec.repair_plan(&missing, &available.iter().copied().collect(), &costs).unwrap();
        let best = least_cost(&codec, &missing, &available, &costs);
        assert_eq!(plan.cost, best, "{missing:?} lost, costs {costs:?}: {plan:?}");
    }
}

#[test]
fn plans_name_their_coefficients_and_ranges() {
    let codec = Codec::new(Scheme::geo(GeoTable::Geo6));
    let plan =
        codec.repair_plan(&[0].into_iter().collect(), &SlotSet::first(12).difference(&SlotSet::first(1)), &[]).unwrap();
    assert_eq!(plan.read, [1, 6, 9], "data 1, global 0 and local 0 of region 0");
    assert!(plan.read.iter().all(|&slot| plan.coefficient(slot, 0) == Some(1)));
    assert_eq!((plan.coefficient(2, 0), plan.coefficient(1, 3)), (None, None));
    let reads: Vec<(usize, u64, u64)> = plan.reads(64..192).map(|r| (r.slot, r.range.start, r.range.end)).collect();
    assert_eq!(reads, [(1, 64, 192), (6, 64, 192), (9, 64, 192)]);

    let part = plan.partial_sum(&[1, 9].into_iter().collect()).unwrap();
    assert_eq!((part.read.as_slice(), part.write.as_slice()), (&[1usize, 9][..], &[0usize][..]));
    assert_eq!((part.coefficient(9, 0), part.coefficient(6, 0)), (Some(1), None));
    let foreign = plan.partial_sum(&[1, 2].into_iter().collect());
    assert_eq!(foreign.unwrap_err(), CodecError::NotInPlan { slot: 2 });
}

#[test]
fn plans_refuse_wrong_slices_and_write_nothing() {
    let codec = Codec::new(Scheme::geo(GeoTable::Geo6));
    let plan =
        codec.repair_plan(&[0].into_iter().collect(), &SlotSet::first(12).difference(&SlotSet::first(1)), &[]).unwrap();
    let cell = [7u8; 64];
    let check = |sources: &[(usize, usize)], targets: &[(usize, usize)], expected: CodecError| {
        let sources: Vec<(usize, &[u8])> = sources.iter().map(|&(slot, len)| (slot, &cell[..len])).collect();
        let mut made: Vec<Vec<u8>> = targets.iter().map(|&(_, len)| vec![0xEE; len]).collect();
        let mut targets: Vec<(usize, &mut [u8])> =
            targets.iter().map(|t| t.0).zip(made.iter_mut().map(Vec::as_mut_slice)).collect();
        assert_eq!(codec.repair(&plan, &sources, &mut targets), Err(expected));
        assert!(made.iter().flatten().all(|&byte| byte == 0xEE), "a refused call wrote");
    };
    let whole = [(1, 64), (6, 64), (9, 64)];
    check(&whole[..2], &[(0, 64)], CodecError::SliceCount { expected: 3, got: 2 });
    check(&whole, &[], CodecError::SliceCount { expected: 1, got: 0 });
    check(&[(1, 64), (6, 64), (2, 64)], &[(0, 64)], CodecError::NotInPlan { slot: 2 });
    check(&whole, &[(3, 64)], CodecError::NotInPlan { slot: 3 });
    check(&[(1, 64), (1, 64), (9, 64)], &[(0, 64)], CodecError::DuplicateSlot { slot: 1 });
    check(&[(1, 64), (6, 64), (99, 64)], &[(0, 64)], CodecError::SlotOutOfRange { slot: 99, slot_count: 12 });
    check(&whole, &[(0, 63)], CodecError::LengthsDiffer { slot: 0, expected: 64, got: 63 });
    let mut sum = [1u8; 8];
    let refused = codec.add_partial(&[0; 7], &mut sum).unwrap_err();
    assert_eq!((refused, sum), (CodecError::LengthsDiffer { slot: 0, expected: 8, got: 7 }, [1; 8]));
}

#[test]
fn too_few_and_undecodable_are_told_apart() {
    let codec = Codec::new(Scheme::geo(GeoTable::Geo6));
    let cell = [0u8; 8];
    let attempt = |present: &[usize]| {
        let given: Vec<(usize, &[u8])> = present.iter().map(|&slot| (slot, &cell[..])).collect();
        made(&[0], 8, |targets| codec.reconstruct(&given, targets)).0
    };
    assert_eq!(attempt(&[2, 3, 4, 5, 7]), Err(CodecError::TooFewShards { needed: 6, present: 5 }));
    // Regions 1 whole and region 2 without two: 4 + 2 shards, but of region 1 only three count.
    assert_eq!(attempt(&[2, 3, 7, 10, 4, 5]), Err(CodecError::Undecodable { present: 6 }));
    // Fewer than k do, if they are the right ones.
    assert_eq!(attempt(&[1, 6, 9]), Ok(()));
    assert_eq!(made(&[], 8, |targets| codec.reconstruct(&[], targets)).0, Ok(()), "nothing wanted");
}

#[test]
fn an_update_of_one_data_cell_gives_the_parity_of_all() {
    for scheme in schemes() {
        let before = shards(scheme, 100, 3);
        for engine in engine::available() {
            let codec = Codec::with_engine(scheme, engine);
            for slot in [0, scheme.k() / 2, scheme.k() - 1] {
                let mut changed = before.clone();
                changed[slot].iter_mut().step_by(3).for_each(|byte| *byte = byte.wrapping_mul(5).wrapping_add(9));
                let data: Vec<&[u8]> = changed[..scheme.k()].iter().map(Vec::as_slice).collect();
                let mut expected = vec![vec![0; 100]; scheme.m()];
                codec.encode(&data, &mut expected.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>()).unwrap();
                // Only the bytes that changed, in two ranges.
                let mut parity = before[scheme.k()..].to_vec();
                for range in [0..37, 37..100] {
                    let mut cells: Vec<&mut [u8]> = parity.iter_mut().map(|cell| &mut cell[range.clone()]).collect();
                    codec.update(slot, &before[slot][range.clone()], &changed[slot][range], &mut cells).unwrap();
                }
                assert!(parity == expected, "{codec:?}: slot {slot}");
            }
        }
    }
}

#[test]
fn an_update_refuses_wrong_arguments_and_writes_nothing() {
    let codec = Codec::new("4+2".parse().unwrap());
    let cell = [7u8; 64];
    let check = |slot: usize, old: usize, new: usize, parity: &[usize], expected: CodecError| {
        let mut made: Vec<Vec<u8>> = parity.iter().map(|&len| vec![0xEE; len]).collect();
        let mut cells: Vec<&mut [u8]> = made.iter_mut().map(Vec::as_mut_slice).collect();
        assert_eq!(codec.update(slot, &cell[..old], &cell[..new], &mut cells), Err(expected));
        assert!(made.iter().flatten().all(|&byte| byte == 0xEE), "a refused call wrote");
    };
    check(4, 64, 64, &[64, 64], CodecError::SlotOutOfRange { slot: 4, slot_count: 4 });
    check(usize::MAX, 64, 64, &[64, 64], CodecError::SlotOutOfRange { slot: usize::MAX, slot_count: 4 });
    check(1, 64, 64, &[64], CodecError::ParityCount { expected: 2, got: 1 });
    check(1, 64, 63, &[64, 64], CodecError::LengthsDiffer { slot: 1, expected: 64, got: 63 });
    check(1, 64, 64, &[64, 60], CodecError::LengthsDiffer { slot: 5, expected: 64, got: 60 });
}

#[test]
fn streaming_gives_the_same_bytes() {
    for scheme in schemes() {
        let shards = shards(scheme, 10_000, 4);
        for engine in engine::available() {
            let codec = Codec::with_engine(scheme, engine);
            let data: Vec<&[u8]> = shards[..scheme.k()].iter().map(Vec::as_slice).collect();
            let mut parity = vec![vec![0xEE; 10_000]; scheme.m()];
            codec.encode_streaming(&data, &mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>()).unwrap();
            assert!(parity == shards[scheme.k()..], "{codec:?}");
            let present: Vec<usize> = (1..scheme.n()).collect();
            let given = views(&shards, &present);
            let (result, rebuilt) = made(&[0], 10_000, |targets| codec.reconstruct_streaming(&given, targets));
            assert_eq!(result, Ok(()));
            assert!(rebuilt[0] == shards[0], "{codec:?}");
        }
    }
}

#[test]
fn decodable_agrees_with_the_rank_first_and_from_the_cache() {
    for scheme in schemes() {
        let codec = Codec::new(scheme);
        let mut rng = StdRng::seed_from_u64(6);
        for _ in 0..300 {
            let present: SlotSet = (0..scheme.n()).filter(|_| rng.random_range(0..10) < 7).collect();
            let expected = solve::decodable(codec.code().generator(), &present);
            for _ in 0..2 {
                assert_eq!(codec.decodable(&present), expected, "{scheme}: {present:?}");
            }
            let beyond = present.union(&[scheme.n(), 255].into_iter().collect());
            assert_eq!(codec.decodable(&beyond), expected, "{scheme}: slots that do not exist");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any code, any pattern (also hopeless ones), any costs, any length, any engine.
    #[test]
    fn random_patterns_of_all_codes(number in 0usize..21, len in 0usize..300, seed: u64, losses in 0usize..12) {
        let scheme = schemes()[number];
        let mut rng = StdRng::seed_from_u64(seed);
        let mut lost = SlotSet::new();
        while lost.len() < losses.min(scheme.n()) {
            lost.insert(rng.random_range(0..scheme.n()));
        }
        let mut present: Vec<usize> = (0..scheme.n()).filter(|&slot| !lost.contains(slot)).collect();
        present.reverse();
        // Ask for some of what is lost.
        let wanted: Vec<usize> = lost.iter().filter(|_| rng.random_range(0..4) > 0).collect();
        let costs: Vec<u64> = (0..scheme.n()).map(|_| rng.random_range(0..50)).collect();
        let shards = shards(scheme, len, seed);
        for engine in engine::available() {
            let codec = Codec::with_engine(scheme, engine);
            check(&codec, &shards, &present, &wanted, &costs);
        }
    }
}
