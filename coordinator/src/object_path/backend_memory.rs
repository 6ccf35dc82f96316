//! Which backends failed a read a moment ago: they are asked last for a while, so that one dead disk does not cost
//! every read a failed attempt or a wait.
//!
//! Shell: reads the clock. Not here: whether a backend is healthy (`maintenance` probes that).

use holdfast_proto::BackendId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a failure counts: long enough to spare a busy server thousands of failing reads, short enough that a
/// backend that is back is used again at once, as people see it.
const REMEMBERED: Duration = Duration::from_secs(3);

/// Recent failures by backend.
#[derive(Default)]
pub(crate) struct BackendMemory {
    failed: Mutex<HashMap<BackendId, Instant>>,
}

impl BackendMemory {
    /// The backend failed or hung, as a whole: not for a single shard's damage.
    pub(crate) fn record_failure(&self, backend: BackendId) {
        self.failed.lock().insert(backend, Instant::now());
    }

    /// Whether it failed a moment ago.
    pub(crate) fn avoids(&self, backend: BackendId) -> bool {
        let mut failed = self.failed.lock();
        let Some(at) = failed.get(&backend) else { return false };
        let is_recent = at.elapsed() < REMEMBERED;
        if !is_recent {
            failed.remove(&backend);
        }
        is_recent
    }
}
