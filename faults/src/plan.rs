//! What one node is to do wrong: all rules that stand there, brought together by link and by backend.

use crate::kind::FaultKind;
use holdfast_proto::NodeId;
use holdfast_proto::faults::FaultRule;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Of the calls to one node; chances from 0 (never) to 1 (always).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkPlan {
    /// A call fails at once.
    pub error: f64,
    /// A call is never answered.
    pub dropped: f64,
    /// Nothing gets through, in calls that were begun either.
    pub is_cut: bool,
    /// A call waits for `delay`.
    pub delayed: f64,
    /// How long.
    pub delay: Duration,
    /// Bytes a second; `None` for no bound.
    pub bytes_per_second: Option<u64>,
    /// Of the dice.
    pub seed: u64,
}

/// Of one backend; chances from 0 (never) to 1 (always).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DiskPlan {
    /// A read, listing or look-up answers an IO error.
    pub read_error: f64,
    /// Taking cells answers an IO error.
    pub write_error: f64,
    /// `finish` answers an IO error, and from then on the backend is read-only, as a disk is after a failed sync.
    pub sync_error: f64,
    /// A bit of a cell is flipped on its way to the disk, for good.
    pub flip_written: f64,
    /// A cell comes back damaged, this time.
    pub flip_read: f64,
    /// `begin` answers that there is no room.
    pub full: f64,
    /// A call is held up by `delay`.
    pub delayed: f64,
    /// How long.
    pub delay: Duration,
    /// Its directory is gone: nothing works.
    pub missing: bool,
}

/// Of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodePlan {
    /// By called node.
    pub links: BTreeMap<NodeId, LinkPlan>,
    /// Rules about its backends: the names or ids they apply to (none: all), what, and the seed.
    disks: Vec<(BTreeSet<String>, DiskPlan, u64)>,
    /// How far its clock is wrong.
    pub clock_ms: i64,
}

impl NodePlan {
    /// Brings together the rules that `own` is to carry out. Rules of kinds that this build does not know were refused
    /// before; one that comes by is passed over.
    pub fn of(own: NodeId, rules: &[FaultRule]) -> Self {
        let mut plan = Self::default();
        for rule in rules.iter().filter(|rule| rule.at.contains(&own.0)) {
            let Ok(kind) = rule.kind.parse::<FaultKind>() else { continue };
            plan.add(own, kind, rule);
        }
        plan
    }

    fn add(&mut self, own: NodeId, kind: FaultKind, rule: &FaultRule) {
        let chance = f64::from(rule.per_million) / 1_000_000.0;
        let time = Duration::from_millis(rule.amount.unsigned_abs());
        // Two nodes with one rule must not fail in step.
        let seed = rule.seed ^ own.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let link = |change: &dyn Fn(&mut LinkPlan), plan: &mut Self| {
            for &to in rule.to.iter().filter(|to| **to != own.0) {
                let link = plan.links.entry(NodeId(to)).or_default();
                link.seed ^= seed;
                change(link);
            }
        };
        let disk = DiskPlan::default();
        let disk = match kind {
            FaultKind::Delay => {
                return link(&|l| delay(&mut l.delayed, &mut l.delay, chance, time), self);
            }
            FaultKind::Error => return link(&|l| l.error = either(l.error, chance), self),
            FaultKind::Drop => return link(&|l| l.dropped = either(l.dropped, chance), self),
            FaultKind::Partition => return link(&|l| l.is_cut = true, self),
            FaultKind::Bandwidth => {
                let rate = rule.amount.unsigned_abs();
                let narrower = |l: &mut LinkPlan| {
                    l.bytes_per_second = Some(l.bytes_per_second.map_or(rate, |before| before.min(rate)));
                };
                return link(&narrower, self);
            }
            FaultKind::ClockJump => {
                self.clock_ms = self.clock_ms.saturating_add(rule.amount);
                return;
            }
            FaultKind::DiskDelay => DiskPlan { delayed: chance, delay: time, ..disk },
            FaultKind::DiskError => DiskPlan { read_error: chance, write_error: chance, ..disk },
            FaultKind::DiskFull => DiskPlan { full: chance, ..disk },
            FaultKind::BitFlip => DiskPlan { flip_written: chance, ..disk },
            FaultKind::FsyncError => DiskPlan { sync_error: chance, ..disk },
        };
        self.disks.push((rule.backends.iter().cloned().collect(), disk, seed));
    }

    /// What a backend, known by its name and its id, is to do wrong, and the seed of its dice.
    pub fn disk(&self, name: &str, id: &str) -> (DiskPlan, u64) {
        let concerns = |names: &BTreeSet<String>| names.is_empty() || names.contains(name) || names.contains(id);
        let concerning = self.disks.iter().filter(|(names, _, _)| concerns(names));
        concerning.fold((DiskPlan::default(), 0), |(plan, seed), (_, other, other_seed)| {
            (plan.with(other), seed ^ other_seed)
        })
    }

    /// Whether nothing is to go wrong here.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.disks.is_empty() && self.clock_ms == 0
    }
}

impl DiskPlan {
    /// Both, each by its own chance.
    fn with(mut self, other: &Self) -> Self {
        delay(&mut self.delayed, &mut self.delay, other.delayed, other.delay);
        Self {
            read_error: either(self.read_error, other.read_error),
            write_error: either(self.write_error, other.write_error),
            sync_error: either(self.sync_error, other.sync_error),
            flip_written: either(self.flip_written, other.flip_written),
            flip_read: either(self.flip_read, other.flip_read),
            full: either(self.full, other.full),
            missing: self.missing || other.missing,
            ..self
        }
    }
}

/// The chance that at least one of two happens.
fn either(one: f64, other: f64) -> f64 {
    1.0 - (1.0 - one) * (1.0 - other)
}

/// Of two delays the longer, as often as either.
fn delay(chance: &mut f64, time: &mut Duration, other_chance: f64, other_time: Duration) {
    *chance = either(*chance, other_chance);
    *time = (*time).max(other_time);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(kind: FaultKind, at: &[u64], to: &[u64], percent: u32, amount: i64) -> FaultRule {
        FaultRule {
            id: "1".to_owned(),
            kind: kind.name().to_owned(),
            at: at.to_vec(),
            to: to.to_vec(),
            per_million: percent * 10_000,
            seed: 9,
            amount,
            ..FaultRule::default()
        }
    }

    #[test]
    fn a_rule_is_carried_out_where_it_says_and_towards_whom_it_says() {
        let rules = [
            rule(FaultKind::Partition, &[1], &[2, 3], 100, 0),
            rule(FaultKind::Delay, &[1, 2], &[1, 2, 3], 50, 20),
            rule(FaultKind::Bandwidth, &[2], &[3], 100, 4_096),
            rule(FaultKind::Bandwidth, &[2], &[3], 100, 2_048),
            rule(FaultKind::ClockJump, &[3], &[], 100, -5_000),
            FaultRule { kind: "of a later version".to_owned(), ..rule(FaultKind::Drop, &[1], &[2], 100, 0) },
        ];
        let one = NodePlan::of(NodeId(1), &rules);
        assert_eq!(one.links.keys().map(|node| node.0).collect::<Vec<_>>(), [2, 3], "no link to itself");
        assert!(one.links[&NodeId(2)].is_cut);
        assert_eq!((one.links[&NodeId(2)].delayed, one.links[&NodeId(2)].delay), (0.5, Duration::from_millis(20)));
        assert_eq!(one.links[&NodeId(2)].dropped, 0.0);
        let two = NodePlan::of(NodeId(2), &rules);
        assert!(!two.links[&NodeId(1)].is_cut, "one way");
        assert_eq!(two.links[&NodeId(3)].bytes_per_second, Some(2_048), "the narrower of two");
        assert_ne!(one.links[&NodeId(3)].seed, two.links[&NodeId(3)].seed);
        let three = NodePlan::of(NodeId(3), &rules);
        assert!(three.links.is_empty());
        assert_eq!(three.clock_ms, -5_000);
        assert!(NodePlan::of(NodeId(4), &rules).is_empty());
        assert!(!three.is_empty());
    }

    #[test]
    fn disk_faults_come_together_by_backend() {
        let named = |kind, names: &[&str], percent| FaultRule {
            backends: names.iter().map(|name| (*name).to_owned()).collect(),
            ..rule(kind, &[1], &[], percent, 0)
        };
        let rules = [
            named(FaultKind::DiskError, &[], 50),
            named(FaultKind::DiskError, &["d1"], 50),
            named(FaultKind::DiskFull, &["00ff"], 100),
            named(FaultKind::FsyncError, &["d9"], 100),
        ];
        let plan = NodePlan::of(NodeId(1), &rules);
        let (d1, _) = plan.disk("d1", "00aa");
        assert_eq!((d1.read_error, d1.write_error, d1.full), (0.75, 0.75, 0.0));
        let (d2, _) = plan.disk("d2", "00ff");
        assert_eq!((d2.read_error, d2.full, d2.sync_error), (0.5, 1.0, 0.0));
        assert_eq!(NodePlan::default().disk("d1", "00aa"), (DiskPlan::default(), 0));
    }
}
