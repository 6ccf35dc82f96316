//! CompleteMultipartUpload: which parts were named, and the version they make.

use super::super::error::invalid_request;
use super::checksums::{self, Fields};
use super::multipart::part_number;
use super::{MetadataResultExt, Operations, conditions, new_version_id, now_ms, upload_id, versioning_of};
use crate::metadata::CompleteUpload;
use crate::object_path::ChecksumAlgorithm;
use bytes::Bytes;
use holdfast_proto::BucketId;
use holdfast_proto::manifest::{self, Upload};
use md5::{Digest, Md5};
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use std::collections::BTreeMap;

/// Every part but the last has at least this many bytes.
const PART_BYTES_MIN: u64 = 5 << 20;

impl Operations {
    pub(super) async fn complete(
        &self,
        mut request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let input = &mut request.input;
        let id = upload_id(&input.upload_id)?;
        let named = input.multipart_upload.take().and_then(|m| m.parts).unwrap_or_default();
        if named.is_empty() {
            return Err(S3Error::with_message(S3ErrorCode::MalformedXML, "You must specify at least one part"));
        }
        let (parts, sums) = named_parts(named)?;
        let fields = Fields {
            crc32: input.checksum_crc32.take(),
            crc32c: input.checksum_crc32c.take(),
            crc64nvme: input.checksum_crc64nvme.take(),
            sha1: input.checksum_sha1.take(),
            sha256: input.checksum_sha256.take(),
        };
        let numbers: Vec<u32> = parts.iter().map(|(n, _)| *n).collect();
        let version = match self.metadata.upload_get(BucketId(bucket.id), &input.key, id).await {
            Ok(upload) => {
                let stored = self.metadata.part_list(BucketId(bucket.id), &input.key, id, 0, usize::MAX).await.s3()?;
                let stored: BTreeMap<u32, manifest::Part> = stored.into_iter().map(|p| (p.number, p)).collect();
                let chosen = choose(&parts, &sums, &stored)?;
                let whole = assembled(&upload, &chosen, fields, input.mpu_object_size)?;
                manifest::ObjectVersion { parts: Vec::new(), ..whole }
            }
            // Perhaps a retry of one that succeeded: the metadata remembers, and answers as it did then.
            Err(crate::metadata::MetadataError::NoSuchUpload { .. }) => manifest::ObjectVersion::default(),
            Err(error) => return Err(super::from_metadata(error)),
        };
        debug_assert!(numbers.is_sorted());
        let complete = CompleteUpload {
            bucket: BucketId(bucket.id),
            key: input.key.clone(),
            upload: id,
            parts,
            version,
            versioning: versioning_of(&bucket),
            preconditions: conditions::preconditions(input.if_match.as_ref(), input.if_none_match.as_ref()),
        };
        let version = self.metadata.upload_complete(complete).await.s3()?;
        let sums = Fields::of(&version.checksums);
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", bucket.name, super::names::url_encoded(&input.key))),
            bucket: Some(bucket.name),
            key: Some(std::mem::take(&mut input.key)),
            e_tag: Some(ETag::Strong(version.etag.clone())),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            checksum_type: checksums::type_of(&version.checksums).map(ChecksumType::from_static),
            version_id: (!version.is_null).then(|| version.s3_version_id()),
            ..CompleteMultipartUploadOutput::default()
        }))
    }
}

/// The checksum an upload was created for: algorithm and whether of the full object.
fn checksum_of(upload: &Upload) -> (ChecksumAlgorithm, bool) {
    match ChecksumAlgorithm::from_name(&upload.checksum_algorithm) {
        Some(algorithm) => (algorithm, upload.checksum_type == ChecksumType::FULL_OBJECT),
        None => (ChecksumAlgorithm::Crc64Nvme, true),
    }
}

type NamedParts = (Vec<(u32, String)>, BTreeMap<u32, Fields>);

/// Parts as the client names them, in ascending order, with the checksums it names.
fn named_parts(parts: Vec<CompletedPart>) -> S3Result<NamedParts> {
    let mut named = Vec::with_capacity(parts.len());
    let mut sums = BTreeMap::new();
    for part in parts {
        let number = part_number(part.part_number.ok_or_else(|| S3Error::new(S3ErrorCode::MalformedXML))?)?;
        let etag = part.e_tag.ok_or_else(|| S3Error::new(S3ErrorCode::MalformedXML))?.into_value();
        if named.last().is_some_and(|(before, _)| *before >= number) {
            return Err(S3Error::with_message(
                S3ErrorCode::InvalidPartOrder,
                "The list of parts was not in ascending order. The parts list must be specified in order by part number.",
            ));
        }
        sums.insert(
            number,
            Fields {
                crc32: part.checksum_crc32,
                crc32c: part.checksum_crc32c,
                crc64nvme: part.checksum_crc64nvme,
                sha1: part.checksum_sha1,
                sha256: part.checksum_sha256,
            },
        );
        named.push((number, etag));
    }
    Ok((named, sums))
}

/// The stored parts that were named, each with the ETag and checksum the client believes it has.
fn choose<'p>(
    parts: &[(u32, String)],
    sums: &BTreeMap<u32, Fields>,
    stored: &'p BTreeMap<u32, manifest::Part>,
) -> S3Result<Vec<&'p manifest::Part>> {
    let invalid = || {
        S3Error::with_message(
            S3ErrorCode::InvalidPart,
            "One or more of the specified parts could not be found. The part may not have been uploaded, or the \
             specified entity tag may not match the part's entity tag.",
        )
    };
    let mut chosen = Vec::with_capacity(parts.len());
    for (i, (number, etag)) in parts.iter().enumerate() {
        let part = stored.get(number).filter(|p| &p.etag == etag).ok_or_else(invalid)?;
        let claimed = sums.get(number).cloned().unwrap_or_default();
        let actual = Fields::of(&part.checksums);
        let agrees = |claimed: &Option<String>, actual: &Option<String>| claimed.is_none() || claimed == actual;
        let same = agrees(&claimed.crc32, &actual.crc32)
            && agrees(&claimed.crc32c, &actual.crc32c)
            && agrees(&claimed.crc64nvme, &actual.crc64nvme)
            && agrees(&claimed.sha1, &actual.sha1)
            && agrees(&claimed.sha256, &actual.sha256);
        if !same {
            return Err(invalid());
        }
        if i + 1 < parts.len() && part.part_bytes < PART_BYTES_MIN {
            return Err(S3Error::with_message(
                S3ErrorCode::EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed size",
            ));
        }
        chosen.push(part);
    }
    Ok(chosen)
}

/// The version to be: its ETag, checksum and attributes; bytes and segments are the metadata's to fill in.
fn assembled(
    upload: &Upload,
    parts: &[&manifest::Part],
    claimed: Fields,
    size: Option<i64>,
) -> S3Result<manifest::ObjectVersion> {
    let total: u64 = parts.iter().map(|p| p.part_bytes).sum();
    if size.is_some_and(|s| u64::try_from(s).ok() != Some(total)) {
        return Err(invalid_request(format!(
            "The provided 'x-amz-mp-object-size' header value {} does not match what was computed: {total}",
            size.unwrap_or_default()
        )));
    }
    let mut digest = Md5::new();
    for part in parts {
        digest.update(hex::decode(&part.etag).unwrap_or_default());
    }
    let (algorithm, full) = checksum_of(upload);
    let values: Vec<(u64, Vec<manifest::Checksum>)> =
        parts.iter().map(|p| (p.part_bytes, p.checksums.clone())).collect();
    let checksum = checksums::of_parts(algorithm, full, &values);
    if let Some((given, text)) = claimed.single()? {
        let computed = checksum.as_ref().filter(|c| c.algorithm == given.name());
        let fields = Fields::of(computed.map(std::slice::from_ref).unwrap_or_default());
        if let Some((_, actual)) = fields.single()? {
            let same = actual == text || actual.split('-').next() == Some(text.as_str());
            if !same {
                return Err(S3Error::with_message(
                    S3ErrorCode::BadDigest,
                    format!("The {} you specified did not match the calculated checksum.", given.name()),
                ));
            }
        }
    }
    Ok(manifest::ObjectVersion {
        version: Bytes::copy_from_slice(new_version_id().as_bytes()),
        etag: format!("{}-{}", hex::encode(digest.finalize()), parts.len()),
        modified_ms: now_ms(),
        attributes: upload.attributes.clone(),
        checksums: checksum.into_iter().collect(),
        owner: upload.owner.clone(),
        ..manifest::ObjectVersion::default()
    })
}
