//! One Raft group on openraft as this node takes part in it: its life, what it orders, and how far a reader must wait.
//! No other module of the crate names openraft, but for the log, the state machine and the network it is given.

use super::api::{MetadataError, MetadataResult};
use super::bounds::Bounds;
use super::command::{Command, Reply};
use super::consensus::{Consensus, MemberChange, Members, Ordered};
use super::heartbeats::Heartbeats;
use super::kv::KvResult;
use super::log_store::{GroupLog, LogDatabase};
use super::network::{Hush, Lineage, Network};
use super::raft_machine::{GroupState, StateMachine};
use super::raft_types::{Proposal, SnapshotMeta, TypeConfig, Vote, index_of};
use super::snapshot::{SnapshotSource, Staged};
use super::splitting::Load;
use async_trait::async_trait;
use holdfast_transport::Transport;
use openraft::async_runtime::{Instant, WatchReceiver};
use openraft::error::{ClientWriteError, Fatal, LinearizableReadError, RaftError};
use openraft::raft::TransferLeaderRequest;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::{BasicNode, ChangeMembers, Config, Raft, ReadPolicy, Snapshot, SnapshotPolicy};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A leader tells its followers that often that it is there.
const HEARTBEAT_MS: u64 = 300;
/// The same.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MS);
/// A follower that hears nothing for the longer of these, and then a random time between them, calls an election: at
/// most 2.4 s after a leader's end, so that with the election itself writes go on within 3 s.
const ELECTION_TIMEOUT_MS: (u64, u64) = (800, 1_200);
/// Entries kept after a flush, so that a peer that was away for a while needs no snapshot: some MiB.
const LOG_ENTRIES_KEPT: u64 = 8_192;
/// Entries of one message.
const MESSAGE_ENTRIES_MAX: u64 = 512;
/// Commands and messages that may wait for the group's task.
const QUEUE_MAX: u64 = 8_192;
/// How long replay of the log may take at start-up before `open` gives up.
const RECOVERY_LIMIT: Duration = Duration::from_secs(300);

/// How a group comes to be on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// It is made here, with this node as its only voter, if it is not there yet.
    Here,
    /// It is on other nodes, or was here before.
    Elsewhere,
}

/// What all groups of a node share.
#[derive(Clone)]
pub(super) struct GroupParts {
    pub(super) me: u64,
    pub(super) log: Arc<LogDatabase>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) heartbeats: Arc<Heartbeats>,
}

/// A group, running.
pub(super) struct Group {
    number: u32,
    me: u64,
    raft: Raft<TypeConfig, StateMachine>,
    log: Arc<LogDatabase>,
    state: Arc<GroupState>,
    /// A proposal ended without an answer: it may be in the log and not in the state.
    has_lost_answers: AtomicBool,
    group_log: GroupLog,
    /// Keys that what is about to come from other nodes takes up.
    claim: Mutex<Option<Bounds>>,
    load: Load,
    hush: Arc<Hush>,
}

impl Group {
    /// Opens group `number`. If this node is its only voter, the group leads and has applied everything ever
    /// acknowledged when this returns; otherwise it has begun to take part.
    pub(super) async fn open(
        number: u32,
        parts: &GroupParts,
        state: Arc<GroupState>,
        beginning: Beginning,
    ) -> MetadataResult<Self> {
        let unavailable = |reason: String| MetadataError::Unavailable { reason: format!("group {number}: {reason}") };
        let group_log = GroupLog::open(parts.log.clone(), number).map_err(|e| unavailable(e.to_string()))?;
        state.check_reaches(group_log.purged()).map_err(|e| unavailable(e.to_string()))?;
        let own_log = group_log.clone();
        let hush = Arc::new(Hush::default());
        let network = Network {
            transport: parts.transport.clone(),
            heartbeats: parts.heartbeats.clone(),
            lineage: state.clone(),
            hush: hush.clone(),
        };
        let machine = StateMachine::new(state.clone());
        let config = Arc::new(config(number).validate().map_err(|e| unavailable(e.to_string()))?);
        let raft = Raft::new(parts.me, config, network, group_log, machine);
        let raft = raft.await.map_err(|e| unavailable(e.to_string()))?;
        // All groups beat in step (`heartbeats.rs`).
        raft.runtime_config().heartbeat(false);
        let (me, log, has_lost_answers) = (parts.me, parts.log.clone(), AtomicBool::new(false));
        let group = Self {
            number,
            me,
            raft,
            log,
            state,
            has_lost_answers,
            group_log: own_log,
            claim: Mutex::default(),
            load: Load::default(),
            hush,
        };
        if beginning == Beginning::Here {
            group.begin().await.map_err(&unavailable)?;
        }
        // Asked of the core itself: what it publishes follows a little later.
        let asked = group.raft.with_raft_state(|state| state.membership_state.effective().voter_ids().collect());
        let voters: Vec<u64> = asked.await.map_err(|e| unavailable(e.to_string()))?;
        if voters == [me] {
            group.recover_alone().await.map_err(&unavailable)?;
        }
        Ok(group)
    }

    async fn begin(&self) -> Result<(), String> {
        if !self.raft.is_initialized().await.map_err(|e| e.to_string())? {
            let members = BTreeMap::from([(self.me, BasicNode::default())]);
            self.raft.initialize(members).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Elects itself and waits until the log is replayed.
    async fn recover_alone(&self) -> Result<(), String> {
        self.raft.trigger().elect(false).await.map_err(|e| e.to_string())?;
        self.raft
            .wait(Some(RECOVERY_LIMIT))
            .metrics(|m| m.current_leader == Some(self.me), "the lone voter leads")
            .await
            .map_err(|e| e.to_string())?;
        // A blank entry committed and applied puts everything before it behind us.
        let recovered = tokio::time::timeout(RECOVERY_LIMIT, self.raft.write_blank()).await;
        recovered.map_err(|_| "replay took too long".to_owned())?.map_err(|e| e.to_string())?;
        // What is published of state and members follows a little later; until then it would not count as alone.
        let published = self.raft.wait(Some(RECOVERY_LIMIT));
        let is_published = |m: &openraft::RaftMetrics<TypeConfig>| {
            m.state.is_leader() && m.membership_config.membership().voter_ids().next().is_some()
        };
        let leads = published.metrics(is_published, "the lone voter says so").await;
        leads.map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Its number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// What this node has ordered in it.
    pub(super) fn load(&self) -> &Load {
        &self.load
    }

    /// Whether there is anything of it here, be it in the log alone.
    pub(super) fn has_begun(&self) -> bool {
        self.state.has_members() || self.group_log.last().is_some()
    }

    /// Takes note of the keys that what is about to come from other nodes takes up, or that it has come or was refused.
    pub(super) fn claim(&self, bounds: Option<Bounds>) {
        *self.claim.lock() = bounds;
    }

    /// What it takes up beside what is stored.
    pub(super) fn claimed(&self) -> Option<Bounds> {
        self.claim.lock().clone()
    }

    /// From the return on nothing is written to the state for this group, whatever its tasks still do.
    pub(super) async fn close_state(&self) -> KvResult<()> {
        let state = self.state.clone();
        self.state
            .store
            .off_thread(move |_| {
                state.close();
                Ok(())
            })
            .await
    }

    /// Of a range that was split, drops the first entry of the log once, if it is flushed: a node that has nothing of the
    /// range is then sent a snapshot, with today's bounds, and does not walk through the time when it held every key.
    pub(super) async fn drop_first_entry(&self) -> MetadataResult<()> {
        let (flushed, purged) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.snapshot, metrics.purged)
        };
        let is_split = !self.state.wire_group().end.is_empty();
        if !is_split || purged.is_some() {
            return Ok(());
        }
        match flushed {
            None => self.flush().await,
            Some(_) => {
                let asked = self.raft.trigger().purge_log(0).await;
                asked.map_err(|e| MetadataError::Unavailable { reason: format!("drop the first entry: {e}") })
            }
        }
    }

    /// Its state, as far as applied here.
    pub(super) fn state(&self) -> &GroupState {
        &self.state
    }

    pub(super) async fn handle_append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, String> {
        self.raft.append_entries(request).await.map_err(|e| e.to_string())
    }

    pub(super) async fn handle_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        is_pre_vote: bool,
    ) -> Result<VoteResponse<TypeConfig>, String> {
        let answer = if is_pre_vote { self.raft.pre_vote(request).await } else { self.raft.vote(request).await };
        answer.map_err(|e| e.to_string())
    }

    pub(super) async fn handle_transfer(&self, request: TransferLeaderRequest<TypeConfig>) -> Result<(), String> {
        self.raft.handle_transfer_leader(request).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }

    pub(super) async fn handle_snapshot(&self, vote: Vote, meta: SnapshotMeta, staged: Staged) -> Result<Vote, String> {
        let snapshot = Snapshot { meta, snapshot: SnapshotSource::Staged(staged) };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(|e| e.to_string())?;
        Ok(answer.vote)
    }

    /// Whether this node leads it and has somebody to tell: voters, or learners alone.
    pub(super) fn leads_others(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let is_other = |node: &u64| *node != self.me;
        metrics.state.is_leader() && metrics.membership_config.membership().nodes().any(|(node, _)| is_other(node))
    }

    /// Tells the followers that the leader is there.
    pub(super) async fn beat(&self) {
        // It fails only once the group has stopped.
        let _ = self.raft.trigger().heartbeat().await;
    }

    /// Whether this node is the only voter: by what it has applied, and by the newest members its log names. After a
    /// restart the state may be of a time when it was alone, while the log already knows of others.
    pub(super) fn is_lone(&self) -> bool {
        self.state.is_lone() && {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().voter_ids().eq([self.me])
        }
    }

    fn has_failed(&self) -> bool {
        self.log.has_failed() || self.state.has_failed() || self.has_lost_answers.load(Ordering::Acquire)
    }
}

fn config(number: u32) -> Config {
    Config {
        cluster_name: format!("holdfast-{number}"),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_TIMEOUT_MS.0,
        election_timeout_max: ELECTION_TIMEOUT_MS.1,
        // Snapshots (flushes) are asked for by bytes and time, not by entries.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: LOG_ENTRIES_KEPT,
        replication_lag_threshold: LOG_ENTRIES_KEPT,
        max_payload_entries: MESSAGE_ENTRIES_MAX,
        purge_batch_size: 1,
        api_channel_size: Some(QUEUE_MAX),
        notification_channel_size: Some(QUEUE_MAX),
        install_snapshot_timeout: 3_600_000,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        ..Config::default()
    }
}

#[async_trait]
impl Consensus for Group {
    async fn propose(&self, command: Command) -> Ordered {
        let command = Arc::new(command);
        match self.raft.client_write(Proposal(command.clone())).await {
            Ok(response) => {
                command.kind.iter().for_each(|kind| self.load.note(kind));
                Ordered::Answered(response.data.0)
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => Ordered::NotLeader(to.leader_id),
            Err(RaftError::Fatal(error)) => {
                self.has_lost_answers.store(!matches!(error, Fatal::Stopped), Ordering::Release);
                Ordered::Unknown(error.to_string())
            }
            Err(error) => Ordered::Unknown(error.to_string()),
        }
    }

    /// A lone voter is always the newest: what it has applied is what was acknowledged, for it answers only after
    /// applying. So there is nobody to ask, and a read costs nothing.
    ///
    /// After a failure this no longer holds: the log may hold commands that the state never saw and the next start will
    /// apply. Who reads then could take a segment for an orphan that its record, in the log, refers to. So nobody reads.
    fn check_lone(&self) -> MetadataResult<bool> {
        if self.has_failed() {
            let reason = "the metadata could not be written; the server must be started anew".to_owned();
            return Err(MetadataError::Unavailable { reason });
        }
        Ok(self.is_lone() && self.raft.is_leader())
    }

    async fn read_index(&self) -> Result<u64, Option<u64>> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => Err(to.leader_id),
            Err(_) => Err(None),
        }
    }

    async fn wait_applied(&self, index: u64, limit: Duration) -> MetadataResult<()> {
        if self.state.applied_index() >= index && self.state.has_members() {
            return Ok(());
        }
        let applied = self.raft.wait(Some(limit)).applied_index_at_least(Some(index), "what a reader must see").await;
        applied.map(|_| ()).map_err(|e| MetadataError::Unavailable { reason: format!("group {}: {e}", self.number) })
    }

    fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    fn members(&self) -> Members {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let silent =
            metrics.heartbeat.iter().flatten().map(|(node, heard)| {
                (*node, heard.as_ref().map_or(Duration::MAX, |heard| heard.into_inner().elapsed()))
            });
        let last = metrics.last_log_index.unwrap_or(0);
        let behind = metrics.replication.iter().flatten();
        Members {
            leader: metrics.current_leader,
            is_leader: metrics.current_leader == Some(self.me),
            is_changing: membership.get_joint_config().len() > 1,
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            silent: silent.collect(),
            behind: behind.map(|(node, matched)| (*node, last.saturating_sub(index_of(*matched)))).collect(),
        }
    }

    async fn change_members(&self, change: MemberChange) -> MetadataResult<()> {
        let failed =
            |e: &dyn std::fmt::Display| MetadataError::Unavailable { reason: format!("group {}: {e}", self.number) };
        let done = match change {
            MemberChange::AddLearner(node) => {
                self.raft.add_learner(node, BasicNode::default(), false).await.map(|_| ())
            }
            MemberChange::SetVoters(voters) => {
                let voters: BTreeSet<u64> = voters;
                self.raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true).await.map(|_| ())
            }
            MemberChange::RemoveLearner(node) => {
                let gone = ChangeMembers::RemoveNodes(BTreeSet::from([node]));
                self.raft.change_membership(gone, true).await.map(|_| ())
            }
            MemberChange::Transfer(node) => {
                return self.raft.trigger().transfer_leader(node).await.map_err(|e| failed(&e));
            }
        };
        done.map_err(|e| failed(&e))
    }

    fn keep_silent(&self, time: Duration) {
        self.hush.begin(time);
    }

    async fn flush(&self) -> MetadataResult<()> {
        self.raft
            .trigger()
            .snapshot()
            .await
            .map_err(|e| MetadataError::Unavailable { reason: format!("ask for a flush: {e}") })
    }

    async fn drop_log_if_lone(&self) -> MetadataResult<()> {
        let members = self.members();
        if !self.is_lone() || !members.learners.is_empty() {
            return Ok(());
        }
        let (flushed, purged) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.snapshot, metrics.purged)
        };
        match flushed {
            Some(flushed) if Some(flushed) > purged => {
                let asked = self.raft.trigger().purge_log(flushed.index).await;
                asked.map_err(|e| MetadataError::Unavailable { reason: format!("drop the log: {e}") })
            }
            _ => Ok(()),
        }
    }

    async fn shutdown(&self) -> MetadataResult<()> {
        self.raft.shutdown().await.map_err(|e| MetadataError::Unavailable { reason: format!("stop the group: {e}") })
    }
}

/// Answers of commands that carry none.
pub(super) fn done(reply: Reply) -> MetadataResult<()> {
    match reply {
        Reply::Done | Reply::Bucket(_) | Reply::Range(_) => Ok(()),
        other => Err(MetadataError::Unavailable { reason: format!("unexpected reply {other:?}") }),
    }
}
