//! The dialling side: the connections to one plane of one peer, made when they are needed and kept.
//!
//! **Invariant:** of each connection at most one dial is under way, however many calls wait for it.

use super::addresses::{Addresses, Plan};
use super::caller::{self, CallStart, CallerChannel};
use super::causes;
use super::dial::{Dialer, Race};
use super::meters::{Direction, PeerMeters};
use super::settings::{BULK_CONNECTIONS, CALLS_OUT_MAX};
use super::stream::EndCode;
use crate::channel::{CallOptions, Frame};
use crate::error::TransportError;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use holdfast_proto::NodeId;
use holdfast_proto::rpc::{Plane, Rpc};
use parking_lot::Mutex;
use quinn::Connection;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

type Dial = Shared<BoxFuture<'static, Result<Connection, TransportError>>>;

/// One plane of one peer.
pub(super) struct Link {
    peer: NodeId,
    dialer: Arc<Dialer>,
    addresses: Mutex<Addresses>,
    slots: Vec<Slot>,
    calls: Arc<Semaphore>,
    meters: Arc<PeerMeters>,
    tasks: TaskTracker,
}

/// A place for one connection.
#[derive(Default)]
struct Slot {
    state: Mutex<SlotState>,
    calls: Arc<AtomicUsize>,
}

#[derive(Default)]
enum SlotState {
    #[default]
    Empty,
    Dialling(Dial),
    Connected(Connection, SocketAddr),
    /// The peer is no longer one.
    Closed,
}

impl Link {
    pub(super) fn new(peer: NodeId, dialer: Arc<Dialer>, tasks: TaskTracker) -> Arc<Self> {
        let plane = dialer.plane;
        let connections = if plane == Plane::Data { BULK_CONNECTIONS } else { 1 };
        Arc::new(Self {
            peer,
            dialer,
            addresses: Mutex::default(),
            slots: (0..connections).map(|_| Slot::default()).collect(),
            calls: Arc::new(Semaphore::new(CALLS_OUT_MAX)),
            meters: Arc::new(PeerMeters::new(plane, peer.to_string(), Direction::Out)),
            tasks,
        })
    }

    /// Where the peer is from now on. Connections to other places are closed.
    pub(super) fn set_addresses(&self, addresses: &[SocketAddr]) {
        let mut known = self.addresses.lock();
        known.set(addresses);
        for slot in &self.slots {
            let mut state = slot.state.lock();
            if let SlotState::Connected(connection, address) = &*state
                && !known.contains(*address)
            {
                connection.close(EndCode::Farewell.var_int(), b"the node has moved");
                *state = SlotState::Empty;
            }
        }
    }

    /// Ends every connection and takes no calls from now on.
    pub(super) fn close(&self, code: EndCode, reason: &str) {
        for slot in &self.slots {
            let state = std::mem::replace(&mut *slot.state.lock(), SlotState::Closed);
            if let SlotState::Connected(connection, _) = state {
                connection.close(code.var_int(), reason.as_bytes());
            }
        }
    }

    /// Opens a call within its deadline; `caller::begin` sends its first frame.
    pub(super) async fn open(
        self: &Arc<Self>,
        rpc: Rpc,
        first: Frame,
        options: CallOptions,
    ) -> Result<(CallerChannel, Frame), TransportError> {
        self.meters.calls.increment(1);
        let deadline = Instant::now() + options.deadline;
        let Ok(permit) = Arc::clone(&self.calls).try_acquire_owned() else {
            return Err(self.meters.failed(TransportError::Busy { peer: self.peer }));
        };
        let at = self.least_used();
        let kept = Box::new((permit, UnderWay::new(&self.slots[at].calls, &self.meters)));
        let meters = Arc::clone(&self.meters);
        let start = CallStart { peer: self.peer, rpc, first, options, deadline, meters, kept };
        match timeout_at(deadline, self.open_stream(at, start)).await {
            Ok(opened) => opened.map_err(|error| self.meters.failed(error)),
            Err(_) => Err(self.meters.failed(TransportError::Timeout { peer: self.peer })),
        }
    }

    /// A connection may have ended unnoticed. Then nothing was sent on it, and one other is tried.
    async fn open_stream(
        self: &Arc<Self>,
        at: usize,
        start: CallStart,
    ) -> Result<(CallerChannel, Frame), TransportError> {
        let connection = self.connection(at).await?;
        match caller::open(&connection, start, self.on_silence(at)).await {
            Ok(channel) => Ok(channel),
            Err((start, _)) => {
                let connection = self.connection(at).await?;
                let opened = caller::open(&connection, start, self.on_silence(at)).await;
                opened.map_err(|(_, error)| causes::of_connection(self.peer, &error))
            }
        }
    }

    fn least_used(&self) -> usize {
        let calls = |at: &usize| self.slots[*at].calls.load(Ordering::Relaxed);
        (0..self.slots.len()).min_by_key(calls).unwrap_or(0)
    }

    async fn connection(self: &Arc<Self>, at: usize) -> Result<Connection, TransportError> {
        let dial = {
            // Locks are taken in this order everywhere: addresses, then a slot.
            let mut addresses = self.addresses.lock();
            let mut state = self.slots[at].state.lock();
            self.notice_end(&mut addresses, &mut state);
            match &*state {
                SlotState::Connected(connection, _) => return Ok(connection.clone()),
                SlotState::Closed => return Err(TransportError::Unknown { peer: self.peer }),
                SlotState::Dialling(dial) => dial.clone(),
                SlotState::Empty => {
                    let order = match addresses.plan(Instant::now()) {
                        Plan::Try(order) => order,
                        Plan::Wait(_, cause) => return Err(cause),
                        Plan::Nowhere => return Err(TransportError::Unknown { peer: self.peer }),
                    };
                    let link = Arc::clone(self);
                    let dial = async move { link.dial(at, order).await }.boxed().shared();
                    // Whoever waits may give up; the next call finds the connection made.
                    self.tasks.spawn(dial.clone());
                    *state = SlotState::Dialling(dial.clone());
                    dial
                }
            }
        };
        dial.await
    }

    /// A peer that refuses us would refuse the next call's dial too: its address waits.
    fn notice_end(&self, addresses: &mut Addresses, state: &mut SlotState) {
        let SlotState::Connected(connection, address) = state else { return };
        let Some(end) = connection.close_reason() else { return };
        let cause = causes::of_connection(self.peer, &end);
        if matches!(cause, TransportError::Refused { .. } | TransportError::Busy { .. }) {
            addresses.failed(*address, cause, Instant::now(), rand::random());
        }
        *state = SlotState::Empty;
    }

    async fn dial(self: Arc<Self>, at: usize, order: Vec<SocketAddr>) -> Result<Connection, TransportError> {
        let Race { winner, failures } = self.dialer.dial(self.peer, order).await;
        let now = Instant::now();
        let mut addresses = self.addresses.lock();
        let mut cause = TransportError::Unknown { peer: self.peer };
        for (address, error) in failures {
            addresses.failed(address, error.clone(), now, rand::random());
            cause = error;
        }
        let mut state = self.slots[at].state.lock();
        let Some((connection, address)) = winner else {
            if matches!(*state, SlotState::Dialling(_)) {
                *state = SlotState::Empty;
            }
            return Err(cause);
        };
        addresses.answered(address);
        if !matches!(*state, SlotState::Dialling(_)) || !addresses.contains(address) {
            connection.close(EndCode::Farewell.var_int(), b"no longer needed");
            if !matches!(*state, SlotState::Closed) {
                *state = SlotState::Empty;
            }
            return Err(TransportError::Unknown { peer: self.peer });
        }
        *state = SlotState::Connected(connection.clone(), address);
        self.tasks.spawn(count_until_closed(connection.clone(), Arc::clone(&self.meters)));
        Ok(connection)
    }

    /// What a call does that had no sign of life from the peer: the path counts as dead, so that the next call tries
    /// another.
    fn on_silence(self: &Arc<Self>, at: usize) -> caller::OnSilence {
        let link = Arc::clone(self);
        Box::new(move |silent| {
            let mut addresses = link.addresses.lock();
            let mut state = link.slots[at].state.lock();
            if let SlotState::Connected(connection, address) = &*state
                && connection.stable_id() == silent.stable_id()
            {
                let cause = TransportError::Unreachable { peer: link.peer, reason: format!("{address} fell silent") };
                addresses.failed(*address, cause, Instant::now(), rand::random());
                *state = SlotState::Empty;
            }
            silent.close(EndCode::Farewell.var_int(), b"no sign of life");
        })
    }
}

#[cfg(test)]
impl Link {
    pub(super) fn connection_stats(&self) -> Vec<quinn::ConnectionStats> {
        let stats = |slot: &Slot| match &*slot.state.lock() {
            SlotState::Connected(connection, _) => Some(connection.stats()),
            _ => None,
        };
        self.slots.iter().filter_map(stats).collect()
    }
}

async fn count_until_closed(connection: Connection, meters: Arc<PeerMeters>) {
    meters.connections.increment(1.0);
    connection.closed().await;
    meters.connections.decrement(1.0);
}

/// A call counted in its slot until dropped.
struct UnderWay {
    calls: Arc<AtomicUsize>,
    meters: Arc<PeerMeters>,
}

impl UnderWay {
    fn new(calls: &Arc<AtomicUsize>, meters: &Arc<PeerMeters>) -> Self {
        calls.fetch_add(1, Ordering::Relaxed);
        meters.under_way.increment(1.0);
        Self { calls: Arc::clone(calls), meters: Arc::clone(meters) }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
        self.meters.under_way.decrement(1.0);
    }
}
