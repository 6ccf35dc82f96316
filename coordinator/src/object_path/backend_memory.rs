//! Which backends failed or hung a moment ago: reads ask them last, and writes leave them out where enough others are,
//! so that one dead or hanging disk does not cost every request a failed attempt or a wait.
//!
//! Shell: reads the clock. Not here: whether a backend is healthy (`maintenance` probes that).

use holdfast_proto::BackendId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a failed read counts: long enough to spare a busy server thousands of failing reads, short enough that a
/// backend that is back is used again at once, as people see it.
pub(crate) const READ_FAILURE: Duration = Duration::from_secs(3);
/// How long a write that hung counts: one write in so many seconds tries the backend again and waits for it.
pub(crate) const WRITE_HANG: Duration = Duration::from_secs(10);

/// Recent failures by backend.
pub(crate) struct BackendMemory {
    failed: Mutex<HashMap<BackendId, Instant>>,
    remembered: Duration,
}

impl BackendMemory {
    /// Remembers each failure for so long.
    pub(crate) fn new(remembered: Duration) -> Self {
        Self { failed: Mutex::default(), remembered }
    }

    /// The backend failed or hung, as a whole: not for a single shard's damage.
    pub(crate) fn record_failure(&self, backend: BackendId) {
        self.failed.lock().insert(backend, Instant::now());
    }

    /// Whether it failed a moment ago.
    pub(crate) fn avoids(&self, backend: BackendId) -> bool {
        let mut failed = self.failed.lock();
        let Some(at) = failed.get(&backend) else { return false };
        let is_recent = at.elapsed() < self.remembered;
        if !is_recent {
            failed.remove(&backend);
        }
        is_recent
    }
}
