//! Rebuilds shards of a segment from the others and writes them where they should be, window by window.
//!
//! Shell: waits on the node, reads the clock. Not here: which shards to rebuild, when, and how fast (`maintenance`).
//!
//! **Invariant:** a shard is finished only if its root is the one in the manifest: a wrong shard is never written.

use super::api::ObjectError;
use super::segment_layout::SegmentLayout;
use super::shared::{RebuildContext, Shared};
use super::window::{Purpose, WindowRequest, read_window};
use bytes::Bytes;
use holdfast_codec::SlotSet;
use holdfast_proto::manifest::Segment;
use holdfast_proto::node::{Cell, ShardError, ShardWriter};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, ErrorKind, Slot};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of all shards together that one window holds.
const WINDOW_BYTES: u64 = 6 << 20;
/// Bytes of all windows at once: as many as segments are repaired at a time by default.
pub(crate) const BUFFER_BYTES: u64 = 4 * WINDOW_BYTES;

/// A backend that does not take a step in this time counts as unavailable: as patient as a client's write.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// A shard being rebuilt.
struct Target {
    slot: usize,
    backend: BackendId,
    writer: Option<Box<dyn ShardWriter>>,
    root: blake3::Hasher,
    failure: Option<ShardError>,
}

/// See [`super::ObjectPath::rebuild`].
pub(crate) async fn rebuild(
    shared: &Arc<Shared>,
    segment: &Segment,
    context: RebuildContext,
    wanted: &[(Slot, BackendId)],
) -> Result<u64, ObjectError> {
    let layout = SegmentLayout::new(segment, &shared.codecs)?;
    let n = layout.codec.scheme().n();
    if let Some((slot, _)) = wanted.iter().find(|(slot, _)| usize::from(slot.0) >= n) {
        return Err(ObjectError::Internal { reason: format!("slot {slot} to rebuild is not one of {n}") });
    }
    let begins = wanted.iter().map(|&(slot, backend)| begin(shared, &layout, context, slot, backend));
    let mut targets: Vec<Target> = futures::future::join_all(begins).await;
    // A shard writer may be sent to another thread but not shared: only the slots cross the reads.
    let wanted_slots: Vec<usize> = targets.iter().map(|target| target.slot).collect();
    let stripes_total = layout.geometry.stripe_count();
    let stripe_bytes = u64::from(layout.geometry.cell_bytes()) * u64::try_from(n).unwrap_or(u64::MAX);
    let stripes_max = u32::try_from(WINDOW_BYTES / stripe_bytes).unwrap_or(u32::MAX).max(1);
    let mut at = 0;
    while at < stripes_total && targets.iter().any(|target| target.writer.is_some()) {
        let stripes = at..stripes_total.min(at.saturating_add(stripes_max));
        at = stripes.end;
        let permit = shared.rebuild_budget.acquire(stripe_bytes * u64::from(stripes.end - stripes.start)).await;
        let cells = rebuild_window(shared, &layout, stripes, &wanted_slots).await?;
        append_all(&mut targets, cells).await;
        drop(permit);
    }
    finish_all(&layout, targets).await
}

async fn begin(
    shared: &Shared,
    layout: &SegmentLayout,
    context: RebuildContext,
    slot: Slot,
    backend: BackendId,
) -> Target {
    let slot = usize::from(slot.0);
    let map = shared.layout.current();
    let header = ShardHeader {
        cluster: map.cluster,
        id: layout.shard(slot),
        bucket: context.bucket,
        key_hash: context.key_hash,
        version: context.version,
        scheme: layout.codec.scheme().code(),
        cell_bytes: layout.geometry.cell_bytes(),
        shard_bytes: layout.geometry.shard_bytes(),
        segment_bytes: layout.geometry.segment_bytes(),
        segment_offset: layout.segment_offset(),
        created_ms: shared.now_ms(),
    };
    let begun = timeout(STEP_TIMEOUT, shared.node.begin_shard(backend, header, map.table.epoch)).await;
    let (writer, failure) = match begun.unwrap_or_else(|_| Err(too_slow(backend))) {
        Ok(writer) => (Some(writer), None),
        Err(error) => (None, Some(error)),
    };
    Target { slot, backend, writer, root: blake3::Hasher::new(), failure }
}

/// Reads k healthy cells of each stripe, decodes the targets' and hashes them. One list of cells for each target.
async fn rebuild_window(
    shared: &Arc<Shared>,
    layout: &SegmentLayout,
    stripes: Range<u32>,
    wanted: &[usize],
) -> Result<Vec<Vec<Cell>>, ObjectError> {
    let slots: SlotSet = wanted.iter().copied().collect();
    let count = stripes.len();
    // What is left of a shard to be replaced is used only where the others do not suffice.
    let request = WindowRequest { layout, stripes, purpose: Purpose::Rebuild, last_choice: slots };
    let gather = read_window(shared, &request, |slot, _| slots.contains(slot)).await?;
    let missing = || ObjectError::Internal { reason: "a window lacks a cell it was read for".to_owned() };
    let cells_of =
        |slot: &usize| (0..count).map(|stripe| gather.present(*slot, stripe).cloned().ok_or_else(missing)).collect();
    let cells: Vec<Vec<Bytes>> = wanted.iter().map(cells_of).collect::<Result<_, _>>()?;
    let hashed = shared.cpu.run(move || {
        let hashed = |bytes: Bytes| Cell { hash: *blake3::hash(&bytes).as_bytes(), bytes };
        cells.into_iter().map(|cells| cells.into_iter().map(hashed).collect()).collect()
    });
    hashed.await.map_err(|lost| ObjectError::Internal { reason: lost.to_string() })
}

async fn append_all(targets: &mut [Target], cells: Vec<Vec<Cell>>) {
    let appends = targets.iter_mut().zip(cells).map(|(target, cells)| async move {
        for cell in &cells {
            target.root.update(&cell.hash);
        }
        let Some(writer) = &mut target.writer else { return };
        let appended = timeout(STEP_TIMEOUT, writer.append(cells)).await;
        if let Err(error) = appended.unwrap_or_else(|_| Err(too_slow(target.backend))) {
            target.failure = Some(error);
            target.writer = None;
        }
    });
    futures::future::join_all(appends).await;
}

/// Finishes the shards whose roots hold. Returns the bytes written, or what kept a shard from being written.
async fn finish_all(layout: &SegmentLayout, targets: Vec<Target>) -> Result<u64, ObjectError> {
    let needed = targets.len();
    let finishes = targets.into_iter().map(|target| finish(layout, target));
    let results: Vec<Result<(), ShardError>> = futures::future::join_all(finishes).await;
    let written = results.iter().filter(|result| result.is_ok()).count();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    match results.into_iter().find_map(Result::err) {
        None => Ok(layout.geometry.shard_bytes() * u64::from(count(written))),
        Some(error) => Err(ObjectError::TooFewBackends {
            durable: count(written),
            needed: count(needed),
            full: error.kind() == ErrorKind::Full,
            reason: error.to_string(),
        }),
    }
}

async fn finish(layout: &SegmentLayout, target: Target) -> Result<(), ShardError> {
    let Target { slot, backend, writer, root, failure } = target;
    let Some(writer) = writer else {
        let unknown = || ShardError::Unavailable { backend, reason: "the shard was not written".to_owned() };
        return Err(failure.unwrap_or_else(unknown));
    };
    let shard = layout.shard(slot);
    let wrong = |reason: &str| ShardError::Damaged { shard, backend, reason: reason.to_owned() };
    let root = *root.finalize().as_bytes();
    if layout.root(slot) != Some(root) {
        // Dropping the writer leaves nothing behind.
        return Err(wrong("the rebuilt shard has not the root that the manifest names"));
    }
    let stat = timeout(STEP_TIMEOUT, writer.finish()).await.unwrap_or_else(|_| Err(too_slow(backend)))?;
    if stat.root == root { Ok(()) } else { Err(wrong("what it stored is not what was written")) }
}

fn too_slow(backend: BackendId) -> ShardError {
    ShardError::Unavailable { backend, reason: "did not answer in time".to_owned() }
}
