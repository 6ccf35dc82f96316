//! The layout as people look at it: region, zone, node and backend with what each holds, gets and gives away.

use super::policy_view::scheme_name;
use crate::metadata::{BackendRecord, ClusterMap, MapChange};
use crate::repair::{full_margin, topology};
use holdfast_codec::Scheme;
use holdfast_placement::{Candidate, CandidateRole, PlacementError, Topology};
use holdfast_proto::BackendId;
use holdfast_proto::cluster::{NodeIntent, NodeRecord};
use holdfast_proto::layout_admin::{DomainView, LayoutChangeView, LayoutView, ProofView};
use holdfast_proto::node::BackendStatus;
use holdfast_proto::pg_table::PgTable;
use std::collections::BTreeMap;

/// What is promised, in words where the map says nothing.
pub fn promise_text(map: &ClusterMap, scheme: Scheme) -> String {
    match (map.promise.is_empty(), full_margin(scheme)) {
        (false, _) => map.promise.to_string(),
        (true, 1) => "any 1 backend".to_owned(),
        (true, m) => format!("any {m} backends"),
    }
}

/// The proof the map carries, and whether it is of the map as it is.
pub fn proof_view(map: &ClusterMap, scheme: Scheme, topology: &Topology) -> Option<ProofView> {
    let in_full = map.promise.or_any_backends(scheme.losses_survived());
    map.proof.as_ref().map(|proof| ProofView {
        cases: count(proof.cases),
        loss_sets: proof.loss_sets,
        is_exhaustive: proof.is_exhaustive,
        hash: proof.hash.clone(),
        is_current: proof.is_of(&map.table, &in_full, topology),
    })
}

/// See the module. `candidates` say which backends are lost or leaving.
///
/// # Errors
/// A scheme that this build does not know; nodes and backends that contradict each other.
pub fn layout_view(
    map: &ClusterMap,
    candidates: &[Candidate],
    statuses: &[BackendStatus],
) -> Result<LayoutView, PlacementError> {
    let scheme = Scheme::from_code(map.table.scheme)?;
    let proof = proof_view(map, scheme, &topology(map, candidates)?);
    let moving = map.table.pgs.iter().filter(|pg| pg.is_moving());
    let moving_slots = moving.clone().flat_map(|pg| pg.committed.iter().zip(&pg.target)).filter(|(a, b)| a != b);
    Ok(LayoutView {
        epoch: map.table.epoch,
        scheme: scheme_name(scheme),
        promise: promise_text(map, scheme),
        is_promise_chosen: map.is_promise_chosen,
        pg_count: count(map.table.pgs.len()),
        proof,
        moving_pgs: count(moving.count()),
        moving_slots: count(moving_slots.count()),
        is_repair_paused: map.held.repair,
        are_moves_paused: map.held.moves,
        domains: domains(map, candidates, statuses),
    })
}

/// The changes, as they were told.
pub fn history_view(changes: Vec<MapChange>) -> Vec<LayoutChangeView> {
    let view = |change: MapChange| {
        let MapChange { epoch, at_ms, cause, what } = change;
        LayoutChangeView { epoch, at_ms, cause, what }
    };
    changes.into_iter().map(view).collect()
}

#[derive(Clone, Copy, Default)]
struct Slots {
    there: u64,
    coming: u64,
    leaving: u64,
}

fn slots_by_backend(table: &PgTable) -> BTreeMap<BackendId, Slots> {
    let mut slots: BTreeMap<BackendId, Slots> = BTreeMap::new();
    for (committed, target) in table.pgs.iter().flat_map(|pg| pg.committed.iter().zip(&pg.target)) {
        slots.entry(*target).or_default().there += 1;
        if committed != target {
            slots.entry(*target).or_default().coming += 1;
            slots.entry(*committed).or_default().leaving += 1;
        }
    }
    slots
}

/// Each domain before those within it; regions, zones and nodes by name.
fn domains(map: &ClusterMap, candidates: &[Candidate], statuses: &[BackendStatus]) -> Vec<DomainView> {
    let slots = slots_by_backend(&map.table);
    let backend = |record: &BackendRecord| {
        let role = candidates.iter().find(|candidate| candidate.id == record.id).map(|candidate| candidate.role);
        let state = match role {
            Some(CandidateRole::Lost) => "lost",
            Some(CandidateRole::Draining) => "draining",
            _ => "",
        };
        let status = statuses.iter().find(|status| status.id == record.id);
        let Slots { there, coming, leaving } = slots.get(&record.id).copied().unwrap_or_default();
        DomainView {
            kind: "backend".to_owned(),
            name: record.name.clone(),
            state: state.to_owned(),
            slots: there,
            slots_coming: coming,
            slots_leaving: leaving,
            capacity_bytes: status.map_or(0, |status| status.capacity_bytes),
            used_bytes: status.map_or(0, |status| status.used_bytes),
        }
    };
    let mut tree: BTreeMap<(&str, &str), Vec<&NodeRecord>> = BTreeMap::new();
    for node in map.nodes.iter().filter(|node| node.intent != NodeIntent::Removed) {
        tree.entry((&node.region, &node.zone)).or_default().push(node);
    }
    let mut found: Vec<DomainView> = Vec::new();
    let mut region: Option<(&str, usize)> = None;
    for ((of_region, zone), nodes) in tree {
        if region.is_none_or(|(name, _)| name != of_region) {
            region = Some((of_region, found.len()));
            found.push(empty("region", of_region, ""));
        }
        let at_zone = found.len();
        found.push(empty("zone", zone, ""));
        for node in nodes {
            let state = match node.intent {
                NodeIntent::Draining => "draining",
                NodeIntent::Drained => "drained",
                NodeIntent::Active | NodeIntent::Removed => "",
            };
            let backends: Vec<DomainView> =
                map.backends.iter().filter(|record| record.node == node.id).map(backend).collect();
            let at_node = found.len();
            found.push(empty("node", &node.name, state));
            for domain in backends {
                for at in [region.map_or(at_zone, |(_, at)| at), at_zone, at_node] {
                    add(&mut found[at], &domain);
                }
                found.push(domain);
            }
        }
    }
    // What is on no node that is left: the backends of a store that lists none, or of one that was given up.
    let is_homeless = |record: &&BackendRecord| {
        !map.nodes.iter().any(|node| node.id == record.node && node.intent != NodeIntent::Removed)
    };
    found.extend(map.backends.iter().filter(is_homeless).map(backend));
    found
}

fn empty(kind: &str, name: &str, state: &str) -> DomainView {
    DomainView {
        kind: kind.to_owned(),
        name: name.to_owned(),
        state: state.to_owned(),
        slots: 0,
        slots_coming: 0,
        slots_leaving: 0,
        capacity_bytes: 0,
        used_bytes: 0,
    }
}

fn add(sum: &mut DomainView, part: &DomainView) {
    sum.slots += part.slots;
    sum.slots_coming += part.slots_coming;
    sum.slots_leaving += part.slots_leaving;
    sum.capacity_bytes = sum.capacity_bytes.saturating_add(part.capacity_bytes);
    sum.used_bytes = sum.used_bytes.saturating_add(part.used_bytes);
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::model::{PG_COUNT, b, map_of};
    use super::*;
    use crate::repair::{LossClock, candidates};

    fn view(map: &ClusterMap) -> LayoutView {
        layout_view(map, &candidates(map, &[], &LossClock::new(0), 0), &[]).unwrap()
    }

    #[test]
    fn every_domain_sums_up_what_is_within_it() {
        let mut map = map_of(3, 2, "3+3");
        map.nodes[1].zone = "z1".to_owned();
        let slots = u64::from(PG_COUNT) * 6;
        let shown = view(&map);
        let kinds: Vec<String> = shown.domains.iter().map(|d| format!("{} {}", d.kind, d.name)).collect();
        let expected = [
            "region r",
            "zone z1",
            "node n1",
            "backend d1",
            "backend d2",
            "node n2",
            "backend d3",
            "backend d4",
            "zone z3",
            "node n3",
            "backend d5",
            "backend d6",
        ];
        assert_eq!(kinds, expected);
        let of_kind = |kind: &str| shown.domains.iter().filter(|d| d.kind == kind).map(|d| d.slots).sum::<u64>();
        for kind in ["region", "zone", "node", "backend"] {
            assert_eq!(of_kind(kind), slots, "{kind}");
        }
        assert_eq!((shown.moving_pgs, shown.moving_slots, shown.pg_count), (0, 0, u64::from(PG_COUNT)));
        let proof = shown.proof.unwrap();
        assert!(!proof.is_current && proof.loss_sets > 0, "n2 has changed its zone since");
        assert!(view(&map_of(3, 2, "3+3")).proof.unwrap().is_current);
    }

    #[test]
    fn moves_are_seen_at_both_ends_and_the_promise_in_words() {
        let mut map = map_of(4, 2, "3+3");
        let old = map.table.pgs[0].target[0];
        let new = (1..=8).map(b).find(|id| !map.table.pgs[0].target.contains(id)).unwrap();
        map.table.pgs[0].target[0] = new;
        map.nodes[0].intent = NodeIntent::Draining;
        let shown = view(&map);
        assert_eq!((shown.moving_pgs, shown.moving_slots), (1, 1));
        let name = |id| map.backends.iter().find(|r| r.id == id).unwrap().name.clone();
        let at = |id| shown.domains.iter().find(|d| d.name == name(id)).unwrap();
        assert_eq!((at(new).slots_coming, at(old).slots_leaving), (1, 1));
        assert_eq!(shown.domains[2].state, "draining");
        assert_eq!(shown.domains[3].state, "draining", "its backends go with it");
        assert_eq!(shown.promise, "zone:1+backend:1");
        let plain = ClusterMap { promise: Default::default(), nodes: Vec::new(), ..map };
        let shown = view(&plain);
        assert_eq!(shown.promise, "any 3 backends");
        assert_eq!(shown.domains.len(), 8, "backends of a store without nodes");
    }
}
