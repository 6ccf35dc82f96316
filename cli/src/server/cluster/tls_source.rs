//! The cluster's trust as the network asks for it.

use holdfast_proto::cluster::NodeIdentity;
use holdfast_proto::rpc::Plane;
use holdfast_proto::{ClusterId, NodeId};
use holdfast_transport::quic::TlsSource;
use holdfast_trust::{LiveCredentials, UnixClock, client_config, identity_of, node_name, server_config};
use rustls::{ClientConfig, ServerConfig};
use std::collections::BTreeMap;
use std::sync::Arc;

/// TLS settings of every plane, made once: the credentials behind them can be exchanged.
pub(crate) struct TrustSource {
    cluster: ClusterId,
    planes: BTreeMap<Plane, (Arc<ServerConfig>, Arc<ClientConfig>)>,
}

impl TrustSource {
    /// From what the node holds.
    pub(crate) fn new(live: &Arc<LiveCredentials>, clock: &UnixClock) -> Result<Self, rustls::Error> {
        let mut planes = BTreeMap::new();
        for plane in [Plane::Data, Plane::Consensus, Plane::Control] {
            let (server, client) = (server_config(live, plane, clock)?, client_config(live, plane, clock)?);
            planes.insert(plane, (Arc::new(server), Arc::new(client)));
        }
        Ok(Self { cluster: live.identity().cluster, planes })
    }

    fn plane(&self, plane: Plane) -> &(Arc<ServerConfig>, Arc<ClientConfig>) {
        self.planes.get(&plane).expect("every plane was put in at the start")
    }
}

impl TlsSource for TrustSource {
    fn server(&self, plane: Plane) -> Arc<ServerConfig> {
        self.plane(plane).0.clone()
    }

    fn client(&self, plane: Plane) -> Arc<ClientConfig> {
        self.plane(plane).1.clone()
    }

    fn identity(&self, certificate: &[u8]) -> Result<NodeIdentity, String> {
        identity_of(certificate).map_err(|e| e.to_string())
    }

    fn server_name(&self, node: NodeId) -> String {
        node_name(self.cluster, node)
    }
}
