//! Answers to "is this pattern decodable", kept so that the next ask costs a hash and a load.
//!
//! Direct-mapped and without locks: an entry is one word that holds the whole pattern and its answer, so a torn or
//! stale answer cannot be read, and a collision only loses an entry.

use crate::slot_set::SlotSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Entries: 32 KiB for each codec that is asked, room for all single and double losses of any code it is used for.
const ENTRIES: usize = 4096;
/// Slots whose bits fit an entry beside two more.
const SLOTS_MAX: usize = 62;
const IS_SET: u64 = 1 << 63;
const IS_DECODABLE: u64 = 1 << 62;

/// See the module.
pub(crate) struct VerdictCache {
    is_used: bool,
    entries: OnceLock<Box<[AtomicU64]>>,
}

impl VerdictCache {
    /// A cache for a code of `slots`; one of more than 62 is not cached.
    pub(crate) fn new(slots: usize) -> Self {
        Self { is_used: slots <= SLOTS_MAX, entries: OnceLock::new() }
    }

    /// The answer kept for `present`, or that of `find`.
    pub(crate) fn get_or(&self, present: &SlotSet, find: impl FnOnce() -> bool) -> bool {
        if !self.is_used {
            return find();
        }
        let pattern = present.low_word();
        let entries = self.entries.get_or_init(|| (0..ENTRIES).map(|_| AtomicU64::new(0)).collect());
        // Fibonacci hashing: the top 12 bits of the product.
        let index = usize::try_from(pattern.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 52).unwrap_or(0);
        let Some(entry) = entries.get(index) else { return find() };
        let known = entry.load(Ordering::Relaxed);
        if known & !IS_DECODABLE == pattern | IS_SET {
            return known & IS_DECODABLE != 0;
        }
        let is_decodable = find();
        let answer = if is_decodable { IS_DECODABLE } else { 0 };
        entry.store(pattern | IS_SET | answer, Ordering::Relaxed);
        is_decodable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_given_whatever_collides() {
        let cache = VerdictCache::new(20);
        let answer = |number: usize| number.count_ones().is_multiple_of(3);
        let set = |number: usize| (0..20).filter(|bit| number & (1 << bit) != 0).collect::<SlotSet>();
        let mut asked = 0;
        for number in (0..1 << 20).step_by(7) {
            for _ in 0..2 {
                let found = cache.get_or(&set(number), || {
                    asked += 1;
                    answer(number)
                });
                assert_eq!(found, answer(number));
            }
        }
        assert_eq!(asked, (1usize << 20).div_ceil(7), "the second ask is answered from the cache");
        assert!(VerdictCache::new(63).get_or(&set(1), || true));
        assert!(!VerdictCache::new(63).get_or(&set(1), || false));
    }
}
