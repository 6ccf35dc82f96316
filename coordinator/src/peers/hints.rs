//! Carries damage that this coordinator's reads and writes have met to the one that repairs: to its own maintenance
//! while this coordinator leads, else over the network.
//!
//! Best effort: what is lost on the way is found by the next inventory.

use super::convert::hint_message;
use crate::leader::{Leader, LeaderView};
use crate::maintenance::KeptView;
use crate::object_path::DamageHint;
use holdfast_proto::NodeId;
use holdfast_proto::peer_rpc::DamageHints;
use holdfast_proto::rpc::Rpc;
use holdfast_transport::{CallOptions, Frame, Transport};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Hints sent in one call.
const BATCH_MAX: usize = 256;
/// A call's time.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Passes hints on until either end closes.
pub struct HintRelay {
    /// From the object path.
    pub hints: mpsc::Receiver<DamageHint>,
    /// Who repairs.
    pub leader: LeaderView,
    /// Maintenance in this process, while it leads.
    pub kept: KeptView,
    /// The way to other coordinators.
    pub transport: Arc<dyn Transport>,
}

/// Gives hints to maintenance in this process, if it runs. A full queue drops: inventories find the damage anyway.
pub(super) fn take(kept: &KeptView, hints: impl Iterator<Item = DamageHint>) {
    if let Some(kept) = kept.borrow().as_ref() {
        for hint in hints {
            let _ = kept.hints.try_send(hint);
        }
    }
}

impl HintRelay {
    /// Runs until the object path is gone.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.hints.recv_many(&mut batch, BATCH_MAX).await > 0 {
            match (self.leader)() {
                Leader::Here => take(&self.kept, batch.iter().cloned()),
                Leader::Node(node) => self.send(node, &batch).await,
                Leader::Unknown => {}
            }
            batch.clear();
        }
    }

    async fn send(&self, node: NodeId, batch: &[DamageHint]) {
        let message = DamageHints { hints: batch.iter().map(hint_message).collect() };
        let options = CallOptions { deadline: SEND_TIMEOUT, epoch: None, request_id: 0 };
        let frame = Frame::head_only(message.encode_to_vec().into());
        if let Err(error) = self.transport.call(node, Rpc::DamageHints, frame, options).await {
            tracing::debug!(%node, %error, hints = batch.len(), "pass on damage met by requests");
        }
    }
}
