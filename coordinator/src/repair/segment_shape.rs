//! What repair needs of a segment's manifest record, small enough to hold many thousands at once.
//!
//! Not here: where its shards are (`inventory`).
//!
//! **Invariant:** every shape has `1 <= k < n <= 64` and a root for each of its n slots.

use super::survival::full_margin;
use holdfast_codec::{Geometry, Scheme};
use holdfast_proto::manifest::Segment;
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::{BackendId, PgId, SegmentId, ShardId, Slot};

/// Most slots repair can account for: `Segment::durable_slots` has one bit a slot in a `u64`.
pub const SLOT_COUNT_MAX: usize = 64;

/// A segment as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentShape {
    /// Its id.
    pub id: SegmentId,
    /// Its placement group.
    pub pg: PgId,
    /// Its code.
    pub scheme: Scheme,
    /// Shards needed to read it, at the least.
    pub k: usize,
    /// Shards it should have.
    pub n: usize,
    /// Object bytes in it.
    pub segment_bytes: u64,
    /// Bytes of each of its shards.
    pub shard_bytes: u64,
    /// Slots its record calls durable.
    pub durable_slots: u64,
    /// Root of each slot's shard, n of them.
    pub roots: Box<[[u8; 32]]>,
    /// Shards that other backends took in, by slot.
    pub stand_ins: Box<[(Slot, BackendId)]>,
}

/// Why a segment's record cannot be planned for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentShapeError {
    /// The id is not 16 bytes.
    #[error("segment record has no readable id")]
    Id,
    /// The scheme is not known to this build or too wide for it.
    #[error("segment {segment}: {reason}")]
    Scheme {
        /// Which segment.
        segment: SegmentId,
        /// What is wrong with its scheme.
        reason: String,
    },
    /// There is not one root for each slot.
    #[error("segment {segment}: {got} bytes of shard roots where {needed} belong")]
    Roots {
        /// Which segment.
        segment: SegmentId,
        /// Bytes found.
        got: usize,
        /// Bytes needed.
        needed: usize,
    },
}

impl SegmentShape {
    /// Reads a manifest record.
    pub fn read(segment: &Segment) -> Result<Self, SegmentShapeError> {
        let id = SegmentId::from_slice(&segment.id).ok_or(SegmentShapeError::Id)?;
        let unknown = |reason: String| SegmentShapeError::Scheme { segment: id, reason };
        let code: [u8; 4] = segment.scheme[..].try_into().map_err(|_| unknown("its code id is not 4 bytes".into()))?;
        let scheme = Scheme::from_code(code).map_err(|e| unknown(e.to_string()))?;
        let (k, n) = (scheme.k(), scheme.n());
        if n > SLOT_COUNT_MAX {
            return Err(unknown(format!("{scheme} has more than {SLOT_COUNT_MAX} slots")));
        }
        if segment.shard_roots.len() != n * 32 {
            return Err(SegmentShapeError::Roots { segment: id, got: segment.shard_roots.len(), needed: n * 32 });
        }
        let roots = segment.shard_roots.chunks_exact(32).map(|chunk| {
            let mut root = [0u8; 32];
            root.copy_from_slice(chunk);
            root
        });
        let stand_in = |slot: usize| {
            let slot = Slot(u8::try_from(slot).ok()?);
            Some((slot, segment.stand_in(slot)?))
        };
        Ok(Self {
            id,
            pg: PgId(segment.pg),
            scheme,
            k,
            n,
            segment_bytes: segment.segment_bytes,
            shard_bytes: Geometry::new(k, segment.cell_bytes, segment.segment_bytes).shard_bytes(),
            durable_slots: segment.durable_slots,
            roots: roots.collect(),
            stand_ins: (0..n).filter_map(stand_in).collect(),
        })
    }

    /// All its slots.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        let n = u8::try_from(self.n).unwrap_or(u8::MAX);
        (0..n).map(Slot)
    }

    /// The shard in `slot`.
    pub fn shard(&self, slot: Slot) -> ShardId {
        ShardId { pg: self.pg, segment: self.id, slot }
    }

    /// The root the shard in `slot` must have; `None` beyond the last slot.
    pub fn root(&self, slot: Slot) -> Option<&[u8; 32]> {
        self.roots.get(usize::from(slot.0))
    }

    /// The backend that took the shard of `slot` in, if one did.
    pub fn stand_in(&self, slot: Slot) -> Option<BackendId> {
        self.stand_ins.iter().find(|(stood_in, _)| *stood_in == slot).map(|(_, backend)| *backend)
    }

    /// Where reads look for the shard in `slot`: where the table says, and where it was taken in.
    pub fn places(&self, table: &PgTable, slot: Slot) -> Vec<BackendId> {
        let mut places = table.locations(self.pg, slot);
        places.extend(self.stand_in(slot).filter(|stand_in| !places.contains(stand_in)));
        places
    }

    /// Shards it can lose when whole, whichever they are.
    pub fn full_margin(&self) -> i32 {
        full_margin(self.scheme)
    }

    /// `durable_slots` of a whole segment.
    pub fn all_slots(&self) -> u64 {
        if self.n >= SLOT_COUNT_MAX { u64::MAX } else { (1u64 << self.n) - 1 }
    }
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use bytes::Bytes;

    /// A 4+2 record: the root of slot s is 32 times `seed + s`.
    pub(crate) fn record(id: SegmentId, pg: u32, seed: u8) -> Segment {
        let roots: Vec<u8> = (0..6u8).flat_map(|slot| [seed.wrapping_add(slot); 32]).collect();
        Segment {
            id: Bytes::copy_from_slice(id.as_bytes()),
            pg,
            segment_bytes: 1 << 20,
            scheme: Bytes::from_static(&[0x1d, 1, 4, 2]),
            cell_bytes: 65_536,
            shard_roots: Bytes::from(roots),
            durable_slots: 0b11_1111,
            segment_offset: 0,
            stand_ins: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::record;
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_record_is_read_whole_or_refused_by_cause() {
        let id = SegmentId::from_parts(5, [1; 10]);
        let shape = SegmentShape::read(&record(id, 3, 7)).unwrap();
        assert_eq!((shape.k, shape.n, shape.shard_bytes, shape.full_margin()), (4, 6, 262_144, 2));
        assert_eq!(shape.root(Slot(5)), Some(&[12; 32]));
        assert_eq!(shape.root(Slot(6)), None);
        assert_eq!(shape.all_slots(), 0b11_1111);
        let no_id = Segment { id: Bytes::new(), ..record(id, 3, 7) };
        assert_eq!(SegmentShape::read(&no_id), Err(SegmentShapeError::Id));
        let short = Segment { shard_roots: Bytes::from_static(&[0; 64]), ..record(id, 3, 7) };
        assert!(matches!(SegmentShape::read(&short), Err(SegmentShapeError::Roots { got: 64, needed: 192, .. })));
        let foreign = Segment { scheme: Bytes::from_static(&[9, 9, 9, 9]), ..record(id, 3, 7) };
        assert!(matches!(SegmentShape::read(&foreign), Err(SegmentShapeError::Scheme { .. })));
        let wide = Segment { scheme: Bytes::from_static(&[0x1d, 1, 60, 20]), ..record(id, 3, 7) };
        assert!(matches!(SegmentShape::read(&wide), Err(SegmentShapeError::Scheme { .. })));
    }
}
