//! Calls between machines: QUIC by quinn, mutual TLS by rustls, one UDP port and one set of connections per plane.
//!
//!     QuicTransport::open                                     Door (a listener)
//!       outbound.rs   Link: one plane of one peer               inbound.rs   handshakes, who is there, limits
//!       dial.rs, addresses.rs   which address answers                |
//!            |                                                       v
//!       caller.rs     CallerChannel                             serving.rs   judges, then calls the Service
//!            |                                                       |
//!            +---------------- stream.rs, frames.rs, wire.rs --------+
//!                              quinn over socket.rs
//!
//! Consensus and control never share a connection with bulk bytes, nor a socket. A plane has one socket today; more of them on
//! one port (SO_REUSEPORT) would be more `Endpoint`s in `start_plane`, each with a door and a dialer.
//!
//! Not here: what frames mean, who is alive, which calls are worth a retry (`RetryBudget` helps with that).
//!
//! **Invariant:** nothing a peer sends makes memory grow without bound: windows, calls, frames under way and handshakes
//! each have a limit in `settings.rs`.

mod addresses;
mod caller;
mod causes;
mod connection_ids;
mod dial;
mod frames;
mod inbound;
mod meters;
mod outbound;
mod serving;
mod settings;
mod socket;
mod stranger;
mod stream;
mod tls;
mod wire;

#[cfg(test)]
mod tests;

pub use settings::{MTU_JUMBO, MTU_STANDARD};
pub use stranger::{StrangerDial, dial_stranger};
pub use tls::{TlsSource, alpn};

use crate::channel::{CallOptions, Channel, Frame, Service, Transport};
use crate::error::TransportError;
use async_trait::async_trait;
use connection_ids::{ConnectionIds, ResetKey};
use dial::Dialer;
use holdfast_proto::cluster::{NodeAddresses, NodeIntent, NodeRecord};
use holdfast_proto::rpc::{Plane, Rpc};
use holdfast_proto::{ClusterId, ErrorKind, NodeId};
use inbound::{Door, PeersInside, Removed, ServerConfigs};
use meters::{DoorMeters, plane_name};
use outbound::Link;
use parking_lot::{Mutex, RwLock};
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use settings::FAREWELL_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use stream::EndCode;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Every plane.
const PLANES: [Plane; 3] = [Plane::Data, Plane::Consensus, Plane::Control];

/// What a transport starts with.
pub struct QuicOptions {
    /// The cluster this node belongs to; nodes of others are refused.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Its certificates.
    pub tls: Arc<dyn TlsSource>,
    /// Planes it serves; the others it can only dial.
    pub listeners: Vec<Listener>,
    /// Serves calls to this node itself, in process.
    pub own: Arc<dyn Transport>,
    /// Kept by the node over restarts, secret: with it, peers that still talk to the process before notice at once that it
    /// is gone.
    pub restart_secret: [u8; 32],
    /// Largest UDP payload to try on the data plane: `MTU_JUMBO`, or `MTU_STANDARD` where jumbo frames get lost silently.
    pub mtu_max: u16,
}

/// A plane this node serves.
pub struct Listener {
    /// Which.
    pub plane: Plane,
    /// Where; port 0 takes any.
    pub address: SocketAddr,
    /// By whom.
    pub service: Arc<dyn Service>,
}

/// A node of the cluster, as far as a transport is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// Which.
    pub node: NodeId,
    /// Where it listens.
    pub addresses: NodeAddresses,
    /// A removed node is refused, and not called.
    pub intent: NodeIntent,
}

impl From<&NodeRecord> for PeerRecord {
    fn from(record: &NodeRecord) -> Self {
        Self { node: record.id, addresses: record.addresses.clone(), intent: record.intent }
    }
}

/// Why a transport could not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuicStartError {
    /// The address is taken, or not one of this machine.
    #[error("listen on {address} for the {plane} plane: {reason}")]
    Listen {
        /// Plane.
        plane: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        reason: String,
    },
    /// There is no socket to dial from.
    #[error("open a socket for the {plane} plane: {reason}")]
    Socket {
        /// Plane.
        plane: &'static str,
        /// What the system says.
        reason: String,
    },
    /// The TLS settings cannot be used with QUIC.
    #[error("TLS settings of the {plane} plane: {reason}")]
    Tls {
        /// Plane.
        plane: &'static str,
        /// What they lack.
        reason: String,
    },
}

impl QuicStartError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Listen { .. } | Self::Tls { .. } => ErrorKind::Invalid,
            Self::Socket { .. } => ErrorKind::Internal,
        }
    }
}

/// Calls to other machines, and the listeners for theirs. Dropping it ends every call and connection.
pub struct QuicTransport {
    node: NodeId,
    own: Arc<dyn Transport>,
    planes: BTreeMap<Plane, PlaneSide>,
    peers: RwLock<BTreeMap<NodeId, Peer>>,
    removed: Removed,
    /// Held while the list of peers is replaced, so that two replacements do not mix.
    replacing: Mutex<()>,
    tasks: TaskTracker,
}

struct PlaneSide {
    endpoint: Endpoint,
    dialer: Arc<Dialer>,
    door: Option<Arc<Door>>,
}

type Peer = BTreeMap<Plane, Arc<Link>>;

impl QuicTransport {
    /// Binds the sockets and begins to serve. Must be called within a tokio runtime. Nobody can be called before
    /// `set_peers`; whoever has a certificate of the cluster may call.
    pub fn start(options: QuicOptions) -> Result<Self, QuicStartError> {
        let removed = Removed::default();
        let tasks = TaskTracker::new();
        let mut planes = BTreeMap::new();
        for plane in PLANES {
            let listener = options.listeners.iter().find(|listener| listener.plane == plane);
            planes.insert(plane, start_plane(plane, listener, &options, &removed, &tasks)?);
        }
        Ok(Self {
            node: options.node,
            own: options.own,
            planes,
            peers: RwLock::default(),
            removed,
            replacing: Mutex::default(),
            tasks,
        })
    }

    /// Where a plane's socket is, for one that was bound to port 0.
    pub fn local_address(&self, plane: Plane) -> Option<SocketAddr> {
        self.planes.get(&plane)?.endpoint.local_addr().ok()
    }

    /// Takes over the nodes of a newer cluster map. Connections to nodes that are gone or removed are closed; to
    /// removed nodes also those they made.
    pub fn set_peers(&self, records: Vec<PeerRecord>) {
        let _one_at_a_time = self.replacing.lock();
        let gone: BTreeSet<NodeId> =
            records.iter().filter(|record| record.intent == NodeIntent::Removed).map(|record| record.node).collect();
        *self.removed.write() = gone.clone();
        let mut peers = self.peers.read().clone();
        let mut kept: BTreeMap<NodeId, Peer> = BTreeMap::new();
        for record in records.iter().filter(|r| r.intent != NodeIntent::Removed && r.node != self.node) {
            let peer = peers.remove(&record.node).unwrap_or_else(|| self.new_peer(record.node));
            for (plane, link) in &peer {
                link.set_addresses(plane_addresses(&record.addresses, *plane));
            }
            kept.insert(record.node, peer);
        }
        *self.peers.write() = kept;
        for link in peers.values().flat_map(BTreeMap::values) {
            link.close(EndCode::Farewell, "no longer a peer");
        }
        for door in self.planes.values().filter_map(|side| side.door.as_ref()) {
            for node in &gone {
                door.peers.close(*node, &format!("node {node} was removed from the cluster"));
            }
        }
    }

    /// Ends every call and connection, tells the peers, and waits up to a second for them to hear it.
    pub async fn close(&self) {
        self.end();
        self.tasks.close();
        let heard = async {
            for side in self.planes.values() {
                side.endpoint.wait_idle().await;
            }
            self.tasks.wait().await;
        };
        if timeout(FAREWELL_MAX, heard).await.is_err() {
            tracing::debug!("stopped before every peer had heard of it");
        }
    }

    fn end(&self) {
        for side in self.planes.values() {
            side.endpoint.close(EndCode::Farewell.var_int(), b"the node stops");
        }
    }

    fn new_peer(&self, node: NodeId) -> Peer {
        let link = |side: &PlaneSide| Link::new(node, Arc::clone(&side.dialer), self.tasks.clone());
        self.planes.iter().map(|(plane, side)| (*plane, link(side))).collect()
    }

    fn link(&self, to: NodeId, plane: Plane) -> Result<Arc<Link>, TransportError> {
        if self.removed.read().contains(&to) {
            return Err(TransportError::Refused { peer: to, reason: "it was removed from the cluster".into() });
        }
        let peers = self.peers.read();
        let link = peers.get(&to).and_then(|peer| peer.get(&plane));
        link.cloned().ok_or(TransportError::Unknown { peer: to })
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        self.end();
    }
}

#[async_trait]
impl Transport for QuicTransport {
    async fn open(
        &self,
        to: NodeId,
        rpc: Rpc,
        first: Frame,
        options: CallOptions,
    ) -> Result<Box<dyn Channel>, TransportError> {
        if to == self.node {
            return self.own.open(to, rpc, first, options).await;
        }
        let (channel, first) = self.link(to, rpc.plane())?.open(rpc, first, options).await?;
        caller::begin(channel, first).await
    }
}

fn plane_addresses(addresses: &NodeAddresses, plane: Plane) -> &[SocketAddr] {
    match plane {
        Plane::Data => &addresses.data,
        Plane::Consensus => &addresses.consensus,
        Plane::Control => &addresses.control,
    }
}

fn start_plane(
    plane: Plane,
    listener: Option<&Listener>,
    options: &QuicOptions,
    removed: &Removed,
    tasks: &TaskTracker,
) -> Result<PlaneSide, QuicStartError> {
    let name = plane_name(plane);
    let (udp, granted) = socket::bind(listener.map(|l| l.address)).map_err(|error| match listener {
        Some(l) => QuicStartError::Listen { plane: name, address: l.address, reason: error.to_string() },
        None => QuicStartError::Socket { plane: name, reason: error.to_string() },
    })?;
    if plane == Plane::Data {
        socket::warn_if_capped(granted, name);
    }
    // Small messages gain nothing from jumbo frames, and a path that loses them would cost elections.
    let mtu_max = if plane == Plane::Data { options.mtu_max } else { MTU_STANDARD };
    let transport = settings::transport_config(plane, granted, mtu_max);
    let configs = ServerConfigs::new(plane, options.tls.as_ref(), Arc::clone(&transport));
    let configs = configs.map_err(|reason| QuicStartError::Tls { plane: name, reason })?;
    let meters = DoorMeters::new(plane);
    let ids = ConnectionIds::new(options.restart_secret);
    let wrapped = socket::wrap(udp, ids.clone(), meters.foreign_datagrams.clone());
    let endpoint = wrapped.and_then(|socket| {
        let server = listener.map(|_| configs.first());
        let config = endpoint_config(ids, options.restart_secret, mtu_max);
        Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
    });
    let endpoint = endpoint.map_err(|e| QuicStartError::Socket { plane: name, reason: e.to_string() })?;
    let dialer = Dialer {
        plane,
        cluster: options.cluster,
        endpoint: endpoint.clone(),
        transport,
        tls: Arc::clone(&options.tls),
    };
    let door = listener.map(|listener| {
        Arc::new(Door {
            plane,
            cluster: options.cluster,
            endpoint: endpoint.clone(),
            tls: Arc::clone(&options.tls),
            service: Arc::clone(&listener.service),
            removed: Arc::clone(removed),
            meters,
            configs,
            peers: PeersInside::default(),
            handshakes: Door::handshakes(),
        })
    });
    if let Some(door) = &door {
        tasks.spawn(Arc::clone(door).run());
    }
    Ok(PlaneSide { endpoint, dialer: Arc::new(dialer), door })
}

fn endpoint_config(ids: ConnectionIds, secret: [u8; 32], mtu_max: u16) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ResetKey::new(secret)));
    config
        .cid_generator(move || Box::new(ids.clone()))
        .supported_versions(vec![1])
        // With it the fixed bit tells noise from QUIC at a glance (`socket.rs`).
        .grease_quic_bit(false);
    // The least it takes is 1200; what is larger comes from the settings above and is within its range.
    let _ = config.max_udp_payload_size(mtu_max.max(1472));
    config
}
