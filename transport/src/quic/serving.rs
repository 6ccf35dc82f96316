//! The server's side of a call: judges the opening, runs the service, and drops it when nobody waits any more.
//!
//! **Invariant:** a service is not called before `judge` has allowed it (`every_rpc_by_every_caller_over_quic`).

use super::causes;
use super::inbound::PeerLimits;
use super::meters::{PeerMeters, plane_name};
use super::settings::{LARGE_FRAME_BYTES, OPENING_MAX, STRANGER_FRAME_BYTES_MAX};
use super::stream::{EndCode, Stream, StreamEnd};
use super::wire::{Answer, OPENING_BYTES, Opening};
use crate::channel::{Call, Caller, Channel, Frame, Service};
use crate::error::TransportError;
use async_trait::async_trait;
use holdfast_proto::NodeId;
use holdfast_proto::rpc::{Plane, Rpc};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::time::{Instant, sleep_until, timeout};

/// What all calls of one connection have in common.
pub(super) struct Serving {
    pub(super) plane: Plane,
    pub(super) caller: Caller,
    pub(super) limits: Arc<PeerLimits>,
    pub(super) service: Arc<dyn Service>,
}

impl Serving {
    /// Number of the node that calls; 0 stands for a stranger.
    fn peer(&self) -> NodeId {
        match &self.caller {
            Caller::Stranger => NodeId(0),
            Caller::Node(identity) => identity.node,
        }
    }

    /// Serves the call of one stream to its end.
    pub(super) async fn serve(self: Arc<Self>, streams: (quinn::SendStream, quinn::RecvStream)) {
        let meters = &self.limits.meters;
        let mut stream = Stream::new(streams, Arc::clone(meters));
        let opening = match self.read_opening(&mut stream).await {
            Ok(opening) => opening,
            Err(answer) => return self.refuse(stream, answer).await,
        };
        let rpc = match judge(self.plane, &self.caller, &opening) {
            Ok(rpc) => rpc,
            Err(reason) => return self.refuse(stream, Answer::Refused(reason)).await,
        };
        let Ok(_permit) = self.limits.calls.try_acquire() else {
            return self.refuse(stream, Answer::Busy("too many calls under way".into())).await;
        };
        meters.calls.increment(1);
        meters.under_way.increment(1.0);
        let _counted = UnderWay(Arc::clone(meters));
        let deadline = Instant::now() + opening.deadline;
        let call = Call {
            caller: self.caller.clone(),
            rpc,
            epoch: opening.epoch,
            request_id: opening.request_id,
            deadline: opening.deadline,
        };
        let caller_gone = stream.reader_gone();
        let end = Arc::new(AtomicU32::new(EndCode::Cancelled as u32));
        stream.put_first(&Answer::Accepted.encode());
        let channel = ServerChannel {
            peer: self.peer(),
            frame_bytes_max: if self.caller == Caller::Stranger { STRANGER_FRAME_BYTES_MAX } else { usize::MAX },
            limits: Arc::clone(&self.limits),
            end: Arc::clone(&end),
            stream,
        };
        // Pinned here, so that it is dropped after `end` says why.
        let mut served = self.service.serve(call, Box::new(channel));
        let failure = tokio::select! {
            result = &mut served => result.err(),
            () = caller_gone => Some(TransportError::Cancelled),
            () = sleep_until(deadline) => {
                end.store(EndCode::Deadline as u32, Ordering::Relaxed);
                Some(TransportError::Timeout { peer: self.peer() })
            }
        };
        if let Some(error) = failure {
            let error = meters.failed(error);
            tracing::debug!(
                plane = plane_name(self.plane),
                peer = %self.peer(),
                rpc = rpc.name(),
                request_id = %format_args!("{:032x}", opening.request_id),
                %error,
                "a call ended early"
            );
        }
    }

    async fn read_opening(&self, stream: &mut Stream) -> Result<Opening, Answer> {
        match timeout(OPENING_MAX, stream.receive_fixed::<OPENING_BYTES>()).await {
            Ok(Ok(Some(bytes))) => Opening::decode(&bytes).map_err(|e| Answer::Refused(e.0)),
            Ok(Ok(None)) => Err(Answer::Refused("a stream without a call".into())),
            Ok(Err(end)) => Err(Answer::Refused(causes::of_stream(self.peer(), end).to_string())),
            Err(_) => Err(Answer::Refused("the opening of a call did not come in time".into())),
        }
    }

    /// Says no, and why; the caller need not send on.
    async fn refuse(&self, mut stream: Stream, answer: Answer) {
        let (code, error) = match &answer {
            Answer::Busy(_) => (EndCode::Busy, TransportError::Busy { peer: self.peer() }),
            Answer::Refused(reason) => {
                tracing::warn!(plane = plane_name(self.plane), peer = %self.peer(), reason, "refused a call");
                (EndCode::Refused, TransportError::Refused { peer: self.peer(), reason: reason.clone() })
            }
            Answer::Accepted => return,
        };
        self.limits.meters.failed(error);
        stream.put_first(&answer.encode());
        // A caller that is gone need not know.
        let _ = timeout(OPENING_MAX, stream.finish()).await;
        stream.abandon(code);
    }
}

/// Whether the caller may make this call here; the reason if not.
fn judge(plane: Plane, caller: &Caller, opening: &Opening) -> Result<Rpc, String> {
    let Some(rpc) = Rpc::from_number(opening.rpc) else {
        return Err(format!("there is no RPC {} in wire version {}", opening.rpc, opening.version));
    };
    if rpc.plane() != plane {
        return Err(format!(
            "{} is served on the {} plane, not on the {} plane",
            rpc.name(),
            plane_name(rpc.plane()),
            plane_name(plane)
        ));
    }
    if !rpc.may_be_called_by(caller.kind()) {
        return Err(match caller {
            Caller::Stranger => format!("{} needs a certificate of this cluster", rpc.name()),
            Caller::Node(identity) => {
                format!("{} may not be called by node {} ({})", rpc.name(), identity.node, identity.roles)
            }
        });
    }
    Ok(rpc)
}

/// Counted as under way until dropped.
struct UnderWay(Arc<PeerMeters>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.decrement(1.0);
    }
}

/// A call under way, seen by its service.
struct ServerChannel {
    peer: NodeId,
    frame_bytes_max: usize,
    limits: Arc<PeerLimits>,
    /// Why the stream ends if it is dropped unfinished.
    end: Arc<AtomicU32>,
    stream: Stream,
}

impl ServerChannel {
    fn failed(&mut self, end: StreamEnd, code: EndCode) -> TransportError {
        self.stream.abandon(code);
        match end {
            // Whatever ended the caller's interest, to its service it is one thing.
            StreamEnd::Stopped(_) | StreamEnd::Reset(_) => TransportError::Cancelled,
            end => causes::of_stream(self.peer, end),
        }
    }
}

#[async_trait]
impl Channel for ServerChannel {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.stream.send(frame).await.map_err(|end| self.failed(end, EndCode::Cancelled))
    }

    async fn finish(&mut self) -> Result<(), TransportError> {
        self.stream.finish().await.map_err(|end| self.failed(end, EndCode::Cancelled))
    }

    async fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        let (limits, bytes_max) = (&self.limits, self.frame_bytes_max);
        let mut too_much = false;
        let receiving = self.stream.receive(|claimed| {
            if claimed > bytes_max {
                return Err(StreamEnd::Malformed(format!("a frame of {claimed} bytes, {bytes_max} are allowed")));
            }
            if claimed <= LARGE_FRAME_BYTES {
                return Ok(None);
            }
            limits.admit_frame(claimed).map(Some).ok_or_else(|| {
                too_much = true;
                StreamEnd::Stopped(EndCode::Busy)
            })
        });
        let received = receiving.await;
        match received {
            Ok(frame) => Ok(frame),
            Err(_) if too_much => {
                self.stream.abandon(EndCode::Busy);
                Err(TransportError::Busy { peer: self.peer })
            }
            Err(end) => {
                let code = if matches!(end, StreamEnd::Malformed(_)) { EndCode::Malformed } else { EndCode::Cancelled };
                Err(self.failed(end, code))
            }
        }
    }
}

impl Drop for ServerChannel {
    fn drop(&mut self) {
        self.stream.abandon(EndCode::from_wire(self.end.load(Ordering::Relaxed).into()));
    }
}
