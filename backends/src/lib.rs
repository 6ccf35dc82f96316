//! Backends: what keeps shards. The trait [`Backend`], the disk engine, a backend in memory, wrappers that throttle
//! or inject faults, and the contract every one of them is held to.
//!
//! It does not know objects, placement groups' members or codes. Invariant: a shard whose `finish` returned is on
//! stable storage, and what `read` hands out was verified against the hashes the writer gave.

mod backend;
pub mod contract;
pub mod disk;
mod faulty;
mod memory;
mod throttled;

pub use backend::Backend;
pub use disk::{DiskBackend, DiskOptions, FormatError, Identity, OpenError};
pub use faulty::{FaultHandle, Faulty};
pub use memory::{MemoryBackend, TakenShard};
pub use throttled::{Throttle, Throttled};
