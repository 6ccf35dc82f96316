//! One S3 client with one connection of its own, which says exactly what is known of each request: answered, certainly
//! without effect, or unknown. Real clients retry and hide that.

use bytes::Bytes;
use holdfast_sdk::sign::{Credentials, Payload, RequestToSign, Signer};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// Longest to wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// What to ask. Paths and queries are plain, not encoded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// GET, PUT, ...
    pub method: &'a str,
    /// `/bucket/key`
    pub path: &'a str,
    /// Parameters.
    pub query: &'a [(&'a str, &'a str)],
    /// Lower-case names; all are signed.
    pub headers: &'a [(&'a str, &'a str)],
    /// What to send.
    pub body: &'a [u8],
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Without quotes; empty if there was none.
    pub etag: String,
    /// All of it.
    pub body: Bytes,
}

/// Why there is no whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// No connection came about, so nothing was sent.
    NotSent,
    /// Something was sent, and perhaps carried out.
    Lost,
}

/// A client and its connection, made anew when it broke.
pub struct S3Connection {
    address: SocketAddr,
    signer: Signer,
    limit: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl S3Connection {
    /// A client of `address` with the root key; each request may take `limit`.
    pub fn new(address: SocketAddr, limit: Duration) -> Self {
        let credentials = Credentials {
            access_key: crate::server::ACCESS_KEY.to_owned(),
            secret_key: crate::server::SECRET_KEY.to_owned(),
        };
        Self { address, signer: Signer::new(credentials, "us-east-1", "s3"), limit, sender: None }
    }

    /// Whom it asks.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks and waits for the whole answer. Once it was cut short the connection is not used again.
    pub async fn ask(&mut self, ask: &Ask<'_>) -> Result<Answer, NoAnswer> {
        let deadline = Instant::now() + self.limit;
        // A connection that the server has closed meanwhile is noticed here, not by a request lost on it.
        let ready = match self.sender.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match ready {
            Some(sender) => sender,
            None => self.connect().await.ok_or(NoAnswer::NotSent)?,
        };
        let request = self.request(ask);
        let whole = timeout_at(deadline, async {
            let answer = sender.send_request(request).await.map_err(|_| NoAnswer::Lost)?;
            let status = answer.status().as_u16();
            let etag = answer.headers().get("etag").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let etag = etag.trim_matches('"').to_owned();
            let body = answer.into_body().collect().await.map_err(|_| NoAnswer::Lost)?.to_bytes();
            Ok(Answer { status, etag, body })
        });
        let answer = whole.await.map_err(|_| NoAnswer::Lost)??;
        self.sender = Some(sender);
        Ok(answer)
    }

    async fn connect(&self) -> Option<SendRequest<Full<Bytes>>> {
        let stream = timeout(CONNECT_LIMIT, TcpStream::connect(self.address)).await.ok()?.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        // Ends with the connection, which ends with its sender.
        tokio::spawn(connection);
        Some(sender)
    }

    fn request(&self, ask: &Ask<'_>) -> Request<Full<Bytes>> {
        let host = self.address.to_string();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
        let to_sign = RequestToSign {
            method: ask.method,
            host: &host,
            path: ask.path,
            query: ask.query,
            headers: ask.headers,
            payload: Payload::Bytes(ask.body),
        };
        let signed = self.signer.sign(&to_sign, now);
        let mut request = Request::builder()
            .method(ask.method)
            .uri(signed.target)
            .header("host", &host)
            .header("x-amz-date", signed.date)
            .header("x-amz-content-sha256", signed.content_sha256)
            .header("authorization", signed.authorization);
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(Bytes::copy_from_slice(ask.body))).expect("a request of plain parts")
    }
}

impl Answer {
    /// 200 or 204.
    pub fn is_success(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success())
    }
}

/// Key and ETag of each entry of a listing, in its order; `None` for anything that is not one whole page.
///
/// Not an XML parser: it reads what S3's ListObjectsV2 writes for keys without special characters, and refuses the rest.
pub fn parse_listing(xml: &str) -> Option<Vec<(String, String)>> {
    let between = |text: &str, name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside.to_owned())
    };
    if between(xml, "IsTruncated")? != "false" || !xml.trim_end().ends_with("</ListBucketResult>") {
        return None;
    }
    let mut entries = Vec::new();
    for part in xml.split("<Contents>").skip(1) {
        let (entry, _) = part.split_once("</Contents>")?;
        let etag = between(entry, "ETag")?.replace("&quot;", "").replace('"', "");
        entries.push((between(entry, "Key")?, etag));
    }
    let keys: BTreeMap<&String, ()> = entries.iter().map(|(key, _)| (key, ())).collect();
    let in_order = keys.into_keys().eq(entries.iter().map(|(key, _)| key));
    in_order.then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_whole_or_not_at_all() {
        let page = |truncated: &str, keys: &[&str]| {
            let entry = |key: &&str| format!("<Contents><Key>{key}</Key><ETag>&quot;e-{key}&quot;</ETag></Contents>");
            let entries: String = keys.iter().map(entry).collect();
            format!("<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{entries}</ListBucketResult>")
        };
        let pair = |key: &str| (key.to_owned(), format!("e-{key}"));
        assert_eq!(parse_listing(&page("false", &["a/1", "a/2"])), Some(vec![pair("a/1"), pair("a/2")]));
        assert_eq!(parse_listing(&page("false", &[])), Some(Vec::new()));
        assert_eq!(parse_listing(&page("true", &["a"])), None);
        assert_eq!(parse_listing(&page("false", &["b", "a"])), None, "out of order");
        assert_eq!(parse_listing(&page("false", &["a", "a"])), None, "twice the same");
        let whole = page("false", &["a"]);
        assert_eq!(parse_listing(&whole[..whole.len() - 5]), None);
        assert_eq!(parse_listing("<Error/>"), None);
    }
}
