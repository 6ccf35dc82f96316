//! When a range is cut in two, and where: because it has grown, in the middle of its bytes; or because it is written so
//! much that two leaders would do better, at the middle of what is written. Pure.
//!
//! Keys that only ever grow (dates, counters) are written at one end: no cut parts that load, so none is made for it. That
//! shows by looking at two stretches of time: a border that halves the earlier must part the later as well.

use super::command::Kind;
use super::state::border_of;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of rows, as stored, after which a range is cut. Large, so that a coordinator keeps some hundreds of ranges and
/// not some ten thousand; small enough that a copy moves in a minute.
pub(super) const RANGE_BYTES_MAX: u64 = 8 << 30;
/// How often load and size are looked at.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Changes a second that one range is left with: well below what one leader orders.
const CHANGES_PER_SECOND_MAX: f64 = 4_000.0;
/// A range is written that much for so many windows before it is cut: a burst is none of its business.
const HOT_WINDOWS: u32 = 6;
/// More ranges than that for each coordinator part no load any more: its leaders share one disk and its cores.
const RANGES_PER_COORDINATOR: usize = 4;
/// Each so manyth change is sampled, and so many samples are kept of a window.
const SAMPLED_EACH: u64 = 16;
const SAMPLES_MAX: usize = 128;
/// Fewer samples say nothing.
const SAMPLES_MIN: usize = 32;

/// What is written to a range, as its leader sees it.
#[derive(Default)]
pub(super) struct Load(Mutex<Windows>);

#[derive(Default)]
struct Windows {
    changes: u64,
    now: VecDeque<Vec<u8>>,
    before: Vec<Vec<u8>>,
    hot_windows: u32,
    /// When the last window ended: looking at the others may take long.
    ended: Option<Instant>,
}

/// A range's load at the end of a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Heat {
    /// In the window that has ended.
    pub(super) changes_per_second: f64,
    /// Windows in a row, this one included, with more than a range is left with.
    pub(super) hot_windows: u32,
    /// Borders that were written in the window before, and in this one.
    pub(super) before: Vec<Vec<u8>>,
    pub(super) now: Vec<Vec<u8>>,
}

impl Load {
    /// Takes note of a change that was ordered.
    pub(super) fn note(&self, kind: &Kind) {
        let mut windows = self.0.lock();
        windows.changes += 1;
        if !windows.changes.is_multiple_of(SAMPLED_EACH) {
            return;
        }
        let Some(border) = border_of(kind) else { return };
        if windows.now.len() == SAMPLES_MAX {
            windows.now.pop_front();
        }
        windows.now.push_back(border);
    }

    /// Ends the window.
    pub(super) fn end_window(&self) -> Heat {
        let mut windows = self.0.lock();
        let now = Instant::now();
        let time = windows.ended.replace(now).map_or(WINDOW, |ended| now - ended);
        let changes_per_second = std::mem::take(&mut windows.changes) as f64 / time.as_secs_f64().max(1e-3);
        windows.hot_windows = if changes_per_second > CHANGES_PER_SECOND_MAX { windows.hot_windows + 1 } else { 0 };
        let now: Vec<Vec<u8>> = std::mem::take(&mut windows.now).into();
        let before = std::mem::replace(&mut windows.before, now.clone());
        Heat { changes_per_second, hot_windows: windows.hot_windows, before, now }
    }

    /// Forgets what was seen: the range was cut, or this node leads it no more.
    pub(super) fn forget(&self) {
        *self.0.lock() = Windows::default();
    }
}

/// A cut that should be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// In the middle of the range's bytes.
    BySize,
    /// At this border.
    ByLoad(Vec<u8>),
}

/// How large ranges get and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Of this range.
    pub(super) bytes: u64,
    /// After which it is cut.
    pub(super) bytes_max: u64,
    /// In the whole store.
    pub(super) ranges: usize,
    /// Nodes that can lead one.
    pub(super) coordinators: usize,
}

/// Whether a range should be cut.
pub(super) fn plan(extent: Extent, heat: &Heat) -> Option<Cut> {
    if extent.bytes > extent.bytes_max {
        return Some(Cut::BySize);
    }
    let is_parted_enough = extent.coordinators < 2 || extent.ranges >= extent.coordinators * RANGES_PER_COORDINATOR;
    if is_parted_enough || heat.hot_windows < HOT_WINDOWS {
        return None;
    }
    parting_border(&heat.before, &heat.now).map(Cut::ByLoad)
}

/// The border that comes nearest to halving `before`, if it leaves a quarter of both on either side.
fn parting_border(before: &[Vec<u8>], now: &[Vec<u8>]) -> Option<Vec<u8>> {
    if before.len() < SAMPLES_MIN || now.len() < SAMPLES_MIN {
        return None;
    }
    let mut sorted = before.to_vec();
    sorted.sort_unstable();
    let half = sorted.len() / 2;
    let left_of =
        |samples: &[Vec<u8>], border: &[u8]| samples.iter().filter(|sample| sample.as_slice() < border).count();
    let parts = |samples: &[Vec<u8>], border: &[u8]| {
        let left = left_of(samples, border);
        left.min(samples.len() - left) * 4 >= samples.len()
    };
    let nearest = sorted.chunk_by(|a, b| a == b).map(|same| &same[0]);
    let border = nearest.min_by_key(|border| left_of(before, border).abs_diff(half))?;
    (parts(before, border) && parts(now, border)).then(|| border.clone())
}

/// A byte string about halfway between two, by the sixteen bytes after what they have in common; an empty `high` is beyond
/// all. For the search of a middle: it need not be a key. `None` once they are too close.
pub(super) fn halfway(low: &[u8], high: &[u8]) -> Option<Vec<u8>> {
    const DIGITS: usize = 16;
    let common = if high.is_empty() { 0 } else { low.iter().zip(high).take_while(|(a, b)| a == b).count() };
    let digits = |bytes: &[u8], filler: u8| {
        let mut out = [filler; DIGITS];
        let rest = bytes.get(common..).unwrap_or_default();
        let taken = rest.len().min(DIGITS);
        out[..taken].copy_from_slice(&rest[..taken]);
        u128::from_be_bytes(out)
    };
    let (from, to) = (digits(low, 0), if high.is_empty() { u128::MAX } else { digits(high, 0) });
    let middle = from + to.checked_sub(from)? / 2;
    let mut out = low.get(..common).unwrap_or_default().to_vec();
    out.extend_from_slice(&middle.to_be_bytes());
    (middle > from).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn borders(keys: impl Iterator<Item = u32>) -> Vec<Vec<u8>> {
        keys.map(|key| key.to_be_bytes().to_vec()).collect()
    }

    fn hot(before: Vec<Vec<u8>>, now: Vec<Vec<u8>>) -> Heat {
        Heat { changes_per_second: 5_000.0, hot_windows: HOT_WINDOWS, before, now }
    }

    const SMALL: Extent = Extent { bytes: 1, bytes_max: 100, ranges: 1, coordinators: 3 };

    #[test]
    fn what_has_grown_is_cut_whoever_writes() {
        assert_eq!(plan(SMALL, &Heat::default()), None);
        assert_eq!(plan(Extent { bytes: 100, ..SMALL }, &Heat::default()), None);
        let grown = Extent { bytes: 101, coordinators: 1, ranges: 4_000, ..SMALL };
        assert_eq!(plan(grown, &Heat::default()), Some(Cut::BySize));
    }

    #[test]
    fn load_is_parted_where_a_cut_parts_it() {
        let even = || borders((0..100).map(|n| n * 7 % 100));
        let expected = Some(Cut::ByLoad(50u32.to_be_bytes().to_vec()));
        assert_eq!(plan(SMALL, &hot(even(), even())), expected);
        // (before, now, why it is left alone)
        let cases = [
            (borders(0..100), borders(100..200), "keys that only grow"),
            (borders((0..100).map(|_| 5)), borders((0..100).map(|_| 5)), "one key"),
            (borders((0..100).map(|n| if n < 90 { 5 } else { n })), even(), "nearly one key"),
            (borders(0..20), borders(0..20), "too few samples"),
            (vec![], vec![], "none"),
        ];
        for (before, now, why) in cases {
            assert_eq!(plan(SMALL, &hot(before, now)), None, "{why}");
        }
        let short = Heat { hot_windows: HOT_WINDOWS - 1, ..hot(even(), even()) };
        assert_eq!(plan(SMALL, &short), None, "a burst");
        for few in [Extent { coordinators: 1, ..SMALL }, Extent { ranges: 12, ..SMALL }] {
            assert_eq!(plan(few, &hot(even(), even())), None, "{few:?}: no leader to give it to");
        }
        // Half of it to one key: the key is the first of the right half.
        let skewed = || borders((0..100).map(|n| if n < 50 { 50 } else { n - 50 }));
        assert_eq!(plan(SMALL, &hot(skewed(), skewed())), Some(Cut::ByLoad(50u32.to_be_bytes().to_vec())));
    }

    #[tokio::test(start_paused = true)]
    async fn windows_count_what_is_ordered() {
        let load = Load::default();
        let put =
            |n: u64| Kind::Put(super::super::command::Put { bucket: 1, key: format!("k{n:06}"), ..Default::default() });
        for window in 1..=3 {
            (0..50_000).for_each(|n| load.note(&put(n)));
            tokio::time::advance(WINDOW).await;
            let heat = load.end_window();
            assert_eq!((heat.hot_windows, heat.changes_per_second), (window, 5_000.0));
            assert_eq!((heat.now.len(), heat.before.is_empty()), (SAMPLES_MAX, window == 1));
        }
        (0..1_000).for_each(|n| load.note(&put(n)));
        tokio::time::advance(WINDOW).await;
        assert_eq!(load.end_window().hot_windows, 0);
        load.forget();
        assert_eq!(load.end_window(), Heat::default());
    }

    #[test]
    fn halfway_lies_between_and_comes_closer() {
        let cases: [(&[u8], &[u8]); 6] =
            [(b"", b""), (b"", b"b"), (b"a", b"c"), (b"abc", b"abd"), (b"a", b""), (b"a", b"a\0\0\x01")];
        for (low, high) in cases {
            let middle = halfway(low, high).unwrap();
            assert!(
                middle.as_slice() > low && (high.is_empty() || middle.as_slice() < high),
                "{low:?} {high:?} {middle:?}"
            );
        }
        assert_eq!(halfway(b"a", b"a"), None);
        let (mut low, mut steps) = (Vec::new(), 0);
        while let Some(middle) = halfway(&low, b"m") {
            (low, steps) = (middle, steps + 1);
        }
        assert!(steps < 200, "{steps}");
    }
}
