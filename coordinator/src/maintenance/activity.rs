//! Where maintenance learns what requests under way do with segments, over all coordinators of the cluster: what repair,
//! the sweep of orphans and the commit of moves must wait for or leave alone.
//!
//! **Invariant:** what is not in a report is not done by any coordinator that can still commit: one that does not answer
//! is fenced before the report is given, or there is no report.

use crate::object_path::{Activity, ObjectPath};
use async_trait::async_trait;
use holdfast_proto::Epoch;

/// No report could be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("learn what coordinators are writing: {reason}")]
pub struct ActivityUnknown {
    /// Who did not answer, and why it could not be fenced.
    pub reason: String,
}

/// Reports what is under way everywhere.
#[async_trait]
pub trait ActivitySource: Send + Sync + 'static {
    /// What was under way at some moment during the call, when every coordinator knew a cluster map of at least `epoch`:
    /// whatever begins later is placed by that map or a newer one.
    async fn activity(&self, epoch: Epoch) -> Result<Activity, ActivityUnknown>;
}

/// Of a lone coordinator, whose `Layout` always has the newest map.
#[async_trait]
impl ActivitySource for ObjectPath {
    async fn activity(&self, _: Epoch) -> Result<Activity, ActivityUnknown> {
        Ok(ObjectPath::activity(self))
    }
}
