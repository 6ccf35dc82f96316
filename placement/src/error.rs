//! Why no table was made.

use crate::caps::Infeasible;
use crate::domain::Domain;
use crate::proof::Counterexample;
use crate::topology::TopologyError;
use holdfast_codec::SchemeError;
use holdfast_proto::{BackendId, ErrorKind};

/// Why no table was made; each names the numbers that are in the way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The n shards of a segment cannot be on n different backends.
    #[error(
        "{needed} backends are needed to keep every shard of a segment apart: {active} active, {draining} draining, \
         {lost} lost"
    )]
    NotEnoughBackends {
        /// n.
        needed: usize,
        /// How many take shards.
        active: usize,
        /// How many are being drained.
        draining: usize,
        /// How many of the table are gone.
        lost: usize,
    },
    /// The number of placement groups is not a power of two, is 0 or is too large.
    #[error("{got} placement groups: their number must be a power of two, at most {max}")]
    PgCount {
        /// How many were asked for.
        got: u32,
        /// The most there may be.
        max: u32,
    },
    /// The scheme is not known to this build.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// The scheme has another number of shards than was given.
    #[error("the scheme has {expected} shards per segment, not {got}")]
    SlotCount {
        /// n of the scheme.
        expected: usize,
        /// The number given.
        got: usize,
    },
    /// A candidate was given twice.
    #[error("backend {id} was given twice")]
    DuplicateCandidate {
        /// Which.
        id: BackendId,
    },
    /// The backends do not make a topology.
    #[error(transparent)]
    Topology(TopologyError),
    /// A domain that has no backend.
    #[error("there is no {domain}")]
    NoSuchDomain {
        /// Which.
        domain: Domain,
    },
    /// The promise cannot be kept on these backends.
    #[error(transparent)]
    Infeasible(#[from] Infeasible),
    /// The table to start from has no PG, or one with another number of slots than the scheme.
    #[error("the table is damaged: PG {pg} has {got} slots of {expected}")]
    Table {
        /// The first such PG (0 for a table without PGs).
        pg: usize,
        /// n of the scheme.
        expected: usize,
        /// How many it has.
        got: usize,
    },
    /// The table that was made does not keep the promise; it is withheld. Slots that cannot be moved now are in the way
    /// (moves under way, lost backends without a spare), or labels cut across each other so that no way was found.
    #[error("the new table is refused: {0}")]
    Unproven(#[from] Counterexample),
}

impl PlacementError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotEnoughBackends { .. } | Self::Infeasible(_) | Self::Unproven(_) => ErrorKind::Conflict,
            Self::PgCount { .. }
            | Self::Scheme(_)
            | Self::SlotCount { .. }
            | Self::DuplicateCandidate { .. }
            | Self::Topology(_) => ErrorKind::Invalid,
            Self::NoSuchDomain { .. } => ErrorKind::NotFound,
            Self::Table { .. } => ErrorKind::Damaged,
        }
    }
}

impl From<TopologyError> for PlacementError {
    fn from(error: TopologyError) -> Self {
        match error {
            TopologyError::DuplicateBackend { id } => Self::DuplicateCandidate { id },
            error => Self::Topology(error),
        }
    }
}
