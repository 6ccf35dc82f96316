//! The transport in process keeps the contract, and its links do as they are told.

use super::*;
use crate::channel::{Call, CallOptions, Channel, Frame, Service, Transport};
use crate::contract::{self, Testbed};
use crate::error::TransportError;
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_proto::NodeId;
use holdfast_proto::cluster::{NodeIdentity, Roles};
use holdfast_proto::rpc::Rpc;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

struct Bed {
    conditions: LinkConditions,
    last: Mutex<Option<LocalNetwork>>,
}

#[async_trait]
impl Testbed for Bed {
    async fn network(&self, nodes: Vec<(NodeIdentity, Arc<dyn Service>)>) -> Vec<Arc<dyn Transport>> {
        let network = LocalNetwork::new(LocalOptions::default());
        network.set_every_link(self.conditions);
        let join = |(identity, service)| Arc::new(network.join(identity, service)) as Arc<dyn Transport>;
        let made = nodes.into_iter().map(join).collect();
        *self.last.lock() = Some(network);
        made
    }

    async fn kill(&self, node: NodeId) {
        self.last.lock().as_ref().expect("a network").kill(node);
    }
}

#[tokio::test(start_paused = true)]
async fn keeps_the_contract() {
    let ms = Duration::from_millis;
    let slow = LinkConditions { delay: ms(2), jitter: ms(5), bytes_per_second: Some(1 << 30), ..Default::default() };
    for conditions in [LinkConditions::default(), slow] {
        let bed = Bed { conditions, last: Mutex::default() };
        assert_eq!(contract::check_all(&bed).await, Ok(()), "{conditions:?}");
    }
}

#[test]
fn keeps_the_contract_on_many_threads_and_a_real_clock() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let bed = Bed { conditions: LinkConditions::default(), last: Mutex::default() };
    assert_eq!(runtime.block_on(contract::check_all(&bed)), Ok(()));
}

/// Answers each frame with itself, after a while.
struct Echo(Duration);

#[async_trait]
impl Service for Echo {
    async fn serve(&self, _: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
        while let Some(frame) = channel.receive().await? {
            sleep(self.0).await;
            channel.send(frame).await?;
        }
        channel.finish().await
    }
}

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn pair(options: LocalOptions) -> (LocalNetwork, LocalTransport) {
    let network = LocalNetwork::new(options);
    let identity = |node| NodeIdentity {
        cluster: contract::CLUSTER,
        node,
        roles: Roles::BOTH,
        region: "r".into(),
        zone: "z".into(),
    };
    let transport = network.join(identity(A), Arc::new(Echo(Duration::ZERO)));
    network.join(identity(B), Arc::new(Echo(Duration::ZERO)));
    (network, transport)
}

fn ping() -> Frame {
    Frame::head_only(Bytes::from_static(b"ping"))
}

fn within(seconds: u64) -> CallOptions {
    CallOptions { deadline: Duration::from_secs(seconds), epoch: None, request_id: 1 }
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_silent_until_the_deadline_or_the_idle_timeout_and_heals() {
    let (network, transport) = pair(LocalOptions::default());
    for (from, to) in [(A, B), (B, A)] {
        network.set_link(from, to, LinkConditions::CUT);
        let started = Instant::now();
        assert_eq!(transport.call(B, Rpc::DataPing, ping(), within(2)).await, Err(TransportError::Timeout { peer: B }));
        assert_eq!(started.elapsed(), Duration::from_secs(2));
        let broken = transport.call(B, Rpc::DataPing, ping(), within(60)).await;
        assert!(matches!(broken, Err(TransportError::Unreachable { peer: B, .. })), "{broken:?}");
        assert_eq!(started.elapsed(), Duration::from_secs(17));
        // To itself a node always gets through.
        transport.call(A, Rpc::DataPing, ping(), within(1)).await.unwrap();
        network.heal();
        transport.call(B, Rpc::DataPing, ping(), within(1)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn delay_is_paid_each_way_and_losses_cost_the_call() {
    let (network, transport) = pair(LocalOptions::default());
    network.set_every_link(LinkConditions::delayed(Duration::from_millis(30)));
    let started = Instant::now();
    transport.call(B, Rpc::DataPing, ping(), within(1)).await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_millis(60));
    network.set_every_link(LinkConditions { lost_per_million: 300_000, ..Default::default() });
    let mut answered = 0;
    for _ in 0..100 {
        answered += usize::from(transport.call(B, Rpc::DataPing, ping(), within(1)).await.is_ok());
    }
    assert!((5..50).contains(&answered), "{answered} of 100 got through");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_loses_the_same_frames() {
    let mut outcomes = Vec::new();
    for seed in [7, 7, 8] {
        let (network, transport) = pair(LocalOptions { seed, ..LocalOptions::default() });
        network.set_every_link(LinkConditions { lost_per_million: 200_000, ..Default::default() });
        let mut outcome = Vec::new();
        for _ in 0..60 {
            outcome.push(transport.call(B, Rpc::DataPing, ping(), within(1)).await.is_ok());
        }
        outcomes.push(outcome);
    }
    assert_eq!(outcomes[0], outcomes[1]);
    assert_ne!(outcomes[0], outcomes[2]);
}

#[tokio::test(start_paused = true)]
async fn calls_under_way_are_bounded_and_strangers_may_only_join() {
    let (network, transport) = pair(LocalOptions { calls_max: 2, ..LocalOptions::default() });
    let first = transport.open(B, Rpc::DataPing, ping(), within(9)).await.unwrap();
    let _second = transport.open(B, Rpc::DataPing, ping(), within(9)).await.unwrap();
    let refused = transport.open(B, Rpc::DataPing, ping(), within(9)).await.err();
    assert_eq!(refused, Some(TransportError::Busy { peer: B }));
    drop(first);
    transport.call(B, Rpc::DataPing, ping(), within(9)).await.unwrap();
    let stranger = network.stranger();
    stranger.call(B, Rpc::Join, ping(), within(9)).await.unwrap();
    for &rpc in Rpc::ALL.iter().filter(|&&rpc| rpc != Rpc::Join) {
        let refused = stranger.call(B, rpc, ping(), within(9)).await;
        assert!(matches!(refused, Err(TransportError::Refused { .. })), "{rpc:?}: {refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_answers_and_calls_of_its_former_life_are_broken() {
    let (network, transport) = pair(LocalOptions::default());
    let mut channel = transport.open(B, Rpc::DataPing, ping(), within(60)).await.unwrap();
    network.kill(B);
    assert!(matches!(channel.receive().await, Err(TransportError::Unreachable { .. })));
    assert!(matches!(channel.send(ping()).await, Err(TransportError::Unreachable { .. })));
    assert!(transport.call(B, Rpc::DataPing, ping(), within(1)).await.is_err());
    let identity =
        NodeIdentity { cluster: contract::CLUSTER, node: B, roles: Roles::BOTH, region: "r".into(), zone: "z".into() };
    network.join(identity, Arc::new(Echo(Duration::ZERO)));
    transport.call(B, Rpc::DataPing, ping(), within(1)).await.unwrap();
}
