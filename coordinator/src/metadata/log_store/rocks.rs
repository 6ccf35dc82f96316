//! The log over RocksDB, with the thread that writes it.

use super::super::api::{MetadataError, MetadataResult};
use super::super::state_store::open_error;
use super::{BATCH_MAX, QUEUE_MAX, Request};
use parking_lot::Mutex;
use rocksdb::{DB, DBCompressionType, Options, WriteBatch, WriteOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Bytes of the write-ahead log kept before memtables are flushed; purged entries then never reach a table.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// The open database and its writer.
pub(super) struct RocksLog {
    db: Arc<DB>,
    queue: Mutex<Option<SyncSender<Request>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl RocksLog {
    pub(super) fn open(directory: &Path, has_failed: Arc<AtomicBool>) -> MetadataResult<Self> {
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
        let of_writer = db.clone();
        let writer = std::thread::Builder::new()
            .name("metadata-log".to_owned())
            .spawn(move || write_loop(&of_writer, &requests, &has_failed))
            .map_err(|e| MetadataError::Unavailable { reason: format!("start the log writer: {e}") })?;
        Ok(Self { db, queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)) })
    }

    pub(super) fn submit(&self, request: Request) -> io::Result<()> {
        let queue = self.queue.lock().clone();
        let queue = queue.ok_or_else(|| io::Error::other("the metadata log is closed"))?;
        queue.send(request).map_err(|_| io::Error::other("the metadata log's writer has ended"))
    }

    pub(super) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.db.get(key).map_err(io::Error::other)
    }

    pub(super) fn last_before(&self, key: &[u8]) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut iterator = self.db.raw_iterator();
        iterator.seek_for_prev(key);
        let found = iterator.item().map(|(key, value)| (key.to_vec(), value.to_vec()));
        iterator.status().map_err(io::Error::other)?;
        Ok(found)
    }

    pub(super) fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut iterator = self.db.raw_iterator();
        iterator.seek(from);
        while let Some((key, value)) = iterator.item() {
            if key >= to {
                break;
            }
            visit(value)?;
            iterator.next();
        }
        iterator.status().map_err(io::Error::other)
    }

    pub(super) fn stop(&self) {
        self.queue.lock().take();
        if let Some(writer) = self.writer.lock().take() {
            // A writer that panicked has already failed every request; there is nothing more to do about it here.
            let _ = writer.join();
        }
        self.db.cancel_all_background_work(true);
    }
}

impl Drop for RocksLog {
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
            if let Some((from, to)) = request.batch.delete {
                batch.delete_range(&from, &to);
                if request.batch.is_for_good {
                    ranges.push((from, to));
                }
            }
            for (key, value) in request.batch.rows {
                match value {
                    Some(value) => batch.put(key, value),
                    None => batch.delete(key),
                }
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
            done.tell(failed.as_deref());
        }
        for (from, to) in ranges {
            // Whole tables of purged entries go without being compacted; what is left is dropped by compaction. Not those
            // of a log that was cut back: entries written since may be in them by now.
            if let Err(error) = db.delete_file_in_range(&from, &to) {
                tracing::warn!(%error, "drop purged tables of the metadata log");
            }
        }
    }
}
