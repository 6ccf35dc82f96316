//! One configured backend: open, being opened, or closed with a reason; and the last that it said of itself.
//!
//! **Invariants:** a backend that has not answered is not asked again before it does; one that is found unreadable is
//! let go before its directory is opened anew.

use crate::local_node::BackendSpec;
use crate::location::Location;
use crate::opener::Closed;
use holdfast_backends::Backend;
use holdfast_proto::node::{BackendHealth, BackendStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Waits between two tries to open a backend that failed: a device with errors is not helped by being asked often.
const REOPEN_FIRST: Duration = Duration::from_secs(5);
const REOPEN_MAX: Duration = Duration::from_secs(300);
/// A backend that worked for so long starts again with the first wait when it fails.
const STEADY_AFTER: Duration = Duration::from_secs(600);
/// A backend silent for so long has failed: well above the worst queue of a loaded rotating disk.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What opening ends in.
pub(crate) type Opened = Result<Arc<dyn Backend>, Closed>;

/// Where a backend stands. A handle is absent only while a probe waits for it.
pub(crate) enum State {
    /// In use.
    Open {
        backend: Arc<dyn Backend>,
        location: Location,
        /// A status asked for and not answered yet.
        asked: Option<Asked>,
        last: Option<BackendStatus>,
    },
    /// Being opened and brought up to date in a thread of its own.
    Opening { work: Option<JoinHandle<Opened>>, location: Location },
    /// Being let go, so that its directory can be opened anew.
    Closing { work: Option<JoinHandle<()>>, why: Closed, location: Location },
    /// Not there, or not usable.
    Closed { why: Closed, retry_at: Instant },
}

/// A question on its way. It stays noted while a probe waits for the answer, so that silence shows all the time.
pub(crate) struct Asked {
    pub(crate) work: Option<JoinHandle<BackendStatus>>,
    pub(crate) since: Instant,
}

impl Asked {
    /// Why the backend has failed, if it has been silent for too long.
    fn silence(&self) -> Option<String> {
        let seconds = self.since.elapsed();
        (seconds > SILENCE_MAX).then(|| format!("it has not answered for {} s", seconds.as_secs()))
    }
}

/// One configured backend.
pub(crate) struct Attachment {
    pub(crate) spec: BackendSpec,
    pub(crate) location: Option<Location>,
    pub(crate) state: State,
    failures: u32,
    opened_at: Option<Instant>,
}

impl Attachment {
    pub(crate) fn new(spec: BackendSpec, location: Option<Location>, state: State) -> Self {
        Self { spec, location, state, failures: 0, opened_at: None }
    }

    pub(crate) fn closed(spec: BackendSpec, location: Option<Location>, why: Closed) -> Self {
        Self::new(spec, location, State::Closed { why, retry_at: Instant::now() })
    }

    /// The open backend, or why there is none to be used. One that is silent gets no more work: callers would only
    /// gather before it.
    pub(crate) fn backend(&self) -> Result<Arc<dyn Backend>, String> {
        match &self.state {
            State::Open { backend, asked, .. } => {
                asked.as_ref().and_then(Asked::silence).map_or_else(|| Ok(backend.clone()), Err)
            }
            State::Opening { .. } => Err("it is being opened".to_owned()),
            State::Closing { why, .. } | State::Closed { why, .. } => Err(why.reason.clone()),
        }
    }

    /// The backend, if it is open, silent or not.
    pub(crate) fn open_backend(&self) -> Option<Arc<dyn Backend>> {
        match &self.state {
            State::Open { backend, .. } => Some(backend.clone()),
            _ => None,
        }
    }

    /// The directory it holds or is about to hold; nobody else may open it.
    pub(crate) fn held_location(&self) -> Option<&Location> {
        match &self.state {
            State::Open { location, .. } | State::Opening { location, .. } | State::Closing { location, .. } => {
                Some(location)
            }
            State::Closed { .. } => None,
        }
    }

    /// Whether it is closed and due to be looked for.
    pub(crate) fn is_wanted(&self, now: Instant) -> bool {
        matches!(&self.state, State::Closed { retry_at, .. } if *retry_at <= now)
    }

    /// Notes that it was opened.
    pub(crate) fn opened(&mut self, backend: Arc<dyn Backend>, location: Location) {
        match &self.location {
            Some(own) if *own == location => {
                tracing::debug!(name = self.spec.name, id = %self.spec.id, %location, "backend opened");
            }
            _ => tracing::warn!(
                name = self.spec.name,
                id = %self.spec.id,
                found = %location,
                configured = self.spec.location,
                "backend found in another place than configured, and used there"
            ),
        }
        self.opened_at = Some(Instant::now());
        self.state = State::Open { backend, location, asked: None, last: None };
    }

    /// Notes that it is not usable; when it is looked for again depends on why.
    pub(crate) fn close(&mut self, why: Closed) {
        if self.opened_at.take().is_some_and(|at| at.elapsed() >= STEADY_AFTER) {
            self.failures = 0;
        }
        let wait = match why.health {
            BackendHealth::Failed => {
                self.failures += 1;
                REOPEN_FIRST.saturating_mul(1 << (self.failures - 1).min(16)).min(REOPEN_MAX)
            }
            // Looking whether a directory is there costs nothing: at every probe.
            _ => Duration::ZERO,
        };
        self.state = State::Closed { why, retry_at: Instant::now() + wait };
    }

    /// As it is now, without asking.
    pub(crate) fn status(&self) -> BackendStatus {
        let (health, reason) = match &self.state {
            State::Open { asked, last, location, .. } => match (asked.as_ref().and_then(Asked::silence), last) {
                (Some(silence), _) => (BackendHealth::Failed, silence),
                (None, Some(last)) => {
                    let (name, location) = (self.spec.name.clone(), location.to_string());
                    return BackendStatus { name, location, ..last.clone() };
                }
                (None, None) => (BackendHealth::Online, String::new()),
            },
            State::Opening { .. } => (BackendHealth::Missing, "it is being opened".to_owned()),
            State::Closing { why, .. } | State::Closed { why, .. } => (why.health, why.reason.clone()),
        };
        let location = self.held_location().or(self.location.as_ref());
        BackendStatus {
            id: self.spec.id,
            name: self.spec.name.clone(),
            location: location.map_or_else(|| self.spec.location.clone(), Location::to_string),
            health,
            reason,
            capacity_bytes: 0,
            free_bytes: 0,
            used_bytes: 0,
            shard_count: 0,
            scrubbed_ms: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_backends::MemoryBackend;
    use holdfast_proto::{BackendId, ClusterId};

    #[test]
    fn a_silent_backend_gets_no_more_work_and_says_why_even_while_it_is_being_waited_for() {
        let id = BackendId([1; 16]);
        let spec = BackendSpec { id, name: "d1".to_owned(), location: "disk:/d1".to_owned() };
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new(ClusterId([2; 16]), id, 1 << 20));
        let location: Location = "disk:/d1".parse().unwrap();
        for (silent_for, is_silent) in [(Duration::ZERO, false), (SILENCE_MAX * 2, true)] {
            let since = Instant::now().checked_sub(silent_for).unwrap();
            let asked = Some(Asked { work: None, since });
            let state = State::Open { backend: backend.clone(), location: location.clone(), asked, last: None };
            let attachment = Attachment::new(spec.clone(), Some(location.clone()), state);
            assert_eq!(attachment.backend().is_err(), is_silent);
            let expected = if is_silent { BackendHealth::Failed } else { BackendHealth::Online };
            assert_eq!(attachment.status().health, expected);
            assert!(attachment.open_backend().is_some(), "it can still be closed");
        }
    }
}
