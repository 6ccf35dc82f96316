//! Why something about trust is refused.

use holdfast_proto::{ClusterId, ErrorKind, NodeId};

/// Why a certificate, a key, a token or a peer is refused. No variant carries a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Bytes or text that are not what they should be.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// Certificate, key, token, ...
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// It belongs to another cluster.
    #[error("of cluster {found}, not of {expected}")]
    ForeignCluster {
        /// Ours.
        expected: ClusterId,
        /// Theirs.
        found: ClusterId,
    },
    /// It belongs to another node.
    #[error("of node {found}, not of {expected}")]
    WrongNode {
        /// Who it should be.
        expected: NodeId,
        /// Who it is.
        found: NodeId,
    },
    /// The operator removed this node from the cluster.
    #[error("node {node} was removed from the cluster")]
    NodeRemoved {
        /// Which.
        node: NodeId,
    },
    /// The peer's certificate does not come from the authority that the join token names.
    #[error("the authority is not the one the join token names ({pin})")]
    WrongAuthority {
        /// Fingerprint in the token.
        pin: String,
    },
    /// A peer that is no coordinator answered a joining node.
    #[error("node {node} is no coordinator: it admits nobody")]
    NotACoordinator {
        /// Which.
        node: NodeId,
    },
    /// A region or zone by an unusable name.
    #[error("not a name of a region or zone: {given:?}: {reason}")]
    PlaceName {
        /// What was given (at most its first 64 characters).
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The certificate does not belong to the key, or is signed by none of the roots.
    #[error("certificate, key and roots do not belong together: {reason}")]
    Mismatch {
        /// Which of them.
        reason: String,
    },
}

impl TrustError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed { .. } | Self::PlaceName { .. } | Self::Mismatch { .. } => ErrorKind::Invalid,
            Self::ForeignCluster { .. }
            | Self::WrongNode { .. }
            | Self::NodeRemoved { .. }
            | Self::WrongAuthority { .. }
            | Self::NotACoordinator { .. } => ErrorKind::Denied,
        }
    }

    pub(crate) fn malformed(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Malformed { what, reason: reason.into() }
    }
}

impl From<TrustError> for rustls::Error {
    /// A handshake that fails by this says so in full: the alert on the wire does not, our own log does.
    fn from(error: TrustError) -> Self {
        Self::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(std::sync::Arc::new(error))))
    }
}
