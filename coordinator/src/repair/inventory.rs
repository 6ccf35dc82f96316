//! One window of the inventory: a run of segments in id order, and the copies that backends list for them.
//!
//! Not here: asking metadata or nodes. The shell reads a window of segments, lists each PG on each backend between the
//! window's ends, and hands the pages in; memory is bounded by the window, whatever the store's size.
//!
//! **Invariant:** a listed shard is either a holding of a segment of the window or reported as unowned; none is
//! dropped silently.

use super::plan::Holding;
use super::segment_shape::SegmentShape;
use holdfast_proto::node::ShardStat;
use holdfast_proto::{BackendId, PgId, SegmentId, ShardId, Slot};

/// A shard that no segment of the window accounts for: an orphan, garbage, or one being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unowned {
    /// Which shard.
    pub shard: ShardId,
    /// Where.
    pub backend: BackendId,
}

/// Segments of the half-open id range `(after, until]` with the copies seen of each.
pub struct WindowInventory {
    after: Option<SegmentId>,
    until: SegmentId,
    segments: Vec<(SegmentShape, Vec<Holding>)>,
}

impl WindowInventory {
    /// A window over `shapes` (any order) between `after` (exclusive; `None`: from the first) and `until` (inclusive).
    pub fn new(after: Option<SegmentId>, until: SegmentId, mut shapes: Vec<SegmentShape>) -> Self {
        shapes.sort_by_key(|s| (s.pg, s.id));
        Self { after, until, segments: shapes.into_iter().map(|s| (s, Vec::new())).collect() }
    }

    /// Where to begin listing `pg`: the last shard id before the window.
    pub fn list_from(&self, pg: PgId) -> Option<ShardId> {
        self.after.map(|segment| ShardId { pg, segment, slot: Slot(u8::MAX) })
    }

    /// Takes a page of `pg` as `backend` listed it, in id order. Shards past the window are left for a later one.
    /// Returns whether the window needs the next page.
    pub fn take_page(&mut self, pg: PgId, backend: BackendId, page: &[ShardStat], unowned: &mut Vec<Unowned>) -> bool {
        let start = self.segments.partition_point(|(s, _)| s.pg < pg);
        let mut at = start;
        for stat in page {
            if stat.id.segment > self.until || stat.id.pg > pg {
                return false;
            }
            while self.segments.get(at).is_some_and(|(s, _)| s.pg == pg && s.id < stat.id.segment) {
                at += 1;
            }
            match self.segments.get_mut(at) {
                Some((shape, holdings)) if shape.pg == pg && shape.id == stat.id.segment => {
                    // The length counts too: a shard cut short would have another root, but costs nothing to check.
                    let is_good = shape.root(stat.id.slot) == Some(&stat.root) && stat.shard_bytes == shape.shard_bytes;
                    holdings.push(Holding { slot: stat.id.slot, backend, is_good });
                }
                _ => unowned.push(Unowned { shard: stat.id, backend }),
            }
        }
        true
    }

    /// Drops every segment that `still_there` (sorted by id) does not name: deleted while the window was listed.
    pub fn retain(&mut self, still_there: &[SegmentId]) {
        debug_assert!(still_there.is_sorted(), "segments come in id order");
        self.segments.retain(|(shape, _)| still_there.binary_search(&shape.id).is_ok());
    }

    /// The segments with the copies seen, by PG and id.
    pub fn segments(&self) -> &[(SegmentShape, Vec<Holding>)] {
        &self.segments
    }

    /// The last id of the window.
    pub fn until(&self) -> SegmentId {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment_shape::samples::record;
    use super::*;

    fn segment(ms: u64) -> SegmentId {
        SegmentId::from_parts(ms, [0; 10])
    }
    fn stat(pg: u32, ms: u64, slot: u8, root: u8) -> ShardStat {
        let id = ShardId { pg: PgId(pg), segment: segment(ms), slot: Slot(slot) };
        ShardStat { id, shard_bytes: 262_144, cell_bytes: 65_536, root: [root; 32], verified_ms: 0 }
    }
    fn window(segments: &[(u64, u32)], until: u64) -> WindowInventory {
        let shapes = segments.iter().map(|(ms, pg)| SegmentShape::read(&record(segment(*ms), *pg, 10)).unwrap());
        WindowInventory::new(None, segment(until), shapes.collect())
    }

    #[test]
    fn pages_merge_with_segments_and_nothing_is_dropped() {
        let mut window = window(&[(1, 0), (3, 0), (2, 1), (9, 0)], 9);
        let mut unowned = Vec::new();
        let backend = BackendId([1; 16]);
        // Root of slot s is 10 + s. Segment 2 of PG 0 has no record; segment 3's slot 1 has a wrong root.
        let page = [stat(0, 1, 0, 10), stat(0, 1, 5, 15), stat(0, 2, 0, 10), stat(0, 3, 1, 99)];
        assert!(window.take_page(PgId(0), backend, &page, &mut unowned));
        // The next page begins past a segment already seen.
        assert!(!window.take_page(PgId(0), backend, &[stat(0, 9, 2, 12), stat(0, 10, 0, 10)], &mut unowned));
        // A shard filed under another PG than its record says is not that record's shard.
        assert!(window.take_page(PgId(1), backend, &[stat(1, 1, 0, 10), stat(1, 2, 0, 10)], &mut unowned));
        let strays: Vec<_> = unowned.iter().map(|u| (u.shard.pg.0, u.shard.segment.unix_ms())).collect();
        assert_eq!(strays, [(0, 2), (1, 1)]);
        let seen: Vec<_> = window
            .segments()
            .iter()
            .map(|(s, h)| (s.pg.0, s.id.unix_ms(), h.iter().map(|h| (h.slot.0, h.is_good)).collect::<Vec<_>>()))
            .collect();
        assert_eq!(
            seen,
            [
                (0, 1, vec![(0, true), (5, true)]),
                (0, 3, vec![(1, false)]),
                (0, 9, vec![(2, true)]),
                (1, 2, vec![(0, true)]),
            ]
        );
        window.retain(&[segment(1), segment(9)]);
        assert_eq!(window.segments().len(), 2);
    }

    #[test]
    fn a_short_shard_is_not_good_and_a_slot_beyond_the_scheme_neither() {
        let mut window = window(&[(1, 0)], 1);
        let mut unowned = Vec::new();
        let cut = ShardStat { shard_bytes: 5, ..stat(0, 1, 0, 10) };
        window.take_page(PgId(0), BackendId([1; 16]), &[cut, stat(0, 1, 200, 10)], &mut unowned);
        assert!(window.segments()[0].1.iter().all(|h| !h.is_good));
    }

    #[test]
    fn listing_begins_after_the_last_shard_of_the_window_before() {
        let window = WindowInventory::new(Some(segment(4)), segment(9), Vec::new());
        let from = window.list_from(PgId(7)).unwrap();
        assert_eq!((from.pg, from.segment, from.slot), (PgId(7), segment(4), Slot(255)));
    }
}
