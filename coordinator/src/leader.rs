//! Which coordinator keeps the store whole: the leader of the root group, as this process sees it.

use holdfast_proto::NodeId;
use std::sync::Arc;

/// Which coordinator keeps the store whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leader {
    /// This one.
    Here,
    /// This other one.
    Node(NodeId),
    /// None is known just now: an election is under way, or too few coordinators are there.
    Unknown,
}

/// Tells who leads, from memory.
pub type LeaderView = Arc<dyn Fn() -> Leader + Send + Sync>;
