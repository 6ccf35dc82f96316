//! Endpoints that change or judge a node: what maintenance says of its shards, with what is known here of its votes and
//! of whether it answers.
//!
//! Invariant: a node is removed only if it votes in no metadata group, or is declared lost and does not answer.

use super::membership::{MembershipParts, parts};
use super::quorum::{groups_of, groups_without_quorum, names};
use super::{AdminFailure, AdminResult, AdminState, Code, Shared, Who, decode, finish};
use crate::health::NodeState;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use holdfast_proto::cluster::{NodeIntent, NodeRecord};
use holdfast_proto::layout_admin::{Mode, NodeDrain, NodeMoveView, NodeRemove, NodeReplace, StopVerdict, StopView};
use holdfast_proto::{ErrorKind, NodeId};
use std::sync::Arc;

impl MembershipParts {
    /// Whether a node answers for certain: one that is suspected may be gone.
    fn is_up(&self, node: NodeId) -> bool {
        let state = self.health.report().get(&node).map(|health| health.state);
        node == self.own || matches!(state, Some(NodeState::Up | NodeState::Returned))
    }

    /// A node of the map, by name or number, that was not removed.
    fn find(&self, name: &str) -> AdminResult<NodeRecord> {
        let map = self.layout.current();
        let mut members = map.nodes.iter().filter(|node| node.intent != NodeIntent::Removed);
        let found = members.find(|node| node.name == name || node.id.to_string() == name).cloned();
        found.ok_or_else(|| {
            let message = format!("no node named {name}");
            AdminFailure::new(Code::NoSuchNode, ErrorKind::NotFound, message).or_try("holdfast node list")
        })
    }
}

fn refused(message: String, next_step: impl Into<String>) -> AdminFailure {
    AdminFailure::new(Code::NodeRefused, ErrorKind::Conflict, message).or_try(next_step)
}

pub(crate) async fn safe_to_stop(State(state): Shared, Path(node): Path<String>) -> AdminResult<Json<StopView>> {
    let membership = parts(&state)?;
    let mut view = state.layout.node_safe_to_stop(&node).await?;
    view.groups_without_quorum =
        groups_without_quorum(&(membership.voters)(), |node| membership.is_up(node), view.node);
    if !view.groups_without_quorum.is_empty() {
        // Without a majority nothing is decided, and so nothing is read either: who would say that it is the newest?
        view.verdict = StopVerdict::ReadsBreak;
    }
    Ok(Json(view))
}

pub(crate) async fn drain(
    State(state): Shared,
    Extension(who): Who,
    Path(node): Path<String>,
    body: Bytes,
) -> AdminResult<Json<NodeMoveView>> {
    let ask: NodeDrain = decode(&body)?;
    parts(&state)?;
    note(&who.access_key, "drain", &node, ask.mode, &ask.accept_loss_of);
    finish(async move { state.layout.node_drain(&node, ask).await }).await.map(Json)
}

pub(crate) async fn drain_cancel(
    State(state): Shared,
    Extension(who): Who,
    Path(node): Path<String>,
) -> AdminResult<Json<NodeMoveView>> {
    parts(&state)?;
    note(&who.access_key, "drain --cancel", &node, Mode::Apply, &[]);
    finish(async move { state.layout.node_drain_cancel(&node).await }).await.map(Json)
}

pub(crate) async fn remove(
    State(state): Shared,
    Extension(who): Who,
    Path(node): Path<String>,
    body: Bytes,
) -> AdminResult<Json<NodeMoveView>> {
    let ask: NodeRemove = decode(&body)?;
    let membership = parts(&state)?;
    let record = membership.find(&node)?;
    match ask.lost {
        true => refuse_if_up(&state, &record)?,
        false => refuse_if_voting(membership, &record)?,
    }
    let verb = if ask.lost { "remove --lost" } else { "remove" };
    note(&who.access_key, verb, &node, ask.mode, &ask.accept_loss_of);
    finish(async move { state.layout.node_remove(&node, ask).await }).await.map(Json)
}

pub(crate) async fn replace(
    State(state): Shared,
    Extension(who): Who,
    Path(node): Path<String>,
    body: Bytes,
) -> AdminResult<Json<NodeMoveView>> {
    let ask: NodeReplace = decode(&body)?;
    let membership = parts(&state)?;
    refuse_if_up(&state, &membership.find(&node)?)?;
    let with = membership.find(&ask.with)?;
    if !membership.is_up(with.id) {
        return Err(refused(format!("{} does not answer", with.name), "start it, or name another"));
    }
    note(&who.access_key, "replace", &node, ask.mode, &ask.accept_loss_of);
    finish(async move { state.layout.node_replace(&node, ask).await }).await.map(Json)
}

/// Who asked for what, and what was given up by name: it stays in the log.
fn note(access_key: &str, verb: &str, node: &str, mode: Mode, gives_up: &[String]) {
    match (mode, gives_up) {
        (Mode::Plan, _) => {}
        (Mode::Apply, []) => tracing::info!(access_key, node, "node {verb}"),
        (Mode::Apply, given) => {
            tracing::warn!(access_key, node, gives_up = given.join(", "), "node {verb}, giving up what is promised");
        }
    }
}

fn refuse_if_up(state: &Arc<AdminState>, node: &NodeRecord) -> AdminResult<()> {
    if !parts(state)?.is_up(node.id) {
        return Ok(());
    }
    let next_step = format!("holdfast node drain {}, or stop it first if it shall not come back", node.name);
    Err(refused(format!("{} answers: it is not lost", node.name), next_step))
}

fn refuse_if_voting(membership: &MembershipParts, node: &NodeRecord) -> AdminResult<()> {
    let groups = groups_of(&(membership.voters)(), node.id);
    // What is said of one that stays is said by its shards.
    if groups.is_empty() || node.intent == NodeIntent::Active {
        return Ok(());
    }
    let message = format!("{} still votes in {}", node.name, names(&groups));
    Err(refused(message, "again in some seconds: its votes move to others while it drains"))
}
