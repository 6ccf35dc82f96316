//! Bodies on their way in: idle time, exact length, payload hash, aws-chunked framing with signatures and trailers.
//!
//! Bytes go on as they arrive, before the signature that covers them is seen: nothing of a body becomes visible until
//! it has ended well, and a body whose last check fails ends in an error instead. So nothing is held back in memory,
//! whatever sizes a client declares.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::limits::{CHUNK_HEAD_BYTES_MAX, TRAILER_BYTES_MAX};
use super::pace::Pace;
use super::sigv4::{Seed, hex_sha256, hmac};
use crate::object_path::{BodyError, BodyStream, TrailerSource};
use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use subtle::ConstantTimeEq;

const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// How a body proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Unsigned,
    /// SHA-256 of all of it.
    Literal(String),
    /// aws-chunked.
    Chunked {
        signed: bool,
        trailer: bool,
    },
}

impl Payload {
    /// Reads `x-amz-content-sha256`; `None` for a value that means nothing.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        match value {
            "UNSIGNED-PAYLOAD" => Some(Self::Unsigned),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Some(Self::Chunked { signed: true, trailer: false }),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => Some(Self::Chunked { signed: true, trailer: true }),
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Some(Self::Chunked { signed: false, trailer: true }),
            hash if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Some(Self::Literal(hash.to_ascii_lowercase()))
            }
            _ => None,
        }
    }

    /// Whether headers may follow the body.
    pub(crate) fn has_trailers(&self) -> bool {
        matches!(self, Self::Chunked { trailer: true, .. })
    }
}

/// Where bytes come from: a connection, or in tests a list.
pub(crate) enum Source {
    Connection(Incoming, Pace),
    #[cfg(test)]
    List(std::collections::VecDeque<Bytes>),
}

impl Source {
    /// The body of a request.
    pub(crate) fn connection(incoming: Incoming) -> Self {
        Self::Connection(incoming, Pace::new())
    }

    /// The next piece of the body as framed.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let (incoming, pace) = match self {
            Self::Connection(incoming, pace) => (incoming, pace),
            #[cfg(test)]
            Self::List(list) => return Ok(list.pop_front()),
        };
        loop {
            let asked = Instant::now();
            let frame =
                tokio::time::timeout(pace.patience(), incoming.frame()).await.map_err(|_| BodyError::TimedOut)?;
            // HTTP trailers are not part of what was signed.
            let data = match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(BodyError::Incomplete { reason: error.to_string() }),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            pace.received(data.len(), asked.elapsed());
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }
}

/// Trailing headers once they have been read.
#[derive(Clone, Default)]
pub(crate) struct Trailers(Arc<Mutex<HashMap<String, String>>>);

impl Trailers {
    /// As the object path asks for them.
    pub(crate) fn source(&self) -> TrailerSource {
        let map = self.0.clone();
        Arc::new(move |name| map.lock().get(&name.to_ascii_lowercase()).cloned())
    }
}

/// A whole body: never more nor fewer bytes than declared.
pub(crate) fn plain(source: Source, declared: Option<u64>, payload: &Payload) -> BodyStream {
    let hash = match payload {
        Payload::Literal(hash) => Some((Sha256::new(), hash.clone())),
        _ => None,
    };
    let state = Some(Plain { source, declared, seen: 0, hash });
    stream::unfold(state, |state| async move {
        let mut state = state?;
        match state.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(state))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Plain {
    source: Source,
    declared: Option<u64>,
    seen: u64,
    hash: Option<(Sha256, String)>,
}

impl Plain {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self.source.next().await? {
            Some(bytes) => {
                self.seen = self.seen.saturating_add(bytes.len() as u64);
                if let Some((hash, _)) = &mut self.hash {
                    hash.update(&bytes);
                }
                Ok(Some(bytes))
            }
            None => {
                if self.declared.is_some_and(|d| d != self.seen) {
                    return Err(short(self.seen, self.declared));
                }
                if let Some((hash, expected)) = self.hash.take()
                    && hex::encode(hash.finalize()) != expected
                {
                    return Err(BodyError::ContentSha256);
                }
                Ok(None)
            }
        }
    }
}

fn short(seen: u64, declared: Option<u64>) -> BodyError {
    BodyError::Incomplete { reason: format!("{seen} bytes came, {} were declared", declared.unwrap_or(0)) }
}

fn framing(reason: &str) -> BodyError {
    BodyError::Malformed { reason: format!("aws-chunked: {reason}") }
}

/// An aws-chunked body: `size[;chunk-signature=hex] CRLF bytes CRLF`, ended by a chunk of size 0 and trailers.
pub(crate) fn chunked(
    source: Source,
    decoded: u64,
    seed: Option<Seed>,
    announced: Option<Vec<String>>,
    trailers: Trailers,
) -> BodyStream {
    let signer = seed.map(|seed| ChunkSigner { previous: seed.signature.clone(), seed, hash: Sha256::new() });
    let state = Chunked {
        source,
        buffer: BytesMut::new(),
        direct: Bytes::new(),
        left_in_chunk: 0,
        claimed: String::new(),
        decoded,
        seen: 0,
        signer,
        announced,
        trailers,
        in_chunk: false,
    };
    stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        match state.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(state))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct ChunkSigner {
    seed: Seed,
    previous: String,
    hash: Sha256,
}

impl ChunkSigner {
    fn check(&mut self, claimed: &str) -> Result<(), BodyError> {
        let hash = hex::encode(std::mem::take(&mut self.hash).finalize());
        let text = format!(
            "AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{}\n{EMPTY_SHA256}\n{hash}",
            self.seed.timestamp, self.seed.scope, self.previous
        );
        self.accept(&text, claimed, "chunk signature")
    }

    fn check_trailers(&mut self, canonical: &str, claimed: &str) -> Result<(), BodyError> {
        let text = format!(
            "AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{}\n{}",
            self.seed.timestamp,
            self.seed.scope,
            self.previous,
            hex_sha256(canonical.as_bytes())
        );
        self.accept(&text, claimed, "trailer signature")
    }

    fn accept(&mut self, text: &str, claimed: &str, what: &str) -> Result<(), BodyError> {
        let expected = hex::encode(hmac(&self.seed.key, text.as_bytes()));
        if !bool::from(expected.as_bytes().ct_eq(claimed.as_bytes())) {
            return Err(BodyError::Signature { reason: what.to_owned() });
        }
        self.previous = expected;
        Ok(())
    }
}

struct Chunked {
    source: Source,
    /// Bytes of lines being gathered.
    buffer: BytesMut,
    /// The piece being read, not copied.
    direct: Bytes,
    left_in_chunk: u64,
    claimed: String,
    decoded: u64,
    seen: u64,
    signer: Option<ChunkSigner>,
    /// Trailers the request announced; `None` when it may send none.
    announced: Option<Vec<String>>,
    trailers: Trailers,
    in_chunk: bool,
}

impl Chunked {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            if self.left_in_chunk > 0 {
                return self.take_data().await.map(Some);
            }
            if self.in_chunk {
                self.end_chunk().await?;
            }
            let line = self.line(CHUNK_HEAD_BYTES_MAX).await?;
            let size = self.parse_head(&line)?;
            if size == 0 {
                self.finish().await?;
                return Ok(None);
            }
            if self.seen.saturating_add(size) > self.decoded {
                return Err(framing("more bytes than x-amz-decoded-content-length says"));
            }
            self.left_in_chunk = size;
            self.in_chunk = true;
        }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        if self.direct.is_empty() {
            self.direct = self.source.next().await?.ok_or_else(|| short(self.seen, Some(self.decoded)))?;
        }
        Ok(())
    }

    async fn take_data(&mut self) -> Result<Bytes, BodyError> {
        self.fill().await?;
        let take = usize::try_from(self.left_in_chunk).unwrap_or(usize::MAX).min(self.direct.len());
        let bytes = self.direct.split_to(take);
        self.left_in_chunk = self.left_in_chunk.saturating_sub(take as u64);
        self.seen = self.seen.saturating_add(take as u64);
        if let Some(signer) = &mut self.signer {
            signer.hash.update(&bytes);
        }
        Ok(bytes)
    }

    async fn end_chunk(&mut self) -> Result<(), BodyError> {
        self.in_chunk = false;
        let line = self.line(2).await?;
        if !line.is_empty() {
            return Err(framing("a chunk is longer than its size"));
        }
        let claimed = std::mem::take(&mut self.claimed);
        match &mut self.signer {
            Some(signer) => signer.check(&claimed),
            None => Ok(()),
        }
    }

    /// A line without its CRLF; one longer than `max` is refused.
    async fn line(&mut self, max: usize) -> Result<String, BodyError> {
        self.buffer.clear();
        loop {
            self.fill().await?;
            match self.direct.iter().position(|b| *b == b'\n') {
                Some(at) if self.buffer.len().saturating_add(at) <= max => {
                    let head = self.direct.split_to(at);
                    self.direct.advance(1);
                    self.buffer.extend_from_slice(&head);
                    break;
                }
                None if self.buffer.len().saturating_add(self.direct.len()) <= max => {
                    self.buffer.extend_from_slice(&self.direct);
                    self.direct = Bytes::new();
                }
                _ => return Err(framing("a line is too long")),
            }
        }
        let line = std::str::from_utf8(&self.buffer).map_err(|_| framing("a line is not text"))?;
        line.strip_suffix('\r').map(str::to_owned).ok_or_else(|| framing("a line does not end with CRLF"))
    }

    fn parse_head(&mut self, line: &str) -> Result<u64, BodyError> {
        let (size, extension) = line.split_once(';').unwrap_or((line, ""));
        let hex = !size.is_empty() && size.len() <= 16 && size.bytes().all(|b| b.is_ascii_hexdigit());
        let size = if hex { u64::from_str_radix(size, 16).ok() } else { None };
        let size = size.ok_or_else(|| framing("a chunk size is not hexadecimal"))?;
        self.claimed = extension.trim().strip_prefix("chunk-signature=").unwrap_or_default().to_owned();
        if self.signer.is_some() && self.claimed.is_empty() {
            return Err(framing("a chunk has no signature"));
        }
        Ok(size)
    }

    /// After the last chunk: its signature, trailers, and nothing more.
    async fn finish(&mut self) -> Result<(), BodyError> {
        if self.seen != self.decoded {
            return Err(short(self.seen, Some(self.decoded)));
        }
        let claimed = std::mem::take(&mut self.claimed);
        if let Some(signer) = &mut self.signer {
            signer.check(&claimed)?;
        }
        self.read_trailers().await?;
        let more = !self.direct.is_empty() || self.source.next().await?.is_some();
        if more { Err(framing("bytes after the end")) } else { Ok(()) }
    }

    async fn read_trailers(&mut self) -> Result<(), BodyError> {
        let mut canonical = String::new();
        let mut signature = String::new();
        let mut total = 0usize;
        loop {
            if self.direct.is_empty() {
                // Some clients end without the empty line.
                match self.source.next().await? {
                    Some(bytes) => self.direct = bytes,
                    None => break,
                }
            }
            let line = self.line(TRAILER_BYTES_MAX).await?;
            total = total.saturating_add(line.len());
            if line.is_empty() {
                break;
            }
            if total > TRAILER_BYTES_MAX {
                return Err(framing("trailers are too long"));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| framing("a trailer has no value"))?;
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
            if name == "x-amz-trailer-signature" {
                signature = value;
                continue;
            }
            let announced = self.announced.as_ref().is_some_and(|a| a.contains(&name));
            if !announced {
                return Err(framing("a trailer that x-amz-trailer did not announce"));
            }
            canonical.push_str(&format!("{name}:{value}\n"));
            if self.trailers.0.lock().insert(name, value).is_some() {
                return Err(framing("a trailer is given twice"));
            }
        }
        let complete = self.announced.iter().flatten().all(|name| self.trailers.0.lock().contains_key(name));
        if !complete {
            return Err(framing("a trailer that x-amz-trailer announced did not come"));
        }
        match &mut self.signer {
            Some(signer) if self.announced.is_some() => signer.check_trailers(&canonical, &signature),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sigv4::signing_key;
    use super::*;

    fn run(stream: BodyStream) -> Result<Vec<u8>, BodyError> {
        futures::executor::block_on(async {
            let mut stream = stream;
            let mut all = Vec::new();
            while let Some(item) = stream.next().await {
                all.extend_from_slice(&item?);
            }
            Ok(all)
        })
    }

    /// The same bytes in pieces of every kind of size.
    fn pieces(bytes: &[u8]) -> Vec<Source> {
        [1, 2, 3, 7, 64, 1000, usize::MAX]
            .map(|n| Source::List(bytes.chunks(n.min(bytes.len().max(1))).map(Bytes::copy_from_slice).collect()))
            .into()
    }

    fn seed() -> Seed {
        Seed {
            key: signing_key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1"),
            timestamp: "20130524T000000Z".into(),
            scope: "20130524/us-east-1/s3/aws4_request".into(),
            signature: "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9".into(),
        }
    }

    /// The chunked example AWS publishes: 65 KiB of `a` in two chunks.
    fn example() -> Vec<u8> {
        let mut body = Vec::new();
        let chunk = |body: &mut Vec<u8>, len: usize, signature: &str| {
            body.extend_from_slice(format!("{len:x};chunk-signature={signature}\r\n").as_bytes());
            body.extend(std::iter::repeat_n(b'a', len));
            body.extend_from_slice(b"\r\n");
        };
        chunk(&mut body, 65_536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648");
        chunk(&mut body, 1_024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497");
        chunk(&mut body, 0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9");
        body
    }

    #[test]
    fn the_published_chunked_example_verifies_and_no_change_does() {
        for source in pieces(&example()) {
            let body = run(chunked(source, 66_560, Some(seed()), None, Trailers::default())).unwrap();
            assert_eq!(body, vec![b'a'; 66_560]);
        }
        let whole = |bytes: Vec<u8>| Source::List([Bytes::from(bytes)].into());
        let mut flipped = example();
        if let Some(byte) = flipped.get_mut(1000) {
            *byte ^= 1;
        }
        let error = run(chunked(whole(flipped), 66_560, Some(seed()), None, Trailers::default())).unwrap_err();
        assert!(matches!(error, BodyError::Signature { .. }), "{error}");
        let mut cut = example();
        cut.truncate(cut.len() - 90);
        let error = run(chunked(whole(cut), 66_560, Some(seed()), None, Trailers::default())).unwrap_err();
        assert!(matches!(error, BodyError::Incomplete { .. }), "{error}");
        for wrong in [66_559, 66_561] {
            assert!(run(chunked(whole(example()), wrong, Some(seed()), None, Trailers::default())).is_err(), "{wrong}");
        }
    }

    /// The example AWS publishes with a trailing checksum.
    #[test]
    fn the_published_trailer_example_verifies_and_no_change_does() {
        let seed =
            || Seed { signature: "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e".into(), ..seed() };
        let body = |trailers: &str| {
            let mut body = Vec::new();
            for (len, signature) in [
                (65_536, "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2"),
                (1_024, "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7"),
            ] {
                body.extend_from_slice(format!("{len:x};chunk-signature={signature}\r\n").as_bytes());
                body.extend(std::iter::repeat_n(b'a', len));
                body.extend_from_slice(b"\r\n");
            }
            let last = "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992";
            body.extend_from_slice(format!("0;chunk-signature={last}\r\n{trailers}\r\n").as_bytes());
            body
        };
        let announced = || Some(vec!["x-amz-checksum-crc32c".to_owned()]);
        let signature = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435";
        let good = format!("x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:{signature}\r\n");
        for source in pieces(&body(&good)) {
            assert!(run(chunked(source, 66_560, Some(seed()), announced(), Trailers::default())).is_ok());
        }
        for bad in [
            good.replace("sOO8", "sOO9"),
            good.replace("signature:d8", "signature:d9"),
            "x-amz-checksum-crc32c:sOO8/Q==\r\n".to_owned(),
            format!("x-amz-trailer-signature:{signature}\r\n"),
            String::new(),
        ] {
            let source = Source::List([Bytes::from(body(&bad))].into());
            let result = run(chunked(source, 66_560, Some(seed()), announced(), Trailers::default()));
            assert!(result.is_err(), "{bad}");
        }
    }

    #[test]
    fn unsigned_chunks_with_trailers() {
        let body = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
        let announced = Some(vec!["x-amz-checksum-crc32".to_owned()]);
        for source in pieces(body) {
            let trailers = Trailers::default();
            let found = run(chunked(source, 11, None, announced.clone(), trailers.clone())).unwrap();
            assert_eq!(found, b"hello world");
            assert_eq!(trailers.source()("X-Amz-Checksum-Crc32").as_deref(), Some("AAAAAA=="));
        }
        let table: [(&[u8], u64); 13] = [
            (b"", 0),
            (b"5\r\nhello", 5),
            (b"5\r\nhello\r\n", 5),
            (b"5\r\nhelloX\r\n0\r\n\r\n", 5),
            (b"zz\r\nhello\r\n0\r\n\r\n", 5),
            (b"-5\r\nhello\r\n0\r\n\r\n", 5),
            (b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n", 5),
            (b"5\nhello\r\n0\r\n\r\n", 5),
            (b"5\r\nhello\r\n0\r\nx-amz-other:1\r\n\r\n", 5),
            (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\nmore", 5),
            (b"5\r\nhello\r\n0\r\n\r\n", 5),
            (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:A\r\nx-amz-checksum-crc32:B\r\n\r\n", 5),
            (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32\r\n\r\n", 5),
        ];
        for (body, decoded) in table {
            for source in pieces(body) {
                let result = run(chunked(source, decoded, None, announced.clone(), Trailers::default()));
                assert!(result.is_err(), "{:?} gave {result:?}", String::from_utf8_lossy(body));
            }
        }
        let long = [b"5;".as_slice(), &[b'x'; 4000], b"\r\nhello\r\n0\r\n\r\n"].concat();
        assert!(run(chunked(Source::List([Bytes::from(long)].into()), 5, None, None, Trailers::default())).is_err());
    }

    #[test]
    fn plain_bodies_are_whole_and_hash_to_what_was_signed() {
        let list = |text: &'static str| Source::List([Bytes::from_static(text.as_bytes())].into());
        let hash = Payload::parse(&hex_sha256(b"hello")).unwrap();
        assert_eq!(run(plain(list("hello"), Some(5), &hash)).unwrap(), b"hello");
        assert_eq!(run(plain(list("hellO"), Some(5), &hash)).unwrap_err(), BodyError::ContentSha256);
        assert!(matches!(run(plain(list("hell"), Some(5), &Payload::Unsigned)), Err(BodyError::Incomplete { .. })));
        for junk in ["", "unsigned-payload", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "abc", &"g".repeat(64)] {
            assert_eq!(Payload::parse(junk), None, "{junk}");
        }
    }
}
