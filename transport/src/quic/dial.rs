//! Finding a peer: its addresses in turn, each with a head start before the next, and the first that answers and proves
//! to be the right node.

use super::causes;
use super::settings::{ADDRESS_STAGGER, HANDSHAKE_MAX};
use super::stream::EndCode;
use super::tls::{TlsSource, client_crypto, peer_certificate};
use crate::error::TransportError;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_proto::rpc::Plane;
use holdfast_proto::{ClusterId, NodeId};
use quinn::{ClientConfig, Connection, Endpoint, TransportConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::{sleep, timeout};

/// Dials one plane of other nodes.
pub(super) struct Dialer {
    pub(super) plane: Plane,
    pub(super) cluster: ClusterId,
    pub(super) endpoint: Endpoint,
    pub(super) transport: Arc<TransportConfig>,
    pub(super) tls: Arc<dyn TlsSource>,
}

/// An address that did not lead to the peer, and why.
pub(super) type Failure = (SocketAddr, TransportError);

/// How a race over addresses ended.
pub(super) struct Race {
    pub(super) winner: Option<(Connection, SocketAddr)>,
    /// Those that failed before it was over, in that order.
    pub(super) failures: Vec<Failure>,
}

impl Dialer {
    pub(super) async fn dial(&self, peer: NodeId, order: Vec<SocketAddr>) -> Race {
        let settings = self.tls.client(self.plane);
        let config = match client_config(self.plane, &settings, &self.transport) {
            Ok(config) => config,
            Err(reason) => {
                let error = TransportError::Unreachable { peer, reason };
                return Race { winner: None, failures: order.into_iter().map(|at| (at, error.clone())).collect() };
            }
        };
        let name = &self.tls.server_name(peer);
        race(order, |address| {
            let config = config.clone();
            async move {
                let connection = attempt(&self.endpoint, config, address, name, peer).await?;
                self.judge(peer, &connection).inspect_err(|_| {
                    connection.close(EndCode::Refused.var_int(), b"not the node that was called");
                })?;
                Ok(connection)
            }
        })
        .await
    }

    fn judge(&self, peer: NodeId, connection: &Connection) -> Result<(), TransportError> {
        let refused = |reason| TransportError::Refused { peer, reason };
        let certificate = peer_certificate(connection).ok_or_else(|| refused("it shows no certificate".into()))?;
        let identity = self.tls.identity(&certificate).map_err(refused)?;
        if identity.cluster != self.cluster {
            return Err(refused(format!("it is of cluster {}, this node of {}", identity.cluster, self.cluster)));
        }
        if identity.node != peer {
            return Err(refused(format!("node {} answers at its address", identity.node)));
        }
        Ok(())
    }
}

pub(super) fn client_config(
    plane: Plane,
    settings: &rustls::ClientConfig,
    transport: &Arc<TransportConfig>,
) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::new(client_crypto(plane, settings)?);
    config.transport_config(Arc::clone(transport));
    Ok(config)
}

/// One handshake, bounded in time.
pub(super) async fn attempt(
    endpoint: &Endpoint,
    config: ClientConfig,
    address: SocketAddr,
    name: &str,
    peer: NodeId,
) -> Result<Connection, TransportError> {
    let connecting = endpoint
        .connect_with(config, address, name)
        .map_err(|error| TransportError::Unreachable { peer, reason: error.to_string() })?;
    match timeout(HANDSHAKE_MAX, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(causes::of_connection(peer, &error)),
        Err(_) => Err(TransportError::Unreachable { peer, reason: format!("no answer at {address}") }),
    }
}

/// Tries `order` one after the other, without waiting long for each; the first connection wins and the others are given
/// up.
pub(super) async fn race<F>(order: Vec<SocketAddr>, attempt: impl Fn(SocketAddr) -> F) -> Race
where
    F: Future<Output = Result<Connection, TransportError>>,
{
    let mut failures = Vec::new();
    let mut under_way = FuturesUnordered::new();
    let mut left = order.into_iter().peekable();
    let named = |address| {
        let attempted = attempt(address);
        async move { (address, attempted.await) }
    };
    loop {
        if under_way.is_empty() {
            match left.next() {
                Some(address) => under_way.push(named(address)),
                None => return Race { winner: None, failures },
            }
        }
        tokio::select! {
            Some((address, outcome)) = under_way.next() => match outcome {
                Ok(connection) => return Race { winner: Some((connection, address)), failures },
                Err(error) => failures.push((address, error)),
            },
            () = sleep(ADDRESS_STAGGER), if left.peek().is_some() => under_way.extend(left.next().map(&named)),
        }
    }
}
