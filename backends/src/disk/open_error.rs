//! Why a directory cannot be used as a backend, or not be made one. Each cause is one an operator acts on differently.

use holdfast_proto::node::BackendHealth;
use holdfast_proto::{BackendId, ClusterId, ErrorKind};
use std::path::{Path, PathBuf};

/// Why a backend did not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The directory is not there.
    #[error("{} is not there", directory.display())]
    Missing {
        /// Which directory.
        directory: PathBuf,
    },
    /// The directory is there but holds no backend.
    #[error("{} is empty of a backend", directory.display())]
    Wiped {
        /// Which directory.
        directory: PathBuf,
    },
    /// It holds another backend, or another cluster's.
    #[error("{} holds backend {found} of cluster {found_cluster}, not backend {expected}", directory.display())]
    Foreign {
        /// Which directory.
        directory: PathBuf,
        /// The backend looked for.
        expected: BackendId,
        /// The backend found.
        found: BackendId,
        /// The cluster of the one found.
        found_cluster: ClusterId,
    },
    /// Its identity cannot be trusted, or its files are there without one.
    #[error("{} is damaged: {reason}", directory.display())]
    Damaged {
        /// Which directory.
        directory: PathBuf,
        /// What does not hold.
        reason: String,
    },
    /// It was written in a format this build does not know.
    #[error("{} has format {format}, which this build does not know", directory.display())]
    UnknownFormat {
        /// Which directory.
        directory: PathBuf,
        /// The number found.
        format: u32,
    },
    /// Another process, or this one, has it open.
    #[error("{} is in use: another process holds its lock", directory.display())]
    Locked {
        /// Which directory.
        directory: PathBuf,
    },
    /// The operating system or the index refused.
    #[error("{action} in {}: {reason}", directory.display())]
    Io {
        /// Which directory.
        directory: PathBuf,
        /// Verb and object.
        action: &'static str,
        /// The system's words.
        reason: String,
    },
}

impl OpenError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } | Self::Wiped { .. } => ErrorKind::NotFound,
            Self::Foreign { .. } | Self::Locked { .. } => ErrorKind::Conflict,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::UnknownFormat { .. } => ErrorKind::Invalid,
            Self::Io { .. } => ErrorKind::Internal,
        }
    }

    /// The health a node reports for a backend that did not open for this reason.
    pub fn health(&self) -> BackendHealth {
        match self {
            Self::Missing { .. } => BackendHealth::Missing,
            Self::Wiped { .. } => BackendHealth::Wiped,
            Self::Foreign { .. } => BackendHealth::Foreign,
            Self::Damaged { .. } | Self::UnknownFormat { .. } | Self::Locked { .. } | Self::Io { .. } => {
                BackendHealth::Failed
            }
        }
    }

    pub(crate) fn io(directory: &Path, action: &'static str, error: impl std::fmt::Display) -> Self {
        Self::Io { directory: directory.to_owned(), action, reason: error.to_string() }
    }
}

/// Why a directory was not made a backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It holds something, which is left as it is.
    #[error("{} is not empty: it holds {found:?}", directory.display())]
    NotEmpty {
        /// Which directory.
        directory: PathBuf,
        /// The first name found.
        found: String,
    },
    /// It is a file or something else, not a directory.
    #[error("{} is not a directory", directory.display())]
    NotADirectory {
        /// Which path.
        directory: PathBuf,
    },
    /// The operating system refused.
    #[error("{action} in {}: {reason}", directory.display())]
    Io {
        /// Which directory.
        directory: PathBuf,
        /// Verb and object.
        action: &'static str,
        /// The system's words.
        reason: String,
    },
}

impl FormatError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotEmpty { .. } => ErrorKind::Conflict,
            Self::NotADirectory { .. } => ErrorKind::Invalid,
            Self::Io { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(directory: &Path, action: &'static str, error: impl std::fmt::Display) -> Self {
        Self::Io { directory: directory.to_owned(), action, reason: error.to_string() }
    }
}
