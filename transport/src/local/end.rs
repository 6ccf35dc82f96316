//! One end of a call in process: the `Channel` that its caller or its service holds.

use super::network::Shared;
use super::pipe::{End, Pipe};
use crate::channel::{Channel, Frame};
use crate::error::TransportError;
use async_trait::async_trait;
use holdfast_proto::NodeId;
use parking_lot::Mutex;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// What both ends of a call and the task that serves it share.
pub(super) struct CallState {
    pub(super) network: Arc<Shared>,
    pub(super) deadline: Instant,
    /// From the caller to the service, and back.
    pub(super) pipes: [Pipe; 2],
    /// Where each pipe leads.
    pub(super) ends: [NodeId; 2],
    /// The nodes' own: cancelled when one of them goes down.
    pub(super) lives: [CancellationToken; 2],
    /// When the first frame was lost on the way; from then on nothing more arrives.
    severed: Moment,
    /// When the service learns that its caller gave up.
    hung_up: Moment,
    /// Which ends finished sending.
    finished: Mutex<[bool; 2]>,
}

/// When something happened, once it has. Who waits for it is woken in the order of waiting: with tokio's watch channel the
/// order would be drawn from the system, and no run of a simulation like another.
#[derive(Default)]
struct Moment {
    at: Mutex<Option<Instant>>,
    known: Notify,
}

impl Moment {
    fn set(&self, at: Instant) {
        *self.at.lock() = Some(at);
        self.known.notify_waiters();
    }

    fn known(&self) -> Option<Instant> {
        *self.at.lock()
    }

    async fn wait(&self) -> Instant {
        loop {
            let mut news = pin!(self.known.notified());
            news.as_mut().enable();
            match self.known() {
                Some(at) => return at,
                None => news.await,
            }
        }
    }
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Caller = 0,
    Service = 1,
}

/// The channel.
pub(super) struct CallEnd {
    pub(super) call: Arc<CallState>,
    pub(super) side: Side,
    /// The other side's end was taken in.
    pub(super) has_seen_end: bool,
    /// Held as long as the call counts against its caller.
    pub(super) _permit: Option<super::network::CallPermit>,
}

impl CallState {
    pub(super) fn new(
        network: Arc<Shared>,
        deadline: Instant,
        ends: [NodeId; 2],
        lives: [CancellationToken; 2],
    ) -> Arc<Self> {
        Arc::new(Self {
            network,
            deadline,
            pipes: Default::default(),
            ends,
            lives,
            severed: Moment::default(),
            hung_up: Moment::default(),
            finished: Mutex::new([false; 2]),
        })
    }

    /// Sends from `side`; a frame that is lost takes all later ones of its call with it.
    pub(super) fn transmit(&self, side: Side, frame: Frame) {
        let bytes = frame.head.len() + frame.body_bytes();
        if let Some(at) = self.arrival(side, bytes) {
            self.pipes[side as usize].push(frame, at);
        }
    }

    /// When something that `side` sends now arrives; `None` once something of the call was lost.
    fn arrival(&self, side: Side, bytes: usize) -> Option<Instant> {
        if self.severed.known().is_some() {
            return None;
        }
        let [to, from] = match side {
            Side::Caller => self.ends,
            Side::Service => [self.ends[1], self.ends[0]],
        };
        let at = self.network.arrival(from, to, bytes);
        if at.is_none() {
            self.severed.set(Instant::now());
        }
        at
    }

    /// Ends when nothing will come of the call any more: a node is down, the connection has been silent for too long
    /// after a loss, or the deadline has passed.
    pub(super) async fn doom(&self, peer: NodeId) -> TransportError {
        let unreachable = |reason: &str| TransportError::Unreachable { peer, reason: reason.to_owned() };
        tokio::select! {
            biased;
            () = self.lives[0].cancelled() => unreachable("the connection broke"),
            () = self.lives[1].cancelled() => unreachable("the connection broke"),
            () = async {
                let lost_at = self.severed.wait().await;
                sleep_until(lost_at + self.network.silence_max).await;
            } => unreachable("nothing has come from it for too long"),
            () = sleep_until(self.deadline) => TransportError::Timeout { peer },
        }
    }

    /// Ends when the service has learned that its caller gave up.
    pub(super) async fn caller_hung_up(&self) {
        let at = self.hung_up.wait().await;
        sleep_until(at).await;
    }
}

impl CallEnd {
    fn outgoing(&self) -> &Pipe {
        &self.call.pipes[self.side as usize]
    }

    fn incoming(&self) -> &Pipe {
        &self.call.pipes[1 - self.side as usize]
    }

    fn peer(&self) -> NodeId {
        self.call.ends[self.side as usize]
    }

    /// The other side gave up. At the deadline both do, and either may be the first to.
    fn cancelled(&self) -> TransportError {
        match Instant::now() < self.call.deadline {
            true => TransportError::Cancelled,
            false => TransportError::Timeout { peer: self.peer() },
        }
    }

    fn has_finished(&self) -> bool {
        self.call.finished.lock()[self.side as usize]
    }
}

#[async_trait]
impl Channel for CallEnd {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        frame.check()?;
        if self.has_finished() {
            return Err(TransportError::Malformed { reason: "a frame after the end".to_owned() });
        }
        tokio::select! {
            biased;
            error = self.call.doom(self.peer()) => return Err(error),
            room = self.outgoing().wait_for_room(&frame) => room.map_err(|_| self.cancelled())?,
        }
        self.call.transmit(self.side, frame);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), TransportError> {
        let was_finished = std::mem::replace(&mut self.call.finished.lock()[self.side as usize], true);
        if !was_finished && let Some(at) = self.call.arrival(self.side, 0) {
            self.outgoing().end(End::Finished, at);
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        if self.has_seen_end {
            return Ok(None);
        }
        let next = tokio::select! {
            biased;
            next = self.incoming().next() => next,
            error = self.call.doom(self.peer()) => return Err(error),
        };
        match next {
            Ok(frame) => Ok(Some(frame)),
            Err(End::Finished) => {
                self.has_seen_end = true;
                Ok(None)
            }
            Err(End::Cancelled) => Err(self.cancelled()),
        }
    }
}

impl Drop for CallEnd {
    fn drop(&mut self) {
        let finished = *self.call.finished.lock();
        if finished == [true; 2] && self.has_seen_end {
            return;
        }
        // The news travels as everything does; over a cut link it does not.
        let Some(at) = self.call.arrival(self.side, 0) else { return };
        if !finished[self.side as usize] {
            self.outgoing().end(End::Cancelled, at);
        }
        if !self.has_seen_end {
            self.incoming().stop_listening(at);
        }
        if self.side == Side::Caller && finished != [true; 2] {
            self.call.hung_up.set(at);
        }
    }
}
