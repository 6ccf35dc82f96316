//! The policy of the store: what it promises, what another promise would take, and choosing one. A store has one policy.

use super::MaintenanceResult;
use super::error::MaintenanceError;
use super::health;
use super::layout_change::{Planned, candidates_for, change, layout_plan};
use super::report::wait_for_inventory;
use super::shared::{Doubt, Shared};
use crate::metadata::{ClusterMap, MapChange};
use crate::rebalance::{move_view, promise_text, proof_view, scenarios_now, scheme_name, scheme_views};
use crate::repair::topology;
use holdfast_codec::Scheme;
use holdfast_placement::{
    Hazards, PlacementError, PlannerLimits, Promise, Topology, feasible_caps, plan_policy, strongest_promise,
};
use holdfast_proto::layout_admin::{MoveView, PolicyAsk, PolicyPlanView, PolicyView};

/// The name of the one policy.
const NAME: &str = "default";
/// Schemes shown beside the present one.
const SCHEMES_MAX: usize = 6;

/// The policy with its proof, and whether it holds with the backends that answer now.
pub(super) async fn list(shared: &Shared) -> MaintenanceResult<Vec<PolicyView>> {
    health::check(shared).await;
    let map = shared.layout.current();
    let candidates = candidates_for(shared, &map);
    let scheme = scheme_of(&map)?;
    let topology = topology(&map, &candidates).map_err(|error| refused(&error.into()))?;
    let buckets = shared.metadata.bucket_list().await?;
    let scenarios = scenarios_now(&map, &candidates, &shared.reach()).map_err(|error| refused(&error))?;
    Ok(vec![PolicyView {
        name: NAME.to_owned(),
        survive: promise_text(&map, scheme),
        is_chosen: map.is_promise_chosen,
        scheme: scheme_name(scheme),
        buckets: u64::try_from(buckets.len()).unwrap_or(u64::MAX),
        proof: proof_view(&map, scheme, &topology),
        scenarios,
    }])
}

/// What another promise would take: whether the scheme keeps it on the nodes there are, what would have to move, which
/// schemes keep it, and what no scheme can keep here. Changes nothing.
pub(super) async fn plan(shared: &Shared, ask: &PolicyAsk) -> MaintenanceResult<PolicyPlanView> {
    health::check(shared).await;
    wait_for_inventory(shared).await;
    let map = shared.layout.current();
    let scheme = scheme_of(&map)?;
    let topology = topology(&map, &candidates_for(shared, &map)).map_err(|error| refused(&error.into()))?;
    let promise = promise_asked(ask, scheme, &topology)?;
    let offered = plan_policy(&topology, &promise, &PlannerLimits::default(), &Hazards::default());
    let (moves, refusal) = match with_promise(shared, &map, ask, &promise) {
        Ok((_, planned)) => (Some(moves(shared, &map, &planned)?), String::new()),
        Err(error @ (MaintenanceError::Unkept(_) | MaintenanceError::Placement { .. })) => (None, error.to_string()),
        Err(error) => return Err(error),
    };
    Ok(PolicyPlanView {
        survive: promise.to_string(),
        scheme: scheme_name(scheme),
        is_kept: moves.is_some(),
        refusal,
        unkept: offered.unkept.iter().map(ToString::to_string).collect(),
        schemes: scheme_views(&offered.offers, scheme, SCHEMES_MAX),
        moves,
    })
}

/// Chooses the promise, or lets it follow the nodes again, and begins to move what has to move for it.
pub(super) async fn create(shared: &Shared, ask: &PolicyAsk) -> MaintenanceResult<PolicyPlanView> {
    let view = plan(shared, ask).await?;
    let choose = |map: &ClusterMap| {
        let scheme = scheme_of(map)?;
        let topology = topology(map, &candidates_for(shared, map)).map_err(|error| refused(&error.into()))?;
        let promise = promise_asked(ask, scheme, &topology)?;
        let (made, planned) = with_promise(shared, map, ask, &promise)?;
        let next = planned.put_into(&made);
        let is_news = (&next.promise, next.is_promise_chosen) != (&map.promise, map.is_promise_chosen)
            || next.table.pgs != map.table.pgs;
        Ok(is_news.then_some(next))
    };
    let map = change(shared, choose).await?;
    shared.request_inventory(Doubt::None);
    tracing::info!(promise = %map.promise, is_chosen = map.is_promise_chosen, "promise chosen");
    Ok(view)
}

fn scheme_of(map: &ClusterMap) -> MaintenanceResult<Scheme> {
    Scheme::from_code(map.table.scheme).map_err(|error| refused(&error.into()))
}

fn refused(error: &PlacementError) -> MaintenanceError {
    MaintenanceError::Placement { reason: error.to_string() }
}

/// What was asked for: a promise in words, or the strongest that can be kept.
fn promise_asked(ask: &PolicyAsk, scheme: Scheme, topology: &Topology) -> MaintenanceResult<Promise> {
    match &ask.survive {
        None => Ok(strongest_promise(scheme, topology).or_any_backends(scheme.losses_survived())),
        Some(text) => text.parse().map_err(|error: holdfast_placement::ScenarioError| MaintenanceError::Malformed {
            reason: error.to_string(),
            next_step: "for instance --survive zone:1+node:1".to_owned(),
        }),
    }
}

/// The map with the promise, and the layout for it.
fn with_promise(
    shared: &Shared,
    map: &ClusterMap,
    ask: &PolicyAsk,
    promise: &Promise,
) -> MaintenanceResult<(ClusterMap, Planned)> {
    let topology = topology(map, &candidates_for(shared, map)).map_err(|error| refused(&error.into()))?;
    feasible_caps(scheme_of(map)?, promise, &topology)?;
    let is_promise_chosen = ask.survive.is_some();
    let (cause, promise) = match is_promise_chosen {
        true => (format!("policy create --survive {promise}"), promise.clone()),
        // Planning finds the strongest again.
        false => ("policy create --follow-nodes".to_owned(), Promise::default()),
    };
    let made = ClusterMap { promise, is_promise_chosen, change: MapChange::asked(cause), ..map.clone() };
    let planned = layout_plan(shared, &made)?;
    Ok((made, planned))
}

fn moves(shared: &Shared, map: &ClusterMap, planned: &Planned) -> MaintenanceResult<MoveView> {
    let shard_bytes = shared.repair.lock().shard_bytes.clone();
    move_view(&map.table, &planned.plan, &planned.topology, &shard_bytes, shared.pace())
        .map_err(|error| refused(&error))
}
