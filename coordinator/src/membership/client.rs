//! The other end of the control plane, on every node: joins, renews, announces, fetches the map.
//!
//! Whatever a peer answers is verified here before it is used: a certificate must be for our key, say what we asked for,
//! and come from the CA that the token names or that we believe already.

use super::error::MembershipError;
use crate::metadata::ClusterMap;
use async_trait::async_trait;
use holdfast_proto::cluster::{NodeAddresses, NodeIdentity, Roles};
use holdfast_proto::membership::{
    AnnounceReply, AnnounceRequest, AnnouncedBackend, CertificateOutcome, CertificateReply, ClusterMapReply,
    ClusterMapRequest, Granted, JoinRequest, RenewRequest,
};
use holdfast_proto::rpc::Rpc;
use holdfast_proto::{BackendId, Epoch, ErrorKind, NodeId};
use holdfast_transport::{CallOptions, Channel, Frame, Transport, TransportError};
use holdfast_trust::{JoinToken, NodeCredentials, NodeKey, RootPin, UnixClock};
use prost::Message;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::time::Duration;

/// How long one call may take; a leader change in between fits.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Rounds over all addresses of a token before joining gives up: with the waits between them about two minutes.
const JOIN_ROUNDS: u32 = 8;
/// First wait between rounds; doubled each time, at most `JOIN_WAIT_MAX`.
const JOIN_WAIT: Duration = Duration::from_millis(500);
/// Longest wait between rounds.
const JOIN_WAIT_MAX: Duration = Duration::from_secs(30);

/// Dials the control plane of a cluster this node does not belong to yet: shows no certificate, accepts only a
/// coordinator of the token's cluster under the token's CA (`holdfast_trust::stranger_config`).
#[async_trait]
pub trait StrangerDial: Send + Sync {
    /// Opens a channel for one call at one address and sends its first frame.
    async fn open(
        &self,
        address: SocketAddr,
        token: &JoinToken,
        rpc: Rpc,
        first: Frame,
        options: CallOptions,
    ) -> Result<Box<dyn Channel>, TransportError>;
}

/// How to join.
pub struct JoinOptions<'a> {
    /// The token.
    pub token: &'a JoinToken,
    /// This node's key. It must be on disk before joining: only with the same key is the same token accepted again.
    pub key: &'a NodeKey,
    /// What this node does.
    pub roles: Roles,
    /// Where it stands.
    pub region: String,
    /// Zone within the region.
    pub zone: String,
    /// Where it listens, as far as known.
    pub addresses: NodeAddresses,
    /// The time.
    pub clock: UnixClock,
}

/// A node that has joined.
#[derive(Debug)]
pub struct Joined {
    /// Its credentials, to be kept.
    pub credentials: NodeCredentials,
    /// The cluster map.
    pub map: ClusterMap,
}

/// Joins. Tries every address of the token, and again for about two minutes while the cluster is busy or out of reach;
/// a refusal that will not change ends it. Dropped or failed midway, it may be called again with the same key and token:
/// the answer is the same.
pub async fn join(dial: &dyn StrangerDial, options: JoinOptions<'_>) -> Result<Joined, MembershipError> {
    let (now_ms, expires_ms) = (options.clock.now_ms(), options.token.expires_ms);
    if now_ms >= expires_ms {
        // Asked all the same: our clock may be wrong, and a node that joined once may ask again.
        tracing::warn!("the join token seems to have expired");
    }
    let mut last = MembershipError::answer("no address in the token");
    for round in 0..JOIN_ROUNDS {
        if round > 0 {
            tokio::time::sleep(JOIN_WAIT.saturating_mul(1 << (round - 1)).min(JOIN_WAIT_MAX)).await;
        }
        for &address in &options.token.addresses {
            match join_at(dial, address, &options).await {
                Ok(joined) => return Ok(joined),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    tracing::info!(%address, %error, "cannot join there");
                    last = error;
                }
            }
        }
    }
    Err(last)
}

/// Whether asking elsewhere or later is of no use. A peer that fails to prove itself is not the cluster's last word.
fn is_final(error: &MembershipError) -> bool {
    matches!(error, MembershipError::Refused { .. }) && error.kind() != ErrorKind::Retry
}

pub(super) async fn join_at(
    dial: &dyn StrangerDial,
    address: SocketAddr,
    options: &JoinOptions<'_>,
) -> Result<Joined, MembershipError> {
    let JoinOptions { token, key, roles, region, zone, addresses, clock } = options;
    let request = JoinRequest {
        token: token.id.0.to_vec(),
        secret: token.secret.0.to_vec(),
        cluster: token.cluster.0.to_vec(),
        request: key.request()?,
        roles: roles.to_string(),
        region: region.clone(),
        zone: zone.clone(),
        addresses: Some(addresses.into()),
        now_ms: clock.now_ms(),
    };
    let first = Frame::head_only(request.encode_to_vec().into());
    let asking = async {
        let mut channel = dial.open(address, token, Rpc::Join, first, call_options()).await?;
        channel.finish().await?;
        channel.receive().await?.ok_or(TransportError::Cancelled)
    };
    let late = |_| MembershipError::answer(format!("{address} does not answer"));
    let reply = tokio::time::timeout(CALL_DEADLINE, asking).await.map_err(late)??;
    let granted = granted(&reply)?;
    let asked = NodeIdentity {
        cluster: token.cluster,
        node: NodeId(granted.node),
        roles: *roles,
        region: region.clone(),
        zone: zone.clone(),
    };
    let credentials = credentials_of(key, granted)?;
    if *credentials.identity() != asked {
        let found = credentials.identity();
        return Err(MembershipError::answer(format!("a certificate for {found:?}, asked for was {asked:?}")));
    }
    if !credentials.root_pins().contains(&token.root) {
        return Err(MembershipError::answer("the CA that the token names is not among the roots"));
    }
    Ok(Joined { credentials, map: map_of(&reply)? })
}

fn call_options() -> CallOptions {
    CallOptions { deadline: CALL_DEADLINE, epoch: None, request_id: 0 }
}

fn granted(reply: &Frame) -> Result<Granted, MembershipError> {
    match decoded::<CertificateReply>(reply)?.outcome {
        Some(CertificateOutcome::Granted(granted)) => Ok(granted),
        Some(CertificateOutcome::Refused(refusal)) => Err(refusal.into()),
        None => Err(MembershipError::answer("neither granted nor refused")),
    }
}

fn decoded<M: Message + Default>(reply: &Frame) -> Result<M, MembershipError> {
    M::decode(reply.head.clone()).map_err(|e| MembershipError::answer(e.to_string()))
}

fn credentials_of(key: &NodeKey, granted: Granted) -> Result<NodeCredentials, MembershipError> {
    let key = NodeKey::from_pem(&key.to_pem())?;
    let roots = granted.roots.into_iter().map(CertificateDer::from).collect();
    Ok(NodeCredentials::new(key, CertificateDer::from(granted.certificate), roots)?)
}

fn map_of(reply: &Frame) -> Result<ClusterMap, MembershipError> {
    serde_json::from_slice(&reply.body.concat()).map_err(|e| MembershipError::answer(format!("the cluster map: {e}")))
}

/// Asks coordinator `via` for a new certificate for the same key. What comes back is of the same node and shares a root
/// with what we have; whose roles, region and zone may be other ones: those of the cluster map.
pub async fn renew(
    transport: &dyn Transport,
    via: NodeId,
    current: &NodeCredentials,
) -> Result<NodeCredentials, MembershipError> {
    let request = RenewRequest { request: current.key().request()? };
    let reply = ask(transport, via, Rpc::Renew, &request).await?;
    let renewed = credentials_of(current.key(), granted(&reply)?)?;
    let (had, has) = (current.identity(), renewed.identity());
    if (had.cluster, had.node) != (has.cluster, has.node) {
        return Err(MembershipError::answer(format!("a certificate for node {} of {}", has.node, has.cluster)));
    }
    let known = current.root_pins();
    if !renewed.root_pins().iter().any(|pin: &RootPin| known.contains(pin)) {
        return Err(MembershipError::answer("a certificate under roots none of which we know"));
    }
    Ok(renewed)
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// Where it listens.
    pub addresses: NodeAddresses,
    /// Its backends: id, location, and whether they are fresh (`AnnouncedBackend::fresh`).
    pub backends: Vec<(BackendId, String, bool)>,
    /// The time.
    pub now_ms: u64,
}

/// Tells coordinator `via` where this node listens and which backends it has. Returns the epoch of the map that holds it,
/// and the backends that are not in the map.
pub async fn announce(
    transport: &dyn Transport,
    via: NodeId,
    announcement: &Announcement,
) -> Result<(Epoch, Vec<BackendId>), MembershipError> {
    let backend = |(id, location, fresh): &(BackendId, String, bool)| AnnouncedBackend {
        id: id.0.to_vec(),
        location: location.clone(),
        fresh: *fresh,
    };
    let request = AnnounceRequest {
        addresses: Some((&announcement.addresses).into()),
        backends: announcement.backends.iter().map(backend).collect(),
        now_ms: announcement.now_ms,
    };
    let reply: AnnounceReply = decoded(&ask(transport, via, Rpc::Announce, &request).await?)?;
    match reply.refused {
        Some(refusal) => Err(refusal.into()),
        None => {
            let ids = reply.not_in_map.iter().filter_map(|id| BackendId::from_slice(id));
            Ok((Epoch(reply.epoch), ids.collect()))
        }
    }
}

/// The newest map as coordinator `via` has it; `None` if that is the one of epoch `known`.
pub async fn fetch_cluster_map(
    transport: &dyn Transport,
    via: NodeId,
    known: Epoch,
) -> Result<Option<ClusterMap>, MembershipError> {
    let reply = ask(transport, via, Rpc::ClusterMap, &ClusterMapRequest { epoch: known.0 }).await?;
    let head: ClusterMapReply = decoded(&reply)?;
    match head.refused {
        Some(refusal) => Err(refusal.into()),
        None if reply.body_bytes() == 0 && head.epoch == known.0 => Ok(None),
        None => map_of(&reply).map(Some),
    }
}

async fn ask(
    transport: &dyn Transport,
    via: NodeId,
    rpc: Rpc,
    request: &impl Message,
) -> Result<Frame, MembershipError> {
    let first = Frame::head_only(request.encode_to_vec().into());
    Ok(transport.call(via, rpc, first, call_options()).await?)
}
