//! A network in process: nodes with their services, and the links between them.

use super::conditions::{Link, LinkConditions};
use super::end::{CallEnd, CallState, Side};
use crate::channel::{Call, CallOptions, Caller, Channel, Frame, Service, Transport};
use crate::error::TransportError;
use async_trait::async_trait;
use holdfast_proto::NodeId;
use holdfast_proto::cluster::{NodeIdentity, Role};
use holdfast_proto::rpc::{Plane, Rpc};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Calls a node may have under way at a peer: far more than a busy coordinator needs, few enough to bound memory.
const CALLS_MAX: usize = 1024;
/// A connection on which something was lost is given up after so much silence (QUIC's idle timeout).
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Settings of a network.
#[derive(Clone, Copy, Debug)]
pub struct LocalOptions {
    /// Of jitter and loss.
    pub seed: u64,
    /// Calls a node may have under way at a peer; more are `Busy`.
    pub calls_max: usize,
    /// After a loss a call fails with `Unreachable` when so much time has passed, unless its deadline comes first.
    pub silence_max: Duration,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { seed: 0, calls_max: CALLS_MAX, silence_max: SILENCE_MAX }
    }
}

/// Nodes of one process that call each other. Cheap to clone.
#[derive(Clone)]
pub struct LocalNetwork {
    shared: Arc<Shared>,
}

/// One node's way to the others. Cheap to clone.
#[derive(Clone)]
pub struct LocalTransport {
    shared: Arc<Shared>,
    caller: Caller,
}

pub(super) struct Shared {
    options: LocalOptions,
    pub(super) silence_max: Duration,
    state: Mutex<State>,
}

struct State {
    members: BTreeMap<NodeId, Member>,
    links: BTreeMap<(NodeId, NodeId), Link>,
    every_link: LinkConditions,
    /// Calls under way, by caller (`None` for strangers) and peer.
    calls: BTreeMap<(Option<NodeId>, NodeId), usize>,
    random: StdRng,
}

struct Member {
    identity: Arc<NodeIdentity>,
    service: Arc<dyn Service>,
    /// Cancelled when it goes down.
    life: CancellationToken,
}

/// Counts a call as long as it lives.
pub(super) struct CallPermit {
    shared: Arc<Shared>,
    key: (Option<NodeId>, NodeId),
}

/// A stranger's number on links and in errors; no node has it.
const STRANGER: NodeId = NodeId(0);

impl LocalNetwork {
    /// A network without nodes.
    pub fn new(options: LocalOptions) -> Self {
        let state = State {
            members: BTreeMap::new(),
            links: BTreeMap::new(),
            every_link: LinkConditions::default(),
            calls: BTreeMap::new(),
            random: StdRng::seed_from_u64(options.seed),
        };
        let shared = Shared { options, silence_max: options.silence_max, state: Mutex::new(state) };
        Self { shared: Arc::new(shared) }
    }

    /// Enters a node with what serves its calls, and gives it its way to the others. A node that is entered again was
    /// restarted: calls of its former life are broken.
    pub fn join(&self, identity: NodeIdentity, service: Arc<dyn Service>) -> LocalTransport {
        let identity = Arc::new(identity);
        let member = Member { identity: identity.clone(), service, life: CancellationToken::new() };
        let former = self.shared.state.lock().members.insert(identity.node, member);
        if let Some(former) = former {
            former.life.cancel();
        }
        LocalTransport { shared: self.shared.clone(), caller: Caller::Node(identity) }
    }

    /// The node dies: what it serves is dropped, calls from and to it fail with `Unreachable`. It stays known.
    pub fn kill(&self, node: NodeId) {
        if let Some(member) = self.shared.state.lock().members.get(&node) {
            member.life.cancel();
        }
    }

    /// The way of somebody without a certificate.
    pub fn stranger(&self) -> LocalTransport {
        LocalTransport { shared: self.shared.clone(), caller: Caller::Stranger }
    }

    /// Sets one direction of a link.
    pub fn set_link(&self, from: NodeId, to: NodeId, conditions: LinkConditions) {
        let mut state = self.shared.state.lock();
        let every_link = state.every_link;
        let fresh = || Link::new(every_link);
        state.links.entry((from, to)).or_insert_with(fresh).conditions = conditions;
    }

    /// Sets every direction of every link, also those set before.
    pub fn set_every_link(&self, conditions: LinkConditions) {
        let mut state = self.shared.state.lock();
        state.every_link = conditions;
        state.links.values_mut().for_each(|link| link.conditions = conditions);
    }

    /// Cuts every link between a node of one side and one of the other, both ways.
    pub fn partition(&self, one: &[NodeId], other: &[NodeId]) {
        for &a in one {
            for &b in other {
                self.set_link(a, b, LinkConditions::CUT);
                self.set_link(b, a, LinkConditions::CUT);
            }
        }
    }

    /// Sets every link to pass everything at once.
    pub fn heal(&self) {
        self.set_every_link(LinkConditions::default());
    }
}

impl Shared {
    /// When something sent now arrives; `None` if it never does. A node reaches itself whatever the links do.
    pub(super) fn arrival(&self, from: NodeId, to: NodeId, bytes: usize) -> Option<Instant> {
        let now = Instant::now();
        if from == to {
            return Some(now);
        }
        let state = &mut *self.state.lock();
        let every_link = state.every_link;
        let fresh = || Link::new(every_link);
        state.links.entry((from, to)).or_insert_with(fresh).arrival(bytes, now, &mut state.random)
    }

    /// The peer's service and the lives a call with it depends on, and a permit for the call.
    fn admit(self: &Arc<Self>, caller: &Caller, to: NodeId, rpc: Rpc) -> Result<Admitted, TransportError> {
        let mut state = self.state.lock();
        let unreachable = |reason: &str| TransportError::Unreachable { peer: to, reason: reason.to_owned() };
        let own = match caller {
            Caller::Stranger => None,
            Caller::Node(identity) => Some(identity.node),
        };
        let own_life = match own.map(|own| state.members.get(&own)) {
            Some(Some(member)) => member.life.clone(),
            Some(None) => return Err(unreachable("this node has left the network")),
            None => CancellationToken::new(),
        };
        let member = state.members.get(&to).ok_or(TransportError::Unknown { peer: to })?;
        if !serves(&member.identity, rpc.plane()) {
            return Err(TransportError::Unknown { peer: to });
        }
        if member.life.is_cancelled() || own_life.is_cancelled() {
            return Err(unreachable("connection refused"));
        }
        if !rpc.may_be_called_by(caller.kind()) {
            return Err(TransportError::Refused { peer: to, reason: format!("{} is not allowed", rpc.name()) });
        }
        let (service, lives) = (member.service.clone(), [own_life, member.life.clone()]);
        let key = (own, to);
        let calls = state.calls.entry(key).or_default();
        if *calls >= self.options.calls_max {
            return Err(TransportError::Busy { peer: to });
        }
        *calls += 1;
        Ok(Admitted { service, lives, permit: CallPermit { shared: self.clone(), key } })
    }
}

/// Whether a node listens on a plane.
fn serves(identity: &NodeIdentity, plane: Plane) -> bool {
    match plane {
        Plane::Data => identity.roles.has(Role::Storage),
        Plane::Consensus | Plane::Control => identity.roles.has(Role::Coordinator),
    }
}

struct Admitted {
    service: Arc<dyn Service>,
    lives: [CancellationToken; 2],
    permit: CallPermit,
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if let Some(calls) = state.calls.get_mut(&self.key) {
            *calls = calls.saturating_sub(1);
        }
    }
}

#[async_trait]
impl Transport for LocalTransport {
    async fn open(
        &self,
        to: NodeId,
        rpc: Rpc,
        first: Frame,
        options: CallOptions,
    ) -> Result<Box<dyn Channel>, TransportError> {
        first.check()?;
        let Admitted { service, lives, permit } = self.shared.admit(&self.caller, to, rpc)?;
        let from = match &self.caller {
            Caller::Stranger => STRANGER,
            Caller::Node(identity) => identity.node,
        };
        let deadline = Instant::now() + options.deadline;
        let call = CallState::new(self.shared.clone(), deadline, [to, from], lives);
        call.transmit(Side::Caller, first);
        let told = Call {
            caller: self.caller.clone(),
            rpc,
            epoch: options.epoch,
            request_id: options.request_id,
            deadline: options.deadline,
        };
        tokio::spawn(serve(service, told, call.clone()));
        Ok(Box::new(CallEnd { call, side: Side::Caller, has_seen_end: false, _permit: Some(permit) }))
    }
}

/// Serves a call from the arrival of its first frame until it is done, cancelled, broken or late.
async fn serve(service: Arc<dyn Service>, mut told: Call, call: Arc<CallState>) {
    let (from, rpc) = (call.ends[Side::Service as usize], told.rpc.name());
    let end = CallEnd { call: call.clone(), side: Side::Service, has_seen_end: false, _permit: None };
    let serving = async {
        call.pipes[Side::Caller as usize].wait_for_first().await;
        told.deadline = call.deadline.saturating_duration_since(Instant::now());
        service.serve(told, Box::new(end)).await
    };
    tokio::select! {
        biased;
        _ = call.doom(from) => tracing::debug!(%from, rpc, "a call broke off"),
        () = call.caller_hung_up() => tracing::debug!(%from, rpc, "a call was cancelled"),
        served = serving => if let Err(error) = served {
            tracing::debug!(%from, rpc, %error, "serve a call");
        },
    }
}
