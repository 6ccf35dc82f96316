//! What a change of layout moves and risks.

use super::{columns, words};
use holdfast_proto::cluster::NodeIntent;
use holdfast_proto::layout_admin::{Mode, MoveRate, MoveView, NodeMoveView, RebalanceView};
use holdfast_sdk::byte_size;

/// A node that leaves or stays.
pub(crate) fn of_node(view: &NodeMoveView) -> String {
    let name = &view.name;
    let state = match (view.mode, view.intent) {
        (Mode::Plan, NodeIntent::Active) => format!("{name} would stay"),
        (Mode::Plan, NodeIntent::Draining | NodeIntent::Drained) => format!("{name} would be drained"),
        (Mode::Plan, NodeIntent::Removed) => format!("{name} would be removed for good"),
        (Mode::Apply, NodeIntent::Active) => format!("{name} stays"),
        (Mode::Apply, NodeIntent::Draining | NodeIntent::Drained) => {
            format!("{name} is draining; `holdfast node list` says when it can be removed")
        }
        (Mode::Apply, NodeIntent::Removed) => format!("{name} is removed for good; its files stay as they are"),
    };
    let promise = match view.promise_before == view.promise_after {
        true => String::new(),
        false => format!("promise {} -> {}\n", promise(&view.promise_before), promise(&view.promise_after)),
    };
    format!("{state}\n{promise}{}", table(&view.moves))
}

fn promise(text: &str) -> &str {
    if text.is_empty() { "any backends" } else { text }
}

/// Bytes by the links they cross, time, fill, and the promise at each step; one line if nothing moves.
pub(crate) fn table(view: &MoveView) -> String {
    if view.slots == 0 {
        return format!("nothing moves (layout epoch {})\n", view.epoch);
    }
    let links = [
        ("within nodes", view.bytes_within_nodes),
        ("between nodes", view.bytes_between_nodes),
        ("between zones", view.bytes_between_zones),
        ("between regions", view.bytes_between_regions),
        ("rebuilt", view.bytes_rebuilt),
    ];
    let rows = links.iter().filter(|(_, bytes)| *bytes > 0);
    let mut rows: Vec<Vec<String>> =
        rows.map(|(link, bytes)| vec![(*link).to_owned(), byte_size::format(*bytes)]).collect();
    rows.push(vec!["in all".to_owned(), byte_size::format(view.bytes)]);
    let least = format!("{} slots move, at least {} must", words::count(view.slots), words::count(view.least_slots));
    let fill = format!("worst fill {:.2} -> {:.2} of its share", view.worst_fill_before, view.worst_fill_after);
    let source = match view.rate {
        MoveRate::Measured => "as shards move now",
        MoveRate::Limit => "the limit that is set",
        MoveRate::Assumed => "a guess: nothing has moved yet",
    };
    if !view.is_counted {
        let promise = promise_table(view);
        return format!(
            "\n{least}\n{fill}\nbytes and time are not known yet: the inventory is being taken\n\n{promise}"
        );
    }
    let time = format!("time {} at {} ({source})", words::duration(view.seconds), words::rate(view.bytes_per_second));
    let homeless = match view.slots_without_place {
        0 => String::new(),
        slots => format!("{} slots find no other place and stay where they are\n", words::count(slots)),
    };
    let moves = columns(&["MOVE", "BYTES"], rows, &[1]);
    let promise = promise_table(view);
    format!("\n{moves}{least}\n{fill}\n{time}\n{homeless}\n{promise}")
}

fn promise_table(view: &MoveView) -> String {
    let holds = |is_so: bool| if is_so { "holds" } else { "BROKEN" }.to_owned();
    let steps = view
        .scenarios
        .iter()
        .map(|step| vec![step.scenario.clone(), holds(step.before), holds(step.during), holds(step.after)]);
    columns(&["PROMISE", "BEFORE", "DURING", "AFTER"], steps.collect(), &[])
}

/// A plan, and how to carry it out.
pub(crate) fn plan(view: &MoveView) -> String {
    let head = format!("plan {} (good while the layout epoch is {})\n", view.plan, view.epoch);
    match view.slots {
        0 => table(view),
        _ => format!("{head}{}apply with: holdfast rebalance apply {}\n", table(view), view.plan),
    }
}

/// What moves just now.
pub(crate) fn status(view: &RebalanceView) -> String {
    let state = match view.state.as_str() {
        "moving" => {
            let (slots, pgs) = (words::count(view.moving_slots), words::count(view.moving_pgs));
            let eta =
                view.eta_seconds.map_or_else(String::new, |seconds| format!(", {} to go", words::duration(seconds)));
            format!(
                "moving {slots} slots of {pgs} placement groups: {} in all, {} still to write (repair included), {}{eta}",
                byte_size::format(view.moving_bytes),
                byte_size::format(view.bytes_to_write),
                words::rate(view.bytes_per_second)
            )
        }
        "paused" => {
            format!("paused with {} slots under way: holdfast rebalance resume", words::count(view.moving_slots))
        }
        "held" => {
            "nothing moves, and nothing new is planned: holdfast rebalance plan, holdfast rebalance resume".to_owned()
        }
        _ => "nothing moves".to_owned(),
    };
    let held = match view.is_planning_held && view.state == "moving" {
        true => "; nothing new is planned until holdfast rebalance resume",
        false => "",
    };
    format!("layout {}: {state}{held}\n", view.epoch)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use holdfast_proto::layout_admin::StepView;
    use holdfast_proto::{Epoch, NodeId};

    pub(crate) fn view() -> MoveView {
        MoveView {
            plan: "118-7a3f90c1".into(),
            epoch: Epoch(118),
            promise: "zone:1".into(),
            slots: 2048,
            least_slots: 2000,
            bytes: 3 << 30,
            is_counted: true,
            bytes_within_nodes: 0,
            bytes_between_nodes: 1 << 30,
            bytes_between_zones: 2 << 30,
            bytes_between_regions: 0,
            bytes_rebuilt: 0,
            slots_without_place: 0,
            worst_fill_before: 1.333,
            worst_fill_after: 1.004,
            bytes_per_second: 100 << 20,
            rate: MoveRate::Assumed,
            seconds: 31,
            scenarios: vec![StepView { scenario: "zone:1".into(), before: true, during: true, after: false }],
        }
    }

    #[test]
    fn snapshots() {
        let expected = "
MOVE             BYTES
between nodes  1.0 GiB
between zones  2.0 GiB
in all         3.0 GiB
2,048 slots move, at least 2,000 must
worst fill 1.33 -> 1.00 of its share
time 31 s at 100 MiB/s (a guess: nothing has moved yet)

PROMISE  BEFORE  DURING  AFTER
zone:1   holds   holds   BROKEN
";
        assert_eq!(table(&view()), expected);
        let idle = MoveView { slots: 0, ..view() };
        assert_eq!(table(&idle), "nothing moves (layout epoch 118)\n");
        let uncounted = table(&MoveView { is_counted: false, ..view() });
        assert!(uncounted.contains("not known yet") && uncounted.contains("BROKEN"), "{uncounted}");
        let node = NodeMoveView {
            node: NodeId(4),
            name: "n4".into(),
            mode: Mode::Apply,
            intent: NodeIntent::Draining,
            pg_slots: 3,
            promise_before: "zone:1".into(),
            promise_after: String::new(),
            moves: MoveView { slots_without_place: 2, ..view() },
        };
        let text = of_node(&node);
        for part in ["n4 is draining", "promise zone:1 -> any backends", "2 slots find no other place"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for (mode, intent, part) in [
            (Mode::Plan, NodeIntent::Draining, "would be drained"),
            (Mode::Plan, NodeIntent::Removed, "would be removed"),
            (Mode::Apply, NodeIntent::Active, "n4 stays"),
            (Mode::Apply, NodeIntent::Removed, "removed for good"),
        ] {
            let text = of_node(&NodeMoveView { mode, intent, ..node.clone() });
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_plan_says_how_to_apply_it_and_a_status_what_moves() {
        let text = plan(&view());
        assert!(text.starts_with("plan 118-7a3f90c1 (good while the layout epoch is 118)\n"), "{text}");
        assert!(text.ends_with("apply with: holdfast rebalance apply 118-7a3f90c1\n"), "{text}");
        assert!(!plan(&MoveView { slots: 0, ..view() }).contains("apply"));
        let moving = RebalanceView {
            state: "moving".into(),
            epoch: Epoch(9),
            is_planning_held: false,
            moving_pgs: 12,
            moving_slots: 48,
            moving_bytes: 3 << 30,
            bytes_to_write: 1 << 30,
            bytes_per_second: 100 << 20,
            eta_seconds: Some(11),
        };
        let expected = "layout 9: moving 48 slots of 12 placement groups: 3.0 GiB in all, 1.0 GiB still to write (repair \
                        included), 100 MiB/s, 11 s to go\n";
        assert_eq!(status(&moving), expected);
        let undone = status(&RebalanceView { is_planning_held: true, ..moving.clone() });
        assert!(undone.contains("nothing new is planned until holdfast rebalance resume"), "{undone}");
        for (state, part) in
            [("paused", "48 slots under way"), ("held", "nothing new is planned"), ("idle", "nothing moves\n")]
        {
            let text = status(&RebalanceView { state: state.into(), ..moving.clone() });
            assert!(text.contains(part), "{text}");
        }
    }
}
