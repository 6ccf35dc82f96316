//! Writes one segment: appends coded batches to its n shards at once, finishes them, and decides by the ack rule when
//! enough are durable.
//!
//! Shell: runs in a task of its own and reads the clock. Not here: coding (`coding`), beginning the shards
//! (`segment_begin`), what comes before and after (`upload`).
//!
//! **Invariant:** success means that at least k+1 shards were reported durable by their backends, with the root that we
//! computed. A backend that fails, or falls far behind the others, drops out: an erasure, as long as k+1 remain. Where k
//! remain and others can stand in, what is missing is rebuilt there from the k durable ones before the write is
//! acknowledged.

use super::api::{DamageHint, ObjectError};
use super::cpu_pool::CpuLost;
use super::segment_begin::begin_all;
use super::segment_layout::slot_id;
use super::shared::{RebuildContext, Shared};
use super::stand_ins::{StandIns, rebuild_missing};
use super::uncommitted::SegmentLife;
use super::upload_budget::BatchPermit;
use crate::metadata::ClusterMap;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use holdfast_codec::{Geometry, Scheme};
use holdfast_proto::manifest::{Segment, StandIn};
use holdfast_proto::node::{Cell, NodeClient, ShardError, ShardStat, ShardWriter};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, ErrorKind, ShardId};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// How long slow backends are waited for.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// How long all backends together may take to take a batch, or to make a segment durable.
    pub(crate) step: Duration,
    /// Once k+1 backends have begun their shards, the others are waited for so long.
    pub(crate) begin_grace: Duration,
    /// How long backends may take to begin their shards before others stand in, where there are others.
    pub(crate) stand_in_after: Duration,
    /// Once k+1 backends have taken a batch, the others get a multiple of the time so far, within these bounds.
    pub(crate) append_grace: RangeInclusive<Duration>,
    /// Once k have taken a batch, or have made their shard durable, and what the others miss could be rebuilt on stand-ins:
    /// how long those are still waited for, a multiple of the time so far within these bounds.
    pub(crate) rebuild_grace: RangeInclusive<Duration>,
    /// Once k+1 shards are durable, the client waits for the others no longer than this. They finish in the background.
    pub(crate) finish_grace: RangeInclusive<Duration>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            // Longer means a machine that is beyond serving: a healthy disk syncs in milliseconds, a badly overloaded
            // one in seconds.
            step: Duration::from_secs(60),
            // Beginning reserves room, no more.
            begin_grace: Duration::from_secs(2),
            // A node that was killed is silent: writes have to go on within three seconds, an election included.
            stand_in_after: Duration::from_secs(1),
            // Dropping a shard in the middle costs a repair of all of it.
            append_grace: Duration::from_secs(5)..=Duration::from_secs(30),
            // As for beginning: what has gone silent is a node that was killed, or a machine beyond its strength, where
            // the time so far is long.
            rebuild_grace: Duration::from_secs(1)..=Duration::from_secs(30),
            finish_grace: Duration::from_millis(50)..=Duration::from_secs(1),
        }
    }
}

/// What a segment will be.
pub(crate) struct SegmentPlan {
    pub(crate) life: Arc<SegmentLife>,
    /// The map its shards are placed by.
    pub(crate) map: Arc<ClusterMap>,
    pub(crate) owner: RebuildContext,
    pub(crate) scheme: Scheme,
    pub(crate) geometry: Geometry,
    /// Where it begins in its object or part.
    pub(crate) segment_offset: u64,
    pub(crate) created_ms: u64,
}

/// For each slot its cells, unless coding failed.
type CodedBatch = Result<Vec<Vec<Cell>>, ObjectError>;

/// Coded stripes on their way to the writer; the permit is given back when all shards have taken them.
pub(crate) struct PendingBatch {
    pub(crate) coding: BoxFuture<'static, Result<CodedBatch, CpuLost>>,
    pub(crate) permit: Arc<BatchPermit>,
}

/// What became durable.
pub(crate) struct SegmentOutcome {
    pub(crate) segment: Segment,
    pub(crate) durable: u32,
}

/// One slot's shard while it is written.
pub(super) struct Lane {
    pub(super) slot: usize,
    /// Where it is written: the backend of its slot, or one that stands in.
    pub(super) backend: BackendId,
    pub(super) writer: Option<Box<dyn ShardWriter>>,
    /// Over the cell hashes; goes on after a failure: the manifest holds the roots of all shards.
    root: blake3::Hasher,
    pub(super) failure: Option<ShardError>,
}

impl Lane {
    pub(super) fn new(slot: usize, backend: BackendId) -> Self {
        Self { slot, backend, writer: None, root: blake3::Hasher::new(), failure: None }
    }
}

impl SegmentPlan {
    /// What the shard in a slot says of itself.
    pub(super) fn header(&self, slot: usize) -> ShardHeader {
        ShardHeader {
            cluster: self.map.cluster,
            id: self.life.shard(slot),
            bucket: self.owner.bucket,
            key_hash: self.owner.key_hash,
            version: self.owner.version,
            scheme: self.scheme.code(),
            cell_bytes: self.geometry.cell_bytes(),
            shard_bytes: self.geometry.shard_bytes(),
            segment_bytes: self.geometry.segment_bytes(),
            segment_offset: self.segment_offset,
            created_ms: self.created_ms,
        }
    }
}

/// Writes the segment's batches until their channel is closed, then finishes its shards.
///
/// # Errors
/// Fewer than k+1 shards durable, or a coding fault. Then (as after dropping the future) the caller deletes the shards.
pub(crate) async fn write_segment(
    shared: Arc<Shared>,
    plan: SegmentPlan,
    mut batches: mpsc::Receiver<PendingBatch>,
) -> Result<SegmentOutcome, ObjectError> {
    let needed = plan.scheme.k() + 1;
    let mut stand_ins = StandIns::new(&shared, &plan.map, &plan.life);
    let mut lanes = begin_all(&shared, &plan, &mut stand_ins, needed).await;
    check_enough(&lanes, needed)?;
    // From k durable shards the others can be rebuilt, if there is a place for them.
    let floor = if stand_ins.is_empty() { needed } else { plan.scheme.k() };
    while let Some(batch) = batches.recv().await {
        let cells = batch.coding.await.map_err(|lost| ObjectError::Internal { reason: lost.to_string() })??;
        append_all(&shared, &mut lanes, cells, (floor, needed)).await;
        drop(batch.permit);
        check_enough(&lanes, floor)?;
    }
    let (roots, durable_slots) = finish_all(&shared, &plan, &mut lanes, (floor, needed)).await?;
    let mut segment = Segment {
        id: Bytes::copy_from_slice(plan.life.id.as_bytes()),
        pg: plan.life.pg.0,
        segment_bytes: plan.geometry.segment_bytes(),
        scheme: Bytes::copy_from_slice(&plan.scheme.code()),
        cell_bytes: plan.geometry.cell_bytes(),
        shard_roots: roots.iter().flatten().copied().collect(),
        durable_slots,
        segment_offset: plan.segment_offset,
        stand_ins: Vec::new(),
    };
    for lane in lanes.iter().filter(|lane| lane.backend != plan.life.targets[lane.slot]) {
        segment.stand_ins.push(StandIn::new(slot_id(lane.slot), lane.backend));
    }
    if (durable_slots.count_ones() as usize) < needed {
        let places: Vec<BackendId> = lanes.iter().map(|lane| lane.backend).collect();
        rebuild_missing(&shared, &plan, &mut segment, stand_ins, &places).await;
        let durable = segment.durable_slots.count_ones() as usize;
        if durable < needed {
            return Err(too_few(&lanes, durable, needed));
        }
    }
    let durable = segment.durable_slots.count_ones();
    Ok(SegmentOutcome { segment, durable })
}

/// Appends each lane's cells. Lanes that fail, or lag far behind k+1 others, lose their writer; so do, later, those that
/// lag behind `floor` others.
async fn append_all(shared: &Shared, lanes: &mut [Lane], cells: Vec<Vec<Cell>>, (floor, needed): (usize, usize)) {
    let patience = &shared.patience;
    let started = Instant::now();
    let mut deadline = started + patience.step;
    let mut done = 0u64;
    {
        let mut appends: FuturesUnordered<_> = lanes
            .iter_mut()
            .zip(cells)
            .filter_map(|(lane, cells)| {
                for cell in &cells {
                    lane.root.update(&cell.hash);
                }
                let writer = lane.writer.as_mut()?;
                let (slot, failure) = (lane.slot, &mut lane.failure);
                Some(async move {
                    *failure = writer.append(cells).await.err();
                    (slot, failure.is_none())
                })
            })
            .collect();
        let mut taken = 0;
        while let Ok(Some((slot, is_taken))) = timeout_at(deadline, appends.next()).await {
            done |= 1 << slot;
            taken += usize::from(is_taken);
            if is_taken && taken == floor && floor < needed {
                deadline = deadline.min(Instant::now() + grace(started.elapsed() * 4, &patience.rebuild_grace));
            }
            if is_taken && taken == needed {
                let grace = grace(started.elapsed() * 4, &patience.append_grace);
                deadline = (started + patience.step).min(Instant::now() + grace);
            }
        }
    }
    for lane in lanes.iter_mut().filter(|lane| lane.writer.is_some()) {
        if done & (1 << lane.slot) == 0 {
            lane.failure = Some(too_slow(lane.backend));
            shared.hung_writes.record_failure(lane.backend);
        }
        if let Some(error) = &lane.failure {
            tracing::warn!(backend = %lane.backend, %error, "shard dropped out of a write");
            lane.writer = None;
        }
    }
}

/// Finishes all shards at once. Returns the roots of all n, and which of them are durable: at least `needed`, or, when
/// nothing more is to be hoped for, at least `floor`.
async fn finish_all(
    shared: &Arc<Shared>,
    plan: &SegmentPlan,
    lanes: &mut [Lane],
    (floor, needed): (usize, usize),
) -> Result<(Vec<[u8; 32]>, u64), ObjectError> {
    let roots: Vec<[u8; 32]> = lanes.iter().map(|lane| *lane.root.finalize().as_bytes()).collect();
    let mut finishing = JoinSet::new();
    let mut pending = 0u64;
    for (lane, &root) in lanes.iter_mut().zip(&roots) {
        if let Some(writer) = lane.writer.take() {
            let (slot, backend, shard_bytes) = (lane.slot, lane.backend, plan.geometry.shard_bytes());
            pending |= 1 << slot;
            finishing.spawn(async move { (slot, finish(writer, backend, root, shard_bytes).await) });
        }
    }
    let started = Instant::now();
    let mut deadline = started + shared.patience.step;
    let mut durable_slots = 0u64;
    while let Ok(Some(finished)) = timeout_at(deadline, finishing.join_next()).await {
        // A finish that panicked counts as failed; its lane keeps no writer.
        let Ok((slot, finished)) = finished else { continue };
        pending &= !(1 << slot);
        match finished {
            Ok(()) => durable_slots |= 1 << slot,
            Err(error) => {
                tracing::warn!(backend = %lanes[slot].backend, %error, "shard not durable");
                lanes[slot].failure = Some(error);
            }
        }
        let durable = durable_slots.count_ones() as usize;
        if durable == floor && floor < needed {
            deadline = deadline.min(Instant::now() + grace(started.elapsed() * 4, &shared.patience.rebuild_grace));
        }
        if durable >= needed {
            deadline = deadline.min(Instant::now() + grace(started.elapsed() * 2, &shared.patience.finish_grace));
        }
    }
    let durable = durable_slots.count_ones() as usize;
    if durable < needed {
        // None may still become durable while the caller deletes or rebuilds them.
        finishing.shutdown().await;
        if durable < floor {
            return Err(too_few(lanes, durable, needed));
        }
    }
    if !finishing.is_empty() {
        let places: Vec<BackendId> = lanes.iter().map(|lane| lane.backend).collect();
        tokio::spawn(finish_stragglers(shared.clone(), plan.life.clone(), finishing, (places, pending)));
    }
    Ok((roots, durable_slots))
}

async fn finish(
    writer: Box<dyn ShardWriter>,
    backend: BackendId,
    root: [u8; 32],
    shard_bytes: u64,
) -> Result<(), ShardError> {
    let stat: ShardStat = writer.finish().await?;
    if stat.root == root && stat.shard_bytes == shard_bytes {
        return Ok(());
    }
    let reason = "what it stored is not what was written".to_owned();
    Err(ShardError::Damaged { shard: stat.id, backend, reason })
}

/// Waits for shards that were too late for the acknowledgement. The record says they are not durable, so whatever comes
/// of them is told to repair, which looks; those of a request that failed are deleted.
async fn finish_stragglers(
    shared: Arc<Shared>,
    life: Arc<SegmentLife>,
    mut finishing: JoinSet<(usize, Result<(), ShardError>)>,
    (places, mut pending): (Vec<BackendId>, u64),
) {
    let mut settled = Vec::new();
    let started = Instant::now();
    // One that is so far behind hangs; across a network that is first seen here, for what was sent was not answered.
    let mut deadlines = [*shared.patience.append_grace.end(), shared.patience.step].into_iter();
    let mut deadline = deadlines.next();
    while let Some(limit) = deadline {
        let finished = match timeout_at(started + limit, finishing.join_next()).await {
            Ok(Some(finished)) => finished,
            Ok(None) => break,
            Err(_) => {
                let hung = places.iter().enumerate().filter(|(slot, _)| pending & (1 << slot) != 0);
                hung.for_each(|(_, &backend)| shared.hung_writes.record_failure(backend));
                deadline = deadlines.next();
                continue;
            }
        };
        let Ok((slot, _)) = finished else { continue };
        pending &= !(1 << slot);
        let (shard, backend) = (life.shard(slot), places[slot]);
        if life.is_abandoned() {
            delete_late(&*shared.node, backend, shard).await;
        }
        settled.push(DamageHint { shard, backend });
    }
    let is_kept = life.is_kept();
    // No longer in flight: from here on repair may touch it.
    drop(life);
    if is_kept {
        settled.into_iter().for_each(|hint| shared.hint(hint));
    }
}

async fn delete_late(node: &dyn NodeClient, backend: BackendId, shard: ShardId) {
    if let Err(error) = node.delete_shards(backend, vec![shard], None).await {
        tracing::debug!(%backend, %error, "delete a late shard of a failed write");
    }
}

fn check_enough(lanes: &[Lane], needed: usize) -> Result<(), ObjectError> {
    let alive = lanes.iter().filter(|lane| lane.writer.is_some()).count();
    if alive >= needed { Ok(()) } else { Err(too_few(lanes, alive, needed)) }
}

fn too_few(lanes: &[Lane], durable: usize, needed: usize) -> ObjectError {
    let mut failures = lanes.iter().filter_map(|lane| lane.failure.as_ref());
    let full = failures.clone().any(|error| error.kind() == ErrorKind::Full);
    let reason = failures.next().map_or_else(|| "too slow".to_owned(), ToString::to_string);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    ObjectError::TooFewBackends { durable: count(durable), needed: count(needed), reason, full }
}

pub(super) fn too_slow(backend: BackendId) -> ShardError {
    ShardError::Unavailable { backend, reason: "did not answer in time".to_owned() }
}

fn grace(wanted: Duration, bounds: &RangeInclusive<Duration>) -> Duration {
    wanted.clamp(*bounds.start(), *bounds.end())
}
