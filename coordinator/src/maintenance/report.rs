//! The verdict over the store, with sentences a person can act on.
//!
//! Verdict: **healthy** if every segment has its full margin (what its code survives, whichever shards are lost) and every
//! metadata group its voters, and what is promised is proven for where shards may be now; **degraded** if one has less, or a
//! scenario is unproven until moves are complete, but every segment can still lose a shard; **promise broken** if some can
//! lose none (the next loss breaks a read); **data lost** if what some has on backends that answer does not decode. Taken
//! together from the last inventory and from the backends' health now, whichever is worse; doubt (an inventory that is
//! missing or older than the last loss) counts as degraded.

use super::backend_admin::list;
use super::error::MaintenanceError;
use super::health;
use super::inspect::scheme_text;
use super::layout_change::candidates_for;
use super::shared::Shared;
use super::{MaintenanceResult, ServerFacts};
use crate::metadata::{ClusterMap, ThinGroup};
use crate::rebalance::scenarios_now;
use crate::repair::{Reach, margin_by_health};
use holdfast_proto::admin::{BackendIntent, BackendView, ClusterStatus, RepairStatus, Verdict};
use holdfast_proto::layout_admin::ScenarioView;
use holdfast_proto::node::BackendHealth;
use holdfast_proto::pg_table::Pg;
use holdfast_proto::{BackendId, Epoch};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long a status waits for an inventory that is under way, so that a small store has a whole answer at once.
const INVENTORY_WAIT: Duration = Duration::from_secs(2);
/// Findings of one kind shown.
const FINDINGS_MAX: usize = 20;

/// Everything maintenance knows for a status page.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusReport {
    /// Over all.
    pub verdict: Verdict,
    /// One sentence per finding.
    pub findings: Vec<String>,
    /// K+M.
    pub scheme: String,
    /// What is promised.
    pub promise: String,
    /// What every object survives now.
    pub survives_now: String,
    /// Layout epoch.
    pub epoch: Epoch,
    /// The backends.
    pub backends: Vec<BackendView>,
    /// Repair.
    pub repair: RepairStatus,
}

/// What the verdict is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Evidence {
    /// Full margin of the scheme.
    target: i32,
    /// Smallest margin in the last inventory; `None` without segments.
    by_inventory: Option<i32>,
    /// Smallest margin any PG can have by the backends' health.
    by_health: i32,
    /// Whether shards may be fewer than the inventory says.
    is_doubtful: bool,
    /// Whether some metadata group has not all its voters.
    has_thin_metadata: bool,
    /// Whether a scenario of the promise would not be survived with shards on their way as they are.
    is_unproven: bool,
    /// Whether the store holds any segment, as far as known.
    has_segments: bool,
}

impl Evidence {
    fn margin(&self) -> i32 {
        self.by_inventory.map_or(self.by_health, |m| m.min(self.by_health))
    }

    fn verdict(&self) -> Verdict {
        match self.margin() {
            // Without a segment nothing can be lost; what could be written now would be.
            m if m < 0 && self.has_segments => Verdict::DataLost,
            m if m <= 0 && self.target > 0 => Verdict::PromiseBroken,
            m if m < self.target || self.is_doubtful || self.has_thin_metadata || self.is_unproven => Verdict::Degraded,
            _ => Verdict::Healthy,
        }
    }
}

/// Takes a health report and, if an inventory is due or under way, waits a little for it.
pub(crate) async fn report(shared: &Shared) -> StatusReport {
    health::check(shared).await;
    wait_for_inventory(shared).await;
    let map = shared.layout.current();
    let reach = shared.reach();
    let repair = shared.repair_status();
    let backends = list(shared);
    let target = shared.margin_target();
    let thin = shared.metadata.thin_groups();
    let unproven = unproven_while_moving(shared, &map, &reach).await;
    let evidence = {
        let state = shared.repair.lock();
        let is_settled = state.doubts_settled == Some(state.doubts);
        let by_inventory = state.margins.worst();
        Evidence {
            target,
            by_inventory,
            by_health: margin_by_health(&map.table, &reach).unwrap_or(target),
            is_doubtful: !is_settled
                || state.queue.suspect_count() > 0
                || state.queue.is_any_below(target)
                || state.unreadable_records > 0,
            has_thin_metadata: !thin.is_empty(),
            is_unproven: !unproven.is_empty(),
            has_segments: by_inventory.is_some() || state.doubts_settled.is_none(),
        }
    };
    StatusReport {
        verdict: evidence.verdict(),
        findings: thin
            .iter()
            .take(FINDINGS_MAX)
            .map(thin_finding)
            .chain(unproven)
            .chain(findings(shared, &backends, &repair, evidence))
            .collect(),
        scheme: scheme_text(&map.table.scheme),
        promise: if map.promise.is_empty() { backends_text(target) } else { map.promise.to_string() },
        survives_now: match evidence.margin() {
            m if m < 0 => "nothing: some objects cannot be read now".to_owned(),
            m => backends_text(m),
        },
        epoch: map.table.epoch,
        backends,
        repair,
    }
}

/// The scenarios that are not survived while PGs move, each slot taken for lost if its old or its new place is; one sentence
/// each. Without moves the layout's proof stands, and what its backends lack shows as margin.
async fn unproven_while_moving(shared: &Shared, map: &Arc<ClusterMap>, reach: &Reach) -> Vec<String> {
    if !map.table.pgs.iter().any(Pg::is_moving) {
        return Vec::new();
    }
    // Whoever asks meanwhile waits for this proof and makes none of his own.
    let mut known = shared.unproven.lock().await;
    if let Some((_, _, found)) = known.as_ref().filter(|(epoch, with, _)| (*epoch, with) == (map.table.epoch, reach)) {
        return found.clone();
    }
    let (candidates, judged_map, with) = (candidates_for(shared, map), map.clone(), reach.clone());
    let judged = tokio::task::spawn_blocking(move || scenarios_now(&judged_map, &candidates, &with)).await;
    let found = match judged {
        Ok(Ok(scenarios)) => sentences(scenarios),
        Ok(Err(error)) => vec![format!("the promise cannot be judged while shards are on their way: {error}")],
        Err(error) => return vec![format!("the promise was not judged while shards are on their way: {error}")],
    };
    *known = Some((map.table.epoch, reach.clone(), found.clone()));
    found
}

fn sentences(scenarios: Vec<ScenarioView>) -> Vec<String> {
    let sentence = |broken: ScenarioView| {
        format!(
            "{} is not promised before shards that are on their way are in place ({}); holdfast rebalance status tells how far \
             they are",
            broken.scenario, broken.why
        )
    };
    scenarios.into_iter().filter(|scenario| !scenario.holds).take(FINDINGS_MAX).map(sentence).collect()
}

fn backends_text(count: i32) -> String {
    match count {
        i32::MIN..=0 => "no further loss".to_owned(),
        1 => "any 1 backend".to_owned(),
        _ => format!("any {count} backends"),
    }
}

pub(super) async fn wait_for_inventory(shared: &Shared) {
    let deadline = tokio::time::Instant::now() + INVENTORY_WAIT;
    loop {
        let done = shared.inventory_done.notified();
        let is_settled = {
            let repair = shared.repair.lock();
            repair.doubts_settled == Some(repair.doubts)
        };
        if is_settled {
            return;
        }
        tokio::select! {
            biased;
            () = done => {}
            () = tokio::time::sleep_until(deadline) => return,
            () = shared.cancel.cancelled() => return,
        }
    }
}

fn findings(shared: &Shared, backends: &[BackendView], repair: &RepairStatus, evidence: Evidence) -> Vec<String> {
    let mut found: Vec<String> =
        backends.iter().filter_map(|b| backend_finding(shared, b)).take(FINDINGS_MAX).collect();
    let unlisted: BTreeSet<BackendId> = shared.health.lock().distrust.left_out().collect();
    let state = shared.repair.lock();
    let below = state.margins.below(evidence.target);
    if let Some(lost) = repair.margins.iter().find(|r| r.margin < 0 && r.segments > 0) {
        found.push(format!(
            "{} segments have fewer shards than they need to be read: bring back a backend that is missing",
            lost.segments
        ));
    }
    if below > 0 && repair.bytes_to_write > 0 {
        let how = if shared.held().repair {
            "repair is paused: holdfast repair resume"
        } else {
            "repair is writing them: holdfast repair status"
        };
        found.push(format!("{below} segments have fewer than all their shards; {how}"));
    }
    let map = shared.layout.current();
    if map.held.moves && map.table.pgs.iter().any(|pg| pg.is_moving()) {
        found.push("moves are paused while shards are on their way: holdfast rebalance resume".to_owned());
    }
    for (backend, segments) in &state.blocked {
        let why = match unlisted.contains(backend) {
            true => "whose shards could not be listed; it is tried again in seconds, in minutes if that fails too",
            false => "which takes no writes now",
        };
        let name = shared.backend_name(*backend);
        found.push(format!("{segments} segments wait for a place for their shards on {name}, {why}"));
    }
    if repair.failed_segments > 0 {
        found.push(format!(
            "{} segments could not be repaired and are tried again later: holdfast repair status shows why, holdfast \
             repair start tries at once",
            repair.failed_segments
        ));
    }
    if state.unreadable_records > 0 {
        found.push(format!(
            "{} segment records cannot be read by this version; the log names them",
            state.unreadable_records
        ));
    }
    let suspects = state.queue.suspect_count();
    if suspects > 0 {
        found.push(format!("{suspects} segments have shards reported damaged that are still to be looked at"));
    }
    if state.doubts_settled != Some(state.doubts) {
        let cause = match state.inventory_failure.as_str() {
            "" => String::new(),
            failure => format!(" (last try failed: {failure})"),
        };
        found.push(format!("the inventory is being taken; margins are not known for certain yet{cause}"));
    }
    found
}

fn thin_finding(thin: &ThinGroup) -> String {
    let ThinGroup { group, voters, wanted } = thin;
    format!(
        "metadata group {group} has {voters} of {wanted} voters: others become voters when they have caught up, which takes \
         seconds after a join; if it lasts, holdfast node list shows who does not answer"
    )
}

fn backend_finding(shared: &Shared, backend: &BackendView) -> Option<String> {
    let status = &backend.status;
    let (name, location, reason) = (&status.name, &status.location, &status.reason);
    let replace = format!("holdfast backend replace {name} disk:PATH");
    if backend.intent == BackendIntent::Draining && status.health.can_read() {
        return None;
    }
    let cause = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let is_placed = backend.pg_slots > 0;
    let next = match status.health {
        BackendHealth::Online => return None,
        _ if !is_placed => format!("nothing is placed on it any more; forget it with: holdfast backend remove {name}"),
        BackendHealth::ReadOnly => format!("free room on it, or put another in its place: {replace}"),
        BackendHealth::Missing => {
            let left = shared.health.lock().clock.wait_left_ms(status.id, shared.now_ms());
            let wait = left.map_or_else(String::new, |ms| format!(" (waited for {} more)", minutes(ms)));
            format!("bring it back{wait}, or put another in its place: {replace}")
        }
        BackendHealth::Wiped => {
            format!("its shards are gone; make it anew with: holdfast backend replace {name} {location}")
        }
        BackendHealth::Foreign => format!("put the right directory there, or another in its place: {replace}"),
        BackendHealth::Failed => format!("look at the device, then put another in its place: {replace}"),
    };
    let state = match status.health {
        BackendHealth::Online => "online",
        BackendHealth::ReadOnly => "read-only",
        BackendHealth::Missing => "missing",
        BackendHealth::Wiped => "wiped",
        BackendHealth::Foreign => "foreign",
        BackendHealth::Failed => "failed",
    };
    Some(format!("{name} ({location}) is {state}{cause}; {next}"))
}

fn minutes(ms: u64) -> String {
    match ms.div_ceil(1000) {
        seconds @ 0..=90 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// The whole status.
pub(crate) async fn cluster_status(shared: &Shared, facts: ServerFacts) -> MaintenanceResult<ClusterStatus> {
    let report = report(shared).await;
    let buckets = shared.metadata.bucket_list().await.map_err(MaintenanceError::from)?;
    Ok(ClusterStatus {
        cluster: shared.layout.current().cluster.to_string(),
        version: facts.version,
        verdict: report.verdict,
        findings: report.findings,
        scheme: report.scheme,
        promise: report.promise,
        survives_now: report.survives_now,
        bucket_count: u64::try_from(buckets.len()).unwrap_or(u64::MAX),
        epoch: report.epoch,
        s3_endpoint: facts.s3_endpoint,
        uptime_seconds: shared.now_ms().saturating_sub(shared.started_ms) / 1000,
        backends: report.backends,
        repair: report.repair,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_case() {
        let check = |by_inventory: Option<i32>, by_health: i32, is_doubtful: bool, expected: Verdict| {
            let evidence = Evidence {
                target: 2,
                by_inventory,
                by_health,
                is_doubtful,
                has_thin_metadata: false,
                is_unproven: false,
                has_segments: by_inventory.is_some(),
            };
            assert_eq!(evidence.verdict(), expected, "{evidence:?}");
        };
        check(None, 2, false, Verdict::Healthy);
        check(Some(2), 2, false, Verdict::Healthy);
        check(Some(2), 2, true, Verdict::Degraded);
        check(Some(1), 2, false, Verdict::Degraded);
        check(Some(2), 1, false, Verdict::Degraded);
        check(Some(0), 2, false, Verdict::PromiseBroken);
        check(Some(2), 0, false, Verdict::PromiseBroken);
        check(Some(-1), 2, false, Verdict::DataLost);
        check(Some(2), -1, false, Verdict::DataLost);
        check(None, -1, false, Verdict::PromiseBroken);
        let whole = Evidence {
            target: 2,
            by_inventory: Some(2),
            by_health: 2,
            is_doubtful: false,
            has_thin_metadata: false,
            is_unproven: false,
            has_segments: true,
        };
        assert_eq!(whole.verdict(), Verdict::Healthy);
        assert_eq!(Evidence { has_thin_metadata: true, ..whole }.verdict(), Verdict::Degraded);
        assert_eq!(Evidence { is_unproven: true, ..whole }.verdict(), Verdict::Degraded);
    }
}
