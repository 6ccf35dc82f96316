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
use axum::http::{Method, Request, StatusCode, header};
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
use tokio::time::{Instant, sleep};

/// Largest answer: a status page of a thousand backends is half a MiB.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Longest a forwarded call may take; the receiver has its own, shorter limit on the client's side.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(105);
/// How long a request that was certainly not carried out, or only reads, is passed on anew: an election and the moment in
/// which its result gets around.
const LEADER_WAIT: Duration = Duration::from_secs(5);
/// Wait between two tries.
const LEADER_POLL: Duration = Duration::from_millis(200);

/// What passing on takes; none on a coordinator that has no others.
#[derive(Clone)]
pub struct Forwarding {
    /// Who leads.
    pub leader: LeaderView,
    /// The way to other coordinators.
    pub transport: Arc<dyn Transport>,
}

/// Why nobody has answered.
struct NoAnswer {
    failure: AdminFailure,
    /// It is certain that nothing was done.
    is_undone: bool,
}

impl Forwarding {
    /// Passes a request on if another coordinator must answer it; `None` if this one must. Leadership may be moving:
    /// what was certainly not done, or changes nothing, is tried again for some seconds.
    pub(super) async fn forward(&self, request: AdminForward) -> Option<Response> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            let NoAnswer { failure, is_undone } = match (self.leader)() {
                Leader::Here => return None,
                Leader::Node(node) => match self.send(node, &request).await {
                    Ok(response) => return Some(response),
                    Err(no_answer) => no_answer,
                },
                Leader::Unknown => NoAnswer { failure: no_leader(), is_undone: true },
            };
            let is_harmless = is_undone || request.method == Method::GET.as_str();
            if !is_harmless || Instant::now() >= deadline {
                return Some(failure.into_response());
            }
            sleep(LEADER_POLL).await;
        }
    }

    async fn send(&self, node: NodeId, request: &AdminForward) -> Result<Response, NoAnswer> {
        let unreachable = |reason: String| NoAnswer {
            failure: AdminFailure::new(
                Code::NoLeader,
                ErrorKind::Retry,
                format!("ask the leading coordinator: {reason}"),
            )
            .or_try("look at `holdfast status` before trying again: what was asked may have been done"),
            is_undone: false,
        };
        let options = CallOptions { deadline: FORWARD_TIMEOUT, epoch: None, request_id: 0 };
        let frame = Frame::head_only(request.encode_to_vec().into());
        let reply = self.transport.call(node, Rpc::AdminForward, frame, options).await;
        let reply = reply.map_err(|e| unreachable(e.to_string()))?;
        let answer = AdminForwarded::decode(reply.head).map_err(|e| unreachable(e.to_string()))?;
        if answer.is_elsewhere {
            return Err(NoAnswer { failure: leader_changed(), is_undone: true });
        }
        let status = u16::try_from(answer.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.ok_or_else(|| unreachable("its answer has no status".to_owned()))?;
        Ok((status, [(header::CONTENT_TYPE, "application/json")], Body::from(answer.body)).into_response())
    }
}

fn no_leader() -> AdminFailure {
    AdminFailure::new(Code::NoLeader, ErrorKind::Retry, "no coordinator leads just now")
        .or_try("again in some seconds; if it stays so, too few coordinators are running")
}

fn leader_changed() -> AdminFailure {
    AdminFailure::new(Code::NoLeader, ErrorKind::Retry, "the leading coordinator has changed").or_try("again")
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
        Ok(_) if !leads => leader_changed().into_response(),
        Ok(request) => match TowerToHyperService::new(router).call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Err(failure) => failure.into_response(),
    };
    let status = u32::from(response.status().as_u16());
    match axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await {
        Ok(body) => AdminForwarded { status, body, is_elsewhere: !leads },
        Err(error) => {
            tracing::error!(%error, "an administrative answer cannot be passed on");
            AdminForwarded { status: 500, body: Bytes::new(), is_elsewhere: false }
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

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::ClusterId;
    use holdfast_proto::cluster::{NodeIdentity, Roles};
    use holdfast_transport::{LocalNetwork, LocalOptions};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// What the leader makes of the first call; the second is answered.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum First {
        Elsewhere,
        Broken,
        Answered,
    }

    struct Peer {
        first: First,
        calls: AtomicU32,
    }

    #[async_trait]
    impl Service for Peer {
        async fn serve(&self, _: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
            channel.receive().await?;
            let is_first = self.calls.fetch_add(1, Ordering::Relaxed) == 0;
            if is_first && self.first == First::Broken {
                return Err(TransportError::Cancelled);
            }
            let is_elsewhere = is_first && self.first == First::Elsewhere;
            let answer = AdminForwarded { status: 200, body: Bytes::new(), is_elsewhere };
            channel.send(Frame::head_only(answer.encode_to_vec().into())).await?;
            channel.finish().await
        }
    }

    /// Status of the answer, and how many calls it took.
    async fn forward(method: &str, first: First, leader: Leader) -> (u16, u32) {
        let network = LocalNetwork::new(LocalOptions::default());
        let peer = Arc::new(Peer { first, calls: AtomicU32::new(0) });
        let identity = |node| NodeIdentity {
            cluster: ClusterId::default(),
            node: NodeId(node),
            roles: Roles::BOTH,
            region: "r".into(),
            zone: "z".into(),
        };
        let transport = Arc::new(network.join(identity(1), peer.clone()));
        network.join(identity(2), peer.clone());
        let forwarding = Forwarding { leader: Arc::new(move || leader), transport };
        let request = AdminForward { method: method.to_owned(), target: "/".to_owned(), ..AdminForward::default() };
        let answer = forwarding.forward(request).await.unwrap();
        (answer.status().as_u16(), peer.calls.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_done_or_only_reads_is_passed_on_anew() {
        let leader = Leader::Node(NodeId(2));
        assert_eq!(forward("GET", First::Answered, leader).await, (200, 1));
        assert_eq!(forward("GET", First::Broken, leader).await, (200, 2));
        assert_eq!(forward("POST", First::Elsewhere, leader).await, (200, 2));
        assert_eq!(forward("POST", First::Broken, leader).await, (503, 1), "it may have been done");
        let begun = Instant::now();
        assert_eq!(forward("GET", First::Answered, Leader::Unknown).await, (503, 0));
        assert!(begun.elapsed() >= LEADER_WAIT && begun.elapsed() < LEADER_WAIT * 2, "bounded");
    }
}
