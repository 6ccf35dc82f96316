//! Frees shards that no segment accounts for: of uploads that died, and of objects deleted while a backend was away.
//!
//! **Invariant:** a shard is freed only if nobody writes its segment, nobody may still read it as fresh garbage, it is
//! old enough, and metadata, asked last, knows no owner.

use super::shared::{Shared, as_ms};
use crate::repair::Unowned;
use holdfast_proto::{BackendId, SegmentId, ShardId};
use std::collections::BTreeMap;

/// Looks at shards that an inventory could not account for. Returns how many were freed on each backend; `None` if nobody
/// could be sure what coordinators are writing, so that all were left alone.
pub(crate) async fn sweep(shared: &Shared, unowned: Vec<Unowned>) -> Option<BTreeMap<BackendId, u64>> {
    let mut segments: BTreeMap<SegmentId, Vec<Unowned>> = BTreeMap::new();
    for found in unowned {
        segments.entry(found.shard.segment).or_default().push(found);
    }
    let mut orphans: BTreeMap<BackendId, Vec<ShardId>> = BTreeMap::new();
    if segments.is_empty() {
        return Some(BTreeMap::new());
    }
    // In this order: a write makes its record before it stops being in flight.
    let activity = shared.activity().await?;
    let is_in_use = |segment: &SegmentId| activity.writing.contains_key(segment) || activity.reading.contains(segment);
    for (segment, copies) in segments {
        if !is_in_use(&segment) && is_orphan(shared, segment).await {
            for copy in copies {
                orphans.entry(copy.backend).or_default().push(copy.shard);
            }
        }
    }
    let mut freed = BTreeMap::new();
    for (backend, shards) in orphans {
        let count = u64::try_from(shards.len()).unwrap_or(0);
        match shared.node.delete_shards(backend, shards, None).await {
            Ok(()) => {
                metrics::counter!("holdfast_gc_orphan_shards_freed_total").increment(count);
                tracing::info!(backend = %shared.backend_name(backend), shards = count, "orphans freed");
                freed.insert(backend, count);
            }
            Err(error) => tracing::warn!(%backend, %error, "free orphans"),
        }
    }
    Some(freed)
}

async fn is_orphan(shared: &Shared, segment: SegmentId) -> bool {
    let begun_ms = segment.unix_ms();
    // Where there is no other coordinator, what was begun before this process is written by nobody now. Else what is
    // young has time: a coordinator may have given up a record that is still on its way to being durable.
    let is_of_before = shared.is_lone_coordinator() && begun_ms < shared.started_ms;
    let is_old = is_of_before || shared.now_ms().saturating_sub(begun_ms) >= as_ms(shared.options.orphan_age);
    if !is_old || shared.garbage_waiting.lock().contains(&segment) {
        return false;
    }
    matches!(shared.metadata.segment_owner(segment).await, Ok(None))
}
