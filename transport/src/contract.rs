//! What every transport owes its callers and services, as checks that run against any of them. A new implementation is
//! done when [`check_all`] passes on it, under a paused clock or a real one.
//!
//! The checks return the first promise that was not kept instead of panicking.

use crate::channel::{Call, CallOptions, Caller, Channel, Frame, Service, Transport};
use crate::error::TransportError;
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_proto::cluster::{NodeIdentity, Role, Roles};
use holdfast_proto::rpc::Rpc;
use holdfast_proto::{ClusterId, Epoch, NodeId};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The cluster of the nodes in the checks.
pub const CLUSTER: ClusterId = ClusterId([0xc2; 16]);
/// A deadline that only passes when something is wrong.
const LONG: Duration = Duration::from_secs(20);
/// What a sender may have under way towards a receiver that takes nothing.
const UNREAD_BYTES_MAX: usize = 64 << 20;

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {detail}")]
pub struct Violation {
    /// Which check found it.
    pub check: &'static str,
    /// What was seen.
    pub detail: String,
}

/// Makes small networks of the transport under test.
#[async_trait]
pub trait Testbed: Send + Sync {
    /// Makes a network of these nodes, apart from those made before, with their services. Every node knows all others.
    /// The transports are given in the order of the nodes.
    async fn network(&self, nodes: Vec<(NodeIdentity, Arc<dyn Service>)>) -> Vec<Arc<dyn Transport>>;
    /// Kills a node of the network made last, as a power cut does.
    async fn kill(&self, node: NodeId);
}

/// What a check finds out.
type Finding = Result<(), String>;

/// A network of a storage node (1), a coordinator (2) and a node that is both (3).
struct Trio {
    storage: Arc<dyn Transport>,
    coordinator: Arc<dyn Transport>,
    both: Arc<dyn Transport>,
    probe: Arc<Probe>,
}

const STORAGE: NodeId = NodeId(1);
const BOTH: NodeId = NodeId(3);

/// Runs every check.
pub async fn check_all(bed: &dyn Testbed) -> Result<(), Violation> {
    macro_rules! run {
        ($($check:ident),* $(,)?) => {
            $($check(bed, &trio(bed).await).await
                .map_err(|detail| Violation { check: stringify!($check), detail })?;)*
        };
    }
    run!(
        a_reply_has_the_bytes_of_the_request,
        frames_stream_both_ways_in_order,
        what_goes_with_a_call_is_told,
        a_node_reaches_itself,
        frames_beyond_the_limits_are_refused,
        unknown_peers_are_refused,
        the_role_matrix_holds,
        the_deadline_ends_both_sides,
        a_dropped_channel_ends_the_service,
        a_failing_service_cancels,
        a_reply_before_the_end_of_the_request_arrives,
        a_sender_holds_a_bounded_amount,
        ends_are_seen_once_and_stay,
        a_dead_peer_is_unreachable,
    );
    Ok(())
}

/// Does what the first frame's head says, and counts.
#[derive(Default)]
struct Probe {
    calls: Mutex<Vec<Call>>,
    serving: Arc<AtomicUsize>,
}

struct Serving(Arc<AtomicUsize>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Service for Probe {
    async fn serve(&self, call: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
        self.calls.lock().push(call);
        self.serving.fetch_add(1, Ordering::SeqCst);
        let _serving = Serving(self.serving.clone());
        let Some(first) = channel.receive().await? else { return Err(TransportError::Cancelled) };
        match &first.head[..] {
            b"echo" => {
                channel.send(first).await?;
                while let Some(frame) = channel.receive().await? {
                    channel.send(frame).await?;
                }
                channel.finish().await
            }
            b"hang" => std::future::pending().await,
            b"early" => {
                channel.send(text("refused")).await?;
                channel.finish().await
            }
            _ => Err(TransportError::Cancelled),
        }
    }
}

fn text(head: &'static str) -> Frame {
    Frame::head_only(Bytes::from_static(head.as_bytes()))
}

fn identity(node: NodeId, roles: Roles) -> NodeIdentity {
    NodeIdentity { cluster: CLUSTER, node, roles, region: "r1".to_owned(), zone: format!("z{node}") }
}

async fn trio(bed: &dyn Testbed) -> Trio {
    let probe = Arc::new(Probe::default());
    let roles = [Roles::only(Role::Storage), Roles::only(Role::Coordinator), Roles::BOTH];
    let nodes = roles.into_iter().zip(1..);
    let nodes = nodes.map(|(roles, node)| (identity(NodeId(node), roles), probe.clone() as Arc<dyn Service>)).collect();
    let mut made = bed.network(nodes).await;
    let both = made.pop().expect("a transport for each node");
    let coordinator = made.pop().expect("a transport for each node");
    let storage = made.pop().expect("a transport for each node");
    Trio { storage, coordinator, both, probe }
}

fn options(deadline: Duration) -> CallOptions {
    CallOptions { deadline, epoch: None, request_id: 0 }
}

fn ensure(condition: bool, detail: impl FnOnce() -> String) -> Finding {
    if condition { Ok(()) } else { Err(detail()) }
}

fn told(error: TransportError) -> String {
    format!("failed: {error}")
}

/// What a call that must fail came to.
async fn failure(to: &dyn Transport, peer: NodeId, rpc: Rpc, first: Frame, deadline: Duration) -> TransportError {
    match to.call(peer, rpc, first, options(deadline)).await {
        Ok(reply) => TransportError::Malformed { reason: format!("it succeeded: {:?}", reply.head) },
        Err(error) => error,
    }
}

async fn nothing_is_served(trio: &Trio) -> Finding {
    for _ in 0..1000 {
        if trio.probe.serving.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(5)).await;
    }
    Err("the service goes on".to_owned())
}

async fn something_is_served(trio: &Trio) -> Finding {
    for _ in 0..1000 {
        if trio.probe.serving.load(Ordering::SeqCst) > 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(5)).await;
    }
    Err("the service was not called".to_owned())
}

fn pattern(len: usize, seed: u8) -> Bytes {
    (0..len).map(|at| (at % 251) as u8 ^ seed).collect()
}

async fn a_reply_has_the_bytes_of_the_request(_: &dyn Testbed, trio: &Trio) -> Finding {
    for pieces in [vec![], vec![0], vec![1, 0, 70_000], vec![65_536; 32], vec![Frame::BODY_BYTES_MAX]] {
        let body: Vec<Bytes> = pieces.iter().enumerate().map(|(n, &len)| pattern(len, n as u8)).collect();
        let request = Frame { body, ..text("echo") };
        let reply =
            trio.coordinator.call(STORAGE, Rpc::DataPing, request.clone(), options(LONG)).await.map_err(told)?;
        ensure(reply.head == request.head, || "another head".to_owned())?;
        ensure(reply.body.concat() == request.body.concat(), || format!("other bytes than {pieces:?}"))?;
    }
    Ok(())
}

async fn frames_stream_both_ways_in_order(_: &dyn Testbed, trio: &Trio) -> Finding {
    let mut channel = trio.coordinator.open(BOTH, Rpc::ShardWrite, text("echo"), options(LONG)).await.map_err(told)?;
    channel.receive().await.map_err(told)?;
    for number in 0..200u32 {
        let head = Bytes::copy_from_slice(&number.to_be_bytes());
        let frame = Frame { head: head.clone(), body: vec![pattern(1000 * (number as usize % 70), number as u8)] };
        channel.send(frame.clone()).await.map_err(told)?;
        let back = channel.receive().await.map_err(told)?.ok_or("the stream ended")?;
        let is_same = back.head == frame.head && back.body.concat() == frame.body.concat();
        ensure(is_same, || format!("frame {number} came back different"))?;
    }
    // Many at once, as far as the other side takes them in.
    for number in 0..50u32 {
        channel.send(Frame::head_only(Bytes::copy_from_slice(&number.to_be_bytes()))).await.map_err(told)?;
    }
    channel.finish().await.map_err(told)?;
    for number in 0..50u32 {
        let back = channel.receive().await.map_err(told)?.ok_or("the stream ended")?;
        ensure(back.head[..] == number.to_be_bytes(), || format!("frame {number} out of order"))?;
    }
    ensure(channel.receive().await.map_err(told)?.is_none(), || "a frame too many".to_owned())
}

async fn what_goes_with_a_call_is_told(_: &dyn Testbed, trio: &Trio) -> Finding {
    let asked = CallOptions { deadline: LONG, epoch: Some(Epoch(77)), request_id: u128::MAX - 5 };
    trio.coordinator.call(STORAGE, Rpc::ShardStat, text("echo"), asked).await.map_err(told)?;
    trio.storage.call(BOTH, Rpc::ShardRead, text("echo"), options(LONG)).await.map_err(told)?;
    let calls = trio.probe.calls.lock().clone();
    let [first, second] = &calls[..] else { return Err(format!("{} calls seen", calls.len())) };
    let caller = Caller::Node(Arc::new(identity(NodeId(2), Roles::only(Role::Coordinator))));
    ensure(first.caller == caller, || format!("caller {:?}", first.caller))?;
    ensure(first.rpc == Rpc::ShardStat && second.rpc == Rpc::ShardRead, || "another RPC".to_owned())?;
    ensure(first.epoch == asked.epoch && second.epoch.is_none(), || format!("epoch {:?}", first.epoch))?;
    ensure(first.request_id == asked.request_id, || "another request id".to_owned())?;
    let is_near = first.deadline <= LONG && first.deadline > LONG / 2;
    ensure(is_near, || format!("deadline {:?}", first.deadline))
}

async fn a_node_reaches_itself(_: &dyn Testbed, trio: &Trio) -> Finding {
    trio.both.call(BOTH, Rpc::ShardWrite, text("echo"), options(LONG)).await.map_err(told)?;
    trio.both.call(BOTH, Rpc::RaftAppend, text("echo"), options(LONG)).await.map_err(told).map(drop)
}

async fn frames_beyond_the_limits_are_refused(_: &dyn Testbed, trio: &Trio) -> Finding {
    let heads = Frame::head_only(Bytes::from(vec![0; Frame::HEAD_BYTES_MAX + 1]));
    let half = Bytes::from(vec![0; Frame::BODY_BYTES_MAX / 2 + 1]);
    let bodies = Frame { body: vec![half.clone(), half], ..text("echo") };
    for frame in [heads, bodies] {
        let error = failure(&*trio.coordinator, STORAGE, Rpc::DataPing, frame.clone(), LONG).await;
        ensure(matches!(error, TransportError::Malformed { .. }), || format!("as first frame: {error}"))?;
        let mut channel =
            trio.coordinator.open(STORAGE, Rpc::DataPing, text("echo"), options(LONG)).await.map_err(told)?;
        let sent = channel.send(frame).await;
        ensure(matches!(sent, Err(TransportError::Malformed { .. })), || format!("as a later frame: {sent:?}"))?;
    }
    Ok(())
}

async fn unknown_peers_are_refused(_: &dyn Testbed, trio: &Trio) -> Finding {
    // A storage node has no consensus plane.
    for (peer, rpc) in [(NodeId(99), Rpc::DataPing), (STORAGE, Rpc::ConsensusPing)] {
        let error = failure(&*trio.coordinator, peer, rpc, text("echo"), LONG).await;
        ensure(error == TransportError::Unknown { peer }, || format!("{peer} {}: {error}", rpc.name()))?;
    }
    Ok(())
}

async fn the_role_matrix_holds(_: &dyn Testbed, trio: &Trio) -> Finding {
    for &rpc in Rpc::ALL {
        let callers = [
            (&trio.storage, Roles::only(Role::Storage)),
            (&trio.coordinator, Roles::only(Role::Coordinator)),
            (&trio.both, Roles::BOTH),
        ];
        for (transport, roles) in callers {
            let before = trio.probe.calls.lock().len();
            let result = transport.call(BOTH, rpc, text("echo"), options(LONG)).await;
            let seen = trio.probe.calls.lock().len() - before;
            let name = rpc.name();
            if rpc.may_be_called_by(holdfast_proto::rpc::CallerKind::Node(roles)) {
                ensure(result.is_ok() && seen == 1, || format!("{roles} may call {name}, but: {result:?}"))?;
            } else {
                let is_refused = matches!(result, Err(TransportError::Refused { peer: BOTH, .. }));
                ensure(is_refused, || format!("{roles} must not call {name}, but: {result:?}"))?;
                ensure(seen == 0, || format!("the service saw {name} by {roles}"))?;
            }
        }
    }
    Ok(())
}

async fn the_deadline_ends_both_sides(_: &dyn Testbed, trio: &Trio) -> Finding {
    let started = Instant::now();
    let error = failure(&*trio.coordinator, STORAGE, Rpc::DataPing, text("hang"), Duration::from_millis(300)).await;
    ensure(error == TransportError::Timeout { peer: STORAGE }, || format!("{error}"))?;
    let taken = started.elapsed();
    let is_in_time = taken >= Duration::from_millis(250) && taken < Duration::from_secs(5);
    ensure(is_in_time, || format!("after {taken:?}"))?;
    nothing_is_served(trio).await
}

async fn a_dropped_channel_ends_the_service(_: &dyn Testbed, trio: &Trio) -> Finding {
    for has_finished in [false, true] {
        let mut channel =
            trio.coordinator.open(STORAGE, Rpc::DataPing, text("hang"), options(LONG)).await.map_err(told)?;
        something_is_served(trio).await?;
        if has_finished {
            channel.finish().await.map_err(told)?;
        }
        drop(channel);
        nothing_is_served(trio).await.map_err(|detail| format!("finished {has_finished}: {detail}"))?;
    }
    Ok(())
}

async fn a_failing_service_cancels(_: &dyn Testbed, trio: &Trio) -> Finding {
    let error = failure(&*trio.coordinator, STORAGE, Rpc::DataPing, text("fail"), LONG).await;
    ensure(error == TransportError::Cancelled, || format!("{error}"))
}

async fn a_reply_before_the_end_of_the_request_arrives(_: &dyn Testbed, trio: &Trio) -> Finding {
    let mut channel =
        trio.coordinator.open(STORAGE, Rpc::ShardWrite, text("early"), options(LONG)).await.map_err(told)?;
    let mut sent = Ok(());
    for _ in 0..1000 {
        sent = channel.send(Frame { body: vec![pattern(65_536, 1)], ..Frame::default() }).await;
        if sent.is_err() {
            break;
        }
    }
    ensure(sent == Err(TransportError::Cancelled), || format!("sending on came to {sent:?}"))?;
    let reply = channel.receive().await.map_err(told)?.ok_or("no reply")?;
    ensure(&reply.head[..] == b"refused", || "another reply".to_owned())?;
    ensure(channel.receive().await.map_err(told)?.is_none(), || "a frame too many".to_owned())
}

async fn a_sender_holds_a_bounded_amount(_: &dyn Testbed, trio: &Trio) -> Finding {
    let mut channel =
        trio.coordinator.open(STORAGE, Rpc::ShardWrite, text("hang"), options(LONG)).await.map_err(told)?;
    let frame = Frame { body: vec![pattern(1 << 20, 1)], ..Frame::default() };
    let mut sent = 0;
    while let Ok(result) = timeout(Duration::from_millis(500), channel.send(frame.clone())).await {
        result.map_err(told)?;
        sent += frame.body_bytes();
        ensure(sent <= UNREAD_BYTES_MAX, || format!("{sent} bytes were taken that nobody reads"))?;
    }
    Ok(())
}

async fn ends_are_seen_once_and_stay(_: &dyn Testbed, trio: &Trio) -> Finding {
    let mut channel = trio.coordinator.open(STORAGE, Rpc::DataPing, text("echo"), options(LONG)).await.map_err(told)?;
    channel.finish().await.map_err(told)?;
    channel.finish().await.map_err(told)?;
    ensure(channel.receive().await.map_err(told)?.is_some(), || "no reply".to_owned())?;
    for _ in 0..3 {
        ensure(channel.receive().await.map_err(told)?.is_none(), || "a frame too many".to_owned())?;
    }
    let late = channel.send(text("late")).await;
    ensure(late.is_err(), || "a frame was taken after the end".to_owned())
}

async fn a_dead_peer_is_unreachable(bed: &dyn Testbed, trio: &Trio) -> Finding {
    let mut channel = trio.coordinator.open(STORAGE, Rpc::DataPing, text("hang"), options(LONG)).await.map_err(told)?;
    something_is_served(trio).await?;
    bed.kill(STORAGE).await;
    let lost = channel.receive().await;
    let is_so = matches!(lost, Err(TransportError::Unreachable { .. } | TransportError::Cancelled));
    ensure(is_so, || format!("a call under way came to {lost:?}"))?;
    let error = failure(&*trio.coordinator, STORAGE, Rpc::DataPing, text("echo"), Duration::from_secs(2)).await;
    let is_so = matches!(error, TransportError::Unreachable { .. } | TransportError::Timeout { .. });
    ensure(is_so, || format!("a new call came to {error}"))
}
