//! Stops, drains, gives up and replaces nodes, as far as their shards go.
//!
//! **Invariants:** no node leaves the layout before what it held is elsewhere, unless it is declared lost; a coordinator
//! that has left commits nothing it had begun.

use super::MaintenanceResult;
use super::error::MaintenanceError;
use super::health;
use super::layout_change::{candidates_for, change, layout_plan, references, replan, roles_of};
use super::report::wait_for_inventory;
use super::shared::{Doubt, Shared};
use crate::membership::with_intent;
use crate::metadata::{BackendRecord, ClusterMap, MapChange};
use crate::rebalance::{Accepted, LeaveError, leaving, move_view, slots_of_node, stop_view};
use holdfast_placement::{CandidateRole, undo_moves};
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::cluster::{NodeIntent, NodeRecord, Role};
use holdfast_proto::layout_admin::{Mode, NodeDrain, NodeMoveView, NodeRemove, NodeReplace, StopView};
use holdfast_proto::{BackendId, Epoch, NodeId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

/// Tries to bar what a coordinator had begun after it was removed, and the rest between them: an election may be under
/// way.
const BAR_TRIES: u32 = 10;
const BAR_REST: Duration = Duration::from_secs(1);
/// Longest cause that is remembered: a verb, two names and the longest promise there is.
const CAUSE_CHARS_MAX: usize = 1200;

/// Finds a node that was not removed, by its name or its number.
pub(super) fn find<'a>(map: &'a ClusterMap, name: &str) -> MaintenanceResult<&'a NodeRecord> {
    let members = || map.nodes.iter().filter(|node| node.intent != NodeIntent::Removed);
    let found = members().find(|node| node.name == name || node.id.to_string() == name);
    found.ok_or_else(|| {
        let known = members().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
        MaintenanceError::NoSuchNode { name: name.to_owned(), known }
    })
}

/// What goes on while a node is stopped.
pub(super) async fn safe_to_stop(shared: &Shared, name: &str) -> MaintenanceResult<StopView> {
    health::check(shared).await;
    let map = shared.layout.current();
    stopped(shared, &map, find(&map, name)?)
}

fn stopped(shared: &Shared, map: &ClusterMap, node: &NodeRecord) -> MaintenanceResult<StopView> {
    stop_view(map, &candidates_for(shared, map), &shared.reach(), node)
        .map_err(|error| MaintenanceError::Placement { reason: error.to_string() })
}

/// Begins to move everything off a node.
pub(super) async fn drain(shared: &Shared, name: &str, ask: &NodeDrain) -> MaintenanceResult<NodeMoveView> {
    health::check(shared).await;
    let accepted = Accepted::parse(&ask.accept_loss_of)?;
    let draining = |map: &ClusterMap| {
        let node = find(map, name)?;
        match node.intent {
            NodeIntent::Active => {
                let roles = |map: &ClusterMap| candidates_for(shared, map);
                Ok(leaving(map, node.id, NodeIntent::Draining, &accepted, roles)?)
            }
            // Asked once more: what is not under way yet is planned.
            _ => Ok(map.clone()),
        }
    };
    let order = Order::new(&format!("node drain {name}"), name, ask.mode, &ask.accept_loss_of);
    let view = carry_out(shared, &order, draining).await?;
    if ask.mode == Mode::Apply {
        shared.request_inventory(Doubt::None);
        tracing::info!(node = view.name, gives_up = ?ask.accept_loss_of, "node draining");
    }
    Ok(view)
}

/// Lets a node stay that was told to leave. Its share comes back to it.
pub(super) async fn cancel(shared: &Shared, name: &str) -> MaintenanceResult<NodeMoveView> {
    health::check(shared).await;
    let staying = |map: &ClusterMap| {
        let node = find(map, name)?.id;
        let next = with_intent(map, node, NodeIntent::Active).map_err(LeaveError::from)?;
        let mut next = next.unwrap_or_else(|| map.clone());
        // What is on its way goes back at once; what has arrived comes back as its share.
        let reach = shared.reach();
        let is_of_node = |id| map.backends.iter().any(|record| record.id == id && record.node == node);
        next.table.pgs = undo_moves(&map.table, |id| is_of_node(id) && reach.can_write(id)).0.pgs;
        Ok(next)
    };
    let order = Order::new(&format!("node drain {name} --cancel"), name, Mode::Apply, &[]);
    let view = carry_out(shared, &order, staying).await?;
    shared.request_inventory(Doubt::None);
    tracing::info!(node = view.name, "node stays");
    Ok(view)
}

/// Forgets a node.
pub(super) async fn remove(shared: &Shared, name: &str, ask: &NodeRemove) -> MaintenanceResult<NodeMoveView> {
    let accepted = Accepted::parse(&ask.accept_loss_of)?;
    if ask.lost {
        let verb = format!("node remove {name} --lost");
        let order = Order::new(&verb, name, ask.mode, &ask.accept_loss_of);
        return give_up(shared, &order, &accepted, &|_, _| Ok(())).await;
    }
    health::check(shared).await;
    let without = |map: &ClusterMap| {
        let node = find(map, name)?;
        refuse_if_used(map, node)?;
        let roles = |map: &ClusterMap| candidates_for(shared, map);
        let mut next = leaving(map, node.id, NodeIntent::Removed, &accepted, roles)?;
        next.backends.retain(|record| record.node != node.id);
        Ok(next)
    };
    let order = Order::new(&format!("node remove {name}"), name, ask.mode, &ask.accept_loss_of);
    remove_with(shared, &order, without).await
}

/// Declares a node lost in whose place another has joined: what it held is rebuilt on that one and on the others, as the
/// promise has it.
pub(super) async fn replace(shared: &Shared, name: &str, ask: &NodeReplace) -> MaintenanceResult<NodeMoveView> {
    let can_replace = |map: &ClusterMap, old: &NodeRecord| {
        let new = find(map, &ask.with)?;
        let refused = |reason: String, next_step: &str| {
            Err(MaintenanceError::NodeRefused { reason, next_step: next_step.to_owned() })
        };
        if new.id == old.id || new.intent != NodeIntent::Active {
            return refused(format!("{} cannot take the place of {}", new.name, old.name), "name a node that stays");
        }
        if old.roles.has(Role::Coordinator) && !new.roles.has(Role::Coordinator) {
            let reason = format!("{} is a coordinator, {} is not", old.name, new.name);
            return refused(reason, "join a node with both roles");
        }
        let reach = shared.reach();
        let of = |node: NodeId| map.backends.iter().filter(move |record| record.node == node);
        let takes_shards = of(new.id).any(|record| reach.can_write(record.id));
        if of(old.id).next().is_some() && !takes_shards {
            let reason = format!("{} has no backend that takes shards", new.name);
            return refused(reason, "wait until it has announced them: holdfast node list");
        }
        Ok(())
    };
    let verb = format!("node replace {name} --with {}", ask.with);
    let order = Order::new(&verb, name, ask.mode, &ask.accept_loss_of);
    give_up(shared, &order, &Accepted::parse(&ask.accept_loss_of)?, &can_replace).await
}

/// Takes a node for lost, with all it held.
async fn give_up(
    shared: &Shared,
    order: &Order<'_>,
    accepted: &Accepted,
    check: &(dyn Fn(&ClusterMap, &NodeRecord) -> MaintenanceResult<()> + Send + Sync),
) -> MaintenanceResult<NodeMoveView> {
    health::check(shared).await;
    let without = |map: &ClusterMap| {
        let node = find(map, order.name)?;
        check(map, node)?;
        let stopped = stopped(shared, map, node)?;
        accepted.check_data(stopped.unreadable_pgs, stopped.pg_count)?;
        let roles = |map: &ClusterMap| candidates_for(shared, map);
        Ok(leaving(map, node.id, NodeIntent::Removed, accepted, roles)?)
    };
    let view = remove_with(shared, order, without).await?;
    if order.mode == Mode::Apply {
        shared.request_inventory(Doubt::FewerShards);
    }
    Ok(view)
}

/// Removes a node, and bars what it had begun to write: before, so that nothing is removed that cannot be barred, and
/// after, as it may have begun again in between. Then nobody admits it any more.
async fn remove_with(
    shared: &Shared,
    order: &Order<'_>,
    without: impl Fn(&ClusterMap) -> MaintenanceResult<ClusterMap> + Send + Sync,
) -> MaintenanceResult<NodeMoveView> {
    if order.mode == Mode::Plan {
        return carry_out(shared, order, without).await;
    }
    let map = shared.layout.current();
    let node = find(&map, order.name)?.clone();
    // Refused before anything of it is barred, if it is to be refused.
    without(&map)?;
    let is_coordinator = node.roles.has(Role::Coordinator);
    if is_coordinator {
        shared.metadata.writer_fence(node.id).await?;
    }
    let view = carry_out(shared, order, without).await?;
    tracing::warn!(
        node = node.name,
        promise = view.promise_after,
        before = view.promise_before,
        "node removed for good"
    );
    for attempt in 1..=BAR_TRIES {
        match shared.metadata.writer_fence(node.id).await {
            Err(error) if is_coordinator && attempt == BAR_TRIES => return Err(error.into()),
            Err(_) if is_coordinator => tokio::time::sleep(BAR_REST).await,
            _ => break,
        }
    }
    Ok(view)
}

/// A node leaves by itself only with nothing left on it.
fn refuse_if_used(map: &ClusterMap, node: &NodeRecord) -> MaintenanceResult<()> {
    let slots = slots_of_node(map, node.id);
    let refused = |reason: String, next_step: String| Err(MaintenanceError::NodeRefused { reason, next_step });
    let name = &node.name;
    match node.intent {
        NodeIntent::Active => refused(
            format!("{name} holds shards of {slots} placement slots"),
            format!("holdfast node drain {name}; or, if it is gone for good, holdfast node remove {name} --lost"),
        ),
        NodeIntent::Draining => refused(
            format!("{name} is still draining: {slots} placement slots are left"),
            "wait until it is drained: holdfast node list, holdfast repair status".to_owned(),
        ),
        _ if slots > 0 => refused(
            format!("{name} was drained, but {slots} placement slots name it again"),
            format!("holdfast node drain {name}"),
        ),
        _ => Ok(()),
    }
}

/// What an operator asked for.
struct Order<'a> {
    /// The node, by name or number.
    name: &'a str,
    mode: Mode,
    /// As it is remembered: the verb with its node, and what is given up.
    cause: String,
}

impl<'a> Order<'a> {
    fn new(verb: &str, name: &'a str, mode: Mode, gives_up: &[String]) -> Self {
        let gives_up = if gives_up.is_empty() { String::new() } else { format!(", giving up {}", gives_up.join(", ")) };
        let cause = format!("{verb}{gives_up}").chars().take(CAUSE_CHARS_MAX).collect();
        Self { name, mode, cause }
    }
}

/// Makes a change and plans the layout for it, or only says what that would be. `make` gives the map before planning.
async fn carry_out(
    shared: &Shared,
    order: &Order<'_>,
    make: impl Fn(&ClusterMap) -> MaintenanceResult<ClusterMap> + Send + Sync,
) -> MaintenanceResult<NodeMoveView> {
    let Order { name, mode, cause } = order;
    let (mode, shown) = (*mode, Mutex::new(None));
    let make = |map: &ClusterMap| {
        let made = ClusterMap { change: MapChange::asked(cause), ..make(map)? };
        let planned = layout_plan(shared, &made)?;
        let shard_bytes = shared.repair.lock().shard_bytes.clone();
        let moves = move_view(&map.table, &planned.plan, &planned.topology, &shard_bytes, shared.pace());
        let moves = moves.map_err(|error| MaintenanceError::Placement { reason: error.to_string() })?;
        let next = planned.put_into(&made);
        let node = find(map, name)?;
        let intent = next.nodes.iter().find(|record| record.id == node.id).map(|record| record.intent);
        *shown.lock() = Some(NodeMoveView {
            node: node.id,
            name: node.name.clone(),
            mode,
            intent: intent.unwrap_or(node.intent),
            pg_slots: count(slots_of_node(map, node.id)),
            promise_before: map.promise.to_string(),
            promise_after: next.promise.to_string(),
            moves,
        });
        let is_news = next.nodes != map.nodes
            || next.backends != map.backends
            || next.promise != map.promise
            || next.table.pgs != map.table.pgs;
        Ok(is_news.then_some(next))
    };
    // So that a small store knows its bytes at once.
    wait_for_inventory(shared).await;
    match mode {
        Mode::Plan => make(&shared.layout.current()).map(drop)?,
        Mode::Apply => change(shared, make).await.map(drop)?,
    }
    let found = shown.lock().take();
    found.ok_or(MaintenanceError::NotReady { reason: "the layout was not looked at" })
}

/// Whether a backend or a node is on its way out, so that the map is to be changed once nothing is left on it.
pub(super) fn is_anything_leaving(map: &ClusterMap) -> bool {
    let intent = |record: &BackendRecord| intent_of_node(map, record.node);
    map.backends.iter().any(|record| record.intent == BackendIntent::Draining || intent(record) == NodeIntent::Removed)
        || map.nodes.iter().any(|node| node.intent == NodeIntent::Draining)
}

fn intent_of_node(map: &ClusterMap, node: NodeId) -> NodeIntent {
    map.nodes.iter().find(|record| record.id == node).map_or(NodeIntent::Active, |record| record.intent)
}

/// After an inventory: draining nodes on which nothing is left become drained, and backends of removed nodes that no slot
/// names are forgotten. `listed`: shards left on each backend that answered, in an inventory taken by the layout of `epoch`.
pub(super) async fn settle(shared: &Shared, epoch: Epoch, listed: &BTreeMap<BackendId, u64>) {
    let map = shared.layout.current();
    let is_any_draining = map.nodes.iter().any(|node| node.intent == NodeIntent::Draining);
    if map.table.epoch != epoch {
        // What was just changed may have written there; the next inventory will tell.
        if is_any_draining {
            shared.request_inventory(Doubt::None);
        }
        return;
    }
    let (reach, roles) = (shared.reach(), roles_of(shared));
    let is_left = |record: &BackendRecord| {
        // One that does not answer may hold what it took in for others, until it counts as lost.
        let holds = match reach.can_read(record.id) {
            true => listed.get(&record.id).copied().unwrap_or(0) > 0,
            false => roles.get(&record.id) != Some(&CandidateRole::Lost),
        };
        holds || references(&map, record.id) > 0
    };
    let draining = map.nodes.iter().filter(|node| node.intent == NodeIntent::Draining);
    let (busy, drained): (Vec<&NodeRecord>, Vec<&NodeRecord>) =
        draining.partition(|node| map.backends.iter().any(|record| record.node == node.id && is_left(record)));
    let (drained, names): (Vec<NodeId>, Vec<&str>) = drained.iter().map(|node| (node.id, node.name.as_str())).unzip();
    let is_stuck =
        busy.iter().any(|node| slots_of_node(&map, node.id) > 0) && !map.table.pgs.iter().any(|pg| pg.is_moving());
    if is_stuck {
        replan(shared, true).await;
    }
    let settled = |map: &ClusterMap| {
        let mut next = map.clone();
        for node in
            next.nodes.iter_mut().filter(|node| node.intent == NodeIntent::Draining && drained.contains(&node.id))
        {
            if slots_of_node(map, node.id) == 0 {
                node.intent = NodeIntent::Drained;
            }
        }
        next.backends
            .retain(|record| intent_of_node(map, record.node) != NodeIntent::Removed || references(map, record.id) > 0);
        Ok((next.nodes != map.nodes || next.backends != map.backends).then_some(next))
    };
    if drained.is_empty() && !map.backends.iter().any(|r| intent_of_node(&map, r.node) == NodeIntent::Removed) {
        return;
    }
    match change(shared, settled).await {
        Ok(_) if !names.is_empty() => tracing::info!(nodes = names.join(", "), "drained"),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "record drained nodes"),
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
