//! What requests under way do with segments.

use holdfast_proto::{Epoch, SegmentId};
use std::collections::{BTreeMap, BTreeSet};

/// What is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Segments being written, each with the epoch its shards are placed by. A write makes its record before it leaves
    /// this list: ask here first and the metadata second, and a segment in neither is an orphan.
    pub writing: BTreeMap<SegmentId, Epoch>,
    /// Segments of versions that are being read.
    pub reading: BTreeSet<SegmentId>,
}

impl Activity {
    /// The oldest epoch that a write under way places its shards by; `None` if nothing is being written.
    pub fn oldest_epoch(&self) -> Option<Epoch> {
        self.writing.values().min().copied()
    }

    /// Whether no write places shards by a layout older than `epoch` any more.
    pub fn is_fenced(&self, epoch: Epoch) -> bool {
        self.oldest_epoch().is_none_or(|oldest| oldest >= epoch)
    }

    /// Takes in what another coordinator does.
    pub fn merge(&mut self, other: Self) {
        for (segment, epoch) in other.writing {
            let oldest = self.writing.entry(segment).or_insert(epoch);
            *oldest = epoch.min(*oldest);
        }
        self.reading.extend(other.reading);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_united_with_the_oldest_epoch_of_each_segment() {
        let (a, b) = (SegmentId([1; 16]), SegmentId([2; 16]));
        let mut all = Activity { writing: BTreeMap::from([(a, Epoch(5))]), reading: BTreeSet::from([a]) };
        assert_eq!(Activity::default().oldest_epoch(), None);
        assert!(Activity::default().is_fenced(Epoch(9)));
        all.merge(Activity { writing: BTreeMap::from([(a, Epoch(3)), (b, Epoch(7))]), reading: BTreeSet::from([b]) });
        assert_eq!(all.writing, BTreeMap::from([(a, Epoch(3)), (b, Epoch(7))]));
        assert_eq!(all.reading, BTreeSet::from([a, b]));
        assert!(all.is_fenced(Epoch(3)));
        assert!(!all.is_fenced(Epoch(4)));
    }
}
