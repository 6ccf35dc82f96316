//! The door: turns bytes into an authenticated request, and nothing else can.
//!
//! Invariant: an `AuthenticatedRequest` is made only by `Door::admit`, after the signature over it was verified; what
//! is behind the door takes nothing else. Keys, queries and lengths are those that were signed, encoded anew.

mod body;
mod document;
mod error;
mod form;
mod form_request;
mod forward;
mod limits;
mod pace;
mod path;
mod sigv4;

pub(crate) use error::{DoorError, escaped};
pub(crate) use limits::*;
pub(crate) use path::encode_value;

use self::body::{Payload, Source, Trailers};
use self::forward::{checksum_trailer, forwarded_head, set_length, trailer_name};
use self::path::{decode_path, decode_query, target};
use self::sigv4::Parts;
use super::context::{Principal, RequestContext};
use crate::metadata::Metadata;
use crate::object_path::BodyStream;
use bytes::Bytes;
use holdfast_proto::manifest::AccessKey;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;

/// Headers that say one thing; sent twice, who is behind the door might read the other one.
const SINGLE_HEADERS: [&str; 8] = [
    "content-md5",
    "content-type",
    "x-amz-content-sha256",
    "x-amz-copy-source",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-trailer",
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
        check_single(&head.headers)?;
        let (raw_path, raw_query) = raw.split_once('?').unwrap_or((raw, ""));
        let path = decode_path(raw_path)?;
        let query = decode_query(raw_query)?;
        let host = single_host(&head.headers)?;
        let target = target(&path, host, &self.domains)?;
        let source = Source::connection(incoming);
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let is_multipart = head.method == Method::POST && form::is_multipart(content_type);
        if is_multipart && query.is_empty() && target.key.is_empty() && !target.bucket.is_empty() {
            if head.headers.contains_key(AUTHORIZATION) {
                return Err(DoorError::bad("InvalidArgument", "Only one auth mechanism allowed"));
            }
            return self.admit_form(source, content_type, &target.bucket, request_id).await;
        }
        if head.method == Method::OPTIONS {
            return Err(DoorError::denied("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket."));
        }
        let parts =
            Parts { method: head.method.as_str(), raw_path, path: &path, query: &query, headers: &head.headers };
        document::content_md5(&head.headers)?;
        let (key, seed, payload) = self.verify(&parts)?;
        if is_multipart {
            return Err(DoorError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "A form is posted to its bucket, and nowhere else.",
            ));
        }
        let document = document::is_document(&head.method, !target.key.is_empty(), &query);
        let length = body_length(&head.method, &head.headers, document)?;
        if document {
            document::check_length(length)?;
        }
        let algorithm = checksum_trailer(&head.headers, payload.has_trailers())?;
        let mut context = RequestContext {
            request_id: request_id.to_owned(),
            principal: principal(&key),
            body_bytes: length,
            body_bytes_max: None,
            trailers: None,
        };
        let body = match payload {
            Payload::Chunked { signed, trailer } => {
                let decoded = decoded_length(&head.headers)?;
                let trailers = Trailers::default();
                context.body_bytes = Some(decoded);
                context.trailers = algorithm.map(|_| trailers.source());
                let announced = trailer.then(|| algorithm.map(trailer_name).into_iter().collect());
                body::chunked(source, decoded, signed.then_some(seed), announced, trailers)
            }
            _ if length.is_some_and(|bytes| bytes > BODY_BYTES_MAX) => return Err(too_large()),
            payload => body::plain(source, length, &payload),
        };
        let mut forwarded = forwarded_head(&head.method, &target, &query, &head.headers)?;
        let forwarded_body = if document {
            let bytes = document::collect(body).await?;
            document::check_digests(&head.headers, context.trailers.as_ref(), &query, &bytes)?;
            set_length(&mut forwarded, bytes.len() as u64);
            RequestBody::Document(bytes)
        } else {
            if let Some(length) = context.body_bytes {
                set_length(&mut forwarded, length);
            }
            RequestBody::Object(body)
        };
        forwarded.extensions_mut().insert(context);
        Ok(Admitted::Request(AuthenticatedRequest { request: forwarded, body: forwarded_body }))
    }

    /// Who signed, what chunk signatures go on from, and how the body proves itself.
    fn verify(&self, parts: &Parts<'_>) -> Result<(AccessKey, sigv4::Seed, Payload), DoorError> {
        let now = (self.clock)();
        let claim = sigv4::claim(parts, now)?;
        claim.check(parts, &self.region, now)?;
        let key = self.metadata.access_key(&claim.access_key).ok_or_else(|| {
            DoorError::denied("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
        })?;
        let seed = claim.verify(parts, &key.secret_key)?;
        let payload = Payload::parse(&claim.payload).ok_or_else(|| {
            DoorError::bad(
                "InvalidArgument",
                "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- value, or a valid sha256 value.",
            )
        })?;
        Ok((key, seed, payload))
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

/// Refuses headers sent twice that the door, or who is behind it, reads once.
fn check_single(headers: &HeaderMap) -> Result<(), DoorError> {
    for name in SINGLE_HEADERS {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(DoorError::bad("InvalidRequest", format!("The header {name} is given more than once")));
        }
    }
    Ok(())
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

/// Bytes of the body as framed by HTTP, where it says so. Object bytes must be announced.
fn body_length(method: &Method, headers: &HeaderMap, document: bool) -> Result<Option<u64>, DoorError> {
    let length = number(headers, CONTENT_LENGTH.as_str())?;
    if length.is_some() || headers.contains_key(TRANSFER_ENCODING) {
        return Ok(length);
    }
    let copies = headers.contains_key("x-amz-copy-source");
    if method == Method::PUT && !document && !copies {
        return Err(missing_length("You must provide the Content-Length HTTP header."));
    }
    Ok(Some(0))
}

/// Bytes of an aws-chunked body without its framing.
fn decoded_length(headers: &HeaderMap) -> Result<u64, DoorError> {
    let decoded = number(headers, "x-amz-decoded-content-length")?
        .ok_or_else(|| missing_length("You must provide the x-amz-decoded-content-length header."))?;
    if decoded > BODY_BYTES_MAX { Err(too_large()) } else { Ok(decoded) }
}

fn missing_length(message: &str) -> DoorError {
    DoorError::new(StatusCode::LENGTH_REQUIRED, "MissingContentLength", message)
}
