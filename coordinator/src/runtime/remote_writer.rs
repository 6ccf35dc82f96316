//! A shard being written to another node: one stream, begun, fed and ended.
//!
//! **Invariant:** dropped before its end was sent, it leaves no shard: the stream is cancelled and the node gives the room
//! back.

use super::remote_node::unreachable;
use async_trait::async_trait;
use holdfast_proto::node::{Cell, ShardError, ShardStat, ShardWriter};
use holdfast_proto::node_rpc::{self, Empty, Malformed, Reply, StatMessage, WRITE_FRAME_BYTES_MAX, WriteCells};
use holdfast_proto::{BackendId, NodeId};
use holdfast_transport::{Channel, Frame, TransportError};
use prost::Message;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// Beginning reserves room; a node that takes longer is left out of the write.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(20);
/// After a stream was refused midway its fault is on its way already.
const FAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// The writer.
pub(super) struct RemoteWriter {
    channel: Box<dyn Channel>,
    peer: NodeId,
    backend: BackendId,
    failure: Option<ShardError>,
    _turn: OwnedSemaphorePermit,
}

impl RemoteWriter {
    /// Over a channel whose first frame, the begin, was sent. Keeps its turn until dropped.
    pub(super) fn new(
        channel: Box<dyn Channel>,
        (peer, backend): (NodeId, BackendId),
        turn: OwnedSemaphorePermit,
    ) -> Self {
        Self { channel, peer, backend, failure: None, _turn: turn }
    }

    /// Waits until the node has reserved room.
    pub(super) async fn begun(&mut self) -> Result<(), ShardError> {
        let (peer, backend) = (self.peer, self.backend);
        match timeout(BEGIN_TIMEOUT, self.reply::<Empty>()).await {
            Ok(begun) => begun.map(drop),
            Err(_) => {
                let reason = format!("node {peer} did not begin the shard in time");
                Err(ShardError::Unavailable { backend, reason })
            }
        }
    }

    async fn reply<M: Message + Default>(&mut self) -> Result<M, ShardError> {
        let (peer, backend) = (self.peer, self.backend);
        let received = self.channel.receive().await.map_err(|error| unreachable(peer, backend, &error))?;
        let frame = received.ok_or_else(|| unreachable(peer, backend, &TransportError::Cancelled))?;
        let reply = node_rpc::decode::<Reply>(&frame.head).and_then(Reply::into_result);
        let malformed = |error: Malformed| ShardError::Unavailable {
            backend,
            reason: format!("node {peer} answers wrongly: {error}"),
        };
        reply.map_err(malformed)?
    }

    async fn send(&mut self, cells: Vec<Cell>) -> Result<(), ShardError> {
        let (head, body) = WriteCells::new(cells);
        match self.channel.send(Frame { head: node_rpc::encode(&head), body }).await {
            Ok(()) => Ok(()),
            // The node has ended the stream: it says why.
            Err(error @ TransportError::Cancelled) => match timeout(FAULT_TIMEOUT, self.reply::<StatMessage>()).await {
                Ok(Err(fault)) => Err(fault),
                _ => Err(unreachable(self.peer, self.backend, &error)),
            },
            Err(error) => Err(unreachable(self.peer, self.backend, &error)),
        }
    }
}

#[async_trait]
impl ShardWriter for RemoteWriter {
    async fn append(&mut self, cells: Vec<Cell>) -> Result<(), ShardError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        for some in framed(cells) {
            if let Err(error) = self.send(some).await {
                self.failure = Some(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<ShardStat, ShardError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let (peer, backend) = (self.peer, self.backend);
        self.channel.finish().await.map_err(|error| unreachable(peer, backend, &error))?;
        let stat: StatMessage = self.reply().await?;
        // The end of the reply: dropped before it, the channel would cancel.
        self.channel.receive().await.map_err(|error| unreachable(peer, backend, &error))?;
        let malformed = |error: Malformed| ShardError::Unavailable {
            backend,
            reason: format!("node {peer} answers wrongly: {error}"),
        };
        node_rpc::stat_from(stat).map_err(malformed)
    }
}

/// Cells in runs of at most a frame each, in order; a cell larger than that alone.
fn framed(cells: Vec<Cell>) -> Vec<Vec<Cell>> {
    let mut frames: Vec<Vec<Cell>> = Vec::new();
    let mut room = 0usize;
    for cell in cells {
        let bytes = cell.bytes.len();
        match frames.last_mut() {
            Some(frame) if bytes <= room => {
                room -= bytes;
                frame.push(cell);
            }
            _ => {
                room = WRITE_FRAME_BYTES_MAX.saturating_sub(bytes);
                frames.push(vec![cell]);
            }
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn frames_keep_order_and_stay_within_their_limit() {
        let cell = |len: usize| Cell { bytes: Bytes::from(vec![0; len]), hash: [len as u8; 32] };
        for lengths in [&[][..], &[1], &[65_536; 40], &[1 << 20, 1, 1 << 20, 1 << 19, 1 << 19, 7]] {
            let frames = framed(lengths.iter().map(|&len| cell(len)).collect());
            let flat: Vec<usize> = frames.iter().flatten().map(|cell| cell.bytes.len()).collect();
            assert_eq!(flat, lengths);
            for frame in &frames {
                let bytes: usize = frame.iter().map(|cell| cell.bytes.len()).sum();
                assert!(bytes <= WRITE_FRAME_BYTES_MAX, "{bytes}");
            }
            assert!(frames.len() <= 2 * lengths.iter().sum::<usize>().div_ceil(WRITE_FRAME_BYTES_MAX).max(1));
        }
    }
}
