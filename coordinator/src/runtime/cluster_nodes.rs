//! All storage nodes as one `NodeClient`: each call goes to the node that has the backend, by the cluster map; the node
//! of this process is called directly.
//!
//! **Invariant:** a node that does not answer costs its own calls a deadline and nobody else's: its backends are reported
//! missing, with the reason, beside those of the others.

use super::remote_node::RemoteNode;
use crate::layout::Layout;
use crate::metadata::ClusterMap;
use async_trait::async_trait;
use futures::future::join_all;
use holdfast_proto::cluster::{NodeIntent, Role};
use holdfast_proto::node::{
    BackendHealth, BackendStatus, NodeClient, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter,
};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, Epoch, NodeId, PgId, ShardId};
use holdfast_transport::Transport;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct ClusterNodesOptions {
    /// How long a node may take to report on its backends. Shorter than a probe of readiness waits, so that a node that
    /// is gone costs its own backends and does not make the others' coordinators look unready.
    pub report_timeout: Duration,
}

impl Default for ClusterNodesOptions {
    fn default() -> Self {
        Self { report_timeout: Duration::from_secs(2) }
    }
}

/// The nodes. Cheap to clone.
#[derive(Clone)]
pub struct ClusterNodes {
    inner: Arc<Inner>,
}

struct Inner {
    own: NodeId,
    local: Option<Arc<dyn NodeClient>>,
    transport: Arc<dyn Transport>,
    layout: Layout,
    options: ClusterNodesOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    remotes: BTreeMap<NodeId, RemoteNode>,
    /// Which node has a backend, by the map of this epoch. Backends that left the map stay, so that they can still be
    /// detached; so do those just added, until the map has them.
    routes: BTreeMap<BackendId, NodeId>,
    routes_epoch: Option<Epoch>,
    /// The last report of each backend, for when its node is silent.
    last: BTreeMap<BackendId, BackendStatus>,
}

impl ClusterNodes {
    /// The nodes of `layout`'s map as node `own` reaches them: `local` is its own storage side, if it has one.
    pub fn new(
        own: NodeId,
        local: Option<Arc<dyn NodeClient>>,
        transport: Arc<dyn Transport>,
        layout: Layout,
        options: ClusterNodesOptions,
    ) -> Self {
        let state = Mutex::new(State::default());
        Self { inner: Arc::new(Inner { own, local, transport, layout, options, state }) }
    }

    /// The node that has a backend.
    pub fn node_of(&self, backend: BackendId) -> Option<NodeId> {
        let map = self.inner.layout.current();
        let mut state = self.inner.state.lock();
        if state.routes_epoch != Some(map.table.epoch) {
            state.routes.extend(map.backends.iter().map(|record| (record.id, record.node)));
            state.routes_epoch = Some(map.table.epoch);
        }
        state.routes.get(&backend).copied()
    }

    fn client(&self, node: NodeId) -> Arc<dyn NodeClient> {
        match &self.inner.local {
            Some(local) if node == self.inner.own => local.clone(),
            _ => Arc::new(self.remote(node)),
        }
    }

    fn remote(&self, node: NodeId) -> RemoteNode {
        let inner = &self.inner;
        let fresh = || RemoteNode::new(inner.transport.clone(), inner.own, node, inner.layout.clone());
        inner.state.lock().remotes.entry(node).or_insert_with(fresh).clone()
    }

    fn route(&self, backend: BackendId) -> Result<Arc<dyn NodeClient>, ShardError> {
        let node = self.node_of(backend).ok_or(ShardError::NoSuchBackend { backend })?;
        Ok(self.client(node))
    }

    /// What a node reports; a node that is silent has what is known of its backends reported missing.
    async fn report(&self, map: &ClusterMap, node: NodeId) -> Vec<BackendStatus> {
        let limit = self.inner.options.report_timeout;
        let asked = async {
            match &self.inner.local {
                Some(local) if node == self.inner.own => Ok(local.backends().await),
                _ => self.remote(node).try_backends(limit).await.map_err(|error| error.to_string()),
            }
        };
        let error = match timeout(limit, asked).await {
            Ok(Ok(mut statuses)) => {
                // The map says whose a backend is; what another node says of it counts for nothing.
                let owner = |id| map.backends.iter().find(|record| record.id == id).map(|record| record.node);
                statuses.retain(|status| owner(status.id).is_none_or(|owner| owner == node));
                let mut state = self.inner.state.lock();
                state.last.extend(statuses.iter().map(|status| (status.id, status.clone())));
                return statuses;
            }
            Ok(Err(error)) => error,
            Err(_) => format!("no report within {limit:?}"),
        };
        let name = node_name(map, node);
        tracing::debug!(node = name, error, "ask a node for its backends");
        let state = self.inner.state.lock();
        let records = map.backends.iter().filter(|record| record.node == node);
        let missing = records.map(|record| {
            let known = state.last.get(&record.id).cloned();
            let unknown = || BackendStatus {
                id: record.id,
                name: record.name.clone(),
                location: record.location.clone(),
                health: BackendHealth::Missing,
                reason: String::new(),
                capacity_bytes: 0,
                free_bytes: 0,
                used_bytes: 0,
                shard_count: 0,
                scrubbed_ms: 0,
            };
            let reason = format!("node {name} does not answer");
            BackendStatus { health: BackendHealth::Missing, reason, ..known.unwrap_or_else(unknown) }
        });
        missing.collect()
    }
}

/// A node's name for people.
fn node_name(map: &ClusterMap, node: NodeId) -> String {
    let record = map.nodes.iter().find(|record| record.id == node);
    record.map_or_else(|| format!("n{node}"), |record| record.name.clone())
}

#[async_trait]
impl NodeClient for ClusterNodes {
    async fn begin_shard(
        &self,
        backend: BackendId,
        header: ShardHeader,
        epoch: Epoch,
    ) -> Result<Box<dyn ShardWriter>, ShardError> {
        self.route(backend)?.begin_shard(backend, header, epoch).await
    }
    async fn read_shard(
        &self,
        backend: BackendId,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        self.route(backend)?.read_shard(backend, shard, first, count, expected_root).await
    }
    async fn stat_shard(&self, backend: BackendId, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        self.route(backend)?.stat_shard(backend, shard).await
    }
    async fn delete_shards(
        &self,
        backend: BackendId,
        shards: Vec<ShardId>,
        superseded_by: Option<Epoch>,
    ) -> Result<(), ShardError> {
        self.route(backend)?.delete_shards(backend, shards, superseded_by).await
    }
    async fn list_shards(
        &self,
        backend: BackendId,
        pg: PgId,
        after: Option<ShardId>,
        limit: usize,
        epoch: Epoch,
    ) -> Result<Vec<ShardStat>, ShardError> {
        self.route(backend)?.list_shards(backend, pg, after, limit, epoch).await
    }
    async fn scrub_shards(
        &self,
        backend: BackendId,
        after: Option<ShardId>,
        budget_bytes: u64,
    ) -> Result<ScrubStep, ShardError> {
        self.route(backend)?.scrub_shards(backend, after, budget_bytes).await
    }

    /// Those of all nodes, asked at the same time.
    async fn backends(&self) -> Vec<BackendStatus> {
        let map = self.inner.layout.current();
        let active =
            map.nodes.iter().filter(|node| node.roles.has(Role::Storage) && node.intent != NodeIntent::Removed);
        let mut nodes: BTreeSet<NodeId> = active.map(|node| node.id).collect();
        nodes.extend(map.backends.iter().map(|record| record.node));
        nodes.extend(self.inner.local.as_ref().map(|_| self.inner.own));
        let mut reports = join_all(nodes.into_iter().map(|node| self.report(&map, node))).await.concat();
        // Two nodes may both have a backend that the map does not know yet: where it answers counts.
        reports.sort_by_key(|status| (status.id, !status.health.can_read()));
        reports.dedup_by_key(|status| status.id);
        reports
    }

    async fn add_backend(&self, node: NodeId, location: &str, name: &str) -> Result<BackendStatus, ShardError> {
        let status = self.client(node).add_backend(node, location, name).await?;
        self.inner.state.lock().routes.insert(status.id, node);
        Ok(status)
    }

    async fn remove_backend(&self, backend: BackendId) -> Result<(), ShardError> {
        self.route(backend)?.remove_backend(backend).await
    }
}
