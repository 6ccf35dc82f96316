//! One node: what outlives its process (metadata disk, directories, fences, its clock), and the process, wired from the
//! parts a server is made of, in the order of a server's start (`cli/src/server/startup.rs`).
//!
//! Left out: S3 over HTTP, administration over HTTP, QUIC with its certificates, joining by token, health pings (which
//! nothing acts on). Clients call the object path and the metadata, as the S3 operations do.

use crate::bug::{self, Bug};
use crate::cluster::store_first_map;
use crate::disk::Shelf;
use crate::link::{Services, WayOut};
use crate::world::World;
use holdfast_coordinator::layout::Layout;
use holdfast_coordinator::leader::{Leader, LeaderView};
use holdfast_coordinator::maintenance::{KeptView, MaintenanceOptions, MaintenanceParts, keep};
use holdfast_coordinator::metadata::{
    ClusterMap, METADATA_RPCS, Metadata, MetadataFiles, MetadataStore, NodeOptions, SimulatedDisk,
};
use holdfast_coordinator::object_path::{ObjectPath, ObjectPathOptions};
use holdfast_coordinator::peers::{ClusterActivity, HintRelay, PeerService};
use holdfast_coordinator::runtime::{ClusterNodes, ClusterNodesOptions};
use holdfast_coordinator::surroundings::{Computing, Surroundings};
use holdfast_proto::cluster::{NodeAddresses, NodeIdentity, NodeIntent, NodeRecord, Role, Roles};
use holdfast_proto::node::NodeClient;
use holdfast_proto::rpc::{Plane, Rpc};
use holdfast_proto::{ClusterId, NodeId};
use holdfast_storage_node::{BackendSpec, Fence, FencedNode, LocalNode, LocalNodeOptions, NodeService, ServeLimits};
use holdfast_transport::{LocalNetwork, Transport};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The cluster of every simulation.
pub const CLUSTER: ClusterId = ClusterId([0x51; 16]);
/// Damage met by requests that may wait to be passed on, as in a server.
const HINTS_MAX: usize = 4096;
/// How often a coordinator looks for a newer map in its own metadata, as in a server.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// Between looks for the first map.
const MAP_WAIT: Duration = Duration::from_millis(200);
/// Object bytes of a full segment: small, so that objects of several segments cost little.
const SEGMENT_BYTES: u64 = 24 << 10;
/// Scrub finds rot within a run: in a server every two weeks.
const SCRUB_PERIOD: Duration = Duration::from_secs(5 * 60);

/// What outlives a node's processes.
pub struct Node {
    /// Its entry in the cluster map.
    pub record: NodeRecord,
    /// Its directories.
    pub shelf: Arc<Shelf>,
    /// How far its clock is off, in milliseconds.
    pub clock_offset: Arc<AtomicI64>,
    metadata_disk: Arc<SimulatedDisk>,
    /// What a server keeps in the files `node/fence` and `node/listed`.
    fences: [Arc<Fence>; 2],
    world: Arc<World>,
    bug: Option<Bug>,
    /// Of the node that makes the cluster, until it has stored it.
    first_map: Mutex<Option<ClusterMap>>,
    process: Mutex<Option<Process>>,
}

/// A running process.
struct Process {
    life: CancellationToken,
    /// Once it has come up; never on a node that is no coordinator.
    parts: Arc<Mutex<Option<Parts>>>,
}

/// What clients and checks use of a coordinator.
#[derive(Clone)]
pub struct Parts {
    /// Of this node.
    pub node: NodeId,
    /// Ends with the process.
    pub life: CancellationToken,
    /// Metadata, as requests see it.
    pub metadata: Arc<dyn Metadata>,
    /// The store behind it.
    pub store: MetadataStore,
    /// Objects.
    pub objects: ObjectPath,
    /// Maintenance while this coordinator leads.
    pub kept: KeptView,
    /// The newest map it knows.
    pub layout: Layout,
}

/// What a process takes from the cluster around it.
#[derive(Clone)]
pub struct Around {
    /// The network.
    pub network: LocalNetwork,
}

impl Node {
    /// A node with these directories, not running.
    pub fn new(
        number: u64,
        roles: Roles,
        zone: String,
        shelf: Shelf,
        world: Arc<World>,
        bug: Option<Bug>,
    ) -> Arc<Self> {
        let record = NodeRecord {
            id: NodeId(number),
            name: format!("n{number}"),
            roles,
            region: "r".to_owned(),
            zone,
            addresses: NodeAddresses::default(),
            intent: NodeIntent::Active,
            joined_ms: world.now_ms(),
        };
        let sync = world.between(Duration::from_millis(1), Duration::from_millis(6));
        Arc::new(Self {
            record,
            shelf: Arc::new(shelf),
            clock_offset: Arc::default(),
            metadata_disk: SimulatedDisk::new(sync),
            fences: [fence(), fence()],
            world,
            bug,
            first_map: Mutex::default(),
            process: Mutex::default(),
        })
    }

    /// Has its first process make the cluster with this map.
    pub fn set_first_map(&self, map: ClusterMap) {
        *self.first_map.lock() = Some(map);
    }

    /// Its number.
    pub fn id(&self) -> NodeId {
        self.record.id
    }

    /// Whether it keeps metadata and serves clients.
    pub fn is_coordinator(&self) -> bool {
        self.record.roles.has(Role::Coordinator)
    }

    /// Whether a process runs.
    pub fn is_running(&self) -> bool {
        self.process.lock().is_some()
    }

    /// The coordinator, if it is up.
    pub fn parts(&self) -> Option<Parts> {
        self.process.lock().as_ref()?.parts.lock().clone()
    }

    /// Starts a process; it comes up by itself.
    pub fn start(self: &Arc<Self>, around: &Around) {
        let life = CancellationToken::new();
        let parts = Arc::new(Mutex::new(None));
        let (node, around) = (self.clone(), around.clone());
        let (ends, filled) = (life.clone(), parts.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = ends.cancelled() => {}
                () = node.clone().come_up(around, ends.clone(), filled) => {}
            }
        });
        *self.process.lock() = Some(Process { life, parts });
    }

    /// The process ends without warning: what was not synced may be lost.
    pub fn crash(&self, network: &LocalNetwork) {
        let Some(Process { life, parts }) = self.process.lock().take() else { return };
        network.kill(self.id());
        life.cancel();
        let unsynced = self.metadata_disk.unsynced();
        self.metadata_disk.crash(self.world.index(unsynced + 1));
        self.shelf.disks().iter().for_each(|disk| disk.crash());
        let ended = parts.lock().take();
        if let Some(parts) = ended {
            // What it still does reaches neither disk nor network; this only frees its tasks.
            tokio::spawn(async move { parts.store.shutdown().await });
        }
    }

    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            cluster: CLUSTER,
            node: self.id(),
            roles: self.record.roles,
            region: self.record.region.clone(),
            zone: self.record.zone.clone(),
        }
    }

    fn surroundings(&self) -> Surroundings {
        let (world, offset) = (self.world.clone(), self.clock_offset.clone());
        let random = self.world.clone();
        Surroundings {
            clock: Arc::new(move || world.now_ms().saturating_add_signed(offset.load(Ordering::Relaxed))),
            random: Arc::new(move || random.random()),
            computing: Computing::Inline,
        }
    }

    fn specs(&self) -> Vec<BackendSpec> {
        let disks = self.shelf.disks().iter().zip(1..);
        let made = disks.filter_map(|(disk, number)| Some((disk.backend()?, disk, number)));
        made.map(|(id, disk, number)| BackendSpec {
            id,
            name: format!("{}-{number}", self.record.name),
            location: disk.location.clone(),
        })
        .collect()
    }

    async fn come_up(self: Arc<Self>, around: Around, life: CancellationToken, filled: Arc<Mutex<Option<Parts>>>) {
        let services = Services::new(self.id(), self.world.clone());
        let inner = around.network.join(self.identity(), services.clone());
        let transport: Arc<dyn Transport> = Arc::new(WayOut { inner, life: life.clone() });
        let local_options = LocalNodeOptions { opener: self.shelf.clone(), ..LocalNodeOptions::default() };
        let store = match self.is_coordinator() {
            true => Some(self.open_metadata(transport.clone(), &services).await),
            false => None,
        };
        let local = LocalNode::open(CLUSTER, self.specs(), local_options).await;
        let [fence, listed] = self.fences.clone();
        let fenced = FencedNode::new(Arc::new(local.clone()), fence, listed);
        let data: Vec<Rpc> = Rpc::ALL.iter().copied().filter(|rpc| rpc.plane() == Plane::Data).collect();
        services.serve(&data, Arc::new(NodeService::new(self.id(), fenced.clone(), ServeLimits::default())));
        if let Some(store) = store {
            let parts = self.coordinate(store, Arc::new(fenced), transport, &services, &life).await;
            self.world.note(format_args!("up {}", self.id()));
            *filled.lock() = Some(parts);
        }
        // Dropped with the process, the node closes its backends.
        life.cancelled().await;
        tokio::spawn(async move { local.shutdown().await });
    }

    async fn open_metadata(&self, transport: Arc<dyn Transport>, services: &Services) -> MetadataStore {
        loop {
            let files = MetadataFiles::Simulated(self.metadata_disk.clone());
            let transport = transport.clone();
            let options = NodeOptions { files, node: self.id(), cluster: CLUSTER, range_bytes_max: None, transport };
            let opened = match self.id() == NodeId::FIRST {
                true => MetadataStore::open_first(options).await,
                false => MetadataStore::join(options).await,
            };
            match opened {
                Ok(store) => {
                    // At once: the other voters may be waiting for this one.
                    services.serve(METADATA_RPCS, Arc::new(store.consensus_service()));
                    return store;
                }
                Err(error) => self.world.note(format_args!("{} does not open its metadata: {error}", self.id())),
            }
            tokio::time::sleep(MAP_WAIT).await;
        }
    }

    /// The coordinator's parts, once there is a map.
    async fn coordinate(
        &self,
        store: MetadataStore,
        local: Arc<dyn NodeClient>,
        transport: Arc<dyn Transport>,
        services: &Services,
        life: &CancellationToken,
    ) -> Parts {
        let metadata: Arc<dyn Metadata> = Arc::new(store.clone());
        let first = self.first_map.lock().take();
        if let Some(map) = first
            && let Err(error) = store_first_map(metadata.as_ref(), map).await
        {
            self.world.violation(format_args!("the cluster could not be made: {error:#}"));
        }
        let layout = Layout::new(bug::plant_in_map(self.bug, wait_for_map(&store).await));
        let surroundings = self.surroundings();
        let nodes: Arc<dyn NodeClient> = Arc::new(ClusterNodes::new(
            self.id(),
            Some(local),
            transport.clone(),
            layout.clone(),
            ClusterNodesOptions::default(),
        ));
        let nodes = bug::plant_in_nodes(self.bug, nodes);
        let (hints, damage) = mpsc::channel(HINTS_MAX);
        let options = ObjectPathOptions {
            segment_bytes: SEGMENT_BYTES,
            surroundings: surroundings.clone(),
            ..ObjectPathOptions::default()
        };
        let objects = ObjectPath::new(metadata.clone(), nodes.clone(), layout.clone(), options, hints);
        let own = self.id();
        let known = layout.clone();
        let others = move || {
            let map = known.current();
            let coordinators = map.nodes.iter().filter(|node| node.roles.has(Role::Coordinator));
            coordinators.map(|node| node.id).filter(|&node| node != own).collect()
        };
        let activity = ClusterActivity {
            own: Arc::new(objects.clone()),
            layout: layout.clone(),
            metadata: metadata.clone(),
            transport: transport.clone(),
            others: Arc::new(others),
            silent: Default::default(),
        };
        let parts = MaintenanceParts {
            metadata: metadata.clone(),
            node: nodes,
            layout: layout.clone(),
            rebuilder: bug::plant_in_rebuilder(self.bug, Arc::new(objects.clone())),
            activity: Arc::new(activity),
        };
        let leader: LeaderView = {
            let store = store.clone();
            Arc::new(move || store.leader())
        };
        let (leads, leading) = watch::channel(false);
        let options = MaintenanceOptions { scrub_period: SCRUB_PERIOD, surroundings, ..MaintenanceOptions::default() };
        let (kept, _keeper) = keep(parts, options, leading, life.clone());
        let relay = HintRelay { hints: damage, leader, kept: kept.clone(), transport };
        tokio::spawn(relay.run());
        tokio::spawn(follow(store.clone(), layout.clone(), leads, life.clone(), self.bug));
        let peers = PeerService { objects: objects.clone(), layout: layout.clone(), kept: kept.clone() };
        services.serve(&[Rpc::Activity, Rpc::DamageHints], Arc::new(peers));
        Parts { node: self.id(), life: life.clone(), metadata, store, objects, kept, layout }
    }
}

/// Durable by being kept with the node: what a file would be.
fn fence() -> Arc<Fence> {
    Fence::open(None).expect("without a file nothing is read")
}

async fn wait_for_map(store: &MetadataStore) -> ClusterMap {
    loop {
        if let Ok(Ok(Some(map))) = tokio::time::timeout(Duration::from_secs(10), store.cluster_map()).await {
            return map;
        }
        tokio::time::sleep(MAP_WAIT).await;
    }
}

/// Brings newer maps to the layout, and says whether this coordinator leads, as `cli/src/server/cluster/map_watch.rs`.
async fn follow(
    store: MetadataStore,
    layout: Layout,
    leads: watch::Sender<bool>,
    life: CancellationToken,
    bug: Option<Bug>,
) {
    let mut ticks = tokio::time::interval(LOOK_PERIOD);
    let mut seen = None;
    loop {
        tokio::select! {
            biased;
            () = life.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let applied = store.root_applied();
        if seen != Some(applied)
            && let Ok(Some(map)) = store.known_cluster_map()
        {
            seen = Some(applied);
            if map.table.epoch > layout.current().table.epoch {
                layout.advance(bug::plant_in_map(bug, map));
            }
        }
        let is_leading = store.leader() == Leader::Here && bug != Some(Bug::NobodyMaintains);
        leads.send_if_modified(|leads| std::mem::replace(leads, is_leading) != is_leading);
    }
}
