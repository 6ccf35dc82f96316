//! The index of a disk backend: which shard lies where. A thin layer over one RocksDB without a write-ahead log.
//!
//! All keys live in one column family, so after a crash the index is the state after some prefix of the batches
//! written: whoever puts what belongs together into one batch, and flushes before giving room back, can rebuild the
//! rest from the extents. It does no extent IO and decides nothing.
//!
//! Keys: `s` + shard id -> entry; `e` + extent -> tally; `f` + extent + offset -> bytes of room to give back;
//! `m` -> whose index it is and the backend's counters. All numbers in keys are big-endian.

use holdfast_proto::node::ShardStat;
use holdfast_proto::{BackendId, ClusterId, PgId, ShardId};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Direction, IteratorMode, LogLevel, Options, ReadOptions,
    WriteBatch, WriteOptions,
};
use std::path::Path;

const ENTRY_VERSION: u8 = 1;
const ENTRY_BYTES: usize = 98;
const TALLY_VERSION: u8 = 1;
const TALLY_BYTES: usize = 50;
const OWNER_VERSION: u8 = 1;
const OWNER_BYTES: usize = 53;
const OWNER_KEY: [u8; 1] = [b'm'];
const QUARANTINED: u8 = 1;
const SEALED: u8 = 1;
/// An entry takes about 115 bytes, so a memtable of 4 MiB holds some 30,000 of them between two flushes.
const MEMTABLE_BYTES: usize = 4 * 1024 * 1024;
/// Per backend; bloom filters and index blocks of a million shards take about 2 MiB of it.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Room {
    pub(crate) extent: u32,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Room {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

/// What the index says of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) room: Room,
    /// From the record's begin to its first cell.
    pub(crate) data_offset: u64,
    pub(crate) shard_bytes: u64,
    pub(crate) cell_bytes: u32,
    pub(crate) root: [u8; 32],
    pub(crate) created_ms: u64,
    pub(crate) verified_ms: u64,
    /// The record's order number, from its trailer.
    pub(crate) sequence: u64,
    /// Found damaged: counts as missing until written again.
    pub(crate) is_quarantined: bool,
}

impl Entry {
    pub(crate) fn stat(&self, id: ShardId) -> ShardStat {
        ShardStat {
            id,
            shard_bytes: self.shard_bytes,
            cell_bytes: self.cell_bytes,
            root: self.root,
            verified_ms: self.verified_ms,
        }
    }

    /// What a listing says of it: of one that is quarantined that it has no root.
    pub(crate) fn listed(&self, id: ShardId) -> ShardStat {
        let root = if self.is_quarantined { ShardStat::NO_ROOT } else { self.root };
        ShardStat { root, ..self.stat(id) }
    }

    /// How many cells it has.
    pub(crate) fn cell_count(&self) -> u32 {
        u32::try_from(self.shard_bytes.div_ceil(u64::from(self.cell_bytes.max(1)))).unwrap_or(u32::MAX)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENTRY_BYTES);
        out.push(ENTRY_VERSION);
        out.push(if self.is_quarantined { QUARANTINED } else { 0 });
        out.extend_from_slice(&self.room.extent.to_le_bytes());
        out.extend_from_slice(&self.cell_bytes.to_le_bytes());
        for number in
            [self.room.offset, self.room.bytes, self.data_offset, self.shard_bytes, self.created_ms, self.verified_ms]
        {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.root);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Fields::of(bytes, ENTRY_BYTES, ENTRY_VERSION)?;
        let flags = bytes.u8();
        let extent = bytes.u32();
        let cell_bytes = bytes.u32();
        let (offset, record_bytes) = (bytes.u64(), bytes.u64());
        Some(Self {
            room: Room { extent, offset, bytes: record_bytes },
            cell_bytes,
            data_offset: bytes.u64(),
            shard_bytes: bytes.u64(),
            created_ms: bytes.u64(),
            verified_ms: bytes.u64(),
            root: bytes.array(),
            sequence: bytes.u64(),
            is_quarantined: flags & QUARANTINED != 0,
        })
    }
}

/// What the index says of one extent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// The extent's random id: a file of the same name with another one is not it.
    pub(crate) uuid: [u8; 16],
    /// Bytes of the records the index points to.
    pub(crate) live_bytes: u64,
    /// How many those are.
    pub(crate) live_records: u64,
    /// Every record before this offset is in the index or was given up; recovery looks at what follows.
    pub(crate) scan_from: u64,
    /// End of the last record ever indexed or freed: never written again, and the file cannot be shorter.
    pub(crate) indexed_end: u64,
    /// Takes no more records.
    pub(crate) is_sealed: bool,
}

impl Tally {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TALLY_BYTES);
        out.push(TALLY_VERSION);
        out.push(if self.is_sealed { SEALED } else { 0 });
        out.extend_from_slice(&self.uuid);
        for number in [self.live_bytes, self.live_records, self.scan_from, self.indexed_end] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Fields::of(bytes, TALLY_BYTES, TALLY_VERSION)?;
        let flags = bytes.u8();
        Some(Self {
            uuid: bytes.array(),
            live_bytes: bytes.u64(),
            live_records: bytes.u64(),
            scan_from: bytes.u64(),
            indexed_end: bytes.u64(),
            is_sealed: flags & SEALED != 0,
        })
    }
}

/// Whose index it is, and the backend's counters at the last batch that carried them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) cluster: ClusterId,
    pub(crate) backend: BackendId,
    /// Greater than the order number of every record before the extents' `scan_from`.
    pub(crate) next_sequence: u64,
    /// Greater than the number of every extent there ever was.
    pub(crate) next_extent: u32,
    /// When the last full scrub ended; 0 for never.
    pub(crate) scrubbed_ms: u64,
}

impl Owner {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(OWNER_BYTES);
        out.push(OWNER_VERSION);
        out.extend_from_slice(&self.cluster.0);
        out.extend_from_slice(&self.backend.0);
        out.extend_from_slice(&self.next_sequence.to_le_bytes());
        out.extend_from_slice(&self.next_extent.to_le_bytes());
        out.extend_from_slice(&self.scrubbed_ms.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Fields::of(bytes, OWNER_BYTES, OWNER_VERSION)?;
        Some(Self {
            cluster: ClusterId(bytes.array()),
            backend: BackendId(bytes.array()),
            next_sequence: bytes.u64(),
            next_extent: bytes.u32(),
            scrubbed_ms: bytes.u64(),
        })
    }
}

/// What the index could not do, in RocksDB's words or ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("index: {reason}")]
pub(crate) struct IndexError {
    pub(crate) reason: String,
    /// What is stored does not hold: trying again does not help, making it anew from the extents does.
    pub(crate) is_damage: bool,
}

impl IndexError {
    pub(crate) fn damage(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_damage: true }
    }
}

impl From<rocksdb::Error> for IndexError {
    fn from(error: rocksdb::Error) -> Self {
        Self { is_damage: error.kind() == rocksdb::ErrorKind::Corruption, reason: error.into_string() }
    }
}

/// Changes that take effect together.
#[derive(Default)]
pub(crate) struct Changes(WriteBatch);

impl Changes {
    pub(crate) fn put_shard(&mut self, id: &ShardId, entry: &Entry) {
        self.0.put(shard_key(id), entry.encode());
    }
    pub(crate) fn remove_shard(&mut self, id: &ShardId) {
        self.0.delete(shard_key(id));
    }
    pub(crate) fn put_tally(&mut self, extent: u32, tally: &Tally) {
        self.0.put(extent_key(extent), tally.encode());
    }
    pub(crate) fn remove_tally(&mut self, extent: u32) {
        self.0.delete(extent_key(extent));
    }
    pub(crate) fn put_free(&mut self, room: &Room) {
        self.0.put(free_key(room), room.bytes.to_le_bytes());
    }
    pub(crate) fn remove_free(&mut self, room: &Room) {
        self.0.delete(free_key(room));
    }
    pub(crate) fn put_owner(&mut self, owner: &Owner) {
        self.0.put(OWNER_KEY, owner.encode());
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The index of one backend.
pub(crate) struct Index {
    db: DB,
}

impl Index {
    /// Opens the index in `directory`, making one if there is none.
    pub(crate) fn open(directory: &Path) -> Result<Self, IndexError> {
        Ok(Self { db: DB::open(&options(), directory)? })
    }

    pub(crate) fn owner(&self) -> Result<Option<Owner>, IndexError> {
        match self.db.get_pinned(OWNER_KEY)? {
            None => Ok(None),
            Some(bytes) => Owner::decode(&bytes).map(Some).ok_or_else(|| undecodable("owner")),
        }
    }

    pub(crate) fn get(&self, id: &ShardId) -> Result<Option<Entry>, IndexError> {
        match self.db.get_pinned(shard_key(id))? {
            None => Ok(None),
            Some(bytes) => Entry::decode(&bytes).map(Some).ok_or_else(|| undecodable("entry")),
        }
    }

    /// Shards after `after` in id order; of one placement group if `pg` is given.
    pub(crate) fn shards(
        &self,
        pg: Option<PgId>,
        after: Option<ShardId>,
    ) -> impl Iterator<Item = Result<(ShardId, Entry), IndexError>> + '_ {
        let mut from = vec![b's'];
        let mut until = vec![b's' + 1];
        if let Some(pg) = pg {
            from.extend_from_slice(&pg.0.to_be_bytes());
            if let Some(next) = pg.0.checked_add(1) {
                until = vec![b's'];
                until.extend_from_slice(&next.to_be_bytes());
            }
        }
        if let Some(after) = after {
            let mut key = shard_key(&after).to_vec();
            key.push(0); // the least key greater than the shard's own
            from = from.max(key);
        }
        self.between(from, until).map(|item| {
            let (key, value) = item?;
            let id = key.get(1..).and_then(ShardId::decode).ok_or_else(|| undecodable("shard key"))?;
            Ok((id, Entry::decode(&value).ok_or_else(|| undecodable("entry"))?))
        })
    }

    pub(crate) fn tallies(&self) -> Result<Vec<(u32, Tally)>, IndexError> {
        self.between(vec![b'e'], vec![b'e' + 1])
            .map(|item| {
                let (key, value) = item?;
                let extent = key.get(1..5).and_then(|k| k.try_into().ok()).map(u32::from_be_bytes);
                extent.zip(Tally::decode(&value)).ok_or_else(|| undecodable("tally"))
            })
            .collect()
    }

    /// Room whose records were freed and that was not given back yet.
    pub(crate) fn frees(&self) -> Result<Vec<Room>, IndexError> {
        self.between(vec![b'f'], vec![b'f' + 1])
            .map(|item| {
                let (key, value) = item?;
                decode_free(&key, &value).ok_or_else(|| undecodable("free room"))
            })
            .collect()
    }

    /// Applies the changes; durable only after the next `flush`.
    pub(crate) fn write(&self, changes: Changes) -> Result<(), IndexError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        Ok(self.db.write_opt(changes.0, &options)?)
    }

    /// Makes all changes written so far durable.
    pub(crate) fn flush(&self) -> Result<(), IndexError> {
        Ok(self.db.flush()?)
    }

    fn between(&self, from: Vec<u8>, until: Vec<u8>) -> impl Iterator<Item = Result<Pair, IndexError>> + '_ {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(until);
        let mode = IteratorMode::From(&from, Direction::Forward);
        self.db.iterator_opt(mode, options).map(|item| item.map_err(IndexError::from))
    }
}

/// A key and its value.
type Pair = (Box<[u8]>, Box<[u8]>);

/// A cursor over fixed-length little-endian fields behind a version byte.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8], length: usize, version: u8) -> Option<Self> {
        (bytes.len() == length && bytes[0] == version).then(|| Self(&bytes[1..]))
    }
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0u8; N];
        out.copy_from_slice(&self.0[..N]);
        self.0 = &self.0[N..];
        out
    }
    fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

fn shard_key(id: &ShardId) -> [u8; 1 + ShardId::ENCODED_BYTES] {
    let mut key = [b's'; 1 + ShardId::ENCODED_BYTES];
    key[1..].copy_from_slice(&id.encode());
    key
}

fn extent_key(extent: u32) -> [u8; 5] {
    let mut key = [b'e'; 5];
    key[1..].copy_from_slice(&extent.to_be_bytes());
    key
}

fn free_key(room: &Room) -> [u8; 13] {
    let mut key = [b'f'; 13];
    key[1..5].copy_from_slice(&room.extent.to_be_bytes());
    key[5..].copy_from_slice(&room.offset.to_be_bytes());
    key
}

fn decode_free(key: &[u8], value: &[u8]) -> Option<Room> {
    Some(Room {
        extent: u32::from_be_bytes(key.get(1..5)?.try_into().ok()?),
        offset: u64::from_be_bytes(key.get(5..13)?.try_into().ok()?),
        bytes: u64::from_le_bytes(value.try_into().ok()?),
    })
}

fn undecodable(what: &str) -> IndexError {
    IndexError::damage(format!("{what} of unknown form"))
}

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    table.set_cache_index_and_filter_blocks(true);
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(3);
    options.set_max_background_jobs(2);
    options.set_max_open_files(64);
    options.set_paranoid_checks(true);
    options.set_skip_stats_update_on_db_open(true);
    // Its own log is of no use to anybody but RocksDB's authors: two short files.
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1024 * 1024);
    options.set_stats_dump_period_sec(0);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::sample_header;

    fn entry(extent: u32, offset: u64) -> Entry {
        Entry {
            room: Room { extent, offset, bytes: 8192 },
            data_offset: 320,
            shard_bytes: 5000,
            cell_bytes: 4096,
            root: [7; 32],
            created_ms: 1,
            verified_ms: 2,
            sequence: u64::MAX - 1,
            is_quarantined: true,
        }
    }

    #[test]
    fn all_that_is_written_and_flushed_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let tally =
            Tally { uuid: [3; 16], live_bytes: 4, live_records: 5, scan_from: 6, indexed_end: 7, is_sealed: true };
        let owner = Owner {
            cluster: ClusterId([1; 16]),
            backend: BackendId([2; 16]),
            next_sequence: 9,
            next_extent: 10,
            scrubbed_ms: 11,
        };
        let room = Room { extent: 3, offset: 4096, bytes: 8192 };
        let id = sample_header(1).id;
        {
            let index = Index::open(directory.path()).unwrap();
            let mut changes = Changes::default();
            changes.put_shard(&id, &entry(3, 4096));
            changes.put_tally(3, &tally);
            changes.put_free(&room);
            changes.put_owner(&owner);
            index.write(changes).unwrap();
            index.flush().unwrap();
        }
        let index = Index::open(directory.path()).unwrap();
        assert_eq!(index.get(&id), Ok(Some(entry(3, 4096))));
        assert_eq!(index.tallies(), Ok(vec![(3, tally)]));
        assert_eq!(index.frees(), Ok(vec![room]));
        assert_eq!(index.owner(), Ok(Some(owner)));
        let mut changes = Changes::default();
        changes.remove_shard(&id);
        changes.remove_tally(3);
        changes.remove_free(&room);
        index.write(changes).unwrap();
        assert_eq!(index.get(&id), Ok(None));
        assert_eq!((index.tallies(), index.frees()), (Ok(vec![]), Ok(vec![])));
    }

    #[test]
    fn shards_come_in_order_within_their_placement_group() {
        let directory = tempfile::tempdir().unwrap();
        let index = Index::open(directory.path()).unwrap();
        let mut ids = Vec::new();
        let mut changes = Changes::default();
        for pg in [0, 1, 255, 256, u32::MAX] {
            for segment in 0..3 {
                let mut id = sample_header(segment).id;
                id.pg = PgId(pg);
                changes.put_shard(&id, &entry(1, 4096));
                ids.push(id);
            }
        }
        index.write(changes).unwrap();
        ids.sort();
        let all = |pg, after| index.shards(pg, after).map(|item| item.unwrap().0).collect::<Vec<_>>();
        assert_eq!(all(None, None), ids);
        assert_eq!(all(None, Some(ids[4])), ids[5..]);
        for pg in [0, 1, 255, 256, u32::MAX] {
            let of_pg: Vec<_> = ids.iter().copied().filter(|id| id.pg.0 == pg).collect();
            assert_eq!(all(Some(PgId(pg)), None), of_pg);
            assert_eq!(all(Some(PgId(pg)), Some(of_pg[1])), of_pg[2..]);
        }
        assert_eq!(all(Some(PgId(1)), Some(ids[0])).len(), 3, "a cursor of an earlier group skips nothing");
    }

    #[test]
    fn values_of_unknown_form_are_refused() {
        let good = entry(1, 2).encode();
        assert_eq!(good.len(), ENTRY_BYTES);
        assert_eq!(Entry::decode(&good), Some(entry(1, 2)));
        assert_eq!(Entry::decode(&good[1..]), None);
        let mut newer = good.clone();
        newer[0] = 2;
        assert_eq!(Entry::decode(&newer), None);
        assert_eq!(Tally::decode(&[]), None);
        assert_eq!(Owner::decode(&[]), None);
    }
}
