//! The only place that turns our errors into S3 codes and statuses.

use crate::metadata::MetadataError;
use crate::object_path::{BodyError, ObjectError};
use http::StatusCode;
use s3s::{S3Error, S3ErrorCode};

fn coded(code: S3ErrorCode, message: String) -> S3Error {
    S3Error::with_message(code, message)
}

fn custom(code: &'static str, status: StatusCode, message: String) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(status);
    error
}

/// A metadata error as S3 says it.
pub(super) fn from_metadata(error: MetadataError) -> S3Error {
    let message = error.to_string();
    let code = match error {
        MetadataError::NoSuchBucket { .. } => S3ErrorCode::NoSuchBucket,
        MetadataError::BucketExists { .. } => S3ErrorCode::BucketAlreadyExists,
        MetadataError::BucketNotEmpty { .. } => S3ErrorCode::BucketNotEmpty,
        MetadataError::NoSuchKey => S3ErrorCode::NoSuchKey,
        MetadataError::NoSuchVersion { .. } => S3ErrorCode::NoSuchVersion,
        MetadataError::NoSuchUpload { .. } => S3ErrorCode::NoSuchUpload,
        MetadataError::InvalidPart { .. } => S3ErrorCode::InvalidPart,
        MetadataError::PreconditionFailed { .. } => S3ErrorCode::PreconditionFailed,
        MetadataError::NoSuchAccessKey { .. } => S3ErrorCode::InvalidAccessKeyId,
        MetadataError::AccessKeyExists { .. } | MetadataError::StaleEpoch { .. } => S3ErrorCode::OperationAborted,
        MetadataError::Invalid { .. } => S3ErrorCode::InvalidArgument,
        MetadataError::Full { .. } => return custom("StorageFull", StatusCode::INSUFFICIENT_STORAGE, message),
        MetadataError::Fenced | MetadataError::Unavailable { .. } => S3ErrorCode::ServiceUnavailable,
    };
    if code == S3ErrorCode::ServiceUnavailable {
        tracing::error!(error = %message, "metadata unavailable");
        return coded(code, "Please reduce your request rate or try again.".to_owned());
    }
    coded(code, message)
}

/// A body that ended wrongly, as S3 says it.
pub(super) fn from_body(error: &BodyError) -> S3Error {
    let message = error.to_string();
    match error {
        BodyError::Incomplete { .. } => coded(S3ErrorCode::IncompleteBody, message),
        BodyError::Signature { .. } => coded(S3ErrorCode::SignatureDoesNotMatch, message),
        BodyError::Malformed { .. } => coded(S3ErrorCode::InvalidRequest, message),
        BodyError::ContentSha256 => custom("XAmzContentSHA256Mismatch", StatusCode::BAD_REQUEST, message),
        BodyError::TooLarge { .. } => coded(S3ErrorCode::EntityTooLarge, message),
        BodyError::TooSmall { .. } => coded(S3ErrorCode::EntityTooSmall, message),
        BodyError::TimedOut => coded(S3ErrorCode::RequestTimeout, message),
    }
}

/// An object path error as S3 says it.
pub(super) fn from_object(error: ObjectError) -> S3Error {
    let message = error.to_string();
    match error {
        ObjectError::Metadata(error) => from_metadata(error),
        ObjectError::Body(error) => from_body(&error),
        ObjectError::ContentMd5 { .. } | ObjectError::Checksum { .. } => coded(S3ErrorCode::BadDigest, message),
        ObjectError::ChecksumInvalid { .. } => coded(S3ErrorCode::InvalidRequest, message),
        ObjectError::TooLarge { .. } => coded(S3ErrorCode::EntityTooLarge, message),
        ObjectError::TooFewBackends { full: true, .. } => {
            custom("StorageFull", StatusCode::INSUFFICIENT_STORAGE, message)
        }
        ObjectError::TooFewBackends { .. } | ObjectError::Unreadable { .. } => {
            tracing::error!(error = %message, "request refused for want of backends");
            coded(S3ErrorCode::ServiceUnavailable, message)
        }
        ObjectError::Internal { .. } => {
            tracing::error!(error = %message, "internal error");
            coded(S3ErrorCode::InternalError, "We encountered an internal error. Please try again.".to_owned())
        }
    }
}

/// Wrong arguments.
pub(super) fn invalid_argument(message: impl Into<String>) -> S3Error {
    coded(S3ErrorCode::InvalidArgument, message.into())
}

/// A request that makes no sense.
pub(super) fn invalid_request(message: impl Into<String>) -> S3Error {
    coded(S3ErrorCode::InvalidRequest, message.into())
}

/// An honest refusal.
pub(super) fn not_implemented(what: &str) -> S3Error {
    coded(S3ErrorCode::NotImplemented, format!("{what} is not implemented"))
}

/// A configuration that was never set; S3 answers 404 with a code of its own.
pub(super) fn not_configured(code: &'static str, message: &'static str) -> S3Error {
    custom(code, StatusCode::NOT_FOUND, message.to_owned())
}

/// `partNumber` of a part the object does not have.
pub(super) fn no_such_part_number() -> S3Error {
    let message = "The requested partnumber is not satisfiable".to_owned();
    custom("InvalidPartNumber", StatusCode::RANGE_NOT_SATISFIABLE, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_code_and_status() {
        let table: Vec<(S3Error, &str, u16)> = vec![
            (from_metadata(MetadataError::NoSuchBucket { bucket: "b".into() }), "NoSuchBucket", 404),
            (from_metadata(MetadataError::BucketNotEmpty { bucket: "b".into() }), "BucketNotEmpty", 409),
            (from_metadata(MetadataError::NoSuchKey), "NoSuchKey", 404),
            (from_metadata(MetadataError::NoSuchVersion { version: "v".into() }), "NoSuchVersion", 404),
            (from_metadata(MetadataError::InvalidPart { number: 1 }), "InvalidPart", 400),
            (from_metadata(MetadataError::PreconditionFailed { condition: "If-Match" }), "PreconditionFailed", 412),
            (from_metadata(MetadataError::Invalid { reason: "x".into() }), "InvalidArgument", 400),
            (from_metadata(MetadataError::Full { reason: "x".into() }), "StorageFull", 507),
            (from_metadata(MetadataError::Unavailable { reason: "x".into() }), "ServiceUnavailable", 503),
            (from_metadata(MetadataError::Fenced), "ServiceUnavailable", 503),
            (from_body(&BodyError::Incomplete { reason: "x".into() }), "IncompleteBody", 400),
            (from_body(&BodyError::Signature { reason: "x".into() }), "SignatureDoesNotMatch", 403),
            (from_body(&BodyError::Malformed { reason: "x".into() }), "InvalidRequest", 400),
            (from_body(&BodyError::ContentSha256), "XAmzContentSHA256Mismatch", 400),
            (from_body(&BodyError::TooLarge { limit: 1 }), "EntityTooLarge", 400),
            (from_body(&BodyError::TooSmall { minimum: 1 }), "EntityTooSmall", 400),
            (from_body(&BodyError::TimedOut), "RequestTimeout", 400),
            (from_object(ObjectError::ContentMd5 { expected: "a".into(), computed: "b".into() }), "BadDigest", 400),
            (from_object(ObjectError::TooLarge { limit: 5 }), "EntityTooLarge", 400),
            (
                from_object(ObjectError::TooFewBackends { durable: 4, needed: 5, reason: "x".into(), full: true }),
                "StorageFull",
                507,
            ),
            (
                from_object(ObjectError::TooFewBackends { durable: 4, needed: 5, reason: "x".into(), full: false }),
                "ServiceUnavailable",
                503,
            ),
            (
                from_object(ObjectError::Unreadable { segment: "s".into(), present: 3, needed: 4 }),
                "ServiceUnavailable",
                503,
            ),
            (from_object(ObjectError::Internal { reason: "x".into() }), "InternalError", 500),
            (not_implemented("x"), "NotImplemented", 501),
            (not_configured("NoSuchCORSConfiguration", "none"), "NoSuchCORSConfiguration", 404),
        ];
        for (error, code, status) in table {
            assert_eq!(error.code().as_str(), code);
            let found = error.status_code().or_else(|| error.code().status_code()).map(|s| s.as_u16());
            assert_eq!(found, Some(status), "{code}");
        }
    }
}
