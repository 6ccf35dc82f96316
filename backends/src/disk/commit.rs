//! Group commit: one thread syncs for all records finished while it did the sync before.
//!
//! Invariant: a finish is answered only after its bytes were synced, its extent still had its name in this backend's
//! directory, and the index knows it. A sync that fails is never tried again; it ends writing to the backend.

use super::engine::Engine;
use super::extent::{Extent, Reservation};
use super::ledger::Finished;
use holdfast_proto::node::{BackendHealth, ShardError, ShardStat};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::oneshot;

/// A record written in full that waits to be made durable and found.
pub(crate) struct Commit {
    pub(crate) reservation: Arc<Reservation>,
    pub(crate) finished: Finished,
    pub(crate) answer: oneshot::Sender<Result<ShardStat, ShardError>>,
}

/// What the committing thread does until the queue stops.
pub(crate) fn run_commits(engine: &Engine) {
    while let Some(batch) = engine.commits.pop_all() {
        if catch_unwind(AssertUnwindSafe(|| commit(engine, batch))).is_err() {
            engine.gate.fault.raise(BackendHealth::ReadOnly, "the committing thread panicked");
        }
    }
}

fn commit(engine: &Engine, batch: Vec<Commit>) {
    // A writer that is gone gets its room freed instead: dropping the item gives it up.
    let batch: Vec<Commit> = batch.into_iter().filter(|item| !item.answer.is_closed()).collect();
    if batch.is_empty() {
        return;
    }
    match make_durable(engine, &batch) {
        Ok(()) => {
            let bytes: u64 = batch.iter().map(|item| item.reservation.room.bytes).sum();
            engine.unsettled_bytes.fetch_add(bytes, Ordering::Relaxed);
            engine.meters.sync_batch.record(batch.len() as f64);
            for item in batch {
                item.reservation.settle();
                // If the writer left in this moment the shard stays: whole, and an orphan if nobody names it.
                let _ = item.answer.send(Ok(item.finished.entry.stat(item.finished.id)));
            }
        }
        Err(error) => batch.into_iter().for_each(|item| {
            let _ = item.answer.send(Err(error.clone()));
        }),
    }
}

fn make_durable(engine: &Engine, batch: &[Commit]) -> Result<(), ShardError> {
    engine.gate.fault.check_write()?;
    let extents: BTreeMap<u32, &Arc<Extent>> =
        batch.iter().map(|item| (item.reservation.extent.number, &item.reservation.extent)).collect();
    for extent in extents.values() {
        sync(engine, extent)?;
    }
    let finished: Vec<Finished> = batch.iter().map(|item| item.finished.clone()).collect();
    engine.ledger.commit(&finished).map_err(|error| engine.index_failed("write index", &error))
}

/// Makes what was written to the extent durable. A failure ends writing to the backend.
pub(crate) fn sync(engine: &Engine, extent: &Extent) -> Result<(), ShardError> {
    let began = Instant::now();
    engine.syncs.fetch_add(1, Ordering::Relaxed);
    let synced = extent.file.sync().and_then(|()| extent.file.is_linked());
    engine.meters.sync_seconds.record(began.elapsed().as_secs_f64());
    let gone = match synced {
        Ok(true) => engine.anchors.check_extents().err(),
        Ok(false) => Some("an open extent was removed".to_owned()),
        Err(error) => {
            // Whatever the system says, even "no room": which of the written pages are on disk is unknown now.
            engine.meters.write_errors.increment(1);
            let reason = format!("sync of extent {} failed: {error}", extent.number);
            engine.gate.fault.raise(BackendHealth::ReadOnly, &reason);
            return Err(engine.gate.io_error("sync extent", error));
        }
    };
    let Some(reason) = gone else { return Ok(()) };
    // Bytes in a file that nobody can find again are not durable.
    engine.probe();
    engine.gate.fault.raise(BackendHealth::Missing, &reason);
    Err(engine.gate.io_error("sync extent", reason))
}
