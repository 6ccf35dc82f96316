//! Decode coefficients by loss pattern, so that a degraded read or a repair computes them once, not per stripe.
//!
//! **Invariant:** the memory it holds is bounded, whatever patterns come; the oldest entry goes first. (A hit does not
//! renew an entry: losing one costs about a microsecond at usual shapes, less than keeping order on every stripe.)

use crate::engine::Combination;
use crate::slot_set::SlotSet;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Most bytes of coefficients kept per codec. An entry of RS(10,4) with two wanted shards counts 900 bytes, so all its
/// 1001 patterns fit four times over; RS(200,55) with 55 wanted counts 480 KiB, of which eight fit.
const CACHE_BYTES_MAX: usize = 4 << 20;
/// Most entries, which bounds the bookkeeping around small ones (some 200 bytes each).
const CACHE_ENTRIES_MAX: usize = 4096;

/// A decode problem: these slots are at hand, those are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pattern {
    pub(crate) present: SlotSet,
    pub(crate) wanted: SlotSet,
}

/// Its solution: which of the slots at hand to read, and the coefficients over them.
#[derive(Debug)]
pub(crate) struct Decoding {
    pub(crate) inputs: SlotSet,
    pub(crate) combination: Combination,
}

/// See the module.
#[derive(Default)]
pub(crate) struct DecodeCache {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_pattern: BTreeMap<Pattern, Arc<Decoding>>,
    oldest_first: VecDeque<Pattern>,
    bytes: usize,
}

impl DecodeCache {
    pub(crate) fn get(&self, pattern: &Pattern) -> Option<Arc<Decoding>> {
        self.entries.lock().by_pattern.get(pattern).cloned()
    }

    /// Keeps an entry, unless it alone is larger than the cache or is there already.
    pub(crate) fn put(&self, pattern: Pattern, decoding: Arc<Decoding>) {
        let bytes = decoding.combination.memory_bytes();
        let mut guard = self.entries.lock();
        let entries = &mut *guard;
        if bytes > CACHE_BYTES_MAX || entries.by_pattern.contains_key(&pattern) {
            return;
        }
        while entries.bytes + bytes > CACHE_BYTES_MAX || entries.by_pattern.len() >= CACHE_ENTRIES_MAX {
            let Some(oldest) = entries.oldest_first.pop_front() else { break };
            if let Some(dropped) = entries.by_pattern.remove(&oldest) {
                entries.bytes -= dropped.combination.memory_bytes();
            }
        }
        entries.bytes += bytes;
        entries.oldest_first.push_back(pattern);
        entries.by_pattern.insert(pattern, decoding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(number: usize) -> Pattern {
        Pattern { present: [number % 256, number / 256].into_iter().collect(), wanted: SlotSet::new() }
    }

    fn check_bounds(cache: &DecodeCache) {
        let entries = cache.entries.lock();
        let bytes: usize = entries.by_pattern.values().map(|d| d.combination.memory_bytes()).sum();
        assert_eq!(bytes, entries.bytes);
        assert!(bytes <= CACHE_BYTES_MAX);
        assert_eq!(entries.by_pattern.len(), entries.oldest_first.len());
        assert!(entries.by_pattern.len() <= CACHE_ENTRIES_MAX);
    }

    #[test]
    fn stays_within_its_bounds_and_drops_the_oldest() {
        for size in [1, 100, 255] {
            let cache = DecodeCache::default();
            let row = vec![1u8; size];
            let combination = Combination::new(size, &vec![row.as_slice(); size]);
            let decoding = Arc::new(Decoding { inputs: SlotSet::first(size), combination });
            for number in 0..5000 {
                cache.put(pattern(number), decoding.clone());
                assert!(cache.get(&pattern(number)).is_some());
            }
            check_bounds(&cache);
            assert!(cache.get(&pattern(0)).is_none() && cache.get(&pattern(4999)).is_some());
        }
    }

    #[test]
    fn an_entry_put_twice_counts_once() {
        let cache = DecodeCache::default();
        let decoding = Arc::new(Decoding { inputs: SlotSet::first(1), combination: Combination::new(1, &[&[1]]) });
        cache.put(pattern(1), decoding.clone());
        cache.put(pattern(1), decoding);
        check_bounds(&cache);
    }
}
