//! What both benchmarks share: timing in one process on one pinned core, buffers that do not alias, shapes, tables.
//!
//! Contestants run in turn within each round, and each round begins with another one. Time is the process's CPU time:
//! other processes on the machine stretch the wall clock, not that (they still take cache and memory bandwidth, so
//! figures are good only on a quiet machine, and ratios better than figures).

pub mod memory;
pub mod race;
pub mod shapes;

pub use memory::Stripe;
pub use race::{Contestant, Race};
