//! Where the state of all groups is kept: RocksDB, or memory in a simulation. Both keep one contract.
//!
//! **Contract:** a batch is written at once or not at all; what was written is read at once; what was written before a
//! `flush` returned outlives a crash, and after a crash the state stands exactly at some moment between the last flush
//! and the end, all families together.

mod memory;
mod rocks;

use super::api::MetadataResult;
use super::kv::{Batch, Family, KvError, KvResult, KvView, Visitor};
use super::simulated_disk::SimulatedDisk;
use std::path::Path;
use std::sync::Arc;

pub(super) use memory::{Families, MemoryState, MemoryView};
pub(super) use rocks::{RocksState, RocksView, open_error};

/// Unflushed bytes after which the caller should flush: bounds replay after a crash and the log kept for it.
pub(super) const FLUSH_BYTES: u64 = 24 << 20;

/// The open state.
pub(super) enum StateStore {
    Rocks(RocksState),
    Memory(MemoryState),
}

impl StateStore {
    /// Opens or makes the database in `directory`.
    pub(super) fn open(directory: &Path) -> MetadataResult<Self> {
        Ok(Self::Rocks(RocksState::open(directory)?))
    }

    /// The state on a simulated disk, as it was last flushed.
    pub(super) fn simulated(disk: Arc<SimulatedDisk>) -> Self {
        Self::Memory(MemoryState::open(disk))
    }

    /// Writes at once, to memory; durable after `flush`, or by replay of the log.
    pub(super) fn write(&self, batch: Batch) -> KvResult<()> {
        match self {
            Self::Rocks(state) => state.write(batch),
            Self::Memory(state) => state.write(batch),
        }
    }

    /// Bytes of a family's rows from `start` to `end` (exclusive; empty: to the last), as stored: compressed, as far as
    /// flushed, and about right, as the database tells it without reading them.
    pub(super) fn bytes_between(&self, family: Family, start: &[u8], end: &[u8]) -> KvResult<u64> {
        match self {
            Self::Rocks(state) => state.bytes_between(family, start, end),
            Self::Memory(state) => Ok(state.bytes_between(family, start, end)),
        }
    }

    /// Makes everything written so far durable. Blocks.
    pub(super) fn flush(&self) -> KvResult<()> {
        match self {
            Self::Rocks(state) => state.flush(),
            Self::Memory(state) => state.flush(),
        }
    }

    /// The state as it is now, all families together: for whatever reads more than one row. A row that `apply` moves
    /// from one family to another (a version overwritten, a part completed) is otherwise missed by a reader that looks
    /// into one before the move and into the other after it.
    pub(super) fn view(&self) -> StateView<'_> {
        match self {
            Self::Rocks(state) => StateView::Rocks(state.view()),
            Self::Memory(state) => StateView::Memory(state.view()),
        }
    }

    /// Bytes written since the last flush began.
    pub(super) fn unflushed_bytes(&self) -> u64 {
        match self {
            Self::Rocks(state) => state.unflushed_bytes(),
            Self::Memory(state) => state.unflushed_bytes(),
        }
    }

    /// Stops background work so that the process can end.
    pub(super) fn stop(&self) {
        if let Self::Rocks(state) = self {
            state.stop();
        }
    }

    /// Runs work that may wait for the disk off the async threads; in a simulation at once, for there is one thread.
    pub(super) async fn off_thread<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> KvResult<T> + Send + 'static,
    ) -> KvResult<T> {
        if matches!(**self, Self::Memory(_)) {
            return work(self);
        }
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|e| KvError { reason: format!("wait for the disk: {e}") })?
    }
}

impl KvView for StateStore {
    fn get(&self, family: Family, key: &[u8]) -> KvResult<Option<Vec<u8>>> {
        match self {
            Self::Rocks(state) => state.get(family, key),
            Self::Memory(state) => state.get(family, key),
        }
    }

    fn scan(&self, family: Family, from: &[u8], visit: &mut Visitor<'_>) -> KvResult<()> {
        match self {
            Self::Rocks(state) => state.scan(family, from, visit),
            Self::Memory(state) => state.scan(family, from, visit),
        }
    }
}

/// All families as of one moment.
pub(super) enum StateView<'s> {
    Rocks(RocksView<'s>),
    Memory(MemoryView),
}

impl KvView for StateView<'_> {
    fn get(&self, family: Family, key: &[u8]) -> KvResult<Option<Vec<u8>>> {
        match self {
            Self::Rocks(view) => view.get(family, key),
            Self::Memory(view) => view.get(family, key),
        }
    }

    fn scan(&self, family: Family, from: &[u8], visit: &mut Visitor<'_>) -> KvResult<()> {
        match self {
            Self::Rocks(view) => view.scan(family, from, visit),
            Self::Memory(view) => view.scan(family, from, visit),
        }
    }
}
