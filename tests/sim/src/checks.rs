//! What must hold, seen from outside: the checks know every directory, whoever can reach it.
//!
//! - An acknowledgement means that k+1 shards of each segment are durable.
//! - Of every segment that metadata refers to, k shards are whole, always: the faults never damage more than that.
//! - The slots of a placement group are on distinct backends, and the targets keep the promise.
//! - In the end everything is whole, in its place, and nothing else is there.

use crate::cluster::Cluster;
use holdfast_coordinator::metadata::{ClusterMap, Metadata};
use holdfast_coordinator::repair::{SegmentShape, topology};
use holdfast_placement::prove_targets;
use holdfast_proto::admin::Verdict;
use holdfast_proto::manifest::{ObjectVersion, Segment};
use holdfast_proto::{BackendId, Epoch, SegmentId, ShardId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Between two looks at everything.
const LOOK_PERIOD: Duration = Duration::from_secs(20);
/// What is read of metadata is younger than this when it is held against the directories: less than garbage is kept.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// Segments asked of metadata at a time.
const PAGE: usize = 512;
/// Segments that may wait to be freed at any time: those of every key that a run may use, with room.
const GARBAGE_MAX: usize = 5000;
/// Segments that one coordinator's requests may write at a time: those of all clients, and what they have given up.
const WRITING_MAX: usize = 500;

/// The checks of one run.
pub struct Checks {
    cluster: Arc<Cluster>,
    /// How often a fault has destroyed something.
    damage: AtomicU64,
    newest_checked: Mutex<Epoch>,
}

/// What was found of all segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Every shard of every segment lies somewhere, whole.
    pub is_whole: bool,
    /// What is not as it is to be in the end.
    pub unsettled: Vec<String>,
}

impl Checks {
    /// Of this cluster.
    pub fn new(cluster: Arc<Cluster>) -> Arc<Self> {
        Arc::new(Self { cluster, damage: AtomicU64::new(0), newest_checked: Mutex::new(Epoch(0)) })
    }

    /// Something was destroyed on purpose.
    pub fn count_damage(&self) {
        self.damage.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub fn damage_count(&self) -> u64 {
        self.damage.load(Ordering::Relaxed)
    }

    /// Looks at everything again and again.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(LOOK_PERIOD) => {}
            }
            self.survey().await;
            self.check_queues().await;
        }
    }

    /// Nothing that waits grows without bound.
    async fn check_queues(&self) {
        let world = &self.cluster.world;
        for parts in self.cluster.coordinators() {
            let writing = parts.objects.activity().writing.len();
            if writing > WRITING_MAX {
                world.violation(format_args!("{} counts {writing} segments as being written", parts.node));
            }
        }
        let Some(parts) = self.cluster.coordinators().into_iter().next() else { return };
        let waiting = timeout(READ_WITHIN, parts.metadata.garbage(GARBAGE_MAX)).await;
        if let Ok(Ok(waiting)) = waiting
            && waiting.len() >= GARBAGE_MAX
        {
            world.violation(format_args!("{} segments wait to be freed", waiting.len()));
        }
    }

    /// A write of this version was acknowledged; when it was sent, so much had been damaged.
    pub fn acknowledged(&self, key: &str, version: &ObjectVersion, damage_before: u64) {
        if self.damage_count() != damage_before {
            return;
        }
        let needed = self.cluster.shape.k + 1;
        for segment in &version.segments {
            let durable = self.whole_slots(segment).len();
            if durable < needed {
                let id = segment.segment_id();
                let world = &self.cluster.world;
                world.violation(format_args!("{key}: acknowledged with {durable} of {needed} shards durable: {id}"));
            }
        }
    }

    /// Looks at everything there is. `None` if metadata could not be asked.
    pub async fn survey(&self) -> Option<Survey> {
        let mut parts = self.cluster.coordinators();
        // The one that leads knows the newest map.
        parts.sort_by_key(|parts| parts.kept.borrow().is_none());
        let parts = parts.first()?;
        parts.layout.current().backends.first()?;
        let read = timeout(READ_WITHIN, self.read_segments(parts.metadata.as_ref())).await;
        let segments = read.ok()??;
        let map = parts.layout.current();
        self.check_map(&map);
        let mut survey = Survey { is_whole: true, unsettled: Vec::new() };
        let mut expected = BTreeSet::new();
        for segment in &segments {
            self.check_segment(segment, &map, &mut survey, &mut expected);
        }
        self.find_leftovers(&expected, &mut survey);
        Some(survey)
    }

    async fn read_segments(&self, metadata: &dyn Metadata) -> Option<Vec<Segment>> {
        let mut all: Vec<Segment> = Vec::new();
        let mut after: Option<SegmentId> = None;
        loop {
            let page = metadata.segments(after, PAGE).await.ok()?;
            let is_last = page.len() < PAGE;
            all.extend(page.into_iter().map(|(_, segment)| segment));
            after = all.last().map(Segment::segment_id);
            if is_last {
                return Some(all);
            }
        }
    }

    fn check_segment(
        &self,
        segment: &Segment,
        map: &ClusterMap,
        survey: &mut Survey,
        expected: &mut BTreeSet<(BackendId, ShardId)>,
    ) {
        let (shape, world) = (self.cluster.shape, &self.cluster.world);
        let id = segment.segment_id();
        let whole = self.whole_slots(segment);
        if whole.len() < shape.k {
            let left: Vec<u8> = whole.keys().copied().collect();
            world.violation(format_args!("lost: of segment {id} only the slots {left:?} are whole"));
        }
        survey.is_whole &= whole.len() == shape.k + shape.m;
        let Ok(record) = SegmentShape::read(segment) else {
            return world.violation(format_args!("the record of segment {id} cannot be read"));
        };
        let Some(pg) = map.table.pg(record.pg) else {
            return world.violation(format_args!("segment {id} is in placement group {}, which is none", record.pg));
        };
        for (slot, &target) in record.slots().zip(&pg.target) {
            let shard = record.shard(slot);
            expected.insert((target, shard));
            if !whole.get(&slot.0).is_some_and(|places| places.contains(&target)) {
                survey.unsettled.push(format!("{shard} is not whole on its target {target}"));
            }
        }
    }

    /// For each slot of which a whole shard lies somewhere, where.
    fn whole_slots(&self, segment: &Segment) -> BTreeMap<u8, Vec<BackendId>> {
        let mut found: BTreeMap<u8, Vec<BackendId>> = BTreeMap::new();
        let Ok(record) = SegmentShape::read(segment) else { return found };
        let roots = segment.shard_roots.chunks_exact(32);
        for (slot, root) in record.slots().zip(roots) {
            let Ok(root) = <[u8; 32]>::try_from(root) else { continue };
            let shard = record.shard(slot);
            for disk in self.cluster.disks().filter(|disk| disk.holds(shard, root)) {
                found.entry(slot.0).or_default().extend(disk.backend());
            }
        }
        found
    }

    fn find_leftovers(&self, expected: &BTreeSet<(BackendId, ShardId)>, survey: &mut Survey) {
        for disk in self.cluster.disks() {
            let Some(backend) = disk.backend() else { continue };
            for shard in disk.shards().into_iter().filter(|shard| !expected.contains(&(backend, *shard))) {
                survey.unsettled.push(format!("{shard} is left over on {backend}"));
            }
        }
    }

    fn check_map(&self, map: &ClusterMap) {
        let mut newest = self.newest_checked.lock();
        if map.table.epoch <= *newest {
            return;
        }
        *newest = map.table.epoch;
        let (world, epoch) = (&self.cluster.world, map.table.epoch);
        world.note(format_args!("map of epoch {epoch}"));
        for (number, pg) in (0u32..).zip(&map.table.pgs) {
            for places in [&pg.committed, &pg.target] {
                let distinct: BTreeSet<&BackendId> = places.iter().collect();
                if distinct.len() != places.len() {
                    world.violation(format_args!("epoch {epoch}: placement group {number} has two slots on a backend"));
                }
            }
        }
        let margin = self.cluster.shape.m;
        let promise = map.promise.or_any_backends(margin);
        let proven = topology(map, &[]).map(|topology| prove_targets(&map.table, &promise, &topology).err());
        match proven {
            Ok(None) => {}
            Ok(Some(broken)) => world.violation(format_args!("epoch {epoch}: the promise is broken: {broken}")),
            Err(error) => world.violation(format_args!("epoch {epoch}: {error}")),
        }
    }

    /// What is not yet as it is to be in the end: `Ok` when nothing is left to do.
    pub async fn settled(&self) -> Result<(), String> {
        let Some(survey) = self.survey().await else { return Err("metadata does not answer".to_owned()) };
        if let Some(first) = survey.unsettled.first() {
            return Err(format!("{} things, such as: {first}", survey.unsettled.len()));
        }
        let all = self.cluster.coordinators();
        for parts in &all {
            let activity = parts.objects.activity();
            if !activity.writing.is_empty() || !activity.reading.is_empty() {
                return Err(format!("{} still counts requests as under way", parts.node));
            }
        }
        let leading = all.iter().find_map(|parts| Some((parts, parts.kept.borrow().clone()?)));
        let Some((parts, kept)) = leading else { return Err("nobody maintains the store".to_owned()) };
        match parts.metadata.garbage(GARBAGE_MAX).await {
            Ok(garbage) if garbage.is_empty() => {}
            Ok(garbage) => return Err(format!("{} segments wait to be freed", garbage.len())),
            Err(error) => return Err(error.to_string()),
        }
        match kept.maintenance.cluster_verdict().await {
            Ok((Verdict::Healthy, _)) => Ok(()),
            Ok((verdict, findings)) => Err(format!("{verdict:?}: {}", findings.join("; "))),
            Err(error) => Err(error.to_string()),
        }
    }
}
