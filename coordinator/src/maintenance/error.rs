//! Why an administrative call was refused or failed, with what to do next.

use crate::metadata::MetadataError;
use holdfast_proto::ErrorKind;
use holdfast_proto::node::ShardError;

/// Error of every call of `Maintenance`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaintenanceError {
    /// No backend of that name.
    #[error("no backend named {name}")]
    NoSuchBackend {
        /// As asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// No such bucket, key or version.
    #[error("no such {what}")]
    NoSuchObject {
        /// `bucket x`, `key y in bucket x`, ...
        what: String,
    },
    /// The argument can never be accepted.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// It would break a promise, or must wait for something else first.
    #[error("{reason}")]
    Refused {
        /// Why, with the figures.
        reason: String,
        /// What to do instead or first.
        next_step: String,
    },
    /// The layout it would make cannot be proven.
    #[error("no layout keeps the promise: {reason}")]
    Placement {
        /// The counterexample.
        reason: String,
    },
    /// Metadata failed.
    #[error("metadata: {0}")]
    Metadata(#[from] MetadataError),
    /// A backend failed.
    #[error("{0}")]
    Backend(#[from] ShardError),
    /// The store has no cluster map yet, or maintenance is shutting down.
    #[error("not ready: {reason}")]
    NotReady {
        /// Why.
        reason: &'static str,
    },
}

impl MaintenanceError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchBackend { .. } | Self::NoSuchObject { .. } => ErrorKind::NotFound,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Refused { .. } | Self::Placement { .. } => ErrorKind::Conflict,
            Self::Metadata(error) => error.kind(),
            Self::Backend(error) => error.kind(),
            Self::NotReady { .. } => ErrorKind::Retry,
        }
    }

    /// What to do next; empty when there is nothing to say.
    pub fn next_step(&self) -> String {
        match self {
            Self::NoSuchBackend { known, .. } => format!("the backends are: {known}"),
            Self::Refused { next_step, .. } => next_step.clone(),
            Self::NotReady { .. } => "try again in a moment".to_owned(),
            _ => String::new(),
        }
    }
}
