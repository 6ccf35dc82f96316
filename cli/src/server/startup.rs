//! The wiring: which parts a server has, in which order they start and stop. The only file that knows them all.
//!
//! Order of a start: listeners (so that a taken port costs nothing), metadata, backends, cluster map, root key, object
//! path, maintenance, endpoints. A stop goes the other way.

use super::banner::Banner;
use super::config::{SchemeShape, ServerConfig};
use super::credentials::{self, RootKey};
use super::first_start::{self, Plan};
use super::lock::{DataDirectory, reachable};
use super::operations::MaintainedStore;
use super::{metrics, tls};
use crate::failure::Failure;
use holdfast_backends::DiskBackend;
use holdfast_codec::Scheme;
use holdfast_coordinator::admin::{self, AdminParts, Code};
use holdfast_coordinator::layout::Layout;
use holdfast_coordinator::maintenance::{Maintenance, MaintenanceOptions, ServerFacts};
use holdfast_coordinator::metadata::{ClusterMap, Metadata, MetadataOptions, MetadataStore};
use holdfast_coordinator::object_path::{ObjectPath, ObjectPathOptions};
use holdfast_coordinator::s3::operations::{S3Options, service};
use holdfast_coordinator::s3::server::{S3ServerOptions, serve};
use holdfast_placement::{Candidate, CandidateRole, Promise, Topology, initial_layout};
use holdfast_proto::manifest::AccessKey;
use holdfast_proto::node::{BackendHealth, NodeClient};
use holdfast_proto::{ClusterId, Epoch};
use holdfast_storage_node::{BackendSpec, LocalNode, LocalNodeOptions};
use rand::Rng;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Placement groups of a new store. Their count never changes, so it is chosen for growth: at 6 backends of 4+2 each
/// holds 256 slots (a step of 0.4 %), at 24 still 64 (1.6 %, within the 1-2 % to which fill is to follow weight). A
/// table of 256 PGs with 6 slots takes 50 KiB twice per epoch, which one log record carries easily.
const PG_COUNT: u32 = 256;
/// Reports of damage that may wait for repair; more are dropped, as scans find the damage anyway.
const HINTS_MAX: usize = 4096;
/// How long maintenance, backends and metadata each may take to stop after the requests.
const PARTS_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that serves.
pub(crate) struct Running {
    pub(crate) banner: Banner,
    shutdown: CancellationToken,
    s3: JoinHandle<Result<(), String>>,
    admin: JoinHandle<()>,
    maintenance: Arc<Maintenance>,
    node: Arc<LocalNode>,
    metadata: Arc<dyn Metadata>,
}

/// Starts every part.
pub(crate) async fn start(config: ServerConfig, lock: &DataDirectory) -> Result<Running, Failure> {
    let tls = config.tls.as_ref().map(tls::load).transpose()?;
    let (s3_listener, s3_address) = listen(config.s3_listen, "S3", "--s3-listen").await?;
    let (admin_listener, admin_address) = listen(config.admin_listen, "administration", "--admin-listen").await?;
    let recorder = metrics::install()?;
    let clock = admin::system_clock();
    let now_ms = clock();

    let store = MetadataStore::open(MetadataOptions {
        directory: lock.path().join("metadata"),
        new_cluster_id: ClusterId::from_parts(now_ms, rand::rng().random()),
    })
    .await
    .map_err(|e| failed("open the metadata", &e))?;
    let cluster = store.cluster_id();
    let metadata: Arc<dyn Metadata> = Arc::new(store);

    let (node, map) = open_backends(&config, lock, cluster, metadata.as_ref(), now_ms).await?;
    let scheme = Scheme::from_code(map.table.scheme).map_err(|e| failed("read the cluster map's scheme", &e))?;
    let shape = SchemeShape { k: scheme.k(), m: scheme.m() };
    let root_key = ensure_root_key(metadata.as_ref(), lock, now_ms).await?;
    let (backends, backends_online) = report_backends(node.as_ref()).await;

    let layout = Layout::new(map);
    let (hints, damage) = mpsc::channel(HINTS_MAX);
    let objects = ObjectPath::new(metadata.clone(), node.clone(), layout.clone(), object_options(&config), hints);
    let maintenance = Maintenance::start(
        metadata.clone(),
        node.clone(),
        layout,
        objects.clone(),
        damage,
        maintenance_options(&config),
    );

    let shutdown = CancellationToken::new();
    tokio::spawn(metrics::keep(recorder.clone(), shutdown.clone()));
    let s3_endpoint = format!("{}://{}", if tls.is_some() { "https" } else { "http" }, reachable(s3_address));
    let router = admin::router(AdminParts {
        operations: Arc::new(MaintainedStore {
            maintenance: maintenance.clone(),
            facts: ServerFacts { version: env!("CARGO_PKG_VERSION").to_owned(), s3_endpoint },
        }),
        metadata: metadata.clone(),
        render_metrics: metrics::renderer(recorder),
        clock,
        writable_backends_min: shape.k + 1,
    });
    let banner = Banner {
        s3: s3_address,
        admin: admin_address,
        tls: tls.is_some(),
        region: config.region.clone(),
        data_dir: lock.path().to_owned(),
        scheme: shape.to_string(),
        backends,
        backends_online,
        survives: shape.m,
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
    if let Err(error) = lock.announce(admin_address) {
        tracing::warn!(%error, "write the administration address into the lock file");
    }
    Ok(Running { banner, shutdown, s3, admin, maintenance, node, metadata })
}

impl Running {
    /// Returns if an endpoint ends although nobody asked it to.
    pub(crate) async fn broken(&mut self) -> Failure {
        let why = tokio::select! {
            ended = &mut self.s3 => match ended {
                Ok(Ok(())) => "the S3 endpoint ended".to_owned(),
                Ok(Err(error)) => format!("the S3 endpoint ended: {error}"),
                Err(error) => format!("the S3 endpoint broke: {error}"),
            },
            ended = &mut self.admin => match ended {
                Ok(()) => "the administration endpoint ended".to_owned(),
                Err(error) => format!("the administration endpoint broke: {error}"),
            },
        };
        Failure::new(Code::Internal, why)
    }

    /// Stops accepting, lets requests finish until `drain_timeout`, then stops maintenance and flushes the metadata.
    pub(crate) async fn stop(self, drain_timeout: Duration) -> Result<(), Failure> {
        self.shutdown.cancel();
        let (s3_abort, admin_abort) = (self.s3.abort_handle(), self.admin.abort_handle());
        let drained = tokio::time::timeout(drain_timeout, async {
            let _ = self.s3.await;
            let _ = self.admin.await;
        });
        if drained.await.is_err() {
            tracing::warn!(seconds = drain_timeout.as_secs(), "requests still under way are cut off");
            s3_abort.abort();
            admin_abort.abort();
        }
        if tokio::time::timeout(PARTS_STOP_TIMEOUT, self.maintenance.shutdown()).await.is_err() {
            tracing::warn!("maintenance did not stop in time; its work is found again at the next start");
        }
        if tokio::time::timeout(PARTS_STOP_TIMEOUT, self.node.shutdown()).await.is_err() {
            tracing::warn!("the backends did not stop in time; what was acknowledged is on stable storage");
        }
        match tokio::time::timeout(PARTS_STOP_TIMEOUT, self.metadata.shutdown()).await {
            Ok(Ok(())) => {
                tracing::info!("stopped");
                Ok(())
            }
            Ok(Err(error)) => Err(failed("flush the metadata", &error)),
            Err(_) => {
                Err(Failure::new(Code::MetadataUnavailable, "the metadata did not stop in time; nothing is lost"))
            }
        }
    }
}

fn failed(action: &str, error: &dyn std::fmt::Display) -> Failure {
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

/// The node over the store's backends and the cluster map; makes both at the first start.
async fn open_backends(
    config: &ServerConfig,
    lock: &DataDirectory,
    cluster: ClusterId,
    metadata: &dyn Metadata,
    now_ms: u64,
) -> Result<(Arc<LocalNode>, ClusterMap), Failure> {
    let map = metadata.cluster_map().await.map_err(|e| failed("read the cluster map", &e))?;
    if let Some(map) = map {
        Plan::forget(lock.path())?;
        let scheme = Scheme::from_code(map.table.scheme).map_err(|e| failed("read the cluster map's scheme", &e))?;
        first_start::check_later_start(config, &map.backends, SchemeShape { k: scheme.k(), m: scheme.m() })?;
        let specs = map
            .backends
            .iter()
            .map(|b| BackendSpec { id: b.id, name: b.name.clone(), location: b.location.clone() })
            .collect();
        let node = open_node(cluster, specs).await;
        return Ok((node, map));
    }
    let plan = match Plan::read(lock.path())? {
        Some(plan) => plan,
        None => {
            let plan = Plan::make(config, lock.path(), cluster, now_ms)?;
            plan.write(lock.path())?;
            plan
        }
    };
    execute_first_start(plan, lock, cluster, metadata).await
}

async fn execute_first_start(
    plan: Plan,
    lock: &DataDirectory,
    cluster: ClusterId,
    metadata: &dyn Metadata,
) -> Result<(Arc<LocalNode>, ClusterMap), Failure> {
    if plan.cluster != cluster {
        let message =
            format!("the interrupted first start was of cluster {}, the metadata is of {cluster}", plan.cluster);
        return Err(first_start::failed(message).or_try("an empty --data-dir"));
    }
    for backend in &plan.backends {
        format_backend(backend, cluster)?;
    }
    let specs = plan
        .backends
        .iter()
        .map(|b| BackendSpec { id: b.id, name: b.name.clone(), location: b.location.clone() })
        .collect();
    let node = open_node(cluster, specs).await;
    let statuses = node.backends().await;
    if let Some(offline) = statuses.iter().find(|status| status.health != BackendHealth::Online) {
        let message = format!("backend {} ({}) is not online: {}", offline.name, offline.location, offline.reason);
        return Err(first_start::failed(message).or_try("start again once it is; the first start goes on from here"));
    }
    let candidates: Vec<Candidate> = statuses
        .iter()
        .map(|status| Candidate {
            id: status.id,
            weight_bytes: status.capacity_bytes.max(1),
            role: CandidateRole::Active,
        })
        .collect();
    let shape = plan.scheme();
    let scheme = Scheme::reed_solomon(shape.k, shape.m).map_err(|e| failed("use the scheme", &e))?;
    let promise = Promise::any_backends(scheme.losses_survived());
    let topology =
        Topology::of_one_node(&candidates).map_err(|e| first_start::failed(format!("place the shards: {e}")))?;
    let layout = initial_layout(scheme, PG_COUNT, &promise, &topology)
        .map_err(|e| first_start::failed(format!("place the shards: {e}")))?;
    let backends = plan.backends.iter().map(first_start::PlannedBackend::record).collect();
    let map = ClusterMap {
        cluster,
        nodes: Vec::new(),
        backends,
        table: layout.table,
        promise: Promise::default(),
        proof: Some(layout.proof),
    };
    metadata.cluster_map_set(Epoch(0), map.clone()).await.map_err(|e| failed("write the first cluster map", &e))?;
    Plan::forget(lock.path())?;
    tracing::info!(%cluster, scheme = %shape, backends = map.backends.len(), "a new store is made");
    Ok((node, map))
}

/// Formats a planned backend; one that an interrupted start had formatted already is left as it is.
fn format_backend(backend: &first_start::PlannedBackend, cluster: ClusterId) -> Result<(), Failure> {
    let directory = backend.directory();
    if DiskBackend::identify(directory).is_ok_and(|found| found.id == backend.id && found.cluster == cluster) {
        return Ok(());
    }
    DiskBackend::format(directory, cluster, backend.id, &backend.name).map_err(|e| {
        first_start::failed(format!("format {}: {e}", backend.location))
            .or_try(format!("if an interrupted first start left it half made, remove {}", directory.display()))
    })?;
    Ok(())
}

async fn open_node(cluster: ClusterId, specs: Vec<BackendSpec>) -> Arc<LocalNode> {
    Arc::new(LocalNode::open(cluster, specs, LocalNodeOptions::default()).await)
}

/// All backends and those online; says which are not.
async fn report_backends(node: &dyn NodeClient) -> (usize, usize) {
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
