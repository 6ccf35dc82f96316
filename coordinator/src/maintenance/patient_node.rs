//! A node whose every short call ends: a backend that hangs (a dead network mount, a disk that never answers) fails the
//! call after a while instead of holding up inventory, garbage collection or repair of all others.
//!
//! Not here: writers (a whole repair of a segment has its own limit), adding and removing backends (an operator waits).

use async_trait::async_trait;
use holdfast_proto::node::{BackendStatus, NodeClient, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, Epoch, NodeId, PgId, ShardId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Longest wait for one call: as patient as a client's write. A badly overloaded disk answers within seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The wrapper.
pub(crate) struct PatientNode {
    inner: Arc<dyn NodeClient>,
    limit: Duration,
}

impl PatientNode {
    /// Waits for each call of `inner` at most a minute.
    pub(crate) fn new(inner: Arc<dyn NodeClient>) -> Self {
        Self { inner, limit: CALL_TIMEOUT }
    }

    async fn within<T>(
        &self,
        backend: BackendId,
        call: impl Future<Output = Result<T, ShardError>>,
    ) -> Result<T, ShardError> {
        let late = || ShardError::Unavailable { backend, reason: format!("no answer within {:?}", self.limit) };
        timeout(self.limit, call).await.unwrap_or_else(|_| Err(late()))
    }
}

#[async_trait]
impl NodeClient for PatientNode {
    async fn begin_shard(
        &self,
        backend: BackendId,
        header: ShardHeader,
        epoch: Epoch,
    ) -> Result<Box<dyn ShardWriter>, ShardError> {
        self.within(backend, self.inner.begin_shard(backend, header, epoch)).await
    }
    async fn read_shard(
        &self,
        backend: BackendId,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        self.within(backend, self.inner.read_shard(backend, shard, first, count, expected_root)).await
    }
    async fn stat_shard(&self, backend: BackendId, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        self.within(backend, self.inner.stat_shard(backend, shard)).await
    }
    async fn delete_shards(
        &self,
        backend: BackendId,
        shards: Vec<ShardId>,
        superseded_by: Option<Epoch>,
    ) -> Result<(), ShardError> {
        self.within(backend, self.inner.delete_shards(backend, shards, superseded_by)).await
    }
    async fn list_shards(
        &self,
        backend: BackendId,
        pg: PgId,
        after: Option<ShardId>,
        limit: usize,
        epoch: Epoch,
    ) -> Result<Vec<ShardStat>, ShardError> {
        self.within(backend, self.inner.list_shards(backend, pg, after, limit, epoch)).await
    }
    async fn scrub_shards(
        &self,
        backend: BackendId,
        after: Option<ShardId>,
        budget_bytes: u64,
    ) -> Result<ScrubStep, ShardError> {
        self.within(backend, self.inner.scrub_shards(backend, after, budget_bytes)).await
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

#[cfg(test)]
mod tests {
    use super::super::fakes::FakeNode;
    use super::*;
    use holdfast_proto::{SegmentId, Slot};

    #[tokio::test]
    async fn a_backend_that_hangs_fails_its_calls_alone() {
        let node = FakeNode::default();
        let (healthy, hung) = (node.attach("disk:/d1", "d1"), node.attach("disk:/d2", "d2"));
        node.hang(hung);
        let patient = PatientNode { inner: Arc::new(node.clone()), limit: Duration::from_millis(50) };
        let shard = ShardId { pg: PgId(0), segment: SegmentId([1; 16]), slot: Slot(0) };
        assert_eq!(patient.list_shards(healthy, PgId(0), None, 10, Epoch(1)).await, Ok(Vec::new()));
        assert_eq!(patient.delete_shards(healthy, vec![shard], None).await, Ok(()));
        let is_late = |error: &ShardError| error.to_string().contains("no answer within 50ms");
        assert!(is_late(&patient.list_shards(hung, PgId(0), None, 10, Epoch(1)).await.unwrap_err()));
        assert!(is_late(&patient.delete_shards(hung, vec![shard], None).await.unwrap_err()));
        assert!(is_late(&patient.stat_shard(hung, shard).await.unwrap_err()));
    }
}
