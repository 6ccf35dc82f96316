//! The control plane of a coordinator: `Join`, `Renew`, `Announce`, `ClusterMap`.
//!
//! Every call is idempotent, so one that is dropped midway (its caller went away) is simply asked again; nothing runs on
//! in a task of its own. What a stranger can cause is bounded: one read of one row, and a proposal only after the row has
//! shown that the token admits it.
//!
//! Logs and counts refusals (`holdfast_membership_refusals_total`). No secret, and no text of a stranger unquoted, gets
//! into a log.

use super::authority::{Authority, identity_in, node_label};
use super::error::MembershipError;
use super::nodes::{Announced, NodeRefusal, change, with_announcement, with_node};
use crate::metadata::{ClusterMap, MembershipMetadata, MetadataError, RedeemToken};
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_proto::cluster::{NodeAddresses, NodeIdentity, NodeIntent, NodeRecord};
use holdfast_proto::membership::{
    AnnounceReply, AnnounceRequest, BACKENDS_MAX, CertificateOutcome, CertificateReply, ClusterMapReply,
    ClusterMapRequest, Granted, JoinRequest, LOCATION_BYTES_MAX, Refusal, RefusalCause, RenewRequest,
};
use holdfast_proto::rpc::Rpc;
use holdfast_proto::{ClusterId, NodeId};
use holdfast_transport::{Call, Caller, Channel, Frame, Service, TransportError};
use holdfast_trust::{
    Asked, CLOCK_SLACK_MS, CertificateRequest, TokenId, TokenRefusal, TokenSecret, TokenUse, TrustError, UnixClock,
    check_place, redeem,
};
use prost::Message;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Joins at once: each is a few reads and two small writes. More are told to come again.
const JOINS_MAX: usize = 8;
/// Largest request of a stranger: token, key and addresses come to below 8 KiB.
const STRANGER_BYTES_MAX: usize = 32 << 10;
/// Largest request of a node: an announcement of 1024 backends with their paths.
const NODE_BYTES_MAX: usize = 8 << 20;

/// Serves the control plane on top of the metadata.
pub struct MembershipService {
    metadata: Arc<dyn MembershipMetadata>,
    node: NodeId,
    clock: UnixClock,
    joins: Semaphore,
}

/// A refusal to be sent back.
struct Refused(RefusalCause, String);

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self { cause: refused.0.number(), reason: refused.1 }
    }
}

impl From<MembershipError> for Refused {
    fn from(error: MembershipError) -> Self {
        let cause = match &error {
            MembershipError::Node(NodeRefusal::Removed { .. }) => RefusalCause::NodeRemoved,
            MembershipError::Node(NodeRefusal::NoSuchNode { .. }) => RefusalCause::NoSuchNode,
            MembershipError::Trust(_) => RefusalCause::Malformed,
            MembershipError::Metadata(error) => return unavailable(error),
            _ => RefusalCause::Unavailable,
        };
        Self(cause, error.to_string())
    }
}

impl From<TrustError> for Refused {
    fn from(error: TrustError) -> Self {
        Self(RefusalCause::Malformed, error.to_string())
    }
}

impl From<MetadataError> for Refused {
    fn from(error: MetadataError) -> Self {
        unavailable(&error)
    }
}

/// Why exactly (a path of ours, perhaps) is for our log, not for a stranger.
fn unavailable(error: &MetadataError) -> Refused {
    tracing::warn!(%error, "the metadata did not answer the control plane");
    Refused(RefusalCause::Unavailable, "the cluster's metadata cannot be reached now; ask again".to_owned())
}

fn malformed(reason: impl Into<String>) -> Refused {
    Refused(RefusalCause::Malformed, reason.into())
}

fn of_token(refusal: TokenRefusal) -> Refused {
    let cause = match refusal {
        // A stranger is not told which of the two it was.
        TokenRefusal::Unknown | TokenRefusal::WrongSecret => {
            return Refused(RefusalCause::TokenNotAccepted, "no such join token; it may have been revoked".to_owned());
        }
        TokenRefusal::Expired => RefusalCause::TokenExpired,
        TokenRefusal::Used => RefusalCause::TokenUsed,
        TokenRefusal::Role => RefusalCause::TokenRole,
        TokenRefusal::Region => RefusalCause::TokenRegion,
        TokenRefusal::Zone => RefusalCause::TokenZone,
    };
    Refused(cause, refusal.to_string())
}

/// A join request whose parts have been read.
struct Asking {
    token: TokenId,
    secret: TokenSecret,
    request: CertificateRequest,
    asked: Asked,
    addresses: NodeAddresses,
}

impl Asking {
    fn read(join: &JoinRequest) -> Result<Self, Refused> {
        let request = CertificateRequest::from_der(&join.request)?;
        check_place(&join.region)?;
        check_place(&join.zone)?;
        let asked = Asked {
            key: request.key_hash(),
            roles: join.roles.parse().map_err(|e: holdfast_proto::cluster::RolesError| malformed(e.to_string()))?,
            region: join.region.clone(),
            zone: join.zone.clone(),
        };
        let secret = join.secret.as_slice().try_into().map_err(|_| malformed("a secret has 32 bytes"))?;
        Ok(Self {
            token: TokenId::from_slice(&join.token).ok_or_else(|| malformed("a token id has 16 bytes"))?,
            secret: TokenSecret(secret),
            addresses: addresses(join.addresses.as_ref())?,
            request,
            asked,
        })
    }
}

fn addresses(wire: Option<&holdfast_proto::membership::Addresses>) -> Result<NodeAddresses, Refused> {
    let read = wire.map(NodeAddresses::try_from).transpose();
    Ok(read.map_err(|e| malformed(e.to_string()))?.unwrap_or_default())
}

impl MembershipService {
    /// Of coordinator `node`, on its metadata.
    pub fn new(metadata: Arc<dyn MembershipMetadata>, node: NodeId, clock: UnixClock) -> Self {
        Self { metadata, node, clock, joins: Semaphore::new(JOINS_MAX) }
    }

    async fn map(&self) -> Result<ClusterMap, Refused> {
        let found = self.metadata.cluster_map().await?;
        found.ok_or_else(|| MembershipError::NotFounded { missing: "the cluster map" }.into())
    }

    /// Admits a node, or says why not. The frame's body is the cluster map, so the node knows whom to talk to.
    async fn join(&self, join: &JoinRequest) -> Result<(Granted, ClusterMap), Refused> {
        let busy = || Refused(RefusalCause::Busy, format!("{JOINS_MAX} nodes are joining; ask again"));
        let _permit = self.joins.try_acquire().map_err(|_| busy())?;
        let asking = Asking::read(join)?;
        let now_ms = self.clock.now_ms();
        let map = self.map().await?;
        if join.cluster != map.cluster.as_bytes() {
            return Err(Refused(RefusalCause::WrongCluster, format!("this is cluster {}", map.cluster)));
        }
        self.check_clock(join.now_ms, now_ms)?;
        let used = self.redeem(&asking, &map, now_ms).await?;
        let record = NodeRecord {
            id: used.node,
            name: node_label(used.node),
            roles: used.asked.roles,
            region: used.asked.region.clone(),
            zone: used.asked.zone.clone(),
            addresses: asking.addresses,
            intent: NodeIntent::Active,
            joined_ms: used.used_ms,
        };
        let map = change(self.metadata.as_ref(), now_ms, |map| with_node(map, &record)).await?;
        // As of when the token was used: asked again, the very same certificate is given.
        let granted = self.grant(&map, used.node, &asking.request, used.used_ms).await?;
        tracing::info!(node = %used.node, roles = %record.roles, region = ?record.region, zone = ?record.zone, "a node joined");
        Ok((granted, map))
    }

    fn check_clock(&self, theirs_ms: u64, ours_ms: u64) -> Result<(), Refused> {
        let skew_ms = theirs_ms.abs_diff(ours_ms);
        if skew_ms <= CLOCK_SLACK_MS {
            return Ok(());
        }
        let side = if theirs_ms > ours_ms { "ahead of" } else { "behind" };
        let (skew, allowed) = (skew_ms / 1000, CLOCK_SLACK_MS / 1000);
        Err(Refused(
            RefusalCause::Clock,
            format!("the new node's clock is {skew} s {side} that of node {}; {allowed} s are allowed", self.node),
        ))
    }

    /// Judged on the row first, so that only what will be granted is proposed; then in the log, where it counts.
    async fn redeem(&self, asking: &Asking, map: &ClusterMap, now_ms: u64) -> Result<TokenUse, Refused> {
        let record = self.metadata.token(asking.token).await?;
        let shown = asking.secret.hash();
        if let Err(refusal) = redeem(record.as_ref(), &shown, &asking.asked, now_ms) {
            // Which of those that a stranger is not told apart.
            if matches!(refusal, TokenRefusal::Unknown | TokenRefusal::WrongSecret) {
                tracing::warn!(token = %asking.token, cause = %refusal, "somebody showed a join token that is none");
            }
            return Err(of_token(refusal));
        }
        let above = map.nodes.iter().map(|record| record.id).max().unwrap_or(NodeId::FIRST);
        let (id, asked) = (asking.token, asking.asked.clone());
        let redeemed = self.metadata.token_redeem(RedeemToken { id, shown, asked, above, now_ms }).await?;
        redeemed.map_err(of_token)
    }

    async fn grant(
        &self,
        map: &ClusterMap,
        node: NodeId,
        request: &CertificateRequest,
        as_of_ms: u64,
    ) -> Result<Granted, Refused> {
        let authority = Authority::load(self.metadata.as_ref(), map.cluster).await?;
        let identity = identity_in(map, node)?;
        let certificate = authority.signing.sign(request, &identity, as_of_ms)?;
        let roots = authority.roots.iter().map(|root| root.to_vec()).collect();
        Ok(Granted { node: node.0, certificate: certificate.to_vec(), roots })
    }

    /// What the new certificate says is what the map says today, not what the old one said.
    async fn renew(&self, caller: &NodeIdentity, renew: &RenewRequest) -> Result<Granted, Refused> {
        let request = CertificateRequest::from_der(&renew.request)?;
        let map = self.map().await?;
        check_cluster(map.cluster, caller)?;
        let granted = self.grant(&map, caller.node, &request, self.clock.now_ms()).await?;
        tracing::info!(node = %caller.node, "a node's certificate was renewed");
        Ok(granted)
    }

    async fn announce(&self, caller: &NodeIdentity, announce: &AnnounceRequest) -> Result<AnnounceReply, Refused> {
        let addresses = addresses(announce.addresses.as_ref())?;
        let backends = announced(announce)?;
        let now_ms = self.clock.now_ms();
        let skew_ms = announce.now_ms.abs_diff(now_ms);
        if skew_ms > CLOCK_SLACK_MS {
            tracing::warn!(node = %caller.node, skew_ms, "a node's clock differs from ours");
        }
        let map = change(self.metadata.as_ref(), now_ms, |map| {
            if map.cluster != caller.cluster {
                return Err(TrustError::ForeignCluster { expected: map.cluster, found: caller.cluster }.into());
            }
            with_announcement(map, caller.node, &addresses, &backends)
        })
        .await?;
        let is_missing = |announced: &&Announced| !map.backends.iter().any(|record| record.id == announced.id);
        let not_in_map = backends.iter().filter(is_missing).map(|announced| announced.id.as_bytes().to_vec());
        Ok(AnnounceReply { refused: None, epoch: map.table.epoch.0, not_in_map: not_in_map.collect(), now_ms })
    }

    async fn cluster_map(&self, request: &ClusterMapRequest) -> Result<(u64, Bytes), Refused> {
        let map = self.map().await?;
        let epoch = map.table.epoch.0;
        Ok((epoch, if request.epoch == epoch { Bytes::new() } else { encoded(&map)? }))
    }

    /// The reply to one call.
    async fn answer(&self, call: &Call, request: &Frame) -> Result<Frame, TransportError> {
        let caller = match (&call.caller, call.rpc) {
            (_, Rpc::Join) => return Ok(self.answer_join(request).await),
            (Caller::Node(identity), Rpc::Renew | Rpc::Announce | Rpc::ClusterMap) => identity.clone(),
            _ => {
                let reason = format!("{} is not served here for {:?}", call.rpc.name(), call.caller.kind());
                return Err(TransportError::Refused { peer: self.node, reason });
            }
        };
        let head = &request.head;
        Ok(match call.rpc {
            Rpc::Renew => {
                let outcome = match read(head, NODE_BYTES_MAX) {
                    Ok(renew) => self.renew(&caller, &renew).await,
                    Err(refused) => Err(refused),
                };
                certificate_reply(call.rpc, outcome, Bytes::new())
            }
            Rpc::Announce => {
                let outcome = match read(head, NODE_BYTES_MAX) {
                    Ok(announce) => self.announce(&caller, &announce).await,
                    Err(refused) => Err(refused),
                };
                let reply = outcome.unwrap_or_else(|refused| AnnounceReply {
                    refused: Some(counted(call.rpc, refused)),
                    now_ms: self.clock.now_ms(),
                    ..AnnounceReply::default()
                });
                framed(&reply, Bytes::new())
            }
            _ => {
                let outcome = match read(head, NODE_BYTES_MAX) {
                    Ok(request) => self.cluster_map(&request).await,
                    Err(refused) => Err(refused),
                };
                match outcome {
                    Ok((epoch, map)) => framed(&ClusterMapReply { refused: None, epoch }, map),
                    Err(refused) => {
                        let refused = Some(counted(call.rpc, refused));
                        framed(&ClusterMapReply { refused, epoch: 0 }, Bytes::new())
                    }
                }
            }
        })
    }

    async fn answer_join(&self, request: &Frame) -> Frame {
        let outcome = match read(&request.head, STRANGER_BYTES_MAX) {
            Ok(join) => self.join(&join).await,
            Err(refused) => Err(refused),
        };
        let outcome = outcome.and_then(|(granted, map)| Ok((granted, encoded(&map)?)));
        match outcome {
            Ok((granted, map)) => certificate_reply(Rpc::Join, Ok(granted), map),
            Err(refused) => certificate_reply(Rpc::Join, Err(refused), Bytes::new()),
        }
    }
}

fn check_cluster(ours: ClusterId, caller: &NodeIdentity) -> Result<(), Refused> {
    if caller.cluster != ours {
        return Err(Refused(RefusalCause::WrongCluster, format!("this is cluster {ours}")));
    }
    Ok(())
}

fn announced(announce: &AnnounceRequest) -> Result<Vec<Announced>, Refused> {
    if announce.backends.len() > BACKENDS_MAX {
        return Err(malformed(format!("{} backends, {BACKENDS_MAX} allowed", announce.backends.len())));
    }
    let checked = |backend: &holdfast_proto::membership::AnnouncedBackend| {
        if backend.location.len() > LOCATION_BYTES_MAX {
            return Err(malformed("a backend's location is too long"));
        }
        let id = backend.backend_id().ok_or_else(|| malformed("a backend's id has 16 bytes"))?;
        Ok(Announced { id, location: backend.location.clone(), fresh: backend.fresh })
    };
    announce.backends.iter().map(checked).collect()
}

fn read<M: Message + Default>(head: &Bytes, bytes_max: usize) -> Result<M, Refused> {
    if head.len() > bytes_max {
        return Err(malformed(format!("a request of {} bytes, {bytes_max} allowed", head.len())));
    }
    M::decode(head.clone()).map_err(|e| malformed(e.to_string()))
}

fn encoded(map: &ClusterMap) -> Result<Bytes, Refused> {
    let json = serde_json::to_vec(map).map_err(|e| Refused(RefusalCause::Unavailable, e.to_string()))?;
    Ok(json.into())
}

fn counted(rpc: Rpc, refused: Refused) -> Refusal {
    metrics::counter!("holdfast_membership_refusals_total", "call" => rpc.name(), "cause" => refused.0.name())
        .increment(1);
    tracing::warn!(call = rpc.name(), cause = refused.0.name(), reason = ?refused.1, "a call on the control plane was refused");
    refused.into()
}

fn certificate_reply(rpc: Rpc, outcome: Result<Granted, Refused>, body: Bytes) -> Frame {
    let outcome = match outcome {
        Ok(granted) => CertificateOutcome::Granted(granted),
        Err(refused) => CertificateOutcome::Refused(counted(rpc, refused)),
    };
    framed(&CertificateReply { outcome: Some(outcome) }, body)
}

fn framed(reply: &impl Message, body: Bytes) -> Frame {
    let body = if body.is_empty() { Vec::new() } else { vec![body] };
    Frame { head: reply.encode_to_vec().into(), body }
}

#[async_trait]
impl Service for MembershipService {
    async fn serve(&self, call: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
        let Some(request) = channel.receive().await? else {
            return Err(TransportError::Malformed { reason: format!("{} without a request", call.rpc.name()) });
        };
        let reply = self.answer(&call, &request).await?;
        channel.send(reply).await?;
        channel.finish().await
    }
}
