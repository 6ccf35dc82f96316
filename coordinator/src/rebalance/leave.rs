//! Whether a node may leave: what the promise, the metadata and the data are without it, and what an operator gave up by
//! name.
//!
//! **Invariant:** nothing that is promised is dropped unless it cannot be kept and was named
//! (`only_what_fails_and_was_named_is_given_up`).

use crate::membership::{NodeRefusal, with_intent};
use crate::metadata::ClusterMap;
use crate::repair::topology;
use holdfast_codec::Scheme;
use holdfast_placement::{
    Candidate, Infeasible, PlacementError, Promise, Scenario, ScenarioError, Topology, feasible_caps,
};
use holdfast_proto::cluster::{NodeIntent, Role};
use holdfast_proto::{BackendId, ErrorKind, NodeId};
use std::collections::BTreeSet;

/// Accepts that the metadata survives no loss of a node any more.
const METADATA: &str = "metadata";
/// Accepts that what only a lost node holds is lost.
const DATA: &str = "data";
/// Coordinators it takes to survive the loss of one: a majority of three is two.
const COORDINATORS_MIN: usize = 3;

/// What an operator gives up by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    scenarios: Vec<Scenario>,
    is_metadata: bool,
    is_data: bool,
}

/// Why a node may not leave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaveError {
    /// What was to be given up is no scenario and none of the words.
    #[error("{given:?} cannot be given up: {reason}; give a scenario such as zone:1, or {METADATA}, or {DATA}")]
    Unknown {
        /// As given.
        given: String,
        /// What is wrong with it.
        reason: ScenarioError,
    },
    /// What was to be given up is not promised.
    #[error("{scenario} is not promised: the promise is {promise}")]
    NotPromised {
        /// As given.
        scenario: Scenario,
        /// What is.
        promise: Promise,
    },
    /// Without the node the promise cannot be kept.
    #[error("{scenario} would not be survived without it: {reason}")]
    Promise {
        /// The scenario that fails.
        scenario: Scenario,
        /// What is missing for it.
        reason: Infeasible,
    },
    /// Without the node the metadata has one voter.
    #[error(
        "without it {left} coordinators are left, and the metadata would be kept by one of them: its loss would be the \
         loss of everything"
    )]
    Metadata {
        /// Coordinators that would be left.
        left: usize,
    },
    /// Without the node something cannot be read.
    #[error("{pgs} of {pg_count} placement groups cannot be read without it: their objects would be given up")]
    Data {
        /// How many.
        pgs: u64,
        /// Of how many.
        pg_count: u64,
    },
    /// The map does not allow it.
    #[error(transparent)]
    Node(#[from] NodeRefusal),
    /// No layout can be made.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

impl LeaveError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } | Self::NotPromised { .. } => ErrorKind::Invalid,
            Self::Promise { .. } | Self::Metadata { .. } | Self::Data { .. } => ErrorKind::Conflict,
            Self::Node(refusal) => refusal.kind(),
            Self::Placement(error) => error.kind(),
        }
    }

    /// What to do instead, or the words that give up what is in the way.
    pub fn next_step(&self) -> String {
        let accept = |what: &str| format!("or give that up: --accept-loss-of {what}");
        match self {
            Self::Promise { scenario, .. } => {
                format!("join another node first (holdfast token create), {}", accept(&scenario.to_string()))
            }
            Self::Metadata { .. } => format!("join another coordinator first, {}", accept(METADATA)),
            Self::Data { .. } => format!("bring it back, {}", accept(DATA)),
            Self::Node(NodeRefusal::LastCoordinator { .. }) => "join another coordinator first".to_owned(),
            _ => String::new(),
        }
    }
}

impl Accepted {
    /// Reads what was given to `--accept-loss-of`.
    pub fn parse(given: &[String]) -> Result<Self, LeaveError> {
        let mut accepted = Self::default();
        for word in given {
            match word.as_str() {
                METADATA => accepted.is_metadata = true,
                DATA => accepted.is_data = true,
                scenario => accepted.scenarios.push(
                    scenario
                        .parse()
                        .map_err(|reason| LeaveError::Unknown { given: word.chars().take(64).collect(), reason })?,
                ),
            }
        }
        Ok(accepted)
    }

    /// Lets it pass that some PGs cannot be read, if that was accepted.
    pub fn check_data(&self, pgs: u64, pg_count: u64) -> Result<(), LeaveError> {
        if pgs > 0 && !self.is_data { Err(LeaveError::Data { pgs, pg_count }) } else { Ok(()) }
    }
}

/// The map with the node's intent and, where it was accepted, without what cannot be kept any more. The layout is as it
/// was: it is to be planned for this map. `candidates` tells what each backend may do by a map.
pub fn leaving(
    map: &ClusterMap,
    node: NodeId,
    intent: NodeIntent,
    accepted: &Accepted,
    candidates: impl Fn(&ClusterMap) -> Vec<Candidate>,
) -> Result<ClusterMap, LeaveError> {
    let scheme = Scheme::from_code(map.table.scheme).map_err(PlacementError::from)?;
    let mut next = with_intent(map, node, intent)?.unwrap_or_else(|| map.clone());
    check_metadata(map, &next, accepted)?;
    let topology = topology(&next, &candidates(&next)).map_err(PlacementError::from)?;
    (next.promise, next.is_promise_chosen) = kept_promise(map, scheme, &topology, accepted)?;
    Ok(next)
}

/// Slots whose shards are on the node's backends or are to come to them.
pub fn slots_of_node(map: &ClusterMap, node: NodeId) -> usize {
    let of_node = map.backends.iter().filter(|record| record.node == node);
    let ids: BTreeSet<BackendId> = of_node.map(|record| record.id).collect();
    let slots = map.table.pgs.iter().flat_map(|pg| pg.committed.iter().zip(&pg.target));
    slots.filter(|(committed, target)| ids.contains(committed) || ids.contains(target)).count()
}

/// Coordinators that stay.
fn staying(map: &ClusterMap) -> usize {
    map.nodes.iter().filter(|node| node.intent == NodeIntent::Active && node.roles.has(Role::Coordinator)).count()
}

fn check_metadata(before: &ClusterMap, after: &ClusterMap, accepted: &Accepted) -> Result<(), LeaveError> {
    let (before, left) = (staying(before), staying(after));
    match before >= COORDINATORS_MIN && left < COORDINATORS_MIN && !accepted.is_metadata {
        true => Err(LeaveError::Metadata { left }),
        false => Ok(()),
    }
}

/// The promise of a map, without the scenarios that cannot be kept on `topology` and were given up; and whether an
/// operator chose it. With nothing left of it, it follows the nodes again.
fn kept_promise(
    map: &ClusterMap,
    scheme: Scheme,
    topology: &Topology,
    accepted: &Accepted,
) -> Result<(Promise, bool), LeaveError> {
    let in_full = map.promise.or_any_backends(scheme.losses_survived());
    if let Some(scenario) = accepted.scenarios.iter().find(|accepted| !in_full.scenarios().contains(accepted)) {
        return Err(LeaveError::NotPromised { scenario: scenario.clone(), promise: in_full });
    }
    let mut kept = in_full.scenarios().to_vec();
    let mut is_whole = true;
    loop {
        let promise = Promise::new(kept.iter().cloned()).unwrap_or_default();
        if promise.is_empty() {
            return Ok((Promise::default(), false));
        }
        match feasible_caps(scheme, &promise, topology) {
            Ok(_) if is_whole => return Ok((map.promise.clone(), map.is_promise_chosen)),
            Ok(_) => return Ok((promise, map.is_promise_chosen)),
            Err(reason) if accepted.scenarios.contains(&reason.scenario) => {
                is_whole = false;
                kept.retain(|scenario| *scenario != reason.scenario);
            }
            Err(reason) => return Err(LeaveError::Promise { scenario: reason.scenario.clone(), reason }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::map_of;
    use super::*;
    use crate::repair::{LossClock, candidates};

    fn leave(map: &ClusterMap, node: u64, intent: NodeIntent, accept: &[&str]) -> Result<ClusterMap, LeaveError> {
        let accept: Vec<String> = accept.iter().map(|word| (*word).to_owned()).collect();
        let roles = |map: &ClusterMap| candidates(map, &[], &LossClock::new(0), 0);
        leaving(map, NodeId(node), intent, &Accepted::parse(&accept)?, roles)
    }

    #[test]
    fn a_node_leaves_where_the_promise_holds_without_it() {
        let four = map_of(4, 2, "3+3");
        let next = leave(&four, 4, NodeIntent::Draining, &[]).unwrap();
        assert_eq!((&next.promise, next.is_promise_chosen), (&four.promise, false));
        assert_eq!(next.nodes[3].intent, NodeIntent::Draining);
        assert_eq!(next.table, four.table, "the layout is planned afterwards");
        let another = leave(&next, 3, NodeIntent::Draining, &[]).unwrap_err();
        let refusal = another.to_string();
        assert!(refusal.contains("zone:1+backend:1") || refusal.contains("2 coordinators"), "{refusal}");
    }

    #[test]
    fn only_what_fails_and_was_named_is_given_up() {
        let three = map_of(3, 2, "3+3");
        assert_eq!(three.promise.to_string(), "zone:1+backend:1");
        let check = |accept: &[&str], expected: Result<&str, &str>| {
            let found = leave(&three, 3, NodeIntent::Draining, accept);
            match (found, expected) {
                (Ok(next), Ok(promise)) => assert_eq!(next.promise.to_string(), promise, "{accept:?}"),
                (Err(error), Err(part)) => {
                    let text = format!("{error}; {}", error.next_step());
                    assert!(text.contains(part), "{accept:?}: {text}");
                }
                (found, _) => panic!("{accept:?}: {found:?}"),
            }
        };
        check(&[], Err("--accept-loss-of metadata"));
        check(&["metadata"], Err("--accept-loss-of zone:1+backend:1"));
        check(&["metadata", "zone:1+backend:1"], Ok(""));
        check(&["metadata", "zone:1"], Err("zone:1 is not promised: the promise is zone:1+backend:1"));
        check(&["metadata", "everything"], Err("\"everything\" cannot be given up"));
        check(&["metadata", "data"], Err("zone:1+backend:1 would not be survived"));

        // A chosen promise loses what was named and keeps the rest.
        let chosen = ClusterMap {
            promise: "zone:1, backend:3".parse().unwrap(),
            is_promise_chosen: true,
            ..map_of(4, 2, "3+3")
        };
        let mut next = leave(&chosen, 4, NodeIntent::Draining, &["zone:1"]).unwrap();
        assert_eq!(
            (next.promise.to_string().as_str(), next.is_promise_chosen),
            ("backend:3, zone:1", true),
            "it holds"
        );
        next = leave(&next, 3, NodeIntent::Draining, &["metadata", "backend:3", "zone:1"]).unwrap();
        assert!(next.promise.to_string().is_empty() && !next.is_promise_chosen, "four backends cannot hold six shards");
    }

    #[test]
    fn what_was_lost_is_named_too() {
        assert!(Accepted::default().check_data(0, 9).is_ok());
        let refused = Accepted::default().check_data(2, 9).unwrap_err();
        assert!(refused.to_string().contains("2 of 9") && refused.next_step().contains("--accept-loss-of data"));
        assert!(Accepted::parse(&["data".to_owned()]).unwrap().check_data(2, 9).is_ok());
    }

    #[test]
    fn the_map_has_the_last_word() {
        let two = map_of(2, 3, "3+3");
        let unknown = leave(&two, 9, NodeIntent::Draining, &[]).unwrap_err();
        assert_eq!(unknown, NodeRefusal::NoSuchNode { node: NodeId(9) }.into());
        let promise = two.promise.to_string();
        let gone = leave(&two, 2, NodeIntent::Removed, &[&promise]).unwrap();
        let last = leave(&gone, 1, NodeIntent::Removed, &[]).unwrap_err();
        assert_eq!(last, NodeRefusal::LastCoordinator { node: NodeId(1) }.into());
    }
}
