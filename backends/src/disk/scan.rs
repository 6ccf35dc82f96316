//! Walks an extent from block to block and finds what begins a record of it. Skips holes.
//!
//! It does not judge whether a record is complete. Invariant: it makes progress past anything it is shown.

use super::engine::Handle;
use super::index::Entry;
use super::index::Room;
use super::io::Through;
use super::layout::{BLOCK_BYTES, HEAD_BYTES, RecordHead, Trailer};
use super::read::{Fetched, Record, RecordFault, fetch};
use std::io;

/// Read at a time: a direct read of this size reaches the disk's speed.
const WINDOW_BYTES: u64 = 512 * 1024;

/// A walk over the blocks of an extent.
pub(crate) struct Scan<'a> {
    handle: &'a Handle,
    at: u64,
    end: u64,
    window: Option<(u64, Fetched)>,
    unreadable_blocks: u64,
}

impl<'a> Scan<'a> {
    /// Looks at the blocks in `from..end`.
    pub(crate) fn new(handle: &'a Handle, from: u64, end: u64) -> Self {
        Self { handle, at: from.next_multiple_of(BLOCK_BYTES), end, window: None, unreadable_blocks: 0 }
    }

    /// The next record head and where it is.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, RecordHead)>> {
        while self.at < self.end {
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let (at, found) = block;
            self.at = at + BLOCK_BYTES;
            if found.is_some() {
                return Ok(found.map(|head| (at, head)));
            }
        }
        Ok(None)
    }

    /// Goes on at `offset`, if that is further.
    pub(crate) fn skip_to(&mut self, offset: u64) {
        self.at = self.at.max(offset);
    }

    /// How many blocks the device refused to read.
    pub(crate) fn unreadable_blocks(&self) -> u64 {
        self.unreadable_blocks
    }

    /// Bytes from the cursor on: a window, or where that is refused one block, or where that is refused nothing.
    fn read_window(&mut self, length: u64) -> Fetched {
        let fetch = |length| fetch(self.handle, self.at, 0..length, Through::Device);
        fetch(length).or_else(|_| fetch(BLOCK_BYTES)).unwrap_or_else(|_| {
            self.unreadable_blocks += 1;
            Fetched::zeros()
        })
    }

    /// The block at the cursor, or the next that is not in a hole, with the head that begins there, if one does.
    fn block(&mut self) -> io::Result<Option<(u64, Option<RecordHead>)>> {
        let is_inside = |(begin, window): &(u64, Fetched), at: u64| at >= *begin && at < begin + window.len() as u64;
        if !self.window.as_ref().is_some_and(|window| is_inside(window, self.at)) {
            let Some(data) = self.handle.file.next_data(self.at)? else {
                return Ok(None);
            };
            self.at = self.at.max(data - data % BLOCK_BYTES);
            if self.at >= self.end {
                return Ok(None);
            }
            let length = WINDOW_BYTES.min((self.end - self.at).next_multiple_of(BLOCK_BYTES));
            self.window = Some((self.at, self.read_window(length)));
        }
        let Some((begin, window)) = &self.window else {
            return Ok(None);
        };
        let inside = usize::try_from(self.at - begin).map_err(io::Error::other)?;
        let block = &window[inside..window.len().min(inside + HEAD_BYTES)];
        let head = RecordHead::may_begin(block, &self.handle.uuid)
            .then(|| RecordHead::decode(block, &self.handle.uuid, self.at).ok())
            .flatten();
        Ok(Some((self.at, head)))
    }
}

/// Reads the record whose head was found and says what the index would hold of it; `None` if it is not complete or
/// not sound to the last cell.
pub(crate) fn verify_found(
    handle: &Handle,
    number: u32,
    offset: u64,
    head: &RecordHead,
    now_ms: u64,
) -> io::Result<Option<Entry>> {
    let layout = head.layout;
    let range = layout.trailer_offset..layout.trailer_offset + layout.trailer_bytes;
    let bytes = fetch(handle, offset, range, Through::Device)?;
    let Ok(trailer) = Trailer::decode(&bytes, layout.cell_count, offset) else {
        return Ok(None);
    };
    let entry = Entry {
        room: Room { extent: number, offset, bytes: layout.record_bytes },
        data_offset: layout.data_offset,
        shard_bytes: head.header.shard_bytes,
        cell_bytes: head.header.cell_bytes,
        root: trailer.root,
        created_ms: head.header.created_ms,
        verified_ms: now_ms,
        sequence: trailer.sequence,
        is_quarantined: false,
    };
    let record = Record { handle, entry: &entry, shard: head.header.id, through: Through::Device };
    match record.read(0..layout.cell_count) {
        Ok(read) if read.damaged.is_empty() => Ok(Some(entry)),
        Ok(_) | Err(RecordFault::Damaged(_) | RecordFault::Gone) => Ok(None),
        Err(RecordFault::Io(error)) => Err(error),
    }
}
