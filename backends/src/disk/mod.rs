//! The disk backend: a directory of append-only extents with an index beside them (docs/formats.md, "Backend
//! directory").
//!
//! ```text
//! identity.json   who it is                  LOCK     one opener at a time
//! extents/        the shards, NNNNNNNN.ext   index/   where each lies; made anew from the extents if lost
//! index.condemned says that it is to be made anew         index.damaged   the one before, set aside
//! ```
//!
//! A shard is written to an extent by the IO threads, made durable by the committing thread, one sync for all that
//! wait, and only then indexed and acknowledged. The index has no log of its own: what it lost in a crash is read
//! again from the extents.
//!
//! Invariant: an acknowledged shard is on stable storage and found again after any crash; nothing unfinished ever is.

mod buffers;
mod commit;
#[cfg(test)]
mod crash_tests;
mod engine;
mod extent;
mod gate;
mod health;
mod identity;
mod index;
mod io;
mod layout;
mod ledger;
mod meters;
#[cfg(test)]
mod model_tests;
mod open_error;
mod options;
mod queue;
mod read;
mod recovery;
mod scan;
mod scrub;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
mod upkeep;
mod writer;

pub use identity::Identity;
pub use open_error::{FormatError, OpenError};
pub use options::{DiskOptions, Upkeep};

use crate::backend::Backend;
use async_trait::async_trait;
use engine::{Anchors, Engine, Handles, location, now_ms};
use extent::ExtentPlace;
use gate::{Gate, Lane, Limits, RoomGuard};
use holdfast_proto::node::{BackendHealth, BackendStatus, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, ClusterId, PgId, ShardId};
use io::{DiskIo, LocalIo};
use layout::{EXTENT_HEADER_BYTES, RecordLayout};
use parking_lot::Mutex;
use queue::Queue;
use read::ReadRequest;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

pub(crate) const EXTENTS_NAME: &str = "extents";
pub(crate) const INDEX_NAME: &str = "index";
/// Smaller extents would be all headers and slack.
const EXTENT_BYTES_MIN: u64 = 1024 * 1024;
/// Shards looked at per listing, whatever limit is asked for: they are collected in memory.
const LIST_MAX: usize = 10_000;

/// A directory that keeps shards. Cheap to share behind an `Arc`; dropping the last one closes it, blocking.
pub struct DiskBackend {
    gate: Arc<Gate>,
    identity: Identity,
    directory: PathBuf,
    findings: Vec<String>,
    running: Arc<Mutex<Option<Running>>>,
}

/// The threads and what they work on.
struct Running {
    engine: Arc<Engine>,
    io_threads: Vec<JoinHandle<()>>,
    commit_thread: JoinHandle<()>,
    upkeep_thread: Option<JoinHandle<()>>,
}

impl DiskBackend {
    /// Makes `directory` (absent, or empty but for `lost+found`) a new backend. Durable on return.
    pub fn format(directory: &Path, cluster: ClusterId, id: BackendId, name: &str) -> Result<Identity, FormatError> {
        let identity = Identity { cluster, id, name: name.to_owned(), created_ms: now_ms() };
        identity.write(directory)?;
        Ok(identity)
    }

    /// Who the backend in `directory` is, opened or not.
    pub fn identify(directory: &Path) -> Result<Identity, OpenError> {
        Identity::read(directory)
    }

    /// Opens the backend `id` of `cluster` in `directory`, bringing its index up to what its extents hold.
    pub fn open(directory: &Path, cluster: ClusterId, id: BackendId) -> Result<Self, OpenError> {
        Self::open_with(directory, cluster, id, DiskOptions::default())
    }

    /// `open`, with settings.
    pub fn open_with(
        directory: &Path,
        cluster: ClusterId,
        id: BackendId,
        options: DiskOptions,
    ) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(LocalIo), directory, cluster, id, options)
    }

    fn open_on(
        io: Arc<dyn DiskIo>,
        directory: &Path,
        cluster: ClusterId,
        id: BackendId,
        options: DiskOptions,
    ) -> Result<Self, OpenError> {
        let failed = |action| move |error: std::io::Error| OpenError::io(directory, action, error);
        let options = DiskOptions { extent_bytes_max: options.extent_bytes_max.max(EXTENT_BYTES_MIN), ..options };
        let identity = Identity::expect(directory, cluster, id)?;
        let lock = identity::lock(directory)?;
        let extents = directory.join(EXTENTS_NAME);
        std::fs::create_dir_all(&extents).map_err(failed("create extents directory"))?;
        let place = ExtentPlace { io: io.clone(), directory: extents, cluster, backend: id };
        let recovered = recovery::recover(directory, &place, options.extent_bytes_max, now_ms())?;
        io.sync_directory(directory).map_err(failed("sync directory"))?;
        let space = io.space(directory).map_err(failed("ask for free room"))?;
        let room = RoomGuard {
            io,
            last: Mutex::new(space),
            directory: directory.to_owned(),
            reserve_setting: options.reserve_bytes,
            promised_bytes: AtomicU64::new(0),
            slack_bytes: AtomicU64::new(0),
        };
        let limits = Limits { reads: options.reads_max, writes: options.writes_max };
        let record_bytes_max = options.extent_bytes_max - EXTENT_HEADER_BYTES;
        let gate = Arc::new(Gate::new(id, cluster, record_bytes_max, room, limits));
        let engine = Arc::new(Engine {
            identity: identity.clone(),
            directory: directory.to_owned(),
            options,
            gate: gate.clone(),
            ledger: recovered.ledger,
            place,
            allocator: Mutex::new(recovered.allocator),
            handles: Handles::default(),
            commits: Queue::new(),
            abandoned: Arc::new(Queue::new()),
            meters: meters::Meters::new(&identity.name),
            upkeep: upkeep::UpkeepState::default(),
            sequence: AtomicU64::new(recovered.next_sequence),
            syncs: AtomicU64::new(0),
            unsettled_bytes: AtomicU64::new(0),
            anchors: Anchors::take(directory).map_err(failed("look at directory"))?,
            _lock: lock,
        });
        if let Some(reason) = recovered.fault {
            gate.fault.raise(BackendHealth::ReadOnly, &reason);
        }
        // What was taken over becomes durable before anything is built on it. Where that fails (a full disk), a
        // backend that can only be read is better than none; the fault was noted.
        if let Err(error) = engine.checkpoint() {
            tracing::warn!(backend = %id, %error, "no checkpoint after opening");
        }
        let running = Running::start(engine).map_err(failed("start threads"))?;
        let running = Arc::new(Mutex::new(Some(running)));
        Ok(Self { gate, identity, directory: directory.to_owned(), findings: recovered.findings, running })
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What opening found that an operator should know: files damaged, foreign, cut short or gone, one line each.
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// How many syncs of extents there were since it was opened.
    pub fn sync_count(&self) -> u64 {
        let running = self.running.lock();
        running.as_ref().map_or(0, |running| running.engine.syncs.load(Ordering::Relaxed))
    }

    /// Does now what the upkeep thread does in time: a checkpoint, giving room back, one step of compaction. Blocks.
    /// Returns the bytes compaction moved.
    pub fn maintain(&self) -> Result<u64, ShardError> {
        let engine = self.running.lock().as_ref().map(|running| running.engine.clone());
        let engine = engine.ok_or_else(|| self.gate.closed())?;
        engine.checkpoint()?;
        let moved = engine.compact(engine.options.compaction_bytes_per_second)?;
        if moved > 0 {
            engine.checkpoint()?;
        }
        Ok(moved)
    }

    /// Room for the shard. Looks at the disk only if there seems to be none; taking the room does in any case.
    async fn make_room(&self, bytes: u64) -> Result<(), ShardError> {
        match self.gate.check_room(&self.gate.last_space(), bytes) {
            Ok(()) => Ok(()),
            Err(_) => self.gate.call(Lane::Read, move |engine| engine.make_room(bytes)).await,
        }
    }
}

#[async_trait]
impl Backend for DiskBackend {
    fn id(&self) -> BackendId {
        self.identity.id
    }

    async fn begin(&self, header: ShardHeader) -> Result<Box<dyn ShardWriter>, ShardError> {
        self.gate.fault.check_write()?;
        if header.cluster != self.gate.cluster {
            return Err(ShardError::Invalid { reason: format!("shard of another cluster, {}", header.cluster) });
        }
        let layout = RecordLayout::of(&header).map_err(|reason| ShardError::Invalid { reason })?;
        if layout.record_bytes > self.gate.record_bytes_max {
            let reason = format!("shard of {} bytes does not fit into an extent", header.shard_bytes);
            return Err(ShardError::Invalid { reason });
        }
        self.make_room(layout.record_bytes).await?;
        Ok(Box::new(writer::DiskWriter::new(self.gate.clone(), header, layout)))
    }

    async fn read(
        &self,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        let request = ReadRequest { shard, first, count, expected_root };
        self.gate.call(Lane::Read, move |engine| engine.read(request)).await
    }

    async fn stat(&self, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        let look_up = move |engine: &Arc<Engine>| {
            engine.gate.fault.check_read()?;
            Ok(engine.entry(shard)?.filter(|entry| !entry.is_quarantined).map(|entry| entry.stat(shard)))
        };
        self.gate.call(Lane::Read, look_up).await
    }

    async fn delete(&self, shards: Vec<ShardId>) -> Result<(), ShardError> {
        let delete = move |engine: &Arc<Engine>| {
            engine.gate.fault.check_write()?;
            engine.check_index_room()?;
            engine.ledger.delete(&shards).map_err(|error| engine.index_failed("delete shards", &error))?;
            Ok(())
        };
        self.gate.call(Lane::Read, delete).await
    }

    async fn list(&self, pg: PgId, after: Option<ShardId>, limit: usize) -> Result<Vec<ShardStat>, ShardError> {
        let list = move |engine: &Arc<Engine>| {
            engine.gate.fault.check_read()?;
            let shards = engine.ledger.index().shards(Some(pg), after);
            let stats = shards.take(limit.min(LIST_MAX)).map(|item| item.map(|(id, entry)| entry.listed(id)));
            stats.collect::<Result<_, _>>().map_err(|error| engine.index_unreadable("list shards", &error))
        };
        self.gate.call(Lane::Read, list).await
    }

    async fn scrub(&self, after: Option<ShardId>, budget_bytes: u64) -> Result<ScrubStep, ShardError> {
        self.gate.call(Lane::Read, move |engine| engine.scrub(after, budget_bytes)).await
    }

    async fn status(&self) -> BackendStatus {
        match self.gate.call(Lane::Read, |engine| Ok(engine.status())).await {
            Ok(status) => status,
            Err(error) => BackendStatus {
                id: self.identity.id,
                name: self.identity.name.clone(),
                location: location(&self.directory),
                health: BackendHealth::Failed,
                reason: error.to_string(),
                capacity_bytes: 0,
                free_bytes: 0,
                used_bytes: 0,
                shard_count: 0,
                scrubbed_ms: 0,
            },
        }
    }

    async fn close(&self) -> Result<(), ShardError> {
        let (answer, wait) = oneshot::channel();
        let (gate, running) = (self.gate.clone(), self.running.clone());
        let closing = std::thread::Builder::new().name("holdfast-close".to_owned()).spawn(move || {
            let result = close(&gate, &running);
            let _ = answer.send(result); // the caller may have stopped waiting; the backend is closed all the same
        });
        closing.map_err(|error| self.gate.io_error("start closing thread", error))?;
        wait.await.unwrap_or_else(|_| Err(self.gate.closed()))
    }
}

impl Drop for DiskBackend {
    fn drop(&mut self) {
        if let Err(error) = close(&self.gate, &self.running) {
            tracing::warn!(backend = %self.identity.id, %error, "backend not closed cleanly");
        }
    }
}

/// Ends all threads, then leaves index and extents as the next open likes them.
fn close(gate: &Gate, running: &Mutex<Option<Running>>) -> Result<(), ShardError> {
    let Some(running) = running.lock().take() else {
        return Ok(());
    };
    gate.stop();
    let engine = running.stop();
    match gate.fault.is_none() {
        true => engine.settle_for_close(),
        // After a fault the index stays at its last checkpoint, so that the next open looks at all that came after.
        false => Ok(()),
    }
}

impl Running {
    fn start(engine: Arc<Engine>) -> std::io::Result<Self> {
        let name = &engine.identity.name;
        let io_threads = (0..engine.options.io_threads.max(1))
            .map(|_| {
                let engine = engine.clone();
                spawn(format!("io-{name}"), move || queue::run_jobs(&engine, &engine.gate.jobs))
            })
            .collect::<std::io::Result<_>>()?;
        let committing = engine.clone();
        let commit_thread = spawn(format!("commit-{name}"), move || commit::run_commits(&committing))?;
        let upkeep_thread = match engine.options.upkeep {
            Upkeep::Manual => None,
            Upkeep::Automatic => {
                let keeping = engine.clone();
                Some(spawn(format!("upkeep-{name}"), move || upkeep::run_upkeep(&keeping))?)
            }
        };
        Ok(Self { engine, io_threads, commit_thread, upkeep_thread })
    }

    /// Ends the threads in the order work flows, so that all that was queued is done.
    fn stop(self) -> Arc<Engine> {
        let Self { engine, io_threads, commit_thread, upkeep_thread } = self;
        engine.gate.jobs.stop();
        io_threads.into_iter().for_each(|thread| drop(thread.join()));
        engine.commits.stop();
        drop(commit_thread.join());
        engine.upkeep.stop();
        upkeep_thread.into_iter().for_each(|thread| drop(thread.join()));
        engine
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(work)
}
