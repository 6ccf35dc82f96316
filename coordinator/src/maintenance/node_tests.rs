//! Nodes that are stopped, drained, given up and replaced, over fakes: every shard ends where the table says.

use super::fakes::{FakeMetadata, FakeNode, FakeRebuilder, segment_record};
use super::*;
use crate::metadata::{ClusterMap, SegmentOwner};
use crate::rebalance::model::{b, backend, map_of, node};
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::cluster::{NodeIntent, NodeRecord};
use holdfast_proto::layout_admin::{Mode, StopVerdict};
use holdfast_proto::node::BackendHealth;
use holdfast_proto::{BackendId, BucketId, Epoch, ErrorKind, SegmentId, ShardId, Slot, VersionId};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);
const SEGMENTS: u64 = 96;

pub(super) struct Cluster {
    pub(super) node: FakeNode,
    pub(super) metadata: Arc<FakeMetadata>,
    pub(super) layout: Layout,
    pub(super) maintenance: Arc<Maintenance>,
    parts: MaintenanceParts,
    /// Keeps the intake of damage open.
    _hints: mpsc::Sender<DamageHint>,
}

fn segment_id(number: u64) -> SegmentId {
    let mut random = [0u8; 10];
    random[6..].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
    SegmentId::from_parts(1000 + number, random)
}

fn options() -> MaintenanceOptions {
    MaintenanceOptions {
        health_period: Duration::from_millis(20),
        garbage_delay: Duration::ZERO,
        repair_rest_ratio: 0.0,
        ..MaintenanceOptions::default()
    }
}

/// A cluster of 4+2 on so many nodes, each a zone, with so many backends each. `before` may damage it.
pub(super) fn cluster(nodes: u64, per_node: u8, before: impl FnOnce(&FakeNode, &mut ClusterMap)) -> Cluster {
    let mut map = map_of(nodes, per_node, "4+2");
    let node = FakeNode::default();
    for record in &map.backends {
        assert_eq!(node.attach(&record.location, &record.name), record.id);
    }
    let metadata = Arc::new(FakeMetadata::default());
    for number in 0..SEGMENTS {
        let id = segment_id(number);
        let segment = segment_record(id, map.table.pg_of(id).0);
        for (slot, backend) in (0..6).map(Slot).zip(&map.table.pg(map.table.pg_of(id)).unwrap().target) {
            node.put(*backend, segment.shard(slot));
        }
        let owner =
            SegmentOwner { bucket: BucketId(1), key: format!("k{id}"), version: VersionId([1; 16]), part: None };
        metadata.segments.lock().insert(id, (owner, segment));
    }
    before(&node, &mut map);
    *metadata.map.lock() = Some(map.clone());
    let layout = Layout::new(map);
    let rebuilder = FakeRebuilder::new(&node, &layout);
    let parts = MaintenanceParts {
        metadata: metadata.clone(),
        node: Arc::new(node.clone()),
        layout: layout.clone(),
        rebuilder: rebuilder.clone(),
        activity: rebuilder,
    };
    let (_hints, receiver) = mpsc::channel(16);
    let maintenance = Maintenance::start_with(parts.clone(), receiver, options());
    Cluster { node, metadata, layout, maintenance, parts, _hints }
}

impl Cluster {
    /// Another coordinator begins to lead.
    pub(super) async fn change_leader(&mut self) {
        self.maintenance.shutdown().await;
        let (hints, receiver) = mpsc::channel(16);
        self._hints = hints;
        self.maintenance = Maintenance::start_with(self.parts.clone(), receiver, options());
    }

    pub(super) fn record(&self, name: &str) -> NodeRecord {
        self.layout.current().nodes.iter().find(|node| node.name == name).unwrap().clone()
    }

    pub(super) fn backends(&self, name: &str) -> Vec<BackendId> {
        let owner = self.record(name).id;
        self.layout.current().backends.iter().filter(|r| r.node == owner).map(|r| r.id).collect()
    }

    fn set_health(&self, name: &str, health: BackendHealth) {
        self.backends(name).into_iter().for_each(|id| self.node.set_health(id, health));
    }

    /// A node joins with backends that nobody knows yet.
    pub(super) fn join(&self, number: u64, backends: &[u8]) {
        let mut map = self.metadata.map.lock().clone().unwrap();
        map.nodes.push(node(number));
        for n in backends {
            assert_eq!(self.node.attach(&format!("disk:/d{n}"), &format!("d{n}")), b(*n));
            map.backends.push(backend(*n, number));
        }
        map.table.epoch = Epoch(map.table.epoch.0 + 1);
        *self.metadata.map.lock() = Some(map.clone());
        self.layout.advance(map);
    }

    pub(super) fn is_at_rest(&self) -> bool {
        let map = self.layout.current();
        let is_moving = map.table.pgs.iter().any(|pg| pg.is_moving());
        !is_moving && self.all_good()
    }

    /// Every shard is where it shall be.
    pub(super) fn all_good(&self) -> bool {
        self.shards().iter().all(|(shard, place)| self.node.holds_good(*place, *shard))
    }

    fn shards(&self) -> Vec<(ShardId, BackendId)> {
        let map = self.layout.current();
        let segments = self.metadata.segments.lock();
        let shards = segments.values().flat_map(|(_, s)| (0..6).map(|slot| s.shard(Slot(slot))));
        shards.map(|shard| (shard, map.table.pg(shard.pg).unwrap().target[usize::from(shard.slot.0)])).collect()
    }

    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + LIMIT;
        while !is_so(self) {
            if Instant::now() > end {
                let repair = self.maintenance.repair_status().await.unwrap();
                let nodes: Vec<_> = self.layout.current().nodes.iter().map(|n| (n.name.clone(), n.intent)).collect();
                panic!("not within {LIMIT:?}: {what}\n{repair:?}\n{nodes:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn until_drained(&self, name: &str) {
        self.until("drained", |c| c.record(name).intent == NodeIntent::Drained).await;
    }
}

fn accepting(what: &[&str]) -> Vec<String> {
    what.iter().map(|word| (*word).to_owned()).collect()
}

fn drain(mode: Mode, accept: &[&str]) -> NodeDrain {
    NodeDrain { mode, accept_loss_of: accepting(accept) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_and_then_removed() {
    let cluster = cluster(4, 2, |_, _| {});
    let maintenance = &cluster.maintenance;
    cluster.until("at rest", |c| c.is_at_rest()).await;
    let before = cluster.layout.current().table.epoch;
    let early = maintenance.node_remove("n4", NodeRemove::default()).await.unwrap_err();
    assert!(early.next_step().contains("holdfast node drain n4"), "{early}");
    let plan = maintenance.node_drain("n4", drain(Mode::Plan, &[])).await.unwrap();
    assert_eq!((plan.intent, plan.pg_slots, plan.moves.slots), (NodeIntent::Draining, 48, 48));
    assert!(plan.moves.bytes > 0 && plan.moves.scenarios.iter().all(|step| step.during), "{plan:?}");
    assert_eq!(cluster.layout.current().table.epoch, before, "a plan changes nothing");

    let leaving = cluster.backends("n4");
    let view = maintenance.node_drain("n4", drain(Mode::Apply, &[])).await.unwrap();
    assert_eq!((view.mode, view.promise_before == view.promise_after), (Mode::Apply, true));
    let listed = maintenance.backend_list().await.unwrap();
    let intents = listed.iter().filter(|view| leaving.contains(&view.status.id)).map(|view| view.intent);
    assert!(intents.clone().count() == 2 && intents.clone().all(|i| i != BackendIntent::Active), "they go with it");
    cluster.until_drained("n4").await;
    assert!(leaving.iter().all(|id| cluster.node.count(*id) == 0), "nothing is left on it");
    assert!(cluster.is_at_rest(), "every shard is where it should be");

    let again = maintenance.node_drain("n4", drain(Mode::Apply, &[])).await.unwrap();
    assert_eq!((again.intent, again.moves.slots), (NodeIntent::Drained, 0), "asked twice it is as it was");
    let removed = maintenance.node_remove("n4", NodeRemove::default()).await.unwrap();
    assert_eq!((removed.intent, removed.moves.slots), (NodeIntent::Removed, 0));
    let map = cluster.layout.current();
    assert!(map.backends.iter().all(|record| !leaving.contains(&record.id)));
    assert_eq!(map.promise.to_string(), "zone:1");
    let gone = maintenance.node_remove("n4", NodeRemove::default()).await.unwrap_err();
    assert_eq!((gone.kind(), gone.next_step().as_str()), (ErrorKind::NotFound, "the nodes are: n1, n2, n3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_the_promise_is_refused_with_the_scenario_until_it_is_named() {
    let cluster = cluster(3, 3, |_, _| {});
    cluster.until("at rest", |c| c.is_at_rest()).await;
    let epoch = cluster.layout.current().table.epoch;
    let maintenance = &cluster.maintenance;
    for (accept, part) in
        [(vec![], "metadata"), (vec!["metadata"], "zone:1"), (vec!["metadata", "zone:2"], "not promised")]
    {
        let refused = maintenance.node_drain("n3", drain(Mode::Apply, &accept)).await.unwrap_err();
        assert!(refused.to_string().contains(part), "{accept:?}: {refused}");
    }
    let lost = NodeRemove { lost: true, ..NodeRemove::default() };
    let refused = maintenance.node_remove("n3", lost).await.unwrap_err();
    assert!(refused.next_step().contains("--accept-loss-of"), "{refused}");
    assert_eq!(cluster.layout.current().table.epoch, epoch, "refusals change nothing");

    let view = maintenance.node_drain("n3", drain(Mode::Apply, &["metadata", "zone:1"])).await.unwrap();
    assert_eq!(view.promise_before, "zone:1");
    assert!(!view.promise_after.contains("zone:1"), "{view:?}");
    cluster.until_drained("n3").await;
    assert!(cluster.is_at_rest());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_backends_are_too_few_whatever_is_given_up() {
    let cluster = cluster(3, 2, |_, _| {});
    cluster.until("at rest", |c| c.is_at_rest()).await;
    let ask = drain(Mode::Apply, &["metadata", "zone:1"]);
    let refused = cluster.maintenance.node_drain("n3", ask).await.unwrap_err();
    assert!(refused.to_string().contains("6 backends are needed"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_to_stay_after_all_gets_its_share_back() {
    let cluster = cluster(4, 2, |_, _| {});
    cluster.until("at rest", |c| c.is_at_rest()).await;
    cluster.maintenance.node_drain("n2", drain(Mode::Apply, &[])).await.unwrap();
    let view = cluster.maintenance.node_drain_cancel("n2").await.unwrap();
    assert_eq!(view.intent, NodeIntent::Active);
    let share = |c: &Cluster| {
        let (of_node, map) = (c.backends("n2"), c.layout.current());
        map.table.pgs.iter().flat_map(|pg| &pg.target).filter(|id| of_node.contains(id)).count()
    };
    cluster.until("its share is back", |c| c.is_at_rest() && share(c) == 48).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_is_given_up_and_its_shards_are_rebuilt() {
    let cluster = cluster(4, 2, |_, _| {});
    cluster.until("at rest", |c| c.is_at_rest()).await;
    cluster.set_health("n4", BackendHealth::Missing);
    let lost = cluster.backends("n4");
    let ask = NodeRemove { lost: true, ..NodeRemove::default() };
    let view = cluster.maintenance.node_remove("n4", ask).await.unwrap();
    assert_eq!((view.intent, view.moves.bytes_rebuilt > 0), (NodeIntent::Removed, true));
    cluster.until("rebuilt", |c| c.is_at_rest()).await;
    let is_forgotten = |c: &Cluster| c.layout.current().backends.iter().all(|record| !lost.contains(&record.id));
    cluster.until("its backends are forgotten", is_forgotten).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_lost_node_holds_is_given_up_by_name_alone() {
    let cluster = cluster(5, 2, |_, _| {});
    cluster.until("at rest", |c| c.is_at_rest()).await;
    cluster.set_health("n4", BackendHealth::Missing);
    cluster.set_health("n5", BackendHealth::Missing);
    let ask = NodeRemove { lost: true, ..NodeRemove::default() };
    let refused = cluster.maintenance.node_remove("n5", ask).await.unwrap_err();
    assert!(refused.to_string().contains("placement groups cannot be read without it"), "{refused}");
    let stop = cluster.maintenance.node_safe_to_stop("n3").await.unwrap();
    assert_eq!(stop.verdict, StopVerdict::ReadsBreak);
    cluster.set_health("n4", BackendHealth::Online);
    cluster.set_health("n5", BackendHealth::Online);
    let stop = cluster.maintenance.node_safe_to_stop("3").await.unwrap();
    assert_eq!((stop.name.as_str(), stop.verdict, stop.unreadable_pgs), ("n3", StopVerdict::Safe, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_takes_the_place_of_a_lost_node() {
    let cluster = cluster(3, 2, |_, _| {});
    cluster.until("at rest", |c| c.is_at_rest()).await;
    cluster.set_health("n3", BackendHealth::Missing);
    let ask = |with: &str| NodeReplace { with: with.to_owned(), ..NodeReplace::default() };
    for (with, part) in [("n9", "no node named n9"), ("n3", "cannot take the place of n3"), ("n2", "metadata")] {
        let refused = cluster.maintenance.node_replace("n3", ask(with)).await.unwrap_err();
        assert!(refused.to_string().contains(part), "{with}: {refused}");
    }
    cluster.join(4, &[]);
    let refused = cluster.maintenance.node_replace("n3", ask("n4")).await.unwrap_err();
    assert!(refused.to_string().contains("n4 has no backend that takes shards"), "{refused}");
    cluster.join(5, &[7, 8]);
    let view = cluster.maintenance.node_replace("n3", ask("n5")).await.unwrap();
    assert_eq!((view.intent, view.promise_after.as_str()), (NodeIntent::Removed, "zone:1"));
    let is_forgotten = |c: &Cluster| c.layout.current().backends.iter().all(|r| r.node != c.record("n3").id);
    cluster.until("rebuilt on the new node", |c| c.is_at_rest() && is_forgotten(c)).await;
    assert!(cluster.backends("n5").iter().all(|id| cluster.node.count(*id) > 0));
}

/// It may hold what it took in for others, which no slot of the table tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_node_that_does_not_answer_is_not_called_drained() {
    let cluster = cluster(3, 2, |fake, map| {
        map.nodes.push(NodeRecord { intent: NodeIntent::Draining, ..node(4) });
        map.backends.push(backend(7, 4));
        assert_eq!(fake.attach("disk:/d7", "d7"), b(7));
        fake.set_health(b(7), BackendHealth::Missing);
    });
    cluster.maintenance.cluster_verdict().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cluster.record("n4").intent, NodeIntent::Draining);
    cluster.set_health("n4", BackendHealth::Online);
    cluster.until_drained("n4").await;
}
