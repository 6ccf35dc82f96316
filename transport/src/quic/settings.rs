//! The numbers of the QUIC transport, each with its reason, and what quinn is told of them.

use super::socket::GrantedBuffers;
use holdfast_proto::rpc::Plane;
use quinn::congestion::CubicConfig;
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::sync::Arc;
use std::time::Duration;

/// What is asked of the kernel for each socket: 1 ms of 64 Gbit/s, so that a burst survives a busy core.
pub(super) const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// Bulk connections of a pair of nodes (start). One connection is one task of quinn and so at most one core; two keep two
/// cores busy, and a stream that loses a packet holds up half the others. More of them divide the socket buffer further.
pub(super) const BULK_CONNECTIONS: usize = 2;
/// A dead path must be noticed without traffic; three of them fit into the idle time.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Silence after which a connection is given up.
const IDLE: Duration = Duration::from_secs(15);
/// Assumed until measured. The protocol's 333 ms would make the loss of a first packet cost a second in a machine room; this
/// costs a WAN two packets sent twice.
const INITIAL_RTT: Duration = Duration::from_millis(10);
/// First congestion window: a shard's first cells leave in one go. A machine room's switches hold that much; a link that
/// does not makes Cubic halve it.
const INITIAL_WINDOW_BYTES: u64 = 128 << 10;
/// Smallest windows, where the kernel grants next to nothing: below them a connection is slow even without loss.
const STREAM_WINDOW_BYTES_MIN: usize = 256 << 10;
const CONNECTION_WINDOW_BYTES_MIN: usize = 1 << 20;
/// Largest UDP payload without jumbo frames (1500 less 20 + 8, less 20 more for IPv6) and with them (9000 less 48).
pub const MTU_STANDARD: u16 = 1452;
/// See `MTU_STANDARD`. Discovery finds out what the path takes; where it takes less this costs a few probes.
pub const MTU_JUMBO: u16 = 8952;

/// Calls under way from this node to one peer on one plane. A coordinator has some hundred requests under way; each asks a
/// node for one or two shards.
pub(super) const CALLS_OUT_MAX: usize = 1024;
/// Calls under way from one peer on one plane: as many as it may make, so that the caller's own limit is met first.
pub(super) const CALLS_IN_MAX: usize = 1024;
/// Streams beyond the limit of calls, so that a call too many can be told that it is.
const STREAMS_SPARE: usize = 64;
/// Bytes announced by frames above `LARGE_FRAME_BYTES` that one peer may have under way to this node on one plane: 128
/// windows of cells.
pub(super) const FRAME_BYTES_IN_MAX: usize = 256 << 20;
/// Frames up to this count as calls only: 1024 of them are 64 MiB.
pub(super) const LARGE_FRAME_BYTES: usize = 64 << 10;
/// Connections of one peer to one plane: what it needs, twice over while those before a restart of it time out.
pub(super) const PEER_CONNECTIONS_MAX: usize = 2 * BULK_CONNECTIONS + 4;
/// Callers without a certificate: connections and calls of all of them together, on the control plane only. Joins are rare.
pub(super) const STRANGER_CONNECTIONS_MAX: usize = 32;
pub(super) const STRANGER_CALLS_MAX: usize = 32;
/// Largest frame of a stranger: a token, a name, and a request for a certificate.
pub(super) const STRANGER_FRAME_BYTES_MAX: usize = 64 << 10;
/// Handshakes under way per plane; more are dropped without an answer.
pub(super) const HANDSHAKES_MAX: usize = 256;
/// Handshakes from which on a caller must first prove that it receives what is sent to its address: forged senders then
/// cost one small packet each, and no state.
pub(super) const HANDSHAKES_UNPROVEN_MAX: usize = 32;
/// Longest handshake, on both sides; five round trips of the slowest link plus loss.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
/// Head start of one address before the next is tried beside it (RFC 8305 says 250 ms).
pub(super) const ADDRESS_STAGGER: Duration = Duration::from_millis(250);
/// How long a stream may be silent before its opening is whole.
pub(super) const OPENING_MAX: Duration = Duration::from_secs(10);
/// A call that had no answer for this long while not one packet came from the peer shows that the path is dead.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(1);
/// How long a node that stops waits for its peers to hear of it.
pub(super) const FAREWELL_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(CALLS_IN_MAX >= CALLS_OUT_MAX);
const _: () = assert!(KEEP_ALIVE.as_secs() * 3 <= IDLE.as_secs());

/// Windows sized to what the kernel granted: all that one peer may send at once fits into the socket's buffer. Several
/// peers at full rate may still overflow it; they lose packets and slow down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    pub(super) stream_bytes: usize,
    pub(super) connection_bytes: usize,
}

pub(super) fn windows(plane: Plane, granted: GrantedBuffers) -> Windows {
    let connections = if plane == Plane::Data { BULK_CONNECTIONS } else { 1 };
    // A power of two: buffers are granted in odd sizes, and half a megabyte is easier to read in a dump.
    let connection_bytes = previous_power_of_two(granted.receive_bytes / connections);
    Windows {
        // A quarter, so that three streams whose readers are slow leave room for others.
        stream_bytes: (connection_bytes / 4).max(STREAM_WINDOW_BYTES_MIN),
        connection_bytes: connection_bytes.max(CONNECTION_WINDOW_BYTES_MIN),
    }
}

fn previous_power_of_two(n: usize) -> usize {
    n.checked_ilog2().map_or(0, |power| 1 << power)
}

/// What both sides of a connection of `plane` tell quinn.
pub(super) fn transport_config(plane: Plane, granted: GrantedBuffers, mtu_max: u16) -> Arc<TransportConfig> {
    let windows = windows(plane, granted);
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW_BYTES);
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(mtu_max);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(var_int(CALLS_IN_MAX + STREAMS_SPARE))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(var_int(windows.stream_bytes))
        .receive_window(var_int(windows.connection_bytes))
        // Twice the window: acknowledged bytes count until their neighbours are acknowledged too.
        .send_window(2 * windows.connection_bytes as u64)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(var_int(IDLE.as_millis() as usize))))
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(cubic))
        .enable_segmentation_offload(true);
    Arc::new(config)
}

fn var_int(n: usize) -> VarInt {
    VarInt::from_u32(u32::try_from(n).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_windows_of_a_peer_fit_into_the_socket_buffer() {
        for granted in [4 << 20, SOCKET_BUFFER_BYTES, 5_000_000] {
            for plane in [Plane::Data, Plane::Consensus, Plane::Control] {
                let windows = windows(plane, GrantedBuffers { receive_bytes: granted, send_bytes: granted });
                let connections = if plane == Plane::Data { BULK_CONNECTIONS } else { 1 };
                assert!(windows.connection_bytes * connections <= granted, "{plane:?} {granted} {windows:?}");
                assert!(windows.stream_bytes * 4 <= windows.connection_bytes);
            }
        }
    }

    #[test]
    fn a_stingy_kernel_leaves_windows_that_still_work() {
        let windows = windows(Plane::Data, GrantedBuffers { receive_bytes: 106_496, send_bytes: 106_496 });
        let least = Windows { stream_bytes: STREAM_WINDOW_BYTES_MIN, connection_bytes: CONNECTION_WINDOW_BYTES_MIN };
        assert_eq!(windows, least);
    }
}
