//! Which segments are being written by requests under way, and by which epoch of the cluster map.
//!
//! **Invariant:** a segment is entered before any of its shards can exist and leaves after its record is durable, or
//! after its shards were given up. So whoever finds a shard asks here first and the metadata second: a segment that is
//! in neither is an orphan.

use crate::layout::Layout;
use crate::metadata::ClusterMap;
use holdfast_proto::{Epoch, SegmentId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The segments being written.
#[derive(Default)]
pub(crate) struct InFlight {
    segments: Mutex<BTreeMap<SegmentId, Epoch>>,
}

/// Keeps one segment in flight until dropped.
pub(crate) struct InFlightGuard {
    all: Arc<InFlight>,
    segment: SegmentId,
}

impl InFlight {
    /// Enters `segment` under the newest cluster map, which is returned: the one its shards must be written by.
    ///
    /// Both happen under one lock, so that after `Layout::advance` no older epoch can be entered unseen.
    pub(crate) fn enter(self: &Arc<Self>, segment: SegmentId, layout: &Layout) -> (InFlightGuard, Arc<ClusterMap>) {
        let mut segments = self.segments.lock();
        let map = layout.current();
        segments.insert(segment, map.table.epoch);
        drop(segments);
        (InFlightGuard { all: self.clone(), segment }, map)
    }

    /// Each segment with the epoch its shards are placed by.
    pub(crate) fn segments(&self) -> BTreeMap<SegmentId, Epoch> {
        self.segments.lock().clone()
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.all.segments.lock().remove(&self.segment);
    }
}
