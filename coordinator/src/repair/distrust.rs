//! Which backends are left out of inventories because listing their shards failed although they answer, and for how long.
//!
//! A hiccup costs seconds; one that fails again each time it is tried is tried less and less often, so that it does not
//! have the whole store listed over and over.
//!
//! **Invariant:** every end of a wait is told once (`lapse`): what waited for the backend is then looked for again.

use holdfast_proto::BackendId;
use std::collections::BTreeMap;

/// First wait; each further one is twice as long.
const FIRST_MS: u64 = 5_000;
/// Longest wait: about as long as inventories are apart that nothing asks for.
const LONGEST_MS: u64 = 10 * 60_000;

#[derive(Clone, Copy, Debug)]
struct Wait {
    until_ms: u64,
    for_ms: u64,
    is_over: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Distrust {
    waits: BTreeMap<BackendId, Wait>,
}

impl Distrust {
    /// Its listing has failed.
    pub fn begin(&mut self, backend: BackendId, now_ms: u64) {
        let for_ms = self.waits.get(&backend).map_or(FIRST_MS, |wait| (wait.for_ms * 2).min(LONGEST_MS));
        self.waits.insert(backend, Wait { until_ms: now_ms + for_ms, for_ms, is_over: false });
    }

    /// Ends the waits whose time has come. Returns whether there were any.
    pub fn lapse(&mut self, now_ms: u64) -> bool {
        let mut has_ended = false;
        for wait in self.waits.values_mut().filter(|wait| !wait.is_over && wait.until_ms <= now_ms) {
            wait.is_over = true;
            has_ended = true;
        }
        has_ended
    }

    /// Those left out now.
    pub fn left_out(&self) -> impl Iterator<Item = BackendId> + '_ {
        self.waits.iter().filter(|(_, wait)| !wait.is_over).map(|(backend, _)| *backend)
    }

    /// Its health has changed: whatever was known of it is no more.
    pub fn forget(&mut self, backend: BackendId) {
        self.waits.remove(&backend);
    }

    /// A whole inventory has listed those of which `has_listed` says so: their next failure is a first one.
    pub fn handle_inventory(&mut self, has_listed: impl Fn(BackendId) -> bool) {
        self.waits.retain(|backend, wait| !wait.is_over || !has_listed(*backend));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: BackendId = BackendId([1; 16]);

    fn left_out(distrust: &Distrust) -> Vec<BackendId> {
        distrust.left_out().collect()
    }

    #[test]
    fn each_failure_in_a_row_is_waited_for_twice_as_long_and_told_once() {
        let mut distrust = Distrust::default();
        let mut now_ms = 0;
        let mut waits = Vec::new();
        for _ in 0..9 {
            distrust.begin(B, now_ms);
            assert_eq!(left_out(&distrust), [B]);
            let begun_ms = now_ms;
            while !distrust.lapse(now_ms) {
                assert_eq!(left_out(&distrust), [B]);
                now_ms += 1_000;
            }
            assert!(!distrust.lapse(now_ms), "told once");
            assert_eq!(left_out(&distrust), []);
            waits.push((now_ms - begun_ms) / 1_000);
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        distrust.handle_inventory(|_| true);
        distrust.begin(B, now_ms);
        assert!(distrust.lapse(now_ms + FIRST_MS), "it was listed in between");
    }

    #[test]
    fn an_inventory_without_it_changes_nothing_and_its_health_everything() {
        let mut distrust = Distrust::default();
        distrust.begin(B, 0);
        distrust.handle_inventory(|_| true);
        assert_eq!(left_out(&distrust), [B]);
        assert!(distrust.lapse(FIRST_MS));
        distrust.handle_inventory(|_| false);
        distrust.begin(B, FIRST_MS);
        assert!(!distrust.lapse(2 * FIRST_MS));
        distrust.forget(B);
        assert!(!distrust.lapse(u64::MAX));
        assert_eq!(left_out(&distrust), []);
    }
}
