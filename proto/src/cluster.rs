//! Who belongs to a cluster: what a node may do, where it stands, where it is reached.
//!
//! Made by the root group, carried in certificates (`NodeIdentity`) and in the cluster map (`NodeRecord`).

use crate::ids::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// What a node does. A node has one role or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Serves S3, keeps metadata, plans placement and repair.
    Coordinator,
    /// Keeps shards on its backends.
    Storage,
}

/// The roles of a node; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Roles {
    coordinator: bool,
    storage: bool,
}

/// A list of roles that is empty or names one that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a list of roles: {given:?}; roles are `coordinator` and `storage`, joined by a comma")]
pub struct RolesError {
    /// What was given (at most its first 64 characters).
    pub given: String,
}

impl Roles {
    /// Both: what a server is unless told otherwise.
    pub const BOTH: Self = Self { coordinator: true, storage: true };

    /// One role.
    pub fn only(role: Role) -> Self {
        Self { coordinator: role == Role::Coordinator, storage: role == Role::Storage }
    }

    /// Whether `role` is among them.
    pub fn has(self, role: Role) -> bool {
        match role {
            Role::Coordinator => self.coordinator,
            Role::Storage => self.storage,
        }
    }

    /// Whether every role of `self` is one of `other`.
    pub fn within(self, other: Self) -> bool {
        (other.coordinator || !self.coordinator) && (other.storage || !self.storage)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.coordinator, self.storage) {
            (true, true) => "coordinator,storage",
            (true, false) => "coordinator",
            _ => "storage",
        })
    }
}

impl FromStr for Roles {
    type Err = RolesError;

    fn from_str(text: &str) -> Result<Self, RolesError> {
        let refused = || RolesError { given: text.chars().take(64).collect() };
        let mut roles = Self { coordinator: false, storage: false };
        for word in text.split(',') {
            match word.trim() {
                "coordinator" => roles.coordinator = true,
                "storage" => roles.storage = true,
                _ => return Err(refused()),
            }
        }
        Ok(roles)
    }
}

impl Serialize for Roles {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who a node is: what its certificate says, signed by the cluster's CA.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its number.
    pub node: NodeId,
    /// What it may do.
    pub roles: Roles,
    /// The region it stands in.
    pub region: String,
    /// The zone within the region.
    pub zone: String,
}

/// Where a node listens, each plane on its own port; several addresses of one plane are tried in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// Shards.
    pub data: Vec<SocketAddr>,
    /// Raft and forwarded metadata calls; empty on a node that is no coordinator.
    pub consensus: Vec<SocketAddr>,
    /// Join, renewal, cluster map; empty on a node that is no coordinator.
    pub control: Vec<SocketAddr>,
    /// S3 endpoint as clients reach it; empty on a node that serves none.
    pub s3: String,
    /// Administration endpoint of the operator; empty on a node that serves none.
    pub admin: String,
}

/// What an operator has asked of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeIntent {
    /// Works.
    #[default]
    Active,
    /// Its shards and voters are being moved away.
    Draining,
    /// Nothing is left on it; it can be removed.
    Drained,
    /// Gone for good: its certificate is refused, its number is never given again.
    Removed,
}

/// A node as the root group records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its number.
    pub id: NodeId,
    /// Short name for people: n1.
    pub name: String,
    /// What it does.
    pub roles: Roles,
    /// Where it stands.
    pub region: String,
    /// Zone within the region.
    pub zone: String,
    /// Where it listens; empty on a cluster of one node that listens nowhere.
    pub addresses: NodeAddresses,
    /// What the operator wants of it.
    pub intent: NodeIntent,
    /// When it joined, milliseconds since 1970.
    pub joined_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_read_what_they_print() {
        let cases = [
            ("coordinator,storage", Some(Roles::BOTH)),
            ("storage, coordinator", Some(Roles::BOTH)),
            ("coordinator", Some(Roles::only(Role::Coordinator))),
            ("storage", Some(Roles::only(Role::Storage))),
            ("", None),
            ("storage,", None),
            ("admin", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Roles>().ok(), expected, "{text:?}");
        }
        for roles in [Roles::BOTH, Roles::only(Role::Coordinator), Roles::only(Role::Storage)] {
            assert_eq!(roles.to_string().parse::<Roles>(), Ok(roles));
            assert!(roles.within(Roles::BOTH));
        }
        assert!(!Roles::BOTH.within(Roles::only(Role::Storage)));
    }
}
