//! One group's log: what openraft asks of a log, over the database all groups share.
//!
//! Recent entries are kept in memory, so that what was just appended is applied without being read back. Reads see an
//! entry as soon as `append` returned, synced or not, as openraft asks.

use super::super::entry::{decode_entry, encode_entry};
use super::super::raft_types::{Entry, LogId, TypeConfig, Vote};
use super::{Done, LogBatch, LogDatabase, Request};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Entries kept in memory per group after they were committed. Enough to cover what is in flight many times over.
const RECENT_ENTRIES_MAX: usize = 512;
/// Their bytes, as stored: 512 inline objects of 16 KiB. A completion of 10,000 parts alone is half a MiB.
const RECENT_BYTES_MAX: usize = 8 << 20;
/// Entries read at once to be sent to a peer; what does not fit into a message goes with the next.
const SENT_ENTRIES_MAX: u64 = 512;

/// Kinds of rows under a group.
const ROW_VOTE: u8 = 1;
const ROW_COMMITTED: u8 = 2;
const ROW_PURGED: u8 = 3;
const ROW_ENTRY: u8 = 4;

/// Deletes everything of a group's log but its vote.
pub(super) fn all_but_vote(group: u32) -> LogBatch {
    let row = |kind: u8| [group.to_be_bytes().as_slice(), &[kind]].concat();
    let entry = |index: u64| [row(ROW_ENTRY).as_slice(), &index.to_be_bytes()].concat();
    let rows = [ROW_COMMITTED, ROW_PURGED].map(|kind| (row(kind), None));
    LogBatch { delete: Some((entry(0), entry(u64::MAX))), rows: rows.into(), ..LogBatch::default() }
}

/// One group's log.
#[derive(Clone)]
pub(in super::super) struct GroupLog {
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
    pub(in super::super) fn open(database: Arc<LogDatabase>, group: u32) -> io::Result<Self> {
        let log = Self { database, group, shared: Arc::default() };
        let vote = log.read_row(ROW_VOTE)?.map(|v| from_json(&v)).transpose()?;
        let committed = log.read_row(ROW_COMMITTED)?.map(|v| from_json(&v)).transpose()?;
        let purged: Option<LogId> = log.read_row(ROW_PURGED)?.map(|v| from_json(&v)).transpose()?;
        let last = log.last_stored()?.map(|e| e.log_id()).max(purged);
        *log.shared.lock() = Shared { last, purged, vote, committed, ..Shared::default() };
        Ok(log)
    }

    /// The last entry dropped from the log: the state must hold everything up to it.
    pub(in super::super) fn purged(&self) -> Option<LogId> {
        self.shared.lock().purged
    }

    /// The last entry there is, or was before it was dropped.
    pub(in super::super) fn last(&self) -> Option<LogId> {
        self.shared.lock().last
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
        self.database.get(&self.row(kind))
    }

    fn last_stored(&self) -> io::Result<Option<Entry>> {
        let found = self.database.last_before(&self.entry_key(u64::MAX))?;
        let found = found.filter(|(key, _)| key.starts_with(&self.row(ROW_ENTRY)));
        found.map(|(_, value)| decode_entry(&value)).transpose()
    }

    async fn write_and_wait(&self, batch: LogBatch) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.database.submit(Request { batch, done: Done::Waiter(sender) }).await?;
        receiver.await.map_err(|_| io::Error::other("the metadata log's writer has ended"))?
    }

    fn stored_entries(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        self.database.scan(&self.entry_key(from), &self.entry_key(to), &mut |value| {
            found.push(decode_entry(value)?);
            Ok(())
        })?;
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

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.try_get_log_entries(start..end.min(start.saturating_add(SENT_ENTRIES_MAX))).await
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
        self.write_and_wait(LogBatch { rows: vec![(key, Some(value))], ..LogBatch::default() }).await
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
        let mut rows = Vec::new();
        {
            let mut shared = self.shared.lock();
            for entry in entries {
                let id = entry.log_id();
                let stored = encode_entry(&entry)?;
                shared.last = Some(id);
                shared.recent.push(entry, stored.len());
                rows.push((self.entry_key(id.index), Some(stored)));
            }
            if std::mem::take(&mut shared.committed_is_new)
                && let Some(committed) = &shared.committed
            {
                rows.push((self.row(ROW_COMMITTED), Some(to_json(committed)?)));
            }
            let committed = shared.committed.map_or(0, |c| c.index);
            shared.recent.shrink(committed);
        }
        let batch = LogBatch { rows, ..LogBatch::default() };
        self.database.submit(Request { batch, done: Done::Flushed(callback) }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        {
            let mut shared = self.shared.lock();
            shared.recent.keep(0..from);
            shared.last = last.or(shared.purged);
        }
        let range = (self.entry_key(from), self.entry_key(u64::MAX));
        self.write_and_wait(LogBatch { delete: Some(range), ..LogBatch::default() }).await
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
        let rows = vec![(self.row(ROW_PURGED), Some(to_json(&log_id)?))];
        let range = (self.entry_key(0), self.entry_key(log_id.index + 1));
        // Nobody waits: losing a purge costs nothing but room, and it must not hold up the appends behind it.
        let batch = LogBatch { delete: Some(range), is_for_good: true, rows };
        self.database.submit(Request { batch, done: Done::Nobody }).await
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
    use crate::metadata::raft_types::{CommittedLeaderId, Proposal};
    use openraft::EntryPayload;

    fn log_id(index: u64) -> LogId {
        LogId { leader_id: CommittedLeaderId { term: 1, node_id: 1 }, index }
    }

    fn entry(index: u64, bytes: usize) -> Entry {
        let command = Command { kind: Some(Kind::KeyDelete("x".repeat(bytes))), once: None };
        Entry { log_id: log_id(index), payload: EntryPayload::Normal(Proposal(Arc::new(command))) }
    }

    /// Returns when the entries are in the database.
    async fn append(log: &mut GroupLog, entries: Vec<Entry>) {
        log.append(entries, IOFlushed::noop()).await.unwrap();
        log.write_and_wait(LogBatch::default()).await.unwrap();
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
        let stale = encode_entry(&entry(2, 10)).unwrap();
        let row = (log.entry_key(2), Some(stale));
        log.write_and_wait(LogBatch { rows: vec![row], ..LogBatch::default() }).await.unwrap();
        let state = GroupLog::open(database.clone(), 1).unwrap().get_log_state().await.unwrap();
        assert_eq!(state.last_log_id.map(|id| id.index), Some(4));
        assert_eq!(state.last_purged_log_id.map(|id| id.index), Some(4));
        database.stop();
    }
}
