//! Simulator of Holdfast: clusters of 3 to 25 nodes, made of the real parts, in one thread, on virtual time, from one seed.
//!
//! Real: placement, metadata (openraft with its log and state over a simulated disk), the object path, storage nodes with
//! their fences, the calls between nodes over the in-process transport, maintenance and repair. Simulated: time, the
//! network, directories and what is lost of them. `docs/adr/0020-simulator.md` says why, and what is left out.
//!
//!     run -> cluster (nodes, links) <- faults
//!         -> workload (clients)     -> requests -> a node's object path and metadata
//!         -> checks (all directories, seen from outside), linearizability (histories of keys)
//!
//! **Invariant:** a run follows from its seed, event by event.

pub mod bug;
pub mod checks;
pub mod cluster;
pub mod content;
pub mod disk;
pub mod faults;
pub mod linearizability;
mod link;
pub mod node;
pub mod requests;
pub mod run;
pub mod workload;
pub mod world;

pub use bug::Bug;
pub use run::{Options, Report, run};
