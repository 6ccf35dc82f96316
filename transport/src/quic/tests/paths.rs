//! Paths that die, addresses that do not answer, processes that start again, and frames of nine kilobytes.

use super::super::settings::HANDSHAKE_MAX;
use super::*;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

/// A way to a server that can be cut: passes datagrams on in both directions.
struct Path {
    address: SocketAddr,
    open: Arc<AtomicBool>,
}

type PassOn = Box<dyn Fn(&[u8], SocketAddr) + Send>;

fn path_to(server: SocketAddr) -> Path {
    let front = UdpSocket::bind(any_port()).unwrap();
    let back = UdpSocket::bind(any_port()).unwrap();
    back.connect(server).unwrap();
    let path = Path { address: front.local_addr().unwrap(), open: Arc::new(AtomicBool::new(true)) };
    let client: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
    let relay = |from: UdpSocket, send: PassOn, open: Arc<AtomicBool>| {
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((bytes, sender)) = from.recv_from(&mut buffer) {
                if open.load(Ordering::Relaxed) {
                    send(&buffer[..bytes], sender);
                }
            }
        });
    };
    let (to_client, to_server) = (front.try_clone().unwrap(), back.try_clone().unwrap());
    let seen = Arc::clone(&client);
    let forward = Box::new(move |bytes: &[u8], sender| {
        *seen.lock() = Some(sender);
        let _ = to_server.send(bytes);
    });
    relay(front, forward, Arc::clone(&path.open));
    let backward = Box::new(move |bytes: &[u8], _| {
        if let Some(client) = *client.lock() {
            let _ = to_client.send_to(bytes, client);
        }
    });
    relay(back, backward, Arc::clone(&path.open));
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_address_that_answers_is_used() {
    let (a, b) = pair(echo());
    let silent = UdpSocket::bind(any_port()).unwrap();
    let mut record = b.record();
    let real = record.addresses.data[0];
    record.addresses.data = vec![silent.local_addr().unwrap(), real];
    a.transport.set_peers(vec![record]);
    let begin = Instant::now();
    a.call(b.id, Rpc::DataPing, b"").await.unwrap();
    assert!(begin.elapsed() < SECOND, "waited for the silent one: {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_path_dies_calls_go_by_another() {
    let (a, b) = pair(echo());
    let (first, second) = (path_to(b.address(Plane::Data)), path_to(b.address(Plane::Data)));
    let mut record = b.record();
    record.addresses.data = vec![first.address, second.address];
    a.transport.set_peers(vec![record]);
    let ping = || async {
        let frame = Frame::default();
        a.transport.call(b.id, Rpc::DataPing, frame, within(SECOND + SECOND / 5)).await
    };
    // Packets that were under way when the path was cut make the first call look answered; the second shows the silence.
    let found_again = || async {
        for _ in 0..4 {
            match ping().await {
                Ok(_) => return,
                Err(error) => {
                    assert!(!matches!(error, TransportError::Unknown { .. } | TransportError::Refused { .. }))
                }
            }
        }
        panic!("four calls found no way");
    };
    found_again().await;
    first.open.store(false, Ordering::Relaxed);
    assert!(ping().await.is_err(), "went by a path that was cut");
    found_again().await;
    second.open.store(false, Ordering::Relaxed);
    first.open.store(true, Ordering::Relaxed);
    assert!(ping().await.is_err(), "went by a path that was cut");
    found_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nothing_answers_calls_fail_at_once_and_a_return_is_found() {
    let authority = Authority::new();
    let a = node(&authority, 1, echo());
    let place = UdpSocket::bind(any_port()).unwrap();
    let address = place.local_addr().unwrap();
    let addresses = NodeAddresses { data: vec![address], ..NodeAddresses::default() };
    a.transport.set_peers(vec![PeerRecord { node: NodeId(2), addresses, intent: NodeIntent::Active }]);
    let error = a.call(NodeId(2), Rpc::DataPing, b"").await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable { .. }), "{error}");
    // Its wait is over soon, on a busy machine even before the next call; so one of several calls must fail at once.
    let mut fastest = HANDSHAKE_MAX;
    for _ in 0..4 {
        let begin = Instant::now();
        let error = a.call(NodeId(2), Rpc::DataPing, b"").await.unwrap_err();
        assert!(matches!(error, TransportError::Unreachable { .. } | TransportError::Timeout { .. }), "{error}");
        fastest = fastest.min(begin.elapsed());
    }
    assert!(fastest < SECOND / 2, "dialled although it waits: {fastest:?}");
    drop(place);
    let identity = identity(2, Roles::BOTH);
    let options = options(&identity, authority.tls(&identity), &[(Plane::Data, address)], echo());
    let _returned = QuicTransport::start(options).unwrap();
    let begin = Instant::now();
    while a.call(NodeId(2), Rpc::DataPing, b"").await.is_err() {
        assert!(begin.elapsed() < 10 * SECOND, "not found again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A process that is killed says nothing. Its next life answers the connections of the one before with a reset.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_noticed_at_the_next_packet() {
    let authority = Authority::new();
    let a = node(&authority, 1, echo());
    let who = identity(2, Roles::BOTH);
    let tls = authority.tls(&who);
    let life = |address: SocketAddr| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build().unwrap();
        let options = options(&who, Arc::clone(&tls), &[(Plane::Data, address)], echo());
        let transport = runtime.block_on(async { QuicTransport::start(options).unwrap() });
        (runtime, transport)
    };
    let (first_life, first) = tokio::task::block_in_place(|| life(any_port()));
    let address = first.local_address(Plane::Data).unwrap();
    let addresses = NodeAddresses { data: vec![address], ..NodeAddresses::default() };
    a.transport.set_peers(vec![PeerRecord { node: who.node, addresses, intent: NodeIntent::Active }]);
    a.call(who.node, Rpc::DataPing, b"").await.unwrap();
    // Without its runtime it can say nothing, and its sockets are closed.
    tokio::task::block_in_place(|| first_life.shutdown_timeout(SECOND));
    drop(first);
    let (second_life, second) = tokio::task::block_in_place(|| life(address));
    let begin = Instant::now();
    // If a late acknowledgement met the second life before, there is a new connection already.
    if let Err(error) = a.call(who.node, Rpc::DataPing, b"").await {
        assert!(matches!(&error, TransportError::Unreachable { reason, .. } if reason.contains("reset")), "{error}");
    }
    a.call(who.node, Rpc::DataPing, b"").await.unwrap();
    // Silence would have taken fifteen seconds to be noticed.
    assert!(begin.elapsed() < 5 * SECOND, "{:?}", begin.elapsed());
    drop(second);
    second_life.shutdown_background();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_says_so() {
    let (a, b) = pair(echo());
    let mut channel = a.open(b.id, Rpc::ShardRead, 60 * SECOND).await.unwrap();
    channel.receive().await.unwrap();
    b.transport.close().await;
    let begin = Instant::now();
    let error = channel.receive().await.unwrap_err();
    assert!(matches!(&error, TransportError::Unreachable { reason, .. } if reason.contains("stops")), "{error}");
    assert!(begin.elapsed() < SECOND);
}

#[tokio::test(flavor = "multi_thread")]
async fn jumbo_datagrams_arrive() {
    let authority = Authority::new();
    let server = node(&authority, 2, echo());
    let a = node(&authority, 1, echo());
    a.knows(&[&server]);
    let body: Bytes = vec![5; 1 << 20].into();
    let mut channel = a.open(server.id, Rpc::ShardWrite, 120 * SECOND).await.unwrap();
    channel.receive().await.unwrap();
    for _ in 0..32 {
        channel.send(Frame { head: Bytes::new(), body: vec![body.clone()] }).await.unwrap();
        assert_eq!(channel.receive().await.unwrap().unwrap().body_bytes(), body.len());
    }
    let link = a.transport.link(server.id, Plane::Data).unwrap();
    let path = link.connection_stats()[0].path;
    assert_eq!(path.current_mtu, MTU_JUMBO);
    // The trap loses nine of ten batches. What a busy machine loses is less than this.
    assert!(path.lost_packets * 20 < path.sent_packets, "{path:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_a_clear_error() {
    let authority = Authority::new();
    let first = node(&authority, 1, echo());
    let who = identity(2, Roles::BOTH);
    let taken = first.address(Plane::Data);
    let error =
        QuicTransport::start(options(&who, authority.tls(&who), &[(Plane::Data, taken)], echo())).err().unwrap();
    assert!(matches!(&error, QuicStartError::Listen { address, .. } if *address == taken), "{error}");
}
