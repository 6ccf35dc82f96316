//! This server's place in a cluster while it starts: it has one already, gets one by joining, or makes one as the first
//! node.

use super::cluster::files::NodeFiles;
use super::cluster::join::{addresses, ensure_joined};
use super::cluster::late_transport::LateTransport;
use super::cluster::network::{Network, NetworkOptions};
use super::config::ServerConfig;
use super::faults::Faults;
use crate::failure::Failure;
use holdfast_coordinator::admin::Code;
use holdfast_coordinator::membership::{Founder, found};
use holdfast_coordinator::metadata::MembershipMetadata;
use holdfast_coordinator::surroundings::Clock;
use holdfast_proto::NodeId;
use holdfast_proto::cluster::Role;
use holdfast_trust::UnixClock;
use rand::Rng;
use std::sync::Arc;

/// The place, as far as it is known.
pub(crate) struct Member {
    pub(crate) files: NodeFiles,
    pub(crate) clock: UnixClock,
    /// Reaches the others once there is a network.
    pub(crate) late: Arc<LateTransport>,
    /// `None` on a server that is alone.
    pub(crate) network: Option<Arc<Network>>,
    /// What an operator makes go wrong here.
    pub(crate) faults: Arc<Faults>,
}

impl Member {
    /// Joins if it is to, and opens the network of a node that has joined.
    pub(crate) async fn open(config: &ServerConfig, clock: Clock) -> Result<Self, Failure> {
        let files = NodeFiles::of(&config.data_dir);
        let clock = UnixClock::new(move || clock());
        let late = Arc::new(LateTransport::default());
        let credentials = ensure_joined(config, &files, &clock).await?;
        let own = credentials.as_ref().map_or(NodeId::FIRST, |credentials| credentials.identity().node);
        let faults = Faults::new(own, config.allow_faults);
        let mut member = Self { files, clock, late, network: None, faults };
        if let Some(credentials) = credentials {
            member.open_network(config, credentials)?;
        }
        Ok(member)
    }

    /// Whether this is the node that made its cluster, or a server that is alone.
    pub(crate) fn is_first(&self) -> bool {
        self.own() == NodeId::FIRST
    }

    /// This node's number.
    pub(crate) fn own(&self) -> NodeId {
        self.network.as_ref().map_or(NodeId::FIRST, |network| network.own())
    }

    /// Makes a server that is alone the first node of a cluster, if it is to listen for others. Its metadata and map are
    /// there. Returns whether it did: the network is new then, and nothing is served on it yet.
    pub(crate) async fn found(
        &mut self,
        config: &ServerConfig,
        metadata: &dyn MembershipMetadata,
    ) -> Result<bool, Failure> {
        let Some(listen) = config.cluster.listen.filter(|_| self.network.is_none()) else { return Ok(false) };
        if !config.cluster.roles.has(Role::Coordinator) {
            let message = "the first node of a cluster is a coordinator";
            return Err(Failure::usage(Code::InvalidArgument, message).or_try("--role coordinator,storage"));
        }
        let key = self.files.key(&rand::rng().random())?;
        let founder = Founder {
            key: &key,
            roles: config.cluster.roles,
            region: config.region.clone(),
            zone: config.cluster.zone.clone(),
            addresses: addresses(listen, config.cluster.roles),
            authority_seed: rand::rng().random(),
            now_ms: self.clock.now_ms(),
        };
        let credentials = found(metadata, founder).await.map_err(|e| {
            Failure::new(Code::StartFailed, format!("make this server the first node of a cluster: {e}"))
        })?;
        self.files.keep_credentials(&credentials)?;
        self.open_network(config, credentials)?;
        Ok(true)
    }

    fn open_network(
        &mut self,
        config: &ServerConfig,
        credentials: holdfast_trust::NodeCredentials,
    ) -> Result<(), Failure> {
        let network = Network::start(NetworkOptions {
            credentials,
            listen: config.cluster.listen,
            files: self.files.clone(),
            clock: self.clock.clone(),
            faults: self.faults.clone(),
        })
        .map(Arc::new)?;
        self.late.set(network.transport());
        self.network = Some(network);
        Ok(())
    }
}
