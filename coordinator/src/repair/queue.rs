//! The work that repair knows of, most endangered first, with failures waiting their turn.
//!
//! Not here: what exactly is to be done for a segment; that is planned afresh when its turn comes.
//!
//! **Invariants:** a segment is in the queue at most once; the queue never holds more than its limit, and says when it
//! had to leave some out (`take_overflow`: then the inventory must be taken again once it is empty).

use holdfast_proto::SegmentId;
use std::collections::{BTreeMap, BTreeSet};

/// Tries of one segment before it is given up until something changes: with the backoff below about 20 minutes.
pub const ATTEMPTS_MAX: u32 = 8;
/// Wait after the first failure; doubles with each, so that a backend that comes back within seconds is used soon.
const BACKOFF_FIRST_MS: u64 = 5_000;
/// Longest wait between two tries.
const BACKOFF_MAX_MS: u64 = 600_000;
/// Wait for a segment that is still being written: stragglers of a write end within seconds.
const POSTPONE_MS: u64 = 2_000;

/// Where a segment stands in the figures of an inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The inventory's number.
    pub inventory: u64,
    /// At which margin it was counted.
    pub margin: i32,
}

/// A segment to be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkItem {
    /// Which.
    pub segment: SegmentId,
    /// Its margin when last seen.
    pub margin: i32,
    /// How it was counted; `None` if it was only reported.
    pub counted: Option<Counted>,
    /// Its object bytes; 0 if not known yet.
    pub segment_bytes: u64,
    /// Shards it was planned to write.
    pub shards_to_write: u64,
    /// Bytes it was planned to write.
    pub bytes_to_write: u64,
    /// Slots reported damaged, one bit a slot: to be verified before they count as there.
    pub suspects: u64,
    /// Failed tries so far.
    pub attempts: u32,
}

#[derive(Clone, Debug)]
struct Waiting {
    item: WorkItem,
    due_ms: u64,
    reason: String,
}

/// Bounded priority queue over segments.
#[derive(Debug)]
pub struct RepairQueue {
    items_max: usize,
    ready: BTreeSet<(i32, SegmentId)>,
    items: BTreeMap<SegmentId, WorkItem>,
    waiting: BTreeMap<SegmentId, Waiting>,
    /// Those of `waiting` that will be tried again, by when.
    due: BTreeSet<(u64, SegmentId)>,
    has_overflowed: bool,
}

impl RepairQueue {
    /// A queue of at most `items_max` segments (and as many that wait).
    pub fn new(items_max: usize) -> Self {
        Self {
            items_max: items_max.max(1),
            ready: BTreeSet::new(),
            items: BTreeMap::new(),
            waiting: BTreeMap::new(),
            due: BTreeSet::new(),
            has_overflowed: false,
        }
    }

    /// Adds a segment or joins it with what is known of it. One that failed before keeps waiting, unless it is reported
    /// with suspects that are new.
    pub fn add(&mut self, item: WorkItem) {
        if let Some(waiting) = self.waiting.get_mut(&item.segment) {
            let is_news = item.suspects & !waiting.item.suspects != 0;
            let joined = join(&waiting.item, &item);
            if !is_news {
                waiting.item = joined;
                return;
            }
            self.take_waiting(item.segment);
            return self.insert(WorkItem { attempts: 0, ..joined });
        }
        let joined = match self.items.get(&item.segment) {
            Some(known) => join(known, &item),
            None => item,
        };
        self.insert(joined);
    }

    fn insert(&mut self, item: WorkItem) {
        if let Some(known) = self.items.remove(&item.segment) {
            self.ready.remove(&(known.margin, known.segment));
        }
        self.ready.insert((item.margin, item.segment));
        self.items.insert(item.segment, item);
        if self.items.len() > self.items_max
            && let Some((_, segment)) = self.ready.pop_last()
        {
            self.items.remove(&segment);
            self.has_overflowed = true;
        }
        debug_assert_eq!(self.ready.len(), self.items.len(), "index and items tell the same");
    }

    /// The most endangered segment of those with at most `margin_max`, oldest first among equals; failures whose time has
    /// come take part.
    pub fn pop(&mut self, now_ms: u64, margin_max: i32) -> Option<WorkItem> {
        while let Some(&(due_ms, segment)) = self.due.first() {
            if due_ms > now_ms {
                break;
            }
            self.due.remove(&(due_ms, segment));
            if let Some(waiting) = self.take_waiting(segment) {
                self.insert(waiting.item);
            }
        }
        let (margin, segment) = *self.ready.first()?;
        if margin > margin_max {
            return None;
        }
        self.ready.remove(&(margin, segment));
        self.items.remove(&segment)
    }

    /// Puts back a segment that is still being written.
    pub fn postpone(&mut self, item: WorkItem, now_ms: u64) {
        self.wait(Waiting { due_ms: now_ms + POSTPONE_MS, reason: String::new(), item });
    }

    /// Puts back a segment that could not be repaired, to be tried again later, up to [`ATTEMPTS_MAX`] times.
    pub fn fail(&mut self, item: WorkItem, reason: String, now_ms: u64) {
        let attempts = item.attempts + 1;
        let backoff = BACKOFF_FIRST_MS.saturating_mul(1 << (attempts - 1).min(20)).min(BACKOFF_MAX_MS);
        self.wait(Waiting { due_ms: now_ms + backoff, reason, item: WorkItem { attempts, ..item } });
    }

    fn wait(&mut self, waiting: Waiting) {
        let segment = waiting.item.segment;
        self.take_waiting(segment);
        if self.waiting.len() >= self.items_max {
            self.has_overflowed = true;
            return;
        }
        if waiting.item.attempts < ATTEMPTS_MAX {
            self.due.insert((waiting.due_ms, segment));
        }
        self.waiting.insert(segment, waiting);
        debug_assert!(self.due.len() <= self.waiting.len(), "index and items tell the same");
    }

    fn take_waiting(&mut self, segment: SegmentId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&segment)?;
        self.due.remove(&(waiting.due_ms, segment));
        Some(waiting)
    }

    /// Forgets what an inventory will find again. Suspects stay: an inventory does not see damage inside a shard.
    pub fn begin_inventory(&mut self) {
        self.items.retain(|_, item| item.suspects != 0);
        self.ready = self.items.values().map(|item| (item.margin, item.segment)).collect();
        self.has_overflowed = false;
    }

    /// Inventory `number` is complete. What an earlier one counted and this one did not find to be done is settled, gone, or
    /// waits for a backend whose return asks for an inventory: only what was reported of it is still to be looked at.
    pub fn end_inventory(&mut self, number: u64) {
        let is_stale = |item: &WorkItem| item.counted.is_some_and(|counted| counted.inventory != number);
        self.items.retain(|_, item| !is_stale(item) || item.suspects != 0);
        self.waiting.retain(|_, waiting| !is_stale(&waiting.item) || waiting.item.suspects != 0);
        let waiting = self.waiting.values_mut().map(|waiting| &mut waiting.item);
        for item in self.items.values_mut().chain(waiting).filter(|item| is_stale(item)) {
            item.counted = None;
        }
        self.ready = self.items.values().map(|item| (item.margin, item.segment)).collect();
        self.due.retain(|(_, segment)| self.waiting.contains_key(segment));
    }

    /// Whether a segment below `margin` is still to be looked at.
    pub fn is_any_below(&self, margin: i32) -> bool {
        let waits = || self.waiting.values().any(|waiting| waiting.item.margin < margin);
        self.ready.first().is_some_and(|(least, _)| *least < margin) || waits()
    }

    /// Everything that failed may be tried again at once: something has changed.
    pub fn forgive(&mut self) {
        self.due.clear();
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            self.insert(WorkItem { attempts: 0, ..waiting.item });
        }
    }

    /// When the next waiting segment is due.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }

    /// Whether a segment had to be left out since the last call.
    pub fn take_overflow(&mut self) -> bool {
        std::mem::take(&mut self.has_overflowed)
    }

    /// Segments ready to be worked on.
    pub fn ready_count(&self) -> usize {
        self.items.len()
    }

    /// Segments reported damaged and not looked at yet.
    pub fn suspect_count(&self) -> usize {
        let waiting = self.waiting.values().filter(|w| w.item.suspects != 0).count();
        self.items.values().filter(|item| item.suspects != 0).count() + waiting
    }

    /// Slots of a segment that are under suspicion.
    pub fn suspects(&self, segment: SegmentId) -> u64 {
        let waiting = self.waiting.get(&segment).map_or(0, |w| w.item.suspects);
        self.items.get(&segment).map_or(0, |item| item.suspects) | waiting
    }

    /// Segments that failed and how the first few did.
    pub fn failures(&self, reasons_max: usize) -> (u64, Vec<String>) {
        let failed = || self.waiting.values().filter(|w| w.item.attempts > 0);
        let reasons = failed().take(reasons_max).map(|w| format!("segment {}: {}", w.item.segment, w.reason)).collect();
        (u64::try_from(failed().count()).unwrap_or(u64::MAX), reasons)
    }
}

/// What two reports of one segment say together: the newer figures, all suspects.
fn join(known: &WorkItem, news: &WorkItem) -> WorkItem {
    let newest = if news.counted.is_some() || known.counted.is_none() { news } else { known };
    WorkItem {
        suspects: known.suspects | news.suspects,
        attempts: known.attempts,
        margin: news.margin.min(if news.counted.is_some() { i32::MAX } else { known.margin }),
        ..newest.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(ms: u64, margin: i32) -> WorkItem {
        let counted = Some(Counted { inventory: 1, margin });
        WorkItem {
            segment: SegmentId::from_parts(ms, [0; 10]),
            margin,
            counted,
            segment_bytes: 1,
            ..WorkItem::default()
        }
    }
    fn drain(queue: &mut RepairQueue, now_ms: u64) -> Vec<(u64, i32)> {
        std::iter::from_fn(|| queue.pop(now_ms, i32::MAX)).map(|i| (i.segment.unix_ms(), i.margin)).collect()
    }

    #[test]
    fn most_endangered_first_then_oldest() {
        let mut queue = RepairQueue::new(10);
        for (ms, margin) in [(5, 2), (4, 1), (9, 0), (3, 1), (1, 2), (7, -1)] {
            queue.add(item(ms, margin));
        }
        assert_eq!(drain(&mut queue, 0), [(7, -1), (9, 0), (3, 1), (4, 1), (1, 2), (5, 2)]);
    }

    #[test]
    fn a_full_queue_keeps_the_most_endangered_and_says_so() {
        let mut queue = RepairQueue::new(2);
        for (ms, margin) in [(1, 1), (2, 1), (3, 0)] {
            queue.add(item(ms, margin));
        }
        assert_eq!(drain(&mut queue, 0), [(3, 0), (1, 1)]);
        assert!(queue.take_overflow());
        assert!(!queue.take_overflow());
    }

    #[test]
    fn failures_wait_longer_each_time_and_end() {
        let mut queue = RepairQueue::new(10);
        queue.add(item(1, 0));
        let mut now = 0;
        let mut waits = Vec::new();
        while let Some(work) = queue.pop(now, i32::MAX) {
            queue.fail(work, "no luck".into(), now);
            let Some(due) = queue.next_due_ms() else { break };
            assert_eq!(queue.pop(due - 1, i32::MAX), None);
            waits.push(due - now);
            now = due;
        }
        assert_eq!(waits, [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000]);
        let (count, reasons) = queue.failures(10);
        assert_eq!(count, 1);
        assert!(reasons[0].ends_with("no luck"), "{reasons:?}");
        // An inventory finds it again: it stays given up until something changes.
        queue.begin_inventory();
        queue.add(item(1, 0));
        assert_eq!(queue.pop(now, i32::MAX), None);
        queue.forgive();
        assert_eq!(drain(&mut queue, now), [(1, 0)]);
    }

    #[test]
    fn suspects_outlive_an_inventory_and_wake_a_failure() {
        let mut queue = RepairQueue::new(10);
        queue.add(WorkItem { suspects: 1, ..item(1, 2) });
        queue.add(item(2, 1));
        queue.begin_inventory();
        queue.add(WorkItem { bytes_to_write: 7, ..item(1, 1) });
        assert_eq!(queue.suspects(SegmentId::from_parts(1, [0; 10])), 1);
        let work = queue.pop(0, i32::MAX).unwrap();
        assert_eq!((work.suspects, work.margin, work.bytes_to_write), (1, 1, 7));
        assert_eq!(queue.pop(0, i32::MAX), None);
        queue.fail(work, "x".into(), 0);
        queue.add(WorkItem { suspects: 1, ..item(1, 1) });
        assert_eq!(queue.pop(0, i32::MAX), None, "the same report again is no news");
        queue.add(WorkItem { suspects: 2, ..item(1, 1) });
        let work = queue.pop(0, i32::MAX).unwrap();
        assert_eq!((work.suspects, work.attempts), (3, 0));
    }

    #[test]
    fn what_an_inventory_found_settled_is_not_counted_by_it() {
        let mut queue = RepairQueue::new(10);
        let of = |inventory, item: WorkItem| WorkItem {
            counted: item.counted.map(|counted| Counted { inventory, ..counted }),
            ..item
        };
        for (ms, suspects) in [(1, 0), (2, 0), (3, 4)] {
            queue.add(WorkItem { suspects, ..item(ms, 1) });
        }
        let postponed = queue.pop(0, i32::MAX).unwrap();
        queue.postpone(postponed, 0);
        queue.begin_inventory();
        queue.add(of(2, item(4, 1)));
        assert!(queue.is_any_below(2) && !queue.is_any_below(1));
        queue.end_inventory(2);
        assert_eq!(queue.next_due_ms(), None, "the postponed one has been settled meanwhile");
        let left: Vec<_> = std::iter::from_fn(|| queue.pop(0, i32::MAX)).collect();
        let left: Vec<_> =
            left.iter().map(|i| (i.segment.unix_ms(), i.counted.map(|c| c.inventory), i.suspects)).collect();
        assert_eq!(left, [(3, None, 4), (4, Some(2), 0)]);
        assert!(!queue.is_any_below(2));
    }

    /// A report lowers the turn of a segment that was to be moved, not the row it is counted in.
    #[test]
    fn a_report_does_not_change_where_a_segment_is_counted() {
        let mut queue = RepairQueue::new(10);
        queue.add(item(1, 2));
        queue.add(WorkItem { counted: None, segment_bytes: 0, suspects: 1, ..item(1, 1) });
        let work = queue.pop(0, i32::MAX).unwrap();
        assert_eq!((work.margin, work.counted), (1, Some(Counted { inventory: 1, margin: 2 })));
    }

    #[test]
    fn what_is_only_to_be_moved_waits_while_moves_are_held() {
        let mut queue = RepairQueue::new(10);
        let item = |number: u64, margin| WorkItem {
            segment: SegmentId::from_parts(number, [0; 10]),
            margin,
            ..WorkItem::default()
        };
        queue.add(item(1, 2));
        queue.add(item(2, 1));
        assert_eq!(queue.pop(0, 1).map(|work| work.margin), Some(1));
        assert_eq!(queue.pop(0, 1), None);
        queue.fail(item(3, 2), "x".to_owned(), 0);
        let due = queue.next_due_ms().unwrap();
        assert_eq!(
            (queue.pop(due, 1), queue.next_due_ms(), queue.ready_count()),
            (None, None, 2),
            "it waits in the queue"
        );
        assert_eq!(queue.pop(due, i32::MAX).map(|work| work.margin), Some(2));
    }

    proptest! {
        #[test]
        fn never_twice_never_over_the_limit(ops in proptest::collection::vec((0u8..5, 0u64..12, -1i32..3, 0u64..4), 1..80)) {
            let mut queue = RepairQueue::new(6);
            let mut now = 0;
            for (op, ms, margin, suspects) in ops {
                match op {
                    0 | 1 => queue.add(WorkItem { suspects, ..item(ms, margin) }),
                    2 => if let Some(work) = queue.pop(now, i32::MAX) { queue.fail(work, String::new(), now) },
                    3 => if let Some(work) = queue.pop(now, i32::MAX) { queue.postpone(work, now) },
                    _ => { queue.begin_inventory(); now += 7_000; }
                }
                prop_assert!(queue.ready_count() <= 6);
                prop_assert!(queue.waiting.len() <= 6);
                let tried_again = queue.waiting.values().filter(|w| w.item.attempts < ATTEMPTS_MAX).count();
                prop_assert_eq!(queue.due.len(), tried_again);
                prop_assert!(queue.waiting.keys().all(|id| !queue.items.contains_key(id)));
            }
            queue.forgive();
            let mut popped = Vec::new();
            while let Some(work) = queue.pop(now, i32::MAX) { popped.push((work.margin, work.segment)); }
            prop_assert!(popped.is_sorted(), "{popped:?}");
            let distinct: BTreeSet<_> = popped.iter().map(|(_, id)| *id).collect();
            prop_assert_eq!(distinct.len(), popped.len());
        }
    }
}
