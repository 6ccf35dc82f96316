//! AWS Signature Version 4, the client's side: header form with a payload hash or `UNSIGNED-PAYLOAD`, and presigned
//! URLs. Source: "Authenticating Requests (AWS Signature Version 4)" in the S3 API reference.
//!
//! Not here: chunk signatures, POST policies, session tokens. Invariant: what is signed is what is sent: the caller
//! gives plain path and query, and sends the encoded target that comes back.

use hmac::{Hmac, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

/// What S3 encodes in a query: all but the unreserved characters of RFC 3986.
const QUERY_SET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// In a path the slash stays.
const PATH_SET: &AsciiSet = &QUERY_SET.remove(b'/');
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// Longest a presigned URL may live: 7 days, as every S3 server enforces.
pub const PRESIGN_SECONDS_MAX: u32 = 7 * 24 * 3600;

/// An access key with its secret. The secret never shows in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// What requests name.
    pub access_key: String,
    /// What signs them.
    pub secret_key: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

/// What is said about the body.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// These bytes; they are hashed and the hash is signed.
    Bytes(&'a [u8]),
    /// The body is not covered by the signature (`UNSIGNED-PAYLOAD`).
    Unsigned,
}

/// A request before it is signed.
#[derive(Clone, Copy, Debug)]
pub struct RequestToSign<'a> {
    /// GET, PUT, ...
    pub method: &'a str,
    /// Value of the host header as it will be sent, with port unless it is the scheme's own.
    pub host: &'a str,
    /// Plain (not encoded) path, beginning with a slash.
    pub path: &'a str,
    /// Plain query parameters in any order; an empty value is sent as `name=`.
    pub query: &'a [(&'a str, &'a str)],
    /// Further headers to sign: lower-case names, trimmed values. The caller sends them.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub payload: Payload<'a>,
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRequest {
    /// Encoded path and query for the request line.
    pub target: String,
    /// Value of `x-amz-date`.
    pub date: String,
    /// Value of `x-amz-content-sha256`.
    pub content_sha256: String,
    /// Value of `authorization`.
    pub authorization: String,
}

/// A URL that carries its own signature.
#[derive(Clone, Copy, Debug)]
pub struct Presign {
    /// Seconds it stays valid, at most [`PRESIGN_SECONDS_MAX`] (more is cut to that).
    pub expires_seconds: u32,
    /// Seconds since 1970 from which it is valid.
    pub now_seconds: u64,
}

/// The parts of a signature that only change with the clock.
struct Moment {
    seconds: u64,
    /// `20130524T000000Z`
    date: String,
    key: [u8; 32],
}

/// Signs requests for one key, region and service. Cheap to share; the derived key is kept until the second changes.
pub struct Signer {
    credentials: Credentials,
    region: String,
    service: String,
    moment: Mutex<Option<Arc<Moment>>>,
}

impl Signer {
    /// A signer for `region` and `service` (`s3`, or the administration's own).
    pub fn new(credentials: Credentials, region: &str, service: &str) -> Self {
        Self { credentials, region: region.to_owned(), service: service.to_owned(), moment: Mutex::new(None) }
    }

    /// Signs with headers, at `now_seconds` since 1970.
    pub fn sign(&self, request: &RequestToSign<'_>, now_seconds: u64) -> SignedRequest {
        let moment = self.moment(now_seconds);
        let content_sha256 = match request.payload {
            Payload::Bytes(bytes) => hex::encode(Sha256::digest(bytes)),
            Payload::Unsigned => UNSIGNED_PAYLOAD.to_owned(),
        };
        let mut headers: Vec<(&str, &str)> = Vec::with_capacity(request.headers.len() + 3);
        headers.extend_from_slice(request.headers);
        headers.push(("host", request.host));
        headers.push(("x-amz-content-sha256", &content_sha256));
        headers.push(("x-amz-date", &moment.date));
        headers.sort_unstable_by_key(|(name, _)| *name);
        let path = encode_path(request.path);
        let query = encode_query(request.query.iter().copied());
        let signed_names = join_names(&headers);
        let canonical = canonical_request(request.method, &path, &query, &headers, &signed_names, &content_sha256);
        let signature = self.signature(&moment, &canonical);
        let authorization = format!(
            "{ALGORITHM} Credential={}/{}, SignedHeaders={signed_names}, Signature={signature}",
            self.credentials.access_key,
            self.scope(&moment)
        );
        SignedRequest { target: target(path, &query), date: moment.date.clone(), content_sha256, authorization }
    }

    /// Encoded path and query that carry the signature; host and `request.headers` are signed, the body is not.
    pub fn presign(&self, request: &RequestToSign<'_>, presign: Presign) -> String {
        let moment = self.moment(presign.now_seconds);
        let mut headers: Vec<(&str, &str)> = request.headers.to_vec();
        headers.push(("host", request.host));
        headers.sort_unstable_by_key(|(name, _)| *name);
        let signed_names = join_names(&headers);
        let credential = format!("{}/{}", self.credentials.access_key, self.scope(&moment));
        let expires = presign.expires_seconds.min(PRESIGN_SECONDS_MAX).to_string();
        let own = [
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", credential.as_str()),
            ("X-Amz-Date", moment.date.as_str()),
            ("X-Amz-Expires", expires.as_str()),
            ("X-Amz-SignedHeaders", signed_names.as_str()),
        ];
        let path = encode_path(request.path);
        let query = encode_query(request.query.iter().copied().chain(own));
        let canonical = canonical_request(request.method, &path, &query, &headers, &signed_names, UNSIGNED_PAYLOAD);
        let signature = self.signature(&moment, &canonical);
        format!("{path}?{query}&X-Amz-Signature={signature}")
    }

    fn moment(&self, seconds: u64) -> Arc<Moment> {
        let mut kept = self.moment.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(moment) = kept.as_ref().filter(|m| m.seconds == seconds) {
            return moment.clone();
        }
        let date = amz_date(seconds);
        let day = &date[..8];
        let key = match kept.as_ref().filter(|m| m.date.starts_with(day)) {
            Some(same_day) => same_day.key,
            None => signing_key(&self.credentials.secret_key, day, &self.region, &self.service),
        };
        let moment = Arc::new(Moment { seconds, date, key });
        *kept = Some(moment.clone());
        moment
    }

    fn scope(&self, moment: &Moment) -> String {
        format!("{}/{}/{}/aws4_request", &moment.date[..8], self.region, self.service)
    }

    fn signature(&self, moment: &Moment, canonical: &str) -> String {
        let digest = hex::encode(Sha256::digest(canonical.as_bytes()));
        let to_sign = format!("{ALGORITHM}\n{}\n{}\n{digest}", moment.date, self.scope(moment));
        hex::encode(hmac(&moment.key, to_sign.as_bytes()))
    }
}

/// `20130524T000000Z`: the time form of every signature.
pub fn amz_date(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The key of one day, region and service.
fn signing_key(secret_key: &str, day: &str, region: &str, service: &str) -> [u8; 32] {
    let start = format!("AWS4{secret_key}");
    let steps = [day, region, service, "aws4_request"];
    let mut key = hmac(start.as_bytes(), steps[0].as_bytes());
    for step in &steps[1..] {
        key = hmac(&key, step.as_bytes());
    }
    key
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn canonical_request(
    method: &str,
    path: &str,
    query: &str,
    headers: &[(&str, &str)],
    signed_names: &str,
    content_sha256: &str,
) -> String {
    let mut text = String::with_capacity(512);
    let _ = write!(text, "{method}\n{path}\n{query}\n");
    for (name, value) in headers {
        let _ = writeln!(text, "{name}:{value}");
    }
    let _ = write!(text, "\n{signed_names}\n{content_sha256}");
    text
}

fn join_names(headers: &[(&str, &str)]) -> String {
    let mut names = String::with_capacity(64);
    for (name, _) in headers {
        if !names.is_empty() {
            names.push(';');
        }
        names.push_str(name);
    }
    names
}

/// A plain path as it is signed and sent.
pub fn encode_path(path: &str) -> String {
    utf8_percent_encode(path, PATH_SET).to_string()
}

fn encode_query<'a>(query: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut pairs: Vec<(String, String)> = query
        .map(|(n, v)| (utf8_percent_encode(n, QUERY_SET).to_string(), utf8_percent_encode(v, QUERY_SET).to_string()))
        .collect();
    pairs.sort_unstable();
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        let _ = write!(text, "{name}={value}");
    }
    text
}

fn target(path: String, query: &str) -> String {
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2013-05-24T00:00:00Z, the moment of the examples in the S3 API reference.
    const EXAMPLE_SECONDS: u64 = 1_369_353_600;
    const EXAMPLE_HOST: &str = "examplebucket.s3.amazonaws.com";

    fn example() -> Signer {
        let credentials = Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        };
        Signer::new(credentials, "us-east-1", "s3")
    }

    fn check(request: &RequestToSign<'_>, signature: &str) {
        let signed = example().sign(request, EXAMPLE_SECONDS);
        assert_eq!(signed.date, "20130524T000000Z");
        assert!(signed.authorization.ends_with(&format!("Signature={signature}")), "{}", signed.authorization);
    }

    #[test]
    fn published_examples_of_the_header_form() {
        let get = RequestToSign {
            method: "GET",
            host: EXAMPLE_HOST,
            path: "/test.txt",
            query: &[],
            headers: &[("range", "bytes=0-9")],
            payload: Payload::Bytes(b""),
        };
        check(&get, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
        let put = RequestToSign {
            method: "PUT",
            path: "/test$file.text",
            headers: &[("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
            payload: Payload::Bytes(b"Welcome to Amazon S3."),
            ..get
        };
        check(&put, "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
        assert_eq!(example().sign(&put, EXAMPLE_SECONDS).target, "/test%24file.text");
        let lifecycle = RequestToSign { path: "/", query: &[("lifecycle", "")], headers: &[], ..get };
        check(&lifecycle, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
        let list = RequestToSign { path: "/", query: &[("prefix", "J"), ("max-keys", "2")], headers: &[], ..get };
        check(&list, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
    }

    #[test]
    fn published_example_of_a_presigned_url() {
        let get = RequestToSign {
            method: "GET",
            host: EXAMPLE_HOST,
            path: "/test.txt",
            query: &[],
            headers: &[],
            payload: Payload::Unsigned,
        };
        let url = example().presign(&get, Presign { expires_seconds: 86_400, now_seconds: EXAMPLE_SECONDS });
        assert!(
            url.ends_with("X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"),
            "{url}"
        );
    }

    #[test]
    fn a_new_day_gets_a_new_key_and_the_same_second_the_same_signature() {
        let get =
            RequestToSign { method: "GET", host: "h", path: "/", query: &[], headers: &[], payload: Payload::Unsigned };
        let signer = example();
        let today = signer.sign(&get, EXAMPLE_SECONDS);
        assert_eq!(today, signer.sign(&get, EXAMPLE_SECONDS));
        let tomorrow = signer.sign(&get, EXAMPLE_SECONDS + 86_400);
        assert_ne!(today.authorization, tomorrow.authorization);
        assert_eq!(tomorrow, example().sign(&get, EXAMPLE_SECONDS + 86_400), "a kept key must equal a fresh one");
    }

    #[test]
    fn secrets_do_not_show() {
        let credentials = Credentials { access_key: "a".into(), secret_key: "very-secret".into() };
        assert!(!format!("{credentials:?}").contains("very-secret"));
    }
}
