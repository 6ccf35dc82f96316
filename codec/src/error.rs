//! Why the codec refused a call.
//!
//! **Invariant:** every refusal comes before the first output byte is written.

/// What a caller can do about a [`CodecError`]. (The workspace's `ErrorKind` lives in `proto`, which this crate may not
/// depend on; the names agree.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodecErrorKind {
    /// The arguments can never succeed: a fault of the caller.
    Invalid,
    /// Too few shards are left, or one is not what it should be.
    Damaged,
}

/// Why the codec refused a call; nothing was written to any output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// `encode` got another number of data slices than k.
    #[error("encode needs {expected} data slices, got {got}")]
    DataCount {
        /// k.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// `encode` got another number of parity slices than m.
    #[error("encode needs {expected} parity slices, got {got}")]
    ParityCount {
        /// m.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// The slices of one call are not equally long.
    #[error("slot {slot} has {got} bytes where the others have {expected}")]
    LengthsDiffer {
        /// The first slot that differs.
        slot: usize,
        /// Bytes of the first slice of the call.
        expected: usize,
        /// Bytes of this one.
        got: usize,
    },
    /// A slot that the scheme does not have.
    #[error("slot {slot} does not exist: the scheme has {slot_count} slots")]
    SlotOutOfRange {
        /// The slot given.
        slot: usize,
        /// n.
        slot_count: usize,
    },
    /// A slot was given twice.
    #[error("slot {slot} was given twice")]
    DuplicateSlot {
        /// The slot.
        slot: usize,
    },
    /// A slot was given both as present (available) and as wanted (missing).
    #[error("slot {slot} was given both as present and as wanted")]
    PresentAndWanted {
        /// The slot.
        slot: usize,
    },
    /// Another number of costs than slots.
    #[error("a repair plan needs one cost for each of {expected} slots, or none, got {got}")]
    CostCount {
        /// n.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// A code over no region, over more regions than it has slots, or a geo code over other regions than its own.
    #[error("a code of {slot_count} slots cannot be laid over {regions} regions")]
    RegionCount {
        /// How many were asked for.
        regions: usize,
        /// n.
        slot_count: usize,
    },
    /// A partial sum or an execution of a plan was given a slot that the plan does not read or write.
    #[error("slot {slot} is not part of the plan")]
    NotInPlan {
        /// The slot.
        slot: usize,
    },
    /// Another number of slices than a call needs.
    #[error("{expected} slices are needed, got {got}")]
    SliceCount {
        /// How many are needed.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// A cell is not the one its check names; nothing was computed from it.
    #[error("the cell of slot {slot} does not have the expected hash")]
    HashDiffers {
        /// The slot.
        slot: usize,
    },
    /// Fewer shards are present than the code needs.
    #[error("{needed} shards are needed, {present} are present")]
    TooFewShards {
        /// k.
        needed: usize,
        /// How many are present.
        present: usize,
    },
    /// Enough shards are present by number, but they do not determine the wanted ones. Cannot happen with
    /// Reed-Solomon, where any k do.
    #[error("the {present} shards present do not determine the missing ones")]
    Undecodable {
        /// How many are present.
        present: usize,
    },
}

impl CodecError {
    /// What can be done about it.
    pub fn kind(&self) -> CodecErrorKind {
        match self {
            Self::TooFewShards { .. } | Self::Undecodable { .. } | Self::HashDiffers { .. } => CodecErrorKind::Damaged,
            _ => CodecErrorKind::Invalid,
        }
    }
}
