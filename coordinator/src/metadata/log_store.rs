//! The Raft logs of all groups in one RocksDB instance with one synced write per batch: a writer thread takes whatever
//! waits (appends, votes, purges of any group), writes it as one batch with one fdatasync, then answers in order.
//!
//! Recent entries are kept in memory, so that what was just appended is applied without being read back. Reads see an
//! entry as soon as `append` returned, synced or not, as openraft asks.
//!
//! Invariant: `IOFlushed` is called only after the sync that covers it, in the order of the calls. After a failed write
//! nothing is written any more: every later call fails too.

use super::api::{MetadataError, MetadataResult};
use super::group::{Entry, LogId, TypeConfig, Vote};
use super::state_store::open_error;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use rocksdb::{DB, DBCompressionType, Options, WriteBatch, WriteOptions};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Requests that may wait for the writer; senders block (briefly) beyond it.
const QUEUE_MAX: usize = 4096;
/// Requests taken into one batch.
const BATCH_MAX: usize = 1024;
/// Entries kept in memory per group after they were committed. Enough to cover what is in flight many times over.
const RECENT_ENTRIES_MAX: usize = 512;
/// Their bytes, as stored: 512 inline objects of 16 KiB. A completion of 10,000 parts alone is half a MiB.
const RECENT_BYTES_MAX: usize = 8 << 20;
/// Bytes of the write-ahead log kept before memtables are flushed; purged entries then never reach a table.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// Kinds of rows under a group.
const ROW_VOTE: u8 = 1;
const ROW_COMMITTED: u8 = 2;
const ROW_PURGED: u8 = 3;
const ROW_ENTRY: u8 = 4;

enum Done {
    Flushed(IOFlushed<TypeConfig>),
    Waiter(oneshot::Sender<io::Result<()>>),
    Nobody,
}

struct Request {
    batch: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    delete_before: Option<(Vec<u8>, Vec<u8>)>,
    done: Done,
}

/// The open log database and its writer.
pub(super) struct LogDatabase {
    db: Arc<DB>,
    queue: Mutex<Option<SyncSender<Request>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    has_failed: Arc<AtomicBool>,
}

impl LogDatabase {
    /// Opens or makes the database in `directory` and starts its writer.
    pub(super) fn open(directory: &Path) -> MetadataResult<Arc<Self>> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::None);
        options.set_write_buffer_size(16 << 20);
        options.set_max_total_wal_size(LOG_BYTES_MAX);
        options.set_recycle_log_file_num(2);
        options.set_max_background_jobs(2);
        options.set_max_open_files(64);
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(8 << 20);
        let db = Arc::new(DB::open(&options, directory).map_err(|e| open_error(directory, &e))?);
        let (queue, requests) = sync_channel(QUEUE_MAX);
        let (of_writer, has_failed) = (db.clone(), Arc::new(AtomicBool::new(false)));
        let told = has_failed.clone();
        let writer = std::thread::Builder::new()
            .name("metadata-log".to_owned())
            .spawn(move || write_loop(&of_writer, &requests, &told))
            .map_err(|e| MetadataError::Unavailable { reason: format!("start the log writer: {e}") })?;
        Ok(Arc::new(Self { db, queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)), has_failed }))
    }

    /// Whether a write failed. From then on nobody knows what the log holds until it is read at the next start.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    fn submit(&self, request: Request) -> io::Result<()> {
        let queue = self.queue.lock().clone();
        let queue = queue.ok_or_else(|| io::Error::other("the metadata log is closed"))?;
        queue.send(request).map_err(|_| io::Error::other("the metadata log's writer has ended"))
    }

    /// Ends the writer after what is queued, and the database's background work.
    pub(super) fn stop(&self) {
        self.queue.lock().take();
        if let Some(writer) = self.writer.lock().take() {
            // A writer that panicked has already failed every request; there is nothing more to do about it here.
            let _ = writer.join();
        }
        self.db.cancel_all_background_work(true);
    }
}

impl Drop for LogDatabase {
    /// Waits for the writer, which has the files open, so that they can be opened again.
    fn drop(&mut self) {
        self.stop();
    }
}

fn write_loop(db: &DB, requests: &Receiver<Request>, has_failed: &AtomicBool) {
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    let mut failed: Option<String> = None;
    while let Ok(first) = requests.recv() {
        let mut batch = WriteBatch::default();
        let mut waiting = Vec::new();
        let mut ranges = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next {
            for (key, value) in request.batch {
                match value {
                    Some(value) => batch.put(key, value),
                    None => batch.delete(key),
                }
            }
            if let Some((from, to)) = request.delete_before {
                batch.delete_range(&from, &to);
                ranges.push((from, to));
            }
            waiting.push(request.done);
            next = if waiting.len() < BATCH_MAX { requests.try_recv().ok() } else { None };
        }
        if failed.is_none() {
            let started = std::time::Instant::now();
            if let Err(error) = db.write_opt(batch, &synced) {
                tracing::error!(%error, "the metadata log cannot be written; metadata stops here");
                failed = Some(error.to_string());
                has_failed.store(true, Ordering::Release);
            }
            metrics::histogram!("holdfast_metadata_log_sync_seconds").record(started.elapsed().as_secs_f64());
            metrics::histogram!("holdfast_metadata_log_batch_requests").record(waiting.len() as f64);
        }
        for done in waiting {
            let result = failed.as_ref().map_or(Ok(()), |reason| Err(io::Error::other(reason.clone())));
            match done {
                Done::Flushed(callback) => callback.io_completed(result),
                Done::Waiter(waiter) => drop(waiter.send(result)),
                Done::Nobody => {}
            }
        }
        for (from, to) in ranges {
            // Whole tables of purged entries go without being compacted; what is left is dropped by compaction.
            if let Err(error) = db.delete_file_in_range(&from, &to) {
                tracing::warn!(%error, "drop purged tables of the metadata log");
            }
        }
    }
}

/// One group's log.
#[derive(Clone)]
pub(super) struct GroupLog {
    database: Arc<LogDatabase>,
    group: u32,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    recent: Recent,
    last: Option<LogId>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    committed_is_new: bool,
}

/// The newest entries, without gaps, each with its stored length.
#[derive(Default)]
struct Recent {
    entries: BTreeMap<u64, (Entry, usize)>,
    bytes: usize,
}

impl Recent {
    fn first(&self) -> Option<u64> {
        self.entries.first_key_value().map(|(index, _)| *index)
    }

    fn push(&mut self, entry: Entry, bytes: usize) {
        self.bytes += bytes;
        if let Some((_, replaced)) = self.entries.insert(entry.log_id().index, (entry, bytes)) {
            self.bytes -= replaced;
        }
    }

    fn read(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = Entry> + '_ {
        self.entries.range(range).map(|(_, (entry, _))| entry.clone())
    }

    /// Forgets entries from the front until the rest is within the limits. Those not yet `committed` stay: only what is
    /// committed is certain to be in the database.
    fn shrink(&mut self, committed: u64) {
        while self.entries.len() > RECENT_ENTRIES_MAX || self.bytes > RECENT_BYTES_MAX {
            match self.entries.first_entry() {
                Some(first) if *first.key() < committed => self.bytes -= first.remove().1,
                _ => break,
            }
        }
    }

    fn keep(&mut self, range: std::ops::Range<u64>) {
        self.entries.retain(|index, _| range.contains(index));
        self.bytes = self.entries.values().map(|(_, bytes)| bytes).sum();
    }
}

impl GroupLog {
    /// Reads the group's vote, bounds and committed id.
    pub(super) fn open(database: Arc<LogDatabase>, group: u32) -> io::Result<Self> {
        let log = Self { database, group, shared: Arc::default() };
        let vote = log.read_row(ROW_VOTE)?.map(|v| from_json(&v)).transpose()?;
        let committed = log.read_row(ROW_COMMITTED)?.map(|v| from_json(&v)).transpose()?;
        let purged: Option<LogId> = log.read_row(ROW_PURGED)?.map(|v| from_json(&v)).transpose()?;
        let last = log.last_stored()?.map(|e| e.log_id()).max(purged);
        *log.shared.lock() = Shared { last, purged, vote, committed, ..Shared::default() };
        Ok(log)
    }

    /// The last entry dropped from the log: the state must hold everything up to it.
    pub(super) fn purged(&self) -> Option<LogId> {
        self.shared.lock().purged
    }

    fn row(&self, kind: u8) -> Vec<u8> {
        let mut out = self.group.to_be_bytes().to_vec();
        out.push(kind);
        out
    }

    fn entry_key(&self, index: u64) -> Vec<u8> {
        let mut out = self.row(ROW_ENTRY);
        out.extend_from_slice(&index.to_be_bytes());
        out
    }

    fn read_row(&self, kind: u8) -> io::Result<Option<Vec<u8>>> {
        self.database.db.get(self.row(kind)).map_err(io::Error::other)
    }

    fn last_stored(&self) -> io::Result<Option<Entry>> {
        let mut iterator = self.database.db.raw_iterator();
        iterator.seek_for_prev(self.entry_key(u64::MAX));
        let found = iterator.item().filter(|(key, _)| key.starts_with(&self.row(ROW_ENTRY)));
        let entry = found.map(|(_, value)| super::group::decode_entry(value)).transpose();
        iterator.status().map_err(io::Error::other)?;
        entry
    }

    async fn write_and_wait(&self, request: impl FnOnce(Done) -> Request) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.database.submit(request(Done::Waiter(sender)))?;
        receiver.await.map_err(|_| io::Error::other("the metadata log's writer has ended"))?
    }

    fn stored_entries(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        let mut iterator = self.database.db.raw_iterator();
        iterator.seek(self.entry_key(from));
        let end = self.entry_key(to);
        while let Some((key, value)) = iterator.item() {
            if key >= end.as_slice() {
                break;
            }
            found.push(super::group::decode_entry(value)?);
            iterator.next();
        }
        iterator.status().map_err(io::Error::other)?;
        Ok(found)
    }
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(&i) => i,
            Bound::Excluded(&i) => i.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&i) => i.saturating_add(1),
            Bound::Excluded(&i) => i,
            Bound::Unbounded => u64::MAX,
        };
        let mut found = Vec::new();
        let mut at = from;
        // Older ones from the database, then those in memory. While the database is read, entries may leave memory:
        // those are read from it, too, in the next round.
        while at < to {
            let until = {
                let shared = self.shared.lock();
                let first = shared.recent.first().unwrap_or(u64::MAX);
                if first <= at {
                    found.extend(shared.recent.read(at..to));
                    return Ok(found);
                }
                first.min(to)
            };
            found.extend(self.stored_entries(at, until)?);
            at = until;
        }
        Ok(found)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let shared = self.shared.lock();
        Ok(LogState { last_purged_log_id: shared.purged, last_log_id: shared.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let value = to_json(vote)?;
        self.shared.lock().vote = Some(*vote);
        let key = self.row(ROW_VOTE);
        self.write_and_wait(|done| Request { batch: vec![(key, Some(value))], delete_before: None, done }).await
    }

    /// Kept in memory and written along with the next append: it costs no sync of its own, and a lost one only means
    /// that a restart commits those entries again.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut shared = self.shared.lock();
        shared.committed = committed;
        shared.committed_is_new = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut batch = Vec::new();
        {
            let mut shared = self.shared.lock();
            for entry in entries {
                let id = entry.log_id();
                let stored = super::group::encode_entry(&entry)?;
                shared.last = Some(id);
                shared.recent.push(entry, stored.len());
                batch.push((self.entry_key(id.index), Some(stored)));
            }
            if std::mem::take(&mut shared.committed_is_new)
                && let Some(committed) = &shared.committed
            {
                batch.push((self.row(ROW_COMMITTED), Some(to_json(committed)?)));
            }
            let committed = shared.committed.map_or(0, |c| c.index);
            shared.recent.shrink(committed);
        }
        self.database.submit(Request { batch, delete_before: None, done: Done::Flushed(callback) })
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        {
            let mut shared = self.shared.lock();
            shared.recent.keep(0..from);
            shared.last = last.or(shared.purged);
        }
        let range = (self.entry_key(from), self.entry_key(u64::MAX));
        self.write_and_wait(|done| Request { batch: Vec::new(), delete_before: Some(range), done }).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut shared = self.shared.lock();
            shared.purged = Some(log_id);
            shared.recent.keep(log_id.index + 1..u64::MAX);
            if shared.last < Some(log_id) {
                shared.last = Some(log_id);
            }
        }
        let batch = vec![(self.row(ROW_PURGED), Some(to_json(&log_id)?))];
        let range = (self.entry_key(0), self.entry_key(log_id.index + 1));
        // Nobody waits: losing a purge costs nothing but room, and it must not hold up the appends behind it.
        self.database.submit(Request { batch, delete_before: Some(range), done: Done::Nobody })
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::other)
}

fn from_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::command::{Command, Kind};
    use crate::metadata::group::{CommittedLeaderId, Proposal};
    use openraft::EntryPayload;

    fn log_id(index: u64) -> LogId {
        LogId { leader_id: CommittedLeaderId { term: 1, node_id: 1 }, index }
    }

    fn entry(index: u64, bytes: usize) -> Entry {
        let command = Command { kind: Some(Kind::KeyDelete("x".repeat(bytes))) };
        Entry { log_id: log_id(index), payload: EntryPayload::Normal(Proposal(Arc::new(command))) }
    }

    /// Returns when the entries are in the database.
    async fn append(log: &mut GroupLog, entries: Vec<Entry>) {
        log.append(entries, IOFlushed::noop()).await.unwrap();
        log.write_and_wait(|done| Request { batch: Vec::new(), delete_before: None, done }).await.unwrap();
    }

    async fn indexes(log: &mut GroupLog, range: std::ops::Range<u64>) -> Vec<u64> {
        log.try_get_log_entries(range).await.unwrap().iter().map(|e| e.log_id.index).collect()
    }

    #[tokio::test]
    async fn memory_is_bounded_by_bytes_and_what_left_it_is_read_from_disk() {
        let directory = tempfile::tempdir().unwrap();
        let database = LogDatabase::open(directory.path()).unwrap();
        let mut log = GroupLog::open(database.clone(), 1).unwrap();
        for index in 0..40 {
            append(&mut log, vec![entry(index, 1 << 20)]).await;
            log.save_committed(Some(log_id(index))).await.unwrap();
        }
        let (first, bytes) = {
            let shared = log.shared.lock();
            (shared.recent.first().unwrap(), shared.recent.bytes)
        };
        assert!(first > 20, "entries from {first} on are in memory");
        // The last one appended was not committed when memory was looked at.
        assert!(bytes <= RECENT_BYTES_MAX + (2 << 20), "{bytes}");
        for range in [0..40, 0..first, first..40, first - 1..first + 1, 39..40, 17..17, 5..5000] {
            let expected: Vec<u64> = (range.start..range.end.min(40)).collect();
            assert_eq!(indexes(&mut log, range.clone()).await, expected, "{range:?}");
        }
        database.stop();
    }

    #[tokio::test]
    async fn what_was_purged_is_behind_after_a_restart_even_if_a_row_of_it_came_back() {
        let directory = tempfile::tempdir().unwrap();
        let database = LogDatabase::open(directory.path()).unwrap();
        let mut log = GroupLog::open(database.clone(), 1).unwrap();
        append(&mut log, (0..5).map(|index| entry(index, 10)).collect()).await;
        log.purge(log_id(4)).await.unwrap();
        let stale = super::super::group::encode_entry(&entry(2, 10)).unwrap();
        let row = (log.entry_key(2), Some(stale));
        log.write_and_wait(|done| Request { batch: vec![row], delete_before: None, done }).await.unwrap();
        let state = GroupLog::open(database.clone(), 1).unwrap().get_log_state().await.unwrap();
        assert_eq!(state.last_log_id.map(|id| id.index), Some(4));
        assert_eq!(state.last_purged_log_id.map(|id| id.index), Some(4));
        database.stop();
    }
}
