//! What a node serves on its planes, filled in as its parts come up: a call for a part that is not up yet is told to
//! come again.

use async_trait::async_trait;
use holdfast_proto::NodeId;
use holdfast_proto::rpc::Rpc;
use holdfast_transport::{Call, Channel, Service, TransportError};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Services by RPC.
pub(crate) struct ServiceTable {
    own: NodeId,
    services: RwLock<BTreeMap<Rpc, Arc<dyn Service>>>,
}

impl ServiceTable {
    /// Of this node, empty.
    pub(crate) fn new(own: NodeId) -> Arc<Self> {
        Arc::new(Self { own, services: RwLock::default() })
    }

    /// Has `service` serve `rpcs` from now on.
    pub(crate) fn serve(&self, rpcs: &[Rpc], service: Arc<dyn Service>) {
        self.services.write().extend(rpcs.iter().map(|&rpc| (rpc, service.clone())));
    }
}

#[async_trait]
impl Service for ServiceTable {
    async fn serve(&self, call: Call, channel: Box<dyn Channel>) -> Result<(), TransportError> {
        let service = self.services.read().get(&call.rpc).cloned();
        match service {
            Some(service) => service.serve(call, channel).await,
            None => Err(TransportError::Busy { peer: self.own }),
        }
    }
}
