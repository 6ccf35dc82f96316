//! The listening side of a plane: handshakes, who is there, how many of them, and one task per connection that hands its
//! streams to `serving.rs`.
//!
//! **Invariant:** what strangers can make this node keep is bounded: handshakes by `HANDSHAKES_MAX` and `HANDSHAKE_MAX`,
//! connections by `STRANGER_CONNECTIONS_MAX`, and none at all but on the control plane.

use super::meters::{Direction, DoorMeters, PeerMeters, plane_name};
use super::serving::Serving;
use super::settings::{
    CALLS_IN_MAX, FRAME_BYTES_IN_MAX, HANDSHAKE_MAX, HANDSHAKES_MAX, HANDSHAKES_UNPROVEN_MAX, PEER_CONNECTIONS_MAX,
    STRANGER_CALLS_MAX, STRANGER_CONNECTIONS_MAX,
};
use super::stream::EndCode;
use super::tls::{TlsSource, peer_certificate, server_crypto};
use crate::channel::{Caller, Service};
use holdfast_proto::rpc::Plane;
use holdfast_proto::{ClusterId, NodeId};
use parking_lot::{Mutex, RwLock};
use quinn::{Connection, Endpoint, Incoming};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

/// Unit of the budget of frames; a semaphore counts no further than 2^61, but a permit takes a `u32`.
const BUDGET_UNIT_BYTES: usize = 1024;

/// The nodes that were removed from the cluster, shared by both sides of the transport.
pub(super) type Removed = Arc<RwLock<BTreeSet<NodeId>>>;

/// What one peer may have under way here, over all its connections to a plane.
#[derive(Debug)]
pub(super) struct PeerLimits {
    pub(super) calls: Semaphore,
    frame_units: Arc<Semaphore>,
    pub(super) meters: Arc<PeerMeters>,
}

impl PeerLimits {
    fn new(plane: Plane, peer: Option<NodeId>) -> Self {
        let (name, calls) = match peer {
            Some(node) => (node.to_string(), CALLS_IN_MAX),
            None => ("stranger".into(), STRANGER_CALLS_MAX),
        };
        Self {
            calls: Semaphore::new(calls),
            frame_units: Arc::new(Semaphore::new(FRAME_BYTES_IN_MAX / BUDGET_UNIT_BYTES)),
            meters: Arc::new(PeerMeters::new(plane, name, Direction::In)),
        }
    }

    /// Room for a large frame while it arrives; `None` if the peer has too many under way.
    pub(super) fn admit_frame(&self, claimed_bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(claimed_bytes.div_ceil(BUDGET_UNIT_BYTES)).ok()?;
        Arc::clone(&self.frame_units).try_acquire_many_owned(units).ok()
    }
}

/// A listener.
pub(super) struct Door {
    pub(super) plane: Plane,
    pub(super) cluster: ClusterId,
    pub(super) endpoint: Endpoint,
    pub(super) tls: Arc<dyn TlsSource>,
    pub(super) service: Arc<dyn Service>,
    pub(super) removed: Removed,
    pub(super) meters: DoorMeters,
    pub(super) configs: ServerConfigs,
    pub(super) peers: PeersInside,
    pub(super) handshakes: Arc<Semaphore>,
}

impl Door {
    pub(super) fn handshakes() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(HANDSHAKES_MAX))
    }

    /// Accepts until the endpoint is closed.
    pub(super) async fn run(self: Arc<Self>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.admit(incoming, &mut connections),
                    None => return,
                },
                Some(ended) = connections.join_next() => log_panic(ended, self.plane),
            }
        }
    }

    fn admit(self: &Arc<Self>, incoming: Incoming, connections: &mut JoinSet<()>) {
        let under_way = HANDSHAKES_MAX - self.handshakes.available_permits();
        let Ok(permit) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            self.meters.deferred_handshakes.increment(1);
            return incoming.ignore();
        };
        if under_way >= HANDSHAKES_UNPROVEN_MAX && !incoming.remote_address_validated() {
            self.meters.deferred_handshakes.increment(1);
            // It fails only for an address that was proven, which this one was not.
            let _ = incoming.retry();
            return;
        }
        let door = Arc::clone(self);
        connections.spawn(async move {
            if let Some(connection) = door.shake_hands(incoming).await {
                drop(permit);
                door.serve_connection(connection).await;
            }
        });
    }

    async fn shake_hands(&self, incoming: Incoming) -> Option<Connection> {
        let from = incoming.remote_address();
        let config = self.configs.current(self.plane, self.tls.as_ref());
        let cause = match incoming.accept_with(config) {
            Ok(connecting) => match timeout(HANDSHAKE_MAX, connecting).await {
                Ok(Ok(connection)) => return Some(connection),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it was not finished in time".into(),
            },
            Err(error) => error.to_string(),
        };
        self.meters.failed_handshakes.increment(1);
        tracing::debug!(plane = plane_name(self.plane), %from, cause, "a handshake failed");
        None
    }

    async fn serve_connection(&self, connection: Connection) {
        let inside = self.identify(&connection).and_then(|caller| {
            let inside = self.peers.enter(self.plane, caller.clone(), &connection)?;
            // After it was entered: whoever is removed from now on is found there and closed.
            self.judge_removed(&caller)?;
            Ok((caller, inside))
        });
        let (caller, inside) = match inside {
            Ok(inside) => inside,
            Err(reason) => {
                self.meters.refused_connections.increment(1);
                let from = connection.remote_address();
                tracing::warn!(plane = plane_name(self.plane), %from, reason, "refused a connection");
                return connection.close(EndCode::Refused.var_int(), reason.as_bytes());
            }
        };
        let service = Arc::clone(&self.service);
        let serving = Arc::new(Serving { plane: self.plane, caller, limits: Arc::clone(&inside.limits), service });
        let mut calls = JoinSet::new();
        loop {
            tokio::select! {
                streams = connection.accept_bi() => match streams {
                    Ok(streams) => { calls.spawn(Arc::clone(&serving).serve(streams)); }
                    // Dropping the set drops what was being done for the peer.
                    Err(_) => return,
                },
                Some(ended) = calls.join_next() => log_panic(ended, self.plane),
            }
        }
    }

    fn identify(&self, connection: &Connection) -> Result<Caller, String> {
        let Some(certificate) = peer_certificate(connection) else {
            return match self.plane {
                Plane::Control => Ok(Caller::Stranger),
                Plane::Data | Plane::Consensus => {
                    Err(format!("the {} plane needs a certificate of this cluster", plane_name(self.plane)))
                }
            };
        };
        let identity = self.tls.identity(&certificate)?;
        if identity.cluster != self.cluster {
            return Err(format!("node {} is of cluster {}, this is {}", identity.node, identity.cluster, self.cluster));
        }
        Ok(Caller::Node(Arc::new(identity)))
    }

    fn judge_removed(&self, caller: &Caller) -> Result<(), String> {
        match caller {
            Caller::Node(identity) if self.removed.read().contains(&identity.node) => {
                Err(format!("node {} was removed from the cluster", identity.node))
            }
            _ => Ok(()),
        }
    }
}

/// A service that panicked is a bug; its caller sees the call cancelled, and the node goes on.
fn log_panic(ended: Result<(), JoinError>, plane: Plane) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(plane = plane_name(plane), %error, "a task of the transport panicked");
    }
}

/// The TLS settings in use, made anew when their source has new ones.
pub(super) struct ServerConfigs {
    current: Mutex<(Arc<rustls::ServerConfig>, Arc<quinn::ServerConfig>)>,
}

impl ServerConfigs {
    pub(super) fn new(
        plane: Plane,
        tls: &dyn TlsSource,
        transport: Arc<quinn::TransportConfig>,
    ) -> Result<Self, String> {
        let settings = tls.server(plane);
        let mut config = quinn::ServerConfig::with_crypto(server_crypto(plane, &settings)?);
        config
            .transport_config(transport)
            // Nodes do not move; a packet from elsewhere is a mistake or an attack.
            .migration(false)
            .max_incoming(HANDSHAKES_MAX)
            // First packets of handshakes that were not looked at yet; a handshake needs about 4 KiB.
            .incoming_buffer_size(16 << 10)
            .incoming_buffer_size_total((HANDSHAKES_MAX as u64) << 14);
        Ok(Self { current: Mutex::new((settings, Arc::new(config))) })
    }

    /// What an endpoint starts with.
    pub(super) fn first(&self) -> quinn::ServerConfig {
        self.current.lock().1.as_ref().clone()
    }

    fn current(&self, plane: Plane, tls: &dyn TlsSource) -> Arc<quinn::ServerConfig> {
        let settings = tls.server(plane);
        let mut current = self.current.lock();
        if !Arc::ptr_eq(&current.0, &settings) {
            match server_crypto(plane, &settings) {
                Ok(crypto) => {
                    // The key of address proofs stays: those given out before remain good.
                    let mut config = current.1.as_ref().clone();
                    config.crypto = crypto;
                    *current = (settings, Arc::new(config));
                }
                Err(reason) => {
                    tracing::error!(
                        plane = plane_name(plane),
                        reason,
                        "new TLS settings do not fit QUIC; the old ones stay"
                    );
                }
            }
        }
        Arc::clone(&current.1)
    }
}

/// Who is connected to a plane of this node.
#[derive(Default)]
pub(super) struct PeersInside {
    peers: Arc<Mutex<BTreeMap<Option<NodeId>, Inside>>>,
}

struct Inside {
    limits: Arc<PeerLimits>,
    /// Oldest first.
    connections: Vec<Connection>,
}

/// A connection's place among those of its peer; dropping it gives the place back.
pub(super) struct Entered {
    pub(super) limits: Arc<PeerLimits>,
    peers: Arc<Mutex<BTreeMap<Option<NodeId>, Inside>>>,
    peer: Option<NodeId>,
    connection: Connection,
}

impl PeersInside {
    fn enter(&self, plane: Plane, caller: Caller, connection: &Connection) -> Result<Entered, String> {
        let peer = match caller {
            Caller::Stranger => None,
            Caller::Node(identity) => Some(identity.node),
        };
        let mut peers = self.peers.lock();
        let inside = peers
            .entry(peer)
            .or_insert_with(|| Inside { limits: Arc::new(PeerLimits::new(plane, peer)), connections: Vec::new() });
        match peer {
            None if inside.connections.len() >= STRANGER_CONNECTIONS_MAX => {
                return Err("too many callers without a certificate".into());
            }
            // A node that restarted dials anew while its connections of before still wait for their end.
            Some(_) if inside.connections.len() >= PEER_CONNECTIONS_MAX => {
                inside.connections.remove(0).close(EndCode::Farewell.var_int(), b"newer connections replace it");
            }
            _ => {}
        }
        inside.connections.push(connection.clone());
        inside.limits.meters.connections.increment(1.0);
        Ok(Entered {
            limits: Arc::clone(&inside.limits),
            peers: Arc::clone(&self.peers),
            peer,
            connection: connection.clone(),
        })
    }

    /// Closes every connection of a node.
    pub(super) fn close(&self, node: NodeId, reason: &str) {
        if let Some(inside) = self.peers.lock().get(&Some(node)) {
            for connection in &inside.connections {
                connection.close(EndCode::Refused.var_int(), reason.as_bytes());
            }
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.limits.meters.connections.decrement(1.0);
        let mut peers = self.peers.lock();
        if let Some(inside) = peers.get_mut(&self.peer) {
            inside.connections.retain(|connection| connection.stable_id() != self.connection.stable_id());
            if inside.connections.is_empty() {
                peers.remove(&self.peer);
            }
        }
    }
}
