//! Keeps the store whole: watches backends, takes inventory, repairs, scrubs, frees garbage and orphans, and adds,
//! drains, replaces and removes backends. The shell around `repair`, which decides.
//!
//! Touches the world: clocks, tasks, the node, metadata. Every task ends soon after `shutdown`.
//!
//! **Invariants:** nothing is counted as whole that an inventory has not seen; the cluster map changes only by
//! compare-and-set; a shard is deleted only if it is garbage, an orphan nobody writes, or superseded at its target.

mod activity;
mod backend_admin;
mod driver;
mod error;
mod executor;
mod garbage;
mod health;
mod hold;
mod inspect;
mod keeper;
mod layout_admin;
mod layout_change;
mod node_admin;
mod orphans;
mod patient_node;
mod policy_admin;
mod rate;
mod rebalance_admin;
mod report;
mod scan;
mod scrub;
mod shard_copy;
mod shared;

#[cfg(test)]
mod fakes;
#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod rebalance_tests;
#[cfg(test)]
mod test_world;
#[cfg(test)]
mod tests;

pub use activity::{ActivitySource, ActivityUnknown};
pub use error::MaintenanceError;
pub use keeper::{Kept, KeptView, keep};
pub use report::StatusReport;
pub use shared::{MaintenanceOptions, MaintenanceParts, ShardRebuilder};

use crate::layout::Layout;
use crate::metadata::Metadata;
use crate::object_path::{DamageHint, ObjectPath};
use holdfast_proto::admin::{BackendAdd, BackendView, ClusterStatus, ObjectView, RepairStatus, ScrubStatus, Verdict};
use holdfast_proto::layout_admin::{
    LayoutChangeView, LayoutView, MoveView, NodeDrain, NodeMoveView, NodeRemove, NodeReplace, PolicyAsk,
    PolicyPlanView, PolicyView, RebalanceView, StopView,
};
use holdfast_proto::node::NodeClient;
use shared::Shared;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Result of an administrative call.
pub type MaintenanceResult<T> = Result<T, MaintenanceError>;

/// The running maintenance of one store.
pub struct Maintenance {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// What `ClusterStatus` holds that maintenance does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// This build's version.
    pub version: String,
    /// Where S3 is served.
    pub s3_endpoint: String,
}

impl Maintenance {
    /// Starts all tasks. `hints` is the other end of what `ObjectPath` was given.
    pub fn start(
        metadata: Arc<dyn Metadata>,
        node: Arc<dyn NodeClient>,
        layout: Layout,
        objects: ObjectPath,
        hints: mpsc::Receiver<DamageHint>,
        options: MaintenanceOptions,
    ) -> Arc<Self> {
        let objects = Arc::new(objects);
        let parts = MaintenanceParts { metadata, node, layout, rebuilder: objects.clone(), activity: objects };
        Self::start_with(parts, hints, options)
    }

    /// As `start`, with any implementation of what rebuilds shards and of what tells of requests under way.
    pub fn start_with(
        parts: MaintenanceParts,
        hints: mpsc::Receiver<DamageHint>,
        options: MaintenanceOptions,
    ) -> Arc<Self> {
        let shared = Arc::new(Shared::new(parts, options, CancellationToken::new()));
        let tasks = TaskTracker::new();
        tasks.spawn(health::run(shared.clone()));
        tasks.spawn(driver::run(shared.clone()));
        tasks.spawn(driver::take_hints(shared.clone(), hints));
        tasks.spawn(garbage::run(shared.clone()));
        tasks.spawn(scrub::run_periodically(shared.clone()));
        Arc::new(Self { shared, tasks })
    }

    /// Ends every task and waits for them. Work under way is dropped; it is found again after the next start.
    pub async fn shutdown(&self) {
        self.shared.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How repair stands.
    pub async fn repair_status(&self) -> MaintenanceResult<RepairStatus> {
        Ok(self.shared.repair_status())
    }

    /// Takes the inventory at once and repairs; ends a pause, retries what had been given up, and no longer waits for
    /// backends that are absent now.
    pub async fn repair_start(&self) -> MaintenanceResult<RepairStatus> {
        hold::set(&self.shared, "repair start", |held| held.repair = false).await?;
        self.shared.waive_grace();
        self.shared.request_inventory(shared::Doubt::None);
        health::check(&self.shared).await;
        Ok(self.shared.repair_status())
    }

    /// Stops beginning repairs (those under way end) until they are resumed, whoever leads by then.
    pub async fn repair_pause(&self) -> MaintenanceResult<RepairStatus> {
        hold::set(&self.shared, "repair pause", |held| held.repair = true).await?;
        Ok(self.shared.repair_status())
    }

    /// Goes on after a pause.
    pub async fn repair_resume(&self) -> MaintenanceResult<RepairStatus> {
        hold::set(&self.shared, "repair resume", |held| held.repair = false).await?;
        Ok(self.shared.repair_status())
    }

    /// Begins a scrub of all backends; one already running goes on.
    pub async fn scrub_start(&self) -> MaintenanceResult<ScrubStatus> {
        if self.shared.cancel.is_cancelled() {
            return Err(MaintenanceError::NotReady { reason: "maintenance is shutting down" });
        }
        if scrub::begin(&self.shared) {
            self.tasks.spawn(scrub::run_once(self.shared.clone()));
        }
        self.scrub_status().await
    }

    /// How scrub stands.
    pub async fn scrub_status(&self) -> MaintenanceResult<ScrubStatus> {
        Ok(scrub::status(&self.shared))
    }

    /// All backends, probed now. Everywhere a backend is named by its name or its id.
    pub async fn backend_list(&self) -> MaintenanceResult<Vec<BackendView>> {
        health::check(&self.shared).await;
        Ok(backend_admin::list(&self.shared))
    }

    /// Formats a backend, takes it into the layout and begins to move its share there.
    pub async fn backend_add(&self, add: BackendAdd) -> MaintenanceResult<BackendView> {
        backend_admin::add(&self.shared, add).await
    }

    /// Begins to move everything off a backend. Refused if too few would be left to hold every slot.
    pub async fn backend_drain(&self, name: &str) -> MaintenanceResult<BackendView> {
        backend_admin::drain(&self.shared, name).await
    }

    /// Forgets a backend on which nothing is left, or which is gone and wanted by no slot.
    pub async fn backend_remove(&self, name: &str) -> MaintenanceResult<BackendView> {
        backend_admin::remove(&self.shared, name).await
    }

    /// Puts a new backend in exactly the slots of `name`; it takes over the name.
    pub async fn backend_replace(&self, name: &str, add: BackendAdd) -> MaintenanceResult<BackendView> {
        backend_admin::replace(&self.shared, name, add).await
    }

    /// What goes on while a node is stopped. Everywhere a node is named by its name or its number. What its metadata
    /// votes are worth is not judged here.
    pub async fn node_safe_to_stop(&self, name: &str) -> MaintenanceResult<StopView> {
        node_admin::safe_to_stop(&self.shared, name).await
    }

    /// Begins to move everything off a node, shards and votes; it is drained once nothing is left.
    pub async fn node_drain(&self, name: &str, ask: NodeDrain) -> MaintenanceResult<NodeMoveView> {
        node_admin::drain(&self.shared, name, &ask).await
    }

    /// Lets a node stay that was told to leave.
    pub async fn node_drain_cancel(&self, name: &str) -> MaintenanceResult<NodeMoveView> {
        node_admin::cancel(&self.shared, name).await
    }

    /// Forgets a node for good: drained, or declared lost. Whether it answers, and whether it votes, is for the caller to
    /// know.
    pub async fn node_remove(&self, name: &str, ask: NodeRemove) -> MaintenanceResult<NodeMoveView> {
        node_admin::remove(&self.shared, name, &ask).await
    }

    /// Declares a node lost in whose place another has joined.
    pub async fn node_replace(&self, name: &str, ask: NodeReplace) -> MaintenanceResult<NodeMoveView> {
        node_admin::replace(&self.shared, name, &ask).await
    }

    /// The layout with its proof, and what each domain holds.
    pub async fn layout_show(&self) -> MaintenanceResult<LayoutView> {
        layout_admin::show(&self.shared).await
    }

    /// The last changes of the cluster map, newest first.
    pub async fn layout_history(&self) -> MaintenanceResult<Vec<LayoutChangeView>> {
        layout_admin::history(&self.shared).await
    }

    /// What the store promises, with its proof.
    pub async fn policy_list(&self) -> MaintenanceResult<Vec<PolicyView>> {
        policy_admin::list(&self.shared).await
    }

    /// What another promise would take. Changes nothing.
    pub async fn policy_plan(&self, ask: PolicyAsk) -> MaintenanceResult<PolicyPlanView> {
        policy_admin::plan(&self.shared, &ask).await
    }

    /// Chooses the promise, and begins to move what has to move for it.
    pub async fn policy_create(&self, ask: PolicyAsk) -> MaintenanceResult<PolicyPlanView> {
        policy_admin::create(&self.shared, &ask).await
    }

    /// What it would take to balance the layout as backends are now. Changes nothing.
    pub async fn rebalance_plan(&self) -> MaintenanceResult<MoveView> {
        rebalance_admin::plan(&self.shared).await
    }

    /// Carries out a plan that was shown before; refused once the layout has changed.
    pub async fn rebalance_apply(&self, plan: &str) -> MaintenanceResult<MoveView> {
        rebalance_admin::apply(&self.shared, plan).await
    }

    /// How moves stand.
    pub async fn rebalance_status(&self) -> MaintenanceResult<RebalanceView> {
        Ok(rebalance_admin::status(&self.shared))
    }

    /// Holds moves back until they are resumed, whoever leads by then; what is lost is repaired all the same.
    pub async fn rebalance_pause(&self) -> MaintenanceResult<RebalanceView> {
        rebalance_admin::pause(&self.shared).await
    }

    /// Lets moves go on.
    pub async fn rebalance_resume(&self) -> MaintenanceResult<RebalanceView> {
        rebalance_admin::resume(&self.shared).await
    }

    /// Takes moves back that are under way.
    pub async fn rebalance_undo(&self) -> MaintenanceResult<RebalanceView> {
        rebalance_admin::undo(&self.shared).await
    }

    /// Whether all is well, and sentences to act on if not.
    pub async fn cluster_verdict(&self) -> MaintenanceResult<(Verdict, Vec<String>)> {
        let report = report::report(&self.shared).await;
        Ok((report.verdict, report.findings))
    }

    /// Everything maintenance knows for a status page.
    pub async fn status_report(&self) -> MaintenanceResult<StatusReport> {
        Ok(report::report(&self.shared).await)
    }

    /// The whole status.
    pub async fn cluster_status(&self, facts: ServerFacts) -> MaintenanceResult<ClusterStatus> {
        report::cluster_status(&self.shared, facts).await
    }

    /// Where each shard of a version is and how it is. `version`: `None` or empty for the current one, `null`, or its
    /// id.
    pub async fn object_inspect(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> MaintenanceResult<ObjectView> {
        inspect::inspect(&self.shared, bucket, key, version.unwrap_or_default()).await
    }
}
