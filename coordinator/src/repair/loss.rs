//! When a backend that does not answer counts as lost, so that its shards are rebuilt elsewhere.
//!
//! A directory that is not there may come back (a cable, a mount, a reboot): it is waited for. One that is there but
//! empty, or fails with IO errors, will not get its shards back by waiting.
//!
//! **Invariant:** a backend that answers is never lost; the clock of an absence starts when it was first seen and is
//! not restarted by looking.

use holdfast_proto::BackendId;
use holdfast_proto::node::BackendHealth;
use std::collections::BTreeMap;

/// Where the next loss would break reads an absence is waited for only so long: a process that starts may need this
/// long to open its backends after a crash.
const URGENT_GRACE_MS: u64 = 60_000;

/// A backend's health changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which.
    pub backend: BackendId,
    /// Before; `None` when it is seen for the first time.
    pub from: Option<BackendHealth>,
    /// Now.
    pub to: BackendHealth,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    health: BackendHealth,
    since_ms: u64,
    is_waived: bool,
}

/// Remembers since when each backend has been as it is.
#[derive(Clone, Debug)]
pub struct LossClock {
    grace_ms: u64,
    watches: BTreeMap<BackendId, Watch>,
}

impl LossClock {
    /// Waits `grace_ms` for a backend that went missing.
    pub fn new(grace_ms: u64) -> Self {
        Self { grace_ms, watches: BTreeMap::new() }
    }

    /// Takes what a node reports now; answers what changed.
    pub fn handle_report(&mut self, report: &[(BackendId, BackendHealth)], now_ms: u64) -> Vec<Transition> {
        let mut changed = Vec::new();
        for &(backend, health) in report {
            let before = self.watches.get(&backend).copied();
            match before {
                Some(watch) if watch.health == health => continue,
                // Missing -> wiped and the like is still the same absence.
                Some(watch) if !watch.health.can_read() && !health.can_read() => {
                    self.watches.insert(backend, Watch { health, ..watch });
                }
                _ => {
                    self.watches.insert(backend, Watch { health, since_ms: now_ms, is_waived: false });
                }
            }
            changed.push(Transition { backend, from: before.map(|w| w.health), to: health });
        }
        self.watches.retain(|id, _| report.iter().any(|(reported, _)| reported == id));
        changed
    }

    /// Whether the backend counts as lost. `is_urgent`: the next loss would break reads, so little is waited for.
    pub fn is_lost(&self, backend: BackendId, is_urgent: bool, now_ms: u64) -> bool {
        let Some(watch) = self.watches.get(&backend) else { return false };
        match watch.health {
            BackendHealth::Online | BackendHealth::ReadOnly => false,
            BackendHealth::Wiped | BackendHealth::Failed => true,
            // A foreign directory is most often a mix-up of mounts: waited for like an absence.
            BackendHealth::Missing | BackendHealth::Foreign => {
                let grace_ms = if is_urgent { self.grace_ms.min(URGENT_GRACE_MS) } else { self.grace_ms };
                watch.is_waived || now_ms.saturating_sub(watch.since_ms) >= grace_ms
            }
        }
    }

    /// An operator does not want to wait for those absent now.
    pub fn waive_grace(&mut self) {
        for watch in self.watches.values_mut() {
            watch.is_waived = !watch.health.can_read();
        }
    }

    /// Milliseconds until an absent backend counts as lost; `None` if it does already or is not absent.
    pub fn wait_left_ms(&self, backend: BackendId, now_ms: u64) -> Option<u64> {
        let watch = self.watches.get(&backend)?;
        let waits = matches!(watch.health, BackendHealth::Missing | BackendHealth::Foreign) && !watch.is_waived;
        let left = self.grace_ms.saturating_sub(now_ms.saturating_sub(watch.since_ms));
        (waits && left > 0).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BackendHealth::{Failed, Foreign, Missing, Online, ReadOnly, Wiped};

    #[test]
    fn one_line_per_case() {
        let id = BackendId([1; 16]);
        // Reports at times, then: lost at a time?
        let check = |reports: &[(u64, BackendHealth)], is_urgent: bool, at: u64, expected: bool| {
            let mut clock = LossClock::new(900_000);
            for (now, health) in reports {
                clock.handle_report(&[(id, *health)], *now);
            }
            assert_eq!(clock.is_lost(id, is_urgent, at), expected, "{reports:?} urgent {is_urgent} at {at}");
        };
        check(&[], true, 5000, false);
        check(&[(0, Online)], true, 5000, false);
        check(&[(0, ReadOnly)], true, 5000, false);
        check(&[(0, Wiped)], false, 0, true);
        check(&[(0, Failed)], false, 0, true);
        check(&[(0, Missing)], false, 899_999, false);
        check(&[(0, Missing)], false, 900_000, true);
        check(&[(0, Missing)], true, 59_999, false);
        check(&[(0, Missing)], true, 60_000, true);
        check(&[(0, Foreign)], false, 899_999, false);
        check(&[(0, Missing), (800_000, Missing)], false, 900_000, true);
        check(&[(0, Missing), (800_000, Foreign)], false, 900_000, true);
        check(&[(0, Missing), (800_000, Online), (850_000, Missing)], false, 1_000_000, false);
        check(&[(0, Missing), (100, Online)], true, 5000, false);
        // A clock that jumps back does not lose anybody.
        check(&[(5000, Missing)], false, 10, false);
    }

    #[test]
    fn transitions_are_told_once_and_the_grace_can_be_waived() {
        let id = BackendId([1; 16]);
        let mut clock = LossClock::new(900);
        assert_eq!(clock.handle_report(&[(id, Online)], 0).len(), 1);
        assert_eq!(clock.handle_report(&[(id, Online)], 1), []);
        let gone = clock.handle_report(&[(id, Missing)], 2);
        assert_eq!(gone, [Transition { backend: id, from: Some(Online), to: Missing }]);
        assert_eq!(clock.wait_left_ms(id, 102), Some(800));
        clock.waive_grace();
        assert!(clock.is_lost(id, false, 3));
        assert_eq!(clock.wait_left_ms(id, 102), None);
        // Back and gone again: a new absence, waited for again.
        clock.handle_report(&[(id, Online)], 4);
        clock.handle_report(&[(id, Missing)], 5);
        assert!(!clock.is_lost(id, false, 6));
        clock.handle_report(&[], 7);
        assert!(!clock.is_lost(id, true, 5000));
    }
}
