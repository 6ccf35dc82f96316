//! Both directions of one QUIC stream, as frames. Knows nothing of calls: `caller.rs` and `serving.rs` give them meaning.
//!
//! Waiting here can be given up and taken up again: what was read stays in the reader, and a frame of which a part was
//! written is finished by the next write.

use super::frames::FrameReader;
use super::meters::PeerMeters;
use super::wire::{Unreadable, encode_frame_head};
use crate::channel::Frame;
use bytes::Bytes;
use futures::FutureExt;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use std::sync::Arc;

/// Pieces taken from quinn under one lock.
const PIECES: usize = 32;

/// Why one side ends a stream or a connection before its time. The numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndCode {
    /// Nothing is wrong: the node stops, or the connection is not needed any more.
    Farewell = 0,
    /// Whoever waited for it has gone.
    Cancelled = 1,
    /// Its time is over.
    Deadline = 2,
    /// Not allowed.
    Refused = 3,
    /// Too much at once.
    Busy = 4,
    /// Not understood.
    Malformed = 5,
}

impl EndCode {
    pub(super) fn var_int(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    pub(super) fn from_wire(code: VarInt) -> Self {
        match code.into_inner() {
            0 => Self::Farewell,
            2 => Self::Deadline,
            3 => Self::Refused,
            4 => Self::Busy,
            5 => Self::Malformed,
            _ => Self::Cancelled,
        }
    }
}

/// Why a stream is of no use any more.
#[derive(Clone, Debug)]
pub(super) enum StreamEnd {
    /// The other side will not read on.
    Stopped(EndCode),
    /// The other side will not write on.
    Reset(EndCode),
    /// The connection is gone.
    Lost(ConnectionError),
    /// What came is not what should have come.
    Malformed(String),
}

impl From<Unreadable> for StreamEnd {
    fn from(Unreadable(reason): Unreadable) -> Self {
        Self::Malformed(reason)
    }
}

/// The two directions.
pub(super) struct Stream {
    send: SendStream,
    receive: RecvStream,
    reader: FrameReader,
    unsent: Vec<Bytes>,
    /// Bytes that go in front of the next frame.
    prefix: Vec<u8>,
    finished: bool,
    ended: bool,
    abandoned: bool,
    meters: Arc<PeerMeters>,
}

impl Stream {
    pub(super) fn new((send, receive): (SendStream, RecvStream), meters: Arc<PeerMeters>) -> Self {
        Self {
            send,
            receive,
            reader: FrameReader::default(),
            unsent: Vec::new(),
            prefix: Vec::new(),
            finished: false,
            ended: false,
            abandoned: false,
            meters,
        }
    }

    /// Sends `bytes` in front of the next frame, or with the end if there is none.
    pub(super) fn put_first(&mut self, bytes: &[u8]) {
        self.prefix.extend_from_slice(bytes);
    }

    pub(super) async fn send(&mut self, frame: Frame) -> Result<(), StreamEnd> {
        if self.finished {
            return Err(StreamEnd::Stopped(EndCode::Cancelled));
        }
        let lengths = encode_frame_head(&frame)?;
        self.flush().await?;
        let mut first = std::mem::take(&mut self.prefix);
        first.extend_from_slice(&lengths);
        // One piece is cheaper than three for quinn, and a small head costs little to copy.
        if frame.head.len() <= 1024 {
            first.extend_from_slice(&frame.head);
            self.unsent.push(first.into());
        } else {
            self.unsent.push(first.into());
            self.unsent.push(frame.head);
        }
        self.unsent.extend(frame.body.into_iter().filter(|piece| !piece.is_empty()));
        self.flush().await
    }

    /// Says that no more follows. Idempotent.
    pub(super) async fn finish(&mut self) -> Result<(), StreamEnd> {
        if self.abandoned {
            return Err(StreamEnd::Stopped(EndCode::Cancelled));
        }
        self.flush().await?;
        if !self.finished {
            if !self.prefix.is_empty() {
                self.unsent.push(std::mem::take(&mut self.prefix).into());
                self.flush().await?;
            }
            // An error here says that it is finished or was reset already: nothing is left to do.
            let _ = self.send.finish();
            self.finished = true;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), StreamEnd> {
        // A wait that was given up may have left pieces behind that were written.
        self.unsent.retain(|piece| !piece.is_empty());
        let mut done = 0;
        while done < self.unsent.len() {
            match self.send.write_chunks(&mut self.unsent[done..]).await {
                Ok(written) => {
                    done += written.chunks;
                    self.meters.sent_bytes.increment(written.bytes as u64);
                }
                Err(error) => {
                    self.unsent.clear();
                    return Err(match error {
                        WriteError::Stopped(code) => StreamEnd::Stopped(EndCode::from_wire(code)),
                        WriteError::ConnectionLost(error) => StreamEnd::Lost(error),
                        WriteError::ClosedStream | WriteError::ZeroRttRejected => {
                            StreamEnd::Stopped(EndCode::Cancelled)
                        }
                    });
                }
            }
        }
        self.unsent.clear();
        Ok(())
    }

    /// The next frame; `None` once the other side has finished. `admit` judges the bytes a frame claims before its body
    /// is read.
    pub(super) async fn receive<A>(
        &mut self,
        mut admit: impl FnMut(usize) -> Result<A, StreamEnd>,
    ) -> Result<Option<Frame>, StreamEnd> {
        let mut admitted = None;
        loop {
            if let Some(frame) = self.reader.poll_frame()? {
                return Ok(Some(frame));
            }
            let claimed = self.reader.claimed_bytes();
            if claimed > 0 && admitted.is_none() {
                admitted = Some(admit(claimed)?);
            }
            if !self.read_more().await? {
                return match self.reader.is_between_frames() {
                    true => Ok(None),
                    false => Err(StreamEnd::Malformed("the stream ends within a frame".into())),
                };
            }
        }
    }

    /// `N` bytes in front of the first frame; `None` if the other side finished without a byte.
    pub(super) async fn receive_fixed<const N: usize>(&mut self) -> Result<Option<[u8; N]>, StreamEnd> {
        loop {
            if let Some(bytes) = self.reader.poll_fixed() {
                return Ok(Some(bytes));
            }
            if !self.read_more().await? {
                return match self.reader.is_between_frames() {
                    true => Ok(None),
                    false => Err(StreamEnd::Malformed("the stream ends within its first bytes".into())),
                };
            }
        }
    }

    /// `count` bytes in front of the first frame; the caller has judged how many.
    pub(super) async fn receive_bytes(&mut self, count: usize) -> Result<Vec<u8>, StreamEnd> {
        let mut bytes = vec![0; count];
        while !self.reader.poll_bytes(&mut bytes) {
            if !self.read_more().await? {
                return Err(StreamEnd::Malformed("the stream ends within its first bytes".into()));
            }
        }
        Ok(bytes)
    }

    /// Whether there was more.
    async fn read_more(&mut self) -> Result<bool, StreamEnd> {
        // What was given up has no end that could pass for the peer's.
        if self.abandoned {
            return Err(StreamEnd::Reset(EndCode::Cancelled));
        }
        if self.ended {
            return Ok(false);
        }
        let mut pieces = [const { Bytes::new() }; PIECES];
        match self.receive.read_chunks(&mut pieces).await {
            Ok(Some(count)) => {
                let mut bytes = 0;
                for piece in pieces.into_iter().take(count) {
                    bytes += piece.len() as u64;
                    self.reader.push(piece);
                }
                self.meters.received_bytes.increment(bytes);
                Ok(true)
            }
            Ok(None) => {
                self.ended = true;
                Ok(false)
            }
            Err(error) => Err(match error {
                ReadError::Reset(code) => StreamEnd::Reset(EndCode::from_wire(code)),
                ReadError::ConnectionLost(error) => StreamEnd::Lost(error),
                ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                    StreamEnd::Reset(EndCode::Cancelled)
                }
            }),
        }
    }

    /// Resolves when the other side will not read what is sent; never, once it has read all of it.
    pub(super) fn reader_gone(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.send.stopped();
        async move {
            if let Ok(None) = stopped.await {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Leaves other streams of the connection the way while they have something to send.
    pub(super) fn yield_to_others(&self) {
        let _ = self.send.set_priority(-1);
    }

    /// Ends both directions. What was finished stays finished: the other side gets it whole.
    pub(super) fn abandon(&mut self, code: EndCode) {
        self.abandoned = true;
        if !self.finished {
            self.finished = true;
            let _ = self.send.reset(code.var_int());
        }
        if !self.ended {
            // The end of the stream often lies behind the last frame, unread: then there is nothing to stop.
            let mut rest = [Bytes::new()];
            let ended = matches!(self.receive.read_chunks(&mut rest).now_or_never(), Some(Ok(None)));
            if !ended {
                let _ = self.receive.stop(code.var_int());
            }
            self.ended = true;
        }
    }
}
