//! What to read in order to rebuild lost shards of a segment. Made by [`Codec::repair_plan`](crate::Codec::repair_plan).
//!
//! Not here: when to repair, and from which backends (`coordinator`).

/// A complete plan for the lost shards of one segment.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RepairPlan {
    /// Slots to read, ascending; together they determine every slot in `write`.
    pub read: Vec<usize>,
    /// Slots to rebuild, ascending.
    pub write: Vec<usize>,
    /// Sum of the costs of `read`, in the caller's unit; the number of reads when none was given.
    pub cost: u64,
}
