//! Which versions are being read by streams under way, so that the shards of one that is deleted or overwritten meanwhile
//! stay until its readers have ended.
//!
//! **Invariant:** a version is entered before its first shard is read and leaves with the last reader of it.

use holdfast_proto::SegmentId;
use holdfast_proto::manifest::ObjectVersion;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The versions being read, one entry a stream.
#[derive(Default)]
pub(crate) struct Readers {
    next: AtomicU64,
    versions: Mutex<BTreeMap<u64, Arc<ObjectVersion>>>,
}

/// Keeps a version entered until dropped.
pub(crate) struct ReaderGuard {
    all: Arc<Readers>,
    number: u64,
}

impl Readers {
    /// Enters a version.
    pub(crate) fn enter(self: &Arc<Self>, version: Arc<ObjectVersion>) -> ReaderGuard {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.versions.lock().insert(number, version);
        ReaderGuard { all: self.clone(), number }
    }

    /// The segments of all of them.
    pub(crate) fn segments(&self) -> BTreeSet<SegmentId> {
        // Cloned out of the lock: a version may have very many segments.
        let versions: Vec<Arc<ObjectVersion>> = self.versions.lock().values().cloned().collect();
        versions.iter().flat_map(|version| &version.segments).map(|segment| segment.segment_id()).collect()
    }
}

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        self.all.versions.lock().remove(&self.number);
    }
}
