//! What anybody who reaches a port can send: noise, handshakes without an end, frames that lie about their length.

use super::super::settings::{HANDSHAKE_MAX, HANDSHAKES_UNPROVEN_MAX, transport_config};
use super::super::socket::GrantedBuffers;
use super::super::wire::{ANSWER_BYTES, Opening};
use super::*;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn noise_on_every_port_is_counted_and_harms_nobody() {
    metrics();
    let (a, b) = pair(echo());
    let sender = UdpSocket::bind(any_port()).unwrap();
    for plane in PLANES {
        let name = format!("plane=\"{}\"", plane_name(plane));
        let before = metric("holdfast_transport_foreign_datagrams_total", &[&name]);
        for n in 0..2_000u32 {
            let bytes: Vec<u8> = (0..n % 1500).map(|_| rand::random()).collect();
            sender.send_to(&bytes, b.address(plane)).unwrap();
        }
        eventually(5 * SECOND, "the noise is counted", || {
            metric("holdfast_transport_foreign_datagrams_total", &[&name]) - before >= 1_000.0
        })
        .await;
    }
    for rpc in [Rpc::DataPing, Rpc::RaftVote, Rpc::ClusterMap] {
        a.call(b.id, rpc, b"").await.unwrap();
    }
}

/// A socket that sends and never hears.
#[derive(Debug)]
struct Deaf(Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for Deaf {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.0).create_io_poller()
    }
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)
    }
    fn poll_recv(&self, _: &mut Context<'_>, _: &mut [IoSliceMut<'_>], _: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_without_an_end_are_bounded_and_end_and_nodes_get_through() {
    metrics();
    let (a, b) = pair(echo());
    let socket = TokioRuntime.wrap_udp_socket(UdpSocket::bind(any_port()).unwrap()).unwrap();
    let config = EndpointConfig::default();
    let deaf =
        Endpoint::new_with_abstract_socket(config, None, Arc::new(Deaf(socket)), Arc::new(TokioRuntime)).unwrap();
    let labels = ["plane=\"consensus\""];
    let deferred_before = metric("holdfast_transport_deferred_handshakes_total", &labels);
    let failed_before = metric("holdfast_transport_failed_handshakes_total", &labels);
    let granted = GrantedBuffers { receive_bytes: 1 << 20, send_bytes: 1 << 20 };
    let transport = transport_config(Plane::Consensus, granted, MTU_STANDARD);
    let tls = a.tls.client(Plane::Consensus);
    let client = dial::client_config(Plane::Consensus, &tls, &transport).unwrap();
    let address = b.address(Plane::Consensus);
    let half_open: Vec<_> =
        (0..400).map(|_| deaf.connect_with(client.clone(), address, &server_name(b.id)).unwrap()).collect();
    let door = Arc::clone(b.transport.planes[&Plane::Consensus].door.as_ref().unwrap());
    let under_way = move || settings::HANDSHAKES_MAX - door.handshakes.available_permits();
    eventually(5 * SECOND, "as many as may be unproven are under way", || under_way() == HANDSHAKES_UNPROVEN_MAX).await;
    eventually(5 * SECOND, "others are sent away", || {
        metric("holdfast_transport_deferred_handshakes_total", &labels) > deferred_before
    })
    .await;
    // Those whose address can be proven get through all the while.
    let mut tries = 1;
    while let Err(error) = a.call(b.id, Rpc::RaftVote, b"").await {
        assert!(tries < 3, "{error}");
        tries += 1;
    }
    assert!(under_way() <= HANDSHAKES_UNPROVEN_MAX + 1);
    drop(half_open);
    deaf.close(0u32.into(), b"");
    eventually(4 * HANDSHAKE_MAX, "all of them have ended", || under_way() == 0).await;
    let failed = metric("holdfast_transport_failed_handshakes_total", &labels) - failed_before;
    assert!(failed >= HANDSHAKES_UNPROVEN_MAX as f64, "{failed}");
}

/// A server, and a connection of a node that speaks QUIC but not our wire.
async fn rogue(service: Serve) -> (Node, quinn::Connection) {
    let authority = Authority::new();
    let server = node(&authority, 2, service);
    let tls = authority.tls(&identity(1, Roles::BOTH)).client(Plane::Data);
    let connection = matrix::connect(&server, Plane::Data, &tls).await.unwrap();
    (server, connection)
}

fn opening() -> Vec<u8> {
    let deadline = 30 * SECOND;
    Opening { version: 1, rpc: Rpc::ShardWrite.number(), deadline, epoch: None, request_id: 0 }.encode().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_call_are_refused_with_a_reason() {
    let (_server, connection) = rogue(echo()).await;
    let mut version_9 = opening();
    version_9[4] = 9;
    let mut rpc_999 = opening();
    rpc_999[6..8].copy_from_slice(&999u16.to_le_bytes());
    let cases = [
        (vec![], "a stream without a call"),
        (b"GET / HTTP/1.1".to_vec(), "ends within its first bytes"),
        (vec![0xff; 4096], "not the opening of a call"),
        (version_9, "wire version 9 is not spoken here"),
        (rpc_999, "there is no RPC 999"),
    ];
    for (bytes, reason) in cases {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        let answer = receive.read_to_end(4096).await.unwrap();
        assert_eq!(answer[6], 1, "{reason}");
        let said = String::from_utf8(answer[ANSWER_BYTES..].to_vec()).unwrap();
        assert!(said.contains(reason), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_claim_too_much_end_their_call_and_nothing_else() {
    let (results, mut seen) = mpsc::unbounded_channel();
    let (_server, connection) = rogue(serve(move |_, mut channel| {
        let results = results.clone();
        async move {
            let received = channel.receive().await;
            let _ = results.send(received.clone().map(|frame| frame.map(|f| f.head)));
            channel.send(Frame::default()).await?;
            channel.finish().await
        }
    }))
    .await;
    let lengths = |head: u32, body: u32| [head.to_le_bytes(), body.to_le_bytes()].concat();
    let cases = [
        (lengths(u32::MAX, u32::MAX), "a head of 4294967295 bytes"),
        (lengths(Frame::HEAD_BYTES_MAX as u32 + 1, 0), "a head of"),
        (lengths(0, Frame::BODY_BYTES_MAX as u32 + 1), "a body of"),
        ([lengths(10, 0), b"short".to_vec()].concat(), "ends within a frame"),
    ];
    for (bytes, expected) in cases {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(&[opening(), bytes].concat()).await.unwrap();
        let _ = send.finish();
        let result = seen.recv().await.unwrap();
        assert!(
            matches!(&result, Err(TransportError::Malformed { reason }) if reason.contains(expected)),
            "{result:?}"
        );
        assert!(receive.read_to_end(4096).await.is_err(), "{expected}: answered");
    }
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[opening(), lengths(2, 0), b"ok".to_vec()].concat()).await.unwrap();
    assert_eq!(seen.recv().await.unwrap(), Ok(Some("ok".into())));
    assert!(receive.read_to_end(4096).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_frames_under_way_from_one_peer_have_a_budget() {
    let (_server, connection) = rogue(echo()).await;
    let claims = settings::FRAME_BYTES_IN_MAX / Frame::BODY_BYTES_MAX;
    let mut under_way = Vec::new();
    let mut refused = 0;
    for n in 0..claims + 4 {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let lengths = [0u32.to_le_bytes(), (Frame::BODY_BYTES_MAX as u32).to_le_bytes()].concat();
        // Claims the most there is, sends one byte of it, and waits.
        send.write_all(&[opening(), lengths, vec![0]].concat()).await.unwrap();
        let reset = timeout(SECOND / 4, receive.received_reset()).await;
        let busy = matches!(reset, Ok(Ok(Some(code))) if code == EndCode::Busy.var_int());
        assert_eq!(busy, n >= claims, "claim {n}: {reset:?}");
        refused += usize::from(busy);
        under_way.push((send, receive));
    }
    assert_eq!(refused, 4);
    under_way.clear();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let body = vec![7; 1 << 20];
    let lengths = [0u32.to_le_bytes(), (body.len() as u32).to_le_bytes()].concat();
    send.write_all(&[opening(), lengths, body].concat()).await.unwrap();
    send.finish().unwrap();
    assert_eq!(receive.read_to_end(2 << 20).await.unwrap().len(), ANSWER_BYTES + 8 + (1 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_stay_silent_are_ended() {
    let (_server, connection) = rogue(echo()).await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&opening()[..10]).await.unwrap();
    let answer = timeout(settings::OPENING_MAX + 5 * SECOND, receive.read_to_end(4096)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("did not come in time"));
}
