//! What no caller gets past: the role matrix, the plane, the wire version.

use super::super::caller::{self, CallStart};
use super::super::dial::{attempt, client_config};
use super::super::meters::{Direction, PeerMeters};
use super::super::settings::transport_config;
use super::super::socket::GrantedBuffers;
use super::*;
use holdfast_proto::cluster::Role;
use holdfast_proto::rpc::CallerKind;
use quinn::Connection;
use tokio::sync::mpsc;

/// A connection to a plane of `node`, by whoever `tls` makes one.
pub(super) async fn connect(
    node: &Node,
    plane: Plane,
    tls: &Arc<rustls::ClientConfig>,
) -> Result<Connection, TransportError> {
    let endpoint = Endpoint::client(any_port()).unwrap();
    let granted = GrantedBuffers { receive_bytes: 4 << 20, send_bytes: 4 << 20 };
    let config = client_config(plane, tls, &transport_config(plane, granted, MTU_STANDARD)).unwrap();
    attempt(&endpoint, config, node.address(plane), &server_name(node.id), NodeId(0)).await
}

/// A call on that connection, whatever its plane.
pub(super) async fn begin(connection: &Connection, rpc: Rpc) -> Result<Box<dyn Channel>, TransportError> {
    let start = CallStart {
        peer: NodeId(0),
        rpc,
        first: Frame::head_only("hello".into()),
        options: within(10 * SECOND),
        deadline: tokio::time::Instant::now() + 10 * SECOND,
        meters: Arc::new(PeerMeters::new(rpc.plane(), "test".into(), Direction::Out)),
        kept: Box::new(()),
    };
    let opened = caller::open(connection, start, Box::new(|_| ())).await;
    let (channel, first) = opened.map_err(|(_, e)| causes::of_connection(NodeId(0), &e))?;
    caller::begin(channel, first).await
}

async fn call(connection: &Connection, rpc: Rpc) -> Result<Option<Frame>, TransportError> {
    let mut channel = begin(connection, rpc).await?;
    channel.finish().await?;
    channel.receive().await
}

fn recording() -> (Serve, mpsc::UnboundedReceiver<Rpc>) {
    let (seen, calls) = mpsc::unbounded_channel();
    let service = serve(move |call: Call, mut channel: Box<dyn Channel>| {
        let _ = seen.send(call.rpc);
        async move {
            channel.send(Frame::head_only("served".into())).await?;
            channel.finish().await
        }
    });
    (service, calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_by_every_caller_over_quic() {
    let authority = Authority::new();
    let (service, mut seen) = recording();
    let server = node(&authority, 1, service);
    let kinds = [
        CallerKind::Stranger,
        CallerKind::Node(Roles::only(Role::Storage)),
        CallerKind::Node(Roles::only(Role::Coordinator)),
        CallerKind::Node(Roles::BOTH),
    ];
    let (mut served, mut refused) = (0, 0);
    for kind in kinds {
        let tls = match kind {
            CallerKind::Stranger => authority.stranger(),
            CallerKind::Node(roles) => authority.tls(&identity(2, roles)).client(Plane::Data),
        };
        for plane in PLANES {
            let connection = connect(&server, plane, &tls).await;
            for &rpc in Rpc::ALL {
                let outcome = match &connection {
                    Ok(connection) => call(connection, rpc).await,
                    Err(error) => Err(error.clone()),
                };
                let name = format!("{kind:?} on {plane:?}: {rpc:?}: {outcome:?}");
                if rpc.plane() == plane && rpc.may_be_called_by(kind) {
                    assert_eq!(outcome.unwrap().unwrap().head, "served", "{name}");
                    assert_eq!(seen.try_recv(), Ok(rpc), "{name}");
                    served += 1;
                } else {
                    assert!(matches!(&outcome, Err(TransportError::Refused { .. })), "{name}");
                    refused += 1;
                }
                assert!(seen.try_recv().is_err(), "{name}");
            }
        }
    }
    assert_eq!(served + refused, kinds.len() * PLANES.len() * Rpc::ALL.len());
    assert!(served > Rpc::ALL.len(), "{served}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_by_the_transport_too_where_tls_would_let_them_in() {
    let authority = Authority::new();
    let (service, mut seen) = recording();
    let server = node(&authority, 1, service);
    server.tls.open_every_plane();
    for plane in [Plane::Data, Plane::Consensus] {
        let connection = connect(&server, plane, &authority.stranger()).await.unwrap();
        for &rpc in Rpc::ALL {
            let outcome = call(&connection, rpc).await;
            let expected = "needs a certificate of this cluster";
            assert!(
                matches!(&outcome, Err(TransportError::Refused { reason, .. }) if reason.contains(expected)),
                "{plane:?} {rpc:?}: {outcome:?}"
            );
        }
    }
    assert!(seen.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why() {
    let authority = Authority::new();
    let (service, _seen) = recording();
    let server = node(&authority, 1, service);
    let storage = authority.tls(&identity(2, Roles::only(Role::Storage))).client(Plane::Data);
    let data = connect(&server, Plane::Data, &storage).await.unwrap();
    let control = connect(&server, Plane::Control, &storage).await.unwrap();
    let cases = [
        (&data, Rpc::ShardWrite, "ShardWrite may not be called by node 2 (storage)"),
        (&data, Rpc::Join, "Join is served on the control plane, not on the data plane"),
        (&control, Rpc::AdminForward, "AdminForward may not be called by node 2 (storage)"),
    ];
    for (connection, rpc, expected) in cases {
        let refused = TransportError::Refused { peer: NodeId(0), reason: expected.into() };
        assert_eq!(call(connection, rpc).await, Err(refused));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_joins_by_a_channel_of_its_own() {
    let authority = Authority::new();
    let (service, mut seen) = recording();
    let server = node(&authority, 1, service);
    let silent = std::net::UdpSocket::bind(any_port()).unwrap();
    let addresses = vec![silent.local_addr().unwrap(), server.address(Plane::Control)];
    let dial = StrangerDial { addresses, tls: authority.stranger(), server_name: server_name(server.id) };
    let mut channel = dial_stranger(&dial, Rpc::Join, Frame::default(), within(5 * SECOND)).await.unwrap();
    assert_eq!(channel.receive().await.unwrap().unwrap().head, "served");
    assert_eq!(seen.try_recv(), Ok(Rpc::Join));
    // A cluster whose CA is another is not joined.
    let foreign = StrangerDial { tls: Authority::new().stranger(), ..dial };
    let error = dial_stranger(&foreign, Rpc::Join, Frame::default(), within(5 * SECOND)).await.err();
    assert!(matches!(error, Some(TransportError::Refused { .. })), "{error:?}");
}
