//! Faults that an operator injects on purpose, to see the store survive them: which there are, who carries them out, how
//! long, and how often.
//!
//! Pure: rules and times go in, plans come out. The plans are carried out by `transport` (calls to other nodes),
//! `backends` (disks) and the clock of a coordinator.
//!
//!     FaultAdd (an operator's words) -- resolve --> FaultRule (node numbers) -- Board::add --> NodePlan of one node
//!
//! **Invariant:** every rule ends by itself (`a_rule_ends_when_its_time_is_over`). **Invariant:** equal seeds and calls fail
//! equally (`the_same_seed_falls_the_same`).

mod board;
mod dice;
mod kind;
mod plan;
mod resolve;

pub use board::{Board, RULES_MAX};
pub use dice::Dice;
pub use kind::{FaultKind, Layer};
pub use plan::{DiskPlan, LinkPlan, NodePlan};
pub use resolve::{FaultError, TTL_MAX, resolve};
