//! The next table after a change of backends or of the promise: added, drained, lost, replaced, or of another size.
//!
//! Order of aims: the promise in every PG, every slot on a living backend, load by weight to within rounding as far as
//! the promise allows, fewest moves, then even spread over slots and repair partners.
//!
//! Not here: copying shards; deciding that a backend is lost.
//!
//! **Invariant:** a slot whose move is under way to a living backend keeps its target until its PG is committed. Shards
//! written since the move began are at that target only, and no other place in the table remembers it.

use crate::assignment::{Assignment, Slot, SlotState, Start};
use crate::candidate::{Candidate, CandidateRole};
use crate::caps::{Caps, possible_caps};
use crate::error::PlacementError;
use crate::loss_case::PgSide;
use crate::proof::{Examiner, Proof, numbered, prove_targets};
use crate::rebalance::{even_out, house_the_homeless};
use crate::scenario::Promise;
use crate::setting::Setting;
use crate::topology::{Census, Topology};
use holdfast_codec::Scheme;
use holdfast_proto::pg_table::{Pg, PgTable};
use holdfast_proto::{BackendId, Epoch};
use std::collections::BTreeSet;

/// A layout that was planned and proven, to be stored by compare-and-set on `base`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutPlan {
    /// Epoch of the table it was planned from; 0 for a first table.
    pub base: Epoch,
    /// The table: epoch one higher.
    pub table: PgTable,
    /// That its targets keep the promise.
    pub proof: Proof,
    /// The caps it was planned under.
    pub caps: Caps,
    /// Slots for which no other backend was found: they stay on one that is lost or draining.
    pub unhoused: usize,
}

impl LayoutPlan {
    /// Whether the layout has changed since this was planned: then it must be made again.
    pub fn is_stale(&self, current: Epoch) -> bool {
        self.base != current
    }
}

/// Makes the table that follows `table` now that its backends are as the candidates say, for a store that promises
/// `backend:m` and knows nothing else of its backends. See [`plan_layout`].
///
/// # Errors
/// As [`plan_layout`].
pub fn plan_table(table: &PgTable, m: usize, candidates: &[Candidate]) -> Result<PgTable, PlacementError> {
    let topology = Topology::of_one_node(candidates)?;
    plan_layout(table, &Promise::any_backends(m), &topology).map(|plan| plan.table)
}

/// Makes the table that follows `table` now that its backends are as the topology says: epoch one higher, `committed`
/// as before, new `target`s. Equal targets mean that there is nothing to do ([`slots_changed`]).
///
/// - A slot on a lost backend (or on one that is not in the topology) gets another backend; if none is free, it stays.
/// - A slot on a draining backend gets another, unless its move to that backend is still under way: plan again once the
///   PG is committed. If no place in good order is free, it stays, too, and finds one once other moves are committed.
/// - A slot under way to a backend that was lost gets a third backend if there is one, otherwise the committed one.
///   Then the PG may stop moving while shards written in between are missing from that slot: repair finds them by
///   inventory, not by `is_moving`.
/// - Slots of a PG that does not keep the promise (it was raised, or a backend changed its place) move until it does.
/// - Everything else moves only for balance, and never so that old and new places together break a cap.
///
/// # Errors
/// [`PlacementError::NotEnoughBackends`] if active and lost backends together are fewer than n, so that a drain could
/// never end; [`PlacementError::Infeasible`] if no layout on them keeps the promise; a damaged table; a table that
/// cannot be proven.
pub fn plan_layout(table: &PgTable, promise: &Promise, topology: &Topology) -> Result<LayoutPlan, PlacementError> {
    let scheme = Scheme::from_code(table.scheme)?;
    check_shape(table, scheme.n())?;
    let census = Census::new(topology, named(table));
    check_enough(table, &census, scheme.n())?;
    solve(&Task { table, scheme, promise, topology, census }, Ground::InUse)
}

/// What is to be solved.
pub(crate) struct Task<'a> {
    pub(crate) table: &'a PgTable,
    pub(crate) scheme: Scheme,
    pub(crate) promise: &'a Promise,
    pub(crate) topology: &'a Topology,
    pub(crate) census: Census,
}

/// Whether there are shards where the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// There are: a move takes time, in which both places count.
    InUse,
    /// The table is new: nothing is anywhere yet.
    Fresh,
}

pub(crate) fn solve(task: &Task<'_>, ground: Ground) -> Result<LayoutPlan, PlacementError> {
    let Task { table, scheme, promise, topology, census } = task;
    let targets: Vec<Vec<usize>> =
        table.pgs.iter().map(|pg| pg.target.iter().map(|id| census.index(*id)).collect()).collect();
    let (caps, setting) = best_setting(task, &targets)?;
    let mut pgs: Vec<Vec<Slot>> = table.pgs.iter().map(|pg| slots_of(pg, census, ground)).collect();
    unsettle(task, &setting, &targets, &mut pgs)?;

    let mut held = vec![0; census.ids.len()];
    for slot in pgs.iter().flatten().filter(|slot| !slot.state.is_without_home()) {
        held[slot.backend] += 1;
    }
    let quotas = setting.quotas(census, &held);
    let is_there = census.roles.iter().map(|role| ground == Ground::InUse && *role != CandidateRole::Lost).collect();
    let Setting { limits, tie, .. } = setting;
    let mut assignment = Assignment::new(Start { pgs, limits, tie, quotas, is_there });
    house_the_homeless(&mut assignment);
    even_out(&mut assignment);

    let target = |slots: &Vec<Slot>| slots.iter().map(|slot| census.ids[slot.backend]).collect();
    let pgs = table.pgs.iter().zip(assignment.pgs());
    let pgs = pgs.map(|(pg, slots)| Pg { committed: pg.committed.clone(), target: target(slots) }).collect();
    let planned = PgTable { epoch: Epoch(table.epoch.0.saturating_add(1)), scheme: table.scheme, pgs };
    let proof = prove_targets(&planned, promise, topology)?;
    debug_assert_eq!(scheme.n(), planned.pgs.first().map_or(0, |pg| pg.target.len()));
    let unhoused = assignment.pgs().iter().flatten().filter(|slot| slot.state.is_without_home()).count();
    Ok(LayoutPlan { base: table.epoch, table: planned, proof, caps, unhoused })
}

/// In how many slots the targets of two tables differ: how many shards of each PG's segments have to move, added up.
pub fn slots_changed(before: &PgTable, after: &PgTable) -> usize {
    let differing = |(a, b): (&Pg, &Pg)| a.target.iter().zip(&b.target).filter(|(x, y)| x != y).count();
    before.pgs.iter().zip(&after.pgs).map(differing).sum()
}

pub(crate) fn named(table: &PgTable) -> impl Iterator<Item = BackendId> + '_ {
    table.pgs.iter().flat_map(|pg| pg.committed.iter().chain(&pg.target)).copied()
}

pub(crate) fn check_shape(table: &PgTable, expected: usize) -> Result<(), PlacementError> {
    if table.pgs.is_empty() {
        return Err(PlacementError::Table { pg: 0, expected, got: 0 });
    }
    for (pg, lists) in table.pgs.iter().enumerate() {
        for got in [lists.committed.len(), lists.target.len()] {
            if got != expected {
                return Err(PlacementError::Table { pg, expected, got });
            }
        }
    }
    Ok(())
}

/// Lost backends that the table still names as targets.
fn lost_in_table(table: &PgTable, census: &Census) -> BTreeSet<BackendId> {
    let targets = table.pgs.iter().flat_map(|pg| pg.target.iter().copied());
    targets.filter(|id| census.roles.get(census.index(*id)) == Some(&CandidateRole::Lost)).collect()
}

/// A lost backend without a spare keeps its slots; so it counts as a place. A draining one does not.
fn check_enough(table: &PgTable, census: &Census, needed: usize) -> Result<(), PlacementError> {
    let lost = lost_in_table(table, census).len();
    let active = census.with_role(CandidateRole::Active).count();
    if active.saturating_add(lost) < needed {
        let draining = census.with_role(CandidateRole::Draining).count();
        return Err(PlacementError::NotEnoughBackends { needed, active, draining, lost });
    }
    Ok(())
}

/// The caps under which backends can be filled best, then those nearest to the table as it is.
fn best_setting(task: &Task<'_>, targets: &[Vec<usize>]) -> Result<(Caps, Setting), PlacementError> {
    let Task { table, scheme, promise, topology, census } = task;
    let active = possible_caps(*scheme, promise, topology, &|place| place.role == CandidateRole::Active);
    let possible = match active {
        Ok(possible) => possible,
        Err(refused) => {
            // Slots of lost backends may stay where they are until there is a spare; so those count as places.
            let lost = lost_in_table(table, census);
            let is_place =
                |place: &crate::topology::BackendPlace| place.role == CandidateRole::Active || lost.contains(&place.id);
            let unknown = lost.iter().filter(|id| topology.place(**id).is_none()).count();
            match possible_caps(*scheme, promise, topology, &is_place) {
                Ok(possible) => possible,
                // Nothing is known of where they were, so nothing can be said against it.
                Err(_) if unknown > 0 => vec![loosest_caps(*scheme, promise)],
                Err(_) => return Err(refused.into()),
            }
        }
    };
    let settings = possible.into_iter().map(|caps| {
        let setting = Setting::new(&caps, *scheme, topology, census, targets);
        let order = (setting.deviation_steps(census), setting.misplaced(targets), caps.clone());
        (order, caps, setting)
    });
    let best = settings.min_by(|(a, ..), (b, ..)| a.cmp(b));
    best.map(|(_, caps, setting)| (caps, setting)).ok_or(PlacementError::Table { pg: 0, expected: scheme.n(), got: 0 })
}

/// Caps that no scenario can be broken under, whatever there is room for: each kind takes what is left by all others
/// taking one slot a domain, shared evenly.
fn loosest_caps(scheme: Scheme, promise: &Promise) -> Caps {
    let mut caps = Caps { by_kind: [(crate::DomainKind::Backend, 1)].into(), tie: None };
    for scenario in promise.scenarios() {
        let domains: usize = scenario.counts().map(|(_, count)| count).sum();
        let cap = (scheme.losses_survived() / domains.max(1)).max(1);
        for (kind, _) in scenario.counts().filter(|(kind, _)| *kind != crate::DomainKind::Backend) {
            let known = caps.by_kind.entry(kind).or_insert(cap);
            *known = cap.min(*known);
        }
    }
    caps
}

fn slots_of(pg: &Pg, census: &Census, ground: Ground) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::with_capacity(pg.target.len());
    for (target, committed) in pg.target.iter().zip(&pg.committed) {
        let (backend, committed) = (census.index(*target), census.index(*committed));
        let is_double = slots.iter().any(|slot| slot.backend == backend && !slot.state.is_without_home());
        let state = match census.roles[backend] {
            _ if is_double => SlotState::Homeless,
            CandidateRole::Lost => SlotState::Homeless,
            _ if backend != committed && ground == Ground::InUse => SlotState::InFlight,
            CandidateRole::Draining => SlotState::Leaving,
            CandidateRole::Active => SlotState::Placed,
        };
        let is_turned = census.roles[backend] == CandidateRole::Lost && backend != committed;
        slots.push(Slot { backend, committed, state, is_turned });
    }
    slots
}

/// Makes homeless what is above a cap in the PGs that do not keep the promise. A PG above a cap that keeps it all the
/// same is left as it is.
fn unsettle(
    task: &Task<'_>,
    setting: &Setting,
    targets: &[Vec<usize>],
    pgs: &mut [Vec<Slot>],
) -> Result<(), PlacementError> {
    let Task { table, promise, topology, .. } = task;
    let mut examiner = Examiner::new(table, topology)?;
    let absent = BTreeSet::new();
    for ((number, (id, pg)), slots) in numbered(table).enumerate().zip(pgs) {
        let misplaced = setting.misplaced_slots(number, &targets[number]);
        let keeps = |examiner: &mut Examiner<'_>| {
            promise.scenarios().iter().all(|s| examiner.check(id, pg, PgSide::Target, s, &absent).is_ok())
        };
        if misplaced.is_empty() || keeps(&mut examiner) {
            continue;
        }
        for slot in misplaced {
            if matches!(slots[slot].state, SlotState::Placed | SlotState::Leaving) {
                slots[slot].state = SlotState::Homeless;
            }
        }
    }
    Ok(())
}
