//! Several real servers as hosts of a network that can be cut: one network namespace for each, on a bridge of their own.
//!
//!     Cluster -> Node (a server process, its disks, its log) -> Network (namespaces, cables, faults on them)
//!     Workload -> S3Connection -> History -> freshness
//!
//! Not the simulator: time, kernel, sockets and processes here are real, so runs differ. What fails here and not there
//! is in the shells.
//!
//! **Invariant:** what a test makes (namespaces, cables, mounts, processes) carries the id of the test's process in its
//! name, goes away with the value that made it, and is removed at the start of the next test if its process was killed.
//! **Invariant:** every wait has a limit.

pub mod body;
pub mod freshness;
pub mod history;
pub mod link_faults;
pub mod network;
pub mod node;
pub mod s3_connection;
pub mod servers;
pub mod small_disk;
pub mod system;
pub mod workload;

pub use history::{History, Operation, Outcome, Record};
pub use link_faults::{LinkFault, Party};
pub use network::Network;
pub use node::Node;
pub use servers::{Cluster, ClusterOptions};
pub use small_disk::SmallDisk;
pub use workload::{Workload, WorkloadOptions};

use std::time::Duration;

/// How long the load of one scenario runs: a few seconds, or `HOLDFAST_SOAK_SECONDS` for `make soak`.
pub fn load_time() -> Duration {
    let soak = std::env::var("HOLDFAST_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(soak.unwrap_or(4))
}

/// Whether a longer run was asked for.
pub fn is_soak() -> bool {
    std::env::var_os("HOLDFAST_SOAK_SECONDS").is_some()
}
