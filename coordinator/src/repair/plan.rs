//! The plan for one segment: from its record, its placement group, the copies seen and the backends' health to the
//! shards that must be copied, rebuilt or freed.
//!
//! Not here: taking the inventory, ordering segments, doing any of it.
//!
//! **Invariants:** a shard is freed only where the table does not want it, and only if a good copy of it was seen at its
//! target; nothing is written to a backend that does not take writes; a slot is written at most once.

use super::segment_shape::SegmentShape;
use super::survival::margin;
use holdfast_codec::SlotSet;
use holdfast_proto::node::BackendHealth;
use holdfast_proto::pg_table::Pg;
use holdfast_proto::{BackendId, Slot};
use std::collections::BTreeMap;

/// A copy of a shard as an inventory saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    /// Which slot's shard.
    pub slot: Slot,
    /// Where.
    pub backend: BackendId,
    /// Whether it is the shard the manifest means: its root matches and nothing is known against it.
    pub is_good: bool,
}

/// Which backends answer. One that is not in it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    health: BTreeMap<BackendId, BackendHealth>,
}

impl Reach {
    /// From what a node reports.
    pub fn new(health: impl IntoIterator<Item = (BackendId, BackendHealth)>) -> Self {
        Self { health: health.into_iter().collect() }
    }

    /// Whether its shards can be read.
    pub fn can_read(&self, backend: BackendId) -> bool {
        self.health.get(&backend).is_some_and(|h| h.can_read())
    }

    /// Whether it takes shards.
    pub fn can_write(&self, backend: BackendId) -> bool {
        self.health.get(&backend).is_some_and(|h| h.can_write())
    }

    /// Counts a backend as one that does not answer.
    pub fn distrust(&mut self, backend: BackendId) {
        self.health.insert(backend, BackendHealth::Failed);
    }

    /// Backends whose shards can be read, in id order.
    pub fn readable(&self) -> impl Iterator<Item = BackendId> + '_ {
        self.health.iter().filter(|(_, h)| h.can_read()).map(|(id, _)| *id)
    }
}

/// A shard to be copied as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyShard {
    /// Which slot's shard.
    pub slot: Slot,
    /// A good copy.
    pub from: BackendId,
    /// Its target.
    pub to: BackendId,
}

/// What is to be done for one segment, and how it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentPlan {
    /// Shards it can still lose and be read; negative: so many are short.
    pub margin: i32,
    /// Slots with a good copy at their target, one bit a slot.
    pub at_target: u64,
    /// Shards to copy.
    pub copies: Vec<CopyShard>,
    /// Shards to decode from the others and write.
    pub rebuilds: Vec<(Slot, BackendId)>,
    /// Shards to free: superseded copies where the table no longer wants them.
    pub deletes: Vec<(Slot, BackendId)>,
    /// Shards missing at a target that takes no writes now.
    pub blocked: Vec<(Slot, BackendId)>,
    /// Shards that cannot be rebuilt: those within reach do not decode.
    pub unreadable: Vec<(Slot, BackendId)>,
}

impl SegmentPlan {
    /// Shards it writes.
    pub fn shards_to_write(&self) -> u64 {
        u64::try_from(self.copies.len() + self.rebuilds.len()).unwrap_or(u64::MAX)
    }

    /// Whether there is anything to write now.
    pub fn has_work(&self) -> bool {
        !self.copies.is_empty() || !self.rebuilds.is_empty()
    }

    /// Whether every shard is at its target.
    pub fn is_settled(&self) -> bool {
        !self.has_work() && self.blocked.is_empty() && self.unreadable.is_empty()
    }
}

/// Plans for one segment. `holdings` are all copies seen on backends that answer; a slot may occur more than once.
pub fn plan_segment(shape: &SegmentShape, pg: &Pg, holdings: &[Holding], reach: &Reach) -> SegmentPlan {
    let mut plan = SegmentPlan::default();
    let (mut readable, mut readable_once_copied) = (SlotSet::new(), SlotSet::new());
    let mut is_stood_in = false;
    for slot in shape.slots() {
        let index = usize::from(slot.0);
        let (target, committed) = (pg.target.get(index).copied(), pg.committed.get(index).copied());
        let is_good_at = |backend: Option<BackendId>| {
            backend.is_some_and(|b| holdings.iter().any(|h| h.slot == slot && h.backend == b && h.is_good))
        };
        let at_target = is_good_at(target);
        let is_taken_in = !at_target && !is_good_at(committed) && is_good_at(shape.stand_in(slot));
        is_stood_in |= is_taken_in;
        if at_target || is_good_at(committed) || is_taken_in {
            readable.insert(index);
            readable_once_copied.insert(index);
        }
        let Some(target) = target else { continue };
        if at_target {
            plan.at_target |= 1 << index;
            let stray =
                holdings.iter().filter(|h| h.slot == slot && ![Some(target), committed].contains(&Some(h.backend)));
            plan.deletes.extend(stray.map(|h| (slot, h.backend)));
        } else if !reach.can_write(target) {
            plan.blocked.push((slot, target));
        } else if let Some(from) = best_copy(slot, committed, holdings) {
            plan.copies.push(CopyShard { slot, from, to: target });
            readable_once_copied.insert(index);
        } else {
            plan.rebuilds.push((slot, target));
        }
    }
    plan.margin = margin(shape.scheme, &readable);
    if is_stood_in {
        // Who stands in may share a zone or node with the others: what was promised for whole domains is not proven.
        plan.margin = plan.margin.min(shape.full_margin() - 1);
    }
    if margin(shape.scheme, &readable_once_copied) < 0 {
        plan.unreadable = std::mem::take(&mut plan.rebuilds);
    }
    debug_assert!(plan.deletes.iter().all(|(slot, _)| plan.at_target & (1 << slot.0) != 0), "freed without a copy");
    debug_assert!(plan.copies.iter().all(|c| c.from != c.to), "copied onto itself");
    plan
}

/// The copy to read from: where the table knows it, else wherever it was seen.
fn best_copy(slot: Slot, committed: Option<BackendId>, holdings: &[Holding]) -> Option<BackendId> {
    let mut copies = holdings.iter().filter(|h| h.slot == slot && h.is_good).map(|h| h.backend);
    let first = copies.clone().next();
    copies.find(|b| Some(*b) == committed).or(first)
}

#[cfg(test)]
mod tests {
    use super::super::segment_shape::samples::record;
    use super::*;
    use holdfast_proto::SegmentId;

    fn b(n: u8) -> BackendId {
        BackendId([n; 16])
    }
    fn shape() -> SegmentShape {
        SegmentShape::read(&record(SegmentId([9; 16]), 0, 1)).unwrap()
    }
    fn at(slot: u8, backend: u8) -> Holding {
        Holding { slot: Slot(slot), backend: b(backend), is_good: true }
    }
    fn bad(slot: u8, backend: u8) -> Holding {
        Holding { is_good: false, ..at(slot, backend) }
    }

    /// Slots 0..6 belong on backends 1..=6 (committed); `target` may name others. `health` lists what is not online.
    fn check(target: [u8; 6], holdings: &[Holding], health: &[(u8, BackendHealth)], expected: &str) {
        let pg = Pg { committed: (1..=6).map(b).collect(), target: target.into_iter().map(b).collect() };
        let all = (1..=9).map(|n| {
            let found = health.iter().find(|(id, _)| *id == n).map_or(BackendHealth::Online, |(_, h)| *h);
            (b(n), found)
        });
        let plan = plan_segment(&shape(), &pg, holdings, &Reach::new(all));
        let name = |id: BackendId| id.0[0];
        let mut parts = vec![format!("margin {}", plan.margin)];
        parts.extend(plan.copies.iter().map(|c| format!("copy {} {}->{}", c.slot, name(c.from), name(c.to))));
        parts.extend(plan.rebuilds.iter().map(|(s, t)| format!("rebuild {s}->{}", name(*t))));
        parts.extend(plan.deletes.iter().map(|(s, f)| format!("delete {s}@{}", name(*f))));
        parts.extend(plan.unreadable.iter().map(|(s, t)| format!("unreadable {s}->{}", name(*t))));
        parts.extend(plan.blocked.iter().map(|(s, t)| format!("blocked {s}@{}", name(*t))));
        assert_eq!(parts.join(", "), expected, "target {target:?}, holdings {holdings:?}, health {health:?}");
    }

    const STILL: [u8; 6] = [1, 2, 3, 4, 5, 6];
    const MOVED: [u8; 6] = [7, 2, 3, 4, 5, 6];

    #[test]
    fn one_line_per_case() {
        use BackendHealth::{Missing, ReadOnly};
        let whole = [at(0, 1), at(1, 2), at(2, 3), at(3, 4), at(4, 5), at(5, 6)];
        let tail = &whole[1..];
        check(STILL, &whole, &[], "margin 2");
        check(STILL, tail, &[], "margin 1, rebuild 0->1");
        check(STILL, tail, &[(1, Missing)], "margin 1, blocked 0@1");
        check(STILL, tail, &[(1, ReadOnly)], "margin 1, blocked 0@1");
        check(STILL, &whole[3..], &[], "margin -1, unreadable 0->1, unreadable 1->2, unreadable 2->3");
        check(STILL, &[&[bad(0, 1)], tail].concat(), &[], "margin 1, rebuild 0->1");
        // Stray copies may bring it back above k: copied first, then the rest can be rebuilt.
        let strays = [&[at(0, 9)], &whole[3..]].concat();
        check(STILL, &strays, &[], "margin -1, copy 0 9->1, rebuild 1->2, rebuild 2->3");
        // A move: copy while the old copy is where reads look, free it only once the table has forgotten it.
        check(MOVED, &whole, &[], "margin 2, copy 0 1->7");
        check(MOVED, &whole, &[(7, Missing)], "margin 2, blocked 0@7");
        check(MOVED, &[&[at(0, 7)], &whole[..]].concat(), &[], "margin 2");
        check(MOVED, tail, &[(1, Missing)], "margin 1, rebuild 0->7");
        // A copy outside the table: used as a source if it is the only one, freed if the target has its own.
        check(STILL, &[&[at(0, 9)], tail].concat(), &[], "margin 1, copy 0 9->1");
        check(STILL, &[&[at(0, 9)], &whole[..]].concat(), &[], "margin 2, delete 0@9");
        check(STILL, &[&[bad(0, 9)], tail].concat(), &[], "margin 1, rebuild 0->1");
        check(STILL, &[&[bad(0, 9)], &whole[..]].concat(), &[], "margin 2, delete 0@9");
        check(STILL, &[&[bad(0, 1), at(0, 9)], tail].concat(), &[], "margin 1, copy 0 9->1");
        // Two slots' shards on one backend count by slot.
        check(STILL, &[&[at(1, 1)], &whole[..]].concat(), &[], "margin 2, delete 1@1");
    }

    #[test]
    fn a_shard_that_was_taken_in_counts_but_is_not_where_it_belongs() {
        use holdfast_proto::manifest::StandIn;
        let stood_in = |slots: &[(u8, u8)]| {
            let mut record = record(SegmentId([9; 16]), 0, 1);
            record.stand_ins = slots.iter().map(|(slot, backend)| StandIn::new(Slot(*slot), b(*backend))).collect();
            SegmentShape::read(&record).unwrap()
        };
        let pg = Pg { committed: (1..=6).map(b).collect(), target: (1..=6).map(b).collect() };
        let whole = [at(0, 1), at(1, 2), at(2, 3), at(3, 4), at(4, 5), at(5, 6)];
        let away =
            Reach::new((1..=9).map(|n| (b(n), if n < 3 { BackendHealth::Missing } else { BackendHealth::Online })));
        let back = Reach::new((1..=9).map(|n| (b(n), BackendHealth::Online)));
        let taken_in = [&[at(0, 8), at(1, 9)], &whole[2..]].concat();
        let plan = plan_segment(&stood_in(&[(0, 8), (1, 9)]), &pg, &taken_in, &away);
        assert_eq!((plan.margin, plan.blocked.len(), plan.has_work()), (1, 2, false));
        assert_eq!(plan_segment(&shape(), &pg, &taken_in, &away).margin, 0, "reads find only what the record names");
        let one_more_gone = [&taken_in[..2], &taken_in[3..]].concat();
        assert_eq!(plan_segment(&stood_in(&[(0, 8), (1, 9)]), &pg, &one_more_gone, &away).margin, 1);
        let plan = plan_segment(&stood_in(&[(0, 8), (1, 9)]), &pg, &taken_in, &back);
        let copy = |slot: u8, from, to| CopyShard { slot: Slot(slot), from: b(from), to: b(to) };
        assert_eq!((plan.margin, &plan.copies[..]), (1, &[copy(0, 8, 1), copy(1, 9, 2)][..]));
        let at_home = [&[at(0, 8)], &whole[..]].concat();
        let plan = plan_segment(&stood_in(&[(0, 8), (1, 9)]), &pg, &at_home, &back);
        assert_eq!((plan.margin, &plan.deletes[..]), (2, &[(Slot(0), b(8))][..]));
    }

    #[test]
    fn a_table_row_that_is_too_short_is_no_panic() {
        let pg = Pg { committed: vec![b(1)], target: vec![] };
        let plan = plan_segment(&shape(), &pg, &[at(0, 1), at(5, 1)], &Reach::default());
        assert_eq!(plan.margin, -3);
        assert!(!plan.has_work());
    }
}
