//! Which metadata groups would be left without a majority of their voters. Pure.

use holdfast_proto::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// The groups that could decide nothing while `stopped` is away besides those that are away already; a majority is more
/// than half of the voters.
pub(super) fn groups_without_quorum(
    voters: &BTreeMap<u32, BTreeSet<NodeId>>,
    is_up: impl Fn(NodeId) -> bool,
    stopped: NodeId,
) -> Vec<u32> {
    let lacks = |voters: &BTreeSet<NodeId>| {
        let left = voters.iter().filter(|node| **node != stopped && is_up(**node)).count();
        left <= voters.len() / 2
    };
    voters.iter().filter(|(_, voters)| lacks(voters)).map(|(group, _)| *group).collect()
}

/// The groups in which a node votes.
pub(super) fn groups_of(voters: &BTreeMap<u32, BTreeSet<NodeId>>, node: NodeId) -> Vec<u32> {
    voters.iter().filter(|(_, voters)| voters.contains(&node)).map(|(group, _)| *group).collect()
}

/// `the root group`, `range 3`, joined by commas.
pub(super) fn names(groups: &[u32]) -> String {
    let name = |group: &u32| if *group == 0 { "the root group".to_owned() } else { format!("range {group}") };
    groups.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_case() {
        let check = |voters: &[&[u64]], away: &[u64], stopped: u64, expected: &[u32]| {
            let voters = (0..).zip(voters).map(|(group, nodes)| (group, nodes.iter().copied().map(NodeId).collect()));
            let found = groups_without_quorum(&voters.collect(), |node| !away.contains(&node.0), NodeId(stopped));
            assert_eq!(found, expected, "{away:?} {stopped}");
        };
        check(&[&[1, 2, 3], &[1, 2, 3]], &[], 2, &[]);
        check(&[&[1, 2, 3], &[1, 2, 3]], &[3], 2, &[0, 1]);
        check(&[&[1, 2, 3], &[1, 2, 4]], &[3], 2, &[0]);
        check(&[&[1, 2, 3]], &[3], 4, &[]);
        check(&[&[1]], &[], 1, &[0]);
        check(&[&[1]], &[], 2, &[]);
        check(&[&[1, 2, 3, 4, 5]], &[5], 4, &[]);
        check(&[&[1, 2, 3, 4, 5]], &[5, 3], 4, &[0]);
        // A majority that is gone already stays gone, whoever is stopped.
        check(&[&[1, 2, 3]], &[1, 2], 9, &[0]);
        // A node that is not up is not there, whoever is stopped.
        check(&[&[]], &[], 1, &[0]);
    }

    #[test]
    fn a_node_leaves_only_what_it_votes_in() {
        let voters = BTreeMap::from([(0, BTreeSet::from([NodeId(1), NodeId(2)])), (3, BTreeSet::from([NodeId(2)]))]);
        assert_eq!(groups_of(&voters, NodeId(2)), [0, 3]);
        assert_eq!(groups_of(&voters, NodeId(7)), [] as [u32; 0]);
        assert_eq!(names(&[0, 3]), "the root group, range 3");
    }
}
