//! How many calls may be tried a second time: a share of the first tries, so that retries never multiply the load of a
//! peer that is in trouble.
//!
//! Reads no clock: what fills it are calls, not time.

use std::sync::atomic::{AtomicU32, Ordering};

/// Units one call puts in; a retry takes `RETRY_UNITS` out. One in ten: at most 10 % extra calls.
const CALL_UNITS: u32 = 1;
const RETRY_UNITS: u32 = 10 * CALL_UNITS;
/// Most retries that can be saved up: enough for one call to each peer of a large cluster, too few for a storm.
const RETRIES_SAVED_MAX: u32 = 32;
const UNITS_MAX: u32 = RETRIES_SAVED_MAX * RETRY_UNITS;

/// A token bucket filled by calls and emptied by retries. One belongs to each kind of work of one caller.
#[derive(Debug)]
pub struct RetryBudget {
    units: AtomicU32,
}

impl Default for RetryBudget {
    /// Full, so that the first calls after a start may be retried.
    fn default() -> Self {
        Self { units: AtomicU32::new(UNITS_MAX) }
    }
}

impl RetryBudget {
    /// Counts a first try.
    pub fn record_call(&self) {
        let add = |units: u32| Some((units + CALL_UNITS).min(UNITS_MAX));
        let _ = self.units.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Whether a retry may be made now; if so it is counted.
    pub fn try_retry(&self) -> bool {
        self.units.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |units| units.checked_sub(RETRY_UNITS)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_tenth_of_the_calls_beyond_what_was_saved() {
        let budget = RetryBudget::default();
        let mut granted = 0;
        for _ in 0..10_000 {
            budget.record_call();
            granted += u32::from(budget.try_retry());
        }
        // The first call found the bucket full.
        assert_eq!(granted, RETRIES_SAVED_MAX + 999);
    }

    #[test]
    fn no_more_is_saved_than_the_limit() {
        let budget = RetryBudget::default();
        for _ in 0..100_000 {
            budget.record_call();
        }
        assert_eq!((0..1_000).filter(|_| budget.try_retry()).count(), RETRIES_SAVED_MAX as usize);
    }
}
