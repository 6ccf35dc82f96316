//! The shell that cuts ranges as `splitting.rs` plans: each node looks at those it leads.
//!
//! Touches the world: tokio's clock, and the state's disk for sizes, off the async threads.

use super::super::bounds::{Bounds, KEYED};
use super::super::consensus::Consensus;
use super::super::kv::{Family, KvResult, KvView, Scan};
use super::super::splitting::{Cut, Extent, WINDOW, halfway, plan};
use super::super::state_store::StateStore;
use super::{Inner, ROOT};
use std::sync::{Arc, Weak};
use tokio::time::Instant;

/// Steps of the search for a middle: each halves what is left of the key space between two keys.
const STEPS_MAX: usize = 256;

/// Looks at the ranges until the store is gone.
pub(super) async fn cut_as_they_grow(inner: Weak<Inner>) {
    describe();
    loop {
        let began = Instant::now();
        tokio::time::sleep(WINDOW).await;
        let Some(inner) = inner.upgrade() else { return };
        for group in inner.groups.all() {
            if group.number() == ROOT {
                continue;
            }
            if !group.members().is_leader {
                group.load().forget();
                forget_metrics(group.number());
                continue;
            }
            let heat = group.load().end_window(began.elapsed());
            let number = group.number();
            let measured = inner.state.off_thread(move |state| measure(state, number)).await;
            let bytes = measured.unwrap_or_else(|error| {
                tracing::warn!(range = number, %error, "measure a range");
                0
            });
            let extent = Extent {
                bytes,
                bytes_max: inner.range_bytes_max,
                ranges: inner.range_numbers().len(),
                coordinators: inner.coordinators(),
            };
            metrics::gauge!("holdfast_metadata_range_bytes", "range" => number.to_string()).set(bytes as f64);
            metrics::gauge!("holdfast_metadata_range_changes_per_second", "range" => number.to_string())
                .set(heat.changes_per_second);
            if let Some(cut) = plan(extent, &heat) {
                make(&inner, number, cut, bytes).await;
                group.load().forget();
            }
        }
        metrics::gauge!("holdfast_metadata_ranges").set(inner.range_numbers().len() as f64);
    }
}

fn describe() {
    use metrics::Unit;
    metrics::describe_gauge!("holdfast_metadata_ranges", Unit::Count, "Ranges of the metadata in the whole store");
    let bytes = "Bytes of a range's rows as stored, at the node that leads it; 0 at the others";
    metrics::describe_gauge!("holdfast_metadata_range_bytes", Unit::Bytes, bytes);
    let changes = "Changes a second to a range, at the node that leads it; 0 at the others";
    metrics::describe_gauge!("holdfast_metadata_range_changes_per_second", Unit::Count, changes);
    metrics::describe_counter!(
        "holdfast_metadata_range_splits_total",
        Unit::Count,
        "Ranges that this node has cut in two"
    );
}

fn forget_metrics(number: u32) {
    metrics::gauge!("holdfast_metadata_range_bytes", "range" => number.to_string()).set(0.0);
    metrics::gauge!("holdfast_metadata_range_changes_per_second", "range" => number.to_string()).set(0.0);
}

async fn make(inner: &Arc<Inner>, range: u32, cut: Cut, bytes: u64) {
    let (border, why) = match cut {
        Cut::ByLoad(border) => (Some(border), "load"),
        Cut::BySize => match inner.state.off_thread(move |state| middle(state, range)).await {
            Ok(border) => (border, "size"),
            Err(error) => {
                tracing::warn!(range, %error, "look for the middle of a range");
                return;
            }
        },
    };
    // All of it may be versions of one key, or not where sizes are known yet.
    let Some(border) = border else {
        tracing::debug!(range, bytes, "a range is to be cut and has no middle");
        return;
    };
    match inner.split(border).await {
        Ok(child) => {
            tracing::info!(range, child, bytes, why, "a range of the metadata is cut in two");
            metrics::counter!("holdfast_metadata_range_splits_total", "why" => why).increment(1);
        }
        Err(error) => tracing::warn!(range, %error, "cut a range in two; it is tried again"),
    }
}

/// Bytes of the rows that are ordered by key, as stored and as far as flushed.
fn measure(state: &StateStore, range: u32) -> KvResult<u64> {
    let bounds = Bounds::load(state, range)?;
    KEYED.iter().try_fold(0u64, |sum, family| {
        let (start, end) = bounds.of_family(*family);
        Ok(sum + state.bytes_between(*family, &start, &end)?)
    })
}

/// The first key at about half of a range's bytes of current versions; `None` if no key parts them.
fn middle(state: &StateStore, range: u32) -> KvResult<Option<Vec<u8>>> {
    let bounds = Bounds::load(state, range)?;
    let whole = state.bytes_between(Family::Objects, &bounds.start, &bounds.end)?;
    let (mut low, mut high) = (bounds.start.to_vec(), bounds.end.to_vec());
    let mut best: Option<(u64, Vec<u8>)> = None;
    for _ in 0..STEPS_MAX {
        let Some(at) = halfway(&low, &high) else { break };
        let left = state.bytes_between(Family::Objects, &bounds.start, &at)?;
        let miss = left.abs_diff(whole / 2);
        if best.as_ref().is_none_or(|(nearest, _)| miss < *nearest) {
            best = Some((miss, at.clone()));
        }
        if left < whole / 2 { low = at } else { high = at }
    }
    let Some((_, at)) = best else { return Ok(None) };
    let mut border = None;
    state.scan(Family::Objects, &at, &mut |key, _, _| {
        border = bounds.contains(key).then(|| key.to_vec());
        Ok(Scan::Stop)
    })?;
    Ok(border.filter(|border| *border != bounds.start))
}
