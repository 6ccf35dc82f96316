//! Placement of Holdfast: which backend holds which slot of which placement group, and the proof that what was promised
//! is survived.
//!
//! Not here: moving shards (`coordinator`), storing tables (the root group), what a table is (`proto::pg_table`).
//!
//! **Invariant:** pure. No IO, no clock, no ambient randomness: the same table and topology, in any order, give the
//! same plan on every machine. No table leaves this crate unproven.
//!
//! Start at [`Promise`] and [`Topology`]; then [`initial_layout`], [`plan_layout`] and [`prove_layout`].

mod assignment;
mod candidate;
mod caps;
mod domain;
mod durability;
mod error;
mod fill;
mod flow;
mod loss_case;
mod mix;
mod movement;
mod planner;
mod proof;
mod rebalance;
mod scenario;
mod setting;
mod solver;
mod stand_in;
mod stop;
mod table;
mod topology;
mod undo;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod tests;

pub use candidate::{Candidate, CandidateRole};
pub use caps::{Caps, Infeasible, Lack, feasible_caps};
pub use domain::{Domain, DomainKind, DomainKindError};
pub use durability::{Hazards, Spread, nines};
pub use error::PlacementError;
pub use loss_case::PgSide;
pub use movement::{LinkLoad, MoveSummary, ScenarioSteps, summarize_moves};
pub use planner::{PlannerLimits, PolicyPlan, SchemeOffer, plan_policy, strongest_promise};
pub use proof::{Counterexample, Proof, prove, prove_layout, prove_targets};
pub use scenario::{KINDS_MAX, Promise, SCENARIOS_MAX, Scenario, ScenarioError};
pub use solver::{LayoutPlan, plan_layout, plan_table, slots_changed};
pub use stand_in::choose_stand_in;
pub use stop::{StopCheck, StopQuestion, safe_to_stop};
pub use table::{PG_COUNT_MAX, commit_pgs, initial_layout, initial_table};
pub use topology::{BACKENDS_MAX, BackendPlace, Topology, TopologyError};
pub use undo::undo_moves;
