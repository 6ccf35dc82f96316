//! AWS Signature Version 4, the verifying side, pure: parts of a request and a clock in, who signed it out.
//!
//! Source: AWS, "Authenticating Requests (AWS Signature Version 4)" of the S3 API reference.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::error::DoorError;
use super::limits::{CLOCK_SKEW_SECONDS, PRESIGN_SECONDS_MAX, SIGNED_HEADERS_MAX};
use super::path::{canonical_path, encode_value};
use hmac::{Hmac, Mac};
use http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use subtle::ConstantTimeEq;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "s3";
const TERMINATOR: &str = "aws4_request";

/// What of a request a signature covers.
pub(crate) struct Parts<'r> {
    pub(crate) method: &'r str,
    /// As sent.
    pub(crate) raw_path: &'r str,
    /// Decoded.
    pub(crate) path: &'r str,
    /// Decoded, in the order sent.
    pub(crate) query: &'r [(String, String)],
    pub(crate) headers: &'r HeaderMap,
}

/// A signature as sent, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) access_key: String,
    scope_date: String,
    region: String,
    signed_headers: Vec<String>,
    signature: String,
    /// `20130524T000000Z`.
    timestamp: String,
    /// For a presigned URL: seconds it is good for.
    expires: Option<u64>,
    /// What the signature says of the payload.
    pub(crate) payload: String,
}

/// What chunk signatures are chained to.
#[derive(Clone)]
pub(crate) struct Seed {
    pub(crate) key: [u8; 32],
    pub(crate) timestamp: String,
    pub(crate) scope: String,
    pub(crate) signature: String,
}

fn malformed(message: &str) -> DoorError {
    DoorError::bad("AuthorizationHeaderMalformed", format!("The authorization header is malformed; {message}"))
}

fn query_malformed(message: &str) -> DoorError {
    DoorError::bad("AuthorizationQueryParametersError", message)
}

fn mismatch() -> DoorError {
    DoorError::denied(
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
    )
}

/// The one value of a query parameter; two are refused.
fn single<'q>(query: &'q [(String, String)], name: &str) -> Result<Option<&'q str>, DoorError> {
    let mut found = query.iter().filter(|(n, _)| n == name);
    let first = found.next().map(|(_, v)| v.as_str());
    if found.next().is_some() {
        return Err(query_malformed(&format!("{name} is given more than once")));
    }
    Ok(first)
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// Takes the signature out of header or query. No signature at all is an anonymous request, which nothing here is
/// open to.
pub(crate) fn claim(parts: &Parts<'_>, now: u64) -> Result<Claim, DoorError> {
    let in_header = parts.headers.contains_key(http::header::AUTHORIZATION);
    let in_query =
        parts.query.iter().any(|(n, _)| n == "X-Amz-Signature" || n == "X-Amz-Algorithm" || n == "X-Amz-Credential");
    let v2_query = parts.query.iter().any(|(n, _)| n == "AWSAccessKeyId" || n == "Signature");
    match (in_header, in_query) {
        (true, true) => Err(DoorError::bad(
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified",
        )),
        (true, false) if v2_query => Err(DoorError::bad("InvalidArgument", "Only one auth mechanism allowed")),
        (true, false) => header_claim(parts, now),
        (false, true) => query_claim(parts),
        (false, false) if v2_query => Err(DoorError::bad(
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        )),
        (false, false) => Err(DoorError::denied("AccessDenied", "Access Denied")),
    }
}

fn header_claim(parts: &Parts<'_>, now: u64) -> Result<Claim, DoorError> {
    let mut values = parts.headers.get_all(http::header::AUTHORIZATION).iter();
    let value = values.next().and_then(|v| v.to_str().ok()).ok_or_else(|| malformed("it is not text"))?;
    if values.next().is_some() {
        return Err(DoorError::bad("InvalidArgument", "Only one Authorization header is allowed"));
    }
    let (algorithm, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    if algorithm == "AWS" {
        return Err(version_2(rest, parts.headers, now));
    }
    if algorithm != ALGORITHM {
        return Err(unsupported(algorithm));
    }
    let mut credential = None;
    let mut signed = None;
    let mut signature = None;
    for field in rest.split(',') {
        let (name, value) = field.trim().split_once('=').ok_or_else(|| malformed("a field has no value"))?;
        let slot = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed,
            "Signature" => &mut signature,
            _ => return Err(malformed("it has an unknown field")),
        };
        if slot.replace(value.trim()).is_some() {
            return Err(malformed("a field is given twice"));
        }
    }
    let (Some(credential), Some(signed), Some(signature)) = (credential, signed, signature) else {
        return Err(malformed("it must have Credential, SignedHeaders and Signature"));
    };
    let timestamp = header_timestamp(parts.headers)?;
    let payload = header(parts.headers, "x-amz-content-sha256").ok_or_else(|| {
        DoorError::bad("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    })?;
    let (access_key, scope_date, region) = split_credential(credential).ok_or_else(|| {
        malformed("the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/s3/aws4_request\".")
    })?;
    Ok(Claim {
        access_key,
        scope_date,
        region,
        signed_headers: names(signed).ok_or_else(|| malformed("SignedHeaders names too many headers, or one twice"))?,
        signature: signature.to_owned(),
        timestamp,
        expires: None,
        payload: payload.to_owned(),
    })
}

fn unsupported(algorithm: &str) -> DoorError {
    if algorithm.starts_with("AWS4-ECDSA") {
        return DoorError::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "SigV4A is not implemented");
    }
    DoorError::bad("InvalidArgument", "Unsupported Authorization Type")
}

/// A signature of version 2, which is not taken here. What else is wrong with it is said first, in S3's order: its
/// form, its date, its clock.
fn version_2(rest: &str, headers: &HeaderMap, now: u64) -> DoorError {
    if !rest.trim().split_once(':').is_some_and(|(key, signature)| !key.is_empty() && !signature.is_empty()) {
        return DoorError::bad(
            "InvalidArgument",
            "AWS authorization header is invalid. Expected AwsAccessKeyId:signature",
        );
    }
    let date = if headers.contains_key("x-amz-date") { "x-amz-date" } else { "date" };
    let time = header(headers, date).and_then(|text| parse_http_date(text).or_else(|| parse_timestamp(text)));
    let Some(time) = time else {
        return DoorError::denied("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header");
    };
    if time.abs_diff(now) > CLOCK_SKEW_SECONDS {
        return skewed();
    }
    DoorError::bad(
        "InvalidRequest",
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
    )
}

/// Seconds since 1970 of `Fri, 24 May 2013 00:00:00 GMT`. The day's name says nothing the date does not, so it is not
/// compared.
fn parse_http_date(text: &str) -> Option<u64> {
    let format = time::macros::format_description!("[day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    let (_, date) = text.split_once(", ")?;
    let time = time::PrimitiveDateTime::parse(date, &format).ok()?;
    u64::try_from(time.assume_utc().unix_timestamp()).ok()
}

fn skewed() -> DoorError {
    DoorError::denied(
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
    )
}

/// `X-Amz-Date`, else `Date`.
fn header_timestamp(headers: &HeaderMap) -> Result<String, DoorError> {
    let denied = || DoorError::denied("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header");
    if let Some(value) = headers.get("x-amz-date") {
        return value.to_str().map(str::to_owned).map_err(|_| denied());
    }
    let date = header(headers, "date").ok_or_else(denied)?;
    let time = httpdate::parse_http_date(date).map_err(|_| denied())?;
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    time::OffsetDateTime::from(time).format(&format).map_err(|_| denied())
}

fn query_claim(parts: &Parts<'_>) -> Result<Claim, DoorError> {
    let need = |name: &str| {
        single(parts.query, name)?.ok_or_else(|| {
            query_malformed("Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.")
        })
    };
    let algorithm = need("X-Amz-Algorithm")?;
    if algorithm != ALGORITHM {
        if algorithm.starts_with("AWS4-ECDSA") {
            return Err(unsupported(algorithm));
        }
        return Err(query_malformed("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\""));
    }
    let (access_key, scope_date, region) = split_credential(need("X-Amz-Credential")?)
        .ok_or_else(|| query_malformed("Error parsing the X-Amz-Credential parameter; the Credential is mal-formed"))?;
    let expires: u64 =
        need("X-Amz-Expires")?.parse().map_err(|_| query_malformed("X-Amz-Expires should be a number"))?;
    if expires == 0 || expires > PRESIGN_SECONDS_MAX {
        return Err(query_malformed("X-Amz-Expires must be between 1 and 604800 seconds"));
    }
    let payload =
        single(parts.query, "X-Amz-Content-Sha256")?.or_else(|| header(parts.headers, "x-amz-content-sha256"));
    Ok(Claim {
        access_key,
        scope_date,
        region,
        signed_headers: names(need("X-Amz-SignedHeaders")?)
            .ok_or_else(|| query_malformed("X-Amz-SignedHeaders names too many headers, or one twice"))?,
        signature: need("X-Amz-Signature")?.to_owned(),
        timestamp: need("X-Amz-Date")?.to_owned(),
        expires: Some(expires),
        payload: payload.unwrap_or("UNSIGNED-PAYLOAD").to_owned(),
    })
}

/// The names in `SignedHeaders`; `None` for more than a request can have, or one twice: each is copied into what is
/// hashed, so repeating a long header would cost memory before the signature is known to hold.
fn names(list: &str) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let names: Vec<&str> = list.split(';').take(SIGNED_HEADERS_MAX.saturating_add(1)).collect();
    let good = names.len() <= SIGNED_HEADERS_MAX && names.iter().all(|name| seen.insert(*name));
    good.then(|| names.into_iter().map(str::to_owned).collect())
}

/// Access key, date and region of a credential of our service. Access keys may hold slashes; the scope may not.
pub(crate) fn split_credential(credential: &str) -> Option<(String, String, String)> {
    let mut fields = credential.rsplitn(5, '/');
    let terminator = fields.next()?;
    let service = fields.next()?;
    let region = fields.next()?;
    let date = fields.next()?;
    let access_key = fields.next()?;
    let good = terminator == TERMINATOR && service == SERVICE && date.len() == 8 && !access_key.is_empty();
    good.then(|| (access_key.to_owned(), date.to_owned(), region.to_owned()))
}

/// Seconds since 1970 of `20130524T000000Z`.
pub(crate) fn parse_timestamp(text: &str) -> Option<u64> {
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    let time = time::PrimitiveDateTime::parse(text, &format).ok()?;
    u64::try_from(time.assume_utc().unix_timestamp()).ok()
}

impl Claim {
    /// Checks all that needs no key: scope, clock, expiry, and that host and every `x-amz-*` header are signed.
    pub(crate) fn check(&self, parts: &Parts<'_>, region: &str, now: u64) -> Result<(), DoorError> {
        let wrong = |message: &str| if self.expires.is_some() { query_malformed(message) } else { malformed(message) };
        let time = parse_timestamp(&self.timestamp).ok_or_else(|| match self.expires {
            Some(_) => query_malformed("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\""),
            None => DoorError::denied("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header"),
        })?;
        if !self.timestamp.starts_with(&self.scope_date) {
            return Err(wrong("Invalid credential date. This date is not the same as X-Amz-Date."));
        }
        if self.region != region {
            return Err(wrong(&format!("the region '{}' is wrong; expecting '{region}'", self.region)));
        }
        if let Some(expires) = self.expires {
            if time > now.saturating_add(CLOCK_SKEW_SECONDS) {
                return Err(DoorError::denied("AccessDenied", "Request is not valid yet"));
            }
            if now > time.saturating_add(expires) {
                return Err(DoorError::denied("AccessDenied", "Request has expired"));
            }
        } else if time.abs_diff(now) > CLOCK_SKEW_SECONDS {
            return Err(skewed());
        }
        self.check_signed_headers(parts)
    }

    fn check_signed_headers(&self, parts: &Parts<'_>) -> Result<(), DoorError> {
        let signed = |name: &str| self.signed_headers.iter().any(|s| s == name);
        let unsigned = |name: &str| {
            DoorError::denied(
                "AccessDenied",
                format!("There were headers present in the request which were not signed: {name}"),
            )
        };
        if !signed("host") {
            return Err(unsigned("host"));
        }
        for name in parts.headers.keys() {
            if name.as_str().starts_with("x-amz-") && !signed(name.as_str()) {
                return Err(unsigned(name.as_str()));
            }
        }
        for name in &self.signed_headers {
            if name.bytes().any(|b| b.is_ascii_uppercase()) || !parts.headers.contains_key(name.as_str()) {
                return Err(mismatch());
            }
        }
        Ok(())
    }

    /// Checks the signature with the secret; on success what chunk signatures go on from.
    pub(crate) fn verify(&self, parts: &Parts<'_>, secret: &str) -> Result<Seed, DoorError> {
        let scope = format!("{}/{}/{SERVICE}/{TERMINATOR}", self.scope_date, self.region);
        let key = signing_key(secret, &self.scope_date, &self.region);
        let raw_without_query = parts.raw_path;
        let canonical = canonical_path(parts.path);
        // Clients encode keys in their own ways; S3 signs the path as sent. Both readings mean the same key.
        for path in [canonical.as_str(), raw_without_query] {
            let request = self.canonical_request(parts, path);
            let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{}", self.timestamp, hex_sha256(&request));
            let expected = hex::encode(hmac(&key, to_sign.as_bytes()));
            if bool::from(expected.as_bytes().ct_eq(self.signature.as_bytes())) {
                return Ok(Seed { key, timestamp: self.timestamp.clone(), scope, signature: expected });
            }
        }
        Err(mismatch())
    }

    /// Bytes, not text: header values that are not UTF-8 are signed as they are.
    fn canonical_request(&self, parts: &Parts<'_>, path: &str) -> Vec<u8> {
        let mut query: Vec<(String, String)> = parts
            .query
            .iter()
            .filter(|(name, _)| name != "X-Amz-Signature")
            .map(|(name, value)| (encode_value(name), encode_value(value)))
            .collect();
        query.sort();
        let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut out = format!("{}\n{path}\n{}\n", parts.method, query.join("&")).into_bytes();
        for name in &self.signed_headers {
            let values: Vec<Vec<u8>> =
                parts.headers.get_all(name.as_str()).iter().map(|v| collapsed(v.as_bytes())).collect();
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            out.extend_from_slice(&values.join(&b','));
            out.push(b'\n');
        }
        out.extend_from_slice(format!("\n{}\n{}", self.signed_headers.join(";"), self.payload).as_bytes());
        out
    }
}

/// Trimmed, runs of spaces made one.
fn collapsed(value: &[u8]) -> Vec<u8> {
    let words: Vec<&[u8]> = value.trim_ascii().split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
    words.join(&b' ')
}

/// HMAC-SHA256.
pub(crate) fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// SHA-256 in hex.
pub(crate) fn hex_sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The key of one day and region.
pub(crate) fn signing_key(secret: &str, date: &str, region: &str) -> [u8; 32] {
    let date = hmac(format!("AWS4{secret}").as_bytes(), date.as_bytes());
    let region = hmac(&date, region.as_bytes());
    let service = hmac(&region, SERVICE.as_bytes());
    hmac(&service, TERMINATOR.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::path;
    use super::*;
    use http::{HeaderName, HeaderValue};

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    /// 2013-05-24 00:00:00 UTC, the day of AWS's examples.
    const DAY: u64 = 1_369_353_600;
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(n, v)| (HeaderName::from_bytes(n.as_bytes()).unwrap(), HeaderValue::from_str(v).unwrap()))
            .collect()
    }

    fn judge(method: &str, target: &str, headers: &HeaderMap, now: u64) -> Result<String, DoorError> {
        let (raw_path, raw_query) = target.split_once('?').unwrap_or((target, ""));
        let path = path::decode_path(raw_path)?;
        let query = path::decode_query(raw_query)?;
        let parts = Parts { method, raw_path, path: &path, query: &query, headers };
        let claim = claim(&parts, now)?;
        claim.check(&parts, "us-east-1", now)?;
        claim.verify(&parts, SECRET).map(|seed| seed.signature)
    }

    fn authorization(signed: &str, signature: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders={signed},Signature={signature}"
        )
    }

    fn get_object(extra: &[(&str, &str)]) -> HeaderMap {
        let signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        let auth = authorization("host;range;x-amz-content-sha256;x-amz-date", signature);
        let mut all = vec![
            ("authorization", auth.as_str()),
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", "20130524T000000Z"),
        ];
        all.extend(extra);
        headers(&all)
    }

    #[test]
    fn published_examples_verify() {
        judge("GET", "/test.txt", &get_object(&[]), DAY).unwrap();
        let put = authorization(
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        );
        let put = headers(&[
            ("authorization", &put),
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ]);
        judge("PUT", "/test%24file.text", &put, DAY + 60).unwrap();
        let list = authorization(
            "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        );
        let list = headers(&[
            ("authorization", &list),
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", "20130524T000000Z"),
        ]);
        judge("GET", "/?max-keys=2&prefix=J", &list, DAY).unwrap();
        let presigned = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        let host = headers(&[("host", "examplebucket.s3.amazonaws.com")]);
        judge("GET", presigned, &host, DAY + 86_400).unwrap();
        assert_eq!(judge("GET", presigned, &host, DAY + 86_401).unwrap_err().message, "Request has expired");
        assert_eq!(judge("GET", presigned, &host, DAY - 1000).unwrap_err().code, "AccessDenied");
        assert_eq!(judge("PUT", presigned, &host, DAY).unwrap_err().code, "SignatureDoesNotMatch");
        let smuggled = headers(&[("host", "examplebucket.s3.amazonaws.com"), ("x-amz-copy-source", "/other/key")]);
        assert_eq!(judge("GET", presigned, &smuggled, DAY).unwrap_err().code, "AccessDenied");
        let both = get_object(&[]);
        assert_eq!(judge("GET", presigned, &both, DAY).unwrap_err().code, "InvalidArgument");
    }

    #[test]
    fn values_are_signed_byte_by_byte() {
        assert_eq!(collapsed(b"  a   b\t "), b"a b");
        let claim = |value: &[u8]| {
            let mut headers = headers(&[("host", "h")]);
            headers.insert("x-amz-meta-a", HeaderValue::from_bytes(value).unwrap());
            let parts = Parts { method: "GET", raw_path: "/", path: "/", query: &[], headers: &headers };
            let claim = Claim {
                access_key: "a".into(),
                scope_date: "20130524".into(),
                region: "us-east-1".into(),
                signed_headers: vec!["host".into(), "x-amz-meta-a".into()],
                signature: String::new(),
                timestamp: "20130524T000000Z".into(),
                expires: None,
                payload: EMPTY.into(),
            };
            claim.canonical_request(&parts, "/")
        };
        assert_ne!(claim(b"\xff"), claim(b"\xfe"), "bytes that are not UTF-8 must not all sign the same");
        assert_eq!(claim(b"a  b"), claim(b" a b"));
    }

    #[test]
    fn what_is_not_signed_or_not_ours_is_refused() {
        let v2 = |auth: &str, date: &str| headers(&[("host", "h"), ("authorization", auth), ("x-amz-date", date)]);
        let table: Vec<(&str, HeaderMap, u64, &str)> = vec![
            ("/test.txt", get_object(&[("x-amz-acl", "public-read")]), DAY, "AccessDenied"),
            ("/test2.txt", get_object(&[]), DAY, "SignatureDoesNotMatch"),
            ("/test.txt?acl", get_object(&[]), DAY, "SignatureDoesNotMatch"),
            ("/test.txt", get_object(&[]), DAY + 901, "RequestTimeTooSkewed"),
            ("/test.txt", get_object(&[]), DAY - 901, "RequestTimeTooSkewed"),
            ("/test.txt", headers(&[("host", "h")]), DAY, "AccessDenied"),
            ("/x?AWSAccessKeyId=a&Signature=b&Expires=1", headers(&[("host", "h")]), DAY, "InvalidRequest"),
            ("/x", v2("AWS a:b", "Fri, 24 May 2013 00:00:00 GMT"), DAY, "InvalidRequest"),
            ("/x", v2("AWS a:b", "Fri, 24 May 2013 00:00:00 GMT"), DAY + 901, "RequestTimeTooSkewed"),
            ("/x", v2("AWS a:b", "Tue, 24 May 2010 00:00:00 GMT"), DAY, "RequestTimeTooSkewed"),
            ("/x", v2("AWS a:b", "Sat, 24 May 1958 00:00:00 GMT"), DAY, "AccessDenied"),
            ("/x", v2("AWS a:b", "20130524T000000Z"), DAY, "InvalidRequest"),
            ("/x", v2("AWS a:b", "soon"), DAY, "AccessDenied"),
            ("/x", v2("AWS HAHAHA", "soon"), DAY, "InvalidArgument"),
            ("/x", headers(&[("host", "h"), ("authorization", "Bearer a")]), DAY, "InvalidArgument"),
            ("/x", headers(&[("host", "h"), ("authorization", "AWS4-ECDSA-P256-SHA256 a")]), DAY, "NotImplemented"),
            (
                "/x",
                headers(&[("host", "h"), ("authorization", "AWS4-HMAC-SHA256 x")]),
                DAY,
                "AuthorizationHeaderMalformed",
            ),
        ];
        for (target, headers, now, code) in table {
            assert_eq!(judge("GET", target, &headers, now).unwrap_err().code, code, "{target}");
        }
        for (from, to, code) in [
            ("us-east-1", "eu-west-1", "AuthorizationHeaderMalformed"),
            ("/s3/", "/ec2/", "AuthorizationHeaderMalformed"),
            ("20130524", "20130523", "AuthorizationHeaderMalformed"),
            ("aws4_request", "aws5", "AuthorizationHeaderMalformed"),
            ("host;range", "range", "AccessDenied"),
            ("Signature=f", "Signature=e", "SignatureDoesNotMatch"),
        ] {
            let mut changed = get_object(&[]);
            let auth = changed.get("authorization").unwrap().to_str().unwrap().replacen(from, to, 1);
            changed.insert("authorization", HeaderValue::from_str(&auth).unwrap());
            assert_eq!(judge("GET", "/test.txt", &changed, DAY).unwrap_err().code, code, "{from} -> {to}");
        }
        let many: Vec<String> = (0..200).map(|i| format!("a{i}")).collect();
        for names in ["host;host", &many.join(";")] {
            let list = [("host", "h"), ("x-amz-date", "20130524T000000Z"), ("x-amz-content-sha256", EMPTY)];
            let mut repeated = headers(&list);
            repeated.insert("authorization", HeaderValue::from_str(&authorization(names, "0")).unwrap());
            let error = judge("GET", "/x", &repeated, DAY).unwrap_err();
            assert_eq!(error.code, "AuthorizationHeaderMalformed", "{names}");
        }
        let eight_days = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=691200&X-Amz-SignedHeaders=host&X-Amz-Signature=0";
        let error = judge("GET", eight_days, &headers(&[("host", "h")]), DAY).unwrap_err();
        assert_eq!(error.code, "AuthorizationQueryParametersError");
    }
}
