//! Serves the data plane: what coordinators ask of this node over the wire, carried out on its `NodeClient`.
//!
//!     frame -> decode (proto::node_rpc) -> fence, limits -> FencedNode -> reply
//!
//! A call that is cancelled, or whose caller goes away, is dropped where it stands: a shard being written gives its room
//! back; one whose end has begun becomes durable or not, as a whole.
//!
//! **Invariant:** whatever a caller sends is answered or refused; it costs no more than `ServeLimits` allow.

mod limits;
mod summary;
mod write;

#[cfg(test)]
mod tests;

pub use limits::ServeLimits;

use crate::fence::Fence;
use crate::fenced_node::FencedNode;
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_proto::cluster::Role;
use holdfast_proto::node::{NodeClient, ShardError, ShardRead};
use holdfast_proto::node_rpc::{
    self, AddBackend, BackendList, DeleteShards, Empty, LIST_SHARDS_MAX, ListShards, Malformed, NameBackend, NameShard,
    NodeLoad, Ping, Pong, READ_BYTES_MAX, ReadCells, ReadHead, Reply, SCRUB_BYTES_MAX, ScrubReply, ScrubShards,
    StatList, StatMessage, StatReply, StatusMessage,
};
use holdfast_proto::rpc::{CallerKind, Rpc};
use holdfast_proto::{Epoch, NodeId, PgId};
use holdfast_transport::{Call, Caller, Channel, Frame, Service, TransportError};
use limits::Limits;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use summary::Summary;

/// Cells of a read that are taken to be of the usual length; a read of more is measured before it begins.
const CELLS_UNMEASURED_MAX: u32 = 16;
/// That length.
const CELL_BYTES_USUAL: u64 = 64 << 10;

/// The data plane of a node.
pub struct NodeService {
    own: NodeId,
    node: Arc<dyn NodeClient>,
    fence: Arc<Fence>,
    limits: Limits,
    summary: Summary,
}

impl NodeService {
    /// Serves `node`, which is node `own` of its cluster.
    pub fn new(own: NodeId, node: FencedNode, limits: ServeLimits) -> Self {
        let fence = node.fence().clone();
        Self { own, node: Arc::new(node), fence, limits: Limits::new(limits), summary: Summary::default() }
    }

    /// Answers a call of one frame.
    async fn answer(&self, call: &Call, caller: NodeId, request: &Frame) -> Result<Answer, ShardError> {
        if call.rpc == Rpc::DataPing {
            return Ok(Answer::of(&self.ping(call, request)?));
        }
        if let Some(epoch) = call.epoch {
            self.fence.check(epoch)?;
        }
        let head = &request.head;
        let result = match call.rpc {
            Rpc::ShardRead => return self.read(caller, parsed(node_rpc::decode(head))?).await,
            Rpc::ShardStat => {
                let (backend, shard) = parsed(node_rpc::decode(head).and_then(|m: NameShard| m.parse()))?;
                let stat = self.node.stat_shard(backend, shard).await?;
                Reply::ok(&StatReply { stat: stat.as_ref().map(StatMessage::from) })
            }
            Rpc::ShardDelete => {
                let (backend, shards) = parsed(node_rpc::decode(head).and_then(|m: DeleteShards| m.parse()))?;
                self.node.delete_shards(backend, shards, call.epoch).await?;
                Reply::ok(&Empty {})
            }
            Rpc::ShardList => {
                let request: ListShards = parsed(node_rpc::decode(head))?;
                let (backend, after) = parsed(request.parse())?;
                let limit = usize::try_from(request.limit).unwrap_or(usize::MAX).min(LIST_SHARDS_MAX);
                let missing = || ShardError::Invalid { reason: "a listing names its epoch".to_owned() };
                let epoch = call.epoch.ok_or_else(missing)?;
                let mut stats = self.node.list_shards(backend, PgId(request.pg), after, limit, epoch).await?;
                stats.truncate(limit);
                Reply::ok(&StatList::new(&stats))
            }
            Rpc::ShardScrub => {
                let request: ScrubShards = parsed(node_rpc::decode(head))?;
                let (backend, after) = parsed(request.parse())?;
                let budget = request.budget_bytes.min(SCRUB_BYTES_MAX);
                Reply::ok(&ScrubReply::new(&self.node.scrub_shards(backend, after, budget).await?))
            }
            Rpc::Backends => Reply::ok(&BackendList::new(&self.node.backends().await)),
            Rpc::BackendAdd => {
                let (location, name) = parsed(node_rpc::decode(head).and_then(|m: AddBackend| m.parse()))?;
                Reply::ok(&StatusMessage::from(&self.node.add_backend(self.own, &location, &name).await?))
            }
            Rpc::BackendRemove => {
                let backend = parsed(node_rpc::decode(head).and_then(|m: NameBackend| m.parse()))?;
                self.node.remove_backend(backend).await?;
                Reply::ok(&Empty {})
            }
            other => return Err(ShardError::Invalid { reason: format!("{} is not served here", other.name()) }),
        };
        Ok(Answer::of(&result))
    }

    /// From memory alone. Only coordinators raise the fence.
    fn ping(&self, call: &Call, request: &Frame) -> Result<Reply, ShardError> {
        let ping: Ping = parsed(node_rpc::decode(&request.head))?;
        let is_coordinator = matches!(call.caller.kind(), CallerKind::Node(roles) if roles.has(Role::Coordinator));
        let minimum = Epoch(ping.minimum_epoch);
        if is_coordinator && minimum > self.fence.in_force() {
            // It waits for writes under way; this heartbeat does not.
            let fence = self.fence.clone();
            tokio::spawn(async move {
                if let Err(error) = fence.raise(minimum).await {
                    tracing::error!(%minimum, %error, "store the fence");
                }
            });
        }
        let load = &self.limits.load;
        let load = NodeLoad {
            writers: load.writers.load(Ordering::Relaxed),
            calls: load.calls.load(Ordering::Relaxed),
            bytes_in_flight: load.bytes.load(Ordering::Relaxed),
        };
        let backends = self.summary.get(&self.node);
        let pong = Pong { minimum_epoch: self.fence.in_force().0, load: Some(load), backends };
        Ok(Reply::ok(&pong))
    }

    /// Room for a read is taken before the disk is asked, and kept until the reply was passed on.
    async fn read(&self, caller: NodeId, request: ReadCells) -> Result<Answer, ShardError> {
        let (backend, shard, root) = parsed(request.parse())?;
        let bytes = match request.count {
            0..=CELLS_UNMEASURED_MAX => u64::from(request.count) * CELL_BYTES_USUAL,
            count => {
                let stat = self.node.stat_shard(backend, shard).await?;
                let stat = stat.ok_or(ShardError::NotFound { shard, backend })?;
                u64::from(count).saturating_mul(u64::from(stat.cell_bytes)).min(stat.shard_bytes)
            }
        };
        if bytes > READ_BYTES_MAX {
            return Err(ShardError::Invalid { reason: format!("a read of {bytes} bytes, {READ_BYTES_MAX} allowed") });
        }
        let room = self.limits.read(caller, bytes).await;
        let read = self.node.read_shard(backend, shard, request.first, request.count, root).await?;
        let head = ReadHead::new(&read);
        let ShardRead { bytes, .. } = read;
        Ok(Answer { frame: framed(&Reply::ok(&head), vec![bytes]), _room: Some(room) })
    }
}

/// A reply and the room it takes until it was passed on.
struct Answer {
    frame: Frame,
    _room: Option<limits::Counted>,
}

impl Answer {
    fn of(reply: &Reply) -> Self {
        Self { frame: framed(reply, Vec::new()), _room: None }
    }
}

#[async_trait]
impl Service for NodeService {
    async fn serve(&self, call: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
        let _counted = self.limits.call();
        let Caller::Node(identity) = &call.caller else { return Err(TransportError::Cancelled) };
        let caller = identity.node;
        let Some(first) = channel.receive().await? else {
            return Err(TransportError::Malformed { reason: "a call without a request".to_owned() });
        };
        if call.rpc == Rpc::ShardWrite {
            return write::serve(self, &call, caller, &first, channel).await;
        }
        let answer = match self.answer(&call, caller, &first).await {
            Ok(answer) => answer,
            Err(error) => {
                metrics::counter!("holdfast_node_faults_total", "rpc" => call.rpc.name()).increment(1);
                tracing::debug!(%caller, rpc = call.rpc.name(), request_id = call.request_id, %error, "refuse a call");
                Answer::of(&Reply::fault(&error))
            }
        };
        let Answer { frame, _room } = answer;
        channel.send(frame).await?;
        channel.finish().await
    }
}

fn framed(reply: &Reply, body: Vec<Bytes>) -> Frame {
    Frame { head: node_rpc::encode(reply), body }
}

fn parsed<T>(result: Result<T, Malformed>) -> Result<T, ShardError> {
    result.map_err(|error| ShardError::Invalid { reason: error.to_string() })
}
