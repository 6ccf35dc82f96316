//! `holdfast layout`.

use super::{columns, words};
use holdfast_proto::layout_admin::{LayoutChangeView, LayoutView, ProofView};
use holdfast_sdk::byte_size;

/// The promise with its proof, what moves, and every domain with what is within it below it.
pub(crate) fn table(view: &LayoutView) -> String {
    let how = if view.is_promise_chosen { "chosen" } else { "follows the nodes" };
    let proof = view.proof.as_ref().map_or_else(|| "not proven yet".to_owned(), proof);
    let mut head = format!(
        "layout {}  {}  {} placement groups\npromise {} ({how})\nproof   {proof}\n",
        view.epoch,
        view.scheme,
        words::count(view.pg_count),
        view.promise
    );
    if view.moving_slots > 0 {
        let (slots, pgs) = (words::count(view.moving_slots), words::count(view.moving_pgs));
        head += &format!("moves   {slots} slots of {pgs} placement groups\n");
    }
    if view.are_moves_paused {
        head += "moves are paused: holdfast rebalance resume\n";
    }
    if view.is_repair_paused {
        head += "repair is paused: holdfast repair resume\n";
    }
    let some = |count: u64| if count == 0 { String::new() } else { words::count(count) };
    let rows = view.domains.iter().map(|domain| {
        let depth = match domain.kind.as_str() {
            "region" => 0,
            "zone" => 1,
            "node" => 2,
            _ => 3,
        };
        vec![
            format!("{}{} {}", "  ".repeat(depth), domain.kind, domain.name),
            domain.state.clone(),
            words::count(domain.slots),
            some(domain.slots_coming),
            some(domain.slots_leaving),
            words::percent(domain.used_bytes, domain.capacity_bytes),
            byte_size::format(domain.used_bytes),
        ]
    });
    let headings = ["PLACE", "STATE", "SLOTS", "COMING", "LEAVING", "FILL", "USED"];
    format!("{head}\n{}", columns(&headings, rows.collect(), &[2, 3, 4, 5, 6]))
}

fn proof(proof: &ProofView) -> String {
    let rest = if proof.is_exhaustive { "every one of them" } else { "the rest follows from the code" };
    let current = if proof.is_current { "" } else { "; NOT of this layout" };
    let (losses, cases) = (words::count(proof.loss_sets), words::count(proof.cases));
    format!("{losses} losses asked about in {cases} arrangements, {rest}{current}")
}

/// One line each, newest first.
pub(crate) fn history(changes: &[LayoutChangeView], now_ms: u64) -> String {
    let rows = changes.iter().map(|change| {
        let cause = if change.cause.is_empty() { "-" } else { &change.cause };
        vec![change.epoch.to_string(), words::ago(change.at_ms, now_ms), cause.to_owned(), change.what.join("; ")]
    });
    columns(&["EPOCH", "WHEN", "ASKED FOR", "WHAT CHANGED"], rows.collect(), &[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::Epoch;
    use holdfast_proto::layout_admin::DomainView;

    #[test]
    fn snapshots() {
        let domain = |kind: &str, name: &str, slots, leaving| DomainView {
            kind: kind.into(),
            name: name.into(),
            state: if leaving > 0 { "draining".into() } else { String::new() },
            slots,
            slots_coming: 0,
            slots_leaving: leaving,
            capacity_bytes: 100 << 30,
            used_bytes: 61 << 30,
        };
        let view = LayoutView {
            epoch: Epoch(118),
            scheme: "4+2".into(),
            promise: "zone:1".into(),
            is_promise_chosen: false,
            pg_count: 256,
            proof: Some(ProofView {
                cases: 3,
                loss_sets: 1536,
                is_exhaustive: true,
                hash: "00".into(),
                is_current: true,
            }),
            moving_pgs: 12,
            moving_slots: 48,
            is_repair_paused: false,
            are_moves_paused: true,
            domains: vec![domain("region", "eu", 1536, 0), domain("node", "n1", 512, 48)],
        };
        let expected = "\
layout 118  4+2  256 placement groups
promise zone:1 (follows the nodes)
proof   1,536 losses asked about in 3 arrangements, every one of them
moves   48 slots of 12 placement groups
moves are paused: holdfast rebalance resume

PLACE        STATE     SLOTS  COMING  LEAVING  FILL      USED
region eu              1,536                   61 %  61.0 GiB
    node n1  draining    512               48  61 %  61.0 GiB
";
        assert_eq!(table(&view), expected);
        let change = |epoch, cause: &str, what: &[&str]| LayoutChangeView {
            epoch: Epoch(epoch),
            at_ms: 1_000,
            cause: cause.into(),
            what: what.iter().map(|line| (*line).to_owned()).collect(),
        };
        let changes =
            [change(9, "node drain n2", &["n2 draining", "48 slots"]), change(8, "", &["d7 added on node 2"])];
        let expected = "\
EPOCH  WHEN     ASKED FOR      WHAT CHANGED
    9  9 s ago  node drain n2  n2 draining; 48 slots
    8  9 s ago  -              d7 added on node 2
";
        assert_eq!(history(&changes, 10_000), expected);
    }
}
