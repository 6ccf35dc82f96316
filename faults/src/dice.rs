//! Chance that can be repeated: what the n-th throw gives follows from the seed.

use std::sync::atomic::{AtomicU64, Ordering};

/// Throws in order. Callers on several threads share one order, so a run is repeated as far as its calls come in the
/// same order.
#[derive(Debug, Default)]
pub struct Dice {
    seed: u64,
    thrown: AtomicU64,
}

impl Dice {
    /// A dice at its first throw.
    pub fn new(seed: u64) -> Self {
        Self { seed, thrown: AtomicU64::new(0) }
    }

    /// Whether an event of this chance, 0 (never) to 1 (always), happens. What cannot, or must, costs no throw.
    pub fn falls(&self, chance: f64) -> bool {
        if chance <= 0.0 {
            return false;
        }
        // 53 bits are what a double tells apart.
        let unit = (self.throw() >> 11) as f64 / (1u64 << 53) as f64;
        chance >= 1.0 || unit < chance
    }

    /// A number below `below`; 0 if that is 0.
    pub fn pick(&self, below: usize) -> usize {
        let below = u64::try_from(below).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.throw() % below).unwrap_or(0)
    }

    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014), by the number of the throw.
    fn throw(&self) -> u64 {
        let number = self.thrown.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut mixed = self.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_falls_the_same() {
        let run = |seed| {
            let dice = Dice::new(seed);
            (0..200).map(|_| dice.falls(0.3)).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn chances_are_kept() {
        for (chance, least, most) in [(0.0, 0, 0), (0.1, 850, 1_150), (0.5, 4_800, 5_200), (1.0, 10_000, 10_000)] {
            let dice = Dice::new(3);
            let fallen = (0..10_000).filter(|_| dice.falls(chance)).count();
            assert!((least..=most).contains(&fallen), "{chance}: {fallen} of 10,000");
        }
        let dice = Dice::new(5);
        assert_eq!(dice.pick(0), 0);
        let picked: std::collections::BTreeSet<usize> = (0..100).map(|_| dice.pick(4)).collect();
        assert_eq!(picked.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
