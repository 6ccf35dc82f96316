//! How long the door waits for the next piece of a body.
//!
//! A client may pause for `BODY_IDLE`, and each byte it sends gives a millisecond of that back: one that goes on slower
//! than about a kilobyte a second runs out of credit, however evenly it trickles. Time that we take ourselves does not
//! count. Pure: who reads tells how long it waited.

use super::limits::BODY_IDLE;
use std::time::Duration;

/// One client's credit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    credit: Duration,
}

impl Pace {
    /// Full credit.
    pub(crate) fn new() -> Self {
        Self { credit: BODY_IDLE }
    }

    /// How long to wait for the next piece at most.
    pub(crate) fn patience(&self) -> Duration {
        self.credit
    }

    /// A piece came after we had waited for it.
    pub(crate) fn received(&mut self, bytes: usize, waited: Duration) {
        let earned = Duration::from_millis(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.credit = self.credit.saturating_sub(waited).saturating_add(earned).min(BODY_IDLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_runs_out_and_a_steady_stream_does_not() {
        let mut trickle = Pace::new();
        let mut seconds = 0;
        while trickle.patience() > Duration::from_secs(5) {
            trickle.received(1, Duration::from_secs(5));
            seconds += 5;
            assert!(seconds < 100, "one byte in five seconds went on for {seconds} s");
        }
        let mut steady = Pace::new();
        for _ in 0..10_000 {
            steady.received(2000, Duration::from_secs(1));
        }
        assert_eq!(steady.patience(), BODY_IDLE);
        let mut burst = Pace::new();
        burst.received(1 << 30, Duration::ZERO);
        assert_eq!(burst.patience(), BODY_IDLE, "a burst buys no more than the pause everybody has");
    }
}
