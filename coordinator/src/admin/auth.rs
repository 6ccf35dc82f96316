//! Who may administer: Signature Version 4, header form only, in a scope of its own, with the body hashed, by the root
//! key. Pure: the clock and the keys come in as arguments.
//!
//! Not the S3 door: no presigned URLs, no chunked bodies, no unsigned payloads. Invariant: nothing of a request that
//! reaches an endpoint was outside the signature: method, path, query, host, every `x-amz-*` header, body.

use super::codes::Code;
use super::operations::AdminFailure;
use hmac::{Hmac, Mac};
use holdfast_proto::ErrorKind;
use holdfast_proto::manifest::AccessKey;
use http::HeaderMap;
use http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Region in the scope.
const REGION: &str = "holdfast";
/// Service in the scope: a signature made for S3 opens nothing here.
const SERVICE: &str = "holdfast-admin";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far the request's time may be from ours, as for S3: 15 minutes.
const SKEW_SECONDS_MAX: u64 = 15 * 60;
/// Longest credential or header list looked at: real ones have about 300 bytes.
const AUTHORIZATION_BYTES_MAX: usize = 2048;
/// All but the unreserved characters of RFC 3986.
const QUERY_SET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The authorization header, taken apart.
struct Authorization<'a> {
    access_key: &'a str,
    day: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

/// The root key that signed the request, or why it may not pass. An unknown key and a wrong signature look the same.
pub(crate) fn authenticate(
    parts: &Parts,
    body: &[u8],
    find_key: impl Fn(&str) -> Option<AccessKey>,
    now_seconds: u64,
) -> Result<AccessKey, AdminFailure> {
    let authorization = parse(single(&parts.headers, "authorization")?)?;
    let date = single(&parts.headers, "x-amz-date")?;
    check_scope(&authorization, date, now_seconds)?;
    let content_sha256 = single(&parts.headers, "x-amz-content-sha256")?;
    check_body(content_sha256, body)?;
    check_signed_names(&parts.headers, authorization.signed_headers)?;

    let key = find_key(authorization.access_key);
    // An unknown key costs the same work as a known one.
    let secret = key.as_ref().map_or("unknown", |k| k.secret_key.as_str());
    let canonical = canonical_request(parts, &authorization, content_sha256)?;
    let expected = signature(secret, &authorization, date, &canonical);
    let given = hex::decode(authorization.signature).unwrap_or_default();
    let matches: bool = expected.as_slice().ct_eq(&given).into();
    match key {
        Some(key) if matches && key.is_root => Ok(key),
        Some(key) if matches => Err(AdminFailure::new(
            Code::NotRoot,
            ErrorKind::Denied,
            format!("access key {} may use S3 but not administer", key.access_key),
        )
        .or_try("use the root key: the credentials file in the data directory, or what was given at the first start")),
        _ => Err(wrong("unknown access key or wrong secret key")),
    }
}

fn wrong(why: &str) -> AdminFailure {
    AdminFailure::new(Code::WrongSignature, ErrorKind::Denied, format!("administration denied: {why}")).or_try(
        "give the root key by HOLDFAST_ACCESS_KEY_ID and HOLDFAST_SECRET_ACCESS_KEY, --data-dir or --credentials",
    )
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, AdminFailure> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| wrong(&format!("header {name} is not text"))),
        (None, _) => Err(wrong(&format!("header {name} is missing"))),
        (Some(_), Some(_)) => Err(wrong(&format!("header {name} is there twice"))),
    }
}

fn parse(value: &str) -> Result<Authorization<'_>, AdminFailure> {
    let malformed = || wrong("the authorization header is malformed");
    if value.len() > AUTHORIZATION_BYTES_MAX {
        return Err(malformed());
    }
    let fields = value.strip_prefix(ALGORITHM).and_then(|v| v.strip_prefix(' ')).ok_or_else(malformed)?;
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for field in fields.split(',') {
        let (name, value) = field.trim().split_once('=').ok_or_else(malformed)?;
        let place = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed_headers,
            "Signature" => &mut signature,
            _ => return Err(malformed()),
        };
        if place.replace(value).is_some() {
            return Err(malformed());
        }
    }
    let mut scope = credential.ok_or_else(malformed)?.split('/');
    let mut next = || scope.next().ok_or_else(malformed);
    let (access_key, day, region, service, end) = (next()?, next()?, next()?, next()?, next()?);
    if end != "aws4_request" || scope.next().is_some() {
        return Err(malformed());
    }
    let signed_headers = signed_headers.ok_or_else(malformed)?;
    let signature = signature.ok_or_else(malformed)?;
    Ok(Authorization { access_key, day, region, service, signed_headers, signature })
}

fn check_scope(authorization: &Authorization<'_>, date: &str, now_seconds: u64) -> Result<(), AdminFailure> {
    if authorization.region != REGION || authorization.service != SERVICE {
        return Err(wrong(&format!("the signature is not for {REGION}/{SERVICE}")));
    }
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC))
        .ok()
        .and_then(|time| u64::try_from(time.timestamp().as_second()).ok())
        .ok_or_else(|| wrong("x-amz-date is not a time"))?;
    if date.get(..8) != Some(authorization.day) {
        return Err(wrong("x-amz-date and the signature's scope name different days"));
    }
    if time.abs_diff(now_seconds) > SKEW_SECONDS_MAX {
        let apart = time.abs_diff(now_seconds);
        let message = format!("administration denied: the request's clock is {apart} s from the server's");
        return Err(AdminFailure::new(Code::ClockSkew, ErrorKind::Denied, message)
            .or_try("set both clocks, for instance with chrony or systemd-timesyncd"));
    }
    Ok(())
}

fn check_body(content_sha256: &str, body: &[u8]) -> Result<(), AdminFailure> {
    let given = hex::decode(content_sha256).unwrap_or_default();
    let same: bool = Sha256::digest(body).as_slice().ct_eq(&given).into();
    if same { Ok(()) } else { Err(wrong("x-amz-content-sha256 is not the hash of the body")) }
}

/// Host, date, body hash and every other `x-amz-*` header must be signed, once each, in order.
fn check_signed_names(headers: &HeaderMap, signed: &str) -> Result<(), AdminFailure> {
    let names: Vec<&str> = signed.split(';').collect();
    if !names.windows(2).all(|pair| pair[0] < pair[1]) {
        return Err(wrong("SignedHeaders are not in order"));
    }
    if !names.contains(&"host") {
        return Err(wrong("header host is not signed"));
    }
    match headers.keys().map(|n| n.as_str()).find(|n| n.starts_with("x-amz-") && !names.contains(n)) {
        Some(name) => Err(wrong(&format!("header {name} is not signed"))),
        None => Ok(()),
    }
}

fn canonical_request(
    parts: &Parts,
    authorization: &Authorization<'_>,
    content_sha256: &str,
) -> Result<String, AdminFailure> {
    let mut text = format!("{}\n{}\n{}\n", parts.method, parts.uri.path(), canonical_query(parts.uri.query()));
    for name in authorization.signed_headers.split(';') {
        let value = single(&parts.headers, name)?;
        let words: Vec<&str> = value.split_ascii_whitespace().collect();
        text.push_str(&format!("{name}:{}\n", words.join(" ")));
    }
    text.push_str(&format!("\n{}\n{content_sha256}", authorization.signed_headers));
    Ok(text)
}

fn canonical_query(query: Option<&str>) -> String {
    let encode = |text: &str| {
        let plain: Vec<u8> = percent_decode_str(text).collect();
        percent_encode(&plain, QUERY_SET).to_string()
    };
    let mut pairs: Vec<(String, String)> = query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn signature(secret: &str, authorization: &Authorization<'_>, date: &str, canonical: &str) -> [u8; 32] {
    let scope = format!("{}/{REGION}/{SERVICE}/aws4_request", authorization.day);
    let digest = hex::encode(Sha256::digest(canonical.as_bytes()));
    let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{digest}");
    let mut key = hmac(format!("AWS4{secret}").as_bytes(), authorization.day.as_bytes());
    for step in [REGION, SERVICE, "aws4_request"] {
        key = hmac(&key, step.as_bytes());
    }
    hmac(&key, to_sign.as_bytes())
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const NOW: u64 = 1_795_000_000;

    pub(crate) fn root_key() -> AccessKey {
        AccessKey {
            access_key: "root".into(),
            secret_key: "root-secret".into(),
            name: "root".into(),
            created_ms: 1,
            is_root: true,
        }
    }

    fn keys(name: &str) -> Option<AccessKey> {
        match name {
            "root" => Some(root_key()),
            "user" => Some(AccessKey {
                access_key: "user".into(),
                secret_key: "user-secret".into(),
                is_root: false,
                ..root_key()
            }),
            _ => None,
        }
    }

    /// What a test signs, before it is changed behind the signature's back.
    #[derive(Clone)]
    pub(crate) struct Signing {
        pub(crate) method: &'static str,
        pub(crate) target: String,
        pub(crate) body: Vec<u8>,
        pub(crate) access_key: &'static str,
        pub(crate) secret: &'static str,
        pub(crate) seconds: u64,
        pub(crate) scope: (&'static str, &'static str),
        pub(crate) signed: &'static str,
    }

    impl Default for Signing {
        fn default() -> Self {
            Self {
                method: "POST",
                target: "/v1/backends?b=2&a=1%2F".into(),
                body: b"{}".to_vec(),
                access_key: "root",
                secret: "root-secret",
                seconds: NOW,
                scope: (REGION, SERVICE),
                signed: "host;x-amz-content-sha256;x-amz-date",
            }
        }
    }

    /// A request signed by an independent reading of the specification.
    pub(crate) fn sign(s: &Signing) -> http::Request<Vec<u8>> {
        let time = jiff::Timestamp::from_second(i64::try_from(s.seconds).unwrap()).unwrap();
        let date = time.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = date[..8].to_owned();
        let sha = hex::encode(Sha256::digest(&s.body));
        let (path, query) = s.target.split_once('?').unwrap_or((&s.target, ""));
        let mut pairs: Vec<&str> = query.split('&').filter(|p| !p.is_empty()).collect();
        pairs.sort_unstable();
        let mut canonical = format!("{}\n{path}\n{}\n", s.method, pairs.join("&"));
        for name in s.signed.split(';') {
            let value = match name {
                "host" => "localhost:9001",
                "x-amz-content-sha256" => sha.as_str(),
                "x-amz-date" => date.as_str(),
                _ => "",
            };
            canonical += &format!("{name}:{value}\n");
        }
        canonical += &format!("\n{}\n{sha}", s.signed);
        let scope = format!("{day}/{}/{}/aws4_request", s.scope.0, s.scope.1);
        let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(&canonical)));
        let mut key = hmac(format!("AWS4{}", s.secret).as_bytes(), day.as_bytes());
        for step in [s.scope.0, s.scope.1, "aws4_request"] {
            key = hmac(&key, step.as_bytes());
        }
        let signature = hex::encode(hmac(&key, to_sign.as_bytes()));
        let authorization = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
            s.access_key, s.signed
        );
        http::Request::builder()
            .method(s.method)
            .uri(&s.target)
            .header("host", "localhost:9001")
            .header("x-amz-date", date)
            .header("x-amz-content-sha256", sha)
            .header("authorization", authorization)
            .body(s.body.clone())
            .unwrap()
    }

    fn check(request: http::Request<Vec<u8>>, expected: Option<Code>, case: &str) {
        let (parts, body) = request.into_parts();
        let got = authenticate(&parts, &body, keys, NOW);
        assert_eq!(got.as_ref().err().map(|f| f.code), expected, "{case}: {got:?}");
        if let Err(failure) = got {
            assert_eq!(failure.status(), 403, "{case}");
            assert!(!failure.next_step.is_empty(), "{case}");
        }
    }

    #[test]
    fn who_passes_and_who_does_not() {
        let good = Signing::default();
        let cases: Vec<(&str, Signing, Option<Code>)> = vec![
            ("the root key", good.clone(), None),
            ("no body", Signing { body: Vec::new(), ..good.clone() }, None),
            ("10 minutes behind", Signing { seconds: NOW - 600, ..good.clone() }, None),
            ("another key", Signing { access_key: "user", secret: "user-secret", ..good.clone() }, Some(Code::NotRoot)),
            ("wrong secret", Signing { secret: "guess", ..good.clone() }, Some(Code::WrongSignature)),
            ("non-root, wrong secret", Signing { access_key: "user", ..good.clone() }, Some(Code::WrongSignature)),
            ("unknown key", Signing { access_key: "nobody", ..good.clone() }, Some(Code::WrongSignature)),
            (
                "unknown key with the stand-in secret",
                Signing { access_key: "nobody", secret: "unknown", ..good.clone() },
                Some(Code::WrongSignature),
            ),
            ("16 minutes ahead", Signing { seconds: NOW + 960, ..good.clone() }, Some(Code::ClockSkew)),
            ("16 minutes behind", Signing { seconds: NOW - 960, ..good.clone() }, Some(Code::ClockSkew)),
            ("signed for S3", Signing { scope: (REGION, "s3"), ..good.clone() }, Some(Code::WrongSignature)),
            (
                "signed for elsewhere",
                Signing { scope: ("us-east-1", SERVICE), ..good.clone() },
                Some(Code::WrongSignature),
            ),
            (
                "host not signed",
                Signing { signed: "x-amz-content-sha256;x-amz-date", ..good.clone() },
                Some(Code::WrongSignature),
            ),
            ("date not signed", Signing { signed: "host;x-amz-content-sha256", ..good }, Some(Code::WrongSignature)),
        ];
        for (case, signing, expected) in cases {
            check(sign(&signing), expected, case);
        }
    }

    #[test]
    fn whatever_is_changed_after_signing_is_refused() {
        type Change = fn(&mut http::Request<Vec<u8>>);
        let cases: Vec<(&str, Change)> = vec![
            ("body", |r| *r.body_mut() = b"{ }".to_vec()),
            ("body emptied", |r| r.body_mut().clear()),
            ("method", |r| *r.method_mut() = http::Method::DELETE),
            ("path", |r| *r.uri_mut() = "/v1/keys?b=2&a=1%2F".parse().unwrap()),
            ("query", |r| *r.uri_mut() = "/v1/backends?b=3&a=1%2F".parse().unwrap()),
            ("query added", |r| *r.uri_mut() = "/v1/backends?b=2&a=1%2F&c=1".parse().unwrap()),
            ("host", |r| drop(r.headers_mut().insert("host", "evil:1".parse().unwrap()))),
            ("second host", |r| assert!(r.headers_mut().append("host", "localhost:9001".parse().unwrap()))),
            ("second date", |r| {
                let date = r.headers()["x-amz-date"].clone();
                r.headers_mut().append("x-amz-date", date);
            }),
            ("unsigned x-amz header", |r| drop(r.headers_mut().insert("x-amz-meta", "1".parse().unwrap()))),
            ("hash and body", |r| {
                *r.body_mut() = b"other".to_vec();
                let sha = hex::encode(Sha256::digest(b"other"));
                r.headers_mut().insert("x-amz-content-sha256", sha.parse().unwrap());
            }),
            ("unsigned payload", |r| {
                r.headers_mut().insert("x-amz-content-sha256", "UNSIGNED-PAYLOAD".parse().unwrap());
            }),
            ("no authorization", |r| drop(r.headers_mut().remove("authorization"))),
            ("no date", |r| drop(r.headers_mut().remove("x-amz-date"))),
            ("date is no time", |r| drop(r.headers_mut().insert("x-amz-date", "yesterday".parse().unwrap()))),
            ("date of another day", |r| {
                drop(r.headers_mut().insert("x-amz-date", "20200101T000000Z".parse().unwrap()))
            }),
            ("signature cut short", |r| {
                let text = r.headers()["authorization"].to_str().unwrap().to_owned();
                r.headers_mut().insert("authorization", text[..text.len() - 2].parse().unwrap());
            }),
            ("garbage", |r| drop(r.headers_mut().insert("authorization", "Basic cm9vdDpyb290".parse().unwrap()))),
            ("empty signature", |r| {
                let text = "AWS4-HMAC-SHA256 Credential=root/20261118/holdfast/holdfast-admin/aws4_request, \
                            SignedHeaders=host, Signature=";
                r.headers_mut().insert("authorization", text.parse().unwrap());
            }),
            ("too long", |r| {
                let text = format!("AWS4-HMAC-SHA256 Credential={}", "x".repeat(5000));
                r.headers_mut().insert("authorization", text.parse().unwrap());
            }),
        ];
        for (case, change) in cases {
            let mut request = sign(&Signing::default());
            change(&mut request);
            check(request, Some(Code::WrongSignature), case);
        }
    }

    #[test]
    fn query_order_and_encoding_do_not_matter() {
        assert_eq!(canonical_query(Some("b=2&a=1%2f&c")), "a=1%2F&b=2&c=");
        assert_eq!(canonical_query(None), "");
        assert_eq!(canonical_query(Some("k=a+b")), "k=a%2Bb");
    }
}
