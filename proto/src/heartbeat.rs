//! ConsensusPing: the heartbeat between coordinators, which tell each other whom they cannot reach (docs/formats.md,
//! "Heartbeats").

use crate::ids::NodeId;
use crate::node_rpc::Malformed;
use std::collections::BTreeSet;

/// Nodes a heartbeat may name; a cluster has far fewer.
pub const SUSPECTS_MAX: usize = 10_000;

/// Question and answer alike.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Heartbeat {
    /// Nodes that do not answer the sender, as it saw itself.
    #[prost(uint64, repeated, tag = "1")]
    pub suspects: Vec<u64>,
}

impl Heartbeat {
    /// Of a sender that suspects these.
    pub fn new(suspects: &BTreeSet<NodeId>) -> Self {
        Self { suspects: suspects.iter().take(SUSPECTS_MAX).map(|node| node.0).collect() }
    }

    /// Whom the sender suspects.
    ///
    /// # Errors
    /// More than a cluster has nodes.
    pub fn parse(&self) -> Result<BTreeSet<NodeId>, Malformed> {
        if self.suspects.len() > SUSPECTS_MAX {
            return Err(Malformed::new(format!("{} suspects", self.suspects.len())));
        }
        Ok(self.suspects.iter().map(|&node| NodeId(node)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspects_come_back_and_too_many_are_refused() {
        let suspects = BTreeSet::from([NodeId(3), NodeId(u64::MAX)]);
        let bytes = crate::node_rpc::encode(&Heartbeat::new(&suspects));
        assert_eq!(crate::node_rpc::decode::<Heartbeat>(&bytes).and_then(|beat| beat.parse()), Ok(suspects));
        assert!(Heartbeat { suspects: vec![1; SUSPECTS_MAX + 1] }.parse().is_err());
    }
}
