//! Tables of nodes and join tokens.

use super::{columns, words};
use holdfast_proto::admin::{NodeView, TokenView};
use holdfast_proto::cluster::NodeIntent;
use holdfast_sdk::byte_size;

/// One line each.
pub(crate) fn nodes(nodes: &[NodeView]) -> String {
    let rows = nodes.iter().map(|node| {
        let record = &node.record;
        let mut notes = Vec::new();
        notes.extend(match record.intent {
            NodeIntent::Draining => Some(format!("draining, {} slots left", node.pg_slots)),
            NodeIntent::Drained => Some("drained".to_owned()),
            NodeIntent::Active | NodeIntent::Removed => None,
        });
        notes.extend(node.is_leader.then(|| "leads".to_owned()));
        notes.extend(node.is_voter.then(|| "votes".to_owned()));
        notes.extend(node.is_slow.then(|| "slow".to_owned()));
        let backends = match node.backends_offline {
            0 => node.backends.to_string(),
            offline => format!("{} ({offline} offline)", node.backends),
        };
        let used = format!("{} of {}", byte_size::format(node.used_bytes), byte_size::format(node.capacity_bytes));
        vec![
            record.name.clone(),
            node.state.clone(),
            record.roles.to_string(),
            format!("{}/{}", record.region, record.zone),
            backends,
            used,
            notes.join(", "),
        ]
    });
    columns(&["NODE", "STATE", "ROLES", "PLACE", "BACKENDS", "USED", "NOTE"], rows.collect(), &[])
}

/// One line each, never a secret.
pub(crate) fn tokens(tokens: &[TokenView], now_ms: u64) -> String {
    let rows = tokens.iter().map(|token| {
        let state = match token.used_by {
            Some(node) => format!("used by n{node}"),
            None if token.expires_ms <= now_ms => "expired".to_owned(),
            None => "admits".to_owned(),
        };
        let any = |bound: &Option<String>| bound.clone().unwrap_or_else(|| "any".to_owned());
        vec![
            token.id.clone(),
            state,
            any(&token.roles.map(|roles| roles.to_string())),
            any(&token.region),
            any(&token.zone),
            words::ago(token.created_ms, now_ms),
        ]
    });
    columns(&["TOKEN", "STATE", "ROLES", "REGION", "ZONE", "CREATED"], rows.collect(), &[])
}

/// A new token, alone on its line.
pub(crate) fn new_token(token: &TokenView) -> String {
    format!("{}\n", token.token.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::NodeId;
    use holdfast_proto::cluster::{NodeAddresses, NodeRecord, Roles};

    #[test]
    fn snapshots() {
        let record = NodeRecord {
            id: NodeId(1),
            name: "n1".into(),
            roles: Roles::BOTH,
            region: "fra".into(),
            zone: "a".into(),
            addresses: NodeAddresses::default(),
            intent: NodeIntent::Active,
            joined_ms: 0,
        };
        let node = NodeView {
            record,
            state: "up".into(),
            is_leader: true,
            is_voter: true,
            is_slow: false,
            backends: 6,
            backends_offline: 1,
            capacity_bytes: 4 << 30,
            used_bytes: 1 << 30,
            pg_slots: 12,
        };
        let mut leaving = node.clone();
        leaving.record.intent = NodeIntent::Draining;
        let text = nodes(&[node, leaving]);
        assert!(text.contains("draining, 12 slots left, leads"), "{text}");
        let line = text.lines().nth(1).unwrap();
        for part in ["n1", "up", "coordinator,storage", "fra/a", "6 (1 offline)", "leads, votes"] {
            assert!(line.contains(part), "{part}: {text}");
        }
        let token = TokenView {
            id: "00ff".into(),
            token: Some("holdfast-join-1.x".into()),
            roles: None,
            region: Some("fra".into()),
            zone: None,
            created_ms: 1_000,
            expires_ms: 2_000,
            used_by: None,
        };
        assert_eq!(new_token(&token), "holdfast-join-1.x\n");
        let used = TokenView { used_by: Some(NodeId(2)), ..token.clone() };
        let expected = "\
TOKEN  STATE       ROLES  REGION  ZONE  CREATED
00ff   expired     any    fra     any   9 s ago
00ff   used by n2  any    fra     any   9 s ago
";
        assert_eq!(tokens(&[token, used], 10_000), expected);
    }
}
