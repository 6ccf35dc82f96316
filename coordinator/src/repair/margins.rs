//! How many segments and bytes stand at each margin, and what is still to be written.
//!
//! **Invariant:** counts never go below zero; a segment is counted in exactly one row.

use holdfast_proto::admin::MarginRow;
use std::collections::BTreeMap;

/// Segments and object bytes by margin, with the work that is known to be left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarginTable {
    rows: BTreeMap<i32, (u64, u64)>,
    shards_to_write: u64,
    bytes_to_write: u64,
}

/// Margins below this are all "lost": shown as one row.
const LOST: i32 = -1;

impl MarginTable {
    /// Counts a segment at `margin`.
    pub fn record(&mut self, margin: i32, segment_bytes: u64) {
        let row = self.rows.entry(margin.max(LOST)).or_default();
        row.0 += 1;
        row.1 += segment_bytes;
    }

    /// Counts work found.
    pub fn add_work(&mut self, shards: u64, bytes: u64) {
        self.shards_to_write += shards;
        self.bytes_to_write += bytes;
    }

    /// Counts work done or no longer needed.
    pub fn remove_work(&mut self, shards: u64, bytes: u64) {
        self.shards_to_write = self.shards_to_write.saturating_sub(shards);
        self.bytes_to_write = self.bytes_to_write.saturating_sub(bytes);
    }

    /// Moves a segment from one margin to another; one that is not in `from` (counted since) is left alone.
    pub fn shift(&mut self, from: i32, to: i32, segment_bytes: u64) {
        let (from, to) = (from.max(LOST), to.max(LOST));
        if from == to || !self.forget(from, segment_bytes) {
            return;
        }
        self.record(to, segment_bytes);
    }

    /// Takes a segment out (deleted meanwhile). Returns whether it was counted there.
    pub fn forget(&mut self, margin: i32, segment_bytes: u64) -> bool {
        let Some(row) = self.rows.get_mut(&margin.max(LOST)).filter(|row| row.0 > 0) else { return false };
        row.0 -= 1;
        row.1 = row.1.saturating_sub(segment_bytes);
        true
    }

    /// The smallest margin any segment has; `None` without segments.
    pub fn worst(&self) -> Option<i32> {
        self.rows.iter().find(|(_, (segments, _))| *segments > 0).map(|(margin, _)| *margin)
    }

    /// Segments below `margin`.
    pub fn below(&self, margin: i32) -> u64 {
        self.rows.range(..margin).map(|(_, (segments, _))| segments).sum()
    }

    /// Shards still to write.
    pub fn shards_to_write(&self) -> u64 {
        self.shards_to_write
    }

    /// Bytes still to write.
    pub fn bytes_to_write(&self) -> u64 {
        self.bytes_to_write
    }

    /// Rows for people, fewest first: -1 and `0..=target` always, others when occupied.
    pub fn rows(&self, target: i32) -> Vec<MarginRow> {
        let mut all = self.rows.clone();
        for margin in LOST..=target {
            all.entry(margin).or_default();
        }
        let row = |(margin, (segments, bytes))| MarginRow { margin, segments, bytes };
        all.into_iter().map(row).filter(|r| r.segments > 0 || r.margin <= target).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_move_between_rows_and_never_vanish() {
        let mut table = MarginTable::default();
        table.record(2, 100);
        table.record(0, 7);
        table.record(-3, 5);
        table.add_work(3, 30);
        let shape = |t: &MarginTable| t.rows(2).iter().map(|r| (r.margin, r.segments, r.bytes)).collect::<Vec<_>>();
        assert_eq!(shape(&table), [(-1, 1, 5), (0, 1, 7), (1, 0, 0), (2, 1, 100)]);
        assert_eq!((table.worst(), table.below(2)), (Some(-1), 2));
        table.shift(0, 2, 7);
        table.shift(-2, 2, 5);
        table.shift(1, 2, 9);
        assert_eq!(shape(&table), [(-1, 0, 0), (0, 0, 0), (1, 0, 0), (2, 3, 112)]);
        assert_eq!((table.worst(), table.below(2)), (Some(2), 0));
        table.remove_work(5, 50);
        assert_eq!((table.shards_to_write(), table.bytes_to_write()), (0, 0));
    }
}
