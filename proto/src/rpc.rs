//! What nodes may ask of each other: every RPC with its number on the wire, the plane it belongs to and who may call it.
//!
//! **Invariant:** what is not in this table is denied, and every pair of RPC and caller is decided here and nowhere else
//! (`the_role_matrix_is_exactly_this`).

use crate::cluster::{Role, Roles};

/// Version of the wire between nodes. A peer that speaks neither this version nor the one before is refused.
pub const WIRE_VERSION: u16 = 1;
/// The oldest version that is still spoken.
pub const WIRE_VERSION_MIN: u16 = 1;

/// A listener of its own, with connections of its own: work on one never waits behind work on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plane {
    /// Shards: served by storage nodes.
    Data,
    /// Raft and forwarded metadata calls: served by coordinators.
    Consensus,
    /// Membership: served by coordinators.
    Control,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallerKind {
    /// Somebody without a certificate of this cluster.
    Stranger,
    /// A node with a certificate of this cluster.
    Node(Roles),
}

/// Who may call an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admits {
    /// Whoever reaches the listener; the RPC proves by its content that it may be granted.
    Anybody,
    /// Any node of the cluster.
    AnyNode,
    /// Nodes that have this role.
    Only(Role),
}

macro_rules! rpcs {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $plane:ident, $admits:expr;)*) => {
        /// A call from node to node.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rpc { $($(#[$doc])* $name,)* }

        impl Rpc {
            /// Every RPC there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// Its number on the wire; never used for another.
            pub fn number(self) -> u16 { match self { $(Self::$name => $number,)* } }
            /// The RPC of a number; `None` for one this build does not know.
            pub fn from_number(number: u16) -> Option<Self> { match number { $($number => Some(Self::$name),)* _ => None } }
            /// The plane it is served on.
            pub fn plane(self) -> Plane { match self { $(Self::$name => Plane::$plane,)* } }
            /// Its name in logs and metrics.
            pub fn name(self) -> &'static str { match self { $(Self::$name => stringify!($name),)* } }
            fn admits(self) -> Admits { match self { $(Self::$name => $admits,)* } }
        }
    };
}

rpcs! {
    /// Is the storage side there, and how: heartbeat.
    DataPing = 1, Data, Admits::AnyNode;
    /// Writes one shard: a stream of cells, answered when it is durable.
    ShardWrite = 10, Data, Admits::Only(Role::Coordinator);
    /// Reads cells of a shard. Storage nodes read of each other when they repair.
    ShardRead = 11, Data, Admits::AnyNode;
    /// Whether and how a backend holds a shard.
    ShardStat = 12, Data, Admits::Only(Role::Coordinator);
    /// Frees shards.
    ShardDelete = 13, Data, Admits::Only(Role::Coordinator);
    /// Lists shards of a PG.
    ShardList = 14, Data, Admits::Only(Role::Coordinator);
    /// A step of scrub.
    ShardScrub = 15, Data, Admits::Only(Role::Coordinator);
    /// A linear combination of shards, gathered near them.
    PartialSum = 16, Data, Admits::Only(Role::Coordinator);
    /// The node's backends.
    Backends = 20, Data, Admits::Only(Role::Coordinator);
    /// Formats and attaches a backend.
    BackendAdd = 21, Data, Admits::Only(Role::Coordinator);
    /// Detaches a backend.
    BackendRemove = 22, Data, Admits::Only(Role::Coordinator);
    /// Sets the faults a node injects; refused unless it was started for that.
    FaultSet = 30, Data, Admits::Only(Role::Coordinator);

    /// Is the coordinator side there: heartbeat.
    ConsensusPing = 40, Consensus, Admits::Only(Role::Coordinator);
    /// Raft: entries.
    RaftAppend = 41, Consensus, Admits::Only(Role::Coordinator);
    /// Raft: heartbeats of many groups.
    RaftBeats = 50, Consensus, Admits::Only(Role::Coordinator);
    /// Raft: a vote, also a pre-vote.
    RaftVote = 42, Consensus, Admits::Only(Role::Coordinator);
    /// Raft: a snapshot's files.
    RaftSnapshot = 43, Consensus, Admits::Only(Role::Coordinator);
    /// Raft: take over leadership.
    RaftTransfer = 44, Consensus, Admits::Only(Role::Coordinator);
    /// A command for the leader of a group.
    Propose = 45, Consensus, Admits::Only(Role::Coordinator);
    /// How far a reader must have applied.
    ReadIndex = 46, Consensus, Admits::Only(Role::Coordinator);
    /// A read from a range the caller keeps no copy of.
    MetadataRead = 47, Consensus, Admits::Only(Role::Coordinator);
    /// What a coordinator's requests write and read now.
    Activity = 48, Consensus, Admits::Only(Role::Coordinator);
    /// Damaged shards that a coordinator's reads have met, for the one that repairs.
    DamageHints = 49, Consensus, Admits::Only(Role::Coordinator);

    /// A new node shows its token and asks for a certificate.
    Join = 60, Control, Admits::Anybody;
    /// A node asks for a new certificate before its old one ends.
    Renew = 61, Control, Admits::AnyNode;
    /// The newest cluster map.
    ClusterMap = 62, Control, Admits::AnyNode;
    /// A node says where it listens and what backends it has.
    Announce = 63, Control, Admits::AnyNode;
    /// An administrative request, passed on to the coordinator that can answer it.
    AdminForward = 64, Control, Admits::Only(Role::Coordinator);
    /// As `FaultSet`, for a node that may keep no shards.
    CoordinatorFaultSet = 65, Control, Admits::Only(Role::Coordinator);
}

impl Rpc {
    /// Whether `caller` may make this call.
    pub fn may_be_called_by(self, caller: CallerKind) -> bool {
        match (self.admits(), caller) {
            (Admits::Anybody, _) | (Admits::AnyNode, CallerKind::Node(_)) => true,
            (Admits::Only(role), CallerKind::Node(roles)) => roles.has(role),
            (Admits::AnyNode | Admits::Only(_), CallerKind::Stranger) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The table once more, by hand: stranger, storage, coordinator, both.
    #[test]
    fn the_role_matrix_is_exactly_this() {
        let callers = [
            CallerKind::Stranger,
            CallerKind::Node(Roles::only(Role::Storage)),
            CallerKind::Node(Roles::only(Role::Coordinator)),
            CallerKind::Node(Roles::BOTH),
        ];
        let expected = |rpc| match rpc {
            Rpc::Join => [true, true, true, true],
            Rpc::DataPing | Rpc::ShardRead | Rpc::Renew | Rpc::ClusterMap | Rpc::Announce => [false, true, true, true],
            Rpc::ShardWrite
            | Rpc::ShardStat
            | Rpc::ShardDelete
            | Rpc::ShardList
            | Rpc::ShardScrub
            | Rpc::PartialSum
            | Rpc::Backends
            | Rpc::BackendAdd
            | Rpc::BackendRemove
            | Rpc::FaultSet
            | Rpc::ConsensusPing
            | Rpc::RaftAppend
            | Rpc::RaftBeats
            | Rpc::RaftVote
            | Rpc::RaftSnapshot
            | Rpc::RaftTransfer
            | Rpc::Propose
            | Rpc::ReadIndex
            | Rpc::MetadataRead
            | Rpc::Activity
            | Rpc::DamageHints
            | Rpc::AdminForward
            | Rpc::CoordinatorFaultSet => [false, false, true, true],
        };
        for &rpc in Rpc::ALL {
            assert_eq!(callers.map(|caller| rpc.may_be_called_by(caller)), expected(rpc), "{rpc:?}");
        }
    }

    #[test]
    fn numbers_are_distinct_and_lead_back() {
        let numbers: BTreeSet<u16> = Rpc::ALL.iter().map(|rpc| rpc.number()).collect();
        assert_eq!(numbers.len(), Rpc::ALL.len());
        for &rpc in Rpc::ALL {
            assert_eq!(Rpc::from_number(rpc.number()), Some(rpc));
        }
        assert_eq!(Rpc::from_number(0), None);
        assert_eq!(Rpc::from_number(u16::MAX), None);
    }
}
