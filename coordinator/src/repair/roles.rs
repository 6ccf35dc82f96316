//! What placement is told of each backend and of where it is, and what the backends' health alone says about margins.
//!
//! **Invariant:** only a backend that is wanted, on a node that is wanted, and not lost or poisoned gets the role
//! `Active`.

use super::loss::LossClock;
use super::plan::Reach;
use super::survival::margin;
use crate::metadata::ClusterMap;
use holdfast_codec::{Scheme, SlotSet};
use holdfast_placement::{BackendPlace, Candidate, CandidateRole, Topology, TopologyError};
use holdfast_proto::BackendId;
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::cluster::NodeIntent;
use holdfast_proto::node::{BackendHealth, BackendStatus};
use holdfast_proto::pg_table::PgTable;
use std::collections::BTreeSet;

/// Weights are rounded to this, so that a few bytes of difference between disks of one size move nothing.
const WEIGHT_STEP_BYTES: u64 = 1 << 30;
/// A read-only backend with less than one part in this free is full, not poisoned: its shards may stay.
const FULL_DIVISOR: u64 = 20;

/// The candidates for placement: every backend of the map, with the role its intent, health and absence give it.
pub fn candidates(map: &ClusterMap, statuses: &[BackendStatus], clock: &LossClock, now_ms: u64) -> Vec<Candidate> {
    let reach = Reach::new(statuses.iter().map(|s| (s.id, s.health)));
    let is_urgent = margin_by_health(&map.table, &reach).is_some_and(|margin| margin <= 0);
    let used: BTreeSet<BackendId> = map.table.pgs.iter().flat_map(|pg| &pg.target).copied().collect();
    let known: Vec<u64> = statuses.iter().map(|s| s.capacity_bytes).filter(|c| *c > 0).collect();
    let typical = known.iter().sum::<u64>() / u64::try_from(known.len().max(1)).unwrap_or(1);
    let candidate = |record: &crate::metadata::BackendRecord| {
        let status = statuses.iter().find(|s| s.id == record.id);
        let capacity = status.map(|s| s.capacity_bytes).filter(|c| *c > 0).unwrap_or(typical);
        let weight_bytes = (capacity / WEIGHT_STEP_BYTES).max(1) * WEIGHT_STEP_BYTES;
        let node = map.nodes.iter().find(|node| node.id == record.node).map(|node| node.intent);
        let role = match (record.intent, status) {
            _ if clock.is_lost(record.id, is_urgent, now_ms) => CandidateRole::Lost,
            _ if node == Some(NodeIntent::Removed) => CandidateRole::Lost,
            _ if matches!(node, Some(NodeIntent::Draining | NodeIntent::Drained)) => CandidateRole::Draining,
            (BackendIntent::Draining | BackendIntent::Drained, _) => CandidateRole::Draining,
            (BackendIntent::Active, Some(status)) if is_poisoned(status) => CandidateRole::Draining,
            // A coordinator that has only begun to lead has not seen it go: what is away and has nothing to come back for
            // was given up before. It must not get a share again until it answers.
            (BackendIntent::Active, _) if !reach.can_read(record.id) && !used.contains(&record.id) => {
                CandidateRole::Lost
            }
            (BackendIntent::Active, _) => CandidateRole::Active,
        };
        Candidate { id: record.id, weight_bytes, role }
    };
    map.backends.iter().map(candidate).collect()
}

/// Where the backends of the map are, with the roles and weights the candidates say; one that is no candidate counts
/// as active and of the least weight. A backend of an unknown node is on a node, zone and region of its own.
///
/// # Errors
/// Nodes or backends that contradict each other.
pub fn topology(map: &ClusterMap, candidates: &[Candidate]) -> Result<Topology, TopologyError> {
    Topology::new(map.backends.iter().map(|record| {
        let known = candidates.iter().find(|candidate| candidate.id == record.id);
        let node = map.nodes.iter().find(|node| node.id == record.node);
        // A store made before it could grow lists no nodes: it is one.
        let number = if map.nodes.is_empty() { String::new() } else { format!("unknown-{}", record.node) };
        BackendPlace {
            id: record.id,
            name: record.name.clone(),
            weight_bytes: known.map_or(1, |candidate| candidate.weight_bytes),
            role: known.map_or(CandidateRole::Active, |candidate| candidate.role),
            node: node.map_or_else(|| number.clone(), |node| node.name.clone()),
            zone: node.map_or_else(|| number.clone(), |node| node.zone.clone()),
            region: node.map_or_else(|| number.clone(), |node| node.region.clone()),
            geography: String::new(),
            labels: std::collections::BTreeMap::new(),
        }
    }))
}

/// Read-only for another reason than want of room.
fn is_poisoned(status: &BackendStatus) -> bool {
    status.health == BackendHealth::ReadOnly && status.free_bytes > status.capacity_bytes / FULL_DIVISOR
}

/// The smallest margin any PG can have given which backends answer, whatever the inventory; `None` without PGs or
/// with a scheme this build does not know.
pub fn margin_by_health(table: &PgTable, reach: &Reach) -> Option<i32> {
    let scheme = Scheme::from_code(table.scheme).ok()?;
    let readable = |pg: &holdfast_proto::pg_table::Pg| {
        let slots = pg.committed.iter().zip(&pg.target).enumerate();
        let readable = slots.filter(|(_, (committed, target))| reach.can_read(**committed) || reach.can_read(**target));
        readable.map(|(slot, _)| slot).collect::<SlotSet>()
    };
    table.pgs.iter().map(|pg| margin(scheme, &readable(pg))).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::BackendRecord;
    use holdfast_proto::pg_table::Pg;
    use holdfast_proto::{BackendId, ClusterId, Epoch, NodeId};

    fn b(n: u8) -> BackendId {
        BackendId([n; 16])
    }
    fn status(n: u8, health: BackendHealth, free_bytes: u64) -> BackendStatus {
        BackendStatus {
            id: b(n),
            name: format!("d{n}"),
            location: String::new(),
            health,
            reason: String::new(),
            capacity_bytes: if health.can_read() { 100 << 30 } else { 0 },
            free_bytes,
            used_bytes: 0,
            shard_count: 0,
            scrubbed_ms: 0,
        }
    }
    fn map(intents: &[BackendIntent]) -> ClusterMap {
        let ids: Vec<BackendId> = (1..=6).map(b).collect();
        let pg = Pg { committed: ids.clone(), target: ids };
        ClusterMap {
            cluster: ClusterId([0; 16]),
            nodes: Vec::new(),
            backends: intents
                .iter()
                .zip(1u8..)
                .map(|(intent, n)| BackendRecord {
                    id: b(n),
                    name: format!("d{n}"),
                    location: String::new(),
                    intent: *intent,
                    node: NodeId::FIRST,
                })
                .collect(),
            table: PgTable { epoch: Epoch(1), scheme: [0x1d, 1, 4, 2], pgs: vec![pg] },
            promise: Default::default(),
            is_promise_chosen: false,
            proof: None,
            held: Default::default(),
            change: None,
        }
    }

    #[test]
    fn one_line_per_case() {
        use BackendHealth::{Missing, Online, ReadOnly, Wiped};
        use BackendIntent::{Active, Draining};
        let check =
            |intent: BackendIntent, health: BackendHealth, free: u64, others_gone: usize, expected: CandidateRole| {
                let map = map(&[intent, Active, Active, Active, Active, Active]);
                let mut statuses: Vec<_> = (1..=6).map(|n| status(n, Online, 50 << 30)).collect();
                statuses[0] = status(1, health, free);
                for gone in &mut statuses[1..=others_gone] {
                    gone.health = Missing;
                }
                let mut clock = LossClock::new(900_000);
                clock.handle_report(&statuses.iter().map(|s| (s.id, s.health)).collect::<Vec<_>>(), 0);
                let found = candidates(&map, &statuses, &clock, 70_000)[0];
                assert_eq!(found.role, expected, "{intent:?} {health:?} free {free} others gone {others_gone}");
                assert_eq!(found.weight_bytes, 100 << 30);
            };
        check(Active, Online, 50 << 30, 0, CandidateRole::Active);
        check(Active, Missing, 0, 0, CandidateRole::Active);
        check(Active, Missing, 0, 1, CandidateRole::Lost);
        check(Active, Wiped, 0, 0, CandidateRole::Lost);
        check(Active, ReadOnly, 50 << 30, 0, CandidateRole::Draining);
        check(Active, ReadOnly, 1 << 30, 0, CandidateRole::Active);
        check(Draining, Online, 50 << 30, 0, CandidateRole::Draining);
        check(Draining, Wiped, 0, 0, CandidateRole::Lost);
    }

    /// Each leader begins with a new clock: to it a backend that died long ago has gone missing just now.
    #[test]
    fn what_was_given_up_is_not_taken_for_active_by_the_next_leader() {
        let mut map = map(&[BackendIntent::Active; 6]);
        let role = |map: &ClusterMap, health| {
            let mut statuses: Vec<_> = (1..=6).map(|n| status(n, BackendHealth::Online, 50 << 30)).collect();
            statuses[5] = status(6, health, 0);
            let mut clock = LossClock::new(900_000);
            clock.handle_report(&statuses.iter().map(|s| (s.id, s.health)).collect::<Vec<_>>(), 0);
            candidates(map, &statuses, &clock, 0)[5].role
        };
        assert_eq!(role(&map, BackendHealth::Missing), CandidateRole::Active, "waited for while it has slots");
        map.table.pgs[0].target[5] = b(1);
        assert_eq!(role(&map, BackendHealth::Missing), CandidateRole::Lost);
        assert_eq!(role(&map, BackendHealth::Online), CandidateRole::Active, "until it answers");
    }

    #[test]
    fn a_node_takes_its_backends_with_it() {
        use holdfast_proto::cluster::{NodeAddresses, NodeRecord, Roles};
        let mut map = map(&[BackendIntent::Active; 6]);
        for record in &mut map.backends[3..] {
            record.node = NodeId(2);
        }
        let roles = |map: &ClusterMap| {
            let statuses: Vec<_> = (1..=6).map(|n| status(n, BackendHealth::Online, 50 << 30)).collect();
            candidates(map, &statuses, &LossClock::new(900_000), 0)
        };
        let node = |number: u64, intent| NodeRecord {
            id: NodeId(number),
            name: format!("n{number}"),
            roles: Roles::BOTH,
            region: "r".to_owned(),
            zone: format!("z{number}"),
            addresses: NodeAddresses::default(),
            intent,
            joined_ms: 0,
        };
        for (intent, expected) in [
            (NodeIntent::Active, CandidateRole::Active),
            (NodeIntent::Draining, CandidateRole::Draining),
            (NodeIntent::Drained, CandidateRole::Draining),
            (NodeIntent::Removed, CandidateRole::Lost),
        ] {
            map.nodes = vec![node(1, NodeIntent::Active), node(2, intent)];
            let found = roles(&map);
            assert!(found[..3].iter().all(|c| c.role == CandidateRole::Active));
            assert!(found[3..].iter().all(|c| c.role == expected));
            let topology = topology(&map, &found).unwrap();
            assert_eq!(topology.domains(holdfast_placement::DomainKind::Region).len(), 1);
            let places: Vec<_> = topology.places().map(|place| (place.node.as_str(), place.zone.as_str())).collect();
            assert_eq!((places[0], places[5]), (("n1", "z1"), ("n2", "z2")));
        }
    }

    #[test]
    fn health_alone_bounds_the_margin() {
        let table = map(&[]).table;
        let margin = |gone: &[u8]| {
            let health = |n| if gone.contains(&n) { BackendHealth::Missing } else { BackendHealth::Online };
            margin_by_health(&table, &Reach::new((1..=6).map(|n| (b(n), health(n)))))
        };
        assert_eq!(
            (margin(&[]), margin(&[3]), margin(&[1, 6]), margin(&[1, 2, 3])),
            (Some(2), Some(1), Some(0), Some(-1))
        );
        assert_eq!(margin_by_health(&PgTable { pgs: vec![], ..table.clone() }, &Reach::default()), None);
    }
}
