//! The backends of this process: of the node that makes a cluster, with the cluster's first map; of one that joined.

use super::cluster::backend_list::{self, ListedNode};
use super::cluster::network::Network;
use super::config::{SchemeShape, ServerConfig};
use super::first_start::{self, Plan};
use super::lock::DataDirectory;
use super::member::Member;
use super::startup::{failed, open_node, wait_for_map};
use crate::failure::Failure;
use holdfast_backends::DiskBackend;
use holdfast_codec::Scheme;
use holdfast_coordinator::metadata::{ClusterMap, Metadata, MetadataStore};
use holdfast_placement::{Candidate, CandidateRole, Promise, Topology, initial_layout};
use holdfast_proto::cluster::Role;
use holdfast_proto::node::{BackendHealth, NodeClient};
use holdfast_proto::{ClusterId, Epoch, NodeId};
use holdfast_storage_node::{BackendSpec, LocalNode};
use std::sync::Arc;
use tokio::sync::Notify;

/// Placement groups of a new store. Their count never changes, so it is chosen for growth: at 6 backends of 4+2 each
/// holds 256 slots (a step of 0.4 %), at 24 still 64 (1.6 %, within the 1-2 % to which fill is to follow weight). A
/// table of 256 PGs with 6 slots takes 50 KiB twice per epoch, which one log record carries easily.
const PG_COUNT: u32 = 256;

/// What a node opens: its backends, if it keeps any, and the map.
pub(crate) type Opened = (Option<Arc<LocalNode>>, ClusterMap);

/// Of a node that joined: its own list of backends; the map comes from the cluster.
pub(crate) async fn of_joined_node(
    config: &ServerConfig,
    member: &Member,
    store: &MetadataStore,
) -> Result<Opened, Failure> {
    let network = member.network.as_deref();
    let Some(storage) = network.filter(|network| network.identity.roles.has(Role::Storage)) else {
        return Ok((None, wait_for_map(store, network).await));
    };
    let cluster = storage.identity.cluster;
    let specs = backend_list::ensure(config, &storage.files, cluster, storage.clock.now_ms())?;
    let node = open_node(cluster, specs, &member.faults).await;
    Ok((Some(node), wait_for_map(store, network).await))
}

/// A joined node whose list of backends follows what is added and removed.
pub(crate) fn listed(node: Arc<LocalNode>, network: &Network, changed: &Arc<Notify>) -> Arc<dyn NodeClient> {
    Arc::new(ListedNode { node, files: network.files.clone(), changed: changed.clone() })
}

/// Of the first node: its backends by the cluster map; makes both at the first start.
pub(crate) async fn of_first_node(
    config: &ServerConfig,
    lock: &DataDirectory,
    member: &Member,
    cluster: ClusterId,
    store: &MetadataStore,
    now_ms: u64,
) -> Result<Opened, Failure> {
    let map = match member.network.as_deref() {
        // It has founded a cluster, so there is a map; the other voters may take a while to come.
        Some(network) => Some(wait_for_map(store, Some(network)).await),
        None => store.cluster_map().await.map_err(|e| failed("read the cluster map", &e))?,
    };
    if let Some(map) = map {
        Plan::forget(lock.path())?;
        let scheme = Scheme::from_code(map.table.scheme).map_err(|e| failed("read the cluster map's scheme", &e))?;
        first_start::check_later_start(config, &map.backends, SchemeShape { k: scheme.k(), m: scheme.m() })?;
        let specs = map
            .backends
            .iter()
            .filter(|b| b.node == NodeId::FIRST)
            .map(|b| BackendSpec { id: b.id, name: b.name.clone(), location: b.location.clone() })
            .collect();
        let node = open_node(cluster, specs, &member.faults).await;
        return Ok((Some(node), map));
    }
    let plan = match Plan::read(lock.path())? {
        Some(plan) => plan,
        None => {
            let plan = Plan::make(config, lock.path(), cluster, now_ms)?;
            plan.write(lock.path())?;
            plan
        }
    };
    execute_first_start(plan, lock, member, cluster, store).await
}

async fn execute_first_start(
    plan: Plan,
    lock: &DataDirectory,
    member: &Member,
    cluster: ClusterId,
    metadata: &dyn Metadata,
) -> Result<Opened, Failure> {
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
    let node = open_node(cluster, specs, &member.faults).await;
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
    let map = ClusterMap { backends, proof: Some(layout.proof), ..ClusterMap::new(cluster, layout.table) };
    metadata.cluster_map_set(Epoch(0), map.clone()).await.map_err(|e| failed("write the first cluster map", &e))?;
    Plan::forget(lock.path())?;
    tracing::info!(%cluster, scheme = %shape, backends = map.backends.len(), "a new store is made");
    Ok((Some(node), map))
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
