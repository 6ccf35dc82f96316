//! Where a request goes: bucket and key out of path and host, once, for authorisation and operation alike.
//!
//! A key is opaque: `..`, `//`, backslashes and a leading slash are part of it. What is handed on is encoded anew from
//! what was understood here, so that nobody behind the door can read it differently.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::error::DoorError;
use super::limits::KEY_BYTES_MAX;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// RFC 3986 unreserved stay as they are (SigV4 "UriEncode").
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The same, and the slash: for paths.
const PATH: &AsciiSet = &VALUE.remove(b'/');

/// Bucket and key, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) bucket: String,
    /// Empty for the bucket itself.
    pub(crate) key: String,
}

impl Target {
    /// The path that goes on: `/bucket/key`, strictly encoded.
    pub(crate) fn path(&self) -> String {
        let key = utf8_percent_encode(&self.key, PATH);
        match (self.bucket.as_str(), self.key.as_str()) {
            ("", _) => "/".to_owned(),
            (bucket, "") => format!("/{}", encode_value(bucket)),
            (bucket, _) => format!("/{}/{key}", encode_value(bucket)),
        }
    }
}

/// Encodes a query name or value.
pub(crate) fn encode_value(text: &str) -> String {
    utf8_percent_encode(text, VALUE).to_string()
}

/// The path as SigV4 sees it: each byte encoded once, slashes kept.
pub(crate) fn canonical_path(decoded: &str) -> String {
    utf8_percent_encode(decoded, PATH).to_string()
}

fn has_bad_percent(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let hex = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_hexdigit());
            if !hex(bytes.next()) || !hex(bytes.next()) {
                return true;
            }
        }
    }
    false
}

/// Decodes a path; refuses bad escapes, bytes that are not UTF-8 and NUL.
pub(crate) fn decode_path(raw: &str) -> Result<String, DoorError> {
    let invalid = || DoorError::bad("InvalidURI", "Couldn't parse the specified URI.");
    if has_bad_percent(raw) {
        return Err(invalid());
    }
    let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| invalid())?.into_owned();
    if decoded.contains('\0') {
        return Err(invalid());
    }
    Ok(decoded)
}

/// Decodes a query into names and values in the order sent; a plus is a space.
pub(crate) fn decode_query(raw: &str) -> Result<Vec<(String, String)>, DoorError> {
    let invalid = || DoorError::bad("InvalidURI", "Couldn't parse the specified URI.");
    let decode = |text: &str| {
        if has_bad_percent(text) {
            return Err(invalid());
        }
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8().map(|t| t.into_owned()).map_err(|_| invalid())
    };
    raw.split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

/// Bucket and key from the decoded path, and from the host where it is below one of `domains`.
pub(crate) fn target(decoded_path: &str, host: &str, domains: &[String]) -> Result<Target, DoorError> {
    let path = decoded_path.strip_prefix('/').unwrap_or(decoded_path);
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(n, _)| n);
    let name = name.to_ascii_lowercase();
    let bucket_of_host = domains.iter().find_map(|domain| {
        let rest = name.strip_suffix(&domain.to_ascii_lowercase())?;
        rest.strip_suffix('.').filter(|bucket| !bucket.is_empty())
    });
    let target = match bucket_of_host {
        Some(bucket) => Target { bucket: bucket.to_owned(), key: path.to_owned() },
        None => {
            let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
            Target { bucket: bucket.to_owned(), key: key.to_owned() }
        }
    };
    if target.bucket.is_empty() && !target.key.is_empty() {
        return Err(DoorError::bad("InvalidBucketName", "The specified bucket is not valid."));
    }
    if target.key.len() > KEY_BYTES_MAX {
        return Err(DoorError::bad("KeyTooLongError", "Your key is too long"));
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_opaque_and_come_out_as_they_went_in() {
        let domains = vec!["s3.example.com".to_owned()];
        let table = [
            ("/b/k", "h", "b", "k"),
            ("/b", "h", "b", ""),
            ("/b/", "h", "b", ""),
            ("/", "h", "", ""),
            ("/b/../other/key", "h", "b", "../other/key"),
            ("/b//x", "h", "b", "/x"),
            ("/b/a%2Fb%20c%C3%BC%5C", "h", "b", "a/b cü\\"),
            ("/k/x", "bucket.s3.example.com:9000", "bucket", "k/x"),
            ("/b/k", "s3.example.com", "b", "k"),
        ];
        for (raw, host, bucket, key) in table {
            let found = target(&decode_path(raw).unwrap(), host, &domains).unwrap();
            assert_eq!((found.bucket.as_str(), found.key.as_str()), (bucket, key), "{raw} {host}");
            if !found.bucket.is_empty() {
                let again = target(&decode_path(&found.path()).unwrap(), "h", &[]).unwrap();
                assert_eq!(again, found, "{raw}");
            }
        }
    }

    #[test]
    fn malformed_paths_are_refused() {
        for raw in ["/b/%", "/b/%2", "/b/%zz", "/b/%FF", "/b/%00", "/b/a%C3"] {
            assert_eq!(decode_path(raw).unwrap_err().code, "InvalidURI", "{raw}");
        }
        let long = format!("/b/{}", "k".repeat(1025));
        assert_eq!(target(&long, "h", &[]).unwrap_err().code, "KeyTooLongError");
        assert_eq!(target("//k", "h", &[]).unwrap_err().code, "InvalidBucketName");
        assert!(decode_query("a=%G1").is_err());
        assert_eq!(
            decode_query("a=b+c&d&e=%2B").unwrap(),
            [("a", "b c"), ("d", ""), ("e", "+")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
    }
}
