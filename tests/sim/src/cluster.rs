//! The nodes of a simulation, their network, and the first cluster map.

use crate::bug::Bug;
use crate::disk::{Disk, Shelf};
use crate::node::{Around, CLUSTER, Node, Parts};
use crate::world::World;
use anyhow::{Context, Result, ensure};
use holdfast_codec::Scheme;
use holdfast_coordinator::metadata::{BackendRecord, ClusterMap, Metadata};
use holdfast_coordinator::repair::topology;
use holdfast_placement::{initial_layout, strongest_promise};
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::cluster::{Role, Roles};
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::{BackendId, Epoch, NodeId};
use holdfast_transport::{LinkConditions, LocalNetwork, LocalOptions};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Placement groups: few, so that an inventory costs little.
const PG_COUNT: u32 = 8;
/// The metadata group that knows buckets and the cluster map.
const ROOT: u32 = 0;
/// Longest a cluster may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(180);

/// How large a cluster is, and by what it codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Data shards.
    pub k: usize,
    /// Parity shards.
    pub m: usize,
    /// Nodes: 3 to 25.
    pub nodes: u64,
    /// The first so many are coordinators; the others only keep shards.
    pub coordinators: u64,
    /// Directories of each node.
    pub disks: usize,
}

impl Shape {
    const fn new(k: usize, m: usize, nodes: u64, coordinators: u64, disks: usize) -> Self {
        Self { k, m, nodes, coordinators, disks }
    }

    /// Nine nodes of 4+2.
    pub const NINE: Self = Self::new(4, 2, 9, 3, 1);

    /// One of those that are simulated, most often a small one.
    pub fn of_seed(seed: u64) -> Self {
        const SHAPES: [Shape; 8] = [
            Shape::new(2, 1, 3, 3, 1),
            Shape::new(3, 3, 3, 3, 2),
            Shape::new(2, 2, 4, 3, 1),
            Shape::new(3, 2, 5, 5, 1),
            Shape::new(4, 2, 7, 3, 1),
            Shape::NINE,
            Shape::new(6, 3, 12, 5, 1),
            Shape::new(8, 4, 25, 5, 1),
        ];
        // The large ones cost as much as all others together.
        const WHEEL: [usize; 16] = [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 1, 6, 7];
        SHAPES[WHEEL[usize::try_from(seed % 16).unwrap_or(0)]]
    }
}

/// All nodes.
pub struct Cluster {
    /// How large it is.
    pub shape: Shape,
    /// In the order of their numbers, from 1 on.
    pub nodes: Vec<Arc<Node>>,
    /// The links.
    pub network: LocalNetwork,
    /// The world.
    pub world: Arc<World>,
}

impl Cluster {
    /// Starts every node. On return every coordinator is up, and the metadata has its voters.
    pub async fn start(shape: Shape, seed: u64, bug: Option<Bug>, world: Arc<World>) -> Result<Arc<Self>> {
        let options = LocalOptions { seed, ..LocalOptions::default() };
        let network = LocalNetwork::new(options);
        network.set_every_link(usual_link());
        let nodes: Vec<Arc<Node>> = (1..=shape.nodes).map(|number| make_node(shape, number, bug, &world)).collect();
        let map = first_map(shape, &nodes)?;
        nodes[0].set_first_map(map);
        let cluster = Arc::new(Self { shape, nodes, network, world });
        for node in &cluster.nodes {
            cluster.start_node(node);
        }
        cluster.wait_for_voters().await?;
        Ok(cluster)
    }

    /// Starts a node that does not run.
    pub fn start_node(&self, node: &Arc<Node>) {
        node.start(&Around { network: self.network.clone() });
    }

    /// Every coordinator that is up.
    pub fn coordinators(&self) -> Vec<Parts> {
        self.nodes.iter().filter_map(|node| node.parts()).collect()
    }

    /// The directory in which a backend lies.
    pub fn disk_of(&self, backend: BackendId) -> Option<&Arc<Disk>> {
        self.disks().find(|disk| disk.backend() == Some(backend))
    }

    /// All directories.
    pub fn disks(&self) -> impl Iterator<Item = &Arc<Disk>> {
        self.nodes.iter().flat_map(|node| node.shelf.disks())
    }

    /// All node numbers.
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id()).collect()
    }

    async fn wait_for_voters(&self) -> Result<()> {
        let wanted = if self.shape.coordinators >= 5 { 5 } else { 3 };
        let begun = Instant::now();
        loop {
            let up = self.coordinators();
            let is_up = up.len() as u64 == self.shape.coordinators;
            if is_up
                && up.iter().all(|parts| parts.store.voters().get(&ROOT).is_some_and(|voters| voters.len() == wanted))
            {
                return Ok(());
            }
            ensure!(begun.elapsed() < UP_WITHIN, "{} coordinators are up after {UP_WITHIN:?}", up.len());
            sleep(Duration::from_millis(500)).await;
        }
    }
}

/// A link that nothing is wrong with.
pub fn usual_link() -> LinkConditions {
    let (delay, jitter) = (Duration::from_micros(300), Duration::from_millis(1));
    LinkConditions { delay, jitter, ..LinkConditions::default() }
}

fn make_node(shape: Shape, number: u64, bug: Option<Bug>, world: &Arc<World>) -> Arc<Node> {
    let disk = |at: usize| Disk::new(format!("disk:/n{number}/d{at}"), world.clone(), bug);
    let disks: Vec<Arc<Disk>> = (1..=shape.disks).map(disk).collect();
    for (at, disk) in (1u8..).zip(&disks) {
        let mut id = [at; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        disk.format(CLUSTER, BackendId(id));
    }
    let roles = if number <= shape.coordinators { Roles::BOTH } else { Roles::only(Role::Storage) };
    Node::new(number, roles, format!("z{number}"), Shelf::new(disks), world.clone(), bug)
}

/// Every node and directory in one map with a proven layout.
fn first_map(shape: Shape, nodes: &[Arc<Node>]) -> Result<ClusterMap> {
    let scheme = Scheme::reed_solomon(shape.k, shape.m).context("use the scheme")?;
    let disks = nodes.iter().flat_map(|node| node.shelf.disks().iter().map(move |disk| (node.id(), disk)));
    let backends = disks.zip(1..).filter_map(|((node, disk), number)| {
        Some(BackendRecord {
            id: disk.backend()?,
            name: format!("d{number}"),
            location: disk.location.clone(),
            intent: BackendIntent::Active,
            node,
        })
    });
    let empty = PgTable { epoch: Epoch(0), scheme: scheme.code(), pgs: Vec::new() };
    let mut map = ClusterMap::new(CLUSTER, empty);
    map.nodes = nodes.iter().map(|node| node.record.clone()).collect();
    map.backends = backends.collect();
    let topology = topology(&map, &[]).context("place the nodes")?;
    let promise = strongest_promise(scheme, &topology);
    let in_full = promise.or_any_backends(scheme.losses_survived());
    let layout = initial_layout(scheme, PG_COUNT, &in_full, &topology).context("plan the first layout")?;
    map.table = layout.table;
    map.proof = Some(layout.proof);
    map.promise = promise;
    Ok(map)
}

/// Stores the map of a new cluster; its epoch is the first there is.
pub(crate) async fn store_first_map(metadata: &dyn Metadata, mut map: ClusterMap) -> Result<()> {
    map.table.epoch = Epoch(1);
    metadata.cluster_map_set(Epoch(0), map).await.context("store the first map")
}
