//! What requests under way do, gathered from every coordinator.
//!
//! **Invariant:** a coordinator that does not answer is fenced before it counts as doing nothing: what it had under way
//! can then no longer become visible.

use super::convert::activity_of;
use crate::layout::Layout;
use crate::maintenance::{ActivitySource, ActivityUnknown};
use crate::metadata::Metadata;
use crate::object_path::{Activity, ObjectPath};
use async_trait::async_trait;
use futures::future::join_all;
use holdfast_proto::peer_rpc::{ActivityReply, ActivityRequest};
use holdfast_proto::rpc::Rpc;
use holdfast_proto::{Epoch, NodeId};
use holdfast_transport::{CallOptions, Frame, Transport, TransportError};
use parking_lot::Mutex;
use prost::Message;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long a coordinator may take to answer: it looks into its own memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often one is asked that does not know the newest map yet, and how long is waited in between. It learns of the map
/// from the root group's log, which takes a heartbeat at most.
const TRIES: u32 = 8;
const TRY_REST: Duration = Duration::from_millis(250);

/// The coordinators there are, without this one.
pub type CoordinatorList = Arc<dyn Fn() -> Vec<NodeId> + Send + Sync>;

/// Of this coordinator and all others.
pub struct ClusterActivity {
    /// This coordinator's requests.
    pub objects: ObjectPath,
    /// Its cluster map.
    pub layout: Layout,
    /// Bars commits of those who do not answer.
    pub metadata: Arc<dyn Metadata>,
    /// Reaches the others.
    pub transport: Arc<dyn Transport>,
    /// The others.
    pub others: CoordinatorList,
    /// Those that did not answer last.
    pub silent: Mutex<BTreeSet<NodeId>>,
}

#[async_trait]
impl ActivitySource for ClusterActivity {
    async fn activity(&self, epoch: Epoch) -> Result<Activity, ActivityUnknown> {
        let others = (self.others)();
        self.silent.lock().retain(|node| others.contains(node));
        let answers = join_all(others.iter().map(|&node| self.of_other(node, epoch))).await;
        let own_epoch = self.layout.current().table.epoch;
        if own_epoch < epoch {
            let reason = format!("this coordinator knows the cluster map of epoch {own_epoch} and not yet {epoch}");
            return Err(ActivityUnknown { reason });
        }
        let mut all = self.objects.activity();
        for answer in answers {
            all.merge(answer?);
        }
        Ok(all)
    }
}

impl ClusterActivity {
    /// What another coordinator does, or nothing once it is fenced.
    async fn of_other(&self, node: NodeId, epoch: Epoch) -> Result<Activity, ActivityUnknown> {
        let mut why = String::new();
        for _ in 0..TRIES {
            match self.ask(node, epoch).await {
                Ok((known, activity)) if known >= epoch => {
                    self.silent.lock().remove(&node);
                    return Ok(activity);
                }
                Ok((known, _)) => why = format!("it knows the cluster map of epoch {known} and not yet {epoch}"),
                Err(error) => {
                    why = error.to_string();
                    break;
                }
            }
            tokio::time::sleep(TRY_REST).await;
        }
        let fenced = self.metadata.writer_fence(node).await;
        fenced
            .map_err(|e| ActivityUnknown { reason: format!("node {node}: {why}; it cannot be fenced either: {e}") })?;
        if self.silent.lock().insert(node) {
            tracing::warn!(%node, why, "a coordinator does not tell what it writes: what it has under way is barred");
        }
        Ok(Activity::default())
    }

    async fn ask(&self, node: NodeId, epoch: Epoch) -> Result<(Epoch, Activity), TransportError> {
        let request = Frame::head_only(ActivityRequest { epoch: epoch.0 }.encode_to_vec().into());
        let options = CallOptions { deadline: ANSWER_TIMEOUT, epoch: Some(epoch), request_id: 0 };
        let reply = self.transport.call(node, Rpc::Activity, request, options).await?;
        let malformed = |reason: String| TransportError::Malformed { reason };
        let message = ActivityReply::decode(reply.head).map_err(|e| malformed(e.to_string()))?;
        let activity = activity_of(&message).ok_or_else(|| malformed("an id in an activity report".to_owned()))?;
        Ok((Epoch(message.epoch), activity))
    }
}
