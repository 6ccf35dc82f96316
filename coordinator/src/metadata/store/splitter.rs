//! The shell that cuts ranges as `splitting.rs` plans: each node looks at those it leads.
//!
//! Touches the world: tokio's clock, and the state's disk for sizes, off the async threads.

use super::super::bounds::{Bounds, KEYED};
use super::super::consensus::Consensus;
use super::super::kv::{Family, KvResult, KvView, Scan};
use super::super::splitting::{Cut, Extent, WINDOW, halfway, plan};
use super::super::state_store::StateStore;
use super::{Inner, ROOT};
use bytes::Bytes;
use std::sync::{Arc, Weak};

/// Steps of the search for a middle: each halves what is left of the key space between two keys. As many as the bits of
/// the longest keys, which may have all but their ends in common.
const STEPS_MAX: usize = 10_000;
/// A border that misses the half by no more than this part of the whole is near enough.
const NEAR_ENOUGH: u64 = 64;

/// Looks at the ranges until the store is gone.
pub(super) async fn cut_as_they_grow(inner: Weak<Inner>) {
    describe();
    loop {
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
            let heat = group.load().end_window();
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
    bytes_of(state, &bounds)
}

fn bytes_of(state: &StateStore, bounds: &Bounds) -> KvResult<u64> {
    KEYED.iter().try_fold(0u64, |sum, family| {
        let (start, end) = bounds.of_family(*family);
        Ok(sum + state.bytes_between(*family, &start, &end)?)
    })
}

/// The key at about half of a range's bytes; `None` if no key leaves an eighth on either side: it would be cut again and
/// again, and its largest part stay as it is. Borders are looked for among current versions and delete markers.
fn middle(state: &StateStore, range: u32) -> KvResult<Option<Vec<u8>>> {
    let bounds = Bounds::load(state, range)?;
    let whole = bytes_of(state, &bounds)?;
    if whole == 0 {
        return Ok(None);
    }
    let left_of = |border: &[u8]| bytes_of(state, &Bounds { end: Bytes::copy_from_slice(border), ..bounds.clone() });
    let (mut low, mut high) = (bounds.start.to_vec(), bounds.end.to_vec());
    let mut best: Option<(u64, Vec<u8>)> = None;
    for _ in 0..STEPS_MAX {
        let Some(at) = halfway(&low, &high) else { break };
        // Whether or not `at` is long enough to be a border, the first key from there on is one.
        let Some(border) = first_key(state, &bounds, &at)? else {
            high = at;
            continue;
        };
        let left = left_of(&border)?;
        let miss = left.abs_diff(whole / 2);
        if best.as_ref().is_none_or(|(nearest, _)| miss < *nearest) {
            best = Some((miss, border.clone()));
        }
        if miss <= whole / NEAR_ENOUGH {
            break;
        }
        if left < whole / 2 { low = border } else { high = at }
    }
    let parts = |miss: u64| (whole / 2).saturating_sub(miss) >= whole / 8;
    Ok(best.filter(|(miss, border)| *border != bounds.start && parts(*miss)).map(|(_, border)| border))
}

fn first_key(state: &StateStore, bounds: &Bounds, from: &[u8]) -> KvResult<Option<Vec<u8>>> {
    let mut found = None;
    state.scan(Family::Objects, from, &mut |key, _, _| {
        found = bounds.contains(key).then(|| key.to_vec());
        Ok(Scan::Stop)
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::super::keys;
    use super::super::super::kv::Batch;
    use super::*;
    use holdfast_proto::{BucketId, VersionId};

    /// What RocksDB estimates is good enough to find the middle of even and of uneven keys.
    #[test]
    fn the_middle_of_a_range_halves_what_rocksdb_keeps_of_it() {
        type KeyOf = fn(u32) -> String;
        let keys_of: [(&str, KeyOf); 4] = [
            ("even", |n| format!("{n:08}")),
            ("one long beginning", |n| format!("{}{n:08}", "x".repeat(1_000))),
            ("most at one end", |n| format!("{:08}", if n < 2_000 { n * 40_000 } else { 90_000_000 + n })),
            ("two beginnings", |n| format!("{}/{n:08}", if n % 3 == 0 { "aaaa" } else { "zzzz" })),
        ];
        for (name, key) in keys_of {
            let directory = tempfile::tempdir().unwrap();
            let state = StateStore::open(directory.path()).unwrap();
            let mut rows: Vec<Vec<u8>> = (0..20_000).map(|n| keys::object(BucketId(3), &key(n))).collect();
            rows.sort_unstable();
            for part in rows.chunks(2_000) {
                let mut batch = Batch::default();
                for row in part {
                    batch.put(Family::Objects, row.clone(), blake3::hash(row).as_bytes().repeat(4));
                }
                state.write(batch).unwrap();
            }
            assert_eq!(middle(&state, 1).unwrap(), None, "{name}: nothing is flushed yet");
            state.flush().unwrap();
            let border = middle(&state, 1).unwrap().unwrap_or_else(|| panic!("{name}: no middle"));
            let left = rows.binary_search(&border).unwrap_or_else(|_| panic!("{name}: the border is no key"));
            assert!((8_000..=12_000).contains(&left), "{name}: {left} of 20000 on the left");
            assert!(measure(&state, 1).unwrap() > 20_000 * 32, "{name}");
        }
    }

    #[test]
    fn what_has_no_middle_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateStore::open(directory.path()).unwrap();
        assert_eq!(middle(&state, 1).unwrap(), None, "nothing");
        let mut batch = Batch::default();
        batch.put(Family::Objects, keys::object(BucketId(3), "only"), vec![1; 100_000]);
        state.write(batch).unwrap();
        state.flush().unwrap();
        assert_eq!(middle(&state, 1).unwrap(), None, "one key");
        // Many small ones, and one with nearly all the bytes in its older versions.
        let mut batch = Batch::default();
        for n in 0..1_000u32 {
            batch.put(Family::Objects, keys::object(BucketId(3), &format!("{n:04}")), vec![1; 10]);
            let version = VersionId::from_parts(u64::from(n), [1; 10]);
            let mut noise = vec![0; 3_000];
            blake3::Hasher::new().update(&n.to_be_bytes()).finalize_xof().fill(&mut noise);
            batch.put(Family::Versions, keys::version(BucketId(3), "0500", version), noise);
        }
        state.write(batch).unwrap();
        state.flush().unwrap();
        assert_eq!(middle(&state, 1).unwrap(), None, "no key parts the versions of one");
    }
}
