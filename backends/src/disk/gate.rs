//! What callers hold of an engine: the way in, with a limit on how much waits, and the check for room. It keeps
//! neither files nor index alive, so that a writer left lying about cannot keep a closed backend's directory locked.

use super::engine::Engine;
use super::health::Fault;
use super::io::{DiskIo, Space};
use super::queue::{Job, Queue};
use holdfast_proto::node::{BackendHealth, ShardError};
use holdfast_proto::{BackendId, ClusterId};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Which limit a piece of work counts against, so that neither kind can starve the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Reads, look-ups and deletes.
    Read,
    /// Writes of cells.
    Write,
}

/// The way into an engine.
pub(crate) struct Gate {
    pub(crate) backend: BackendId,
    pub(crate) cluster: ClusterId,
    pub(crate) record_bytes_max: u64,
    pub(crate) fault: Fault,
    pub(crate) jobs: Queue<Job>,
    pub(crate) room: RoomGuard,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new(
        backend: BackendId,
        cluster: ClusterId,
        record_bytes_max: u64,
        room: RoomGuard,
        limits: Limits,
    ) -> Self {
        Self {
            backend,
            cluster,
            record_bytes_max,
            fault: Fault::none(backend),
            jobs: Queue::new(),
            room,
            reads: Arc::new(Semaphore::new(limits.reads.max(1))),
            writes: Arc::new(Semaphore::new(limits.writes.max(1))),
        }
    }

    /// Waits for a place in the queue.
    pub(crate) async fn permit(&self, lane: Lane) -> Result<OwnedSemaphorePermit, ShardError> {
        let lane = match lane {
            Lane::Read => &self.reads,
            Lane::Write => &self.writes,
        };
        lane.clone().acquire_owned().await.map_err(|_| self.closed())
    }

    /// Queues work for an IO thread.
    pub(crate) fn push(&self, job: Job) -> Result<(), ShardError> {
        self.jobs.push(job).map_err(|_| self.closed())
    }

    /// Does the work on an IO thread and waits for its answer. If the caller stops waiting before the work began,
    /// it is not done.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&Arc<Engine>) -> Result<T, ShardError> + Send + 'static,
    ) -> Result<T, ShardError> {
        let permit = self.permit(lane).await?;
        let (answer, wait) = oneshot::channel();
        self.push(Box::new(move |engine| {
            if !answer.is_closed() {
                let result = work(engine);
                drop(permit);
                let _ = answer.send(result); // the caller may have gone meanwhile
            }
        }))?;
        wait.await.unwrap_or_else(|_| Err(self.closed()))
    }

    /// Stops taking work; what is queued is still done.
    pub(crate) fn stop(&self) {
        self.reads.close();
        self.writes.close();
        self.jobs.stop();
    }

    pub(crate) fn closed(&self) -> ShardError {
        ShardError::Unavailable { backend: self.backend, reason: "it was closed".to_owned() }
    }

    pub(crate) fn io_error(&self, action: &str, error: impl std::fmt::Display) -> ShardError {
        ShardError::Io { backend: self.backend, action: action.to_owned(), reason: error.to_string() }
    }

    /// Looks at the room there is, and remembers it. Notices a directory that is gone. Blocks for as long as the file
    /// system takes to answer, which a dying disk never does: for the engine's threads only.
    pub(crate) fn space(&self) -> Result<Space, ShardError> {
        let space = self.room.io.space(&self.room.directory).inspect(|space| *self.room.last.lock() = *space);
        space.map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                self.fault.raise(BackendHealth::Missing, "its directory is gone");
                return ShardError::Unavailable { backend: self.backend, reason: "its directory is gone".to_owned() };
            }
            self.io_error("ask for free room", error)
        })
    }

    /// Fails with `Full` if `bytes` more would go below the reserve.
    pub(crate) fn check_room(&self, space: &Space, bytes: u64) -> Result<(), ShardError> {
        let reserve_bytes = self.room.reserve_bytes(space);
        let free_bytes = space.free_bytes.saturating_add(self.room.slack_bytes.load(Ordering::Relaxed));
        let promised = self.room.promised_bytes.load(Ordering::Relaxed);
        if free_bytes.saturating_sub(promised) < reserve_bytes.saturating_add(bytes) {
            return Err(self.full(space));
        }
        Ok(())
    }

    /// The room there was when an engine's thread last looked: at every record, and at every status.
    pub(crate) fn last_space(&self) -> Space {
        *self.room.last.lock()
    }

    pub(crate) fn full(&self, space: &Space) -> ShardError {
        let reserve_bytes = self.room.reserve_bytes(space);
        ShardError::Full { backend: self.backend, free_bytes: space.free_bytes, reserve_bytes }
    }
}

/// How many pieces of work may wait or run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) reads: usize,
    pub(crate) writes: usize,
}

/// Keeps the reserve free.
pub(crate) struct RoomGuard {
    pub(crate) io: Arc<dyn DiskIo>,
    pub(crate) directory: PathBuf,
    /// As last seen.
    pub(crate) last: Mutex<Space>,
    /// The setting; `None` for the default.
    pub(crate) reserve_setting: Option<u64>,
    /// Bytes begun and not yet given room.
    pub(crate) promised_bytes: AtomicU64,
    /// Bytes taken from the file system that no record has yet.
    pub(crate) slack_bytes: AtomicU64,
}

impl RoomGuard {
    /// The index, compaction and deletes need some room to work in: 256 MiB, on large disks a hundredth.
    const RESERVE_BYTES_MIN: u64 = 256 * 1024 * 1024;

    /// Bytes to keep free there.
    pub(crate) fn reserve_bytes(&self, space: &Space) -> u64 {
        self.reserve_setting.unwrap_or_else(|| Self::RESERVE_BYTES_MIN.max(space.capacity_bytes / 100))
    }
}

/// Bytes a writer said will come, counted until it has room or is gone.
pub(crate) struct Promise {
    gate: Arc<Gate>,
    bytes: u64,
}

impl Promise {
    pub(crate) fn new(gate: Arc<Gate>, bytes: u64) -> Self {
        gate.room.promised_bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { gate, bytes }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.gate.room.promised_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
