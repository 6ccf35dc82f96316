//! The Raft logs of all groups in one database with one synced write per batch: a writer takes whatever waits (appends,
//! votes, purges of any group), writes it as one batch with one sync, then answers in order.
//!
//! The writer is a thread over RocksDB, or a task over a simulated disk.
//!
//! Invariant: `IOFlushed` is called only after the sync that covers it, in the order of the calls. After a failed write
//! nothing is written any more: every later call fails too.

mod group_log;
mod rocks;

use super::api::MetadataResult;
use super::raft_types::TypeConfig;
use super::simulated_disk::{LogBatch, SimulatedDisk};
use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use rocks::RocksLog;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, oneshot};

pub(super) use group_log::GroupLog;

/// Requests that may wait for the writer; senders wait (briefly) beyond it.
const QUEUE_MAX: usize = 4096;
/// Requests taken into one batch.
const BATCH_MAX: usize = 1024;
/// The row that counts the openings of this log: no group has that number.
const OPENINGS: &[u8] = &[0xFF, 0xFF, 0xFF, 0xFF, 5];

/// Who is told that a request is durable.
enum Done {
    Flushed(IOFlushed<TypeConfig>),
    Waiter(oneshot::Sender<io::Result<()>>),
    Nobody,
}

impl Done {
    fn tell(self, failed: Option<&str>) {
        let result = failed.map_or(Ok(()), |reason| Err(io::Error::other(reason.to_owned())));
        match self {
            Self::Flushed(callback) => callback.io_completed(result),
            Self::Waiter(waiter) => drop(waiter.send(result)),
            Self::Nobody => {}
        }
    }
}

struct Request {
    batch: LogBatch,
    done: Done,
}

/// The open log database and its writer.
pub(super) struct LogDatabase {
    files: Files,
    has_failed: Arc<AtomicBool>,
}

enum Files {
    Rocks(RocksLog),
    Simulated { disk: Arc<SimulatedDisk>, queue: Mutex<Option<mpsc::Sender<Request>>> },
}

impl LogDatabase {
    /// Opens or makes the database in `directory` and starts its writer.
    pub(super) fn open(directory: &Path) -> MetadataResult<Arc<Self>> {
        let has_failed = Arc::new(AtomicBool::new(false));
        let files = Files::Rocks(RocksLog::open(directory, has_failed.clone())?);
        Ok(Arc::new(Self { files, has_failed }))
    }

    /// The log on a simulated disk; its writer is a task.
    pub(super) fn simulated(disk: Arc<SimulatedDisk>) -> Arc<Self> {
        let has_failed = Arc::new(AtomicBool::new(false));
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(write_simulated(disk.clone(), requests, has_failed.clone()));
        Arc::new(Self { files: Files::Simulated { disk, queue: Mutex::new(Some(queue)) }, has_failed })
    }

    /// Whether a write failed. From then on nobody knows what the log holds until it is read at the next start.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Counts an opening of this log, durably: each process on it has another number, greater than those before.
    pub(super) async fn count_opening(&self) -> io::Result<u64> {
        let stored = self.get(OPENINGS)?;
        let before = stored.and_then(|v| <[u8; 8]>::try_from(v).ok()).map_or(0, u64::from_be_bytes);
        let (sender, receiver) = oneshot::channel();
        let rows = vec![(OPENINGS.to_vec(), Some((before + 1).to_be_bytes().to_vec()))];
        self.submit(Request { batch: LogBatch { rows, ..LogBatch::default() }, done: Done::Waiter(sender) }).await?;
        receiver.await.map_err(|_| io::Error::other("the metadata log's writer has ended"))??;
        Ok(before + 1)
    }

    /// Whether anything of a group was ever written.
    pub(super) fn has_group(&self, group: u32) -> io::Result<bool> {
        let mut key = group.to_be_bytes().to_vec();
        key.resize(16, 0xFF);
        let last = self.last_before(&key)?;
        Ok(last.is_some_and(|(key, _)| key.starts_with(&group.to_be_bytes())))
    }

    /// Removes a group's entries, durably. Its vote stays.
    pub(super) async fn forget(&self, group: u32) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        let batch = group_log::all_but_vote(group);
        self.submit(Request { batch, done: Done::Waiter(sender) }).await?;
        receiver.await.map_err(|_| io::Error::other("the metadata log's writer has ended"))?
    }

    async fn submit(&self, request: Request) -> io::Result<()> {
        match &self.files {
            Files::Rocks(rocks) => rocks.submit(request),
            Files::Simulated { queue, .. } => {
                let queue = queue.lock().clone();
                let queue = queue.ok_or_else(|| io::Error::other("the metadata log is closed"))?;
                queue.send(request).await.map_err(|_| io::Error::other("the metadata log's writer has ended"))
            }
        }
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match &self.files {
            Files::Rocks(rocks) => rocks.get(key),
            Files::Simulated { disk, .. } => Ok(disk.log_get(key)),
        }
    }

    /// The last row at or before `key`.
    fn last_before(&self, key: &[u8]) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        match &self.files {
            Files::Rocks(rocks) => rocks.last_before(key),
            Files::Simulated { disk, .. } => Ok(disk.log_last_before(key)),
        }
    }

    /// Visits the values of `from..to`, in order.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match &self.files {
            Files::Rocks(rocks) => rocks.scan(from, to, visit),
            Files::Simulated { disk, .. } => disk.log_range(from, to).iter().try_for_each(|(_, value)| visit(value)),
        }
    }

    /// Ends the writer after what is queued, and the database's background work.
    pub(super) fn stop(&self) {
        match &self.files {
            Files::Rocks(rocks) => rocks.stop(),
            Files::Simulated { queue, .. } => drop(queue.lock().take()),
        }
    }
}

async fn write_simulated(disk: Arc<SimulatedDisk>, mut requests: mpsc::Receiver<Request>, has_failed: Arc<AtomicBool>) {
    let opening = disk.opening();
    let mut failed: Option<String> = None;
    while let Some(first) = requests.recv().await {
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next {
            if failed.is_none() {
                failed = disk.log_write(opening, request.batch).err().map(|e| e.to_string());
            }
            waiting.push(request.done);
            next = if waiting.len() < BATCH_MAX { requests.try_recv().ok() } else { None };
        }
        tokio::time::sleep(disk.sync_takes()).await;
        if failed.is_none() {
            failed = disk.log_synced(opening, waiting.len()).err().map(|e| e.to_string());
        }
        has_failed.fetch_or(failed.is_some(), Ordering::AcqRel);
        for done in waiting {
            done.tell(failed.as_deref());
        }
    }
}
