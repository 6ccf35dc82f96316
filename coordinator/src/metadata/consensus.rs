//! What the metadata asks of consensus, so that the library behind it can be replaced: propose, read index, members,
//! flush, stop.

use super::api::MetadataResult;
use super::command::{ApplyResult, Command};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What became of a proposal.
#[derive(Debug)]
pub(super) enum Ordered {
    /// It is durable on a quorum and applied here; the answer is what `apply` gave.
    Answered(ApplyResult),
    /// This node does not lead; that one may. Nothing was done.
    NotLeader(Option<u64>),
    /// It may be ordered or not, now or later.
    Unknown(String),
}

/// Who takes part in a group, as this node sees it. What a leader knows of the others is empty on one that does not lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    pub(super) leader: Option<u64>,
    pub(super) is_leader: bool,
    /// A change of voters is under way.
    pub(super) is_changing: bool,
    pub(super) voters: BTreeSet<u64>,
    pub(super) learners: BTreeSet<u64>,
    /// For how long the leader has not heard of each.
    pub(super) silent: BTreeMap<u64, Duration>,
    /// By how many entries each is behind.
    pub(super) behind: BTreeMap<u64, u64>,
}

/// A change of a group's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MemberChange {
    /// A node begins to get the log.
    AddLearner(u64),
    /// These become the voters, by joint consensus; who was one and is not among them stays as a learner.
    SetVoters(BTreeSet<u64>),
    /// A node no longer gets the log.
    RemoveLearner(u64),
    /// That voter is to lead.
    Transfer(u64),
}

/// One group.
#[async_trait]
pub(super) trait Consensus: Send + Sync {
    /// Orders a command, if this node leads.
    async fn propose(&self, command: Command) -> Ordered;

    /// Whether this node is the group's only voter and leads, so that its state is the newest there is.
    fn check_lone(&self) -> MetadataResult<bool>;

    /// If this node leads, and a quorum says so after the call: up to where a reader must have applied. Else who leads.
    async fn read_index(&self) -> Result<u64, Option<u64>>;

    /// Waits until the state here has applied the entry of that index.
    async fn wait_applied(&self, index: u64, limit: Duration) -> MetadataResult<()>;

    /// Who takes part.
    fn members(&self) -> Members;

    /// Who leads, as far as is known here.
    fn leader(&self) -> Option<u64>;

    /// Changes who takes part, if this node leads. Returns when it is done, or has failed.
    async fn change_members(&self, change: MemberChange) -> MetadataResult<()>;

    /// Sends followers nothing for so long, so that they elect another.
    fn keep_silent(&self, time: Duration);

    /// Asks for the state to be flushed and the log before it to be dropped, soon.
    async fn flush(&self) -> MetadataResult<()>;

    /// Drops the log before the last flush if nobody else can need it: if this node is the only voter.
    async fn drop_log_if_lone(&self) -> MetadataResult<()>;

    /// Stops the group. What was acknowledged stays.
    async fn shutdown(&self) -> MetadataResult<()>;
}
