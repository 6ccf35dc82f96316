//! When a certificate is to be renewed, and when to warn that it will end. A state machine: time and seed come in.
//!
//! Who calls it: the shell asks `poll` for what is due, carries it out, tells it how that went (`renewed`, `failed`), and
//! sleeps until `next_ms`. Between events it is in one of two states: waiting for the renewal's moment, or for the next
//! try after a failure.

use crate::{CLOCK_SLACK_MS, DAY_MS, Validity};

/// Days before an end at which it is warned of, once each.
const WARNING_DAYS: [u64; 3] = [30, 7, 1];
/// Renewals begin within this part of a certificate's life before its last third, so that nodes that joined together do
/// not ask together: four days of ninety.
const JITTER_PARTS: u64 = 22;
/// First wait after a failed renewal; doubled with each further one.
const RETRY_MS: u64 = 60_000;
/// Longest wait between tries: a month has at least 120 of them.
const RETRY_MS_MAX: u64 = 6 * 3_600_000;

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expiring {
    /// This node's certificate: it cannot be renewed, or it would have been.
    NodeCertificate,
    /// A root: the operator must exchange the CA.
    Authority,
}

/// Something ends soon, or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What.
    pub what: Expiring,
    /// Whole days left, rounded down; 0 on the last day and afterwards.
    pub days_left: u64,
    /// Its last moment.
    pub expires_ms: u64,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalAction {
    /// Ask for a new certificate now.
    Renew,
    /// Tell the operator.
    Warn(Warning),
}

/// An end, and how many of its warnings were given.
#[derive(Clone, Copy, Debug)]
struct Ending {
    what: Expiring,
    end_ms: u64,
    warned: usize,
}

impl Ending {
    /// When its next warning is due.
    fn warn_ms(&self) -> Option<u64> {
        let days = WARNING_DAYS.get(self.warned)?;
        Some(self.end_ms.saturating_sub(days * DAY_MS))
    }

    /// The warning that is due, if any; those it overtakes are not given any more.
    fn poll(&mut self, now_ms: u64) -> Option<Warning> {
        let mut is_due = false;
        while self.warn_ms().is_some_and(|at| now_ms >= at) {
            self.warned += 1;
            is_due = true;
        }
        let days_left = self.end_ms.saturating_sub(now_ms) / DAY_MS;
        is_due.then_some(Warning { what: self.what, days_left, expires_ms: self.end_ms })
    }
}

/// The renewals of one node's certificate.
#[derive(Clone, Debug)]
pub struct RenewalSchedule {
    seed: u64,
    renew_ms: u64,
    failures: u32,
    node: Ending,
    authority: Ending,
}

impl RenewalSchedule {
    /// For a certificate and the root that ends first. The seed spreads the renewals of different nodes.
    pub fn new(certificate: Validity, roots_end_ms: u64, seed: u64) -> Self {
        let node = Ending { what: Expiring::NodeCertificate, end_ms: certificate.not_after_ms, warned: 0 };
        let authority = Ending { what: Expiring::Authority, end_ms: roots_end_ms, warned: 0 };
        let renew_ms = renewal_ms(certificate, seed);
        Self { seed, renew_ms, failures: 0, node, authority }
    }

    /// What is due now; call again until it gives `None`. `Renew` is given until `renewed` or `failed` is called.
    pub fn poll(&mut self, now_ms: u64) -> Option<RenewalAction> {
        let warning = self.node.poll(now_ms).or_else(|| self.authority.poll(now_ms));
        match warning {
            Some(warning) => Some(RenewalAction::Warn(warning)),
            None => (now_ms >= self.renew_ms).then_some(RenewalAction::Renew),
        }
    }

    /// When something will be due next.
    pub fn next_ms(&self) -> u64 {
        [self.node.warn_ms(), self.authority.warn_ms()].into_iter().flatten().fold(self.renew_ms, u64::min)
    }

    /// A new certificate is in use. Warnings about a root that is still the same are not given again.
    pub fn renewed(&mut self, certificate: Validity, roots_end_ms: u64) {
        let warned = if roots_end_ms == self.authority.end_ms { self.authority.warned } else { 0 };
        *self = Self::new(certificate, roots_end_ms, self.seed);
        self.authority.warned = warned;
    }

    /// The renewal failed: the next try comes after a minute, then two, four, ... at most six hours.
    pub fn failed(&mut self, now_ms: u64) {
        let doubled = RETRY_MS.saturating_mul(1 << self.failures.min(16)).min(RETRY_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        // Up to an eighth later, differently each time.
        let late = scatter(self.seed ^ u64::from(self.failures)) % (doubled / 8);
        self.renew_ms = now_ms.saturating_add(doubled).saturating_add(late);
    }
}

/// Two thirds of the certificate's life, less the node's own jitter; but not within a minute of when it was made: towards
/// the end of its CA certificates are short, and renewing them must not become a storm.
fn renewal_ms(certificate: Validity, seed: u64) -> u64 {
    let life = certificate.not_after_ms.saturating_sub(certificate.not_before_ms);
    let jitter = scatter(seed) % (life / JITTER_PARTS).max(1);
    let earliest = certificate.not_before_ms.saturating_add(CLOCK_SLACK_MS + RETRY_MS);
    certificate.not_before_ms.saturating_add(life / 3 * 2).saturating_sub(jitter).max(earliest)
}

/// Spreads seeds that lie side by side (node numbers) over all numbers: the finalizer of SplitMix64.
fn scatter(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AUTHORITY_DAYS, NODE_DAYS};
    use std::collections::BTreeSet;

    const START: u64 = 1_795_000_000_000;
    const LIFE: Validity = Validity { not_before_ms: START, not_after_ms: START + NODE_DAYS * DAY_MS };
    const ROOT_END: u64 = START + AUTHORITY_DAYS * DAY_MS;

    #[test]
    fn renewals_come_at_two_thirds_and_not_all_at_once() {
        let mut moments = BTreeSet::new();
        for seed in 0..1000 {
            let schedule = RenewalSchedule::new(LIFE, ROOT_END, seed);
            let at = schedule.next_ms();
            assert!(at <= START + 60 * DAY_MS, "seed {seed}");
            assert!(at > START + 55 * DAY_MS, "seed {seed}");
            moments.insert(at / 3_600_000);
        }
        assert!(moments.len() > 80, "1000 nodes renew in {} different hours", moments.len());
    }

    #[test]
    fn a_year_of_renewals_needs_no_warning() {
        let mut schedule = RenewalSchedule::new(LIFE, ROOT_END, 7);
        let mut renewals = 0;
        let mut now = START;
        while now < START + 365 * DAY_MS {
            now = schedule.next_ms();
            assert_eq!(schedule.poll(now - 1), None);
            assert_eq!(schedule.poll(now), Some(RenewalAction::Renew));
            schedule.renewed(Validity { not_before_ms: now, not_after_ms: now + NODE_DAYS * DAY_MS }, ROOT_END);
            assert_eq!(schedule.poll(now), None);
            renewals += 1;
        }
        assert!((6..=8).contains(&renewals), "{renewals}");
    }

    #[test]
    fn failures_back_off_and_each_warning_comes_once() {
        let mut schedule = RenewalSchedule::new(LIFE, ROOT_END, 3);
        let (mut now, mut tries, mut waits) = (START, Vec::new(), Vec::new());
        let mut warned = Vec::new();
        while now < LIFE.not_after_ms + 10 * DAY_MS {
            match schedule.poll(now) {
                Some(RenewalAction::Renew) => {
                    tries.push(now);
                    schedule.failed(now);
                    waits.push(schedule.renew_ms - now);
                }
                Some(RenewalAction::Warn(warning)) => warned.push((warning.what, warning.days_left)),
                None => now = schedule.next_ms(),
            }
        }
        let node = Expiring::NodeCertificate;
        assert_eq!(warned, [(node, 30), (node, 7), (node, 1)]);
        assert!((RETRY_MS..=RETRY_MS * 9 / 8).contains(&waits[0]), "{}", waits[0]);
        assert!(waits.iter().all(|&wait| wait <= RETRY_MS_MAX * 9 / 8));
        assert!(tries.len() > 120, "{} tries", tries.len());
        assert!(tries.len() < 220, "{} tries", tries.len());
    }

    #[test]
    fn short_certificates_at_the_end_of_a_root_do_not_storm() {
        let root_end = START + DAY_MS;
        let (mut now, mut renewals) = (START, 0);
        let mut schedule = RenewalSchedule::new(Validity { not_before_ms: START, not_after_ms: root_end }, root_end, 1);
        while now < root_end {
            match schedule.poll(now) {
                Some(RenewalAction::Renew) => {
                    renewals += 1;
                    let not_before_ms = now - CLOCK_SLACK_MS;
                    schedule.renewed(Validity { not_before_ms, not_after_ms: root_end }, root_end);
                }
                Some(RenewalAction::Warn(_)) => {}
                None => now = schedule.next_ms(),
            }
        }
        assert!(renewals < 40, "{renewals}");
    }

    #[test]
    fn a_node_that_slept_hears_one_warning_and_a_root_warns_too() {
        let mut schedule = RenewalSchedule::new(LIFE, START + 80 * DAY_MS, 3);
        let now = LIFE.not_after_ms - 3 * 3_600_000;
        let node = Warning { what: Expiring::NodeCertificate, days_left: 0, expires_ms: LIFE.not_after_ms };
        assert_eq!(schedule.poll(now), Some(RenewalAction::Warn(node)));
        let root = Warning { what: Expiring::Authority, days_left: 0, expires_ms: START + 80 * DAY_MS };
        assert_eq!(schedule.poll(now), Some(RenewalAction::Warn(root)));
        assert_eq!(schedule.poll(now), Some(RenewalAction::Renew));
        schedule.renewed(Validity { not_before_ms: now, not_after_ms: now + NODE_DAYS * DAY_MS }, START + 80 * DAY_MS);
        assert_eq!(schedule.poll(now), None, "the same root is not warned of again");
        schedule.renewed(Validity { not_before_ms: now, not_after_ms: now + NODE_DAYS * DAY_MS }, now + DAY_MS / 2);
        assert!(matches!(schedule.poll(now), Some(RenewalAction::Warn(_))), "another root is");
    }
}
