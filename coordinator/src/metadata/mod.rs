//! Metadata of the store: Raft groups over RocksDB behind one trait.
//!
//! `api` is what the rest of the coordinator sees. `state` is pure: (view, command) -> (reply, batch). `log_store`,
//! `state_store` and `group` touch the disk and run consensus, `network` and `service` speak to the other coordinators;
//! `store` routes calls to groups, `voters` plans who takes part in them.

mod apart;
pub mod api;
mod bounds;
#[cfg(test)]
mod cluster_tests;
mod command;
mod consensus;
mod entry;
mod fair_watch;
mod group;
mod groups;
mod heartbeats;
mod keys;
mod kv;
mod listing;
mod log_store;
mod map_change;
mod membership_api;
mod membership_commands;
mod network;
mod query;
mod query_wire;
mod raft_machine;
mod raft_types;
mod removal;
mod runtime;
mod sequences;
mod service;
mod simulated_disk;
mod snapshot;
mod splitting;
mod state;
mod state_store;
mod store;
mod voters;
mod wire;
mod wire_answer;

pub use api::*;
pub use map_change::{MapChange, note_change};
pub use membership_api::{MembershipMetadata, RedeemToken};
pub use runtime::seed_thread;
pub use service::{ConsensusService, METADATA_RPCS};
pub use simulated_disk::SimulatedDisk;
pub use store::{MetadataFiles, MetadataOptions, MetadataStore, NodeOptions, RangeInfo};
