//! What the end of a stream or a connection means to whoever made the call.

use super::stream::{EndCode, StreamEnd};
use crate::error::TransportError;
use holdfast_proto::NodeId;
use quinn::{ConnectionError, TransportErrorCode};

/// QUIC carries a TLS alert as 0x100 plus its number (RFC 9001, 4.8).
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;

pub(super) fn of_stream(peer: NodeId, end: StreamEnd) -> TransportError {
    match end {
        StreamEnd::Stopped(code) | StreamEnd::Reset(code) => of_code(peer, code, ""),
        StreamEnd::Lost(error) => of_connection(peer, &error),
        StreamEnd::Malformed(reason) => TransportError::Malformed { reason },
    }
}

pub(super) fn of_connection(peer: NodeId, error: &ConnectionError) -> TransportError {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            of_code(peer, EndCode::from_wire(close.error_code), &String::from_utf8_lossy(&close.reason))
        }
        ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
            TransportError::Busy { peer }
        }
        ConnectionError::ConnectionClosed(close) if TLS_ALERTS.contains(&u64::from(close.error_code)) => {
            TransportError::Refused { peer, reason: error.to_string() }
        }
        // Our own side found the peer's certificate, or its answer to our offer of versions, wanting.
        ConnectionError::TransportError(error) if TLS_ALERTS.contains(&u64::from(error.code)) => {
            TransportError::Refused { peer, reason: format!("its handshake does not hold: {error}") }
        }
        ConnectionError::VersionMismatch => TransportError::Refused { peer, reason: error.to_string() },
        _ => TransportError::Unreachable { peer, reason: error.to_string() },
    }
}

fn of_code(peer: NodeId, code: EndCode, reason: &str) -> TransportError {
    match code {
        EndCode::Farewell => {
            TransportError::Unreachable { peer, reason: format!("it closed the connection: {reason}") }
        }
        EndCode::Cancelled => TransportError::Cancelled,
        EndCode::Deadline => TransportError::Timeout { peer },
        EndCode::Refused => TransportError::Refused { peer, reason: reason.to_owned() },
        EndCode::Busy => TransportError::Busy { peer },
        EndCode::Malformed => TransportError::Malformed { reason: format!("node {peer} did not understand it") },
    }
}
