//! A range's rows on their way to a peer that is behind the log: read from one view of the state, cut into frames, staged
//! whole at the other end, then put in place of what was there.
//!
//! Memory: a frame or two at the sender, a frame at the receiver, a batch while it is put in place.
//!
//! **Invariant:** a crash leaves either the old rows or, after the next start, the new ones. Staging touches nothing; a
//! durable marker says that installing has begun, and who finds the marker at a start installs again from the staged
//! rows, which is the same from any point.

use super::bounds::{Bounds, KEYED};
use super::keys;
use super::kv::{Batch, Family, KvError, KvResult, KvView, Scan};
use super::state::{decode, has_inline};
use super::state_store::StateStore;
use super::wire::{SnapshotRows, head};
use bytes::Bytes;
use holdfast_proto::BucketId;
use holdfast_proto::manifest::{ObjectVersion, Part, Segment};
use holdfast_transport::Frame;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, oneshot};

/// Bytes of a frame: large enough to keep a link busy, small enough to hold a few.
const FRAME_BYTES: usize = 1 << 20;
/// Frames read ahead of the network.
const FRAMES_AHEAD: usize = 2;
/// Bytes written to the state at once.
const BATCH_BYTES: usize = 1 << 20;
/// A row longer than this is none: the largest record, of an object of 5 TiB, has some 20 MiB.
const ROW_BYTES_MAX: u32 = 256 << 20;

/// A snapshot, as openraft hands it around: rows to be sent, or rows that were received.
pub(super) enum SnapshotSource {
    /// Frames as they are read.
    Reading(Mutex<mpsc::Receiver<Result<Frame, String>>>),
    /// Rows staged here.
    Staged(Staged),
    /// No rows: the state was flushed, and openraft wants no more of it than that.
    Flushed,
}

impl SnapshotSource {
    /// The rows of `group` as they are when this returns.
    pub(super) async fn read(store: &Arc<StateStore>, group: u32) -> KvResult<Self> {
        if let StateStore::Memory(_) = **store {
            let mut frames = Vec::new();
            read_frames(&store.view(), group, &mut |frame| {
                frames.push(frame);
                true
            })?;
            let (sender, receiver) = mpsc::channel(frames.len().max(1));
            for frame in frames {
                sender.try_send(Ok(frame)).map_err(|_| KvError { reason: "queue a frame".to_owned() })?;
            }
            return Ok(Self::Reading(Mutex::new(receiver)));
        }
        let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
        let (viewed, is_viewed) = oneshot::channel();
        let store = store.clone();
        // A task of its own holds the view until the last frame is taken, or nobody wants them any more.
        tokio::task::spawn_blocking(move || {
            let view = store.view();
            let _ = viewed.send(());
            let read = read_frames(&view, group, &mut |frame| sender.blocking_send(Ok(frame)).is_ok());
            if let Err(error) = read {
                let _ = sender.blocking_send(Err(error.to_string()));
            }
        });
        is_viewed.await.map_err(|_| KvError { reason: "open a view for a snapshot".to_owned() })?;
        Ok(Self::Reading(Mutex::new(receiver)))
    }

    /// The next frame to send; `None` after the last.
    pub(super) async fn next_frame(&self) -> Result<Option<Frame>, String> {
        match self {
            Self::Reading(frames) => frames.lock().await.recv().await.transpose(),
            Self::Staged(_) | Self::Flushed => Err("only a snapshot that is read can be sent".to_owned()),
        }
    }
}

/// Cuts a group's rows into frames; `send` says whether more are wanted.
fn read_frames<V: KvView>(view: &V, group: u32, send: &mut dyn FnMut(Frame) -> bool) -> KvResult<()> {
    let mut cutter = Cutter { bytes: Vec::with_capacity(FRAME_BYTES), rows: 0, is_wanted: true, send };
    visit_group(view, group, &mut |family, key, value| cutter.row(family, key, value))?;
    cutter.flush(true);
    Ok(())
}

struct Cutter<'s> {
    bytes: Vec<u8>,
    rows: u64,
    is_wanted: bool,
    send: &'s mut dyn FnMut(Frame) -> bool,
}

impl Cutter<'_> {
    fn row(&mut self, family: Family, key: &[u8], value: &[u8]) -> KvResult<Scan> {
        let length = |bytes: &[u8]| {
            u32::try_from(bytes.len()).map_err(|_| KvError { reason: "a row too long for a snapshot".to_owned() })
        };
        self.bytes.push(family as u8);
        self.bytes.extend_from_slice(&length(key)?.to_be_bytes());
        self.bytes.extend_from_slice(&length(value)?.to_be_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.rows += 1;
        while self.bytes.len() >= FRAME_BYTES && self.is_wanted {
            self.flush(false);
        }
        Ok(if self.is_wanted { Scan::Next } else { Scan::Stop })
    }

    fn flush(&mut self, is_last: bool) {
        let rest = self.bytes.split_off(self.bytes.len().min(FRAME_BYTES));
        let body = Bytes::from(std::mem::replace(&mut self.bytes, rest));
        let rows = SnapshotRows { rows: std::mem::take(&mut self.rows), crc32c: crc32c(&body), is_last };
        self.is_wanted = self.is_wanted && (self.send)(Frame { head: head(&rows), body: vec![body] });
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes)).unwrap_or(u32::MAX)
}

type RowVisitor<'v> = dyn FnMut(Family, &[u8], &[u8]) -> KvResult<Scan> + 'v;

/// Visits every row that belongs to a group but those that only this machine's copy has, its own rows first.
fn visit_group<V: KvView>(view: &V, group: u32, visit: &mut RowVisitor<'_>) -> KvResult<()> {
    let own = keys::group_row(group, "");
    for family in [Family::Groups, Family::Garbage] {
        view.scan(family, &own, &mut |key, value, _| match key.strip_prefix(own.as_slice()) {
            None => Ok(Scan::Stop),
            Some(row) if family == Family::Groups && is_local(row) => Ok(Scan::Next),
            Some(_) => visit(family, key, value),
        })?;
    }
    if group == super::store::ROOT {
        return view.scan(Family::Root, &[], &mut |key, value, _| visit(Family::Root, key, value));
    }
    let bounds = Bounds::load(view, group)?;
    for family in KEYED {
        let (start, end) = bounds.of_family(family);
        view.scan(family, &start, &mut |key, value, _| {
            if !end.is_empty() && key >= end.as_slice() {
                return Ok(Scan::Stop);
            }
            for (family, key) in rows_of(family, key, value)? {
                if let Some(value) = view.get(family, &key)?
                    && visit(family, &key, &value)? == Scan::Stop
                {
                    return Ok(Scan::Stop);
                }
            }
            visit(family, key, value)
        })?;
    }
    Ok(())
}

fn is_local(row: &[u8]) -> bool {
    [keys::APPLIED_ROW, keys::INSTALLING_ROW, keys::REMOVING_ROW].iter().any(|local| row == local.as_bytes())
}

/// The rows of families not ordered by object key that a row refers to: inline bytes and who refers to a segment.
fn rows_of(family: Family, key: &[u8], value: &[u8]) -> KvResult<Vec<(Family, Vec<u8>)>> {
    let bucket = key.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
    let of_segments = |segments: &[Segment]| -> Vec<(Family, Vec<u8>)> {
        segments.iter().map(|s| (Family::Segments, keys::segment(s.segment_id()))).collect()
    };
    if family != Family::Uploads {
        let version: ObjectVersion = decode(family, value)?;
        let mut rows = of_segments(&version.segments);
        if has_inline(&version) {
            rows.push((Family::Inline, keys::inline(BucketId(bucket), version.version_id())));
        }
        return Ok(rows);
    }
    // An upload's own row ends with its id, a part's with four bytes more.
    match keys::split_escaped(key) {
        Some((_, tail)) if tail.len() == 20 => Ok(of_segments(&decode::<Part>(family, value)?.segments)),
        _ => Ok(Vec::new()),
    }
}

/// Where snapshots wait until they are whole.
pub(super) struct Staging {
    /// `None` in a simulation: there they wait in memory.
    directory: Option<PathBuf>,
}

/// A snapshot that is whole.
pub(super) enum Staged {
    Memory(Vec<u8>),
    File(PathBuf),
}

impl Staged {
    /// The bounds of the range whose rows it holds. Blocks: reads up to the row that tells, which is among the first.
    pub(super) fn bounds(&self, group: u32) -> KvResult<Bounds> {
        match self {
            Self::Memory(bytes) => bounds_of_rows(group, &mut bytes.as_slice()),
            Self::File(path) => {
                let file = std::fs::File::open(path).map_err(|e| staging_error(&e))?;
                bounds_of_rows(group, &mut BufReader::with_capacity(FRAME_BYTES, file))
            }
        }
    }

    /// Drops it: it is not wanted.
    pub(super) fn discard(self) {
        if let Self::File(path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bounds_of_rows(group: u32, rows: &mut dyn Read) -> KvResult<Bounds> {
    let range_row = keys::group_row(group, keys::RANGE_ROW);
    while let Some((family, key, value)) = read_row(rows).map_err(|e| staging_error(&e))? {
        if family != Family::Groups {
            break;
        }
        if key == range_row {
            return decode(Family::Groups, &value);
        }
    }
    Ok(Bounds::everything())
}

/// A snapshot that is being received.
pub(super) enum Incoming {
    Memory(Vec<u8>),
    File(PathBuf, std::fs::File),
}

impl Staging {
    pub(super) fn in_memory() -> Self {
        Self { directory: None }
    }

    /// In `directory`, made if absent.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        Ok(Self { directory: Some(directory) })
    }

    /// Room for a snapshot of `group`; what was there of an earlier one is dropped.
    pub(super) fn begin(&self, group: u32) -> io::Result<Incoming> {
        let Some(directory) = &self.directory else { return Ok(Incoming::Memory(Vec::new())) };
        // Two leaders may send at once: each has a file of its own.
        let path = directory.join(format!("{group}-{:016x}.rows", super::runtime::random_number()));
        let file = std::fs::File::create(&path)?;
        Ok(Incoming::File(path, file))
    }

    /// Drops what no marker names.
    pub(super) fn clean(&self) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        for entry in std::fs::read_dir(directory)? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(())
    }
}

impl Incoming {
    /// Takes one frame. Returns whether it was the last.
    pub(super) fn take(&mut self, rows: SnapshotRows, body: &[Bytes]) -> io::Result<bool> {
        let whole = body.concat();
        if crc32c(&whole) != rows.crc32c {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame of a snapshot is damaged"));
        }
        match self {
            Self::Memory(bytes) => bytes.extend_from_slice(&whole),
            Self::File(_, file) => io::Write::write_all(file, &whole)?,
        }
        Ok(rows.is_last)
    }

    /// Makes what was taken durable.
    pub(super) fn finish(self) -> io::Result<Staged> {
        match self {
            Self::Memory(bytes) => Ok(Staged::Memory(bytes)),
            Self::File(path, file) => {
                file.sync_all()?;
                if let Some(directory) = path.parent() {
                    std::fs::File::open(directory)?.sync_all()?;
                }
                Ok(Staged::File(path))
            }
        }
    }

    /// Drops it.
    pub(super) fn abandon(self) {
        if let Self::File(path, _) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What is being installed.
#[derive(serde::Serialize, serde::Deserialize)]
struct Marker {
    file: PathBuf,
    applied: serde_json::Value,
}

/// Puts staged rows in place of a group's. `applied` is the group's row of how far it has applied.
pub(super) fn install(store: &StateStore, group: u32, applied: Vec<u8>, staged: &Staged) -> KvResult<()> {
    let marker_key = keys::group_row(group, keys::INSTALLING_ROW);
    match staged {
        Staged::Memory(bytes) => replace_rows(store, group, &mut bytes.as_slice())?,
        Staged::File(path) => {
            let applied = serde_json::from_slice(&applied).map_err(|e| staging_error(&e))?;
            let marker = serde_json::to_vec(&Marker { file: path.clone(), applied }).map_err(|e| staging_error(&e))?;
            let mut batch = Batch::default();
            batch.put(Family::Groups, marker_key.clone(), marker);
            store.write(batch)?;
            store.flush()?;
            replace_from(store, group, path)?;
        }
    }
    finish_install(store, group, applied)?;
    if let Staged::File(path) = staged {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Installs again what a crash had interrupted. Called before any group runs.
pub(super) fn resume_installs(store: &StateStore) -> KvResult<()> {
    let mut begun = Vec::new();
    store.scan(Family::Groups, &[], &mut |key, value, _| {
        if let Some((number, row)) = key.split_first_chunk::<4>()
            && row == keys::INSTALLING_ROW.as_bytes()
        {
            begun.push((u32::from_be_bytes(*number), value.to_vec()));
        }
        Ok(Scan::Next)
    })?;
    for (group, marker) in begun {
        let marker: Marker = serde_json::from_slice(&marker).map_err(|e| staging_error(&e))?;
        replace_from(store, group, &marker.file)?;
        finish_install(store, group, serde_json::to_vec(&marker.applied).map_err(|e| staging_error(&e))?)?;
        tracing::info!(group, "a snapshot whose installation had been cut short is installed");
    }
    Ok(())
}

fn finish_install(store: &StateStore, group: u32, applied: Vec<u8>) -> KvResult<()> {
    let mut batch = Batch::default();
    batch.put(Family::Groups, keys::group_row(group, keys::APPLIED_ROW), applied);
    batch.delete(Family::Groups, keys::group_row(group, keys::INSTALLING_ROW));
    store.write(batch)?;
    store.flush()
}

fn replace_from(store: &StateStore, group: u32, path: &Path) -> KvResult<()> {
    let file = std::fs::File::open(path).map_err(|e| staging_error(&e))?;
    replace_rows(store, group, &mut BufReader::with_capacity(FRAME_BYTES, file))
}

fn staging_error(error: &dyn std::fmt::Display) -> KvError {
    KvError { reason: format!("staged snapshot: {error}") }
}

fn replace_rows(store: &StateStore, group: u32, rows: &mut dyn Read) -> KvResult<()> {
    clear(store, group)?;
    let mut batch = Batch::default();
    let mut bytes = 0;
    while let Some((family, key, value)) = read_row(rows).map_err(|e| staging_error(&e))? {
        bytes += key.len() + value.len();
        let is_range_row = family == Family::Groups && key == keys::group_row(group, keys::RANGE_ROW);
        batch.put(family, key, value);
        if is_range_row {
            // What a copy that had been removed from here left within the new bounds goes, too.
            store.write(std::mem::take(&mut batch))?;
            clear_keys(store, &Bounds::load(store, group)?)?;
        }
        if bytes >= BATCH_BYTES {
            store.write(std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    store.write(batch)
}

/// Family, key, value.
type Row = (Family, Vec<u8>, Vec<u8>);

fn read_row(rows: &mut dyn Read) -> io::Result<Option<Row>> {
    let mut first = [0; 1];
    if rows.read(&mut first)? == 0 {
        return Ok(None);
    }
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "not a row");
    let family = *Family::ALL.get(usize::from(first[0])).ok_or_else(damaged)?;
    let mut lengths = [0; 8];
    rows.read_exact(&mut lengths)?;
    let [a, b, c, d, e, f, g, h] = lengths;
    let (key_bytes, value_bytes) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    if key_bytes > ROW_BYTES_MAX || value_bytes > ROW_BYTES_MAX {
        return Err(damaged());
    }
    let mut read = |bytes: u32| {
        let mut out = Vec::new();
        let taken = rows.take(u64::from(bytes)).read_to_end(&mut out)?;
        if taken == bytes as usize { Ok(out) } else { Err(damaged()) }
    };
    Ok(Some((family, read(key_bytes)?, read(value_bytes)?)))
}

/// Removes every row of a group but those that `is_local` names.
pub(super) fn clear(store: &StateStore, group: u32) -> KvResult<()> {
    if group == super::store::ROOT {
        delete_where(store, Family::Root, &[], &mut |_| Some(true))?;
    } else if has_bounds(store, group)? {
        clear_keys(store, &Bounds::load(store, group)?)?;
    }
    // The bounds stay until the snapshot's own replace them: without them a crash midway would leave a first range that seems
    // to hold everything, and the next try would clear all ranges of this machine.
    clear_own(store, group, &[keys::APPLIED_ROW, keys::INSTALLING_ROW, keys::RANGE_ROW])
}

/// Removes the rows that are a group's own and no key's, but those named in `kept`.
pub(super) fn clear_own(store: &StateStore, group: u32, kept: &[&str]) -> KvResult<()> {
    let own = keys::group_row(group, "");
    for family in [Family::Garbage, Family::Groups] {
        delete_where(store, family, &own, &mut |key| {
            let row = key.strip_prefix(own.as_slice())?;
            Some(family != Family::Groups || !kept.iter().any(|kept| row == kept.as_bytes()))
        })?;
    }
    Ok(())
}

/// Whether this machine has a copy of the group, so that it records the bounds. The first range needs no row for that.
fn has_bounds(store: &StateStore, group: u32) -> KvResult<bool> {
    let row = if group == super::store::FIRST_RANGE { keys::APPLIED_ROW } else { keys::RANGE_ROW };
    Ok(store.get(Family::Groups, &keys::group_row(group, row))?.is_some())
}

/// Removes all rows within bounds, with what they refer to.
pub(super) fn clear_keys(store: &StateStore, bounds: &Bounds) -> KvResult<()> {
    for family in KEYED {
        let (mut start, end) = bounds.of_family(family);
        loop {
            let mut batch = Batch::default();
            let mut last = Vec::new();
            store.scan(family, &start, &mut |key, value, _| {
                if (!end.is_empty() && key >= end.as_slice()) || batch.writes.len() >= DELETES_MAX {
                    return Ok(Scan::Stop);
                }
                for (family, key) in rows_of(family, key, value)? {
                    batch.delete(family, key);
                }
                batch.delete(family, key.to_vec());
                last = key.to_vec();
                Ok(Scan::Next)
            })?;
            if batch.writes.is_empty() {
                break;
            }
            store.write(batch)?;
            // Not over what was just deleted again.
            start = last;
        }
    }
    Ok(())
}

/// Rows removed at once.
const DELETES_MAX: usize = 4096;

/// Removes rows from `from` on while `wanted` answers, those for which it says so.
fn delete_where(
    store: &StateStore,
    family: Family,
    from: &[u8],
    wanted: &mut dyn FnMut(&[u8]) -> Option<bool>,
) -> KvResult<()> {
    loop {
        let mut batch = Batch::default();
        store.scan(family, from, &mut |key, _, _| match wanted(key) {
            None => Ok(Scan::Stop),
            Some(_) if batch.writes.len() >= DELETES_MAX => Ok(Scan::Stop),
            Some(is_wanted) => {
                if is_wanted {
                    batch.delete(family, key.to_vec());
                }
                Ok(Scan::Next)
            }
        })?;
        if batch.writes.is_empty() {
            return Ok(());
        }
        store.write(batch)?;
    }
}
