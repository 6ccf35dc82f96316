//! CopyObject, and the source of copies.

use super::super::error::{from_object, invalid_argument, invalid_request};
use super::attributes::{given, refuse_unsupported};
use super::checksums::{self, Fields};
use super::conditions::{self, ReadConditions, Verdict};
use super::{Operations, SOURCE_EXPECTED_OWNER, check_key, encryption, put, read, timestamp};
use crate::object_path::{ChecksumAlgorithm, ChecksumExpectation, PutRequest, ReadRequest};
use holdfast_proto::manifest::{Bucket, ObjectVersion};
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use std::sync::Arc;

/// Largest object a single copy takes (S3: 5 GiB; larger ones are copied in parts).
const COPY_BYTES_MAX: u64 = 5 << 30;

/// Where a copy comes from.
pub(super) struct Source {
    pub(super) bucket: Bucket,
    pub(super) key: String,
    pub(super) version: Arc<ObjectVersion>,
}

impl Operations {
    /// Finds the source, if the caller may read it and its conditions hold.
    pub(super) async fn source<T>(
        &self,
        request: &S3Request<T>,
        source: &CopySource,
        conditions: ReadConditions<'_>,
    ) -> S3Result<Source> {
        let CopySource::Bucket { bucket, key, version_id } = source else {
            return Err(invalid_argument("Copy sources are named as bucket/key"));
        };
        encryption::refuse_for_source(&request.headers)?;
        let bucket = self.bucket_expecting(request, bucket, SOURCE_EXPECTED_OWNER).await?;
        let version = self.live_version(&bucket, key, version_id.as_deref()).await.map_err(|error| {
            // A copy of a delete marker by its version is a wrong request, not a wrong method.
            if error.code() == &S3ErrorCode::MethodNotAllowed {
                return invalid_request(
                    "The source of a copy request may not specifically refer to a delete marker by version id.",
                );
            }
            error
        })?;
        if conditions.judge(&version) != Verdict::Proceed {
            return Err(S3Error::with_message(
                S3ErrorCode::PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold",
            ));
        }
        Ok(Source { bucket, key: key.to_string(), version: Arc::new(version) })
    }

    pub(super) async fn copy(&self, mut request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let context = self.context(&request)?.clone();
        let source = self
            .source(
                &request,
                &request.input.copy_source,
                ReadConditions {
                    if_match: request.input.copy_source_if_match.as_ref(),
                    if_none_match: request.input.copy_source_if_none_match.as_ref(),
                    if_modified_since: request.input.copy_source_if_modified_since.as_ref(),
                    if_unmodified_since: request.input.copy_source_if_unmodified_since.as_ref(),
                },
            )
            .await?;
        let input = &mut request.input;
        check_key(&input.key)?;
        encryption::refuse(&request.headers)?;
        refuse_unsupported!(input);
        if source.version.object_bytes > COPY_BYTES_MAX {
            return Err(invalid_request(format!(
                "The specified copy source is larger than the maximum allowable size for a copy source: {COPY_BYTES_MAX}"
            )));
        }
        let replace = directive(input.metadata_directive.as_ref().map(MetadataDirective::as_str), "metadata")?;
        let replace_tags = directive(input.tagging_directive.as_ref().map(TaggingDirective::as_str), "tagging")?;
        let class_changes = input.storage_class.is_some();
        let same = source.bucket.id == bucket.id && source.key == input.key && copies_current(&input.copy_source);
        if same && !replace && !class_changes && input.website_redirect_location.is_none() {
            return Err(invalid_request(
                "This copy request is illegal because it is trying to copy an object to itself without changing the \
                 object's metadata, storage class, website redirect location or encryption attributes.",
            ));
        }
        let given = given!(input).into_attributes()?;
        let mut attributes = crate::metadata::attributes_of(&source.version);
        let old_tags = std::mem::take(&mut attributes.tags);
        if replace {
            attributes = given.clone();
        } else if class_changes {
            attributes.headers.retain(|h| h.name != "x-amz-storage-class");
            attributes.headers.extend(given.headers.iter().filter(|h| h.name == "x-amz-storage-class").cloned());
        }
        attributes.tags = if replace_tags { given.tags } else { old_tags };
        let algorithm = input.checksum_algorithm.as_ref().and_then(|a| ChecksumAlgorithm::from_name(a.as_str()));
        let kept = source.version.checksums.first().and_then(|c| ChecksumAlgorithm::from_name(&c.algorithm));
        let put = PutRequest {
            bucket,
            key: std::mem::take(&mut input.key),
            attributes,
            owner: context.principal.access_key,
            object_bytes: Some(source.version.object_bytes),
            object_bytes_max: None,
            expect: ChecksumExpectation { algorithm: algorithm.or(kept), ..ChecksumExpectation::default() },
            preconditions: conditions::preconditions(None, None),
        };
        let range = 0..source.version.object_bytes;
        let bytes = self.objects.read(ReadRequest { version: source.version.clone(), range });
        let outcome = self.objects.put(put, put::piped(bytes)).await.map_err(from_object)?;
        let sums = Fields::of(&outcome.version.checksums);
        let result = CopyObjectResult {
            e_tag: Some(ETag::Strong(outcome.version.etag.clone())),
            last_modified: Some(timestamp(outcome.version.modified_ms)),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            checksum_type: checksums::type_of(&outcome.version.checksums).map(ChecksumType::from_static),
        };
        let output = CopyObjectOutput {
            copy_object_result: Some(result),
            copy_source_version_id: read::shown_version(&source.bucket, &source.version),
            version_id: (!outcome.version.is_null).then(|| outcome.version.s3_version_id()),
            ..CopyObjectOutput::default()
        };
        Ok(put::with_receipt(S3Response::new(output), &outcome.receipt))
    }
}

/// COPY (or nothing) is false, REPLACE is true.
fn directive(value: Option<&str>, what: &str) -> S3Result<bool> {
    match value {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(_) => Err(invalid_argument(format!("Unknown {what} directive."))),
    }
}

fn copies_current(source: &CopySource) -> bool {
    matches!(source, CopySource::Bucket { version_id: None, .. })
}
