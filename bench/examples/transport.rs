//! What a node-to-node byte costs: one stream over loopback by the QUIC transport, beside plain TCP and TCP with rustls, in
//! one interleaved run. Both ends run in this process; the CPU seconds are those of both.
//!
//!     cargo run -p holdfast-bench --example transport [-- MiB rounds]
//!
//! Loopback has no hardware that helps: real network cards make TCP cheaper than it is here.

use anyhow::{Context, Result};
use async_trait::async_trait;
use holdfast_proto::cluster::{NodeAddresses, NodeIdentity, NodeIntent, Roles};
use holdfast_proto::rpc::{Plane, Rpc};
use holdfast_proto::{ClusterId, NodeId};
use holdfast_transport::quic::{Listener, MTU_JUMBO, MTU_STANDARD, PeerRecord, QuicOptions, QuicTransport, TlsSource};
use holdfast_transport::{Call, CallOptions, Channel, Frame, Service, Transport, TransportError};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PIECE_BYTES: usize = 1 << 20;
const NAME: &str = "node.holdfast";

#[derive(Clone, Copy)]
enum Carrier {
    Tcp,
    TcpTls,
    Quic(u16),
}

const CARRIERS: [(&str, Carrier); 4] = [
    ("TCP", Carrier::Tcp),
    ("TCP + TLS 1.3", Carrier::TcpTls),
    ("QUIC, MTU 1452", Carrier::Quic(MTU_STANDARD)),
    ("QUIC, MTU 8952", Carrier::Quic(MTU_JUMBO)),
];

fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>().context("not a number"));
    let mebibytes = numbers.next().transpose()?.unwrap_or(1024);
    let rounds = numbers.next().transpose()?.unwrap_or(3);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let certificates = Arc::new(Certificates::new()?);
    let mut costs = vec![Vec::new(); CARRIERS.len()];
    for round in 0..rounds {
        for (at, (name, carrier)) in CARRIERS.into_iter().enumerate() {
            let (cpu, begin) = (cpu_seconds(), Instant::now());
            runtime.block_on(carry(carrier, mebibytes, &certificates))?;
            let (wall, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            let gibibytes = mebibytes as f64 / 1024.0;
            say(&format!(
                "round {round} {name:<15} {:>7.0} MiB/s  {:.2} CPU s per GiB  load {:.1}",
                mebibytes as f64 / wall,
                cpu / gibibytes,
                load_average()
            ));
            costs[at].push(cpu / gibibytes);
        }
    }
    let medians = costs.into_iter().map(|mut of_one| {
        of_one.sort_by(f64::total_cmp);
        of_one[of_one.len() / 2]
    });
    let medians: Vec<f64> = medians.collect();
    for ((name, _), median) in CARRIERS.iter().zip(&medians) {
        say(&format!("median {name:<15} {median:.2} CPU s per GiB, {:.2} x TCP + TLS", median / medians[1]));
    }
    Ok(())
}

async fn carry(carrier: Carrier, mebibytes: usize, certificates: &Arc<Certificates>) -> Result<()> {
    match carrier {
        Carrier::Tcp => {
            let listener = TcpListener::bind(any_port()).await?;
            let address = listener.local_addr()?;
            let sink = tokio::spawn(async move { sink(listener.accept().await?.0).await });
            send(TcpStream::connect(address).await?, mebibytes).await?;
            expect_all(sink.await??, mebibytes)
        }
        Carrier::TcpTls => {
            let listener = TcpListener::bind(any_port()).await?;
            let address = listener.local_addr()?;
            let acceptor = tokio_rustls::TlsAcceptor::from(certificates.server(Plane::Data));
            let sink = tokio::spawn(async move { sink(acceptor.accept(listener.accept().await?.0).await?).await });
            let connector = tokio_rustls::TlsConnector::from(certificates.client(Plane::Data));
            let stream = connector.connect(ServerName::try_from(NAME)?, TcpStream::connect(address).await?).await?;
            send(stream, mebibytes).await?;
            expect_all(sink.await??, mebibytes)
        }
        Carrier::Quic(mtu_max) => quic(mtu_max, mebibytes, certificates).await,
    }
}

async fn send(mut stream: impl AsyncRead + AsyncWrite + Unpin, mebibytes: usize) -> Result<()> {
    let piece = vec![7; PIECE_BYTES];
    for _ in 0..mebibytes {
        stream.write_all(&piece).await?;
    }
    stream.shutdown().await?;
    // Until the other end is done: what TLS says of its own accord would be a reset if nobody read it.
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn sink(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<usize> {
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer).await? {
            0 => {
                stream.shutdown().await?;
                return Ok(bytes);
            }
            more => bytes += more,
        }
    }
}

fn expect_all(bytes: usize, mebibytes: usize) -> Result<()> {
    anyhow::ensure!(bytes == mebibytes * PIECE_BYTES, "{bytes} bytes arrived");
    Ok(())
}

/// Takes every frame and says at the end how many bytes there were.
struct Sink;

#[async_trait]
impl Service for Sink {
    async fn serve(&self, _: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
        let mut bytes = 0;
        while let Some(frame) = channel.receive().await? {
            bytes += frame.body_bytes() as u64;
        }
        channel.send(Frame::head_only(bytes.to_le_bytes().to_vec().into())).await?;
        channel.finish().await
    }
}

/// Nobody calls their own node here.
struct NoOwn;

#[async_trait]
impl Transport for NoOwn {
    async fn open(&self, peer: NodeId, _: Rpc, _: Frame, _: CallOptions) -> Result<Box<dyn Channel>, TransportError> {
        Err(TransportError::Unknown { peer })
    }
}

async fn quic(mtu_max: u16, mebibytes: usize, certificates: &Arc<Certificates>) -> Result<()> {
    let start = |node, listeners| {
        QuicTransport::start(QuicOptions {
            cluster: ClusterId::default(),
            node,
            tls: certificates.clone(),
            listeners,
            own: Arc::new(NoOwn),
            restart_secret: [0; 32],
            mtu_max,
        })
    };
    let listener = Listener { plane: Plane::Data, address: any_port(), service: Arc::new(Sink) };
    let server = start(NodeId(1), vec![listener])?;
    let client = start(NodeId(2), Vec::new())?;
    let data = vec![server.local_address(Plane::Data).context("no address")?];
    let addresses = NodeAddresses { data, ..NodeAddresses::default() };
    client.set_peers(vec![PeerRecord { node: NodeId(1), addresses, intent: NodeIntent::Active }]);
    let options = CallOptions { deadline: Duration::from_secs(600), epoch: None, request_id: 0 };
    let mut channel = client.open(NodeId(1), Rpc::ShardWrite, Frame::default(), options).await?;
    let piece: bytes::Bytes = vec![7; PIECE_BYTES].into();
    for _ in 0..mebibytes {
        channel.send(Frame { head: bytes::Bytes::new(), body: vec![piece.clone()] }).await?;
    }
    channel.finish().await?;
    let answer = channel.receive().await?.context("no answer")?;
    let bytes = u64::from_le_bytes(answer.head.as_ref().try_into()?);
    expect_all(bytes.try_into()?, mebibytes)?;
    client.close().await;
    server.close().await;
    Ok(())
}

/// One certificate for both ends.
struct Certificates {
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
}

impl Certificates {
    fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate: CertificateDer<'static> =
            CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&key)?.der().clone();
        let private: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone())?;
        let roots = Arc::new(roots);
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.clone()], private.clone_key())?;
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], private)?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

impl TlsSource for Certificates {
    fn server(&self, _: Plane) -> Arc<rustls::ServerConfig> {
        self.server.clone()
    }
    fn client(&self, _: Plane) -> Arc<rustls::ClientConfig> {
        self.client.clone()
    }
    /// Both ends show the same certificate: the client only ever meets node 1.
    fn identity(&self, _: &[u8]) -> Result<NodeIdentity, String> {
        let (region, zone) = ("here".to_owned(), "here".to_owned());
        Ok(NodeIdentity { cluster: ClusterId::default(), node: NodeId(1), roles: Roles::BOTH, region, zone })
    }
    fn server_name(&self, _: NodeId) -> String {
        NAME.into()
    }
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name in brackets may hold blanks; user and system time are the 12th and 13th after it (proc(5)).
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) as f64 / rustix::param::clock_ticks_per_second().max(1) as f64
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|v| v.parse().ok()).unwrap_or(0.0)
}

fn say(text: &str) {
    // A reader that went away is no failure.
    let _ = writeln!(std::io::stdout(), "{text}");
}
