//! Why something about membership failed.

use crate::metadata::MetadataError;
use holdfast_proto::ErrorKind;
use holdfast_proto::membership::{Refusal, RefusalCause};
use holdfast_transport::TransportError;
use holdfast_trust::TrustError;

use super::nodes::NodeRefusal;

/// Why something about membership failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The metadata did not do its part.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A certificate, key or token is not what it should be.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The cluster map does not allow it.
    #[error(transparent)]
    Node(#[from] NodeRefusal),
    /// The other node could not be asked.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The other node said no.
    #[error("refused: {reason}")]
    Refused {
        /// Why.
        cause: RefusalCause,
        /// What it said.
        reason: String,
    },
    /// The other node's answer makes no sense.
    #[error("unusable answer: {reason}")]
    Answer {
        /// What is wrong with it.
        reason: String,
    },
    /// There is no CA, or no map, or no node 1 in it yet.
    #[error("the cluster is not founded yet: {missing} is missing")]
    NotFounded {
        /// What is missing.
        missing: &'static str,
    },
}

impl MembershipError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Metadata(error) => error.kind(),
            Self::Trust(error) => error.kind(),
            Self::Node(refusal) => refusal.kind(),
            Self::Transport(error) => error.kind(),
            Self::Refused { cause, .. } => cause.kind(),
            Self::Answer { .. } => ErrorKind::Internal,
            Self::NotFounded { .. } => ErrorKind::Retry,
        }
    }

    pub(super) fn answer(reason: impl Into<String>) -> Self {
        Self::Answer { reason: reason.into() }
    }
}

impl From<Refusal> for MembershipError {
    fn from(refusal: Refusal) -> Self {
        // Written by another machine, shown to people: bounded, and without control characters.
        let reason = refusal.reason.chars().filter(|c| !c.is_control()).take(512).collect();
        Self::Refused { cause: RefusalCause::from_number(refusal.cause), reason }
    }
}
