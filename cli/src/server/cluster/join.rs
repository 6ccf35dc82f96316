//! How a server comes to belong to a cluster: it has joined before, it joins now with a token, or it is the first node.

use super::files::NodeFiles;
use crate::failure::{Exit, Failure};
use crate::server::config::ServerConfig;
use async_trait::async_trait;
use holdfast_coordinator::admin::Code;
use holdfast_coordinator::membership::{JoinOptions, MembershipError, StrangerDial, join};
use holdfast_proto::cluster::{NodeAddresses, Role, Roles};
use holdfast_proto::rpc::Rpc;
use holdfast_transport::quic::{self, dial_stranger};
use holdfast_transport::{CallOptions, Channel, Frame, TransportError};
use holdfast_trust::{JoinToken, NodeCredentials, UnixClock, stranger_config};
use rand::Rng;
use std::net::SocketAddr;
use std::sync::Arc;

/// The name asked for in the handshake with a coordinator whose number is not known yet; its certificate is judged by
/// the token.
const ANY_COORDINATOR: &str = "coordinator.holdfast";

/// The credentials of a node that has joined, or joins now; `None` for a server that is, or may become, a first node.
pub(crate) async fn ensure_joined(
    config: &ServerConfig,
    files: &NodeFiles,
    clock: &UnixClock,
) -> Result<Option<NodeCredentials>, Failure> {
    if let Some(credentials) = files.credentials()? {
        if config.cluster.join.is_some() {
            tracing::info!(node = %credentials.identity().node, "this data directory has joined already: --join is ignored");
        }
        check_place(config, &credentials);
        return Ok(Some(credentials));
    }
    let Some(text) = &config.cluster.join else { return Ok(None) };
    if config.data_dir.join("metadata").exists() {
        let message = format!("{} holds a store of its own, which cannot join another", config.data_dir.display());
        return Err(Failure::usage(Code::JoinRefused, message).or_try("an empty --data-dir").exits(Exit::Refused));
    }
    let token: JoinToken = text.parse().map_err(|e: holdfast_trust::TrustError| {
        Failure::usage(Code::JoinRefused, format!("--join: {e}")).or_try("the whole line of `holdfast token create`")
    })?;
    let key = files.key(&rand::rng().random())?;
    let options = JoinOptions {
        token: &token,
        key: &key,
        roles: config.cluster.roles,
        region: config.region.clone(),
        zone: config.cluster.zone.clone(),
        addresses: config.cluster.listen.map(|at| addresses(at, config.cluster.roles)).unwrap_or_default(),
        clock: clock.clone(),
    };
    let joined = join(&Dial { clock: clock.clone() }, options).await.map_err(|e| refused(&e))?;
    files.keep_nodes(&joined.map.nodes)?;
    // Last: what was kept before counts for nothing without a certificate.
    files.keep_credentials(&joined.credentials)?;
    let identity = joined.credentials.identity();
    tracing::info!(node = %identity.node, cluster = %identity.cluster, roles = %identity.roles, "joined a cluster");
    Ok(Some(joined.credentials))
}

/// Where a node that listens at `control` is reached; nothing for a port that is still to be chosen.
pub(crate) fn addresses(control: SocketAddr, roles: Roles) -> NodeAddresses {
    if control.port() == 0 {
        return NodeAddresses::default();
    }
    let at = |step: u16| SocketAddr::new(control.ip(), control.port().saturating_add(step));
    let on = |is_on: bool, step: u16| if is_on { vec![at(step)] } else { Vec::new() };
    let is_coordinator = roles.has(Role::Coordinator);
    NodeAddresses {
        control: on(is_coordinator, 0),
        consensus: on(is_coordinator, 1),
        data: on(roles.has(Role::Storage), 2),
        ..NodeAddresses::default()
    }
}

/// What the command line says of a node that has joined long ago is compared, not used.
fn check_place(config: &ServerConfig, credentials: &NodeCredentials) {
    let identity = credentials.identity();
    if config.region != identity.region && config.region != crate::server::config::DEFAULT_REGION {
        tracing::warn!(asked = config.region, is = identity.region, "the node's region is that of its certificate");
    }
}

fn refused(error: &MembershipError) -> Failure {
    let (next, exit) = match error {
        MembershipError::Refused { .. } => ("a new token: `holdfast token create` on the cluster", Exit::Refused),
        _ => ("the same command again, once a coordinator of the cluster is reached", Exit::Unreachable),
    };
    Failure::new(Code::JoinRefused, format!("join the cluster: {error}")).or_try(next).exits(exit)
}

/// Dials coordinators by the pin in the token.
struct Dial {
    clock: UnixClock,
}

#[async_trait]
impl StrangerDial for Dial {
    async fn open(
        &self,
        address: SocketAddr,
        token: &JoinToken,
        rpc: Rpc,
        first: Frame,
        options: CallOptions,
    ) -> Result<Box<dyn Channel>, TransportError> {
        let unusable = |e: rustls::Error| TransportError::Malformed { reason: format!("TLS settings: {e}") };
        let tls = Arc::new(stranger_config(token, &self.clock).map_err(unusable)?);
        let dial = quic::StrangerDial { addresses: vec![address], tls, server_name: ANY_COORDINATOR.to_owned() };
        dial_stranger(&dial, rpc, first, options).await
    }
}
