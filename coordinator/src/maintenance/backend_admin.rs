//! Adds, drains, replaces, removes and lists backends.
//!
//! **Invariant:** nothing is taken from the layout before what it held is elsewhere, unless it is gone for good; every
//! refusal says the figures and the way out.

use super::MaintenanceResult;
use super::error::MaintenanceError;
use super::health;
use super::layout_change::{REPLACED_SUFFIX, candidates_for, change, planned, references, target_slots};
use super::shared::{Doubt, Shared};
use crate::metadata::{BackendRecord, ClusterMap, MapChange};
use crate::repair::topology;
use holdfast_codec::Scheme;
use holdfast_placement::{Candidate, CandidateRole, prove, prove_targets};
use holdfast_proto::admin::{BackendAdd, BackendIntent, BackendView};
use holdfast_proto::cluster::{NodeIntent, NodeRecord, Role};
use holdfast_proto::node::{BackendHealth, BackendStatus};
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::{BackendId, NodeId};

/// Longest name: fits a column of every table.
const NAME_BYTES_MAX: usize = 32;

/// All backends by the last report.
pub(crate) fn list(shared: &Shared) -> Vec<BackendView> {
    let map = shared.layout.current();
    let health = shared.health.lock();
    let view = |record: &BackendRecord| {
        let status = health.statuses.iter().find(|s| s.id == record.id)?;
        let intent = intent_with_node(&map, record);
        Some(BackendView { status: status.clone(), intent, pg_slots: target_slots(&map, record.id) })
    };
    map.backends.iter().filter_map(view).collect()
}

/// What is wanted of a backend: it goes when its node does.
fn intent_with_node(map: &ClusterMap, record: &BackendRecord) -> BackendIntent {
    let node = map.nodes.iter().find(|node| node.id == record.node).map(|node| node.intent);
    match (record.intent, node) {
        (BackendIntent::Active, Some(NodeIntent::Draining | NodeIntent::Removed)) => BackendIntent::Draining,
        (_, Some(NodeIntent::Drained)) => BackendIntent::Drained,
        (intent, _) => intent,
    }
}

fn view(shared: &Shared, backend: BackendId) -> MaintenanceResult<BackendView> {
    let found = list(shared).into_iter().find(|view| view.status.id == backend);
    found.ok_or(MaintenanceError::NotReady { reason: "the backend has not been reported yet" })
}

/// Finds a backend by its name or its id.
fn find<'a>(map: &'a ClusterMap, name: &str) -> MaintenanceResult<&'a BackendRecord> {
    let found = map.backends.iter().find(|r| r.name == name || r.id.to_string() == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = map.backends.iter().map(|r| r.name.as_str()).collect();
        MaintenanceError::NoSuchBackend { name: name.to_owned(), known: known.join(", ") }
    })
}

/// Adds a backend.
pub(crate) async fn add(shared: &Shared, add: BackendAdd) -> MaintenanceResult<BackendView> {
    let map = shared.layout.current();
    let name = match add.name {
        Some(name) => checked_name(&map, name)?,
        None => free_name(&map),
    };
    let node = chosen_node(&map, add.node.as_deref())?;
    let status = shared.node.add_backend(node, &add.location, &name).await?;
    let (id, location) = (status.id, status.location.clone());
    attach(shared, id, async {
        let record = BackendRecord { id, name: name.clone(), location, intent: BackendIntent::Active, node };
        let with_record = |map: &ClusterMap| {
            if map.backends.iter().any(|r| r.name == record.name) {
                return Err(name_taken(&record.name));
            }
            let mut next = map.clone();
            next.backends.push(record.clone());
            next.change = MapChange::asked(format!("backend add {}", record.location));
            Ok(Some(next))
        };
        change(shared, with_record).await?;
        // Its capacity is known once it is in the report; only then can it be given its share.
        health::check(shared).await;
        change(shared, |map| if map.held.planning { Ok(None) } else { planned(shared, map) }).await
    })
    .await?;
    shared.request_inventory(Doubt::None);
    tracing::info!(name, %id, location = add.location, "backend added");
    view(shared, id)
}

/// The node an operator names; where there is one, that one.
fn chosen_node(map: &ClusterMap, name: Option<&str>) -> MaintenanceResult<NodeId> {
    let takes_shards = |node: &&NodeRecord| node.roles.has(Role::Storage) && node.intent == NodeIntent::Active;
    let storage = || map.nodes.iter().filter(takes_shards);
    let known = || storage().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, storage().collect::<Vec<_>>().as_slice()) {
        // A store made before it could grow records no nodes.
        (None, []) if map.nodes.is_empty() => Ok(NodeId::FIRST),
        (None, [only]) => Ok(only.id),
        (None, _) => Err(MaintenanceError::Invalid { reason: format!("say on which node: {}", known()) }),
        (Some("n1" | "1"), []) if map.nodes.is_empty() => Ok(NodeId::FIRST),
        (Some(name), nodes) => {
            let found = nodes.iter().find(|node| node.name == name || node.id.to_string() == name);
            let unknown =
                || MaintenanceError::Invalid { reason: format!("no storage node {name}; there are: {}", known()) };
            found.map(|node| node.id).ok_or_else(unknown)
        }
    }
}

/// Runs what takes a freshly formatted backend into the map; detaches the backend again if the map did not take it.
async fn attach<F, T>(shared: &Shared, backend: BackendId, work: F) -> MaintenanceResult<T>
where
    F: Future<Output = MaintenanceResult<T>>,
{
    let result = work.await;
    let is_known = shared.layout.current().backends.iter().any(|r| r.id == backend);
    if result.is_err()
        && !is_known
        && let Err(error) = shared.node.remove_backend(backend).await
    {
        tracing::warn!(id = %backend, %error, "detach a backend that was not taken into the map");
    }
    result
}

fn name_taken(name: &str) -> MaintenanceError {
    MaintenanceError::Refused {
        reason: format!("a backend named {name} exists"),
        next_step: "choose another name, or leave it out to have one chosen".to_owned(),
    }
}

fn checked_name(map: &ClusterMap, name: String) -> MaintenanceResult<String> {
    let is_legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_' || c == '.';
    let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !begins_well || name.len() > NAME_BYTES_MAX || !name.chars().all(is_legal) || name.ends_with(REPLACED_SUFFIX) {
        let reason = format!(
            "backend name {:?}: a name begins with a letter a-z, has letters a-z, digits, '-', '_' and '.', at most \
             {NAME_BYTES_MAX}, and does not end in {REPLACED_SUFFIX}",
            name.chars().take(64).collect::<String>()
        );
        return Err(MaintenanceError::Invalid { reason });
    }
    if map.backends.iter().any(|r| r.name == name) {
        return Err(name_taken(&name));
    }
    Ok(name)
}

/// The first of d1, d2, ... above all that exist.
fn free_name(map: &ClusterMap) -> String {
    let number = |r: &BackendRecord| r.name.strip_prefix('d')?.split('-').next()?.parse::<u64>().ok();
    let last = map.backends.iter().filter_map(number).max().unwrap_or(0);
    format!("d{}", last.saturating_add(1))
}

/// Begins to move everything off a backend.
pub(crate) async fn drain(shared: &Shared, name: &str) -> MaintenanceResult<BackendView> {
    health::check(shared).await;
    let id = find(&shared.layout.current(), name)?.id;
    let draining = |map: &ClusterMap| {
        let record = find(map, name)?;
        if record.intent != BackendIntent::Active {
            return Ok(None);
        }
        let needed = slots_of(&map.table)?;
        let reach = shared.reach();
        let takes_shards = |c: &Candidate| c.role == CandidateRole::Active && c.id != id && reach.can_write(c.id);
        let left = candidates_for(shared, map).iter().filter(|c| takes_shards(c)).count();
        if left < needed {
            return Err(MaintenanceError::Refused {
                reason: format!(
                    "draining {} would leave {left} backends that take shards, and every segment needs {needed} different ones",
                    record.name
                ),
                next_step: "add one first: holdfast backend add disk:PATH".to_owned(),
            });
        }
        let mut next = map.clone();
        for record in next.backends.iter_mut().filter(|r| r.id == id) {
            record.intent = BackendIntent::Draining;
        }
        next.change = MapChange::asked(format!("backend drain {name}"));
        Ok(Some(planned(shared, &next)?.unwrap_or(next)))
    };
    change(shared, draining).await?;
    shared.request_inventory(Doubt::None);
    tracing::info!(name, %id, "backend draining");
    view(shared, id)
}

/// n of the scheme.
fn slots_of(table: &PgTable) -> MaintenanceResult<usize> {
    let scheme = Scheme::from_code(table.scheme);
    scheme.map(|s| s.n()).map_err(|e| MaintenanceError::Placement { reason: e.to_string() })
}

/// Forgets a backend.
pub(crate) async fn remove(shared: &Shared, name: &str) -> MaintenanceResult<BackendView> {
    health::check(shared).await;
    let map = shared.layout.current();
    let record = find(&map, name)?.clone();
    let before = view(shared, record.id)?;
    refuse_if_used(&map, &record, before.status.health)?;
    if before.status.health.can_read() {
        refuse_if_holding(shared, &map, &record).await?;
    }
    let without = |map: &ClusterMap| {
        refuse_if_used(map, &record, before.status.health)?;
        let mut next = map.clone();
        next.backends.retain(|r| r.id != record.id);
        next.change = MapChange::asked(format!("backend remove {}", record.name));
        Ok((next.backends != map.backends).then_some(next))
    };
    change(shared, without).await?;
    shared.node.remove_backend(record.id).await?;
    health::check(shared).await;
    tracing::info!(name = record.name, id = %record.id, "backend removed");
    Ok(before)
}

fn refuse_if_used(map: &ClusterMap, record: &BackendRecord, health: BackendHealth) -> MaintenanceResult<()> {
    let (name, slots) = (&record.name, references(map, record.id));
    if slots == 0 {
        return Ok(());
    }
    let state = if health.can_read() { "" } else { ", though it does not answer" };
    let next_step = match (record.intent, health.can_read()) {
        (BackendIntent::Active, true) => format!("move its shards away first: holdfast backend drain {name}"),
        (_, true) => "wait until it is drained: holdfast repair status".to_owned(),
        (_, false) => format!("put another in its place: holdfast backend replace {name} disk:PATH"),
    };
    Err(MaintenanceError::Refused {
        reason: format!("{name} is still named by {slots} placement slots{state}"),
        next_step,
    })
}

/// Looks whether any PG has a shard there: one written late by a request that began under an older layout.
async fn refuse_if_holding(shared: &Shared, map: &ClusterMap, record: &BackendRecord) -> MaintenanceResult<()> {
    let pg_count = u32::try_from(map.table.pgs.len()).unwrap_or(u32::MAX);
    for pg in (0..pg_count).map(holdfast_proto::PgId) {
        if !shared.node.list_shards(record.id, pg, None, 1, map.table.epoch).await?.is_empty() {
            shared.request_inventory(Doubt::None);
            return Err(MaintenanceError::Refused {
                reason: format!("{} still holds shards", record.name),
                next_step: "wait until it is drained: holdfast repair status".to_owned(),
            });
        }
    }
    Ok(())
}

/// Puts a new backend in the slots of another.
pub(crate) async fn replace(shared: &Shared, name: &str, add: BackendAdd) -> MaintenanceResult<BackendView> {
    health::check(shared).await;
    let map = shared.layout.current();
    let old = find(&map, name)?.clone();
    if old.name.ends_with(REPLACED_SUFFIX) {
        return Err(MaintenanceError::Refused {
            reason: format!("{} has been replaced already", old.name),
            next_step: "it is forgotten once repair is done: holdfast repair status".to_owned(),
        });
    }
    let old_status = view(shared, old.id)?.status;
    let new_name = match add.name {
        Some(new_name) if new_name != old.name => checked_name(&map, new_name)?,
        _ => old.name.clone(),
    };
    let is_gone = is_gone_for_good(&old_status, &add.location)?;
    let status = shared.node.add_backend(old.node, &add.location, &new_name).await?;
    let new = BackendRecord {
        id: status.id,
        name: new_name,
        location: status.location,
        intent: BackendIntent::Active,
        node: old.node,
    };
    attach(shared, new.id, change(shared, |map| with_replaced(map, &old, &new, is_gone).map(Some))).await?;
    if is_gone && let Err(error) = shared.node.remove_backend(old.id).await {
        tracing::warn!(id = %old.id, %error, "detach the replaced backend");
    }
    health::check(shared).await;
    shared.request_inventory(Doubt::FewerShards);
    tracing::info!(name = new.name, old = %old.id, new = %new.id, location = add.location, "backend replaced");
    view(shared, new.id)
}

/// Whether what the old one held cannot come back: it was wiped, or the new one is made where it was. Refused if the
/// old one is alive there.
fn is_gone_for_good(old: &BackendStatus, location: &str) -> MaintenanceResult<bool> {
    let is_same_place = old.location.trim_end_matches('/') == location.trim_end_matches('/');
    if is_same_place && old.health.can_read() {
        return Err(MaintenanceError::Refused {
            reason: format!("{} is alive at {location}", old.name),
            next_step: format!("give another place, or drain it: holdfast backend drain {}", old.name),
        });
    }
    Ok(is_same_place || old.health == BackendHealth::Wiped)
}

/// The map with `new` in every slot that `old` is to hold. If the old one is gone for good it leaves no trace; else it
/// stays, renamed, as a place to read from until the moves are committed.
fn with_replaced(
    map: &ClusterMap,
    old: &BackendRecord,
    new: &BackendRecord,
    is_gone: bool,
) -> MaintenanceResult<ClusterMap> {
    let mut next = map.clone();
    next.change = MapChange::asked(format!("backend replace {} {}", old.name, new.location));
    for pg in &mut next.table.pgs {
        for slot in pg.target.iter_mut().filter(|id| **id == old.id) {
            *slot = new.id;
        }
        if is_gone {
            for (committed, target) in pg.committed.iter_mut().zip(&pg.target).filter(|(id, _)| **id == old.id) {
                *committed = *target;
            }
        }
    }
    match is_gone {
        true => next.backends.retain(|r| r.id != old.id),
        false => {
            for record in next.backends.iter_mut().filter(|r| r.id == old.id) {
                record.intent = BackendIntent::Draining;
                record.name = format!("{}{REPLACED_SUFFIX}", old.name);
            }
        }
    }
    if next.backends.iter().any(|r| r.name == new.name) {
        return Err(name_taken(&new.name));
    }
    next.backends.push(new.clone());
    next.backends.sort_by_key(|r| (r.name.len(), r.name.clone()));
    let refused = |reason: String| MaintenanceError::Placement { reason };
    let scheme = Scheme::from_code(next.table.scheme).map_err(|e| refused(e.to_string()))?;
    prove(&next.table, scheme.n(), scheme.losses_survived()).map_err(|e| refused(e.to_string()))?;
    let promise = next.promise.or_any_backends(scheme.losses_survived());
    let topology = topology(&next, &[]).map_err(|e| refused(e.to_string()))?;
    next.proof = Some(prove_targets(&next.table, &promise, &topology).map_err(|e| refused(e.to_string()))?);
    Ok(next)
}
