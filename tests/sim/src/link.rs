//! A node's end of the simulated network: what it serves, and its way out, which ends with its process.

use crate::world::World;
use async_trait::async_trait;
use holdfast_proto::NodeId;
use holdfast_proto::rpc::Rpc;
use holdfast_transport::{
    Call, CallOptions, Caller, Channel, Frame, LocalTransport, Service, Transport, TransportError,
};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Services by RPC, filled in as the parts of a process come up.
pub(crate) struct Services {
    own: NodeId,
    world: Arc<World>,
    by_rpc: RwLock<BTreeMap<Rpc, Arc<dyn Service>>>,
}

impl Services {
    pub(crate) fn new(own: NodeId, world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { own, world, by_rpc: RwLock::default() })
    }

    pub(crate) fn serve(&self, rpcs: &[Rpc], service: Arc<dyn Service>) {
        self.by_rpc.write().extend(rpcs.iter().map(|&rpc| (rpc, service.clone())));
    }
}

#[async_trait]
impl Service for Services {
    async fn serve(&self, call: Call, channel: Box<dyn Channel>) -> Result<(), TransportError> {
        let from = match &call.caller {
            Caller::Node(identity) => identity.node,
            Caller::Stranger => NodeId(0),
        };
        // Every call is an event: whatever differs between two runs soon shows in who calls whom and when.
        self.world.note(format_args!("call {from} {} {}", self.own, call.rpc.name()));
        let service = self.by_rpc.read().get(&call.rpc).cloned();
        match service {
            Some(service) => service.serve(call, channel).await,
            None => Err(TransportError::Busy { peer: self.own }),
        }
    }
}

/// The way out of one process. After its end nothing leaves any more: the network knows nodes, not processes, and would
/// take a call of the former process for one of the next.
pub(crate) struct WayOut {
    pub(crate) inner: LocalTransport,
    pub(crate) life: CancellationToken,
}

#[async_trait]
impl Transport for WayOut {
    async fn open(
        &self,
        to: NodeId,
        rpc: Rpc,
        first: Frame,
        options: CallOptions,
    ) -> Result<Box<dyn Channel>, TransportError> {
        if self.life.is_cancelled() {
            return Err(TransportError::Unreachable { peer: to, reason: "the process has ended".to_owned() });
        }
        self.inner.open(to, rpc, first, options).await
    }
}
