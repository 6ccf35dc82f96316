//! Who holds which slot while a plan is being made: the table as indexes, with what the solver asks for kept counted.
//!
//! Not here: which changes to make (`rebalance`).
//!
//! **Invariant:** within a PG no two slots have the same backend, and the counts agree with the slots.

use crate::quota::Quota;
use std::collections::BTreeSet;

/// Index of a backend in the assignment.
pub(crate) type BackendIndex = usize;

/// One slot of one PG.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Backend that shall hold it. For a slot that still lacks one: the one it had, which stays if none is found.
    pub(crate) backend: BackendIndex,
    /// Backend that holds its shards now.
    pub(crate) committed: BackendIndex,
    pub(crate) state: SlotState,
}

/// What the solver may do with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotState {
    /// Holds its place, and may be moved for balance.
    Placed,
    /// A move is under way: new shards are there already, and only the table knows. It must not change before the PG
    /// is committed.
    InFlight,
    /// Its backend is lost or draining: it needs another.
    Homeless,
}

/// One active backend.
#[derive(Clone, Debug, Default)]
struct Load {
    pgs: BTreeSet<usize>,
    quota: Quota,
    /// How many of its shards are in each slot.
    by_slot: Vec<usize>,
}

/// See the module.
pub(crate) struct Assignment {
    pgs: Vec<Vec<Slot>>,
    /// By backend; those that are not active have none.
    loads: Vec<Option<Load>>,
}

impl Assignment {
    /// `pgs` with their slots, all equally many; `quotas` of the active backends, `None` for the others.
    /// Of the slots only those that are not homeless count as held.
    pub(crate) fn new(pgs: Vec<Vec<Slot>>, quotas: Vec<Option<Quota>>) -> Self {
        let slot_count = pgs.first().map_or(0, Vec::len);
        let load = |quota| Load { pgs: BTreeSet::new(), quota, by_slot: vec![0; slot_count] };
        let loads = quotas.into_iter().map(|quota| quota.map(load)).collect();
        let mut assignment = Self { pgs, loads };
        for pg in 0..assignment.pgs.len() {
            for slot in 0..slot_count {
                let Slot { backend, state, .. } = assignment.pgs[pg][slot];
                if state != SlotState::Homeless {
                    assignment.count(pg, slot, backend);
                }
            }
        }
        assignment
    }

    pub(crate) fn pgs(&self) -> &[Vec<Slot>] {
        &self.pgs
    }

    /// All active backends, ascending.
    pub(crate) fn active(&self) -> impl Iterator<Item = BackendIndex> + '_ {
        (0..self.loads.len()).filter(|&backend| self.loads[backend].is_some())
    }

    /// PGs in which an active backend holds a slot, ascending.
    pub(crate) fn pgs_of(&self, backend: BackendIndex) -> impl Iterator<Item = usize> + '_ {
        self.loads[backend].iter().flat_map(|load| load.pgs.iter().copied())
    }

    /// How many slots an active backend lacks; 0 for one at or above its quota.
    pub(crate) fn lacking(&self, backend: BackendIndex) -> usize {
        self.loads[backend].as_ref().map_or(0, |load| load.quota.slots.saturating_sub(load.pgs.len()))
    }

    /// Whether an active backend could take one slot more and all would be as even as the quotas: it lacks slots, or it
    /// may be rounded up if another that lacks slots is rounded down instead.
    pub(crate) fn has_room(&self, backend: BackendIndex) -> bool {
        self.lacking(backend) > 0 || self.lender(backend).is_some()
    }

    /// Makes a backend with room lack at least one slot.
    pub(crate) fn make_room(&mut self, backend: BackendIndex) {
        if self.lacking(backend) > 0 {
            return;
        }
        if let Some(lender) = self.lender(backend) {
            self.loads[lender].iter_mut().for_each(|load| load.quota.slots -= 1);
            self.loads[backend].iter_mut().for_each(|load| load.quota.slots += 1);
        }
    }

    /// Who may be rounded down so that `backend` may be rounded up.
    fn lender(&self, backend: BackendIndex) -> Option<BackendIndex> {
        let load = self.loads[backend].as_ref()?;
        if load.pgs.len() != load.quota.slots || load.quota.slots >= load.quota.most {
            return None;
        }
        let may_lend = |load: &Load| load.quota.slots > load.quota.least && load.pgs.len() < load.quota.slots;
        (0..self.loads.len()).find(|&other| self.loads[other].as_ref().is_some_and(may_lend))
    }

    /// How many slots an active backend has above its quota.
    pub(crate) fn excess(&self, backend: BackendIndex) -> usize {
        self.loads[backend].as_ref().map_or(0, |load| load.pgs.len().saturating_sub(load.quota.slots))
    }

    /// How many shards an active backend holds in this slot: spread evenly, every backend serves its part of the reads.
    pub(crate) fn held_in_slot(&self, backend: BackendIndex, slot: usize) -> usize {
        self.loads[backend].as_ref().map_or(0, |load| load.by_slot[slot])
    }

    /// The slot that `backend` holds in a PG, if it is free to move.
    pub(crate) fn movable_slot(&self, pg: usize, backend: BackendIndex) -> Option<usize> {
        self.pgs[pg].iter().position(|slot| slot.backend == backend && slot.state == SlotState::Placed)
    }

    /// Whether this slot moves in this plan already, so that giving it to yet another backend costs nothing.
    pub(crate) fn moves_anyway(&self, pg: usize, slot: usize) -> bool {
        self.pgs[pg][slot].backend != self.pgs[pg][slot].committed
    }

    /// Whether `backend` could take this slot: it holds no other slot of the PG.
    pub(crate) fn is_free_of(&self, pg: usize, slot: usize, backend: BackendIndex) -> bool {
        self.pgs[pg].iter().enumerate().all(|(other, held)| other == slot || held.backend != backend)
    }

    /// Whether `backend` could take this slot and, while the move lasts, would not hold older shards of another slot
    /// of the same segments either: losing it would then cost two shards at once.
    pub(crate) fn is_clear_of(&self, pg: usize, slot: usize, backend: BackendIndex) -> bool {
        let clear = |(other, held): (usize, &Slot)| other == slot || held.committed != backend;
        self.is_free_of(pg, slot, backend) && self.pgs[pg].iter().enumerate().all(clear)
    }

    /// Gives the slot to an active backend that is free to take it.
    pub(crate) fn give(&mut self, pg: usize, slot: usize, backend: BackendIndex) {
        debug_assert!(self.is_free_of(pg, slot, backend));
        let Slot { backend: before, state, .. } = self.pgs[pg][slot];
        if state != SlotState::Homeless {
            if let Some(load) = &mut self.loads[before] {
                load.pgs.remove(&pg);
                load.by_slot[slot] -= 1;
            }
        }
        self.pgs[pg][slot].backend = backend;
        self.pgs[pg][slot].state = SlotState::Placed;
        self.count(pg, slot, backend);
    }

    fn count(&mut self, pg: usize, slot: usize, backend: BackendIndex) {
        if let Some(load) = &mut self.loads[backend] {
            load.pgs.insert(pg);
            load.by_slot[slot] += 1;
        }
    }
}
