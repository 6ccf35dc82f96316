//! Settings of a disk backend.

use std::time::Duration;

/// Who does checkpoints, giving back of room and compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// A thread of the backend, in the background.
    Automatic,
    /// Nobody until `DiskBackend::maintain` is called; closing checkpoints.
    Manual,
}

/// Settings of a disk backend, with defaults fit for a real disk.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Bytes kept free on its file system; `None` for 256 MiB or a hundredth of it, whichever is more.
    pub reserve_bytes: Option<u64>,
    /// Bytes of an extent file, at least 1 MiB; a shard must fit into one.
    pub extent_bytes_max: u64,
    /// Threads doing its reads and writes. Four keep an NVMe drive busy with writes of 256 KiB; a rotating disk gains
    /// nothing beyond that.
    pub io_threads: usize,
    /// Reads and look-ups that may wait or run at once; more wait in the caller.
    pub reads_max: usize,
    /// Writes that may wait or run at once: with 256 KiB each, about 4 MiB of cells per backend are on their way.
    pub writes_max: usize,
    /// Most time between two checkpoints of the index.
    pub checkpoint_interval: Duration,
    /// Most bytes written between two checkpoints. After a crash that much is read and hashed again: 512 MiB take
    /// about a second.
    pub checkpoint_bytes: u64,
    /// Bytes of live records compaction moves per second at most.
    pub compaction_bytes_per_second: u64,
    /// Who does the upkeep.
    pub upkeep: Upkeep,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            reserve_bytes: None,
            extent_bytes_max: 1 << 30,
            io_threads: 4,
            reads_max: 64,
            writes_max: 16,
            checkpoint_interval: Duration::from_secs(30),
            checkpoint_bytes: 512 << 20,
            compaction_bytes_per_second: 32 << 20,
            upkeep: Upkeep::Automatic,
        }
    }
}
