//! What turns a location into an open backend: a directory of a disk in the product, something else in a simulation.

use crate::disk_faults::DiskFaults;
use crate::location::Location;
use holdfast_backends::{Backend, DiskBackend, DiskOptions, FormatError, OpenError};
use holdfast_proto::node::{BackendHealth, ShardError};
use holdfast_proto::{BackendId, ClusterId};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::{JoinHandle, spawn_blocking};

/// Why a backend is not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// How it is.
    pub health: BackendHealth,
    /// For people.
    pub reason: String,
}

impl Closed {
    pub(crate) fn missing(reason: impl Into<String>) -> Self {
        Self { health: BackendHealth::Missing, reason: reason.into() }
    }
}

impl From<OpenError> for Closed {
    fn from(error: OpenError) -> Self {
        // A lock is let go sooner or later: waited for like an absence, not taken as a loss.
        let health = match &error {
            OpenError::Locked { .. } => BackendHealth::Missing,
            other => other.health(),
        };
        Self { health, reason: error.to_string() }
    }
}

/// Which backend a directory says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Which of its backends.
    pub id: BackendId,
}

/// Opens and makes backends. Calls may block; the node keeps them off the async threads, unless told otherwise.
pub trait BackendOpener: Debug + Send + Sync + 'static {
    /// Reads who is at a location.
    fn identify(&self, location: &Location) -> Result<Found, Closed>;

    /// Opens a backend that must be there; `name` is what people call it.
    fn open(
        &self,
        location: &Location,
        cluster: ClusterId,
        id: BackendId,
        name: &str,
    ) -> Result<Arc<dyn Backend>, Closed>;

    /// Makes an empty backend in a place that holds nothing.
    fn format(&self, location: &Location, cluster: ClusterId, id: BackendId, name: &str) -> Result<(), ShardError>;

    /// An id that no backend has.
    fn new_id(&self) -> BackendId;

    /// Whether its calls return at once and may be made anywhere.
    fn is_immediate(&self) -> bool {
        false
    }
}

/// Begins a call of `opener` where it may take its time.
pub(crate) fn begin<T: Send + 'static>(
    opener: &Arc<dyn BackendOpener>,
    call: impl FnOnce(&dyn BackendOpener) -> T + Send + 'static,
) -> JoinHandle<T> {
    if opener.is_immediate() {
        let called = call(&**opener);
        return tokio::spawn(std::future::ready(called));
    }
    let opener = opener.clone();
    spawn_blocking(move || call(&*opener))
}

/// Backends in directories.
#[derive(Clone, Debug, Default)]
pub struct DiskOpener {
    /// Settings of each.
    pub options: DiskOptions,
    /// Puts faults in front of each; `None` on a server that was not started for them.
    pub faults: Option<Arc<DiskFaults>>,
}

impl BackendOpener for DiskOpener {
    fn identify(&self, location: &Location) -> Result<Found, Closed> {
        let identity = DiskBackend::identify(location.directory())?;
        Ok(Found { cluster: identity.cluster, id: identity.id })
    }

    fn open(
        &self,
        location: &Location,
        cluster: ClusterId,
        id: BackendId,
        name: &str,
    ) -> Result<Arc<dyn Backend>, Closed> {
        let backend = DiskBackend::open_with(location.directory(), cluster, id, self.options.clone())?;
        for finding in backend.findings() {
            tracing::warn!(%location, %id, finding, "found while opening a backend");
        }
        Ok(match &self.faults {
            Some(faults) => faults.wrap(name, backend),
            None => Arc::new(backend),
        })
    }

    fn format(&self, location: &Location, cluster: ClusterId, id: BackendId, name: &str) -> Result<(), ShardError> {
        match DiskBackend::format(location.directory(), cluster, id, name) {
            Ok(_) => Ok(()),
            Err(error @ (FormatError::NotEmpty { .. } | FormatError::NotADirectory { .. })) => {
                Err(ShardError::Invalid { reason: format!("{location} cannot become a backend: {error}") })
            }
            Err(FormatError::Io { action, reason, .. }) => {
                Err(ShardError::Io { backend: id, action: action.into(), reason: format!("{reason} ({location})") })
            }
        }
    }

    /// The time and 80 random bits.
    fn new_id(&self) -> BackendId {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        BackendId::from_parts(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), rand::random())
    }
}
