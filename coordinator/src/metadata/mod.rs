//! Metadata of the store: Raft groups over RocksDB behind one trait.
//!
//! `api` is what the rest of the coordinator sees. `state` is pure: (view, command) -> (reply, batch). `log_store`,
//! `state_store` and `group` touch the disk and run consensus; `store` routes calls to groups.

pub mod api;
mod command;
mod consensus;
mod group;
mod keys;
mod kv;
mod listing;
mod log_store;
mod membership_api;
mod membership_commands;
mod raft_machine;
mod state;
mod state_store;
mod store;

pub use api::*;
pub use membership_api::{MembershipMetadata, RedeemToken};
pub use store::{MetadataOptions, MetadataStore};
