//! Messages between coordinators (docs/formats.md, "Consensus plane"): Raft, forwarded proposals, read indexes. They cross
//! versions: prost messages, tags never used twice. Entries travel in their stored form as the body of a frame.

use super::raft_types::{LogId, TypeConfig, Vote, log_id};
use bytes::Bytes;
use openraft::raft::{AppendEntriesResponse, VoteRequest, VoteResponse};
use prost::Message;

/// A Raft vote.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct WireVote {
    #[prost(uint64, tag = "1")]
    pub(super) term: u64,
    #[prost(uint64, tag = "2")]
    pub(super) node: u64,
    #[prost(bool, tag = "3")]
    pub(super) committed: bool,
}

/// The id of an entry.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct WireLogId {
    #[prost(uint64, tag = "1")]
    pub(super) term: u64,
    #[prost(uint64, tag = "2")]
    pub(super) node: u64,
    #[prost(uint64, tag = "3")]
    pub(super) index: u64,
}

/// Which group a Raft message is for, and which keys it holds where the message comes from: a node that keeps an ancestor
/// must have applied the splits before it may take part (`apart.rs`). The tags 2 and 3 were the parent.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireGroup {
    #[prost(uint32, tag = "1")]
    pub(super) group: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) start: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) end: Bytes,
}

/// `RaftAppend`: the head; the entries are the body, one after the other.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Append {
    #[prost(message, required, tag = "1")]
    pub(super) group: WireGroup,
    #[prost(message, required, tag = "2")]
    pub(super) vote: WireVote,
    #[prost(message, optional, tag = "3")]
    pub(super) previous: Option<WireLogId>,
    #[prost(message, optional, tag = "4")]
    pub(super) committed: Option<WireLogId>,
    /// Bytes of each entry.
    #[prost(uint32, repeated, tag = "5")]
    pub(super) lengths: Vec<u32>,
}

/// What became of a `RaftAppend`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AppendReply {
    #[prost(oneof = "AppendOutcome", tags = "1,2,3,4,5")]
    pub(super) outcome: Option<AppendOutcome>,
}

/// `RaftBeats`: heartbeats, each an append without entries, of as many groups.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Beats {
    #[prost(message, repeated, tag = "1")]
    pub(super) beats: Vec<Append>,
}

/// What became of each, in their order.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BeatsReply {
    #[prost(message, repeated, tag = "1")]
    pub(super) replies: Vec<AppendReply>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum AppendOutcome {
    #[prost(message, tag = "1")]
    Stored(Nothing),
    #[prost(message, tag = "2")]
    StoredUpTo(OptionalLogId),
    #[prost(message, tag = "3")]
    Conflict(Nothing),
    #[prost(message, tag = "4")]
    HigherVote(WireVote),
    /// The group does not run there, or has failed.
    #[prost(string, tag = "5")]
    Failed(String),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Nothing {}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct OptionalLogId {
    #[prost(message, optional, tag = "1")]
    pub(super) id: Option<WireLogId>,
}

/// `RaftVote`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct VoteCall {
    #[prost(message, required, tag = "1")]
    pub(super) group: WireGroup,
    #[prost(message, required, tag = "2")]
    pub(super) vote: WireVote,
    #[prost(message, optional, tag = "3")]
    pub(super) last: Option<WireLogId>,
    #[prost(bool, tag = "4")]
    pub(super) is_transfer: bool,
    /// Asks whether it would be granted, and changes nothing.
    #[prost(bool, tag = "5")]
    pub(super) is_pre_vote: bool,
}

/// The answer to a `RaftVote`, or why there is none.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct VoteReply {
    #[prost(message, optional, tag = "1")]
    pub(super) vote: Option<WireVote>,
    #[prost(bool, tag = "2")]
    pub(super) granted: bool,
    #[prost(message, optional, tag = "3")]
    pub(super) last: Option<WireLogId>,
    #[prost(string, tag = "4")]
    pub(super) failed: String,
}

/// `RaftTransfer`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Transfer {
    #[prost(message, required, tag = "1")]
    pub(super) group: WireGroup,
    #[prost(message, required, tag = "2")]
    pub(super) from: WireVote,
    #[prost(uint64, tag = "3")]
    pub(super) to: u64,
    #[prost(message, optional, tag = "4")]
    pub(super) last: Option<WireLogId>,
}

/// The answer to a `RaftTransfer` and to others that carry nothing back: empty if all is well.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PlainReply {
    #[prost(string, tag = "1")]
    pub(super) failed: String,
}

/// `RaftSnapshot`: the first frame. Frames of rows follow (`snapshot.rs`).
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SnapshotBegin {
    #[prost(message, required, tag = "1")]
    pub(super) group: WireGroup,
    #[prost(message, required, tag = "2")]
    pub(super) vote: WireVote,
    /// JSON of openraft's `SnapshotMeta`.
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) meta: Bytes,
}

/// A frame of rows of a snapshot; the rows are the body.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct SnapshotRows {
    #[prost(uint64, tag = "1")]
    pub(super) rows: u64,
    /// Of the body.
    #[prost(uint32, tag = "2")]
    pub(super) crc32c: u32,
    /// The last frame: without it a snapshot is cut short.
    #[prost(bool, tag = "3")]
    pub(super) is_last: bool,
}

/// The answer to a whole snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SnapshotReply {
    #[prost(message, optional, tag = "1")]
    pub(super) vote: Option<WireVote>,
    #[prost(string, tag = "2")]
    pub(super) failed: String,
}

/// `Propose`, `ReadIndex`, `MetadataRead`: a group and what is asked of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GroupCall {
    #[prost(uint32, tag = "1")]
    pub(super) group: u32,
    /// A `Command`, nothing, or a `WireQuery`.
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) payload: Bytes,
    /// Who is asked and does not lead passes it on to the leader it knows: the asker does not hear that one itself.
    #[prost(bool, tag = "3")]
    pub(super) pass_on: bool,
}

/// The answer to a `GroupCall`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GroupReply {
    #[prost(oneof = "GroupOutcome", tags = "1,2,3,4")]
    pub(super) outcome: Option<GroupOutcome>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum GroupOutcome {
    /// A `WireAnswer`, the index to have applied (8 bytes, big-endian), or a `WireFound`.
    #[prost(bytes = "bytes", tag = "1")]
    Answer(Bytes),
    /// It does not lead the group; this node does, as far as it knows (0: it does not know). Nothing was done.
    #[prost(uint64, tag = "2")]
    NotLeader(u64),
    /// It keeps no copy of the group. Nothing was done.
    #[prost(message, tag = "3")]
    NotHere(Nothing),
    /// It may or may not be done.
    #[prost(string, tag = "4")]
    Failed(String),
}

impl From<&Vote> for WireVote {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<WireVote> for Vote {
    fn from(vote: WireVote) -> Self {
        if vote.committed { Self::new_committed(vote.term, vote.node) } else { Self::new(vote.term, vote.node) }
    }
}

impl From<LogId> for WireLogId {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
    }
}

impl From<WireLogId> for LogId {
    fn from(id: WireLogId) -> Self {
        log_id(id.term, id.node, id.index)
    }
}

impl VoteCall {
    pub(super) fn new(group: WireGroup, request: &VoteRequest<TypeConfig>, is_pre_vote: bool) -> Self {
        Self {
            group,
            vote: (&request.vote).into(),
            last: request.last_log_id.map(WireLogId::from),
            is_transfer: request.leadership_transfer,
            is_pre_vote,
        }
    }

    pub(super) fn request(&self) -> VoteRequest<TypeConfig> {
        let mut request = VoteRequest::new(self.vote.into(), self.last.map(LogId::from));
        request.leadership_transfer = self.is_transfer;
        request
    }
}

impl VoteReply {
    pub(super) fn granted_or_not(response: &VoteResponse<TypeConfig>) -> Self {
        Self {
            vote: Some((&response.vote).into()),
            granted: response.vote_granted,
            last: response.last_log_id.map(WireLogId::from),
            failed: String::new(),
        }
    }

    pub(super) fn response(self) -> Result<VoteResponse<TypeConfig>, String> {
        let vote = self.vote.ok_or(self.failed)?;
        Ok(VoteResponse::new(Vote::from(vote), self.last.map(LogId::from), self.granted))
    }
}

impl AppendReply {
    pub(super) fn of(response: &AppendEntriesResponse<TypeConfig>) -> Self {
        let outcome = match response {
            AppendEntriesResponse::Success => AppendOutcome::Stored(Nothing {}),
            AppendEntriesResponse::PartialSuccess(id) => {
                AppendOutcome::StoredUpTo(OptionalLogId { id: id.map(WireLogId::from) })
            }
            AppendEntriesResponse::Conflict => AppendOutcome::Conflict(Nothing {}),
            AppendEntriesResponse::HigherVote(vote) => AppendOutcome::HigherVote(vote.into()),
        };
        Self { outcome: Some(outcome) }
    }

    pub(super) fn failed(reason: String) -> Self {
        Self { outcome: Some(AppendOutcome::Failed(reason)) }
    }

    pub(super) fn response(self) -> Result<AppendEntriesResponse<TypeConfig>, String> {
        match self.outcome {
            Some(AppendOutcome::Stored(_)) => Ok(AppendEntriesResponse::Success),
            Some(AppendOutcome::StoredUpTo(up_to)) => {
                Ok(AppendEntriesResponse::PartialSuccess(up_to.id.map(LogId::from)))
            }
            Some(AppendOutcome::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
            Some(AppendOutcome::HigherVote(vote)) => Ok(AppendEntriesResponse::HigherVote(vote.into())),
            Some(AppendOutcome::Failed(reason)) => Err(reason),
            None => Err("an answer of a kind this build does not know".to_owned()),
        }
    }
}

/// Encodes a message as the head of a frame.
pub(super) fn head(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}
