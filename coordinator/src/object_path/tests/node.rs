//! A storage node in memory whose backends fail as told.

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_proto::node::{
    BackendHealth, BackendStatus, Cell, NodeClient, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter,
    shard_root,
};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, Epoch, NodeId, PgId, ShardId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How a backend fails.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) is_unavailable: bool,
    pub(crate) is_full: bool,
    /// The append with this number, counted over all its shards from 0, fails.
    pub(crate) fail_append: Option<u64>,
    pub(crate) hang_begin: bool,
    pub(crate) hang_append: bool,
    pub(crate) fail_finish: bool,
    /// Finishes wait for `FakeNode::release`.
    pub(crate) hold_finish: bool,
    /// `finish` reports another root.
    pub(crate) lie_about_root: bool,
    pub(crate) read_delay: Option<Duration>,
    /// Busy this many times before it begins a shard.
    pub(crate) busy_begins: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) header: ShardHeader,
    pub(crate) cells: Vec<Bytes>,
    /// Cells that fail their hash.
    pub(crate) damaged: BTreeSet<u32>,
    pub(crate) root: [u8; 32],
}

#[derive(Default)]
pub(crate) struct FakeBackend {
    pub(crate) shards: BTreeMap<ShardId, Stored>,
    pub(crate) faults: Faults,
    pub(crate) begins: u64,
    pub(crate) appends: u64,
    /// (shard, first, count) of each read.
    pub(crate) reads: Vec<(ShardId, u32, u32)>,
    pub(crate) writers: usize,
}

type Probe = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) backends: Mutex<BTreeMap<BackendId, FakeBackend>>,
    /// Called at every append.
    pub(crate) probe: Mutex<Option<Probe>>,
    released: Notify,
}

#[derive(Clone, Default)]
pub(crate) struct FakeNode {
    pub(crate) state: Arc<State>,
    /// Answers for this backend alone.
    only: Option<BackendId>,
}

pub(crate) fn backend(number: usize) -> BackendId {
    BackendId([u8::try_from(number).unwrap(); 16])
}

impl FakeNode {
    pub(crate) fn new(backends: usize) -> Self {
        let node = Self::default();
        node.state.backends.lock().extend((0..backends).map(|number| (backend(number), FakeBackend::default())));
        node
    }
    pub(crate) fn on<T>(&self, number: usize, change: impl FnOnce(&mut FakeBackend) -> T) -> T {
        self.at(backend(number), change)
    }
    pub(crate) fn at<T>(&self, id: BackendId, change: impl FnOnce(&mut FakeBackend) -> T) -> T {
        change(self.state.backends.lock().get_mut(&id).unwrap())
    }
    pub(crate) fn fault(&self, number: usize, faults: Faults) {
        self.on(number, |b| b.faults = faults);
    }
    pub(crate) fn shard_count(&self) -> usize {
        self.state.backends.lock().values().map(|b| b.shards.len()).sum()
    }
    pub(crate) fn writer_count(&self) -> usize {
        self.state.backends.lock().values().map(|b| b.writers).sum()
    }
    pub(crate) fn take_reads(&self) -> Vec<(ShardId, u32, u32)> {
        self.state.backends.lock().values_mut().flat_map(|b| std::mem::take(&mut b.reads)).collect()
    }
    pub(crate) fn release(&self) {
        for backend in self.state.backends.lock().values_mut() {
            backend.faults.hold_finish = false;
        }
        self.state.released.notify_waiters();
    }
    /// The same node, as one that has this backend alone.
    pub(crate) fn only(&self, number: usize) -> Self {
        Self { state: self.state.clone(), only: Some(backend(number)) }
    }
    fn faults(&self, backend: BackendId) -> Result<Faults, ShardError> {
        if self.only.is_some_and(|only| only != backend) {
            return Err(ShardError::NoSuchBackend { backend });
        }
        let faults = self.state.backends.lock().get(&backend).map(|b| b.faults.clone());
        let faults = faults.ok_or(ShardError::NoSuchBackend { backend })?;
        if faults.is_unavailable {
            return Err(ShardError::Unavailable { backend, reason: "switched off".into() });
        }
        Ok(faults)
    }
}

struct Writer {
    node: FakeNode,
    backend: BackendId,
    header: ShardHeader,
    cells: Vec<Bytes>,
    hashes: Vec<[u8; 32]>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.node.at(self.backend, |b| b.writers -= 1);
    }
}

fn io(backend: BackendId, action: &str) -> ShardError {
    ShardError::Io { backend, action: action.into(), reason: "as told".into() }
}

#[async_trait]
impl ShardWriter for Writer {
    async fn append(&mut self, cells: Vec<Cell>) -> Result<(), ShardError> {
        if let Some(probe) = &*self.node.state.probe.lock() {
            probe();
        }
        let faults = self.node.faults(self.backend)?;
        let number = self.node.at(self.backend, |b| {
            b.appends += 1;
            b.appends - 1
        });
        if faults.fail_append == Some(number) {
            return Err(io(self.backend, "append"));
        }
        if faults.hang_append {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        for cell in cells {
            assert_eq!(blake3::hash(&cell.bytes).as_bytes(), &cell.hash, "a cell comes with its hash");
            let is_full = self.cells.last().is_none_or(|last| last.len() == self.header.cell_bytes as usize);
            assert!(is_full, "only the last cell may be short");
            // A disk keeps its own copy.
            self.cells.push(Bytes::copy_from_slice(&cell.bytes));
            self.hashes.push(cell.hash);
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<ShardStat, ShardError> {
        let faults = self.node.faults(self.backend)?;
        if faults.hold_finish {
            let state = self.node.state.clone();
            state.released.notified().await;
        }
        if faults.fail_finish {
            return Err(io(self.backend, "sync"));
        }
        let bytes: usize = self.cells.iter().map(Bytes::len).sum();
        assert_eq!(bytes as u64, self.header.shard_bytes, "as many bytes as the header said");
        let root = shard_root(self.hashes.iter().copied());
        let stored = Stored {
            header: self.header.clone(),
            cells: std::mem::take(&mut self.cells),
            damaged: BTreeSet::new(),
            root,
        };
        self.node.at(self.backend, |b| b.shards.insert(self.header.id, stored));
        let root = if faults.lie_about_root { [9; 32] } else { root };
        Ok(ShardStat {
            id: self.header.id,
            shard_bytes: self.header.shard_bytes,
            cell_bytes: self.header.cell_bytes,
            root,
            verified_ms: 0,
        })
    }
}

#[async_trait]
impl NodeClient for FakeNode {
    async fn begin_shard(
        &self,
        backend: BackendId,
        header: ShardHeader,
        _: Epoch,
    ) -> Result<Box<dyn ShardWriter>, ShardError> {
        let faults = self.faults(backend)?;
        self.at(backend, |b| b.begins += 1);
        if faults.hang_begin {
            std::future::pending::<()>().await;
        }
        if faults.is_full {
            return Err(ShardError::Full { backend, free_bytes: 1, reserve_bytes: 2 });
        }
        if faults.busy_begins > 0 {
            self.at(backend, |b| b.faults.busy_begins -= 1);
            return Err(ShardError::Busy { backend, queued: 7 });
        }
        self.at(backend, |b| b.writers += 1);
        Ok(Box::new(Writer { node: self.clone(), backend, header, cells: Vec::new(), hashes: Vec::new() }))
    }

    async fn read_shard(
        &self,
        backend: BackendId,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        let faults = self.faults(backend)?;
        let stored = self.at(backend, |b| {
            b.reads.push((shard, first, count));
            b.shards.get(&shard).cloned()
        });
        if let Some(delay) = faults.read_delay {
            tokio::time::sleep(delay).await;
        }
        let stored = stored.ok_or(ShardError::NotFound { shard, backend })?;
        if expected_root.is_some_and(|root| root != stored.root) {
            return Err(ShardError::Damaged { shard, backend, reason: "root".into() });
        }
        let cells = stored.cells.get(first as usize..(first + count) as usize);
        let cells = cells.ok_or(ShardError::Invalid { reason: format!("{first}+{count} past the end") })?;
        let damaged: Vec<u32> = (first..first + count).filter(|cell| stored.damaged.contains(cell)).collect();
        let bytes = (first..).zip(cells).flat_map(|(number, cell)| match stored.damaged.contains(&number) {
            true => vec![0; cell.len()],
            false => cell.to_vec(),
        });
        let cell_hashes = stored.cells.iter().map(|cell| *blake3::hash(cell).as_bytes()).collect();
        Ok(ShardRead { header: stored.header.clone(), bytes: bytes.collect(), damaged, cell_hashes })
    }

    async fn stat_shard(&self, backend: BackendId, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        self.faults(backend)?;
        Ok(self.at(backend, |b| b.shards.get(&shard).cloned()).map(|stored| ShardStat {
            id: shard,
            shard_bytes: stored.header.shard_bytes,
            cell_bytes: stored.header.cell_bytes,
            root: stored.root,
            verified_ms: 0,
        }))
    }

    async fn delete_shards(
        &self,
        backend: BackendId,
        shards: Vec<ShardId>,
        _: Option<Epoch>,
    ) -> Result<(), ShardError> {
        self.faults(backend)?;
        self.at(backend, |b| shards.iter().for_each(|shard| drop(b.shards.remove(shard))));
        Ok(())
    }

    async fn list_shards(
        &self,
        _: BackendId,
        _: PgId,
        _: Option<ShardId>,
        _: usize,
        _: Epoch,
    ) -> Result<Vec<ShardStat>, ShardError> {
        Ok(Vec::new())
    }

    async fn scrub_shards(&self, _: BackendId, _: Option<ShardId>, _: u64) -> Result<ScrubStep, ShardError> {
        Ok(ScrubStep::default())
    }

    async fn backends(&self) -> Vec<BackendStatus> {
        let ids: Vec<BackendId> = self.state.backends.lock().keys().copied().collect();
        let status = |id| BackendStatus {
            id,
            name: String::new(),
            location: String::new(),
            health: BackendHealth::Online,
            reason: String::new(),
            capacity_bytes: 1 << 40,
            free_bytes: 0,
            used_bytes: 0,
            shard_count: 0,
            scrubbed_ms: 0,
        };
        ids.into_iter().filter(|id| self.only.is_none_or(|only| only == *id)).map(status).collect()
    }

    async fn add_backend(&self, _: NodeId, _: &str, _: &str) -> Result<BackendStatus, ShardError> {
        Err(ShardError::Invalid { reason: "not in this fake".into() })
    }

    async fn remove_backend(&self, _: BackendId) -> Result<(), ShardError> {
        Err(ShardError::Invalid { reason: "not in this fake".into() })
    }
}
