//! A backend that fails as told: errors on read, write and sync, flipped bits, a full disk, delays. Which call fails
//! follows from a seed, so that a run can be repeated.

use crate::backend::Backend;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use holdfast_faults::{Dice, DiskPlan};
use holdfast_proto::node::{
    BackendHealth, BackendStatus, Cell, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter,
};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, PgId, ShardId};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Counts what was done to calls.
const INJECTED: &str = "holdfast_faults_injected_total";

/// Another backend, with faults. While none is set a call costs one look at a flag more.
pub struct Faulty<B> {
    inner: B,
    control: Arc<Control>,
}

/// Sets the faults of a backend that somebody else holds.
#[derive(Debug)]
pub struct FaultHandle(Weak<Control>);

#[derive(Debug)]
struct Control {
    backend: BackendId,
    /// Whether there is anything in `state` to look at.
    is_on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    plan: DiskPlan,
    seed: u64,
    dice: Arc<Dice>,
    is_poisoned: bool,
}

impl<B: Backend> Faulty<B> {
    /// Lets `inner` fail as `plan` says; equal seeds and calls fail equally.
    pub fn new(inner: B, plan: DiskPlan, seed: u64) -> Self {
        let state = State { plan, seed, dice: Arc::new(Dice::new(seed)), is_poisoned: false };
        let is_on = AtomicBool::new(plan != DiskPlan::default());
        Self { control: Arc::new(Control { backend: inner.id(), is_on, state: Mutex::new(state) }), inner }
    }

    /// Replaces the plan from now on; the dice go on. A poisoned backend stays so.
    pub fn set(&self, plan: DiskPlan) {
        let seed = self.control.state.lock().seed;
        self.control.set(plan, seed);
    }

    /// To set its faults from elsewhere.
    pub fn handle(&self) -> FaultHandle {
        FaultHandle(Arc::downgrade(&self.control))
    }

    /// The backend inside.
    pub fn inner(&self) -> &B {
        &self.inner
    }
}

impl FaultHandle {
    /// Replaces plan and seed from now on, if the backend is still held. Equal ones go on where they were.
    pub fn set(&self, plan: DiskPlan, seed: u64) {
        if let Some(control) = self.0.upgrade() {
            control.set(plan, seed);
        }
    }

    /// Whether somebody still holds the backend.
    pub fn is_in_use(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Control {
    fn set(&self, plan: DiskPlan, seed: u64) {
        let mut state = self.state.lock();
        if state.seed != seed {
            (state.seed, state.dice) = (seed, Arc::new(Dice::new(seed)));
        }
        state.plan = plan;
        self.is_on.store(state.is_poisoned || plan != DiskPlan::default(), Ordering::Release);
    }

    /// The plan and its dice; `None` while nothing is to go wrong.
    fn plan(&self) -> Option<(DiskPlan, Arc<Dice>)> {
        if !self.is_on.load(Ordering::Acquire) {
            return None;
        }
        let state = self.state.lock();
        Some((state.plan, state.dice.clone()))
    }

    /// Whether a fault of this kind happens now.
    fn falls(&self, kind: &'static str, chance: impl FnOnce(&DiskPlan) -> f64) -> bool {
        let falls = self.plan().is_some_and(|(plan, dice)| dice.falls(chance(&plan)));
        if falls {
            metrics::counter!(INJECTED, "kind" => kind).increment(1);
        }
        falls
    }

    fn pick(&self, below: usize) -> usize {
        self.plan().map_or(0, |(_, dice)| dice.pick(below))
    }

    async fn enter(&self) -> Result<(), ShardError> {
        let Some((plan, _)) = self.plan() else { return Ok(()) };
        if self.falls("disk-delay", |plan| plan.delayed) {
            tokio::time::sleep(plan.delay).await;
        }
        if plan.missing {
            return Err(ShardError::Unavailable { backend: self.backend, reason: "its directory is gone".to_owned() });
        }
        Ok(())
    }

    async fn enter_to_read(&self) -> Result<(), ShardError> {
        self.enter().await?;
        if self.falls("disk-error", |plan| plan.read_error) { Err(self.io_error("read shard")) } else { Ok(()) }
    }

    async fn enter_to_write(&self) -> Result<(), ShardError> {
        self.enter().await?;
        if self.plan().is_some() && self.state.lock().is_poisoned {
            return Err(ShardError::ReadOnly { backend: self.backend, reason: "an injected sync failed".to_owned() });
        }
        Ok(())
    }

    fn io_error(&self, action: &str) -> ShardError {
        ShardError::Io { backend: self.backend, action: action.to_owned(), reason: "injected fault".to_owned() }
    }

    fn flip_a_bit(&self, bytes: &Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes.clone();
        }
        let bit = self.pick(bytes.len() * 8);
        let mut flipped = BytesMut::from(&bytes[..]);
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped.freeze()
    }
}

struct FaultyWriter {
    inner: Box<dyn ShardWriter>,
    control: Arc<Control>,
}

#[async_trait]
impl ShardWriter for FaultyWriter {
    async fn append(&mut self, mut cells: Vec<Cell>) -> Result<(), ShardError> {
        self.control.enter_to_write().await?;
        if self.control.falls("disk-error", |plan| plan.write_error) {
            return Err(self.control.io_error("write shard"));
        }
        for cell in &mut cells {
            if self.control.falls("bit-flip", |plan| plan.flip_written) {
                cell.bytes = self.control.flip_a_bit(&cell.bytes);
            }
        }
        self.inner.append(cells).await
    }

    async fn finish(self: Box<Self>) -> Result<ShardStat, ShardError> {
        let Self { inner, control } = *self;
        control.enter_to_write().await?;
        if control.falls("fsync-error", |plan| plan.sync_error) {
            control.state.lock().is_poisoned = true;
            return Err(control.io_error("sync extent"));
        }
        inner.finish().await
    }
}

#[async_trait]
impl<B: Backend> Backend for Faulty<B> {
    fn id(&self) -> BackendId {
        self.inner.id()
    }

    async fn begin(&self, header: ShardHeader) -> Result<Box<dyn ShardWriter>, ShardError> {
        self.control.enter_to_write().await?;
        if self.control.falls("disk-full", |plan| plan.full) {
            return Err(ShardError::Full { backend: self.id(), free_bytes: 0, reserve_bytes: 0 });
        }
        let inner = self.inner.begin(header).await?;
        Ok(Box::new(FaultyWriter { inner, control: self.control.clone() }))
    }

    async fn read(
        &self,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        self.control.enter_to_read().await?;
        let mut read = self.inner.read(shard, first, count, expected_root).await?;
        if count > 0 && self.control.falls("bit-flip-read", |plan| plan.flip_read) {
            let index = u32::try_from(self.control.pick(count as usize)).unwrap_or(0);
            damage(&mut read, first, index);
        }
        Ok(read)
    }

    async fn stat(&self, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        self.control.enter_to_read().await?;
        self.inner.stat(shard).await
    }

    async fn delete(&self, shards: Vec<ShardId>) -> Result<(), ShardError> {
        self.control.enter_to_write().await?;
        self.inner.delete(shards).await
    }

    async fn list(&self, pg: PgId, after: Option<ShardId>, limit: usize) -> Result<Vec<ShardStat>, ShardError> {
        self.control.enter_to_read().await?;
        self.inner.list(pg, after, limit).await
    }

    async fn scrub(&self, after: Option<ShardId>, budget_bytes: u64) -> Result<ScrubStep, ShardError> {
        self.control.enter_to_read().await?;
        self.inner.scrub(after, budget_bytes).await
    }

    async fn status(&self) -> BackendStatus {
        let mut status = self.inner.status().await;
        let state = self.control.state.lock();
        if state.plan.missing {
            (status.health, status.reason) = (BackendHealth::Missing, "injected: its directory is gone".to_owned());
        } else if state.is_poisoned {
            (status.health, status.reason) = (BackendHealth::ReadOnly, "injected: a sync failed".to_owned());
        }
        status
    }

    async fn close(&self) -> Result<(), ShardError> {
        self.inner.close().await
    }
}

/// Makes cell `first + index` a damaged one, as the contract has them: zeros, and listed in order.
fn damage(read: &mut ShardRead, first: u32, index: u32) {
    let cell_bytes = read.header.cell_bytes as usize;
    let begin = (index as usize * cell_bytes).min(read.bytes.len());
    let end = (begin + cell_bytes).min(read.bytes.len());
    let mut bytes = BytesMut::from(&read.bytes[..]);
    bytes[begin..end].fill(0);
    read.bytes = bytes.freeze();
    read.damaged.push(first + index);
    read.damaged.sort_unstable();
    read.damaged.dedup();
}
