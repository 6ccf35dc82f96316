//! The next table after a change of backends: added, drained, lost, replaced, or of another size.
//!
//! Order of aims: every slot on a living backend, no backend twice in a PG, load by weight to within rounding, fewest
//! moves, then even spread over slots.
//!
//! Not here: copying shards; deciding that a backend is lost.
//!
//! **Invariant:** a slot whose move is under way to a living backend keeps its target until its PG is committed. Shards
//! written since the move began are at that target only, and no other place in the table remembers it.

use crate::assignment::{Assignment, Slot, SlotState};
use crate::candidate::{Candidate, CandidateRole};
use crate::error::PlacementError;
use crate::proof::prove_targets;
use crate::quota::{Quota, Share, quotas};
use crate::rebalance::{even_out, house_the_homeless};
use holdfast_codec::Scheme;
use holdfast_proto::pg_table::{Pg, PgTable};
use holdfast_proto::{BackendId, Epoch};
use std::collections::{BTreeMap, BTreeSet};

/// Makes the table that follows `table` now that its backends are as the candidates say: epoch one higher, `committed`
/// as before, new `target`s. Equal targets mean that there is nothing to do ([`slots_changed`]).
///
/// - A slot on a lost backend (or on one that is no candidate) gets another backend; if none is free, it stays.
/// - A slot on a draining backend gets another, unless its move to that backend is still under way: plan again once the
///   PG is committed. If none is free because backends are lost at the same time, it stays, too.
/// - A slot under way to a backend that was lost gets a third backend if there is one, otherwise the committed one.
///   Then the PG may stop moving while shards written in between are missing from that slot: repair finds them by
///   inventory, not by `is_moving`.
/// - Everything else moves only for balance.
///
/// `m` is the number of backends whose loss every target list must survive; the result is proven for it.
///
/// # Errors
/// [`PlacementError::NotEnoughBackends`] if active and lost backends together are fewer than n, so that a drain could
/// never end; a damaged table; a candidate given twice; a table that cannot be proven.
pub fn plan_table(table: &PgTable, m: usize, candidates: &[Candidate]) -> Result<PgTable, PlacementError> {
    let slot_count = Scheme::from_code(table.scheme)?.n();
    check_shape(table, slot_count)?;
    let backends = Backends::new(table, candidates)?;
    backends.check_enough(slot_count)?;

    let pgs: Vec<Vec<Slot>> = table.pgs.iter().map(|pg| backends.slots_of(pg)).collect();
    let quotas = backends.quotas(&pgs, slot_count);
    let mut assignment = Assignment::new(pgs, quotas);
    house_the_homeless(&mut assignment);
    even_out(&mut assignment);

    let target = |slots: &Vec<Slot>| slots.iter().map(|slot| backends.ids[slot.backend]).collect();
    let pgs = table.pgs.iter().zip(assignment.pgs());
    let pgs = pgs.map(|(pg, slots)| Pg { committed: pg.committed.clone(), target: target(slots) }).collect();
    let planned = PgTable { epoch: Epoch(table.epoch.0.saturating_add(1)), scheme: table.scheme, pgs };
    prove_targets(&planned, slot_count, m)?;
    Ok(planned)
}

/// In how many slots the targets of two tables differ: how many shards of each PG's segments have to move, added up.
pub fn slots_changed(before: &PgTable, after: &PgTable) -> usize {
    let differing = |(a, b): (&Pg, &Pg)| a.target.iter().zip(&b.target).filter(|(x, y)| x != y).count();
    before.pgs.iter().zip(&after.pgs).map(differing).sum()
}

fn check_shape(table: &PgTable, expected: usize) -> Result<(), PlacementError> {
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

/// Candidates by id, none twice.
pub(crate) fn by_id(candidates: &[Candidate]) -> Result<BTreeMap<BackendId, Candidate>, PlacementError> {
    let mut known = BTreeMap::new();
    for candidate in candidates {
        if known.insert(candidate.id, *candidate).is_some() {
            return Err(PlacementError::DuplicateCandidate { id: candidate.id });
        }
    }
    Ok(known)
}

/// Everyone who matters, by index, ascending by id: the candidates and whoever else the table names.
struct Backends {
    ids: Vec<BackendId>,
    roles: Vec<CandidateRole>,
    weights: Vec<u64>,
    index: BTreeMap<BackendId, usize>,
    /// Lost backends that the table still names as targets.
    lost_in_table: usize,
}

impl Backends {
    fn new(table: &PgTable, candidates: &[Candidate]) -> Result<Self, PlacementError> {
        let mut known = by_id(candidates)?;
        let targets: BTreeSet<BackendId> = table.pgs.iter().flat_map(|pg| pg.target.iter().copied()).collect();
        for id in table.pgs.iter().flat_map(|pg| pg.committed.iter()).copied().chain(targets.iter().copied()) {
            known.entry(id).or_insert(Candidate { id, weight_bytes: 0, role: CandidateRole::Lost });
        }
        let is_lost = |id: &&BackendId| known[*id].role == CandidateRole::Lost;
        let lost_in_table = targets.iter().filter(is_lost).count();
        Ok(Self {
            ids: known.keys().copied().collect(),
            roles: known.values().map(|candidate| candidate.role).collect(),
            weights: known.values().map(|candidate| candidate.weight_bytes).collect(),
            index: known.keys().enumerate().map(|(index, id)| (*id, index)).collect(),
            lost_in_table,
        })
    }

    fn count(&self, role: CandidateRole) -> usize {
        self.roles.iter().filter(|&&found| found == role).count()
    }

    /// A lost backend without a spare keeps its slots; so it counts as a place. A draining one does not.
    fn check_enough(&self, needed: usize) -> Result<(), PlacementError> {
        let (active, draining) = (self.count(CandidateRole::Active), self.count(CandidateRole::Draining));
        let lost = self.lost_in_table;
        if active.saturating_add(lost) < needed {
            return Err(PlacementError::NotEnoughBackends { needed, active, draining, lost });
        }
        Ok(())
    }

    fn slots_of(&self, pg: &Pg) -> Vec<Slot> {
        let mut slots: Vec<Slot> = Vec::with_capacity(pg.target.len());
        for (target, committed) in pg.target.iter().zip(&pg.committed) {
            let (backend, committed) = (self.index[target], self.index[committed]);
            let is_double = slots.iter().any(|slot| slot.backend == backend && slot.state != SlotState::Homeless);
            let state = match self.roles[backend] {
                _ if is_double => SlotState::Homeless,
                CandidateRole::Lost => SlotState::Homeless,
                _ if backend != committed => SlotState::InFlight,
                CandidateRole::Draining => SlotState::Homeless,
                CandidateRole::Active => SlotState::Placed,
            };
            slots.push(Slot { backend, committed, state });
        }
        slots
    }

    /// Quotas of the active backends; the others have none.
    fn quotas(&self, pgs: &[Vec<Slot>], slot_count: usize) -> Vec<Option<Quota>> {
        let mut held = vec![0; self.ids.len()];
        for slot in pgs.iter().flatten().filter(|slot| slot.state != SlotState::Homeless) {
            held[slot.backend] += 1;
        }
        let active: Vec<usize> = (0..self.ids.len()).filter(|&i| self.roles[i] == CandidateRole::Active).collect();
        let shares: Vec<Share> = active.iter().map(|&i| Share { weight: self.weights[i], held: held[i] }).collect();
        let mut by_backend = vec![None; self.ids.len()];
        for (&index, quota) in active.iter().zip(quotas(&shares, pgs.len().saturating_mul(slot_count), pgs.len())) {
            by_backend[index] = Some(quota);
        }
        by_backend
    }
}
