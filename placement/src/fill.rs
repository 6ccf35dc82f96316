//! How many slots each active backend shall hold: in proportion to weight as far as the caps allow.
//!
//! Shares are filled like water: all grow in proportion to weight until a backend would be in every PG, or a domain has
//! all the slots its cap allows it; what is full stays, and the others grow on. Where caps make weight impossible to
//! follow this is the best there is: nobody could have a larger part of what its weight asks for without another, who
//! has no more, having less. (Bertsekas, Gallager, "Data Networks", section 6.5.2: max-min fairness.)
//!
//! **Invariant:** quotas add up to the slots there are (or to what the caps allow); each is its share rounded down or
//! up; no group has more than its limit.

use std::cmp::{Ordering, Reverse};

/// Shares that differ from a whole number by less are that number: sums of floating point numbers are not exact.
const GRAIN: f64 = 1e-6;

/// What is to be divided, and among whom.
pub(crate) struct Demand<'a> {
    /// Slots of all PGs together.
    pub(crate) slots: usize,
    /// By backend.
    pub(crate) shares: &'a [Share],
    /// Backends that may not have more than so many slots together.
    pub(crate) groups: &'a [Group],
}

/// What one backend brings to the division.
pub(crate) struct Share {
    /// Its weight; relative to the others' only. If all are 0 they count as equal.
    pub(crate) weight: u64,
    /// How many slots it holds now.
    pub(crate) held: usize,
    /// The most it can hold: one in each PG it may be in.
    pub(crate) most: usize,
}

/// Backends with a limit.
pub(crate) struct Group {
    pub(crate) members: Vec<usize>,
    pub(crate) limit: usize,
}

/// How many slots one backend shall hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) slots: usize,
    /// The ideal share rounded down and up; one more here for one less elsewhere is as even as `slots`.
    pub(crate) least: usize,
    pub(crate) most: usize,
    /// Only backends of one pool may make good each other's roundings: they are in the same full groups.
    pub(crate) pool: usize,
}

/// Shares as fractions of slots; see the module.
pub(crate) fn shares(demand: &Demand<'_>) -> Vec<f64> {
    let count = demand.shares.len();
    let mut filled = vec![0.0; count];
    let mut is_open = vec![true; count];
    for phase in [Phase::ByWeight, Phase::WhateverIsLeft] {
        let weight = |index: usize| match phase {
            Phase::ByWeight => number_u64(demand.shares[index].weight),
            Phase::WhateverIsLeft => 1.0,
        };
        // Each round closes at least one backend.
        for _ in 0..=count {
            let open: Vec<usize> = (0..count).filter(|&index| is_open[index] && weight(index) > 0.0).collect();
            let total: f64 = open.iter().map(|&index| weight(index)).sum();
            let rest = number(demand.slots) - filled.iter().sum::<f64>();
            if open.is_empty() || rest <= GRAIN {
                break;
            }
            // How far the level rises until something is full.
            let mut rise = rest / total;
            for &index in &open {
                rise = rise.min((number(demand.shares[index].most) - filled[index]) / weight(index));
            }
            for group in demand.groups {
                let growing: f64 = group.members.iter().filter(|&&i| is_open[i]).map(|&i| weight(i)).sum();
                if growing > 0.0 {
                    let held: f64 = group.members.iter().map(|&i| filled[i]).sum();
                    rise = rise.min((number(group.limit) - held) / growing);
                }
            }
            for &index in &open {
                filled[index] += weight(index) * rise.max(0.0);
            }
            for &index in &open {
                is_open[index] = filled[index] < number(demand.shares[index].most) - GRAIN;
            }
            for group in demand.groups.iter().filter(|group| is_full(group, &filled)) {
                group.members.iter().for_each(|&index| is_open[index] = false);
            }
        }
    }
    filled
}

#[derive(Clone, Copy)]
enum Phase {
    ByWeight,
    /// Backends of weight 0 get what the others could not take.
    WhateverIsLeft,
}

fn is_full(group: &Group, filled: &[f64]) -> bool {
    group.members.iter().map(|&index| filled[index]).sum::<f64>() >= number(group.limit) - GRAIN
}

/// Divides the slots. Where rounding leaves a choice, whoever holds more than the lower number already gets the higher
/// one, which saves a move each; then those who must be given slots in any case, so that a replacement gets exactly
/// what it replaces.
pub(crate) fn quotas(demand: &Demand<'_>) -> Vec<Quota> {
    let ideal = shares(demand);
    let pools = pools(demand, &ideal);
    let mut quotas = Vec::with_capacity(ideal.len());
    let mut fractions: Vec<(Class, Reverse<u64>, usize)> = Vec::new();
    for (index, (&share, &pool)) in ideal.iter().zip(&pools).enumerate() {
        let floor = whole(share);
        let fraction = share - number(floor);
        let mut quota = Quota { slots: floor, least: floor, most: floor, pool };
        if fraction > GRAIN {
            quota.most += 1;
            let class = match demand.shares[index].held.cmp(&floor) {
                Ordering::Greater => Class::HasIt,
                Ordering::Less => Class::LacksAnyway,
                Ordering::Equal => Class::IsSettled,
            };
            // In millionths, so that equal shares with unequal last bits stay in their own order.
            fractions.push((class, Reverse(rounded(fraction / GRAIN)), index));
        }
        quotas.push(quota);
    }
    fractions.sort_unstable();
    let wanted = rounded_slots(ideal.iter().sum());
    let mut given: usize = quotas.iter().map(|quota| quota.slots).sum();
    for (_, _, index) in fractions {
        let has_room = |group: &Group| {
            !group.members.contains(&index)
                || group.members.iter().map(|&member| quotas[member].slots).sum::<usize>() < group.limit
        };
        if given < wanted && demand.groups.iter().all(has_room) {
            quotas[index].slots += 1;
            given += 1;
        }
    }
    quotas
}

/// Numbers the sets of full groups that backends are in.
fn pools(demand: &Demand<'_>, ideal: &[f64]) -> Vec<usize> {
    let mut member_of: Vec<Vec<usize>> = vec![Vec::new(); ideal.len()];
    for (number, group) in demand.groups.iter().enumerate().filter(|(_, group)| is_full(group, ideal)) {
        group.members.iter().for_each(|&index| member_of[index].push(number));
    }
    let mut known: Vec<&Vec<usize>> = Vec::new();
    let mut pools = Vec::with_capacity(ideal.len());
    for groups in &member_of {
        let at = known.iter().position(|other| *other == groups).unwrap_or_else(|| {
            known.push(groups);
            known.len() - 1
        });
        pools.push(at);
    }
    pools
}

/// Who gets the higher number first where rounding leaves a choice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    HasIt,
    LacksAnyway,
    IsSettled,
}

/// Slots are fewer than 2^24, which a float holds exactly.
fn number(slots: usize) -> f64 {
    f64::from(u32::try_from(slots).unwrap_or(u32::MAX))
}

/// Weights lose their last bits, which are a few bytes of terabytes.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn number_u64(weight: u64) -> f64 {
    weight as f64
}

/// Rounded down, but up where that is only a grain away.
fn whole(share: f64) -> usize {
    let floor = (share + GRAIN).floor();
    rounded_slots(floor)
}

fn rounded_slots(slots: f64) -> usize {
    usize::try_from(rounded(slots)).unwrap_or(0)
}

/// To the nearest whole number; of what is no such number, 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float to an integer saturates")]
fn rounded(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(weights: &[u64], held: &[usize], most: usize) -> Vec<Share> {
        weights.iter().zip(held).map(|(&weight, &held)| Share { weight, held, most }).collect()
    }

    fn slots(weights: &[u64], slots: usize, most: usize, groups: &[Group]) -> Vec<usize> {
        let shares = of(weights, &vec![0; weights.len()], most);
        quotas(&Demand { slots, shares: &shares, groups }).iter().map(|quota| quota.slots).collect()
    }

    fn check(weights: &[u64], count: usize, most: usize, expected: &[usize]) {
        assert_eq!(slots(weights, count, most, &[]), expected, "{weights:?}, {count} slots, {most} PGs");
    }

    #[test]
    fn by_weight_with_a_cap() {
        check(&[1, 1, 1], 30, 16, &[10, 10, 10]);
        check(&[1, 1, 2], 32, 16, &[8, 8, 16]);
        check(&[1, 1, 100], 32, 16, &[8, 8, 16]);
        check(&[0, 0, 100], 32, 16, &[8, 8, 16]);
        check(&[0, 0, 0], 30, 16, &[10, 10, 10]);
        check(&[5, 1], 32, 16, &[16, 16]);
        check(&[5, 1], 48, 16, &[16, 16]);
        check(&[], 48, 16, &[]);
        check(&[u64::MAX, u64::MAX, u64::MAX], 1 << 20, 1 << 19, &[349526, 349525, 349525]);
    }

    #[test]
    fn a_full_domain_leaves_the_rest_to_the_others() {
        let zone = |members: &[usize], limit| Group { members: members.to_vec(), limit };
        // The first zone has two thirds of the weight, and may have half of the slots.
        let zones = [zone(&[0, 1], 16), zone(&[2, 3], 16)];
        assert_eq!(slots(&[4, 4, 3, 1], 32, 16, &zones), [8, 8, 12, 4]);
        // Nobody is full: by weight.
        let zones = [zone(&[0, 1], 20), zone(&[2, 3], 20)];
        assert_eq!(slots(&[1, 1, 1, 1], 32, 16, &zones), [8, 8, 8, 8]);
        // The caps leave less than is asked for.
        let zones = [zone(&[0, 1], 10), zone(&[2, 3], 16)];
        assert_eq!(slots(&[1, 1, 1, 1], 32, 16, &zones), [5, 5, 8, 8]);
    }

    #[test]
    fn rounding_favours_who_holds_the_slot_already() {
        let shares = of(&[7, 7, 7], &[5, 6, 6], 16);
        let quotas = quotas(&Demand { slots: 17, shares: &shares, groups: &[] });
        assert_eq!(quotas.iter().map(|quota| quota.slots).collect::<Vec<_>>(), [5, 6, 6]);
        assert!(quotas.iter().all(|quota| (quota.least, quota.most) == (5, 6)));
    }

    proptest! {
        #[test]
        fn quotas_add_up_and_are_even(weights in proptest::collection::vec(0u64..1000, 1..30), pg_count in 1usize..200,
                                      n in 1usize..20) {
            let n = n.min(weights.len());
            let shares = of(&weights, &vec![0; weights.len()], pg_count);
            let quotas = quotas(&Demand { slots: pg_count * n, shares: &shares, groups: &[] });
            prop_assert!(quotas.iter().all(|q| q.least <= q.slots && q.slots <= q.most && q.most <= q.least + 1));
            let quotas: Vec<usize> = quotas.iter().map(|quota| quota.slots).collect();
            prop_assert_eq!(quotas.iter().sum::<usize>(), pg_count * n);
            prop_assert!(quotas.iter().all(|&quota| quota <= pg_count));
            // Nobody below the cap is worse off by more than one slot, relative to its weight, than anyone else.
            for (a, &qa) in quotas.iter().enumerate() {
                for (b, &qb) in quotas.iter().enumerate().filter(|(_, q)| **q < pg_count) {
                    let (wa, wb) = (weights[a], weights[b]);
                    let (low, high) = (u64::try_from(qa.saturating_sub(1)).unwrap(), u64::try_from(qb + 1).unwrap());
                    prop_assert!(low * wb <= high * wa, "{} of {} against {} of {}", qa, wa, qb, wb);
                }
            }
        }

        #[test]
        fn groups_keep_their_limits_and_all_is_given_out(
            weights in proptest::collection::vec(1u64..1000, 6..24), pg_count in 1usize..100, cap in 1usize..4,
        ) {
            // Three zones, n slots, each zone at most `cap` a PG.
            let zones: Vec<Group> = (0..3).map(|zone| Group {
                members: (0..weights.len()).filter(|index| index % 3 == zone).collect(),
                limit: cap * pg_count,
            }).collect();
            let room: usize = zones.iter().map(|zone| cap.min(zone.members.len())).sum();
            let shares = of(&weights, &vec![0; weights.len()], pg_count);
            let quotas = quotas(&Demand { slots: pg_count * room, shares: &shares, groups: &zones });
            prop_assert_eq!(quotas.iter().map(|quota| quota.slots).sum::<usize>(), pg_count * room);
            for zone in &zones {
                prop_assert!(zone.members.iter().map(|&index| quotas[index].slots).sum::<usize>() <= zone.limit);
            }
        }
    }
}
