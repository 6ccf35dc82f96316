//! A backend that fails as told: errors on read, write and sync, flipped bits, a full disk, delays. Which call fails
//! follows from a seed, so that a run can be repeated.

use crate::backend::Backend;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use holdfast_proto::node::{
    BackendHealth, BackendStatus, Cell, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter,
};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, PgId, ShardId};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::time::Duration;

/// What goes wrong, each with a chance from 0 (never) to 1 (always).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaultPlan {
    /// A read, listing or look-up answers an IO error.
    pub read_error: f64,
    /// Taking cells answers an IO error.
    pub write_error: f64,
    /// `finish` answers an IO error, and from then on the backend is read-only, as a disk is after a failed sync.
    pub sync_error: f64,
    /// A bit of a cell is flipped on its way to the disk, for good.
    pub flip_written: f64,
    /// A cell comes back damaged, this time.
    pub flip_read: f64,
    /// `begin` answers that there is no room.
    pub full: f64,
    /// A call is held up by `delay`.
    pub delayed: f64,
    /// How long.
    pub delay: Duration,
    /// Its directory is gone: nothing works.
    pub missing: bool,
}

/// Another backend, with faults.
pub struct Faulty<B> {
    inner: B,
    dice: Arc<Dice>,
}

struct Dice {
    backend: BackendId,
    state: Mutex<State>,
}

struct State {
    plan: FaultPlan,
    random: StdRng,
    is_poisoned: bool,
}

impl<B: Backend> Faulty<B> {
    /// Lets `inner` fail as `plan` says; equal seeds and calls fail equally.
    pub fn new(inner: B, plan: FaultPlan, seed: u64) -> Self {
        let state = State { plan, random: StdRng::seed_from_u64(seed), is_poisoned: false };
        Self { dice: Arc::new(Dice { backend: inner.id(), state: Mutex::new(state) }), inner }
    }

    /// Replaces the plan from now on. A poisoned backend stays so.
    pub fn set(&self, plan: FaultPlan) {
        self.dice.state.lock().plan = plan;
    }

    /// The backend inside.
    pub fn inner(&self) -> &B {
        &self.inner
    }
}

impl Dice {
    fn falls(&self, chance: impl FnOnce(&FaultPlan) -> f64) -> bool {
        let mut state = self.state.lock();
        let chance = chance(&state.plan).clamp(0.0, 1.0);
        chance > 0.0 && state.random.random_bool(chance)
    }

    fn pick(&self, below: usize) -> usize {
        self.state.lock().random.random_range(0..below.max(1))
    }

    async fn enter(&self) -> Result<(), ShardError> {
        if self.falls(|plan| plan.delayed) {
            let delay = self.state.lock().plan.delay;
            tokio::time::sleep(delay).await;
        }
        if self.state.lock().plan.missing {
            return Err(ShardError::Unavailable { backend: self.backend, reason: "its directory is gone".to_owned() });
        }
        Ok(())
    }

    async fn enter_to_read(&self) -> Result<(), ShardError> {
        self.enter().await?;
        if self.falls(|plan| plan.read_error) { Err(self.io_error("read shard")) } else { Ok(()) }
    }

    async fn enter_to_write(&self) -> Result<(), ShardError> {
        self.enter().await?;
        if self.state.lock().is_poisoned {
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
    dice: Arc<Dice>,
}

#[async_trait]
impl ShardWriter for FaultyWriter {
    async fn append(&mut self, mut cells: Vec<Cell>) -> Result<(), ShardError> {
        self.dice.enter_to_write().await?;
        if self.dice.falls(|plan| plan.write_error) {
            return Err(self.dice.io_error("write shard"));
        }
        for cell in &mut cells {
            if self.dice.falls(|plan| plan.flip_written) {
                cell.bytes = self.dice.flip_a_bit(&cell.bytes);
            }
        }
        self.inner.append(cells).await
    }

    async fn finish(self: Box<Self>) -> Result<ShardStat, ShardError> {
        let Self { inner, dice } = *self;
        dice.enter_to_write().await?;
        if dice.falls(|plan| plan.sync_error) {
            dice.state.lock().is_poisoned = true;
            return Err(dice.io_error("sync extent"));
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
        self.dice.enter_to_write().await?;
        if self.dice.falls(|plan| plan.full) {
            return Err(ShardError::Full { backend: self.id(), free_bytes: 0, reserve_bytes: 0 });
        }
        let inner = self.inner.begin(header).await?;
        Ok(Box::new(FaultyWriter { inner, dice: self.dice.clone() }))
    }

    async fn read(
        &self,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        self.dice.enter_to_read().await?;
        let mut read = self.inner.read(shard, first, count, expected_root).await?;
        if count > 0 && self.dice.falls(|plan| plan.flip_read) {
            let index = u32::try_from(self.dice.pick(count as usize)).unwrap_or(0);
            damage(&mut read, first, index);
        }
        Ok(read)
    }

    async fn stat(&self, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        self.dice.enter_to_read().await?;
        self.inner.stat(shard).await
    }

    async fn delete(&self, shards: Vec<ShardId>) -> Result<(), ShardError> {
        self.dice.enter_to_write().await?;
        self.inner.delete(shards).await
    }

    async fn list(&self, pg: PgId, after: Option<ShardId>, limit: usize) -> Result<Vec<ShardStat>, ShardError> {
        self.dice.enter_to_read().await?;
        self.inner.list(pg, after, limit).await
    }

    async fn scrub(&self, after: Option<ShardId>, budget_bytes: u64) -> Result<ScrubStep, ShardError> {
        self.dice.enter_to_read().await?;
        self.inner.scrub(after, budget_bytes).await
    }

    async fn status(&self) -> BackendStatus {
        let mut status = self.inner.status().await;
        let state = self.dice.state.lock();
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
