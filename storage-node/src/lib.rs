//! A storage node: the backends of one machine behind `proto::node::NodeClient`.
//!
//! Here: which directory is which backend, noticing that one is gone or back, adding and removing; serving all that to
//! other nodes (`serve`), and refusing what is asked by an outdated map (`fence`). Not here: how a backend keeps shards
//! (`backends`), what belongs where (`coordinator`).
//!
//! **Invariant:** a call reaches a backend only while the directory it was opened in has proven to be that backend; a
//! backend that is not there is reported, never fatal.

mod attachment;
mod disk_faults;
mod fence;
mod fenced_node;
mod local_node;
mod location;
mod matching;
mod opener;
mod probe;
mod serve;

#[cfg(test)]
mod tests;

pub use disk_faults::DiskFaults;
pub use fence::Fence;
pub use fenced_node::FencedNode;
pub use local_node::{BackendSpec, LocalNode, LocalNodeOptions};
pub use location::{Location, LocationError};
pub use opener::{BackendOpener, Closed, DiskOpener, Found};
pub use serve::{NodeService, ServeLimits};
