//! Repairs one segment: looks at it afresh, plans, copies and rebuilds, looks again.
//!
//! **Invariant:** idempotent and fenced. The plan is made from the newest record, table and health at the moment of its
//! execution; what was queued is only a reason to look. A segment counts as settled only when every shard was seen at
//! its target after the writing.

use super::shard_copy::{ShardSource, copy_shard, verify_shard};
use super::shared::{Shared, as_ms};
use crate::metadata::SegmentOwner;
use crate::object_path::RebuildContext;
use crate::repair::{Holding, Reach, SegmentPlan, SegmentShape, WorkItem, plan_segment};
use holdfast_proto::manifest::Segment;
use holdfast_proto::pg_table::Pg;
use holdfast_proto::{BackendId, Slot};
use std::collections::BTreeSet;
use std::time::Duration;

/// What became of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every shard is at its target.
    Settled { margin: i32, bytes_written: u64 },
    /// What could be written was; the rest waits for a backend.
    Blocked { margin: i32, bytes_written: u64 },
    /// It no longer exists.
    Gone,
    /// A request is still writing it.
    BeingWritten,
    /// It could not be repaired now.
    Failed { reason: String },
}

/// Looks at a segment and repairs it.
pub(crate) async fn repair_segment(shared: &Shared, item: &WorkItem) -> Outcome {
    let begun_ms = shared.now_ms();
    let outcome = match look_and_repair(shared, item).await {
        Ok(outcome) => outcome,
        Err(reason) => Outcome::Failed { reason },
    };
    if let Outcome::Settled { bytes_written, .. } | Outcome::Blocked { bytes_written, .. } = outcome {
        pace(shared, item.margin, bytes_written, shared.now_ms().saturating_sub(begun_ms)).await;
    }
    outcome
}

async fn look_and_repair(shared: &Shared, item: &WorkItem) -> Result<Outcome, String> {
    // In this order: a write makes its record before it stops being in flight.
    let is_in_flight = shared.may_be_written(item.segment).await;
    let found = shared.metadata.segment_owner(item.segment).await.map_err(|e| format!("read its record: {e}"))?;
    let (owner, segment) = match found {
        _ if is_in_flight => return Ok(Outcome::BeingWritten),
        None => return Ok(Outcome::Gone),
        Some(found) => found,
    };
    let shape = SegmentShape::read(&segment).map_err(|e| e.to_string())?;
    let map = shared.layout.current();
    let pg = map.table.pg(shape.pg).ok_or_else(|| format!("PG {} is not in the table", shape.pg))?;
    let reach = shared.reach();
    let mut holdings = find_copies(shared, &shape, pg, &reach).await;
    verify_suspects(shared, &segment, &shape, item.suspects, &mut holdings).await;
    let plan = plan_segment(&shape, pg, &holdings, &reach);
    let bytes_written = execute_plan(shared, &owner, &segment, &shape, &plan).await?;
    let end = match bytes_written {
        0 => plan,
        _ => plan_segment(&shape, pg, &find_copies(shared, &shape, pg, &reach).await, &reach),
    };
    record_durable(shared, &shape, &end).await;
    if end.has_work() {
        let missing: Vec<String> = missing_slots(&end).iter().map(u8::to_string).collect();
        return Err(format!("shards of slots {} are still not at their target", missing.join(", ")));
    }
    match end.is_settled() {
        true => Ok(Outcome::Settled { margin: end.margin, bytes_written }),
        false => Ok(Outcome::Blocked { margin: end.margin, bytes_written }),
    }
}

fn missing_slots(plan: &SegmentPlan) -> Vec<u8> {
    plan.copies.iter().map(|c| c.slot.0).chain(plan.rebuilds.iter().map(|(slot, _)| slot.0)).collect()
}

/// Asks for each slot where the table says; for one not found there, everywhere.
async fn find_copies(shared: &Shared, shape: &SegmentShape, pg: &Pg, reach: &Reach) -> Vec<Holding> {
    let mut found = Vec::new();
    for slot in shape.slots() {
        let index = usize::from(slot.0);
        let wanted: BTreeSet<BackendId> =
            [pg.target.get(index), pg.committed.get(index)].into_iter().flatten().copied().collect();
        let (near, far): (Vec<_>, Vec<_>) = reach.readable().partition(|b| wanted.contains(b));
        for places in [near, far] {
            for backend in places {
                found.extend(stat(shared, shape, slot, backend).await);
            }
            if found.iter().any(|h: &Holding| h.slot == slot && h.is_good) {
                break;
            }
        }
    }
    found
}

async fn stat(shared: &Shared, shape: &SegmentShape, slot: Slot, backend: BackendId) -> Option<Holding> {
    // A backend that cannot be asked holds nothing for now: its health is the probe's business.
    let stat = shared.node.stat_shard(backend, shape.shard(slot)).await.ok()??;
    let is_good = shape.root(slot) == Some(&stat.root) && stat.shard_bytes == shape.shard_bytes;
    Some(Holding { slot, backend, is_good })
}

/// Reads copies that were reported damaged; those that fail no longer count as there.
async fn verify_suspects(
    shared: &Shared,
    segment: &Segment,
    shape: &SegmentShape,
    suspects: u64,
    holdings: &mut [Holding],
) {
    for holding in holdings.iter_mut().filter(|h| h.is_good && suspects & (1 << h.slot.0) != 0) {
        let Some(source) = source(segment, shape, holding.slot, holding.backend) else { continue };
        if let Err(error) = verify_shard(&*shared.node, &source).await {
            tracing::warn!(backend = %shared.backend_name(holding.backend), shard = %source.shard, %error, "shard damaged");
            metrics::counter!("holdfast_repair_damaged_shards_total").increment(1);
            holding.is_good = false;
        }
    }
}

fn source(segment: &Segment, shape: &SegmentShape, slot: Slot, backend: BackendId) -> Option<ShardSource> {
    Some(ShardSource {
        shard: shape.shard(slot),
        backend,
        shard_bytes: shape.shard_bytes,
        cell_bytes: segment.cell_bytes,
        root: *shape.root(slot)?,
    })
}

/// Carries out copies, then rebuilds. A copy whose source fails becomes a rebuild.
async fn execute_plan(
    shared: &Shared,
    owner: &SegmentOwner,
    segment: &Segment,
    shape: &SegmentShape,
    plan: &SegmentPlan,
) -> Result<u64, String> {
    let mut rebuilds = plan.rebuilds.clone();
    let (mut shards, mut bytes) = (0u64, 0u64);
    let epoch = shared.layout.current().table.epoch;
    for copy in &plan.copies {
        let Some(source) = source(segment, shape, copy.slot, copy.from) else { continue };
        match copy_shard(&*shared.node, &source, copy.to, epoch).await {
            Ok(copied) => {
                shards += 1;
                bytes += copied;
            }
            Err(error) => {
                tracing::warn!(shard = %source.shard, from = %copy.from, to = %copy.to, %error, "copy failed, rebuilding");
                rebuilds.push((copy.slot, copy.to));
            }
        }
    }
    let mut failure = None;
    if !rebuilds.is_empty() {
        let key_hash = *blake3::hash(owner.key.as_bytes()).as_bytes();
        let context = RebuildContext { bucket: owner.bucket, key_hash, version: owner.version };
        match shared.rebuilder.rebuild(segment, context, &rebuilds).await {
            Ok(rebuilt) => {
                shards += u64::try_from(rebuilds.len()).unwrap_or(0);
                bytes += rebuilt;
            }
            Err(error) => failure = Some(error.to_string()),
        }
    }
    metrics::counter!("holdfast_repair_shards_written_total").increment(shards);
    metrics::counter!("holdfast_repair_bytes_written_total").increment(bytes);
    failure.map_or(Ok(bytes), Err)
}

/// Writes down which slots are durable now, if the record says fewer.
async fn record_durable(shared: &Shared, shape: &SegmentShape, plan: &SegmentPlan) {
    let durable = shape.durable_slots | plan.at_target;
    if durable == shape.durable_slots {
        return;
    }
    if let Err(error) = shared.metadata.segment_set_durable(shape.id, durable).await {
        tracing::warn!(segment = %shape.id, %error, "record repaired shards");
    }
}

/// Keeps to the budget, and rests in proportion to the work unless the segment could not have lost another shard.
async fn pace(shared: &Shared, margin: i32, bytes_written: u64, took_ms: u64) {
    let budget_ms = shared.repair.lock().budget.spend(bytes_written, shared.now_ms());
    let ratio = if margin <= 0 { 0.0 } else { shared.options.repair_rest_ratio.clamp(0.0, 10.0) };
    let rest = Duration::from_millis(took_ms).mul_f64(ratio);
    let wait = rest.max(Duration::from_millis(budget_ms));
    if as_ms(wait) > 0 {
        shared.rest(wait).await;
    }
}
