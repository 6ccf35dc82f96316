//! When operations begin: at once after the last (closed loop), or at a fixed rate whatever the server does (open loop).
//!
//! Open loop: operation i is due at i / rate; latency counts from then, so a server that stalls pays for every
//! operation that had to wait, not only for the few that were under way ("coordinated omission").

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Hands out the begin of each operation to all connections of a run.
pub(crate) struct Schedule {
    start: Instant,
    end: Duration,
    rate: Option<f64>,
    next: AtomicU64,
    limit: u64,
}

/// An operation to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Its number in the run.
    pub(crate) number: u64,
    /// When it is due, after the start.
    pub(crate) due: Duration,
}

impl Schedule {
    /// From now until `end` (which includes the warm-up), at most `limit` operations.
    pub(crate) fn start(end: Duration, rate: Option<f64>, limit: u64) -> Self {
        Self { start: Instant::now(), end, rate, next: AtomicU64::new(0), limit }
    }

    /// The next operation, or `None` when no more are to begin. In open loop it may be due later: wait for it.
    pub(crate) fn next(&self) -> Option<Ticket> {
        let now = self.start.elapsed();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.rate.map_or(now, |rate| Duration::from_secs_f64(number as f64 / rate));
        (number < self.limit && due < self.end && now < self.end.saturating_add(OVERDUE_MAX))
            .then_some(Ticket { number, due })
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits until the ticket is due.
    pub(crate) async fn wait(&self, ticket: Ticket) {
        let due = self.start + ticket.due;
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
    }
}

/// How long after its end an open loop that fell behind may still begin what was due before it.
const OVERDUE_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_fixes_when_operations_are_due() {
        let schedule = Schedule::start(Duration::from_secs(1), Some(4.0), u64::MAX);
        let due: Vec<_> = std::iter::from_fn(|| schedule.next()).map(|t| t.due.as_millis()).collect();
        assert_eq!(due, [0, 250, 500, 750], "all at once, however long the first take");
    }

    #[test]
    fn a_closed_loop_ends_by_time_or_count() {
        let schedule = Schedule::start(Duration::from_secs(60), None, 3);
        assert_eq!(std::iter::from_fn(|| schedule.next()).count(), 3);
        let over = Schedule::start(Duration::ZERO, None, u64::MAX);
        assert_eq!(over.next(), None);
    }
}
