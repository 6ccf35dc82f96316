//! Encode, reconstruct, and the questions about loss patterns, for one scheme.
//!
//! Not here: stripes (`geometry`), kernels (`engine`). The codec works on whatever equally long slices it is given:
//! whole cells, or the same byte range of each cell, since byte i of every output depends on byte i of the inputs only.
//! That is how a range read decodes no more than it was asked for.
//!
//! **Invariant:** all arguments are checked before the first output byte is written; no argument panics. The bytes are
//! those of the crate `reed-solomon-erasure` 6.0, for every engine (tests).

use crate::decode_cache::{DecodeCache, Pattern};
use crate::engine::{self, Combination, Engine};
use crate::error::CodecError;
use crate::field;
use crate::matrix::{Matrix, add_scaled};
use crate::repair_plan::RepairPlan;
use crate::scheme::Scheme;
use crate::slot_set::SlotSet;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Encoder and decoder of one scheme. Cheap to clone and shared between threads; made once per scheme, because making
/// one inverts a k x k matrix (some 10 us for k = 10, 100 ms for k = 250).
#[derive(Clone)]
pub struct Codec {
    shared: Arc<Shared>,
}

struct Shared {
    scheme: Scheme,
    engine: &'static dyn Engine,
    /// n rows of k: the identity, then one row per parity shard.
    generator: Matrix,
    parity: Combination,
    cache: DecodeCache,
}

impl Codec {
    /// A codec on the best engine this processor has.
    pub fn new(scheme: Scheme) -> Self {
        Self::with_engine(scheme, engine::best())
    }

    /// A codec on a certain engine (tests and benchmarks; see [`engine::available`]).
    pub fn with_engine(scheme: Scheme, engine: &'static dyn Engine) -> Self {
        let generator = Matrix::reed_solomon(scheme.k(), scheme.m())
            .expect("a Vandermonde matrix of at most 255 distinct points is invertible");
        let rows: Vec<&[u8]> = (scheme.k()..scheme.n()).map(|row| generator.row(row)).collect();
        let parity = Combination::new(scheme.k(), &rows);
        Self { shared: Arc::new(Shared { scheme, engine, generator, parity, cache: DecodeCache::default() }) }
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.shared.scheme
    }

    /// Name of the engine, for logs.
    pub fn engine_name(&self) -> &'static str {
        self.shared.engine.name()
    }

    /// Computes the parity cells of a stripe.
    ///
    /// `data` are the k data cells by slot, `parity` the m parity cells by slot, all equally long (any length).
    /// Everything `parity` held is overwritten; the caller may reuse all buffers afterwards.
    ///
    /// # Errors
    /// A wrong number of slices, or lengths that differ; then `parity` is untouched.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), CodecError> {
        let scheme = self.scheme();
        if data.len() != scheme.k() {
            return Err(CodecError::DataCount { expected: scheme.k(), got: data.len() });
        }
        if parity.len() != scheme.m() {
            return Err(CodecError::ParityCount { expected: scheme.m(), got: parity.len() });
        }
        let lengths = data.iter().map(|cell| cell.len()).chain(parity.iter().map(|cell| cell.len()));
        check_lengths(lengths.enumerate())?;
        self.shared.engine.combine(&self.shared.parity, data, parity);
        Ok(())
    }

    /// Computes the `wanted` cells (data or parity) of a stripe from any k or more `present` ones.
    ///
    /// Both are lists of (slot, bytes) in any order, all slices equally long: whole cells, or the same byte range of
    /// each. Cells that failed their hash must not be among `present`: the codec trusts what it is given. With more
    /// than k present, data cells are read first, then parity cells, each from the lowest slot.
    ///
    /// # Errors
    /// [`CodecError::TooFewShards`] with fewer than k present; a slot that does not exist, is given twice or is both
    /// present and wanted; lengths that differ. Then nothing in `wanted` has been touched.
    pub fn reconstruct(&self, present: &[(usize, &[u8])], wanted: &mut [(usize, &mut [u8])]) -> Result<(), CodecError> {
        let (scheme, k) = (self.scheme(), self.scheme().k());
        let present_set = check_slots(present.iter().map(|&(slot, _)| slot), scheme.n())?;
        let wanted_set = check_slots(wanted.iter().map(|(slot, _)| *slot), scheme.n())?;
        if let Some(slot) = present_set.intersection(&wanted_set).iter().next() {
            return Err(CodecError::PresentAndWanted { slot });
        }
        let lengths = present.iter().map(|(slot, cell)| (*slot, cell.len()));
        check_lengths(lengths.chain(wanted.iter().map(|(slot, cell)| (*slot, cell.len()))))?;
        if present_set.len() < k {
            return Err(CodecError::TooFewShards { needed: k, present: present_set.len() });
        }

        let inputs: SlotSet = present_set.iter().take(k).collect();
        let combination = self.decode_combination(Pattern { inputs, wanted: wanted_set })?;
        let mut sources: Vec<(usize, &[u8])> = present.iter().copied().filter(|(s, _)| inputs.contains(*s)).collect();
        sources.sort_unstable_by_key(|(slot, _)| *slot);
        let mut targets: Vec<(usize, &mut [u8])> = wanted.iter_mut().map(|(slot, cell)| (*slot, &mut **cell)).collect();
        targets.sort_unstable_by_key(|(slot, _)| *slot);
        let sources: Vec<&[u8]> = sources.into_iter().map(|(_, cell)| cell).collect();
        let mut targets: Vec<&mut [u8]> = targets.into_iter().map(|(_, cell)| cell).collect();
        self.shared.engine.combine(&combination, &sources, &mut targets);
        Ok(())
    }

    /// Whether the shards in `present` determine all others. Slots the scheme does not have count for nothing.
    pub fn decodable(&self, present: &SlotSet) -> bool {
        // Any k rows of a Reed-Solomon generator are independent (all patterns of small shapes are tested).
        present.intersection(&SlotSet::first(self.scheme().n())).len() >= self.scheme().k()
    }

    /// Chooses which shards to read in order to rebuild the `missing` ones: the cheapest set that determines them.
    ///
    /// `costs` has one cost per slot (bytes to move, expected latency, price: any unit), or is empty when all cost the
    /// same. Equal costs are decided by the lower slot, so data shards come first and the plan is deterministic. With
    /// nothing missing there is nothing to read.
    ///
    /// # Errors
    /// [`CodecError::TooFewShards`] if the available shards do not suffice; a slot that does not exist or is both
    /// missing and available; a wrong number of costs.
    pub fn repair_plan(&self, missing: &SlotSet, available: &SlotSet, costs: &[u64]) -> Result<RepairPlan, CodecError> {
        let (scheme, k) = (self.scheme(), self.scheme().k());
        check_slots(missing.iter().chain(available.iter()), scheme.n()).or_else(|error| match error {
            CodecError::DuplicateSlot { slot } => Err(CodecError::PresentAndWanted { slot }),
            other => Err(other),
        })?;
        if !costs.is_empty() && costs.len() != scheme.n() {
            return Err(CodecError::CostCount { expected: scheme.n(), got: costs.len() });
        }
        if missing.is_empty() {
            return Ok(RepairPlan::default());
        }
        if available.len() < k {
            return Err(CodecError::TooFewShards { needed: k, present: available.len() });
        }
        let cost = |slot: usize| costs.get(slot).copied().unwrap_or(1);
        let mut read: Vec<usize> = available.iter().collect();
        read.sort_by_key(|&slot| (cost(slot), slot));
        read.truncate(k);
        read.sort_unstable();
        let total = read.iter().fold(0u64, |sum, &slot| sum.saturating_add(cost(slot)));
        Ok(RepairPlan { read, write: missing.iter().collect(), cost: total })
    }

    fn decode_combination(&self, pattern: Pattern) -> Result<Arc<Combination>, CodecError> {
        if let Some(known) = self.shared.cache.get(&pattern) {
            return Ok(known);
        }
        let undecodable = CodecError::Undecodable { present: pattern.inputs.len() };
        let rows = decode_rows(&self.shared.generator, &pattern).ok_or(undecodable)?;
        let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
        let combination = Arc::new(Combination::new(pattern.inputs.len(), &rows));
        self.shared.cache.put(pattern, combination.clone());
        Ok(combination)
    }
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Codec({}, {})", self.scheme(), self.engine_name())
    }
}

/// One row of coefficients over the inputs (ascending by slot) for each wanted slot (ascending). `None` if the k inputs
/// do not determine the data.
///
/// Solves only for the e data shards that are missing among the inputs: an e x e system, where inverting the whole
/// k x k matrix would cost 50 times as much at k = 20, e = 2.
fn decode_rows(generator: &Matrix, pattern: &Pattern) -> Option<Vec<Vec<u8>>> {
    let k = generator.columns();
    let inputs: Vec<usize> = pattern.inputs.iter().collect();
    let lost: Vec<usize> = (0..k).filter(|&slot| !pattern.inputs.contains(slot)).collect();
    let parities: Vec<usize> = inputs.iter().copied().filter(|&slot| slot >= k).collect();

    // parity_p - (its share of the data at hand) = sum over the lost data, for each parity at hand.
    let mut system = Matrix::zero(parities.len(), lost.len());
    for (r, &parity) in parities.iter().enumerate() {
        for (c, &slot) in lost.iter().enumerate() {
            system.set(r, c, generator.get(parity, slot));
        }
    }
    let solution = system.inverse()?;

    // Each data shard as a row over the inputs.
    let data_rows: Vec<Vec<u8>> = (0..k)
        .map(|slot| match lost.iter().position(|&l| l == slot) {
            None => inputs.iter().map(|&input| u8::from(input == slot)).collect(),
            Some(unknown) => lost_row(generator, &inputs, &parities, solution.row(unknown)),
        })
        .collect();
    let row_of = |slot: usize| {
        let mut row = vec![0; inputs.len()];
        for (factor, data_row) in generator.row(slot).iter().zip(&data_rows) {
            add_scaled(&mut row, *factor, data_row);
        }
        row
    };
    Some(pattern.wanted.iter().map(row_of).collect())
}

/// One lost data shard over the inputs: `weights[p]` times (parity p minus its share of the data at hand).
fn lost_row(generator: &Matrix, inputs: &[usize], parities: &[usize], weights: &[u8]) -> Vec<u8> {
    let k = generator.columns();
    let coefficient = |&input: &usize| {
        if input >= k {
            return parities.iter().position(|&p| p == input).map_or(0, |p| weights[p]);
        }
        parities.iter().zip(weights).fold(0, |sum, (&p, &weight)| sum ^ field::mul(weight, generator.get(p, input)))
    };
    inputs.iter().map(coefficient).collect()
}

/// All slots exist and none comes twice.
fn check_slots(slots: impl Iterator<Item = usize>, slot_count: usize) -> Result<SlotSet, CodecError> {
    let mut set = SlotSet::new();
    for slot in slots {
        if slot >= slot_count {
            return Err(CodecError::SlotOutOfRange { slot, slot_count });
        }
        if !set.insert(slot) {
            return Err(CodecError::DuplicateSlot { slot });
        }
    }
    Ok(set)
}

/// All lengths of (slot, length) are equal.
fn check_lengths(mut lengths: impl Iterator<Item = (usize, usize)>) -> Result<(), CodecError> {
    let Some((_, expected)) = lengths.next() else { return Ok(()) };
    match lengths.find(|(_, got)| *got != expected) {
        Some((slot, got)) => Err(CodecError::LengthsDiffer { slot, expected, got }),
        None => Ok(()),
    }
}
