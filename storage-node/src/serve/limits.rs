//! What one caller, and all together, may have under way at a node.
//!
//! **Invariant:** a caller that floods the node is told `Busy` or waits; what it holds is bounded by these numbers, and
//! the others go on.

use holdfast_proto::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits are of so many bytes.
const UNIT_BYTES: u64 = 4096;

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// Shards one caller may be writing; more are `Busy`. Each holds at most a frame (1 MiB): 512 MiB at worst, a tenth
    /// of that in practice, for an upload sends 256 KiB at a time.
    pub writers_per_caller: usize,
    /// Bytes one caller's reads may hold; more wait.
    pub read_bytes_per_caller: u64,
    /// Bytes all reads may hold; more wait.
    pub read_bytes: u64,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self { writers_per_caller: 512, read_bytes_per_caller: 64 << 20, read_bytes: 256 << 20 }
    }
}

/// The limits and how far they are used.
pub(super) struct Limits {
    options: ServeLimits,
    reads: Arc<Semaphore>,
    callers: Mutex<BTreeMap<NodeId, Caller>>,
    pub(super) load: Arc<Load>,
}

#[derive(Clone)]
struct Caller {
    writers: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

/// How busy the node is.
#[derive(Default)]
pub(super) struct Load {
    pub(super) writers: AtomicU64,
    pub(super) calls: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// Counts something until dropped.
pub(super) struct Counted {
    load: Arc<Load>,
    counter: fn(&Load) -> &AtomicU64,
    amount: u64,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Limits {
    pub(super) fn new(options: ServeLimits) -> Self {
        let reads = Arc::new(Semaphore::new(units(options.read_bytes)));
        Self { options, reads, callers: Mutex::default(), load: Arc::default() }
    }

    fn caller(&self, node: NodeId) -> Caller {
        // Numbers of nodes come from certificates: there are as many as the cluster has nodes.
        let mut callers = self.callers.lock();
        let fresh = || Caller {
            writers: Arc::new(Semaphore::new(self.options.writers_per_caller)),
            reads: Arc::new(Semaphore::new(units(self.options.read_bytes_per_caller))),
        };
        callers.entry(node).or_insert_with(fresh).clone()
    }

    /// A call.
    pub(super) fn call(&self) -> Counted {
        self.count(|load| &load.calls, 1, Vec::new())
    }

    /// Bytes taken in.
    pub(super) fn bytes(&self, amount: u64) -> Counted {
        self.count(|load| &load.bytes, amount, Vec::new())
    }

    /// A writer, or how many the caller has already.
    pub(super) fn writer(&self, node: NodeId) -> Result<Counted, usize> {
        let permit = self.caller(node).writers.try_acquire_owned().map_err(|_| self.options.writers_per_caller)?;
        Ok(self.count(|load| &load.writers, 1, vec![permit]))
    }

    /// Room for a read of about `bytes`, when there is some.
    pub(super) async fn read(&self, node: NodeId, bytes: u64) -> Counted {
        let mut permits = Vec::new();
        for (semaphore, most) in [
            (self.caller(node).reads, self.options.read_bytes_per_caller),
            (self.reads.clone(), self.options.read_bytes),
        ] {
            let wanted = u32::try_from(units(bytes.min(most))).unwrap_or(u32::MAX);
            // Never closed.
            permits.extend(semaphore.acquire_many_owned(wanted).await.ok());
        }
        self.count(|load| &load.bytes, bytes, permits)
    }

    fn count(&self, counter: fn(&Load) -> &AtomicU64, amount: u64, permits: Vec<OwnedSemaphorePermit>) -> Counted {
        counter(&self.load).fetch_add(amount, Ordering::Relaxed);
        Counted { load: self.load.clone(), counter, amount, _permits: permits }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.counter)(&self.load).fetch_sub(self.amount, Ordering::Relaxed);
    }
}

/// Rounded up.
fn units(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(UNIT_BYTES).max(1)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}
