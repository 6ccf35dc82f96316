//! Numbers for the commands of this process, and which of them are settled: answered, or given up for good.

use super::api::{MetadataError, MetadataResult};
use super::command::Once;
use parking_lot::Mutex;
use std::collections::BTreeSet;

/// Commands begun after the oldest that is still open. Beyond it new ones wait for their turn elsewhere: groups keep an
/// answer for each.
const OPEN_SPAN_MAX: u64 = 65_536;

/// The numbers of one process.
pub(super) struct Sequences {
    node: u64,
    open: Mutex<Open>,
}

struct Open {
    /// The session: grows with each process of the node, and when this one was fenced.
    opening: u64,
    next: u64,
    unsettled: BTreeSet<u64>,
}

/// A number in use; settled when dropped.
pub(super) struct Sequence<'s> {
    sequences: &'s Sequences,
    opening: u64,
    number: u64,
}

impl Sequences {
    pub(super) fn new(node: u64, opening: u64) -> Self {
        Self { node, open: Mutex::new(Open { opening, next: 0, unsettled: BTreeSet::new() }) }
    }

    /// The session.
    pub(super) fn opening(&self) -> u64 {
        self.open.lock().opening
    }

    /// Begins a newer session. What is open in the old one goes on in it, and will be refused.
    pub(super) fn reopen(&self, opening: u64) {
        let mut open = self.open.lock();
        if opening > open.opening {
            *open = Open { opening, next: 0, unsettled: BTreeSet::new() };
        }
    }

    /// The next number; of this session only, where one is named.
    pub(super) fn begin(&self, session: Option<u64>) -> MetadataResult<Sequence<'_>> {
        let mut open = self.open.lock();
        if session.is_some_and(|session| session != open.opening) {
            return Err(MetadataError::Fenced);
        }
        let settled = open.settled();
        if open.next - settled >= OPEN_SPAN_MAX {
            return Err(MetadataError::Unavailable { reason: "too many commands wait for an answer".to_owned() });
        }
        let number = open.next;
        open.next += 1;
        open.unsettled.insert(number);
        Ok(Sequence { sequences: self, opening: open.opening, number })
    }
}

impl Open {
    fn settled(&self) -> u64 {
        self.unsettled.first().copied().unwrap_or(self.next)
    }
}

impl Sequence<'_> {
    /// The session it was begun in.
    pub(super) fn opening(&self) -> u64 {
        self.opening
    }

    /// What goes with the command, now.
    pub(super) fn once(&self) -> Once {
        let open = self.sequences.open.lock();
        let settled = if open.opening == self.opening { open.settled() } else { self.number };
        Once { node: self.sequences.node, opening: self.opening, sequence: self.number, settled }
    }
}

impl Drop for Sequence<'_> {
    fn drop(&mut self) {
        let mut open = self.sequences.open.lock();
        if open.opening == self.opening {
            open.unsettled.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_is_below_all_that_is_open() {
        let sequences = Sequences::new(3, 9);
        let first = sequences.begin(None).unwrap();
        let second = sequences.begin(None).unwrap();
        assert_eq!(first.once(), Once { node: 3, opening: 9, sequence: 0, settled: 0 });
        drop(second);
        assert_eq!(sequences.begin(None).unwrap().once().settled, 0);
        drop(first);
        let next = sequences.begin(None).unwrap();
        assert_eq!((next.once().sequence, next.once().settled), (3, 3));
        for _ in 0..OPEN_SPAN_MAX - 1 {
            sequences.begin(None).unwrap();
        }
        assert!(sequences.begin(None).is_err(), "the answers kept for one process are bounded");
        drop(next);
        sequences.begin(None).unwrap();
    }

    #[test]
    fn what_was_begun_in_a_session_that_was_fenced_does_not_go_on_in_the_next() {
        let sequences = Sequences::new(3, 9);
        let old = sequences.begin(Some(9)).unwrap();
        sequences.reopen(10);
        sequences.reopen(8);
        assert_eq!(sequences.opening(), 10);
        assert_eq!((old.once().opening, old.once().sequence, old.once().settled), (9, 0, 0));
        assert_eq!(sequences.begin(Some(9)).err(), Some(MetadataError::Fenced));
        let new = sequences.begin(Some(10)).unwrap();
        assert_eq!((new.once().opening, new.once().sequence), (10, 0));
        drop(old);
        assert_eq!(new.once().settled, 0, "the old number 0 is not the new one");
    }
}
