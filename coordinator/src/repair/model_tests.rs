//! Properties of the planner against a model of a store: whatever is lost, carrying out plans converges to full margin
//! and never takes a segment below what it had.

use super::plan::{Holding, Reach, SegmentPlan, plan_segment};
use super::segment_shape::{SegmentShape, samples::record};
use holdfast_proto::node::BackendHealth;
use holdfast_proto::pg_table::Pg;
use holdfast_proto::{BackendId, SegmentId, Slot};
use proptest::prelude::*;
use std::collections::BTreeSet;

const BACKENDS: u8 = 9;

fn b(n: u8) -> BackendId {
    BackendId([n; 16])
}

/// Copies of one segment: (slot, backend, good).
type Copies = BTreeSet<(u8, u8, bool)>;

fn holdings(copies: &Copies, reach: &Reach) -> Vec<Holding> {
    let seen = copies.iter().filter(|(_, backend, _)| reach.can_read(b(*backend)));
    seen.map(|&(slot, backend, is_good)| Holding { slot: Slot(slot), backend: b(backend), is_good }).collect()
}

fn good_slots(copies: &Copies) -> BTreeSet<u8> {
    copies.iter().filter(|(_, _, good)| *good).map(|(slot, _, _)| *slot).collect()
}

/// Carries a plan out on the model: a rebuild needs k slots readable somewhere the plan saw.
fn execute(copies: &mut Copies, plan: &SegmentPlan, reach: &Reach) {
    for copy in &plan.copies {
        assert!(copies.contains(&(copy.slot.0, copy.from.0[0], true)), "copies from where nothing good is");
        copies.retain(|(slot, backend, _)| (*slot, *backend) != (copy.slot.0, copy.to.0[0]));
        copies.insert((copy.slot.0, copy.to.0[0], true));
    }
    for (slot, to) in &plan.rebuilds {
        let readable: BTreeSet<u8> = holdings(copies, reach).iter().filter(|h| h.is_good).map(|h| h.slot.0).collect();
        assert!(readable.len() >= 4, "a rebuild that cannot succeed was planned");
        copies.retain(|(s, backend, _)| (*s, *backend) != (slot.0, to.0[0]));
        copies.insert((slot.0, to.0[0], true));
    }
    for (slot, from) in &plan.deletes {
        copies.retain(|(s, backend, _)| (*s, *backend) != (slot.0, from.0[0]));
    }
}

fn rows() -> impl Strategy<Value = Vec<u8>> {
    Just((1..=BACKENDS).collect::<Vec<u8>>()).prop_shuffle().prop_map(|v| v[..6].to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn plans_converge_and_never_free_the_last_good_copy(
        committed in rows(),
        target in rows(),
        lost_slots in proptest::collection::btree_set(0u8..6, 0..3),
        extra in proptest::collection::vec((0u8..6, 1..=BACKENDS, any::<bool>()), 0..6),
        down in proptest::collection::btree_set(1..=BACKENDS, 0..4),
    ) {
        let shape = SegmentShape::read(&record(SegmentId([1; 16]), 0, 1)).unwrap();
        let pg = Pg { committed: committed.iter().map(|n| b(*n)).collect(), target: target.iter().map(|n| b(*n)).collect() };
        let mut copies: Copies = (0u8..6).filter(|s| !lost_slots.contains(s)).map(|s| (s, committed[usize::from(s)], true)).collect();
        for (slot, backend, good) in extra {
            if !copies.contains(&(slot, backend, true)) && !copies.contains(&(slot, backend, false)) {
                copies.insert((slot, backend, good));
            }
        }
        let health = |n: u8| if down.contains(&n) { BackendHealth::Missing } else { BackendHealth::Online };
        // While some backends are away: nothing that is there is made worse.
        let reach = Reach::new((1..=BACKENDS).map(|n| (b(n), health(n))));
        for _ in 0..3 {
            let before = good_slots(&copies);
            let plan = plan_segment(&shape, &pg, &holdings(&copies, &reach), &reach);
            prop_assert!(plan.copies.iter().map(|c| c.to).chain(plan.rebuilds.iter().map(|r| r.1)).all(|t| reach.can_write(t)));
            execute(&mut copies, &plan, &reach);
            prop_assert!(good_slots(&copies).is_superset(&before), "a slot's last good copy was freed");
        }
        // All back: converges to every shard at its target and, once committed, nowhere else.
        let all = Reach::new((1..=BACKENDS).map(|n| (b(n), BackendHealth::Online)));
        for _ in 0..2 {
            let plan = plan_segment(&shape, &pg, &holdings(&copies, &all), &all);
            execute(&mut copies, &plan, &all);
        }
        let settled = plan_segment(&shape, &pg, &holdings(&copies, &all), &all);
        prop_assert!(settled.is_settled());
        prop_assert_eq!(settled.margin, 2);
        let committed_pg = Pg { committed: pg.target.clone(), target: pg.target.clone() };
        let plan = plan_segment(&shape, &committed_pg, &holdings(&copies, &all), &all);
        execute(&mut copies, &plan, &all);
        let expected: Copies = (0u8..6).map(|s| (s, target[usize::from(s)], true)).collect();
        prop_assert_eq!(copies, expected);
    }
}
