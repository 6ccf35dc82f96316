//! Whatever of Holdfast crosses a wire or a restart: ids, the shard header, the manifest, the trait a coordinator
//! talks to storage nodes through, and the messages of the administration API.
//!
//! Pure encode and decode. No IO, no clock, no randomness, and no dependency on another crate of the workspace.

pub mod admin;
pub mod cell_buffer;
pub mod cluster;
pub mod error_kind;
pub mod faults;
pub mod heartbeat;
pub mod ids;
pub mod layout_admin;
pub mod manifest;
pub mod membership;
pub mod node;
pub mod node_rpc;
pub mod peer_rpc;
pub mod pg_table;
pub mod rpc;
pub mod shard_header;

pub use error_kind::ErrorKind;
pub use ids::{BackendId, BucketId, ClusterId, Epoch, NodeId, PgId, SegmentId, ShardId, Slot, VersionId};
