//! Why an administrative call was refused or failed, with what to do next.

use crate::metadata::MetadataError;
use crate::rebalance::LeaveError;
use holdfast_placement::Infeasible;
use holdfast_proto::node::ShardError;
use holdfast_proto::{Epoch, ErrorKind};

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
    /// No node of that name or number.
    #[error("no node named {name}")]
    NoSuchNode {
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
    /// A node cannot be drained, removed or replaced as things are.
    #[error("{reason}")]
    NodeRefused {
        /// Why, with the figures.
        reason: String,
        /// What to do instead or first.
        next_step: String,
    },
    /// Without a node something would be lost that was not given up.
    #[error(transparent)]
    Leave(#[from] LeaveError),
    /// The promise cannot be kept on the backends there are.
    #[error("{0}")]
    Unkept(#[from] Infeasible),
    /// What was given cannot be read.
    #[error("{reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
        /// What would do.
        next_step: String,
    },
    /// The layout has changed since a plan was made.
    #[error("plan {plan} is not of the layout as it is now (epoch {epoch})")]
    PlanStale {
        /// Which.
        plan: String,
        /// The present epoch.
        epoch: Epoch,
    },
    /// Moves cannot be applied or taken back as things are.
    #[error("{reason}")]
    MovesRefused {
        /// Why.
        reason: String,
        /// What to do instead.
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
            Self::NoSuchBackend { .. } | Self::NoSuchNode { .. } | Self::NoSuchObject { .. } => ErrorKind::NotFound,
            Self::Invalid { .. } | Self::Malformed { .. } => ErrorKind::Invalid,
            Self::Refused { .. } | Self::NodeRefused { .. } | Self::Placement { .. } => ErrorKind::Conflict,
            Self::Unkept(_) | Self::PlanStale { .. } | Self::MovesRefused { .. } => ErrorKind::Conflict,
            Self::Leave(error) => error.kind(),
            Self::Metadata(error) => error.kind(),
            Self::Backend(error) => error.kind(),
            Self::NotReady { .. } => ErrorKind::Retry,
        }
    }

    /// What to do next; empty when there is nothing to say.
    pub fn next_step(&self) -> String {
        match self {
            Self::NoSuchBackend { known, .. } => format!("the backends are: {known}"),
            Self::NoSuchNode { known, .. } => format!("the nodes are: {known}"),
            Self::Refused { next_step, .. }
            | Self::NodeRefused { next_step, .. }
            | Self::Malformed { next_step, .. }
            | Self::MovesRefused { next_step, .. } => next_step.clone(),
            Self::Unkept(_) => "holdfast policy plan says which schemes keep it, and what is missing".to_owned(),
            Self::PlanStale { .. } => "holdfast rebalance plan".to_owned(),
            Self::Leave(error) => error.next_step(),
            Self::NotReady { .. } => "try again in a moment".to_owned(),
            _ => String::new(),
        }
    }
}
