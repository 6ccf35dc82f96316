//! How many slots each active backend shall hold.
//!
//! **Invariant:** quotas add up to the slots there are (or to `pg_count` each, when there are more slots than that);
//! each is its ideal share rounded down or up, and at most `pg_count`, because no PG uses a backend twice.

use std::cmp::{Ordering, Reverse};

/// What one backend brings to the division.
pub(crate) struct Share {
    /// Its weight; relative to the others' only.
    pub(crate) weight: u64,
    /// How many slots it holds now.
    pub(crate) held: usize,
}

/// How many slots one backend shall hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) slots: usize,
    /// The ideal share rounded down and up; one more here for one less elsewhere is as even as `slots`.
    pub(crate) least: usize,
    pub(crate) most: usize,
}

/// Divides `slots` over the shares in proportion to their weights, none above `pg_count`. Where rounding leaves a
/// choice, whoever holds more than the lower number already gets the higher one, which saves a move each; then those
/// who must be given slots in any case, so that a replacement gets exactly what it replaces.
///
/// A backend so heavy that it would exceed `pg_count` gets `pg_count`, and the others divide the rest. If all weights
/// are 0, they count as equal.
pub(crate) fn quotas(shares: &[Share], slots: usize, pg_count: usize) -> Vec<Quota> {
    let full = Quota { slots: pg_count, least: pg_count, most: pg_count };
    if shares.len().saturating_mul(pg_count) <= slots {
        return vec![full; shares.len()];
    }
    let all_zero = shares.iter().all(|share| share.weight == 0);
    let weight = |index: usize| if all_zero { 1 } else { u128::from(shares[index].weight) };
    let mut quotas = vec![Quota::default(); shares.len()];
    let mut open: Vec<usize> = (0..shares.len()).collect();
    let mut rest = slots;
    loop {
        let total: u128 = open.iter().map(|&index| weight(index)).sum();
        if total == 0 {
            // Only backends of weight 0 are left for what the heavy ones could not take.
            divide(&mut quotas, shares, &open, rest, |_| 1);
            return quotas;
        }
        let is_full = |&index: &usize| weight(index) * wide(rest) >= wide(pg_count) * total;
        let (capped, others): (Vec<usize>, Vec<usize>) = open.iter().copied().partition(is_full);
        if capped.is_empty() {
            divide(&mut quotas, shares, &open, rest, weight);
            return quotas;
        }
        for index in capped {
            quotas[index] = full;
            rest = rest.saturating_sub(pg_count);
        }
        open = others;
    }
}

/// Divides `slots` over the `open` shares; none of them reaches the cap.
fn divide(quotas: &mut [Quota], shares: &[Share], open: &[usize], slots: usize, weight: impl Fn(usize) -> u128) {
    let total: u128 = open.iter().map(|&index| weight(index)).sum();
    if total == 0 {
        return;
    }
    let mut given = 0;
    let mut fractions: Vec<(Class, Reverse<u128>, usize)> = Vec::new();
    for &index in open {
        let product = weight(index) * wide(slots);
        let floor = usize::try_from(product / total).unwrap_or(slots);
        quotas[index] = Quota { slots: floor, least: floor, most: floor };
        given += floor;
        if product % total > 0 {
            quotas[index].most += 1;
            let class = match shares[index].held.cmp(&floor) {
                Ordering::Greater => Class::HasIt,
                Ordering::Less => Class::LacksAnyway,
                Ordering::Equal => Class::IsSettled,
            };
            fractions.push((class, Reverse(product % total), index));
        }
    }
    fractions.sort_unstable();
    for (_, _, index) in fractions.into_iter().take(slots.saturating_sub(given)) {
        quotas[index].slots += 1;
    }
}

/// Who gets the higher number first where rounding leaves a choice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    HasIt,
    LacksAnyway,
    IsSettled,
}

fn wide(number: usize) -> u128 {
    // usize has at most 64 bits.
    u128::try_from(number).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(weights: &[u64], slots: usize, pg_count: usize, expected: &[usize]) {
        let shares: Vec<Share> = weights.iter().map(|&weight| Share { weight, held: 0 }).collect();
        let quotas: Vec<usize> = quotas(&shares, slots, pg_count).iter().map(|quota| quota.slots).collect();
        assert_eq!(quotas, expected, "{weights:?}, {slots} slots, {pg_count} PGs");
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
    fn rounding_favours_who_holds_the_slot_already() {
        let shares = [(0, 5), (0, 6), (0, 6)].map(|(_, held)| Share { weight: 7, held });
        let quotas: [Quota; 3] = quotas(&shares, 17, 16).try_into().unwrap();
        assert_eq!(quotas.map(|quota| quota.slots), [5, 6, 6]);
        assert!(quotas.iter().all(|quota| (quota.least, quota.most) == (5, 6)));
    }

    proptest! {
        #[test]
        fn quotas_add_up_and_are_even(weights in proptest::collection::vec(0u64..1000, 1..30), pg_count in 1usize..200,
                                      n in 1usize..20) {
            let n = n.min(weights.len());
            let shares: Vec<Share> = weights.iter().map(|&weight| Share { weight, held: 0 }).collect();
            let quotas = quotas(&shares, pg_count * n, pg_count);
            prop_assert!(quotas.iter().all(|q| q.least <= q.slots && q.slots <= q.most && q.most <= q.least + 1));
            let quotas: Vec<usize> = quotas.iter().map(|quota| quota.slots).collect();
            prop_assert_eq!(quotas.iter().sum::<usize>(), pg_count * n);
            prop_assert!(quotas.iter().all(|&quota| quota <= pg_count));
            // Nobody below the cap is worse off by more than one slot, relative to its weight, than anyone else.
            for (a, &qa) in quotas.iter().enumerate() {
                for (b, &qb) in quotas.iter().enumerate().filter(|(_, q)| **q < pg_count) {
                    let (wa, wb) = (u128::from(weights[a]), u128::from(weights[b]));
                    prop_assert!(wide(qa.saturating_sub(1)) * wb <= wide(qb + 1) * wa, "{} of {} against {} of {}", qa, wa, qb, wb);
                }
            }
        }
    }
}
