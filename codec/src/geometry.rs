//! Which object bytes lie in which stripe, cell and shard of a segment.
//!
//! Not here: coding (`codec`), positions on a disk (`backends`).
//!
//! **Invariant:** the stripes cover the segment exactly, in order and without overlap; every shard of a segment has the
//! same cells. Data cell j of a stripe holds the object bytes `j * cell_bytes..(j + 1) * cell_bytes` of that stripe,
//! and zeros after the stripe's last byte.
//!
//! Full stripes hold `k * cell_bytes` object bytes. The last one may hold fewer; then its cells are shorter: `ceil(rest
//! / k)`, rounded up to 64 bytes, so that a small object does not store six full cells.

use std::ops::Range;

/// A short last cell is rounded up to this: one cache line and one AVX-512 register (facts: no kernel needs more).
pub const CELL_ROUNDING: u32 = 64;

/// Cell length for k <= 10. A whole stripe of up to 12 shards is then <= 768 KiB, inside a 1 MiB L2; BLAKE3 needs at
/// least 16 KiB in one piece for its full speed.
const CELL_BYTES_NARROW: u32 = 64 << 10;
/// Cell length above: 30 shards are 960 KiB.
const CELL_BYTES_WIDE: u32 = 32 << 10;
/// Widest code with the longer cells.
const NARROW_K_MAX: usize = 10;

/// The cell length a new segment of a code with `k` data shards is written with.
pub fn default_cell_bytes(k: usize) -> u32 {
    if k <= NARROW_K_MAX { CELL_BYTES_NARROW } else { CELL_BYTES_WIDE }
}

/// The geometry of one segment. Cheap to make and to copy.
///
/// Total for any input, so that numbers read from a damaged disk cannot panic: a zero `k` or `cell_bytes` counts as 1,
/// sums saturate. Whoever reads such numbers checks them before trusting the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    k: u64,
    cell_bytes: u32,
    segment_bytes: u64,
}

/// One stripe of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stripe {
    /// Its number; also the number of its cell in every shard.
    pub index: u32,
    /// Where its object bytes begin within the segment.
    pub offset: u64,
    /// How many object bytes it holds.
    pub bytes: u64,
    /// Length of each of its cells.
    pub cell_bytes: u32,
}

impl Stripe {
    /// The object bytes, within the segment, that data cell `slot` holds. Shorter than `cell_bytes`, or empty, where
    /// the stripe ends earlier: the rest of the cell is zeros.
    pub fn data_range(&self, slot: usize) -> Range<u64> {
        let cell = u64::from(self.cell_bytes);
        let slot = u64::try_from(slot).unwrap_or(u64::MAX);
        let begin = slot.saturating_mul(cell).min(self.bytes);
        let end = begin.saturating_add(cell).min(self.bytes);
        self.offset.saturating_add(begin)..self.offset.saturating_add(end)
    }

    /// The object bytes it holds, within the segment.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.bytes)
    }
}

impl Geometry {
    /// The geometry of `segment_bytes` object bytes over `k` data shards in cells of `cell_bytes` (a multiple of 64).
    pub fn new(k: usize, cell_bytes: u32, segment_bytes: u64) -> Self {
        Self { k: u64::try_from(k).unwrap_or(u64::MAX).max(1), cell_bytes: cell_bytes.max(1), segment_bytes }
    }

    /// Object bytes in the segment.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Object bytes of a full stripe.
    pub fn stripe_bytes(&self) -> u64 {
        self.k.saturating_mul(u64::from(self.cell_bytes))
    }

    /// Length of a full cell.
    pub fn cell_bytes(&self) -> u32 {
        self.cell_bytes
    }

    /// How many stripes there are; 0 for an empty segment.
    pub fn stripe_count(&self) -> u32 {
        u32::try_from(self.segment_bytes.div_ceil(self.stripe_bytes())).unwrap_or(u32::MAX)
    }

    /// Bytes of each shard's cells together.
    pub fn shard_bytes(&self) -> u64 {
        let full = self.segment_bytes / self.stripe_bytes();
        let rest = self.segment_bytes % self.stripe_bytes();
        full.saturating_mul(u64::from(self.cell_bytes)).saturating_add(u64::from(self.cell_bytes_for(rest)))
    }

    /// Stripe `index`. One past the last, or any later one, is empty: at the segment's end, with no bytes and no cells.
    pub fn stripe(&self, index: u32) -> Stripe {
        let offset = u64::from(index).saturating_mul(self.stripe_bytes()).min(self.segment_bytes);
        let bytes = (self.segment_bytes - offset).min(self.stripe_bytes());
        Stripe { index, offset, bytes, cell_bytes: self.cell_bytes_for(bytes) }
    }

    /// All stripes, in order.
    pub fn stripes(&self) -> impl Iterator<Item = Stripe> + use<> {
        let geometry = *self;
        (0..self.stripe_count()).map(move |index| geometry.stripe(index))
    }

    /// Where the cell of stripe `index` begins in a shard. Every cell but the last is full.
    pub fn cell_offset(&self, index: u32) -> u64 {
        u64::from(index).saturating_mul(u64::from(self.cell_bytes)).min(self.shard_bytes())
    }

    /// The stripes that hold the object bytes `range` (within the segment; what lies past its end is left out). Empty
    /// for an empty range.
    pub fn stripes_for(&self, range: Range<u64>) -> Range<u32> {
        let end = range.end.min(self.segment_bytes);
        if range.start >= end {
            return 0..0;
        }
        let stripe = self.stripe_bytes();
        let first = u32::try_from(range.start / stripe).unwrap_or(u32::MAX);
        let last = u32::try_from(end.div_ceil(stripe)).unwrap_or(u32::MAX);
        first..last
    }

    /// Length of the cells of a stripe with `bytes` object bytes.
    fn cell_bytes_for(&self, bytes: u64) -> u32 {
        if bytes >= self.stripe_bytes() {
            return self.cell_bytes;
        }
        let cell = bytes.div_ceil(self.k).next_multiple_of(u64::from(CELL_ROUNDING));
        // Only a cell length that is no multiple of 64 can be exceeded by the rounding.
        u32::try_from(cell).unwrap_or(u32::MAX).min(self.cell_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(k: usize, cell_bytes: u32, segment_bytes: u64) {
        let geometry = Geometry::new(k, cell_bytes, segment_bytes);
        let (mut covered, mut shard_bytes) = (0, 0);
        for (number, stripe) in geometry.stripes().enumerate() {
            assert_eq!(usize::try_from(stripe.index).unwrap(), number);
            assert_eq!(stripe, geometry.stripe(stripe.index));
            assert_eq!(stripe.offset, covered);
            assert!(stripe.bytes > 0);
            assert_eq!(geometry.cell_offset(stripe.index), shard_bytes);
            let is_last = stripe.index + 1 == geometry.stripe_count();
            if is_last {
                let cell = u64::from(stripe.cell_bytes);
                let rounded = stripe.bytes.div_ceil(u64::try_from(k).unwrap()).next_multiple_of(64);
                assert_eq!(cell, rounded, "last cells of {segment_bytes} bytes over {k} x {cell_bytes}");
                assert!(cell <= u64::from(cell_bytes));
            } else {
                assert_eq!(stripe.cell_bytes, cell_bytes);
                assert_eq!(stripe.bytes, geometry.stripe_bytes());
            }
            let mut inside = stripe.offset;
            for slot in 0..k {
                let range = stripe.data_range(slot);
                assert_eq!(range.start, inside);
                assert!(range.end - range.start <= u64::from(stripe.cell_bytes));
                inside = range.end;
            }
            assert_eq!(inside, stripe.range().end, "the data cells hold the whole stripe");
            assert_eq!(stripe.data_range(k), inside..inside);
            covered += stripe.bytes;
            shard_bytes += u64::from(stripe.cell_bytes);
        }
        assert_eq!(covered, segment_bytes);
        assert_eq!(shard_bytes, geometry.shard_bytes());
        let past = geometry.stripe(geometry.stripe_count());
        assert_eq!((past.offset, past.bytes, past.cell_bytes), (segment_bytes, 0, 0));
    }

    #[test]
    fn edges_of_a_stripe() {
        for k in [1, 2, 4, 10, 11, 17] {
            let cell = default_cell_bytes(k);
            let stripe = u64::from(cell) * u64::try_from(k).unwrap();
            for bytes in
                [0, 1, 63, 64, 65, 64 * 17, stripe - 1, stripe, stripe + 1, 3 * stripe - 1, 3 * stripe, 64 << 20]
            {
                check(k, cell, bytes);
            }
        }
    }

    #[test]
    fn the_layout_of_a_small_object_is_frozen() {
        // 20 KiB over 4 data shards: one stripe, cells of 5 KiB, not 64 KiB.
        let geometry = Geometry::new(4, default_cell_bytes(4), 20 << 10);
        assert_eq!((geometry.stripe_count(), geometry.shard_bytes()), (1, 5 << 10));
        // One full stripe and one byte: the second stripe has cells of 64 bytes.
        let geometry = Geometry::new(4, 65536, 4 * 65536 + 1);
        assert_eq!((geometry.stripe_count(), geometry.shard_bytes()), (2, 65536 + 64));
        assert_eq!(geometry.stripe(1), Stripe { index: 1, offset: 4 * 65536, bytes: 1, cell_bytes: 64 });
        assert_eq!((default_cell_bytes(10), default_cell_bytes(11)), (65536, 32768));
    }

    proptest! {
        #[test]
        fn stripes_cover_the_segment_exactly(k in 1usize..40, cells in 1u32..40, bytes in 0u64..400_000) {
            check(k, cells * 64, bytes);
        }

        #[test]
        fn ranges_map_to_the_stripes_that_hold_them(k in 1usize..20, cells in 1u32..8, bytes in 0u64..60_000,
                                                    start in 0u64..70_000, len in 0u64..70_000) {
            let geometry = Geometry::new(k, cells * 64, bytes);
            let range = start..start + len;
            let touched: Vec<u32> = geometry.stripes()
                .filter(|s| len > 0 && s.range().start < range.end && range.start < s.range().end)
                .map(|s| s.index)
                .collect();
            prop_assert_eq!(geometry.stripes_for(range).collect::<Vec<_>>(), touched);
        }

        #[test]
        fn no_number_overflows(k: usize, cell: u32, bytes: u64, index: u32, slot: usize, start: u64, end: u64) {
            let geometry = Geometry::new(k, cell, bytes);
            let stripe = geometry.stripe(index);
            prop_assert!(stripe.offset <= bytes && stripe.range().end <= bytes);
            prop_assert!(stripe.data_range(slot).end <= bytes);
            prop_assert!(geometry.cell_offset(index) <= geometry.shard_bytes());
            prop_assert!(geometry.stripes_for(start..end).end <= geometry.stripe_count());
        }
    }

    #[test]
    fn the_largest_numbers_do_not_panic() {
        for (k, cell, bytes) in
            [(0, 0, 0), (0, 0, u64::MAX), (usize::MAX, u32::MAX, u64::MAX), (1, 1, u64::MAX), (1, u32::MAX, u64::MAX)]
        {
            let geometry = Geometry::new(k, cell, bytes);
            let _ = (geometry.shard_bytes(), geometry.stripe_count(), geometry.stripe(u32::MAX));
            let _ =
                (geometry.stripes_for(0..u64::MAX), geometry.stripes_for(u64::MAX..0), geometry.cell_offset(u32::MAX));
        }
    }
}
