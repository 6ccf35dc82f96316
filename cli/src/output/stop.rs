//! `holdfast node safe-to-stop`.

use super::columns;
use holdfast_proto::layout_admin::{StopVerdict, StopView};

/// The verdict, what it rests on, and the promise scenario by scenario.
pub(crate) fn table(view: &StopView) -> String {
    let StopView { name, pg_count, unreadable_pgs, unwritable_pgs, .. } = view;
    let verdict = match view.verdict {
        StopVerdict::Safe => format!("{name} may be stopped: reads and writes go on"),
        StopVerdict::WritesStop => {
            format!("{name} had better not be stopped: reads go on, some writes would be refused")
        }
        StopVerdict::ReadsBreak => format!("{name} must not be stopped: something could not be read"),
    };
    let of_pgs = |broken: u64, what: &str| match broken {
        0 => "yes".to_owned(),
        _ => format!("no: {broken} of {pg_count} placement groups would {what}"),
    };
    let group = |group: &u32| if *group == 0 { "the root group".to_owned() } else { format!("range {group}") };
    let groups: Vec<String> = view.groups_without_quorum.iter().map(group).collect();
    let metadata = match groups.as_slice() {
        [] => "yes".to_owned(),
        groups => format!("no: {} would have no majority of voters", groups.join(", ")),
    };
    let besides = match view.survives_besides {
        i32::MIN..0 => "nothing".to_owned(),
        0 => "no further loss".to_owned(),
        1 => "any 1 backend more".to_owned(),
        count => format!("any {count} backends more"),
    };
    let rows = [
        ("reads", of_pgs(*unreadable_pgs, "be short of shards")),
        ("writes", of_pgs(*unwritable_pgs, "take none above the size of inline objects")),
        ("metadata", metadata),
        ("survives", besides),
    ];
    let rows = rows.map(|(what, answer)| vec![what.to_owned(), answer]).to_vec();
    let scenarios = view.scenarios.iter().map(|scenario| {
        let holds = if scenario.holds { "yes".to_owned() } else { format!("no: {}", scenario.why) };
        vec![scenario.scenario.clone(), holds]
    });
    let meanwhile = columns(&["MEANWHILE", ""], rows, &[]);
    let promise = columns(&["PROMISE", "SURVIVED MEANWHILE"], scenarios.collect(), &[]);
    format!("{verdict}\n\n{meanwhile}\n{promise}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::NodeId;
    use holdfast_proto::layout_admin::ScenarioView;

    #[test]
    fn snapshots() {
        let safe = StopView {
            node: NodeId(2),
            name: "n2".into(),
            verdict: StopVerdict::Safe,
            pg_count: 256,
            unreadable_pgs: 0,
            unwritable_pgs: 0,
            survives_besides: 1,
            scenarios: vec![ScenarioView { scenario: "zone:1".into(), holds: true, why: String::new() }],
            groups_without_quorum: Vec::new(),
        };
        let expected = "\
n2 may be stopped: reads and writes go on

MEANWHILE
reads      yes
writes     yes
metadata   yes
survives   any 1 backend more

PROMISE  SURVIVED MEANWHILE
zone:1   yes
";
        assert_eq!(table(&safe), expected);
        let broken = StopView {
            verdict: StopVerdict::ReadsBreak,
            unreadable_pgs: 3,
            unwritable_pgs: 17,
            survives_besides: -1,
            scenarios: vec![ScenarioView { scenario: "zone:1".into(), holds: false, why: "PG 3 ...".into() }],
            groups_without_quorum: vec![0, 2],
            ..safe
        };
        let text = table(&broken);
        for part in [
            "n2 must not be stopped",
            "no: 3 of 256 placement groups would be short of shards",
            "no: 17 of 256",
            "no: the root group, range 2 would have no majority",
            "zone:1   no: PG 3 ...",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
