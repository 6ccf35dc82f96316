//! Bytes a second over the last seconds, and a budget that says how long to wait.
//!
//! Pure: times come in as milliseconds.

use std::collections::VecDeque;

/// The window a rate is measured over: long enough to be steady, short enough to show a change.
const WINDOW_MS: u64 = 10_000;
/// Entries within one such step are joined, so a meter holds at most 100.
const STEP_MS: u64 = 100;

/// Measures bytes a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct RateMeter {
    steps: VecDeque<(u64, u64)>,
}

impl RateMeter {
    /// Counts `bytes` moved at `now_ms`.
    pub(crate) fn add(&mut self, bytes: u64, now_ms: u64) {
        self.expire(now_ms);
        match self.steps.back_mut() {
            Some((at, sum)) if now_ms.saturating_sub(*at) < STEP_MS => *sum += bytes,
            _ => self.steps.push_back((now_ms, bytes)),
        }
    }

    /// Bytes a second over the window, or since the first count if that is later (at least one second).
    pub(crate) fn bytes_per_second(&mut self, now_ms: u64) -> u64 {
        self.expire(now_ms);
        let Some((first, _)) = self.steps.front() else { return 0 };
        let elapsed_ms = now_ms.saturating_sub(*first).max(1000);
        self.steps.iter().map(|(_, bytes)| bytes).sum::<u64>().saturating_mul(1000) / elapsed_ms
    }

    fn expire(&mut self, now_ms: u64) {
        while self.steps.front().is_some_and(|(at, _)| now_ms.saturating_sub(*at) > WINDOW_MS) {
            self.steps.pop_front();
        }
    }
}

/// A budget of bytes a second, paid afterwards: who has spent waits until it is earned back.
#[derive(Clone, Debug)]
pub(crate) struct ByteBudget {
    bytes_per_second_max: u64,
    free_at_ms: u64,
}

impl ByteBudget {
    /// A budget; 0 for no limit.
    pub(crate) fn new(bytes_per_second_max: u64) -> Self {
        Self { bytes_per_second_max, free_at_ms: 0 }
    }

    /// Spends `bytes`; answers how many milliseconds to wait before the next spending.
    pub(crate) fn spend(&mut self, bytes: u64, now_ms: u64) -> u64 {
        if self.bytes_per_second_max == 0 {
            return 0;
        }
        let cost_ms = bytes.saturating_mul(1000) / self.bytes_per_second_max;
        self.free_at_ms = self.free_at_ms.max(now_ms).saturating_add(cost_ms);
        self.free_at_ms - now_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_over_the_window_and_since_the_first_count() {
        let mut meter = RateMeter::default();
        assert_eq!(meter.bytes_per_second(0), 0);
        meter.add(1000, 1_000);
        assert_eq!(meter.bytes_per_second(1_000), 1000);
        meter.add(3000, 3_000);
        assert_eq!(meter.bytes_per_second(3_000), 2000);
        assert_eq!(meter.bytes_per_second(12_500), 3000 * 1000 / 9_500);
        assert_eq!(meter.bytes_per_second(60_000), 0);
    }

    #[test]
    fn a_budget_is_kept_over_any_two_seconds() {
        let mut budget = ByteBudget::new(1000);
        let mut now = 0;
        let mut spent = 0;
        while now < 10_000 {
            spent += 700;
            now += budget.spend(700, now);
        }
        assert!((9_500..=10_700).contains(&spent), "{spent}");
        assert_eq!(ByteBudget::new(0).spend(u64::MAX, 5), 0);
    }
}
