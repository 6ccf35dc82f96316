//! Frames arrive as they were sent; deadlines, cancellation and limits end calls on both sides.

use super::super::settings::{CALLS_IN_MAX, CALLS_OUT_MAX};
use super::*;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

fn patterned(bytes: usize, seed: u8) -> Bytes {
    (0..bytes).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<_>>().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_every_size_come_back_as_they_went() {
    let (a, b) = pair(echo());
    let mut channel = a.open(b.id, Rpc::ShardWrite, 60 * SECOND).await.unwrap();
    assert_eq!(channel.receive().await, Ok(Some(Frame::default())), "the first frame, an empty one");
    let sizes =
        [(0, 1), (1, 0), (1024, 1), (1025, 4096), (70_000, 1 << 20), (Frame::HEAD_BYTES_MAX, Frame::BODY_BYTES_MAX)];
    for (head, body) in sizes {
        let body = patterned(body, 7);
        let pieces = vec![body.slice(..body.len() / 3), Bytes::new(), body.slice(body.len() / 3..)];
        let frame = Frame { head: patterned(head, 3), body: pieces };
        channel.send(frame.clone()).await.unwrap();
        let back = channel.receive().await.unwrap().unwrap();
        assert_eq!(back.head, frame.head);
        assert_eq!(back.body.concat(), body);
    }
    channel.finish().await.unwrap();
    assert_eq!(channel.receive().await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_sees_who_calls_and_with_what() {
    let (seen, mut calls) = mpsc::unbounded_channel();
    let (a, b) = pair(serve(move |call, mut channel| {
        let seen = seen.clone();
        async move {
            let frame = channel.receive().await?;
            let _ = seen.send((call, frame));
            channel.send(Frame::head_only("yes".into())).await?;
            channel.finish().await
        }
    }));
    assert_eq!(a.call(b.id, Rpc::Propose, b"please").await.unwrap().head, "yes");
    let (call, frame) = calls.recv().await.unwrap();
    assert!(matches!(&call.caller, crate::channel::Caller::Node(who) if who.node == a.id && who.zone == "a"));
    assert_eq!((call.rpc, call.epoch, call.request_id), (Rpc::Propose, Some(Epoch(3)), 42));
    assert!(call.deadline > 4 * SECOND && call.deadline <= 5 * SECOND, "{:?}", call.deadline);
    assert_eq!(frame.unwrap().head, "please");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_the_own_node_do_not_leave_it() {
    let (a, _b) = pair(echo());
    let error = a.call(a.id, Rpc::DataPing, b"").await.unwrap_err();
    assert!(error.to_string().contains("in process"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_above_the_limit_is_refused_before_it_is_sent() {
    let (a, b) = pair(echo());
    let mut channel = a.open(b.id, Rpc::ShardWrite, 5 * SECOND).await.unwrap();
    let frame = Frame { head: Bytes::new(), body: vec![vec![0; Frame::BODY_BYTES_MAX + 1].into()] };
    assert!(matches!(channel.send(frame).await, Err(TransportError::Malformed { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_deadline_the_caller_is_free_and_the_work_is_dropped() {
    let (started, mut works) = mpsc::unbounded_channel();
    let (a, b) = pair(hang(started));
    let begin = Instant::now();
    let mut channel = a.open(b.id, Rpc::ShardRead, Duration::from_millis(300)).await.unwrap();
    let mut work = works.recv().await.unwrap();
    assert_eq!(channel.receive().await, Err(TransportError::Timeout { peer: b.id }));
    assert!(begin.elapsed() < 2 * SECOND);
    timeout(2 * SECOND, work.closed()).await.expect("the work goes on");
    drop(channel);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_ends_at_the_deadline_also_when_nobody_tells_it() {
    let (started, mut works) = mpsc::unbounded_channel();
    let (a, b) = pair(hang(started));
    // The channel is neither read nor dropped: only the server's own clock can end the work.
    let _channel = a.open(b.id, Rpc::ShardRead, Duration::from_millis(300)).await.unwrap();
    let mut work = works.recv().await.unwrap();
    timeout(2 * SECOND, work.closed()).await.expect("the work goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_channel_frees_the_work_of_the_peer() {
    let (started, mut works) = mpsc::unbounded_channel();
    let (a, b) = pair(hang(started));
    let mut channel = a.open(b.id, Rpc::ShardRead, 60 * SECOND).await.unwrap();
    channel.finish().await.unwrap();
    let mut work = works.recv().await.unwrap();
    assert!(timeout(SECOND / 5, work.closed()).await.is_err(), "dropped although the caller waits");
    drop(channel);
    timeout(2 * SECOND, work.closed()).await.expect("the work goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_outlives_a_caller_that_has_its_whole_answer() {
    let (done, mut ends) = mpsc::unbounded_channel();
    let (a, b) = pair(serve(move |_, mut channel| {
        let done = done.clone();
        async move {
            channel.receive().await?;
            channel.send(Frame::head_only("yes".into())).await?;
            channel.finish().await?;
            tokio::time::sleep(SECOND / 2).await;
            let _ = done.send(());
            Ok(())
        }
    }));
    assert_eq!(a.call(b.id, Rpc::DataPing, b"").await.unwrap().head, "yes");
    timeout(3 * SECOND, ends.recv()).await.expect("dropped with the channel").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_given_before_all_was_read_reaches_its_caller() {
    let (a, b) = pair(serve(|_, mut channel| async move {
        channel.receive().await?;
        channel.send(Frame::head_only("enough".into())).await?;
        channel.finish().await
    }));
    let mut channel = a.open(b.id, Rpc::ShardWrite, 20 * SECOND).await.unwrap();
    let frame = Frame { head: Bytes::new(), body: vec![patterned(1 << 20, 1)] };
    let mut sent = 0;
    let error = loop {
        match channel.send(frame.clone()).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1000, "nothing stops the sender");
    };
    assert_eq!(error, TransportError::Cancelled);
    assert_eq!(channel.receive().await.unwrap().unwrap().head, "enough");
    assert_eq!(channel.receive().await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failure_every_further_step_fails_alike() {
    let (started, _works) = mpsc::unbounded_channel();
    let (a, b) = pair(hang(started));
    let mut channel = a.open(b.id, Rpc::ShardRead, Duration::from_millis(200)).await.unwrap();
    let timeout = TransportError::Timeout { peer: b.id };
    assert_eq!(channel.receive().await, Err(timeout.clone()));
    assert_eq!(channel.receive().await, Err(timeout.clone()), "an end that nobody sent");
    assert_eq!(channel.send(Frame::default()).await, Err(timeout.clone()));
    assert_eq!(channel.finish().await, Err(timeout));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_frame_can_be_given_up_and_taken_up_again() {
    let (a, b) = pair(serve(|_, mut channel| async move {
        for n in 0..20u8 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            channel.send(Frame { head: vec![n].into(), body: vec![patterned(300_000, n)] }).await?;
        }
        channel.finish().await
    }));
    let mut channel = a.open(b.id, Rpc::ShardRead, 60 * SECOND).await.unwrap();
    let mut given_up = 0;
    let mut expected = 0..20u8;
    loop {
        match timeout(Duration::from_millis(3), channel.receive()).await {
            Err(_) => given_up += 1,
            Ok(Ok(Some(frame))) => {
                let n = expected.next().unwrap();
                assert_eq!(frame.head, vec![n]);
                assert_eq!(frame.body.concat(), patterned(300_000, n));
            }
            Ok(end) => {
                assert_eq!(end, Ok(None));
                break;
            }
        }
    }
    assert_eq!(expected.next(), None);
    assert!(given_up > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_or_panics_cancels_its_call_and_no_other() {
    let (a, b) = pair(serve(|call, mut channel| async move {
        match call.rpc {
            Rpc::ShardStat => Err(TransportError::Cancelled),
            Rpc::ShardList => panic!("a bug planted by the test"),
            _ => {
                channel.send(Frame::default()).await?;
                channel.finish().await
            }
        }
    }));
    for rpc in [Rpc::ShardStat, Rpc::ShardList] {
        assert_eq!(a.call(b.id, rpc, b"").await, Err(TransportError::Cancelled), "{rpc:?}");
        assert!(a.call(b.id, Rpc::DataPing, b"").await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_too_many_is_busy_at_once_and_the_limit_is_given_back() {
    let (started, mut works) = mpsc::unbounded_channel();
    let (a, b) = pair(hang(started));
    let mut channels = Vec::new();
    for _ in 0..CALLS_OUT_MAX {
        channels.push(a.open(b.id, Rpc::ShardRead, 60 * SECOND).await.unwrap());
    }
    assert_eq!(a.open(b.id, Rpc::ShardRead, 60 * SECOND).await.err(), Some(TransportError::Busy { peer: b.id }));
    assert!(a.open(b.id, Rpc::RaftVote, 60 * SECOND).await.is_ok(), "other planes are not affected");
    channels.pop();
    assert!(a.open(b.id, Rpc::ShardRead, 60 * SECOND).await.is_ok());
    drop(channels);
    while let Ok(Some(mut work)) = timeout(SECOND, works.recv()).await {
        timeout(5 * SECOND, work.closed()).await.expect("the work goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_makes_more_calls_than_it_may_is_told_busy() {
    let (started, _works) = mpsc::unbounded_channel();
    let authority = Authority::new();
    let b = node(&authority, 2, hang(started));
    let connection =
        matrix::connect(&b, Plane::Data, &authority.tls(&identity(1, Roles::BOTH)).client(Plane::Data)).await;
    let connection = connection.unwrap();
    let mut calls = Vec::new();
    for _ in 0..CALLS_IN_MAX {
        calls.push(matrix::begin(&connection, Rpc::ShardRead).await.unwrap());
    }
    // Openings may be served out of order; the limit is met by one of them in any case.
    calls.push(matrix::begin(&connection, Rpc::ShardRead).await.unwrap());
    let answers = futures::future::select_all(calls.iter_mut().map(|call| call.receive()));
    let (first, _, _) = timeout(10 * SECOND, answers).await.unwrap();
    assert_eq!(first, Err(TransportError::Busy { peer: NodeId(0) }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_holds_a_bounded_amount_and_others_go_on() {
    let (counted, mut sent) = mpsc::unbounded_channel();
    let (a, b) = pair(serve(move |call, mut channel| {
        let counted = counted.clone();
        async move {
            if call.rpc == Rpc::DataPing {
                channel.send(Frame::default()).await?;
                return channel.finish().await;
            }
            loop {
                channel.send(Frame { head: Bytes::new(), body: vec![patterned(64 << 10, 0)] }).await?;
                let _ = counted.send(64usize << 10);
            }
        }
    }));
    let _stopped = a.open(b.id, Rpc::ShardRead, 60 * SECOND).await.unwrap();
    let mut bytes = 0;
    while let Ok(Some(more)) = timeout(SECOND, sent.recv()).await {
        bytes += more;
        assert!(bytes < 64 << 20, "the sender is not held back");
    }
    // One window of a stream, and what the sender keeps of it.
    assert!(bytes <= 4 << 20, "{bytes}");
    for _ in 0..10 {
        assert!(a.call(b.id, Rpc::DataPing, b"").await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_bytes_are_counted_by_plane_and_peer() {
    metrics();
    let authority = Authority::new();
    let (a, b) = (node(&authority, 9001, echo()), node(&authority, 9002, echo()));
    a.knows(&[&b]);
    a.call(b.id, Rpc::Propose, b"0123456789").await.unwrap();
    assert_eq!(a.call(NodeId(9003), Rpc::Propose, b"").await, Err(TransportError::Unknown { peer: NodeId(9003) }));
    let out = ["plane=\"consensus\"", "peer=\"9002\"", "direction=\"out\""];
    let inward = ["plane=\"consensus\"", "peer=\"9001\"", "direction=\"in\""];
    for labels in [out, inward] {
        assert_eq!(metric("holdfast_transport_calls_total", &labels), 1.0);
        assert_eq!(metric("holdfast_transport_connections{", &labels), 1.0);
        assert!(metric("holdfast_transport_sent_bytes_total", &labels) >= 30.0);
        assert!(metric("holdfast_transport_received_bytes_total", &labels) >= 30.0);
    }
    assert_eq!(metric("holdfast_transport_calls_under_way", &out), 0.0);
    let mut stuck = a.open(b.id, Rpc::Propose, 2 * SECOND).await.unwrap();
    stuck.receive().await.unwrap();
    stuck.receive().await.unwrap_err();
    let timeouts = [&out[..], &["cause=\"timeout\""]].concat();
    assert_eq!(metric("holdfast_transport_errors_total", &timeouts), 1.0);
}
