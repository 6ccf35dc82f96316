//! What the solver is told about each backend.

use holdfast_proto::BackendId;

/// One backend that may hold shards, or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which one.
    pub id: BackendId,
    /// Its share of the data is in proportion to this: its capacity in bytes.
    pub weight_bytes: u64,
    /// What may be done with it.
    pub role: CandidateRole,
}

/// What may be done with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CandidateRole {
    /// Takes and keeps shards.
    Active,
    /// Readable, but its shards are to move to others.
    Draining,
    /// Gone for good, with all it held. A backend of the table that is not among the candidates counts as this.
    Lost,
}
