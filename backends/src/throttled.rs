//! A backend made slower: a limit on bytes per second and a delay per call. For tests of slow disks, and to hold a
//! backend to a share of a device.

use crate::backend::Backend;
use async_trait::async_trait;
use holdfast_proto::node::{BackendStatus, Cell, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, PgId, ShardId};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    /// Bytes of cells per second, reads and writes together; `None` for no limit.
    pub bytes_per_second_max: Option<u64>,
    /// Added to every call.
    pub latency: Duration,
}

/// Another backend, slower.
pub struct Throttled<B> {
    inner: B,
    pace: Arc<Pace>,
}

impl<B: Backend> Throttled<B> {
    /// Slows `inner` down.
    pub fn new(inner: B, throttle: Throttle) -> Self {
        Self { inner, pace: Arc::new(Pace { throttle: Mutex::new(throttle), free_at: Mutex::new(None) }) }
    }

    /// Sets how slow it is from now on.
    pub fn set(&self, throttle: Throttle) {
        *self.pace.throttle.lock() = throttle;
    }

    /// The backend inside.
    pub fn inner(&self) -> &B {
        &self.inner
    }
}

/// Gives each call its turn: a byte goes through when those before it have.
struct Pace {
    throttle: Mutex<Throttle>,
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    async fn pass(&self, bytes: u64) {
        let until = self.turn(bytes, Instant::now());
        tokio::time::sleep_until(until).await;
    }

    /// When the bytes are through if they come at `now`.
    fn turn(&self, bytes: u64, now: Instant) -> Instant {
        let throttle = *self.throttle.lock();
        let mut free_at = self.free_at.lock();
        let begin = free_at.map_or(now, |free_at| free_at.max(now));
        let seconds = throttle.bytes_per_second_max.map_or(0.0, |rate| bytes as f64 / rate.max(1) as f64);
        let end = begin + Duration::from_secs_f64(seconds);
        *free_at = Some(end);
        end + throttle.latency
    }
}

struct ThrottledWriter {
    inner: Box<dyn ShardWriter>,
    pace: Arc<Pace>,
}

#[async_trait]
impl ShardWriter for ThrottledWriter {
    async fn append(&mut self, cells: Vec<Cell>) -> Result<(), ShardError> {
        self.pace.pass(cells.iter().map(|cell| cell.bytes.len() as u64).sum()).await;
        self.inner.append(cells).await
    }

    async fn finish(self: Box<Self>) -> Result<ShardStat, ShardError> {
        self.pace.pass(0).await;
        self.inner.finish().await
    }
}

#[async_trait]
impl<B: Backend> Backend for Throttled<B> {
    fn id(&self) -> BackendId {
        self.inner.id()
    }

    async fn begin(&self, header: ShardHeader) -> Result<Box<dyn ShardWriter>, ShardError> {
        self.pace.pass(0).await;
        let inner = self.inner.begin(header).await?;
        Ok(Box::new(ThrottledWriter { inner, pace: self.pace.clone() }))
    }

    async fn read(
        &self,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        let read = self.inner.read(shard, first, count, expected_root).await?;
        self.pace.pass(read.bytes.len() as u64).await;
        Ok(read)
    }

    async fn stat(&self, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        self.pace.pass(0).await;
        self.inner.stat(shard).await
    }

    async fn delete(&self, shards: Vec<ShardId>) -> Result<(), ShardError> {
        self.pace.pass(0).await;
        self.inner.delete(shards).await
    }

    async fn list(&self, pg: PgId, after: Option<ShardId>, limit: usize) -> Result<Vec<ShardStat>, ShardError> {
        self.pace.pass(0).await;
        self.inner.list(pg, after, limit).await
    }

    async fn scrub(&self, after: Option<ShardId>, budget_bytes: u64) -> Result<ScrubStep, ShardError> {
        let step = self.inner.scrub(after, budget_bytes).await?;
        self.pace.pass(step.bytes).await;
        Ok(step)
    }

    async fn status(&self) -> BackendStatus {
        self.inner.status().await
    }

    async fn close(&self) -> Result<(), ShardError> {
        self.inner.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_queue_up_and_latency_does_not() {
        let throttle = Throttle { bytes_per_second_max: Some(1000), latency: Duration::from_millis(5) };
        let pace = Pace { throttle: Mutex::new(throttle), free_at: Mutex::new(None) };
        let now = Instant::now();
        let ms = |ms| now + Duration::from_millis(ms);
        assert_eq!(pace.turn(500, now), ms(505));
        assert_eq!(pace.turn(500, now), ms(1005));
        assert_eq!(pace.turn(0, ms(2000)), ms(2005));
    }
}
