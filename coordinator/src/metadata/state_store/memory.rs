//! The state in memory over a simulated disk: what is written is there at once, what is flushed outlives a crash.
//!
//! A view shares the maps with the state; a write while a view lives copies them first. In a simulation, which has one
//! thread, a view ends before the next write in general.

use super::super::kv::{Batch, Family, KvError, KvResult, KvView, Scan, Visitor};
use super::super::simulated_disk::SimulatedDisk;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The rows of every family, in the order of `Family::ALL`.
pub(in super::super) type Families = [BTreeMap<Vec<u8>, Vec<u8>>; Family::ALL.len()];

/// The open state.
pub(in super::super) struct MemoryState {
    disk: Arc<SimulatedDisk>,
    /// Which opening of the disk this is: after a crash the disk takes nothing from it any more.
    opening: u64,
    rows: RwLock<Arc<Families>>,
    unflushed: AtomicU64,
}

impl MemoryState {
    pub(super) fn open(disk: Arc<SimulatedDisk>) -> Self {
        let (opening, rows) = disk.open_state();
        Self { disk, opening, rows: RwLock::new(rows), unflushed: AtomicU64::new(0) }
    }

    pub(super) fn write(&self, batch: Batch) -> KvResult<()> {
        let mut rows = self.rows.write();
        let families = Arc::make_mut(&mut rows);
        for (family, key, value) in batch.writes {
            let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
            self.unflushed.fetch_add(bytes as u64, Ordering::Relaxed);
            let map = &mut families[family as usize];
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }

    pub(super) fn flush(&self) -> KvResult<()> {
        let rows = self.rows.read().clone();
        self.disk.flush_state(self.opening, rows).map_err(|e| KvError { reason: format!("flush: {e}") })?;
        self.unflushed.store(0, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn view(&self) -> MemoryView {
        MemoryView(self.rows.read().clone())
    }

    pub(super) fn bytes_between(&self, family: Family, start: &[u8], end: &[u8]) -> u64 {
        let end = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        let rows = self.rows.read();
        let found = rows[family as usize].range::<[u8], _>((Bound::Included(start), end));
        found.map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    pub(super) fn unflushed_bytes(&self) -> u64 {
        self.unflushed.load(Ordering::Relaxed)
    }
}

impl KvView for MemoryState {
    fn get(&self, family: Family, key: &[u8]) -> KvResult<Option<Vec<u8>>> {
        Ok(self.rows.read()[family as usize].get(key).cloned())
    }

    fn scan(&self, family: Family, from: &[u8], visit: &mut Visitor<'_>) -> KvResult<()> {
        self.view().scan(family, from, visit)
    }
}

/// All rows as of one moment.
pub(in super::super) struct MemoryView(Arc<Families>);

impl KvView for MemoryView {
    fn get(&self, family: Family, key: &[u8]) -> KvResult<Option<Vec<u8>>> {
        Ok(self.0[family as usize].get(key).cloned())
    }

    fn scan(&self, family: Family, from: &[u8], visit: &mut Visitor<'_>) -> KvResult<()> {
        let map = &self.0[family as usize];
        let mut seek = from.to_vec();
        'seek: loop {
            let begin = std::mem::take(&mut seek);
            for (key, value) in map.range::<[u8], _>((Bound::Included(begin.as_slice()), Bound::Unbounded)) {
                match visit(key, value, &mut seek)? {
                    Scan::Next => {}
                    Scan::Stop => return Ok(()),
                    Scan::Seek => continue 'seek,
                }
            }
            return Ok(());
        }
    }
}
