//! A store of fakes on which maintenance runs as a whole, for the tests of this folder.

use super::fakes::{CLUSTER, FakeMetadata, FakeNode, FakeRebuilder, SCHEME, segment_record};
use super::*;
use crate::metadata::{BackendRecord, ClusterMap, SegmentOwner};
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::manifest::Segment;
use holdfast_proto::pg_table::{Pg, PgTable};
use holdfast_proto::{BackendId, BucketId, Epoch, NodeId, SegmentId, ShardId, Slot, VersionId};
use std::time::{Duration, Instant};

pub(super) const PG_COUNT: u32 = 8;
pub(super) const LIMIT: Duration = Duration::from_secs(20);

pub(super) struct World {
    pub(super) node: FakeNode,
    pub(super) metadata: Arc<FakeMetadata>,
    pub(super) rebuilder: Arc<FakeRebuilder>,
    pub(super) layout: Layout,
    pub(super) hints: mpsc::Sender<DamageHint>,
    pub(super) maintenance: Arc<Maintenance>,
}

pub(super) fn options() -> MaintenanceOptions {
    MaintenanceOptions {
        health_period: Duration::from_millis(20),
        missing_grace: Duration::from_secs(900),
        garbage_delay: Duration::ZERO,
        inventory_window: 64,
        repair_rest_ratio: 0.0,
        ..MaintenanceOptions::default()
    }
}

/// Ids that are older than any process, so that they are orphans when nobody owns them.
pub(super) fn segment_id(number: u64) -> SegmentId {
    let mut random = [0u8; 10];
    random[6..].copy_from_slice(&u32::try_from(number % u64::from(PG_COUNT)).unwrap().to_be_bytes());
    SegmentId::from_parts(1000 + number, random)
}

/// A segment that has just begun.
pub(super) fn young_segment_id() -> SegmentId {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    SegmentId::from_parts(u64::try_from(since_1970.as_millis()).unwrap(), [0; 10])
}

/// A store of `segments` segments on `backends` backends named d1, d2, ...; `before` may damage it before maintenance
/// starts.
pub(super) async fn world(
    backends: usize,
    segments: u64,
    options: MaintenanceOptions,
    before: impl FnOnce(&World),
) -> World {
    let node = FakeNode::default();
    let ids: Vec<BackendId> = (1..=backends).map(|n| node.attach(&format!("disk:/d{n}"), &format!("d{n}"))).collect();
    let record = |(id, n): (&BackendId, usize)| BackendRecord {
        id: *id,
        name: format!("d{n}"),
        location: format!("disk:/d{n}"),
        intent: BackendIntent::Active,
        node: NodeId::FIRST,
    };
    let pg = |pg: usize| {
        let list: Vec<BackendId> = (0..6).map(|slot| ids[(pg + slot) % ids.len()]).collect();
        Pg { committed: list.clone(), target: list }
    };
    let table = PgTable { epoch: Epoch(1), scheme: SCHEME, pgs: (0..PG_COUNT as usize).map(pg).collect() };
    let map = ClusterMap { backends: ids.iter().zip(1..).map(record).collect(), ..ClusterMap::new(CLUSTER, table) };
    let metadata = Arc::new(FakeMetadata::default());
    *metadata.map.lock() = Some(map.clone());
    let layout = Layout::new(map);
    let rebuilder = FakeRebuilder::new(&node, &layout);
    let (hints, receiver) = mpsc::channel(1024);
    let parts = || MaintenanceParts {
        metadata: metadata.clone(),
        node: Arc::new(node.clone()),
        layout: layout.clone(),
        rebuilder: rebuilder.clone(),
        activity: rebuilder.clone(),
    };
    let (of_idle, of_world) = (parts(), parts());
    // A stand-in until the damage is done; it is shut down before it could act.
    let idle = Maintenance::start_with(of_idle, mpsc::channel(1).1, options.clone());
    idle.shutdown().await;
    let mut world = World { node, metadata, rebuilder, layout, hints, maintenance: idle };
    for number in 0..segments {
        world.write(segment_id(number));
    }
    before(&world);
    world.maintenance = Maintenance::start_with(of_world, receiver, options);
    world
}

impl World {
    pub(super) fn write(&self, id: SegmentId) -> Segment {
        let map = self.layout.current();
        let pg = map.table.pg_of(id);
        let segment = segment_record(id, pg.0);
        for (slot, backend) in (0..6).map(Slot).zip(&map.table.pg(pg).unwrap().target) {
            self.node.put(*backend, segment.shard(slot));
        }
        let owner =
            SegmentOwner { bucket: BucketId(1), key: format!("k{id}"), version: VersionId([1; 16]), part: None };
        self.metadata.segments.lock().insert(id, (owner, segment.clone()));
        segment
    }

    pub(super) fn backend(&self, name: &str) -> BackendId {
        self.layout.current().backends.iter().find(|b| b.name == name).unwrap().id
    }

    /// Where the table says the shard is.
    pub(super) fn place(&self, shard: ShardId) -> BackendId {
        self.layout.current().table.pg(shard.pg).unwrap().target[usize::from(shard.slot.0)]
    }

    pub(super) fn shards(&self) -> Vec<ShardId> {
        let segments = self.metadata.segments.lock();
        segments.values().flat_map(|(_, s)| (0..6).map(|slot| s.shard(Slot(slot)))).collect()
    }

    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + LIMIT;
        while !is_so(self) {
            if Instant::now() > end {
                let repair = self.maintenance.repair_status().await.unwrap();
                let verdict = self.maintenance.cluster_verdict().await.unwrap();
                panic!("not within {LIMIT:?}: {what}\n{repair:?}\n{verdict:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn until_verdict(&self, expected: Verdict) -> Vec<String> {
        let end = Instant::now() + LIMIT;
        loop {
            let (verdict, findings) = self.maintenance.cluster_verdict().await.unwrap();
            if verdict == expected {
                return findings;
            }
            assert!(
                Instant::now() < end,
                "{verdict:?} and not {expected:?}: {findings:?}\n{:?}",
                self.maintenance.repair_status().await
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Healthy, nothing moving, every shard good at its place and nothing anywhere else.
    pub(super) async fn until_whole_and_tidy(&self) {
        self.until_verdict(Verdict::Healthy).await;
        self.until("no PG is moving", |w| !w.layout.current().table.pgs.iter().any(Pg::is_moving)).await;
        self.until("every shard is in its place", |w| w.shards().iter().all(|s| w.node.holds_good(w.place(*s), *s)))
            .await;
        self.until("nothing is left over", |w| {
            let total: usize = w.layout.current().backends.iter().map(|b| w.node.count(b.id)).sum();
            total == w.shards().len()
        })
        .await;
        // What an inventory planned while the last shards were written counts until it was looked at once more.
        let end = Instant::now() + LIMIT;
        loop {
            let status = self.maintenance.repair_status().await.unwrap();
            if (status.bytes_to_write, status.shards_to_write, status.failed_segments) == (0, 0, 0) {
                return;
            }
            assert!(Instant::now() < end, "{status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
