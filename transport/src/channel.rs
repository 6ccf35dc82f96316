//! The one interface of every transport: frames go both ways over a channel that one call opens.

use crate::error::TransportError;
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_proto::cluster::NodeIdentity;
use holdfast_proto::rpc::{CallerKind, Rpc};
use holdfast_proto::{Epoch, NodeId};
use std::sync::Arc;
use std::time::Duration;

/// One message of a channel: a small head (an encoded message) and bulk bytes that are not copied on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// An encoded message; at most `Frame::HEAD_BYTES_MAX`.
    pub head: Bytes,
    /// Bulk bytes in order; together at most `Frame::BODY_BYTES_MAX`. The receiver gets the same bytes, not always in
    /// the same pieces.
    pub body: Vec<Bytes>,
}

impl Frame {
    /// Largest head: a page of 1000 keys of a listing with all their attributes stays well below.
    pub const HEAD_BYTES_MAX: usize = 4 << 20;
    /// Largest body: a window of cells (2 MiB), or a batch of log entries with inline objects.
    pub const BODY_BYTES_MAX: usize = 16 << 20;

    /// A frame without bulk bytes.
    pub fn head_only(head: Bytes) -> Self {
        Self { head, body: Vec::new() }
    }

    /// Bytes of the body.
    pub fn body_bytes(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// Refuses a frame beyond the limits.
    pub fn check(&self) -> Result<(), TransportError> {
        let check = |what: &str, bytes: usize, limit: usize| match bytes <= limit {
            true => Ok(()),
            false => Err(TransportError::Malformed { reason: format!("a {what} of {bytes} bytes, {limit} allowed") }),
        };
        check("head", self.head.len(), Self::HEAD_BYTES_MAX)?;
        check("body", self.body_bytes(), Self::BODY_BYTES_MAX)
    }
}

/// What goes with a call beside its first frame.
#[derive(Clone, Copy, Debug)]
pub struct CallOptions {
    /// How long the whole call may take, streams included.
    pub deadline: Duration,
    /// The epoch of the cluster map the caller acts by; nodes fence what is older than they allow. `None` for calls that
    /// do not depend on the map.
    pub epoch: Option<Epoch>,
    /// Names the client's request in the logs of every node it touches.
    pub request_id: u128,
}

/// Who called, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody without a certificate of this cluster.
    Stranger,
    /// A node of this cluster.
    Node(Arc<NodeIdentity>),
}

impl Caller {
    /// What the role matrix asks for.
    pub fn kind(&self) -> CallerKind {
        match self {
            Self::Stranger => CallerKind::Stranger,
            Self::Node(identity) => CallerKind::Node(identity.roles),
        }
    }
}

/// A call as its service sees it. The role matrix allows it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks.
    pub caller: Caller,
    /// What.
    pub rpc: Rpc,
    /// As in `CallOptions`.
    pub epoch: Option<Epoch>,
    /// As in `CallOptions`.
    pub request_id: u128,
    /// What is left of the deadline.
    pub deadline: Duration,
}

/// Frames to and from the other side of one call. Dropped before both directions were finished, it cancels: the other
/// side's next `send` or `receive` fails with `Cancelled`, and what the peer was doing for it is dropped. A direction
/// that was finished stays so: a service that refuses a stream midway sends its reply, finishes and returns; the caller's
/// `send` then fails with `Cancelled`, and its `receive` gives the reply.
#[async_trait]
pub trait Channel: Send {
    /// Sends a frame; waits when the other side falls behind, so a sender holds a bounded amount. The frame may not have
    /// arrived when this returns.
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError>;
    /// Says that no more frames will be sent. Not a proof of delivery: wait for the peer's reply.
    async fn finish(&mut self) -> Result<(), TransportError>;
    /// The next frame; `None` once the other side has finished.
    async fn receive(&mut self) -> Result<Option<Frame>, TransportError>;
}

/// Serves calls on a node.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Serves one call: receives its first frame and what follows from `channel`, replies over it, finishes it. Dropped
    /// when the caller cancels, goes away, or the deadline passes; so what must be carried to its end belongs in a task
    /// of its own. An error returned here is logged; the caller sees the channel cancelled.
    async fn serve(&self, call: Call, channel: Box<dyn Channel>) -> Result<(), TransportError>;
}

/// Reaches other nodes. A call to the node's own id is served in process.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Opens a channel for one call and sends its first frame.
    async fn open(
        &self,
        to: NodeId,
        rpc: Rpc,
        first: Frame,
        options: CallOptions,
    ) -> Result<Box<dyn Channel>, TransportError>;

    /// One frame there, one frame back. Waits for the end of the reply too: a channel dropped before would cancel what
    /// the service still does.
    async fn call(&self, to: NodeId, rpc: Rpc, request: Frame, options: CallOptions) -> Result<Frame, TransportError> {
        let mut channel = self.open(to, rpc, request, options).await?;
        channel.finish().await?;
        let reply = channel.receive().await?.ok_or(TransportError::Cancelled)?;
        match channel.receive().await? {
            None => Ok(reply),
            Some(_) => Err(TransportError::Malformed { reason: "more than one frame in a reply".to_owned() }),
        }
    }
}
