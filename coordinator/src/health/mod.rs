//! Which nodes are alive and which are slow: `machine` and `slow` judge, `watch` pings.
//!
//! Not here: whether a disk is (`storage-node`, `maintenance::health`), what follows from a node's loss (`repair`).

mod machine;
mod slow;
mod watch;

#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod watch_tests;

pub use machine::{
    BROKEN_CALLS_MAX, CLEARING_BEATS, HealthMachine, LOST_AFTER, LOST_ALONE_AFTER, Member, NodeState, NodeTransition,
    OPINION_LIFE, PROVING, RETURNING_BEATS, SUSPECT_AFTER, Signal,
};
pub use slow::{Latency, SlowJudge};
pub use watch::{HealthOptions, HealthWatch, NodeHealth};
