//! The types openraft is given: what an entry carries, what applying it answers, and the names of its generic types.

use super::command::{ApplyResult, Command};
use super::runtime::Runtime;
use openraft::BasicNode;
use prost::Message;
use std::fmt;
use std::sync::Arc;

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

/// What `apply` answered. Openraft hands it to the caller in this process and never stores or sends it.
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
        AsyncRuntime = Runtime,
);

pub(super) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(super) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(super) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(super) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(super) type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;

/// Index of a log id, 0 for none.
pub(super) fn index_of(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index)
}

/// The id of an entry, from its parts.
pub(super) fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId { term, node_id: node }, index }
}
