//! The cluster map every request works by: the newest one this process knows, swapped as a whole.
//!
//! Invariant: the epoch only grows.

use crate::metadata::ClusterMap;
use parking_lot::RwLock;
use std::sync::Arc;

/// Shared, cheap to clone and to read.
#[derive(Clone)]
pub struct Layout {
    current: Arc<RwLock<Arc<ClusterMap>>>,
}

impl Layout {
    /// Starts with `map`.
    pub fn new(map: ClusterMap) -> Self {
        Self { current: Arc::new(RwLock::new(Arc::new(map))) }
    }

    /// The newest map. Hold it for one request, not longer.
    pub fn current(&self) -> Arc<ClusterMap> {
        self.current.read().clone()
    }

    /// Takes a newer map; an older or equal epoch is ignored.
    pub fn advance(&self, map: ClusterMap) {
        let mut current = self.current.write();
        if map.table.epoch > current.table.epoch {
            *current = Arc::new(map);
        }
    }
}
