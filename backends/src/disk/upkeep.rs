//! What a disk backend does besides serving: checkpoints of the index, giving room back, moving the last live records
//! out of mostly dead extents.
//!
//! Invariant: nothing is given back, and no extent removed, before a flush made it durable that the index does not
//! point there any more.

use super::commit::sync;
use super::engine::Engine;
use super::extent::Reservation;
use super::index::{Entry, Room, Tally};
use super::io::Through;
use super::layout::{EXTENT_HEADER_BYTES, RecordHead, Trailer};
use super::read::fetch;
use super::scan::Scan;
use holdfast_proto::ShardId;
use holdfast_proto::node::{BackendHealth, ShardError};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often the upkeep thread looks.
const TICK: Duration = Duration::from_secs(1);
/// Freed room is given back at the next checkpoint, at once when this much has gathered.
const FREED_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Three memtables of 4 MiB may be waiting to be flushed, and the compaction that follows writes some of it again.
const INDEX_ROOM_BYTES_MIN: u64 = 32 * 1024 * 1024;
/// A writer that finds the disk full waits so long for a compaction step to end before it is refused: it holds an IO
/// thread, and reads want those too.
const BUSY_WAIT: Duration = Duration::from_millis(200);
/// A sealed extent is compacted when less than a quarter of what was written to it lives: moving the rest then costs
/// at most a third of what the extent once cost, and punched holes have given most of its room back already.
const LIVE_SHARE_MAX: u64 = 4;

/// State of the upkeep: who may do it, and when to stop.
#[derive(Default)]
pub(crate) struct UpkeepState {
    /// Held during a checkpoint or a compaction step: there is one at a time.
    busy: Mutex<()>,
    /// Extents with records that cannot be moved, until the next open.
    immovable: Mutex<BTreeSet<u32>>,
    is_stopped: Mutex<bool>,
    wake: Condvar,
}

impl UpkeepState {
    pub(crate) fn stop(&self) {
        *self.is_stopped.lock() = true;
        self.wake.notify_all();
    }

    /// Waits a tick; `false` when it is time to stop.
    fn wait(&self) -> bool {
        let mut is_stopped = self.is_stopped.lock();
        if !*is_stopped {
            self.wake.wait_for(&mut is_stopped, TICK);
        }
        !*is_stopped
    }
}

/// What the upkeep thread does until stopped.
pub(crate) fn run_upkeep(engine: &Engine) {
    let mut checkpointed = Instant::now();
    while engine.upkeep.wait() {
        let outcome = catch_unwind(AssertUnwindSafe(|| engine.tick(&mut checkpointed)));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(backend = %engine.identity.id, %error, "upkeep step failed"),
            Err(_) => tracing::error!(backend = %engine.identity.id, "an upkeep step panicked"),
        }
    }
}

impl Engine {
    fn tick(&self, checkpointed: &mut Instant) -> Result<(), ShardError> {
        if !self.gate.fault.is_none() {
            return Ok(());
        }
        self.free_abandoned()?;
        let unsettled = self.unsettled_bytes.load(Ordering::Relaxed);
        let freed = self.ledger.freed_bytes();
        let is_due = checkpointed.elapsed() >= self.options.checkpoint_interval;
        let is_much = unsettled >= self.options.checkpoint_bytes || freed >= FREED_BYTES_MAX;
        let budget = self.options.compaction_bytes_per_second.saturating_mul(TICK.as_secs());
        let mut work = || {
            if is_much || (is_due && (unsettled > 0 || freed > 0)) {
                self.checkpoint()?;
                *checkpointed = Instant::now();
            }
            self.compact(budget)
        };
        match work() {
            // Where nothing fits, nothing can be moved either; a full disk is told of by the status.
            Err(ShardError::Full { .. }) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Whether a flush of the index would fit. One that finds no room makes RocksDB refuse all changes until it is
    /// opened anew, so it must not be tried.
    pub(crate) fn check_index_room(&self) -> Result<(), ShardError> {
        let space = self.gate.space()?;
        if space.free_bytes < INDEX_ROOM_BYTES_MIN { Err(self.gate.full(&space)) } else { Ok(()) }
    }

    /// Makes sure that `bytes` fit, giving back what can be if it looks full.
    pub(crate) fn make_room(&self, bytes: u64) -> Result<(), ShardError> {
        let full = match self.gate.space().and_then(|space| self.gate.check_room(&space, bytes)) {
            Err(error @ ShardError::Full { .. }) => error,
            other => return other,
        };
        if self.ledger.freed_bytes() == 0 {
            return Err(full);
        }
        let Some(busy) = self.upkeep.busy.try_lock_for(BUSY_WAIT) else { return Err(full) };
        self.checkpoint_alone(&busy)?;
        drop(busy);
        self.gate.check_room(&self.gate.space()?, bytes)
    }

    /// Frees the room of writers that are gone.
    pub(crate) fn free_abandoned(&self) -> Result<(), ShardError> {
        let abandoned = self.abandoned.take();
        if abandoned.is_empty() {
            return Ok(());
        }
        let rooms: Vec<Room> = abandoned.iter().map(|item| item.room).collect();
        self.ledger.abandon(&rooms).map_err(|error| self.index_failed("free abandoned room", &error))?;
        abandoned.iter().for_each(|item| item.extent.settle(&item.room));
        Ok(())
    }

    /// Makes the index durable as of now, then gives back the room it freed before.
    pub(crate) fn checkpoint(&self) -> Result<(), ShardError> {
        self.checkpoint_alone(&self.upkeep.busy.lock())
    }

    fn checkpoint_alone(&self, _busy: &MutexGuard<'_, ()>) -> Result<(), ShardError> {
        self.gate.fault.check_write()?;
        self.check_index_room()?;
        self.free_abandoned()?;
        self.unsettled_bytes.store(0, Ordering::Relaxed);
        let (marks, sealed) = self.allocator.lock().marks();
        let next_sequence = self.sequence.load(Ordering::Relaxed);
        let settled = self
            .ledger
            .checkpoint(&marks, next_sequence)
            .map_err(|error| self.index_failed("checkpoint index", &error))?;
        for extent in sealed {
            if let Err(error) = extent.trim() {
                tracing::warn!(backend = %self.identity.id, extent = extent.number, %error, "extent not trimmed");
            }
        }
        if let Err(error) = self.remove_extents(&settled.empty) {
            self.ledger.keep_frees(settled.frees);
            return Err(error);
        }
        self.give_back(settled.frees, &settled.empty)
    }

    /// Removes files of dead extents. The index forgets them only once their names cannot come back.
    fn remove_extents(&self, numbers: &[u32]) -> Result<(), ShardError> {
        let mut removed = Vec::new();
        for &number in numbers {
            match self.place.io.remove(&self.place.path(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(backend = %self.identity.id, extent = number, %error, "extent not removed");
                }
                _ => removed.push(number),
            }
        }
        if removed.is_empty() {
            return Ok(());
        }
        let synced = self.place.io.sync_directory(&self.place.directory);
        synced.map_err(|error| self.write_failed("sync extents directory", &error))?;
        for number in removed {
            self.handles.forget(number);
            self.ledger.forget_extent(number).map_err(|error| self.index_failed("forget extent", &error))?;
        }
        Ok(())
    }

    /// Punches holes where freed records lie. The index forgets the room only once the holes cannot close again.
    fn give_back(&self, mut rooms: Vec<Room>, removed: &[u32]) -> Result<(), ShardError> {
        rooms.retain(|room| !removed.contains(&room.extent));
        rooms.sort();
        let (mut given, mut kept) = (Vec::new(), Vec::new());
        for of_extent in rooms.chunk_by(|a, b| a.extent == b.extent) {
            match self.punch_holes(of_extent) {
                Ok(()) => given.extend_from_slice(of_extent),
                Err(error) => {
                    let extent = of_extent[0].extent;
                    tracing::warn!(backend = %self.identity.id, extent, %error, "room not given back");
                    kept.extend_from_slice(of_extent);
                }
            }
        }
        self.ledger.keep_frees(kept);
        self.ledger.given_back(&given).map_err(|error| self.index_failed("note room given back", &error))
    }

    fn punch_holes(&self, rooms: &[Room]) -> io::Result<()> {
        let Some(first) = rooms.first() else { return Ok(()) };
        let handle = self.handle(first.extent)?;
        for run in joined(rooms) {
            handle.file.punch(run.offset, run.bytes)?;
            self.meters.given_back_bytes.increment(run.bytes);
        }
        handle.file.sync().inspect_err(|error| {
            let reason = format!("sync of extent {} failed: {error}", first.extent);
            self.gate.fault.raise(BackendHealth::ReadOnly, &reason);
        })
    }

    /// Moves live records of about `budget_bytes` out of the sealed extent with the least of them. Returns the bytes
    /// moved; the extent itself goes with a later checkpoint.
    pub(crate) fn compact(&self, budget_bytes: u64) -> Result<u64, ShardError> {
        let _busy = self.upkeep.busy.lock();
        self.gate.fault.check_write()?;
        let Some(number) = self.compaction_candidate() else {
            return Ok(0);
        };
        let live = self.live_records(number, budget_bytes)?;
        let mut copies = Vec::new();
        for (shard, entry) in live {
            match self.copy_record(shard, &entry)? {
                Some(reservation) => copies.push((shard, entry, reservation)),
                None => {
                    self.quarantine(shard, &entry);
                    self.upkeep.immovable.lock().insert(number);
                }
            }
        }
        if copies.is_empty() {
            // The tally says something lives there and nothing was found: leave it to scrub and repair.
            self.upkeep.immovable.lock().insert(number);
        }
        self.switch_to(copies)
    }

    fn compaction_candidate(&self) -> Option<u32> {
        let immovable = self.upkeep.immovable.lock();
        let is_mostly_dead = |tally: &Tally| {
            let written = tally.indexed_end.saturating_sub(EXTENT_HEADER_BYTES);
            tally.is_sealed && tally.live_records > 0 && tally.live_bytes < written / LIVE_SHARE_MAX
        };
        let candidates = self.ledger.tallies().into_iter();
        candidates
            .filter(|(number, tally)| is_mostly_dead(tally) && !immovable.contains(number))
            .min_by_key(|(_, tally)| tally.live_bytes)
            .map(|(number, _)| number)
    }

    fn live_records(&self, number: u32, budget_bytes: u64) -> Result<Vec<(ShardId, Entry)>, ShardError> {
        let failed = |error| self.gate.io_error("read extent to compact", error);
        let handle = self.handle(number).map_err(failed)?;
        let end = handle.file.bytes().map_err(failed)?;
        let mut scan = Scan::new(&handle, EXTENT_HEADER_BYTES, end);
        let (mut live, mut bytes) = (Vec::new(), 0);
        while bytes < budget_bytes
            && let Some((offset, head)) = scan.next().map_err(failed)?
        {
            let shard = head.header.id;
            let entry = self.entry(shard)?;
            if let Some(entry) = entry.filter(|entry| entry.room.extent == number && entry.room.offset == offset) {
                scan.skip_to(entry.room.end());
                bytes += entry.room.bytes;
                live.push((shard, entry));
            }
        }
        Ok(live)
    }

    /// Writes a copy of the record into fresh room, damaged cells as they are. `None` if head or trailer do not hold.
    fn copy_record(&self, shard: ShardId, entry: &Entry) -> Result<Option<Arc<Reservation>>, ShardError> {
        let failed = |error| self.gate.io_error("read record to compact", error);
        let handle = self.handle(entry.room.extent).map_err(failed)?;
        let mut record = fetch(&handle, entry.room.offset, 0..entry.room.bytes, Through::Device).map_err(failed)?;
        let Ok(head) = RecordHead::decode(&record, &handle.uuid, entry.room.offset) else {
            return Ok(None);
        };
        let layout = head.layout;
        if layout.record_bytes != entry.room.bytes || head.header.id != shard {
            return Ok(None);
        }
        let trailer_at = usize::try_from(layout.trailer_offset).unwrap_or(usize::MAX);
        let Ok(trailer) = Trailer::decode(&record[trailer_at..], layout.cell_count, entry.room.offset) else {
            return Ok(None);
        };
        let reservation = self.reserve(entry.room.bytes)?;
        let new_head = RecordHead::encode(&head.header, &layout, &reservation.extent.uuid, reservation.room.offset);
        record[..new_head.len()].copy_from_slice(&new_head);
        let new_trailer = trailer.encode(reservation.room.offset);
        record[trailer_at..trailer_at + new_trailer.len()].copy_from_slice(&new_trailer);
        reservation
            .extent
            .file
            .write(&[record.freeze()], reservation.room.offset, Through::Device)
            .map_err(|error| self.write_failed("write compacted record", &error))?;
        Ok(Some(reservation))
    }

    fn switch_to(&self, copies: Vec<(ShardId, Entry, Arc<Reservation>)>) -> Result<u64, ShardError> {
        let extents: BTreeMap<u32, _> = copies.iter().map(|(_, _, copy)| (copy.extent.number, &copy.extent)).collect();
        for extent in extents.values() {
            sync(self, extent)?;
        }
        let moves: Vec<_> = copies.iter().map(|(shard, entry, copy)| (*shard, entry.clone(), copy.room)).collect();
        self.ledger.relocate(&moves).map_err(|error| self.index_failed("relocate records", &error))?;
        let mut bytes = 0;
        for (_, _, copy) in &copies {
            copy.settle();
            bytes += copy.room.bytes;
        }
        self.unsettled_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.meters.compacted_bytes.increment(bytes);
        Ok(bytes)
    }

    /// Lets the index and the extents end in a state that the next open takes over without a scan.
    pub(crate) fn settle_for_close(&self) -> Result<(), ShardError> {
        let active = self.allocator.lock().active.clone();
        if let Some(active) = active {
            active.trim().map_err(|error| self.gate.io_error("trim extent", error))?;
            sync(self, &active)?;
        }
        self.checkpoint()
    }
}

/// Rooms that touch, as one. They come sorted.
fn joined(rooms: &[Room]) -> Vec<Room> {
    let mut runs: Vec<Room> = Vec::new();
    for room in rooms {
        match runs.last_mut() {
            Some(run) if run.extent == room.extent && run.end() == room.offset => run.bytes += room.bytes,
            _ => runs.push(*room),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_rooms_are_joined() {
        let room = |extent, offset, bytes| Room { extent, offset, bytes };
        let rooms = [room(1, 4096, 4096), room(1, 8192, 4096), room(1, 20_480, 4096), room(2, 24_576, 4096)];
        assert_eq!(joined(&rooms), [room(1, 4096, 8192), room(1, 20_480, 4096), room(2, 24_576, 4096)]);
    }
}
