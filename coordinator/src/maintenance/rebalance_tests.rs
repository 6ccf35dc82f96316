//! Moves that are planned, applied, held and taken back, and promises that are chosen, over fakes.

use super::node_tests::{Cluster, cluster};
use super::*;
use crate::rebalance::model::b;
use holdfast_proto::node::BackendHealth;
use holdfast_proto::pg_table::Pg;
use holdfast_proto::{BackendId, ErrorKind, PgId, Slot};
use std::time::Duration;

/// Long enough for the store to have planned and moved what it would.
const A_WHILE: Duration = Duration::from_millis(400);

fn pgs(cluster: &Cluster) -> Vec<Pg> {
    cluster.layout.current().table.pgs.clone()
}

fn slots_of(cluster: &Cluster, node: &str) -> usize {
    let of_node = cluster.backends(node);
    let map = cluster.layout.current();
    map.table.pgs.iter().flat_map(|pg| &pg.target).filter(|id| of_node.contains(id)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_applied_as_it_was_shown_or_not_at_all() {
    let cluster = cluster(4, 2, |_, _| {});
    cluster.until("at rest", |c| c.is_at_rest()).await;
    let maintenance = &cluster.maintenance;
    assert_eq!(maintenance.rebalance_pause().await.unwrap().state, "paused");
    let before = pgs(&cluster);
    cluster.join(5, &[9, 10]);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(pgs(&cluster), before, "a node that joins while planning is held gets nothing by itself");

    let shown = maintenance.rebalance_plan().await.unwrap();
    assert!(shown.slots > 30 && shown.slots == shown.least_slots && shown.bytes > 0, "{shown:?}");
    assert!(shown.scenarios.iter().all(|step| step.before && step.during && step.after), "{shown:?}");
    for other in ["1-00000000", "nonsense", &shown.plan.replace('-', "-f")] {
        let stale = maintenance.rebalance_apply(other).await.unwrap_err();
        assert!(matches!(stale, MaintenanceError::PlanStale { .. }), "{other}: {stale}");
        assert_eq!(stale.next_step(), "holdfast rebalance plan");
    }
    maintenance.repair_pause().await.unwrap();
    maintenance.repair_resume().await.unwrap();
    let stale = maintenance.rebalance_apply(&shown.plan).await.unwrap_err();
    assert!(matches!(stale, MaintenanceError::PlanStale { .. }), "the layout has another epoch: {stale}");

    let shown = maintenance.rebalance_plan().await.unwrap();
    assert_eq!(maintenance.rebalance_apply(&shown.plan).await.unwrap(), shown);
    cluster.until("the new node has its share", |c| c.is_at_rest() && slots_of(c, "n5") > 30).await;
    let status = maintenance.rebalance_status().await.unwrap();
    assert_eq!((status.state.as_str(), status.moving_slots, status.is_planning_held), ("idle", 0, false));
    let history = maintenance.layout_history().await.unwrap();
    let causes: Vec<&str> = history.iter().map(|change| change.cause.as_str()).filter(|c| !c.is_empty()).collect();
    let applied = format!("rebalance apply {}", shown.plan);
    assert_eq!(causes, [applied.as_str(), "repair resume", "repair pause", "rebalance pause"]);
    assert!(history.iter().any(|change| change.what.iter().any(|line| line.contains("have all shards in place"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_under_way_are_taken_back_and_stay_so() {
    let cluster = cluster(4, 2, |node, _| *node.write_delay.lock() = Duration::from_millis(30));
    cluster.until("at rest", |c| c.is_at_rest()).await;
    let maintenance = &cluster.maintenance;
    let nothing = maintenance.rebalance_undo().await.unwrap_err();
    assert_eq!((nothing.kind(), nothing.next_step().is_empty()), (ErrorKind::Conflict, false));
    let before = pgs(&cluster);
    cluster.join(5, &[9, 10]);
    cluster.until("some shards have moved", |c| c.node.count(b(9)) + c.node.count(b(10)) > 4).await;
    assert!(cluster.layout.current().table.pgs.iter().any(|pg| pg.is_moving()));
    let undone = maintenance.rebalance_undo().await.unwrap();
    assert!(undone.is_planning_held, "{undone:?}");
    *cluster.node.write_delay.lock() = Duration::ZERO;
    cluster.until("all is back", |c| c.is_at_rest()).await;
    let layout = maintenance.layout_show().await.unwrap();
    assert!(layout.proof.is_some_and(|proof| proof.is_current));
    tokio::time::sleep(A_WHILE).await;
    let is_where_it_was = |now: &[Pg]| now.iter().zip(&before).filter(|(now, was)| now.target == was.target).count();
    // What had been committed before the undo stays; the rest is where it was.
    let committed = cluster.layout.current().table.pgs.iter().filter(|pg| pg.target.contains(&b(9))).count()
        + cluster.layout.current().table.pgs.iter().filter(|pg| pg.target.contains(&b(10))).count();
    assert!(is_where_it_was(&pgs(&cluster)) + committed >= before.len());
    assert!(is_where_it_was(&pgs(&cluster)) > 0);
    assert_eq!(maintenance.rebalance_status().await.unwrap().state, "held");
    maintenance.rebalance_resume().await.unwrap();
    cluster.until("the new node has its share", |c| c.is_at_rest() && slots_of(c, "n5") > 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_outlives_the_leader() {
    let mut cluster = cluster(4, 2, |_, _| {});
    cluster.until("at rest", |c| c.is_at_rest()).await;
    cluster.maintenance.repair_pause().await.unwrap();
    cluster.maintenance.rebalance_pause().await.unwrap();
    cluster.change_leader().await;
    assert_eq!(cluster.maintenance.repair_status().await.unwrap().state, "paused");
    assert_eq!(cluster.maintenance.rebalance_status().await.unwrap().state, "paused");
    cluster.node.set_health(b(1), BackendHealth::Wiped);
    tokio::time::sleep(A_WHILE).await;
    assert!(!cluster.is_at_rest(), "repair is held");
    cluster.maintenance.repair_resume().await.unwrap();
    cluster
        .until("what was lost is rebuilt although moves are held", |c| {
            let map = c.layout.current();
            map.table.pgs.iter().all(|pg| !pg.target.contains(&b(1))) && c.all_good()
        })
        .await;
    cluster.maintenance.rebalance_resume().await.unwrap();
    cluster.until("at rest", |c| c.is_at_rest()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthy_shards_wait_while_moves_are_held() {
    let cluster = cluster(4, 2, |_, _| {});
    cluster.until("at rest", |c| c.is_at_rest()).await;
    cluster.maintenance.rebalance_pause().await.unwrap();
    let drain = NodeDrain::default();
    cluster.maintenance.node_drain("n4", drain).await.unwrap();
    let written = cluster.node.written.lock().len();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(cluster.node.written.lock().len(), written, "ordered, and held");
    let findings = cluster.maintenance.cluster_verdict().await.unwrap().1;
    assert!(findings.iter().any(|finding| finding.contains("holdfast rebalance resume")), "{findings:?}");
    cluster.maintenance.rebalance_resume().await.unwrap();
    cluster.until_drained("n4").await;
}

/// Each slot counts where the table knows it, so no margin shows that three of one PG still share a zone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_healthy_before_the_promise_is_proven_for_where_shards_are() {
    let cluster = cluster(4, 3, |node, map| {
        map.held.moves = true;
        let pg = &mut map.table.pgs[0];
        let zone = |id: &BackendId| (id.0[0] - 1) / 3;
        let shared = (0..4).find(|z| pg.target.iter().filter(|id| zone(id) == *z).count() == 2).unwrap();
        let third = (1..=12).map(b).find(|id| zone(id) == shared && !pg.target.contains(id)).unwrap();
        let slot = pg.target.iter().position(|id| zone(id) != shared).unwrap();
        let target = std::mem::replace(&mut pg.committed[slot], third);
        node.move_slot(PgId(0), Slot(u8::try_from(slot).unwrap()), target, third);
    });
    let maintenance = &cluster.maintenance;
    let report = maintenance.status_report().await.unwrap();
    assert_eq!((report.promise.as_str(), report.survives_now.as_str()), ("zone:1", "any 2 backends"));
    let named =
        |findings: &[String]| findings.iter().any(|finding| finding.starts_with("zone:1 is not promised before"));
    assert!(report.verdict == Verdict::Degraded && named(&report.findings), "{report:?}");
    maintenance.rebalance_resume().await.unwrap();
    cluster.until("at rest", |c| c.is_at_rest()).await;
    let (verdict, findings) = maintenance.cluster_verdict().await.unwrap();
    assert!(!named(&findings), "{verdict:?} {findings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_is_planned_refused_and_chosen() {
    let cluster = cluster(4, 2, |_, _| {});
    cluster.until("at rest", |c| c.is_at_rest()).await;
    let maintenance = &cluster.maintenance;
    let ask = |text: &str| PolicyAsk { survive: Some(text.to_owned()) };
    let listed = maintenance.policy_list().await.unwrap();
    assert_eq!((listed[0].survive.as_str(), listed[0].is_chosen, listed[0].scheme.as_str()), ("zone:1", false, "4+2"));
    assert!(listed[0].scenarios[0].holds && listed[0].proof.as_ref().is_some_and(|proof| proof.is_current));

    let epoch = cluster.layout.current().table.epoch;
    let beyond = maintenance.policy_plan(ask("zone:3")).await.unwrap();
    assert!(!beyond.is_kept && beyond.refusal.contains("zone:3") && beyond.moves.is_none(), "{beyond:?}");
    assert!(beyond.unkept.iter().any(|what| what.contains("zone:3")) || !beyond.schemes.is_empty(), "{beyond:?}");
    let kept = maintenance.policy_plan(ask("node:1, backend:2")).await.unwrap();
    assert!(kept.is_kept && kept.schemes.iter().any(|scheme| scheme.is_present), "{kept:?}");
    let refused = maintenance.policy_create(ask("zone:3")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("zone:3") && refused.next_step().contains("policy plan"), "{refused}");
    let wrong = maintenance.policy_create(ask("zone")).await.unwrap_err();
    assert_eq!((wrong.kind(), wrong.next_step().is_empty()), (ErrorKind::Invalid, false));
    assert_eq!(cluster.layout.current().table.epoch, epoch, "refusals and plans change nothing");

    maintenance.policy_create(ask("backend:2")).await.unwrap();
    let map = cluster.layout.current();
    assert_eq!((map.promise.to_string().as_str(), map.is_promise_chosen), ("backend:2", true));
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(cluster.layout.current().promise.to_string(), "backend:2", "it stays, whatever the nodes could keep");
    maintenance.policy_create(PolicyAsk::default()).await.unwrap();
    let map = cluster.layout.current();
    assert_eq!((map.promise.to_string().as_str(), map.is_promise_chosen), ("zone:1", false));
    let history = maintenance.layout_history().await.unwrap();
    assert_eq!(history[0].cause, "policy create --follow-nodes");
    assert_eq!(history[0].what[0], "promise backend:2 -> zone:1");
}
