//! A node that keeps shards and nothing else: no metadata, no S3.

use super::banner::{Banner, ClusterPlace};
use super::cluster::network::Network;
use super::cluster::{announce, backend_list, map_watch};
use super::config::ServerConfig;
use super::lock::DataDirectory;
use super::running::Running;
use super::startup::{failed, open_node, report_backends};
use crate::failure::Failure;
use holdfast_coordinator::layout::Layout;
use holdfast_coordinator::metadata::ClusterMap;
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::rpc::{Plane, Rpc};
use holdfast_proto::{Epoch, NodeId};
use holdfast_storage_node::{Fence, FencedNode, LocalNode, NodeService, ServeLimits};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What a storage node runs before its endpoints.
pub(crate) struct StorageNode {
    node: Arc<LocalNode>,
    network: Arc<Network>,
    banner: Banner,
}

/// RPCs of the data plane that the keeper of shards serves.
pub(crate) fn data_rpcs() -> Vec<Rpc> {
    Rpc::ALL.iter().copied().filter(|rpc| rpc.plane() == Plane::Data && *rpc != Rpc::FaultSet).collect()
}

/// Has the data plane served by `node` behind its fence.
pub(crate) fn serve_data(
    network: &Network,
    node: Arc<dyn holdfast_proto::node::NodeClient>,
    lock: &DataDirectory,
) -> Result<FencedNode, Failure> {
    let open = |name: &str| Fence::open(Some(lock.path().join("node").join(name)));
    let fence = open("fence").map_err(|e| failed("read the fence", &e))?;
    let listed = open("listed").map_err(|e| failed("read the epoch of the last listing", &e))?;
    let fenced = FencedNode::new(node, fence, listed);
    let service = NodeService::new(network.own(), fenced.clone(), ServeLimits::default());
    network.services.serve(&data_rpcs(), Arc::new(service));
    Ok(fenced)
}

/// Opens the backends, serves the data plane, and has the cluster told.
pub(crate) async fn start(
    config: &ServerConfig,
    lock: &DataDirectory,
    network: Arc<Network>,
    admin: SocketAddr,
    shutdown: CancellationToken,
) -> Result<StorageNode, Failure> {
    let cluster = network.identity.cluster;
    let specs = backend_list::ensure(config, &network.files, cluster, network.clock.now_ms())?;
    tokio::spawn(network.faults.clone().run(shutdown.clone()));
    let node = open_node(cluster, specs, &network.faults).await;
    let (backends, backends_online) = report_backends(node.as_ref()).await;
    let changed = Arc::new(Notify::new());
    let listed =
        backend_list::ListedNode { node: node.clone(), files: network.files.clone(), changed: changed.clone() };
    serve_data(&network, Arc::new(listed), lock)?;

    // Until a map comes: the nodes that were last known, at an epoch that every map is newer than.
    let table = PgTable { epoch: Epoch(0), scheme: [0; 4], pgs: Vec::new() };
    let nodes = network.files.nodes()?;
    let layout = Layout::new(ClusterMap { nodes, ..ClusterMap::new(cluster, table) });
    let own = network.own();
    let known = layout.clone();
    let coordinators = move || -> Vec<NodeId> { map_watch::coordinators(&known.current().nodes, own) };
    tokio::spawn(map_watch::fetch(network.clone(), layout, shutdown.clone()));
    let addresses = network.addresses(String::new(), format!("http://{}", super::lock::reachable(admin)));
    tokio::spawn(announce::run(network.clone(), addresses, coordinators.clone(), changed, shutdown.clone()));
    tokio::spawn(super::startup::renewals(&network, Box::new(coordinators)).run());

    let banner = Banner {
        s3: None,
        admin,
        tls: false,
        region: network.identity.region.clone(),
        data_dir: lock.path().to_owned(),
        promise: None,
        backends,
        backends_online,
        cluster: Some(ClusterPlace::of(&network)),
        root_key: None,
    };
    Ok(StorageNode { node, network, banner })
}

impl StorageNode {
    /// With its endpoint.
    pub(crate) fn running(self, admin: JoinHandle<()>, shutdown: CancellationToken) -> Running {
        Running {
            banner: self.banner,
            shutdown,
            s3: None,
            admin,
            keeper: None,
            node: Some(self.node),
            metadata: None,
            network: Some(self.network),
        }
    }
}
