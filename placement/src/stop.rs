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
use crate::topology::Topology;
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
    /// PGs that could take no writes: fewer of their backends are left than decode, and one more.
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

/// Checks what holds while all backends of `domains` are stopped. Lost backends count as stopped.
///
/// # Errors
/// [`PlacementError::NoSuchDomain`] for a domain without backends; a damaged table.
pub fn safe_to_stop(
    table: &PgTable,
    promise: &Promise,
    topology: &Topology,
    domains: &[Domain],
) -> Result<StopCheck, PlacementError> {
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

    let codec = Codec::new(scheme);
    let (mut unreadable_pgs, mut unwritable_pgs) = (0, 0);
    for pg in &table.pgs {
        let is_there = |slot: &usize| !absent.contains(&pg.target[*slot]);
        let targets: SlotSet = (0..scheme.n()).filter(is_there).collect();
        let both: SlotSet = targets.iter().filter(|&slot| !absent.contains(&pg.committed[slot])).collect();
        unreadable_pgs += usize::from(!codec.decodable(&both));
        unwritable_pgs += usize::from(targets.len() <= scheme.k() || !codec.decodable(&targets));
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
        let check = |stopped: &[(DomainKind, &str)], readable: bool, writable: bool, holds: &str| {
            let domains: Vec<Domain> =
                stopped.iter().map(|(kind, name)| Domain { kind: *kind, name: (*name).to_owned() }).collect();
            let found = safe_to_stop(&table, &promise, &topology, &domains).unwrap();
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
        check(&[(DomainKind::Zone, "z1")], true, false, "");
        check(&[(DomainKind::Zone, "r/z1"), (DomainKind::Node, "n1")], false, false, "");
        check(&[(DomainKind::Node, "n3"), (DomainKind::Node, "n4")], true, false, "");
        let unknown = Domain { kind: DomainKind::Node, name: "n77".to_owned() };
        let refused = safe_to_stop(&table, &promise, &topology, &[unknown]).unwrap_err();
        assert_eq!(refused.to_string(), "there is no node n77");
    }

    #[test]
    fn more_parity_than_promised_is_seen() {
        let places = (0..9u16).map(|n| place(n, &format!("n{n}"), "z", "r"));
        let topology = Topology::new(places).unwrap();
        let promise: Promise = "node:1".parse().unwrap();
        let table = initial_layout("4+4".parse().unwrap(), 64, &promise, &topology).unwrap().table;
        let node = |n: u16| Domain { kind: DomainKind::Node, name: format!("n{n}") };
        // Every node holds one shard of eight, and four may go.
        let found = safe_to_stop(&table, &promise, &topology, &[node(1)]).unwrap();
        assert!(found.is_safe());
        assert_eq!(found.scenarios[0].1, None);
    }
}
