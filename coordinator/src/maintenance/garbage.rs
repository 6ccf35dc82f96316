//! Frees the shards of deleted and overwritten objects.
//!
//! Shards are kept while a read of them is under way (for a day at most), and a little while for one about to begin, unless
//! so much waits that room is more urgent. A backend that does not answer is skipped: shards that come back with it have no
//! owner and are swept as orphans.

use super::shared::{Shared, as_ms};
use crate::metadata::{Garbage, MetadataError};
use crate::repair::SegmentShape;
use holdfast_proto::{BackendId, ShardId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// How often the queue of garbage is looked at when it is short.
const PERIOD: Duration = Duration::from_secs(1);
/// Wait after metadata or a backend failed.
const RETRY: Duration = Duration::from_secs(5);
/// A read that takes longer than this has its shards freed under it: a client that has stopped reading must not keep room
/// for ever. 5 GiB a day is 60 KiB/s.
const READ_MS_MAX: u64 = 86_400_000;
/// Shards freed in one call.
const DELETE_BATCH: usize = 2048;

/// Runs until maintenance ends.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut first_seen: HashMap<u64, u64> = HashMap::new();
    let mut wait = PERIOD;
    while shared.rest(wait).await {
        let collected = tokio::select! {
            biased;
            collected = collect(&shared, &mut first_seen) => collected,
            // What was freed and not yet forgotten is freed again after the next start, which does no harm.
            () = shared.cancel.cancelled() => return,
        };
        wait = match collected {
            Ok(true) => Duration::ZERO,
            Ok(false) => PERIOD,
            Err(error) => {
                tracing::warn!(%error, "collect garbage");
                RETRY
            }
        };
    }
}

/// One round. Returns whether there is more to do at once.
pub(crate) async fn collect(shared: &Shared, first_seen: &mut HashMap<u64, u64>) -> Result<bool, MetadataError> {
    let batch = shared.options.garbage_batch.max(1);
    let waiting = shared.metadata.garbage(batch).await?;
    let now_ms = shared.now_ms();
    metrics::gauge!("holdfast_gc_waiting_segments").set(u32::try_from(waiting.len()).map_or(f64::MAX, f64::from));
    let present: BTreeSet<u64> = waiting.iter().map(|g| g.sequence).collect();
    first_seen.retain(|sequence, _| present.contains(sequence));
    for garbage in &waiting {
        first_seen.entry(garbage.sequence).or_insert(now_ms);
    }
    *shared.garbage_waiting.lock() = waiting.iter().map(|g| g.segment.segment_id()).collect();
    // A full batch hides what is behind it: it is freed whatever its age.
    let is_full = waiting.len() >= batch;
    let delay_ms = as_ms(shared.options.garbage_delay);
    let is_due = |g: &Garbage| {
        is_full || now_ms.saturating_sub(first_seen.get(&g.sequence).copied().unwrap_or(now_ms)) >= delay_ms
    };
    let mut due: Vec<Garbage> = waiting.into_iter().filter(is_due).collect();
    if !due.is_empty() {
        let Some(reading) = shared.activity().await.map(|activity| activity.reading) else { return Ok(false) };
        let age_ms = |g: &Garbage| now_ms.saturating_sub(first_seen.get(&g.sequence).copied().unwrap_or(now_ms));
        due.retain(|g| !reading.contains(&g.segment.segment_id()) || age_ms(g) >= READ_MS_MAX);
    }
    if due.is_empty() {
        return Ok(false);
    }
    free(shared, &due).await;
    let count = u64::try_from(due.len()).unwrap_or(0);
    shared.metadata.garbage_done(due.iter().map(|g| g.sequence).collect()).await?;
    metrics::counter!("holdfast_gc_segments_freed_total").increment(count);
    Ok(is_full)
}

/// Frees the shards of `garbage` wherever they may be.
async fn free(shared: &Shared, garbage: &[Garbage]) {
    let map = shared.layout.current();
    let reach = shared.reach();
    let mut shards: BTreeMap<BackendId, Vec<ShardId>> = BTreeMap::new();
    for segment in garbage.iter().map(|g| &g.segment) {
        let Ok(shape) = SegmentShape::read(segment) else { continue };
        for slot in shape.slots() {
            for backend in shape.places(&map.table, slot).into_iter().filter(|b| reach.can_read(*b)) {
                shards.entry(backend).or_default().push(shape.shard(slot));
            }
        }
    }
    let calls = shards.into_iter().map(|(backend, shards)| async move {
        for some in shards.chunks(DELETE_BATCH) {
            if let Err(error) = shared.node.delete_shards(backend, some.to_vec(), None).await {
                // Expected of a backend that takes no writes: its shards have no owner and are swept once it does.
                tracing::debug!(%backend, %error, shards = some.len(), "free garbage");
            }
        }
    });
    futures::future::join_all(calls).await;
}
