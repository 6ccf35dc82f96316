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
    opening: u64,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    unsettled: BTreeSet<u64>,
}

/// A number in use; settled when dropped.
pub(super) struct Sequence<'s> {
    sequences: &'s Sequences,
    number: u64,
}

impl Sequences {
    pub(super) fn new(node: u64, opening: u64) -> Self {
        Self { node, opening, open: Mutex::default() }
    }

    /// The next number.
    pub(super) fn begin(&self) -> MetadataResult<Sequence<'_>> {
        let mut open = self.open.lock();
        let settled = open.settled();
        if open.next - settled >= OPEN_SPAN_MAX {
            return Err(MetadataError::Unavailable { reason: "too many commands wait for an answer".to_owned() });
        }
        let number = open.next;
        open.next += 1;
        open.unsettled.insert(number);
        Ok(Sequence { sequences: self, number })
    }
}

impl Open {
    fn settled(&self) -> u64 {
        self.unsettled.first().copied().unwrap_or(self.next)
    }
}

impl Sequence<'_> {
    /// What goes with the command, now.
    pub(super) fn once(&self) -> Once {
        let Sequences { node, opening, open } = self.sequences;
        Once { node: *node, opening: *opening, sequence: self.number, settled: open.lock().settled() }
    }
}

impl Drop for Sequence<'_> {
    fn drop(&mut self) {
        self.sequences.open.lock().unsettled.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_is_below_all_that_is_open() {
        let sequences = Sequences::new(3, 9);
        let first = sequences.begin().unwrap();
        let second = sequences.begin().unwrap();
        assert_eq!(first.once(), Once { node: 3, opening: 9, sequence: 0, settled: 0 });
        drop(second);
        assert_eq!(sequences.begin().unwrap().once().settled, 0);
        drop(first);
        let next = sequences.begin().unwrap();
        assert_eq!((next.once().sequence, next.once().settled), (3, 3));
        for _ in 0..OPEN_SPAN_MAX - 1 {
            sequences.begin().unwrap();
        }
        assert!(sequences.begin().is_err(), "the answers kept for one process are bounded");
        drop(next);
        sequences.begin().unwrap();
    }
}
