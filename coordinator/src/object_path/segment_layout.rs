//! A segment's record, checked and made ready for reading.
//!
//! **Invariant:** a record that does not hold together is refused here, so that nothing after this meets one.

use super::api::ObjectError;
use super::shared::Codecs;
use holdfast_codec::{Codec, Geometry};
use holdfast_proto::manifest::Segment;
use holdfast_proto::{BackendId, PgId, SegmentId, ShardId, Slot};

/// Longest cell taken for true: many times what we write, and still a harmless allocation.
const CELL_BYTES_MAX: u32 = 16 << 20;
/// Largest segment taken for true.
const SEGMENT_BYTES_MAX: u64 = 1 << 40;

/// Where and how a segment's bytes are kept.
pub(crate) struct SegmentLayout {
    pub(crate) id: SegmentId,
    pub(crate) pg: PgId,
    pub(crate) codec: Codec,
    pub(crate) geometry: Geometry,
    record: Segment,
}

impl SegmentLayout {
    /// Checks the record.
    pub(crate) fn new(record: &Segment, codecs: &Codecs) -> Result<Self, ObjectError> {
        let damaged = |reason: &str| ObjectError::Internal {
            reason: format!("record of segment {}: {reason}", hex::encode(&record.id)),
        };
        let id = SegmentId::from_slice(&record.id).ok_or_else(|| damaged("the id is not 16 bytes"))?;
        let code: [u8; 4] = record.scheme.as_ref().try_into().map_err(|_| damaged("the code id is not 4 bytes"))?;
        let codec = codecs.get(code)?;
        if record.cell_bytes == 0 || record.cell_bytes > CELL_BYTES_MAX {
            return Err(damaged("impossible cell length"));
        }
        if record.segment_bytes == 0 || record.segment_bytes > SEGMENT_BYTES_MAX {
            return Err(damaged("impossible segment length"));
        }
        if record.shard_roots.len() != codec.scheme().n() * 32 {
            return Err(damaged("not one root for each shard"));
        }
        let geometry = Geometry::new(codec.scheme().k(), record.cell_bytes, record.segment_bytes);
        Ok(Self { id, pg: PgId(record.pg), codec, geometry, record: record.clone() })
    }

    /// The shard in a slot of the scheme.
    pub(crate) fn shard(&self, slot: usize) -> ShardId {
        ShardId { pg: self.pg, segment: self.id, slot: slot_id(slot) }
    }

    /// The backend that took the slot's shard in when it was written, if one did.
    pub(crate) fn stand_in(&self, slot: usize) -> Option<BackendId> {
        self.record.stand_in(slot_id(slot))
    }

    /// The root its shard must have.
    pub(crate) fn root(&self, slot: usize) -> Option<[u8; 32]> {
        self.record.shard_root(slot_id(slot))
    }

    /// Whether the shard was durable when the record was last written.
    pub(crate) fn was_durable(&self, slot: usize) -> bool {
        slot < 64 && self.record.durable_slots & (1 << slot) != 0
    }

    /// Where the segment begins in its object or part.
    pub(crate) fn segment_offset(&self) -> u64 {
        self.record.segment_offset
    }
}

/// A slot number of a scheme, which has at most 255.
pub(crate) fn slot_id(slot: usize) -> Slot {
    Slot(u8::try_from(slot).unwrap_or(u8::MAX))
}
