//! The checksums of an upload: which one is computed, how pieces add up, and whether the client's value holds.
//!
//! SHA-1 and SHA-256 go through one chain of jobs per upload, CRCs with MD5 through the digest thread. Not here: MD5 and
//! that thread (`digest_pool`).
//!
//! Source: "Checking object integrity" of the Amazon S3 user guide.

use super::api::{ChecksumAlgorithm, ChecksumExpectation, ObjectError};
use super::cpu_pool::CpuPool;
use super::digest_pool::Keep;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use holdfast_proto::manifest::Checksum;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// The algorithm when the client names none: what S3 itself does.
pub(crate) const DEFAULT_ALGORITHM: ChecksumAlgorithm = ChecksumAlgorithm::Crc64Nvme;

/// Which SHA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShaKind {
    Sha1,
    Sha256,
}

impl ShaKind {
    /// `None` if the algorithm is a CRC.
    pub(crate) fn of(algorithm: ChecksumAlgorithm) -> Option<Self> {
        match algorithm {
            ChecksumAlgorithm::Sha1 => Some(Self::Sha1),
            ChecksumAlgorithm::Sha256 => Some(Self::Sha256),
            ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c | ChecksumAlgorithm::Crc64Nvme => None,
        }
    }
}

/// A CRC being computed.
pub(crate) struct Crc {
    digest: crc_fast::Digest,
    value_bytes: usize,
}

impl Crc {
    /// The CRC of no bytes yet; `None` if the algorithm is no CRC.
    pub(crate) fn new(algorithm: ChecksumAlgorithm) -> Option<Self> {
        let crc = match algorithm {
            ChecksumAlgorithm::Crc32 => CrcAlgorithm::Crc32IsoHdlc,
            ChecksumAlgorithm::Crc32c => CrcAlgorithm::Crc32Iscsi,
            ChecksumAlgorithm::Crc64Nvme => CrcAlgorithm::Crc64Nvme,
            ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => return None,
        };
        Some(Self { digest: crc_fast::Digest::new(crc), value_bytes: algorithm.value_bytes() })
    }

    /// Takes in the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// The value as stored: big-endian.
    pub(crate) fn value(&self) -> Vec<u8> {
        // A CRC-32 is in the lower half.
        self.digest.finalize().to_be_bytes()[8 - self.value_bytes.min(8)..].to_vec()
    }
}

/// The value of a short body, all at once.
pub(crate) fn checksum_of(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Vec<u8> {
    if let Some(mut crc) = Crc::new(algorithm) {
        crc.update(bytes);
        return crc.value();
    }
    let mut state = ShaState::new(ShaKind::of(algorithm).unwrap_or(ShaKind::Sha256));
    state.update(bytes);
    state.finish()
}

enum ShaState {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl ShaState {
    fn new(kind: ShaKind) -> Self {
        match kind {
            ShaKind::Sha1 => Self::Sha1(Sha1::new()),
            ShaKind::Sha256 => Self::Sha256(Sha256::new()),
        }
    }
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(state) => state.update(bytes),
            Self::Sha256(state) => state.update(bytes),
        }
    }
    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha1(state) => state.finalize().to_vec(),
            Self::Sha256(state) => state.finalize().to_vec(),
        }
    }
}

/// One upload's SHA: batches queue up and are hashed in order on the coding threads.
pub(crate) struct ShaStream {
    batches: mpsc::UnboundedSender<(Vec<Bytes>, Keep)>,
    digest: AbortOnDropHandle<Option<Vec<u8>>>,
}

impl ShaStream {
    /// An empty stream. Dropped unfinished, it ends.
    pub(crate) fn new(kind: ShaKind, cpu: Arc<CpuPool>) -> Self {
        // Unbounded in count, bounded in bytes: every batch keeps its permit.
        let (batches, mut inbox) = mpsc::unbounded_channel::<(Vec<Bytes>, Keep)>();
        let digest = tokio::spawn(async move {
            let mut state = ShaState::new(kind);
            while let Some((slices, keep)) = inbox.recv().await {
                let hashed = cpu.run(move || {
                    slices.iter().for_each(|slice| state.update(slice));
                    drop(slices);
                    (state, keep)
                });
                state = hashed.await.ok()?.0;
            }
            Some(state.finish())
        });
        Self { batches, digest: AbortOnDropHandle::new(digest) }
    }

    /// Queues the next bytes; `keep` is dropped when they are hashed. Does not wait.
    pub(crate) fn push(&self, slices: Vec<Bytes>, keep: &Keep) {
        // A chain that is gone says so in `finish`.
        let _ = self.batches.send((slices, keep.clone()));
    }

    /// The digest of all that was pushed.
    pub(crate) async fn finish(self) -> Result<Vec<u8>, ObjectError> {
        drop(self.batches);
        let digest = self.digest.await.ok().flatten();
        digest.ok_or_else(|| ObjectError::Internal { reason: "a hashing job ended without an answer".to_owned() })
    }
}

/// Compares what was computed with what the client said, reading a trailing value now: the body has ended. Returns the
/// record to keep.
pub(crate) fn verify(expect: &ChecksumExpectation, md5: [u8; 16], value: Vec<u8>) -> Result<Checksum, ObjectError> {
    if let Some(expected) = expect.content_md5.filter(|expected| *expected != md5) {
        return Err(ObjectError::ContentMd5 { expected: hex::encode(expected), computed: hex::encode(md5) });
    }
    let algorithm = expect.algorithm.unwrap_or(DEFAULT_ALGORITHM);
    let expected = expected_value(expect, algorithm)?;
    if let Some(expected) = expected.filter(|expected| *expected != value) {
        return Err(ObjectError::Checksum {
            algorithm: algorithm.name(),
            expected: STANDARD.encode(expected),
            computed: STANDARD.encode(value),
        });
    }
    Ok(crate::metadata::checksum(algorithm.name(), value, 0))
}

fn expected_value(expect: &ChecksumExpectation, algorithm: ChecksumAlgorithm) -> Result<Option<Vec<u8>>, ObjectError> {
    let invalid = |reason: String| ObjectError::ChecksumInvalid { algorithm: algorithm.name(), reason };
    let value = match (&expect.value, &expect.trailer) {
        (Some(value), _) => value.clone(),
        (None, Some(trailer)) if expect.algorithm.is_some() => {
            let name = format!("x-amz-checksum-{}", algorithm.name().to_ascii_lowercase());
            let text = trailer(&name).ok_or_else(|| invalid(format!("the trailer {name} is missing")))?;
            STANDARD.decode(text.trim()).map_err(|_| invalid("not base64".to_owned()))?
        }
        _ => return Ok(None),
    };
    if value.len() != algorithm.value_bytes() {
        return Err(invalid(format!("{} bytes where {} are needed", value.len(), algorithm.value_bytes())));
    }
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check values of the CRC catalogue and the usual test vectors, for "123456789".
    #[test]
    fn known_values_of_every_algorithm() {
        for (algorithm, expected) in [
            (ChecksumAlgorithm::Crc32, "cbf43926"),
            (ChecksumAlgorithm::Crc32c, "e3069283"),
            (ChecksumAlgorithm::Crc64Nvme, "ae8b14860a799888"),
            (ChecksumAlgorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (ChecksumAlgorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
        ] {
            assert_eq!(hex::encode(checksum_of(algorithm, b"123456789")), expected, "{}", algorithm.name());
        }
    }

    #[tokio::test]
    async fn a_sha_stream_keeps_the_order() {
        let cpu = Arc::new(CpuPool::new(crate::surroundings::Computing::Threads));
        let all: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
        let keep: Keep = Arc::new(());
        for (kind, algorithm) in
            [(ShaKind::Sha1, ChecksumAlgorithm::Sha1), (ShaKind::Sha256, ChecksumAlgorithm::Sha256)]
        {
            let stream = ShaStream::new(kind, cpu.clone());
            for piece in all.chunks(1000) {
                stream.push(vec![Bytes::copy_from_slice(&piece[..400]), Bytes::copy_from_slice(&piece[400..])], &keep);
            }
            assert_eq!(stream.finish().await.unwrap(), checksum_of(algorithm, &all));
            assert_eq!(Arc::strong_count(&keep), 1);
        }
    }

    #[test]
    fn what_the_client_said_is_held_against_the_bytes() {
        let (md5, value) = ([7; 16], vec![1, 2, 3, 4]);
        let trailer = |text: Option<&'static str>| -> ChecksumExpectation {
            let source: crate::object_path::TrailerSource =
                Arc::new(move |name| text.filter(|_| name == "x-amz-checksum-crc32c").map(str::to_owned));
            ChecksumExpectation {
                algorithm: Some(ChecksumAlgorithm::Crc32c),
                trailer: Some(source),
                ..Default::default()
            }
        };
        let ahead = |bytes: &[u8]| ChecksumExpectation {
            algorithm: Some(ChecksumAlgorithm::Crc32),
            value: Some(bytes.to_vec()),
            ..Default::default()
        };
        let check = |expect: ChecksumExpectation| verify(&expect, md5, value.clone()).map(|c| c.algorithm);
        assert_eq!(check(ahead(&[1, 2, 3, 4])), Ok("CRC32".to_owned()));
        assert!(matches!(check(ahead(&[1, 2, 3, 5])), Err(ObjectError::Checksum { algorithm: "CRC32", .. })));
        assert!(matches!(check(ahead(&[1, 2, 3])), Err(ObjectError::ChecksumInvalid { .. })));
        assert_eq!(check(trailer(Some("AQIDBA=="))), Ok("CRC32C".to_owned()));
        assert!(matches!(check(trailer(Some("AQIDBQ=="))), Err(ObjectError::Checksum { algorithm: "CRC32C", .. })));
        assert!(matches!(check(trailer(Some("not base64"))), Err(ObjectError::ChecksumInvalid { .. })));
        assert!(matches!(check(trailer(None)), Err(ObjectError::ChecksumInvalid { .. })));
        let md5_wrong = ChecksumExpectation { content_md5: Some([8; 16]), ..Default::default() };
        assert!(matches!(check(md5_wrong), Err(ObjectError::ContentMd5 { .. })));
        let md5_right = ChecksumExpectation { content_md5: Some([7; 16]), ..Default::default() };
        assert_eq!(check(md5_right), Ok("CRC64NVME".to_owned()));
    }
}
