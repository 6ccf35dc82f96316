//! Changes the cluster map by compare-and-set, and plans it anew when backends come and go.
//!
//! **Invariant:** the layout of this process is advanced only to maps that are durable in metadata.

use super::error::MaintenanceError;
use super::shared::{Doubt, Shared};
use crate::metadata::{BackendRecord, ClusterMap, MetadataError, note_change};
use crate::repair::{candidates, topology};
use holdfast_codec::Scheme;
use holdfast_placement::{
    Candidate, CandidateRole, LayoutPlan, Promise, Topology, plan_layout, slots_changed, strongest_promise,
};
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::{BackendId, Epoch};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tries against concurrent changes: nodes that announce themselves, and a leader that does not know yet that it is none.
const TRIES_MAX: usize = 5;
/// A replaced backend keeps its record under its name and this until its slots are whole again; then the record goes.
/// No other backend may be named so.
pub(crate) const REPLACED_SUFFIX: &str = "-replaced";

/// Applies `make` to the newest map and stores the result, again if somebody else was first. `make` answers `None` to
/// leave the map as it is. The epoch is set here. Returns the map as it is afterwards.
pub(crate) async fn change<F>(shared: &Shared, make: F) -> Result<Arc<ClusterMap>, MaintenanceError>
where
    F: Fn(&ClusterMap) -> Result<Option<ClusterMap>, MaintenanceError> + Send + Sync,
{
    let _one_at_a_time = shared.layout_change.lock().await;
    let mut tries = 0;
    loop {
        let found = shared.metadata.cluster_map().await?;
        let map = found.ok_or(MaintenanceError::NotReady { reason: "the store has no cluster map yet" })?;
        shared.layout.advance(map.clone());
        let Some(mut next) = make(&map)? else { return Ok(Arc::new(map)) };
        let expected = map.table.epoch;
        next.table.epoch = Epoch(expected.0 + 1);
        note_change(&map, &mut next, shared.now_ms());
        match shared.metadata.cluster_map_set(expected, next.clone()).await {
            Ok(()) => {
                shared.layout.advance(next.clone());
                return Ok(Arc::new(next));
            }
            Err(MetadataError::StaleEpoch { .. }) if tries < TRIES_MAX => tries += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Candidates for `map` by the last health report.
pub(crate) fn candidates_for(shared: &Shared, map: &ClusterMap) -> Vec<Candidate> {
    let now_ms = shared.now_ms();
    let health = shared.health.lock();
    candidates(map, &health.statuses, &health.clock, now_ms)
}

/// A layout planned for a map.
pub(crate) struct Planned {
    pub(crate) plan: LayoutPlan,
    /// What it promises, as the map says it: empty for any backends.
    pub(crate) promise: Promise,
    /// The backends as they were taken to be.
    pub(crate) topology: Topology,
}

impl Planned {
    /// The map with this layout.
    pub(crate) fn put_into(self, map: &ClusterMap) -> ClusterMap {
        ClusterMap { table: self.plan.table, promise: self.promise, proof: Some(self.plan.proof), ..map.clone() }
    }
}

/// Plans the layout of `map` for its backends as they are.
pub(crate) fn layout_plan(shared: &Shared, map: &ClusterMap) -> Result<Planned, MaintenanceError> {
    let refused = |reason: String| MaintenanceError::Placement { reason };
    let scheme = Scheme::from_code(map.table.scheme).map_err(|e| refused(e.to_string()))?;
    let topology = topology(map, &candidates_for(shared, map)).map_err(|e| refused(e.to_string()))?;
    let promise = promise_of(map, scheme, &topology);
    let in_full = promise.or_any_backends(scheme.losses_survived());
    let plan = plan_layout(&map.table, &in_full, &topology).map_err(|e| refused(e.to_string()))?;
    Ok(Planned { plan, promise, topology })
}

/// `map` with targets planned for its backends as they are; `None` if they are right already.
pub(crate) fn planned(shared: &Shared, map: &ClusterMap) -> Result<Option<ClusterMap>, MaintenanceError> {
    let planned = layout_plan(shared, map)?;
    let is_right = slots_changed(&map.table, &planned.plan.table) == 0 && planned.promise == map.promise;
    Ok((!is_right).then(|| planned.put_into(map)))
}

/// What the map promises: what an operator chose; else, on several nodes, the strongest of the usual promises that can be
/// kept on them. So it grows with every node, and is lowered when one is lost for good: what is left is then spread as
/// well as can be.
fn promise_of(map: &ClusterMap, scheme: Scheme, topology: &Topology) -> Promise {
    match !map.is_promise_chosen && map.nodes.len() > 1 {
        true => strongest_promise(scheme, topology),
        false => map.promise.clone(),
    }
}

/// Plans anew if the roles of backends are other than when the layout was last planned, or if `is_forced`.
pub(crate) async fn replan(shared: &Shared, is_forced: bool) {
    let roles = roles_of(shared);
    if !is_forced && shared.health.lock().planned == roles {
        return;
    }
    if shared.held().planning && !is_anything_lost(shared) {
        // Not remembered: it is planned when planning is resumed.
        return;
    }
    let before = shared.layout.current().table.epoch;
    match change(shared, |map| planned(shared, map)).await {
        Ok(map) => {
            if map.table.epoch > before {
                tracing::info!(epoch = map.table.epoch.0, "layout planned anew");
                shared.request_inventory(Doubt::None);
            }
        }
        // Too few backends: nothing can move; the status says so. Remembered, so that it is not tried every second.
        Err(MaintenanceError::Placement { reason }) => tracing::warn!(reason, "no other layout is possible"),
        Err(error) => {
            tracing::warn!(%error, "plan layout");
            return;
        }
    }
    shared.health.lock().planned = roles;
}

/// Whether a slot is to be on a backend that is lost.
fn is_anything_lost(shared: &Shared) -> bool {
    let map = shared.layout.current();
    let roles = roles_of(shared);
    let mut targets = map.table.pgs.iter().flat_map(|pg| &pg.target);
    targets.any(|id| roles.get(id) == Some(&CandidateRole::Lost))
}

/// The role of each backend now.
pub(crate) fn roles_of(shared: &Shared) -> BTreeMap<BackendId, CandidateRole> {
    candidates_for(shared, &shared.layout.current()).into_iter().map(|c| (c.id, c.role)).collect()
}

/// How many slots (target or committed) name the backend.
pub(crate) fn references(map: &ClusterMap, backend: BackendId) -> usize {
    let slots = map.table.pgs.iter().flat_map(|pg| pg.committed.iter().chain(&pg.target));
    slots.filter(|id| **id == backend).count()
}

/// How many slots have the backend as target.
pub(crate) fn target_slots(map: &ClusterMap, backend: BackendId) -> u32 {
    let slots = map.table.pgs.iter().flat_map(|pg| &pg.target);
    u32::try_from(slots.filter(|id| **id == backend).count()).unwrap_or(u32::MAX)
}

/// After an inventory: backends being drained on which nothing is left become drained; replaced ones are forgotten;
/// those that still have slots because a move was under way are planned again. `listed`: shards left on each backend
/// that answered, in an inventory taken by the layout of `epoch`.
pub(crate) async fn settle_backends(shared: &Shared, epoch: Epoch, listed: &BTreeMap<BackendId, u64>) {
    let map = shared.layout.current();
    if map.table.epoch != epoch {
        // The inventory says nothing of what the newer layout may have written there; the next one will.
        return;
    }
    let reach = shared.reach();
    let mut drained = Vec::new();
    let mut forgotten = Vec::new();
    let mut is_stuck = false;
    for record in map.backends.iter().filter(|r| r.intent == BackendIntent::Draining) {
        if references(&map, record.id) > 0 {
            is_stuck |= target_slots(&map, record.id) > 0 && !map.table.pgs.iter().any(|pg| pg.is_moving());
        } else if record.name.ends_with(REPLACED_SUFFIX) {
            forgotten.push(record.id);
        } else if reach.can_read(record.id) && listed.get(&record.id).copied().unwrap_or(0) == 0 {
            drained.push(record.id);
        }
    }
    if is_stuck {
        replan(shared, true).await;
    }
    if drained.is_empty() && forgotten.is_empty() {
        return;
    }
    let settle = |map: &ClusterMap| {
        let is_unused = |record: &BackendRecord| references(map, record.id) == 0;
        let mut backends = map.backends.clone();
        backends.retain(|record| !(forgotten.contains(&record.id) && is_unused(record)));
        for record in backends.iter_mut().filter(|r| drained.contains(&r.id) && is_unused(r)) {
            record.intent = BackendIntent::Drained;
        }
        Ok((backends != map.backends).then(|| ClusterMap { backends, ..map.clone() }))
    };
    match change(shared, settle).await {
        Ok(map) => {
            for backend in forgotten.iter().filter(|id| !map.backends.iter().any(|r| r.id == **id)) {
                tracing::info!(id = %backend, "replaced backend forgotten");
                if let Err(error) = shared.node.remove_backend(*backend).await {
                    tracing::debug!(id = %backend, %error, "detach replaced backend");
                }
            }
        }
        Err(error) => tracing::warn!(%error, "record drained backends"),
    }
}
