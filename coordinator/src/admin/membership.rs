//! Join tokens and nodes, for the operator.
//!
//! Invariant: a token's text leaves the server once, in the answer that creates it.

use super::{AdminFailure, AdminResult, AdminState, Code, Shared, decode, finish};
use crate::health::{HealthWatch, NodeState};
use crate::layout::Layout;
use crate::leader::{Leader, LeaderView};
use crate::membership::{MembershipError, NewToken, create_token};
use crate::metadata::MembershipMetadata;
use crate::rebalance::slots_of_node;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use holdfast_proto::admin::{NodeView, TokenCreate, TokenView};
use holdfast_proto::cluster::{NodeIntent, NodeRecord, Role};
use holdfast_proto::node::{BackendStatus, NodeClient};
use holdfast_proto::{ErrorKind, NodeId};
use holdfast_trust::{TokenId, TokenRecord, TokenScope, TokenSecret};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Life of a token that names none.
const TTL_SECONDS: u64 = 3600;
/// Longest life: a token that lies about for longer is a key under the mat.
const TTL_SECONDS_MAX: u64 = 30 * 86_400;
/// Addresses of coordinators in a token.
const ADDRESSES_MAX: usize = 8;

/// Tells who votes in each metadata group.
pub type VotersView = Arc<dyn Fn() -> BTreeMap<u32, BTreeSet<NodeId>> + Send + Sync>;

/// What the endpoints of a cluster's members need.
pub struct MembershipParts {
    /// Tokens and the CA.
    pub metadata: Arc<dyn MembershipMetadata>,
    /// How the other nodes are.
    pub health: Arc<HealthWatch>,
    /// This node.
    pub own: NodeId,
    /// The cluster map.
    pub layout: Layout,
    /// Who leads.
    pub leader: LeaderView,
    /// Who votes in each metadata group; 0 is the root group.
    pub voters: VotersView,
    /// Every backend.
    pub node: Arc<dyn NodeClient>,
}

impl From<MembershipError> for AdminFailure {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::Metadata(error) => error.into(),
            error => Self::new(Code::MembershipRefused, error.kind(), error.to_string()),
        }
    }
}

pub(super) fn parts(state: &AdminState) -> AdminResult<&MembershipParts> {
    state.membership.as_ref().ok_or_else(|| {
        AdminFailure::new(Code::MembershipRefused, ErrorKind::Conflict, "this server listens to no other nodes")
            .or_try("start it with --cluster-listen HOST[:PORT]")
    })
}

pub(crate) async fn token_create(State(state): Shared, body: Bytes) -> AdminResult<Json<TokenView>> {
    let create: TokenCreate = decode(&body)?;
    let ttl_seconds = create.ttl_seconds.unwrap_or(TTL_SECONDS);
    if ttl_seconds == 0 || ttl_seconds > TTL_SECONDS_MAX {
        let message = format!("a token lives 1 s to {} days", TTL_SECONDS_MAX / 86_400);
        return Err(AdminFailure::new(Code::MalformedRequest, ErrorKind::Invalid, message));
    }
    let membership = parts(&state)?;
    let coordinators = membership.layout.current().nodes.clone();
    let works = |node: &&NodeRecord| node.roles.has(Role::Coordinator) && node.intent == NodeIntent::Active;
    let addresses = coordinators.iter().filter(works).flat_map(|node| node.addresses.control.iter().copied());
    let new = NewToken {
        id: TokenId(rand::rng().random()),
        secret: TokenSecret(rand::rng().random()),
        scope: TokenScope { roles: create.roles, region: create.region, zone: create.zone },
        ttl_ms: ttl_seconds.saturating_mul(1000),
        addresses: addresses.take(ADDRESSES_MAX).collect(),
        now_ms: (state.clock)(),
    };
    let scope = new.scope.clone();
    let created_ms = new.now_ms;
    let metadata = membership.metadata.clone();
    let token = finish(async move { create_token(metadata.as_ref(), new).await.map_err(AdminFailure::from) }).await?;
    let id = hex::encode(token.id.0);
    tracing::info!(id, "join token created");
    let text = token.reveal().map_err(|e| AdminFailure::from(MembershipError::from(e)))?;
    let TokenScope { roles, region, zone } = scope;
    let expires_ms = token.expires_ms;
    Ok(Json(TokenView { id, token: Some(text), roles, region, zone, created_ms, expires_ms, used_by: None }))
}

pub(crate) async fn token_list(State(state): Shared) -> AdminResult<Json<Vec<TokenView>>> {
    let tokens = parts(&state)?.metadata.token_list().await?;
    Ok(Json(tokens.into_iter().map(view).collect()))
}

pub(crate) async fn token_revoke(State(state): Shared, Path(id): Path<String>) -> AdminResult<Json<TokenView>> {
    let unknown = || AdminFailure::new(Code::NoSuchToken, ErrorKind::NotFound, "no join token of this id");
    let bytes = hex::decode(&id).ok().and_then(|bytes| TokenId::from_slice(&bytes));
    let token = bytes.ok_or_else(unknown)?;
    let metadata = parts(&state)?.metadata.clone();
    let record = metadata.token(token).await?.ok_or_else(unknown)?;
    tracing::info!(id, "join token revoked");
    finish(async move { metadata.token_revoke(token).await.map_err(AdminFailure::from) }).await?;
    Ok(Json(view(record)))
}

fn view(record: TokenRecord) -> TokenView {
    let TokenScope { roles, region, zone } = record.scope;
    TokenView {
        id: hex::encode(record.id.0),
        token: None,
        roles,
        region,
        zone,
        created_ms: record.created_ms,
        expires_ms: record.expires_ms,
        used_by: record.used_by.map(|used| used.node),
    }
}

pub(crate) async fn node_list(State(state): Shared) -> AdminResult<Json<Vec<NodeView>>> {
    let membership = parts(&state)?;
    let map = membership.layout.current();
    let health = membership.health.report();
    let leader = match (membership.leader)() {
        Leader::Here => Some(membership.own),
        Leader::Node(node) => Some(node),
        Leader::Unknown => None,
    };
    let voters = (membership.voters)().remove(&0).unwrap_or_default();
    let statuses = membership.node.backends().await;
    let nodes = map.nodes.iter().map(|record| {
        let of_node: Vec<&BackendStatus> = (map.backends.iter().filter(|backend| backend.node == record.id))
            .filter_map(|backend| statuses.iter().find(|status| status.id == backend.id))
            .collect();
        let offline = of_node.iter().filter(|status| !status.health.can_write()).count();
        let known = health.get(&record.id);
        let state = match (record.intent, known.map(|health| health.state)) {
            (NodeIntent::Removed, _) => "removed",
            _ if record.id == membership.own => "up",
            (_, Some(NodeState::Up)) => "up",
            (_, Some(NodeState::Suspect)) => "suspect",
            (_, Some(NodeState::Returned)) => "returned",
            (_, Some(NodeState::Lost) | None) => "lost",
        };
        NodeView {
            record: record.clone(),
            state: state.to_owned(),
            is_leader: leader == Some(record.id),
            is_voter: voters.contains(&record.id),
            is_slow: known.is_some_and(|health| health.is_slow),
            backends: count(of_node.len()),
            backends_offline: count(offline),
            capacity_bytes: of_node.iter().map(|status| status.capacity_bytes).sum(),
            pg_slots: count(slots_of_node(&map, record.id)),
            used_bytes: of_node.iter().map(|status| status.used_bytes).sum(),
        }
    });
    Ok(Json(nodes.collect()))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
