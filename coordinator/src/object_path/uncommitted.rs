//! The shards a request has written and nobody refers to yet: kept when the record is durable, deleted when the request
//! fails or its client goes away.
//!
//! Shell: deletes in a task of its own. Deleting is best effort; the orphan sweep takes what is left (a crash, a backend
//! away, a shard that became durable after its deletion).
//!
//! **Invariant:** shards are deleted only while it is certain that no record refers to them.

use super::in_flight::InFlightGuard;
use holdfast_proto::node::NodeClient;
use holdfast_proto::{BackendId, Epoch, PgId, SegmentId, ShardId, Slot};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A backend that does not delete in this time keeps its shards until the orphan sweep.
const DELETE_TIMEOUT: Duration = Duration::from_secs(60);

const UNDECIDED: u8 = 0;
const KEPT: u8 = 1;
const ABANDONED: u8 = 2;

/// One segment from its first shard until nobody works on it any more. In flight as long as anyone holds it.
pub(crate) struct SegmentLife {
    pub(crate) id: SegmentId,
    pub(crate) pg: PgId,
    /// The backend of each slot.
    pub(crate) targets: Vec<BackendId>,
    /// Of the map that says so.
    pub(crate) epoch: Epoch,
    /// Other backends that were asked to take a slot's shard in.
    stand_ins: Mutex<Vec<(usize, BackendId)>>,
    fate: AtomicU8,
    _in_flight: InFlightGuard,
}

impl SegmentLife {
    /// A segment of a PG whose slots are at `targets`, by the map it was entered under.
    pub(crate) fn new(
        id: SegmentId,
        (pg, targets): (PgId, Vec<BackendId>),
        epoch: Epoch,
        in_flight: InFlightGuard,
    ) -> Self {
        let stand_ins = Mutex::default();
        Self { id, pg, targets, epoch, stand_ins, fate: AtomicU8::new(UNDECIDED), _in_flight: in_flight }
    }
    /// Notes, before it is asked, that a backend may get the shard of a slot that is not its own.
    pub(crate) fn note_stand_in(&self, slot: usize, backend: BackendId) {
        self.stand_ins.lock().push((slot, backend));
    }
    /// Every place where one of its shards may be.
    fn places(&self) -> Vec<(usize, BackendId)> {
        self.targets.iter().copied().enumerate().chain(self.stand_ins.lock().iter().copied()).collect()
    }
    /// The shard in a slot.
    pub(crate) fn shard(&self, slot: usize) -> ShardId {
        // Slots come from a scheme, which has at most 255.
        ShardId { pg: self.pg, segment: self.id, slot: Slot(u8::try_from(slot).unwrap_or(u8::MAX)) }
    }
    /// Whether a record refers to it.
    pub(crate) fn is_kept(&self) -> bool {
        self.fate.load(Ordering::Acquire) == KEPT
    }
    /// Whether nobody will ever refer to it.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.fate.load(Ordering::Acquire) == ABANDONED
    }
    fn decide(&self, fate: u8) {
        self.fate.store(fate, Ordering::Release);
    }
}

/// The segments of a request. Dropped before a record was proposed, it ends the tasks that write them and deletes their
/// shards.
pub(crate) struct Uncommitted {
    node: Arc<dyn NodeClient>,
    lives: Vec<Arc<SegmentLife>>,
    /// Ended before the shards are deleted, so that no writer of ours makes one afterwards.
    writers: Vec<JoinHandle<()>>,
    is_proposed: bool,
}

impl Uncommitted {
    pub(crate) fn new(node: Arc<dyn NodeClient>) -> Self {
        Self { node, lives: Vec::new(), writers: Vec::new(), is_proposed: false }
    }
    /// Takes charge of a segment and of the task that writes it.
    pub(crate) fn add(&mut self, life: Arc<SegmentLife>, writer: JoinHandle<()>) {
        self.lives.push(life);
        self.writers.push(writer);
    }
    /// Whether no segment was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.lives.is_empty()
    }
    /// One of its segments.
    pub(crate) fn life(&self, segment: SegmentId) -> Option<&SegmentLife> {
        self.lives.iter().find(|life| life.id == segment).map(AsRef::as_ref)
    }
    /// A record that refers to it is about to be proposed: from here on, dropping it undecided (a panic, the end of the
    /// process) leaves its shards alone.
    pub(crate) fn begin_proposal(&mut self) {
        self.is_proposed = true;
    }
    /// It is certain that no record refers to it, nor will: deletes its shards.
    pub(crate) fn give_up(mut self) {
        self.is_proposed = false;
    }
    /// A durable record refers to all of it.
    pub(crate) fn keep(self) {
        self.settle(KEPT);
    }
    /// It is not known whether a record refers to it: hands off. If none does, the orphan sweep finds out.
    pub(crate) fn leave(self) {
        self.settle(UNDECIDED);
    }
    fn settle(mut self, fate: u8) {
        for life in std::mem::take(&mut self.lives) {
            life.decide(fate);
        }
        self.writers.clear();
    }
}

impl Drop for Uncommitted {
    fn drop(&mut self) {
        let (lives, writers) = (std::mem::take(&mut self.lives), std::mem::take(&mut self.writers));
        if lives.is_empty() || self.is_proposed {
            return;
        }
        for life in &lives {
            life.decide(ABANDONED);
        }
        for writer in &writers {
            writer.abort();
        }
        // Without a runtime the process is ending; the orphan sweep of the next start takes over.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let node = self.node.clone();
        runtime.spawn(async move {
            for writer in writers {
                // Cancelled or done, either is an end.
                let _ = writer.await;
            }
            delete_all(&*node, &lives).await;
        });
    }
}

async fn delete_all(node: &dyn NodeClient, lives: &[Arc<SegmentLife>]) {
    let mut shards: BTreeMap<BackendId, Vec<ShardId>> = BTreeMap::new();
    for life in lives {
        for (slot, backend) in life.places() {
            shards.entry(backend).or_default().push(life.shard(slot));
        }
    }
    // All at once, and not for ever: while this waits the segments count as in flight, and moves wait for those.
    let deletions = shards.into_iter().map(|(backend, shards)| async move {
        match timeout(DELETE_TIMEOUT, node.delete_shards(backend, shards, None)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%backend, %error, "delete shards of a failed write"),
            Err(_) => tracing::debug!(%backend, "delete shards of a failed write: no answer"),
        }
    });
    futures::future::join_all(deletions).await;
}
