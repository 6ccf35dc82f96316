//! This node on the network: its credentials, its sockets, what it serves, and who its peers are.

use super::files::NodeFiles;
use super::planes::ServiceTable;
use super::tls_source::TrustSource;
use crate::failure::{Exit, Failure};
use crate::server::faults::Faults;
use holdfast_coordinator::admin::Code;
use holdfast_proto::NodeId;
use holdfast_proto::cluster::{NodeAddresses, NodeIdentity, NodeIntent, NodeRecord, Role};
use holdfast_proto::rpc::{Plane, Rpc};
use holdfast_transport::quic::{Listener, MTU_JUMBO, PeerRecord, QuicOptions, QuicStartError, QuicTransport};
use holdfast_transport::{FaultyTransport, LocalNetwork, LocalOptions, Service, Transport};
use holdfast_trust::{LiveCredentials, NodeCredentials, UnixClock};
use std::net::SocketAddr;
use std::sync::Arc;

/// The network side of a node.
pub(crate) struct Network {
    pub(crate) identity: NodeIdentity,
    pub(crate) live: Arc<LiveCredentials>,
    pub(crate) transport: Arc<QuicTransport>,
    pub(crate) services: Arc<ServiceTable>,
    pub(crate) files: NodeFiles,
    pub(crate) clock: UnixClock,
    pub(crate) faults: Arc<Faults>,
    listen: SocketAddr,
}

/// What the network of a node is made of.
pub(crate) struct NetworkOptions {
    pub(crate) credentials: NodeCredentials,
    /// Where it listens; `None` for where it did last.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) files: NodeFiles,
    pub(crate) clock: UnixClock,
    pub(crate) faults: Arc<Faults>,
}

impl Network {
    /// Binds the sockets at `listen` (or where they were last) and knows the peers of the last map that was seen.
    pub(crate) fn start(options: NetworkOptions) -> Result<Self, Failure> {
        let NetworkOptions { credentials, listen, files, clock, faults } = options;
        let listen = match listen {
            Some(listen) => listen,
            None => files.listen()?.ok_or_else(|| {
                Failure::usage(Code::InvalidArgument, "this node does not know where to listen for the others")
                    .or_try("--cluster-listen HOST[:PORT]")
            })?,
        };
        let unusable =
            |e: &dyn std::fmt::Display| Failure::new(Code::UnusableCertificate, format!("node certificate: {e}"));
        let restart_secret = blake3::derive_key("holdfast node restart secret v1", credentials.key_pem().as_bytes());
        let identity = credentials.identity().clone();
        let live = LiveCredentials::new(credentials).map_err(|e| unusable(&e))?;
        let tls = Arc::new(TrustSource::new(&live, &clock).map_err(|e| unusable(&e))?);
        let services = ServiceTable::new(identity.node);
        let own = LocalNetwork::new(LocalOptions::default()).join(identity.clone(), services.clone());
        let is_coordinator = identity.roles.has(Role::Coordinator);
        let planes = [
            (Plane::Control, 0, is_coordinator),
            (Plane::Consensus, 1, is_coordinator),
            (Plane::Data, 2, identity.roles.has(Role::Storage)),
        ];
        let listeners = planes.into_iter().filter(|(_, _, is_served)| *is_served).map(|(plane, step, _)| {
            let port = if listen.port() == 0 { 0 } else { listen.port().saturating_add(step) };
            let service: Arc<dyn Service> = services.clone();
            Listener { plane, address: SocketAddr::new(listen.ip(), port), service }
        });
        let transport = QuicTransport::start(QuicOptions {
            cluster: identity.cluster,
            node: identity.node,
            tls,
            listeners: listeners.collect(),
            own: Arc::new(own),
            restart_secret,
            mtu_max: MTU_JUMBO,
        });
        let transport = Arc::new(transport.map_err(|e| cannot_listen(&e))?);
        services.serve(&[Rpc::FaultSet, Rpc::CoordinatorFaultSet], faults.clone());
        let network = Self { identity, live, transport, services, files, clock, faults, listen };
        network.files.keep_listen(network.listen)?;
        network.meet(&network.files.nodes()?);
        Ok(network)
    }

    /// Takes the nodes of a map as peers; removed ones are refused from now on.
    pub(crate) fn meet(&self, nodes: &[NodeRecord]) {
        let removed = nodes.iter().filter(|node| node.intent == NodeIntent::Removed).map(|node| node.id);
        self.live.set_removed(removed.collect());
        self.transport.set_peers(nodes.iter().map(PeerRecord::from).collect());
    }

    /// As `dyn Transport`, with the faults of its links.
    pub(crate) fn transport(&self) -> Arc<dyn Transport> {
        match self.faults.links() {
            Some(faults) => Arc::new(FaultyTransport { inner: self.transport.clone(), faults }),
            None => self.transport.clone(),
        }
    }

    /// Where the planes are, as the others are to be told.
    pub(crate) fn addresses(&self, s3: String, admin: String) -> NodeAddresses {
        let at = |plane: Plane| {
            let served = match plane {
                Plane::Data => Role::Storage,
                Plane::Consensus | Plane::Control => Role::Coordinator,
            };
            let bound = self.transport.local_address(plane).filter(|_| self.identity.roles.has(served));
            bound.map(|bound| SocketAddr::new(self.listen.ip(), bound.port())).into_iter().collect()
        };
        NodeAddresses { data: at(Plane::Data), consensus: at(Plane::Consensus), control: at(Plane::Control), s3, admin }
    }

    /// This node's number.
    pub(crate) fn own(&self) -> NodeId {
        self.identity.node
    }
}

fn cannot_listen(error: &QuicStartError) -> Failure {
    Failure::new(Code::CannotListen, error.to_string())
        .or_try("--cluster-listen with another port: three in a row must be free")
        .exits(Exit::Failed)
}
