//! One HTTP/1.1 connection, kept alive, as lean as a client can be: what it costs is not the server's to answer for.
//!
//! Head and first bytes of a body leave in one system call; TCP_NODELAY is set, and TCP_QUICKACK again after every read
//! (the kernel forgets it), so that a server that writes head and body apart is not charged 40 ms for our delayed
//! acknowledgement. Not here: redirects, TLS, pipelining.

use crate::body::Body;
use std::io::IoSlice;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes read at a time; also the largest answer head.
const BUFFER_BYTES: usize = 256 << 10;
/// Longest any single wait for the server may take.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// Bytes of an error's body that are kept.
const ERROR_BYTES_MAX: usize = 16 << 10;

/// Why an exchange failed before an answer was complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("connect: {0}")]
    Connect(std::io::Error),
    #[error("send: {0}")]
    Send(std::io::Error),
    #[error("receive: {0}")]
    Receive(std::io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("no byte for {} s", WAIT_MAX.as_secs())]
    TimedOut,
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
}

impl ConnectionError {
    /// A short name for counting.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Send(_) => "send",
            Self::Receive(_) => "receive",
            Self::Closed => "closed",
            Self::TimedOut => "timeout",
            Self::Malformed(_) => "malformed-answer",
        }
    }
}

/// What to send after the head.
#[derive(Clone, Copy)]
pub(crate) enum Sending<'a> {
    Nothing,
    Body(Body<'a>),
}

/// What to do with the bytes of a good answer.
pub(crate) enum Receiving<'a> {
    /// Compare with this.
    Compare(Body<'a>),
    /// Count.
    Count,
    /// Keep.
    Keep(&'a mut Vec<u8>),
}

/// An answer, read to its end.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body_bytes: u64,
    /// Whether every byte was as expected (always true unless compared).
    pub(crate) matches: bool,
    /// The first bytes of the body of an answer that is not 2xx.
    pub(crate) error_body: Vec<u8>,
}

/// A connection that reconnects when it has to.
pub(crate) struct Connection {
    address: std::net::SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    filled: usize,
    taken: usize,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

struct Head {
    status: u16,
    framing: Framing,
    keep_alive: bool,
}

impl Connection {
    pub(crate) fn new(address: std::net::SocketAddr) -> Self {
        Self { address, stream: None, buffer: vec![0; BUFFER_BYTES], filled: 0, taken: 0 }
    }

    /// Sends a request and reads its answer. A connection the server had closed while it was idle is replaced once.
    pub(crate) async fn exchange(
        &mut self,
        head: &[u8],
        sending: Sending<'_>,
        mut receiving: Receiving<'_>,
    ) -> Result<Answer, ConnectionError> {
        let reused = self.stream.is_some();
        let first = self.attempt(head, sending, &mut receiving).await;
        let result = match first {
            Err(ConnectionError::Closed | ConnectionError::Send(_) | ConnectionError::Receive(_)) if reused => {
                self.stream = None;
                if let Receiving::Keep(kept) = &mut receiving {
                    kept.clear();
                }
                self.attempt(head, sending, &mut receiving).await
            }
            other => other,
        };
        if result.is_err() {
            self.stream = None;
        }
        result
    }

    async fn attempt(
        &mut self,
        head: &[u8],
        sending: Sending<'_>,
        receiving: &mut Receiving<'_>,
    ) -> Result<Answer, ConnectionError> {
        self.connect().await?;
        (self.filled, self.taken) = (0, 0);
        let sent = self.send(head, sending).await;
        // A server that refuses early answers and closes while we still write; its answer says why.
        let answer = match (self.receive(receiving).await, sent) {
            (Ok(answer), _) => answer,
            (Err(_), Err(error)) => return Err(error),
            (Err(error), Ok(())) => return Err(error),
        };
        Ok(answer)
    }

    async fn connect(&mut self) -> Result<(), ConnectionError> {
        if self.stream.is_none() {
            let connecting = tokio::time::timeout(WAIT_MAX, TcpStream::connect(self.address)).await;
            let stream = connecting.map_err(|_| ConnectionError::TimedOut)?.map_err(ConnectionError::Connect)?;
            stream.set_nodelay(true).map_err(ConnectionError::Connect)?;
            self.stream = Some(stream);
        }
        Ok(())
    }

    async fn send(&mut self, head: &[u8], sending: Sending<'_>) -> Result<(), ConnectionError> {
        let stream = self.stream.as_mut().ok_or(ConnectionError::Closed)?;
        let Sending::Body(body) = sending else {
            return wait(stream.write_all(head)).await?.map_err(ConnectionError::Send);
        };
        let mut head_sent = 0;
        let mut body_sent = 0;
        while head_sent < head.len() || body_sent < body.len() {
            wait(stream.writable()).await?.map_err(ConnectionError::Send)?;
            let wrote = body.with_slices(body_sent, |slices| {
                let mut all = Vec::with_capacity(slices.len() + 1);
                if head_sent < head.len() {
                    all.push(IoSlice::new(&head[head_sent..]));
                }
                all.extend_from_slice(slices);
                stream.try_write_vectored(&all)
            });
            match wrote {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(wrote) => {
                    let of_head = wrote.min(head.len() - head_sent);
                    head_sent += of_head;
                    body_sent += (wrote - of_head) as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(ConnectionError::Send(error)),
            }
        }
        Ok(())
    }

    /// Reads more; 0 at the end of the stream.
    async fn fill(&mut self) -> Result<usize, ConnectionError> {
        if self.taken == self.filled {
            (self.taken, self.filled) = (0, 0);
        } else if self.filled == self.buffer.len() {
            self.buffer.copy_within(self.taken..self.filled, 0);
            self.filled -= self.taken;
            self.taken = 0;
        }
        if self.filled == self.buffer.len() {
            return Err(ConnectionError::Malformed("a head or chunk line too long"));
        }
        let stream = self.stream.as_mut().ok_or(ConnectionError::Closed)?;
        let got = wait(stream.read(&mut self.buffer[self.filled..])).await?.map_err(ConnectionError::Receive)?;
        let _ = stream.set_quickack(true);
        self.filled += got;
        Ok(got)
    }

    async fn receive(&mut self, receiving: &mut Receiving<'_>) -> Result<Answer, ConnectionError> {
        let head = loop {
            let head = self.head().await?;
            // 100 Continue and its kin announce the answer.
            if head.status >= 200 {
                break head;
            }
        };
        let mut answer = Answer { status: head.status, matches: true, ..Answer::default() };
        let good = (200..300).contains(&head.status);
        match head.framing {
            Framing::Length(bytes) => self.body(bytes, good, receiving, &mut answer).await?,
            Framing::Chunked => self.chunks(good, receiving, &mut answer).await?,
            Framing::UntilClose => loop {
                let have = (self.filled - self.taken) as u64;
                self.body(have, good, receiving, &mut answer).await?;
                if self.fill().await? == 0 {
                    break;
                }
            },
        }
        if let (true, Receiving::Compare(expected)) = (good, &*receiving) {
            answer.matches &= answer.body_bytes == expected.len();
        }
        if !head.keep_alive || head.framing == Framing::UntilClose {
            self.stream = None;
        }
        Ok(answer)
    }

    async fn head(&mut self) -> Result<Head, ConnectionError> {
        loop {
            let have = &self.buffer[self.taken..self.filled];
            if let Some(end) = find(have, b"\r\n\r\n") {
                let head = parse_head(&have[..end + 2])?;
                self.taken += end + 4;
                return Ok(head);
            }
            if self.fill().await? == 0 {
                return Err(ConnectionError::Closed);
            }
        }
    }

    async fn body(
        &mut self,
        mut bytes: u64,
        good: bool,
        receiving: &mut Receiving<'_>,
        answer: &mut Answer,
    ) -> Result<(), ConnectionError> {
        while bytes > 0 {
            if self.taken == self.filled && self.fill().await? == 0 {
                return Err(ConnectionError::Closed);
            }
            let have = self.filled - self.taken;
            let take = usize::try_from(bytes).unwrap_or(have).min(have);
            take_bytes(&self.buffer[self.taken..self.taken + take], good, receiving, answer);
            self.taken += take;
            bytes -= take as u64;
        }
        Ok(())
    }

    async fn chunks(
        &mut self,
        good: bool,
        receiving: &mut Receiving<'_>,
        answer: &mut Answer,
    ) -> Result<(), ConnectionError> {
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| ConnectionError::Malformed("a chunk size"))?;
            if size == 0 {
                // Trailers end with an empty line.
                while !self.line().await?.is_empty() {}
                return Ok(());
            }
            self.body(size, good, receiving, answer).await?;
            if !self.line().await?.is_empty() {
                return Err(ConnectionError::Malformed("the end of a chunk"));
            }
        }
    }

    async fn line(&mut self) -> Result<String, ConnectionError> {
        loop {
            let have = &self.buffer[self.taken..self.filled];
            if let Some(end) = find(have, b"\r\n") {
                let line = String::from_utf8_lossy(&have[..end]).into_owned();
                self.taken += end + 2;
                return Ok(line);
            }
            if self.fill().await? == 0 {
                return Err(ConnectionError::Closed);
            }
        }
    }
}

fn take_bytes(bytes: &[u8], good: bool, receiving: &mut Receiving<'_>, answer: &mut Answer) {
    if !good {
        let room = ERROR_BYTES_MAX.saturating_sub(answer.error_body.len());
        answer.error_body.extend_from_slice(&bytes[..bytes.len().min(room)]);
    } else {
        match receiving {
            // Once wrong, always wrong: no need to compare the rest.
            Receiving::Compare(expected) => {
                answer.matches = answer.matches && expected.matches(answer.body_bytes, bytes);
            }
            Receiving::Count => {}
            Receiving::Keep(kept) => kept.extend_from_slice(bytes),
        }
    }
    answer.body_bytes += bytes.len() as u64;
}

async fn wait<T>(what: impl Future<Output = T>) -> Result<T, ConnectionError> {
    tokio::time::timeout(WAIT_MAX, what).await.map_err(|_| ConnectionError::TimedOut)
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

fn parse_head(head: &[u8]) -> Result<Head, ConnectionError> {
    let text = std::str::from_utf8(head).map_err(|_| ConnectionError::Malformed("a head that is no text"))?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|status| status.parse().ok());
    let status: u16 = status.ok_or(ConnectionError::Malformed("a status line"))?;
    let mut keep_alive = first.starts_with("HTTP/1.1");
    let mut framing = None;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let length = value.parse().map_err(|_| ConnectionError::Malformed("a content-length"))?;
            framing = framing.or(Some(Framing::Length(length)));
        } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            framing = Some(Framing::Chunked);
        } else if name.eq_ignore_ascii_case("connection") {
            keep_alive =
                value.eq_ignore_ascii_case("keep-alive") || (keep_alive && !value.eq_ignore_ascii_case("close"));
        }
    }
    let bodyless = status < 200 || status == 204 || status == 304;
    let framing = if bodyless { Framing::Length(0) } else { framing.unwrap_or(Framing::UntilClose) };
    Ok(Head { status, framing, keep_alive })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Bodies;
    use tokio::net::TcpListener;

    #[test]
    fn heads_are_read() {
        let parse = |text: &str| parse_head(text.as_bytes()).map(|h| (h.status, h.framing, h.keep_alive));
        let cases = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", (200, Framing::Length(5), true)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", (200, Framing::Chunked, true)),
            ("HTTP/1.1 204 No Content\r\n", (204, Framing::Length(0), true)),
            ("HTTP/1.1 500 X\r\nconnection: close\r\n", (500, Framing::UntilClose, false)),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n", (200, Framing::Length(0), false)),
            ("HTTP/1.1 100 Continue\r\n", (100, Framing::Length(0), true)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for text in ["", "nonsense", "HTTP/1.1 abc", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    /// Answers each connection with the next reply, byte for byte in pieces of `piece`, then closes it.
    async fn server(replies: Vec<Vec<u8>>, piece: usize) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for reply in replies {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 1 << 20];
                let _ = stream.read(&mut request).await.unwrap();
                for part in reply.chunks(piece) {
                    stream.write_all(part).await.unwrap();
                    stream.flush().await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn bodies_come_whole_in_every_framing() {
        let bodies = Bodies::new(1);
        let body = bodies.body(9, 5000);
        let mut bytes = Vec::new();
        body.with_slices(0, |slices| slices.iter().for_each(|s| bytes.extend_from_slice(s)));
        let with = |head: &str, parts: &[&[u8]]| {
            let mut reply = head.as_bytes().to_vec();
            parts.iter().for_each(|part| reply.extend_from_slice(part));
            reply
        };
        let mut wrong = bytes.clone();
        wrong[4999] ^= 1;
        let cases = [
            (with("HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", &[&bytes]), true),
            (with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", &[&bytes]), true),
            (
                with(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                    &[b"3e8\r\n", &bytes[..1000], b"\r\nfa0;x=y\r\n", &bytes[1000..], b"\r\n0\r\nt: v\r\n\r\n"],
                ),
                true,
            ),
            (with("HTTP/1.1 200 OK\r\n\r\n", &[&bytes]), true),
            (with("HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", &[&wrong]), false),
            (with("HTTP/1.1 200 OK\r\ncontent-length: 4999\r\n\r\n", &[&bytes[..4999]]), false),
        ];
        for (reply, matches) in cases {
            for piece in [17, 100_000] {
                let address = server(vec![reply.clone()], piece).await;
                let mut connection = Connection::new(address);
                let answer =
                    connection.exchange(b"GET / HTTP/1.1\r\n\r\n", Sending::Nothing, Receiving::Compare(body)).await;
                assert_eq!(answer.map(|a| a.matches).unwrap(), matches, "{}", String::from_utf8_lossy(&reply[..40]));
            }
        }
    }

    #[tokio::test]
    async fn a_cut_answer_is_an_error_and_a_refusal_keeps_its_words() {
        let address = server(vec![b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_vec()], 100).await;
        let mut connection = Connection::new(address);
        let cut = connection.exchange(b"GET / HTTP/1.1\r\n\r\n", Sending::Nothing, Receiving::Count).await;
        assert!(matches!(cut, Err(ConnectionError::Closed)), "{cut:?}");
        let address = server(vec![b"HTTP/1.1 503 X\r\ncontent-length: 3\r\n\r\nwhy".to_vec()], 100).await;
        let mut connection = Connection::new(address);
        let answer = connection.exchange(b"GET / HTTP/1.1\r\n\r\n", Sending::Nothing, Receiving::Count).await.unwrap();
        assert_eq!((answer.status, answer.error_body.as_slice()), (503, b"why".as_slice()));
    }

    #[tokio::test]
    async fn a_connection_closed_while_idle_is_replaced() {
        let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec();
        let address = server(vec![reply.clone(), reply], 100).await;
        let mut connection = Connection::new(address);
        for _ in 0..2 {
            let answer = connection.exchange(b"GET / HTTP/1.1\r\n\r\n", Sending::Nothing, Receiving::Count).await;
            assert_eq!(answer.unwrap().status, 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
