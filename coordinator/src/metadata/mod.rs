//! Metadata of the store: Raft groups over RocksDB behind one trait.
pub mod api;
pub use api::*;
