//! Messages of the administration API about nodes, layout, policy and moves. The same rules as in `admin`: sizes are
//! bytes, times milliseconds since 1970, fields are added and never renamed.

use crate::cluster::NodeIntent;
use crate::ids::{Epoch, NodeId};
use serde::{Deserialize, Serialize};

/// What happens while a node is stopped; also the exit code of `holdfast node safe-to-stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopVerdict {
    /// Reads and writes go on (exit 0).
    Safe,
    /// Everything can be read, some writes are refused (exit 3).
    WritesStop,
    /// Something cannot be read (exit 4).
    ReadsBreak,
}

impl StopVerdict {
    /// The process exit code of `holdfast node safe-to-stop`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Safe => 0,
            Self::WritesStop => 3,
            Self::ReadsBreak => 4,
        }
    }
}

/// A scenario of the promise, and whether it would be survived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioView {
    /// `zone:1+node:1`.
    pub scenario: String,
    /// Whether everything could still be read.
    pub holds: bool,
    /// The placement group and the loss that break it; empty if it holds.
    pub why: String,
}

/// `holdfast node safe-to-stop`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopView {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Over all.
    pub verdict: StopVerdict,
    /// Placement groups there are.
    pub pg_count: u64,
    /// Of which so many could not be read.
    pub unreadable_pgs: u64,
    /// Of which so many would take no writes above the size of inline objects.
    pub unwritable_pgs: u64,
    /// Any so many backends more could be lost meanwhile; negative if some read breaks already.
    pub survives_besides: i32,
    /// The promise, scenario by scenario, if it happened while the node is stopped.
    pub scenarios: Vec<ScenarioView>,
    /// Metadata groups that would have no majority of their voters: 0 is the root group.
    pub groups_without_quorum: Vec<u32>,
}

/// Where the rate behind an expected time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MoveRate {
    /// As shards move just now.
    Measured,
    /// As the settings allow.
    Limit,
    /// Nothing has moved and nothing limits it: a guess.
    Assumed,
}

/// A scenario of the promise before, during and after a change of layout, besides what is lost already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// `zone:1+node:1`.
    pub scenario: String,
    /// Where shards are now.
    pub before: bool,
    /// In every mixture of old and new places.
    pub during: bool,
    /// When all have moved.
    pub after: bool,
}

/// What a change of layout moves and risks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MoveView {
    /// Its name: the epoch and a hash of what it would put in place.
    pub plan: String,
    /// The layout epoch it was made from; on another it is stale.
    pub epoch: Epoch,
    /// What the new layout promises.
    pub promise: String,
    /// Slots of placement groups that get another backend: each is a shard of every segment in the group.
    pub slots: u64,
    /// The fewest that could bring the same fill.
    pub least_slots: u64,
    /// Bytes of their shards by the last inventory.
    pub bytes: u64,
    /// Whether there was an inventory; without one nothing is known of bytes and time.
    pub is_counted: bool,
    /// Of which between backends of a node.
    pub bytes_within_nodes: u64,
    /// Between nodes of a zone.
    pub bytes_between_nodes: u64,
    /// Between zones of a region.
    pub bytes_between_zones: u64,
    /// Between regions.
    pub bytes_between_regions: u64,
    /// Rebuilt from other shards, as where they were is lost.
    pub bytes_rebuilt: u64,
    /// Slots that stay on a lost or draining backend for want of another.
    pub slots_without_place: u64,
    /// The fullest backend before, as a multiple of its share.
    pub worst_fill_before: f64,
    /// And after.
    pub worst_fill_after: f64,
    /// Rate behind `seconds`.
    pub bytes_per_second: u64,
    /// Where the rate comes from.
    pub rate: MoveRate,
    /// How long it would take at that rate.
    pub seconds: u64,
    /// The promise, scenario by scenario.
    pub scenarios: Vec<StepView>,
}

/// Whether a change is to be made or only shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is made.
    #[default]
    Apply,
    /// It is shown, with what it would cost.
    Plan,
}

/// Body of `holdfast node drain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeDrain {
    /// Make it or show it.
    #[serde(default)]
    pub mode: Mode,
    /// Scenarios of the promise, or `metadata`, that may be given up.
    #[serde(default)]
    pub accept_loss_of: Vec<String>,
}

/// Body of `holdfast node remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRemove {
    /// Make it or show it.
    #[serde(default)]
    pub mode: Mode,
    /// The node is gone for good, and what it held is rebuilt from what is left.
    #[serde(default)]
    pub lost: bool,
    /// Scenarios of the promise, `metadata` or `data`, that may be given up.
    #[serde(default)]
    pub accept_loss_of: Vec<String>,
}

/// Body of `holdfast node replace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeReplace {
    /// The node that has joined in its place, by name or number.
    pub with: String,
    /// Make it or show it.
    #[serde(default)]
    pub mode: Mode,
    /// As of a removal.
    #[serde(default)]
    pub accept_loss_of: Vec<String>,
}

/// A node that was told to leave or stay, and what that moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeMoveView {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Whether the change was made or only shown.
    pub mode: Mode,
    /// What is wanted of it after the change.
    pub intent: NodeIntent,
    /// Slots of placement groups whose shards are on it or are to come to it.
    pub pg_slots: u64,
    /// What was promised before.
    pub promise_before: String,
    /// What is promised after.
    pub promise_after: String,
    /// What moves.
    pub moves: MoveView,
}

/// That the present layout keeps its promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofView {
    /// In how many different ways slots share domains.
    pub cases: u64,
    /// Losses the code was asked about.
    pub loss_sets: u64,
    /// Whether every one of them was walked; else the rest follows from the code.
    pub is_exhaustive: bool,
    /// Over what it proves, 64 hex digits.
    pub hash: String,
    /// Whether it is of this layout with the backends where they are now.
    pub is_current: bool,
}

/// A region, zone, node or backend of the layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainView {
    /// `region`, `zone`, `node` or `backend`.
    pub kind: String,
    /// Its name; of a backend, its short name.
    pub name: String,
    /// What is wanted of it where it is not to stay: `draining`, `drained`; of a backend that is gone, `lost`.
    pub state: String,
    /// Slots whose shards shall be there.
    pub slots: u64,
    /// Of which so many are still on their way to it.
    pub slots_coming: u64,
    /// Slots whose shards are there and shall leave.
    pub slots_leaving: u64,
    /// Bytes of the file systems.
    pub capacity_bytes: u64,
    /// Bytes that shards take.
    pub used_bytes: u64,
}

/// `holdfast layout show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutView {
    /// Its number.
    pub epoch: Epoch,
    /// K+M.
    pub scheme: String,
    /// What is promised; `any 2 backends` where nothing else is.
    pub promise: String,
    /// Whether an operator chose the promise; if not, it follows the nodes.
    pub is_promise_chosen: bool,
    /// Placement groups.
    pub pg_count: u64,
    /// That the promise is kept, if it was proven.
    pub proof: Option<ProofView>,
    /// Placement groups with moves under way.
    pub moving_pgs: u64,
    /// Slots on their way to another backend.
    pub moving_slots: u64,
    /// Whether an operator holds repair back.
    pub is_repair_paused: bool,
    /// Whether an operator holds moves back.
    pub are_moves_paused: bool,
    /// Regions, each followed by its zones, each by its nodes, each by its backends.
    pub domains: Vec<DomainView>,
}

/// A change of the cluster map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutChangeView {
    /// The epoch it made.
    pub epoch: Epoch,
    /// When.
    pub at_ms: u64,
    /// What an operator had asked for; empty for what the store did by itself.
    pub cause: String,
    /// What is different since.
    pub what: Vec<String>,
}

/// `holdfast policy list`: what the store promises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// Its name; a store has one.
    pub name: String,
    /// What must survive.
    pub survive: String,
    /// Whether an operator chose it; if not, it follows the nodes.
    pub is_chosen: bool,
    /// K+M.
    pub scheme: String,
    /// Buckets under it: all.
    pub buckets: u64,
    /// That the layout keeps it, if it was proven.
    pub proof: Option<ProofView>,
    /// Scenario by scenario, whether it would be survived now, besides what does not answer.
    pub scenarios: Vec<ScenarioView>,
}

/// Body of `holdfast policy plan` and `create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyAsk {
    /// What must survive, scenarios joined by commas; absent: the strongest of the usual promises that the nodes can keep,
    /// as they come and go.
    #[serde(default)]
    pub survive: Option<String>,
}

/// A scheme that keeps a promise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemeView {
    /// K+M, or the name of another code.
    pub scheme: String,
    /// Whether the store uses it.
    pub is_present: bool,
    /// Bytes stored for each byte of data.
    pub overhead: f64,
    /// Any so many lost shards are survived.
    pub survives: u64,
    /// Nines of durability a year while no region is lost.
    pub nines: f64,
    /// The same with regions that are lost for good; absent with one region.
    pub nines_with_region_loss: Option<f64>,
    /// Shards read to rebuild one.
    pub repair_reads: f64,
    /// Whether the promise can be kept again after the largest node is lost for good; absent if that was not asked.
    pub has_spare_node: Option<bool>,
}

/// What a promise would take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyPlanView {
    /// The promise.
    pub survive: String,
    /// The scheme in use.
    pub scheme: String,
    /// Whether that scheme keeps it on the nodes there are, proven for every placement group.
    pub is_kept: bool,
    /// The scenario that fails, and what is missing; empty if it is kept.
    pub refusal: String,
    /// Scenarios that no scheme can keep here, each with what is missing.
    pub unkept: Vec<String>,
    /// Schemes that keep it, the one to take first.
    pub schemes: Vec<SchemeView>,
    /// What would move for it with the scheme in use; absent if that does not keep it.
    pub moves: Option<MoveView>,
}

/// Body of `holdfast rebalance apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebalanceApply {
    /// The plan's name.
    pub plan: String,
}

/// `holdfast rebalance status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebalanceView {
    /// `idle`, `moving`, `paused`, or `held`: nothing moves and nothing new is planned.
    pub state: String,
    /// Layout epoch.
    pub epoch: Epoch,
    /// Whether no layout is planned but for what is lost.
    pub is_planning_held: bool,
    /// Placement groups with moves under way.
    pub moving_pgs: u64,
    /// Slots on their way.
    pub moving_slots: u64,
    /// Bytes of their shards, moved or not.
    pub moving_bytes: u64,
    /// Bytes still to write, repair included.
    pub bytes_to_write: u64,
    /// Bytes a second over the last seconds.
    pub bytes_per_second: u64,
    /// Seconds to go at that rate; absent while unknown.
    pub eta_seconds: Option<u64>,
}
