//! What coordinators ask of each other beside consensus: what requests under way write and read, damage that reads have
//! met, administrative requests that another must answer. One of them, the leader of the root group, keeps the store
//! whole (`maintenance`); the others tell it what it must know.
//!
//! Touches the world: the network, spawned tasks.

mod activity;
mod convert;
mod hints;
mod service;

pub use activity::{ClusterActivity, CoordinatorList};
pub use hints::HintRelay;
pub use service::PeerService;
