//! Checksums between S3's five header fields and our records, and those of whole multipart objects.

use super::super::context::RequestContext;
use super::super::error::invalid_request;
use crate::object_path::{ChecksumAlgorithm, ChecksumExpectation};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use holdfast_proto::manifest::Checksum;
use s3s::{S3Error, S3ErrorCode, S3Result};
use sha1::Digest;

/// The five values S3 has fields for, base64 (composite ones with `-parts`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) crc32: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) crc64nvme: Option<String>,
    pub(super) sha1: Option<String>,
    pub(super) sha256: Option<String>,
}

impl Fields {
    pub(super) fn of(checksums: &[Checksum]) -> Self {
        let mut fields = Self::default();
        for checksum in checksums {
            let mut text = BASE64.encode(&checksum.value);
            if checksum.part_count > 0 {
                text = format!("{text}-{}", checksum.part_count);
            }
            if let Some(algorithm) = ChecksumAlgorithm::from_name(&checksum.algorithm) {
                *fields.slot(algorithm) = Some(text);
            }
        }
        fields
    }

    fn slot(&mut self, algorithm: ChecksumAlgorithm) -> &mut Option<String> {
        match algorithm {
            ChecksumAlgorithm::Crc32 => &mut self.crc32,
            ChecksumAlgorithm::Crc32c => &mut self.crc32c,
            ChecksumAlgorithm::Crc64Nvme => &mut self.crc64nvme,
            ChecksumAlgorithm::Sha1 => &mut self.sha1,
            ChecksumAlgorithm::Sha256 => &mut self.sha256,
        }
    }

    /// The one value given, with its algorithm; more than one is refused as S3 does.
    pub(super) fn single(mut self) -> S3Result<Option<(ChecksumAlgorithm, String)>> {
        let mut given = ChecksumAlgorithm::ALL.into_iter().filter_map(|a| self.slot(a).take().map(|v| (a, v)));
        let first = given.next();
        if given.next().is_some() {
            return Err(invalid_request(
                "Expecting a single x-amz-checksum- header. Multiple checksum types are not allowed.",
            ));
        }
        Ok(first)
    }
}

/// `FULL_OBJECT` or `COMPOSITE`, if there is a checksum at all.
pub(super) fn type_of(checksums: &[Checksum]) -> Option<&'static str> {
    checksums.first().map(|c| if c.part_count > 0 { "COMPOSITE" } else { "FULL_OBJECT" })
}

/// What a PUT or part is expected to hash to, from its headers and trailers.
pub(super) fn expectation(
    context: &RequestContext,
    content_md5: Option<&str>,
    algorithm: Option<&str>,
    fields: Fields,
) -> S3Result<ChecksumExpectation> {
    let content_md5 = content_md5
        .map(|text| {
            let value = BASE64.decode(text).ok().and_then(|v| <[u8; 16]>::try_from(v).ok());
            value.ok_or_else(|| {
                S3Error::with_message(S3ErrorCode::InvalidDigest, "The Content-MD5 you specified is not valid.")
            })
        })
        .transpose()?;
    let named = algorithm
        .map(|name| {
            ChecksumAlgorithm::from_name(name)
                .ok_or_else(|| invalid_request(format!("Checksum algorithm {name} is not known")))
        })
        .transpose()?;
    if let Some((algorithm, text)) = fields.single()? {
        if named.is_some_and(|n| n != algorithm) {
            return Err(invalid_request("Value for x-amz-sdk-checksum-algorithm header is invalid."));
        }
        let value = decode(algorithm, &text)?;
        return Ok(ChecksumExpectation { content_md5, algorithm: Some(algorithm), value: Some(value), trailer: None });
    }
    let trailer = context.trailers.clone();
    Ok(ChecksumExpectation { content_md5, algorithm: named, value: None, trailer })
}

/// The raw bytes of a value in a header.
pub(super) fn decode(algorithm: ChecksumAlgorithm, text: &str) -> S3Result<Vec<u8>> {
    BASE64.decode(text).ok().filter(|v| v.len() == algorithm.value_bytes()).ok_or_else(|| {
        invalid_request(format!("Value for x-amz-checksum-{} header is invalid.", algorithm.name().to_lowercase()))
    })
}

/// The checksum of an object made of parts: the hash of the parts' values, or for CRCs of the whole the combination.
/// `None` when a part has no value of that algorithm.
pub(super) fn of_parts(
    algorithm: ChecksumAlgorithm,
    full_object: bool,
    parts: &[(u64, Vec<Checksum>)],
) -> Option<Checksum> {
    let values: Vec<(u64, &Bytes)> = parts
        .iter()
        .map(|(bytes, sums)| sums.iter().find(|c| c.algorithm == algorithm.name()).map(|c| (*bytes, &c.value)))
        .collect::<Option<_>>()?;
    let name = algorithm.name().to_owned();
    if full_object {
        let crc = crc_algorithm(algorithm)?;
        let width = algorithm.value_bytes();
        let mut whole: Option<u64> = None;
        for (bytes, value) in values {
            let part = number(value)?;
            whole = Some(whole.map_or(part, |before| crc_fast::checksum_combine(crc, before, part, bytes)));
        }
        let value = whole?.to_be_bytes();
        return Some(Checksum {
            algorithm: name,
            value: Bytes::copy_from_slice(value.get(8 - width..)?),
            part_count: 0,
        });
    }
    let joined: Vec<u8> = values.iter().flat_map(|(_, value)| value.iter().copied()).collect();
    let value = match algorithm {
        ChecksumAlgorithm::Sha1 => sha1::Sha1::digest(&joined).to_vec(),
        ChecksumAlgorithm::Sha256 => sha2::Sha256::digest(&joined).to_vec(),
        crc => {
            let sum = crc_fast::checksum(crc_algorithm(crc)?, &joined).to_be_bytes();
            sum.get(8 - crc.value_bytes()..)?.to_vec()
        }
    };
    let part_count = u32::try_from(parts.len()).ok()?;
    Some(Checksum { algorithm: name, value: value.into(), part_count })
}

fn crc_algorithm(algorithm: ChecksumAlgorithm) -> Option<CrcAlgorithm> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        ChecksumAlgorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        ChecksumAlgorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => None,
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let mut out = [0u8; 8];
    out.get_mut(8usize.checked_sub(value.len())?..)?.copy_from_slice(value);
    Some(u64::from_be_bytes(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crc(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Bytes {
        let sum = crc_fast::checksum(crc_algorithm(algorithm).unwrap(), bytes).to_be_bytes();
        Bytes::copy_from_slice(&sum[8 - algorithm.value_bytes()..])
    }

    #[test]
    fn crcs_of_parts_combine_to_the_crc_of_the_whole() {
        let whole: Vec<u8> = (0..100_000u32).map(|i| (i * 7) as u8).collect();
        for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc64Nvme] {
            let parts: Vec<_> = whole
                .chunks(33_333)
                .map(|p| {
                    let sum = Checksum { algorithm: algorithm.name().into(), value: crc(algorithm, p), part_count: 0 };
                    (p.len() as u64, vec![sum])
                })
                .collect();
            let combined = of_parts(algorithm, true, &parts).unwrap();
            assert_eq!(combined.value, crc(algorithm, &whole), "{}", algorithm.name());
            let composite = of_parts(algorithm, false, &parts).unwrap();
            assert_eq!(composite.part_count, 4);
        }
        assert!(of_parts(ChecksumAlgorithm::Sha1, true, &[]).is_none());
    }

    #[test]
    fn one_value_is_taken_and_two_are_refused() {
        let one = Fields { sha1: Some("x".into()), ..Fields::default() };
        assert_eq!(one.single().unwrap(), Some((ChecksumAlgorithm::Sha1, "x".to_owned())));
        let two = Fields { sha1: Some("x".into()), crc32: Some("y".into()), ..Fields::default() };
        assert!(two.single().is_err());
        assert!(decode(ChecksumAlgorithm::Crc32, "AAAAAA==").is_ok());
        assert!(decode(ChecksumAlgorithm::Crc32, "AAAA").is_err());
    }
}
