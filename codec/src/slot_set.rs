//! A set of slots of one segment: up to 256 of them, in four words, copied freely.
//!
//! **Invariant:** iteration is in ascending order, so everything derived from a set is deterministic.

use std::fmt;

/// Slots that a set can hold: `0..256`, one more than any scheme has.
pub const SLOTS_MAX: usize = 256;

/// A set of slots (`0..256`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SlotSet {
    words: [u64; 4],
}

impl SlotSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { words: [0; 4] }
    }

    /// The slots `0..count`; `count` above 256 counts as 256.
    pub fn first(count: usize) -> Self {
        (0..count.min(SLOTS_MAX)).collect()
    }

    /// Adds a slot; true if it was not there. A slot of 256 or more is no slot: it is left out and the answer is false.
    pub fn insert(&mut self, slot: usize) -> bool {
        let Some(word) = self.words.get_mut(slot / 64) else { return false };
        let bit = 1u64 << (slot % 64);
        let added = *word & bit == 0;
        *word |= bit;
        added
    }

    /// Takes a slot out; true if it was there.
    pub fn remove(&mut self, slot: usize) -> bool {
        let Some(word) = self.words.get_mut(slot / 64) else { return false };
        let bit = 1u64 << (slot % 64);
        let removed = *word & bit != 0;
        *word &= !bit;
        removed
    }

    /// Whether the slot is in the set.
    pub fn contains(&self, slot: usize) -> bool {
        self.words.get(slot / 64).is_some_and(|word| word & (1u64 << (slot % 64)) != 0)
    }

    /// How many slots are in it.
    pub fn len(&self) -> usize {
        // Four counts of at most 64 each.
        self.words.iter().map(|word| usize::try_from(word.count_ones()).unwrap_or(0)).sum()
    }

    /// How many of its slots are below `slot`: the slot's place in ascending order.
    pub fn rank(&self, slot: usize) -> usize {
        let (word, bit) = (slot / 64, slot % 64);
        let below = |index: usize, bits: u64| match index.cmp(&word) {
            std::cmp::Ordering::Less => bits,
            std::cmp::Ordering::Equal => bits & ((1u64 << bit) - 1),
            std::cmp::Ordering::Greater => 0,
        };
        let counts = self.words.iter().enumerate().map(|(index, &bits)| below(index, bits).count_ones());
        counts.map(|count| usize::try_from(count).unwrap_or(0)).sum()
    }

    /// The slots `0..64` as bits.
    pub(crate) fn low_word(&self) -> u64 {
        self.words[0]
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.words == [0; 4]
    }

    /// The highest slot, if any.
    pub fn last(&self) -> Option<usize> {
        (0..SLOTS_MAX).rev().find(|&slot| self.contains(slot))
    }

    /// The slots, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = usize::try_from(rest.trailing_zeros()).unwrap_or(0);
                rest &= rest - 1;
                Some(index * 64 + bit)
            })
        })
    }

    /// Slots in either.
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// Slots in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// Slots of this one that are not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    /// Whether every slot of this one is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    fn zip(&self, other: &Self, f: impl Fn(u64, u64) -> u64) -> Self {
        let mut words = [0; 4];
        for (word, (&a, &b)) in words.iter_mut().zip(self.words.iter().zip(&other.words)) {
            *word = f(a, b);
        }
        Self { words }
    }
}

/// Slots of 256 or more are left out, as by [`SlotSet::insert`].
impl FromIterator<usize> for SlotSet {
    fn from_iter<I: IntoIterator<Item = usize>>(slots: I) -> Self {
        let mut set = Self::new();
        set.extend(slots);
        set
    }
}

impl Extend<usize> for SlotSet {
    fn extend<I: IntoIterator<Item = usize>>(&mut self, slots: I) {
        for slot in slots {
            self.insert(slot);
        }
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_tree_set(a in proptest::collection::vec(0usize..300, 0..80),
                                   b in proptest::collection::vec(0usize..300, 0..80)) {
            let tree = |v: &[usize]| v.iter().copied().filter(|&s| s < 256).collect::<BTreeSet<_>>();
            let (ta, tb) = (tree(&a), tree(&b));
            let (sa, sb): (SlotSet, SlotSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            let same = |set: SlotSet, tree: BTreeSet<usize>| {
                set.iter().eq(tree.iter().copied()) && set.len() == tree.len() && set.last() == tree.last().copied()
                    && set.is_empty() == tree.is_empty()
            };
            prop_assert!(same(sa, ta.clone()));
            prop_assert!(same(sa.union(&sb), &ta | &tb));
            prop_assert!(same(sa.intersection(&sb), &ta & &tb));
            prop_assert!(same(sa.difference(&sb), &ta - &tb));
            prop_assert_eq!(sa.is_subset(&sb), ta.is_subset(&tb));
            for slot in 0..300 {
                prop_assert_eq!(sa.contains(slot), ta.contains(&slot));
                prop_assert_eq!(sa.rank(slot), ta.range(..slot).count());
                let (mut set, mut tree) = (sa, ta.clone());
                prop_assert_eq!(set.remove(slot), tree.remove(&slot));
                prop_assert!(same(set, tree));
            }
        }
    }

    #[test]
    fn a_slot_past_the_last_is_left_out() {
        let mut set = SlotSet::new();
        assert!(set.insert(255) && !set.insert(255));
        assert!(!set.insert(256) && !set.insert(usize::MAX));
        assert_eq!(set.len(), 1);
        assert_eq!(SlotSet::first(300).len(), 256);
    }
}
