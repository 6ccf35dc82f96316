//! How a disk backend is, and what that lets it do. A fault stays until the backend is opened anew: whatever came
//! back in its place must prove itself first.

use holdfast_proto::BackendId;
use holdfast_proto::node::{BackendHealth, ShardError};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// That many reads in a row failing with IO errors make a backend failed: one bad sector is an erasure, a device
/// that answers nothing is gone.
const READ_FAILURES_MAX: u32 = 32;

const ONLINE: u8 = 0;
const READ_ONLY: u8 = 1;
const GONE: u8 = 2;

/// The first grave thing that happened to a backend.
pub(crate) struct Fault {
    backend: BackendId,
    level: AtomicU8,
    detail: Mutex<Option<(BackendHealth, String)>>,
    read_failures: AtomicU32,
}

impl Fault {
    pub(crate) fn none(backend: BackendId) -> Self {
        Self { backend, level: AtomicU8::new(ONLINE), detail: Mutex::new(None), read_failures: AtomicU32::new(0) }
    }

    /// Notes a fault; a graver one replaces a lighter one, and the first of a kind is kept.
    pub(crate) fn raise(&self, health: BackendHealth, reason: &str) {
        let level = if health.can_read() { READ_ONLY } else { GONE };
        let mut detail = self.detail.lock();
        if level <= self.level.load(Ordering::Acquire) {
            return;
        }
        tracing::error!(backend = %self.backend, ?health, reason, "backend fault");
        *detail = Some((health, reason.to_owned()));
        self.level.store(level, Ordering::Release);
    }

    /// The fault, if there is one.
    pub(crate) fn get(&self) -> Option<(BackendHealth, String)> {
        self.detail.lock().clone()
    }

    /// Whether nothing was noted.
    pub(crate) fn is_none(&self) -> bool {
        self.level.load(Ordering::Acquire) == ONLINE
    }

    pub(crate) fn check_read(&self) -> Result<(), ShardError> {
        if self.level.load(Ordering::Acquire) < GONE { Ok(()) } else { Err(self.error()) }
    }

    pub(crate) fn check_write(&self) -> Result<(), ShardError> {
        if self.is_none() { Ok(()) } else { Err(self.error()) }
    }

    /// Counts a read that the device refused.
    pub(crate) fn note_read_failure(&self, error: &std::io::Error) {
        let failures = self.read_failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= READ_FAILURES_MAX {
            self.raise(BackendHealth::Failed, &format!("{failures} reads in a row failed, the last with: {error}"));
        }
    }

    /// A read the device answered.
    pub(crate) fn note_read_success(&self) {
        self.read_failures.store(0, Ordering::Relaxed);
    }

    fn error(&self) -> ShardError {
        let backend = self.backend;
        match self.get() {
            Some((health, reason)) if health.can_read() => ShardError::ReadOnly { backend, reason },
            Some((_, reason)) => ShardError::Unavailable { backend, reason },
            None => ShardError::Unavailable { backend, reason: "in an unknown state".to_owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graver_faults_replace_lighter_ones_only() {
        let fault = Fault::none(BackendId([1; 16]));
        assert!(fault.check_write().is_ok());
        fault.raise(BackendHealth::ReadOnly, "sync failed");
        assert!(matches!(fault.check_write(), Err(ShardError::ReadOnly { .. })));
        assert!(fault.check_read().is_ok());
        fault.raise(BackendHealth::Missing, "gone");
        fault.raise(BackendHealth::ReadOnly, "later");
        fault.raise(BackendHealth::Failed, "later");
        assert_eq!(fault.get(), Some((BackendHealth::Missing, "gone".to_owned())));
        assert!(matches!(fault.check_read(), Err(ShardError::Unavailable { .. })));
    }

    #[test]
    fn only_an_unbroken_run_of_failed_reads_fails_the_backend() {
        let fault = Fault::none(BackendId([1; 16]));
        let error = std::io::Error::from_raw_os_error(5);
        for _ in 0..READ_FAILURES_MAX - 1 {
            fault.note_read_failure(&error);
        }
        fault.note_read_success();
        fault.note_read_failure(&error);
        assert!(fault.check_read().is_ok());
        for _ in 0..READ_FAILURES_MAX {
            fault.note_read_failure(&error);
        }
        assert!(matches!(fault.get(), Some((BackendHealth::Failed, _))));
    }
}
