//! The administration port as a client meets it: a real socket, signed requests, each answer's status and code.

use super::auth::tests::{NOW, Signing, root_key, sign};
use super::fake::{FakeMetadata, FakeOperations};
use super::{AdminParts, FaultParts, FaultStation, router, serve};
use crate::layout::Layout;
use crate::metadata::ClusterMap;
use holdfast_proto::faults::{FaultOrder, FaultReply};
use holdfast_proto::manifest::AccessKey;
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::{ClusterId, Epoch, NodeId};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

struct Port {
    address: std::net::SocketAddr,
    metadata: Arc<FakeMetadata>,
    operations: Arc<FakeOperations>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

/// Of a server that was not started for faults.
struct NoFaults;

impl FaultStation for NoFaults {
    fn order(&self, order: FaultOrder) -> FaultReply {
        assert!(order.add.is_none(), "it is asked, and told nothing");
        FaultReply::default()
    }
}

async fn open() -> Port {
    let metadata = Arc::new(FakeMetadata::default());
    let operations = Arc::new(FakeOperations::default());
    let user = AccessKey { access_key: "user".into(), secret_key: "user-secret".into(), is_root: false, ..root_key() };
    for key in [root_key(), user] {
        metadata.keys.lock().insert(key.access_key.clone(), key);
    }
    let table = PgTable { epoch: Epoch(1), scheme: [0; 4], pgs: Vec::new() };
    let parts = AdminParts {
        operations: operations.clone(),
        layout: operations.clone(),
        metadata: metadata.clone(),
        render_metrics: Arc::new(|| "holdfast_ready 1\n".to_owned()),
        clock: Arc::new(|| NOW * 1000),
        writable_backends_min: 5,
        forwarding: None,
        node: operations.clone(),
        membership: None,
        faults: FaultParts {
            station: Arc::new(NoFaults),
            own: NodeId::FIRST,
            peers: None,
            layout: Layout::new(ClusterMap::new(ClusterId([1; 16]), table)),
        },
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(serve(listener, router(parts).0, shutdown.clone()));
    Port { address, metadata, operations, shutdown, served }
}

/// Status and body.
async fn exchange(port: &Port, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    let mut bytes = format!("{head}connection: close\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let text = String::from_utf8(answer).unwrap();
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

async fn send(port: &Port, signing: Signing) -> (u16, String) {
    let request = sign(&signing);
    let mut head =
        format!("{} {} HTTP/1.1\r\ncontent-length: {}\r\n", request.method(), request.uri(), signing.body.len());
    for (name, value) in request.headers() {
        head += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    exchange(port, &head, &signing.body).await
}

async fn call(port: &Port, method: &'static str, target: &str, body: &str) -> (u16, String) {
    send(port, Signing { method, target: target.into(), body: body.into(), ..Signing::default() }).await
}

async fn open_get(port: &Port, path: &str) -> (u16, String) {
    exchange(port, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n"), b"").await
}

#[tokio::test]
async fn every_endpoint_answers_its_type_or_its_refusal() {
    let port = open().await;
    port.metadata.buckets.lock().insert("full".into(), Default::default());
    let cases = [
        ("GET", "/v1/status", "", 200, "\"verdict\":\"healthy\""),
        ("GET", "/v1/backends", "", 200, "\"name\":\"d6\""),
        ("POST", "/v1/backends", r#"{"location":"disk:/srv/new"}"#, 200, "disk:/srv/new"),
        ("POST", "/v1/backends", r#"{"location":"disk:relative"}"#, 400, "HF2102"),
        ("POST", "/v1/backends", r#"{"location":"s3://b"}"#, 400, "HF2102"),
        ("POST", "/v1/backends", r#"{"location":"disk:/a","name":"a b"}"#, 400, "HF2102"),
        ("POST", "/v1/backends", "nonsense", 400, "HF1205"),
        ("POST", "/v1/backends", "", 400, "HF1205"),
        ("POST", "/v1/backends/d1/drain", "", 200, "\"name\":\"d1\""),
        ("POST", "/v1/backends/d9/drain", "", 404, "HF2101"),
        ("DELETE", "/v1/backends/d1", "", 409, "HF2104"),
        ("POST", "/v1/backends/d1/replace", r#"{"location":"disk:/srv/new"}"#, 200, "\"name\":\"d1\""),
        ("GET", "/v1/repair", "", 200, "\"state\":\"idle\""),
        ("POST", "/v1/repair/start", "", 200, "\"state\":\"idle\""),
        ("POST", "/v1/repair/pause", "", 200, "\"state\""),
        ("POST", "/v1/repair/resume", "", 200, "\"state\""),
        ("GET", "/v1/scrub", "", 200, "\"damaged\":0"),
        ("POST", "/v1/scrub/start", "", 200, "\"damaged\":0"),
        ("GET", "/v1/object?bucket=b&key=a%2Fb%20c", "", 200, "\"key\":\"a/b c\""),
        ("GET", "/v1/object?bucket=b&key=k&version=null", "", 200, "\"version\":\"null\""),
        ("GET", "/v1/object?bucket=b", "", 400, "HF1205"),
        ("GET", "/v1/nodes/n2/safe-to-stop", "", 409, "HF1302"),
        ("POST", "/v1/nodes/n2/drain", "{}", 409, "HF1302"),
        ("POST", "/v1/nodes/n2/drain", r#"{"acept_loss_of":[]}"#, 400, "HF1205"),
        ("DELETE", "/v1/nodes/n2/drain", "", 409, "HF1302"),
        ("POST", "/v1/nodes/n2/remove", r#"{"lost":true}"#, 409, "HF1302"),
        ("POST", "/v1/nodes/n2/replace", r#"{"with":"n3"}"#, 409, "HF1302"),
        ("POST", "/v1/nodes/n2/replace", "{}", 400, "HF1205"),
        ("GET", "/v1/layout", "", 200, "\"promise\":\"any 2 backends\""),
        ("GET", "/v1/layout/history", "", 200, "\"what\":[\"made\"]"),
        ("GET", "/v1/policies", "", 200, "[]"),
        ("POST", "/v1/policies/plan", r#"{"survive":"zone:9"}"#, 200, "\"is_kept\":false"),
        ("POST", "/v1/policies", r#"{"survive":"zone:9"}"#, 409, "HF3301"),
        ("POST", "/v1/policies", r#"{"survives":"zone:1"}"#, 400, "HF1205"),
        ("GET", "/v1/rebalance", "", 200, "\"state\":\"idle\""),
        ("GET", "/v1/rebalance/plan", "", 503, "HF1211"),
        ("POST", "/v1/rebalance/apply", r#"{"plan":"1-a"}"#, 409, "HF3302"),
        ("POST", "/v1/rebalance/apply", "{}", 400, "HF1205"),
        ("POST", "/v1/rebalance/pause", "", 200, "\"state\""),
        ("POST", "/v1/rebalance/resume", "", 200, "\"state\""),
        ("POST", "/v1/rebalance/undo", "", 409, "HF3303"),
        ("GET", "/v1/keys", "", 200, "\"access_key\":\"user\""),
        ("POST", "/v1/keys", r#"{"access_key":"user","secret_key":"12345678"}"#, 409, "HF4302"),
        ("POST", "/v1/keys", r#"{"access_key":"x/y","secret_key":"12345678"}"#, 400, "HF4303"),
        ("DELETE", "/v1/keys/root", "", 409, "HF4304"),
        ("DELETE", "/v1/keys/nobody", "", 404, "HF4301"),
        ("DELETE", "/v1/keys/user", "", 200, "\"access_key\":\"user\""),
        ("GET", "/v1/faults", "", 200, "\"not_allowed\":[\"n1\"]"),
        ("POST", "/v1/faults", r#"{"kind":"disk-full"}"#, 409, "not started for faults: n1"),
        ("POST", "/v1/faults", r#"{"kind":"flood"}"#, 400, "HF1401"),
        ("POST", "/v1/faults", r#"{"kind":"disk-full","at":["n7"]}"#, 400, "there are n1"),
        ("POST", "/v1/faults", r#"{"kind":"disk-full","often":1}"#, 400, "HF1205"),
        ("POST", "/v1/faults", r#"{"kind":"disk-full","backends":["d9"]}"#, 404, "HF2101"),
        ("DELETE", "/v1/faults/0a0b0c", "", 404, "HF1402"),
        ("DELETE", "/v1/faults", "", 200, "\"faults\":[]"),
        ("PUT", "/v1/buckets/photos", "", 200, "\"owner\":\"root\""),
        ("PUT", "/v1/buckets/photos", "", 409, "HF4102"),
        ("PUT", "/v1/buckets/Photos", "", 400, "HF4104"),
        ("GET", "/v1/buckets", "", 200, "\"name\":\"photos\""),
        ("DELETE", "/v1/buckets/photos", "", 200, "\"name\":\"photos\""),
        ("DELETE", "/v1/buckets/photos", "", 404, "HF4101"),
        ("DELETE", "/v1/buckets/full", "", 409, "HF4103"),
        ("PATCH", "/v1/buckets", "", 404, "HF1206"),
        ("GET", "/v2/status", "", 404, "HF1206"),
    ];
    for (method, target, body, status, part) in cases {
        let (got, text) = call(&port, method, target, body).await;
        assert_eq!(got, status, "{method} {target}: {text}");
        assert!(text.contains(part), "{method} {target}: {text}");
    }
}

#[tokio::test]
async fn a_secret_is_told_once() {
    let port = open().await;
    let (status, made) = call(&port, "POST", "/v1/keys", r#"{"name":"ci"}"#).await;
    assert_eq!(status, 200, "{made}");
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let secret = made["secret_key"].as_str().unwrap();
    assert!(secret.len() >= 20);
    let (_, listed) = call(&port, "GET", "/v1/keys", "").await;
    assert!(listed.contains(made["access_key"].as_str().unwrap()), "{listed}");
    assert!(!listed.contains(secret) && !listed.contains("secret_key"), "{listed}");
}

#[tokio::test]
async fn only_the_root_key_passes_and_nothing_happens_otherwise() {
    let port = open().await;
    let good = Signing { method: "PUT", target: "/v1/buckets/photos".into(), body: Vec::new(), ..Signing::default() };
    let user = Signing { access_key: "user", secret: "user-secret", ..good.clone() };
    let late = Signing { seconds: NOW - 3600, ..good.clone() };
    let wrong = Signing { secret: "guess", ..good.clone() };
    for (signing, code) in [(user, "HF1204"), (late, "HF1203"), (wrong, "HF1202")] {
        let (status, text) = send(&port, signing).await;
        assert_eq!(status, 403, "{text}");
        assert!(text.contains(code), "{text}");
    }
    let (status, text) = open_get(&port, "/v1/status").await;
    assert_eq!(status, 403, "{text}");
    assert!(port.metadata.buckets.lock().is_empty(), "a refused request must change nothing");
    assert_eq!(send(&port, good).await.0, 200);
}

#[tokio::test]
async fn too_large_a_body_is_refused() {
    let port = open().await;
    let body = vec![b' '; super::BODY_BYTES_MAX + 1];
    let signing = Signing { target: "/v1/keys".into(), body, ..Signing::default() };
    let (status, text) = send(&port, signing).await;
    assert_eq!(status, 413, "{text}");
    assert!(text.contains("HF1210"), "{text}");
}

#[tokio::test]
async fn health_is_open_says_why_not_and_is_bounded() {
    let port = open().await;
    assert_eq!(open_get(&port, "/health/live").await, (200, "live\n".into()));
    assert_eq!(open_get(&port, "/health/ready").await, (200, "ready\n".into()));
    let before = port.operations.probes.load(Ordering::SeqCst);
    for _ in 0..20 {
        open_get(&port, "/health/ready").await;
    }
    let probes = port.operations.probes.load(Ordering::SeqCst) - before;
    assert!(probes <= 10, "{probes} probes for 20 questions within moments");

    let reused = super::health::PROBE_REUSED_FOR + Duration::from_millis(20);
    port.operations.missing.store(1, Ordering::SeqCst);
    tokio::time::sleep(reused).await;
    assert_eq!(open_get(&port, "/health/ready").await.0, 200, "five of six suffice for k+1");
    port.operations.missing.store(2, Ordering::SeqCst);
    tokio::time::sleep(reused).await;
    let (status, text) = open_get(&port, "/health/ready").await;
    assert_eq!(status, 503);
    assert!(text.contains("4 of 6 backends"), "{text}");
    port.operations.missing.store(0, Ordering::SeqCst);
    *port.metadata.down.lock() = true;
    tokio::time::sleep(reused).await;
    let (status, text) = open_get(&port, "/health/ready").await;
    assert_eq!(status, 503);
    assert!(text.contains("log disk gone"), "{text}");
    assert_eq!(open_get(&port, "/health/live").await.0, 200);
    assert_eq!(open_get(&port, "/metrics").await, (200, "holdfast_ready 1\n".into()));
}

#[tokio::test]
async fn a_change_is_finished_when_its_client_goes_away() {
    let port = open().await;
    let request = sign(&Signing { target: "/v1/backends/d1/drain".into(), body: Vec::new(), ..Signing::default() });
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    let mut head = format!("POST {} HTTP/1.1\r\ncontent-length: 0\r\n", request.uri());
    for (name, value) in request.headers() {
        head += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    drop(stream);
    for _ in 0..100 {
        if port.operations.drained.load(Ordering::SeqCst) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the drain was dropped with its connection");
}

#[tokio::test]
async fn shutdown_ends_idle_connections() {
    let port = open().await;
    let idle = TcpStream::connect(port.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    port.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), port.served).await.expect("serve must end").unwrap();
    drop(idle);
}
