//! Watches on a network in process, in virtual time: deaths, cuts and slowness are seen by those they concern, within
//! their bounds, and end.

use super::*;
use crate::layout::Layout;
use crate::metadata::ClusterMap;
use async_trait::async_trait;
use holdfast_proto::cluster::{NodeAddresses, NodeIdentity, NodeIntent, NodeRecord, Role, Roles};
use holdfast_proto::node_rpc::{self, NodeLoad, Ping, Pong, Reply};
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::rpc::Rpc;
use holdfast_proto::{ClusterId, Epoch, NodeId};
use holdfast_transport::{
    Call, Channel, Frame, LinkConditions, LocalNetwork, LocalOptions, Service, Transport, TransportError,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const CLUSTER: ClusterId = ClusterId([7; 16]);

/// A node's two planes: heartbeats of coordinators go to its watch, those of storage are answered from here.
#[derive(Default)]
struct Node {
    watch: OnceLock<Arc<HealthWatch>>,
    fence: Mutex<Epoch>,
}

#[async_trait]
impl Service for Node {
    async fn serve(&self, call: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
        if call.rpc == Rpc::ConsensusPing {
            let watch = self.watch.get().cloned().ok_or(TransportError::Cancelled)?;
            return watch.serve(call, channel).await;
        }
        let first = channel.receive().await?.ok_or(TransportError::Cancelled)?;
        let ping: Ping = node_rpc::decode(&first.head).map_err(|_| TransportError::Cancelled)?;
        let minimum_epoch = {
            let mut fence = self.fence.lock();
            *fence = fence.max(Epoch(ping.minimum_epoch));
            fence.0
        };
        let pong = Pong { minimum_epoch, load: Some(NodeLoad { writers: 3, ..NodeLoad::default() }), backends: vec![] };
        channel.send(Frame::head_only(node_rpc::encode(&Reply::ok(&pong)))).await?;
        channel.finish().await
    }
}

struct World {
    network: LocalNetwork,
    map: ClusterMap,
    watches: BTreeMap<NodeId, Arc<HealthWatch>>,
    cancel: CancellationToken,
}

fn roles(node: u64, coordinators: u64) -> Roles {
    if node <= coordinators { Roles::BOTH } else { Roles::only(Role::Storage) }
}

impl World {
    /// Nodes 1..=coordinators watch; those after them only store.
    fn new(coordinators: u64, nodes: u64) -> Self {
        let record = |node| NodeRecord {
            id: NodeId(node),
            name: format!("n{node}"),
            roles: roles(node, coordinators),
            region: "r".into(),
            zone: "z".into(),
            addresses: NodeAddresses::default(),
            intent: NodeIntent::Active,
            joined_ms: 0,
        };
        let table = PgTable { epoch: Epoch(1), scheme: [0x1d, 1, 4, 2], pgs: Vec::new() };
        let map = ClusterMap { nodes: (1..=nodes).map(record).collect(), ..ClusterMap::new(CLUSTER, table) };
        let network = LocalNetwork::new(LocalOptions { seed: 5, ..LocalOptions::default() });
        let mut world = Self { network, map, watches: BTreeMap::new(), cancel: CancellationToken::new() };
        (1..=nodes).for_each(|node| world.start(NodeId(node)));
        world
    }

    fn start(&mut self, node: NodeId) {
        let roles = self.map.nodes[node.0 as usize - 1].roles;
        let service = Arc::new(Node::default());
        let identity = NodeIdentity { cluster: CLUSTER, node, roles, region: "r".into(), zone: "z".into() };
        let transport: Arc<dyn Transport> = Arc::new(self.network.join(identity, service.clone()));
        if roles.has(Role::Coordinator) {
            let watch = HealthWatch::new(node, transport, Layout::new(self.map.clone()), HealthOptions::default());
            assert!(service.watch.set(watch.clone()).is_ok());
            tokio::spawn(watch.clone().run(self.cancel.child_token()));
            self.watches.insert(node, watch);
        }
    }

    /// What a watch thinks of a node.
    fn sees(&self, observer: u64, node: u64) -> NodeState {
        self.watches[&NodeId(observer)].state(NodeId(node))
    }

    /// How long until it thinks so, watched at every change; gives up after `limit`.
    async fn time_until(&self, observer: u64, node: u64, state: NodeState, limit: Duration) -> Option<Duration> {
        let started = Instant::now();
        let mut states = self.watches[&NodeId(observer)].subscribe();
        let seen = states.wait_for(|states| states.get(&NodeId(node)) == Some(&state));
        tokio::time::timeout(limit, seen).await.ok()?.ok()?;
        Some(started.elapsed())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[tokio::test(start_paused = true)]
async fn a_killed_node_is_avoided_within_two_and_a_half_seconds_lost_soon_after_and_returns() {
    for (coordinators, nodes, victim) in [(3, 3, 2), (3, 5, 5)] {
        let mut world = World::new(coordinators, nodes);
        sleep(secs(10)).await;
        let observers = (1..=coordinators).filter(|observer| *observer != victim);
        assert!(observers.clone().all(|observer| world.sees(observer, victim) == NodeState::Up));
        world.network.kill(NodeId(victim));
        let suspected = world.time_until(1, victim, NodeState::Suspect, secs(60)).await.unwrap();
        assert!(suspected <= Duration::from_millis(2500), "suspect after {suspected:?}");
        for observer in observers.clone() {
            let lost = world.time_until(observer, victim, NodeState::Lost, secs(60)).await.unwrap();
            assert!(lost <= secs(7), "lost after {lost:?}");
        }
        world.start(NodeId(victim));
        let back = world.time_until(1, victim, NodeState::Returned, secs(60)).await.unwrap();
        assert!(back <= secs(3), "returned after {back:?}");
        let up = world.time_until(1, victim, NodeState::Up, secs(60)).await.unwrap();
        assert!(up <= PROVING + secs(2), "up after {up:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_seen_by_one_is_no_death_and_the_one_cut_off_declares_nobody() {
    let world = World::new(3, 4);
    sleep(secs(5)).await;
    // One way is enough to cost the answers.
    world.network.set_link(NodeId(4), NodeId(1), LinkConditions::CUT);
    world.time_until(1, 4, NodeState::Suspect, secs(10)).await.unwrap();
    sleep(secs(120)).await;
    assert_eq!((world.sees(1, 4), world.sees(2, 4)), (NodeState::Suspect, NodeState::Up));
    world.network.heal();
    world.time_until(1, 4, NodeState::Up, secs(30)).await.unwrap();
    // Node 1 alone on one side.
    world.network.partition(&[NodeId(1)], &[NodeId(2), NodeId(3), NodeId(4)]);
    sleep(secs(60)).await;
    assert_eq!([2, 3, 4].map(|node| world.sees(1, node)), [NodeState::Suspect; 3]);
    assert_eq!([2, 3].map(|observer| world.sees(observer, 1)), [NodeState::Lost; 2]);
    assert_eq!((world.sees(2, 3), world.sees(3, 4)), (NodeState::Up, NodeState::Up));
    world.network.heal();
    for (observer, node) in [(1, 2), (1, 3), (1, 4), (2, 1), (3, 1)] {
        world.time_until(observer, node, NodeState::Up, secs(60)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn delay_jitter_and_some_loss_change_nothing() {
    let world = World::new(3, 5);
    let ms = Duration::from_millis;
    world.network.set_every_link(LinkConditions {
        delay: ms(100),
        jitter: ms(150),
        lost_per_million: 2000,
        ..LinkConditions::default()
    });
    for _ in 0..1200 {
        sleep(ms(500)).await;
        let mut seen = world.watches.values().flat_map(|watch| watch.report().into_values());
        assert!(seen.all(|health| health.state != NodeState::Lost));
    }
    world.network.heal();
    sleep(secs(20)).await;
    for watch in world.watches.values() {
        assert!(watch.report().values().all(|health| health.state == NodeState::Up));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_node_is_marked_and_unmarked_and_pongs_are_kept() {
    let world = World::new(1, 5);
    sleep(secs(20)).await;
    let slow = |node: u64| world.watches[&NodeId(1)].report()[&NodeId(node)].is_slow;
    assert!((2..=5).all(|node| !slow(node)));
    world.network.set_link(NodeId(5), NodeId(1), LinkConditions::delayed(Duration::from_millis(600)));
    sleep(secs(20)).await;
    assert_eq!([2, 3, 4, 5].map(slow), [false, false, false, true]);
    let health = world.watches[&NodeId(1)].report()[&NodeId(5)].clone();
    assert_eq!((health.state, health.load.map(|load| load.writers)), (NodeState::Up, Some(3)));
    world.network.heal();
    sleep(secs(300)).await;
    assert!(!slow(5));
    // The fence goes out with the pings and comes back with the pongs.
    world.watches[&NodeId(1)].raise_fence(Epoch(9));
    sleep(secs(3)).await;
    assert!(world.watches[&NodeId(1)].report().values().all(|health| health.minimum_epoch == Epoch(9)));
}

#[tokio::test(start_paused = true)]
async fn broken_calls_of_others_count_at_once() {
    let world = World::new(3, 3);
    sleep(secs(3)).await;
    let watch = &world.watches[&NodeId(1)];
    (0..BROKEN_CALLS_MAX).for_each(|_| watch.signal(NodeId(2), Signal::Broken));
    assert_eq!(world.sees(1, 2), NodeState::Suspect);
    // It answers its pings: the calls broke for another reason.
    world.time_until(1, 2, NodeState::Up, secs(3)).await.unwrap();
}
