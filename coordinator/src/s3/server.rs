//! The S3 listener: connections, TLS, time limits, answers. Touches sockets and the clock.
//!
//! Every answer carries a request id; every refusal is S3's XML; a connection whose request was refused before its body
//! was read is closed after the answer (`wire`). A handler that panics costs its own request only.

use super::document;
use super::door::{
    Admitted, AuthenticatedRequest, CONNECTIONS_MAX, Door, DoorError, FormReply, HEAD_BYTES_MAX, HEADER_TIME,
    RequestBody, SHUTDOWN_TIME, encode_value, escaped,
};
use super::subresource::{self, Level};
use super::wire::{Kept, Turn, Wire};
use crate::metadata::Metadata;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http::header::{CONNECTION, CONTENT_TYPE, ETAG, EXPECT, HeaderValue, LOCATION, SERVER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::service::S3Service;
use std::convert::Infallible;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Settings of the listener.
#[derive(Clone)]
pub struct S3ServerOptions {
    /// The region signatures must name.
    pub region: String,
    /// Domains below which a host's first labels name the bucket.
    pub domains: Vec<String>,
    /// TLS, if the listener speaks it.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Seconds since 1970, for signatures.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for S3ServerOptions {
    fn default() -> Self {
        let clock = || crate::clock::now_ms() / 1_000;
        Self { region: "us-east-1".to_owned(), domains: Vec::new(), tls: None, clock: Arc::new(clock) }
    }
}

/// Bodies of refused requests up to this size are on their way with their heads, and are read to go on after them.
const DRAINED_BYTES_MAX: u64 = 16 << 10;

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, s3s::StdError>;

struct Endpoint {
    door: Door,
    service: S3Service,
}

/// Serves S3 on `listener` until `shutdown` is cancelled and requests under way have ended (30 s at most).
pub async fn serve(
    listener: TcpListener,
    options: S3ServerOptions,
    metadata: Arc<dyn Metadata>,
    service: S3Service,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let door = Door { region: options.region, domains: options.domains, metadata, clock: options.clock };
    let endpoint = Arc::new(Endpoint { door, service });
    let tls = options.tls.map(tokio_rustls::TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place.map_err(io::Error::other)?,
            () = shutdown.cancelled() => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept an S3 connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "set TCP_NODELAY");
        }
        let (endpoint, tls, stop) = (endpoint.clone(), tls.clone(), shutdown.clone());
        connections.spawn(async move {
            match tls {
                None => connection(stream, endpoint, stop).await,
                Some(tls) => match tokio::time::timeout(HEADER_TIME, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, endpoint, stop).await,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
                    Err(_) => tracing::debug!("TLS handshake timed out"),
                },
            }
            drop(place);
        });
    }
    drop(listener);
    let drained = tokio::time::timeout(SHUTDOWN_TIME, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(left = connections.len(), "requests still under way after {SHUTDOWN_TIME:?} are cut");
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(stream: S, endpoint: Arc<Endpoint>, stop: CancellationToken) {
    let turn = Turn::default();
    let wire = Wire::new(stream, turn.clone());
    let service = service_fn(move |request| {
        let (endpoint, turn, answering) = (endpoint.clone(), turn.clone(), turn.begin());
        async move {
            let (unsent, unasked) = (may_leave_body(&request), expects_in_vain(&request));
            let mut response = endpoint.answer(request).await;
            let refused = response.status().is_client_error() || response.status().is_server_error();
            if refused {
                turn.refuse();
            }
            if unasked || (refused && unsent) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| Kept::new(body, answering)))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(256 << 10)
        .serve_connection(TokioIo::new(wire), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "S3 connection ended");
    }
}

/// Whether the client may not send this request's body once it sees a refusal. What it sends next would be read as that
/// body, so the connection cannot go on: some clients that expect `100 Continue` do use it again.
fn may_leave_body(request: &Request<Incoming>) -> bool {
    let short = request.body().size_hint().upper().is_some_and(|bytes| bytes <= DRAINED_BYTES_MAX);
    let waits = request.headers().contains_key(EXPECT);
    !request.body().is_end_stream() && (waits || !short)
}

/// Whether the client expects `100 Continue` before a body of no bytes: hyper then answers at once, as it may, and a
/// client such as botocore takes that for the answer to its next request too, if there is one on the same connection.
fn expects_in_vain(request: &Request<Incoming>) -> bool {
    request.body().is_end_stream() && request.headers().contains_key(EXPECT)
}

/// An id for one request, in its answer and in every log line about it.
pub(super) fn new_request_id() -> String {
    format!("{:016X}", rand::random::<u64>())
}

impl Endpoint {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        let request_id = new_request_id();
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let span = tracing::info_span!("s3", id = %request_id, %method, path = %path);
        let under_way = UnderWay::new();
        let handled = self.handle(request, &method, &path, &request_id).instrument(span.clone());
        let mut response = AssertUnwindSafe(handled).catch_unwind().await.unwrap_or_else(|_| {
            // The panic hook has logged what it was.
            tracing::error!(parent: &span, "the request's handler panicked");
            refusal(&broken(), &method, &path, &request_id)
        });
        drop(under_way);
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert("x-amz-request-id", value.clone());
            response.headers_mut().insert("x-amz-id-2", value);
        }
        response.headers_mut().insert(SERVER, HeaderValue::from_static("Holdfast"));
        let status = response.status().as_u16();
        let labels = [("method", method.as_str().to_owned()), ("status", status.to_string())];
        metrics::counter!("holdfast_s3_requests_total", &labels).increment(1);
        metrics::histogram!("holdfast_s3_request_seconds", "method" => labels[0].1.clone())
            .record(started.elapsed().as_secs_f64());
        tracing::debug!(parent: &span, status, elapsed = ?started.elapsed(), "answered");
        response
    }

    async fn handle(&self, request: Request<Incoming>, method: &Method, path: &str, id: &str) -> Response<Body> {
        match self.door.admit(request, id).await {
            Ok(Admitted::Request(request)) => self.call(request, method, path, id).await,
            Ok(Admitted::Form(request, reply)) => {
                let response = self.call(request, &Method::PUT, path, id).await;
                if response.status().is_success() { form_answer(&response, &reply) } else { response }
            }
            Err(refused) => refusal(&refused, method, path, id),
        }
    }

    async fn call(&self, request: AuthenticatedRequest, method: &Method, path: &str, id: &str) -> Response<Body> {
        let (head, body) = request.into_parts();
        let level = Level::of(head.uri().path());
        if let Err(refused) = subresource::check(head.method(), level, head.uri().query().unwrap_or_default()) {
            return refusal(&refused, method, path, id);
        }
        let body = match body {
            RequestBody::Document(bytes) => s3s::Body::from(bytes),
            RequestBody::Object(stream) => {
                s3s::Body::http_body_unsync(StreamBody::new(stream.map(|item| item.map(Frame::data))))
            }
        };
        match self.service.call(head.map(|()| body)).await {
            // Small bodies are one piece already, so head and body leave together.
            Ok(response) => document::completed(response, path, id).map(BodyExt::boxed_unsync),
            Err(error) => {
                tracing::error!(?error, "the S3 service failed");
                refusal(&broken(), method, path, id)
            }
        }
    }
}

/// Counts a request for as long as it is handled, also when its client goes away.
struct UnderWay;

impl UnderWay {
    fn new() -> Self {
        metrics::gauge!("holdfast_s3_requests_in_flight").increment(1.0);
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        metrics::gauge!("holdfast_s3_requests_in_flight").decrement(1.0);
    }
}

fn broken() -> DoorError {
    DoorError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "InternalError",
        "We encountered an internal error. Please try again.",
    )
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn refusal(error: &DoorError, method: &Method, path: &str, id: &str) -> Response<Body> {
    tracing::debug!(code = error.code, message = %error.message, "refused");
    metrics::counter!("holdfast_s3_refused_total", "code" => error.code).increment(1);
    let body = if method == Method::HEAD { Bytes::new() } else { error.xml(path, id) };
    let mut response = Response::new(full(body));
    *response.status_mut() = error.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}

fn form_answer(stored: &Response<Body>, reply: &FormReply) -> Response<Body> {
    let etag = stored.headers().get(ETAG).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let location = format!("/{}/{}", reply.bucket, reply.key);
    let body = if reply.status == StatusCode::CREATED {
        Bytes::from(format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<PostResponse><Location>{}</Location><Bucket>{}</Bucket><Key>{}</Key><ETag>{}</ETag></PostResponse>",
            escaped(&location),
            escaped(&reply.bucket),
            escaped(&reply.key),
            escaped(etag)
        ))
    } else {
        Bytes::new()
    };
    let mut response = Response::new(full(body));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    for name in ["etag", "x-amz-version-id", "x-holdfast-durability"] {
        if let Some(value) = stored.headers().get(name) {
            headers.insert(name, value.clone());
        }
    }
    if reply.status == StatusCode::CREATED {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    }
    if let Some(to) = &reply.redirect {
        let joint = if to.contains('?') { '&' } else { '?' };
        let [bucket, key, etag] = [reply.bucket.as_str(), reply.key.as_str(), etag].map(encode_value);
        let to = format!("{to}{joint}bucket={bucket}&key={key}&etag={etag}");
        if let Ok(value) = HeaderValue::from_str(&to) {
            headers.insert(LOCATION, value);
        }
    }
    response
}
