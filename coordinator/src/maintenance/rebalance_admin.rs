//! Plans, applies, holds and takes back moves of healthy shards.
//!
//! The store plans by itself when backends come, go or fail. Here an operator looks first, or takes it back.

use super::MaintenanceResult;
use super::error::MaintenanceError;
use super::health;
use super::hold;
use super::layout_change::{candidates_for, change, layout_plan};
use super::report::wait_for_inventory;
use super::shared::{Doubt, Shared};
use crate::metadata::{ClusterMap, MapChange};
use crate::rebalance::{move_view, plan_name};
use crate::repair::topology;
use holdfast_codec::Scheme;
use holdfast_placement::{CandidateRole, PlacementError, prove_targets, undo_moves};
use holdfast_proto::BackendId;
use holdfast_proto::layout_admin::{MoveView, RebalanceView};
use std::collections::BTreeSet;

fn refused(error: &PlacementError) -> MaintenanceError {
    MaintenanceError::Placement { reason: error.to_string() }
}

/// What it would take to balance the layout as backends are now.
pub(super) async fn plan(shared: &Shared) -> MaintenanceResult<MoveView> {
    health::check(shared).await;
    wait_for_inventory(shared).await;
    planned(shared, &shared.layout.current()).map(|(view, _)| view)
}

/// The plan for a map, and the map with it.
fn planned(shared: &Shared, map: &ClusterMap) -> MaintenanceResult<(MoveView, ClusterMap)> {
    let planned = layout_plan(shared, map)?;
    let shard_bytes = shared.repair.lock().shard_bytes.clone();
    let view = move_view(&map.table, &planned.plan, &planned.topology, &shard_bytes, shared.pace());
    let view = view.map_err(|error| refused(&error))?;
    debug_assert_eq!(view.plan, plan_name(&planned.plan));
    Ok((view, planned.put_into(map)))
}

/// Carries a plan out that was shown before, if planning the same again gives the same. Moves that were held go on.
pub(super) async fn apply(shared: &Shared, name: &str) -> MaintenanceResult<MoveView> {
    health::check(shared).await;
    let view = parking_lot::Mutex::new(None);
    let as_shown = |map: &ClusterMap| {
        let (found, mut next) = planned(shared, map)?;
        if found.plan != name {
            return Err(MaintenanceError::PlanStale { plan: name.to_owned(), epoch: map.table.epoch });
        }
        *view.lock() = Some(found);
        (next.held.moves, next.held.planning) = (false, false);
        next.change = MapChange::asked(format!("rebalance apply {name}"));
        let is_news = next.table.pgs != map.table.pgs || next.held != map.held || next.promise != map.promise;
        Ok(is_news.then_some(next))
    };
    change(shared, as_shown).await?;
    shared.request_inventory(Doubt::None);
    tracing::info!(plan = name, "layout plan applied");
    let found = view.lock().take();
    found.ok_or(MaintenanceError::NotReady { reason: "the layout was not looked at" })
}

/// How moves stand.
pub(super) fn status(shared: &Shared) -> RebalanceView {
    let map = shared.layout.current();
    let repair = shared.repair_status();
    let shard_bytes = shared.repair.lock().shard_bytes.clone();
    let slots_of = |pg: &holdfast_proto::pg_table::Pg| {
        let moving = pg.committed.iter().zip(&pg.target).filter(|(committed, target)| committed != target);
        u64::try_from(moving.count()).unwrap_or(u64::MAX)
    };
    let moving = || map.table.pgs.iter().enumerate().filter(|(_, pg)| pg.is_moving());
    let bytes = |(number, pg): (usize, &_)| shard_bytes.get(number).copied().unwrap_or(0).saturating_mul(slots_of(pg));
    let moving_pgs = u64::try_from(moving().count()).unwrap_or(u64::MAX);
    let state = match (map.held.moves, map.held.planning, moving_pgs) {
        (true, ..) => "paused",
        (false, _, 1..) => "moving",
        (false, true, 0) => "held",
        (false, false, 0) => "idle",
    };
    RebalanceView {
        state: state.to_owned(),
        epoch: map.table.epoch,
        is_planning_held: map.held.planning,
        moving_pgs,
        moving_slots: moving().map(|(_, pg)| slots_of(pg)).sum(),
        moving_bytes: moving().map(bytes).fold(0, u64::saturating_add),
        bytes_to_write: repair.bytes_to_write,
        bytes_per_second: repair.bytes_per_second,
        eta_seconds: repair.eta_seconds,
    }
}

/// Holds moves back, and the planning of new ones but for what is lost.
pub(super) async fn pause(shared: &Shared) -> MaintenanceResult<RebalanceView> {
    hold::set(shared, "rebalance pause", |held| (held.moves, held.planning) = (true, true)).await?;
    Ok(status(shared))
}

/// Lets both go on.
pub(super) async fn resume(shared: &Shared) -> MaintenanceResult<RebalanceView> {
    hold::set(shared, "rebalance resume", |held| (held.moves, held.planning) = (false, false)).await?;
    Ok(status(shared))
}

/// Takes moves back that are under way: what was moved goes back, and nothing new is planned until planning is resumed.
pub(super) async fn undo(shared: &Shared) -> MaintenanceResult<RebalanceView> {
    health::check(shared).await;
    let back = |map: &ClusterMap| {
        let able = able(shared, map);
        let (table, undone) = undo_moves(&map.table, |id| able.contains(&id));
        if undone == 0 {
            return Err(MaintenanceError::MovesRefused {
                reason: "no move under way can be taken back".to_owned(),
                next_step: "holdfast rebalance status; a drain is taken back by holdfast node drain NODE --cancel"
                    .to_owned(),
            });
        }
        let scheme = Scheme::from_code(table.scheme).map_err(|error| refused(&error.into()))?;
        let topology = topology(map, &candidates_for(shared, map)).map_err(|error| refused(&error.into()))?;
        let promise = map.promise.or_any_backends(scheme.losses_survived());
        let proof = prove_targets(&table, &promise, &topology).map_err(|error| refused(&error.into()))?;
        let mut next = ClusterMap { table, proof: Some(proof), ..map.clone() };
        (next.held.moves, next.held.planning) = (false, true);
        next.change = MapChange::asked("rebalance undo");
        Ok(Some(next))
    };
    let map = change(shared, back).await?;
    shared.request_inventory(Doubt::None);
    tracing::info!(epoch = map.table.epoch.0, "moves taken back");
    Ok(status(shared))
}

/// Backends that take shards and are to stay.
fn able(shared: &Shared, map: &ClusterMap) -> BTreeSet<BackendId> {
    let reach = shared.reach();
    let candidates = candidates_for(shared, map);
    let able = candidates.iter().filter(|c| c.role == CandidateRole::Active && reach.can_write(c.id));
    able.map(|candidate| candidate.id).collect()
}
