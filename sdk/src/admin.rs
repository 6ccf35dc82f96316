//! The administration client: one method per endpoint of the admin port, each a signed HTTP request with a JSON answer.
//!
//! Not here: tables, exit codes, waiting for long work; those are the caller's. Dropping a call midway is safe for the
//! client; the server finishes a change it has begun.

use crate::admin_error::AdminClientError;
use crate::sign::{Credentials, Payload, RequestToSign, Signer};
use crate::{ADMIN_REGION, ADMIN_SERVICE};
use bytes::Bytes;
use holdfast_proto::admin::{
    AdminError, BackendAdd, BackendView, BucketView, ClusterStatus, KeyCreate, KeyView, NodeView, ObjectView,
    RepairStatus, ScrubStatus, TokenCreate, TokenView,
};
use holdfast_proto::faults::{FaultAdd, FaultList, FaultView};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Largest answer read: inspecting a 5 TiB object names 80,000 segments of 6 shards at about 200 bytes each.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Whom to ask, as whom, and how long to wait.
#[derive(Clone, Debug)]
pub struct AdminClientOptions {
    /// `http://host:port`.
    pub endpoint: String,
    /// The root key.
    pub credentials: Credentials,
    /// Longest a call may take. Adding a backend formats it, so seconds are normal.
    pub timeout: Duration,
}

impl AdminClientOptions {
    /// With the usual limit of two minutes.
    pub fn new(endpoint: impl Into<String>, credentials: Credentials) -> Self {
        Self { endpoint: endpoint.into(), credentials, timeout: Duration::from_secs(120) }
    }
}

/// Asks the admin port of one server. Cheap to share; needs a tokio runtime.
pub struct AdminClient {
    http: Client<HttpConnector, Full<Bytes>>,
    signer: Signer,
    endpoint: String,
    host: String,
    timeout: Duration,
}

/// One call before it is signed.
struct Call<'a> {
    method: &'static str,
    path: String,
    query: &'a [(&'a str, &'a str)],
    body: Vec<u8>,
}

impl AdminClient {
    /// Checks the endpoint; connects on the first call.
    pub fn new(options: AdminClientOptions) -> Result<Self, AdminClientError> {
        let endpoint = options.endpoint.trim_end_matches('/').to_owned();
        let invalid =
            |reason: &str| AdminClientError::InvalidEndpoint { endpoint: endpoint.clone(), reason: reason.to_owned() };
        let uri: http::Uri = endpoint.parse().map_err(|_| invalid("not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(invalid("it must begin with http://"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(invalid("it must be http://host:port with nothing after it"));
        }
        let host = uri.authority().map(|a| a.as_str().to_owned()).ok_or_else(|| invalid("it names no host"))?;
        if host.contains('@') {
            return Err(invalid("keys do not belong in the URL"));
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        connector.set_nodelay(true);
        Ok(Self {
            http: Client::builder(TokioExecutor::new()).build(connector),
            signer: Signer::new(options.credentials, ADMIN_REGION, ADMIN_SERVICE),
            endpoint,
            host,
            timeout: options.timeout,
        })
    }

    /// Whom this client asks.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The store's state over all.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, AdminClientError> {
        self.get("/v1/status".into()).await
    }

    /// All backends, missing ones too.
    pub async fn backend_list(&self) -> Result<Vec<BackendView>, AdminClientError> {
        self.get("/v1/backends".into()).await
    }

    /// Formats and attaches a backend.
    pub async fn backend_add(&self, add: &BackendAdd) -> Result<BackendView, AdminClientError> {
        self.send("POST", "/v1/backends".into(), add).await
    }

    /// Begins to move everything off a backend (by name or id).
    pub async fn backend_drain(&self, backend: &str) -> Result<BackendView, AdminClientError> {
        self.post(format!("/v1/backends/{backend}/drain")).await
    }

    /// Forgets a backend on which nothing is left.
    pub async fn backend_remove(&self, backend: &str) -> Result<BackendView, AdminClientError> {
        self.delete(format!("/v1/backends/{backend}")).await
    }

    /// Puts a new, empty backend in the place of a lost one.
    pub async fn backend_replace(&self, backend: &str, add: &BackendAdd) -> Result<BackendView, AdminClientError> {
        self.send("POST", format!("/v1/backends/{backend}/replace"), add).await
    }

    /// How far repair is.
    pub async fn repair_status(&self) -> Result<RepairStatus, AdminClientError> {
        self.get("/v1/repair".into()).await
    }

    /// Scans and repairs now.
    pub async fn repair_start(&self) -> Result<RepairStatus, AdminClientError> {
        self.post("/v1/repair/start".into()).await
    }

    /// Holds repair until it is resumed.
    pub async fn repair_pause(&self) -> Result<RepairStatus, AdminClientError> {
        self.post("/v1/repair/pause".into()).await
    }

    /// Lets repair go on.
    pub async fn repair_resume(&self) -> Result<RepairStatus, AdminClientError> {
        self.post("/v1/repair/resume".into()).await
    }

    /// Verifies every shard now.
    pub async fn scrub_start(&self) -> Result<ScrubStatus, AdminClientError> {
        self.post("/v1/scrub/start".into()).await
    }

    /// How far the scrub is.
    pub async fn scrub_status(&self) -> Result<ScrubStatus, AdminClientError> {
        self.get("/v1/scrub".into()).await
    }

    /// Where every shard of an object is and how it is. `version` is an S3 version id.
    pub async fn object_inspect(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> Result<ObjectView, AdminClientError> {
        let mut query = vec![("bucket", bucket), ("key", key)];
        query.extend(version.map(|v| ("version", v)));
        self.call(Call { method: "GET", path: "/v1/object".into(), query: &query, body: Vec::new() }).await
    }

    /// Makes an access key; the answer is the only one that carries the secret.
    pub async fn key_create(&self, create: &KeyCreate) -> Result<KeyView, AdminClientError> {
        self.send("POST", "/v1/keys".into(), create).await
    }

    /// All access keys, without secrets.
    pub async fn key_list(&self) -> Result<Vec<KeyView>, AdminClientError> {
        self.get("/v1/keys".into()).await
    }

    /// Removes an access key.
    pub async fn key_delete(&self, access_key: &str) -> Result<KeyView, AdminClientError> {
        self.delete(format!("/v1/keys/{access_key}")).await
    }

    /// Makes a join token; the answer is the only one that carries its text.
    pub async fn token_create(&self, create: &TokenCreate) -> Result<TokenView, AdminClientError> {
        self.send("POST", "/v1/tokens".into(), create).await
    }

    /// All join tokens, without their text.
    pub async fn token_list(&self) -> Result<Vec<TokenView>, AdminClientError> {
        self.get("/v1/tokens".into()).await
    }

    /// Revokes a join token; a node it has admitted stays.
    pub async fn token_revoke(&self, id: &str) -> Result<TokenView, AdminClientError> {
        self.delete(format!("/v1/tokens/{id}")).await
    }

    /// All nodes, removed ones too.
    pub async fn node_list(&self) -> Result<Vec<NodeView>, AdminClientError> {
        self.get("/v1/nodes".into()).await
    }

    /// Injects a fault.
    pub async fn fault_add(&self, add: &FaultAdd) -> Result<FaultView, AdminClientError> {
        self.send("POST", "/v1/faults".into(), add).await
    }

    /// All faults that stand.
    pub async fn fault_list(&self) -> Result<FaultList, AdminClientError> {
        self.get("/v1/faults".into()).await
    }

    /// Ends one fault by its id, or all; what stands afterwards.
    pub async fn fault_clear(&self, id: Option<&str>) -> Result<FaultList, AdminClientError> {
        let path = id.map_or_else(|| "/v1/faults".to_owned(), |id| format!("/v1/faults/{id}"));
        self.call(Call { method: "DELETE", path, query: &[], body: Vec::new() }).await
    }

    /// Makes a bucket, owned by the root key.
    pub async fn bucket_create(&self, name: &str) -> Result<BucketView, AdminClientError> {
        self.call(Call { method: "PUT", path: format!("/v1/buckets/{name}"), query: &[], body: Vec::new() }).await
    }

    /// All buckets.
    pub async fn bucket_list(&self) -> Result<Vec<BucketView>, AdminClientError> {
        self.get("/v1/buckets".into()).await
    }

    /// Removes an empty bucket.
    pub async fn bucket_delete(&self, name: &str) -> Result<BucketView, AdminClientError> {
        self.delete(format!("/v1/buckets/{name}")).await
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: String) -> Result<T, AdminClientError> {
        self.call(Call { method: "GET", path, query: &[], body: Vec::new() }).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: String) -> Result<T, AdminClientError> {
        self.call(Call { method: "POST", path, query: &[], body: Vec::new() }).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: String) -> Result<T, AdminClientError> {
        self.call(Call { method: "DELETE", path, query: &[], body: Vec::new() }).await
    }

    pub(crate) async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: &'static str,
        path: String,
        body: &B,
    ) -> Result<T, AdminClientError> {
        let body = serde_json::to_vec(body).map_err(|e| self.unexpected(0, format!("encode the request: {e}")))?;
        self.call(Call { method, path, query: &[], body }).await
    }

    async fn call<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, AdminClientError> {
        let (status, body) = match tokio::time::timeout(self.timeout, self.exchange(call)).await {
            Ok(answer) => answer?,
            Err(_) => {
                let seconds = self.timeout.as_secs();
                return Err(AdminClientError::TimedOut { endpoint: self.endpoint.clone(), seconds });
            }
        };
        if !(200..300).contains(&status) {
            let error: AdminError =
                serde_json::from_slice(&body).map_err(|e| self.unexpected(status, e.to_string()))?;
            return Err(AdminClientError::from_status(status, error));
        }
        serde_json::from_slice(&body).map_err(|e| self.unexpected(status, e.to_string()))
    }

    async fn exchange(&self, call: Call<'_>) -> Result<(u16, Bytes), AdminClientError> {
        let signed = self.signer.sign(
            &RequestToSign {
                method: call.method,
                host: &self.host,
                path: &call.path,
                query: call.query,
                headers: &[],
                payload: Payload::Bytes(&call.body),
            },
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        );
        let request = http::Request::builder()
            .method(call.method)
            .uri(format!("{}{}", self.endpoint, signed.target))
            .header("host", &self.host)
            .header("x-amz-date", signed.date)
            .header("x-amz-content-sha256", signed.content_sha256)
            .header("authorization", signed.authorization)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(call.body)))
            .map_err(|e| self.unexpected(0, format!("build the request: {e}")))?;
        let answer = self.http.request(request).await.map_err(|e| self.unreachable(&e))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|e| self.unexpected(status, format!("read the answer: {e}")))?;
        Ok((status, body.to_bytes()))
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> AdminClientError {
        // The outermost words are hyper's ("client error"); the innermost are the system's, which people know.
        let mut cause = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        AdminClientError::Unreachable { endpoint: self.endpoint.clone(), reason: cause.to_string() }
    }

    fn unexpected(&self, status: u16, reason: String) -> AdminClientError {
        AdminClientError::UnexpectedAnswer { endpoint: self.endpoint.clone(), status, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn client(endpoint: &str) -> Result<AdminClient, AdminClientError> {
        let credentials = Credentials { access_key: "a".into(), secret_key: "s".into() };
        let mut options = AdminClientOptions::new(endpoint, credentials);
        options.timeout = Duration::from_secs(2);
        AdminClient::new(options)
    }

    #[test]
    fn endpoints_are_checked() {
        for bad in ["", "127.0.0.1:9001", "https://h:1", "http://h:1/x", "http://u@h:1", "http://h:1?x", "nonsense"] {
            let error = client(bad).err().expect(bad);
            assert!(matches!(error, AdminClientError::InvalidEndpoint { .. }), "{bad}: {error:?}");
        }
        assert_eq!(client("http://127.0.0.1:9001/").expect("valid").endpoint(), "http://127.0.0.1:9001");
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap();
        let error = client(&format!("http://{free}")).unwrap().repair_status().await.unwrap_err();
        assert!(matches!(error, AdminClientError::Unreachable { .. }), "{error:?}");
    }

    async fn answer_once(reply: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 8192];
            let n = stream.read(&mut request).await.unwrap();
            stream.write_all(reply.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        (endpoint, served)
    }

    #[tokio::test]
    async fn answers_are_typed_and_requests_signed() {
        let body = r#"{"code":"HF2101","message":"no backend d9","next_step":"holdfast backend list"}"#;
        let reply = "HTTP/1.1 404 Not Found\r\ncontent-length: 79\r\nconnection: close\r\n\r\n{\"code\":\"HF2101\",\"message\":\"no backend d9\",\"next_step\":\"holdfast backend list\"}";
        assert_eq!(body.len(), 79);
        let (endpoint, served) = answer_once(reply).await;
        let error = client(&endpoint).unwrap().backend_drain("d9").await.unwrap_err();
        assert_eq!(error.answer().map(|e| e.code.as_str()), Some("HF2101"), "{error:?}");
        let request = served.await.unwrap();
        assert!(request.starts_with("POST /v1/backends/d9/drain HTTP/1.1"), "{request}");
        assert!(request.contains("/holdfast/holdfast-admin/aws4_request"), "{request}");
    }

    #[tokio::test]
    async fn something_else_answering_is_said_so() {
        let (endpoint, _served) = answer_once("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
        let error = client(&endpoint).unwrap().repair_status().await.unwrap_err();
        assert!(matches!(error, AdminClientError::UnexpectedAnswer { status: 200, .. }), "{error:?}");
    }
}
