//! ListObjects, ListObjectsV2, ListObjectVersions.

use super::super::error::invalid_argument;
use super::names::url_encoded;
use super::{MetadataResultExt, Operations, timestamp};
use crate::metadata::{ListEntry, ListRequest, ListVersionsRequest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as TOKEN;
use holdfast_proto::BucketId;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};

/// Entries of one page; more may be asked for but are not given.
pub(super) const PAGE_MAX: i32 = 1000;

/// Names as the client asked to see them.
#[derive(Clone, Copy)]
pub(super) struct Naming {
    encode: bool,
}

impl Naming {
    pub(super) fn new(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None | Some("") => Ok(Self { encode: false }),
            Some(EncodingType::URL) => Ok(Self { encode: true }),
            Some(_) => Err(invalid_argument("Invalid Encoding Method specified in Request")),
        }
    }

    pub(super) fn show(self, name: &str) -> String {
        if self.encode { url_encoded(name) } else { name.to_owned() }
    }

    pub(super) fn prefixes(self, prefixes: Vec<String>) -> Option<CommonPrefixList> {
        let list: Vec<_> = prefixes.iter().map(|p| CommonPrefix { prefix: Some(self.show(p)) }).collect();
        (!list.is_empty()).then_some(list)
    }
}

pub(super) fn page_limit(max: Option<i32>) -> S3Result<usize> {
    let max = max.unwrap_or(PAGE_MAX);
    usize::try_from(max.min(PAGE_MAX))
        .map_err(|_| invalid_argument("Argument max-keys must be an integer between 0 and 2147483647"))
}

/// An empty delimiter is none.
pub(super) fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|t| !t.is_empty())
}

impl Operations {
    fn entry(&self, entry: ListEntry, naming: Naming, with_owner: bool) -> Object {
        let class = if entry.storage_class.is_empty() { "STANDARD".to_owned() } else { entry.storage_class };
        let algorithms: Vec<_> = entry.checksum_algorithms.into_iter().map(ChecksumAlgorithm::from).collect();
        Object {
            checksum_algorithm: (!algorithms.is_empty()).then_some(algorithms),
            e_tag: Some(ETag::Strong(entry.etag)),
            key: Some(naming.show(&entry.key)),
            last_modified: Some(timestamp(entry.modified_ms)),
            owner: with_owner.then(|| self.owner(&entry.owner)),
            size: i64::try_from(entry.object_bytes).ok(),
            storage_class: Some(ObjectStorageClass::from(class)),
            ..Object::default()
        }
    }

    pub(super) async fn list_v1(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let input = request.input;
        let naming = Naming::new(input.encoding_type.as_ref())?;
        let delimiter = non_empty(input.delimiter);
        let asked = ListRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: delimiter.clone().unwrap_or_default(),
            after: input.marker.clone().unwrap_or_default(),
            limit: page_limit(input.max_keys)?,
        };
        let page = self.metadata.list(BucketId(bucket.id), asked).await.s3()?;
        let contents: Vec<_> = page.entries.into_iter().map(|e| self.entry(e, naming, true)).collect();
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(bucket.name),
            prefix: Some(input.prefix.unwrap_or_default()),
            marker: Some(naming.show(&input.marker.unwrap_or_default())),
            max_keys: Some(input.max_keys.unwrap_or(PAGE_MAX)),
            is_truncated: Some(page.next_after.is_some()),
            contents: Some(contents),
            common_prefixes: naming.prefixes(page.common_prefixes),
            // S3 gives it with a delimiter only; without one the last key is the marker.
            next_marker: page.next_after.filter(|_| delimiter.is_some()).map(|m| naming.show(&m)),
            delimiter: delimiter.map(|d| naming.show(&d)),
            encoding_type: input.encoding_type,
            ..ListObjectsOutput::default()
        }))
    }

    pub(super) async fn list_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let input = request.input;
        let naming = Naming::new(input.encoding_type.as_ref())?;
        let delimiter = non_empty(input.delimiter);
        let after = match input.continuation_token.as_deref().filter(|token| !token.is_empty()) {
            Some(token) => TOKEN
                .decode(token)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .filter(|after| !after.is_empty())
                .ok_or_else(|| invalid_argument("The continuation token provided is incorrect"))?,
            None => input.start_after.clone().unwrap_or_default(),
        };
        let asked = ListRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: delimiter.clone().unwrap_or_default(),
            after,
            limit: page_limit(input.max_keys)?,
        };
        let page = self.metadata.list(BucketId(bucket.id), asked).await.s3()?;
        let with_owner = input.fetch_owner.unwrap_or(false);
        let contents: Vec<_> = page.entries.into_iter().map(|e| self.entry(e, naming, with_owner)).collect();
        let count = contents.len() + page.common_prefixes.len();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(bucket.name),
            prefix: Some(naming.show(&input.prefix.unwrap_or_default())),
            max_keys: Some(input.max_keys.unwrap_or(PAGE_MAX)),
            key_count: i32::try_from(count).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(page.next_after.is_some()),
            next_continuation_token: page.next_after.map(|after| TOKEN.encode(after)),
            contents: Some(contents),
            common_prefixes: naming.prefixes(page.common_prefixes),
            delimiter: delimiter.map(|d| naming.show(&d)),
            encoding_type: input.encoding_type,
            start_after: input.start_after.map(|s| naming.show(&s)),
            ..ListObjectsV2Output::default()
        }))
    }

    pub(super) async fn list_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let input = request.input;
        let naming = Naming::new(input.encoding_type.as_ref())?;
        let delimiter = non_empty(input.delimiter);
        let key_marker = input.key_marker.clone().unwrap_or_default();
        let version_marker = input.version_id_marker.clone().unwrap_or_default();
        if key_marker.is_empty() && !version_marker.is_empty() {
            return Err(invalid_argument("A version-id marker cannot be specified without a key marker."));
        }
        let asked = ListVersionsRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: delimiter.clone().unwrap_or_default(),
            key_marker,
            version_marker,
            limit: page_limit(input.max_keys)?,
        };
        let page = self.metadata.list_versions(BucketId(bucket.id), asked).await.s3()?;
        let mut versions = Vec::new();
        let mut markers = Vec::new();
        for found in page.entries {
            let owner = Some(self.owner(&found.entry.owner));
            if found.delete_marker {
                markers.push(DeleteMarkerEntry {
                    is_latest: Some(found.is_latest),
                    key: Some(naming.show(&found.entry.key)),
                    last_modified: Some(timestamp(found.entry.modified_ms)),
                    owner,
                    version_id: Some(found.version),
                });
                continue;
            }
            let object = self.entry(found.entry, naming, false);
            versions.push(ObjectVersion {
                checksum_algorithm: object.checksum_algorithm,
                e_tag: object.e_tag,
                is_latest: Some(found.is_latest),
                key: object.key,
                last_modified: object.last_modified,
                owner,
                size: object.size,
                storage_class: object.storage_class.map(|c| ObjectVersionStorageClass::from(c.as_str().to_owned())),
                version_id: Some(found.version),
                ..ObjectVersion::default()
            });
        }
        let (next_key, next_version) = page.next.clone().unzip();
        Ok(S3Response::new(ListObjectVersionsOutput {
            name: Some(bucket.name),
            prefix: Some(naming.show(&input.prefix.unwrap_or_default())),
            max_keys: Some(input.max_keys.unwrap_or(PAGE_MAX)),
            is_truncated: Some(page.next.is_some()),
            versions: (!versions.is_empty()).then_some(versions),
            delete_markers: (!markers.is_empty()).then_some(markers),
            common_prefixes: naming.prefixes(page.common_prefixes),
            delimiter: delimiter.map(|d| naming.show(&d)),
            encoding_type: input.encoding_type,
            key_marker: Some(naming.show(&input.key_marker.unwrap_or_default())),
            version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
            next_key_marker: next_key.map(|k| naming.show(&k)),
            next_version_id_marker: next_version,
            ..ListObjectVersionsOutput::default()
        }))
    }
}
