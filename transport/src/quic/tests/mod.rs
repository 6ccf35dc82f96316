//! Tests over real sockets on this machine: nodes with certificates of a CA made for the test, and the services they run.

mod calls;
mod hostile;
mod matrix;
mod membership;
mod paths;

use super::*;
use crate::channel::{Call, CallOptions};
use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_proto::cluster::{NodeIdentity, Roles};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::OnceLock;
use std::time::Duration;

const CLUSTER: ClusterId = ClusterId([7; 16]);
const SECOND: Duration = Duration::from_secs(1);

/// A CA, and whose certificates it has signed.
#[derive(Clone)]
struct Authority {
    root: CertificateDer<'static>,
    issuer: Arc<Issuer<'static, KeyPair>>,
    issued: Arc<Mutex<BTreeMap<Vec<u8>, NodeIdentity>>>,
}

/// What one node shows and expects.
struct TestTls {
    authority: Authority,
    settings: Mutex<(Arc<rustls::ServerConfig>, Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>)>,
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { root, issuer: Arc::new(Issuer::new(params, key)), issued: Arc::default() }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        Arc::new(roots)
    }

    fn issue(&self, identity: &NodeIdentity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![server_name(identity.node)]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        self.issued.lock().insert(certificate.to_vec(), identity.clone());
        (vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    /// For callers without a certificate.
    fn stranger(&self) -> Arc<rustls::ClientConfig> {
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        Arc::new(config)
    }

    fn tls(&self, identity: &NodeIdentity) -> Arc<TestTls> {
        let tls = TestTls { authority: self.clone(), settings: Mutex::new(self.settings(identity)) };
        Arc::new(tls)
    }

    fn settings(
        &self,
        identity: &NodeIdentity,
    ) -> (Arc<rustls::ServerConfig>, Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
        let (chain, key) = self.issue(identity);
        let server = |open: bool| {
            let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider());
            let verifier = if open { verifier.allow_unauthenticated() } else { verifier }.build().unwrap();
            let config = rustls::ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain.clone(), key.clone_key())
                .unwrap();
            Arc::new(config)
        };
        let client = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .unwrap();
        (server(false), server(true), Arc::new(client))
    }
}

impl TestTls {
    /// A new certificate, as after a renewal.
    fn renew(&self, identity: &NodeIdentity) {
        *self.settings.lock() = self.authority.settings(identity);
    }

    /// Admits callers without a certificate on every plane, as a mistaken setting might.
    fn open_every_plane(&self) {
        let mut settings = self.settings.lock();
        settings.0 = Arc::clone(&settings.1);
    }
}

impl TlsSource for TestTls {
    fn server(&self, plane: Plane) -> Arc<rustls::ServerConfig> {
        let settings = self.settings.lock();
        Arc::clone(if plane == Plane::Control { &settings.1 } else { &settings.0 })
    }
    fn client(&self, _: Plane) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.settings.lock().2)
    }
    fn identity(&self, certificate: &[u8]) -> Result<NodeIdentity, String> {
        self.authority.issued.lock().get(certificate).cloned().ok_or_else(|| "a certificate of nobody".into())
    }
    fn server_name(&self, node: NodeId) -> String {
        server_name(node)
    }
}

fn server_name(node: NodeId) -> String {
    format!("node-{node}.holdfast")
}

fn identity(node: u64, roles: Roles) -> NodeIdentity {
    NodeIdentity { cluster: CLUSTER, node: NodeId(node), roles, region: "north".into(), zone: "a".into() }
}

type Handler = dyn Fn(Call, Box<dyn Channel>) -> BoxFuture<'static, Result<(), TransportError>> + Send + Sync;

/// A service made of a function.
#[derive(Clone)]
struct Serve(Arc<Handler>);

#[async_trait]
impl Service for Serve {
    async fn serve(&self, call: Call, channel: Box<dyn Channel>) -> Result<(), TransportError> {
        (self.0)(call, channel).await
    }
}

fn serve<F>(handler: impl Fn(Call, Box<dyn Channel>) -> F + Send + Sync + 'static) -> Serve
where
    F: Future<Output = Result<(), TransportError>> + Send + 'static,
{
    Serve(Arc::new(move |call, channel| Box::pin(handler(call, channel))))
}

/// Sends every frame back.
fn echo() -> Serve {
    serve(|_, mut channel| async move {
        while let Some(frame) = channel.receive().await? {
            channel.send(frame).await?;
        }
        channel.finish().await
    })
}

/// Never answers. The sender is dropped with the work.
fn hang(started: tokio::sync::mpsc::UnboundedSender<tokio::sync::oneshot::Sender<()>>) -> Serve {
    serve(move |_, channel| {
        let started = started.clone();
        async move {
            let _channel = channel;
            let (alive, mut told) = tokio::sync::oneshot::channel::<()>();
            let _ = started.send(alive);
            // Never told anything: only being dropped ends this, which `Sender::closed` shows.
            let _ = (&mut told).await;
            std::future::pending().await
        }
    })
}

/// For calls to the own node.
struct Own;

#[async_trait]
impl Transport for Own {
    async fn open(&self, to: NodeId, _: Rpc, _: Frame, _: CallOptions) -> Result<Box<dyn Channel>, TransportError> {
        Err(TransportError::Unreachable { peer: to, reason: "in process".into() })
    }
}

/// A node that listens on every plane.
struct Node {
    id: NodeId,
    tls: Arc<TestTls>,
    transport: Arc<QuicTransport>,
}

fn options(identity: &NodeIdentity, tls: Arc<TestTls>, listen: &[(Plane, SocketAddr)], service: Serve) -> QuicOptions {
    let listener = |&(plane, address)| Listener { plane, address, service: Arc::new(service.clone()) };
    QuicOptions {
        cluster: identity.cluster,
        node: identity.node,
        tls,
        listeners: listen.iter().map(listener).collect(),
        own: Arc::new(Own),
        restart_secret: [identity.node.0 as u8; 32],
        mtu_max: MTU_JUMBO,
    }
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn node_as(authority: &Authority, identity: &NodeIdentity, service: Serve) -> Node {
    let tls = authority.tls(identity);
    let listen = PLANES.map(|plane| (plane, any_port()));
    let transport = QuicTransport::start(options(identity, Arc::clone(&tls), &listen, service)).unwrap();
    Node { id: identity.node, tls, transport: Arc::new(transport) }
}

fn node(authority: &Authority, id: u64, service: Serve) -> Node {
    node_as(authority, &identity(id, Roles::BOTH), service)
}

impl Node {
    fn address(&self, plane: Plane) -> SocketAddr {
        self.transport.local_address(plane).unwrap()
    }

    fn record(&self) -> PeerRecord {
        let addresses = NodeAddresses {
            data: vec![self.address(Plane::Data)],
            consensus: vec![self.address(Plane::Consensus)],
            control: vec![self.address(Plane::Control)],
            ..NodeAddresses::default()
        };
        PeerRecord { node: self.id, addresses, intent: NodeIntent::Active }
    }

    fn knows(&self, others: &[&Node]) {
        self.transport.set_peers(others.iter().map(|node| node.record()).collect());
    }

    async fn call(&self, to: NodeId, rpc: Rpc, head: &'static [u8]) -> Result<Frame, TransportError> {
        self.transport.call(to, rpc, Frame::head_only(Bytes::from_static(head)), within(5 * SECOND)).await
    }

    async fn open(&self, to: NodeId, rpc: Rpc, deadline: Duration) -> Result<Box<dyn Channel>, TransportError> {
        self.transport.open(to, rpc, Frame::default(), within(deadline)).await
    }
}

fn within(deadline: Duration) -> CallOptions {
    CallOptions { deadline, epoch: Some(Epoch(3)), request_id: 42 }
}

use holdfast_proto::Epoch;

/// Two nodes that know each other: the first calls, the second serves.
fn pair(service: Serve) -> (Node, Node) {
    let authority = Authority::new();
    let (a, b) = (node(&authority, 1, echo()), node(&authority, 2, service));
    a.knows(&[&b]);
    b.knows(&[&a]);
    (a, b)
}

fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        ::metrics::set_global_recorder(recorder).unwrap();
        handle
    })
}

/// The sum of a metric over all series that have these labels.
fn metric(name: &str, labels: &[&str]) -> f64 {
    let text = metrics().render();
    let of_name = text.lines().filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
    of_name.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Waits until `condition` holds, for at most `limit`.
async fn eventually(limit: Duration, what: &str, condition: impl Fn() -> bool) {
    let start = tokio::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "after {limit:?} still not: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
