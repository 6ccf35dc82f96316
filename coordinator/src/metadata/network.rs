//! Raft's messages of one group to one peer, over the transport. Timeouts are openraft's; the transport gives up at them.

use super::entry::encode_entry;
use super::heartbeats::Heartbeats;
use super::raft_types::{LogId, SnapshotMeta, TypeConfig, Vote};
use super::snapshot::SnapshotSource;
use super::wire::{
    Append, AppendReply, PlainReply, SnapshotBegin, SnapshotReply, Transfer, VoteCall, VoteReply, WireGroup, WireLogId,
    head,
};
use bytes::Bytes;
use futures::future::{Either, select};
use holdfast_proto::NodeId;
use holdfast_proto::rpc::Rpc;
use holdfast_transport::{CallOptions, Frame, Transport, TransportError};
use openraft::BasicNode;
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use parking_lot::Mutex;
use prost::Message;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Entries of one message: half of what a frame may hold, so that one large entry more still fits.
const APPEND_BYTES_MAX: usize = Frame::BODY_BYTES_MAX / 2;
/// A snapshot that makes no progress for so long is given up and begun again.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(3600);

/// Where a group's messages come from: filled in when the group knows its own lineage.
pub(super) trait Lineage: Send + Sync + 'static {
    /// What goes with every message.
    fn wire_group(&self) -> WireGroup;
}

/// Makes the clients of one group.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) heartbeats: Arc<Heartbeats>,
    pub(super) lineage: Arc<dyn Lineage>,
    pub(super) hush: Arc<Hush>,
}

/// While it lasts a leader sends its followers nothing, so that they elect another.
#[derive(Default)]
pub(super) struct Hush {
    until: Mutex<Option<Instant>>,
}

impl Hush {
    /// From now on for so long.
    pub(super) fn begin(&self, time: Duration) {
        *self.until.lock() = Some(Instant::now() + time);
    }

    fn lasts(&self) -> bool {
        self.until.lock().is_some_and(|until| Instant::now() < until)
    }
}

/// One group towards one peer.
pub(super) struct Peer {
    network: Network,
    target: NodeId,
    /// Only heartbeats go this way.
    beats: bool,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &BasicNode) -> Peer {
        Peer { network: self.clone(), target: NodeId(target), beats: false }
    }

    async fn new_heartbeat_client(&mut self, target: u64, _: &BasicNode) -> Peer {
        Peer { network: self.clone(), target: NodeId(target), beats: true }
    }
}

impl Peer {
    async fn call<R: Message + Default>(
        &self,
        rpc: Rpc,
        request: Frame,
        limit: Duration,
    ) -> Result<R, RPCError<TypeConfig>> {
        let options = CallOptions { deadline: limit, epoch: None, request_id: 0 };
        let answer = tokio::time::timeout(limit, self.network.transport.call(self.target, rpc, request, options)).await;
        let frame = match answer {
            Ok(answer) => answer.map_err(failure)?,
            Err(_) => return Err(unreachable(format!("node {} did not answer in time", self.target))),
        };
        R::decode(frame.head).map_err(|e| unreachable(format!("node {}: {e}", self.target)))
    }

    async fn ask_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        is_pre_vote: bool,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = VoteCall::new(self.network.lineage.wire_group(), &request, is_pre_vote);
        let reply: VoteReply = self.call(Rpc::RaftVote, Frame::head_only(head(&call)), option.soft_ttl()).await?;
        reply.response().map_err(unreachable)
    }

    async fn send_snapshot(&self, vote: &Vote, meta: &SnapshotMeta, source: &SnapshotSource) -> SnapshotOutcome {
        let begin = SnapshotBegin {
            group: self.network.lineage.wire_group(),
            vote: vote.into(),
            meta: serde_json::to_vec(meta).map_err(|e| e.to_string())?.into(),
        };
        let options = CallOptions { deadline: SNAPSHOT_LIMIT, epoch: None, request_id: 0 };
        let first = Frame::head_only(head(&begin));
        let transport = &self.network.transport;
        let opened = transport.open(self.target, Rpc::RaftSnapshot, first, options).await;
        let mut channel = opened.map_err(|e| e.to_string())?;
        while let Some(frame) = source.next_frame().await? {
            channel.send(frame).await.map_err(|e| e.to_string())?;
        }
        channel.finish().await.map_err(|e| e.to_string())?;
        let answer = channel.receive().await.map_err(|e| e.to_string())?;
        let frame = answer.ok_or_else(|| "the peer gave the snapshot up".to_owned())?;
        let reply = SnapshotReply::decode(frame.head).map_err(|e| e.to_string())?;
        reply.vote.map(Vote::from).ok_or(reply.failed)
    }
}

type SnapshotOutcome = Result<Vote, String>;

fn unreachable(reason: String) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(reason))
}

/// Openraft tries again at once after a network error, and after a while if the peer cannot be reached.
fn failure(error: TransportError) -> RPCError<TypeConfig> {
    match error {
        TransportError::Cancelled => RPCError::Network(NetworkError::from_string(error)),
        other => unreachable(other.to_string()),
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotSource;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        if self.network.hush.lasts() {
            return Err(unreachable("this leader hears nobody and keeps silent".to_owned()));
        }
        let mut body = Vec::new();
        let mut bytes = 0;
        let mut last: Option<LogId> = None;
        for entry in &request.entries {
            let stored = encode_entry(entry).map_err(|e| unreachable(e.to_string()))?;
            if bytes > 0 && bytes + stored.len() > APPEND_BYTES_MAX {
                break;
            }
            bytes += stored.len();
            last = Some(entry.log_id);
            body.push(Bytes::from(stored));
        }
        let call = Append {
            group: self.network.lineage.wire_group(),
            vote: (&request.vote).into(),
            previous: request.prev_log_id.map(WireLogId::from),
            committed: request.leader_commit.map(WireLogId::from),
            lengths: body.iter().map(|entry| u32::try_from(entry.len()).unwrap_or(u32::MAX)).collect(),
        };
        let is_part = body.len() < request.entries.len();
        let reply: AppendReply = if self.beats && request.entries.is_empty() {
            self.network.heartbeats.send(self.target, call).await.map_err(unreachable)?
        } else {
            let frame = Frame { head: head(&call), body };
            self.call(Rpc::RaftAppend, frame, option.soft_ttl()).await?
        };
        match reply.response().map_err(unreachable)? {
            AppendEntriesResponse::Success if is_part => Ok(AppendEntriesResponse::PartialSuccess(last)),
            other => Ok(other),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(request, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(request, true, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotSource>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = pin!(self.send_snapshot(&vote, &snapshot.meta, &snapshot.snapshot));
        match select(sending, pin!(cancel)).await {
            Either::Left((Ok(vote), _)) => Ok(SnapshotResponse::new(vote)),
            Either::Left((Err(reason), _)) => Err(StreamingError::Unreachable(Unreachable::from_string(reason))),
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = Transfer {
            group: self.network.lineage.wire_group(),
            from: request.from_leader().into(),
            to: *request.to_node_id(),
            last: request.last_log_id().map(|id| WireLogId::from(*id)),
        };
        let reply: PlainReply = self.call(Rpc::RaftTransfer, Frame::head_only(head(&call)), option.soft_ttl()).await?;
        // A peer that will not take over is no failure of the call; the leader goes on leading.
        if reply.failed.is_empty() { Ok(Ok(())) } else { Err(unreachable(reply.failed)) }
    }
}

/// A transport for a store that has no peers: nobody is known.
pub(super) struct NoPeers;

#[async_trait::async_trait]
impl Transport for NoPeers {
    async fn open(
        &self,
        to: NodeId,
        _: Rpc,
        _: Frame,
        _: CallOptions,
    ) -> Result<Box<dyn holdfast_transport::Channel>, TransportError> {
        Err(TransportError::Unknown { peer: to })
    }
}
