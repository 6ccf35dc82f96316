//! Why an administration call failed, by what the caller can do about it.

use holdfast_proto::ErrorKind;
use holdfast_proto::admin::AdminError;

/// A failed administration call. Variants that carry an [`AdminError`] were answered by the server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminClientError {
    /// The address of the server is not one.
    #[error("{endpoint:?} is not an administration endpoint: {reason}")]
    InvalidEndpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answered there.
    #[error("no answer from {endpoint}: {reason}")]
    Unreachable {
        /// Who was asked.
        endpoint: String,
        /// Cause.
        reason: String,
    },
    /// The server did not answer in time; the outcome of a change is unknown.
    #[error("{endpoint} did not answer within {seconds} s")]
    TimedOut {
        /// Who was asked.
        endpoint: String,
        /// The limit.
        seconds: u64,
    },
    /// Something answered, but not an administration endpoint of this version.
    #[error("{endpoint} answered {status} with something else than expected: {reason}")]
    UnexpectedAnswer {
        /// Who was asked.
        endpoint: String,
        /// HTTP status.
        status: u16,
        /// What could not be read.
        reason: String,
    },
    /// The key is unknown, its signature wrong, or it may not administer (401, 403).
    #[error("{}", .0.message)]
    Denied(AdminError),
    /// What was named does not exist (404).
    #[error("{}", .0.message)]
    NotFound(AdminError),
    /// The arguments can never succeed (400, 413).
    #[error("{}", .0.message)]
    Invalid(AdminError),
    /// The store, as it is now, refuses (409, 507).
    #[error("{}", .0.message)]
    Refused(AdminError),
    /// The same call may succeed later (503).
    #[error("{}", .0.message)]
    Busy(AdminError),
    /// The server failed (500).
    #[error("{}", .0.message)]
    Failed(AdminError),
}

impl AdminClientError {
    /// By HTTP status of an answer that carried an [`AdminError`].
    pub fn from_status(status: u16, error: AdminError) -> Self {
        match status {
            401 | 403 => Self::Denied(error),
            404 | 405 => Self::NotFound(error),
            400 | 411 | 413 | 415 | 422 => Self::Invalid(error),
            409 | 412 | 507 => Self::Refused(error),
            408 | 429 | 503 => Self::Busy(error),
            _ => Self::Failed(error),
        }
    }

    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidEndpoint { .. } | Self::Invalid(_) => ErrorKind::Invalid,
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Busy(_) => ErrorKind::Retry,
            Self::Denied(_) => ErrorKind::Denied,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Refused(_) => ErrorKind::Conflict,
            Self::UnexpectedAnswer { .. } | Self::Failed(_) => ErrorKind::Internal,
        }
    }

    /// What the server said, if it was the server that refused.
    pub fn answer(&self) -> Option<&AdminError> {
        match self {
            Self::Denied(e)
            | Self::NotFound(e)
            | Self::Invalid(e)
            | Self::Refused(e)
            | Self::Busy(e)
            | Self::Failed(e) => Some(e),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_kinds() {
        let cases = [
            (401, ErrorKind::Denied),
            (403, ErrorKind::Denied),
            (404, ErrorKind::NotFound),
            (400, ErrorKind::Invalid),
            (413, ErrorKind::Invalid),
            (409, ErrorKind::Conflict),
            (507, ErrorKind::Conflict),
            (503, ErrorKind::Retry),
            (500, ErrorKind::Internal),
            (418, ErrorKind::Internal),
        ];
        for (status, kind) in cases {
            let error = AdminError { code: "HF9001".into(), message: "m".into(), next_step: String::new() };
            assert_eq!(AdminClientError::from_status(status, error).kind(), kind, "{status}");
        }
    }
}
