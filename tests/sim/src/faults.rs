//! What goes wrong, by the seed: processes end, links fail, directories are lost, bits rot, clocks jump.
//!
//! **Fault budget:** an acknowledged segment has k+1 durable shards at least, so one directory may be damaged (emptied, or
//! bits flipped) at a time, and the next only when every segment is whole again. Everything else may be destroyed by
//! nothing: any number of processes may end, links be cut and directories be away at once; then requests fail, and nothing
//! may be lost all the same. Metadata disks lose what was not synced, never what was.

use crate::checks::Checks;
use crate::cluster::{Cluster, usual_link};
use crate::disk::Disk;
use crate::node::Node;
use crate::requests::BUCKET;
use crate::world::World;
use holdfast_coordinator::metadata::ClusterMap;
use holdfast_proto::admin::BackendAdd;
use holdfast_proto::{BackendId, BucketId, NodeId};
use holdfast_transport::LinkConditions;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Bounds of the time between two faults.
const BETWEEN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(25));
/// Bounds of how long most faults last.
const LASTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(50));
/// How long a node is gone now and then: beyond the grace after which its shards are rebuilt elsewhere (15 minutes).
const GONE_LONG: Duration = Duration::from_secs(17 * 60);
/// How far clocks go wrong, in milliseconds.
const CLOCK_OFF_MS: u64 = 120_000;
/// How long an operator takes to put a new directory in the place of an emptied one, and to try again.
const REPLACED_AFTER: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(90));
const REPLACE_AGAIN: Duration = Duration::from_secs(5);
/// Each range is one more group with its heartbeats: a few show what many would.
const SPLITS_MAX: u64 = 3;
/// An operator's patience with a split.
const SPLIT_WITHIN: Duration = Duration::from_secs(60);

/// Brings faults about, and takes them back.
pub struct Faults {
    cluster: Arc<Cluster>,
    checks: Arc<Checks>,
    stop: CancellationToken,
    /// Emptied directories that an operator has not replaced yet, with what had been there.
    emptied: Mutex<BTreeMap<String, BackendId>>,
    splits: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Crash,
    CrashAll,
    Partition,
    OneWay,
    SlowLinks,
    LossyLinks,
    ThinLinks,
    DiskAway,
    DiskFull,
    DiskSlow,
    DiskEmptied,
    BitRot,
    ClockJump,
    RangeSplit,
}

/// How often each comes, of all together.
const KINDS: [(u64, Kind); 14] = [
    (24, Kind::Crash),
    (3, Kind::CrashAll),
    (12, Kind::Partition),
    (8, Kind::OneWay),
    (6, Kind::SlowLinks),
    (8, Kind::LossyLinks),
    (4, Kind::ThinLinks),
    (8, Kind::DiskAway),
    (6, Kind::DiskFull),
    (6, Kind::DiskSlow),
    (6, Kind::DiskEmptied),
    (12, Kind::BitRot),
    (6, Kind::ClockJump),
    (2, Kind::RangeSplit),
];

impl Faults {
    /// Of this cluster; none yet.
    pub fn new(cluster: Arc<Cluster>, checks: Arc<Checks>) -> Arc<Self> {
        let (stop, emptied, splits) = (CancellationToken::new(), Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { cluster, checks, stop, emptied, splits })
    }

    fn world(&self) -> &Arc<World> {
        &self.cluster.world
    }

    /// Brings about one fault after another until `heal`.
    pub async fn run(self: Arc<Self>) {
        loop {
            let pause = self.world().between(BETWEEN.0, BETWEEN.1);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = sleep(pause) => {}
            }
            self.clone().begin(self.choose()).await;
        }
    }

    fn choose(&self) -> Kind {
        let all: u64 = KINDS.iter().map(|(weight, _)| weight).sum();
        let mut at = self.world().pick(0..all);
        for (weight, kind) in KINDS {
            match at.checked_sub(weight) {
                Some(rest) => at = rest,
                None => return kind,
            }
        }
        Kind::Crash
    }

    async fn begin(self: Arc<Self>, kind: Kind) {
        let world = self.world().clone();
        let lasts = world.between(LASTS.0, LASTS.1);
        match kind {
            Kind::Crash => {
                let node = self.any_node();
                let long = world.chance(4).then_some(GONE_LONG);
                self.crash(&node, long.unwrap_or(lasts));
            }
            Kind::CrashAll => {
                for node in self.cluster.nodes.clone() {
                    self.crash(&node, world.between(Duration::ZERO, Duration::from_secs(5)));
                }
            }
            Kind::Partition => self.partition(lasts),
            Kind::OneWay => {
                let links = self.links_of(self.any_node().id());
                self.links(vec![links[world.index(links.len())]], LinkConditions::CUT, lasts, "one way cut");
            }
            Kind::SlowLinks => {
                let delay = world.between(Duration::from_millis(20), Duration::from_millis(1500));
                let slow = LinkConditions { delay, jitter: delay / 2, ..usual_link() };
                self.links(self.links_of(self.any_node().id()), slow, lasts, "slow links");
            }
            Kind::LossyLinks => {
                let lost = u32::try_from(world.pick(5_000..150_000)).unwrap_or(0);
                let lossy = LinkConditions { lost_per_million: lost, ..usual_link() };
                self.links(self.links_of(self.any_node().id()), lossy, lasts, "lossy links");
            }
            Kind::ThinLinks => {
                let thin = LinkConditions { bytes_per_second: Some(world.pick(50_000..2_000_000)), ..usual_link() };
                self.links(self.links_of(self.any_node().id()), thin, lasts, "thin links");
            }
            Kind::DiskAway => {
                let disk = self.any_disk();
                world.count_fault(format_args!("away {disk:?} for {lasts:?}"));
                disk.set_detached(true);
                self.later(lasts, move |_| disk.set_detached(false));
            }
            Kind::DiskFull => {
                let disk = self.any_disk();
                world.count_fault(format_args!("full {disk:?} for {lasts:?}"));
                disk.set_full(true);
                self.later(lasts, move |_| disk.set_full(false));
            }
            Kind::DiskSlow => {
                let disk = self.any_disk();
                let slowness = world.between(Duration::from_millis(10), Duration::from_secs(4));
                world.count_fault(format_args!("slow {disk:?} by {slowness:?} for {lasts:?}"));
                disk.set_slowness(slowness);
                self.later(lasts, move |_| disk.set_slowness(Duration::ZERO));
            }
            Kind::RangeSplit => self.split(),
            Kind::DiskEmptied => self.empty().await,
            Kind::BitRot => self.rot().await,
            Kind::ClockJump => {
                let node = self.any_node();
                let ahead = world.pick(0..2 * CLOCK_OFF_MS);
                let offset = ahead.cast_signed() - CLOCK_OFF_MS.cast_signed();
                world.count_fault(format_args!("clock of {} off by {offset} ms", node.id()));
                node.clock_offset.store(offset, Ordering::Relaxed);
            }
        }
    }

    fn any_node(&self) -> Arc<Node> {
        self.cluster.nodes[self.world().index(self.cluster.nodes.len())].clone()
    }

    fn any_disk(&self) -> Arc<Disk> {
        let disks: Vec<_> = self.cluster.disks().cloned().collect();
        disks[self.world().index(disks.len())].clone()
    }

    /// Does something after a while, unless all is healed before.
    fn later(self: &Arc<Self>, after: Duration, undo: impl FnOnce(&Self) + Send + 'static) {
        let faults = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = faults.stop.cancelled() => {}
                () = sleep(after) => undo(&faults),
            }
        });
    }

    fn crash(self: &Arc<Self>, node: &Arc<Node>, down: Duration) {
        if !node.is_running() {
            return;
        }
        self.world().count_fault(format_args!("crash {} for {down:?}", node.id()));
        node.crash(&self.cluster.network);
        let node = node.clone();
        self.later(down, move |faults| {
            if !node.is_running() {
                faults.cluster.start_node(&node);
            }
        });
    }

    /// Both directions of every link of a node.
    fn links_of(&self, node: NodeId) -> Vec<(NodeId, NodeId)> {
        let others = self.cluster.ids().into_iter().filter(|&other| other != node);
        others.flat_map(|other| [(node, other), (other, node)]).collect()
    }

    /// Some nodes and the others do not reach each other.
    fn partition(self: &Arc<Self>, lasts: Duration) {
        let world = self.world().clone();
        let (one, other): (Vec<NodeId>, Vec<NodeId>) = self.cluster.ids().into_iter().partition(|_| world.chance(35));
        if one.is_empty() || other.is_empty() {
            return;
        }
        let across = one.iter().flat_map(|&a| other.iter().flat_map(move |&b| [(a, b), (b, a)]));
        self.links(across.collect(), LinkConditions::CUT, lasts, "partition");
    }

    fn links(
        self: &Arc<Self>,
        links: Vec<(NodeId, NodeId)>,
        conditions: LinkConditions,
        lasts: Duration,
        what: &'static str,
    ) {
        self.world().count_fault(format_args!("{what} {links:?} {conditions:?} for {lasts:?}"));
        let set = |network: &holdfast_transport::LocalNetwork, conditions| {
            links.iter().for_each(|&(from, to)| network.set_link(from, to, conditions));
        };
        set(&self.cluster.network, conditions);
        let links = links.clone();
        self.later(lasts, move |faults| {
            links.iter().for_each(|&(from, to)| faults.cluster.network.set_link(from, to, usual_link()));
        });
    }

    /// No fault, but what makes faults interesting: an operator has a range of the metadata cut in two.
    fn split(self: &Arc<Self>) {
        let world = self.world().clone();
        let up = self.cluster.coordinators();
        if up.is_empty() || self.splits.fetch_add(1, Ordering::Relaxed) >= SPLITS_MAX {
            return;
        }
        let parts = up[world.index(up.len())].clone();
        let Some(bucket) = parts.metadata.bucket(BUCKET) else { return };
        let border = format!("k{}", world.pick(1..8));
        tokio::spawn(async move {
            let cut = timeout(SPLIT_WITHIN, parts.store.split_at(BucketId(bucket.id), &border)).await;
            world.note(format_args!("split at {border}: {cut:?}"));
        });
    }

    /// Whether the budget has room for damage: everything is whole, and nothing waits to be replaced.
    async fn may_damage(&self) -> bool {
        self.emptied.lock().is_empty() && self.checks.survey().await.is_some_and(|survey| survey.is_whole)
    }

    async fn rot(&self) {
        if !self.may_damage().await {
            return;
        }
        let (disk, count) = (self.any_disk(), self.world().pick(1..20));
        self.checks.count_damage();
        for _ in 0..count {
            if let Some(shard) = disk.rot() {
                self.world().count_fault(format_args!("rot {shard} on {disk:?}"));
            }
        }
    }

    async fn empty(self: Arc<Self>) {
        let disk = self.any_disk();
        if !self.may_damage().await {
            return;
        }
        let Some(backend) = disk.backend() else { return };
        self.world().count_fault(format_args!("emptied {disk:?}"));
        self.checks.count_damage();
        disk.wipe();
        self.emptied.lock().insert(disk.location.clone(), backend);
        let after = self.world().between(REPLACED_AFTER.0, REPLACED_AFTER.1);
        tokio::spawn(async move {
            sleep(after).await;
            while !self.replace(&disk.location, backend).await {
                sleep(REPLACE_AGAIN).await;
            }
            self.emptied.lock().remove(&disk.location);
        });
    }

    /// What an operator does: asks the coordinator that leads to make the directory a backend again. `true` when done.
    async fn replace(&self, location: &str, old: BackendId) -> bool {
        let all = self.cluster.coordinators();
        let Some((parts, kept)) = all.iter().find_map(|parts| Some((parts, parts.kept.borrow().clone()?))) else {
            return false;
        };
        let map = parts.layout.current();
        let Some(record) = map.backends.iter().find(|record| record.id == old) else {
            // An answer got lost: it was replaced before, or was forgotten; then there is a new one at its place.
            return map.backends.iter().any(|record| record.location == location);
        };
        let add = BackendAdd { location: location.to_owned(), name: None, node: None };
        let replaced = kept.maintenance.backend_replace(&record.name, add).await;
        match replaced {
            Ok(view) => self.world().note(format_args!("replaced {old} by {}", view.status.id)),
            Err(error) => {
                self.world().note(format_args!("replace {old}: {error}"));
                self.clear_unknown(location, &parts.layout.current());
            }
        }
        // What counts is what the next look at the map says.
        false
    }

    /// A replacement that was cut off between the node and the map leaves a backend that the map does not know, and the next
    /// try is refused for it (ROADMAP.md): the operator empties the directory once more. Nobody has placed anything there.
    fn clear_unknown(&self, location: &str, map: &ClusterMap) {
        let disk = self.cluster.disks().find(|disk| disk.location == location);
        let Some((disk, lying)) = disk.and_then(|disk| Some((disk, disk.backend()?))) else { return };
        if !map.backends.iter().any(|record| record.id == lying) {
            self.world().note(format_args!("{lying} is in no map: {disk:?} is emptied again"));
            disk.wipe();
        }
    }

    /// Ends every fault: links as usual, directories back, every node running, clocks right.
    pub fn heal(&self) {
        self.world().note(format_args!("heal"));
        self.stop.cancel();
        self.cluster.network.set_every_link(usual_link());
        for disk in self.cluster.disks() {
            disk.set_detached(false);
            disk.set_full(false);
            disk.set_slowness(Duration::ZERO);
        }
        for node in &self.cluster.nodes {
            node.clock_offset.store(0, Ordering::Relaxed);
            if !node.is_running() {
                self.cluster.start_node(node);
            }
        }
    }
}
