//! Why a call between nodes failed. Errors of the service behind a call are not here: they travel in its reply.

use holdfast_proto::{ErrorKind, NodeId};

/// Why a call between nodes failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No address of the peer is known on that plane.
    #[error("node {peer} is not known")]
    Unknown {
        /// Which.
        peer: NodeId,
    },
    /// The peer could not be reached, or the connection broke before a reply. What was asked may have been done.
    #[error("node {peer} is unreachable: {reason}")]
    Unreachable {
        /// Which.
        peer: NodeId,
        /// Cause.
        reason: String,
    },
    /// The deadline passed. What was asked may have been done.
    #[error("node {peer} did not answer in time")]
    Timeout {
        /// Which.
        peer: NodeId,
    },
    /// The peer refuses: not of this cluster, not allowed, or a version it does not speak. Nothing was done.
    #[error("node {peer} refuses: {reason}")]
    Refused {
        /// Which.
        peer: NodeId,
        /// What it said.
        reason: String,
    },
    /// The peer, or this node towards that peer, has as many calls under way as it takes. Nothing was done.
    #[error("node {peer} is busy")]
    Busy {
        /// Which.
        peer: NodeId,
    },
    /// The other side gave the call up.
    #[error("the call was cancelled")]
    Cancelled,
    /// A frame is larger than the limit, or not a frame at all.
    #[error("malformed frame: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
}

impl TransportError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } => ErrorKind::Refresh,
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Busy { .. } | Self::Cancelled => ErrorKind::Retry,
            Self::Refused { .. } => ErrorKind::Denied,
            Self::Malformed { .. } => ErrorKind::Invalid,
        }
    }
}
