//! The erasure codes of Holdfast over byte slices, the geometry of a segment's stripes, coding and hashing of a stripe
//! in one go, and a many-lane MD5.
//!
//! Not here: where shards live (`placement`), what a shard looks like on a disk (`proto`), reading or writing anything.
//!
//! **Invariant:** pure. No IO, no clock, no randomness, no threads, no dependency on another crate of the workspace;
//! the same input gives the same bytes on every machine, whatever instructions it has. No call panics on any argument.
//!
//! Start at [`Scheme`] (which code), then [`Code`] (its matrix: the module's documentation derives each from the field
//! and the points), [`Geometry`] (which bytes), and [`Codec`] (the work).

pub mod code;
pub mod codec;
pub mod engine;
pub mod error;
pub mod geometry;
pub mod md5_lanes;
pub mod pipeline;
pub mod repair_plan;
pub mod scheme;
pub mod slot_set;

mod decode_cache;
mod field;
mod matrix;
mod verdict_cache;

pub use code::{Code, LocalGroup};
pub use codec::Codec;
pub use error::{CodecError, CodecErrorKind};
pub use geometry::{Geometry, Stripe, default_cell_bytes};
pub use repair_plan::{CostWeights, PartialSum, RepairPlan, ShardCost, ShardRead};
pub use scheme::{Family, GeoTable, Scheme, SchemeError};
pub use slot_set::SlotSet;
