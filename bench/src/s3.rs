//! The few S3 requests a load needs, signed with an unsigned payload, and what their answers say.

use crate::body::Body;
use crate::connection::{Answer, Connection, ConnectionError, Receiving, Sending};
use anyhow::Context;
use holdfast_sdk::{Credentials, Payload, RequestToSign, Signer};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{SystemTime, UNIX_EPOCH};

/// Keys in a page of a listing: what S3 gives at most.
const PAGE_KEYS: usize = 1000;

/// A server, a bucket in it, and the key to use it with.
pub(crate) struct Target {
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    address: SocketAddr,
    host: String,
    signer: Signer,
}

/// Why an operation did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("status {status} {code}")]
    Status { status: u16, code: String },
    #[error("bytes read are not those written")]
    WrongBytes,
    #[error("a listing of {got} keys instead of {expected}")]
    WrongListing { got: u64, expected: u64 },
}

impl OperationError {
    /// A short name for counting.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Connection(error) => error.name().to_owned(),
            Self::Status { status, code } if code.is_empty() => status.to_string(),
            Self::Status { status, code } => format!("{status} {code}"),
            Self::WrongBytes => "wrong-bytes".to_owned(),
            Self::WrongListing { .. } => "wrong-listing".to_owned(),
        }
    }
}

/// A page of a listing as it came.
struct Page {
    text: String,
    next: Option<String>,
}

impl Target {
    /// Resolves the endpoint; connects later.
    pub(crate) fn new(endpoint: &str, credentials: Credentials, region: &str, bucket: &str) -> anyhow::Result<Self> {
        let host = endpoint.trim_end_matches('/').strip_prefix("http://");
        let host = host.with_context(|| format!("{endpoint:?}: the endpoint must begin with http://"))?;
        anyhow::ensure!(!host.is_empty() && !host.contains('/'), "{endpoint:?}: http://host:port and nothing after it");
        let with_port = if host.rsplit(':').next().is_some_and(|p| p.parse::<u16>().is_ok()) && host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = with_port
            .to_socket_addrs()
            .with_context(|| format!("resolve {with_port}"))?
            .next()
            .with_context(|| format!("{with_port} has no address"))?;
        Ok(Self {
            endpoint: endpoint.to_owned(),
            bucket: bucket.to_owned(),
            address,
            host: host.to_owned(),
            signer: Signer::new(credentials, region, "s3"),
        })
    }

    /// A connection of its own.
    pub(crate) fn connect(&self) -> Connection {
        Connection::new(self.address)
    }

    fn head(&self, method: &str, path: &str, query: &[(&str, &str)], body_bytes: u64) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let signed = self.signer.sign(
            &RequestToSign { method, host: &self.host, path, query, headers: &[], payload: Payload::Unsigned },
            now,
        );
        let mut head = format!(
            "{method} {} HTTP/1.1\r\nhost: {}\r\nx-amz-date: {}\r\nx-amz-content-sha256: {}\r\nauthorization: {}\r\n",
            signed.target, self.host, signed.date, signed.content_sha256, signed.authorization
        );
        if method == "PUT" {
            head += &format!("content-length: {body_bytes}\r\n");
        }
        head += "\r\n";
        head.into_bytes()
    }

    fn path(&self, key: &str) -> String {
        format!("/{}/{key}", self.bucket)
    }

    /// Makes the bucket; one that is ours already is fine.
    pub(crate) async fn make_bucket(&self, connection: &mut Connection) -> Result<(), OperationError> {
        let head = self.head("PUT", &format!("/{}", self.bucket), &[], 0);
        let answer = connection.exchange(&head, Sending::Nothing, Receiving::Count).await?;
        match checked(answer) {
            Ok(_) => Ok(()),
            Err(OperationError::Status { status: 409, code })
                if code == "BucketAlreadyOwnedByYou" || code == "BucketAlreadyExists" =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Stores an object.
    pub(crate) async fn put(
        &self,
        connection: &mut Connection,
        key: &str,
        body: Body<'_>,
    ) -> Result<(), OperationError> {
        let head = self.head("PUT", &self.path(key), &[], body.len());
        let answer = connection.exchange(&head, Sending::Body(body), Receiving::Count).await?;
        checked(answer).map(|_| ())
    }

    /// Reads an object whole; compares it if told to.
    pub(crate) async fn get(
        &self,
        connection: &mut Connection,
        key: &str,
        expected: Body<'_>,
        verify: bool,
    ) -> Result<(), OperationError> {
        let head = self.head("GET", &self.path(key), &[], 0);
        let receiving = if verify { Receiving::Compare(expected) } else { Receiving::Count };
        let answer = checked(connection.exchange(&head, Sending::Nothing, receiving).await?)?;
        let whole = answer.matches && answer.body_bytes == expected.len();
        if whole { Ok(()) } else { Err(OperationError::WrongBytes) }
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, connection: &mut Connection, key: &str) -> Result<(), OperationError> {
        let head = self.head("DELETE", &self.path(key), &[], 0);
        let answer = connection.exchange(&head, Sending::Nothing, Receiving::Count).await?;
        checked(answer).map(|_| ())
    }

    async fn list_page(
        &self,
        connection: &mut Connection,
        prefix: &str,
        token: Option<&str>,
    ) -> Result<Page, OperationError> {
        let page_keys = PAGE_KEYS.to_string();
        let mut query = vec![("list-type", "2"), ("max-keys", &page_keys), ("prefix", prefix)];
        query.extend(token.map(|token| ("continuation-token", token)));
        let head = self.head("GET", &format!("/{}", self.bucket), &query, 0);
        let mut text = Vec::new();
        let answer = connection.exchange(&head, Sending::Nothing, Receiving::Keep(&mut text)).await?;
        checked(answer)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(Page { next: next_token(&text), text })
    }

    /// Lists all keys under `prefix`, page by page; how many there were.
    pub(crate) async fn list(&self, connection: &mut Connection, prefix: &str) -> Result<u64, OperationError> {
        let mut keys = 0;
        let mut token = None;
        loop {
            let page = self.list_page(connection, prefix, token.as_deref()).await?;
            keys += count_keys(&page.text);
            match page.next {
                Some(next) => token = Some(next),
                None => return Ok(keys),
            }
        }
    }

    /// Every key under `prefix`.
    pub(crate) async fn keys(&self, connection: &mut Connection, prefix: &str) -> Result<Vec<String>, OperationError> {
        let mut keys = Vec::new();
        let mut token = None;
        loop {
            let (page, next) = self.page_keys(connection, prefix, token.as_deref()).await?;
            keys.extend(page);
            match next {
                Some(next) => token = Some(next),
                None => return Ok(keys),
            }
        }
    }

    /// The keys of one page under `prefix`, and the token of the next page.
    pub(crate) async fn page_keys(
        &self,
        connection: &mut Connection,
        prefix: &str,
        token: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), OperationError> {
        let page = self.list_page(connection, prefix, token).await?;
        let keys = page.text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()).map(unescape);
        Ok((keys.collect(), page.next))
    }
}

fn checked(answer: Answer) -> Result<Answer, OperationError> {
    if (200..300).contains(&answer.status) {
        return Ok(answer);
    }
    let text = String::from_utf8_lossy(&answer.error_body);
    let code = element(&text, "Code").unwrap_or_default().to_owned();
    Err(OperationError::Status { status: answer.status, code })
}

/// Counting is not to cost the client more than the server: no XML tree.
fn count_keys(text: &str) -> u64 {
    text.matches("<Key>").count() as u64
}

fn next_token(text: &str) -> Option<String> {
    let truncated = element(text, "IsTruncated") == Some("true");
    element(text, "NextContinuationToken").filter(|_| truncated).map(unescape)
}

fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!("<{name}>"))? + name.len() + 2;
    let end = text[start..].find(&format!("</{name}>"))?;
    Some(&text[start..start + end])
}

fn unescape(text: &str) -> String {
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#34;", "\""), ("&#39;", "'")];
    let unescaped = plain.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    unescaped.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_errors_are_read() {
        let page = "<R><IsTruncated>true</IsTruncated><Contents><Key>a</Key></Contents><Contents><Key>b</Key>\
                    </Contents><NextContinuationToken>x&amp;y&lt;</NextContinuationToken></R>";
        assert_eq!((count_keys(page), next_token(page).as_deref()), (2, Some("x&y<")));
        let last = "<R><IsTruncated>false</IsTruncated><NextContinuationToken>x</NextContinuationToken></R>";
        assert_eq!((count_keys(last), next_token(last)), (0, None));
        let answer = Answer { status: 503, error_body: b"<Error><Code>SlowDown</Code>".to_vec(), ..Answer::default() };
        assert_eq!(checked(answer).unwrap_err().name(), "503 SlowDown");
    }

    #[test]
    fn endpoints_are_checked() {
        let make = |endpoint: &str| {
            let credentials = Credentials { access_key: "a".into(), secret_key: "s".into() };
            Target::new(endpoint, credentials, "r", "b").is_ok()
        };
        assert!(make("http://127.0.0.1:9000") && make("http://127.0.0.1:9000/") && make("http://127.0.0.1"));
        assert!(!make("127.0.0.1:9000") && !make("https://127.0.0.1:9000") && !make("http://127.0.0.1:9000/bucket"));
    }
}
