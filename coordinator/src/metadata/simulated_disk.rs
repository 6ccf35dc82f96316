//! A disk for simulations: holds the log and the state of one coordinator over its restarts, and forgets at a crash what
//! was not yet synced.
//!
//! **Invariant:** after `crash` nothing that was opened before it changes the disk any more, and of writes that were not
//! acknowledged a beginning, in order, is there and the rest is not.

use super::kv::Family;
use super::state_store::Families;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A batch of the log: keys with their new value or none, and a range of keys that goes first.
#[derive(Clone, Debug, Default)]
pub(super) struct LogBatch {
    pub(super) delete: Option<(Vec<u8>, Vec<u8>)>,
    /// Nothing is ever written to the deleted range again: its files may go at once, whatever else is in the queue.
    pub(super) is_for_good: bool,
    pub(super) rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// The disk of one coordinator.
pub struct SimulatedDisk {
    sync_takes: Duration,
    contents: Mutex<Contents>,
}

#[derive(Default)]
struct Contents {
    /// Counts crashes: who opened the disk before one is not listened to any more.
    opening: u64,
    log: BTreeMap<Vec<u8>, Vec<u8>>,
    unsynced: VecDeque<LogBatch>,
    state: Arc<Families>,
}

impl SimulatedDisk {
    /// An empty disk whose syncs take `sync_takes` of virtual time.
    pub fn new(sync_takes: Duration) -> Arc<Self> {
        Arc::new(Self { sync_takes, contents: Mutex::default() })
    }

    /// The process that has the disk open ends without warning. Of the writes it has not been told of yet, the first
    /// `kept` are there all the same.
    pub fn crash(&self, kept: usize) {
        let mut contents = self.contents.lock();
        contents.opening += 1;
        for _ in 0..kept {
            let Some(batch) = contents.unsynced.pop_front() else { break };
            apply(&mut contents.log, batch);
        }
        contents.unsynced.clear();
    }

    /// Writes that were asked for and are not yet durable.
    pub fn unsynced(&self) -> usize {
        self.contents.lock().unsynced.len()
    }

    pub(super) fn sync_takes(&self) -> Duration {
        self.sync_takes
    }

    pub(super) fn opening(&self) -> u64 {
        self.contents.lock().opening
    }

    pub(super) fn open_state(&self) -> (u64, Arc<Families>) {
        let contents = self.contents.lock();
        (contents.opening, contents.state.clone())
    }

    pub(super) fn flush_state(&self, opening: u64, rows: Arc<Families>) -> io::Result<()> {
        let mut contents = self.contents.lock();
        contents.check(opening)?;
        contents.state = rows;
        Ok(())
    }

    pub(super) fn log_write(&self, opening: u64, batch: LogBatch) -> io::Result<()> {
        let mut contents = self.contents.lock();
        contents.check(opening)?;
        contents.unsynced.push_back(batch);
        Ok(())
    }

    /// Makes the first `count` unsynced batches durable.
    pub(super) fn log_synced(&self, opening: u64, count: usize) -> io::Result<()> {
        let mut contents = self.contents.lock();
        contents.check(opening)?;
        for _ in 0..count {
            let Some(batch) = contents.unsynced.pop_front() else { break };
            apply(&mut contents.log, batch);
        }
        Ok(())
    }

    pub(super) fn log_get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.contents.lock().log.get(key).cloned()
    }

    pub(super) fn log_range(&self, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        if from >= to {
            return Vec::new();
        }
        let range = (std::ops::Bound::Included(from), std::ops::Bound::Excluded(to));
        self.contents.lock().log.range::<[u8], _>(range).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    pub(super) fn log_last_before(&self, key: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let range = (std::ops::Bound::Unbounded, std::ops::Bound::Included(key));
        self.contents.lock().log.range::<[u8], _>(range).next_back().map(|(k, v)| (k.clone(), v.clone()))
    }
}

impl Contents {
    fn check(&self, opening: u64) -> io::Result<()> {
        if self.opening == opening {
            Ok(())
        } else {
            Err(io::Error::other("the process that opened this disk has ended"))
        }
    }
}

fn apply(log: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: LogBatch) {
    if let Some((from, to)) = batch.delete {
        let gone: Vec<Vec<u8>> = log.range(from..to).map(|(key, _)| key.clone()).collect();
        for key in gone {
            log.remove(&key);
        }
    }
    for (key, value) in batch.rows {
        match value {
            Some(value) => log.insert(key, value),
            None => log.remove(&key),
        };
    }
}

// The families are found by their place in `Family::ALL`.
const _: () = {
    let mut at = 0;
    while at < Family::ALL.len() {
        assert!(Family::ALL[at] as usize == at);
        at += 1;
    }
};
