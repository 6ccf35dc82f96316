//! Which slots change hands: first every homeless slot gets a backend, then whoever has too much gives to whoever has
//! too little, by the cheapest chains.
//!
//! A direct move costs one shard copy per segment and closes one gap, so a plan of direct moves alone is as cheap as
//! any. Where a backend that lacks slots is in all the PGs in question already, the gap is closed by a chain: a gives
//! to b in one PG, b to c in another; by the chain that moves least. (Augmenting paths of the assignment problem;
//! Ahuja, Magnanti, Orlin, "Network Flows", chapters 9 and 12, with unit costs.)
//!
//! **Invariant:** a slot that is in flight is never touched. A homeless slot gets a backend whenever one exists that
//! holds no other slot of its PG: survival goes before balance.

use crate::assignment::{Assignment, BackendIndex, SlotState};
use crate::mix::mix2;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// A change of hands: in this PG, this backend gives its slot to the next one of the chain.
type Step = (usize, BackendIndex);

/// Gives every homeless slot a backend, if there is any that can take it.
pub(crate) fn house_the_homeless(assignment: &mut Assignment) {
    let slot_count = assignment.pgs().first().map_or(0, Vec::len);
    let mut homeless: Vec<(u64, usize, usize)> = (0..assignment.pgs().len())
        .flat_map(|pg| (0..slot_count).map(move |slot| (mix2(pg, slot), pg, slot)))
        .filter(|&(_, pg, slot)| assignment.pgs()[pg][slot].state == SlotState::Homeless)
        .collect();
    homeless.sort_unstable();
    // First those who lack slots anyway; what is left over needs a chain, or an uneven load.
    homeless.retain(|&(_, pg, slot)| !house_with_one_who_lacks(assignment, pg, slot));
    homeless.retain(|&(_, pg, slot)| !house_by_chain(assignment, pg, slot));
    for (_, pg, slot) in homeless {
        house_anywhere(assignment, pg, slot);
    }
}

/// Moves slots until every active backend has its quota, or as near as can be.
pub(crate) fn even_out(assignment: &mut Assignment) {
    let mut stuck = Vec::new();
    loop {
        let fullest = assignment
            .active()
            .filter(|backend| !stuck.contains(backend))
            .max_by_key(|&backend| (assignment.excess(backend), Reverse(backend)));
        let Some(giver) = fullest.filter(|&backend| assignment.excess(backend) > 0) else { return };
        if !move_directly(assignment, giver) && !move_by_chain(assignment, giver) {
            stuck.push(giver);
        }
    }
}

/// Active backends below their quota, the emptiest first.
fn takers(assignment: &Assignment) -> Vec<BackendIndex> {
    let mut takers: Vec<BackendIndex> =
        assignment.active().filter(|&backend| assignment.lacking(backend) > 0).collect();
    takers.sort_by_key(|&backend| (Reverse(assignment.lacking(backend)), backend));
    takers
}

fn house_with_one_who_lacks(assignment: &mut Assignment, pg: usize, slot: usize) -> bool {
    let order = |backend: BackendIndex| {
        (Reverse(assignment.lacking(backend)), assignment.held_in_slot(backend, slot), mix2(pg, backend))
    };
    let taker = newcomers(assignment, pg, slot)
        .filter(|&backend| assignment.lacking(backend) > 0)
        .min_by_key(|&backend| order(backend));
    taker.inspect(|&backend| assignment.give(pg, slot, backend)).is_some()
}

fn house_by_chain(assignment: &mut Assignment, pg: usize, slot: usize) -> bool {
    let first: Vec<BackendIndex> = newcomers(assignment, pg, slot).collect();
    let Some((steps, taker)) = chain(assignment, &first) else { return false };
    let head = steps.first().map_or(taker, |&(_, backend)| backend);
    follow(assignment, &steps, taker);
    assignment.give(pg, slot, head);
    true
}

/// Who could take a homeless slot without touching older shards of its PG. The backend that the slot's shards came from
/// is no newcomer: going back there would end the move while newer shards are missing (see `solver`).
fn newcomers(assignment: &Assignment, pg: usize, slot: usize) -> impl Iterator<Item = BackendIndex> + '_ {
    let committed = assignment.pgs()[pg][slot].committed;
    assignment.active().filter(move |&backend| backend != committed && assignment.is_clear_of(pg, slot, backend))
}

/// Whatever is free: one without older shards of the PG if possible, the one with the least excess first; else the
/// backend that held the slot before a move that went wrong.
fn house_anywhere(assignment: &mut Assignment, pg: usize, slot: usize) {
    let committed = assignment.pgs()[pg][slot].committed;
    let order = |backend: BackendIndex| {
        let is_mixed = !assignment.is_clear_of(pg, slot, backend);
        (backend == committed, is_mixed, assignment.excess(backend), assignment.held_in_slot(backend, slot), backend)
    };
    let taker = assignment
        .active()
        .filter(|&backend| assignment.is_free_of(pg, slot, backend))
        .min_by_key(|&backend| order(backend));
    if let Some(backend) = taker {
        assignment.give(pg, slot, backend);
    }
}

fn move_directly(assignment: &mut Assignment, giver: BackendIndex) -> bool {
    for taker in takers(assignment) {
        let best = assignment
            .pgs_of(giver)
            .filter_map(|pg| Some((pg, assignment.movable_slot(pg, giver)?)))
            .filter(|&(pg, slot)| assignment.is_clear_of(pg, slot, taker))
            .min_by_key(|&(pg, slot)| {
                // The slot of which the taker has least and the giver most, so that both stay even over slots.
                let held = |backend| i64::try_from(assignment.held_in_slot(backend, slot)).unwrap_or(i64::MAX);
                (held(taker) - held(giver), mix2(pg, taker))
            });
        if let Some((pg, slot)) = best {
            assignment.give(pg, slot, taker);
            return true;
        }
    }
    false
}

fn move_by_chain(assignment: &mut Assignment, giver: BackendIndex) -> bool {
    let Some((steps, taker)) = chain(assignment, &[giver]) else { return false };
    follow(assignment, &steps, taker);
    !steps.is_empty()
}

/// The cheapest chain from one of `first` to a backend that has room: in each step's PG its backend gives its slot
/// to the backend of the next step, and the last one to the taker. A step costs one move, or none where the slot is one
/// that moves in this plan anyway. (Breadth first, with free steps at the front of the queue.)
fn chain(assignment: &Assignment, first: &[BackendIndex]) -> Option<(Vec<Step>, BackendIndex)> {
    let backends: Vec<BackendIndex> = assignment.active().collect();
    let mut reached = vec![Reached::default(); backends.last().map_or(0, |&last| last + 1)];
    let mut queue = VecDeque::new();
    for &backend in first {
        reached[backend].cost = 0;
        queue.push_back((0, backend));
    }
    while let Some((cost, giver)) = queue.pop_front() {
        if reached[giver].is_settled || cost > reached[giver].cost {
            continue;
        }
        reached[giver].is_settled = true;
        if assignment.has_room(giver) {
            return Some((steps_to(&reached, giver), giver));
        }
        for pg in assignment.pgs_of(giver) {
            let Some(slot) = assignment.movable_slot(pg, giver) else { continue };
            let is_free = assignment.moves_anyway(pg, slot);
            let next_cost = if is_free { cost } else { cost + 1 };
            for &taker in &backends {
                if reached[taker].cost > next_cost && assignment.is_clear_of(pg, slot, taker) {
                    reached[taker] = Reached { cost: next_cost, by: Some((pg, giver)), is_settled: false };
                    if is_free { queue.push_front((next_cost, taker)) } else { queue.push_back((next_cost, taker)) }
                }
            }
        }
    }
    None
}

/// How a backend is reached by a chain.
#[derive(Clone, Copy)]
struct Reached {
    cost: usize,
    by: Option<Step>,
    is_settled: bool,
}

impl Default for Reached {
    fn default() -> Self {
        Self { cost: usize::MAX, by: None, is_settled: false }
    }
}

/// The steps that lead to `end`, first one first.
fn steps_to(reached: &[Reached], end: BackendIndex) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = end;
    while let Some((pg, giver)) = reached[at].by {
        steps.push((pg, giver));
        at = giver;
    }
    steps.reverse();
    steps
}

/// Carries a chain out from its end, so that each backend that takes a slot has just been relieved of one. The
/// backends of a chain are all different, and none that takes was in the PG where it takes; so the steps do not get in
/// each other's way, even where two of them are in one PG.
fn follow(assignment: &mut Assignment, steps: &[Step], taker: BackendIndex) {
    assignment.make_room(taker);
    let mut taker = taker;
    for &(pg, giver) in steps.iter().rev() {
        if let Some(slot) = assignment.movable_slot(pg, giver) {
            assignment.give(pg, slot, taker);
        }
        taker = giver;
    }
}
