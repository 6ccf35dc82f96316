//! The typed S3 operations, on `s3s`: what a request asks of metadata and the object path, and how the answer looks.
//!
//! The door has authenticated every request that gets here; the proof is the `RequestContext` in its extensions,
//! without which every operation answers `AccessDenied`. What is not implemented answers `NotImplemented`.

mod acl;
mod attributes;
mod bucket;
mod checksums;
mod completion;
mod conditions;
mod copy;
mod delete;
mod dispatch;
mod encryption;
mod listing;
mod multipart;
mod names;
mod put;
mod read;
mod tagging;

use super::context::RequestContext;
use super::error::{from_metadata, invalid_argument};
use crate::clock::now_ms;
use crate::metadata::{Metadata, VersionSelector};
use crate::object_path::ObjectPath;
use holdfast_proto::VersionId;
use holdfast_proto::manifest::{Bucket, Versioning};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::{Owner, Timestamp};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::validation::NameValidation;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Settings of the operations.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// The region buckets are said to be in.
    pub region: String,
}

impl Default for S3Options {
    fn default() -> Self {
        Self { region: "us-east-1".to_owned() }
    }
}

/// Largest XML body: DeleteObjects of 1000 keys of 1024 bytes, each byte escaped, stays below it.
const XML_BYTES_MAX: usize = 8 << 20;

/// Who the caller believes owns the bucket.
const EXPECTED_OWNER: &str = "x-amz-expected-bucket-owner";
/// Who the caller believes owns the bucket a copy is read from.
const SOURCE_EXPECTED_OWNER: &str = "x-amz-source-expected-bucket-owner";

/// The S3 service to put behind the door.
pub fn service(metadata: Arc<dyn Metadata>, objects: ObjectPath, options: S3Options) -> S3Service {
    let mut builder = S3ServiceBuilder::new(Operations { metadata, objects, options });
    let mut config = S3Config::default();
    config.xml_max_body_size = XML_BYTES_MAX;
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.set_validation(AnyName);
    builder.build()
}

/// Names are judged where a bucket is made; elsewhere a wrong name is simply a bucket that is not there.
struct AnyName;

impl NameValidation for AnyName {
    fn validate_bucket_name(&self, name: &str) -> bool {
        !name.is_empty()
    }
}

/// All operations.
struct Operations {
    metadata: Arc<dyn Metadata>,
    objects: ObjectPath,
    options: S3Options,
}

impl Operations {
    fn context<'r, T>(&self, request: &'r S3Request<T>) -> S3Result<&'r RequestContext> {
        request.extensions.get::<RequestContext>().ok_or_else(|| S3Error::new(S3ErrorCode::AccessDenied))
    }

    /// The bucket a request names, if the caller may use it (its owner, or the root key), and if its owner is who the
    /// caller expects. Borrows nothing of the request while it waits: not every body may be shared between threads.
    fn bucket<T>(
        &self,
        request: &S3Request<T>,
        name: &str,
    ) -> impl Future<Output = S3Result<Bucket>> + Send + use<'_, T> {
        self.bucket_expecting(request, name, EXPECTED_OWNER)
    }

    /// The same, with the header that names the expected owner.
    fn bucket_expecting<T>(
        &self,
        request: &S3Request<T>,
        name: &str,
        expected: &str,
    ) -> impl Future<Output = S3Result<Bucket>> + Send + use<'_, T> {
        let principal = self.context(request).map(|context| context.principal.clone());
        let (name, expected) = (name.to_owned(), request.headers.get(expected).cloned());
        async move {
            let principal = principal?;
            let bucket = self.metadata.find_bucket(&name).await.s3()?.ok_or_else(|| {
                S3Error::with_message(S3ErrorCode::NoSuchBucket, format!("The specified bucket does not exist: {name}"))
            })?;
            let permitted = bucket.owner == principal.access_key || principal.is_root;
            let as_expected = expected.is_none_or(|owner| owner.as_bytes() == bucket.owner.as_bytes());
            if permitted && as_expected { Ok(bucket) } else { Err(S3Error::new(S3ErrorCode::AccessDenied)) }
        }
    }

    fn owner(&self, id: &str) -> Owner {
        let name = self.metadata.access_key(id).map(|k| k.name).filter(|n| !n.is_empty());
        Owner { display_name: Some(name.unwrap_or_else(|| id.to_owned())), id: Some(id.to_owned()) }
    }
}

fn versioning_of(bucket: &Bucket) -> Versioning {
    Versioning::try_from(bucket.versioning).unwrap_or(Versioning::Unversioned)
}

fn timestamp(ms: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(ms))
}

/// Milliseconds since 1970 of a time a client named; times before count as 0.
fn millis(timestamp: &Timestamp) -> u64 {
    let time: time::OffsetDateTime = timestamp.clone().into();
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

/// A fresh time-ordered id.
fn new_version_id() -> VersionId {
    VersionId::from_parts(now_ms(), rand::random())
}

/// `versionId` as clients send it.
fn selector(version: Option<&str>) -> S3Result<VersionSelector> {
    match version {
        None | Some("") => Ok(VersionSelector::Current),
        Some("null") => Ok(VersionSelector::Null),
        Some(text) => text
            .parse()
            .map(VersionSelector::Id)
            .map_err(|_| invalid_argument(format!("Invalid version id specified: {text}"))),
    }
}

/// `uploadId` as clients send it; one that cannot be ours does not exist.
fn upload_id(text: &str) -> S3Result<VersionId> {
    text.parse().map_err(|_| S3Error::with_message(S3ErrorCode::NoSuchUpload, "The specified upload does not exist."))
}

/// Keys are 1 to 1024 bytes.
fn check_key(key: &str) -> S3Result<()> {
    if key.len() > 1024 {
        return Err(S3Error::with_message(S3ErrorCode::KeyTooLongError, "Your key is too long"));
    }
    Ok(())
}

trait MetadataResultExt<T> {
    fn s3(self) -> S3Result<T>;
}

impl<T> MetadataResultExt<T> for Result<T, crate::metadata::MetadataError> {
    fn s3(self) -> S3Result<T> {
        self.map_err(from_metadata)
    }
}
