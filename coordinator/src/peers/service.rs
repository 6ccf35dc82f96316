//! Answers other coordinators.

use super::convert::{activity_message, hint_of};
use super::hints::take;
use crate::layout::Layout;
use crate::maintenance::KeptView;
use crate::object_path::{DamageHint, ObjectPath};
use async_trait::async_trait;
use holdfast_proto::peer_rpc::DamageHints;
use holdfast_proto::rpc::Rpc;
use holdfast_transport::{Call, Channel, Frame, Service, TransportError};
use prost::Message;
use prost::bytes::Bytes;

/// Serves `Activity` and `DamageHints`.
pub struct PeerService {
    /// This coordinator's requests.
    pub objects: ObjectPath,
    /// Its cluster map.
    pub layout: Layout,
    /// Maintenance in this process, while it leads: takes hints. They are passed on once, never further.
    pub kept: KeptView,
}

#[async_trait]
impl Service for PeerService {
    async fn serve(&self, call: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
        let request = channel.receive().await?.ok_or(TransportError::Cancelled)?;
        let reply = match call.rpc {
            Rpc::Activity => self.activity(),
            Rpc::DamageHints => self.take_hints(request.head)?,
            other => return Err(TransportError::Malformed { reason: format!("{} is not served here", other.name()) }),
        };
        channel.send(Frame::head_only(reply)).await?;
        channel.finish().await
    }
}

impl PeerService {
    fn activity(&self) -> Bytes {
        // In this order: what begins after the epoch was read is placed by that epoch or a newer one.
        let epoch = self.layout.current().table.epoch;
        activity_message(epoch, &self.objects.activity()).encode_to_vec().into()
    }

    fn take_hints(&self, head: Bytes) -> Result<Bytes, TransportError> {
        let malformed = |reason: String| TransportError::Malformed { reason };
        let message = DamageHints::decode(head).map_err(|e| malformed(e.to_string()))?;
        let hints: Option<Vec<DamageHint>> = message.hints.iter().map(hint_of).collect();
        take(&self.kept, hints.ok_or_else(|| malformed("an id in a hint of damage".to_owned()))?.into_iter());
        Ok(Bytes::new())
    }
}
