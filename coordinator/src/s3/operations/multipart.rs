//! Multipart uploads, up to their completion.

use super::super::error::{from_object, invalid_argument, invalid_request};
use super::attributes::{given, refuse_unsupported};
use super::checksums::{self, Fields};
use super::conditions::ReadConditions;
use super::listing::{Naming, non_empty, page_limit};
use super::{
    MetadataResultExt, Operations, check_key, encryption, new_version_id, now_ms, put, read, timestamp, upload_id,
};
use crate::metadata::ListVersionsRequest;
use crate::object_path::{ChecksumAlgorithm, ChecksumExpectation, PutPartRequest, ReadRequest};
use bytes::Bytes;
use holdfast_proto::manifest::Upload;
use holdfast_proto::{BucketId, VersionId};
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

const PART_NUMBER_MAX: i32 = 10_000;
/// Parts of one page of ListParts.
const PARTS_PAGE_MAX: i32 = 1000;

pub(super) fn part_number(number: i32) -> S3Result<u32> {
    if !(1..=PART_NUMBER_MAX).contains(&number) {
        return Err(invalid_argument(format!(
            "Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive"
        )));
    }
    u32::try_from(number).map_err(|_| invalid_argument("Part number is negative"))
}

impl Operations {
    pub(super) async fn create_upload(
        &self,
        mut request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let owner = self.context(&request)?.principal.access_key.clone();
        let input = &mut request.input;
        check_key(&input.key)?;
        encryption::refuse(&request.headers)?;
        refuse_unsupported!(input);
        let algorithm = match &input.checksum_algorithm {
            None => None,
            Some(name) => Some(ChecksumAlgorithm::from_name(name.as_str()).ok_or_else(|| {
                invalid_request("Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
            })?),
        };
        let checksum_type = checksum_type(algorithm, input.checksum_type.as_ref())?;
        let upload = Upload {
            upload: Bytes::copy_from_slice(new_version_id().as_bytes()),
            created_ms: now_ms(),
            attributes: Some(given!(input).into_attributes()?),
            checksum_algorithm: algorithm.map(|a| a.name().to_owned()).unwrap_or_default(),
            checksum_type: checksum_type.unwrap_or_default().to_owned(),
            owner,
        };
        let id = VersionId::from_slice(&upload.upload).unwrap_or_default();
        self.metadata.upload_create(BucketId(bucket.id), &input.key, upload).await.s3()?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(bucket.name),
            key: Some(std::mem::take(&mut input.key)),
            upload_id: Some(id.to_string()),
            checksum_algorithm: algorithm.map(|a| s3s::dto::ChecksumAlgorithm::from_static(a.name())),
            checksum_type: checksum_type.map(ChecksumType::from_static),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    pub(super) async fn put_part(
        &self,
        mut request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let context = self.context(&request)?.clone();
        let input = &mut request.input;
        encryption::refuse(&request.headers)?;
        let number = part_number(input.part_number)?;
        let id = upload_id(&input.upload_id)?;
        let upload = self.metadata.upload_get(BucketId(bucket.id), &input.key, id).await.s3()?;
        let fields = Fields {
            crc32: input.checksum_crc32.take(),
            crc32c: input.checksum_crc32c.take(),
            crc64nvme: input.checksum_crc64nvme.take(),
            sha1: input.checksum_sha1.take(),
            sha256: input.checksum_sha256.take(),
        };
        let algorithm = input.checksum_algorithm.as_ref().map(|a| a.as_str().to_owned());
        let mut expect = checksums::expectation(&context, input.content_md5.as_deref(), algorithm.as_deref(), fields)?;
        match (expect.algorithm, ChecksumAlgorithm::from_name(&upload.checksum_algorithm)) {
            (Some(given), Some(asked)) if given != asked => {
                return Err(invalid_request(format!(
                    "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                    asked.name().to_lowercase(),
                    given.name().to_lowercase()
                )));
            }
            (None, Some(asked)) => expect.algorithm = Some(asked),
            _ => {}
        }
        let put = PutPartRequest {
            bucket,
            key: std::mem::take(&mut input.key),
            upload: id,
            number,
            part_bytes: context.body_bytes,
            expect,
        };
        let outcome = self.objects.put_part(put, put::body(input.body.take())).await.map_err(from_object)?;
        let sums = Fields::of(&outcome.part.checksums);
        let output = UploadPartOutput {
            e_tag: Some(ETag::Strong(outcome.part.etag.clone())),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..UploadPartOutput::default()
        };
        Ok(put::with_receipt(S3Response::new(output), &outcome.receipt))
    }

    pub(super) async fn copy_part(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let input = &request.input;
        encryption::refuse(&request.headers)?;
        let number = part_number(input.part_number)?;
        let id = upload_id(&input.upload_id)?;
        let upload = self.metadata.upload_get(BucketId(bucket.id), &input.key, id).await.s3()?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since.as_ref(),
            if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
        };
        let source = self.source(&request, &input.copy_source, conditions).await?;
        let range = copy_range(input.copy_source_range.as_deref(), source.version.object_bytes)?;
        let put = PutPartRequest {
            bucket,
            key: input.key.clone(),
            upload: id,
            number,
            part_bytes: Some(range.end - range.start),
            expect: ChecksumExpectation {
                algorithm: ChecksumAlgorithm::from_name(&upload.checksum_algorithm),
                ..ChecksumExpectation::default()
            },
        };
        let bytes = self.objects.read(ReadRequest { version: source.version.clone(), range });
        let outcome = self.objects.put_part(put, put::piped(bytes)).await.map_err(from_object)?;
        let sums = Fields::of(&outcome.part.checksums);
        let result = CopyPartResult {
            e_tag: Some(ETag::Strong(outcome.part.etag.clone())),
            last_modified: Some(timestamp(outcome.part.modified_ms)),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
        };
        let output = UploadPartCopyOutput {
            copy_part_result: Some(result),
            copy_source_version_id: read::shown_version(&source.bucket, &source.version),
            ..UploadPartCopyOutput::default()
        };
        Ok(put::with_receipt(S3Response::new(output), &outcome.receipt))
    }

    pub(super) async fn abort(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let id = upload_id(&request.input.upload_id)?;
        self.metadata.upload_abort(BucketId(bucket.id), &request.input.key, id).await.s3()?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    pub(super) async fn list_parts_of(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let input = request.input;
        let id = upload_id(&input.upload_id)?;
        let upload = self.metadata.upload_get(BucketId(bucket.id), &input.key, id).await.s3()?;
        let limit = page_limit(Some(input.max_parts.unwrap_or(PARTS_PAGE_MAX)))?;
        let marker = input.part_number_marker.unwrap_or(0);
        let after = u32::try_from(marker).map_err(|_| invalid_argument("part-number-marker is negative"))?;
        let mut found = self.metadata.part_list(BucketId(bucket.id), &input.key, id, after, limit + 1).await.s3()?;
        let more = found.len() > limit;
        found.truncate(limit);
        let parts: Vec<Part> = found
            .into_iter()
            .map(|part| {
                let sums = Fields::of(&part.checksums);
                Part {
                    e_tag: Some(ETag::Strong(part.etag)),
                    last_modified: Some(timestamp(part.modified_ms)),
                    part_number: i32::try_from(part.number).ok(),
                    size: i64::try_from(part.part_bytes).ok(),
                    checksum_crc32: sums.crc32,
                    checksum_crc32c: sums.crc32c,
                    checksum_crc64nvme: sums.crc64nvme,
                    checksum_sha1: sums.sha1,
                    checksum_sha256: sums.sha256,
                }
            })
            .collect();
        let owner = self.owner(&upload.owner);
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(bucket.name),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            max_parts: i32::try_from(limit).ok(),
            part_number_marker: Some(marker),
            next_part_number_marker: parts.last().and_then(|p| p.part_number),
            is_truncated: Some(more),
            parts: Some(parts),
            initiator: Some(Initiator { display_name: owner.display_name.clone(), id: owner.id.clone() }),
            owner: Some(owner),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            checksum_algorithm: (!upload.checksum_algorithm.is_empty())
                .then(|| s3s::dto::ChecksumAlgorithm::from(upload.checksum_algorithm.clone())),
            checksum_type: (!upload.checksum_type.is_empty()).then(|| ChecksumType::from(upload.checksum_type.clone())),
            ..ListPartsOutput::default()
        }))
    }

    pub(super) async fn list_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let input = request.input;
        let naming = Naming::new(input.encoding_type.as_ref())?;
        let delimiter = non_empty(input.delimiter);
        let asked = ListVersionsRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: delimiter.clone().unwrap_or_default(),
            key_marker: input.key_marker.clone().unwrap_or_default(),
            version_marker: input.upload_id_marker.clone().unwrap_or_default(),
            limit: page_limit(input.max_uploads)?,
        };
        let page = self.metadata.upload_list(BucketId(bucket.id), asked).await.s3()?;
        let uploads: Vec<_> = page
            .entries
            .into_iter()
            .map(|entry| {
                let owner = self.owner(&entry.upload.owner);
                MultipartUpload {
                    initiated: Some(timestamp(entry.upload.created_ms)),
                    initiator: Some(Initiator { display_name: owner.display_name.clone(), id: owner.id.clone() }),
                    key: Some(naming.show(&entry.key)),
                    owner: Some(owner),
                    storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
                    upload_id: VersionId::from_slice(&entry.upload.upload).map(|id| id.to_string()),
                    ..MultipartUpload::default()
                }
            })
            .collect();
        let truncated = page.next.is_some();
        let (next_key, next_upload) = page.next.unzip();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(bucket.name),
            prefix: input.prefix.map(|p| naming.show(&p)),
            delimiter: delimiter.map(|d| naming.show(&d)),
            key_marker: Some(naming.show(&input.key_marker.unwrap_or_default())),
            upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
            max_uploads: Some(input.max_uploads.unwrap_or(super::listing::PAGE_MAX)),
            is_truncated: Some(truncated),
            next_key_marker: next_key.map(|k| naming.show(&k)),
            next_upload_id_marker: next_upload,
            common_prefixes: naming.prefixes(page.common_prefixes),
            encoding_type: input.encoding_type,
            uploads: (!uploads.is_empty()).then_some(uploads),
            ..ListMultipartUploadsOutput::default()
        }))
    }
}

/// The type an upload's checksum will have: what was asked for, or each algorithm's default.
fn checksum_type(algorithm: Option<ChecksumAlgorithm>, asked: Option<&ChecksumType>) -> S3Result<Option<&'static str>> {
    let Some(algorithm) = algorithm else {
        return match asked {
            None => Ok(None),
            Some(_) => Err(invalid_request(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )),
        };
    };
    let wrong = |kind: &str| {
        Err(invalid_request(format!(
            "The {kind} checksum type cannot be used with the {} checksum algorithm.",
            algorithm.name().to_lowercase()
        )))
    };
    match (asked.map(ChecksumType::as_str), algorithm) {
        (Some(ChecksumType::COMPOSITE), ChecksumAlgorithm::Crc64Nvme) => wrong(ChecksumType::COMPOSITE),
        (Some(ChecksumType::FULL_OBJECT), ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256) => {
            wrong(ChecksumType::FULL_OBJECT)
        }
        (Some(ChecksumType::FULL_OBJECT), _) | (None, ChecksumAlgorithm::Crc64Nvme) => {
            Ok(Some(ChecksumType::FULL_OBJECT))
        }
        (Some(ChecksumType::COMPOSITE) | None, _) => Ok(Some(ChecksumType::COMPOSITE)),
        (Some(_), _) => Err(invalid_request("Value for x-amz-checksum-type header is invalid.")),
    }
}

/// `x-amz-copy-source-range`: exactly `bytes=first-last`, within the source.
fn copy_range(text: Option<&str>, all: u64) -> S3Result<std::ops::Range<u64>> {
    let Some(text) = text else { return Ok(0..all) };
    let invalid = || {
        invalid_argument(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy",
        )
    };
    let (first, last) = text.strip_prefix("bytes=").and_then(|r| r.split_once('-')).ok_or_else(invalid)?;
    let first: u64 = first.parse().map_err(|_| invalid())?;
    let last: u64 = last.parse().map_err(|_| invalid())?;
    if first > last {
        return Err(invalid());
    }
    if last >= all {
        return Err(S3Error::with_message(
            S3ErrorCode::InvalidRange,
            format!("Range specified is not valid for source object of size: {all}"),
        ));
    }
    Ok(first..last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_ranges() {
        assert_eq!(copy_range(None, 5).unwrap(), 0..5);
        assert_eq!(copy_range(Some("bytes=0-4"), 5).unwrap(), 0..5);
        for bad in
            ["bytes=0-5", "bytes=3-2", "bytes=-3", "bytes=1-", "0-3", "bytes=a-b", "bytes=0-99999999999999999999"]
        {
            assert!(copy_range(Some(bad), 5).is_err(), "{bad}");
        }
    }

    #[test]
    fn checksum_types() {
        let full = ChecksumType::from_static(ChecksumType::FULL_OBJECT);
        let composite = ChecksumType::from_static(ChecksumType::COMPOSITE);
        assert_eq!(checksum_type(None, None).unwrap(), None);
        assert_eq!(checksum_type(Some(ChecksumAlgorithm::Crc32), None).unwrap(), Some("COMPOSITE"));
        assert_eq!(checksum_type(Some(ChecksumAlgorithm::Crc32), Some(&full)).unwrap(), Some("FULL_OBJECT"));
        assert_eq!(checksum_type(Some(ChecksumAlgorithm::Crc64Nvme), None).unwrap(), Some("FULL_OBJECT"));
        assert!(checksum_type(Some(ChecksumAlgorithm::Crc64Nvme), Some(&composite)).is_err());
        assert!(checksum_type(Some(ChecksumAlgorithm::Sha256), Some(&full)).is_err());
        assert!(checksum_type(None, Some(&full)).is_err());
    }
}
