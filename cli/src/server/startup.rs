//! The wiring of a coordinator: which parts it has, in which order they start. With `storage_only`, the only file that
//! knows them all.
//!
//! Order of a start: listeners (so that a taken port costs nothing), the node's place in its cluster, metadata, backends,
//! cluster map, root key, object path, maintenance, endpoints. A stop (`running`) goes the other way.

use super::banner::{Banner, ClusterPlace};
use super::cluster::network::Network;
use super::cluster::{announce, map_watch, metadata_owner};
use super::config::{SchemeShape, ServerConfig};
use super::credentials::{self, RootKey};
use super::faults::Faults;
use super::local_backends;
use super::lock::{DataDirectory, reachable};
use super::member::Member;
use super::operations::MaintainedStore;
use super::running::Running;
use super::storage_only::{self, serve_data};
use super::{metrics, tls};
use crate::failure::Failure;
use holdfast_codec::Scheme;
use holdfast_coordinator::admin::{self, AdminParts, Code, FaultParts, Forwarding, MembershipParts};
use holdfast_coordinator::health::{HealthOptions, HealthWatch};
use holdfast_coordinator::layout::Layout;
use holdfast_coordinator::leader::{Leader, LeaderView};
use holdfast_coordinator::maintenance::{MaintenanceOptions, MaintenanceParts, ServerFacts, keep};
use holdfast_coordinator::membership::{MembershipService, Renewals};
use holdfast_coordinator::metadata::{ClusterMap, METADATA_RPCS, Metadata, MetadataFiles, MetadataStore, NodeOptions};
use holdfast_coordinator::object_path::{ObjectPath, ObjectPathOptions};
use holdfast_coordinator::peers::{ClusterActivity, HintRelay, PeerService};
use holdfast_coordinator::runtime::{ClusterNodes, ClusterNodesOptions};
use holdfast_coordinator::s3::operations::{S3Options, service};
use holdfast_coordinator::s3::server::{S3ServerOptions, serve};
use holdfast_coordinator::surroundings::system_clock;
use holdfast_proto::cluster::Role;
use holdfast_proto::manifest::AccessKey;
use holdfast_proto::node::{BackendHealth, NodeClient};
use holdfast_proto::rpc::Rpc;
use holdfast_proto::{ClusterId, NodeId};
use holdfast_storage_node::{BackendSpec, DiskOpener, LocalNode, LocalNodeOptions};
use rand::Rng;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Damage met by requests that may wait to be passed on; more is dropped, as inventories find it anyway.
const HINTS_MAX: usize = 4096;
/// Between looks for the cluster map on a node that has just joined.
const MAP_WAIT: Duration = Duration::from_millis(200);
/// How often it is said that the map has not come.
const MAP_COMPLAINT: Duration = Duration::from_secs(10);

/// What the control plane asks of membership.
const MEMBERSHIP_RPCS: &[Rpc] = &[Rpc::Join, Rpc::Renew, Rpc::ClusterMap, Rpc::Announce];

/// Starts every part.
pub(crate) async fn start(config: ServerConfig, lock: &DataDirectory) -> Result<Running, Failure> {
    let tls = config.tls.as_ref().map(tls::load).transpose()?;
    let (s3_listener, s3_address) = listen(config.s3_listen, "S3", "--s3-listen").await?;
    let (admin_listener, admin_address) = listen(config.admin_listen, "administration", "--admin-listen").await?;
    let recorder = metrics::install()?;
    let clock = system_clock();
    let shutdown = CancellationToken::new();
    tokio::spawn(metrics::keep(recorder.clone(), shutdown.clone()));

    let mut member = Member::open(&config, clock.clone()).await?;
    if let Some(network) = member.network.clone().filter(|network| !network.identity.roles.has(Role::Coordinator)) {
        drop(s3_listener);
        let node = storage_only::start(&config, lock, network, admin_address, shutdown.clone()).await?;
        let router = admin::storage_node_router(metrics::renderer(recorder));
        let admin = tokio::spawn(admin::serve(admin_listener, router, shutdown.clone()));
        announce_admin(lock, admin_address);
        return Ok(node.running(admin, shutdown));
    }

    let store = open_metadata(lock, &member, config.range_bytes_max, clock()).await?;
    let metadata: Arc<dyn Metadata> = Arc::new(store.clone());
    let (node, map) = match member.is_first() {
        true => {
            let cluster = store.cluster_id();
            local_backends::of_first_node(&config, lock, &member, cluster, &store, clock()).await?
        }
        false => local_backends::of_joined_node(&config, &member, &store).await?,
    };
    if member.found(&config, &store).await?
        && let Some(network) = &member.network
    {
        metadata_owner::note(lock.path(), &network.identity)?;
        serve_metadata(&member, &store);
    }
    let map = metadata.cluster_map().await.map_err(|e| failed("read the cluster map", &e))?.unwrap_or(map);
    let scheme = Scheme::from_code(map.table.scheme).map_err(|e| failed("read the cluster map's scheme", &e))?;
    let shape = SchemeShape { k: scheme.k(), m: scheme.m() };
    let root_key = match member.is_first() {
        true => ensure_root_key(metadata.as_ref(), lock, clock()).await?,
        false => None,
    };
    let (backends, backends_online) = match &node {
        Some(node) => report_backends(node.as_ref()).await,
        None => (0, 0),
    };

    let layout = Layout::new(map);
    let leader: LeaderView = {
        let store = store.clone();
        Arc::new(move || store.leader())
    };
    let changed = Arc::new(Notify::new());
    let nodes = all_nodes(&member, node.clone(), &layout, lock, &changed)?;
    let (hints, damage) = mpsc::channel(HINTS_MAX);
    let objects = ObjectPath::new(metadata.clone(), nodes.clone(), layout.clone(), object_options(&config), hints);
    let others = other_coordinators(&layout, member.own());
    let activity = ClusterActivity {
        own: Arc::new(objects.clone()),
        layout: layout.clone(),
        metadata: metadata.clone(),
        transport: member.late.clone(),
        others,
        silent: Default::default(),
    };
    let parts = MaintenanceParts {
        metadata: metadata.clone(),
        node: nodes.clone(),
        layout: layout.clone(),
        rebuilder: Arc::new(objects.clone()),
        activity: Arc::new(activity),
    };
    let is_leading = store.leader() == Leader::Here;
    let (leads, leading) = watch::channel(is_leading);
    tokio::spawn(member.faults.clone().run(shutdown.clone()));
    let (kept, keeper) = keep(parts, maintenance_options(&config), leading, shutdown.clone());
    let relay = HintRelay { hints: damage, leader: leader.clone(), kept: kept.clone(), transport: member.late.clone() };
    tokio::spawn(relay.run());
    tokio::spawn(map_watch::follow(store.clone(), layout.clone(), member.network.clone(), leads, shutdown.clone()));

    let s3_endpoint = format!("{}://{}", if tls.is_some() { "https" } else { "http" }, reachable(s3_address));
    let mut membership = None;
    if let Some(network) = &member.network {
        let services = &network.services;
        let peers = PeerService { objects: objects.clone(), layout: layout.clone(), kept: kept.clone() };
        services.serve(&[Rpc::Activity, Rpc::DamageHints], Arc::new(peers));
        let service = MembershipService::new(Arc::new(store.clone()), network.own(), network.clock.clone());
        services.serve(MEMBERSHIP_RPCS, Arc::new(service));
        let health = HealthWatch::new(network.own(), network.transport(), layout.clone(), HealthOptions::default());
        services.serve(&[Rpc::ConsensusPing], health.clone());
        tokio::spawn(health.clone().run(shutdown.clone()));
        let (known, own) = (layout.clone(), network.own());
        let coordinators = move || map_watch::coordinators(&known.current().nodes, own);
        let addresses = network.addresses(s3_endpoint.clone(), format!("http://{}", reachable(admin_address)));
        let announcing = announce::run(network.clone(), addresses, coordinators.clone(), changed, shutdown.clone());
        tokio::spawn(announcing);
        tokio::spawn(renewals(network, Box::new(coordinators)).run());
        membership = Some(MembershipParts {
            metadata: Arc::new(store.clone()),
            health,
            own,
            layout: layout.clone(),
            leader: leader.clone(),
            voters: {
                let store = store.clone();
                Arc::new(move || store.voters())
            },
            node: nodes.clone(),
        });
    }
    let facts = ServerFacts { version: env!("CARGO_PKG_VERSION").to_owned(), s3_endpoint };
    let operations = Arc::new(MaintainedStore { kept, facts });
    let (router, forwarded) = admin::router(AdminParts {
        operations: operations.clone(),
        layout: operations,
        metadata: metadata.clone(),
        render_metrics: metrics::renderer(recorder),
        clock,
        writable_backends_min: shape.k + 1,
        forwarding: member.network.as_ref().map(|network| Forwarding { leader, transport: network.transport() }),
        node: nodes,
        membership,
        faults: FaultParts {
            station: member.faults.clone(),
            own: member.own(),
            peers: member.network.as_ref().map(|network| network.transport()),
            layout: layout.clone(),
        },
    });
    if let Some(network) = &member.network {
        network.services.serve(&[Rpc::AdminForward], Arc::new(forwarded));
    }

    let banner = Banner {
        s3: Some(s3_address),
        admin: admin_address,
        tls: tls.is_some(),
        region: config.region.clone(),
        data_dir: lock.path().to_owned(),
        promise: Some((shape.to_string(), shape.m)),
        backends,
        backends_online,
        cluster: member.network.as_deref().map(ClusterPlace::of),
        root_key,
    };
    let s3_service = service(metadata.clone(), objects, S3Options { region: config.region.clone() });
    let options = S3ServerOptions { region: config.region, domains: config.domains, tls, ..S3ServerOptions::default() };
    let s3 = {
        let (metadata, shutdown) = (metadata.clone(), shutdown.clone());
        tokio::spawn(async move {
            serve(s3_listener, options, metadata, s3_service, shutdown).await.map_err(|e| e.to_string())
        })
    };
    let admin = tokio::spawn(admin::serve(admin_listener, router, shutdown.clone()));
    announce_admin(lock, admin_address);
    Ok(Running {
        banner,
        shutdown,
        s3: Some(s3),
        admin,
        keeper: Some(keeper),
        node,
        metadata: Some(metadata),
        network: member.network,
    })
}

/// The metadata of this node: its own, or fed by the cluster it joined.
async fn open_metadata(
    lock: &DataDirectory,
    member: &Member,
    range_bytes_max: Option<u64>,
    now_ms: u64,
) -> Result<MetadataStore, Failure> {
    let files = MetadataFiles::Directory(lock.path().join("metadata"));
    let cluster = match &member.network {
        Some(network) => {
            metadata_owner::check(lock.path(), &network.identity)?;
            network.identity.cluster
        }
        None => ClusterId::from_parts(now_ms, rand::rng().random()),
    };
    let transport = member.late.clone();
    let options = NodeOptions { files, node: member.own(), cluster, range_bytes_max, transport };
    let opened = match member.is_first() {
        true => MetadataStore::open_first(options).await,
        false => MetadataStore::join(options).await,
    };
    let store = opened.map_err(|e| failed("open the metadata", &e))?;
    if let Some(network) = &member.network {
        metadata_owner::note(lock.path(), &network.identity)?;
    }
    // At once: the other voters may be waiting for this one.
    serve_metadata(member, &store);
    Ok(store)
}

/// Has the consensus plane served, if this node has one by now.
fn serve_metadata(member: &Member, store: &MetadataStore) {
    if let Some(network) = &member.network {
        network.services.serve(METADATA_RPCS, Arc::new(store.consensus_service()));
    }
}

/// Waits for the cluster map, which a node that has just joined is sent. Whoever leads may be a node that this one has
/// never heard of; it has heard of this one, and sends what it needs to be asked.
pub(crate) async fn wait_for_map(store: &MetadataStore, network: Option<&Network>) -> ClusterMap {
    let mut complain_at = tokio::time::Instant::now() + MAP_COMPLAINT;
    let epoch = |map: &ClusterMap| map.table.epoch;
    // As old as this node's last moment, or older: the file of nodes knows better.
    let mut met = store.known_cluster_map().ok().flatten().as_ref().map(epoch);
    loop {
        let why = match tokio::time::timeout(MAP_COMPLAINT, store.cluster_map()).await {
            Ok(Ok(Some(map))) => return map,
            Ok(Ok(None)) => "it has not been sent yet".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the other coordinators do not answer".to_owned(),
        };
        if let (Some(network), Ok(Some(known))) = (network, store.known_cluster_map())
            && met < Some(epoch(&known))
        {
            met = Some(epoch(&known));
            network.meet(&known.nodes);
        }
        if tokio::time::Instant::now() >= complain_at {
            tracing::warn!(why, "waiting for the cluster map; are enough coordinators running and reachable?");
            complain_at += MAP_COMPLAINT;
        }
        tokio::time::sleep(MAP_WAIT).await;
    }
}

/// Every storage node as one: this process's own behind its fence, the others over the network.
fn all_nodes(
    member: &Member,
    node: Option<Arc<LocalNode>>,
    layout: &Layout,
    lock: &DataDirectory,
    changed: &Arc<Notify>,
) -> Result<Arc<dyn NodeClient>, Failure> {
    let Some(network) = &member.network else {
        let node = node.ok_or_else(|| Failure::new(Code::StartFailed, "a server that is alone has no backends"))?;
        return Ok(node);
    };
    let local = match node {
        Some(node) => {
            let served: Arc<dyn NodeClient> = match member.is_first() {
                true => node,
                false => local_backends::listed(node, network, changed),
            };
            let fenced: Arc<dyn NodeClient> = Arc::new(serve_data(network, served, lock)?);
            Some(fenced)
        }
        None => None,
    };
    let options = ClusterNodesOptions::default();
    Ok(Arc::new(ClusterNodes::new(network.own(), local, network.transport(), layout.clone(), options)))
}

/// The coordinators of the newest map but this one.
fn other_coordinators(layout: &Layout, own: NodeId) -> Arc<dyn Fn() -> Vec<NodeId> + Send + Sync> {
    let layout = layout.clone();
    Arc::new(move || {
        let mut found = map_watch::coordinators(&layout.current().nodes, own);
        found.retain(|&node| node != own);
        found
    })
}

/// Keeps the node's certificate young.
pub(crate) fn renewals(network: &Arc<Network>, coordinators: Box<dyn Fn() -> Vec<NodeId> + Send + Sync>) -> Renewals {
    let files = network.files.clone();
    Renewals {
        live: network.live.clone(),
        transport: network.transport(),
        coordinators,
        keep: Box::new(move |credentials| {
            files.keep_credentials(credentials).map_err(|failure| std::io::Error::other(failure.message))
        }),
        clock: network.clock.clone(),
        seed: rand::rng().random(),
    }
}

fn announce_admin(lock: &DataDirectory, admin: SocketAddr) {
    if let Err(error) = lock.announce(admin) {
        tracing::warn!(%error, "write the administration address into the lock file");
    }
}

pub(crate) fn failed(action: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::StartFailed, format!("{action}: {error}"))
}

async fn listen(address: SocketAddr, what: &str, flag: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let refused = |e: std::io::Error| {
        Failure::new(Code::CannotListen, format!("listen on {address} for {what}: {e}"))
            .or_try(format!("{flag} with another address"))
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

fn object_options(config: &ServerConfig) -> ObjectPathOptions {
    let default = ObjectPathOptions::default();
    ObjectPathOptions {
        inline_bytes_max: config.objects.inline_bytes_max.unwrap_or(default.inline_bytes_max),
        write_buffer_bytes: config.objects.write_buffer_bytes.unwrap_or(default.write_buffer_bytes),
        read_buffer_bytes: config.objects.read_buffer_bytes.unwrap_or(default.read_buffer_bytes),
        ..default
    }
}

fn maintenance_options(config: &ServerConfig) -> MaintenanceOptions {
    let default = MaintenanceOptions::default();
    let given = config.maintenance;
    let days = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
    MaintenanceOptions {
        missing_grace: given.missing_grace_seconds.map_or(default.missing_grace, Duration::from_secs),
        repair_bytes_per_second_max: given.repair_bytes_per_second_max.unwrap_or(default.repair_bytes_per_second_max),
        scrub_bytes_per_second_max: given.scrub_bytes_per_second_max.unwrap_or(default.scrub_bytes_per_second_max),
        scrub_period: given.scrub_period_days.map_or(default.scrub_period, days),
        ..default
    }
}

pub(crate) async fn open_node(cluster: ClusterId, specs: Vec<BackendSpec>, faults: &Faults) -> Arc<LocalNode> {
    let options = LocalNodeOptions {
        opener: Arc::new(DiskOpener { faults: faults.disks(), ..DiskOpener::default() }),
        ..LocalNodeOptions::default()
    };
    Arc::new(LocalNode::open(cluster, specs, options).await)
}

/// All backends and those online; says which are not.
pub(crate) async fn report_backends(node: &dyn NodeClient) -> (usize, usize) {
    let statuses = node.backends().await;
    for status in statuses.iter().filter(|status| status.health != BackendHealth::Online) {
        tracing::warn!(
            backend = status.name,
            location = status.location,
            health = ?status.health,
            reason = status.reason,
            "starting degraded: a backend is not online"
        );
    }
    let online = statuses.iter().filter(|status| status.health == BackendHealth::Online).count();
    (statuses.len(), online)
}

/// Makes the root key at the first start; `None` if there is one.
async fn ensure_root_key(
    metadata: &dyn Metadata,
    lock: &DataDirectory,
    now_ms: u64,
) -> Result<Option<RootKey>, Failure> {
    let keys = metadata.access_key_list().await.map_err(|e| failed("read the access keys", &e))?;
    if keys.iter().any(|key| key.is_root) {
        if let Some(given) = credentials::from_environment()? {
            let same = |key: &AccessKey| key.access_key == given.access_key && key.secret_key == given.secret_key;
            if !keys.iter().any(same) {
                tracing::warn!(
                    "the key in HOLDFAST_ACCESS_KEY_ID is read at the first start only and is not a key of this store; \
                     make it one with `holdfast key create`"
                );
            }
        }
        return Ok(None);
    }
    let root = credentials::for_first_start(lock.path())?;
    let credentials = root.credentials();
    let key = AccessKey {
        access_key: credentials.access_key.clone(),
        secret_key: credentials.secret_key.clone(),
        name: "root".to_owned(),
        created_ms: now_ms,
        is_root: true,
    };
    metadata.access_key_create(key).await.map_err(|e| failed("store the root key", &e))?;
    Ok(Some(root))
}
