//! Brings index and extents together when a backend is opened: takes over the index's last flushed state, reads what
//! was written after it, lets complete records be found, and frees what was never finished.
//!
//! A file that is damaged, foreign, cut short or gone is reported by name, and its shards count as missing; it is
//! never changed. Invariant: nothing is cut off or given back below the end of what the index ever pointed to.

use super::engine::Handle;
use super::extent::{Allocator, Extent, ExtentPlace, number_of};
use super::index::{Changes, Entry, Index, IndexError, Owner, Room, Tally};
use super::io::{Through, is_device_error, is_shortage};
use super::layout::{BLOCK_BYTES, EXTENT_HEADER_BYTES, ExtentHeader};
use super::ledger::{Finished, Ledger, LedgerState};
use super::open_error::OpenError;
use super::scan::{Scan, verify_found};
use super::{EXTENTS_NAME, INDEX_NAME};
use holdfast_proto::{BackendId, ShardId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// Entries removed per batch.
const BATCH_MAX: usize = 1000;
/// An index that could not be opened is kept under this name until the next one is.
const DAMAGED_INDEX_NAME: &str = "index.damaged";
/// Says that the index was found damaged while in use, and of which backend; the next open makes it anew.
const CONDEMNED_NAME: &str = "index.condemned";
/// More than any reason; the rest of a longer file is nothing we wrote.
const CONDEMNED_BYTES_MAX: u64 = 4096;

/// What opening found.
pub(crate) struct Recovered {
    pub(crate) ledger: Ledger,
    pub(crate) allocator: Allocator,
    pub(crate) next_sequence: u64,
    /// One line per thing an operator should know.
    pub(crate) findings: Vec<String>,
    /// Why it must not be written to.
    pub(crate) fault: Option<String>,
}

/// Opens index and extents below `directory`.
pub(crate) fn recover(
    directory: &Path,
    place: &ExtentPlace,
    extent_bytes_max: u64,
    now_ms: u64,
) -> Result<Recovered, OpenError> {
    let mut findings = Vec::new();
    let (index, owner) = open_index(directory, place, &mut findings)?;
    let failed = |error: IndexError| OpenError::io(directory, "read index", error);
    let tallies: BTreeMap<u32, Tally> = index.tallies().map_err(failed)?.into_iter().collect();
    let frees = index.frees().map_err(failed)?;
    let names = place.io.names(&place.directory).map_err(|error| OpenError::io(directory, "list extents", error))?;
    let mut recovery = Recovery {
        place,
        ledger: Ledger::new(index, LedgerState { owner, tallies, frees: frees.clone() }),
        frees: frees.into_iter().collect(),
        usable: BTreeMap::new(),
        unreadable: BTreeSet::new(),
        cut_short: BTreeSet::new(),
        next_number: owner.next_extent,
        next_sequence: owner.next_sequence,
        now_ms,
        findings,
        fault: None,
    };
    for name in &names {
        recovery.look_at(name).map_err(|error| OpenError::io(directory, "open extent", error))?;
    }
    recovery.drop_lost().map_err(failed)?;
    let active =
        recovery.take_over(extent_bytes_max).map_err(|error| OpenError::io(directory, "take over extents", error))?;
    Ok(Recovered {
        fault: recovery.fault,
        allocator: Allocator { active, draining: Vec::new(), next_number: recovery.next_number },
        next_sequence: recovery.next_sequence,
        ledger: recovery.ledger,
        findings: recovery.findings,
    })
}

struct Recovery<'a> {
    place: &'a ExtentPlace,
    ledger: Ledger,
    frees: BTreeSet<Room>,
    usable: BTreeMap<u32, Usable>,
    /// Extents the device does not read today. They stay in the index: tomorrow it may.
    unreadable: BTreeSet<u32>,
    /// Extents that lost shards with their end.
    cut_short: BTreeSet<u32>,
    next_number: u32,
    next_sequence: u64,
    now_ms: u64,
    findings: Vec<String>,
    fault: Option<String>,
}

/// An extent that is this backend's. Its file is not kept open: there may be more extents than descriptors.
struct Usable {
    uuid: [u8; 16],
    file_bytes: u64,
}

/// Why an extent is not usable.
enum Refused {
    /// For good, in words.
    Unusable(String),
    /// By the device or for want of permission, this time.
    Unreadable(io::Error),
    /// For want of descriptors or memory: says nothing about the extent.
    Later(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        match error {
            error if is_shortage(&error) => Self::Later(error),
            error if is_device_error(&error) || error.kind() == io::ErrorKind::PermissionDenied => {
                Self::Unreadable(error)
            }
            error => Self::Unusable(error.to_string()),
        }
    }
}

/// What a scan of an extent's tail found.
struct Tail {
    /// Everything before is settled.
    end: u64,
    /// Unfinished room between records.
    gaps: Vec<Room>,
    adopted: u64,
    unreadable_blocks: u64,
}

impl Recovery<'_> {
    fn report(&mut self, finding: String) {
        tracing::warn!(backend = %self.place.backend, finding, "found while opening");
        self.findings.push(finding);
    }

    /// Judges one name in the extents directory.
    fn look_at(&mut self, name: &str) -> io::Result<()> {
        let Some(number) = number_of(name) else {
            self.report(format!("{EXTENTS_NAME}/{name} is not an extent; left alone"));
            return Ok(());
        };
        self.next_number = self.next_number.max(number.saturating_add(1));
        match self.inspect(number) {
            Ok(Some(usable)) => drop(self.usable.insert(number, usable)),
            Ok(None) => {}
            Err(Refused::Later(error)) => return Err(error),
            Err(Refused::Unreadable(error)) => {
                self.report(format!("{EXTENTS_NAME}/{name}: {error}; its shards count as missing"));
                self.unreadable.insert(number);
            }
            Err(Refused::Unusable(reason)) => {
                self.report(format!("{EXTENTS_NAME}/{name}: {reason}; its shards count as missing"));
            }
        }
        Ok(())
    }

    fn inspect(&self, number: u32) -> Result<Option<Usable>, Refused> {
        let path = self.place.path(number);
        let file = self.place.io.open(&path)?;
        let file_bytes = file.bytes()?;
        let mut block = [0u8; EXTENT_HEADER_BYTES as usize];
        let count = file.read(&mut block, 0, Through::Cache)?;
        let tally = self.ledger.tally(number);
        let header = match ExtentHeader::decode(&block[..count]) {
            Ok(header) => header,
            // The crash came between making the file and syncing its header: nothing was ever in it.
            Err(_) if tally.is_none() && file_bytes <= EXTENT_HEADER_BYTES => {
                self.place.io.remove(&path)?;
                return Ok(None);
            }
            Err(reason) => return Err(Refused::Unusable(reason)),
        };
        let foreign = |reason: String| Err(Refused::Unusable(format!("foreign: {reason}")));
        if header.backend != self.place.backend || header.cluster != self.place.cluster {
            return foreign(format!("of backend {} of cluster {}", header.backend, header.cluster));
        }
        if header.number != number {
            return foreign(format!("it is extent {} under another name", header.number));
        }
        if tally.is_some_and(|tally| tally.uuid != header.uuid) {
            return Err(Refused::Unusable("stale: the index knows another extent of this name".to_owned()));
        }
        Ok(Some(Usable { uuid: header.uuid, file_bytes }))
    }

    /// Lets shards whose bytes are not there any more count as missing.
    fn drop_lost(&mut self) -> Result<(), IndexError> {
        let mut kept_bytes = BTreeMap::new();
        for (number, tally) in self.ledger.tallies() {
            match self.usable.get(&number) {
                None => drop(kept_bytes.insert(number, 0)),
                Some(usable) if usable.file_bytes < tally.indexed_end => {
                    kept_bytes.insert(number, usable.file_bytes);
                }
                Some(_) => {}
            }
        }
        if kept_bytes.is_empty() {
            return Ok(());
        }
        let mut lost: BTreeMap<u32, Vec<ShardId>> = BTreeMap::new();
        for item in self.ledger.index().shards(None, None) {
            let (id, entry) = item?;
            if kept_bytes.get(&entry.room.extent).is_some_and(|kept| entry.room.end() > *kept) {
                lost.entry(entry.room.extent).or_default().push(id);
            }
        }
        for (number, ids) in lost {
            self.drop_shards(number, kept_bytes[&number], &ids)?;
        }
        for number in kept_bytes.into_keys() {
            if !self.usable.contains_key(&number) && !self.unreadable.contains(&number) {
                self.ledger.forget_extent(number)?;
            }
        }
        Ok(())
    }

    fn drop_shards(&mut self, number: u32, kept_bytes: u64, ids: &[ShardId]) -> Result<(), IndexError> {
        let is_unreadable = self.unreadable.contains(&number);
        let what = match self.usable.contains_key(&number) {
            true => format!("is cut short, {kept_bytes} bytes are there"),
            false if is_unreadable => "cannot be read".to_owned(),
            false => "is gone or unusable".to_owned(),
        };
        self.report(format!("extent {number} {what}: {} shards count as missing", ids.len()));
        self.cut_short.insert(number);
        ids.chunks(BATCH_MAX).try_for_each(|batch| match is_unreadable {
            true => self.ledger.quarantine(batch),
            false => self.ledger.delete(batch).map(|_| ()),
        })
    }

    /// Reads on where the index's knowledge of each extent ends. Returns the extent to go on writing to.
    fn take_over(&mut self, extent_bytes_max: u64) -> Result<Option<Arc<Extent>>, TailError> {
        let last = self.usable.last_key_value().map(|(number, _)| *number);
        let mut active = None;
        for (number, usable) in std::mem::take(&mut self.usable) {
            if self.ledger.tally(number).is_none() {
                self.ledger.add_extent(number, usable.uuid, EXTENT_HEADER_BYTES)?;
            }
            let tally = self.ledger.tally(number).unwrap_or_default();
            if tally.is_sealed {
                continue;
            }
            let handle = Handle { file: self.place.io.open(&self.place.path(number))?, uuid: usable.uuid };
            let tail = self.read_tail(number, &handle, usable.file_bytes, &tally)?;
            if tail.unreadable_blocks > 0 {
                // What could not be read may be finished records: the next open looks again, nothing is cut off.
                continue;
            }
            // A file may be shorter than the room that was given up at its end: then a crash took what nobody needs.
            let is_intact = !self.cut_short.contains(&number);
            if is_intact {
                self.settle_tail(number, &handle, usable.file_bytes, &tail)?;
            }
            let has_room = tail.end + BLOCK_BYTES < extent_bytes_max;
            if last == Some(number) && is_intact && has_room {
                active = Some(Arc::new(Extent::new(number, handle.uuid, handle.file, tail.end)));
            } else {
                self.ledger.seal(number)?;
            }
        }
        Ok(active)
    }

    fn read_tail(&mut self, number: u32, handle: &Handle, file_bytes: u64, tally: &Tally) -> Result<Tail, TailError> {
        let floor = tally.indexed_end.max(EXTENT_HEADER_BYTES);
        let mut tail = Tail { end: floor, gaps: Vec::new(), adopted: 0, unreadable_blocks: 0 };
        let mut scan = Scan::new(handle, tally.scan_from.max(EXTENT_HEADER_BYTES), file_bytes);
        let mut found: Vec<Finished> = Vec::new();
        while let Some((offset, head)) = scan.next()? {
            let room = Room { extent: number, offset, bytes: head.layout.record_bytes };
            if let Some(entry) = self.indexed(&head.header.id, &room)? {
                // A flush between two checkpoints took it along, but not the counter that was beyond it.
                self.next_sequence = self.next_sequence.max(entry.sequence.saturating_add(1));
                scan.skip_to(room.end());
                continue;
            }
            if self.frees.contains(&room) {
                scan.skip_to(room.end());
                continue;
            }
            if head.header.cluster != self.place.cluster || room.end() > file_bytes {
                continue; // not ours, or its end was never written: no memory is taken for lengths like that
            }
            let entry = match verify_found(handle, number, offset, &head, self.now_ms) {
                Ok(Some(entry)) => entry,
                Ok(None) => continue, // never finished: what lies in its room is looked at block by block
                Err(error) => {
                    self.report(format!("extent {number}: shard {} cannot be read: {error}", head.header.id));
                    tail.unreadable_blocks += 1;
                    continue;
                }
            };
            if offset > tail.end {
                tail.gaps.push(Room { extent: number, offset: tail.end, bytes: offset - tail.end });
            }
            tail.end = tail.end.max(room.end());
            scan.skip_to(room.end());
            self.next_sequence = self.next_sequence.max(entry.sequence.saturating_add(1));
            found.push(Finished { id: head.header.id, entry });
        }
        if scan.unreadable_blocks() > 0 {
            let blocks = scan.unreadable_blocks();
            tail.unreadable_blocks += blocks;
            self.report(format!("extent {number}: {blocks} blocks cannot be read; it takes no more shards"));
        }
        tail.adopted = found.len() as u64;
        // They may be in the page cache only: whoever killed the last process need not have cut the power.
        if !found.is_empty()
            && let Err(error) = handle.file.sync()
        {
            self.fault.get_or_insert(format!("sync of extent {number} failed: {error}"));
        }
        for batch in found.chunks(BATCH_MAX) {
            self.ledger.commit(batch)?;
        }
        Ok(tail)
    }

    fn indexed(&self, id: &ShardId, room: &Room) -> Result<Option<Entry>, IndexError> {
        let entry = self.ledger.index().get(id)?;
        Ok(entry.filter(|entry| entry.room == *room))
    }

    /// Frees what was never finished: between records by the ledger, behind the last by cutting it off.
    fn settle_tail(&mut self, number: u32, handle: &Handle, file_bytes: u64, tail: &Tail) -> Result<(), IndexError> {
        if tail.adopted > 0 {
            tracing::info!(backend = %self.place.backend, extent = number, records = tail.adopted, "records taken over");
        }
        self.ledger.abandon(&tail.gaps)?;
        if file_bytes > tail.end {
            let cut = handle.file.truncate(tail.end).and_then(|()| handle.file.sync());
            if let Err(error) = cut {
                self.fault.get_or_insert(format!("extent {number}: its unfinished end was not cut off: {error}"));
            }
        }
        Ok(())
    }
}

/// Why an extent's tail was not taken over.
#[derive(Debug, thiserror::Error)]
enum TailError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Opens the index, or puts a fresh one in the place of one that is damaged or another backend's.
fn open_index(directory: &Path, place: &ExtentPlace, findings: &mut Vec<String>) -> Result<(Index, Owner), OpenError> {
    let path = directory.join(INDEX_NAME);
    let fresh =
        Owner { cluster: place.cluster, backend: place.backend, next_sequence: 1, next_extent: 1, scrubbed_ms: 0 };
    let reason = match condemned(directory, place.backend) {
        Some(reason) => reason,
        None => match read_index(&path, &fresh) {
            Ok(found) => return Ok(found),
            Err(error) => error.to_string(),
        },
    };
    let failed = |action| move |error: io::Error| OpenError::io(directory, action, error);
    let aside = directory.join(DAMAGED_INDEX_NAME);
    if aside.exists() {
        let removed = if aside.is_dir() { std::fs::remove_dir_all(&aside) } else { std::fs::remove_file(&aside) };
        removed.map_err(failed("remove the index set aside before"))?;
    }
    if path.exists() {
        std::fs::rename(&path, &aside).map_err(failed("set the damaged index aside"))?;
    }
    let finding = format!("{INDEX_NAME} is unusable ({reason}); set aside as {DAMAGED_INDEX_NAME} and made anew");
    tracing::warn!(backend = %place.backend, finding, "found while opening");
    let reason = finding.clone();
    findings.push(finding);
    let made = read_index(&path, &fresh).map_err(|error| {
        // Nothing can be made here now (a full disk, say): the old one is as good as it was.
        let _ = std::fs::remove_dir_all(&path);
        let _ = std::fs::rename(&aside, &path);
        OpenError::io(directory, "make the index anew", format!("{error}, after: {reason}"))
    })?;
    match std::fs::remove_file(directory.join(CONDEMNED_NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove the note on the index")(error)),
        _ => Ok(made),
    }
}

/// Notes that the index was found damaged, for the next open to make it anew. Best effort: without the note it is
/// found damaged again.
pub(crate) fn condemn_index(directory: &Path, backend: BackendId, reason: &str) {
    let write = || {
        let mut file = File::create(directory.join(CONDEMNED_NAME))?;
        file.write_all(format!("{backend}: {reason}").as_bytes())?;
        file.sync_all()
    };
    if let Err(error) = write() {
        tracing::warn!(%backend, %error, "note that the index is damaged");
    }
}

/// Why the index was condemned, if it was, and while this backend had it.
fn condemned(directory: &Path, backend: BackendId) -> Option<String> {
    let mut text = String::new();
    let file = File::open(directory.join(CONDEMNED_NAME)).ok()?;
    file.take(CONDEMNED_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.strip_prefix(&format!("{backend}: ")).map(str::to_owned)
}

/// Opens the index at `path` and reads all that recovery needs of it. A fresh one gets its owner.
fn read_index(path: &Path, expected: &Owner) -> Result<(Index, Owner), IndexError> {
    let index = Index::open(path)?;
    index.tallies()?;
    index.frees()?;
    let owner = match index.owner()? {
        Some(owner) if owner.cluster == expected.cluster && owner.backend == expected.backend => owner,
        Some(owner) => return Err(IndexError::damage(format!("it is of backend {}", owner.backend))),
        None if index.shards(None, None).next().is_some() => return Err(IndexError::damage("it names no owner")),
        None => *expected,
    };
    let mut changes = Changes::default();
    changes.put_owner(&owner);
    index.write(changes)?;
    Ok((index, owner))
}
