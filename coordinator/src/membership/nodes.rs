//! Changes to the nodes of a cluster map. Pure, but for the loop that stores the result by compare-and-set.
//!
//! **Invariant:** a node that was removed never comes back under its number
//! (`a_removed_node_stays_removed`), and there is always a coordinator that was not
//! (`the_last_coordinator_cannot_be_removed`).

use super::error::MembershipError;
use crate::metadata::{BackendRecord, ClusterMap, Metadata, MetadataError, note_change};
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::cluster::{NodeAddresses, NodeIntent, NodeRecord, Role};
use holdfast_proto::{BackendId, Epoch, ErrorKind, NodeId};
use std::collections::BTreeSet;
use std::time::Duration;

/// Tries against concurrent changes of the map. Each round one of those who try succeeds, so eight nodes that join at
/// once all get in; more than that wait longer each time, and their nodes ask again.
const TRIES_MAX: u32 = 8;
/// First wait before another try; doubled each time.
const RETRY_WAIT: Duration = Duration::from_millis(5);
/// More nodes than this are not planned for anywhere.
const NODES_MAX: usize = 4096;
/// More backends than this are not planned for on one node.
const NODE_BACKENDS_MAX: usize = 256;

/// Why the map's nodes do not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeRefusal {
    /// The map has no such node.
    #[error("no node {node} in this cluster")]
    NoSuchNode {
        /// Which.
        node: NodeId,
    },
    /// It was removed, which is for good.
    #[error("node {node} was removed from the cluster; it can join again with a new token, as a new node")]
    Removed {
        /// Which.
        node: NodeId,
    },
    /// Without it nobody would keep the metadata.
    #[error("node {node} is the last coordinator")]
    LastCoordinator {
        /// Which.
        node: NodeId,
    },
    /// The cluster is as large as it can be.
    #[error("a cluster has at most {NODES_MAX} nodes")]
    TooMany,
    /// It has as many backends as a node can have.
    #[error("node {node} announces more than {NODE_BACKENDS_MAX} backends")]
    TooManyBackends {
        /// Which.
        node: NodeId,
    },
}

impl NodeRefusal {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchNode { .. } => ErrorKind::NotFound,
            Self::Removed { .. } => ErrorKind::Denied,
            Self::LastCoordinator { .. } | Self::TooMany | Self::TooManyBackends { .. } => ErrorKind::Conflict,
        }
    }
}

/// A changed map, or `None` if it is as it should be already. The epoch is the storing loop's to set.
pub(super) type Change = Result<Option<ClusterMap>, MembershipError>;

/// The node of a number, if it was not removed.
pub(super) fn member(map: &ClusterMap, node: NodeId) -> Result<&NodeRecord, NodeRefusal> {
    let record = map.nodes.iter().find(|record| record.id == node).ok_or(NodeRefusal::NoSuchNode { node })?;
    match record.intent {
        NodeIntent::Removed => Err(NodeRefusal::Removed { node }),
        _ => Ok(record),
    }
}

/// Nodes whose certificates are refused: what `LiveCredentials::set_removed` takes.
pub fn removed_nodes(map: &ClusterMap) -> BTreeSet<NodeId> {
    let removed = map.nodes.iter().filter(|record| record.intent == NodeIntent::Removed);
    removed.map(|record| record.id).collect()
}

/// Takes a node in. One that is there already stays as it is: an answer that got lost is asked for again.
pub(super) fn with_node(map: &ClusterMap, node: &NodeRecord) -> Change {
    // A map without nodes means node 1 alone; with another one in it, it would mean that one alone.
    if map.nodes.is_empty() && node.id != NodeId::FIRST {
        return Err(MembershipError::NotFounded { missing: "node 1 in the cluster map" });
    }
    match member(map, node.id) {
        Ok(_) => Ok(None),
        Err(NodeRefusal::NoSuchNode { .. }) if map.nodes.len() >= NODES_MAX => Err(NodeRefusal::TooMany.into()),
        Err(NodeRefusal::NoSuchNode { .. }) => {
            let mut next = map.clone();
            next.nodes.push(node.clone());
            next.nodes.sort_by_key(|record| record.id);
            Ok(Some(next))
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// A backend as announced, its text already checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) id: BackendId,
    pub(super) location: String,
    pub(super) fresh: bool,
}

/// Notes where a node listens and which backends it has. Fresh ones join under the next free name, without a place in any
/// PG: that is for the planner. Known ones are the announcing node's own, or of a node that was removed: the word of one
/// node takes nothing from another, or a single stolen certificate could draw every shard of the cluster to itself.
pub(super) fn with_announcement(
    map: &ClusterMap,
    node: NodeId,
    addresses: &NodeAddresses,
    backends: &[Announced],
) -> Change {
    member(map, node)?;
    let mut next = map.clone();
    for record in next.nodes.iter_mut().filter(|record| record.id == node) {
        record.addresses = addresses.clone();
    }
    let is_given_up = |owner: NodeId| {
        let found = map.nodes.iter().find(|record| record.id == owner);
        found.is_none_or(|record| record.intent == NodeIntent::Removed)
    };
    for announced in backends {
        let owned = next.backends.iter().filter(|record| record.node == node).count();
        match next.backends.iter_mut().find(|record| record.id == announced.id) {
            Some(record) if record.node == node || is_given_up(record.node) => {
                record.node = node;
                record.location.clone_from(&announced.location);
            }
            Some(_) => {}
            None if announced.fresh && owned >= NODE_BACKENDS_MAX => {
                return Err(NodeRefusal::TooManyBackends { node }.into());
            }
            None if announced.fresh => {
                let name = free_name(&next);
                let (id, location) = (announced.id, announced.location.clone());
                next.backends.push(BackendRecord { id, name, location, intent: BackendIntent::Active, node });
            }
            None => {}
        }
    }
    Ok((next != *map).then_some(next))
}

/// The first of d1, d2, ... above all that exist.
fn free_name(map: &ClusterMap) -> String {
    let number = |record: &BackendRecord| record.name.strip_prefix('d')?.split('-').next()?.parse::<u64>().ok();
    let last = map.backends.iter().filter_map(number).max().unwrap_or(0);
    format!("d{}", last.saturating_add(1))
}

/// Notes what the operator wants of a node; `None` if that is noted already. Whether a promise would break by it is not
/// judged here.
pub(crate) fn with_intent(
    map: &ClusterMap,
    node: NodeId,
    intent: NodeIntent,
) -> Result<Option<ClusterMap>, NodeRefusal> {
    let found = match member(map, node) {
        Ok(record) => record.intent,
        Err(NodeRefusal::Removed { .. }) if intent == NodeIntent::Removed => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    if found == intent {
        return Ok(None);
    }
    let stays = |record: &&NodeRecord| record.id != node && record.intent != NodeIntent::Removed;
    let is_led = map.nodes.iter().filter(stays).any(|record| record.roles.has(Role::Coordinator));
    if intent == NodeIntent::Removed && !is_led {
        return Err(NodeRefusal::LastCoordinator { node });
    }
    let mut next = map.clone();
    for record in next.nodes.iter_mut().filter(|record| record.id == node) {
        record.intent = intent;
    }
    Ok(Some(next))
}

/// Applies `make` to the newest map and stores the result, again if somebody else was first. Returns the map as it is
/// afterwards. May be dropped midway: the map is changed or not.
pub(super) async fn change(
    metadata: &dyn Metadata,
    now_ms: u64,
    make: impl Fn(&ClusterMap) -> Change + Send + Sync,
) -> Result<ClusterMap, MembershipError> {
    for attempt in 0..TRIES_MAX {
        let map = metadata.cluster_map().await?.ok_or(MembershipError::NotFounded { missing: "the cluster map" })?;
        let Some(mut next) = make(&map)? else { return Ok(map) };
        let expected = map.table.epoch;
        next.table.epoch = Epoch(expected.0 + 1);
        note_change(&map, &mut next, now_ms);
        match metadata.cluster_map_set(expected, next.clone()).await {
            Ok(()) => return Ok(next),
            Err(MetadataError::StaleEpoch { .. }) => tokio::time::sleep(RETRY_WAIT * (1 << attempt)).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(MetadataError::Unavailable { reason: "the cluster map changes too often".to_owned() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::ClusterId;
    use holdfast_proto::cluster::Roles;
    use holdfast_proto::pg_table::PgTable;

    fn node(number: u64, roles: Roles, intent: NodeIntent) -> NodeRecord {
        NodeRecord {
            id: NodeId(number),
            name: format!("n{number}"),
            roles,
            region: "eu".to_owned(),
            zone: "a".to_owned(),
            addresses: NodeAddresses::default(),
            intent,
            joined_ms: 1,
        }
    }

    fn map(nodes: Vec<NodeRecord>) -> ClusterMap {
        let table = PgTable { epoch: Epoch(3), scheme: [0; 4], pgs: Vec::new() };
        ClusterMap { nodes, ..ClusterMap::new(ClusterId([1; 16]), table) }
    }

    fn announced(id: u8, fresh: bool) -> Announced {
        Announced { id: BackendId([id; 16]), location: format!("disk:/d{id}"), fresh }
    }

    #[test]
    fn a_node_is_taken_in_once_and_in_order() {
        let first = map(vec![node(1, Roles::BOTH, NodeIntent::Active), node(5, Roles::BOTH, NodeIntent::Active)]);
        let next = with_node(&first, &node(3, Roles::BOTH, NodeIntent::Active)).unwrap().unwrap();
        assert_eq!(next.nodes.iter().map(|record| record.id.0).collect::<Vec<_>>(), [1, 3, 5]);
        let changed = NodeRecord { region: "us".to_owned(), ..node(3, Roles::BOTH, NodeIntent::Active) };
        assert_eq!(with_node(&next, &changed).unwrap(), None);
        let unfounded = with_node(&map(Vec::new()), &node(2, Roles::BOTH, NodeIntent::Active)).unwrap_err();
        assert!(matches!(unfounded, MembershipError::NotFounded { .. }));
        let full = map((1..=NODES_MAX as u64).map(|n| node(n, Roles::BOTH, NodeIntent::Active)).collect());
        let refused = with_node(&full, &node(9_999, Roles::BOTH, NodeIntent::Active)).unwrap_err();
        assert_eq!(refused, NodeRefusal::TooMany.into());
    }

    #[test]
    fn a_removed_node_stays_removed() {
        let gone = map(vec![node(1, Roles::BOTH, NodeIntent::Active), node(2, Roles::BOTH, NodeIntent::Removed)]);
        let removed: MembershipError = NodeRefusal::Removed { node: NodeId(2) }.into();
        let back = with_node(&gone, &node(2, Roles::BOTH, NodeIntent::Active));
        assert_eq!(back.unwrap_err(), removed);
        assert_eq!(with_announcement(&gone, NodeId(2), &NodeAddresses::default(), &[]).unwrap_err(), removed);
        for intent in [NodeIntent::Active, NodeIntent::Draining, NodeIntent::Drained] {
            assert_eq!(MembershipError::from(with_intent(&gone, NodeId(2), intent).unwrap_err()), removed);
        }
        assert_eq!(with_intent(&gone, NodeId(2), NodeIntent::Removed).unwrap(), None);
        assert_eq!(removed_nodes(&gone), BTreeSet::from([NodeId(2)]));
    }

    #[test]
    fn the_last_coordinator_cannot_be_removed() {
        let storage = Roles::only(Role::Storage);
        let last = NodeRefusal::LastCoordinator { node: NodeId(1) };
        let cases = [
            (vec![], Err(last.clone())),
            (vec![node(2, storage, NodeIntent::Active)], Err(last.clone())),
            (vec![node(2, Roles::BOTH, NodeIntent::Removed)], Err(last)),
            (vec![node(2, Roles::BOTH, NodeIntent::Active)], Ok(())),
        ];
        for (others, expected) in cases {
            let mut nodes = vec![node(1, Roles::BOTH, NodeIntent::Drained)];
            nodes.extend(others);
            let found = with_intent(&map(nodes), NodeId(1), NodeIntent::Removed);
            assert_eq!(found.map(|next| assert!(next.is_some())), expected);
        }
        let unknown = with_intent(&map(Vec::new()), NodeId(1), NodeIntent::Active).unwrap_err();
        assert_eq!(unknown, NodeRefusal::NoSuchNode { node: NodeId(1) });
    }

    fn fresh_beyond() -> Announced {
        Announced { id: BackendId([0xEE, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), ..announced(0, true) }
    }

    #[test]
    fn announcements_add_fresh_backends_and_take_none_of_another_node() {
        let before = map(vec![node(1, Roles::BOTH, NodeIntent::Active), node(2, Roles::BOTH, NodeIntent::Active)]);
        let addresses = NodeAddresses { data: vec!["10.0.0.2:1".parse().unwrap()], ..NodeAddresses::default() };
        let all = [announced(7, true), announced(8, false)];
        let after = with_announcement(&before, NodeId(2), &addresses, &all).unwrap().unwrap();
        assert_eq!(after.nodes[1].addresses, addresses);
        assert_eq!(after.nodes[0], before.nodes[0]);
        let [backend] = after.backends.as_slice() else { panic!("{:?}", after.backends) };
        assert_eq!((backend.name.as_str(), backend.node, backend.id), ("d1", NodeId(2), BackendId([7; 16])));
        assert_eq!(with_announcement(&after, NodeId(2), &addresses, &all).unwrap(), None, "the same again");

        let claim = |map: &ClusterMap, fresh| {
            with_announcement(map, NodeId(1), &NodeAddresses::default(), &[announced(7, fresh)]).unwrap()
        };
        assert_eq!((claim(&after, false), claim(&after, true)), (None, None), "it is node 2's");
        let mut removed = after.clone();
        removed.nodes[1].intent = NodeIntent::Removed;
        let carried = claim(&removed, false).unwrap();
        assert_eq!((carried.backends[0].node, carried.backends[0].name.as_str()), (NodeId(1), "d1"));
        let flood: Vec<Announced> = (0..=u8::MAX).map(|n| announced(n, true)).chain([fresh_beyond()]).collect();
        let refused = with_announcement(&before, NodeId(2), &addresses, &flood).unwrap_err();
        assert_eq!(refused, NodeRefusal::TooManyBackends { node: NodeId(2) }.into());
        let unknown = with_announcement(&before, NodeId(3), &addresses, &[]).unwrap_err();
        assert_eq!(unknown, NodeRefusal::NoSuchNode { node: NodeId(3) }.into());
    }
}
