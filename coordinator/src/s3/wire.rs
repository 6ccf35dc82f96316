//! A connection's bytes, below HTTP: answers of our own where hyper gives bare ones, a client that stops reading, and
//! the end of a refused connection. Touches sockets and timers.
//!
//! hyper answers a request that it cannot parse by itself, with a status line and nothing else. Everybody who is
//! refused is to get S3's words and a request id, so what hyper writes when no answer of ours is under way is replaced.
//!
//! Invariant: bytes of an answer are never touched. `Turn` is `Free` only from the flush after an answer's last byte
//! (hyper flushes its whole buffer before it flushes us) to the next request.

use super::door::{DoorError, LINGER, WRITE_IDLE};
use super::server::new_request_id;
use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

const FREE: u8 = 0;
const ANSWERING: u8 = 1;
const FLUSHING: u8 = 2;

/// Whose turn it is on one connection; shared by its wire, its service and the bodies of its answers.
#[derive(Clone, Default)]
pub(super) struct Turn {
    phase: Arc<AtomicU8>,
    refused: Arc<AtomicBool>,
}

impl Turn {
    /// A request came, which will be answered; the answer is complete when what is returned is dropped.
    pub(super) fn begin(&self) -> Answering {
        self.phase.store(ANSWERING, Ordering::Release);
        self.refused.store(false, Ordering::Release);
        Answering(self.clone())
    }

    /// The answer is an error: what the client still sends of its request may have to be thrown away.
    pub(super) fn refuse(&self) {
        self.refused.store(true, Ordering::Release);
    }
}

/// Kept with the body of an answer.
pub(super) struct Answering(Turn);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.phase.store(FLUSHING, Ordering::Release);
    }
}

/// The body of an answer; the answer is complete when hyper lets go of it.
pub(super) struct Kept<B> {
    body: B,
    _answering: Answering,
}

impl<B> Kept<B> {
    pub(super) fn new(body: B, answering: Answering) -> Self {
        Self { body, _answering: answering }
    }
}

impl<B: Body + Unpin> Body for Kept<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The connection as hyper sees it.
pub(super) struct Wire<S> {
    inner: S,
    turn: Turn,
    /// Our answer in the place of hyper's: what is left to write of it.
    own: Option<Bytes>,
    /// Running while the client takes nothing.
    idle: Option<Pin<Box<Sleep>>>,
    /// Running once the write half is closed: what still comes is thrown away.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(inner: S, turn: Turn) -> Self {
        Self { inner, turn, own: None, idle: None, linger: None }
    }

    /// Whether what hyper writes now is its own bare answer; puts ours in its place.
    fn replaces(&mut self, bare: &[u8]) -> bool {
        if self.turn.phase.load(Ordering::Acquire) != FREE {
            return false;
        }
        if self.own.is_none() {
            self.own = Some(answer_to_garbage(bare));
            self.turn.refuse();
        }
        true
    }

    /// Gives up on a client that has taken nothing for `WRITE_IDLE`.
    fn watched<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.idle = None;
            return result;
        }
        let timer = self.idle.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_IDLE)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }

    fn poll_own(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left) = self.own.as_mut().filter(|left| left.has_remaining()) {
            let written = Pin::new(&mut self.inner).poll_write(context, left);
            let Poll::Ready(Ok(bytes)) = written else { return written.map_ok(|_| ()) };
            if bytes == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            left.advance(bytes);
        }
        Poll::Ready(Ok(()))
    }

    /// Throws away what comes until the client closes, or its time is over.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut waste = [0u8; 16 << 10];
        loop {
            let timer = self.linger.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + LINGER)));
            if timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut self.inner).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

/// The answer to bytes that are no request.
fn answer_to_garbage(bare: &[u8]) -> Bytes {
    let status = bare.get(9..12).and_then(|s| StatusCode::from_bytes(s).ok()).unwrap_or(StatusCode::BAD_REQUEST);
    let refused = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => DoorError::bad(
            "RequestHeaderSectionTooLarge",
            "Your request header and query parameters exceed the maximum allowed size.",
        ),
        StatusCode::URI_TOO_LONG => DoorError::new(status, "InvalidURI", "The request target is too long"),
        _ => DoorError::bad("BadRequest", "An error occurred when parsing the HTTP request."),
    };
    metrics::counter!("holdfast_s3_refused_total", "code" => refused.code).increment(1);
    let id = new_request_id();
    let body = refused.xml("", &id);
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\nx-amz-request-id: {id}\r\nx-amz-id-2: {id}\r\nserver: Holdfast\r\ncontent-type: application/xml\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        refused.status.as_u16(),
        refused.status.canonical_reason().unwrap_or("Refused"),
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    Bytes::from(answer)
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.replaces(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watched(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.replaces(pieces.first().map_or(&[], |piece| piece)) {
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
        self.watched(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let own = self.poll_own(context);
        ready!(self.watched(context, own))?;
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        ready!(self.watched(context, flushed))?;
        let _ = self.turn.phase.compare_exchange(FLUSHING, FREE, Ordering::AcqRel, Ordering::Acquire);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            let own = self.poll_own(context);
            ready!(self.watched(context, own))?;
            let closed = Pin::new(&mut self.inner).poll_shutdown(context);
            ready!(self.watched(context, closed))?;
            if !self.turn.refused.load(Ordering::Acquire) {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_linger(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use std::convert::Infallible;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    const BARE: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    fn serve(pipe: DuplexStream) -> tokio::task::JoinHandle<()> {
        let turn = Turn::default();
        let wire = Wire::new(pipe, turn.clone());
        let service = service_fn(move |_request| {
            let answering = turn.begin();
            async move {
                let body = Full::new(Bytes::from_static(BARE.as_bytes()));
                Ok::<_, Infallible>(http::Response::new(Kept::new(body, answering)))
            }
        });
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(wire), service).await;
        })
    }

    async fn talk(request: &[u8]) -> String {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let task = serve(server);
        client.write_all(request).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        drop(client);
        task.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn what_hyper_refuses_is_answered_in_s3s_words() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
        for (request, code) in [
            ("rubbish\r\n\r\n", "<Code>BadRequest</Code>"),
            ("\u{1}\u{2}\u{3}\r\n\r\n", "<Code>BadRequest</Code>"),
            ("PUT / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", "<Code>BadRequest</Code>"),
            (many.as_str(), "<Code>RequestHeaderSectionTooLarge</Code>"),
        ] {
            let answer = talk(request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\nx-amz-request-id: "), "{request:?}: {answer}");
            assert!(answer.contains(code) && !answer.contains("content-length: 0"), "{request:?}: {answer}");
        }
    }

    #[tokio::test]
    async fn answers_are_never_touched_whatever_they_say() {
        let good = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
        let last = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        let answer = talk(format!("{good}{good}{last}").as_bytes()).await;
        assert_eq!(answer.matches(BARE).count(), 3, "{answer}");
        assert!(!answer.contains("x-amz-request-id"));
        let answer = talk(format!("{good}{good}rubbish\r\n\r\n").as_bytes()).await;
        assert_eq!(answer.matches(BARE).count(), 2, "{answer}");
        assert_eq!(answer.matches("<Code>BadRequest</Code>").count(), 1, "{answer}");
    }

    #[tokio::test]
    async fn a_refused_client_may_finish_before_it_reads() {
        let (mut client, server) = tokio::io::duplex(1024);
        let task = serve(server);
        client.write_all(b"rubbish\r\n\r\n").await.unwrap();
        for _ in 0..100 {
            client.write_all(&[b'x'; 1000]).await.unwrap();
        }
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("<Code>BadRequest</Code>"), "{answer}");
        task.await.unwrap();
    }
}
