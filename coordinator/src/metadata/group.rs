//! One Raft group on openraft: its types, how its entries are stored, and the group's life. No other module of the
//! crate names openraft, but for the log and the state machine it is given.

use super::api::{MetadataError, MetadataResult};
use super::command::{ApplyResult, Command, Reply};
use super::consensus::Consensus;
use super::log_store::{GroupLog, LogDatabase};
use super::raft_machine::{GroupState, StateMachine};
use async_trait::async_trait;
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{BasicNode, Config, EntryPayload, Raft, SnapshotPolicy};
use prost::Message;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The one voter of a group on one machine. Becomes the node's number when groups have several.
const VOTER: u64 = 1;
/// A lone voter needs no heartbeat; a slow tick keeps an idle server idle.
const HEARTBEAT_MS: u64 = 1_000;
/// Longer than the heartbeat; start-up does not wait for it but asks for the election at once.
const ELECTION_TIMEOUT_MS: (u64, u64) = (3_000, 6_000);
/// How long replay of the log may take at start-up before `open` gives up.
const RECOVERY_LIMIT: Duration = Duration::from_secs(300);
/// First byte of a stored entry.
const ENTRY_FORMAT: u8 = 1;
const KIND_BLANK: u8 = 0;
const KIND_COMMAND: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// A command on its way through the log; shared, so that queues do not copy it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proposal(pub(super) Arc<Command>);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.encoded_len())
    }
}

impl serde::Serialize for Proposal {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0.encode_to_vec())
    }
}

impl<'de> serde::Deserialize<'de> for Proposal {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(d)?;
        Command::decode(bytes.as_slice()).map(|c| Self(Arc::new(c))).map_err(serde::de::Error::custom)
    }
}

/// What `apply` answered. It goes to the caller in this process and is never stored or sent.
#[derive(Clone, Debug)]
pub(super) struct Answer(pub(super) ApplyResult);

impl serde::Serialize for Answer {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("an answer is not stored"))
    }
}

impl<'de> serde::Deserialize<'de> for Answer {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("an answer is not stored"))
    }
}

openraft::declare_raft_types!(
    /// Types of every metadata group.
    pub(super) TypeConfig:
        D = Proposal,
        R = Answer,
        Node = BasicNode,
);

pub(super) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(super) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(super) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(super) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(super) type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;

/// The stored form of an entry: format, term, node, index, kind, payload.
pub(super) fn encode_entry(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    out.push(ENTRY_FORMAT);
    out.extend_from_slice(&entry.log_id.leader_id.term.to_be_bytes());
    out.extend_from_slice(&entry.log_id.leader_id.node_id.to_be_bytes());
    out.extend_from_slice(&entry.log_id.index.to_be_bytes());
    match &entry.payload {
        EntryPayload::Blank => out.push(KIND_BLANK),
        EntryPayload::Normal(proposal) => {
            out.push(KIND_COMMAND);
            proposal.0.encode(&mut out).map_err(io::Error::other)?;
        }
        EntryPayload::Membership(membership) => {
            out.push(KIND_MEMBERSHIP);
            out.extend(serde_json::to_vec(membership).map_err(io::Error::other)?);
        }
    }
    Ok(out)
}

/// Reads the stored form; an unknown format is refused.
pub(super) fn decode_entry(bytes: &[u8]) -> io::Result<Entry> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("metadata log entry: {what}"));
    let (head, payload) = bytes.split_at_checked(26).ok_or_else(|| damaged("cut short"))?;
    if head.first() != Some(&ENTRY_FORMAT) {
        return Err(damaged("unknown format"));
    }
    let number = |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
    let leader = CommittedLeaderId { term: number(1), node_id: number(9) };
    let payload = match head.get(25) {
        Some(&KIND_BLANK) => EntryPayload::Blank,
        Some(&KIND_COMMAND) => {
            let command = Command::decode(payload).map_err(|e| damaged(&e.to_string()))?;
            EntryPayload::Normal(Proposal(Arc::new(command)))
        }
        Some(&KIND_MEMBERSHIP) => {
            EntryPayload::Membership(serde_json::from_slice(payload).map_err(|e| damaged(&e.to_string()))?)
        }
        _ => return Err(damaged("unknown kind")),
    };
    Ok(Entry { log_id: LogId { leader_id: leader, index: number(17) }, payload })
}

/// A group of one voter, running.
pub(super) struct Group {
    raft: Raft<TypeConfig, StateMachine>,
    log: Arc<LogDatabase>,
    state: Arc<GroupState>,
    /// A proposal ended without an answer: it may be in the log and not in the state.
    has_lost_answers: AtomicBool,
}

impl Group {
    /// Opens group `number`, elects its voter and replays its log: when this returns, everything that was ever
    /// acknowledged is applied.
    pub(super) async fn open(number: u32, log: Arc<LogDatabase>, state: Arc<GroupState>) -> MetadataResult<Self> {
        let unavailable = |reason: String| MetadataError::Unavailable { reason: format!("group {number}: {reason}") };
        let config = Config {
            cluster_name: format!("holdfast-{number}"),
            heartbeat_interval: HEARTBEAT_MS,
            election_timeout_min: ELECTION_TIMEOUT_MS.0,
            election_timeout_max: ELECTION_TIMEOUT_MS.1,
            // Snapshots (flushes) are asked for by bytes and time, not by entries.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 0,
            purge_batch_size: 1,
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        let config = Arc::new(config.validate().map_err(|e| unavailable(e.to_string()))?);
        let group_log = GroupLog::open(log.clone(), number).map_err(|e| unavailable(e.to_string()))?;
        state.check_reaches(group_log.purged()).map_err(|e| unavailable(e.to_string()))?;
        let machine = StateMachine::new(state.clone());
        let raft =
            Raft::new(VOTER, config, NoPeers, group_log, machine).await.map_err(|e| unavailable(e.to_string()))?;
        if !raft.is_initialized().await.map_err(|e| unavailable(e.to_string()))? {
            let members = BTreeMap::from([(VOTER, BasicNode::default())]);
            raft.initialize(members).await.map_err(|e| unavailable(e.to_string()))?;
        }
        raft.trigger().elect(false).await.map_err(|e| unavailable(e.to_string()))?;
        raft.wait(Some(RECOVERY_LIMIT))
            .metrics(|m| m.current_leader == Some(VOTER), "the lone voter leads")
            .await
            .map_err(|e| unavailable(e.to_string()))?;
        let group = Self { raft, log, state, has_lost_answers: AtomicBool::new(false) };
        // A blank entry committed and applied puts everything before it behind us.
        let recovered = tokio::time::timeout(RECOVERY_LIMIT, group.raft.write_blank()).await;
        recovered
            .map_err(|_| unavailable("replay took too long".to_owned()))?
            .map_err(|e| unavailable(e.to_string()))?;
        Ok(group)
    }
}

#[async_trait]
impl Consensus for Group {
    async fn propose(&self, command: Command) -> ApplyResult {
        match self.raft.client_write(Proposal(Arc::new(command))).await {
            Ok(response) => response.data.0,
            Err(error) => {
                self.has_lost_answers.store(true, Ordering::Release);
                Err(MetadataError::Unavailable { reason: error.to_string() })
            }
        }
    }

    /// A lone voter is always the newest: what it has applied is what was acknowledged, for it answers only after
    /// applying. So there is nobody to ask, and a read costs nothing; with more voters this becomes a read index.
    ///
    /// After a failure this no longer holds: the log may hold commands that the state never saw and the next start will
    /// apply. Who reads then could take a segment for an orphan that its record, in the log, refers to. So nobody reads.
    async fn read_barrier(&self) -> MetadataResult<()> {
        let has_failed =
            self.log.has_failed() || self.state.has_failed() || self.has_lost_answers.load(Ordering::Acquire);
        if has_failed {
            let reason = "the metadata could not be written; the server must be started anew".to_owned();
            return Err(MetadataError::Unavailable { reason });
        }
        if self.raft.is_leader() {
            return Ok(());
        }
        Err(MetadataError::Unavailable { reason: "this group's voter does not lead".to_owned() })
    }

    async fn flush(&self) -> MetadataResult<()> {
        self.raft
            .trigger()
            .snapshot()
            .await
            .map_err(|e| MetadataError::Unavailable { reason: format!("ask for a flush: {e}") })
    }

    async fn shutdown(&self) -> MetadataResult<()> {
        self.raft.shutdown().await.map_err(|e| MetadataError::Unavailable { reason: format!("stop the group: {e}") })
    }
}

/// Answers of commands that carry none.
pub(super) fn done(reply: Reply) -> MetadataResult<()> {
    match reply {
        Reply::Done | Reply::Bucket(_) => Ok(()),
        other => Err(MetadataError::Unavailable { reason: format!("unexpected reply {other:?}") }),
    }
}

/// The network of a group whose only voter is this process: there is nobody to reach.
#[derive(Clone, Copy)]
struct NoPeers;

impl RaftNetworkFactory<TypeConfig> for NoPeers {
    type Network = Self;

    async fn new_client(&mut self, _: u64, _: &BasicNode) -> Self {
        Self
    }
}

fn nobody() -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string("a group of one voter has no peers"))
}

impl RaftNetworkV2<TypeConfig> for NoPeers {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(nobody())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(nobody())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: openraft::type_config::alias::SnapshotOf<TypeConfig, ()>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(StreamingError::Unreachable(Unreachable::from_string("a group of one voter has no peers")))
    }
}
