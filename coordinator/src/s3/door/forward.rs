//! The request as it goes on behind the door: path style, encoded anew, without what was the door's business.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::error::DoorError;
use super::path::{Target, encode_value};
use crate::object_path::ChecksumAlgorithm;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, DATE, EXPECT, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, RANGE,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

/// Names the algorithm of a checksum, in the words of the SDKs and of S3's own operations.
const SDK_CHECKSUM_ALGORITHM: &str = "x-amz-sdk-checksum-algorithm";
const CHECKSUM_ALGORITHM: &str = "x-amz-checksum-algorithm";

/// The request as it goes on: path style, encoded anew, without what was the door's business.
pub(super) fn forwarded_head(
    method: &Method,
    target: &Target,
    query: &[(String, String)],
    headers: &HeaderMap,
) -> Result<Request<()>, DoorError> {
    let kept: Vec<String> = query
        .iter()
        .filter(|(name, _)| !is_presign_parameter(name))
        .map(|(name, value)| {
            if value.is_empty() {
                encode_value(name)
            } else {
                format!("{}={}", encode_value(name), encode_value(value))
            }
        })
        .collect();
    let path = target.path();
    let uri = if kept.is_empty() { path } else { format!("{path}?{}", kept.join("&")) };
    let uri: Uri = uri.parse().map_err(|_| DoorError::bad("InvalidURI", "Couldn't parse the specified URI."))?;
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri;
    let out = request.headers_mut();
    *out = headers.clone();
    for name in [AUTHORIZATION, DATE, EXPECT, TRANSFER_ENCODING, CONTENT_LENGTH] {
        out.remove(name);
    }
    for name in
        ["x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "x-amz-decoded-content-length", "x-amz-trailer"]
    {
        out.remove(name);
    }
    // The algorithm to compute is named by the SDKs' header or by an announced trailer. The library knows but this one.
    if !out.contains_key(CHECKSUM_ALGORITHM) {
        let trailer = headers.get("x-amz-trailer").and_then(|v| v.to_str().ok()).and_then(algorithm_of_trailer);
        let named = trailer.map(|algorithm| HeaderValue::from_static(algorithm.name()));
        if let Some(value) = headers.get(SDK_CHECKSUM_ALGORITHM).cloned().or(named) {
            out.insert(CHECKSUM_ALGORITHM, value);
        }
    }
    // What is no range or no date is ignored (RFC 9110, 14.2, 13.1.3 and 13.1.4); the library would refuse it.
    normalise(out, RANGE, normal_range);
    normalise(out, IF_MODIFIED_SINCE, normal_date);
    normalise(out, IF_UNMODIFIED_SINCE, normal_date);
    let encodings: Vec<&str> = headers.get_all(CONTENT_ENCODING).iter().filter_map(|v| v.to_str().ok()).collect();
    let kept = without_framing(&encodings.join(","));
    out.remove(CONTENT_ENCODING);
    if !kept.is_empty()
        && let Ok(value) = HeaderValue::from_str(&kept)
    {
        out.insert(CONTENT_ENCODING, value);
    }
    Ok(request)
}

/// Replaces a header by its normal form; without one it is left out.
fn normalise(headers: &mut HeaderMap, name: HeaderName, normal: impl Fn(&str) -> Option<String>) {
    let Some(sent) = headers.remove(&name) else { return };
    let value = sent.to_str().ok().and_then(|text| normal(text.trim())).and_then(|v| HeaderValue::from_str(&v).ok());
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

/// One range of bytes; positions beyond any object are cut to one that is beyond any object, too.
fn normal_range(text: &str) -> Option<String> {
    const FAR: u64 = i64::MAX.unsigned_abs();
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let position = |digits: &str| -> Option<Option<u64>> {
        let good = digits.bytes().all(|b| b.is_ascii_digit());
        good.then(|| (!digits.is_empty()).then(|| digits.parse().unwrap_or(FAR).min(FAR)))
    };
    match (position(first)?, position(last)?) {
        (Some(first), Some(last)) if first <= last => Some(format!("bytes={first}-{last}")),
        (Some(first), None) => Some(format!("bytes={first}-")),
        (None, Some(length)) => Some(format!("bytes=-{length}")),
        _ => None,
    }
}

fn normal_date(text: &str) -> Option<String> {
    httpdate::parse_http_date(text).ok().map(httpdate::fmt_http_date)
}

/// A content encoding without `aws-chunked`, which is of the transfer; what is left stays as it was written.
fn without_framing(encoding: &str) -> String {
    let framing = |e: &str| e.trim().is_empty() || e.trim().eq_ignore_ascii_case("aws-chunked");
    encoding.split(',').filter(|e| !framing(e)).collect::<Vec<_>>().join(",").trim().to_owned()
}

/// Says how long the body is that goes on.
pub(super) fn set_length(request: &mut Request<()>, length: u64) {
    request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
}

fn is_presign_parameter(name: &str) -> bool {
    matches!(
        name,
        "X-Amz-Algorithm"
            | "X-Amz-Credential"
            | "X-Amz-Date"
            | "X-Amz-Expires"
            | "X-Amz-SignedHeaders"
            | "X-Amz-Signature"
            | "X-Amz-Security-Token"
            | "X-Amz-Content-Sha256"
    )
}

/// The trailing header of an algorithm's value, which is also the name of the leading one.
pub(super) fn trailer_name(algorithm: ChecksumAlgorithm) -> String {
    format!("x-amz-checksum-{}", algorithm.name().to_ascii_lowercase())
}

fn algorithm_of_trailer(name: &str) -> Option<ChecksumAlgorithm> {
    let name = name.trim().to_ascii_lowercase();
    name.strip_prefix("x-amz-checksum-").and_then(ChecksumAlgorithm::from_name)
}

/// The checksum that will come as a trailer, if the request announces one. There is one checksum a request, of the
/// algorithm it names: another would go unverified.
pub(super) fn checksum_trailer(
    headers: &HeaderMap,
    has_trailers: bool,
) -> Result<Option<ChecksumAlgorithm>, DoorError> {
    let Some(value) = headers.get("x-amz-trailer") else { return Ok(None) };
    let invalid = |message: &str| DoorError::bad("InvalidRequest", message);
    let algorithm = value
        .to_str()
        .ok()
        .filter(|_| has_trailers)
        .and_then(algorithm_of_trailer)
        .ok_or_else(|| invalid("The value specified in the x-amz-trailer header is not supported"))?;
    if ChecksumAlgorithm::ALL.into_iter().any(|a| headers.contains_key(trailer_name(a))) {
        return Err(invalid("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."));
    }
    for name in [SDK_CHECKSUM_ALGORITHM, CHECKSUM_ALGORITHM] {
        if let Some(named) = headers.get(name)
            && named.to_str().ok().and_then(ChecksumAlgorithm::from_name) != Some(algorithm)
        {
            return Err(invalid(&format!("Value for {name} header is invalid.")));
        }
    }
    Ok(Some(algorithm))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(n, v)| (HeaderName::from_bytes(n.as_bytes()).unwrap(), HeaderValue::from_str(v).unwrap()))
            .collect()
    }

    #[test]
    fn the_doors_own_headers_stay_at_the_door() {
        let sent = headers(&[
            ("authorization", "AWS4-HMAC-SHA256 x"),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
            ("x-amz-decoded-content-length", "5"),
            ("x-amz-trailer", "x-amz-checksum-crc32c"),
            ("content-encoding", "aws-chunked"),
            ("content-encoding", "gzip"),
            ("transfer-encoding", "chunked"),
            ("content-length", "100"),
            ("content-type", "text/plain"),
        ]);
        let target = Target { bucket: "b".into(), key: "../a b".into() };
        let query = [("X-Amz-Signature".to_owned(), "s".to_owned()), ("versionId".to_owned(), "a&b".to_owned())];
        let request = forwarded_head(&Method::PUT, &target, &query, &sent).unwrap();
        assert_eq!(request.uri(), "/b/../a%20b?versionId=a%26b");
        let mut left: Vec<_> = request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        left.sort();
        let expected = ["content-encoding: gzip", "content-type: text/plain", "x-amz-checksum-algorithm: CRC32C"];
        assert_eq!(left, expected);
    }

    #[test]
    fn ranges_and_dates_take_their_normal_form_or_are_ignored() {
        for (sent, expected) in [
            ("bytes=0-0", Some("bytes=0-0")),
            ("bytes=5-", Some("bytes=5-")),
            ("bytes=-5", Some("bytes=-5")),
            ("bytes=-99999999999999999999999", Some("bytes=-9223372036854775807")),
            ("bytes=18446744073709551615-", Some("bytes=9223372036854775807-")),
            ("bytes=-", None),
            ("bytes=5-4", None),
            ("bytes=--5", None),
            ("bytes=0-1,3-4", None),
            ("bytes=a-b", None),
            ("lines=0-1", None),
            ("", None),
        ] {
            assert_eq!(normal_range(sent).as_deref(), expected, "{sent}");
        }
        let fixed = "Fri, 24 May 2013 00:00:00 GMT";
        for same in [fixed, "Friday, 24-May-13 00:00:00 GMT", "Fri May 24 00:00:00 2013"] {
            assert_eq!(normal_date(same).as_deref(), Some(fixed), "{same}");
        }
        assert_eq!(normal_date("yesterday"), None);
    }

    #[test]
    fn framing_is_not_an_encoding_of_the_object() {
        for (sent, kept) in [
            ("gzip", "gzip"),
            ("deflate, gzip", "deflate, gzip"),
            ("deflate, gzip,aws-chunked", "deflate, gzip"),
            ("aws-chunked, gzip", "gzip"),
            ("AWS-chunked, aws-chunked,", ""),
        ] {
            assert_eq!(without_framing(sent), kept, "{sent}");
        }
    }

    #[test]
    fn one_checksum_is_announced_or_none() {
        let check = |list: &[(&str, &str)], has_trailers| {
            checksum_trailer(&headers(list), has_trailers).map_err(|error| error.code)
        };
        let crc32 = ("x-amz-trailer", "x-amz-checksum-crc32");
        assert_eq!(check(&[], true), Ok(None));
        assert_eq!(check(&[crc32], true), Ok(Some(ChecksumAlgorithm::Crc32)));
        assert_eq!(
            check(&[crc32, ("x-amz-sdk-checksum-algorithm", "crc32")], true),
            Ok(Some(ChecksumAlgorithm::Crc32))
        );
        for (list, has_trailers) in [
            (vec![crc32], false),
            (vec![crc32, ("x-amz-sdk-checksum-algorithm", "SHA1")], true),
            (vec![crc32, ("x-amz-checksum-algorithm", "SHA1")], true),
            (vec![crc32, ("x-amz-checksum-sha1", "x")], true),
            (vec![("x-amz-trailer", "x-amz-checksum-crc32, x-amz-checksum-sha1")], true),
            (vec![("x-amz-trailer", "x-amz-meta-a")], true),
            (vec![("x-amz-trailer", "x-amz-checksum-md4")], true),
            (vec![("x-amz-trailer", "")], true),
        ] {
            assert_eq!(check(&list, has_trailers), Err("InvalidRequest"), "{list:?}");
        }
    }
}
