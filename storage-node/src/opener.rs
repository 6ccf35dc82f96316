//! What turns a location into an open backend. Everything here blocks; callers keep it off the async threads.

use crate::location::Location;
use holdfast_backends::{Backend, DiskBackend, DiskOptions, FormatError, OpenError};
use holdfast_proto::node::{BackendHealth, ShardError};
use holdfast_proto::{BackendId, ClusterId};
use std::sync::Arc;

/// Why a backend is not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) health: BackendHealth,
    pub(crate) reason: String,
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
pub(crate) struct Found {
    pub(crate) cluster: ClusterId,
    pub(crate) id: BackendId,
}

/// Reads who is at a location.
pub(crate) fn identify(location: &Location) -> Result<Found, Closed> {
    let identity = DiskBackend::identify(location.directory())?;
    Ok(Found { cluster: identity.cluster, id: identity.id })
}

/// Opens a backend and tells what it found.
pub(crate) fn open(
    location: &Location,
    cluster: ClusterId,
    id: BackendId,
    options: DiskOptions,
) -> Result<Arc<dyn Backend>, Closed> {
    let backend = DiskBackend::open_with(location.directory(), cluster, id, options)?;
    for finding in backend.findings() {
        tracing::warn!(%location, %id, finding, "found while opening a backend");
    }
    Ok(Arc::new(backend))
}

/// Formats an empty or absent directory.
pub(crate) fn format(location: &Location, cluster: ClusterId, id: BackendId, name: &str) -> Result<(), ShardError> {
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
