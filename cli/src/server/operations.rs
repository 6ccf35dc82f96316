//! The seam between the administration API and maintenance: calls handed on, failures given their codes.

use async_trait::async_trait;
use holdfast_coordinator::admin::{AdminFailure, AdminOperations, AdminResult, Code, LayoutOperations};
use holdfast_coordinator::maintenance::{KeptView, Maintenance, MaintenanceError, MaintenanceResult, ServerFacts};
use holdfast_coordinator::membership::NodeRefusal;
use holdfast_coordinator::rebalance::LeaveError;
use holdfast_proto::ErrorKind;
use holdfast_proto::admin::{BackendAdd, BackendView, ClusterStatus, ObjectView, RepairStatus, ScrubStatus};
use holdfast_proto::layout_admin::{
    LayoutChangeView, LayoutView, MoveView, NodeDrain, NodeMoveView, NodeRemove, NodeReplace, PolicyAsk,
    PolicyPlanView, PolicyView, RebalanceView, StopView,
};
use holdfast_proto::node::ShardError;
use std::sync::Arc;

/// Maintenance, while this coordinator leads, with what it does not know of its server.
pub(crate) struct MaintainedStore {
    pub(crate) kept: KeptView,
    pub(crate) facts: ServerFacts,
}

impl MaintainedStore {
    fn maintenance(&self) -> AdminResult<Arc<Maintenance>> {
        let kept = self.kept.borrow();
        kept.as_ref().map(|kept| kept.maintenance.clone()).ok_or_else(|| {
            AdminFailure::new(Code::NoLeader, ErrorKind::Retry, "this coordinator does not keep the store just now")
                .or_try("again in some seconds")
        })
    }
}

fn hand_on<T>(result: MaintenanceResult<T>) -> AdminResult<T> {
    result.map_err(failure)
}

fn failure(error: MaintenanceError) -> AdminFailure {
    let code = match &error {
        MaintenanceError::NoSuchBackend { .. } => Code::NoSuchBackend,
        MaintenanceError::NoSuchNode { .. } => Code::NoSuchNode,
        MaintenanceError::NoSuchObject { .. } => Code::NoSuchObject,
        MaintenanceError::Invalid { .. } => Code::BackendUnusable,
        MaintenanceError::Refused { .. } | MaintenanceError::Placement { .. } => Code::BackendRefused,
        MaintenanceError::NodeRefused { .. } => Code::NodeRefused,
        MaintenanceError::Unkept(_) => Code::PromiseRefused,
        MaintenanceError::Malformed { .. } => Code::MalformedRequest,
        MaintenanceError::PlanStale { .. } => Code::PlanStale,
        MaintenanceError::MovesRefused { .. } => Code::MovesRefused,
        MaintenanceError::Leave(error) => leave_code(error),
        MaintenanceError::Metadata(error) => return AdminFailure::from(error.clone()),
        MaintenanceError::Backend(error) => backend_code(error),
        MaintenanceError::NotReady { .. } => Code::RepairRefused,
    };
    AdminFailure::new(code, error.kind(), error.to_string()).or_try(error.next_step())
}

fn leave_code(error: &LeaveError) -> Code {
    match error {
        LeaveError::Promise { .. } | LeaveError::Metadata { .. } | LeaveError::Data { .. } => Code::PromiseRefused,
        LeaveError::Node(NodeRefusal::NoSuchNode { .. }) => Code::NoSuchNode,
        LeaveError::Unknown { .. } | LeaveError::NotPromised { .. } => Code::MalformedRequest,
        LeaveError::Node(_) | LeaveError::Placement(_) => Code::NodeRefused,
    }
}

fn backend_code(error: &ShardError) -> Code {
    match error.kind() {
        ErrorKind::NotFound => Code::NoSuchBackend,
        ErrorKind::Full => Code::BackendFull,
        ErrorKind::Invalid | ErrorKind::Conflict => Code::BackendUnusable,
        _ => Code::BackendOffline,
    }
}

#[async_trait]
impl AdminOperations for MaintainedStore {
    async fn cluster_status(&self) -> AdminResult<ClusterStatus> {
        hand_on(self.maintenance()?.cluster_status(self.facts.clone()).await)
    }
    async fn backend_list(&self) -> AdminResult<Vec<BackendView>> {
        hand_on(self.maintenance()?.backend_list().await)
    }
    async fn backend_add(&self, add: BackendAdd) -> AdminResult<BackendView> {
        hand_on(self.maintenance()?.backend_add(add).await)
    }
    async fn backend_drain(&self, backend: &str) -> AdminResult<BackendView> {
        hand_on(self.maintenance()?.backend_drain(backend).await)
    }
    async fn backend_remove(&self, backend: &str) -> AdminResult<BackendView> {
        hand_on(self.maintenance()?.backend_remove(backend).await)
    }
    async fn backend_replace(&self, backend: &str, add: BackendAdd) -> AdminResult<BackendView> {
        hand_on(self.maintenance()?.backend_replace(backend, add).await)
    }
    async fn repair_status(&self) -> AdminResult<RepairStatus> {
        hand_on(self.maintenance()?.repair_status().await)
    }
    async fn repair_start(&self) -> AdminResult<RepairStatus> {
        hand_on(self.maintenance()?.repair_start().await)
    }
    async fn repair_pause(&self) -> AdminResult<RepairStatus> {
        hand_on(self.maintenance()?.repair_pause().await)
    }
    async fn repair_resume(&self) -> AdminResult<RepairStatus> {
        hand_on(self.maintenance()?.repair_resume().await)
    }
    async fn scrub_start(&self) -> AdminResult<ScrubStatus> {
        hand_on(self.maintenance()?.scrub_start().await)
    }
    async fn scrub_status(&self) -> AdminResult<ScrubStatus> {
        hand_on(self.maintenance()?.scrub_status().await)
    }
    async fn object_inspect(&self, bucket: &str, key: &str, version: Option<&str>) -> AdminResult<ObjectView> {
        hand_on(self.maintenance()?.object_inspect(bucket, key, version).await)
    }
}

#[async_trait]
impl LayoutOperations for MaintainedStore {
    async fn node_safe_to_stop(&self, node: &str) -> AdminResult<StopView> {
        hand_on(self.maintenance()?.node_safe_to_stop(node).await)
    }
    async fn node_drain(&self, node: &str, ask: NodeDrain) -> AdminResult<NodeMoveView> {
        hand_on(self.maintenance()?.node_drain(node, ask).await)
    }
    async fn node_drain_cancel(&self, node: &str) -> AdminResult<NodeMoveView> {
        hand_on(self.maintenance()?.node_drain_cancel(node).await)
    }
    async fn node_remove(&self, node: &str, ask: NodeRemove) -> AdminResult<NodeMoveView> {
        hand_on(self.maintenance()?.node_remove(node, ask).await)
    }
    async fn node_replace(&self, node: &str, ask: NodeReplace) -> AdminResult<NodeMoveView> {
        hand_on(self.maintenance()?.node_replace(node, ask).await)
    }
    async fn layout_show(&self) -> AdminResult<LayoutView> {
        hand_on(self.maintenance()?.layout_show().await)
    }
    async fn layout_history(&self) -> AdminResult<Vec<LayoutChangeView>> {
        hand_on(self.maintenance()?.layout_history().await)
    }
    async fn policy_list(&self) -> AdminResult<Vec<PolicyView>> {
        hand_on(self.maintenance()?.policy_list().await)
    }
    async fn policy_plan(&self, ask: PolicyAsk) -> AdminResult<PolicyPlanView> {
        hand_on(self.maintenance()?.policy_plan(ask).await)
    }
    async fn policy_create(&self, ask: PolicyAsk) -> AdminResult<PolicyPlanView> {
        hand_on(self.maintenance()?.policy_create(ask).await)
    }
    async fn rebalance_plan(&self) -> AdminResult<MoveView> {
        hand_on(self.maintenance()?.rebalance_plan().await)
    }
    async fn rebalance_apply(&self, plan: &str) -> AdminResult<MoveView> {
        hand_on(self.maintenance()?.rebalance_apply(plan).await)
    }
    async fn rebalance_status(&self) -> AdminResult<RebalanceView> {
        hand_on(self.maintenance()?.rebalance_status().await)
    }
    async fn rebalance_pause(&self) -> AdminResult<RebalanceView> {
        hand_on(self.maintenance()?.rebalance_pause().await)
    }
    async fn rebalance_resume(&self) -> AdminResult<RebalanceView> {
        hand_on(self.maintenance()?.rebalance_resume().await)
    }
    async fn rebalance_undo(&self) -> AdminResult<RebalanceView> {
        hand_on(self.maintenance()?.rebalance_undo().await)
    }
}
