//! What goes on while a node is stopped: reads, writes, and what could be lost besides.
//!
//! Not here: the metadata's voters, whom the map does not know (`admin::quorum`).

use crate::metadata::ClusterMap;
use crate::repair::{Reach, margin_by_health, topology};
use holdfast_codec::Scheme;
use holdfast_placement::{
    Candidate, CandidateRole, Counterexample, Domain, DomainKind, PlacementError, Scenario, StopCheck, StopQuestion,
    safe_to_stop,
};
use holdfast_proto::BackendId;
use holdfast_proto::cluster::NodeRecord;
use holdfast_proto::layout_admin::{ScenarioView, StopVerdict, StopView};
use std::collections::BTreeSet;

/// Judges the layout as it is: backends that do not answer now are as good as stopped.
///
/// # Errors
/// A damaged table, or nodes and backends that contradict each other.
pub fn stop_view(
    map: &ClusterMap,
    candidates: &[Candidate],
    reach: &Reach,
    node: &NodeRecord,
) -> Result<StopView, PlacementError> {
    let of_node: BTreeSet<BackendId> =
        map.backends.iter().filter(|record| record.node == node.id).map(|record| record.id).collect();
    // One without backends stops nothing but itself.
    let domain = Domain { kind: DomainKind::Node, name: node.name.clone() };
    let domains: &[Domain] = if of_node.is_empty() { &[] } else { std::slice::from_ref(&domain) };
    let check = check(map, candidates, reach, domains)?;
    let mut left = reach.clone();
    of_node.iter().for_each(|id| left.distrust(*id));
    let margin = margin_by_health(&map.table, &left).unwrap_or_default();
    Ok(view(map, node, check, margin))
}

/// The promise, scenario by scenario, as the backends are that answer now.
///
/// # Errors
/// As [`stop_view`].
pub fn scenarios_now(
    map: &ClusterMap,
    candidates: &[Candidate],
    reach: &Reach,
) -> Result<Vec<ScenarioView>, PlacementError> {
    Ok(check(map, candidates, reach, &[])?.scenarios.iter().map(scenario_view).collect())
}

fn check(
    map: &ClusterMap,
    candidates: &[Candidate],
    reach: &Reach,
    domains: &[Domain],
) -> Result<StopCheck, PlacementError> {
    let scheme = Scheme::from_code(map.table.scheme)?;
    let answering = topology(map, candidates)?.with(|place| {
        if !reach.can_read(place.id) {
            place.role = CandidateRole::Lost;
        }
    });
    let read_only = map.backends.iter().map(|record| record.id);
    let read_only = read_only.filter(|id| reach.can_read(*id) && !reach.can_write(*id)).collect();
    safe_to_stop(&StopQuestion {
        table: &map.table,
        promise: &map.promise.or_any_backends(scheme.losses_survived()),
        topology: &answering,
        domains,
        read_only: &read_only,
    })
}

fn scenario_view((scenario, broken): &(Scenario, Option<Counterexample>)) -> ScenarioView {
    let why = broken.as_ref().map(ToString::to_string).unwrap_or_default();
    ScenarioView { scenario: scenario.to_string(), holds: broken.is_none(), why }
}

fn view(map: &ClusterMap, node: &NodeRecord, check: StopCheck, margin: i32) -> StopView {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let verdict = match &check {
        check if check.is_safe() => StopVerdict::Safe,
        StopCheck { unreadable_pgs: 0, .. } => StopVerdict::WritesStop,
        _ => StopVerdict::ReadsBreak,
    };
    StopView {
        node: node.id,
        name: node.name.clone(),
        verdict,
        pg_count: count(map.table.pgs.len()),
        unreadable_pgs: count(check.unreadable_pgs),
        unwritable_pgs: count(check.unwritable_pgs),
        survives_besides: if check.unreadable_pgs > 0 { margin.min(-1) } else { margin },
        scenarios: check.scenarios.iter().map(scenario_view).collect(),
        groups_without_quorum: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{b, map_of, reach_without};
    use super::*;

    #[test]
    fn one_line_per_case() {
        let check = |nodes: u64, per_node: u8, scheme: &str, gone: &[u8], expected: (StopVerdict, i32, bool)| {
            let map = map_of(nodes, per_node, scheme);
            let reach = reach_without(&map, &gone.iter().map(|n| b(*n)).collect::<Vec<_>>());
            let candidates: Vec<Candidate> = map
                .backends
                .iter()
                .map(|r| Candidate { id: r.id, weight_bytes: 1, role: CandidateRole::Active })
                .collect();
            let found = stop_view(&map, &candidates, &reach, &map.nodes[0]).unwrap();
            let besides = found.scenarios.iter().all(|scenario| scenario.holds);
            assert_eq!((found.verdict, found.survives_besides, besides), expected, "{nodes} {scheme} {gone:?}");
            assert!(found.scenarios.iter().all(|s| s.holds == s.why.is_empty()));
        };
        // What a stop takes is not there for the promise; 3+3 on three nodes has one backend to spare, 4+2 none.
        check(3, 2, "3+3", &[], (StopVerdict::Safe, 1, false));
        check(3, 2, "4+2", &[], (StopVerdict::WritesStop, 0, false));
        check(3, 2, "3+3", &[3], (StopVerdict::WritesStop, 0, false));
        check(3, 2, "3+3", &[3, 5], (StopVerdict::ReadsBreak, -1, false));
        check(6, 1, "4+2", &[], (StopVerdict::Safe, 1, false));
        // Of its own backends one is away anyway.
        check(3, 2, "3+3", &[1], (StopVerdict::Safe, 1, false));
        check(2, 3, "4+2", &[], (StopVerdict::ReadsBreak, -1, false));
    }

    #[test]
    fn a_node_without_backends_stops_no_shard() {
        let mut map = map_of(3, 2, "3+3");
        let mut coordinator = map.nodes[0].clone();
        coordinator.id = holdfast_proto::NodeId(9);
        coordinator.name = "n9".to_owned();
        map.nodes.push(coordinator.clone());
        let candidates: Vec<Candidate> =
            map.backends.iter().map(|r| Candidate { id: r.id, weight_bytes: 1, role: CandidateRole::Active }).collect();
        let found = stop_view(&map, &candidates, &reach_without(&map, &[]), &coordinator).unwrap();
        assert_eq!((found.verdict, found.survives_besides), (StopVerdict::Safe, 3));
        assert!(found.scenarios.iter().all(|scenario| scenario.holds));
    }
}
