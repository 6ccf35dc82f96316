//! What a change of the cluster map was: kept with the map and, of the last changes, as rows of the root group, for
//! `holdfast layout history`. Pure.

use super::api::{BackendRecord, ClusterMap};
use holdfast_placement::slots_changed;
use holdfast_proto::Epoch;
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::cluster::{NodeIntent, NodeRecord};
use serde::{Deserialize, Serialize};

/// Most lines that say what changed; a mass of changes is one line more.
const LINES_MAX: usize = 12;

/// A change of the map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapChange {
    /// The epoch it made.
    pub epoch: Epoch,
    /// When, milliseconds since 1970, by the clock of whoever made it.
    pub at_ms: u64,
    /// What an operator had asked for; empty for what the store does by itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// What is different since, one line each.
    pub what: Vec<String>,
}

impl MapChange {
    /// A change that an operator asked for, to be completed by [`note_change`].
    pub fn asked(cause: impl Into<String>) -> Option<Self> {
        Some(Self { cause: cause.into(), ..Self::default() })
    }
}

/// Notes in `next` what it changes of `before`, whose epoch it follows. A cause given by [`MapChange::asked`] stays.
pub fn note_change(before: &ClusterMap, next: &mut ClusterMap, at_ms: u64) {
    let cause = match &next.change {
        change if *change == before.change => String::new(),
        change => change.as_ref().map(|change| change.cause.clone()).unwrap_or_default(),
    };
    let mut what = differences(before, next);
    if what.len() > LINES_MAX {
        let more = what.len() - LINES_MAX;
        what.truncate(LINES_MAX);
        what.push(format!("and {more} more"));
    }
    next.change = Some(MapChange { epoch: next.table.epoch, at_ms, cause, what });
}

fn differences(before: &ClusterMap, next: &ClusterMap) -> Vec<String> {
    let mut what = Vec::new();
    for node in &next.nodes {
        let known = before.nodes.iter().find(|known| known.id == node.id);
        what.extend(difference_of_node(known, node));
    }
    for backend in &next.backends {
        let known = before.backends.iter().find(|known| known.id == backend.id);
        what.extend(difference_of_backend(known, backend));
    }
    let is_left = |record: &&BackendRecord| next.backends.iter().any(|left| left.id == record.id);
    what.extend(before.backends.iter().filter(|b| !is_left(b)).map(|b| format!("{} is forgotten", b.name)));
    if before.promise != next.promise {
        what.push(format!("promise {} -> {}", promise(before), promise(next)));
    } else if before.is_promise_chosen != next.is_promise_chosen {
        let how = if next.is_promise_chosen { "is kept whatever nodes come and go" } else { "follows the nodes" };
        what.push(format!("promise {} {how}", promise(next)));
    }
    what.extend(differences_of_table(before, next));
    for (name, was, is) in [
        ("repair", before.held.repair, next.held.repair),
        ("moves", before.held.moves, next.held.moves),
        ("planning", before.held.planning, next.held.planning),
    ] {
        if was != is {
            what.push(if is { format!("{name} paused") } else { format!("{name} resumed") });
        }
    }
    what
}

fn promise(map: &ClusterMap) -> String {
    if map.promise.is_empty() { "any backends".to_owned() } else { map.promise.to_string() }
}

fn difference_of_node(before: Option<&NodeRecord>, node: &NodeRecord) -> Option<String> {
    let name = &node.name;
    let Some(before) = before else { return Some(format!("{name} joined in {}/{}", node.region, node.zone)) };
    if before.intent != node.intent {
        return Some(match node.intent {
            NodeIntent::Active => format!("{name} stays"),
            NodeIntent::Draining => format!("{name} draining"),
            NodeIntent::Drained => format!("{name} drained"),
            NodeIntent::Removed => format!("{name} removed for good"),
        });
    }
    (before.addresses != node.addresses).then(|| format!("{name} listens at other addresses"))
}

fn difference_of_backend(before: Option<&BackendRecord>, backend: &BackendRecord) -> Option<String> {
    let name = &backend.name;
    let Some(before) = before else { return Some(format!("{name} added on node {}", backend.node)) };
    if before.intent != backend.intent {
        return Some(match backend.intent {
            BackendIntent::Active => format!("{name} stays"),
            BackendIntent::Draining => format!("{name} draining"),
            BackendIntent::Drained => format!("{name} drained"),
        });
    }
    if before.name != *name {
        return Some(format!("{} is {name} now", before.name));
    }
    let is_elsewhere = before.node != backend.node || before.location != backend.location;
    is_elsewhere.then(|| format!("{name} is on node {} at {} now", backend.node, backend.location))
}

fn differences_of_table(before: &ClusterMap, next: &ClusterMap) -> Vec<String> {
    let mut what = Vec::new();
    if before.table.pgs.len() != next.table.pgs.len() {
        return vec![format!("a table of {} placement groups", next.table.pgs.len())];
    }
    let slots = slots_changed(&before.table, &next.table);
    if slots > 0 {
        what.push(format!("{slots} slots get another backend"));
    }
    let pgs = || before.table.pgs.iter().zip(&next.table.pgs);
    let settled = pgs().filter(|(a, b)| a.is_moving() && !b.is_moving()).count();
    if settled > 0 {
        what.push(format!("{settled} placement groups have all shards in place"));
    }
    what
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Holds;
    use crate::rebalance::model::{b, backend, map_of, node};

    fn noted(before: &ClusterMap, change: impl FnOnce(&mut ClusterMap)) -> MapChange {
        let mut next = before.clone();
        change(&mut next);
        next.table.epoch = Epoch(before.table.epoch.0 + 1);
        note_change(before, &mut next, 77);
        next.change.unwrap()
    }

    #[test]
    fn one_line_per_case() {
        let map = map_of(3, 2, "3+3");
        let check = |change: &dyn Fn(&mut ClusterMap), expected: &[&str]| {
            let found = noted(&map, change);
            assert_eq!((found.at_ms, found.epoch), (77, Epoch(map.table.epoch.0 + 1)));
            assert_eq!(found.what, expected);
        };
        check(&|_| {}, &[]);
        check(&|map| map.nodes.push(node(4)), &["n4 joined in r/z4"]);
        check(&|map| map.nodes[1].intent = NodeIntent::Draining, &["n2 draining"]);
        check(&|map| map.nodes[1].addresses.s3 = "x".to_owned(), &["n2 listens at other addresses"]);
        check(&|map| map.backends.push(backend(9, 1)), &["d9 added on node 1"]);
        check(&|map| drop(map.backends.remove(0)), &["d1 is forgotten"]);
        check(&|map| map.backends[0].intent = BackendIntent::Drained, &["d1 drained"]);
        check(&|map| map.backends[0].name = "x".to_owned(), &["d1 is x now"]);
        check(&|map| map.backends[0].node = holdfast_proto::NodeId(3), &["d1 is on node 3 at disk:/d1 now"]);
        check(&|map| map.promise = Default::default(), &["promise zone:1+backend:1 -> any backends"]);
        check(&|map| map.is_promise_chosen = true, &["promise zone:1+backend:1 is kept whatever nodes come and go"]);
        check(
            &|map| map.held = Holds { repair: true, moves: true, planning: true },
            &["repair paused", "moves paused", "planning paused"],
        );
        let moves = |map: &mut ClusterMap| map.table.pgs[3].target[0] = b(40);
        check(&moves, &["1 slots get another backend"]);
        let mut moving = map.clone();
        moves(&mut moving);
        let settled = noted(&moving, |map| map.table.pgs[3].committed = map.table.pgs[3].target.clone());
        assert_eq!(settled.what, ["1 placement groups have all shards in place"]);
        let many = noted(&map, |map| map.backends.extend((50..80).map(|n| backend(n, 1))));
        assert_eq!((many.what.len(), many.what[LINES_MAX].as_str()), (LINES_MAX + 1, "and 18 more"));
    }

    #[test]
    fn a_cause_is_of_one_change() {
        let map = map_of(3, 2, "3+3");
        let asked = noted(&map, |map| map.change = MapChange::asked("node drain n2"));
        assert_eq!(asked.cause, "node drain n2");
        let after = ClusterMap { change: Some(asked), ..map };
        assert_eq!(noted(&after, |_| {}).cause, "", "the next one is not to blame on it");
    }
}
