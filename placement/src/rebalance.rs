//! Which slots change hands: first every slot without a home gets a backend, then whoever has too much gives to whoever
//! has too little, by the cheapest chains.
//!
//! A direct move costs one shard copy per segment and closes one gap, so a plan of direct moves alone is as cheap as
//! any. Where a backend that lacks slots cannot take any of those in question (it is in these PGs already, or its zone
//! is at its cap there), the gap is closed by a chain: a gives to b in one PG, b to c in another; by the chain that
//! moves least. (Augmenting paths of the assignment problem; Ahuja, Magnanti, Orlin, "Network Flows", chapters 9 and
//! 12, with unit costs. Caps on nested domains are a laminar matroid in each PG, in which such exchanges reach every
//! assignment there is: Schrijver, "Combinatorial Optimization", section 41.)
//!
//! **Invariant:** a slot that is in flight is never touched. A slot whose backend is lost gets one whenever there is one
//! that is free of its PG: survival goes before balance. One that only leaves waits for a place in good order.

use crate::assignment::{Assignment, BackendIndex, SlotState};
use crate::mix::mix2;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// A change of hands: in this PG, this backend gives its slot to the next one of the chain.
#[derive(Clone, Copy)]
struct Step {
    pg: usize,
    giver: BackendIndex,
    how: How,
}

/// What a change of hands costs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// One move.
    Moves,
    /// Nothing: the slot moves in this plan anyway.
    MovesAnyway,
    /// Nothing: the next one has this slot back, which it was to lose in this plan, and the backend that was to have it
    /// takes the giver's. (The backward edge of a flow: a move is taken back, and another made.)
    Returns(usize),
}

/// Gives every slot without a home a backend, if there is any that can take it.
pub(crate) fn house_the_homeless(assignment: &mut Assignment) {
    let slot_count = assignment.pgs().first().map_or(0, Vec::len);
    let mut homeless: Vec<(u64, usize, usize)> = (0..assignment.pgs().len())
        .flat_map(|pg| (0..slot_count).map(move |slot| (mix2(pg, slot), pg, slot)))
        .filter(|&(_, pg, slot)| assignment.pgs()[pg][slot].state.is_without_home())
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
    let Some(chain) = cheapest_chain(assignment, &first) else { return false };
    let head = chain.head();
    let Some(done) = follow(assignment, &chain) else { return false };
    if !assignment.is_clear_of(pg, slot, head) {
        undo(assignment, &done);
        return false;
    }
    assignment.give(pg, slot, head);
    true
}

/// Good places for a homeless slot.
fn newcomers(assignment: &Assignment, pg: usize, slot: usize) -> impl Iterator<Item = BackendIndex> + '_ {
    assignment.active().filter(move |&backend| assignment.is_clear_of(pg, slot, backend))
}

/// Whatever is free: one without older shards of the PG if possible, the one with the least excess first; else the
/// backend that held the slot before a move that went wrong. A slot that only leaves may wait, and takes no place that
/// would put its PG at a greater risk while it moves.
fn house_anywhere(assignment: &mut Assignment, pg: usize, slot: usize) {
    let committed = assignment.pgs()[pg][slot].committed;
    let is_urgent = assignment.pgs()[pg][slot].state == SlotState::Homeless;
    let order = |backend: BackendIndex| {
        let is_mixed = !assignment.is_clear_of(pg, slot, backend);
        (backend == committed, is_mixed, assignment.excess(backend), assignment.held_in_slot(backend, slot), backend)
    };
    let taker = assignment
        .active()
        .filter(|&backend| assignment.is_free_of(pg, slot, backend))
        .filter(|&backend| is_urgent || assignment.is_clear_of(pg, slot, backend))
        .min_by_key(|&backend| order(backend));
    if let Some(backend) = taker {
        assignment.give(pg, slot, backend);
    }
}

/// Gives a part of what the giver has too much of to one backend that lacks slots.
fn move_directly(assignment: &mut Assignment, giver: BackendIndex) -> bool {
    let takers = takers(assignment);
    // Over all takers evenly, so that none gets all it lacks from one.
    let part = assignment.excess(giver).div_ceil(takers.len().max(1)).max(1);
    takers.into_iter().any(|taker| {
        let count = part.min(assignment.lacking(taker)).min(assignment.excess(giver));
        move_some(assignment, giver, taker, count) > 0
    })
}

/// Moves up to `count` slots from one to the other: each time from the slot of which the taker has least and the giver
/// most, so that both stay even over slots. Returns how many.
fn move_some(assignment: &mut Assignment, giver: BackendIndex, taker: BackendIndex, count: usize) -> usize {
    let slot_count = assignment.pgs().first().map_or(0, Vec::len);
    let mut eligible: Vec<Vec<(Reverse<u64>, usize)>> = vec![Vec::new(); slot_count];
    for (pg, slot) in assignment.movable(giver).filter(|&(pg, slot)| assignment.is_clear_of(pg, slot, taker)) {
        eligible[slot].push((Reverse(mix2(pg, taker)), pg));
    }
    eligible.iter_mut().for_each(|pgs| pgs.sort_unstable());
    for moved in 0..count {
        let held = |backend, slot| i64::try_from(assignment.held_in_slot(backend, slot)).unwrap_or(i64::MAX);
        let next = (0..slot_count)
            .filter_map(|slot| Some((held(taker, slot) - held(giver, slot), Reverse(eligible[slot].last()?.0), slot)))
            .min();
        let Some((_, _, slot)) = next else { return moved };
        if let Some((_, pg)) = eligible[slot].pop() {
            assignment.give(pg, slot, taker);
        }
    }
    count
}

fn move_by_chain(assignment: &mut Assignment, giver: BackendIndex) -> bool {
    let Some(chain) = cheapest_chain(assignment, &[giver]) else { return false };
    if chain.steps.is_empty() || follow(assignment, &chain).is_none() {
        return false;
    }
    // The same way again while it lasts at the same price.
    while assignment.excess(giver) > 0 && assignment.has_room(chain.end) {
        if follow(assignment, &chain).is_none() {
            break;
        }
    }
    true
}

/// Steps from a backend to one that has room: in each step's PG its backend gives its slot to the backend of the next
/// step, and the last one to the end.
struct Chain {
    steps: Vec<Step>,
    end: BackendIndex,
}

impl Chain {
    fn head(&self) -> BackendIndex {
        self.steps.first().map_or(self.end, |step| step.giver)
    }
}

/// The cheapest chain from one of `first`. A step costs one move, or none where the slot is one that moves in this plan
/// anyway. (Breadth first, with free steps at the front of the queue.)
fn cheapest_chain(assignment: &Assignment, first: &[BackendIndex]) -> Option<Chain> {
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
            return Some(chain_to(&reached, giver));
        }
        // Once everyone is reached at the price of a move, only free steps can be of use.
        let mut open: Vec<BackendIndex> = backends.iter().copied().filter(|&b| reached[b].cost > cost).collect();
        for (pg, slot) in assignment.movable(giver) {
            let is_free = assignment.moves_anyway(pg, slot);
            let next_cost = if is_free { cost } else { cost + 1 };
            let mut is_any_open = false;
            for &taker in &open {
                if reached[taker].cost > next_cost && assignment.is_clear_of(pg, slot, taker) {
                    let how = if is_free { How::MovesAnyway } else { How::Moves };
                    reached[taker] = Reached { cost: next_cost, by: Some(Step { pg, giver, how }), is_settled: false };
                    if is_free {
                        queue.push_front((next_cost, taker))
                    } else {
                        queue.push_back((next_cost, taker))
                    }
                    is_any_open = true;
                }
            }
            for (other, taker) in assignment.returns(pg, slot) {
                if reached[taker].cost > cost {
                    let how = How::Returns(other);
                    reached[taker] = Reached { cost, by: Some(Step { pg, giver, how }), is_settled: false };
                    queue.push_front((cost, taker));
                }
            }
            if is_any_open && is_free {
                open.retain(|&taker| reached[taker].cost > cost);
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

/// The chain that leads to `end`.
fn chain_to(reached: &[Reached], end: BackendIndex) -> Chain {
    let mut chain = Chain { steps: Vec::new(), end };
    let mut at = end;
    while let Some(step) = reached[at].by {
        chain.steps.push(step);
        at = step.giver;
    }
    chain.steps.reverse();
    chain
}

/// A change that was made: PG, slot, who had it before.
type Done = (usize, usize, BackendIndex);

/// Carries a chain out from its end, so that each backend that takes a slot has just been relieved of one. Where the PG
/// of a step will not do any more (a step before it was in the same PG, or it is walked once more), another is taken in
/// which the same two can change hands. `None`, and nothing changed, if there is none.
fn follow(assignment: &mut Assignment, chain: &Chain) -> Option<Vec<Done>> {
    let mut done: Vec<Done> = Vec::new();
    assignment.make_room(chain.end);
    let mut taker = chain.end;
    for step in chain.steps.iter().rev() {
        if !take_step(assignment, step, taker, &mut done) {
            undo(assignment, &done);
            return None;
        }
        taker = step.giver;
    }
    Some(done)
}

/// Has the giver of a step give its slot to the taker, in the step's PG or in another where it costs no more; false,
/// and nothing changed, if there is none.
fn take_step(assignment: &mut Assignment, step: &Step, taker: BackendIndex, done: &mut Vec<Done>) -> bool {
    let Step { pg, giver, how } = *step;
    let as_planned = assignment.movable_slot(pg, giver).map(|slot| (pg, slot));
    if let How::Returns(other) = how {
        let holds = |&(pg, slot): &(usize, usize)| is_return(assignment, (pg, slot), other, taker);
        let as_planned = as_planned.filter(holds).map(|(pg, slot)| (pg, slot, other));
        let Some((pg, slot, other)) = as_planned.or_else(|| some_return(assignment, giver, taker)) else {
            return false;
        };
        let newcomer = assignment.pgs()[pg][other].backend;
        done.push((pg, other, newcomer));
        assignment.give(pg, other, taker);
        done.push((pg, slot, giver));
        assignment.give(pg, slot, newcomer);
        return true;
    }
    let as_planned = as_planned.filter(|&(pg, slot)| assignment.is_clear_of(pg, slot, taker));
    let Some((pg, slot)) = as_planned.or_else(|| some_pg(assignment, giver, taker, how)) else { return false };
    done.push((pg, slot, giver));
    assignment.give(pg, slot, taker);
    true
}

/// Whether the taker can have slot `other` of a PG back in exchange for this one.
fn is_return(assignment: &Assignment, (pg, slot): (usize, usize), other: usize, taker: BackendIndex) -> bool {
    !assignment.moves_anyway(pg, slot)
        && assignment.pgs()[pg][other].committed == taker
        && assignment.can_return(pg, slot, other)
}

/// A PG in which one can give its slot to the other, at no more than the price of `how`: of those the one whose slot
/// the taker has least of.
fn some_pg(assignment: &Assignment, giver: BackendIndex, taker: BackendIndex, how: How) -> Option<(usize, usize)> {
    let eligible = assignment
        .movable(giver)
        .filter(|&(pg, slot)| how == How::Moves || assignment.moves_anyway(pg, slot))
        .filter(|&(pg, slot)| assignment.is_clear_of(pg, slot, taker));
    eligible.min_by_key(|&(pg, slot)| (assignment.held_in_slot(taker, slot), mix2(pg, taker)))
}

/// A PG in which the taker can have a slot back in exchange for the giver's: (PG, the giver's slot, the one to go back).
fn some_return(assignment: &Assignment, giver: BackendIndex, taker: BackendIndex) -> Option<(usize, usize, usize)> {
    assignment.movable(giver).find_map(|(pg, slot)| {
        let mut back = assignment.returns(pg, slot).filter(|&(_, owner)| owner == taker);
        back.next().map(|(other, _)| (pg, slot, other))
    })
}

fn undo(assignment: &mut Assignment, done: &[Done]) {
    for &(pg, slot, before) in done.iter().rev() {
        assignment.give(pg, slot, before);
    }
}
