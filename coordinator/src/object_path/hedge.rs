//! When a read is late enough to ask other shards as well.
//!
//! Pure but for atomics: times come in as arguments.
//!
//! **Invariant:** hedged reads stay a small part of all reads, so that an overloaded machine is not given more to do;
//! but a backend that hangs is always worked around.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Never hedge earlier: a busy disk answers within this.
const SOFT_MIN: Duration = Duration::from_millis(200);
/// A read that takes so long is taken for hung, and decoded around whatever it costs.
pub(crate) const HARD: Duration = Duration::from_secs(2);
/// How many times the usual time makes a read late.
const LATE_FACTOR: u32 = 8;
/// One more hedge is allowed for every so many reads: 5 % extra.
const READS_PER_HEDGE: u64 = 20;
/// Hedges saved up at most.
const SAVED_MAX: u64 = 10 * READS_PER_HEDGE;
/// The mean forgets with a weight of 1/16 a read.
const WEIGHT: u64 = 16;

/// Learns the usual time of a window and rations hedges.
pub(crate) struct HedgePolicy {
    mean_us: AtomicU64,
    /// Counts reads; a hedge costs `READS_PER_HEDGE`.
    saved: AtomicU64,
}

impl HedgePolicy {
    pub(crate) fn new() -> Self {
        Self { mean_us: AtomicU64::new(0), saved: AtomicU64::new(SAVED_MAX) }
    }

    /// After how long a window is late.
    pub(crate) fn soft(&self) -> Duration {
        let mean = Duration::from_micros(self.mean_us.load(Ordering::Relaxed));
        (mean * LATE_FACTOR).clamp(SOFT_MIN, HARD)
    }

    /// Whether a late window may ask for more; counts it if so.
    pub(crate) fn try_hedge(&self) -> bool {
        let take = |saved: u64| saved.checked_sub(READS_PER_HEDGE);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// A window took `time`. Lost updates of concurrent reads do not matter to a mean.
    pub(crate) fn record(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(60_000_000);
        let mean = self.mean_us.load(Ordering::Relaxed);
        let next = if mean == 0 { us } else { (mean * (WEIGHT - 1) + us) / WEIGHT };
        self.mean_us.store(next, Ordering::Relaxed);
        let add = |saved: u64| (saved < SAVED_MAX).then(|| saved + 1);
        // Full already: nothing to add.
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hedges_are_rationed() {
        let policy = HedgePolicy::new();
        let hedged = (0..1000).filter(|_| policy.try_hedge()).count();
        assert_eq!(hedged, 10);
        (0..100).for_each(|_| policy.record(Duration::from_millis(1)));
        assert_eq!((0..1000).filter(|_| policy.try_hedge()).count(), 5);
    }

    #[test]
    fn late_follows_what_is_usual_within_bounds() {
        let policy = HedgePolicy::new();
        assert_eq!(policy.soft(), SOFT_MIN);
        (0..100).for_each(|_| policy.record(Duration::from_millis(100)));
        assert!(policy.soft() > Duration::from_millis(700) && policy.soft() < Duration::from_millis(900));
        (0..100).for_each(|_| policy.record(Duration::from_secs(50)));
        assert_eq!(policy.soft(), HARD);
    }
}
