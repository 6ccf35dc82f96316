//! Layouts over zones, nodes, regions and vendors: first tables and changes, each judged by counting and by the proof.

use super::*;
use crate::topology::tests::place;
use holdfast_codec::Scheme;
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::{BackendId, Epoch, PgId};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// `zones` zones of `nodes` nodes of `disks` backends of 1 TiB, in one region.
fn site(zones: u16, nodes: u16, disks: u16) -> Vec<BackendPlace> {
    let one = |n: u16| {
        let node = n / disks;
        place(n, &format!("n{node}"), &format!("z{}", node / nodes), "r")
    };
    (0..zones * nodes * disks).map(one).collect()
}

fn topology(places: &[BackendPlace]) -> Topology {
    Topology::new(places.iter().cloned()).unwrap()
}

fn settled(table: &PgTable) -> PgTable {
    let all: Vec<PgId> = (0..u32::try_from(table.pgs.len()).unwrap()).map(PgId).collect();
    commit_pgs(table, &all)
}

fn most_in_a_domain(table: &PgTable, topology: &Topology, kind: DomainKind) -> usize {
    let count = |pg: &holdfast_proto::pg_table::Pg| {
        let mut counts: BTreeMap<Domain, usize> = BTreeMap::new();
        for id in &pg.target {
            *counts.entry(topology.place(*id).unwrap().domain(kind)).or_default() += 1;
        }
        counts.into_values().max().unwrap()
    };
    table.pgs.iter().map(count).max().unwrap()
}

/// A plan that is proven from every side, moves at most `ratio` of the least, fills well, and keeps what held.
#[track_caller]
fn check_change(table: &PgTable, promise: &Promise, places: &[BackendPlace]) -> (LayoutPlan, MoveSummary) {
    let topology = topology(places);
    let plan = plan_layout(table, promise, &topology).unwrap();
    prove_layout(&plan.table, promise, &topology).unwrap();
    let summary = summarize_moves(table, &plan, &topology, &vec![10; table.pgs.len()]).unwrap();
    let slots = |n: usize| f64::from(u32::try_from(n).unwrap());
    assert!(slots(summary.slots) <= slots(summary.least_slots) * 1.05 + 3.0, "{summary:?}");
    let links = [summary.same_node, summary.same_zone, summary.same_region, summary.wan, summary.rebuilt];
    assert_eq!(links.iter().map(|link| link.slots).sum::<usize>(), summary.slots);
    assert_eq!(links.iter().map(|link| link.bytes).sum::<u64>(), 10 * u64::try_from(summary.slots).unwrap());
    // What is lost already may be what a scenario takes; but no move makes it worse.
    let is_kept = |steps: &ScenarioSteps| steps.after && (steps.during || !steps.before);
    assert!(summary.scenarios.iter().all(is_kept), "{summary:?}");
    let again = plan_layout(&settled(&plan.table), promise, &topology).unwrap();
    assert_eq!(slots_changed(&settled(&plan.table), &again.table), 0, "a plan made again has something to add");
    (plan, summary)
}

#[test]
fn first_tables_keep_their_promises_and_are_even() {
    for (scheme, promise, places) in [
        ("4+2", "zone:1, node:2", site(3, 4, 1)),
        ("4+2", "node:1", site(1, 3, 2)),
        ("7+5", "zone:1+node:1", site(3, 5, 2)),
        ("6+6", "zone:1+node:1", site(3, 3, 2)),
        ("2+1", "node:1", site(1, 3, 4)),
        ("6+3", "node:3", site(1, 12, 1)),
        ("lrc-6-2-2", "node:3", site(1, 12, 1)),
    ] {
        let (scheme, promise, topology): (Scheme, Promise, _) =
            (scheme.parse().unwrap(), promise.parse().unwrap(), topology(&places));
        let plan = initial_layout(scheme, 256, &promise, &topology).unwrap();
        assert_eq!((plan.base, plan.table.epoch), (Epoch(0), Epoch(1)));
        let proof = prove_layout(&plan.table, &promise, &topology).unwrap();
        assert!(proof.is_exhaustive && plan.proof.is_of(&plan.table, &promise, &topology));
        let summary = summarize_moves(&plan.table, &plan, &topology, &[]).unwrap();
        assert_eq!(summary.slots, 0);
        assert!(summary.worst_fill_after <= 1.02, "{scheme}: {summary:?}");
        for (&kind, &cap) in &plan.caps.by_kind {
            assert!(most_in_a_domain(&plan.table, &topology, kind) <= cap);
        }
        let reversed: Vec<BackendPlace> = places.iter().rev().cloned().collect();
        assert_eq!(initial_layout(scheme, 256, &promise, &Topology::new(reversed).unwrap()).unwrap(), plan);
    }
}

#[test]
fn one_node_more_or_less_of_any_size_balances() {
    let promise: Promise = "zone:1, node:2".parse().unwrap();
    let places = site(3, 4, 1);
    let table = initial_layout("4+2".parse().unwrap(), 256, &promise, &topology(&places)).unwrap().table;
    for weight in [1, 7, 10, 40] {
        let mut grown = places.clone();
        grown.push(BackendPlace { weight_bytes: weight << 38, ..place(99, "n99", "z1", "r") });
        let (plan, summary) = check_change(&table, &promise, &grown);
        assert!(summary.worst_fill_after <= 1.02, "{summary:?}");
        // Its zone holds two slots of every PG whatever comes, so only the others of its zone make room for it.
        assert_eq!((summary.same_region.slots, summary.wan.slots), (0, 0));
        check_change(&settled(&plan.table), &promise, &{
            let mut back = grown.clone();
            back[12].role = CandidateRole::Draining;
            back
        });
    }
    let mut drained = places.clone();
    drained[5].role = CandidateRole::Draining;
    check_change(&table, &promise, &drained);
    drained[5].role = CandidateRole::Lost;
    let (_, summary) = check_change(&table, &promise, &drained);
    assert_eq!(summary.rebuilt.slots, summary.slots);
}

#[test]
fn a_zone_without_spare_waits_and_says_so() {
    // Three zones of two nodes: 4+2 fills each. A lost node has no other place; a drained one is refused.
    let promise: Promise = "zone:1".parse().unwrap();
    let mut places = site(3, 2, 1);
    let table = initial_layout("4+2".parse().unwrap(), 64, &promise, &topology(&places)).unwrap().table;
    places.push(place(50, "n50", "z0", "r"));
    places[4].role = CandidateRole::Lost;
    let plan = plan_layout(&table, &promise, &topology(&places)).unwrap();
    assert_eq!(plan.unhoused, 64, "the spare is in another zone");
    assert!(plan.table.pgs.iter().all(|pg| pg.target.contains(&places[4].id)));
    places[4].role = CandidateRole::Draining;
    let refused = plan_layout(&table, &promise, &topology(&places)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "RS(4,2) cannot promise zone:1 here: only 5 of 6 shards find a place: some domains have too few backends"
    );
    // A spare in the right zone takes all of it.
    places.push(place(51, "n51", "z2", "r"));
    let plan = plan_layout(&table, &promise, &topology(&places)).unwrap();
    assert_eq!(plan.unhoused, 0);
    assert!(!plan.table.pgs.iter().any(|pg| pg.target.contains(&places[4].id)));
}

#[test]
fn a_raised_promise_moves_what_it_must() {
    let places = site(3, 4, 2);
    let topology = topology(&places);
    let backends: Promise = "backend:2".parse().unwrap();
    let table = initial_layout("4+2".parse().unwrap(), 256, &backends, &topology).unwrap().table;
    let raised: Promise = "zone:1, node:2".parse().unwrap();
    assert!(prove_targets(&table, &raised, &topology).is_err());
    let plan = plan_layout(&table, &raised, &topology).unwrap();
    assert!(prove_targets(&plan.table, &raised, &topology).is_ok());
    assert!(!plan.is_stale(table.epoch) && plan.is_stale(plan.table.epoch));
    let summary = summarize_moves(&table, &plan, &topology, &[]).unwrap();
    assert!(summary.worst_fill_after <= 1.02, "{summary:?}");
    assert!(summary.scenarios.iter().all(|steps| !steps.before && steps.after));
    // Lowered again, nothing needs to move.
    let lowered = plan_layout(&settled(&plan.table), &backends, &topology).unwrap();
    assert_eq!(slots_changed(&plan.table, &lowered.table), 0);
}

#[test]
fn caps_that_weight_cannot_follow_are_filled_as_far_as_they_go() {
    // A zone with half of all capacity may hold a third: 4+2 over three zones is two slots each.
    let mut places = site(3, 2, 1);
    places[0].weight_bytes *= 3;
    places[1].weight_bytes *= 3;
    let promise: Promise = "zone:1".parse().unwrap();
    let plan = initial_layout("4+2".parse().unwrap(), 64, &promise, &topology(&places)).unwrap();
    let summary = summarize_moves(&plan.table, &plan, &topology(&places), &[]).unwrap();
    assert!((summary.worst_fill_after - 1.0).abs() < 1e-9, "every backend is in every PG, and can be in no more");
    // A fourth zone takes what the others are glad to be rid of, the heavy one keeps all it may.
    places.extend((0..2).map(|n| place(60 + n, &format!("n{}", 60 + n), "z9", "r")));
    let (plan, summary) = check_change(&plan.table, &promise, &places);
    assert!(summary.worst_fill_after <= 1.02);
    let held = |id: BackendId| plan.table.pgs.iter().filter(|pg| pg.target.contains(&id)).count();
    assert_eq!((held(places[0].id), held(places[1].id)), (64, 64));
    assert!(places[2..].iter().all(|place| (42..=43).contains(&held(place.id))));
}

#[test]
fn geo_codes_keep_their_groups_in_their_regions() {
    let places: Vec<BackendPlace> =
        (0..24u16).map(|n| place(n, &format!("n{n}"), "a", &format!("r{}", n / 8))).collect();
    let geo: Scheme = "geo-12".parse().unwrap();
    let promise: Promise = "region:1+node:1".parse().unwrap();
    let plan = initial_layout(geo, 128, &promise, &topology(&places)).unwrap();
    let code = holdfast_codec::Code::new(geo);
    let check_groups = |table: &PgTable, topology: &Topology| {
        for pg in &table.pgs {
            for class in 0..3 {
                let region = |slot: usize| topology.place(pg.target[slot]).unwrap().region.clone();
                let regions: Vec<String> = code.slots_in(class).iter().map(region).collect();
                assert!(regions.windows(2).all(|pair| pair[0] == pair[1]));
            }
        }
    };
    check_groups(&plan.table, &topology(&places));
    let mut grown = places.clone();
    grown.push(place(90, "n90", "a", "r1"));
    let (next, summary) = check_change(&plan.table, &promise, &grown);
    check_groups(&next.table, &topology(&grown));
    assert_eq!((summary.wan.slots, summary.same_zone.slots), (0, summary.slots));
    assert!(summary.worst_fill_after <= 1.02, "{summary:?}");
}

#[test]
fn vendors_that_cut_across_zones_are_kept_apart_too() {
    let places: Vec<BackendPlace> = (0..18u16)
        .map(|n| {
            let mut place = place(n, &format!("n{n}"), &format!("z{}", n % 3), "r");
            place.labels.insert(DomainKind::Vendor, ["x", "y", "w"][usize::from(n / 3 % 3)].to_owned());
            place
        })
        .collect();
    let promise: Promise = "zone:1, vendor:1".parse().unwrap();
    let plan = initial_layout("3+3".parse().unwrap(), 256, &promise, &topology(&places)).unwrap();
    prove_layout(&plan.table, &promise, &topology(&places)).unwrap();
    let summary = summarize_moves(&plan.table, &plan, &topology(&places), &[]).unwrap();
    assert!(summary.worst_fill_after <= 1.02, "{summary:?}");
    let mut smaller = places.clone();
    smaller[4].role = CandidateRole::Draining;
    let topology = topology(&smaller);
    let next = plan_layout(&plan.table, &promise, &topology).unwrap();
    assert_eq!(next.unhoused, 0);
    prove_layout(&next.table, &promise, &topology).unwrap();
}

#[test]
fn a_promise_is_stored_as_a_list_of_texts() {
    let promise: Promise = "zone:1+node:1, backend:2".parse().unwrap();
    let json = serde_json::to_string(&promise).unwrap();
    assert_eq!(json, r#"["backend:2","zone:1+node:1"]"#);
    assert_eq!(serde_json::from_str::<Promise>(&json).unwrap(), promise);
    assert!(serde_json::from_str::<Promise>(r#"["zones:1"]"#).unwrap_err().to_string().contains("did you mean zone?"));
    let plan =
        initial_layout("2+1".parse().unwrap(), 4, &"node:1".parse().unwrap(), &topology(&site(1, 3, 1))).unwrap();
    let json = serde_json::to_string(&plan.proof).unwrap();
    assert_eq!(serde_json::from_str::<Proof>(&json).unwrap(), plan.proof);
}

/// One random change of a cluster of four zones.
#[derive(Clone, Debug)]
enum Change {
    Add(u16, u64),
    Drain(usize),
    Lose(usize),
    Weigh(usize, u64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0u16..4, 1u64..8).prop_map(|(zone, weight)| Change::Add(zone, weight)),
        any::<usize>().prop_map(Change::Drain),
        any::<usize>().prop_map(Change::Lose),
        (any::<usize>(), 1u64..8).prop_map(|(which, weight)| Change::Weigh(which, weight)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, ..ProptestConfig::default() })]

    /// A cluster's life: every plan there is keeps the promise from all sides and moves little; what is refused names a
    /// scenario that indeed has no layout.
    #[test]
    fn random_changes_of_a_cluster_keep_the_promise(
        changes in proptest::collection::vec(change(), 1..6), is_settled in any::<bool>(),
    ) {
        let promise: Promise = "zone:1, node:2".parse().unwrap();
        let scheme: Scheme = "4+2".parse().unwrap();
        let mut places = site(4, 3, 1);
        let mut fresh = 100;
        let mut table = initial_layout(scheme, 64, &promise, &topology(&places)).unwrap().table;
        for change in &changes {
            match *change {
                Change::Add(zone, weight) => {
                    fresh += 1;
                    let added = place(fresh, &format!("n{fresh}"), &format!("z{zone}"), "r");
                    places.push(BackendPlace { weight_bytes: weight << 40, ..added });
                }
                Change::Drain(which) => {
                    let at = which % places.len();
                    places[at].role = CandidateRole::Draining;
                }
                Change::Lose(which) => {
                    let at = which % places.len();
                    places[at].role = CandidateRole::Lost;
                }
                Change::Weigh(which, weight) => {
                    let at = which % places.len();
                    places[at].weight_bytes = weight << 40;
                }
            }
            let topology = topology(&places);
            match plan_layout(&table, &promise, &topology) {
                Ok(plan) => {
                    prop_assert!(prove_targets(&plan.table, &promise, &topology).is_ok());
                    let summary = summarize_moves(&table, &plan, &topology, &[]).unwrap();
                    // What held before holds in every mixture on the way.
                    for steps in &summary.scenarios {
                        prop_assert!(steps.during || !steps.before, "{:?}", summary);
                    }
                    table = if is_settled { settled(&plan.table) } else { plan.table };
                }
                Err(PlacementError::Infeasible(_)) => {
                    prop_assert!(feasible_caps(scheme, &promise, &topology).is_err());
                }
                Err(PlacementError::NotEnoughBackends { needed, active, .. }) => prop_assert!(active < needed),
                Err(other) => prop_assert!(!is_settled, "{}", other),
            }
        }
    }
}
