//! The placement group table of one scheme: which backend holds which slot of which PG, and which backend shall.
//!
//! Made by `placement` (pure), stored by the root group, read by the object path and by repair. Epoch e is made by
//! compare-and-set on e-1.

use crate::ids::{BackendId, Epoch, PgId, SegmentId, Slot};
use serde::{Deserialize, Serialize};

/// One placement group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pg {
    /// Backend of each slot now; reads fall back to it.
    pub committed: Vec<BackendId>,
    /// Backend of each slot after the move under way; equal to `committed` when none is. Writes go here, reads try
    /// here first.
    pub target: Vec<BackendId>,
}

impl Pg {
    /// Whether shards of this PG still have to be moved or rebuilt.
    pub fn is_moving(&self) -> bool {
        self.committed != self.target
    }
}

/// All PGs of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgTable {
    /// Number of this table; ever-growing.
    pub epoch: Epoch,
    /// Code id of what is written (`codec::Scheme::code`).
    pub scheme: [u8; 4],
    /// The PGs; their count is a power of two and never changes.
    pub pgs: Vec<Pg>,
}

impl PgTable {
    /// The PG of a segment: its id's last four bytes (random), modulo the count.
    pub fn pg_of(&self, segment: SegmentId) -> PgId {
        let b = segment.0;
        let count = u32::try_from(self.pgs.len()).expect("PG counts are small");
        PgId(u32::from_be_bytes([b[12], b[13], b[14], b[15]]) % count.max(1))
    }

    /// The PG, or `None` if the id is not of this table.
    pub fn pg(&self, id: PgId) -> Option<&Pg> {
        self.pgs.get(usize::try_from(id.0).ok()?)
    }

    /// Backends to ask for the shard in `slot`, best first, without doubles.
    pub fn locations(&self, id: PgId, slot: Slot) -> Vec<BackendId> {
        let Some(pg) = self.pg(id) else { return Vec::new() };
        let mut found: Vec<BackendId> = pg.target.get(usize::from(slot.0)).copied().into_iter().collect();
        if let Some(&backend) = pg.committed.get(usize::from(slot.0))
            && !found.contains(&backend)
        {
            found.push(backend);
        }
        found
    }
}
