//! The loop of repair: inventory, then work most endangered first, then inventory again until nothing is left; and the
//! intake of damage that reads and writes report.
//!
//! **Invariant:** at most `repair_concurrency` segments are under repair; a fresh inventory that is due stops new work from
//! beginning, so that what has become most endangered comes first. Between two inventories there is time for work at least
//! as long as the first took, so that a flapping backend cannot keep repair from getting on.

use super::executor::{Outcome, repair_segment};
use super::scan::{ScanEnd, take_inventory};
use super::shared::{Doubt, Phase, Shared, as_ms};
use crate::object_path::DamageHint;
use crate::repair::WorkItem;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Least rest between two inventories, so that a flapping backend does not keep the indexes busy.
const INVENTORY_REST_MS: u64 = 200;
/// Wait after an inventory failed.
const INVENTORY_RETRY: Duration = Duration::from_secs(1);
/// How often to look whether writes by an older layout have ended, or whether silent coordinators answer, while moves or
/// unowned shards wait for that.
const FENCE_POLL: Duration = Duration::from_millis(500);
/// One segment may take so long (64 MiB at 128 KiB/s on each of its disks is far slower than any disk that is alive).
const SEGMENT_TIMEOUT: Duration = Duration::from_secs(600);
/// Hints taken in one go.
const HINTS_MAX: usize = 256;

/// Runs until maintenance ends.
pub(crate) async fn run(shared: Arc<Shared>) {
    while !shared.cancel.is_cancelled() {
        if is_inventory_due(&shared).await {
            let begun_ms = shared.now_ms();
            let end = tokio::select! {
                biased;
                end = take_inventory(&shared) => end,
                () = shared.cancel.cancelled() => return,
            };
            let taken_ms = shared.now_ms() - begun_ms;
            shared.repair.lock().inventory_not_before_ms = shared.now_ms() + taken_ms.max(INVENTORY_REST_MS);
            handle_inventory_end(&shared, end).await;
        }
        let done = work(&shared).await;
        let wait = {
            let mut repair = shared.repair.lock();
            // What was repaired is counted again: it settles moves, and finds what did not fit into the queue.
            repair.inventory_wanted |= done > 0 || repair.queue.take_overflow();
            repair.phase = Phase::Idle;
            next_wait(&shared, &repair)
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep(wait) => {}
            () = shared.wake.notified() => {}
            () = shared.cancel.cancelled() => return,
        }
    }
}

async fn is_inventory_due(shared: &Shared) -> bool {
    let now_ms = shared.now_ms();
    let waits_for_coordinators = shared.repair.lock().waits_for_coordinators;
    let is_fenced_now = waits_for_coordinators && shared.is_fenced(shared.layout.current().table.epoch).await;
    let mut repair = shared.repair.lock();
    if is_fenced_now {
        repair.waits_for_coordinators = false;
        repair.inventory_wanted = true;
    }
    let is_old = now_ms.saturating_sub(repair.scanned_ms) >= as_ms(shared.options.inventory_period);
    (repair.inventory_wanted || is_old) && now_ms >= repair.inventory_not_before_ms
}

/// How long nothing is to be done.
fn next_wait(shared: &Shared, repair: &super::shared::RepairState) -> Duration {
    let now_ms = shared.now_ms();
    let next_inventory = match repair.inventory_wanted {
        true => repair.inventory_not_before_ms,
        false => repair.scanned_ms + as_ms(shared.options.inventory_period),
    };
    let next_try = repair.queue.next_due_ms().filter(|_| !shared.held().repair);
    let next_ms = next_try.map_or(next_inventory, |due| due.min(next_inventory));
    let wait = Duration::from_millis(next_ms.saturating_sub(now_ms));
    if repair.waits_for_coordinators { wait.min(FENCE_POLL) } else { wait }
}

async fn handle_inventory_end(shared: &Arc<Shared>, end: ScanEnd) {
    match end {
        ScanEnd::Complete => {}
        ScanEnd::Backend { backend, reason } => {
            tracing::warn!(backend = %shared.backend_name(backend), id = %backend, reason, "inventory: backend left out");
            shared.distrust(backend);
            shared.request_inventory(Doubt::FewerShards);
        }
        ScanEnd::Metadata(error) => {
            tracing::warn!(%error, "inventory failed, trying again");
            shared.repair.lock().inventory_failure = error.to_string();
            shared.request_inventory(Doubt::None);
            shared.rest(INVENTORY_RETRY).await;
        }
    }
    shared.inventory_done.notify_waiters();
}

/// Works until the queue is empty, repair is paused, or a fresh inventory is asked for. Returns how many planned
/// segments were settled.
async fn work(shared: &Arc<Shared>) -> u64 {
    let mut running: JoinSet<(WorkItem, Outcome)> = JoinSet::new();
    let mut settled = 0;
    loop {
        while running.len() < shared.options.repair_concurrency.max(1) {
            let Some(item) = next_item(shared) else { break };
            let task = shared.clone();
            running.spawn(async move {
                let outcome = match tokio::time::timeout(SEGMENT_TIMEOUT, repair_segment(&task, &item)).await {
                    Ok(outcome) => outcome,
                    Err(_) => Outcome::Failed { reason: format!("no end within {} s", SEGMENT_TIMEOUT.as_secs()) },
                };
                (item, outcome)
            });
        }
        if running.is_empty() {
            return settled;
        }
        tokio::select! {
            biased;
            ended = running.join_next() => {
                if let Some(Ok((item, outcome))) = ended {
                    settled += handle_outcome(shared, item, outcome);
                }
            }
            () = shared.wake.notified() => {}
            () = shared.cancel.cancelled() => {
                running.shutdown().await;
                return settled;
            }
        }
    }
}

fn next_item(shared: &Shared) -> Option<WorkItem> {
    let (now_ms, held) = (shared.now_ms(), shared.held());
    // What has its full margin is only to be moved.
    let margin_max = if held.moves { shared.margin_target() - 1 } else { i32::MAX };
    let mut repair = shared.repair.lock();
    let is_inventory_due = repair.inventory_wanted && now_ms >= repair.inventory_not_before_ms;
    if held.repair || is_inventory_due || shared.cancel.is_cancelled() {
        return None;
    }
    let item = repair.queue.pop(now_ms, margin_max)?;
    repair.phase = Phase::Repairing;
    Some(item)
}

/// Accounts for what became of a segment. Returns 1 if a planned one was settled.
fn handle_outcome(shared: &Shared, item: WorkItem, outcome: Outcome) -> u64 {
    let now_ms = shared.now_ms();
    let mut repair = shared.repair.lock();
    // Items from hints were never counted in the table, others perhaps in one that is no more.
    let counted = item.counted.filter(|counted| counted.inventory == repair.inventory);
    let is_settled = match &outcome {
        Outcome::Settled { margin, bytes_written } | Outcome::Blocked { margin, bytes_written } => {
            repair.bytes_written += bytes_written;
            repair.rate.add(*bytes_written, now_ms);
            if let Some(counted) = counted {
                repair.margins.shift(counted.margin, *margin, item.segment_bytes);
                repair.margins.remove_work(item.shards_to_write, item.bytes_to_write);
            }
            matches!(outcome, Outcome::Settled { .. }) && item.counted.is_some()
        }
        Outcome::Gone => {
            if let Some(counted) = counted {
                repair.margins.forget(counted.margin, item.segment_bytes);
                repair.margins.remove_work(item.shards_to_write, item.bytes_to_write);
            }
            false
        }
        Outcome::BeingWritten => {
            repair.queue.postpone(item, now_ms);
            false
        }
        Outcome::Failed { reason } => {
            metrics::counter!("holdfast_repair_failures_total").increment(1);
            if item.attempts == 0 {
                tracing::warn!(segment = %item.segment, margin = item.margin, reason, "repair of a segment failed");
            }
            repair.queue.fail(item, reason.clone(), now_ms);
            false
        }
    };
    u64::from(is_settled)
}

/// Queues what reads and writes found missing or damaged.
pub(crate) async fn take_hints(shared: Arc<Shared>, mut hints: mpsc::Receiver<DamageHint>) {
    let mut batch = Vec::with_capacity(HINTS_MAX);
    loop {
        batch.clear();
        let taken = tokio::select! {
            biased;
            taken = hints.recv_many(&mut batch, HINTS_MAX) => taken,
            () = shared.cancel.cancelled() => return,
        };
        if taken == 0 {
            return;
        }
        // A shard on a backend that takes no writes cannot be put back there; the inventory knows of it.
        let reach = shared.reach();
        shared.suspect(batch.iter().filter(|hint| reach.can_write(hint.backend)).map(|hint| hint.shard));
    }
}
