//! `holdfast object inspect`: where every shard of a version is, and how it is, by the backends' indexes.

use super::MaintenanceResult;
use super::error::MaintenanceError;
use super::shared::Shared;
use crate::metadata::{ClusterMap, VersionSelector};
use crate::rebalance::scheme_name;
use crate::repair::{Reach, SegmentShape, margin};
use holdfast_codec::{Scheme, SlotSet};
use holdfast_proto::admin::{ObjectView, SegmentView, ShardView};
use holdfast_proto::manifest::{ObjectVersion, Segment};
use holdfast_proto::{BackendId, BucketId, Slot};

/// Inspects one version.
pub(crate) async fn inspect(shared: &Shared, bucket: &str, key: &str, version: &str) -> MaintenanceResult<ObjectView> {
    let missing = |what: String| MaintenanceError::NoSuchObject { what };
    let record = shared.metadata.bucket(bucket).ok_or_else(|| missing(format!("bucket {bucket}")))?;
    let selector = match version {
        "" => VersionSelector::Current,
        "null" => VersionSelector::Null,
        id => {
            VersionSelector::Id(id.parse().map_err(|_| missing(format!("version {id} of {key} in bucket {bucket}")))?)
        }
    };
    let found = shared.metadata.get_version(BucketId(record.id), key, selector).await?;
    let found = found.filter(|v| !v.delete_marker).ok_or_else(|| missing(format!("key {key} in bucket {bucket}")))?;
    let map = shared.layout.current();
    let reach = shared.reach();
    let mut segments = Vec::with_capacity(found.segments.len());
    let mut margin = None;
    let mut offset = 0;
    for segment in &found.segments {
        let (view, left) = inspect_segment(shared, &map, &reach, segment, offset).await?;
        offset += segment.segment_bytes;
        margin = Some(margin.map_or(left, |m: i32| m.min(left)));
        segments.push(view);
    }
    let scheme = found.segments.first().map(|s| scheme_text(&s.scheme));
    Ok(ObjectView {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        version: found.s3_version_id(),
        bytes: found.object_bytes,
        etag: found.etag.clone(),
        modified_ms: found.modified_ms,
        scheme: scheme.unwrap_or_else(|| scheme_text(&map.table.scheme)),
        inline: is_inline(&found),
        // The bytes of an inline object are as safe as the metadata itself.
        margin: margin.unwrap_or_else(|| shared.margin_target()),
        segments,
    })
}

fn is_inline(version: &ObjectVersion) -> bool {
    version.segments.is_empty()
}

/// A code id as `K+M`, or by the name of its code.
pub(crate) fn scheme_text(code: &[u8]) -> String {
    let scheme = <[u8; 4]>::try_from(code).ok().and_then(|code| Scheme::from_code(code).ok());
    scheme.map_or_else(|| "unknown".to_owned(), scheme_name)
}

async fn inspect_segment(
    shared: &Shared,
    map: &ClusterMap,
    reach: &Reach,
    segment: &Segment,
    offset: u64,
) -> MaintenanceResult<(SegmentView, i32)> {
    let shape = SegmentShape::read(segment).map_err(|e| MaintenanceError::Invalid { reason: e.to_string() })?;
    let suspects = shared.repair.lock().queue.suspects(shape.id);
    let mut shards = Vec::with_capacity(shape.n);
    for slot in shape.slots() {
        let is_suspect = suspects & (1 << slot.0) != 0;
        shards.push(inspect_shard(shared, map, reach, &shape, slot, is_suspect).await);
    }
    let good: SlotSet = shards.iter().filter(|s| s.state == "ok").map(|s| usize::from(s.slot)).collect();
    let left = margin(shape.scheme, &good);
    let view =
        SegmentView { segment: shape.id.to_string(), pg: segment.pg, offset, bytes: segment.segment_bytes, shards };
    Ok((view, left))
}

/// Looks where reads look, target first, and tells of the best copy.
async fn inspect_shard(
    shared: &Shared,
    map: &ClusterMap,
    reach: &Reach,
    shape: &SegmentShape,
    slot: Slot,
    is_suspect: bool,
) -> ShardView {
    let places = shape.places(&map.table, slot);
    let mut worst = "unavailable";
    let mut at = places.first().copied().unwrap_or_default();
    for backend in &places {
        if !reach.can_read(*backend) {
            continue;
        }
        match shared.node.stat_shard(*backend, shape.shard(slot)).await {
            Ok(Some(stat)) if shape.root(slot) == Some(&stat.root) => {
                let state = if is_suspect { "damaged" } else { "ok" };
                return shard_view(shared, shape, slot, *backend, state, stat.verified_ms);
            }
            Ok(Some(_)) => (worst, at) = ("damaged", *backend),
            Ok(None) if worst != "damaged" => (worst, at) = ("missing", *backend),
            Ok(None) | Err(_) => {}
        }
    }
    shard_view(shared, shape, slot, at, worst, 0)
}

fn shard_view(
    shared: &Shared,
    shape: &SegmentShape,
    slot: Slot,
    backend: BackendId,
    state: &str,
    verified_ms: u64,
) -> ShardView {
    ShardView {
        slot: slot.0,
        role: if usize::from(slot.0) < shape.k { "data" } else { "parity" }.to_owned(),
        backend,
        backend_name: shared.backend_name(backend),
        state: state.to_owned(),
        verified_ms,
        shard_bytes: shape.shard_bytes,
    }
}
