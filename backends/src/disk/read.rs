//! Reads and verifies one record: its head against the shard asked for, its hashes against the root in the index,
//! its cells against the hashes.
//!
//! Invariant: no byte leaves that was not verified in the same call. What looks damaged is looked at again, around
//! the page cache and after a second look into the index, before it is called so: room may be given back while a
//! reader is on its way to it.

use super::buffers;
use super::engine::{Engine, Handle};
use super::index::Entry;
use super::io::{Through, is_device_error};
use super::layout::{BLOCK_BYTES, HEAD_BYTES, RecordHead, RecordLayout, Trailer};
use bytes::Bytes;
use holdfast_proto::ShardId;
use holdfast_proto::cell_buffer::CellBuffer;
use holdfast_proto::node::{ShardError, ShardRead};
use holdfast_proto::shard_header::ShardHeader;
use std::io;
use std::ops::Range;

/// Records up to this size are read whole in one call, even if fewer cells are asked for: 128 KiB cost about as much
/// as the two further calls would.
const WHOLE_READ_BYTES: u64 = 128 * 1024;
/// A shard that moves (superseded, compacted) under a reader is looked up again; thrice in a row is no accident.
const LOOK_UPS_MAX: usize = 4;

/// What a reader asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadRequest {
    pub(crate) shard: ShardId,
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) expected_root: Option<[u8; 32]>,
}

/// Why a record cannot be handed out.
#[derive(Debug)]
pub(crate) enum RecordFault {
    /// Its bytes do not hold.
    Damaged(String),
    /// Its extent file is not there.
    Gone,
    /// The device or the file system refused.
    Io(io::Error),
}

impl Engine {
    /// Reads cells for a caller. Damage found is quarantined.
    pub(crate) fn read(&self, request: ReadRequest) -> Result<ShardRead, ShardError> {
        self.gate.fault.check_read()?;
        let mut through = Through::Cache;
        let mut entry = self.look_up(request.shard)?;
        for _ in 0..LOOK_UPS_MAX {
            let cells = self.cell_range(&entry, &request)?;
            let result = self.read_record(request.shard, &entry, cells, through);
            if let Ok(read) = &result
                && read.damaged.is_empty()
            {
                self.meters.read_bytes.increment(read.bytes.len() as u64);
                return result.map_err(|_| self.gate.closed());
            }
            let now = self.look_up(request.shard)?;
            if now.room != entry.room {
                entry = now;
            } else if through == Through::Cache {
                through = Through::Device;
            } else {
                return self.report(request.shard, &entry, result);
            }
        }
        Err(ShardError::Busy { backend: self.identity.id, queued: LOOK_UPS_MAX })
    }

    /// Reads and verifies the cells of a record where the index says it is.
    pub(crate) fn read_record(
        &self,
        shard: ShardId,
        entry: &Entry,
        cells: Range<u32>,
        through: Through,
    ) -> Result<ShardRead, RecordFault> {
        let result = match self.handle(entry.room.extent) {
            Ok(handle) => Record { handle: &handle, entry, shard, through }.read(cells),
            Err(error) => Err(open_fault(error)),
        };
        match &result {
            Err(RecordFault::Gone) => self.probe(),
            Err(RecordFault::Io(error)) if is_device_error(error) => self.gate.fault.note_read_failure(error),
            Err(RecordFault::Io(_)) => {}
            _ => self.gate.fault.note_read_success(),
        }
        result
    }

    /// What the index says of the shard.
    pub(crate) fn entry(&self, shard: ShardId) -> Result<Option<Entry>, ShardError> {
        self.ledger.index().get(&shard).map_err(|error| self.index_unreadable("look up shard", &error))
    }

    fn look_up(&self, shard: ShardId) -> Result<Entry, ShardError> {
        let entry = self.entry(shard)?;
        entry.ok_or(ShardError::NotFound { shard, backend: self.identity.id })
    }

    fn cell_range(&self, entry: &Entry, request: &ReadRequest) -> Result<Range<u32>, ShardError> {
        let cell_count = entry.cell_count();
        let end = request.first.checked_add(request.count).filter(|&end| end <= cell_count);
        let Some(end) = end else {
            let (first, count) = (request.first, request.count);
            return Err(ShardError::Invalid { reason: format!("{count} cells from {first} of {cell_count}") });
        };
        if request.expected_root.is_some_and(|root| root != entry.root) {
            let reason = "its root is not the one expected".to_owned();
            return Err(ShardError::Damaged { shard: request.shard, backend: self.identity.id, reason });
        }
        Ok(request.first..end)
    }

    /// Damage that stood a second look.
    fn report(
        &self,
        shard: ShardId,
        entry: &Entry,
        result: Result<ShardRead, RecordFault>,
    ) -> Result<ShardRead, ShardError> {
        self.gate.fault.check_read()?;
        if is_lasting(&result) {
            self.quarantine(shard, entry);
        }
        match result {
            Ok(read) => {
                self.meters.damaged_cells.increment(read.damaged.len() as u64);
                Ok(read)
            }
            Err(RecordFault::Damaged(reason)) => Err(ShardError::Damaged { shard, backend: self.identity.id, reason }),
            Err(RecordFault::Gone) => {
                let reason = "its extent file is gone".to_owned();
                Err(ShardError::Damaged { shard, backend: self.identity.id, reason })
            }
            Err(RecordFault::Io(error)) => Err(self.gate.io_error("read shard", error)),
        }
    }

    /// Lets the shard count as missing until it is written again.
    pub(crate) fn quarantine(&self, shard: ShardId, entry: &Entry) {
        if entry.is_quarantined || !self.gate.fault.is_none() {
            return;
        }
        self.meters.damaged_shards.increment(1);
        tracing::warn!(backend = %self.identity.id, %shard, "shard is damaged; quarantined");
        if let Err(error) = self.ledger.update(shard, entry, |entry| entry.is_quarantined = true) {
            self.index_failed("quarantine shard", &error);
        }
    }
}

/// One record to be read.
pub(crate) struct Record<'a> {
    pub(crate) handle: &'a Handle,
    pub(crate) entry: &'a Entry,
    pub(crate) shard: ShardId,
    pub(crate) through: Through,
}

impl Record<'_> {
    pub(crate) fn read(&self, cells: Range<u32>) -> Result<ShardRead, RecordFault> {
        let layout = self.layout()?;
        let wanted = self.bytes_of(&cells);
        let end = layout.trailer_offset + layout.trailer_bytes;
        if self.entry.room.bytes <= WHOLE_READ_BYTES || wanted.end - wanted.start >= end / 2 {
            match self.fetch(0..end) {
                Ok(whole) => return self.verify_whole(&layout, whole, cells, wanted),
                Err(RecordFault::Io(_)) => {} // the pieces may still be readable one by one
                Err(fault) => return Err(fault),
            }
        }
        let header = self.verify_head(&layout, &self.fetch(0..HEAD_BYTES as u64)?)?;
        let trailer = self.verify_trailer(&layout, &self.fetch(layout.trailer_offset..end)?)?;
        match self.fetch(wanted.clone()) {
            Ok(mut found) => {
                let damaged = self.verify_cells(&trailer, cells, &mut found);
                Ok(ShardRead { header, bytes: found.freeze(), damaged, cell_hashes: trailer.hashes })
            }
            Err(RecordFault::Io(_)) => self.read_cell_by_cell(header, trailer, cells),
            Err(fault) => Err(fault),
        }
    }

    /// For a device that refuses some sectors: whatever cell can be read is.
    fn read_cell_by_cell(
        &self,
        header: ShardHeader,
        trailer: Trailer,
        cells: Range<u32>,
    ) -> Result<ShardRead, RecordFault> {
        let all = self.bytes_of(&cells);
        let mut out = vec![0u8; length(&all)?];
        let mut damaged = Vec::new();
        let mut refused = None;
        for cell in cells.clone() {
            let span = self.bytes_of(&(cell..cell + 1));
            let target = length(&(all.start..span.start))?..length(&(all.start..span.end))?;
            match self.fetch(span) {
                Ok(mut found) => {
                    damaged.extend(self.verify_cells(&trailer, cell..cell + 1, &mut found));
                    out[target].copy_from_slice(&found);
                }
                Err(RecordFault::Io(error)) => {
                    damaged.push(cell);
                    refused = Some(error);
                }
                Err(fault) => return Err(fault),
            }
        }
        match refused {
            Some(error) if damaged.len() == cells.len() => Err(RecordFault::Io(error)),
            _ => Ok(ShardRead { header, bytes: Bytes::from(out), damaged, cell_hashes: trailer.hashes }),
        }
    }

    fn verify_whole(
        &self,
        layout: &RecordLayout,
        mut whole: Fetched,
        cells: Range<u32>,
        wanted: Range<u64>,
    ) -> Result<ShardRead, RecordFault> {
        let header = self.verify_head(layout, &whole)?;
        let trailer = self.verify_trailer(layout, &whole[length(&(0..layout.trailer_offset))?..])?;
        whole.narrow(length(&(0..wanted.start))?..length(&(0..wanted.end))?);
        let damaged = self.verify_cells(&trailer, cells, &mut whole);
        Ok(ShardRead { header, bytes: whole.freeze(), damaged, cell_hashes: trailer.hashes })
    }

    fn layout(&self) -> Result<RecordLayout, RecordFault> {
        let entry = self.entry;
        let cell_count = entry.cell_count();
        let trailer_offset = entry.data_offset.saturating_add(entry.shard_bytes);
        let trailer_bytes = RecordLayout::trailer_bytes(cell_count);
        let layout = RecordLayout {
            cell_count,
            data_offset: entry.data_offset,
            trailer_offset,
            trailer_bytes,
            record_bytes: entry.room.bytes,
        };
        if trailer_offset.saturating_add(trailer_bytes) > entry.room.bytes || entry.room.bytes > RECORD_BYTES_MAX {
            return Err(RecordFault::Damaged("its index entry has impossible lengths".to_owned()));
        }
        Ok(layout)
    }

    fn verify_head(&self, layout: &RecordLayout, bytes: &[u8]) -> Result<ShardHeader, RecordFault> {
        let head =
            RecordHead::decode(bytes, &self.handle.uuid, self.entry.room.offset).map_err(RecordFault::Damaged)?;
        if head.header.id != self.shard {
            return Err(RecordFault::Damaged(format!("the record there is of shard {}", head.header.id)));
        }
        if head.layout != *layout || head.header.cell_bytes != self.entry.cell_bytes {
            return Err(RecordFault::Damaged("record and index disagree on lengths".to_owned()));
        }
        Ok(head.header)
    }

    fn verify_trailer(&self, layout: &RecordLayout, bytes: &[u8]) -> Result<Trailer, RecordFault> {
        let trailer =
            Trailer::decode(bytes, layout.cell_count, self.entry.room.offset).map_err(RecordFault::Damaged)?;
        if trailer.root != self.entry.root {
            return Err(RecordFault::Damaged("its root is not the one in the index".to_owned()));
        }
        Ok(trailer)
    }

    /// Zeros the cells that fail their hash and names them.
    fn verify_cells(&self, trailer: &Trailer, cells: Range<u32>, bytes: &mut [u8]) -> Vec<u32> {
        let cell_bytes = self.entry.cell_bytes.max(1) as usize;
        let mut damaged = Vec::new();
        for (cell, bytes) in cells.zip(bytes.chunks_mut(cell_bytes)) {
            if *blake3::hash(bytes).as_bytes() != trailer.hashes[cell as usize] {
                bytes.fill(0);
                damaged.push(cell);
            }
        }
        damaged
    }

    /// Where the cells lie in the record.
    fn bytes_of(&self, cells: &Range<u32>) -> Range<u64> {
        let at = |cell: u32| (u64::from(cell) * u64::from(self.entry.cell_bytes)).min(self.entry.shard_bytes);
        self.entry.data_offset + at(cells.start)..self.entry.data_offset + at(cells.end)
    }

    /// Reads a range of the record. What lies past the file's end reads as zeros, and then fails its check.
    fn fetch(&self, range: Range<u64>) -> Result<Fetched, RecordFault> {
        fetch(self.handle, self.entry.room.offset, range, self.through).map_err(RecordFault::Io)
    }
}

/// Longest record there can be: a guard against lengths from a damaged index, before memory is taken.
const RECORD_BYTES_MAX: u64 = 8 << 30;

/// Reads `range` counted from `base`, widened to blocks where the device asks for it.
pub(crate) fn fetch(handle: &Handle, base: u64, range: Range<u64>, through: Through) -> io::Result<Fetched> {
    let (begin, end) = match through {
        Through::Cache => (range.start, range.end),
        Through::Device => (range.start - range.start % BLOCK_BYTES, range.end.next_multiple_of(BLOCK_BYTES)),
    };
    let bytes = usize::try_from(end - begin).map_err(io::Error::other)?;
    let mut buffer = buffers::take(bytes);
    let count = handle.file.read(&mut buffer, base + begin, through)?;
    buffer[count..].fill(0);
    let skip = usize::try_from(range.start - begin).map_err(io::Error::other)?;
    let wanted = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    Ok(Fetched { buffer, range: skip..skip + wanted })
}

/// Bytes in a buffer that may hold more around them.
pub(crate) struct Fetched {
    buffer: CellBuffer,
    range: Range<usize>,
}

impl Fetched {
    /// A block of zeros.
    pub(crate) fn zeros() -> Self {
        Self { buffer: CellBuffer::new(BLOCK_BYTES as usize), range: 0..BLOCK_BYTES as usize }
    }

    fn narrow(&mut self, to: Range<usize>) {
        self.range = self.range.start + to.start..self.range.start + to.end;
    }

    pub(crate) fn freeze(self) -> Bytes {
        self.buffer.freeze().slice(self.range)
    }
}

impl std::ops::Deref for Fetched {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}
impl std::ops::DerefMut for Fetched {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.range.clone()]
    }
}

fn length(range: &Range<u64>) -> Result<usize, RecordFault> {
    usize::try_from(range.end - range.start).map_err(|error| RecordFault::Io(io::Error::other(error)))
}

fn open_fault(error: io::Error) -> RecordFault {
    match error.kind() {
        io::ErrorKind::NotFound => RecordFault::Gone,
        io::ErrorKind::Other => RecordFault::Damaged(format!("its extent: {error}")),
        _ => RecordFault::Io(error),
    }
}

/// Whether what went wrong will go wrong again: not so for want of descriptors or memory.
pub(crate) fn is_lasting(result: &Result<ShardRead, RecordFault>) -> bool {
    match result {
        Ok(read) => !read.damaged.is_empty(),
        Err(RecordFault::Io(error)) => is_device_error(error),
        Err(RecordFault::Damaged(_) | RecordFault::Gone) => true,
    }
}
