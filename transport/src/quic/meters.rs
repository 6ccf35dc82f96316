//! What the transport counts, under `holdfast_transport_*`. A recorder must be installed before the transport starts.

use crate::error::TransportError;
use holdfast_proto::rpc::Plane;
use metrics::{Counter, Gauge, counter, gauge};

/// Which side of a call this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Out,
    In,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// A plane in metrics and logs.
pub(super) fn plane_name(plane: Plane) -> &'static str {
    match plane {
        Plane::Data => "data",
        Plane::Consensus => "consensus",
        Plane::Control => "control",
    }
}

/// What is counted of the calls with one peer on one plane in one direction.
#[derive(Debug)]
pub(super) struct PeerMeters {
    plane: &'static str,
    peer: String,
    direction: Direction,
    pub(super) calls: Counter,
    pub(super) under_way: Gauge,
    pub(super) connections: Gauge,
    pub(super) sent_bytes: Counter,
    pub(super) received_bytes: Counter,
}

impl PeerMeters {
    /// `peer`: a node's number, or `stranger`.
    pub(super) fn new(plane: Plane, peer: String, direction: Direction) -> Self {
        let labels = [
            ("plane", plane_name(plane).to_owned()),
            ("peer", peer.clone()),
            ("direction", direction.name().to_owned()),
        ];
        Self {
            plane: plane_name(plane),
            peer,
            direction,
            calls: counter!("holdfast_transport_calls_total", &labels),
            under_way: gauge!("holdfast_transport_calls_under_way", &labels),
            connections: gauge!("holdfast_transport_connections", &labels),
            sent_bytes: counter!("holdfast_transport_sent_bytes_total", &labels),
            received_bytes: counter!("holdfast_transport_received_bytes_total", &labels),
        }
    }

    /// Counts a call that failed, and hands its error on.
    pub(super) fn failed(&self, error: TransportError) -> TransportError {
        let cause = match &error {
            TransportError::Unknown { .. } => "unknown",
            TransportError::Unreachable { .. } => "unreachable",
            TransportError::Timeout { .. } => "timeout",
            TransportError::Refused { .. } => "refused",
            TransportError::Busy { .. } => "busy",
            TransportError::Cancelled => "cancelled",
            TransportError::Malformed { .. } => "malformed",
        };
        let labels = [
            ("plane", self.plane.to_owned()),
            ("peer", self.peer.clone()),
            ("direction", self.direction.name().to_owned()),
            ("cause", cause.to_owned()),
        ];
        counter!("holdfast_transport_errors_total", &labels).increment(1);
        error
    }
}

/// What is counted at the door of a plane, before it is known who is there.
#[derive(Debug)]
pub(super) struct DoorMeters {
    /// Datagrams that are no QUIC of ours.
    pub(super) foreign_datagrams: Counter,
    /// Handshakes that were not answered, or sent away to prove their address, because too many were under way.
    pub(super) deferred_handshakes: Counter,
    /// Handshakes that failed, and those that were never finished.
    pub(super) failed_handshakes: Counter,
    /// Connections of peers that may not be here: removed, of another cluster, without a certificate, too many.
    pub(super) refused_connections: Counter,
}

impl DoorMeters {
    pub(super) fn new(plane: Plane) -> Self {
        let plane = plane_name(plane);
        Self {
            foreign_datagrams: counter!("holdfast_transport_foreign_datagrams_total", "plane" => plane),
            deferred_handshakes: counter!("holdfast_transport_deferred_handshakes_total", "plane" => plane),
            failed_handshakes: counter!("holdfast_transport_failed_handshakes_total", "plane" => plane),
            refused_connections: counter!("holdfast_transport_refused_connections_total", "plane" => plane),
        }
    }
}
