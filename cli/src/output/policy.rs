//! `holdfast policy`.

use super::{columns, moves};
use holdfast_proto::layout_admin::{PolicyPlanView, PolicyView, SchemeView};

/// What is promised, and whether it holds now.
pub(crate) fn list(policies: &[PolicyView]) -> String {
    let rows = policies.iter().flat_map(|policy| {
        let how = if policy.is_chosen { "chosen" } else { "follows the nodes" };
        let proof = match &policy.proof {
            Some(proof) if proof.is_current => "proven",
            Some(_) => "proof is of another layout",
            None => "not proven yet",
        };
        policy.scenarios.iter().enumerate().map(move |(number, scenario)| {
            let now = match scenario.holds {
                true => "survived now".to_owned(),
                false => format!("NOT survived now: {}", scenario.why),
            };
            let first = |text: &str| if number == 0 { text.to_owned() } else { String::new() };
            let buckets = if number == 0 { policy.buckets.to_string() } else { String::new() };
            vec![
                first(&policy.name),
                first(&policy.scheme),
                buckets,
                first(how),
                first(proof),
                scenario.scenario.clone(),
                now,
            ]
        })
    });
    columns(&["POLICY", "SCHEME", "BUCKETS", "PROMISE", "PROOF", "SURVIVES", "NOW"], rows.collect(), &[2])
}

/// Whether it can be kept, what for, and what moves.
pub(crate) fn plan(view: &PolicyPlanView) -> String {
    let mut text = match view.is_kept {
        true => format!("{} keeps {} on these nodes: proven for every placement group\n", view.scheme, view.survive),
        false => format!("{} cannot be promised: {}\n", view.survive, view.refusal),
    };
    for unkept in &view.unkept {
        text += &format!("no scheme keeps it here; the nearest: {unkept}\n");
    }
    if let Some(moved) = &view.moves {
        text += &moves::table(moved);
    }
    if view.schemes.is_empty() {
        return text;
    }
    let rows = view.schemes.iter().map(|scheme| {
        vec![
            scheme.scheme.clone(),
            format!("{:.2}x", scheme.overhead),
            scheme.survives.to_string(),
            nines(scheme),
            format!("{:.1}", scheme.repair_reads),
            match scheme.has_spare_node {
                Some(true) => "yes".to_owned(),
                Some(false) => "no".to_owned(),
                None => "-".to_owned(),
            },
            if scheme.is_present { "in use".to_owned() } else { String::new() },
        ]
    });
    let headings = ["SCHEME", "STORED", "SURVIVES", "NINES", "REPAIR READS", "SPARE NODE", ""];
    format!("{text}\n{}", columns(&headings, rows.collect(), &[1, 2, 3, 4]))
}

/// Without and with the loss of regions.
fn nines(scheme: &SchemeView) -> String {
    match scheme.nines_with_region_loss {
        Some(with) => format!("{:.0} ({with:.0} with regions)", scheme.nines),
        None => format!("{:.0}", scheme.nines),
    }
}

#[cfg(test)]
mod tests {
    use super::super::moves::tests::view;
    use super::*;
    use holdfast_proto::layout_admin::ScenarioView;

    #[test]
    fn snapshots() {
        let scenario = |scenario: &str, why: &str| ScenarioView {
            scenario: scenario.into(),
            holds: why.is_empty(),
            why: why.into(),
        };
        let policy = PolicyView {
            name: "default".into(),
            survive: "node:2, zone:1".into(),
            is_chosen: true,
            scheme: "4+2".into(),
            buckets: 3,
            proof: None,
            scenarios: vec![scenario("node:2", ""), scenario("zone:1", "PG 3 ...")],
        };
        let expected = "\
POLICY   SCHEME  BUCKETS  PROMISE  PROOF           SURVIVES  NOW
default  4+2           3  chosen   not proven yet  node:2    survived now
                                                   zone:1    NOT survived now: PG 3 ...
";
        assert_eq!(list(&[policy]), expected);
        let scheme = SchemeView {
            scheme: "4+2".into(),
            is_present: true,
            overhead: 1.5,
            survives: 2,
            nines: 11.4,
            nines_with_region_loss: None,
            repair_reads: 4.0,
            has_spare_node: Some(true),
        };
        let kept = PolicyPlanView {
            survive: "zone:1".into(),
            scheme: "4+2".into(),
            is_kept: true,
            refusal: String::new(),
            unkept: Vec::new(),
            schemes: vec![scheme],
            moves: Some(view()),
        };
        let text = plan(&kept);
        for part in [
            "4+2 keeps zone:1 on these nodes",
            "between zones",
            "SCHEME  STORED  SURVIVES  NINES  REPAIR READS  SPARE NODE\n",
            "4+2      1.50x         2     11           4.0  yes         in use\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let refused = PolicyPlanView {
            is_kept: false,
            refusal: "4+2 cannot promise zone:2 here: needs 6 zones, there are 3".into(),
            unkept: vec!["zone:2 ...".into()],
            schemes: Vec::new(),
            moves: None,
            ..kept
        };
        let expected = "\
zone:1 cannot be promised: 4+2 cannot promise zone:2 here: needs 6 zones, there are 3
no scheme keeps it here; the nearest: zone:2 ...
";
        assert_eq!(plan(&refused), expected);
    }
}
