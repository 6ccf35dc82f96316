//! The door: turns bytes into an authenticated request, and nothing else can.
//!
//! Invariant: an `AuthenticatedRequest` is made only by `Door::admit`, after the signature over it was verified; what
//! is behind the door takes nothing else. Keys, queries and lengths are those that were signed, encoded anew.

mod body;
mod error;
mod form;
mod limits;
mod path;
mod sigv4;

use self::form::success;
pub(crate) use error::{DoorError, escaped};
pub(crate) use limits::*;

use self::body::{Payload, Source, Trailers};
use self::path::{Target, decode_path, decode_query, encode_value, target};
use self::sigv4::Parts;
use super::context::{Principal, RequestContext};
use crate::metadata::Metadata;
use crate::object_path::{BodyError, BodyStream};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use holdfast_proto::manifest::AccessKey;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, EXPECT, HOST, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use md5::{Digest, Md5};
use std::sync::Arc;

/// Query parameters that make a request about something other than an object's bytes.
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

/// A request whose signature was verified.
pub(crate) struct AuthenticatedRequest {
    request: Request<()>,
    body: RequestBody,
}

/// What follows the head.
pub(crate) enum RequestBody {
    /// A document, read and checked whole.
    Document(Bytes),
    /// Object bytes.
    Object(BodyStream),
}

impl AuthenticatedRequest {
    /// Hands over what was verified.
    pub(crate) fn into_parts(self) -> (Request<()>, RequestBody) {
        (self.request, self.body)
    }
}

/// What came through the door.
pub(crate) enum Admitted {
    Request(AuthenticatedRequest),
    /// A POST form: the PUT it stands for, and what its sender wants to be answered.
    Form(AuthenticatedRequest, FormReply),
}

/// How a POST form wants its success told.
pub(crate) struct FormReply {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) status: StatusCode,
    pub(crate) redirect: Option<String>,
}

/// The rules of one endpoint.
pub(crate) struct Door {
    pub(crate) region: String,
    pub(crate) domains: Vec<String>,
    pub(crate) metadata: Arc<dyn Metadata>,
    /// Seconds since 1970.
    pub(crate) clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Door {
    /// Verifies a request. Its body is not read unless it is a document; a form is read as far as its file.
    pub(crate) async fn admit(&self, request: Request<Incoming>, request_id: &str) -> Result<Admitted, DoorError> {
        let (head, incoming) = request.into_parts();
        let raw = head.uri.path_and_query().map(http::uri::PathAndQuery::as_str).unwrap_or("/");
        if raw.len() > TARGET_BYTES_MAX {
            return Err(DoorError::new(StatusCode::URI_TOO_LONG, "InvalidURI", "The request target is too long"));
        }
        let (raw_path, raw_query) = raw.split_once('?').unwrap_or((raw, ""));
        let path = decode_path(raw_path)?;
        let query = decode_query(raw_query)?;
        let host = single_host(&head.headers)?;
        let target = target(&path, host, &self.domains)?;
        let source = Source::Connection(incoming);
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let is_form = head.method == Method::POST && query.is_empty() && target.key.is_empty();
        if is_form && !target.bucket.is_empty() && content_type.to_ascii_lowercase().starts_with("multipart/form-data")
        {
            return self.admit_form(source, content_type, &target, request_id).await;
        }
        if head.method == Method::OPTIONS {
            return Err(DoorError::denied("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket."));
        }
        let parts =
            Parts { method: head.method.as_str(), raw_path, path: &path, query: &query, headers: &head.headers };
        let claim = sigv4::claim(&parts)?;
        claim.check(&parts, &self.region, (self.clock)())?;
        let key = self.metadata.access_key(&claim.access_key).ok_or_else(|| {
            DoorError::denied("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
        })?;
        let seed = claim.verify(&parts, &key.secret_key)?;
        let payload = Payload::parse(&claim.payload).ok_or_else(|| {
            DoorError::bad(
                "InvalidArgument",
                "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- value, or a valid sha256 value.",
            )
        })?;
        let (body, context) = self.body(&head.method, &head.headers, source, payload, seed, &key, request_id)?;
        let document = is_document(&head.method, &query);
        let length = if document { None } else { context.body_bytes };
        let mut forwarded = forwarded_head(&head.method, &target, &query, &head.headers, length)?;
        let body = if document {
            let bytes = collect(body).await?;
            check_digests(&head.headers, &bytes)?;
            set_length(&mut forwarded, bytes.len() as u64);
            RequestBody::Document(bytes)
        } else {
            RequestBody::Object(body)
        };
        forwarded.extensions_mut().insert(context);
        Ok(Admitted::Request(AuthenticatedRequest { request: forwarded, body }))
    }

    #[expect(clippy::too_many_arguments, reason = "the pieces of one request, each of another type")]
    fn body(
        &self,
        method: &Method,
        headers: &HeaderMap,
        source: Source,
        payload: Payload,
        seed: sigv4::Seed,
        key: &AccessKey,
        request_id: &str,
    ) -> Result<(BodyStream, RequestContext), DoorError> {
        let mut context = RequestContext {
            request_id: request_id.to_owned(),
            principal: principal(key),
            body_bytes: None,
            body_bytes_max: None,
            trailers: None,
        };
        let length = number(headers, CONTENT_LENGTH.as_str())?;
        let sized = length.is_some() || headers.contains_key(TRANSFER_ENCODING);
        if method == Method::PUT && !sized {
            return Err(DoorError::new(
                StatusCode::LENGTH_REQUIRED,
                "MissingContentLength",
                "You must provide the Content-Length HTTP header.",
            ));
        }
        let Payload::Chunked { signed, trailer } = payload else {
            if length.is_some_and(|l| l > BODY_BYTES_MAX) {
                return Err(too_large());
            }
            context.body_bytes = if sized { length } else { Some(0) };
            return Ok((body::plain(source, context.body_bytes, &payload), context));
        };
        let decoded = number(headers, "x-amz-decoded-content-length")?.ok_or_else(|| {
            DoorError::new(
                StatusCode::LENGTH_REQUIRED,
                "MissingContentLength",
                "You must provide the x-amz-decoded-content-length header.",
            )
        })?;
        if decoded > BODY_BYTES_MAX {
            return Err(too_large());
        }
        let announced = trailer.then(|| {
            let values = headers.get_all("x-amz-trailer").iter().filter_map(|v| v.to_str().ok());
            values.flat_map(|v| v.split(',')).map(|n| n.trim().to_ascii_lowercase()).collect::<Vec<_>>()
        });
        let trailers = Trailers::default();
        context.body_bytes = Some(decoded);
        context.trailers = announced.as_ref().filter(|a| !a.is_empty()).map(|_| trailers.source());
        let body = body::chunked(source, decoded, signed.then_some(seed), announced, trailers);
        Ok((body, context))
    }

    async fn admit_form(
        &self,
        source: Source,
        content_type: &str,
        target: &Target,
        request_id: &str,
    ) -> Result<Admitted, DoorError> {
        let form =
            form::read(source, content_type, &target.bucket, &self.region, (self.clock)(), self.metadata.as_ref())
                .await?;
        let target = Target { bucket: target.bucket.clone(), key: form.key.clone() };
        if target.key.is_empty() || target.key.len() > KEY_BYTES_MAX {
            return Err(DoorError::bad("KeyTooLongError", "A key has 1 to 1024 bytes"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &form.fields {
            let stored = name.starts_with("x-amz-meta-")
                || name.starts_with("x-amz-checksum-")
                || matches!(
                    name.as_str(),
                    "acl"
                        | "content-type"
                        | "cache-control"
                        | "content-disposition"
                        | "content-encoding"
                        | "content-language"
                        | "expires"
                        | "x-amz-storage-class"
                        | "x-amz-website-redirect-location"
                        | "x-amz-server-side-encryption"
                        | "content-md5"
                );
            if stored {
                let name = if name == "acl" { "x-amz-acl" } else { name.as_str() };
                let pair = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
                let (Ok(name), Ok(value)) = pair else {
                    return Err(DoorError::bad("InvalidArgument", format!("the form field {name} cannot be a header")));
                };
                headers.insert(name, value);
            }
        }
        if let Some(xml) = form.field("tagging") {
            let encoded = tags_of_xml(xml)?;
            headers.insert(
                "x-amz-tagging",
                HeaderValue::from_str(&encoded).map_err(|_| DoorError::bad("MalformedXML", "tagging"))?,
            );
        }
        let (status, redirect) = success(
            form.field("success_action_status"),
            form.field("success_action_redirect").or_else(|| form.field("redirect")),
        );
        let reply = FormReply { bucket: target.bucket.clone(), key: target.key.clone(), status, redirect };
        let context = RequestContext {
            request_id: request_id.to_owned(),
            principal: principal(&form.signer),
            body_bytes: None,
            body_bytes_max: Some(form.bytes_max.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX)),
            trailers: None,
        };
        let body = at_least(form.file, form.bytes_min);
        let mut request = forwarded_head(&Method::PUT, &target, &[], &headers, None)?;
        request.extensions_mut().insert(context);
        Ok(Admitted::Form(AuthenticatedRequest { request, body: RequestBody::Object(body) }, reply))
    }
}

fn principal(key: &AccessKey) -> Principal {
    Principal { access_key: key.access_key.clone(), name: key.name.clone(), is_root: key.is_root }
}

fn too_large() -> DoorError {
    DoorError::bad("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
}

fn single_host(headers: &HeaderMap) -> Result<&str, DoorError> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|v| v.to_str().ok());
    match (host, hosts.next()) {
        (Some(host), None) => Ok(host),
        _ => Err(DoorError::bad("InvalidRequest", "Exactly one Host header is needed")),
    }
}

fn number(headers: &HeaderMap, name: &str) -> Result<Option<u64>, DoorError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let parsed = value.to_str().ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit())).and_then(|v| v.parse().ok());
    match (parsed, values.next()) {
        (Some(number), None) => Ok(Some(number)),
        _ => Err(DoorError::bad("InvalidArgument", format!("{name} is not a number"))),
    }
}

fn is_document(method: &Method, query: &[(String, String)]) -> bool {
    match *method {
        Method::POST => true,
        Method::PUT => query.iter().any(|(name, _)| DOCUMENT_PARAMETERS.contains(&name.as_str())),
        _ => true,
    }
}

/// The request as it goes on: path style, encoded anew, without what was the door's business.
fn forwarded_head(
    method: &Method,
    target: &Target,
    query: &[(String, String)],
    headers: &HeaderMap,
    length: Option<u64>,
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
    // An announced checksum trailer says which algorithm to compute.
    if !out.contains_key("x-amz-sdk-checksum-algorithm") {
        let named = headers.get("x-amz-trailer").and_then(|v| v.to_str().ok());
        let algorithm = named.and_then(|t| t.trim().strip_prefix("x-amz-checksum-")).map(str::to_ascii_uppercase);
        if let Some(value) = algorithm.and_then(|a| HeaderValue::from_str(&a).ok()) {
            out.insert("x-amz-sdk-checksum-algorithm", value);
        }
    }
    if let Some(encoding) = headers.get(CONTENT_ENCODING).and_then(|v| v.to_str().ok()) {
        let rest: Vec<&str> = encoding
            .split(',')
            .map(str::trim)
            .filter(|e| !e.eq_ignore_ascii_case("aws-chunked") && !e.is_empty())
            .collect();
        out.remove(CONTENT_ENCODING);
        if !rest.is_empty()
            && let Ok(value) = HeaderValue::from_str(&rest.join(","))
        {
            out.insert(CONTENT_ENCODING, value);
        }
    }
    if let Some(length) = length {
        set_length(&mut request, length);
    }
    Ok(request)
}

fn set_length(request: &mut Request<()>, length: u64) {
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

async fn collect(mut body: BodyStream) -> Result<Bytes, DoorError> {
    let mut all = BytesMut::new();
    while let Some(item) = body.next().await {
        let bytes = item.map_err(body_error)?;
        if all.len() + bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(DoorError::bad("MaxMessageLengthExceeded", "Your request was too big."));
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all.freeze())
}

fn body_error(error: BodyError) -> DoorError {
    let message = error.to_string();
    match error {
        BodyError::Incomplete { .. } => DoorError::bad("IncompleteBody", message),
        BodyError::Signature { .. } => DoorError::denied("SignatureDoesNotMatch", message),
        BodyError::Malformed { .. } => DoorError::bad("InvalidRequest", message),
        BodyError::ContentSha256 => DoorError::bad("XAmzContentSHA256Mismatch", message),
        BodyError::TooLarge { .. } => DoorError::bad("EntityTooLarge", message),
        BodyError::TimedOut => DoorError::bad("RequestTimeout", message),
    }
}

/// Content-MD5 of a document, where sent.
fn check_digests(headers: &HeaderMap, bytes: &[u8]) -> Result<(), DoorError> {
    let Some(value) = headers.get("content-md5") else { return Ok(()) };
    let claimed = value.to_str().ok().and_then(|v| BASE64.decode(v).ok()).filter(|v| v.len() == 16);
    let claimed =
        claimed.ok_or_else(|| DoorError::bad("InvalidDigest", "The Content-MD5 you specified is not valid."))?;
    if Md5::digest(bytes).as_slice() != claimed {
        return Err(DoorError::bad("BadDigest", "The Content-MD5 you specified did not match what we received."));
    }
    Ok(())
}

/// A file that must have at least so many bytes; at most is the object path's to check.
fn at_least(file: BodyStream, bytes_min: u64) -> BodyStream {
    let end = async move |seen: u64| {
        (seen < bytes_min).then(|| {
            Err(BodyError::Malformed { reason: "EntityTooSmall: fewer bytes than the policy asks for".to_owned() })
        })
    };
    futures::stream::unfold(Some((file, 0u64)), move |state| {
        let end = end;
        async move {
            let (mut file, seen) = state?;
            match file.next().await {
                Some(Ok(bytes)) => {
                    let seen = seen.saturating_add(bytes.len() as u64);
                    Some((Ok(bytes), Some((file, seen))))
                }
                Some(Err(error)) => Some((Err(error), None)),
                None => end(seen).await.map(|error| (error, None)),
            }
        }
    })
    .boxed()
}

/// The `tagging` field of a form: XML, as PutObjectTagging takes it, made into the header's form.
fn tags_of_xml(xml: &str) -> Result<String, DoorError> {
    let malformed = || DoorError::bad("MalformedXML", "The XML you provided was not well-formed or did not validate");
    let between = |text: &str, open: &str, close: &str| -> Option<String> {
        let from = text.find(open)? + open.len();
        let to = text.get(from..)?.find(close)? + from;
        text.get(from..to).map(str::to_owned)
    };
    let mut tags = Vec::new();
    let mut rest = xml;
    while let Some(at) = rest.find("<Tag>") {
        let tag = rest.get(at..).ok_or_else(malformed)?;
        let end = tag.find("</Tag>").ok_or_else(malformed)?;
        let one = tag.get(..end).ok_or_else(malformed)?;
        let name = between(one, "<Key>", "</Key>").ok_or_else(malformed)?;
        let value = between(one, "<Value>", "</Value>").unwrap_or_default();
        tags.push(format!("{}={}", encode_value(&name), encode_value(&value)));
        rest = tag.get(end..).ok_or_else(malformed)?;
    }
    Ok(tags.join("&"))
}
