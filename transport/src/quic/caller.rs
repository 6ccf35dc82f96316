//! The caller's side of a call: opens, reads the answer, gives up at the deadline.

use super::causes;
use super::meters::PeerMeters;
use super::settings::SILENCE_MAX;
use super::stream::{EndCode, Stream, StreamEnd};
use super::wire::{ANSWER_BYTES, Answer, Opening};
use crate::channel::{CallOptions, Channel, Frame};
use crate::error::TransportError;
use async_trait::async_trait;
use holdfast_proto::NodeId;
use holdfast_proto::rpc::{Rpc, WIRE_VERSION};
use quinn::Connection;
use std::any::Any;
use std::sync::Arc;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

/// What goes into a call.
pub(super) struct CallStart {
    pub(super) peer: NodeId,
    pub(super) rpc: Rpc,
    pub(super) first: Frame,
    pub(super) options: CallOptions,
    pub(super) deadline: Instant,
    pub(super) meters: Arc<PeerMeters>,
    /// Kept until the channel is dropped: the permits of the call.
    pub(super) kept: Box<dyn Any + Send>,
}

/// Told when a call shows that a path is dead.
pub(super) type OnSilence = Box<dyn FnOnce(&Connection) + Send>;

/// A call under way, seen by the caller.
pub(super) struct CallerChannel {
    peer: NodeId,
    stream: Stream,
    connection: Connection,
    deadline: Instant,
    opened: Instant,
    /// Datagrams that had come from the peer when the call began.
    datagrams_before: u64,
    on_silence: Option<OnSilence>,
    answered: bool,
    /// The peer reads no more; what it has to say may still come.
    stopped: bool,
    over: Option<TransportError>,
    meters: Arc<PeerMeters>,
    _kept: Box<dyn Any + Send>,
}

/// Opens a stream, still without sending. If it fails the connection is at fault and another may be tried, for nothing of
/// the call was done. Hand the result to `begin`.
pub(super) async fn open(
    connection: &Connection,
    start: CallStart,
    on_silence: OnSilence,
) -> Result<(CallerChannel, Frame), (CallStart, quinn::ConnectionError)> {
    let streams = match connection.open_bi().await {
        Ok(streams) => streams,
        Err(error) => return Err((start, error)),
    };
    let opened = Instant::now();
    let mut stream = Stream::new(streams, Arc::clone(&start.meters));
    if start.rpc == Rpc::RaftSnapshot {
        stream.yield_to_others();
    }
    let opening = Opening {
        version: WIRE_VERSION,
        rpc: start.rpc.number(),
        deadline: start.deadline.saturating_duration_since(opened),
        epoch: start.options.epoch,
        request_id: start.options.request_id,
    };
    stream.put_first(&opening.encode());
    let channel = CallerChannel {
        peer: start.peer,
        stream,
        datagrams_before: connection.stats().udp_rx.datagrams,
        connection: connection.clone(),
        deadline: start.deadline,
        opened,
        on_silence: Some(on_silence),
        answered: false,
        stopped: false,
        over: None,
        meters: start.meters,
        _kept: start.kept,
    };
    Ok((channel, start.first))
}

/// Sends the first frame.
pub(super) async fn begin(mut channel: CallerChannel, first: Frame) -> Result<Box<dyn Channel>, TransportError> {
    channel.send(first).await?;
    Ok(Box::new(channel))
}

impl CallerChannel {
    async fn receive_until_the_end(&mut self) -> Result<Option<Frame>, TransportError> {
        self.read_answer().await?;
        let peer = self.peer;
        self.stream.receive(|_| Ok(())).await.map_err(|end| causes::of_stream(peer, end))
    }

    /// Reads the answer if it was not read yet.
    async fn read_answer(&mut self) -> Result<(), TransportError> {
        if self.answered {
            return Ok(());
        }
        let peer = self.peer;
        let lost = |end| causes::of_stream(peer, end);
        let fixed: [u8; ANSWER_BYTES] =
            self.stream.receive_fixed().await.map_err(lost)?.ok_or(TransportError::Cancelled)?;
        let (answer, reason_bytes) = Answer::decode_fixed(&fixed).map_err(|e| lost(e.into()))?;
        let answer = match reason_bytes {
            0 => answer,
            // A wait given up here loses the fixed part; the call is then over anyway, for no frame can follow a refusal.
            _ => answer.with_reason(&self.stream.receive_bytes(reason_bytes).await.map_err(lost)?),
        };
        match answer {
            Answer::Accepted => {
                self.answered = true;
                Ok(())
            }
            Answer::Refused(reason) => Err(TransportError::Refused { peer, reason }),
            Answer::Busy(_) => Err(TransportError::Busy { peer }),
        }
    }

    /// A peer that refuses stops reading; its answer says why. So does one that has replied before it had read all: then
    /// sending is over, and `receive` has the reply.
    async fn explain(&mut self, end: StreamEnd) -> TransportError {
        if let StreamEnd::Stopped(_) = end {
            match self.read_answer().await {
                Ok(()) => self.stopped = true,
                Err(error) => return error,
            }
        }
        causes::of_stream(self.peer, end)
    }

    async fn send_explained(&mut self, frame: Frame) -> Result<(), TransportError> {
        match self.stream.send(frame).await {
            Ok(()) => Ok(()),
            Err(end) => Err(self.explain(end).await),
        }
    }

    async fn finish_explained(&mut self) -> Result<(), TransportError> {
        match self.stream.finish().await {
            Ok(()) => Ok(()),
            Err(end) => Err(self.explain(end).await),
        }
    }

    /// Fails every step after one that failed.
    fn still_open(&self) -> Result<(), TransportError> {
        self.over.clone().map_or(Ok(()), Err)
    }

    /// Judges how a step ended.
    fn outcome<T>(&mut self, result: Result<Result<T, TransportError>, Elapsed>) -> Result<T, TransportError> {
        let (error, code) = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(TransportError::Cancelled)) if self.stopped => return Err(TransportError::Cancelled),
            Ok(Err(error)) => (error, EndCode::Cancelled),
            Err(_) => {
                self.judge_silence();
                (TransportError::Timeout { peer: self.peer }, EndCode::Deadline)
            }
        };
        self.stream.abandon(code);
        self.over = Some(error.clone());
        Err(self.meters.failed(error))
    }

    fn judge_silence(&mut self) {
        let silent = self.connection.stats().udp_rx.datagrams == self.datagrams_before;
        if silent
            && self.opened.elapsed() >= SILENCE_MAX
            && let Some(on_silence) = self.on_silence.take()
        {
            on_silence(&self.connection);
        }
    }
}

#[async_trait]
impl Channel for CallerChannel {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.still_open()?;
        let sent = timeout_at(self.deadline, self.send_explained(frame)).await;
        self.outcome(sent)
    }

    async fn finish(&mut self) -> Result<(), TransportError> {
        self.still_open()?;
        let finished = timeout_at(self.deadline, self.finish_explained()).await;
        self.outcome(finished)
    }

    async fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        self.still_open()?;
        let received = timeout_at(self.deadline, self.receive_until_the_end()).await;
        // From here on it is the reply that counts.
        self.stopped = false;
        self.outcome(received)
    }
}

impl Drop for CallerChannel {
    fn drop(&mut self) {
        self.stream.abandon(EndCode::Cancelled);
    }
}
