//! Takes the inventory: every segment of metadata against every shard on every backend that answers, window by window,
//! so that memory is bounded whatever the store holds. Queues what is to be repaired, frees superseded copies, hands
//! unowned shards to the orphan sweep, and commits the PGs whose moves are complete.
//!
//! **Invariants:** figures are replaced only by a complete inventory; a PG is committed only if every segment of it was
//! seen whole at its target in one inventory that began after the target was set and after the last write by an older
//! layout had ended.

use super::layout_change::{change, settle_backends};
use super::node_admin;
use super::orphans;
use super::shared::{Doubt, Phase, Shared};
use crate::metadata::{ClusterMap, MetadataError};
use crate::repair::{
    Counted, MarginTable, Reach, SegmentPlan, SegmentShape, Unowned, WindowInventory, WorkItem, plan_segment,
};
use futures::future::join_all;
use holdfast_proto::node::{ShardError, ShardStat};
use holdfast_proto::{BackendId, Epoch, PgId, SegmentId, ShardId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Segments asked of metadata at a time.
const SEGMENT_PAGE: usize = 1024;
/// Shards asked of a backend at a time.
const SHARD_PAGE: usize = 1024;
/// Shards freed in one call.
const DELETE_BATCH: usize = 1024;
/// Unowned shards held before the sweep looks at them.
const UNOWNED_MAX: usize = 4096;

/// How an inventory ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScanEnd {
    /// Everything was seen.
    Complete,
    /// A backend's listing failed: its shards are unknown.
    Backend { backend: BackendId, reason: String },
    /// Metadata could not be read.
    Metadata(MetadataError),
}

impl From<MetadataError> for ScanEnd {
    fn from(error: MetadataError) -> Self {
        Self::Metadata(error)
    }
}

/// One inventory under way.
struct Scan<'a> {
    shared: &'a Shared,
    number: u64,
    map: Arc<ClusterMap>,
    reach: Reach,
    /// No write places shards by an older layout any more: what was seen stays so.
    is_fenced: bool,
    /// Segments being written when the present window had been listed; `None` if that could not be learnt.
    writing: Option<BTreeMap<SegmentId, Epoch>>,
    margins: MarginTable,
    /// Bytes that one slot of each PG holds.
    shard_bytes: Vec<u64>,
    blocked: BTreeMap<BackendId, u64>,
    unsettled: BTreeSet<PgId>,
    /// Shards listed by backend.
    listed: BTreeMap<BackendId, u64>,
    unowned: Vec<Unowned>,
    /// Unowned shards were left alone because a coordinator did not say what it writes.
    is_sweep_cut_off: bool,
    deletes: BTreeMap<BackendId, Vec<ShardId>>,
    unreadable_records: u64,
}

/// Takes one inventory and acts on it.
pub(crate) async fn take_inventory(shared: &Arc<Shared>) -> ScanEnd {
    match try_inventory(shared).await {
        Ok(()) => ScanEnd::Complete,
        Err(end) => end,
    }
}

async fn try_inventory(shared: &Arc<Shared>) -> Result<(), ScanEnd> {
    // The first health report must be in: without it every backend would look gone.
    super::health::ensure_report(shared).await;
    let (doubts, number) = {
        let mut repair = shared.repair.lock();
        repair.phase = Phase::Scanning;
        repair.inventory_wanted = false;
        repair.queue.begin_inventory();
        repair.inventories += 1;
        (repair.doubts, repair.inventories)
    };
    let mut scan = Scan {
        shared,
        number,
        map: shared.layout.current(),
        reach: shared.reach(),
        is_fenced: false,
        writing: Some(BTreeMap::new()),
        margins: MarginTable::default(),
        shard_bytes: vec![0; shared.layout.current().table.pgs.len()],
        blocked: BTreeMap::new(),
        unsettled: BTreeSet::new(),
        listed: BTreeMap::new(),
        unowned: Vec::new(),
        is_sweep_cut_off: false,
        deletes: BTreeMap::new(),
        unreadable_records: 0,
    };
    scan.is_fenced = shared.is_fenced(scan.map.table.epoch).await;
    let mut after = None;
    loop {
        let (until, is_last) = scan.take_window(after).await?;
        if is_last {
            break;
        }
        after = Some(until);
    }
    scan.sweep().await;
    let listed = std::mem::take(&mut scan.listed);
    let settled = scan.settled_pgs();
    let (epoch, is_fenced) = (scan.map.table.epoch, scan.is_fenced);
    let is_moving = !settled.is_empty() || node_admin::is_anything_leaving(&scan.map);
    let waits_for_coordinators = (is_moving && !is_fenced) || scan.is_sweep_cut_off;
    shared.health.lock().distrust.handle_inventory(|backend| scan.reach.can_read(backend));
    publish(shared, scan, doubts);
    shared.repair.lock().waits_for_coordinators = waits_for_coordinators;
    if is_fenced {
        commit_settled(shared, epoch, &settled).await;
        settle_backends(shared, epoch, &listed).await;
        node_admin::settle(shared, epoch, &listed).await;
    }
    Ok(())
}

fn publish(shared: &Shared, scan: Scan<'_>, doubts: u64) {
    let now_ms = shared.now_ms();
    let mut repair = shared.repair.lock();
    repair.margins = scan.margins;
    repair.inventory = scan.number;
    repair.queue.end_inventory(scan.number);
    repair.shard_bytes = scan.shard_bytes;
    repair.blocked = scan.blocked;
    repair.unreadable_records = scan.unreadable_records;
    repair.inventory_failure.clear();
    repair.doubts_settled = Some(doubts);
    repair.scanned_ms = now_ms;
    let (below, work) = (repair.margins.below(i32::MAX), repair.queue.ready_count());
    tracing::debug!(segments = below, to_repair = work, epoch = scan.map.table.epoch.0, "inventory complete");
}

impl Scan<'_> {
    /// One window; returns its last id and whether it was the last window.
    async fn take_window(&mut self, after: Option<SegmentId>) -> Result<(SegmentId, bool), ScanEnd> {
        let (shapes, end) = self.read_segments(after).await?;
        let until = end.unwrap_or(SegmentId([u8::MAX; 16]));
        let mut window = WindowInventory::new(after, until, shapes);
        let backends: Vec<BackendId> = self.reach.readable().collect();
        let pg_count = u32::try_from(self.map.table.pgs.len()).unwrap_or(u32::MAX);
        for pg in (0..pg_count).map(PgId) {
            self.list_pg(&mut window, pg, &backends).await?;
        }
        if window.segments().iter().any(|(shape, holdings)| !self.plan(shape, holdings).is_some_and(|p| p.is_settled()))
        {
            window.retain(&self.read_ids(after, until).await?);
            // Asked after the listing: a write that has ended since has all its shards in the next one.
            self.writing = self.shared.activity().await.map(|activity| activity.writing);
        }
        for (shape, holdings) in window.segments() {
            self.account(shape, holdings);
        }
        self.free_superseded(DELETE_BATCH).await;
        Ok((until, end.is_none()))
    }

    /// A window's worth of segments, and its last id; `None` when there are no more.
    async fn read_segments(
        &mut self,
        after: Option<SegmentId>,
    ) -> Result<(Vec<SegmentShape>, Option<SegmentId>), ScanEnd> {
        let mut shapes = Vec::new();
        let mut cursor = after;
        while shapes.len() < self.shared.options.inventory_window.max(1) {
            let page = self.shared.metadata.segments(cursor, SEGMENT_PAGE).await?;
            let Some((_, last)) = page.last() else { return Ok((shapes, None)) };
            let last = last.segment_id();
            if cursor.is_some_and(|before| last <= before) {
                let reason = "segments were not listed in order".to_owned();
                return Err(ScanEnd::Metadata(MetadataError::Unavailable { reason }));
            }
            for (owner, segment) in &page {
                match SegmentShape::read(segment) {
                    Ok(shape) => shapes.push(shape),
                    Err(error) => {
                        tracing::warn!(bucket = owner.bucket.0, key = owner.key, %error, "segment record cannot be read");
                        self.unreadable_records += 1;
                    }
                }
            }
            cursor = Some(last);
        }
        Ok((shapes, cursor))
    }

    /// The ids that metadata still refers to in a window, sorted. What is not among them was deleted while the window
    /// was listed: its missing shards mean nothing.
    async fn read_ids(&self, after: Option<SegmentId>, until: SegmentId) -> Result<Vec<SegmentId>, ScanEnd> {
        let mut ids = Vec::new();
        let mut cursor = after;
        loop {
            let page = self.shared.metadata.segments(cursor, SEGMENT_PAGE).await?;
            let Some((_, last)) = page.last() else { return Ok(ids) };
            cursor = Some(last.segment_id());
            ids.extend(page.iter().map(|(_, s)| s.segment_id()).take_while(|id| *id <= until));
            if cursor > Some(until) {
                return Ok(ids);
            }
        }
    }

    /// Lists a PG on every backend that answers, between the window's ends.
    async fn list_pg(&mut self, window: &mut WindowInventory, pg: PgId, backends: &[BackendId]) -> Result<(), ScanEnd> {
        let from = window.list_from(pg);
        let first = join_all(backends.iter().map(|backend| self.list(*backend, pg, from))).await;
        for (backend, page) in backends.iter().zip(first) {
            let mut page = page?;
            loop {
                let count = u64::try_from(page.iter().filter(|s| s.id.segment <= window.until()).count()).unwrap_or(0);
                *self.listed.entry(*backend).or_default() += count;
                let wants_more = window.take_page(pg, *backend, &page, &mut self.unowned);
                if self.unowned.len() >= UNOWNED_MAX {
                    self.sweep().await;
                }
                let Some(last) = page.last().filter(|_| wants_more && page.len() >= SHARD_PAGE) else { break };
                let next = Some(last.id);
                page = self.list(*backend, pg, next).await?;
            }
        }
        Ok(())
    }

    async fn list(&self, backend: BackendId, pg: PgId, after: Option<ShardId>) -> Result<Vec<ShardStat>, ScanEnd> {
        let listed = self.shared.node.list_shards(backend, pg, after, SHARD_PAGE, self.map.table.epoch).await;
        listed.map_err(|error: ShardError| ScanEnd::Backend { backend, reason: error.to_string() })
    }

    /// Whether a request may still be writing the segment.
    fn may_be_written(&self, segment: SegmentId) -> bool {
        self.writing.as_ref().is_none_or(|writing| writing.contains_key(&segment))
    }

    /// `None` if the PG is not of this table, which no written record says.
    fn plan(&self, shape: &SegmentShape, holdings: &[crate::repair::Holding]) -> Option<SegmentPlan> {
        Some(plan_segment(shape, self.map.table.pg(shape.pg)?, holdings, &self.reach))
    }

    /// Counts a segment and queues its work.
    fn account(&mut self, shape: &SegmentShape, holdings: &[crate::repair::Holding]) {
        let Some(plan) = self.plan(shape, holdings) else {
            self.unreadable_records += 1;
            return;
        };
        if let Some(bytes) = usize::try_from(shape.pg.0).ok().and_then(|pg| self.shard_bytes.get_mut(pg)) {
            *bytes += shape.shard_bytes;
        }
        self.margins.record(plan.margin, shape.segment_bytes);
        // One that a request may still be writing counts as it is, for its record is durable. But it is left alone: here, and
        // by whoever takes it from the queue, until the request has ended.
        if plan.is_settled() || !self.may_be_written(shape.id) {
            for (slot, backend) in &plan.deletes {
                self.deletes.entry(*backend).or_default().push(shape.shard(*slot));
            }
        }
        if !plan.is_settled() {
            self.unsettled.insert(shape.pg);
        }
        let waits_for: BTreeSet<BackendId> = plan.blocked.iter().map(|(_, backend)| *backend).collect();
        for backend in waits_for {
            *self.blocked.entry(backend).or_default() += 1;
        }
        if plan.has_work() {
            let (shards_to_write, bytes_to_write) =
                (plan.shards_to_write(), plan.shards_to_write() * shape.shard_bytes);
            self.margins.add_work(shards_to_write, bytes_to_write);
            self.shared.repair.lock().queue.add(WorkItem {
                segment: shape.id,
                margin: plan.margin,
                counted: Some(Counted { inventory: self.number, margin: plan.margin }),
                segment_bytes: shape.segment_bytes,
                shards_to_write,
                bytes_to_write,
                ..WorkItem::default()
            });
        }
    }

    /// Frees copies that the table no longer wants and whose target has its own.
    async fn free_superseded(&mut self, batch: usize) {
        for (backend, shards) in std::mem::take(&mut self.deletes) {
            for some in shards.chunks(batch) {
                match self.shared.node.delete_shards(backend, some.to_vec(), Some(self.map.table.epoch)).await {
                    Ok(()) => {
                        let count = u64::try_from(some.len()).unwrap_or(0);
                        metrics::counter!("holdfast_repair_superseded_shards_freed_total").increment(count);
                        let listed = self.listed.entry(backend).or_default();
                        *listed = listed.saturating_sub(count);
                    }
                    Err(error) => tracing::warn!(%backend, %error, "free superseded shards"),
                }
            }
        }
    }

    async fn sweep(&mut self) {
        let swept = orphans::sweep(self.shared, std::mem::take(&mut self.unowned)).await;
        self.is_sweep_cut_off |= swept.is_none();
        for (backend, count) in swept.unwrap_or_default() {
            let listed = self.listed.entry(backend).or_default();
            *listed = listed.saturating_sub(count);
        }
    }

    /// PGs that are moving and whose every segment was seen whole at its target.
    fn settled_pgs(&self) -> Vec<PgId> {
        let pgs = (0u32..).map(PgId).zip(&self.map.table.pgs);
        pgs.filter(|(id, pg)| pg.is_moving() && !self.unsettled.contains(id)).map(|(id, _)| id).collect()
    }
}

/// Makes the targets of settled PGs the committed ones, if the table is still the one the inventory was taken by.
async fn commit_settled(shared: &Arc<Shared>, epoch: Epoch, settled: &[PgId]) {
    // A request for another inventory since may mean that a backend has gone: what was seen is no longer a proof.
    if settled.is_empty() || shared.repair.lock().inventory_wanted {
        return;
    }
    let commit = |map: &ClusterMap| {
        if map.table.epoch != epoch {
            return Ok(None);
        }
        Ok(Some(ClusterMap { table: holdfast_placement::commit_pgs(&map.table, settled), ..map.clone() }))
    };
    match change(shared, commit).await {
        Ok(map) if map.table.epoch != epoch => {
            tracing::info!(pgs = settled.len(), epoch = map.table.epoch.0, "moves complete, committed");
            // The old copies are superseded now; the next inventory frees them.
            shared.request_inventory(Doubt::None);
            if !map.table.pgs.iter().any(|pg| pg.is_moving()) {
                // What could not be planned while shards moved may be possible now: the next look at backends plans again.
                shared.health.lock().planned.clear();
            }
        }
        Ok(_) => shared.request_inventory(Doubt::None),
        Err(error) => tracing::warn!(%error, "commit placement groups"),
    }
}
