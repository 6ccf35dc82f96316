//! Endpoints of layout, policy and moves: each hands its arguments on and its answer back.

use super::{AdminResult, Shared, Who, decode, finish};
use axum::body::Bytes;
use axum::extract::State;
use axum::{Extension, Json};
use holdfast_proto::layout_admin::{
    LayoutChangeView, LayoutView, MoveView, PolicyAsk, PolicyPlanView, PolicyView, RebalanceApply, RebalanceView,
};

pub(crate) async fn show(State(state): Shared) -> AdminResult<Json<LayoutView>> {
    state.layout.layout_show().await.map(Json)
}

pub(crate) async fn history(State(state): Shared) -> AdminResult<Json<Vec<LayoutChangeView>>> {
    state.layout.layout_history().await.map(Json)
}

pub(crate) async fn policy_list(State(state): Shared) -> AdminResult<Json<Vec<PolicyView>>> {
    state.layout.policy_list().await.map(Json)
}

pub(crate) async fn policy_plan(State(state): Shared, body: Bytes) -> AdminResult<Json<PolicyPlanView>> {
    state.layout.policy_plan(decode(&body)?).await.map(Json)
}

pub(crate) async fn policy_create(
    State(state): Shared,
    Extension(who): Who,
    body: Bytes,
) -> AdminResult<Json<PolicyPlanView>> {
    let ask: PolicyAsk = decode(&body)?;
    tracing::info!(access_key = who.access_key, survive = ask.survive, "policy create");
    finish(async move { state.layout.policy_create(ask).await }).await.map(Json)
}

pub(crate) async fn rebalance_status(State(state): Shared) -> AdminResult<Json<RebalanceView>> {
    state.layout.rebalance_status().await.map(Json)
}

pub(crate) async fn rebalance_plan(State(state): Shared) -> AdminResult<Json<MoveView>> {
    state.layout.rebalance_plan().await.map(Json)
}

pub(crate) async fn rebalance_apply(
    State(state): Shared,
    Extension(who): Who,
    body: Bytes,
) -> AdminResult<Json<MoveView>> {
    let RebalanceApply { plan } = decode(&body)?;
    tracing::info!(access_key = who.access_key, plan, "rebalance apply");
    finish(async move { state.layout.rebalance_apply(&plan).await }).await.map(Json)
}

pub(crate) async fn rebalance_pause(State(state): Shared) -> AdminResult<Json<RebalanceView>> {
    tracing::info!("rebalance pause");
    finish(async move { state.layout.rebalance_pause().await }).await.map(Json)
}

pub(crate) async fn rebalance_resume(State(state): Shared) -> AdminResult<Json<RebalanceView>> {
    tracing::info!("rebalance resume");
    finish(async move { state.layout.rebalance_resume().await }).await.map(Json)
}

pub(crate) async fn rebalance_undo(State(state): Shared, Extension(who): Who) -> AdminResult<Json<RebalanceView>> {
    tracing::info!(access_key = who.access_key, "rebalance undo");
    finish(async move { state.layout.rebalance_undo().await }).await.map(Json)
}
