//! Pings every node of the cluster map and feeds what comes of it to the judgement; serves the pings of other
//! coordinators.
//!
//! Shell: waits on the transport and the clock. One task runs it (`HealthWatch::run`); others ask it and tell it what
//! their own calls met.
//!
//! A node is pinged on every plane it serves, all at once; only if all answer is it a beat. A node is asked again only
//! when its last ping has ended, so a node that hangs costs one call.

use super::machine::{HealthMachine, Member, NodeState, Signal};
use super::slow::SlowJudge;
use crate::layout::Layout;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_proto::cluster::{NodeIntent, NodeRecord, Role};
use holdfast_proto::heartbeat::Heartbeat;
use holdfast_proto::node::BackendHealth;
use holdfast_proto::node_rpc::{self, NodeLoad, Ping, Pong, Reply};
use holdfast_proto::rpc::Rpc;
use holdfast_proto::{BackendId, Epoch, NodeId};
use holdfast_transport::{Call, CallOptions, Caller, Channel, Frame, Service, Transport, TransportError};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct HealthOptions {
    /// Between pings of a node.
    pub period: Duration,
    /// A ping that takes longer is a miss.
    pub timeout: Duration,
}

impl Default for HealthOptions {
    fn default() -> Self {
        // Two pings a second and peer: at 25 nodes under 1 % of a core. One that is lost is made up by the next before the
        // silence makes a suspect; two in a row are not.
        Self { period: Duration::from_millis(500), timeout: Duration::from_millis(900) }
    }
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeHealth {
    /// Alive or not.
    pub state: NodeState,
    /// It answers far later than the others.
    pub is_slow: bool,
    /// Its usual time for a ping; `None` before the first.
    pub ping: Option<Duration>,
    /// How busy its storage side said it was.
    pub load: Option<NodeLoad>,
    /// How it said its backends were.
    pub backends: BTreeMap<BackendId, BackendHealth>,
    /// The fence its storage side has in force.
    pub minimum_epoch: Epoch,
}

/// Watches the nodes.
pub struct HealthWatch {
    own: NodeId,
    transport: Arc<dyn Transport>,
    layout: Layout,
    options: HealthOptions,
    state: Mutex<State>,
    /// The states, for those who wait for a change.
    published: watch::Sender<BTreeMap<NodeId, NodeState>>,
    /// What storage nodes are told to refuse.
    minimum_epoch: AtomicU64,
    pings: AtomicU64,
}

struct State {
    machine: HealthMachine,
    slow: SlowJudge<NodeId>,
    pongs: BTreeMap<NodeId, Pong>,
}

/// What came of pinging one node.
struct Pinged {
    node: NodeId,
    took: Duration,
    outcome: Result<(Option<Pong>, Option<Heartbeat>), Option<Signal>>,
}

impl HealthWatch {
    /// Watches the nodes of `layout`'s map from node `own`.
    pub fn new(own: NodeId, transport: Arc<dyn Transport>, layout: Layout, options: HealthOptions) -> Arc<Self> {
        let state = State { machine: HealthMachine::new(own), slow: SlowJudge::default(), pongs: BTreeMap::new() };
        Arc::new(Self {
            own,
            transport,
            layout,
            options,
            state: Mutex::new(state),
            published: watch::Sender::new(BTreeMap::new()),
            minimum_epoch: AtomicU64::new(0),
            pings: AtomicU64::new(0),
        })
    }

    /// Pings until cancelled.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let mut ticks = interval(self.options.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pings = FuturesUnordered::new();
        let mut asked: BTreeSet<NodeId> = BTreeSet::new();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                Some(pinged) = pings.next() => {
                    let pinged: Pinged = pinged;
                    asked.remove(&pinged.node);
                    self.take(pinged);
                }
                _ = ticks.tick() => {
                    for record in self.renew_members() {
                        if asked.insert(record.id) {
                            pings.push(self.ping(record));
                        }
                    }
                }
            }
        }
    }

    /// A call to a node met this.
    pub fn signal(&self, node: NodeId, signal: Signal) {
        let now = Instant::now();
        self.state.lock().machine.handle_signal(node, signal, now);
        self.publish();
    }

    /// How a node is.
    pub fn state(&self, node: NodeId) -> NodeState {
        self.state.lock().machine.state(node)
    }

    /// The states of all other nodes, now and whenever one changes.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<NodeId, NodeState>> {
        self.published.subscribe()
    }

    /// All that is known of the other nodes.
    pub fn report(&self) -> BTreeMap<NodeId, NodeHealth> {
        let now = Instant::now();
        let state = self.state.lock();
        let health = |(node, node_state)| {
            let pong = state.pongs.get(&node);
            let backends = pong.and_then(|pong| pong.backends().ok()).unwrap_or_default();
            let health = NodeHealth {
                state: node_state,
                is_slow: state.slow.is_ejected(node, now),
                ping: state.slow.latency(node).map(|latency| latency.mean()),
                load: pong.and_then(|pong| pong.load),
                backends: backends.into_iter().collect(),
                minimum_epoch: pong.map(Pong::minimum_epoch).unwrap_or_default(),
            };
            (node, health)
        };
        state.machine.states().into_iter().map(health).collect()
    }

    /// Has storage nodes told, from the next ping on, to refuse what depends on a map older than `minimum`.
    /// `NodeHealth::minimum_epoch` says which of them have it in force.
    pub fn raise_fence(&self, minimum: Epoch) {
        self.minimum_epoch.fetch_max(minimum.0, Ordering::Relaxed);
    }

    /// Answers another coordinator's ping.
    fn answer(&self, caller: NodeId, heartbeat: &Heartbeat) -> Heartbeat {
        let now = Instant::now();
        let mut state = self.state.lock();
        if let Ok(suspects) = heartbeat.parse() {
            state.machine.handle_opinions(caller, suspects, now);
        }
        let suspects = state.machine.suspects();
        drop(state);
        self.publish();
        Heartbeat::new(&suspects)
    }

    /// Those to be pinged.
    fn renew_members(&self) -> Vec<NodeRecord> {
        let map = self.layout.current();
        let is_watched = |record: &&NodeRecord| record.id != self.own && record.intent != NodeIntent::Removed;
        let records: Vec<NodeRecord> = map.nodes.iter().filter(is_watched).cloned().collect();
        let member = |record: &NodeRecord| Member { node: record.id, is_observer: record.roles.has(Role::Coordinator) };
        let members: Vec<Member> = records.iter().map(member).collect();
        let mut state = self.state.lock();
        let now = Instant::now();
        state.machine.handle_members(&members, now);
        state.machine.handle_tick(now);
        state.slow.retain(|node| members.iter().any(|member| member.node == *node));
        state.pongs.retain(|node, _| members.iter().any(|member| member.node == *node));
        drop(state);
        self.publish();
        records
    }

    /// Pings a node on every plane it serves.
    async fn ping(&self, record: NodeRecord) -> Pinged {
        let started = Instant::now();
        let outcome = tokio::try_join!(
            async {
                if !record.roles.has(Role::Storage) {
                    return Ok(None);
                }
                let ping = Ping { minimum_epoch: self.minimum_epoch.load(Ordering::Relaxed) };
                let reply = self.call(record.id, Rpc::DataPing, node_rpc::encode(&ping)).await?;
                let pong = node_rpc::decode::<Reply>(&reply.head).and_then(Reply::into_result::<Pong>);
                match pong {
                    Ok(Ok(pong)) if pong.backends().is_ok() => Ok(Some(pong)),
                    _ => Err(None),
                }
            },
            async {
                if !record.roles.has(Role::Coordinator) {
                    return Ok(None);
                }
                let suspects = self.state.lock().machine.suspects();
                let heartbeat = node_rpc::encode(&Heartbeat::new(&suspects));
                let reply = self.call(record.id, Rpc::ConsensusPing, heartbeat).await?;
                node_rpc::decode::<Heartbeat>(&reply.head).map(Some).map_err(|_| None)
            },
        );
        Pinged { node: record.id, took: started.elapsed(), outcome }
    }

    async fn call(&self, to: NodeId, rpc: Rpc, head: bytes::Bytes) -> Result<Frame, Option<Signal>> {
        let number = self.pings.fetch_add(1, Ordering::Relaxed);
        let request_id = u128::from(self.own.0) << 64 | u128::from(number);
        let options = CallOptions { deadline: self.options.timeout, epoch: None, request_id };
        let called = self.transport.call(to, rpc, Frame::head_only(head), options).await;
        called.map_err(|error| match error {
            TransportError::Unreachable { .. } => Some(Signal::Broken),
            _ => None,
        })
    }

    fn take(&self, pinged: Pinged) {
        let now = Instant::now();
        let mut state = self.state.lock();
        match pinged.outcome {
            Ok((pong, heartbeat)) => {
                state.slow.handle_answer(pinged.node, pinged.took, now);
                if let Some(pong) = pong {
                    state.pongs.insert(pinged.node, pong);
                }
                if let Some(Ok(suspects)) = heartbeat.map(|heartbeat| heartbeat.parse()) {
                    state.machine.handle_opinions(pinged.node, suspects, now);
                }
                // Takes back its turn from an ejection whose time is over.
                state.slow.takes_turn(pinged.node, now);
                state.machine.handle_beat(pinged.node, now);
            }
            Err(signal) => state.machine.handle_miss(pinged.node, signal, now),
        }
        drop(state);
        self.publish();
    }

    /// Logs what changed, once, and tells those who wait.
    fn publish(&self) {
        let mut state = self.state.lock();
        while let Some(change) = state.machine.poll_transition() {
            let (node, from, to) = (change.node, change.from, change.to);
            match to {
                NodeState::Up | NodeState::Returned => tracing::info!(%node, ?from, ?to, "node answers"),
                NodeState::Suspect | NodeState::Lost => tracing::warn!(%node, ?from, ?to, "node does not answer"),
            }
            metrics::counter!("holdfast_node_transitions_total", "to" => format!("{to:?}").to_lowercase()).increment(1);
        }
        let states = state.machine.states();
        drop(state);
        self.published.send_if_modified(|published| {
            let is_news = *published != states;
            *published = states;
            is_news
        });
    }
}

/// Serves `ConsensusPing`, and nothing else.
#[async_trait]
impl Service for HealthWatch {
    async fn serve(&self, call: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
        let (Caller::Node(identity), Rpc::ConsensusPing) = (&call.caller, call.rpc) else {
            return Err(TransportError::Cancelled);
        };
        let Some(first) = channel.receive().await? else { return Err(TransportError::Cancelled) };
        let malformed = |error: node_rpc::Malformed| TransportError::Malformed { reason: error.to_string() };
        let heartbeat = node_rpc::decode::<Heartbeat>(&first.head).map_err(malformed)?;
        let reply = self.answer(identity.node, &heartbeat);
        channel.send(Frame::head_only(node_rpc::encode(&reply))).await?;
        channel.finish().await
    }
}
