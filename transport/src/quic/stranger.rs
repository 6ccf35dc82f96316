//! Calling a cluster one does not belong to yet: `Join`, without a certificate of one's own.

use super::caller::{self, CallStart};
use super::causes;
use super::dial::{attempt, client_config, race};
use super::meters::{Direction, PeerMeters};
use super::settings::{MTU_STANDARD, transport_config};
use super::socket;
use crate::channel::{CallOptions, Channel, Frame};
use crate::error::TransportError;
use holdfast_proto::NodeId;
use holdfast_proto::rpc::{Plane, Rpc};
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Where a cluster is and how to know it.
#[derive(Clone)]
pub struct StrangerDial {
    /// Control addresses of its coordinators, as a join token lists them; tried in turn.
    pub addresses: Vec<SocketAddr>,
    /// Accepts exactly the certificates of the cluster meant, for instance by the fingerprint of its CA.
    pub tls: Arc<rustls::ClientConfig>,
    /// The name the settings expect of whoever answers.
    pub server_name: String,
}

/// Node of a cluster whose nodes are not known yet, in errors.
const NOT_KNOWN_YET: NodeId = NodeId(0);

/// Opens a channel for one call on the control plane of a cluster and sends its first frame. The connection lives as long
/// as the channel.
pub async fn dial_stranger(
    dial: &StrangerDial,
    rpc: Rpc,
    first: Frame,
    options: CallOptions,
) -> Result<Box<dyn Channel>, TransportError> {
    let deadline = Instant::now() + options.deadline;
    let peer = NOT_KNOWN_YET;
    let unreachable = |reason: String| TransportError::Unreachable { peer, reason };
    let opening = async {
        let (udp, granted) = socket::bind(None).map_err(|e| unreachable(format!("bind a socket: {e}")))?;
        let endpoint = Endpoint::new(EndpointConfig::default(), None, udp, Arc::new(TokioRuntime))
            .map_err(|e| unreachable(format!("use a socket: {e}")))?;
        let transport = transport_config(Plane::Control, granted, MTU_STANDARD);
        let config = client_config(Plane::Control, &dial.tls, &transport).map_err(unreachable)?;
        let name = &dial.server_name;
        let outcome =
            race(dial.addresses.clone(), |address| attempt(&endpoint, config.clone(), address, name, peer)).await;
        let Some((connection, _)) = outcome.winner else {
            return Err(outcome.failures.into_iter().next().map_or(TransportError::Unknown { peer }, |(_, e)| e));
        };
        let meters = Arc::new(PeerMeters::new(Plane::Control, "stranger".into(), Direction::Out));
        meters.calls.increment(1);
        let start = CallStart { peer, rpc, first, options, deadline, meters, kept: Box::new(()) };
        let opened = caller::open(&connection, start, Box::new(|_| ())).await;
        opened.map_err(|(_, error)| causes::of_connection(peer, &error))
    };
    let (channel, first) = timeout_at(deadline, opening).await.map_err(|_| TransportError::Timeout { peer })??;
    caller::begin(channel, first).await
}
