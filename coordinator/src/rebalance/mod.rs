//! Moves of healthy shards, the deciding half: whether a node may be stopped, drained or given up, and what a change of the
//! layout costs.
//!
//! Not here: looking at backends, storing a map, copying shards (all of `maintenance`); what a layout must keep
//! (`placement`).
//!
//! **Invariant:** pure. Map, health and sizes come in as arguments.

pub mod layout_view;
pub mod leave;
pub mod moves;
pub mod policy_view;
pub mod stop;

#[cfg(test)]
pub(crate) mod model;

pub use layout_view::{history_view, layout_view, promise_text, proof_view};
pub use leave::{Accepted, LeaveError, leaving, slots_of_node};
pub use moves::{Pace, move_view, plan_name};
pub use policy_view::{scheme_name, scheme_views};
pub use stop::{scenarios_now, stop_view};
