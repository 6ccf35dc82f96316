//! A SigV4 signer that also signs wrong things on request: what is sent and what is signed are told apart, and any field
//! of either can be bent. Source: "Authenticating Requests (AWS Signature Version 4)" of the S3 API reference.
//!
//! Not a client: it makes the bytes of one request, and has no opinion on whether they make sense.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use holdfast_sdk::sign::amz_date;
use sha2::{Digest, Sha256};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a presigned request says of its payload.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Who signs.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Access key to name.
    pub access_key: String,
    /// Secret to sign with.
    pub secret_key: String,
    /// Region of the scope.
    pub region: String,
    /// Service of the scope.
    pub service: String,
    /// Seconds to be off.
    pub skew: i64,
    /// Day of the scope, if not the day of the timestamp.
    pub scope_date: Option<String>,
}

impl Signer {
    /// Signs as it should be.
    pub fn new(access_key: &str, secret_key: &str) -> Self {
        Self {
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            region: "us-east-1".to_owned(),
            service: "s3".to_owned(),
            skew: 0,
            scope_date: None,
        }
    }

    fn timestamp(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
        amz_date(now.checked_add_signed(self.skew).expect("a time after 1970"))
    }

    fn day(&self, timestamp: &str) -> String {
        self.scope_date.clone().unwrap_or_else(|| timestamp[..8].to_owned())
    }

    fn scope(&self, timestamp: &str) -> String {
        format!("{}/{}/{}/aws4_request", self.day(timestamp), self.region, self.service)
    }

    fn key(&self, timestamp: &str) -> [u8; 32] {
        let mut key = hmac(format!("AWS4{}", self.secret_key).as_bytes(), self.day(timestamp).as_bytes());
        for step in [self.region.as_str(), self.service.as_str(), "aws4_request"] {
            key = hmac(&key, step.as_bytes());
        }
        key
    }

    /// The fields of a POST form that sign `policy`.
    pub fn form_fields(&self, policy: &str) -> Vec<(String, String)> {
        let timestamp = self.timestamp();
        let signature = hex::encode(hmac(&self.key(&timestamp), policy.as_bytes()));
        [
            ("x-amz-algorithm", "AWS4-HMAC-SHA256".to_owned()),
            ("x-amz-credential", format!("{}/{}", self.access_key, self.scope(&timestamp))),
            ("x-amz-date", timestamp),
            ("policy", policy.to_owned()),
            ("x-amz-signature", signature),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// A policy document as forms carry it: base64 of what is given.
pub fn encode_policy(json: &str) -> String {
    BASE64.encode(json)
}

/// One request to be made. Names of headers are lower case; the target is encoded by whoever writes it.
#[derive(Clone, Debug)]
pub struct Probe {
    signer: Signer,
    method: String,
    target: String,
    signed: Vec<(String, String)>,
    unsigned: Vec<(String, String)>,
    omitted: Vec<String>,
    payload: Option<String>,
    body: Vec<u8>,
    length: Option<String>,
}

impl Probe {
    /// A request to `host` without a body.
    pub fn new(signer: &Signer, host: &str, method: &str, target: &str) -> Self {
        Self {
            signer: signer.clone(),
            method: method.to_owned(),
            target: target.to_owned(),
            signed: vec![("host".to_owned(), host.to_owned())],
            unsigned: Vec::new(),
            omitted: Vec::new(),
            payload: None,
            body: Vec::new(),
            length: None,
        }
    }

    /// Changes who signs, and when.
    pub fn by(mut self, change: impl FnOnce(&mut Signer)) -> Self {
        change(&mut self.signer);
        self
    }

    /// A header that is sent and signed.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.signed.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A header that is sent and not signed.
    pub fn unsigned(mut self, name: &str, value: &str) -> Self {
        self.unsigned.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends this header, which is signed otherwise, without signing it.
    pub fn omit(mut self, name: &str) -> Self {
        self.omitted.push(name.to_owned());
        self
    }

    /// A body with its length and hash.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.length = Some(self.body.len().to_string());
        self
    }

    /// What Content-Length says, whatever the body is; `None` sends none.
    pub fn length(mut self, length: Option<&str>) -> Self {
        self.length = length.map(str::to_owned);
        self
    }

    /// What `x-amz-content-sha256` says instead of the body's hash.
    pub fn payload(mut self, value: &str) -> Self {
        self.payload = Some(value.to_owned());
        self
    }

    /// The request, signed in its header.
    pub fn sign(self) -> Vec<u8> {
        let timestamp = self.signer.timestamp();
        self.finish(&timestamp).0
    }

    /// The request with an aws-chunked body that `frame` makes from a chain of signatures.
    pub fn stream(
        mut self,
        mode: &str,
        decoded: Option<&str>,
        frame: impl FnOnce(&mut ChunkChain) -> Vec<u8>,
    ) -> Vec<u8> {
        self.payload = Some(mode.to_owned());
        if let Some(decoded) = decoded {
            self.signed.push(("x-amz-decoded-content-length".to_owned(), decoded.to_owned()));
        }
        self.signed.push(("content-encoding".to_owned(), "aws-chunked".to_owned()));
        let timestamp = self.signer.timestamp();
        let chain = |seed: String| ChunkChain {
            key: self.signer.key(&timestamp),
            scope: self.signer.scope(&timestamp),
            previous: seed,
            timestamp: timestamp.clone(),
        };
        // The length is not signed, so the signature is there before the body.
        let (_, seed) = self.clone().finish(&timestamp);
        let body = frame(&mut chain(seed));
        let length = self.length.clone().unwrap_or_else(|| body.len().to_string());
        self.body = body;
        self.length = Some(length);
        self.finish(&timestamp).0
    }

    /// The request with its signature in the query, good for `expires` seconds.
    pub fn presign(mut self, expires: &str) -> Vec<u8> {
        let timestamp = self.signer.timestamp();
        let names = self.signed_names();
        let credential = format!("{}/{}", self.signer.access_key, self.signer.scope(&timestamp)).replace('/', "%2F");
        let joint = if self.target.contains('?') { '&' } else { '?' };
        self.target.push_str(&format!(
            "{joint}X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={timestamp}\
             &X-Amz-Expires={expires}&X-Amz-SignedHeaders={}",
            names.join("%3B")
        ));
        let payload = self.payload.clone().unwrap_or_else(|| UNSIGNED.to_owned());
        let signature = self.signature(&timestamp, &names, &payload);
        self.target.push_str(&format!("&X-Amz-Signature={signature}"));
        self.write(&[])
    }

    fn signed_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.signed.iter().map(|(name, _)| name.clone()).collect();
        names.retain(|name| !self.omitted.contains(name));
        names.sort();
        names.dedup();
        names
    }

    fn finish(mut self, timestamp: &str) -> (Vec<u8>, String) {
        let payload = self.payload.clone().unwrap_or_else(|| hex_sha256(&self.body));
        self.signed.push(("x-amz-content-sha256".to_owned(), payload.clone()));
        self.signed.push(("x-amz-date".to_owned(), timestamp.to_owned()));
        let names = self.signed_names();
        let signature = self.signature(timestamp, &names, &payload);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={signature}",
            self.signer.access_key,
            self.signer.scope(timestamp),
            names.join(";")
        );
        (self.write(&[("authorization".to_owned(), authorization)]), signature)
    }

    fn signature(&self, timestamp: &str, names: &[String], payload: &str) -> String {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let mut pairs: Vec<(&str, &str)> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .collect();
        pairs.sort_unstable();
        let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let headers: String = names
            .iter()
            .map(|name| {
                let all = self.signed.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
                format!("{name}:{}\n", all.collect::<Vec<_>>().join(","))
            })
            .collect();
        let canonical =
            format!("{}\n{path}\n{}\n{headers}\n{}\n{payload}", self.method, pairs.join("&"), names.join(";"));
        let text = format!(
            "AWS4-HMAC-SHA256\n{timestamp}\n{}\n{}",
            self.signer.scope(timestamp),
            hex_sha256(canonical.as_bytes())
        );
        hex::encode(hmac(&self.signer.key(timestamp), text.as_bytes()))
    }

    fn write(&self, last: &[(String, String)]) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in self.signed.iter().chain(&self.unsigned).chain(last) {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(length) = &self.length {
            out.push_str(&format!("content-length: {length}\r\n"));
        }
        out.push_str("connection: close\r\n\r\n");
        let mut out = out.into_bytes();
        out.extend_from_slice(&self.body);
        out
    }
}

/// The signatures of an aws-chunked body, each over the one before.
pub struct ChunkChain {
    key: [u8; 32],
    scope: String,
    previous: String,
    timestamp: String,
}

impl ChunkChain {
    /// A chunk that is signed as it should be.
    pub fn chunk(&mut self, bytes: &[u8]) -> Vec<u8> {
        let text = format!(
            "AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{}\n{EMPTY_SHA256}\n{}",
            self.timestamp,
            self.scope,
            self.previous,
            hex_sha256(bytes)
        );
        self.previous = hex::encode(hmac(&self.key, text.as_bytes()));
        let mut out = format!("{:x};chunk-signature={}\r\n", bytes.len(), self.previous).into_bytes();
        out.extend_from_slice(bytes);
        if !bytes.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    /// `name:value` lines after the last chunk, with their signature and the empty line.
    pub fn trailers(&mut self, lines: &[&str]) -> Vec<u8> {
        let canonical: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let text = format!(
            "AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{}\n{}",
            self.timestamp,
            self.scope,
            self.previous,
            hex_sha256(canonical.as_bytes())
        );
        let signature = hex::encode(hmac(&self.key, text.as_bytes()));
        let sent: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        format!("{sent}x-amz-trailer-signature:{signature}\r\n\r\n").into_bytes()
    }
}

fn hex_sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}
