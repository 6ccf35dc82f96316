//! A node behind its fences: shards placed by a map that is too old are neither begun nor finished, and none is deleted by
//! a map that is older than one by which the node was listed since. Calls of this process and of others go through it alike.
//!
//! **Invariant:** while the fence is in force at e, no shard begun by an older epoch becomes durable.
//! **Invariant:** what a listing by epoch e has shown is not deleted as superseded by an older map
//! (`what_was_listed_is_not_deleted_by_an_older_map`).

use crate::fence::{Fence, Passage};
use async_trait::async_trait;
use holdfast_proto::node::{BackendStatus, Cell, NodeClient, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, Epoch, NodeId, PgId, ShardId};
use std::sync::Arc;

/// The node and its fence. Cheap to clone.
#[derive(Clone)]
pub struct FencedNode {
    inner: Arc<dyn NodeClient>,
    fence: Arc<Fence>,
    /// Raised by listings, asked by deletions.
    listed: Arc<Fence>,
}

struct FencedWriter {
    inner: Box<dyn ShardWriter>,
    fence: Arc<Fence>,
    epoch: Epoch,
    backend: BackendId,
}

impl FencedNode {
    /// Puts `fence` in front of writes to `inner`, and `listed` in front of deletions.
    pub fn new(inner: Arc<dyn NodeClient>, fence: Arc<Fence>, listed: Arc<Fence>) -> Self {
        Self { inner, fence, listed }
    }

    /// The fence.
    pub fn fence(&self) -> &Arc<Fence> {
        &self.fence
    }
}

#[async_trait]
impl ShardWriter for FencedWriter {
    async fn append(&mut self, cells: Vec<Cell>) -> Result<(), ShardError> {
        self.fence.check(self.epoch)?;
        self.inner.append(cells).await
    }

    async fn finish(self: Box<Self>) -> Result<ShardStat, ShardError> {
        let Self { inner, fence, epoch, backend } = *self;
        let passage = fence.pass(epoch)?;
        // A disk goes on with what it has begun when nobody waits any more; so the passage lasts until it has ended.
        let finishing = tokio::spawn(finish(inner, passage));
        let lost = |error: tokio::task::JoinError| ShardError::Unavailable { backend, reason: error.to_string() };
        finishing.await.map_err(lost)?
    }
}

async fn finish(writer: Box<dyn ShardWriter>, passage: Passage) -> Result<ShardStat, ShardError> {
    let finished = writer.finish().await;
    drop(passage);
    finished
}

#[async_trait]
impl NodeClient for FencedNode {
    async fn begin_shard(
        &self,
        backend: BackendId,
        header: ShardHeader,
        epoch: Epoch,
    ) -> Result<Box<dyn ShardWriter>, ShardError> {
        self.fence.check(epoch)?;
        let inner = self.inner.begin_shard(backend, header, epoch).await?;
        Ok(Box::new(FencedWriter { inner, fence: self.fence.clone(), epoch, backend }))
    }
    async fn read_shard(
        &self,
        backend: BackendId,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        self.inner.read_shard(backend, shard, first, count, expected_root).await
    }
    async fn stat_shard(&self, backend: BackendId, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        self.inner.stat_shard(backend, shard).await
    }
    async fn delete_shards(
        &self,
        backend: BackendId,
        shards: Vec<ShardId>,
        superseded_by: Option<Epoch>,
    ) -> Result<(), ShardError> {
        let Some(epoch) = superseded_by else { return self.inner.delete_shards(backend, shards, None).await };
        let passage = self.listed.pass(epoch)?;
        // A disk goes on with what it has begun when nobody waits any more; so the passage lasts until it has ended.
        let inner = self.inner.clone();
        let deleting = tokio::spawn(async move {
            let deleted = inner.delete_shards(backend, shards, Some(epoch)).await;
            drop(passage);
            deleted
        });
        deleting.await.map_err(|error| ShardError::Unavailable { backend, reason: error.to_string() })?
    }
    async fn list_shards(
        &self,
        backend: BackendId,
        pg: PgId,
        after: Option<ShardId>,
        limit: usize,
        epoch: Epoch,
    ) -> Result<Vec<ShardStat>, ShardError> {
        self.listed.raise(epoch).await.map_err(|error| ShardError::Unavailable {
            backend,
            reason: format!("keep the epoch of a listing: {error}"),
        })?;
        self.inner.list_shards(backend, pg, after, limit, epoch).await
    }
    async fn scrub_shards(
        &self,
        backend: BackendId,
        after: Option<ShardId>,
        budget_bytes: u64,
    ) -> Result<ScrubStep, ShardError> {
        self.inner.scrub_shards(backend, after, budget_bytes).await
    }
    async fn backends(&self) -> Vec<BackendStatus> {
        self.inner.backends().await
    }
    async fn add_backend(&self, node: NodeId, location: &str, name: &str) -> Result<BackendStatus, ShardError> {
        self.inner.add_backend(node, location, name).await
    }
    async fn remove_backend(&self, backend: BackendId) -> Result<(), ShardError> {
        self.inner.remove_backend(backend).await
    }
}
