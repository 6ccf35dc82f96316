//! Whether what clients saw of one key could have come from a key that changes at single moments: linearizability
//! (Herlihy and Wing, 1990), by the search of Wing and Gong with the memory of Lowe.
//!
//! Pure. A write whose answer never came may have happened at any moment since it was sent, or never. The search is
//! bounded: what it cannot settle is `Undecided`, never passed.
//!
//! Keys are independent of each other, so a history of a store is checked key by key (Herlihy and Wing, section 3.3).

use std::collections::HashSet;

/// What a key holds: a number that no other write of the key has written.
pub type Value = u64;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Write.
    Put(Value),
    /// Write if there is nothing.
    PutIfAbsent(Value),
    /// Write if that is there.
    PutIfMatch {
        /// What must be there.
        expected: Value,
        /// What is then written.
        value: Value,
    },
    /// Remove, whatever is there.
    Delete,
    /// Read.
    Get,
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The write or removal was carried out.
    Done,
    /// A condition did not hold.
    Refused,
    /// That was there.
    Found(Option<Value>),
    /// Nothing was answered, or that it may have happened.
    Unknown,
}

/// One operation. What certainly had no effect, and reads without an answer, are no part of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it was sent.
    pub invoked: u64,
    /// When it was answered; means nothing if the answer is unknown.
    pub returned: u64,
    /// What was asked.
    pub operation: Operation,
    /// What was answered.
    pub answer: Answer,
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    Violated,
    /// The search was given up.
    Undecided,
}

impl Event {
    fn is_known(&self) -> bool {
        self.answer != Answer::Unknown
    }
}

impl Operation {
    /// What is there afterwards, and what is answered, if `state` is there before.
    pub fn apply(self, state: Option<Value>) -> (Option<Value>, Answer) {
        match self {
            Self::Put(value) => (Some(value), Answer::Done),
            Self::PutIfAbsent(value) if state.is_none() => (Some(value), Answer::Done),
            Self::PutIfMatch { expected, value } if state == Some(expected) => (Some(value), Answer::Done),
            Self::PutIfAbsent(_) | Self::PutIfMatch { .. } => (state, Answer::Refused),
            Self::Delete => (None, Answer::Done),
            Self::Get => (state, Answer::Found(state)),
        }
    }
}

/// Checks the history of one key that began empty. `steps_max` bounds the search.
pub fn check(history: &[Event], steps_max: usize) -> Verdict {
    let mut events = history.to_vec();
    events.sort_by_key(|event| (event.invoked, event.returned));
    let mut search = Search { events: &events, seen: HashSet::new(), steps_left: steps_max };
    search.run()
}

struct Search<'h> {
    events: &'h [Event],
    /// Positions that lead nowhere, or are being looked at.
    seen: HashSet<Position>,
    steps_left: usize,
}

/// Which events are in order already, and what the key holds after them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Position {
    done: Vec<u64>,
    state: Option<Value>,
}

impl Position {
    fn is_done(&self, event: usize) -> bool {
        self.done[event / 64] & (1 << (event % 64)) != 0
    }

    fn with(&self, event: usize, state: Option<Value>) -> Self {
        let mut done = self.done.clone();
        done[event / 64] |= 1 << (event % 64);
        Self { done, state }
    }
}

impl Search<'_> {
    /// Depth first, on a stack of our own: histories are longer than call stacks are deep.
    fn run(&mut self) -> Verdict {
        let start = Position { done: vec![0; self.events.len().div_ceil(64)], state: None };
        let mut stack = vec![start];
        while let Some(position) = stack.pop() {
            let position = self.skip_what_changes_nothing(position);
            if !self.seen.insert(position.clone()) {
                continue;
            }
            if self.steps_left == 0 {
                return Verdict::Undecided;
            }
            self.steps_left -= 1;
            let candidates = self.candidates(&position);
            let is_complete = (0..self.events.len()).all(|at| position.is_done(at) || !self.events[at].is_known());
            if is_complete {
                return Verdict::Linearizable;
            }
            // What was answered is tried first, in the order of the answers; so it is pushed last.
            let mut next: Vec<usize> = candidates;
            next.sort_by_key(|&at| {
                let event = &self.events[at];
                (event.is_known(), std::cmp::Reverse(event.returned))
            });
            for at in next {
                let event = &self.events[at];
                let (state, answer) = event.operation.apply(position.state);
                let is_explained = !event.is_known() || answer == event.answer;
                // An unanswered operation that changes nothing here need not be placed here.
                if is_explained && (event.is_known() || state != position.state) {
                    stack.push(position.with(at, state));
                }
            }
        }
        Verdict::Violated
    }

    /// Takes every read and every refused operation that may come next and is explained: they change nothing wherever they
    /// stand, so whatever order there is, it is as good with those moved here. (Not a removal of nothing, which is carried
    /// out: elsewhere it may be what removes something.)
    fn skip_what_changes_nothing(&self, mut position: Position) -> Position {
        loop {
            let idle = self.candidates(&position).into_iter().find(|&at| {
                let event = &self.events[at];
                let changes_nothing = matches!(event.answer, Answer::Found(_) | Answer::Refused);
                changes_nothing && event.operation.apply(position.state).1 == event.answer
            });
            match idle {
                Some(at) => position = position.with(at, position.state),
                None => return position,
            }
        }
    }

    /// The events that may come next: no other that is left was answered before they were sent.
    fn candidates(&self, position: &Position) -> Vec<usize> {
        let left = || (0..self.events.len()).filter(|&at| !position.is_done(at));
        let known = left().filter(|&at| self.events[at].is_known());
        let first_answer = known.map(|at| self.events[at].returned).min().unwrap_or(u64::MAX);
        left().filter(|&at| self.events[at].invoked <= first_answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEPS: usize = 1_000_000;

    fn event(invoked: u64, returned: u64, operation: Operation, answer: Answer) -> Event {
        Event { invoked, returned, operation, answer }
    }

    #[test]
    fn one_line_per_case() {
        use Answer::{Done, Found, Refused, Unknown};
        use Operation::{Delete, Get, Put, PutIfAbsent, PutIfMatch};
        let check = |events: &[(u64, u64, Operation, Answer)], expected: Verdict| {
            let events: Vec<Event> = events.iter().map(|&(i, r, o, a)| event(i, r, o, a)).collect();
            assert_eq!(check(&events, STEPS), expected, "{events:?}");
        };
        use Verdict::{Linearizable, Violated};
        check(&[], Linearizable);
        check(&[(0, 1, Put(1), Done), (2, 3, Get, Found(Some(1)))], Linearizable);
        // Lost: acknowledged and then not there.
        check(&[(0, 1, Put(1), Done), (2, 3, Get, Found(None))], Violated);
        // Stale: the old value after the new one was acknowledged.
        check(&[(0, 1, Put(1), Done), (2, 3, Put(2), Done), (4, 5, Get, Found(Some(1)))], Violated);
        // At the same time either may be seen, but not the new and then the old.
        check(&[(0, 1, Put(1), Done), (2, 9, Put(2), Done), (3, 4, Get, Found(Some(1)))], Linearizable);
        check(&[(0, 1, Put(1), Done), (2, 9, Put(2), Done), (3, 4, Get, Found(Some(2)))], Linearizable);
        check(
            &[(0, 1, Put(1), Done), (2, 9, Put(2), Done), (3, 4, Get, Found(Some(2))), (5, 6, Get, Found(Some(1)))],
            Violated,
        );
        // Not answered: now, later, or never.
        check(&[(0, 0, Put(1), Unknown), (5, 6, Get, Found(None)), (7, 8, Get, Found(Some(1)))], Linearizable);
        check(&[(0, 0, Put(1), Unknown), (5, 6, Get, Found(Some(1))), (7, 8, Get, Found(None))], Violated);
        check(&[(9, 0, Put(1), Unknown), (5, 6, Get, Found(Some(1)))], Violated);
        // Of two that create, one wins.
        check(&[(0, 9, PutIfAbsent(1), Done), (0, 9, PutIfAbsent(2), Done)], Violated);
        check(&[(0, 9, PutIfAbsent(1), Done), (0, 9, PutIfAbsent(2), Refused)], Linearizable);
        check(&[(0, 1, PutIfAbsent(1), Refused)], Violated);
        check(&[(0, 1, Put(1), Done), (2, 3, PutIfMatch { expected: 1, value: 2 }, Done)], Linearizable);
        check(&[(0, 1, Put(1), Done), (2, 3, PutIfMatch { expected: 1, value: 2 }, Refused)], Violated);
        check(&[(0, 1, Delete, Done), (2, 3, Get, Found(None))], Linearizable);
        check(&[(0, 1, Put(1), Done), (2, 3, Delete, Done), (4, 5, Get, Found(Some(1)))], Violated);
        // A removal that may have come first, and must not: the write at the same time was removed by it.
        check(&[(0, 8, PutIfAbsent(1), Done), (1, 9, Delete, Done), (10, 11, Get, Found(None))], Linearizable);
        // From nowhere.
        check(&[(0, 1, Get, Found(Some(7)))], Violated);
    }

    #[test]
    fn a_search_that_is_too_long_is_undecided() {
        // Writes at one time, and a read of what none of them wrote: every order has to be tried.
        let mut events: Vec<Event> = (0..12).map(|value| event(0, 100, Operation::Put(value), Answer::Done)).collect();
        events.push(event(50, 60, Operation::Get, Answer::Found(Some(99))));
        assert_eq!(check(&events, 100), Verdict::Undecided);
    }

    /// Every order of every choice of unanswered operations, by the definition.
    fn brute_force(events: &[Event]) -> bool {
        fn extend(events: &[Event], done: u32, state: Option<Value>) -> bool {
            let left = || (0..events.len()).filter(|at| done & (1 << at) == 0);
            if left().all(|at| !events[at].is_known()) {
                return true;
            }
            left().any(|at| {
                let event = &events[at];
                let comes_too_early = left()
                    .any(|other| other != at && events[other].is_known() && events[other].returned < event.invoked);
                let (next, answer) = event.operation.apply(state);
                let is_explained = !event.is_known() || answer == event.answer;
                !comes_too_early && is_explained && extend(events, done | (1 << at), next)
            })
        }
        extend(events, 0, None)
    }

    /// Operations of a few clients on few values; answers from an honest run, from chance, or missing.
    fn histories() -> impl Strategy<Value = Vec<Event>> {
        let one = (0u64..12, 0u64..6, 0u8..5, 0u64..4, 0u8..4, any::<bool>());
        proptest::collection::vec(one, 0..8).prop_map(|drawn| {
            let mut state = None;
            let mut events: Vec<Event> = Vec::new();
            for (number, (invoked, length, kind, expected, fate, is_honest)) in (0u64..).zip(drawn) {
                let operation = match kind {
                    0 => Operation::Put(number),
                    1 => Operation::PutIfAbsent(number),
                    2 => Operation::PutIfMatch { expected, value: number },
                    3 => Operation::Delete,
                    _ => Operation::Get,
                };
                let (next, honest) = operation.apply(state);
                state = next;
                let other = match operation {
                    Operation::Get => Answer::Found((expected > 0).then_some(expected)),
                    Operation::PutIfAbsent(_) | Operation::PutIfMatch { .. } if fate & 1 == 0 => Answer::Refused,
                    _ => Answer::Done,
                };
                let answer = match (fate, operation) {
                    (3, Operation::Get) => honest,
                    (3, _) => Answer::Unknown,
                    _ if is_honest => honest,
                    _ => other,
                };
                events.push(event(invoked, invoked + length, operation, answer));
            }
            events
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_agrees_with_trying_every_order(events in histories()) {
            let expected = if brute_force(&events) { Verdict::Linearizable } else { Verdict::Violated };
            prop_assert_eq!(check(&events, STEPS), expected);
        }
    }

    #[test]
    fn the_histories_of_the_property_are_of_both_kinds() {
        use proptest::strategy::ValueTree;
        use proptest::test_runner::TestRunner;
        let mut runner = TestRunner::deterministic();
        let drawn = (0..1000).map(|_| histories().new_tree(&mut runner).unwrap().current());
        let good = drawn.filter(|events| brute_force(events)).count();
        assert!((200..900).contains(&good), "{good} of 1000 are linearizable");
    }
}
