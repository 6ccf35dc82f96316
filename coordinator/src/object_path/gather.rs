//! Gathers the cells of a run of stripes from shards that may fail: decides which cells to ask of which slot, takes in
//! what came, and knows when what is there suffices.
//!
//! Pure: no IO, no clock. `window` carries the reads out:
//!
//!     start() -> asks      handle_read(ask, cells)      handle_late()      widen() -> more asks
//!
//! **Invariant:** a stripe is satisfied when all its wanted cells are present, or any k of its cells are. No cell is
//! asked for twice, and as long as a stripe can still be satisfied, `widen` asks for what it needs.

use bytes::Bytes;
use holdfast_codec::SlotSet;
use std::ops::Range;

/// Cells `stripes` (counted within the window) of the shard in `slot` are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) slot: usize,
    pub(crate) stripes: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cell {
    Unasked,
    Asked,
    /// Asked, and so late that it is no longer counted on.
    Late,
    Present(Bytes),
    Failed,
}

/// A stripe whose wanted cells must be decoded.
#[derive(Debug)]
pub(crate) struct DecodeTask {
    /// Within the window.
    pub(crate) stripe: usize,
    /// k cells that are there.
    pub(crate) present: Vec<(usize, Bytes)>,
    /// Slots to compute.
    pub(crate) wanted: Vec<usize>,
}

/// The cells of a window.
pub(crate) struct Gather {
    k: usize,
    stripes: usize,
    /// `slot * stripes + stripe`.
    cells: Vec<Cell>,
    /// The cells asked for by the reader, likewise.
    wanted: Vec<bool>,
    /// All slots, those to be asked first in front.
    order: Vec<usize>,
    /// Slots asked only when the others do not suffice.
    avoided: SlotSet,
}

impl Gather {
    /// For `stripes` stripes of a code with k data shards and n shards in all. `wanted(slot, stripe)` says which cells
    /// are asked for; slots in `avoided` are asked last.
    pub(crate) fn new(
        (k, n): (usize, usize),
        stripes: usize,
        wanted: impl Fn(usize, usize) -> bool,
        avoided: SlotSet,
    ) -> Self {
        let wanted = (0..n * stripes).map(|at| wanted(at / stripes, at % stripes)).collect();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|&slot| (avoided.contains(slot), slot));
        Self { k, stripes, cells: vec![Cell::Unasked; n * stripes], wanted, order, avoided }
    }

    /// Where others have to be asked than those wanted, the quickest are asked first: `rank` is lower for quicker ones.
    pub(crate) fn with_ranks(mut self, rank: impl Fn(usize) -> u32) -> Self {
        let avoided = self.avoided;
        self.order.sort_by_key(|&slot| (avoided.contains(slot), rank(slot), slot));
        self
    }

    /// The first asks: the wanted cells themselves, except of avoided slots, and whatever replaces those.
    pub(crate) fn start(&mut self) -> Vec<Ask> {
        let mut asks = Vec::new();
        for slot in self.order.clone() {
            let span = (0..self.stripes).filter(|&stripe| self.wanted[slot * self.stripes + stripe]);
            if !self.avoided.contains(slot) {
                asks.extend(self.ask(slot, span.collect()));
            }
        }
        asks.extend(self.widen());
        asks
    }

    /// Asks for what is still needed so that every stripe can be satisfied by what is present or counted on.
    pub(crate) fn widen(&mut self) -> Vec<Ask> {
        let mut needed: Vec<Vec<usize>> = vec![Vec::new(); self.order.len()];
        for stripe in 0..self.stripes {
            if self.is_satisfied_by(stripe, |cell| matches!(cell, Cell::Present(_) | Cell::Asked)) {
                continue;
            }
            let counted = self.count(stripe, |cell| matches!(cell, Cell::Present(_) | Cell::Asked));
            let unasked = self.order.iter().filter(|&&slot| *self.cell(slot, stripe) == Cell::Unasked);
            for &slot in unasked.take(self.k.saturating_sub(counted)) {
                needed[slot].push(stripe);
            }
        }
        let mut asks = Vec::new();
        for (slot, stripes) in needed.into_iter().enumerate() {
            asks.extend(self.ask(slot, stripes));
        }
        asks
    }

    /// Takes in the cells of `ask`, one entry a stripe; `None` for one that cannot be had.
    pub(crate) fn handle_read(&mut self, ask: &Ask, cells: Vec<Option<Bytes>>) {
        assert_eq!(cells.len(), ask.stripes.len(), "one cell for each stripe asked for");
        for (stripe, bytes) in ask.stripes.clone().zip(cells) {
            let cell = &mut self.cells[ask.slot * self.stripes + stripe];
            if !matches!(cell, Cell::Present(_)) {
                *cell = bytes.map_or(Cell::Failed, Cell::Present);
            }
        }
    }

    /// No longer counts on what was asked and has not come. It is still taken in should it come.
    pub(crate) fn handle_late(&mut self) {
        for cell in &mut self.cells {
            if *cell == Cell::Asked {
                *cell = Cell::Late;
            }
        }
    }

    /// Slots that were asked and have not answered.
    pub(crate) fn outstanding_slots(&self) -> Vec<usize> {
        let is_outstanding = |cell: &Cell| matches!(cell, Cell::Asked | Cell::Late);
        let slots = 0..self.order.len();
        slots.filter(|&slot| (0..self.stripes).any(|stripe| is_outstanding(self.cell(slot, stripe)))).collect()
    }

    /// Whether nothing more has to be read.
    pub(crate) fn is_satisfied(&self) -> bool {
        (0..self.stripes).all(|stripe| self.is_satisfied_by(stripe, |cell| matches!(cell, Cell::Present(_))))
    }

    /// Of the stripes that cannot be satisfied by what is present: the fewest cells present.
    pub(crate) fn present_min(&self) -> usize {
        (0..self.stripes).map(|stripe| self.count(stripe, |cell| matches!(cell, Cell::Present(_)))).min().unwrap_or(0)
    }

    /// What has to be decoded, once satisfied.
    pub(crate) fn decode_tasks(&self) -> Vec<DecodeTask> {
        let task = |stripe: usize| {
            let slots = 0..self.order.len();
            let is_missing =
                |slot: &usize| self.wanted[slot * self.stripes + stripe] && self.present(*slot, stripe).is_none();
            let wanted: Vec<usize> = slots.clone().filter(is_missing).collect();
            if wanted.is_empty() {
                return None;
            }
            let present = slots.filter_map(|slot| Some((slot, self.present(slot, stripe)?.clone())));
            Some(DecodeTask { stripe, present: present.take(self.k).collect(), wanted })
        };
        (0..self.stripes).filter_map(task).collect()
    }

    /// Takes in a decoded cell.
    pub(crate) fn handle_decoded(&mut self, slot: usize, stripe: usize, bytes: Bytes) {
        self.cells[slot * self.stripes + stripe] = Cell::Present(bytes);
    }

    /// A cell, if it is present.
    pub(crate) fn present(&self, slot: usize, stripe: usize) -> Option<&Bytes> {
        match self.cell(slot, stripe) {
            Cell::Present(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// One ask over the span of `stripes` (ascending); what lies between is read along.
    fn ask(&mut self, slot: usize, stripes: Vec<usize>) -> Option<Ask> {
        let span = *stripes.first()?..*stripes.last()? + 1;
        for stripe in span.clone() {
            let cell = &mut self.cells[slot * self.stripes + stripe];
            if *cell == Cell::Unasked {
                *cell = Cell::Asked;
            }
        }
        Some(Ask { slot, stripes: span })
    }

    fn is_satisfied_by(&self, stripe: usize, counts: impl Fn(&Cell) -> bool) -> bool {
        let is_good = |slot: usize| !self.wanted[slot * self.stripes + stripe] || counts(self.cell(slot, stripe));
        (0..self.order.len()).all(is_good) || self.count(stripe, &counts) >= self.k
    }

    fn count(&self, stripe: usize, counts: impl Fn(&Cell) -> bool) -> usize {
        (0..self.order.len()).filter(|&slot| counts(self.cell(slot, stripe))).count()
    }

    fn cell(&self, slot: usize, stripe: usize) -> &Cell {
        &self.cells[slot * self.stripes + stripe]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Runs a gather to its end. `fate(slot, stripe)`: is the cell there? Returns how many cells were asked for, or the
    /// fewest present where it failed.
    fn run(gather: &mut Gather, fate: impl Fn(usize, usize) -> bool) -> Result<usize, usize> {
        let mut asks: VecDeque<Ask> = gather.start().into();
        let mut asked = 0;
        while !gather.is_satisfied() {
            let Some(ask) = asks.pop_front() else { return Err(gather.present_min()) };
            asked += ask.stripes.len();
            let cells = ask.stripes.clone().map(|s| fate(ask.slot, s).then(|| Bytes::from_static(b"x"))).collect();
            gather.handle_read(&ask, cells);
            asks.extend(gather.widen());
        }
        Ok(asked)
    }

    #[test]
    fn a_healthy_read_asks_for_no_more_than_is_wanted() {
        let mut all = Gather::new((4, 6), 3, |slot, _| slot < 4, SlotSet::new());
        assert_eq!(run(&mut all, |_, _| true), Ok(12));
        assert!(all.decode_tasks().is_empty());
        let mut one = Gather::new((4, 6), 1, |slot, _| slot == 2, SlotSet::new());
        assert_eq!(run(&mut one, |_, _| true), Ok(1));
    }

    #[test]
    fn the_quickest_replace_what_is_avoided() {
        let avoided = [1].into_iter().collect();
        let mut gather =
            Gather::new((4, 7), 1, |slot, _| slot < 4, avoided).with_ranks(|slot| [0, 0, 0, 0, 9, 3, 3][slot]);
        let slots: Vec<usize> = gather.start().iter().map(|ask| ask.slot).collect();
        assert_eq!(slots, [0, 2, 3, 5]);
        gather.handle_late();
        let slots: Vec<usize> = gather.widen().iter().map(|ask| ask.slot).collect();
        assert_eq!(slots, [1, 4, 6], "all that is left");
    }

    /// All 2^12 loss patterns of two stripes of 4+2, with every set of avoided slots of up to two.
    #[test]
    fn every_loss_pattern_is_satisfied_or_refused_rightly() {
        let avoided: Vec<SlotSet> =
            (0..6).flat_map(|a| (a..6).map(move |b| [a, b].into_iter().collect())).chain([SlotSet::new()]).collect();
        for lost in 0u32..1 << 12 {
            let is_there = |slot: usize, stripe: usize| lost & (1 << (slot * 2 + stripe)) == 0;
            let decodable = (0..2).all(|stripe| (0..6).filter(|&slot| is_there(slot, stripe)).count() >= 4);
            let whole = (0..2).all(|stripe| (0..4).all(|slot| is_there(slot, stripe)));
            for avoided in &avoided {
                let mut gather = Gather::new((4, 6), 2, |slot, _| slot < 4, *avoided);
                let result = run(&mut gather, is_there);
                assert_eq!(result.is_ok(), decodable || whole, "lost {lost:b}, avoided {avoided:?}");
                for task in gather.decode_tasks() {
                    assert!(result.is_err() || task.present.len() == 4);
                }
            }
        }
    }

    #[test]
    fn a_late_shard_is_worked_around_and_still_welcome() {
        let mut gather = Gather::new((2, 4), 1, |slot, _| slot < 2, SlotSet::new());
        let asks = gather.start();
        assert_eq!(asks.len(), 2);
        gather.handle_read(&asks[0], vec![Some(Bytes::from_static(b"a"))]);
        gather.handle_late();
        let more = gather.widen();
        assert_eq!(more, [Ask { slot: 2, stripes: 0..1 }]);
        assert!(gather.widen().is_empty());
        gather.handle_read(&asks[1], vec![Some(Bytes::from_static(b"b"))]);
        assert!(gather.is_satisfied() && gather.decode_tasks().is_empty());
    }
}
