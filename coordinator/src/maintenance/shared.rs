//! What the tasks of maintenance share: settings, the state of repair, the last health report, and the signals between
//! them. The only place of this folder that reads a clock.
//!
//! **Invariant:** no lock of `parking_lot` is held across an await.

use super::activity::ActivitySource;
use super::patient_node::PatientNode;
use super::rate::{ByteBudget, RateMeter};
use crate::layout::Layout;
use crate::metadata::{Holds, Metadata};
use crate::object_path::{Activity, ObjectError, ObjectPath, RebuildContext};
use crate::rebalance::Pace;
use crate::repair::{Distrust, LossClock, MarginTable, Reach, RepairQueue, WorkItem};
use crate::surroundings::Surroundings;
use async_trait::async_trait;
use holdfast_proto::admin::{RepairStatus, ScrubStatus};
use holdfast_proto::cluster::Role;
use holdfast_proto::manifest::Segment;
use holdfast_proto::node::{BackendStatus, NodeClient};
use holdfast_proto::{BackendId, Epoch, SegmentId, ShardId, Slot};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Reasons shown of failures; the rest is only counted.
const REASONS_MAX: usize = 10;
/// How long a report of what is under way serves for segments that had long begun when it was taken.
const RECENT_MS: u64 = 1_000;
/// How far before the report such a segment must have begun, by the clock of the coordinator that named it.
const LONG_BEGUN_MS: u64 = 60_000;

/// Settings of maintenance.
#[derive(Clone, Debug)]
pub struct MaintenanceOptions {
    /// How often backends are probed.
    pub health_period: Duration,
    /// How long a missing backend is waited for before its shards are rebuilt elsewhere.
    pub missing_grace: Duration,
    /// How often the inventory is taken when nothing asks for it.
    pub inventory_period: Duration,
    /// Segments in one window of the inventory: about 600 bytes each.
    pub inventory_window: usize,
    /// Segments repaired at a time.
    pub repair_concurrency: usize,
    /// Segments the queue of repair holds: about 150 bytes each.
    pub repair_queue_max: usize,
    /// Bytes repair may write a second; 0 for no limit.
    pub repair_bytes_per_second_max: u64,
    /// Rest after each repair of a segment that can still lose a shard, as a part of the time it took: leaves room for
    /// clients. Segments that cannot lose one are repaired without rest.
    pub repair_rest_ratio: f64,
    /// Bytes scrub may read a second on each backend; 0 for no limit.
    pub scrub_bytes_per_second_max: u64,
    /// How often every backend is scrubbed; zero for never.
    pub scrub_period: Duration,
    /// How long shards of deleted objects are kept at least, for reads that are about to begin.
    pub garbage_delay: Duration,
    /// Segments of garbage looked at at a time; more than these waiting are freed without delay.
    pub garbage_batch: usize,
    /// A shard without an owner, of a segment begun since this process started, is left alone for so long.
    pub orphan_age: Duration,
    /// The time of day, read once.
    pub surroundings: Surroundings,
}

impl Default for MaintenanceOptions {
    fn default() -> Self {
        Self {
            health_period: Duration::from_secs(1),
            missing_grace: Duration::from_secs(15 * 60),
            inventory_period: Duration::from_secs(10 * 60),
            inventory_window: 16_384,
            repair_concurrency: 4,
            repair_queue_max: 100_000,
            repair_bytes_per_second_max: 0,
            repair_rest_ratio: 0.1,
            scrub_bytes_per_second_max: 64 << 20,
            scrub_period: Duration::from_secs(14 * 86_400),
            garbage_delay: Duration::from_secs(15),
            garbage_batch: 10_000,
            orphan_age: Duration::from_secs(10 * 60),
            surroundings: Surroundings::default(),
        }
    }
}

/// What rebuilds shards. `ObjectPath` does.
#[async_trait]
pub trait ShardRebuilder: Send + Sync + 'static {
    /// Decodes the wanted slots' shards from the others, verifies their roots and writes them where asked. Returns
    /// bytes written.
    async fn rebuild(
        &self,
        segment: &Segment,
        context: RebuildContext,
        wanted: &[(Slot, BackendId)],
    ) -> Result<u64, ObjectError>;
}

#[async_trait]
impl ShardRebuilder for ObjectPath {
    async fn rebuild(
        &self,
        segment: &Segment,
        context: RebuildContext,
        wanted: &[(Slot, BackendId)],
    ) -> Result<u64, ObjectError> {
        ObjectPath::rebuild(self, segment, context, wanted).await
    }
}

/// Whether an event makes the last inventory's figures too good to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// No shard can have been lost by it.
    None,
    /// Shards may be fewer than the figures say.
    FewerShards,
}

/// What repair is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Scanning,
    Repairing,
}

/// The state of repair.
pub(crate) struct RepairState {
    pub(crate) phase: Phase,
    pub(crate) inventory_wanted: bool,
    /// Until then what the last inventory found is worked on, whatever has happened since.
    pub(crate) inventory_not_before_ms: u64,
    /// Moves that looked complete wait for writes by an older layout to end, or unowned shards for a coordinator to say what
    /// it writes, or to be barred. Both end once every coordinator answers by the present layout.
    pub(crate) waits_for_coordinators: bool,
    /// Grows with every event that may have cost shards.
    pub(crate) doubts: u64,
    /// `doubts` when the last complete inventory began; `None` before the first.
    pub(crate) doubts_settled: Option<u64>,
    pub(crate) scanned_ms: u64,
    /// Inventories begun, and the one that `margins` is of.
    pub(crate) inventories: u64,
    pub(crate) inventory: u64,
    pub(crate) margins: MarginTable,
    /// Bytes that one slot of each PG holds, by the last inventory.
    pub(crate) shard_bytes: Vec<u64>,
    pub(crate) queue: RepairQueue,
    /// Segments that wait for a backend, by backend.
    pub(crate) blocked: BTreeMap<BackendId, u64>,
    /// Records of segments that this build cannot read.
    pub(crate) unreadable_records: u64,
    /// Why the last inventory failed; empty if it did not.
    pub(crate) inventory_failure: String,
    pub(crate) bytes_written: u64,
    pub(crate) rate: RateMeter,
    pub(crate) budget: ByteBudget,
}

/// The last report on backends.
pub(crate) struct HealthState {
    pub(crate) statuses: Vec<BackendStatus>,
    pub(crate) clock: LossClock,
    /// Backends whose listing failed.
    pub(crate) distrust: Distrust,
    /// Roles the layout was last planned for.
    pub(crate) planned: BTreeMap<BackendId, holdfast_placement::CandidateRole>,
}

/// The state of scrub.
#[derive(Default)]
pub(crate) struct ScrubState {
    pub(crate) status: ScrubStatus,
    pub(crate) is_running: bool,
    pub(crate) rate: RateMeter,
}

/// What maintenance works on and with.
#[derive(Clone)]
pub struct MaintenanceParts {
    /// Records of what there is, and the cluster map.
    pub metadata: Arc<dyn Metadata>,
    /// Every backend.
    pub node: Arc<dyn NodeClient>,
    /// The cluster map requests work by.
    pub layout: Layout,
    /// Decodes lost shards.
    pub rebuilder: Arc<dyn ShardRebuilder>,
    /// Tells what requests under way write and read.
    pub activity: Arc<dyn ActivitySource>,
}

/// Everything the tasks share.
pub(crate) struct Shared {
    pub(crate) metadata: Arc<dyn Metadata>,
    pub(crate) node: Arc<dyn NodeClient>,
    pub(crate) layout: Layout,
    pub(crate) rebuilder: Arc<dyn ShardRebuilder>,
    activity: Arc<dyn ActivitySource>,
    /// The last report taken for `may_be_written`, and when asking for it began. Held while asking: one asks for all.
    recent_writing: tokio::sync::Mutex<(u64, Option<BTreeMap<SegmentId, Epoch>>)>,
    pub(crate) options: MaintenanceOptions,
    pub(crate) repair: Mutex<RepairState>,
    pub(crate) health: Mutex<HealthState>,
    /// What of the promise was found unproven by which map and with which backends answering: a proof for a question that
    /// many may ask at once.
    pub(crate) unproven: tokio::sync::Mutex<Option<(Epoch, Reach, Vec<String>)>>,
    pub(crate) scrub: Mutex<ScrubState>,
    /// Garbage that waits for reads that had begun: not orphans yet.
    pub(crate) garbage_waiting: Mutex<HashSet<SegmentId>>,
    /// Wakes the driver of repair.
    pub(crate) wake: Notify,
    /// Signals that an inventory ended.
    pub(crate) inventory_done: Notify,
    /// One change of the cluster map at a time.
    pub(crate) layout_change: tokio::sync::Mutex<()>,
    /// One health check at a time.
    pub(crate) health_check: tokio::sync::Mutex<()>,
    pub(crate) cancel: CancellationToken,
    pub(crate) started_ms: u64,
    started: Instant,
}

impl Shared {
    pub(crate) fn new(parts: MaintenanceParts, options: MaintenanceOptions, cancel: CancellationToken) -> Self {
        let MaintenanceParts { metadata, node, layout, rebuilder, activity } = parts;
        let started_ms = options.surroundings.now_ms();
        let repair = RepairState {
            phase: Phase::Scanning,
            inventory_wanted: true,
            inventory_not_before_ms: 0,
            waits_for_coordinators: false,
            doubts: 0,
            doubts_settled: None,
            scanned_ms: 0,
            inventories: 0,
            inventory: 0,
            margins: MarginTable::default(),
            shard_bytes: Vec::new(),
            queue: RepairQueue::new(options.repair_queue_max),
            blocked: BTreeMap::new(),
            unreadable_records: 0,
            inventory_failure: String::new(),
            bytes_written: 0,
            rate: RateMeter::default(),
            budget: ByteBudget::new(options.repair_bytes_per_second_max),
        };
        let health = HealthState {
            statuses: Vec::new(),
            clock: LossClock::new(as_ms(options.missing_grace)),
            distrust: Distrust::default(),
            planned: BTreeMap::new(),
        };
        Self {
            metadata,
            node: Arc::new(PatientNode::new(node)),
            layout,
            rebuilder,
            activity,
            recent_writing: tokio::sync::Mutex::new((0, None)),
            repair: Mutex::new(repair),
            health: Mutex::new(health),
            unproven: tokio::sync::Mutex::default(),
            scrub: Mutex::new(ScrubState::default()),
            garbage_waiting: Mutex::new(HashSet::new()),
            wake: Notify::new(),
            inventory_done: Notify::new(),
            layout_change: tokio::sync::Mutex::new(()),
            health_check: tokio::sync::Mutex::new(()),
            cancel,
            started_ms,
            started: Instant::now(),
            options,
        }
    }

    /// Milliseconds since 1970 as of the start plus what has passed since: never goes back.
    pub(crate) fn now_ms(&self) -> u64 {
        self.started_ms + as_ms(self.started.elapsed())
    }

    /// Full margin of the scheme that is written now.
    pub(crate) fn margin_target(&self) -> i32 {
        holdfast_codec::Scheme::from_code(self.layout.current().table.scheme).map_or(0, crate::repair::full_margin)
    }

    /// Which backends answer, by the last report and what was found since.
    pub(crate) fn reach(&self) -> Reach {
        let health = self.health.lock();
        let mut reach = Reach::new(health.statuses.iter().map(|s| (s.id, s.health)));
        for backend in health.distrust.left_out() {
            reach.distrust(backend);
        }
        reach
    }

    /// What requests under way do; `None`, with a line in the log, while some coordinator can neither be asked nor
    /// fenced: then nothing may be taken for abandoned.
    pub(crate) async fn activity(&self) -> Option<Activity> {
        let epoch = self.layout.current().table.epoch;
        self.activity.activity(epoch).await.inspect_err(|error| tracing::warn!(%error, "ask coordinators")).ok()
    }

    /// Whether a request may be writing the segment. A record looked for after this is there, or nobody will make it.
    ///
    /// Asked for one segment after another, so a report of the last second serves for all that had begun before it was
    /// taken: if one of them was being written then, the report says so, and nobody takes up an old id again.
    pub(crate) async fn may_be_written(&self, segment: SegmentId) -> bool {
        let mut recent = self.recent_writing.lock().await;
        let now_ms = self.now_ms();
        let taken_ms = recent.0;
        let serves = recent.1.is_some()
            && now_ms.saturating_sub(taken_ms) < RECENT_MS
            && segment.unix_ms().saturating_add(LONG_BEGUN_MS) < taken_ms;
        if !serves {
            *recent = (now_ms, self.activity().await.map(|activity| activity.writing));
        }
        recent.1.as_ref().is_none_or(|writing| writing.contains_key(&segment))
    }

    /// Whether no write places shards by a layout older than `epoch` any more.
    pub(crate) async fn is_fenced(&self, epoch: Epoch) -> bool {
        self.activity().await.is_some_and(|activity| activity.is_fenced(epoch))
    }

    /// Whether the cluster has no coordinator but this one, by the map this one knows.
    pub(crate) fn is_lone_coordinator(&self) -> bool {
        let map = self.layout.current();
        map.nodes.iter().filter(|node| node.roles.has(Role::Coordinator)).count() <= 1
    }

    /// Leaves a backend out of inventories for a while.
    pub(crate) fn distrust(&self, backend: BackendId) {
        let now_ms = self.now_ms();
        self.health.lock().distrust.begin(backend, now_ms);
    }

    /// A backend's name for people.
    pub(crate) fn backend_name(&self, backend: BackendId) -> String {
        let map = self.layout.current();
        let found = map.backends.iter().find(|record| record.id == backend);
        found.map_or_else(|| backend.to_string(), |record| record.name.clone())
    }

    /// Asks for an inventory as soon as possible.
    pub(crate) fn request_inventory(&self, doubt: Doubt) {
        let mut repair = self.repair.lock();
        repair.inventory_wanted = true;
        if doubt == Doubt::FewerShards {
            repair.doubts += 1;
        }
        repair.queue.forgive();
        drop(repair);
        self.wake.notify_one();
    }

    /// Reports shards as damaged or missing, to be looked at first.
    pub(crate) fn suspect(&self, shards: impl IntoIterator<Item = ShardId>) {
        // Below every segment that is whole, among those that have lost one: the true margin is found when looked at.
        let margin = self.margin_target() - 1;
        let mut repair = self.repair.lock();
        for shard in shards.into_iter().filter(|s| s.slot.0 < 64) {
            let suspects = 1u64 << shard.slot.0;
            repair.queue.add(WorkItem { segment: shard.segment, margin, suspects, ..WorkItem::default() });
        }
        drop(repair);
        self.wake.notify_one();
    }

    /// What an operator holds back.
    pub(crate) fn held(&self) -> Holds {
        self.layout.current().held
    }

    pub(crate) fn waive_grace(&self) {
        self.health.lock().clock.waive_grace();
    }

    /// How fast shards move.
    pub(crate) fn pace(&self) -> Pace {
        let measured_bytes_per_second = self.repair.lock().rate.bytes_per_second(self.now_ms());
        Pace { measured_bytes_per_second, bytes_per_second_max: self.options.repair_bytes_per_second_max }
    }

    /// Sleeps, but not beyond the end of maintenance. Returns whether to go on.
    pub(crate) async fn rest(&self, duration: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => false,
            () = tokio::time::sleep(duration) => true,
        }
    }

    /// `holdfast repair status`.
    pub(crate) fn repair_status(&self) -> RepairStatus {
        let (now_ms, margin_target, held) = (self.now_ms(), self.margin_target(), self.held());
        let mut repair = self.repair.lock();
        let bytes_per_second = repair.rate.bytes_per_second(now_ms);
        let bytes_to_write = repair.margins.bytes_to_write();
        let (failed_segments, failures) = repair.queue.failures(REASONS_MAX);
        let state = match repair.phase {
            _ if held.repair => "paused",
            Phase::Idle if repair.inventory_wanted => "scanning",
            Phase::Idle => "idle",
            Phase::Scanning => "scanning",
            Phase::Repairing => "repairing",
        };
        RepairStatus {
            state: state.to_owned(),
            margin_target,
            margins: repair.margins.rows(margin_target),
            shards_to_write: repair.margins.shards_to_write(),
            bytes_to_write,
            bytes_written: repair.bytes_written,
            bytes_per_second,
            eta_seconds: eta_seconds(bytes_to_write, bytes_per_second),
            failed_segments,
            failures,
            scanned_ms: repair.scanned_ms,
        }
    }
}

/// Seconds to go, rounded up; `None` while unknown.
fn eta_seconds(bytes: u64, bytes_per_second: u64) -> Option<u64> {
    match (bytes, bytes_per_second) {
        (0, _) => Some(0),
        (_, 0) => None,
        _ => Some(bytes.div_ceil(bytes_per_second)),
    }
}

/// A duration in whole milliseconds.
pub(crate) fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
