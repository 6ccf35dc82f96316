//! Nodes of one process that call each other: for the roles of one node, for tests, and for the simulator.
//!
//! What passes between them is what would pass over a wire; the links may delay, lose and cut it (`LinkConditions`), in
//! tokio's time, so under a paused clock in virtual time. Given the same seed and one thread, everything happens again
//! in the same order.
//!
//!     Transport::open -> admit (role matrix, limits) -> Pipe there -> Service
//!                                       CallEnd      <- Pipe back <-
//!
//! **Invariant:** it keeps the contract of every transport (`contract`).

mod conditions;
mod end;
mod network;
mod pipe;

#[cfg(test)]
mod tests;

pub use conditions::LinkConditions;
pub use network::{LocalNetwork, LocalOptions, LocalTransport};
