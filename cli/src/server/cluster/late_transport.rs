//! The way to other nodes, handed out before it is open: the metadata of a cluster's first node must be read before the
//! certificate is there that the network needs.

use async_trait::async_trait;
use holdfast_proto::NodeId;
use holdfast_proto::rpc::Rpc;
use holdfast_transport::{CallOptions, Channel, Frame, Transport, TransportError};
use std::sync::{Arc, OnceLock};

/// Reaches nobody until it is set.
#[derive(Default)]
pub(crate) struct LateTransport {
    inner: OnceLock<Arc<dyn Transport>>,
}

impl LateTransport {
    /// Opens the way, once.
    pub(crate) fn set(&self, transport: Arc<dyn Transport>) {
        // A second call finds it open already.
        let _ = self.inner.set(transport);
    }
}

#[async_trait]
impl Transport for LateTransport {
    async fn open(
        &self,
        to: NodeId,
        rpc: Rpc,
        first: Frame,
        options: CallOptions,
    ) -> Result<Box<dyn Channel>, TransportError> {
        match self.inner.get() {
            Some(transport) => transport.open(to, rpc, first, options).await,
            None => {
                Err(TransportError::Unreachable { peer: to, reason: "this node's network is not up yet".to_owned() })
            }
        }
    }
}
