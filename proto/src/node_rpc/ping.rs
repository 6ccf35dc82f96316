//! DataPing: the heartbeat of a storage node. It carries the fence there, and load and health in short back.

use super::{BackendSummary, Malformed};
use crate::ids::{BackendId, Epoch};
use crate::node::BackendHealth;

/// Backends a heartbeat may sum up.
const BACKENDS_MAX: usize = 4096;

/// The question.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ping {
    /// The node shall refuse what depends on an older map; 0 to leave its minimum as it is. Heeded from coordinators.
    #[prost(uint64, tag = "1")]
    pub minimum_epoch: u64,
}

/// How busy a node is.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct NodeLoad {
    /// Shards being written.
    #[prost(uint64, tag = "1")]
    pub writers: u64,
    /// Calls being served.
    #[prost(uint64, tag = "2")]
    pub calls: u64,
    /// Bytes of cells taken in or read and not yet passed on.
    #[prost(uint64, tag = "3")]
    pub bytes_in_flight: u64,
}

/// The answer. From memory: a disk that hangs does not delay it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Pong {
    /// The minimum epoch in force: no write by an older map will become durable any more.
    #[prost(uint64, tag = "1")]
    pub minimum_epoch: u64,
    /// How busy.
    #[prost(message, optional, tag = "2")]
    pub load: Option<NodeLoad>,
    /// How the backends were when looked at last; absent ones were not looked at yet.
    #[prost(message, repeated, tag = "3")]
    pub backends: Vec<BackendSummary>,
}

impl Pong {
    /// The minimum epoch.
    pub fn minimum_epoch(&self) -> Epoch {
        Epoch(self.minimum_epoch)
    }

    /// How the backends are.
    ///
    /// # Errors
    /// A malformed summary, or more than a machine has.
    pub fn backends(&self) -> Result<Vec<(BackendId, BackendHealth)>, Malformed> {
        if self.backends.len() > BACKENDS_MAX {
            return Err(Malformed::new(format!("{} backends", self.backends.len())));
        }
        self.backends.iter().map(BackendSummary::parse).collect()
    }
}
