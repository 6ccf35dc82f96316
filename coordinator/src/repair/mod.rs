//! Repair, the deciding half: what is where, what is missing, what to write where, and in which order.
//!
//! Not here: reading, writing, waiting (all of `maintenance`). Time comes in as an argument.
//!
//! **Invariant:** a plan never deletes a copy of a shard unless another good copy was seen where the table wants it,
//! and work is handed out fewest-shards-left first.

pub mod distrust;
pub mod inventory;
pub mod loss;
pub mod margins;
pub mod plan;
pub mod queue;
pub mod roles;
pub mod segment_shape;
pub mod survival;

#[cfg(test)]
mod model_tests;

pub use distrust::Distrust;
pub use inventory::{Unowned, WindowInventory};
pub use loss::{LossClock, Transition};
pub use margins::MarginTable;
pub use plan::{CopyShard, Holding, Reach, SegmentPlan, plan_segment};
pub use queue::{Counted, RepairQueue, WorkItem};
pub use roles::{candidates, margin_by_health, topology};
pub use segment_shape::{SegmentShape, SegmentShapeError};
pub use survival::{full_margin, margin};
