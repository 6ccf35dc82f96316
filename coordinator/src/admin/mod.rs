//! The administration API: JSON over HTTP on a port of its own, under `/v1`, for the root key only; health and metrics
//! beside it, open.
//!
//! Touches the world: sockets, the clock, spawned tasks. Not here: what an operation does (`operations` says what is
//! asked of whom). Invariant: nothing under `/v1` runs before `auth` has let the request pass, and a change that was
//! begun is finished even when its client goes away.

pub mod codes;
pub mod forward;
pub mod metrics;
pub mod operations;
pub mod serve;

mod auth;
mod buckets;
mod cluster;
#[cfg(test)]
pub(crate) mod fake;
mod faults;
mod health;
mod keys;
mod layout;
mod layout_operations;
mod membership;
mod nodes;
mod quorum;
mod reply;

pub use codes::Code;
pub use faults::{FaultParts, FaultStation};
pub use forward::{ForwardService, Forwarding};
pub use keys::{GeneratedKey, check_access_key, check_secret_key, generate_key};
pub use layout_operations::LayoutOperations;
pub use membership::{MembershipParts, VotersView};
pub use operations::{AdminFailure, AdminOperations, AdminResult};
pub use serve::serve;

use crate::metadata::Metadata;
use crate::surroundings::Clock;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Router};
use holdfast_proto::ErrorKind;
use holdfast_proto::node::NodeClient;
use holdfast_proto::peer_rpc::AdminForward;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Largest request body: the largest valid one is a few names and a path.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Longest a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest a call may take, less than the client's own two minutes so that the client gets an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(110);

/// Renders the metrics in the Prometheus text format.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What the administration API is made of.
pub struct AdminParts {
    /// Repair, scrub, backends.
    pub operations: Arc<dyn AdminOperations>,
    /// Nodes, layout, policy, moves.
    pub layout: Arc<dyn LayoutOperations>,
    /// Buckets and keys.
    pub metadata: Arc<dyn Metadata>,
    /// What `/metrics` answers.
    pub render_metrics: RenderMetrics,
    /// The time.
    pub clock: Clock,
    /// Backends that must take writes before the store is ready: k+1, what a PUT needs.
    pub writable_backends_min: usize,
    /// How to reach the coordinator that answers; `None` where there is no other.
    pub forwarding: Option<Forwarding>,
    /// Every backend, for readiness.
    pub node: Arc<dyn NodeClient>,
    /// Tokens and nodes; `None` on a server that is alone.
    pub membership: Option<MembershipParts>,
    /// Faults that operators inject.
    pub faults: FaultParts,
}

/// Shared by every request.
pub(crate) struct AdminState {
    operations: Arc<dyn AdminOperations>,
    layout: Arc<dyn LayoutOperations>,
    metadata: Arc<dyn Metadata>,
    render_metrics: RenderMetrics,
    clock: Clock,
    readiness: health::ReadinessProbe,
    forwarding: Option<Forwarding>,
    node: Arc<dyn NodeClient>,
    membership: Option<MembershipParts>,
    faults: FaultParts,
    /// Held by the one scrape under way; the backends that have gauges.
    scrape: tokio::sync::Mutex<BTreeSet<String>>,
}

/// The root key's name, put into the request by authentication.
#[derive(Clone, Debug)]
pub(crate) struct Administrator {
    access_key: String,
}

/// All endpoints of the administration port, and what answers requests that other coordinators pass on.
pub fn router(parts: AdminParts) -> (Router, ForwardService) {
    metrics::describe();
    let state = Arc::new(AdminState {
        operations: parts.operations,
        layout: parts.layout,
        metadata: parts.metadata,
        render_metrics: parts.render_metrics,
        clock: parts.clock,
        readiness: health::ReadinessProbe::new(parts.writable_backends_min),
        forwarding: parts.forwarding,
        node: parts.node,
        membership: parts.membership,
        faults: parts.faults,
        scrape: tokio::sync::Mutex::default(),
    });
    let operations = Router::new()
        .route("/v1/status", get(cluster::status))
        .route("/v1/backends", get(cluster::backend_list).post(cluster::backend_add))
        .route("/v1/backends/{backend}", delete(cluster::backend_remove))
        .route("/v1/backends/{backend}/drain", post(cluster::backend_drain))
        .route("/v1/backends/{backend}/replace", post(cluster::backend_replace))
        .route("/v1/repair", get(cluster::repair_status))
        .route("/v1/repair/start", post(cluster::repair_start))
        .route("/v1/repair/pause", post(cluster::repair_pause))
        .route("/v1/repair/resume", post(cluster::repair_resume))
        .route("/v1/scrub", get(cluster::scrub_status))
        .route("/v1/scrub/start", post(cluster::scrub_start))
        .route("/v1/object", get(cluster::object_inspect))
        .route("/v1/keys", get(keys::list).post(keys::create))
        .route("/v1/keys/{access_key}", delete(keys::remove))
        .route("/v1/tokens", get(membership::token_list).post(membership::token_create))
        .route("/v1/tokens/{id}", delete(membership::token_revoke))
        .route("/v1/nodes", get(membership::node_list))
        .route("/v1/faults", get(faults::list).post(faults::add).delete(faults::clear_all))
        .route("/v1/faults/{id}", delete(faults::clear))
        .route("/v1/nodes/{node}/safe-to-stop", get(nodes::safe_to_stop))
        .route("/v1/nodes/{node}/drain", post(nodes::drain).delete(nodes::drain_cancel))
        .route("/v1/nodes/{node}/remove", post(nodes::remove))
        .route("/v1/nodes/{node}/replace", post(nodes::replace))
        .route("/v1/layout", get(layout::show))
        .route("/v1/layout/history", get(layout::history))
        .route("/v1/policies", get(layout::policy_list).post(layout::policy_create))
        .route("/v1/policies/plan", post(layout::policy_plan))
        .route("/v1/rebalance", get(layout::rebalance_status))
        .route("/v1/rebalance/plan", get(layout::rebalance_plan))
        .route("/v1/rebalance/apply", post(layout::rebalance_apply))
        .route("/v1/rebalance/pause", post(layout::rebalance_pause))
        .route("/v1/rebalance/resume", post(layout::rebalance_resume))
        .route("/v1/rebalance/undo", post(layout::rebalance_undo))
        .route("/v1/buckets", get(buckets::list))
        .route("/v1/buckets/{name}", put(buckets::create).delete(buckets::remove));
    let forwarded = ForwardService {
        router: operations.clone().fallback(no_such_endpoint).with_state(state.clone()),
        leader: state.forwarding.as_ref().map(|forwarding| forwarding.leader.clone()),
    };
    let authenticated = operations.route_layer(middleware::from_fn_with_state(state.clone(), admit));
    let router = Router::new()
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .merge(authenticated)
        .fallback(no_such_endpoint)
        .method_not_allowed_fallback(no_such_endpoint)
        .with_state(state);
    (router, forwarded)
}

/// The endpoints of a node that only keeps shards: health and metrics.
pub fn storage_node_router(render_metrics: RenderMetrics) -> Router {
    metrics::describe();
    Router::new()
        .route("/health/live", get(health::live))
        .route("/health/ready", get(|| async { "ready\n" }))
        .route("/metrics", get(move || async move { (render_metrics)() }))
        .fallback(no_such_endpoint)
}

async fn no_such_endpoint(request: Request) -> AdminFailure {
    let message = format!("no endpoint {} {}", request.method(), request.uri().path());
    AdminFailure::new(Code::NoSuchEndpoint, ErrorKind::NotFound, message)
        .or_try("compare `holdfast --version` on both machines")
}

/// Reads the body, lets only the root key pass, and bounds the time of what follows.
async fn admit(State(state): State<Arc<AdminState>>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(CALL_TIMEOUT, admitted(&state, request, next)).await {
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => failure.into_response(),
        Err(_) => AdminFailure::new(Code::TimedOut, ErrorKind::Retry, "the call took too long; it goes on unseen")
            .or_try("look at `holdfast status` before trying again")
            .into_response(),
    }
}

async fn admitted(state: &AdminState, request: Request, next: Next) -> Result<Response, AdminFailure> {
    let (mut parts, body) = request.into_parts();
    let body = match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return Err(unreadable_body(&error)),
        Err(_) => {
            return Err(AdminFailure::new(
                Code::MalformedRequest,
                ErrorKind::Invalid,
                "the request body stopped coming",
            ));
        }
    };
    let root = auth::authenticate(&parts, &body, |name| state.metadata.access_key(name), (state.clock)() / 1000)?;
    tracing::debug!(method = %parts.method, path = parts.uri.path(), "administration request");
    if let Some(forwarding) = &state.forwarding {
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let (method, access_key) = (parts.method.to_string(), root.access_key.clone());
        let request = AdminForward { method, target, body: body.clone(), access_key };
        if let Some(response) = forwarding.forward(request).await {
            return Ok(response);
        }
    }
    parts.extensions.insert(Administrator { access_key: root.access_key });
    Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
}

fn unreadable_body(error: &axum::Error) -> AdminFailure {
    let too_large = std::error::Error::source(error).is_some_and(|e| e.is::<http_body_util::LengthLimitError>());
    if too_large {
        let message = format!("the request body is larger than {BODY_BYTES_MAX} bytes");
        return AdminFailure::new(Code::TooLarge, ErrorKind::Invalid, message);
    }
    AdminFailure::new(Code::MalformedRequest, ErrorKind::Invalid, format!("read the request body: {error}"))
}

/// Carries out a change in a task of its own, so that it is finished even when the client goes away midway.
async fn finish<T: Send + 'static>(change: impl Future<Output = AdminResult<T>> + Send + 'static) -> AdminResult<T> {
    match tokio::spawn(change).await {
        Ok(result) => result,
        Err(error) => {
            tracing::error!(%error, "an administration call broke");
            Err(AdminFailure::new(Code::Internal, ErrorKind::Internal, "the call broke; the server's log says where"))
        }
    }
}

/// Reads a JSON body.
fn decode<T: serde::de::DeserializeOwned>(body: &[u8]) -> AdminResult<T> {
    serde_json::from_slice(body).map_err(|error| {
        AdminFailure::new(Code::MalformedRequest, ErrorKind::Invalid, format!("read the request: {error}"))
    })
}

type Shared = State<Arc<AdminState>>;
type Who = Extension<Administrator>;

#[cfg(test)]
mod tests;
