//! What the administration API asks of repair, scrub and the backends: the least a maintenance service owes it.
//!
//! Not here: buckets and keys, which go straight to the metadata. A call that changes something returns when the
//! change is on stable storage; the work it starts (moving, repairing, scrubbing) goes on after it.

use super::codes::Code;
use crate::metadata::MetadataError;
use async_trait::async_trait;
use holdfast_proto::ErrorKind;
use holdfast_proto::admin::{
    AdminError, BackendAdd, BackendView, ClusterStatus, ObjectView, RepairStatus, ScrubStatus,
};

/// Why an administration call failed, as the operator will read it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct AdminFailure {
    /// Looked up in the table of codes.
    pub code: Code,
    /// Decides the HTTP status.
    pub kind: ErrorKind,
    /// What and why.
    pub message: String,
    /// What to do next; may be empty.
    pub next_step: String,
}

impl AdminFailure {
    /// A failure without a next step.
    pub fn new(code: Code, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { code, kind, message: message.into(), next_step: String::new() }
    }

    /// The same with what to do next.
    pub fn or_try(mut self, next_step: impl Into<String>) -> Self {
        self.next_step = next_step.into();
        self
    }

    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The HTTP status of its kind.
    pub fn status(&self) -> u16 {
        match self.kind {
            ErrorKind::Retry => 503,
            ErrorKind::Refresh | ErrorKind::Conflict => 409,
            ErrorKind::NotFound => 404,
            ErrorKind::Invalid if self.code == Code::TooLarge => 413,
            ErrorKind::Invalid => 400,
            ErrorKind::Denied => 403,
            ErrorKind::Full => 507,
            ErrorKind::Damaged | ErrorKind::Internal => 500,
        }
    }

    /// As it is sent.
    pub fn to_wire(&self) -> AdminError {
        AdminError {
            code: self.code.text().to_owned(),
            message: self.message.clone(),
            next_step: self.next_step.clone(),
        }
    }
}

impl From<MetadataError> for AdminFailure {
    fn from(error: MetadataError) -> Self {
        let code = match &error {
            MetadataError::NoSuchBucket { .. } => Code::NoSuchBucket,
            MetadataError::BucketExists { .. } => Code::BucketExists,
            MetadataError::BucketNotEmpty { .. } => Code::BucketNotEmpty,
            MetadataError::NoSuchKey | MetadataError::NoSuchVersion { .. } | MetadataError::NoSuchUpload { .. } => {
                Code::NoSuchObject
            }
            MetadataError::InvalidPart { .. } | MetadataError::PreconditionFailed { .. } => Code::Internal,
            MetadataError::NoSuchAccessKey { .. } => Code::NoSuchAccessKey,
            MetadataError::AccessKeyExists { .. } => Code::AccessKeyExists,
            MetadataError::StaleEpoch { .. } => Code::StaleEpoch,
            MetadataError::Invalid { .. } => Code::MalformedRequest,
            MetadataError::Full { .. } => Code::MetadataFull,
            MetadataError::Fenced | MetadataError::Unavailable { .. } => Code::MetadataUnavailable,
        };
        Self::new(code, error.kind(), error.to_string())
    }
}

/// Result of an administration call.
pub type AdminResult<T> = Result<T, AdminFailure>;

/// Repair, scrub and backends, as the administration API sees them. A backend is named by its name or its id.
#[async_trait]
pub trait AdminOperations: Send + Sync + 'static {
    /// The state over all.
    async fn cluster_status(&self) -> AdminResult<ClusterStatus>;
    /// All backends, missing ones too.
    async fn backend_list(&self) -> AdminResult<Vec<BackendView>>;
    /// Formats and attaches a backend; data begins to move onto it.
    async fn backend_add(&self, add: BackendAdd) -> AdminResult<BackendView>;
    /// Begins to move everything off a backend. `Conflict` when the rest cannot hold it.
    async fn backend_drain(&self, backend: &str) -> AdminResult<BackendView>;
    /// Forgets a backend. `Conflict` while anything is on it that is nowhere else.
    async fn backend_remove(&self, backend: &str) -> AdminResult<BackendView>;
    /// Formats a new backend that takes every slot of `backend`, which is forgotten once they are rebuilt.
    async fn backend_replace(&self, backend: &str, add: BackendAdd) -> AdminResult<BackendView>;
    /// How far repair is.
    async fn repair_status(&self) -> AdminResult<RepairStatus>;
    /// Scans and repairs now.
    async fn repair_start(&self) -> AdminResult<RepairStatus>;
    /// Holds repair until resumed.
    async fn repair_pause(&self) -> AdminResult<RepairStatus>;
    /// Lets repair go on.
    async fn repair_resume(&self) -> AdminResult<RepairStatus>;
    /// Verifies every shard now.
    async fn scrub_start(&self) -> AdminResult<ScrubStatus>;
    /// How far the scrub is.
    async fn scrub_status(&self) -> AdminResult<ScrubStatus>;
    /// Where every shard of an object is; `version` is an S3 version id.
    async fn object_inspect(&self, bucket: &str, key: &str, version: Option<&str>) -> AdminResult<ObjectView>;
}
