//! GetObject, HeadObject, GetObjectAttributes.

use super::super::document::BareEtag;
use super::super::error::{invalid_argument, invalid_request, no_such_part_number};
use super::attributes;
use super::checksums::{self, Fields};
use super::conditions::{ReadConditions, Verdict};
use super::{MetadataResultExt, Operations, encryption, put, selector, timestamp};
use crate::metadata::VersionSelector;
use crate::object_path::ReadRequest;
use holdfast_proto::manifest::{self, Bucket, ObjectVersion};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use std::ops::Range as Span;
use std::sync::Arc;

/// Parts shown by GetObjectAttributes at once.
const PARTS_MAX: i32 = 1000;

/// How many tags an object has; in answers to GET and HEAD.
const TAGGING_COUNT: HeaderName = HeaderName::from_static("x-amz-tagging-count");

/// What part of an object a read is for.
struct Wanted {
    span: Span<u64>,
    partial: bool,
    parts_count: Option<i32>,
    /// Of exactly these bytes.
    checksums: Vec<manifest::Checksum>,
}

impl Operations {
    /// The version a read is for; a delete marker answers as S3 does.
    pub(super) async fn live_version(
        &self,
        bucket: &Bucket,
        key: &str,
        version_id: Option<&str>,
    ) -> S3Result<ObjectVersion> {
        let selector = selector(version_id)?;
        let found = self.metadata.get_version(holdfast_proto::BucketId(bucket.id), key, selector).await.s3()?;
        match found {
            Some(version) if version.delete_marker => Err(marker_error(&version, selector)),
            Some(version) => Ok(version),
            None if selector == VersionSelector::Current => {
                Err(S3Error::with_message(S3ErrorCode::NoSuchKey, "The specified key does not exist."))
            }
            None => Err(S3Error::with_message(S3ErrorCode::NoSuchVersion, "The specified version does not exist.")),
        }
    }

    pub(super) async fn get(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        encryption::refuse_for_read(&request.headers)?;
        let input = request.input;
        let version = self.live_version(&bucket, &input.key, input.version_id.as_deref()).await?;
        judge(
            &ReadConditions {
                if_match: input.if_match.as_ref(),
                if_none_match: input.if_none_match.as_ref(),
                if_modified_since: input.if_modified_since.as_ref(),
                if_unmodified_since: input.if_unmodified_since.as_ref(),
            },
            &version,
        )?;
        let wanted = wanted(&version, input.range, input.part_number)?;
        let shown = asked(input.checksum_mode.as_ref());
        let sums = if shown { Fields::of(&wanted.checksums) } else { Fields::default() };
        let version = Arc::new(version);
        let length = wanted.span.end - wanted.span.start;
        let stream = self.objects.read(ReadRequest { version: version.clone(), range: wanted.span.clone() });
        let output = GetObjectOutput {
            body: Some(put::blob(stream, length).await?),
            accept_ranges: Some("bytes".to_owned()),
            cache_control: input.response_cache_control.or_else(|| attributes::header(&version, "cache-control")),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            checksum_type: shown_type(&version, &wanted, shown),
            content_disposition: input
                .response_content_disposition
                .or_else(|| attributes::header(&version, "content-disposition")),
            content_encoding: input
                .response_content_encoding
                .or_else(|| attributes::header(&version, "content-encoding")),
            content_language: input
                .response_content_language
                .or_else(|| attributes::header(&version, "content-language")),
            content_length: i64::try_from(length).ok(),
            content_range: content_range(&wanted, version.object_bytes),
            content_type: parse_type(input.response_content_type, &version),
            e_tag: Some(ETag::Strong(version.etag.clone())),
            expires: input.response_expires.or_else(|| attributes::expires(&version)),
            last_modified: Some(timestamp(version.modified_ms)),
            metadata: attributes::user_metadata(&version),
            parts_count: wanted.parts_count,
            storage_class: attributes::header(&version, "x-amz-storage-class").map(StorageClass::from),
            tag_count: tag_count(&version),
            version_id: shown_version(&bucket, &version),
            website_redirect_location: attributes::header(&version, "x-amz-website-redirect-location"),
            ..GetObjectOutput::default()
        };
        Ok(answer(output, wanted.partial))
    }

    pub(super) async fn head(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        encryption::refuse_for_read(&request.headers)?;
        let input = request.input;
        let version = self.live_version(&bucket, &input.key, input.version_id.as_deref()).await?;
        judge(
            &ReadConditions {
                if_match: input.if_match.as_ref(),
                if_none_match: input.if_none_match.as_ref(),
                if_modified_since: input.if_modified_since.as_ref(),
                if_unmodified_since: input.if_unmodified_since.as_ref(),
            },
            &version,
        )?;
        let wanted = wanted(&version, input.range, input.part_number)?;
        let shown = asked(input.checksum_mode.as_ref());
        let sums = if shown { Fields::of(&wanted.checksums) } else { Fields::default() };
        let output = HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            cache_control: input.response_cache_control.or_else(|| attributes::header(&version, "cache-control")),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            checksum_type: shown_type(&version, &wanted, shown),
            content_disposition: input
                .response_content_disposition
                .or_else(|| attributes::header(&version, "content-disposition")),
            content_encoding: input
                .response_content_encoding
                .or_else(|| attributes::header(&version, "content-encoding")),
            content_language: input
                .response_content_language
                .or_else(|| attributes::header(&version, "content-language")),
            content_length: i64::try_from(wanted.span.end - wanted.span.start).ok(),
            content_range: content_range(&wanted, version.object_bytes),
            content_type: parse_type(input.response_content_type, &version),
            e_tag: Some(ETag::Strong(version.etag.clone())),
            expires: input.response_expires.or_else(|| attributes::expires(&version)),
            last_modified: Some(timestamp(version.modified_ms)),
            metadata: attributes::user_metadata(&version),
            parts_count: wanted.parts_count,
            storage_class: attributes::header(&version, "x-amz-storage-class").map(StorageClass::from),
            version_id: shown_version(&bucket, &version),
            website_redirect_location: attributes::header(&version, "x-amz-website-redirect-location"),
            ..HeadObjectOutput::default()
        };
        let mut response = answer(output, wanted.partial);
        if let Some(count) = tag_count(&version) {
            response.headers.insert(TAGGING_COUNT, HeaderValue::from(count));
        }
        Ok(response)
    }

    pub(super) async fn object_attributes(
        &self,
        request: S3Request<GetObjectAttributesInput>,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        encryption::refuse_for_read(&request.headers)?;
        let input = request.input;
        let version = self.live_version(&bucket, &input.key, input.version_id.as_deref()).await?;
        let mut output = GetObjectAttributesOutput {
            last_modified: Some(timestamp(version.modified_ms)),
            version_id: shown_version(&bucket, &version),
            ..GetObjectAttributesOutput::default()
        };
        // Clients send one header with commas or one header for each.
        let asked = input.object_attributes.iter().flat_map(|list| list.as_str().split(','));
        for attribute in asked.map(str::trim).filter(|name| !name.is_empty()) {
            match attribute {
                ObjectAttributes::ETAG => output.e_tag = Some(ETag::Strong(version.etag.clone())),
                ObjectAttributes::OBJECT_SIZE => output.object_size = i64::try_from(version.object_bytes).ok(),
                ObjectAttributes::STORAGE_CLASS => {
                    let class = attributes::header(&version, "x-amz-storage-class");
                    output.storage_class = Some(StorageClass::from(class.unwrap_or_else(|| "STANDARD".to_owned())));
                }
                ObjectAttributes::CHECKSUM => output.checksum = checksum_of(&version),
                ObjectAttributes::OBJECT_PARTS if !version.parts.is_empty() => {
                    output.object_parts = Some(parts_of(&version, input.part_number_marker, input.max_parts));
                }
                ObjectAttributes::OBJECT_PARTS => {}
                other => return Err(invalid_argument(format!("Invalid attribute name specified: {other}"))),
            }
        }
        let mut response = S3Response::new(output);
        response.extensions.insert(BareEtag);
        Ok(response)
    }
}

fn marker_error(version: &ObjectVersion, selector: VersionSelector) -> S3Error {
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
    if let Ok(value) = HeaderValue::from_str(&version.s3_version_id()) {
        headers.insert("x-amz-version-id", value);
    }
    let mut error = if selector == VersionSelector::Current {
        S3Error::with_message(S3ErrorCode::NoSuchKey, "The specified key does not exist.")
    } else {
        let last_modified = HeaderValue::from_str(&httpdate::fmt_http_date(
            std::time::UNIX_EPOCH + std::time::Duration::from_millis(version.modified_ms),
        ));
        if let Ok(value) = last_modified {
            headers.insert(http::header::LAST_MODIFIED, value);
        }
        S3Error::with_message(
            S3ErrorCode::MethodNotAllowed,
            "The specified method is not allowed against this resource.",
        )
    };
    error.set_headers(headers);
    error
}

fn judge(conditions: &ReadConditions<'_>, version: &ObjectVersion) -> S3Result<()> {
    match conditions.judge(version) {
        Verdict::Proceed => Ok(()),
        Verdict::Failed => Err(S3Error::with_message(
            S3ErrorCode::PreconditionFailed,
            "At least one of the pre-conditions you specified did not hold",
        )),
        Verdict::NotModified => {
            let mut error = S3Error::new(S3ErrorCode::NotModified);
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(&format!("\"{}\"", version.etag)) {
                headers.insert(http::header::ETAG, value);
            }
            let modified = std::time::UNIX_EPOCH + std::time::Duration::from_millis(version.modified_ms);
            if let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(modified)) {
                headers.insert(http::header::LAST_MODIFIED, value);
            }
            error.set_headers(headers);
            Err(error)
        }
    }
}

fn wanted(version: &ObjectVersion, range: Option<Range>, part_number: Option<i32>) -> S3Result<Wanted> {
    let all = version.object_bytes;
    match (range, part_number) {
        (Some(_), Some(_)) => Err(invalid_request("Cannot specify both Range header and partNumber query parameter")),
        (None, None) => {
            Ok(Wanted { span: 0..all, partial: false, parts_count: None, checksums: version.checksums.clone() })
        }
        (Some(range), None) => {
            let span = span(&range, all).ok_or_else(|| {
                S3Error::with_message(S3ErrorCode::InvalidRange, "The requested range is not satisfiable")
            })?;
            // There is no checksum of a part of the bytes.
            Ok(Wanted { span, partial: true, parts_count: None, checksums: Vec::new() })
        }
        (None, Some(number)) => part_span(version, number),
    }
}

/// The bytes a range names in an object of `all` bytes; `None` if there are none.
fn span(range: &Range, all: u64) -> Option<Span<u64>> {
    match *range {
        Range::Int { first, last } => {
            let end = last.map_or(all, |last| last.saturating_add(1).min(all));
            (first < end).then_some(first..end)
        }
        Range::Suffix { length } => (length > 0 && all > 0).then(|| all.saturating_sub(length)..all),
    }
}

fn part_span(version: &ObjectVersion, number: i32) -> S3Result<Wanted> {
    if number < 1 {
        return Err(invalid_argument("Part number must be an integer between 1 and 10000, inclusive"));
    }
    if version.parts.is_empty() {
        let checksums = version.checksums.clone();
        let whole = Wanted { span: 0..version.object_bytes, partial: true, parts_count: None, checksums };
        return if number == 1 { Ok(whole) } else { Err(no_such_part_number()) };
    }
    // Parts are read by their place, as S3 does for numbers that were not contiguous at upload.
    let at =
        version.parts.iter().position(|p| i64::from(p.number) == i64::from(number)).ok_or_else(no_such_part_number)?;
    let start: u64 = version.parts.iter().take(at).map(|p| p.bytes).sum();
    let (bytes, checksums) = version.parts.get(at).map(|p| (p.bytes, p.checksums.clone())).unwrap_or_default();
    let parts_count = i32::try_from(version.parts.len()).ok();
    Ok(Wanted { span: start..start + bytes, partial: true, parts_count, checksums })
}

fn content_range(wanted: &Wanted, all: u64) -> Option<String> {
    let Span { start, end } = wanted.span;
    (wanted.partial && end > start).then(|| format!("bytes {start}-{}/{all}", end - 1))
}

fn answer<T>(output: T, partial: bool) -> S3Response<T> {
    if partial { S3Response::with_status(output, StatusCode::PARTIAL_CONTENT) } else { S3Response::new(output) }
}

fn asked(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|m| m.as_str().eq_ignore_ascii_case("ENABLED"))
}

/// The type of the object's checksum, shown where a checksum is.
fn shown_type(version: &ObjectVersion, wanted: &Wanted, shown: bool) -> Option<ChecksumType> {
    let kind = checksums::type_of(&version.checksums).filter(|_| shown && !wanted.checksums.is_empty());
    kind.map(ChecksumType::from_static)
}

fn checksum_of(version: &ObjectVersion) -> Option<Checksum> {
    let sums = Fields::of(&version.checksums);
    let checksum_type = checksums::type_of(&version.checksums).map(ChecksumType::from_static)?;
    Some(Checksum {
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        checksum_type: Some(checksum_type),
    })
}

fn parts_of(version: &ObjectVersion, marker: Option<i32>, max: Option<i32>) -> GetObjectAttributesParts {
    let after = marker.unwrap_or(0);
    let limit = max.unwrap_or(PARTS_MAX).clamp(0, PARTS_MAX);
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let rest: Vec<_> = version.parts.iter().filter(|p| number(p.number) > after).collect();
    let shown = usize::try_from(limit).unwrap_or(0);
    let truncated = rest.len() > shown;
    let parts: Vec<ObjectPart> = rest
        .into_iter()
        .take(shown)
        .map(|p| {
            let sums = Fields::of(&p.checksums);
            ObjectPart {
                part_number: Some(number(p.number)),
                size: i64::try_from(p.bytes).ok(),
                checksum_crc32: sums.crc32,
                checksum_crc32c: sums.crc32c,
                checksum_crc64nvme: sums.crc64nvme,
                checksum_sha1: sums.sha1,
                checksum_sha256: sums.sha256,
            }
        })
        .collect();
    GetObjectAttributesParts {
        is_truncated: Some(truncated),
        max_parts: Some(limit),
        next_part_number_marker: parts.last().and_then(|p| p.part_number),
        part_number_marker: Some(after),
        parts: Some(parts),
        total_parts_count: i32::try_from(version.parts.len()).ok(),
    }
}

fn parse_type(asked: Option<String>, version: &ObjectVersion) -> Option<ContentType> {
    Some(asked.unwrap_or_else(|| attributes::content_type(version)))
}

fn tag_count(version: &ObjectVersion) -> Option<i32> {
    let count = version.attributes.as_ref().map_or(0, |a| a.tags.len());
    i32::try_from(count).ok().filter(|c| *c > 0)
}

/// The version id, shown once versioning was ever on.
pub(super) fn shown_version(bucket: &Bucket, version: &ObjectVersion) -> Option<String> {
    let ever = super::versioning_of(bucket) != manifest::Versioning::Unversioned;
    ever.then(|| version.s3_version_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_of_a_part_shows_that_parts_checksum() {
        let sum =
            |value: &'static [u8]| manifest::Checksum { algorithm: "CRC32".into(), value: value.into(), part_count: 0 };
        let part = |number, value| manifest::PartInfo { number, bytes: 10, checksums: vec![sum(value)] };
        let version = ObjectVersion {
            object_bytes: 20,
            checksums: vec![sum(b"all!")],
            parts: vec![part(1, b"one!"), part(2, b"two!")],
            ..ObjectVersion::default()
        };
        let range = Some(Range::Int { first: 0, last: None });
        let table = [
            (None, None, Some(sum(b"all!"))),
            (range, None, None),
            (None, Some(1), Some(sum(b"one!"))),
            (None, Some(2), Some(sum(b"two!"))),
        ];
        for (range, part, expected) in table {
            let found = wanted(&version, range, part).unwrap();
            assert_eq!(found.checksums.first().cloned(), expected, "part {part:?}");
            assert_eq!(shown_type(&version, &found, true).is_some(), expected.is_some(), "part {part:?}");
        }
        for part in [0, 3, -1] {
            assert!(wanted(&version, None, Some(part)).is_err(), "part {part}");
        }
    }

    #[test]
    fn ranges() {
        let int = |first, last| Range::Int { first, last };
        let table = [
            (int(0, None), 10, Some(0..10)),
            (int(0, Some(0)), 10, Some(0..1)),
            (int(5, Some(100)), 10, Some(5..10)),
            (int(9, Some(u64::MAX)), 10, Some(9..10)),
            (int(10, None), 10, None),
            (int(5, Some(4)), 10, None),
            (int(0, None), 0, None),
            (Range::Suffix { length: 3 }, 10, Some(7..10)),
            (Range::Suffix { length: u64::MAX }, 10, Some(0..10)),
            (Range::Suffix { length: 0 }, 10, None),
            (Range::Suffix { length: 5 }, 0, None),
        ];
        for (range, all, expected) in table {
            assert_eq!(span(&range, all), expected, "{range:?} of {all}");
        }
    }
}
