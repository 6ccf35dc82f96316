//! Who holds which slot while a plan is being made: the table as indexes, with what the solver asks for kept counted.
//!
//! Not here: which changes to make (`rebalance`).
//!
//! **Invariant:** no change takes a domain above its cap in a PG, and the counts agree with the slots.

use crate::fill::Quota;
use std::collections::BTreeMap;

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
    /// Whether its move was under way to a backend that is lost: going back would end the move while the shards written
    /// since it began are missing (see `solver`).
    pub(crate) is_turned: bool,
}

/// What the solver may do with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotState {
    /// Holds its place, and may be moved for balance.
    Placed,
    /// A move is under way: new shards are there already, and only the table knows. It must not change before the PG
    /// is committed.
    InFlight,
    /// Its backend is draining: it needs another, in good order.
    Leaving,
    /// Its backend is lost, or is one it must not be on: it needs another, and at once.
    Homeless,
}

impl SlotState {
    /// Whether it needs a backend.
    pub(crate) fn is_without_home(self) -> bool {
        matches!(self, Self::Leaving | Self::Homeless)
    }
}

/// A cap on the slots of a PG that share a domain of one kind.
pub(crate) struct Limit {
    pub(crate) cap: u8,
    /// Domain by backend, numbered over all limits, so that no two limits share a number.
    pub(crate) domain_of: Vec<usize>,
}

/// All caps, narrowest kind first: backends, with a cap of 1, are among them.
pub(crate) struct Limits {
    pub(crate) limits: Vec<Limit>,
    pub(crate) domain_count: usize,
}

/// Slots that are tied to a domain: those of one class of a PG stay in the domain that is their home.
pub(crate) struct Tie {
    /// By backend.
    pub(crate) domain_of: Vec<usize>,
    /// By slot.
    pub(crate) class_of: Vec<usize>,
    /// By PG, then class.
    pub(crate) homes: Vec<Vec<usize>>,
}

/// One active backend.
#[derive(Clone, Debug, Default)]
struct Load {
    /// The slot it holds, by PG.
    pgs: BTreeMap<usize, usize>,
    quota: Quota,
    /// How many of its shards are in each slot.
    by_slot: Vec<usize>,
}

/// See the module.
pub(crate) struct Assignment {
    pgs: Vec<Vec<Slot>>,
    limits: Limits,
    tie: Option<Tie>,
    /// By PG, then domain: slots whose target is in it.
    targets: Vec<u8>,
    /// By PG, then domain: slots whose target or whose present place is in it. While moves last a domain can take that
    /// many.
    anywhere: Vec<u8>,
    /// By PG: slots whose target is not where they are.
    moving: Vec<u8>,
    /// By backend: whether what it holds is there (it is not lost).
    is_there: Vec<bool>,
    /// By backend; those that are not active have none.
    loads: Vec<Option<Load>>,
}

/// What an assignment begins with.
pub(crate) struct Start {
    /// PGs with their slots, all equally many. Only those with a home count as held.
    pub(crate) pgs: Vec<Vec<Slot>>,
    pub(crate) limits: Limits,
    pub(crate) tie: Option<Tie>,
    /// Of the active backends; `None` for the others.
    pub(crate) quotas: Vec<Option<Quota>>,
    /// By backend: whether it is not lost.
    pub(crate) is_there: Vec<bool>,
}

impl Assignment {
    pub(crate) fn new(start: Start) -> Self {
        let Start { pgs, limits, tie, quotas, is_there } = start;
        let slot_count = pgs.first().map_or(0, Vec::len);
        let load = |quota| Load { pgs: BTreeMap::new(), quota, by_slot: vec![0; slot_count] };
        let loads = quotas.into_iter().map(|quota| quota.map(load)).collect();
        let cells = pgs.len() * limits.domain_count;
        let (targets, anywhere) = (vec![0; cells], vec![0; cells]);
        let moving = vec![0; pgs.len()];
        let mut assignment = Self { pgs, limits, tie, targets, anywhere, moving, is_there, loads };
        for pg in 0..assignment.pgs.len() {
            for slot in 0..slot_count {
                assignment.count_domains(pg, slot, Count::In);
                let Slot { backend, state, .. } = assignment.pgs[pg][slot];
                if !state.is_without_home() {
                    assignment.load(pg, slot, backend);
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

    /// PGs in which an active backend holds a slot that is free to move, with the slot; ascending.
    pub(crate) fn movable(&self, backend: BackendIndex) -> impl Iterator<Item = (usize, usize)> + '_ {
        let held = self.loads[backend].iter().flat_map(|load| load.pgs.iter().map(|(&pg, &slot)| (pg, slot)));
        held.filter(|&(pg, slot)| self.pgs[pg][slot].state == SlotState::Placed)
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
        let may_lend = |other: &Load| {
            other.quota.pool == load.quota.pool
                && other.quota.slots > other.quota.least
                && other.pgs.len() < other.quota.slots
        };
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
        let slot = *self.loads[backend].as_ref()?.pgs.get(&pg)?;
        (self.pgs[pg][slot].state == SlotState::Placed).then_some(slot)
    }

    /// Whether this slot moves in this plan already, so that giving it to yet another backend costs nothing.
    pub(crate) fn moves_anyway(&self, pg: usize, slot: usize) -> bool {
        self.pgs[pg][slot].backend != self.pgs[pg][slot].committed
    }

    /// Whether `backend` could take this slot: it holds no other slot of the PG, and no domain it is in is at its cap.
    pub(crate) fn is_free_of(&self, pg: usize, slot: usize, backend: BackendIndex) -> bool {
        let now = self.pgs[pg][slot].backend;
        let is_home = self.tie.as_ref().is_none_or(|tie| tie.domain_of[backend] == tie.homes[pg][tie.class_of[slot]]);
        is_home
            && self.limits.limits.iter().all(|limit| {
                let domain = limit.domain_of[backend];
                let others = self.targets[pg * self.limits.domain_count + domain];
                others - u8::from(limit.domain_of[now] == domain) < limit.cap
            })
    }

    /// Whether `backend` is a good place for this slot: free, and while the move lasts neither the backend that a turned
    /// slot came from, nor one in a domain that, with what it still holds of older places, would be above its cap:
    /// losing that one would cost too many shards at once.
    pub(crate) fn is_clear_of(&self, pg: usize, slot: usize, backend: BackendIndex) -> bool {
        let held = self.pgs[pg][slot];
        if held.is_turned && held.committed == backend {
            return false;
        }
        let is_clear = |limit: &Limit| {
            let domain = limit.domain_of[backend];
            let others = self.anywhere[pg * self.limits.domain_count + domain];
            others - u8::from(self.is_somewhere_in(&held, limit, domain)) < limit.cap
        };
        self.is_free_of(pg, slot, backend) && self.limits.limits.iter().all(is_clear)
    }

    /// Slots of the PG that another backend could have back while their new one takes `slot` instead: (slot to go back,
    /// backend it goes back to). One slot moves then as before, but another one; the backend of `slot` has one less, the
    /// one that gets its own back has one more.
    pub(crate) fn returns(&self, pg: usize, slot: usize) -> impl Iterator<Item = (usize, BackendIndex)> + '_ {
        let has_any = self.moving[pg] > 0 && !self.moves_anyway(pg, slot);
        let slots = if has_any { self.pgs[pg].as_slice() } else { &[] };
        let others = slots.iter().enumerate().filter(move |&(other, _)| other != slot);
        others.filter(move |&(other, _)| self.can_return(pg, slot, other)).map(|(other, held)| (other, held.committed))
    }

    /// See [`Assignment::returns`].
    pub(crate) fn can_return(&self, pg: usize, slot: usize, other: usize) -> bool {
        let held = self.pgs[pg][other];
        let is_movable = held.state == SlotState::Placed && held.backend != held.committed && !held.is_turned;
        let is_same_class = self.tie.as_ref().is_none_or(|tie| tie.class_of[slot] == tie.class_of[other]);
        let giver = self.pgs[pg][slot].backend;
        // Both places of the slot that moves count: where its new one and the one that goes back share a domain, that
        // domain has one more.
        let is_clear = |limit: &Limit| {
            let domain = limit.domain_of[held.committed];
            let grows = domain == limit.domain_of[held.backend] && domain != limit.domain_of[giver];
            !grows || self.anywhere[pg * self.limits.domain_count + domain] < limit.cap
        };
        is_movable
            && is_same_class
            && self.loads[held.committed].is_some()
            && self.is_free_of(pg, slot, held.committed)
            && self.limits.limits.iter().all(is_clear)
    }

    /// Whether a slot's target or present place is in a domain.
    fn is_somewhere_in(&self, slot: &Slot, limit: &Limit, domain: usize) -> bool {
        limit.domain_of[slot.backend] == domain
            || (limit.domain_of[slot.committed] == domain && self.is_there[slot.committed])
    }

    /// Gives the slot to an active backend that is free to take it. (Should it not be, the finished table fails its proof
    /// and is withheld.)
    pub(crate) fn give(&mut self, pg: usize, slot: usize, backend: BackendIndex) {
        let Slot { backend: before, state, .. } = self.pgs[pg][slot];
        if !state.is_without_home()
            && let Some(load) = &mut self.loads[before]
        {
            load.pgs.remove(&pg);
            load.by_slot[slot] -= 1;
        }
        self.count_domains(pg, slot, Count::Out);
        self.pgs[pg][slot].backend = backend;
        self.pgs[pg][slot].state = SlotState::Placed;
        self.count_domains(pg, slot, Count::In);
        self.load(pg, slot, backend);
    }

    fn load(&mut self, pg: usize, slot: usize, backend: BackendIndex) {
        if let Some(load) = &mut self.loads[backend] {
            load.pgs.insert(pg, slot);
            load.by_slot[slot] += 1;
        }
    }

    fn count_domains(&mut self, pg: usize, slot: usize, count: Count) {
        let Slot { backend, committed, .. } = self.pgs[pg][slot];
        let row = pg * self.limits.domain_count;
        // A PG has at most 255 slots, so no count leaves a byte.
        let change = |cell: &mut u8| match count {
            Count::In => *cell += 1,
            Count::Out => *cell -= 1,
        };
        if backend != committed {
            change(&mut self.moving[pg]);
        }
        for limit in &self.limits.limits {
            let (target, present) = (limit.domain_of[backend], limit.domain_of[committed]);
            change(&mut self.targets[row + target]);
            change(&mut self.anywhere[row + target]);
            if present != target && self.is_there[committed] {
                change(&mut self.anywhere[row + present]);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Count {
    In,
    Out,
}
