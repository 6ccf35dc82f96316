//! One direction of a call in process: a queue of frames with the time each arrives, bounded in bytes.
//!
//! **Invariant:** no more than `QUEUE_BYTES` (or one frame) wait in it; a sender waits for room. What was sent before the
//! end of a direction is handed out before the end is.

use crate::channel::Frame;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// What may wait for a receiver that falls behind: about a QUIC stream's window.
pub(super) const QUEUE_BYTES: usize = 4 << 20;
/// Counted for each frame beside its bytes, so that empty ones are bounded too.
const FRAME_COST: usize = 256;

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its sender has sent all there is.
    Finished,
    /// Its sender gave up.
    Cancelled,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Instant, Frame)>,
    queued_bytes: usize,
    end: Option<(Instant, End)>,
    /// The receiver stopped taking frames, and when the sender learns of it.
    deaf_from: Option<Instant>,
    last_arrival: Option<Instant>,
}

/// The queue; one sender and one receiver wait on it.
#[derive(Default)]
pub(super) struct Pipe {
    state: Mutex<State>,
    /// Something for the receiver.
    arrived: Notify,
    /// Something for the sender.
    room: Notify,
}

/// The receiver took no interest any more.
#[derive(Debug)]
pub(super) struct Deaf;

impl Pipe {
    /// Waits until the frame fits. Dropping the future is safe: nothing was taken then.
    pub(super) async fn wait_for_room(&self, frame: &Frame) -> Result<(), Deaf> {
        loop {
            let wake_at = {
                let state = self.state.lock();
                match state.deaf_from {
                    Some(at) if at <= Instant::now() => return Err(Deaf),
                    other => {
                        if state.queue.is_empty() || state.queued_bytes + cost(frame) <= QUEUE_BYTES {
                            return Ok(());
                        }
                        other
                    }
                }
            };
            match wake_at {
                Some(at) => sleep_until(at).await,
                None => self.room.notified().await,
            }
        }
    }

    /// Adds a frame that arrives `at`, or when those before it have.
    pub(super) fn push(&self, frame: Frame, at: Instant) {
        let mut state = self.state.lock();
        let at = state.last_arrival.map_or(at, |last| last.max(at));
        state.last_arrival = Some(at);
        state.queued_bytes += cost(&frame);
        state.queue.push_back((at, frame));
        drop(state);
        self.arrived.notify_one();
    }

    /// Ends the direction; only the first end counts.
    pub(super) fn end(&self, end: End, at: Instant) {
        let mut state = self.state.lock();
        let at = state.last_arrival.map_or(at, |last| last.max(at));
        state.end.get_or_insert((at, end));
        drop(state);
        self.arrived.notify_one();
    }

    /// The receiver is gone; the sender learns it `at`.
    pub(super) fn stop_listening(&self, at: Instant) {
        let mut state = self.state.lock();
        state.deaf_from.get_or_insert(at);
        state.queue.clear();
        state.queued_bytes = 0;
        drop(state);
        self.room.notify_one();
    }

    /// Waits until a first frame has arrived, or the direction has ended without any.
    pub(super) async fn wait_for_first(&self) {
        loop {
            let (arrival, now) = {
                let state = self.state.lock();
                (state.queue.front().map(|(at, _)| *at).or(state.end.map(|(at, _)| at)), Instant::now())
            };
            match arrival {
                Some(at) if at <= now => return,
                Some(at) => sleep_until(at).await,
                None => self.arrived.notified().await,
            }
        }
    }

    /// The next frame, or how the direction ended. Dropping the future loses no frame.
    pub(super) async fn next(&self) -> Result<Frame, End> {
        loop {
            let wake_at = {
                let mut state = self.state.lock();
                let now = Instant::now();
                match (state.queue.front(), state.end) {
                    (Some((at, _)), _) if *at <= now => {
                        let (_, frame) = state.queue.pop_front().expect("there is a first one");
                        state.queued_bytes -= cost(&frame);
                        drop(state);
                        self.room.notify_one();
                        return Ok(frame);
                    }
                    (Some((at, _)), _) => Some(*at),
                    (None, Some((at, end))) if at <= now => return Err(end),
                    (None, end) => end.map(|(at, _)| at),
                }
            };
            match wake_at {
                Some(at) => sleep_until(at).await,
                None => self.arrived.notified().await,
            }
        }
    }
}

fn cost(frame: &Frame) -> usize {
    FRAME_COST + frame.head.len() + frame.body_bytes()
}
