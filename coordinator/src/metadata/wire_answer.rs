//! Answers of commands as they cross the wire and are kept for retries: a reply or a refusal.

use super::api::{Deleted, MetadataError};
use super::command::{ApplyResult, Reply};
use super::membership_commands::TrustReply;
use bytes::Bytes;
use holdfast_proto::manifest::{Bucket, ObjectVersion};
use holdfast_proto::{Epoch, VersionId};

/// What `apply` answered.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireAnswer {
    #[prost(oneof = "Outcome", tags = "1,2,3,4,5,6,7,8,9,15")]
    outcome: Option<Outcome>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Outcome {
    #[prost(bool, tag = "1")]
    Done(bool),
    #[prost(message, tag = "2")]
    Bucket(Bucket),
    #[prost(message, tag = "3")]
    Version(ObjectVersion),
    #[prost(message, tag = "4")]
    Deleted(WireDeleted),
    #[prost(string, tag = "5")]
    VersionName(String),
    #[prost(message, tag = "6")]
    Fenced(WireFenced),
    #[prost(uint32, tag = "7")]
    Range(u32),
    #[prost(bool, tag = "8")]
    WrongRange(bool),
    #[prost(message, tag = "9")]
    Trust(TrustReply),
    #[prost(message, tag = "15")]
    Refused(WireError),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireDeleted {
    #[prost(string, optional, tag = "1")]
    version: Option<String>,
    #[prost(bool, tag = "2")]
    delete_marker: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireFenced {
    #[prost(bool, tag = "1")]
    is_empty: bool,
    #[prost(bytes = "bytes", tag = "2")]
    end: Bytes,
}

/// A `MetadataError`: which, and what it names.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireError {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    text: String,
    #[prost(string, tag = "3")]
    other: String,
    #[prost(uint64, tag = "4")]
    number: u64,
    #[prost(uint64, tag = "5")]
    other_number: u64,
    #[prost(bytes = "bytes", tag = "6")]
    id: Bytes,
}

/// Conditions that can fail, by their number on the wire.
const CONDITIONS: [&str; 4] = ["If-Match", "If-None-Match", "x-amz-if-match-last-modified-time", "x-amz-if-match-size"];

impl WireAnswer {
    pub(super) fn of(result: &ApplyResult) -> Self {
        let outcome = match result {
            Ok(Reply::Done) => Outcome::Done(true),
            Ok(Reply::Bucket(bucket)) => Outcome::Bucket((**bucket).clone()),
            Ok(Reply::Version(version)) => Outcome::Version((**version).clone()),
            Ok(Reply::Deleted(deleted)) => {
                Outcome::Deleted(WireDeleted { version: deleted.version.clone(), delete_marker: deleted.delete_marker })
            }
            Ok(Reply::VersionName(name)) => Outcome::VersionName(name.clone()),
            Ok(Reply::Fenced { is_empty, end }) => {
                Outcome::Fenced(WireFenced { is_empty: *is_empty, end: end.clone() })
            }
            Ok(Reply::Range(range)) => Outcome::Range(*range),
            Ok(Reply::WrongRange) => Outcome::WrongRange(true),
            Ok(Reply::Trust(reply)) => Outcome::Trust((**reply).clone()),
            Err(error) => Outcome::Refused(WireError::of(error)),
        };
        Self { outcome: Some(outcome) }
    }

    pub(super) fn into_result(self) -> ApplyResult {
        match self.outcome {
            Some(Outcome::Done(_)) => Ok(Reply::Done),
            Some(Outcome::Bucket(bucket)) => Ok(Reply::Bucket(Box::new(bucket))),
            Some(Outcome::Version(version)) => Ok(Reply::Version(Box::new(version))),
            Some(Outcome::Deleted(WireDeleted { version, delete_marker })) => {
                Ok(Reply::Deleted(Deleted { version, delete_marker }))
            }
            Some(Outcome::VersionName(name)) => Ok(Reply::VersionName(name)),
            Some(Outcome::Fenced(WireFenced { is_empty, end })) => Ok(Reply::Fenced { is_empty, end }),
            Some(Outcome::Range(range)) => Ok(Reply::Range(range)),
            Some(Outcome::WrongRange(_)) => Ok(Reply::WrongRange),
            Some(Outcome::Trust(reply)) => Ok(Reply::Trust(Box::new(reply))),
            Some(Outcome::Refused(error)) => Err(error.into_error()),
            None => {
                Err(MetadataError::Unavailable { reason: "an answer of a kind this build does not know".to_owned() })
            }
        }
    }
}

impl WireError {
    pub(super) fn of(error: &MetadataError) -> Self {
        let plain = |code, text: &str| Self { code, text: text.to_owned(), ..Self::default() };
        match error {
            MetadataError::NoSuchBucket { bucket } => plain(1, bucket),
            MetadataError::BucketExists { bucket, owner } => Self { other: owner.clone(), ..plain(2, bucket) },
            MetadataError::BucketNotEmpty { bucket } => plain(3, bucket),
            MetadataError::NoSuchKey => plain(4, ""),
            MetadataError::NoSuchVersion { version } => plain(5, version),
            MetadataError::NoSuchUpload { upload } => Self { id: Bytes::copy_from_slice(&upload.0), ..plain(6, "") },
            MetadataError::InvalidPart { number } => Self { number: u64::from(*number), ..plain(7, "") },
            MetadataError::PreconditionFailed { condition } => plain(8, condition),
            MetadataError::NoSuchAccessKey { access_key } => plain(9, access_key),
            MetadataError::AccessKeyExists { access_key } => plain(10, access_key),
            MetadataError::StaleEpoch { expected, current } => {
                Self { number: expected.0, other_number: current.0, ..plain(11, "") }
            }
            MetadataError::Invalid { reason } => plain(12, reason),
            MetadataError::Full { reason } => plain(13, reason),
            MetadataError::Unavailable { reason } => plain(14, reason),
            MetadataError::Fenced => plain(15, ""),
        }
    }

    pub(super) fn into_error(self) -> MetadataError {
        let text = self.text;
        match self.code {
            1 => MetadataError::NoSuchBucket { bucket: text },
            2 => MetadataError::BucketExists { bucket: text, owner: self.other },
            3 => MetadataError::BucketNotEmpty { bucket: text },
            4 => MetadataError::NoSuchKey,
            5 => MetadataError::NoSuchVersion { version: text },
            6 => MetadataError::NoSuchUpload { upload: VersionId::from_slice(&self.id).unwrap_or_default() },
            7 => MetadataError::InvalidPart { number: u32::try_from(self.number).unwrap_or(u32::MAX) },
            8 => {
                let known = CONDITIONS.into_iter().find(|known| *known == text);
                MetadataError::PreconditionFailed { condition: known.unwrap_or("precondition") }
            }
            9 => MetadataError::NoSuchAccessKey { access_key: text },
            10 => MetadataError::AccessKeyExists { access_key: text },
            11 => MetadataError::StaleEpoch { expected: Epoch(self.number), current: Epoch(self.other_number) },
            12 => MetadataError::Invalid { reason: text },
            13 => MetadataError::Full { reason: text },
            15 => MetadataError::Fenced,
            _ => MetadataError::Unavailable { reason: text },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn every_answer_comes_back() {
        let name = || "name".to_owned();
        let errors = [
            MetadataError::NoSuchBucket { bucket: name() },
            MetadataError::BucketExists { bucket: name(), owner: "o".to_owned() },
            MetadataError::BucketNotEmpty { bucket: name() },
            MetadataError::NoSuchKey,
            MetadataError::NoSuchVersion { version: name() },
            MetadataError::NoSuchUpload { upload: VersionId([7; 16]) },
            MetadataError::InvalidPart { number: 9 },
            MetadataError::NoSuchAccessKey { access_key: name() },
            MetadataError::AccessKeyExists { access_key: name() },
            MetadataError::StaleEpoch { expected: Epoch(3), current: Epoch(5) },
            MetadataError::Invalid { reason: name() },
            MetadataError::Full { reason: name() },
            MetadataError::Unavailable { reason: name() },
            MetadataError::Fenced,
        ];
        let conditions = CONDITIONS.map(|condition| MetadataError::PreconditionFailed { condition });
        let replies = [
            Reply::Done,
            Reply::Bucket(Box::new(Bucket { id: 3, ..Bucket::default() })),
            Reply::Version(Box::new(ObjectVersion { object_bytes: 5, ..ObjectVersion::default() })),
            Reply::Deleted(Deleted { version: None, delete_marker: true }),
            Reply::VersionName(name()),
            Reply::Fenced { is_empty: true, end: Bytes::from_static(b"x") },
            Reply::Range(8),
            Reply::WrongRange,
        ];
        let results = errors.into_iter().chain(conditions).map(Err).chain(replies.into_iter().map(Ok));
        for result in results {
            let bytes = WireAnswer::of(&result).encode_to_vec();
            assert_eq!(WireAnswer::decode(bytes.as_slice()).unwrap().into_result(), result);
        }
    }
}
