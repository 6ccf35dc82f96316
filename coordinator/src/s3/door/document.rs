//! Requests whose body is a document: which they are, reading it whole, and holding it against the digests sent with
//! it.
//!
//! Invariant: a document never takes more than `DOCUMENT_BYTES_MAX` of memory.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::error::DoorError;
use super::forward::trailer_name;
use super::limits::DOCUMENT_BYTES_MAX;
use crate::object_path::{BodyError, BodyStream, ChecksumAlgorithm, TrailerSource, checksum_of};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, Method};
use md5::{Digest, Md5};

/// Query parameters that make a PUT about something other than an object's bytes.
const DOCUMENT_PARAMETERS: [&str; 22] = [
    "acl",
    "cors",
    "delete",
    "encryption",
    "legal-hold",
    "lifecycle",
    "logging",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "tagging",
    "uploads",
    "versioning",
    "website",
    "accelerate",
];

/// Whether the body is a document rather than object bytes.
pub(super) fn is_document(method: &Method, has_key: bool, query: &[(String, String)]) -> bool {
    match *method {
        Method::PUT => !has_key || query.iter().any(|(name, _)| DOCUMENT_PARAMETERS.contains(&name.as_str())),
        _ => true,
    }
}

/// A document that cannot be taken, by the length it declares.
pub(super) fn check_length(declared: Option<u64>) -> Result<(), DoorError> {
    match declared {
        Some(bytes) if bytes > DOCUMENT_BYTES_MAX as u64 => Err(too_big()),
        _ => Ok(()),
    }
}

fn too_big() -> DoorError {
    DoorError::bad("MaxMessageLengthExceeded", "Your request was too big.")
}

/// Reads all of it.
pub(super) async fn collect(mut body: BodyStream) -> Result<Bytes, DoorError> {
    let mut all = BytesMut::new();
    while let Some(item) = body.next().await {
        let bytes = item.map_err(body_error)?;
        if all.len().saturating_add(bytes.len()) > DOCUMENT_BYTES_MAX {
            return Err(too_big());
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all.freeze())
}

/// A body that ended wrongly, as the door says it.
pub(super) fn body_error(error: BodyError) -> DoorError {
    let message = error.to_string();
    match error {
        BodyError::Incomplete { .. } => DoorError::bad("IncompleteBody", message),
        BodyError::Signature { .. } => DoorError::denied("SignatureDoesNotMatch", message),
        BodyError::Malformed { .. } => DoorError::bad("InvalidRequest", message),
        BodyError::ContentSha256 => DoorError::bad("XAmzContentSHA256Mismatch", message),
        BodyError::TooLarge { .. } => DoorError::bad("EntityTooLarge", message),
        BodyError::TooSmall { .. } => DoorError::bad("EntityTooSmall", message),
        BodyError::TimedOut => DoorError::bad("RequestTimeout", message),
    }
}

/// The bytes of Content-MD5, where sent. Its form is judged of every request and first: that costs nothing, and an empty
/// one would be taken for none further on.
pub(super) fn content_md5(headers: &HeaderMap) -> Result<Option<Vec<u8>>, DoorError> {
    let Some(value) = headers.get("content-md5") else { return Ok(None) };
    let claimed = value.to_str().ok().and_then(|v| BASE64.decode(v).ok()).filter(|v| v.len() == 16);
    let invalid = || DoorError::bad("InvalidDigest", "The Content-MD5 you specified is not valid.");
    claimed.map(Some).ok_or_else(invalid)
}

/// Content-MD5 and `x-amz-checksum-*` of a document, where sent, as header or trailer. Completing an upload names the
/// checksum of the object instead: that one is not the document's.
pub(super) fn check_digests(
    headers: &HeaderMap,
    trailers: Option<&TrailerSource>,
    query: &[(String, String)],
    bytes: &[u8],
) -> Result<(), DoorError> {
    if content_md5(headers)?.is_some_and(|claimed| Md5::digest(bytes).as_slice() != claimed) {
        return Err(DoorError::bad("BadDigest", "The Content-MD5 you specified did not match what we received."));
    }
    if query.iter().any(|(name, _)| name == "uploadId") {
        return Ok(());
    }
    for algorithm in ChecksumAlgorithm::ALL {
        let name = trailer_name(algorithm);
        let trailing = trailers.and_then(|trailer| trailer(&name));
        let sent = headers.get(&name).map(|v| v.to_str().unwrap_or_default()).or(trailing.as_deref());
        let Some(text) = sent else { continue };
        let claimed = BASE64.decode(text.trim()).ok().filter(|v| v.len() == algorithm.value_bytes());
        let claimed =
            claimed.ok_or_else(|| DoorError::bad("InvalidRequest", format!("Value for {name} header is invalid.")))?;
        if checksum_of(algorithm, bytes) != claimed {
            let message = format!("The {} you specified did not match what we received.", algorithm.name());
            return Err(DoorError::bad("BadDigest", message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn documents_are_told_from_objects() {
        let query = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), String::new())).collect::<Vec<_>>();
        let table = [
            (Method::PUT, true, query(&[]), false),
            (Method::PUT, true, query(&["partNumber", "uploadId"]), false),
            (Method::PUT, true, query(&["tagging"]), true),
            (Method::PUT, false, query(&[]), true),
            (Method::POST, true, query(&["uploadId"]), true),
            (Method::GET, true, query(&[]), true),
            (Method::DELETE, true, query(&[]), true),
        ];
        for (method, has_key, query, expected) in table {
            assert_eq!(is_document(&method, has_key, &query), expected, "{method} {has_key} {query:?}");
        }
        assert!(check_length(None).is_ok());
        assert!(check_length(Some(DOCUMENT_BYTES_MAX as u64)).is_ok());
        assert_eq!(check_length(Some(u64::MAX)).unwrap_err().code, "MaxMessageLengthExceeded");
    }

    #[test]
    fn a_malformed_content_md5_is_refused() {
        let judged = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("content-md5", HeaderValue::from_static(value));
            content_md5(&headers).map(|_| ()).map_err(|e| e.code)
        };
        assert_eq!(judged("1B2M2Y8AsgTpgAmY7PhCfg=="), Ok(()));
        for bad in ["", "AWS HAHAHA", "YWJyYWNhZGFicmE="] {
            assert_eq!(judged(bad), Err("InvalidDigest"), "{bad}");
        }
    }

    #[test]
    fn digests_of_documents_hold_or_refuse() {
        let check = |name: &'static str, value: &str, query: &[(String, String)]| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
            check_digests(&headers, None, query, b"123456789").map_err(|e| e.code)
        };
        assert_eq!(check("x-amz-checksum-crc32", "y/Q5Jg==", &[]), Ok(()));
        assert_eq!(check("x-amz-checksum-crc32", "y/Q5Jw==", &[]), Err("BadDigest"));
        assert_eq!(check("x-amz-checksum-crc32c", "%", &[]), Err("InvalidRequest"));
        assert_eq!(check("x-amz-checksum-sha256", "AAAA", &[]), Err("InvalidRequest"));
        assert_eq!(check("x-amz-checksum-crc32", "y/Q5Jw==", &[("uploadId".into(), "u".into())]), Ok(()));
        assert_eq!(check("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==", &[]), Ok(()));
        assert_eq!(check("content-md5", "JfnnlDI7RTiF9RgfG2JNCg==", &[]), Err("BadDigest"));
        assert_eq!(check("content-md5", "short", &[]), Err("InvalidDigest"));
    }
}
