//! The disk directories of a node: what is on them outlives its process, but not everything: a shard whose sync was under
//! way at a crash is there or not, and one that was freed shortly before may be back, as the trait `Backend` allows.
//! Directories can be emptied, taken away, full or slow, and their bits can rot.
//!
//! **Invariant:** a process that has ended changes nothing any more, whatever its tasks still try.

use crate::bug::Bug;
use crate::world::World;
use async_trait::async_trait;
use futures::FutureExt;
use holdfast_backends::{Backend, MemoryBackend, TakenShard};
use holdfast_proto::node::{
    BackendHealth, BackendStatus, Cell, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter,
};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, ClusterId, PgId, ShardId};
use holdfast_storage_node::{BackendOpener, Closed, Found, Location};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// More than any run writes.
const CAPACITY_BYTES: u64 = 1 << 40;
/// What was freed for longer than this does not come back: the index has been flushed since.
const CHECKPOINT: Duration = Duration::from_secs(20);
/// Bounds of a call's time, and of a sync's.
const CALL: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(2));
const SYNC: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(12));

/// One directory.
pub struct Disk {
    /// `disk:PATH`.
    pub location: String,
    world: Arc<World>,
    bug: Option<Bug>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What lies there; nothing in a directory that was never made a backend, or was emptied.
    kept: Option<(ClusterId, MemoryBackend)>,
    /// Grows at each end of the process.
    life: u64,
    is_detached: bool,
    is_full: bool,
    /// Added to every call.
    slowness: Duration,
    next_sync: u64,
    syncing: BTreeMap<u64, Box<dyn ShardWriter>>,
    undone_by_crash: VecDeque<(Instant, Change)>,
}

enum Change {
    Freed(Box<TakenShard>),
    /// Only with a bug: reported as durable before it was.
    Written(ShardId),
}

impl Disk {
    /// An empty directory.
    pub fn new(location: String, world: Arc<World>, bug: Option<Bug>) -> Arc<Self> {
        Arc::new(Self { location, world, bug, state: Mutex::default() })
    }

    /// The backend that lies there.
    pub fn backend(&self) -> Option<BackendId> {
        self.state.lock().kept.as_ref().map(|(_, kept)| kept.id())
    }

    /// Makes it a backend.
    pub fn format(&self, cluster: ClusterId, id: BackendId) {
        let world = self.world.clone();
        let kept = MemoryBackend::new(cluster, id, CAPACITY_BYTES).with_clock(move || world.now_ms());
        self.state.lock().kept = Some((cluster, kept));
    }

    /// The process ends without warning.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        state.life += 1;
        for (_, writer) in std::mem::take(&mut state.syncing) {
            if self.world.chance(50) {
                // Memory answers at once; a shard too many is refused, as it would be.
                let _ = writer.finish().now_or_never();
            }
        }
        let undone: Vec<Change> = state.undone_by_crash.drain(..).map(|(_, change)| change).collect();
        let Some((_, kept)) = &state.kept else { return };
        for change in undone {
            match change {
                Change::Freed(shard) if self.world.chance(50) => kept.put_back(*shard),
                Change::Written(shard) => drop(kept.take(shard)),
                Change::Freed(_) => {}
            }
        }
    }

    /// Everything on it is gone for good.
    pub fn wipe(&self) {
        let mut state = self.state.lock();
        state.kept = None;
        state.syncing.clear();
        state.undone_by_crash.clear();
    }

    /// It is taken away, or is back with all it held.
    pub fn set_detached(&self, is_detached: bool) {
        self.state.lock().is_detached = is_detached;
    }

    /// It takes nothing more, or does again.
    pub fn set_full(&self, is_full: bool) {
        self.state.lock().is_full = is_full;
    }

    /// Every call takes so much longer.
    pub fn set_slowness(&self, slowness: Duration) {
        self.state.lock().slowness = slowness;
    }

    /// Flips a bit of some shard; tells of which.
    pub fn rot(&self) -> Option<ShardId> {
        let kept = self.state.lock().kept.as_ref().map(|(_, kept)| kept.clone())?;
        let shards = kept.shards();
        if shards.is_empty() {
            return None;
        }
        let shard = shards[self.world.index(shards.len())];
        let byte = usize::try_from(self.world.pick(0..64)).unwrap_or(0);
        kept.corrupt(shard, byte).then_some(shard)
    }

    /// Whether the shard lies there whole, seen from outside.
    pub fn holds(&self, shard: ShardId, root: [u8; 32]) -> bool {
        self.state.lock().kept.as_ref().is_some_and(|(_, kept)| kept.is_intact(shard, root))
    }

    /// All that lies there.
    pub fn shards(&self) -> Vec<ShardId> {
        self.state.lock().kept.as_ref().map(|(_, kept)| kept.shards()).unwrap_or_default()
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.location)
    }
}

/// The directories of one node, as its process opens them.
#[derive(Debug)]
pub struct Shelf {
    disks: Vec<Arc<Disk>>,
}

impl Shelf {
    /// These.
    pub fn new(disks: Vec<Arc<Disk>>) -> Self {
        Self { disks }
    }

    /// All of them.
    pub fn disks(&self) -> &[Arc<Disk>] {
        &self.disks
    }

    fn at(&self, location: &Location) -> Result<&Arc<Disk>, Closed> {
        let text = location.to_string();
        let found = self.disks.iter().find(|disk| disk.location == text);
        let missing = || Closed { health: BackendHealth::Missing, reason: format!("{text} is not there") };
        found.filter(|disk| !disk.state.lock().is_detached).ok_or_else(missing)
    }
}

impl BackendOpener for Shelf {
    fn identify(&self, location: &Location) -> Result<Found, Closed> {
        let disk = self.at(location)?;
        let state = disk.state.lock();
        let (cluster, kept) = state.kept.as_ref().ok_or_else(wiped)?;
        Ok(Found { cluster: *cluster, id: kept.id() })
    }

    fn open(
        &self,
        location: &Location,
        cluster: ClusterId,
        id: BackendId,
        _name: &str,
    ) -> Result<Arc<dyn Backend>, Closed> {
        let found = self.identify(location)?;
        if found != (Found { cluster, id }) {
            return Err(Closed { health: BackendHealth::Foreign, reason: format!("{location} holds {}", found.id) });
        }
        let disk = self.at(location)?.clone();
        let life = disk.state.lock().life;
        Ok(Arc::new(OpenDisk { disk, id, life }))
    }

    fn format(&self, location: &Location, cluster: ClusterId, id: BackendId, _: &str) -> Result<(), ShardError> {
        let disk = self.at(location).map_err(|closed| ShardError::Invalid { reason: closed.reason })?;
        if disk.backend().is_some() {
            return Err(ShardError::Invalid { reason: format!("{location} is not empty") });
        }
        disk.format(cluster, id);
        Ok(())
    }

    fn new_id(&self) -> BackendId {
        let world = &self.disks[0].world;
        let (first, second) = (world.random().to_le_bytes(), world.random().to_le_bytes());
        let mut random = [0; 10];
        random[..8].copy_from_slice(&first);
        random[8..].copy_from_slice(&second[..2]);
        BackendId::from_parts(world.now_ms(), random)
    }

    fn is_immediate(&self) -> bool {
        true
    }
}

fn wiped() -> Closed {
    Closed { health: BackendHealth::Wiped, reason: "the directory is empty".to_owned() }
}

/// A directory as one process has it open.
struct OpenDisk {
    disk: Arc<Disk>,
    id: BackendId,
    life: u64,
}

impl OpenDisk {
    fn unavailable(&self, reason: &str) -> ShardError {
        ShardError::Unavailable { backend: self.id, reason: reason.to_owned() }
    }

    /// What lies there, if it is still what was opened.
    fn kept(&self, state: &State) -> Result<MemoryBackend, ShardError> {
        if state.life != self.life {
            return Err(self.unavailable("the process has ended"));
        }
        if state.is_detached {
            return Err(self.unavailable("the directory is gone"));
        }
        let kept = state.kept.as_ref().map(|(_, kept)| kept.clone()).filter(|kept| kept.id() == self.id);
        kept.ok_or_else(|| self.unavailable("the directory was emptied"))
    }

    /// A call takes its time, and finds what is there after it.
    async fn enter(&self) -> Result<MemoryBackend, ShardError> {
        let slowness = self.disk.state.lock().slowness;
        sleep(self.disk.world.between(CALL.0, CALL.1) + slowness).await;
        self.kept(&self.disk.state.lock())
    }

    fn remember(&self, change: Change) {
        let mut state = self.disk.state.lock();
        let now = Instant::now();
        while state.undone_by_crash.front().is_some_and(|(at, _)| now - *at > CHECKPOINT) {
            state.undone_by_crash.pop_front();
        }
        state.undone_by_crash.push_back((now, change));
    }
}

#[async_trait]
impl Backend for OpenDisk {
    fn id(&self) -> BackendId {
        self.id
    }

    async fn begin(&self, header: ShardHeader) -> Result<Box<dyn ShardWriter>, ShardError> {
        let kept = self.enter().await?;
        if self.disk.state.lock().is_full {
            return Err(ShardError::Full { backend: self.id, free_bytes: 0, reserve_bytes: 1 });
        }
        let shard = header.id;
        let inner = kept.begin(header).await?;
        let open = OpenDisk { disk: self.disk.clone(), id: self.id, life: self.life };
        Ok(Box::new(DiskWriter { open, shard, inner }))
    }

    async fn read(
        &self,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        self.enter().await?.read(shard, first, count, expected_root).await
    }

    async fn stat(&self, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        self.enter().await?.stat(shard).await
    }

    async fn delete(&self, shards: Vec<ShardId>) -> Result<(), ShardError> {
        let kept = self.enter().await?;
        for shard in shards {
            if let Some(taken) = kept.take(shard) {
                self.remember(Change::Freed(Box::new(taken)));
            }
        }
        Ok(())
    }

    async fn list(&self, pg: PgId, after: Option<ShardId>, limit: usize) -> Result<Vec<ShardStat>, ShardError> {
        self.enter().await?.list(pg, after, limit).await
    }

    async fn scrub(&self, after: Option<ShardId>, budget_bytes: u64) -> Result<ScrubStep, ShardError> {
        self.enter().await?.scrub(after, budget_bytes).await
    }

    async fn status(&self) -> BackendStatus {
        let (health, reason, kept) = {
            let state = self.disk.state.lock();
            let kept = self.kept(&state);
            let (health, reason) = match &kept {
                Ok(_) if state.is_full => (BackendHealth::ReadOnly, "it is full".to_owned()),
                Ok(_) => (BackendHealth::Online, String::new()),
                Err(error) if state.kept.is_none() => (BackendHealth::Wiped, error.to_string()),
                Err(error) => (BackendHealth::Missing, error.to_string()),
            };
            (health, reason, kept.ok())
        };
        let base = match kept {
            Some(kept) => kept.status().await,
            None => MemoryBackend::new(ClusterId::default(), self.id, CAPACITY_BYTES).status().await,
        };
        let free_bytes = if health == BackendHealth::ReadOnly { 0 } else { base.free_bytes };
        BackendStatus { location: self.disk.location.clone(), health, reason, free_bytes, ..base }
    }
}

struct DiskWriter {
    open: OpenDisk,
    shard: ShardId,
    inner: Box<dyn ShardWriter>,
}

#[async_trait]
impl ShardWriter for DiskWriter {
    async fn append(&mut self, cells: Vec<Cell>) -> Result<(), ShardError> {
        self.open.enter().await?;
        self.inner.append(cells).await
    }

    async fn finish(self: Box<Self>) -> Result<ShardStat, ShardError> {
        let Self { open, shard, inner } = *self;
        open.enter().await?;
        if open.disk.bug == Some(Bug::ShardAcknowledgedBeforeSync) {
            open.remember(Change::Written(shard));
            return inner.finish().await;
        }
        let sync = Syncing::begin(open.disk.clone(), inner);
        sleep(open.disk.world.between(SYNC.0, SYNC.1)).await;
        open.kept(&open.disk.state.lock())?;
        let inner = sync.end().ok_or_else(|| open.unavailable("the process has ended"))?;
        inner.finish().await
    }
}

/// A sync under way. Dropped before its end, the shard is not there.
struct Syncing {
    disk: Arc<Disk>,
    number: u64,
}

impl Syncing {
    fn begin(disk: Arc<Disk>, writer: Box<dyn ShardWriter>) -> Self {
        let number = {
            let mut state = disk.state.lock();
            state.next_sync += 1;
            let number = state.next_sync;
            state.syncing.insert(number, writer);
            number
        };
        Self { disk, number }
    }

    fn end(self) -> Option<Box<dyn ShardWriter>> {
        self.disk.state.lock().syncing.remove(&self.number)
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.disk.state.lock().syncing.remove(&self.number);
    }
}
