//! What a planned layout costs, in the words of the administration API: bytes by the links they cross, time, fill, and the
//! promise at each step.

use holdfast_placement::{LayoutPlan, PlacementError, Topology, summarize_moves};
use holdfast_proto::layout_admin::{MoveRate, MoveView, StepView};
use holdfast_proto::pg_table::PgTable;

/// Moves run at least this fast on machines of today unless they are held back: one disk's worth.
const ASSUMED_BYTES_PER_SECOND: u64 = 100 << 20;
/// Begins what a plan's name is taken from, so that it is the hash of nothing else.
const NAME_CONTEXT: &[u8] = b"holdfast layout plan 1\n";
/// Hexadecimal digits of a plan's name after the epoch: enough that two plans of one epoch do not share them.
const NAME_DIGITS: usize = 8;

/// What is known of how fast shards move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// As measured over the last seconds; 0 if nothing moved.
    pub measured_bytes_per_second: u64,
    /// What the settings allow; 0 for no limit.
    pub bytes_per_second_max: u64,
}

impl Pace {
    fn rate(self) -> (u64, MoveRate) {
        match (self.measured_bytes_per_second, self.bytes_per_second_max) {
            (0, 0) => (ASSUMED_BYTES_PER_SECOND, MoveRate::Assumed),
            (0, limit) => (limit, MoveRate::Limit),
            (measured, _) => (measured, MoveRate::Measured),
        }
    }
}

/// What it takes to get from `before` to the plan made from it. `shard_bytes`: what one slot of each PG holds, by the last
/// inventory; empty before the first.
///
/// # Errors
/// A table that is damaged or of another scheme.
pub fn move_view(
    before: &PgTable,
    plan: &LayoutPlan,
    topology: &Topology,
    shard_bytes: &[u64],
    pace: Pace,
) -> Result<MoveView, PlacementError> {
    let summary = summarize_moves(before, plan, topology, shard_bytes)?;
    let links = [summary.same_node, summary.same_zone, summary.same_region, summary.wan, summary.rebuilt];
    let bytes = links.iter().map(|link| link.bytes).fold(0, u64::saturating_add);
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let (bytes_per_second, rate) = pace.rate();
    let steps = summary.scenarios.into_iter().map(|steps| StepView {
        scenario: steps.scenario.to_string(),
        before: steps.before,
        during: steps.during,
        after: steps.after,
    });
    Ok(MoveView {
        plan: plan_name(plan),
        epoch: plan.base,
        promise: plan.proof.promise.to_string(),
        slots: count(summary.slots),
        least_slots: count(summary.least_slots),
        bytes,
        is_counted: !shard_bytes.is_empty(),
        bytes_within_nodes: summary.same_node.bytes,
        bytes_between_nodes: summary.same_zone.bytes,
        bytes_between_zones: summary.same_region.bytes,
        bytes_between_regions: summary.wan.bytes,
        bytes_rebuilt: summary.rebuilt.bytes,
        slots_without_place: count(summary.unhoused),
        worst_fill_before: summary.worst_fill_before,
        worst_fill_after: summary.worst_fill_after,
        bytes_per_second,
        rate,
        seconds: bytes.div_ceil(bytes_per_second.max(1)),
        scenarios: steps.collect(),
    })
}

/// A plan's name: the epoch it was made from, and a hash of what it would put in place. Whoever plans the same again gets
/// the same name.
pub fn plan_name(plan: &LayoutPlan) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(NAME_CONTEXT);
    hasher.update(plan.proof.promise.to_string().as_bytes());
    hasher.update(b"\n");
    for id in plan.table.pgs.iter().flat_map(|pg| &pg.target) {
        hasher.update(&id.0);
    }
    let hash = hasher.finalize().to_hex();
    format!("{}-{}", plan.base, &hash[..NAME_DIGITS])
}

#[cfg(test)]
mod tests {
    use super::super::model::{PG_COUNT, backend, map_of, node};
    use super::*;
    use crate::repair::topology;
    use holdfast_placement::plan_layout;

    #[test]
    fn a_node_more_and_its_cost() {
        let mut map = map_of(3, 2, "3+3");
        let before = map.clone();
        map.nodes.push(node(4));
        map.backends.extend([backend(7, 4), backend(8, 4)]);
        let topology = topology(&map, &[]).unwrap();
        let plan = plan_layout(&map.table, &map.promise, &topology).unwrap();
        let shard_bytes = vec![1 << 20; PG_COUNT as usize];
        let pace = Pace { measured_bytes_per_second: 0, bytes_per_second_max: 4 << 20 };
        let view = move_view(&map.table, &plan, &topology, &shard_bytes, pace).unwrap();
        // A quarter of 6 x 32 slots is the new node's.
        assert_eq!((view.slots, view.least_slots, view.bytes), (48, 48, 48 << 20));
        assert_eq!(view.bytes_between_zones, view.bytes, "every node is a zone of the one region");
        assert_eq!((view.seconds, view.rate), (12, MoveRate::Limit));
        assert!(view.worst_fill_before > 1.3 && view.worst_fill_after <= 1.02, "{view:?}");
        assert!(view.scenarios.iter().all(|step| step.before && step.during && step.after), "{view:?}");
        assert_eq!(view.slots_without_place, 0);

        let again = plan_layout(&map.table, &map.promise, &topology).unwrap();
        assert_eq!(plan_name(&again), view.plan, "the same plan has the same name");
        assert!(view.plan.starts_with(&format!("{}-", before.table.epoch)), "{}", view.plan);
        let other = topology.with(|place| place.weight_bytes = if place.node == "n4" { 2 } else { 1 });
        let other = plan_layout(&map.table, &map.promise, &other).unwrap();
        assert_ne!(plan_name(&other), view.plan);
        let uncounted = move_view(&map.table, &plan, &topology, &[], pace).unwrap();
        assert_eq!((uncounted.bytes, uncounted.is_counted, view.is_counted), (0, false, true));
    }

    #[test]
    fn a_pace_is_what_is_known() {
        let pace = |measured_bytes_per_second, bytes_per_second_max| {
            Pace { measured_bytes_per_second, bytes_per_second_max }.rate()
        };
        assert_eq!(pace(0, 0), (ASSUMED_BYTES_PER_SECOND, MoveRate::Assumed));
        assert_eq!(pace(0, 7), (7, MoveRate::Limit));
        assert_eq!(pace(5, 7), (5, MoveRate::Measured));
    }
}
