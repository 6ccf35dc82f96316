//! The seam between the administration API and maintenance: calls handed on, failures given their codes.

use async_trait::async_trait;
use holdfast_coordinator::admin::{AdminFailure, AdminOperations, AdminResult, Code};
use holdfast_coordinator::maintenance::{KeptView, Maintenance, MaintenanceError, MaintenanceResult, ServerFacts};
use holdfast_proto::ErrorKind;
use holdfast_proto::admin::{BackendAdd, BackendView, ClusterStatus, ObjectView, RepairStatus, ScrubStatus};
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
        MaintenanceError::NoSuchObject { .. } => Code::NoSuchObject,
        MaintenanceError::Invalid { .. } => Code::BackendUnusable,
        MaintenanceError::Refused { .. } | MaintenanceError::Placement { .. } => Code::BackendRefused,
        MaintenanceError::Metadata(error) => return AdminFailure::from(error.clone()),
        MaintenanceError::Backend(error) => backend_code(error),
        MaintenanceError::NotReady { .. } => Code::RepairRefused,
    };
    AdminFailure::new(code, error.kind(), error.to_string()).or_try(error.next_step())
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
