//! Bugs to be found: each makes one part of a cluster behave as a plausible mistake in the product would. A simulator that
//! does not find them in a few seeds finds nothing.
//!
//! They are planted at the seams (the traits between the parts), so no bug is compiled into the product.

use async_trait::async_trait;
use holdfast_coordinator::maintenance::ShardRebuilder;
use holdfast_coordinator::metadata::ClusterMap;
use holdfast_coordinator::object_path::{ObjectError, RebuildContext};
use holdfast_proto::manifest::Segment;
use holdfast_proto::node::{
    BackendStatus, Cell, NodeClient, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter, shard_root,
};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, Epoch, NodeId, PgId, ShardId, Slot};
use std::sync::Arc;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A disk reports a shard as durable before it is synced.
    ShardAcknowledgedBeforeSync,
    /// Shards of parity slots are reported as written and never are.
    ParityIsNotWritten,
    /// Damaged cells are handed out as they are.
    ReadsAreNotVerified,
    /// What is to be freed stays.
    NothingIsFreed,
    /// With a shard its neighbour on the backend is freed.
    NeighboursAreFreed,
    /// Repair reports success and writes nothing.
    RepairWritesNothing,
    /// The coordinator that leads does not maintain the store.
    NobodyMaintains,
    /// Scrub finds every shard whole.
    ScrubSeesNothing,
    /// `If-Match` and `If-None-Match` hold always.
    ConditionsAreIgnored,
    /// A coordinator answers from what it read some seconds ago.
    ReadsAreStale,
    /// A write is acknowledged when its bytes have arrived.
    AcknowledgedBeforeOrdered,
    /// A write is sent again after its answer, and carried out again.
    WritesAreRepeated,
    /// A listing leaves out its last key.
    ListingsEndEarly,
    /// Two slots of a placement group share a backend.
    SlotsShareABackend,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::ShardAcknowledgedBeforeSync,
        Self::ParityIsNotWritten,
        Self::ReadsAreNotVerified,
        Self::NothingIsFreed,
        Self::NeighboursAreFreed,
        Self::RepairWritesNothing,
        Self::NobodyMaintains,
        Self::ScrubSeesNothing,
        Self::ConditionsAreIgnored,
        Self::ReadsAreStale,
        Self::AcknowledgedBeforeOrdered,
        Self::WritesAreRepeated,
        Self::ListingsEndEarly,
        Self::SlotsShareABackend,
    ];

    /// By its name, as `Debug` writes it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| format!("{bug:?}") == name)
    }
}

/// The storage nodes as a coordinator sees them, with a bug in between if it is one of theirs.
pub(crate) fn plant_in_nodes(bug: Option<Bug>, inner: Arc<dyn NodeClient>) -> Arc<dyn NodeClient> {
    match bug {
        Some(
            bug @ (Bug::ParityIsNotWritten
            | Bug::ReadsAreNotVerified
            | Bug::NothingIsFreed
            | Bug::NeighboursAreFreed
            | Bug::ScrubSeesNothing),
        ) => Arc::new(BuggyNodes { inner, bug }),
        _ => inner,
    }
}

/// A map as a coordinator takes it in.
pub(crate) fn plant_in_map(bug: Option<Bug>, mut map: ClusterMap) -> ClusterMap {
    if bug == Some(Bug::SlotsShareABackend) {
        for pg in &mut map.table.pgs {
            pg.target[1] = pg.target[0];
        }
    }
    map
}

/// Repair's hands.
pub(crate) fn plant_in_rebuilder(bug: Option<Bug>, inner: Arc<dyn ShardRebuilder>) -> Arc<dyn ShardRebuilder> {
    match bug {
        Some(Bug::RepairWritesNothing) => Arc::new(IdleRebuilder),
        _ => inner,
    }
}

struct IdleRebuilder;

#[async_trait]
impl ShardRebuilder for IdleRebuilder {
    async fn rebuild(
        &self,
        segment: &Segment,
        _: RebuildContext,
        wanted: &[(Slot, BackendId)],
    ) -> Result<u64, ObjectError> {
        Ok(segment.segment_bytes * u64::try_from(wanted.len()).unwrap_or(1))
    }
}

struct BuggyNodes {
    inner: Arc<dyn NodeClient>,
    bug: Bug,
}

#[async_trait]
impl NodeClient for BuggyNodes {
    async fn begin_shard(
        &self,
        backend: BackendId,
        header: ShardHeader,
        epoch: Epoch,
    ) -> Result<Box<dyn ShardWriter>, ShardError> {
        let is_parity = header.id.slot.0 >= header.scheme[2];
        if self.bug == Bug::ParityIsNotWritten && is_parity {
            return Ok(Box::new(PhantomWriter { header, hashes: Vec::new() }));
        }
        self.inner.begin_shard(backend, header, epoch).await
    }

    async fn read_shard(
        &self,
        backend: BackendId,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        let mut read = self.inner.read_shard(backend, shard, first, count, expected_root).await?;
        if self.bug == Bug::ReadsAreNotVerified {
            read.damaged.clear();
        }
        Ok(read)
    }

    async fn stat_shard(&self, backend: BackendId, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        self.inner.stat_shard(backend, shard).await
    }

    async fn delete_shards(
        &self,
        backend: BackendId,
        mut shards: Vec<ShardId>,
        superseded_by: Option<Epoch>,
    ) -> Result<(), ShardError> {
        if self.bug == Bug::NothingIsFreed {
            return Ok(());
        }
        if self.bug == Bug::NeighboursAreFreed
            && let Some(last) = shards.last().copied()
            && let Ok(next) = self.inner.list_shards(backend, last.pg, Some(last), 1, Epoch(0)).await
        {
            shards.extend(next.into_iter().map(|stat| stat.id));
        }
        self.inner.delete_shards(backend, shards, superseded_by).await
    }

    async fn list_shards(
        &self,
        backend: BackendId,
        pg: PgId,
        after: Option<ShardId>,
        limit: usize,
        epoch: Epoch,
    ) -> Result<Vec<ShardStat>, ShardError> {
        self.inner.list_shards(backend, pg, after, limit, epoch).await
    }

    async fn scrub_shards(
        &self,
        backend: BackendId,
        after: Option<ShardId>,
        budget_bytes: u64,
    ) -> Result<ScrubStep, ShardError> {
        if self.bug == Bug::ScrubSeesNothing {
            return Ok(ScrubStep::default());
        }
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

/// Takes cells and keeps none.
struct PhantomWriter {
    header: ShardHeader,
    hashes: Vec<[u8; 32]>,
}

#[async_trait]
impl ShardWriter for PhantomWriter {
    async fn append(&mut self, cells: Vec<Cell>) -> Result<(), ShardError> {
        self.hashes.extend(cells.into_iter().map(|cell| cell.hash));
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<ShardStat, ShardError> {
        Ok(ShardStat {
            id: self.header.id,
            shard_bytes: self.header.shard_bytes,
            cell_bytes: self.header.cell_bytes,
            root: shard_root(self.hashes),
            verified_ms: self.header.created_ms,
        })
    }
}
