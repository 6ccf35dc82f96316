//! Placement of Holdfast: which backend holds which slot of which placement group, and the proof that the loss of any m
//! backends can be survived.
//!
//! Not here: moving shards (`coordinator`), storing tables (the root group), what a table is (`proto::pg_table`).
//!
//! **Invariant:** pure. No IO, no clock, no ambient randomness: the same table and candidates, in any order, give the
//! same plan on every machine. No table leaves this crate unproven.

mod assignment;
mod candidate;
mod error;
mod mix;
mod proof;
mod quota;
mod rebalance;
mod solver;
mod table;

#[cfg(test)]
mod tests;

pub use candidate::{Candidate, CandidateRole};
pub use error::PlacementError;
pub use proof::{Counterexample, PgSide, Proof, prove};
pub use solver::{plan_table, slots_changed};
pub use table::{PG_COUNT_MAX, commit_pgs, initial_table};
