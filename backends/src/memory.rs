//! A backend in memory, for tests, for the simulator, and as the plainest reading of the contract. Nothing outlives it;
//! clones share what is kept.

use crate::backend::Backend;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use holdfast_proto::node::{
    BackendHealth, BackendStatus, Cell, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter, shard_root,
};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, ClusterId, PgId, ShardId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Keeps shards in a map.
#[derive(Clone)]
pub struct MemoryBackend {
    id: BackendId,
    cluster: ClusterId,
    capacity_bytes: u64,
    clock: Clock,
    state: Arc<Mutex<State>>,
}

type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A shard taken out of a backend whole: its cells as they are kept, damaged or not.
pub struct TakenShard(Stored);

#[derive(Default)]
struct State {
    shards: BTreeMap<ShardId, Stored>,
    used_bytes: u64,
    scrubbed_ms: u64,
}

struct Stored {
    header: ShardHeader,
    cells: Bytes,
    hashes: Vec<[u8; 32]>,
    root: [u8; 32],
    verified_ms: u64,
    is_quarantined: bool,
}

impl MemoryBackend {
    /// An empty backend that takes up to `capacity_bytes` of cells.
    pub fn new(cluster: ClusterId, id: BackendId, capacity_bytes: u64) -> Self {
        Self { id, cluster, capacity_bytes, clock: Arc::new(now_ms), state: Arc::default() }
    }

    /// With another clock (milliseconds since 1970) than the system's.
    pub fn with_clock(self, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// The shards it keeps, quarantined or not.
    pub fn shards(&self) -> Vec<ShardId> {
        self.state.lock().shards.keys().copied().collect()
    }

    /// Whether the shard is kept with this root and every cell of it holds. Changes nothing.
    pub fn is_intact(&self, shard: ShardId, root: [u8; 32]) -> bool {
        let state = self.state.lock();
        state.shards.get(&shard).is_some_and(|stored| stored.root == root && stored.is_whole())
    }

    /// Takes a shard out.
    pub fn take(&self, shard: ShardId) -> Option<TakenShard> {
        let mut state = self.state.lock();
        let stored = state.shards.remove(&shard)?;
        state.used_bytes -= stored.header.shard_bytes;
        Some(TakenShard(stored))
    }

    /// Puts a shard in that was taken out, unless there is one by now. Does not ask for room: it was there before.
    pub fn put_back(&self, TakenShard(stored): TakenShard) {
        let mut state = self.state.lock();
        let (id, bytes) = (stored.header.id, stored.header.shard_bytes);
        if !state.shards.contains_key(&id) {
            state.used_bytes += bytes;
            state.shards.insert(id, stored);
        }
    }

    /// Flips a bit of the shard's cell at `byte`, as a failing disk would. `false` if there is no such byte.
    pub fn corrupt(&self, shard: ShardId, byte: usize) -> bool {
        let mut state = self.state.lock();
        let Some(stored) = state.shards.get_mut(&shard).filter(|stored| byte < stored.cells.len()) else {
            return false;
        };
        let mut cells = BytesMut::from(&stored.cells[..]);
        cells[byte] ^= 1;
        stored.cells = cells.freeze();
        true
    }

    fn full(&self, state: &State) -> ShardError {
        let free_bytes = self.capacity_bytes.saturating_sub(state.used_bytes);
        ShardError::Full { backend: self.id, free_bytes, reserve_bytes: 0 }
    }
}

impl Stored {
    fn cell(&self, index: u32) -> Bytes {
        let at = |index: u32| (index as usize * self.header.cell_bytes as usize).min(self.cells.len());
        self.cells.slice(at(index)..at(index + 1))
    }

    fn is_sound(&self, index: u32) -> bool {
        self.hashes.get(index as usize).is_some_and(|hash| blake3::hash(&self.cell(index)).as_bytes() == hash)
    }

    fn is_whole(&self) -> bool {
        (0..self.header.cell_count()).all(|index| self.is_sound(index))
    }

    fn stat(&self) -> ShardStat {
        ShardStat {
            id: self.header.id,
            shard_bytes: self.header.shard_bytes,
            cell_bytes: self.header.cell_bytes,
            root: self.root,
            verified_ms: self.verified_ms,
        }
    }
}

struct MemoryWriter {
    backend: MemoryBackend,
    header: ShardHeader,
    cells: BytesMut,
    hashes: Vec<[u8; 32]>,
}

#[async_trait]
impl ShardWriter for MemoryWriter {
    async fn append(&mut self, cells: Vec<Cell>) -> Result<(), ShardError> {
        for cell in cells {
            let rest = self.header.shard_bytes - self.cells.len() as u64;
            let expected = rest.min(u64::from(self.header.cell_bytes));
            if expected == 0 || cell.bytes.len() as u64 != expected {
                let reason = format!("cell {} has {} bytes, not {expected}", self.hashes.len(), cell.bytes.len());
                return Err(ShardError::Invalid { reason });
            }
            self.cells.extend_from_slice(&cell.bytes);
            self.hashes.push(cell.hash);
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<ShardStat, ShardError> {
        let Self { backend, header, cells, hashes } = *self;
        if cells.len() as u64 != header.shard_bytes {
            let reason = format!("{} of {} bytes came before the end", cells.len(), header.shard_bytes);
            return Err(ShardError::Invalid { reason });
        }
        let root = shard_root(hashes.iter().copied());
        let stored = Stored {
            header,
            cells: cells.freeze(),
            hashes,
            root,
            verified_ms: (backend.clock)(),
            is_quarantined: false,
        };
        let stat = stored.stat();
        let mut state = backend.state.lock();
        let freed = state.shards.get(&stat.id).map_or(0, |old| old.header.shard_bytes);
        let used = state.used_bytes - freed + stat.shard_bytes;
        if used > backend.capacity_bytes {
            return Err(backend.full(&state));
        }
        state.used_bytes = used;
        state.shards.insert(stat.id, stored);
        Ok(stat)
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn id(&self) -> BackendId {
        self.id
    }

    async fn begin(&self, header: ShardHeader) -> Result<Box<dyn ShardWriter>, ShardError> {
        if header.cluster != self.cluster {
            return Err(ShardError::Invalid { reason: format!("shard of another cluster, {}", header.cluster) });
        }
        if header.cell_bytes == 0 {
            return Err(ShardError::Invalid { reason: "cells of 0 bytes".to_owned() });
        }
        let state = self.state.lock();
        if state.used_bytes.saturating_add(header.shard_bytes) > self.capacity_bytes {
            return Err(self.full(&state));
        }
        drop(state);
        Ok(Box::new(MemoryWriter { backend: self.clone(), header, cells: BytesMut::new(), hashes: Vec::new() }))
    }

    async fn read(
        &self,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        let mut state = self.state.lock();
        let not_found = ShardError::NotFound { shard, backend: self.id };
        let stored = state.shards.get_mut(&shard).ok_or(not_found)?;
        let cell_count = stored.header.cell_count();
        let end = first.checked_add(count).filter(|&end| end <= cell_count);
        let Some(end) = end else {
            return Err(ShardError::Invalid { reason: format!("{count} cells from {first} of {cell_count}") });
        };
        if expected_root.is_some_and(|root| root != stored.root) {
            let reason = "its root is not the one expected".to_owned();
            return Err(ShardError::Damaged { shard, backend: self.id, reason });
        }
        let mut bytes = BytesMut::new();
        let mut damaged = Vec::new();
        for index in first..end {
            let cell = stored.cell(index);
            if stored.is_sound(index) {
                bytes.extend_from_slice(&cell);
            } else {
                bytes.resize(bytes.len() + cell.len(), 0);
                damaged.push(index);
            }
        }
        stored.is_quarantined |= !damaged.is_empty();
        let cell_hashes = stored.hashes.clone();
        Ok(ShardRead { header: stored.header.clone(), bytes: bytes.freeze(), damaged, cell_hashes })
    }

    async fn stat(&self, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        let state = self.state.lock();
        Ok(state.shards.get(&shard).filter(|stored| !stored.is_quarantined).map(Stored::stat))
    }

    async fn delete(&self, shards: Vec<ShardId>) -> Result<(), ShardError> {
        let mut state = self.state.lock();
        for shard in shards {
            let freed = state.shards.remove(&shard).map_or(0, |stored| stored.header.shard_bytes);
            state.used_bytes -= freed;
        }
        Ok(())
    }

    async fn list(&self, pg: PgId, after: Option<ShardId>, limit: usize) -> Result<Vec<ShardStat>, ShardError> {
        let state = self.state.lock();
        let from = after.map_or(Unbounded, Excluded);
        let of_pg = state.shards.range((from, Unbounded)).filter(|(id, _)| id.pg == pg);
        let listed = |stored: &Stored| match stored.is_quarantined {
            true => ShardStat { root: ShardStat::NO_ROOT, ..stored.stat() },
            false => stored.stat(),
        };
        Ok(of_pg.take(limit).map(|(_, stored)| listed(stored)).collect())
    }

    async fn scrub(&self, after: Option<ShardId>, budget_bytes: u64) -> Result<ScrubStep, ShardError> {
        let mut state = self.state.lock();
        let now = (self.clock)();
        let from = after.map_or(Unbounded, Excluded);
        let mut step = ScrubStep::default();
        let mut last = after;
        for (id, stored) in state.shards.range_mut((from, Unbounded)) {
            if step.shards > 0 && step.bytes + stored.header.shard_bytes.max(1) > budget_bytes {
                step.next = last;
                return Ok(step);
            }
            if stored.is_quarantined || !stored.is_whole() {
                stored.is_quarantined = true;
                step.damaged.push(*id);
            } else {
                stored.verified_ms = now;
            }
            step.shards += 1;
            step.bytes += stored.header.shard_bytes.max(1);
            last = Some(*id);
        }
        state.scrubbed_ms = now;
        Ok(step)
    }

    async fn status(&self) -> BackendStatus {
        let state = self.state.lock();
        BackendStatus {
            id: self.id,
            name: "memory".to_owned(),
            location: "memory:".to_owned(),
            health: BackendHealth::Online,
            reason: String::new(),
            capacity_bytes: self.capacity_bytes,
            free_bytes: self.capacity_bytes.saturating_sub(state.used_bytes),
            used_bytes: state.used_bytes,
            shard_count: state.shards.len() as u64,
            scrubbed_ms: state.scrubbed_ms,
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{CLUSTER, check_all, get, put, sample_cells, sample_header};
    use crate::{Faulty, Throttle, Throttled};
    use holdfast_faults::DiskPlan;

    fn memory() -> MemoryBackend {
        MemoryBackend::new(CLUSTER, BackendId([1; 16]), 1 << 30)
    }

    #[tokio::test]
    async fn memory_and_wrappers_without_faults_keep_the_contract() {
        check_all(&memory()).await.unwrap();
        check_all(&Throttled::new(memory(), Throttle::default())).await.unwrap();
        let fast = Throttle { bytes_per_second_max: Some(1 << 30), ..Throttle::default() };
        check_all(&Throttled::new(memory(), fast)).await.unwrap();
        check_all(&Faulty::new(memory(), DiskPlan::default(), 1)).await.unwrap();
        check_all(&Faulty::new(Throttled::new(memory(), Throttle::default()), DiskPlan::default(), 1)).await.unwrap();
    }

    #[tokio::test]
    async fn the_contract_notices_a_backend_that_breaks_it() {
        for plan in [
            DiskPlan { read_error: 1.0, ..DiskPlan::default() },
            DiskPlan { flip_read: 0.1, ..DiskPlan::default() },
            DiskPlan { flip_written: 0.1, ..DiskPlan::default() },
            DiskPlan { sync_error: 0.1, ..DiskPlan::default() },
            DiskPlan { full: 0.1, ..DiskPlan::default() },
            DiskPlan { missing: true, ..DiskPlan::default() },
        ] {
            assert!(check_all(&Faulty::new(memory(), plan, 1)).await.is_err(), "{plan:?}");
        }
    }

    #[tokio::test]
    async fn faults_come_as_planned_and_repeat_with_their_seed() {
        let outcomes = async |seed| {
            let backend = Faulty::new(memory(), DiskPlan { write_error: 0.5, ..DiskPlan::default() }, seed);
            let mut outcomes = Vec::new();
            for number in 0..64 {
                let header = sample_header(number);
                outcomes.push(put(&backend, &header, sample_cells(&header, 1)).await.is_ok());
            }
            outcomes
        };
        let first = outcomes(7).await;
        assert_eq!(first, outcomes(7).await);
        assert_ne!(first, outcomes(8).await);
        let good = first.iter().filter(|ok| **ok).count();
        assert!((16..48).contains(&good), "{good} of 64");
    }

    #[tokio::test]
    async fn a_failed_sync_leaves_it_read_only_and_a_flipped_bit_is_found() {
        let header = sample_header(1);
        let backend = Faulty::new(memory(), DiskPlan::default(), 1);
        put(&backend, &header, sample_cells(&header, 1)).await.unwrap();
        backend.set(DiskPlan { sync_error: 1.0, ..DiskPlan::default() });
        let other = sample_header(2);
        let answer = put(&backend, &other, sample_cells(&other, 1)).await;
        assert!(matches!(answer, Err(ShardError::Io { .. })), "{answer:?}");
        backend.set(DiskPlan::default());
        let answer = put(&backend, &other, sample_cells(&other, 1)).await;
        assert!(matches!(answer, Err(ShardError::ReadOnly { .. })), "{answer:?}");
        assert_eq!(backend.status().await.health, BackendHealth::ReadOnly);
        assert!(get(&backend, &header).await.unwrap().damaged.is_empty());
        assert!(backend.inner().corrupt(header.id, 70_000));
        assert_eq!(get(&backend, &header).await.unwrap().damaged, [1]);
        assert_eq!(backend.stat(header.id).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_taken_out_is_gone_until_it_is_put_back() {
        let header = sample_header(1);
        let backend = MemoryBackend::new(CLUSTER, BackendId([1; 16]), 1 << 30).with_clock(|| 77);
        put(&backend, &header, sample_cells(&header, 1)).await.unwrap();
        let stat = backend.stat(header.id).await.unwrap().unwrap();
        assert_eq!(stat.verified_ms, 77);
        assert!(backend.is_intact(header.id, stat.root) && !backend.is_intact(header.id, [0; 32]));
        let taken = backend.take(header.id).unwrap();
        assert_eq!((backend.stat(header.id).await, backend.status().await.used_bytes), (Ok(None), 0));
        assert!(backend.take(header.id).is_none() && !backend.is_intact(header.id, stat.root));
        backend.put_back(taken);
        assert_eq!(backend.stat(header.id).await, Ok(Some(stat.clone())));
        assert_eq!(backend.shards(), [header.id]);
        assert!(backend.corrupt(header.id, 0) && !backend.is_intact(header.id, stat.root));
    }

    #[tokio::test]
    async fn a_full_backend_refuses_cleanly() {
        let backend = MemoryBackend::new(CLUSTER, BackendId([1; 16]), 200_000);
        let (first, second) = (sample_header(1), sample_header(2));
        put(&backend, &first, sample_cells(&first, 1)).await.unwrap();
        let answer = put(&backend, &second, sample_cells(&second, 1)).await;
        assert!(matches!(answer, Err(ShardError::Full { .. })), "{answer:?}");
        backend.delete(vec![first.id]).await.unwrap();
        put(&backend, &second, sample_cells(&second, 1)).await.unwrap();
    }
}
