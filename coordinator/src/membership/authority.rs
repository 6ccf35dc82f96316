//! The CA as the root group keeps it, the founding of a cluster by its first node, and the making of join tokens.

use super::error::MembershipError;
use super::nodes::{change, with_node};
use crate::metadata::MembershipMetadata;
use holdfast_proto::cluster::{NodeAddresses, NodeIdentity, NodeIntent, NodeRecord, Role, Roles};
use holdfast_proto::membership::AuthorityRow;
use holdfast_proto::{ClusterId, NodeId};
use holdfast_trust::{
    CertificateRequest, ClusterAuthority, JoinToken, NodeCredentials, NodeKey, TokenId, TokenRecord, TokenScope,
    TokenSecret, TrustError, check_place, identity_uri,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::net::SocketAddr;

/// The CA that signs, and every root that is believed.
pub struct Authority {
    /// Signs.
    pub signing: ClusterAuthority,
    /// Believed: the signing one first, then those of an exchange that is under way.
    pub roots: Vec<CertificateDer<'static>>,
    /// Which CA this is, by the root group's count.
    pub generation: u64,
}

impl Authority {
    /// Reads the row. A CA of another cluster is refused.
    pub fn from_row(row: &AuthorityRow, cluster: ClusterId) -> Result<Self, MembershipError> {
        let signing = ClusterAuthority::from_pem(&row.certificate, &row.key)?;
        if signing.cluster() != cluster {
            return Err(TrustError::ForeignCluster { expected: cluster, found: signing.cluster() }.into());
        }
        let mut roots = vec![signing.certificate_der().clone()];
        for other in CertificateDer::pem_slice_iter(row.other_roots.as_bytes()) {
            let reason = |e: rustls::pki_types::pem::Error| e.to_string();
            roots.push(other.map_err(|e| TrustError::Malformed { what: "CA certificate", reason: reason(e) })?);
        }
        Ok(Self { signing, roots, generation: row.generation })
    }

    /// The CA of the cluster; an error if there is none.
    pub async fn load(metadata: &dyn MembershipMetadata, cluster: ClusterId) -> Result<Self, MembershipError> {
        let row = metadata.authority().await?.ok_or(MembershipError::NotFounded { missing: "the CA" })?;
        Self::from_row(&row, cluster)
    }
}

/// The CA of the cluster, made from `seed` (32 secret bytes from the operating system) if there is none. Of many who make
/// it at once, all get the one that was first.
pub async fn ensure_authority(
    metadata: &dyn MembershipMetadata,
    cluster: ClusterId,
    seed: &[u8; 32],
    now_ms: u64,
) -> Result<Authority, MembershipError> {
    if let Some(row) = metadata.authority().await? {
        return Authority::from_row(&row, cluster);
    }
    let made = ClusterAuthority::create(cluster, seed, now_ms)?;
    let row = AuthorityRow {
        generation: 1,
        certificate: made.certificate_pem(),
        key: made.key_pem(),
        other_roots: String::new(),
    };
    let row = metadata.authority_set(0, row).await?;
    tracing::info!(%cluster, fingerprint = %made.fingerprint(), "the cluster has a certificate authority");
    Authority::from_row(&row, cluster)
}

/// The node that makes a cluster of itself.
pub struct Founder<'a> {
    /// Its key.
    pub key: &'a NodeKey,
    /// What it does; it must be a coordinator.
    pub roles: Roles,
    /// Where it stands.
    pub region: String,
    /// Zone within the region.
    pub zone: String,
    /// Where it listens.
    pub addresses: NodeAddresses,
    /// Secret of the CA, if it has to be made.
    pub authority_seed: [u8; 32],
    /// The time.
    pub now_ms: u64,
}

/// Makes node 1 the first of its cluster and gives it a certificate: the CA is made if there is none, node 1 is put into
/// the map if it has none. To be called by node 1 only, on its own metadata; again after a crash midway, or when it has
/// lost its certificate. The identity is that of the map, whatever is asked for, once the map has node 1.
pub async fn found(
    metadata: &dyn MembershipMetadata,
    founder: Founder<'_>,
) -> Result<NodeCredentials, MembershipError> {
    check_place(&founder.region)?;
    check_place(&founder.zone)?;
    if !founder.roles.has(Role::Coordinator) {
        return Err(TrustError::NotACoordinator { node: NodeId::FIRST }.into());
    }
    let map = metadata.cluster_map().await?.ok_or(MembershipError::NotFounded { missing: "the cluster map" })?;
    let authority = ensure_authority(metadata, map.cluster, &founder.authority_seed, founder.now_ms).await?;
    let record = NodeRecord {
        id: NodeId::FIRST,
        name: node_label(NodeId::FIRST),
        roles: founder.roles,
        region: founder.region,
        zone: founder.zone,
        addresses: founder.addresses,
        intent: NodeIntent::Active,
        joined_ms: founder.now_ms,
    };
    let map = change(metadata, founder.now_ms, |map| with_node(map, &record)).await?;
    let identity = identity_in(&map, NodeId::FIRST)?;
    let request = CertificateRequest::from_der(&founder.key.request()?)?;
    let certificate = authority.signing.sign(&request, &identity, founder.now_ms)?;
    let key = NodeKey::from_pem(&founder.key.to_pem())?;
    Ok(NodeCredentials::new(key, certificate, authority.roots)?)
}

/// Short name of a node for people.
pub(super) fn node_label(node: NodeId) -> String {
    format!("n{node}")
}

/// What a certificate of a node says: what the map says.
pub(super) fn identity_in(map: &crate::metadata::ClusterMap, node: NodeId) -> Result<NodeIdentity, MembershipError> {
    let record = super::nodes::member(map, node)?;
    let identity = NodeIdentity {
        cluster: map.cluster,
        node,
        roles: record.roles,
        region: record.region.clone(),
        zone: record.zone.clone(),
    };
    identity_uri(&identity)?;
    Ok(identity)
}

/// A join token to be made. Id and secret are drawn by the caller from the operating system's generator.
pub struct NewToken {
    /// Its name: 16 random bytes.
    pub id: TokenId,
    /// What admits: 32 random bytes.
    pub secret: TokenSecret,
    /// What it is bound to.
    pub scope: TokenScope,
    /// How long it admits.
    pub ttl_ms: u64,
    /// Control addresses of coordinators, 1..=8.
    pub addresses: Vec<SocketAddr>,
    /// The time.
    pub now_ms: u64,
}

/// Makes a join token; when this returns it admits a node. The cluster keeps the hash of its secret only.
pub async fn create_token(metadata: &dyn MembershipMetadata, new: NewToken) -> Result<JoinToken, MembershipError> {
    let map = metadata.cluster_map().await?.ok_or(MembershipError::NotFounded { missing: "the cluster map" })?;
    let authority = Authority::load(metadata, map.cluster).await?;
    let token = JoinToken {
        addresses: new.addresses,
        root: authority.signing.fingerprint(),
        cluster: map.cluster,
        id: new.id,
        secret: new.secret,
        expires_ms: new.now_ms.saturating_add(new.ttl_ms),
    };
    token.reveal()?;
    let record = TokenRecord {
        id: token.id,
        secret_hash: token.secret.hash(),
        scope: new.scope,
        created_ms: new.now_ms,
        expires_ms: token.expires_ms,
        used_by: None,
    };
    record.check()?;
    metadata.token_create(record).await?;
    Ok(token)
}
