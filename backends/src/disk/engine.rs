//! The engine of a disk backend: index, extents and threads of one open directory, and what they share. The threads
//! are its owners; callers reach it through the gate.
//!
//! Lock order: allocator before an extent's cursor; the ledger's lock is taken alone.

use super::commit::Commit;
use super::extent::{Abandoned, Allocator, ExtentPlace, Request, Reservation};
use super::gate::Gate;
use super::identity::Identity;
use super::index::IndexError;
use super::io::{ExtentFile, Through, is_shortage};
use super::layout::{EXTENT_HEADER_BYTES, ExtentHeader};
use super::ledger::Ledger;
use super::meters::Meters;
use super::options::DiskOptions;
use super::queue::Queue;
use super::recovery;
use super::upkeep::UpkeepState;
use super::{EXTENTS_NAME, INDEX_NAME};
use holdfast_proto::node::{BackendHealth, BackendStatus, ShardError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Everything one open backend directory needs.
pub(crate) struct Engine {
    pub(crate) identity: Identity,
    pub(crate) directory: PathBuf,
    pub(crate) options: DiskOptions,
    pub(crate) gate: Arc<Gate>,
    pub(crate) ledger: Ledger,
    pub(crate) place: ExtentPlace,
    pub(crate) allocator: Mutex<Allocator>,
    pub(crate) handles: Handles,
    pub(crate) commits: Queue<Commit>,
    pub(crate) abandoned: Arc<Queue<Abandoned>>,
    pub(crate) meters: Meters,
    pub(crate) upkeep: UpkeepState,
    /// Order number of the next finished record.
    pub(crate) sequence: AtomicU64,
    /// Syncs of extents so far.
    pub(crate) syncs: AtomicU64,
    /// Bytes indexed since the last checkpoint.
    pub(crate) unsettled_bytes: AtomicU64,
    pub(crate) anchors: Anchors,
    /// Held as long as the engine lives.
    pub(crate) _lock: OwnedFd,
}

impl Engine {
    /// Takes room for a record. Fails cleanly when the file system or the reserve is reached.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<Arc<Reservation>, ShardError> {
        let space = self.gate.space()?;
        let spare_bytes = space.free_bytes.saturating_sub(self.gate.room.reserve_bytes(&space));
        let mut allocator = self.allocator.lock();
        if spare_bytes.saturating_add(allocator.slack_bytes()) < bytes {
            return Err(self.gate.full(&space));
        }
        let request = Request { bytes, extent_bytes_max: self.options.extent_bytes_max, step_bytes_max: spare_bytes };
        let fresh = || (rand::random(), now_ms());
        let reserved = allocator.reserve(&self.place, request, fresh, |fresh| {
            self.ledger.add_extent(fresh.number, fresh.uuid, EXTENT_HEADER_BYTES).map_err(io::Error::other)
        });
        let slack_bytes = allocator.slack_bytes();
        drop(allocator);
        self.gate.room.slack_bytes.store(slack_bytes, Ordering::Relaxed);
        let (extent, room) = reserved.map_err(|error| self.write_failed("make room in an extent", &error))?;
        Ok(Arc::new(Reservation::new(extent, room, self.abandoned.clone())))
    }

    /// The file of an extent and its id, for reading.
    pub(crate) fn handle(&self, number: u32) -> io::Result<Arc<Handle>> {
        if let Some(handle) = self.handles.get(number) {
            return Ok(handle);
        }
        let file = self.place.io.open(&self.place.path(number))?;
        let mut block = [0u8; EXTENT_HEADER_BYTES as usize];
        let count = file.read(&mut block, 0, Through::Cache)?;
        let header = ExtentHeader::decode(&block[..count]).map_err(io::Error::other)?;
        let handle = Arc::new(Handle { file, uuid: header.uuid });
        self.handles.put(number, handle.clone());
        Ok(handle)
    }

    /// What a failed write of extent data means: no room is a refusal, anything else ends writing to this backend,
    /// because what reached the disk is unknown from here on.
    pub(crate) fn write_failed(&self, action: &str, error: &io::Error) -> ShardError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => match self.gate.space() {
                Ok(space) => self.gate.full(&space),
                Err(error) => error,
            },
            // The record is not written; what is on the disk is as it was.
            _ if is_shortage(error) => self.gate.io_error(action, error),
            io::ErrorKind::NotFound => {
                self.probe();
                self.gate.fault.raise(BackendHealth::Failed, "its extents directory is gone");
                self.gate.io_error(action, error)
            }
            _ => {
                self.meters.write_errors.increment(1);
                self.gate.fault.raise(BackendHealth::ReadOnly, &format!("{action}: {error}"));
                self.gate.io_error(action, error)
            }
        }
    }

    /// An index that refuses changes can no longer be trusted to be a prefix of them: writing ends.
    pub(crate) fn index_failed(&self, action: &str, error: &IndexError) -> ShardError {
        if !error.is_damage {
            self.gate.fault.raise(BackendHealth::ReadOnly, &format!("{action}: {error}"));
        }
        self.index_unreadable(action, error)
    }

    /// An index that is damaged ends the use of this backend: the next open makes it anew from the extents.
    pub(crate) fn index_unreadable(&self, action: &str, error: &IndexError) -> ShardError {
        if error.is_damage {
            self.probe(); // the files of another backend in this one's place are no damage
            if self.gate.fault.check_read().is_ok() {
                recovery::condemn_index(&self.directory, self.identity.id, &error.reason);
                self.gate.fault.raise(BackendHealth::Failed, &format!("{action}: {error}; it is to be made anew"));
            }
        }
        self.gate.io_error(action, error)
    }

    /// Looks whether the directory still is the backend that was opened.
    pub(crate) fn probe(&self) {
        let fault = &self.gate.fault;
        match Identity::expect(&self.directory, self.identity.cluster, self.identity.id) {
            Ok(_) => {}
            Err(super::open_error::OpenError::Io { action, reason, .. }) => {
                self.anchors.note_failed_probe(|| fault.raise(BackendHealth::Failed, &format!("{action}: {reason}")));
                return;
            }
            Err(error) => return fault.raise(error.health(), &error.to_string()),
        }
        if let Err(reason) = self.anchors.check() {
            fault.raise(BackendHealth::Missing, &reason);
        }
    }

    pub(crate) fn status(&self) -> BackendStatus {
        self.probe();
        let space = self.gate.space();
        let (health, reason) = match (self.gate.fault.get(), &space) {
            (Some((health, reason)), _) => (health, reason),
            (None, Err(error)) => (BackendHealth::Failed, error.to_string()),
            (None, Ok(space)) if space.free_bytes < self.gate.room.reserve_bytes(space) => {
                (BackendHealth::ReadOnly, self.gate.full(space).to_string())
            }
            (None, Ok(_)) => (BackendHealth::Online, String::new()),
        };
        let totals = self.ledger.totals();
        self.meters.shards.set(totals.live_records as f64);
        self.meters.used_bytes.set(totals.live_bytes as f64);
        BackendStatus {
            id: self.identity.id,
            name: self.identity.name.clone(),
            location: location(&self.directory),
            health,
            reason,
            capacity_bytes: space.as_ref().map_or(0, |space| space.capacity_bytes),
            free_bytes: space.as_ref().map_or(0, |space| space.free_bytes),
            used_bytes: totals.live_bytes,
            shard_count: totals.live_records,
            scrubbed_ms: self.ledger.owner().scrubbed_ms,
        }
    }
}

/// An extent file open for reading.
pub(crate) struct Handle {
    pub(crate) file: Arc<dyn ExtentFile>,
    pub(crate) uuid: [u8; 16],
}

/// The extents read last stay open.
#[derive(Default)]
pub(crate) struct Handles {
    open: Mutex<HashMap<u32, (u64, Arc<Handle>)>>,
    clock: AtomicU64,
}

impl Handles {
    /// Two descriptors each; 32 GiB of shards then read without an open, and six backends stay below the usual
    /// limit of 1024 descriptors.
    const HANDLES_MAX: usize = 32;

    fn get(&self, number: u32) -> Option<Arc<Handle>> {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        self.open.lock().get_mut(&number).map(|(used, handle)| {
            *used = now;
            handle.clone()
        })
    }

    fn put(&self, number: u32, handle: Arc<Handle>) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock();
        open.insert(number, (now, handle));
        if open.len() > Self::HANDLES_MAX {
            let oldest = open.iter().min_by_key(|(_, (used, _))| *used).map(|(number, _)| *number);
            oldest.map(|number| open.remove(&number));
        }
    }

    pub(crate) fn forget(&self, number: u32) {
        self.open.lock().remove(&number);
    }
}

/// Which directories were opened, so that others put in their place are noticed.
pub(crate) struct Anchors {
    anchors: Vec<Anchor>,
    failed_probes: AtomicU32,
}

struct Anchor {
    path: PathBuf,
    inode: (u64, u64),
    /// Open, so that the number cannot be given to a directory made after this one was removed.
    _pin: File,
}

impl Anchors {
    /// A probe may fail for want of descriptors or memory; that many in a row are the disk's fault.
    const FAILED_PROBES_MAX: u32 = 3;

    pub(crate) fn take(directory: &Path) -> io::Result<Self> {
        let anchors = [directory.join(EXTENTS_NAME), directory.join(INDEX_NAME), directory.to_owned()]
            .into_iter()
            .map(|path| {
                let pin = File::open(&path)?;
                let metadata = pin.metadata()?;
                Ok(Anchor { path, inode: (metadata.dev(), metadata.ino()), _pin: pin })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { anchors, failed_probes: AtomicU32::new(0) })
    }

    fn check(&self) -> Result<(), String> {
        self.failed_probes.store(0, Ordering::Relaxed);
        self.anchors.iter().try_for_each(Anchor::check)
    }

    /// Whether the extents still lie where they were opened. Cheap: asked after every sync.
    pub(crate) fn check_extents(&self) -> Result<(), String> {
        self.anchors.first().map_or(Ok(()), Anchor::check)
    }

    fn note_failed_probe(&self, give_up: impl FnOnce()) {
        if self.failed_probes.fetch_add(1, Ordering::Relaxed) + 1 >= Self::FAILED_PROBES_MAX {
            give_up();
        }
    }
}

impl Anchor {
    fn check(&self) -> Result<(), String> {
        match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.inode => Ok(()),
            Ok(_) => Err(format!("{} was replaced while open", self.path.display())),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(format!("{} is gone", self.path.display()))
            }
            Err(_) => Ok(()), // says nothing about the directory
        }
    }
}

/// How a backend's place is written in settings.
pub(crate) fn location(directory: &Path) -> String {
    format!("disk:{}", directory.display())
}

/// Milliseconds since 1970 by the system's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
