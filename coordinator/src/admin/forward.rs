//! Administrative requests that another coordinator must answer: the one that keeps the store whole answers them all,
//! the others check the signature and pass them on.
//!
//! Over the network goes what was asked, not the signature: the receiver trusts the sender's certificate, which says
//! that it is a coordinator.

use super::codes::Code;
use super::operations::AdminFailure;
use super::{Administrator, BODY_BYTES_MAX};
use crate::leader::{Leader, LeaderView};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_proto::peer_rpc::{AdminForward, AdminForwarded};
use holdfast_proto::rpc::Rpc;
use holdfast_proto::{ErrorKind, NodeId};
use holdfast_transport::{Call, CallOptions, Channel, Frame, Service, Transport, TransportError};
use hyper::service::Service as HyperService;
use hyper_util::service::TowerToHyperService;
use prost::Message;
use prost::bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Largest answer: a status page of a thousand backends is half a MiB.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Longest a forwarded call may take; the receiver has its own, shorter limit on the client's side.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(105);

/// What passing on takes; none on a coordinator that has no others.
#[derive(Clone)]
pub struct Forwarding {
    /// Who leads.
    pub leader: LeaderView,
    /// The way to other coordinators.
    pub transport: Arc<dyn Transport>,
}

impl Forwarding {
    /// Passes a request on if another coordinator must answer it; `None` if this one must.
    pub(super) async fn forward(&self, request: AdminForward) -> Option<Response> {
        match (self.leader)() {
            Leader::Here => None,
            Leader::Node(node) => Some(self.send(node, &request).await.unwrap_or_else(IntoResponse::into_response)),
            Leader::Unknown => Some(
                AdminFailure::new(Code::NoLeader, ErrorKind::Retry, "no coordinator leads just now")
                    .or_try("again in some seconds; if it stays so, too few coordinators are running")
                    .into_response(),
            ),
        }
    }

    async fn send(&self, node: NodeId, request: &AdminForward) -> Result<Response, AdminFailure> {
        let unreachable = |reason: String| {
            AdminFailure::new(Code::NoLeader, ErrorKind::Retry, format!("ask the leading coordinator: {reason}"))
                .or_try("look at `holdfast status` before trying again: what was asked may have been done")
        };
        let options = CallOptions { deadline: FORWARD_TIMEOUT, epoch: None, request_id: 0 };
        let frame = Frame::head_only(request.encode_to_vec().into());
        let reply = self.transport.call(node, Rpc::AdminForward, frame, options).await;
        let reply = reply.map_err(|e| unreachable(e.to_string()))?;
        let answer = AdminForwarded::decode(reply.head).map_err(|e| unreachable(e.to_string()))?;
        let status = u16::try_from(answer.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.ok_or_else(|| unreachable("its answer has no status".to_owned()))?;
        Ok((status, [(header::CONTENT_TYPE, "application/json")], Body::from(answer.body)).into_response())
    }
}

/// Answers requests that other coordinators pass on.
pub struct ForwardService {
    pub(super) router: Router,
    pub(super) leader: Option<LeaderView>,
}

#[async_trait]
impl Service for ForwardService {
    async fn serve(&self, call: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
        let malformed = |reason: String| TransportError::Malformed { reason };
        if call.rpc != Rpc::AdminForward {
            return Err(malformed(format!("{} is not served here", call.rpc.name())));
        }
        let frame = channel.receive().await?.ok_or(TransportError::Cancelled)?;
        let request = AdminForward::decode(frame.head).map_err(|e| malformed(e.to_string()))?;
        let (router, leader) = (self.router.clone(), self.leader.clone());
        // In a task of its own: a change that was begun is finished, whatever becomes of the caller.
        let answering = tokio::spawn(async move { answer(router, leader, request).await });
        let answer = answering.await.map_err(|e| malformed(format!("the call broke: {e}")))?;
        channel.send(Frame::head_only(answer.encode_to_vec().into())).await?;
        channel.finish().await
    }
}

async fn answer(router: Router, leader: Option<LeaderView>, request: AdminForward) -> AdminForwarded {
    // A request is passed on once: who does not lead any more says so instead of passing it further.
    let leads = leader.is_none_or(|leader| leader() == Leader::Here);
    let response = match built(request) {
        Ok(_) if !leads => AdminFailure::new(Code::NoLeader, ErrorKind::Retry, "the leading coordinator has changed")
            .or_try("again")
            .into_response(),
        Ok(request) => match TowerToHyperService::new(router).call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Err(failure) => failure.into_response(),
    };
    let status = u32::from(response.status().as_u16());
    match axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await {
        Ok(body) => AdminForwarded { status, body },
        Err(error) => {
            tracing::error!(%error, "an administrative answer cannot be passed on");
            AdminForwarded { status: 500, body: Bytes::new() }
        }
    }
}

fn built(request: AdminForward) -> Result<Request<Body>, AdminFailure> {
    let refused = |why: String| AdminFailure::new(Code::MalformedRequest, ErrorKind::Invalid, why);
    if request.body.len() > BODY_BYTES_MAX {
        return Err(AdminFailure::new(Code::TooLarge, ErrorKind::Invalid, "a forwarded request is too large"));
    }
    tracing::debug!(method = request.method, target = request.target, "forwarded administration request");
    Request::builder()
        .method(request.method.as_str())
        .uri(&request.target)
        .extension(Administrator { access_key: request.access_key })
        .body(Body::from(request.body))
        .map_err(|error| refused(format!("a forwarded request cannot be read: {error}")))
}
