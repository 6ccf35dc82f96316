//! The state's RocksDB instance: no write-ahead log, all column families flushed atomically, so that after a crash it
//! stands exactly at its last flush and the Raft log is replayed from there (ADR 4).

use super::super::api::{MetadataError, MetadataResult};
use super::super::kv::{Batch, Family, KvError, KvResult, KvView, Scan, Visitor};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRawIterator, FlushOptions, Options,
    Range, Snapshot, WriteBatch, WriteOptions,
};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Blocks of all families together. Small: the whole server idles below 100 MiB.
const BLOCK_CACHE_BYTES: usize = 48 << 20;
/// A memtable of one family; the flush by bytes (`FLUSH_BYTES`) comes first in general.
const MEMTABLE_BYTES: usize = 32 << 20;

/// The open database.
pub(in super::super) struct RocksState {
    db: DB,
    write: WriteOptions,
    unflushed: AtomicU64,
}

impl RocksState {
    /// Opens or makes the database in `directory`.
    pub(super) fn open(directory: &Path) -> MetadataResult<Self> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_max_background_jobs(2);
        options.set_max_open_files(512);
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(8 << 20);
        options.set_paranoid_checks(true);
        options.set_db_write_buffer_size(2 * MEMTABLE_BYTES);
        let families = Family::ALL.map(|f| ColumnFamilyDescriptor::new(f.name(), family_options(f, &cache)));
        let db = DB::open_cf_descriptors(&options, directory, families).map_err(|e| open_error(directory, &e))?;
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        Ok(Self { db, write, unflushed: AtomicU64::new(0) })
    }

    /// Writes at once, to memory; durable after `flush`, or by replay of the log.
    pub(super) fn write(&self, batch: Batch) -> KvResult<()> {
        let mut out = WriteBatch::default();
        for (family, key, value) in &batch.writes {
            let handle = self.handle(*family)?;
            match value {
                Some(value) => out.put_cf(handle, key, value),
                None => out.delete_cf(handle, key),
            }
        }
        self.unflushed.fetch_add(out.size_in_bytes() as u64, Ordering::Relaxed);
        self.db.write_opt(out, &self.write).map_err(|e| kv_error("write", &e))
    }

    /// Makes everything written so far durable.
    pub(super) fn flush(&self) -> KvResult<()> {
        let handles: Vec<_> = Family::ALL.iter().filter_map(|f| self.db.cf_handle(f.name())).collect();
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let covered = self.unflushed.swap(0, Ordering::Relaxed);
        self.db.flush_cfs_opt(&handles, &options).map_err(|e| {
            // Still to be flushed: the next look must see it.
            self.unflushed.fetch_add(covered, Ordering::Relaxed);
            kv_error("flush", &e)
        })
    }

    /// The state as it is now, all families together: for whatever reads more than one row. A row that `apply` moves
    /// from one family to another (a version overwritten, a part completed) is otherwise missed by a reader that looks
    /// into one before the move and into the other after it.
    pub(super) fn view(&self) -> RocksView<'_> {
        RocksView { store: self, snapshot: self.db.snapshot() }
    }

    pub(super) fn bytes_between(&self, family: Family, start: &[u8], end: &[u8]) -> KvResult<u64> {
        // Beyond every key: a bucket's number never gets there.
        let last = [0xFF; 16];
        let end = if end.is_empty() { &last[..] } else { end };
        let sizes = self.db.get_approximate_sizes_cf(self.handle(family)?, &[Range::new(start, end)]);
        Ok(sizes.first().copied().unwrap_or(0))
    }

    /// Bytes written since the last flush began.
    pub(super) fn unflushed_bytes(&self) -> u64 {
        self.unflushed.load(Ordering::Relaxed)
    }

    /// Stops background work so that the process can end.
    pub(super) fn stop(&self) {
        self.db.cancel_all_background_work(true);
    }

    fn handle(&self, family: Family) -> KvResult<&rocksdb::ColumnFamily> {
        self.db
            .cf_handle(family.name())
            .ok_or_else(|| KvError { reason: format!("column family {} is not there", family.name()) })
    }
}

impl KvView for RocksState {
    fn get(&self, family: Family, key: &[u8]) -> KvResult<Option<Vec<u8>>> {
        self.db.get_cf(self.handle(family)?, key).map_err(|e| kv_error("read", &e))
    }

    fn scan(&self, family: Family, from: &[u8], visit: &mut Visitor<'_>) -> KvResult<()> {
        scan(self.db.raw_iterator_cf(self.handle(family)?), from, visit)
    }
}

/// All families as of one moment.
pub(in super::super) struct RocksView<'s> {
    store: &'s RocksState,
    snapshot: Snapshot<'s>,
}

impl KvView for RocksView<'_> {
    fn get(&self, family: Family, key: &[u8]) -> KvResult<Option<Vec<u8>>> {
        self.snapshot.get_cf(self.store.handle(family)?, key).map_err(|e| kv_error("read", &e))
    }

    fn scan(&self, family: Family, from: &[u8], visit: &mut Visitor<'_>) -> KvResult<()> {
        scan(self.snapshot.raw_iterator_cf(self.store.handle(family)?), from, visit)
    }
}

fn scan(mut iterator: DBRawIterator<'_>, from: &[u8], visit: &mut Visitor<'_>) -> KvResult<()> {
    iterator.seek(from);
    let mut seek = Vec::new();
    while let Some((key, value)) = iterator.item() {
        match visit(key, value, &mut seek)? {
            Scan::Next => iterator.next(),
            Scan::Stop => break,
            Scan::Seek => iterator.seek(&seek),
        }
    }
    iterator.status().map_err(|e| kv_error("scan", &e))
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(16 << 10);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_level_compaction_dynamic_level_bytes(true);
    // Object bytes do not compress; keys and records do.
    options.set_compression_type(match family {
        Family::Inline => DBCompressionType::None,
        _ => DBCompressionType::Lz4,
    });
    if family != Family::Root && family != Family::Inline {
        // Rows come and go: a scan of a queue from its front, a listing, the inventory must not wade through the
        // tombstones of what was deleted.
        options.add_compact_on_deletion_collector_factory(4096, 1024, 0.5);
    }
    options
}

/// An error opening a database, in words: the lock of another process above all.
pub(in super::super) fn open_error(directory: &Path, error: &rocksdb::Error) -> MetadataError {
    let text = error.to_string();
    let reason = if text.contains("lock") || text.contains("LOCK") {
        format!("{} is in use by another process", directory.display())
    } else {
        format!("open {}: {text}", directory.display())
    };
    MetadataError::Unavailable { reason }
}

fn kv_error(action: &str, error: &rocksdb::Error) -> KvError {
    KvError { reason: format!("{action}: {error}") }
}
