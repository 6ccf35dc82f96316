//! The shell towards other nodes: storage nodes as `NodeClient`s over the transport.
//!
//!     object path, maintenance -> ClusterNodes -> the node of this process
//!                                             \-> RemoteNode -> Transport -> another node's NodeService
//!
//! Not here: who is alive (`health`), what goes where (`placement`, `layout`).
//!
//! **Invariant:** no byte of a shard is handed on that was not verified in this process against the root asked for, or
//! by the node of this process.

mod cluster_nodes;
mod remote_node;
mod remote_writer;

#[cfg(test)]
mod tests;

pub use cluster_nodes::{ClusterNodes, ClusterNodesOptions};
pub use remote_node::RemoteNode;
