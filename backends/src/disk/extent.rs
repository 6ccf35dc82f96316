//! Extents that are open for writing, and the handing out of room in them: a cursor that only moves forward.
//!
//! Invariant: room handed out overlaps no other room ever handed out, and stays counted as in flight until its record
//! is in the index or was given up; so everything before the first room in flight is settled.

use super::index::Room;
use super::io::{DiskIo, ExtentFile};
use super::layout::{BLOCK_BYTES, EXTENT_HEADER_BYTES, ExtentHeader};
use super::ledger::Mark;
use super::queue::Queue;
use bytes::Bytes;
use holdfast_proto::{BackendId, ClusterId};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Room is taken from the file system ahead of the cursor in steps that grow with the extent, so that a small
/// backend does not hold much it does not use, and a busy one asks about once a second.
const ALLOCATE_BYTES_MIN: u64 = 4 * 1024 * 1024;
const ALLOCATE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// One extent open for writing.
pub(crate) struct Extent {
    pub(crate) number: u32,
    pub(crate) uuid: [u8; 16],
    pub(crate) file: Arc<dyn ExtentFile>,
    cursor: Mutex<Cursor>,
}

#[derive(Default)]
struct Cursor {
    next: u64,
    allocated: u64,
    in_flight: BTreeSet<u64>,
}

impl Extent {
    /// An extent whose records end at `next`.
    pub(crate) fn new(number: u32, uuid: [u8; 16], file: Arc<dyn ExtentFile>, next: u64) -> Self {
        let cursor = Cursor { next, allocated: next, in_flight: BTreeSet::new() };
        Self { number, uuid, file, cursor: Mutex::new(cursor) }
    }

    /// Hands out room at the cursor, growing the file first.
    fn reserve(&self, bytes: u64, step_bytes_max: u64) -> io::Result<Room> {
        assert!(bytes.is_multiple_of(BLOCK_BYTES), "records are whole blocks");
        let mut cursor = self.cursor.lock();
        let end = cursor.next + bytes;
        if end > cursor.allocated {
            let step = cursor.allocated.clamp(ALLOCATE_BYTES_MIN, ALLOCATE_BYTES_MAX).min(step_bytes_max);
            let target = end.max(cursor.allocated + step.next_multiple_of(BLOCK_BYTES));
            self.file.allocate(cursor.allocated, target - cursor.allocated)?;
            cursor.allocated = target;
        }
        let room = Room { extent: self.number, offset: cursor.next, bytes };
        cursor.next = end;
        cursor.in_flight.insert(room.offset);
        Ok(room)
    }

    /// The room's record is in the index, or was given up for good.
    pub(crate) fn settle(&self, room: &Room) {
        let was_in_flight = self.cursor.lock().in_flight.remove(&room.offset);
        assert!(was_in_flight, "room is settled once");
    }

    fn mark(&self, is_active: bool) -> Mark {
        let cursor = self.cursor.lock();
        Mark {
            extent: self.number,
            scan_from: cursor.in_flight.first().copied().unwrap_or(cursor.next),
            is_sealed: !is_active && cursor.in_flight.is_empty(),
        }
    }

    fn has_room(&self, bytes: u64, extent_bytes_max: u64) -> bool {
        self.cursor.lock().next + bytes <= extent_bytes_max
    }

    /// Room taken from the file system and not handed out.
    fn slack_bytes(&self) -> u64 {
        let cursor = self.cursor.lock();
        cursor.allocated - cursor.next
    }

    /// Gives the room after the last record back to the file system.
    pub(crate) fn trim(&self) -> io::Result<()> {
        let mut cursor = self.cursor.lock();
        if cursor.allocated > cursor.next {
            self.file.truncate(cursor.next)?;
            cursor.allocated = cursor.next;
        }
        Ok(())
    }
}

/// What a fresh extent needs to know of its backend.
pub(crate) struct ExtentPlace {
    pub(crate) io: Arc<dyn DiskIo>,
    pub(crate) directory: PathBuf,
    pub(crate) cluster: ClusterId,
    pub(crate) backend: BackendId,
}

impl ExtentPlace {
    pub(crate) fn path(&self, number: u32) -> PathBuf {
        self.directory.join(file_name(number))
    }

    /// Makes extent `number`, header and name durable.
    fn create(&self, number: u32, uuid: [u8; 16], now_ms: u64) -> io::Result<Extent> {
        let file = self.io.create(&self.path(number))?;
        let header = ExtentHeader { cluster: self.cluster, backend: self.backend, uuid, number, created_ms: now_ms };
        file.write(&[Bytes::copy_from_slice(&header.encode())], 0, super::io::Through::Cache)?;
        file.sync()?;
        self.io.sync_directory(&self.directory)?;
        Ok(Extent::new(number, uuid, file, EXTENT_HEADER_BYTES))
    }
}

/// The name of extent `number`.
pub(crate) fn file_name(number: u32) -> String {
    format!("{number:08}.ext")
}

/// The number in an extent's name; `None` if it is not one.
pub(crate) fn number_of(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".ext")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// The extents open for writing.
pub(crate) struct Allocator {
    /// Takes new records.
    pub(crate) active: Option<Arc<Extent>>,
    /// Full, with records still being written.
    pub(crate) draining: Vec<Arc<Extent>>,
    pub(crate) next_number: u32,
}

/// How room is to be taken.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) bytes: u64,
    pub(crate) extent_bytes_max: u64,
    /// Bytes that may be taken from the file system ahead.
    pub(crate) step_bytes_max: u64,
}

/// A fresh extent, for the ledger to learn before any record in it is indexed.
pub(crate) struct Fresh {
    pub(crate) number: u32,
    pub(crate) uuid: [u8; 16],
}

impl Allocator {
    /// Hands out room, beginning a new extent where the active one is full.
    pub(crate) fn reserve(
        &mut self,
        place: &ExtentPlace,
        request: Request,
        fresh: impl FnOnce() -> ([u8; 16], u64),
        learn: impl FnOnce(Fresh) -> io::Result<()>,
    ) -> io::Result<(Arc<Extent>, Room)> {
        let active = self.active.as_ref().filter(|active| active.has_room(request.bytes, request.extent_bytes_max));
        let extent = match active {
            Some(active) => active.clone(),
            None => {
                let (uuid, now_ms) = fresh();
                let number = self.next_number;
                // A number is never tried twice: a failed creation may have left its file.
                self.next_number += 1;
                let extent = Arc::new(place.create(number, uuid, now_ms)?);
                learn(Fresh { number, uuid })?;
                self.draining.extend(self.active.replace(extent.clone()));
                extent
            }
        };
        let room = extent.reserve(request.bytes, request.step_bytes_max)?;
        Ok((extent, room))
    }

    /// How far each open extent is; those found sealed are let go of.
    pub(crate) fn marks(&mut self) -> (Vec<Mark>, Vec<Arc<Extent>>) {
        let mut marks: Vec<Mark> = self.active.iter().map(|extent| extent.mark(true)).collect();
        let mut sealed = Vec::new();
        self.draining.retain(|extent| {
            let mark = extent.mark(false);
            marks.push(mark);
            if mark.is_sealed {
                sealed.push(extent.clone());
            }
            !mark.is_sealed
        });
        (marks, sealed)
    }

    pub(crate) fn slack_bytes(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| active.slack_bytes())
    }
}

/// Room held by a writer. Dropped without being settled, it is given up.
pub(crate) struct Reservation {
    pub(crate) extent: Arc<Extent>,
    pub(crate) room: Room,
    is_settled: AtomicBool,
    abandoned: Arc<Queue<Abandoned>>,
}

/// Room whose writer is gone: to be freed, then settled.
pub(crate) struct Abandoned {
    pub(crate) extent: Arc<Extent>,
    pub(crate) room: Room,
}

impl Reservation {
    pub(crate) fn new(extent: Arc<Extent>, room: Room, abandoned: Arc<Queue<Abandoned>>) -> Self {
        Self { extent, room, is_settled: AtomicBool::new(false), abandoned }
    }

    /// Its record is in the index.
    pub(crate) fn settle(&self) {
        if !self.is_settled.swap(true, Ordering::Relaxed) {
            self.extent.settle(&self.room);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_settled.swap(true, Ordering::Relaxed) {
            // After the queue has stopped nobody frees it: the next open finds it unfinished and does.
            let _ = self.abandoned.push(Abandoned { extent: self.extent.clone(), room: self.room });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::io::LocalIo;

    #[test]
    fn room_is_handed_out_once_and_marks_wait_for_the_first_in_flight() {
        let directory = tempfile::tempdir().unwrap();
        let place = ExtentPlace {
            io: Arc::new(LocalIo),
            directory: directory.path().to_owned(),
            cluster: ClusterId([1; 16]),
            backend: BackendId([2; 16]),
        };
        let mut allocator = Allocator { active: None, draining: Vec::new(), next_number: 3 };
        let mut learned = Vec::new();
        let mut take = |allocator: &mut Allocator, bytes| {
            let request = Request { bytes, extent_bytes_max: 32_768, step_bytes_max: 8192 };
            let learn = |fresh: Fresh| {
                learned.push(fresh.number);
                Ok(())
            };
            allocator.reserve(&place, request, || ([7; 16], 1), learn).unwrap()
        };
        let (extent, first) = take(&mut allocator, 4096);
        let (_, second) = take(&mut allocator, 16_384);
        assert_eq!((first.offset, second.offset), (4096, 8192));
        let (_, third) = take(&mut allocator, 16_384);
        assert_eq!((third.extent, third.offset), (4, 4096), "the third did not fit");
        extent.settle(&second);
        let (marks, sealed) = allocator.marks();
        assert_eq!(marks[1], Mark { extent: 3, scan_from: 4096, is_sealed: false });
        assert!(sealed.is_empty());
        extent.settle(&first);
        let (marks, sealed) = allocator.marks();
        assert_eq!(marks[1], Mark { extent: 3, scan_from: 24_576, is_sealed: true });
        assert_eq!(sealed.len(), 1);
        assert!(allocator.draining.is_empty());
        sealed[0].trim().unwrap();
        assert_eq!(sealed[0].file.bytes().unwrap(), 24_576);
        assert_eq!(learned, [3, 4]);
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(file_name(12), "00000012.ext");
        for (name, number) in
            [("00000012.ext", Some(12)), ("12.ext", None), ("00000012.ex", None), ("123456789.ext", Some(123_456_789))]
        {
            assert_eq!(number_of(name), number, "{name}");
        }
    }
}
