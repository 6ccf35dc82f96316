//! ShardWrite: a shard as a stream of cells.
//!
//!     caller: begin ->        cells -> cells -> ... end ->
//!     node:          <- begun                             <- stat, or a fault at any time: it ends the stream
//!
//! **Invariant:** the shard exists only if the caller ended the stream and its backend finished it.

use super::{NodeService, framed, parsed};
use holdfast_proto::NodeId;
use holdfast_proto::node::{ShardError, ShardStat, ShardWriter};
use holdfast_proto::node_rpc::{self, Empty, Reply, StatMessage, WRITE_FRAME_BYTES_MAX, WriteBegin, WriteCells};
use holdfast_transport::{Call, Channel, Frame, TransportError};

/// Serves one write.
pub(super) async fn serve(
    service: &NodeService,
    call: &Call,
    caller: NodeId,
    first: &Frame,
    mut channel: Box<dyn Channel>,
) -> Result<(), TransportError> {
    let reply = match write(service, call, caller, first, &mut *channel).await? {
        Ok(stat) => Reply::ok(&StatMessage::from(&stat)),
        Err(error) => {
            metrics::counter!("holdfast_node_faults_total", "rpc" => call.rpc.name()).increment(1);
            tracing::debug!(%caller, request_id = call.request_id, %error, "refuse a shard");
            Reply::fault(&error)
        }
    };
    channel.send(framed(&reply, Vec::new())).await?;
    channel.finish().await
}

/// The outer error: the caller is gone. The inner: the shard is refused.
async fn write(
    service: &NodeService,
    call: &Call,
    caller: NodeId,
    first: &Frame,
    channel: &mut dyn Channel,
) -> Result<Result<ShardStat, ShardError>, TransportError> {
    let (mut writer, _counted) = match begin(service, call, caller, first).await {
        Ok(begun) => begun,
        Err(error) => return Ok(Err(error)),
    };
    channel.send(framed(&Reply::ok(&Empty {}), Vec::new())).await?;
    while let Some(frame) = channel.receive().await? {
        if let Err(error) = append(service, &mut *writer, frame).await {
            return Ok(Err(error));
        }
    }
    Ok(writer.finish().await)
}

async fn begin(
    service: &NodeService,
    call: &Call,
    caller: NodeId,
    first: &Frame,
) -> Result<(Box<dyn ShardWriter>, super::limits::Counted), ShardError> {
    let (backend, header) = parsed(node_rpc::decode(&first.head).and_then(|begin: WriteBegin| begin.parse()))?;
    let no_epoch = || ShardError::Invalid { reason: "a write says by which epoch it is placed".to_owned() };
    let epoch = call.epoch.ok_or_else(no_epoch)?;
    let counted = service.limits.writer(caller).map_err(|queued| ShardError::Busy { backend, queued })?;
    Ok((service.node.begin_shard(backend, header, epoch).await?, counted))
}

async fn append(service: &NodeService, writer: &mut dyn ShardWriter, frame: Frame) -> Result<(), ShardError> {
    let bytes = frame.body_bytes();
    if bytes > WRITE_FRAME_BYTES_MAX {
        let reason = format!("{bytes} bytes of cells in a frame, {WRITE_FRAME_BYTES_MAX} allowed");
        return Err(ShardError::Invalid { reason });
    }
    let _counted = service.limits.bytes(u64::try_from(bytes).unwrap_or(u64::MAX));
    let cells = parsed(node_rpc::decode(&frame.head).and_then(|head: WriteCells| head.into_cells(frame.body)))?;
    if cells.is_empty() { Ok(()) } else { writer.append(cells).await }
}
