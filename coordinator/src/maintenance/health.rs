//! Watches the backends: takes the node's report every second, says what changed once, and has the layout planned anew
//! when a backend is lost or comes back.

use super::layout_change::replan;
use super::shared::{Doubt, Shared};
use crate::repair::Transition;
use holdfast_proto::node::{BackendHealth, BackendStatus};
use std::sync::Arc;
use std::time::Duration;

/// A node that takes longer to report has its last report kept.
const REPORT_TIMEOUT: Duration = Duration::from_secs(15);
/// Health states by name, for metrics.
const STATES: [(BackendHealth, &str); 6] = [
    (BackendHealth::Online, "online"),
    (BackendHealth::ReadOnly, "read-only"),
    (BackendHealth::Missing, "missing"),
    (BackendHealth::Wiped, "wiped"),
    (BackendHealth::Foreign, "foreign"),
    (BackendHealth::Failed, "failed"),
];

/// Runs until maintenance ends.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            () = check(&shared) => {}
            () = shared.cancel.cancelled() => return,
        }
        if !shared.rest(shared.options.health_period).await {
            return;
        }
    }
}

/// Takes a first report if there is none yet.
pub(crate) async fn ensure_report(shared: &Shared) {
    let is_known = !shared.health.lock().statuses.is_empty();
    if !is_known {
        check(shared).await;
    }
}

/// Takes a report now and acts on what changed.
pub(crate) async fn check(shared: &Shared) {
    let _one_at_a_time = shared.health_check.lock().await;
    let Ok(statuses) = tokio::time::timeout(REPORT_TIMEOUT, shared.node.backends()).await else {
        tracing::warn!(seconds = REPORT_TIMEOUT.as_secs(), "the node does not report on its backends");
        return;
    };
    let statuses = with_unreported(shared, statuses);
    let now_ms = shared.now_ms();
    let report: Vec<_> = statuses.iter().map(|s| (s.id, s.health)).collect();
    let (transitions, is_trusted_again) = {
        let mut health = shared.health.lock();
        let is_trusted_again = health.distrust.lapse(now_ms);
        let transitions = health.clock.handle_report(&report, now_ms);
        for transition in &transitions {
            health.distrust.forget(transition.backend);
        }
        health.statuses = statuses;
        (transitions, is_trusted_again)
    };
    for transition in &transitions {
        tell(shared, transition);
    }
    publish_metrics(shared);
    // A first sight of a backend that answers is no news; any other change may have cost or brought back shards.
    let is_news = |t: &Transition| t.from.is_some() || t.to != BackendHealth::Online;
    if transitions.iter().any(is_news) {
        shared.request_inventory(Doubt::FewerShards);
    } else if is_trusted_again {
        // What waited for it can go on. The figures without it were no better than those to come.
        shared.request_inventory(Doubt::None);
    }
    replan(shared, false).await;
}

/// A backend of the map that the node does not know of counts as missing.
fn with_unreported(shared: &Shared, mut statuses: Vec<BackendStatus>) -> Vec<BackendStatus> {
    let map = shared.layout.current();
    // One that was just added may be reported before the map knows it: it is nobody's concern yet.
    statuses.retain(|status| map.backends.iter().any(|record| record.id == status.id));
    for record in &map.backends {
        match statuses.iter_mut().find(|status| status.id == record.id) {
            // The map's name counts: a replaced backend has been renamed there.
            Some(status) => status.name.clone_from(&record.name),
            None => statuses.push(BackendStatus {
                id: record.id,
                name: record.name.clone(),
                location: record.location.clone(),
                health: BackendHealth::Missing,
                reason: "not attached to this node".to_owned(),
                capacity_bytes: 0,
                free_bytes: 0,
                used_bytes: 0,
                shard_count: 0,
                scrubbed_ms: 0,
            }),
        }
    }
    statuses
}

fn tell(shared: &Shared, transition: &Transition) {
    let health = shared.health.lock();
    let Some(status) = health.statuses.iter().find(|s| s.id == transition.backend) else { return };
    let (name, id, location, reason) = (&status.name, status.id, &status.location, &status.reason);
    match (transition.from, transition.to) {
        (None, BackendHealth::Online) => tracing::debug!(name, %id, location, "backend online"),
        (Some(from), BackendHealth::Online) => tracing::info!(name, %id, location, ?from, "backend online again"),
        (from, to) => tracing::warn!(name, %id, location, ?from, ?to, reason, "backend not online"),
    }
}

/// Gauges of backends and of repair.
fn publish_metrics(shared: &Shared) {
    let as_f64 = |bytes: u64| bytes as f64;
    for status in &shared.health.lock().statuses {
        for (state, label) in STATES {
            let is_so = if status.health == state { 1.0 } else { 0.0 };
            metrics::gauge!("holdfast_backend_health", "backend" => status.name.clone(), "state" => label).set(is_so);
        }
        let gauges = [
            ("holdfast_backend_capacity_bytes", status.capacity_bytes),
            ("holdfast_backend_free_bytes", status.free_bytes),
            ("holdfast_backend_used_bytes", status.used_bytes),
            ("holdfast_backend_shards", status.shard_count),
        ];
        for (name, value) in gauges {
            metrics::gauge!(name, "backend" => status.name.clone()).set(as_f64(value));
        }
    }
    let repair = shared.repair_status();
    for row in &repair.margins {
        metrics::gauge!("holdfast_repair_segments", "margin" => row.margin.to_string()).set(as_f64(row.segments));
    }
    metrics::gauge!("holdfast_repair_bytes_to_write").set(as_f64(repair.bytes_to_write));
    metrics::gauge!("holdfast_repair_failed_segments").set(as_f64(repair.failed_segments));
    metrics::gauge!("holdfast_layout_epoch").set(as_f64(shared.layout.current().table.epoch.0));
}
