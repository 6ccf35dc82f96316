//! What is left of a promise while some domains are stopped: for a reboot, a rolling upgrade, or a hand on a cable.
//!
//! Judged by where shards may be now: in a PG that moves each slot counts as gone if its old or its new place is.
//!
//! Not here: stopping anything, or what is stopped already for other reasons: give those domains, too, or mark their
//! backends as lost.

use crate::candidate::CandidateRole;
use crate::domain::Domain;
use crate::error::PlacementError;
use crate::loss_case::PgSide;
use crate::proof::{Counterexample, Examiner, numbered};
use crate::scenario::{Promise, Scenario};
use crate::solver::check_shape;
use crate::topology::{BackendPlace, Topology};
use holdfast_codec::{Codec, Scheme, SlotSet};
use holdfast_proto::BackendId;
use holdfast_proto::pg_table::PgTable;
use std::collections::BTreeSet;

/// What holds while they are stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopCheck {
    /// The backends that stop.
    pub backends: BTreeSet<BackendId>,
    /// PGs of which some segments could not be read.
    pub unreadable_pgs: usize,
    /// PGs that could take no writes: fewer of their backends, and of those that can stand in for the others, are left than
    /// decode, and one more.
    pub unwritable_pgs: usize,
    /// Each scenario of the promise, and what breaks it if it happened besides; `None` where it would still be survived.
    pub scenarios: Vec<(Scenario, Option<Counterexample>)>,
}

impl StopCheck {
    /// Whether everything stays readable and writable.
    pub fn is_safe(&self) -> bool {
        self.unreadable_pgs == 0 && self.unwritable_pgs == 0
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct StopQuestion<'a> {
    /// The layout.
    pub table: &'a PgTable,
    /// What it promises.
    pub promise: &'a Promise,
    /// Where its backends are. Lost ones count as stopped.
    pub topology: &'a Topology,
    /// What is to be stopped.
    pub domains: &'a [Domain],
    /// Backends that can be read and take no writes.
    pub read_only: &'a BTreeSet<BackendId>,
}

/// Checks what holds while all backends of some domains are stopped.
///
/// # Errors
/// [`PlacementError::NoSuchDomain`] for a domain without backends; a damaged table.
pub fn safe_to_stop(question: &StopQuestion<'_>) -> Result<StopCheck, PlacementError> {
    let StopQuestion { table, promise, topology, domains, read_only } = *question;
    let scheme = Scheme::from_code(table.scheme)?;
    check_shape(table, scheme.n())?;
    let mut backends = BTreeSet::new();
    for domain in domains {
        let found = topology.backends_in(domain);
        if found.is_empty() {
            return Err(PlacementError::NoSuchDomain { domain: domain.clone() });
        }
        backends.extend(found);
    }
    let lost = topology.places().filter(|place| place.role == CandidateRole::Lost).map(|place| place.id);
    let absent: BTreeSet<BackendId> = backends.iter().copied().chain(lost).collect();

    // Who can stand in where a slot's own backend does not take its shard (`choose_stand_in`).
    let takes_shards = |place: &&BackendPlace| {
        place.role == CandidateRole::Active && !absent.contains(&place.id) && !read_only.contains(&place.id)
    };
    let spares: Vec<BackendId> = topology.places().filter(takes_shards).map(|place| place.id).collect();
    let codec = Codec::new(scheme);
    let (mut unreadable_pgs, mut unwritable_pgs) = (0, 0);
    for pg in &table.pgs {
        let is_there = |slot: &usize| !absent.contains(&pg.target[*slot]);
        let targets: SlotSet = (0..scheme.n()).filter(is_there).collect();
        let both: SlotSet = targets.iter().filter(|&slot| !absent.contains(&pg.committed[slot])).collect();
        unreadable_pgs += usize::from(!codec.decodable(&both));
        let mut written: SlotSet = targets.iter().filter(|&slot| !read_only.contains(&pg.target[slot])).collect();
        let is_spare = |id: &&BackendId| !pg.target.contains(id) && !pg.committed.contains(id);
        let missing: Vec<usize> = (0..scheme.n()).filter(|slot| !written.contains(*slot)).collect();
        for (slot, _) in missing.into_iter().zip(spares.iter().filter(is_spare)) {
            written.insert(slot);
        }
        unwritable_pgs += usize::from(written.len() <= scheme.k() || !codec.decodable(&written));
    }
    let mut examiner = Examiner::new(table, topology)?;
    let judged = promise.scenarios().iter().map(|scenario| {
        let broken =
            numbered(table).find_map(|(id, pg)| examiner.check(id, pg, PgSide::Moving, scenario, &absent).err());
        (scenario.clone(), broken)
    });
    let scenarios = judged.collect();
    Ok(StopCheck { backends, unreadable_pgs, unwritable_pgs, scenarios })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DomainKind;
    use crate::table::initial_layout;
    use crate::topology::tests::place;

    #[test]
    fn one_line_per_case() {
        // Three zones of three nodes.
        let places = (0..9u16).map(|n| place(n, &format!("n{n}"), &format!("z{}", n / 3), "r"));
        let topology = Topology::new(places).unwrap();
        let promise: Promise = "zone:1, node:2".parse().unwrap();
        let scheme: Scheme = "4+2".parse().unwrap();
        let table = initial_layout(scheme, 64, &promise, &topology).unwrap().table;
        let none = BTreeSet::new();
        let ask = |domains: &[Domain], read_only: &BTreeSet<BackendId>| {
            safe_to_stop(&StopQuestion { table: &table, promise: &promise, topology: &topology, domains, read_only })
        };
        let check = |stopped: &[(DomainKind, &str)], readable: bool, writable: bool, holds: &str| {
            let domains: Vec<Domain> =
                stopped.iter().map(|(kind, name)| Domain { kind: *kind, name: (*name).to_owned() }).collect();
            let found = ask(&domains, &none).unwrap();
            let kept = found.scenarios.iter().filter(|(_, broken)| broken.is_none()).map(|(s, _)| s.to_string());
            let kept = kept.collect::<Vec<_>>().join(", ");
            assert_eq!(
                (found.unreadable_pgs == 0, found.unwritable_pgs == 0, kept.as_str()),
                (readable, writable, holds),
                "{stopped:?}"
            );
        };
        check(&[], true, true, "node:2, zone:1");
        check(&[(DomainKind::Node, "n1")], true, true, "");
        // Six are left, and others stand in: five shards find a place.
        check(&[(DomainKind::Zone, "z1")], true, true, "");
        check(&[(DomainKind::Zone, "r/z1"), (DomainKind::Node, "n1")], false, true, "");
        check(&[(DomainKind::Node, "n3"), (DomainKind::Node, "n4")], true, true, "");
        check(&[(DomainKind::Zone, "z1"), (DomainKind::Node, "n1"), (DomainKind::Node, "n7")], false, false, "");
        let unknown = Domain { kind: DomainKind::Node, name: "n77".to_owned() };
        let refused = ask(&[unknown], &none).unwrap_err();
        assert_eq!(refused.to_string(), "there is no node n77");
    }

    #[test]
    fn what_is_full_takes_no_writes_and_stands_in_for_nobody() {
        let topology = Topology::new((0..6u16).map(|n| place(n, &format!("n{n}"), "z", "r"))).unwrap();
        let promise: Promise = "node:2".parse().unwrap();
        let table = initial_layout("4+2".parse().unwrap(), 16, &promise, &topology).unwrap().table;
        let ids: Vec<BackendId> = topology.places().map(|place| place.id).collect();
        let domain = topology.place(ids[1]).unwrap().domain(DomainKind::Node);
        for (full, unwritable) in [(vec![], 0), (vec![ids[0]], 16), (vec![ids[1]], 0)] {
            let read_only = full.iter().copied().collect();
            let domains = std::slice::from_ref(&domain);
            let question =
                StopQuestion { table: &table, promise: &promise, topology: &topology, domains, read_only: &read_only };
            let found = safe_to_stop(&question).unwrap();
            assert_eq!((found.unreadable_pgs, found.unwritable_pgs), (0, unwritable), "{full:?}");
        }
    }

    #[test]
    fn more_parity_than_promised_is_seen() {
        let places = (0..9u16).map(|n| place(n, &format!("n{n}"), "z", "r"));
        let topology = Topology::new(places).unwrap();
        let promise: Promise = "node:1".parse().unwrap();
        let table = initial_layout("4+4".parse().unwrap(), 64, &promise, &topology).unwrap().table;
        let node = |n: u16| Domain { kind: DomainKind::Node, name: format!("n{n}") };
        // Every node holds one shard of eight, and four may go.
        let (domains, read_only) = ([node(1)], BTreeSet::new());
        let question = StopQuestion {
            table: &table,
            promise: &promise,
            topology: &topology,
            domains: &domains,
            read_only: &read_only,
        };
        let found = safe_to_stop(&question).unwrap();
        assert!(found.is_safe());
        assert_eq!(found.scenarios[0].1, None);
    }
}
