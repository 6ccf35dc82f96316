//! A storage node across the network.
//!
//! Each call has a deadline of its own kind. Calls that may be repeated without harm (all but begin, add and remove) are
//! tried again a few times when the connection broke or the node was busy, never after a deadline: who waits that long
//! asks elsewhere.
//!
//! What is read is verified here again: the node's hashes against the root the caller names, each cell against its hash.
//! TLS guards the wire, but not the memory and the code on both sides of it; and a root in hand costs one BLAKE3 pass
//! over bytes that QUIC has encrypted, decrypted and copied already (ADR 8 has the figures).

use super::remote_writer::RemoteWriter;
use crate::layout::Layout;
use async_trait::async_trait;
use holdfast_proto::node::{BackendStatus, NodeClient, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter};
use holdfast_proto::node_rpc::{
    self, AddBackend, BackendList, DELETE_SHARDS_MAX, DeleteShards, Empty, LIST_SHARDS_MAX, ListShards, NameBackend,
    NameShard, ReadCells, ReadHead, Reply, ScrubReply, ScrubShards, StatList, StatReply, StatusMessage, WriteBegin,
};
use holdfast_proto::rpc::Rpc;
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, Epoch, NodeId, PgId, ShardId};
use holdfast_transport::{CallOptions, Frame, Transport, TransportError};
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

/// Pauses before a call is tried again.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];
/// A read has its hedge: one quick second try, for a connection that was replaced.
const READ_PAUSES: [Duration; 1] = [Duration::from_millis(10)];
/// Index lookups and single reads: a badly overloaded disk answers within seconds, and the reader has asked others.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// A page of a listing, a deletion of many.
const BULK_DEADLINE: Duration = Duration::from_secs(60);
/// A step of scrub reads up to a GiB at background pace.
const SCRUB_DEADLINE: Duration = Duration::from_secs(600);
/// A segment is sent at the pace of its client: 64 MiB at the slowest that the S3 door lets live. The writer's own
/// patience ends it long before where the node is to blame.
const WRITE_DEADLINE: Duration = Duration::from_secs(6 * 3600);
/// Backends are probed, added, removed: as `LocalNode` waits for a disk.
const ADMIN_DEADLINE: Duration = Duration::from_secs(60);

/// Calls to a node at a time; more wait their turn here, in order, and are not told `Busy` by the transport. Far more than
/// keep a node's disks busy.
const CALLS_MAX: usize = 256;
/// Shards being written to a node at a time, likewise: as many as it takes of one caller.
const WRITERS_MAX: usize = 512;

/// The node. Cheap to clone.
#[derive(Clone)]
pub struct RemoteNode {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Arc<dyn Transport>,
    peer: NodeId,
    layout: Layout,
    /// High half of request ids: the node that asks.
    own: NodeId,
    calls: AtomicU64,
    call_turns: Semaphore,
    writer_turns: Arc<Semaphore>,
}

/// How a call is made.
#[derive(Clone, Copy)]
struct Manner {
    rpc: Rpc,
    /// Named by errors; none for calls that concern no backend.
    backend: BackendId,
    deadline: Duration,
    pauses: &'static [Duration],
    epoch: CallEpoch,
}

/// The epoch that goes with a call.
#[derive(Clone, Copy)]
enum CallEpoch {
    /// That of the newest map.
    Newest,
    /// This one, or none where the call does not depend on the map.
    Of(Option<Epoch>),
}

impl RemoteNode {
    /// Node `peer` as node `own` sees it. Calls carry the epoch of `layout`'s map.
    pub fn new(transport: Arc<dyn Transport>, own: NodeId, peer: NodeId, layout: Layout) -> Self {
        let (calls, call_turns) = (AtomicU64::new(0), Semaphore::new(CALLS_MAX));
        let writer_turns = Arc::new(Semaphore::new(WRITERS_MAX));
        Self { inner: Arc::new(Inner { transport, peer, layout, own, calls, call_turns, writer_turns }) }
    }

    /// Which node.
    pub fn peer(&self) -> NodeId {
        self.inner.peer
    }

    /// The node's backends.
    ///
    /// # Errors
    /// It does not answer, in words.
    pub async fn try_backends(&self, deadline: Duration) -> Result<Vec<BackendStatus>, ShardError> {
        let manner = Manner {
            rpc: Rpc::Backends,
            backend: BackendId::default(),
            deadline,
            pauses: &READ_PAUSES,
            epoch: CallEpoch::Newest,
        };
        let list: BackendList = self.ask(manner, &Empty {}).await?;
        list.parse().map_err(|error| self.malformed(manner.backend, &error))
    }

    fn options(&self, deadline: Duration, epoch: Option<Epoch>) -> CallOptions {
        let number = self.inner.calls.fetch_add(1, Ordering::Relaxed);
        let request_id = u128::from(self.inner.own.0) << 64 | u128::from(number);
        CallOptions { deadline, epoch, request_id }
    }

    /// A call whose reply has no body.
    async fn ask<M: Message + Default>(&self, manner: Manner, request: &impl Message) -> Result<M, ShardError> {
        self.exchange(manner, request).await.map(|(message, _)| message)
    }

    /// A call, tried again as its manner allows.
    async fn exchange<M: Message + Default>(
        &self,
        manner: Manner,
        request: &impl Message,
    ) -> Result<(M, Frame), ShardError> {
        let Manner { rpc, backend, deadline, pauses, epoch } = manner;
        let ends_at = Instant::now() + deadline;
        let head = node_rpc::encode(request);
        let mut pauses = pauses.iter();
        let turn = timeout_at(ends_at, self.inner.call_turns.acquire()).await;
        let _turn = turn.map_err(|_| ShardError::Busy { backend, queued: CALLS_MAX })?;
        let reply = loop {
            let left = ends_at.saturating_duration_since(Instant::now());
            let epoch = match epoch {
                CallEpoch::Newest => Some(self.inner.layout.current().table.epoch),
                CallEpoch::Of(epoch) => epoch,
            };
            let options = self.options(left, epoch);
            let called = self.inner.transport.call(self.inner.peer, rpc, Frame::head_only(head.clone()), options).await;
            match called {
                Ok(reply) => break reply,
                Err(error) => match pauses.next() {
                    Some(&pause) if may_repeat(&error) && left > pause => sleep(pause).await,
                    _ => return Err(unreachable(self.inner.peer, backend, &error)),
                },
            }
        };
        let message = node_rpc::decode::<Reply>(&reply.head).and_then(Reply::into_result::<M>);
        let message = message.map_err(|error| self.malformed(backend, &error))??;
        Ok((message, reply))
    }

    fn malformed(&self, backend: BackendId, error: &node_rpc::Malformed) -> ShardError {
        let reason = format!("node {} answers wrongly: {error}", self.inner.peer);
        ShardError::Unavailable { backend, reason }
    }

    fn index_call(&self, rpc: Rpc, backend: BackendId) -> Manner {
        Manner { rpc, backend, deadline: READ_DEADLINE, pauses: &RETRY_PAUSES, epoch: CallEpoch::Newest }
    }
}

/// Whether the same may be asked again: nothing was done, or doing it twice does no harm, and it was not a matter of
/// time.
fn may_repeat(error: &TransportError) -> bool {
    matches!(error, TransportError::Unreachable { .. } | TransportError::Busy { .. } | TransportError::Cancelled)
}

/// A call that did not get through, as the caller of a backend sees it.
pub(super) fn unreachable(peer: NodeId, backend: BackendId, error: &TransportError) -> ShardError {
    match error {
        TransportError::Busy { .. } => ShardError::Busy { backend, queued: 0 },
        TransportError::Malformed { reason } => ShardError::Invalid { reason: reason.clone() },
        TransportError::Cancelled => {
            ShardError::Unavailable { backend, reason: format!("node {peer} gave the call up") }
        }
        other => ShardError::Unavailable { backend, reason: other.to_string() },
    }
}

#[async_trait]
impl NodeClient for RemoteNode {
    async fn begin_shard(
        &self,
        backend: BackendId,
        header: ShardHeader,
        epoch: Epoch,
    ) -> Result<Box<dyn ShardWriter>, ShardError> {
        let first = Frame::head_only(node_rpc::encode(&WriteBegin::new(backend, &header)));
        let options = self.options(WRITE_DEADLINE, Some(epoch));
        let (peer, rpc) = (self.inner.peer, Rpc::ShardWrite);
        // The writer's own patience ends the wait. Never closed.
        let turn = self.inner.writer_turns.clone().acquire_owned().await;
        let turn = turn.map_err(|_| ShardError::Busy { backend, queued: WRITERS_MAX })?;
        let opened = self.inner.transport.open(peer, rpc, first, options).await;
        let channel = opened.map_err(|error| unreachable(peer, backend, &error))?;
        let mut writer = RemoteWriter::new(channel, (peer, backend), turn);
        writer.begun().await?;
        Ok(Box::new(writer))
    }

    async fn read_shard(
        &self,
        backend: BackendId,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        let manner = Manner {
            rpc: Rpc::ShardRead,
            backend,
            deadline: READ_DEADLINE,
            pauses: &READ_PAUSES,
            epoch: CallEpoch::Newest,
        };
        let request = ReadCells::new(backend, shard, (first, count), expected_root);
        let (head, reply) = self.exchange::<ReadHead>(manner, &request).await?;
        let read = head.into_read(reply.body, (first, count));
        let mut read = read.map_err(|error| self.malformed(backend, &error))?;
        let known = read.damaged.len();
        let damaged = |reason: &str| ShardError::Damaged { shard, backend, reason: reason.to_owned() };
        if read.header.id != shard {
            return Err(damaged("the node sent another shard"));
        }
        read.verify(first, expected_root).map_err(damaged)?;
        let bent = read.damaged.len() - known;
        if bent > 0 {
            metrics::counter!("holdfast_remote_damaged_cells_total").increment(u64::try_from(bent).unwrap_or(0));
            tracing::warn!(node = %self.inner.peer, %backend, %shard, cells = bent, "cells arrived damaged");
        }
        Ok(read)
    }

    async fn stat_shard(&self, backend: BackendId, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        let manner = self.index_call(Rpc::ShardStat, backend);
        let reply: StatReply = self.ask(manner, &NameShard::new(backend, shard)).await?;
        let stat = reply.stat.map(node_rpc::stat_from).transpose();
        stat.map_err(|error| self.malformed(backend, &error))
    }

    async fn delete_shards(
        &self,
        backend: BackendId,
        shards: Vec<ShardId>,
        superseded_by: Option<Epoch>,
    ) -> Result<(), ShardError> {
        let epoch = CallEpoch::Of(superseded_by);
        let manner = Manner { deadline: BULK_DEADLINE, epoch, ..self.index_call(Rpc::ShardDelete, backend) };
        for some in shards.chunks(DELETE_SHARDS_MAX) {
            self.ask::<Empty>(manner, &DeleteShards::new(backend, some)).await?;
        }
        Ok(())
    }

    async fn list_shards(
        &self,
        backend: BackendId,
        pg: PgId,
        mut after: Option<ShardId>,
        limit: usize,
        epoch: Epoch,
    ) -> Result<Vec<ShardStat>, ShardError> {
        let epoch = CallEpoch::Of(Some(epoch));
        let manner = Manner { deadline: BULK_DEADLINE, epoch, ..self.index_call(Rpc::ShardList, backend) };
        let mut found = Vec::new();
        while found.len() < limit {
            let asked = (limit - found.len()).min(LIST_SHARDS_MAX);
            let request = ListShards::new(backend, pg, after, u32::try_from(asked).unwrap_or(u32::MAX));
            let page = self.ask::<StatList>(manner, &request).await?.parse();
            let page = page.map_err(|error| self.malformed(backend, &error))?;
            let is_last = page.len() < asked;
            // A page that does not lead on would be asked for ever.
            let last = page.last().map(|stat| stat.id);
            let leads_on = last > after;
            found.extend(page);
            if is_last || !leads_on {
                break;
            }
            after = last;
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn scrub_shards(
        &self,
        backend: BackendId,
        after: Option<ShardId>,
        budget_bytes: u64,
    ) -> Result<ScrubStep, ShardError> {
        let manner = Manner {
            rpc: Rpc::ShardScrub,
            backend,
            deadline: SCRUB_DEADLINE,
            pauses: &RETRY_PAUSES,
            epoch: CallEpoch::Newest,
        };
        let reply: ScrubReply = self.ask(manner, &ScrubShards::new(backend, after, budget_bytes)).await?;
        reply.parse().map_err(|error| self.malformed(backend, &error))
    }

    /// None where the node does not answer; `try_backends` says why.
    async fn backends(&self) -> Vec<BackendStatus> {
        self.try_backends(ADMIN_DEADLINE).await.unwrap_or_else(|error| {
            tracing::warn!(node = %self.inner.peer, %error, "ask for backends");
            Vec::new()
        })
    }

    async fn add_backend(&self, _: NodeId, location: &str, name: &str) -> Result<BackendStatus, ShardError> {
        let request = AddBackend { location: location.to_owned(), name: name.to_owned() };
        let manner = Manner {
            rpc: Rpc::BackendAdd,
            backend: BackendId::default(),
            deadline: ADMIN_DEADLINE,
            pauses: &[],
            epoch: CallEpoch::Newest,
        };
        let status: StatusMessage = self.ask(manner, &request).await?;
        node_rpc::status_from(status).map_err(|error| self.malformed(manner.backend, &error))
    }

    async fn remove_backend(&self, backend: BackendId) -> Result<(), ShardError> {
        let manner = Manner {
            rpc: Rpc::BackendRemove,
            backend,
            deadline: ADMIN_DEADLINE,
            pauses: &[],
            epoch: CallEpoch::Newest,
        };
        self.ask::<Empty>(manner, &NameBackend::new(backend)).await.map(drop)
    }
}
