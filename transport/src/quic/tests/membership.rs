//! Who is let in: nodes of this cluster, with their newest certificates, and no longer those that were removed.

use super::*;
use holdfast_proto::cluster::Role;
use tokio::sync::mpsc;
use tokio::time::timeout;

fn refused_with(error: &TransportError, text: &str) -> bool {
    matches!(error, TransportError::Refused { reason, .. } if reason.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_refused_and_its_connections_end() {
    let (started, mut works) = mpsc::unbounded_channel();
    let (a, b) = pair(hang(started));
    let mut under_way = a.open(b.id, Rpc::ShardRead, 60 * SECOND).await.unwrap();
    let mut work = works.recv().await.unwrap();
    let removed = |node: &Node| PeerRecord { intent: NodeIntent::Removed, ..node.record() };
    b.transport.set_peers(vec![removed(&a)]);
    timeout(2 * SECOND, work.closed()).await.expect("its work goes on");
    let error = under_way.receive().await.unwrap_err();
    assert!(refused_with(&error, "node 1 was removed"), "{error}");
    // It may dial again, and is told the same.
    let error = a.call(b.id, Rpc::ShardRead, b"").await.unwrap_err();
    assert!(refused_with(&error, "node 1 was removed"), "{error}");
    // Nor is it called any more.
    let error = b.call(a.id, Rpc::DataPing, b"").await.unwrap_err();
    assert!(refused_with(&error, "removed"), "{error}");
    assert!(works.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_no_longer_listed_is_unknown() {
    let (a, b) = pair(echo());
    a.call(b.id, Rpc::DataPing, b"").await.unwrap();
    a.transport.set_peers(vec![]);
    assert_eq!(a.call(b.id, Rpc::DataPing, b"").await, Err(TransportError::Unknown { peer: b.id }));
    a.knows(&[&b]);
    a.call(b.id, Rpc::DataPing, b"").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_a_node_does_not_serve_is_unknown() {
    let (a, b) = pair(echo());
    let mut record = b.record();
    record.addresses.consensus.clear();
    a.transport.set_peers(vec![record]);
    assert_eq!(a.call(b.id, Rpc::RaftVote, b"").await, Err(TransportError::Unknown { peer: b.id }));
    a.call(b.id, Rpc::DataPing, b"").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_another_ca_another_cluster_or_another_number_are_refused() {
    let authority = Authority::new();
    let other_cluster = NodeIdentity { cluster: ClusterId([9; 16]), ..identity(2, Roles::BOTH) };
    let cases = [
        ("another CA", node(&Authority::new(), 2, echo()), "handshake"),
        ("another cluster", node_as(&authority, &other_cluster, echo()), "cluster"),
        ("another number", node(&authority, 3, echo()), "handshake"),
    ];
    let a = node(&authority, 1, echo());
    for (what, other, reason) in cases {
        // Whoever answers there, node 2 was meant.
        a.transport.set_peers(vec![PeerRecord { node: NodeId(2), ..other.record() }]);
        let error = a.call(NodeId(2), Rpc::DataPing, b"").await.unwrap_err();
        assert!(refused_with(&error, reason), "{what}: {error}");
        // While it waits before it dials again, calls fail at once and for the same cause.
        let again = a.call(NodeId(2), Rpc::DataPing, b"").await.unwrap_err();
        assert!(refused_with(&again, reason), "{what}: {again}");
        a.transport.set_peers(vec![]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_refuses_callers_of_another_cluster_with_the_reason() {
    let authority = Authority::new();
    let server = node(&authority, 1, echo());
    let foreign = NodeIdentity { cluster: ClusterId([9; 16]), ..identity(2, Roles::BOTH) };
    let tls = authority.tls(&foreign).client(Plane::Data);
    let connection = matrix::connect(&server, Plane::Data, &tls).await.unwrap();
    let outcome = match matrix::begin(&connection, Rpc::DataPing).await {
        Ok(mut channel) => channel.receive().await.map(|_| ()),
        Err(error) => Err(error),
    };
    let error = outcome.unwrap_err();
    assert!(refused_with(&error, &format!("node 2 is of cluster {}", foreign.cluster)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_without_a_restart() {
    let (seen, mut callers) = mpsc::unbounded_channel();
    let authority = Authority::new();
    let service = serve(move |call: Call, mut channel: Box<dyn Channel>| {
        let _ = seen.send(call.caller);
        async move {
            channel.send(Frame::default()).await?;
            channel.finish().await
        }
    });
    let (a, b) = (node(&authority, 1, echo()), node(&authority, 2, service));
    let mut zone_of_caller = async || {
        a.knows(&[&b]);
        a.call(b.id, Rpc::DataPing, b"").await.unwrap();
        match callers.recv().await.unwrap() {
            crate::channel::Caller::Node(who) => (who.zone.clone(), who.roles),
            crate::channel::Caller::Stranger => panic!("a stranger"),
        }
    };
    assert_eq!(zone_of_caller().await, ("a".into(), Roles::BOTH));
    let moved = NodeIdentity { zone: "b".into(), ..identity(1, Roles::only(Role::Storage)) };
    a.tls.renew(&moved);
    b.tls.renew(&identity(2, Roles::BOTH));
    // A connection keeps the certificate it was made with.
    assert_eq!(zone_of_caller().await.0, "a");
    a.transport.set_peers(vec![]);
    assert_eq!(zone_of_caller().await, ("b".into(), Roles::only(Role::Storage)));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_connections_of_one_node_are_kept_than_it_needs() {
    use super::super::settings::PEER_CONNECTIONS_MAX;
    let authority = Authority::new();
    let server = node(&authority, 1, echo());
    let tls = authority.tls(&identity(2, Roles::BOTH)).client(Plane::Data);
    let mut connections = Vec::new();
    for _ in 0..PEER_CONNECTIONS_MAX + 3 {
        let connection = matrix::connect(&server, Plane::Data, &tls).await.unwrap();
        // Its place is taken once a call was served.
        matrix::begin(&connection, Rpc::DataPing).await.unwrap().receive().await.unwrap();
        connections.push(connection);
    }
    eventually(2 * SECOND, "the oldest are closed", || {
        connections.iter().filter(|c| c.close_reason().is_some()).count() == 3
    })
    .await;
    assert!(connections[..3].iter().all(|c| c.close_reason().is_some()));
    drop(connections);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_have_few_connections_and_small_frames() {
    use super::super::settings::{STRANGER_CONNECTIONS_MAX, STRANGER_FRAME_BYTES_MAX};
    let authority = Authority::new();
    let server = node(&authority, 1, echo());
    let mut connections = Vec::new();
    for _ in 0..STRANGER_CONNECTIONS_MAX {
        let connection = matrix::connect(&server, Plane::Control, &authority.stranger()).await.unwrap();
        matrix::begin(&connection, Rpc::Join).await.unwrap().receive().await.unwrap();
        connections.push(connection);
    }
    let one_more = matrix::connect(&server, Plane::Control, &authority.stranger()).await.unwrap();
    let outcome = match matrix::begin(&one_more, Rpc::Join).await {
        Ok(mut channel) => channel.receive().await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(refused_with(&outcome.unwrap_err(), "too many callers"));
    let mut channel = matrix::begin(&connections[0], Rpc::Join).await.unwrap();
    channel.receive().await.unwrap();
    let large = Frame { head: Bytes::new(), body: vec![vec![0; STRANGER_FRAME_BYTES_MAX + 1].into()] };
    channel.send(large).await.unwrap();
    let error = channel.receive().await.unwrap_err();
    assert!(matches!(error, TransportError::Malformed { .. }), "{error}");
    // Nodes are not kept out by strangers.
    let caller = node(&authority, 2, echo());
    caller.knows(&[&server]);
    caller.call(server.id, Rpc::ClusterMap, b"").await.unwrap();
}
