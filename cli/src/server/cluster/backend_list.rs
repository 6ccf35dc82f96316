//! The backends of a node that joined: planned and formatted at its first start, kept in a list of its own, which follows
//! what the cluster adds and removes.

use super::files::{NodeBackend, NodeFiles};
use crate::failure::Failure;
use crate::server::config::ServerConfig;
use crate::server::first_start::{check_empty, default_locations, failed};
use async_trait::async_trait;
use holdfast_backends::DiskBackend;
use holdfast_proto::node::{BackendStatus, NodeClient, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, ClusterId, Epoch, NodeId, PgId, ShardId};
use holdfast_storage_node::{BackendSpec, LocalNode};
use rand::Rng;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Notify;

/// The backends to open; at the first start they are chosen by the settings and formatted. Planned on stable storage
/// before anything is formatted, so a start that was cut off goes on with the same ids.
pub(crate) fn ensure(
    config: &ServerConfig,
    files: &NodeFiles,
    cluster: ClusterId,
    now_ms: u64,
) -> Result<Vec<BackendSpec>, Failure> {
    let backends = match files.backends()? {
        Some(backends) => backends,
        None => {
            let locations = match config.backends.as_slice() {
                [] => default_locations(&config.data_dir),
                given => given.to_vec(),
            };
            for location in &locations {
                check_empty(directory(location))?;
            }
            let plan = |(at, location): (usize, String)| NodeBackend {
                id: BackendId::from_parts(now_ms, rand::rng().random()),
                name: format!("d{}", at + 1),
                location,
                is_announced: false,
            };
            let planned: Vec<NodeBackend> = locations.into_iter().enumerate().map(plan).collect();
            files.keep_backends(&planned)?;
            planned
        }
    };
    for backend in backends.iter().filter(|backend| !backend.is_announced) {
        let at = directory(&backend.location);
        if DiskBackend::identify(at).is_ok_and(|found| found.id == backend.id && found.cluster == cluster) {
            continue;
        }
        DiskBackend::format(at, cluster, backend.id, &backend.name)
            .map_err(|e| failed(format!("format {}: {e}", backend.location)))?;
    }
    let spec = |b: &NodeBackend| BackendSpec { id: b.id, name: b.name.clone(), location: b.location.clone() };
    Ok(backends.iter().map(spec).collect())
}

fn directory(location: &str) -> &Path {
    Path::new(location.strip_prefix("disk:").unwrap_or(location))
}

/// The node of this process with its list kept.
pub(crate) struct ListedNode {
    pub(crate) node: Arc<LocalNode>,
    pub(crate) files: NodeFiles,
    /// Told when a backend was added.
    pub(crate) changed: Arc<Notify>,
}

impl ListedNode {
    async fn keep(&self, change: impl FnOnce(&mut Vec<NodeBackend>) + Send + 'static) -> Result<(), String> {
        let files = self.files.clone();
        let kept = tokio::task::spawn_blocking(move || files.change_backends(change));
        kept.await.map_err(|e| e.to_string())?.map_err(|failure| failure.message)
    }
}

#[async_trait]
impl NodeClient for ListedNode {
    async fn begin_shard(
        &self,
        backend: BackendId,
        header: ShardHeader,
        epoch: Epoch,
    ) -> Result<Box<dyn ShardWriter>, ShardError> {
        self.node.begin_shard(backend, header, epoch).await
    }
    async fn read_shard(
        &self,
        backend: BackendId,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        self.node.read_shard(backend, shard, first, count, expected_root).await
    }
    async fn stat_shard(&self, backend: BackendId, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        self.node.stat_shard(backend, shard).await
    }
    async fn delete_shards(
        &self,
        backend: BackendId,
        shards: Vec<ShardId>,
        superseded_by: Option<Epoch>,
    ) -> Result<(), ShardError> {
        self.node.delete_shards(backend, shards, superseded_by).await
    }
    async fn list_shards(
        &self,
        backend: BackendId,
        pg: PgId,
        after: Option<ShardId>,
        limit: usize,
        epoch: Epoch,
    ) -> Result<Vec<ShardStat>, ShardError> {
        self.node.list_shards(backend, pg, after, limit, epoch).await
    }
    async fn scrub_shards(
        &self,
        backend: BackendId,
        after: Option<ShardId>,
        budget_bytes: u64,
    ) -> Result<ScrubStep, ShardError> {
        self.node.scrub_shards(backend, after, budget_bytes).await
    }
    async fn backends(&self) -> Vec<BackendStatus> {
        self.node.backends().await
    }

    async fn add_backend(&self, node: NodeId, location: &str, name: &str) -> Result<BackendStatus, ShardError> {
        let status = self.node.add_backend(node, location, name).await?;
        // Whoever adds it puts it into the map, too; so it counts as announced.
        let (name, location) = (status.name.clone(), status.location.clone());
        let added = NodeBackend { id: status.id, name, location, is_announced: true };
        let kept = self.keep(move |backends| backends.push(added)).await;
        if let Err(reason) = kept {
            let _ = self.node.remove_backend(status.id).await;
            let action = "keep the list of backends".to_owned();
            return Err(ShardError::Io { backend: status.id, action, reason });
        }
        self.changed.notify_one();
        Ok(status)
    }

    async fn remove_backend(&self, backend: BackendId) -> Result<(), ShardError> {
        self.node.remove_backend(backend).await?;
        let kept = self.keep(move |backends| backends.retain(|b| b.id != backend)).await;
        let action = "keep the list of backends".to_owned();
        kept.map_err(|reason| ShardError::Io { backend, action, reason })
    }
}
