//! The consensus plane as a coordinator serves it: Raft's messages, and what other coordinators forward.

use super::api::MetadataError;
use super::bounds::Bounds;
use super::command::Command;
use super::consensus::{Consensus, Ordered};
use super::entry::decode_entry;
use super::group::Group;
use super::heartbeats::BEATS_MAX;
use super::query::Found;
use super::query_wire::{WireFound, WireQuery};
use super::raft_types::{Entry, LogId, TypeConfig, Vote};
use super::snapshot::Staged;
use super::store::Inner;
use super::wire::{
    Append, AppendReply, Beats, BeatsReply, GroupCall, GroupOutcome, GroupReply, Nothing, PlainReply, SnapshotBegin,
    SnapshotReply, SnapshotRows, Transfer, VoteCall, VoteReply, WireGroup, head,
};
use super::wire_answer::WireAnswer;
use bytes::{Buf, Bytes};
use futures::future::join_all;
use holdfast_proto::rpc::Rpc;
use holdfast_transport::{Call, Channel, Frame, Service, TransportError};
use openraft::raft::TransferLeaderRequest;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use prost::Message;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What the consensus plane asks of the metadata.
pub const METADATA_RPCS: &[Rpc] = &[
    Rpc::RaftAppend,
    Rpc::RaftBeats,
    Rpc::RaftVote,
    Rpc::RaftSnapshot,
    Rpc::RaftTransfer,
    Rpc::Propose,
    Rpc::ReadIndex,
    Rpc::MetadataRead,
];
/// A group that does not answer a heartbeat for so long is busy: the answer to the others is not held up for it.
const BEAT_LIMIT: Duration = Duration::from_millis(100);

/// Serves the consensus plane for a store. Ends with it: calls after its end are refused.
pub struct ConsensusService {
    inner: Weak<Inner>,
}

impl ConsensusService {
    pub(super) fn new(inner: &Arc<Inner>) -> Self {
        Self { inner: Arc::downgrade(inner) }
    }
}

#[async_trait::async_trait]
impl Service for ConsensusService {
    async fn serve(&self, call: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
        let Some(inner) = self.inner.upgrade() else { return Err(TransportError::Cancelled) };
        let Some(first) = channel.receive().await? else { return Err(malformed("no frame")) };
        let reply = match call.rpc {
            Rpc::RaftAppend => append(&inner, first).await?,
            Rpc::RaftBeats => beats(&inner, first).await?,
            Rpc::RaftVote => vote(&inner, first).await?,
            Rpc::RaftTransfer => transfer(&inner, first).await?,
            Rpc::RaftSnapshot => snapshot(&inner, first, channel.as_mut()).await?,
            Rpc::Propose => propose(&inner, first).await?,
            Rpc::ReadIndex => read_index(&inner, first).await?,
            Rpc::MetadataRead => read(&inner, first).await?,
            other => return Err(malformed(other.name())),
        };
        channel.send(Frame::head_only(reply)).await?;
        channel.finish().await
    }
}

fn malformed(what: &str) -> TransportError {
    TransportError::Malformed { reason: format!("consensus plane: {what}") }
}

fn decoded<M: Message + Default>(frame: &Frame) -> Result<M, TransportError> {
    M::decode(frame.head.clone()).map_err(|e| malformed(&e.to_string()))
}

async fn append(inner: &Inner, frame: Frame) -> Result<Bytes, TransportError> {
    let call: Append = decoded(&frame)?;
    let entries = entries(&call.lengths, frame.body)?;
    Ok(head(&take_append(inner, call, entries).await))
}

/// Heartbeats of many groups. Each has its turn whatever the others do, and one that is slow keeps no other waiting long.
async fn beats(inner: &Inner, frame: Frame) -> Result<Bytes, TransportError> {
    let call: Beats = decoded(&frame)?;
    if call.beats.len() > BEATS_MAX || call.beats.iter().any(|beat| !beat.lengths.is_empty()) {
        return Err(malformed("too many heartbeats, or one with entries"));
    }
    let replies = join_all(call.beats.into_iter().map(|beat| async move {
        let taken = tokio::time::timeout(BEAT_LIMIT, take_append(inner, beat, Vec::new())).await;
        taken.unwrap_or_else(|_| AppendReply::failed("the group is busy".to_owned()))
    }));
    Ok(head(&BeatsReply { replies: replies.await }))
}

async fn take_append(inner: &Inner, call: Append, entries: Vec<Entry>) -> AppendReply {
    let request = AppendEntriesRequest {
        vote: call.vote.into(),
        prev_log_id: call.previous.map(LogId::from),
        entries,
        leader_commit: call.committed.map(LogId::from),
    };
    match group_of(inner, &call.group).await {
        Ok(group) => match take_entries(inner, &group, request).await {
            Ok(response) => AppendReply::of(&response),
            Err(reason) => AppendReply::failed(reason),
        },
        Err(error) => AppendReply::failed(error.to_string()),
    }
}

async fn take_entries(
    inner: &Inner,
    group: &Arc<Group>,
    request: AppendEntriesRequest<TypeConfig>,
) -> Result<AppendEntriesResponse<TypeConfig>, String> {
    if request.prev_log_id.is_some() || request.entries.is_empty() {
        return group.handle_append(request).await;
    }
    let group = group.clone();
    to_the_end(inner, |inner| async move {
        let beginning = inner.groups.admit_first_entries(&group).await.map_err(|e| e.to_string())?;
        let answer = group.handle_append(request).await;
        if beginning.is_some() {
            group.claim(None);
        }
        answer
    })
    .await
}

/// The group that a message is for; made, empty, if it is not here.
async fn group_of(inner: &Inner, wire: &WireGroup) -> Result<Arc<Group>, String> {
    if let Some(running) = inner.groups.get(wire.group) {
        return Ok(running);
    }
    let wire = wire.clone();
    to_the_end(
        inner,
        |inner| async move { inner.groups.open_for_message(&wire).await.map_err(|error| error.to_string()) },
    )
    .await
}

/// Does something in a task of its own: who asked may go away midway, and what was claimed meanwhile must be given back, not
/// before it has come.
async fn to_the_end<T, W>(inner: &Inner, work: impl FnOnce(Arc<Inner>) -> W) -> Result<T, String>
where
    T: Send + 'static,
    W: Future<Output = Result<T, String>> + Send + 'static,
{
    let inner = inner.me_weak.upgrade().ok_or("the metadata has stopped")?;
    tokio::spawn(work(inner)).await.map_err(|error| error.to_string())?
}

fn entries(lengths: &[u32], body: Vec<Bytes>) -> Result<Vec<Entry>, TransportError> {
    let mut body: Bytes = match <[Bytes; 1]>::try_from(body) {
        Ok([one]) => one,
        Err(pieces) => pieces.concat().into(),
    };
    let mut entries = Vec::with_capacity(lengths.len().min(4096));
    for &length in lengths {
        let length = length as usize;
        if body.remaining() < length {
            return Err(malformed("entries are cut short"));
        }
        entries.push(decode_entry(&body.split_to(length)).map_err(|e| malformed(&e.to_string()))?);
    }
    Ok(entries)
}

async fn vote(inner: &Inner, frame: Frame) -> Result<Bytes, TransportError> {
    let call: VoteCall = decoded(&frame)?;
    let answer = match group_of(inner, &call.group).await {
        Ok(group) => group.handle_vote(call.request(), call.is_pre_vote).await,
        Err(error) => Err(error.to_string()),
    };
    Ok(head(&match answer {
        Ok(response) => VoteReply::granted_or_not(&response),
        Err(failed) => VoteReply { failed, ..VoteReply::default() },
    }))
}

async fn transfer(inner: &Inner, frame: Frame) -> Result<Bytes, TransportError> {
    let call: Transfer = decoded(&frame)?;
    let request = TransferLeaderRequest::new(Vote::from(call.from), call.to, call.last.map(LogId::from));
    let answer = match group_of(inner, &call.group).await {
        Ok(group) => group.handle_transfer(request).await,
        Err(error) => Err(error.to_string()),
    };
    Ok(head(&PlainReply { failed: answer.err().unwrap_or_default() }))
}

async fn snapshot(inner: &Inner, first: Frame, channel: &mut dyn Channel) -> Result<Bytes, TransportError> {
    let begin: SnapshotBegin = decoded(&first)?;
    let answer = take_snapshot(inner, begin, channel).await?;
    Ok(head(&match answer {
        Ok(vote) => SnapshotReply { vote: Some((&vote).into()), failed: String::new() },
        Err(failed) => SnapshotReply { vote: None, failed },
    }))
}

/// Looks first whether it can be installed, for it may be gigabytes; and again when it is here, by what it really holds.
async fn take_snapshot(
    inner: &Inner,
    begin: SnapshotBegin,
    channel: &mut dyn Channel,
) -> Result<Result<Vote, String>, TransportError> {
    let number = begin.group.group;
    let meta = serde_json::from_slice(&begin.meta).map_err(|e| malformed(&e.to_string()))?;
    let told = Bounds { start: begin.group.start.clone(), end: begin.group.end.clone(), ..Bounds::default() };
    let group = match group_of(inner, &begin.group).await {
        Ok(group) => inner.groups.check_free(number, &told).map(|()| group).map_err(|error| error.to_string()),
        Err(reason) => Err(reason),
    };
    let group = match group {
        Ok(group) => group,
        Err(reason) => return Ok(Err(reason)),
    };
    let staged = match stage(inner, number, channel).await? {
        Ok(staged) => staged,
        Err(reason) => return Ok(Err(reason)),
    };
    let read = move || Ok((staged.bounds(number).map_err(std::io::Error::other)?, staged));
    let (bounds, staged) = match inner.off_thread(read).await {
        Ok(read) => read,
        Err(reason) => return Ok(Err(reason)),
    };
    let installing = to_the_end(inner, |inner| async move {
        match inner.groups.admit_snapshot(&group, bounds).await {
            Ok(_beginning) => {
                let answer = group.handle_snapshot(begin.vote.into(), meta, staged).await;
                group.claim(None);
                answer
            }
            Err(error) => {
                staged.discard();
                Err(error.to_string())
            }
        }
    });
    Ok(installing.await)
}

/// Receives the rows; the inner error is this node's, the outer one the caller's or the channel's.
async fn stage(inner: &Inner, group: u32, channel: &mut dyn Channel) -> Result<Result<Staged, String>, TransportError> {
    let mut incoming = match inner.staging.begin(group) {
        Ok(incoming) => incoming,
        Err(error) => return Ok(Err(error.to_string())),
    };
    loop {
        let frame = match channel.receive().await {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                incoming.abandon();
                return Err(malformed("a snapshot is cut short"));
            }
            Err(error) => {
                incoming.abandon();
                return Err(error);
            }
        };
        let rows: SnapshotRows = decoded(&frame)?;
        // A megabyte to the page cache at a time: short enough for an async thread.
        match incoming.take(rows, &frame.body) {
            Ok(false) => {}
            Ok(true) => return Ok(inner.off_thread(move || incoming.finish()).await),
            Err(error) => {
                incoming.abandon();
                return Ok(Err(error.to_string()));
            }
        }
    }
}

fn outcome(outcome: GroupOutcome) -> Bytes {
    head(&GroupReply { outcome: Some(outcome) })
}

/// Who leads, or what that node answers if the caller does not hear it.
async fn not_leader(inner: &Inner, rpc: Rpc, call: GroupCall, leader: Option<u64>) -> Bytes {
    outcome(match leader.filter(|leader| call.pass_on && *leader != inner.me) {
        Some(leader) => inner.pass_on(leader, rpc, call.group, call.payload).await,
        None => GroupOutcome::NotLeader(leader.unwrap_or(0)),
    })
}

async fn propose(inner: &Inner, frame: Frame) -> Result<Bytes, TransportError> {
    let call: GroupCall = decoded(&frame)?;
    let command = Command::decode(call.payload.clone()).map_err(|e| malformed(&e.to_string()))?;
    let Some(group) = inner.groups.get(call.group) else { return Ok(outcome(GroupOutcome::NotHere(Nothing {}))) };
    if let Err(refused) = inner.admit(command.kind.as_ref()) {
        // What this node has no room for may be in the log already, by an earlier try: that is no answer to a command that
        // is retried, for its proposer would delete what it refers to.
        return Ok(outcome(match command.once {
            Some(_) => GroupOutcome::Failed(refused.to_string()),
            None => GroupOutcome::Answer(head(&WireAnswer::of(&Err(refused)))),
        }));
    }
    Ok(match group.propose(command).await {
        Ordered::Answered(answer) => outcome(GroupOutcome::Answer(head(&WireAnswer::of(&answer)))),
        Ordered::NotLeader(leader) => not_leader(inner, Rpc::Propose, call, leader).await,
        Ordered::Unknown(reason) => outcome(GroupOutcome::Failed(reason)),
    })
}

async fn read_index(inner: &Inner, frame: Frame) -> Result<Bytes, TransportError> {
    let call: GroupCall = decoded(&frame)?;
    let Some(group) = inner.groups.get(call.group) else { return Ok(outcome(GroupOutcome::NotHere(Nothing {}))) };
    Ok(match group.read_index().await {
        Ok(index) => outcome(GroupOutcome::Answer(Bytes::copy_from_slice(&index.to_be_bytes()))),
        Err(leader) => not_leader(inner, Rpc::ReadIndex, call, leader.or(group.members().leader)).await,
    })
}

async fn read(inner: &Inner, frame: Frame) -> Result<Bytes, TransportError> {
    let call: GroupCall = decoded(&frame)?;
    let query = WireQuery::decode(call.payload).map_err(|e| malformed(&e.to_string()))?;
    let Some(query) = query.into_query() else { return Err(malformed("a query of a kind this build does not know")) };
    let Some(group) = inner.groups.get(call.group) else { return Ok(outcome(GroupOutcome::NotHere(Nothing {}))) };
    Ok(match inner.read_here(&group, query).await {
        Ok(found) => found_reply(found),
        Err(MetadataError::Unavailable { reason }) => outcome(GroupOutcome::Failed(reason)),
        Err(other) => outcome(GroupOutcome::Failed(other.to_string())),
    })
}

fn found_reply(found: Found) -> Bytes {
    outcome(GroupOutcome::Answer(head(&WireFound::of(found))))
}

#[cfg(test)]
mod tests {
    use super::super::network::NoPeers;
    use super::super::simulated_disk::SimulatedDisk;
    use super::super::store::{FIRST_RANGE, MetadataFiles, MetadataStore, NodeOptions};
    use super::*;
    use holdfast_proto::{ClusterId, NodeId};

    /// A node that has joined and that nobody has sent anything yet.
    async fn joined() -> MetadataStore {
        let options = NodeOptions {
            files: MetadataFiles::Simulated(SimulatedDisk::new(Duration::from_millis(1))),
            node: NodeId(2),
            cluster: ClusterId([9; 16]),
            range_bytes_max: None,
            transport: Arc::new(NoPeers),
        };
        MetadataStore::join(options).await.unwrap()
    }

    /// Half opened it would go on beside the next one, on the same log.
    #[tokio::test(start_paused = true)]
    async fn a_group_is_opened_whole_although_the_message_it_is_opened_for_is_cut_off() {
        let store = joined().await;
        let wire = WireGroup { group: FIRST_RANGE, ..WireGroup::default() };
        {
            let opening = group_of(&store.inner, &wire);
            let mut opening = std::pin::pin!(opening);
            assert!(futures::poll!(&mut opening).is_pending());
        }
        assert!(store.inner.groups.get(FIRST_RANGE).is_none(), "cut off midway");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(store.inner.groups.get(FIRST_RANGE).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_beyond_a_message_or_with_entries_are_refused() {
        let store = joined().await;
        let asked = |list: Vec<Append>| Frame::head_only(head(&Beats { beats: list }));
        assert!(beats(&store.inner, asked(vec![Append::default(); BEATS_MAX + 1])).await.is_err());
        assert!(beats(&store.inner, asked(vec![Append { lengths: vec![1], ..Append::default() }])).await.is_err());
        let answered = beats(&store.inner, asked(vec![Append::default(); 3])).await.unwrap();
        assert_eq!(BeatsReply::decode(answered).unwrap().replies.len(), 3);
    }
}
