//! Clusters for the tests of this folder.

use crate::metadata::{BackendRecord, ClusterMap};
use crate::repair::{Reach, topology};
use holdfast_codec::Scheme;
use holdfast_placement::{initial_layout, strongest_promise};
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::cluster::{NodeAddresses, NodeIntent, NodeRecord, Roles};
use holdfast_proto::node::BackendHealth;
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::{BackendId, ClusterId, Epoch, NodeId};

/// Placement groups of each cluster.
pub(crate) const PG_COUNT: u32 = 32;

/// Backend number `n`, counted from 1 over all nodes.
pub(crate) fn b(n: u8) -> BackendId {
    BackendId([n; 16])
}

/// Node number `n`, in zone `zn` of region `r`.
pub(crate) fn node(n: u64) -> NodeRecord {
    NodeRecord {
        id: NodeId(n),
        name: format!("n{n}"),
        roles: Roles::BOTH,
        region: "r".to_owned(),
        zone: format!("z{n}"),
        addresses: NodeAddresses::default(),
        intent: NodeIntent::Active,
        joined_ms: 0,
    }
}

/// A backend of a node.
pub(crate) fn backend(n: u8, node: u64) -> BackendRecord {
    BackendRecord {
        id: b(n),
        name: format!("d{n}"),
        location: format!("disk:/d{n}"),
        intent: BackendIntent::Active,
        node: NodeId(node),
    }
}

/// A cluster of so many nodes, each a zone of its own with so many backends, that keeps the strongest promise it can.
pub(crate) fn map_of(nodes: u64, per_node: u8, scheme: &str) -> ClusterMap {
    let scheme: Scheme = scheme.parse().unwrap();
    let empty = PgTable { epoch: Epoch(0), scheme: scheme.code(), pgs: Vec::new() };
    let mut map = ClusterMap::new(ClusterId([7; 16]), empty);
    map.nodes = (1..=nodes).map(node).collect();
    for owner in 1..=nodes {
        let first = u8::try_from(owner - 1).unwrap() * per_node + 1;
        map.backends.extend((first..first + per_node).map(|n| backend(n, owner)));
    }
    let topology = topology(&map, &[]).unwrap();
    map.promise = strongest_promise(scheme, &topology);
    let promise = map.promise.or_any_backends(scheme.losses_survived());
    let plan = initial_layout(scheme, PG_COUNT, &promise, &topology).unwrap();
    map.table = plan.table;
    map.proof = Some(plan.proof);
    map
}

/// Every backend answers but these.
pub(crate) fn reach_without(map: &ClusterMap, gone: &[BackendId]) -> Reach {
    let health = |id| if gone.contains(&id) { BackendHealth::Missing } else { BackendHealth::Online };
    Reach::new(map.backends.iter().map(|record| (record.id, health(record.id))))
}
