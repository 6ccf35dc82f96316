//! Encode, reconstruct, update, and the questions about loss patterns, for one scheme.
//!
//! Not here: stripes (`geometry`), kernels (`engine`). The codec works on whatever equally long slices it is given:
//! whole cells, or the same byte range of each cell, since byte i of every output depends on byte i of the inputs only.
//! That is how a range read decodes no more than it was asked for.
//!
//! **Invariant:** all arguments are checked before the first output byte is written; no argument panics; with its
//! coefficients in the cache no call allocates. For every engine the bytes of RS codes are those of the crate
//! `reed-solomon-erasure` 6.0 (tests).

mod repair;

#[cfg(test)]
mod repair_tests;
#[cfg(test)]
mod tests;

use crate::code::{Code, solve};
use crate::decode_cache::{DecodeCache, Decoding, Pattern};
use crate::engine::{self, Combination, Engine, Store};
use crate::error::CodecError;
use crate::scheme::Scheme;
use crate::slot_set::SlotSet;
use crate::verdict_cache::VerdictCache;
use std::sync::{Arc, OnceLock};

/// Shards up to which slices are put in order in a small array; wider codes take one of 4 KiB.
const SLICES_FEW: usize = 32;

/// Encoder and decoder of one scheme. Cheap to clone and shared between threads; made once per scheme, because making
/// one inverts a k x k matrix (3 us for RS(10,4), 26 ms for RS(250,5)).
#[derive(Clone)]
pub struct Codec {
    shared: Arc<Shared>,
}

struct Shared {
    code: Code,
    engine: &'static dyn Engine,
    parity: Combination,
    /// For each data slot what a change of it adds to the parities, from (old, new). Made when first asked for.
    updates: OnceLock<Vec<Combination>>,
    cache: DecodeCache,
    verdicts: VerdictCache,
}

impl Codec {
    /// A codec on the best engine this processor has.
    pub fn new(scheme: Scheme) -> Self {
        Self::with_engine(scheme, engine::best())
    }

    /// A codec on a certain engine (tests and benchmarks; see [`engine::available`]).
    pub fn with_engine(scheme: Scheme, engine: &'static dyn Engine) -> Self {
        Self::of_code(Code::new(scheme), engine)
    }

    /// A codec of a code, for one that was laid over regions.
    pub fn of_code(code: Code, engine: &'static dyn Engine) -> Self {
        let scheme = code.scheme();
        let rows: Vec<&[u8]> = (scheme.k()..scheme.n()).map(|row| code.generator().row(row)).collect();
        let parity = Combination::with_sums(scheme.k(), &rows, code.xor_parities());
        let (updates, cache, verdicts) = (OnceLock::new(), DecodeCache::default(), VerdictCache::new(scheme.n()));
        Self { shared: Arc::new(Shared { code, engine, parity, updates, cache, verdicts }) }
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.shared.code.scheme()
    }

    /// The code: its matrix, groups and regions.
    pub fn code(&self) -> &Code {
        &self.shared.code
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
        self.encode_by(data, parity, Store::Replace)
    }

    /// [`Codec::encode`] past the cache: for slices much longer than it whose parity is not read next. Faster there (a
    /// line need not be read before it is written), slower for whatever reads the parity soon after.
    ///
    /// # Errors
    /// As [`Codec::encode`].
    pub fn encode_streaming(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), CodecError> {
        self.encode_by(data, parity, Store::Stream)
    }

    fn encode_by(&self, data: &[&[u8]], parity: &mut [&mut [u8]], store: Store) -> Result<(), CodecError> {
        self.check_encode(data, parity)?;
        self.shared.engine.combine(&self.shared.parity, data, parity, store);
        Ok(())
    }

    /// Refuses what [`Codec::encode`] would.
    pub(crate) fn check_encode(&self, data: &[&[u8]], parity: &[&mut [u8]]) -> Result<(), CodecError> {
        let scheme = self.scheme();
        if data.len() != scheme.k() {
            return Err(CodecError::DataCount { expected: scheme.k(), got: data.len() });
        }
        self.check_parity(parity)?;
        let lengths = data.iter().map(|cell| cell.len()).chain(parity.iter().map(|cell| cell.len()));
        check_lengths(lengths.enumerate())
    }

    /// Brings the parity cells up to date after data cell `slot` changed from `old` to `new`, without the other data.
    ///
    /// `parity` are the m parity cells by slot as they were; all slices are equally long: whole cells, or the bytes
    /// that changed.
    ///
    /// # Errors
    /// A slot that is not a data slot, a wrong number of slices, or lengths that differ; then `parity` is untouched.
    pub fn update(&self, slot: usize, old: &[u8], new: &[u8], parity: &mut [&mut [u8]]) -> Result<(), CodecError> {
        let k = self.scheme().k();
        if slot >= k {
            return Err(CodecError::SlotOutOfRange { slot, slot_count: k });
        }
        self.check_parity(parity)?;
        let parities = parity.iter().enumerate().map(|(row, cell)| (k + row, cell.len()));
        check_lengths([(slot, old.len()), (slot, new.len())].into_iter().chain(parities))?;
        let updates = self.shared.updates.get_or_init(|| self.update_combinations());
        self.shared.engine.combine(&updates[slot], &[old, new], parity, Store::Add);
        Ok(())
    }

    fn update_combinations(&self) -> Vec<Combination> {
        let parity = &self.shared.parity;
        (0..self.scheme().k()).map(|slot| parity.of_inputs([slot, slot].into_iter())).collect()
    }

    /// Computes the `wanted` cells (data or parity) of a stripe from the `present` ones.
    ///
    /// Both are lists of (slot, bytes) in any order, all slices equally long: whole cells, or the same byte range of
    /// each. Cells that failed their hash must not be among `present`: the codec trusts what it is given. Of an RS code
    /// any k are enough, and of more than k data cells are read first, then parity cells, each from the lowest slot. Of
    /// a code with local groups fewer can do (a group's own for one of its members), and the fewest are read.
    ///
    /// # Errors
    /// [`CodecError::TooFewShards`] if they do not suffice and are fewer than k, [`CodecError::Undecodable`] if they do
    /// not although they are k or more; a slot that does not exist, is given twice or is both present and wanted;
    /// lengths that differ. Then nothing in `wanted` has been touched.
    pub fn reconstruct(&self, present: &[(usize, &[u8])], wanted: &mut [(usize, &mut [u8])]) -> Result<(), CodecError> {
        self.reconstruct_by(present, wanted, Store::Replace)
    }

    /// [`Codec::reconstruct`] past the cache; see [`Codec::encode_streaming`].
    ///
    /// # Errors
    /// As [`Codec::reconstruct`].
    pub fn reconstruct_streaming(
        &self,
        present: &[(usize, &[u8])],
        wanted: &mut [(usize, &mut [u8])],
    ) -> Result<(), CodecError> {
        self.reconstruct_by(present, wanted, Store::Stream)
    }

    fn reconstruct_by(
        &self,
        present: &[(usize, &[u8])],
        wanted: &mut [(usize, &mut [u8])],
        store: Store,
    ) -> Result<(), CodecError> {
        let scheme = self.scheme();
        let present_set = check_slots(present.iter().map(|&(slot, _)| slot), scheme.n())?;
        let wanted_set = check_slots(wanted.iter().map(|(slot, _)| *slot), scheme.n())?;
        if let Some(slot) = present_set.intersection(&wanted_set).iter().next() {
            return Err(CodecError::PresentAndWanted { slot });
        }
        let lengths = present.iter().map(|(slot, cell)| (*slot, cell.len()));
        check_lengths(lengths.chain(wanted.iter().map(|(slot, cell)| (*slot, cell.len()))))?;
        if wanted.is_empty() {
            // Nothing is made from anything, as `repair_plan` has it.
            return Ok(());
        }
        let decoding = self.decoding(&present_set, &wanted_set)?;
        self.run(&decoding.combination, &decoding.inputs, present, &wanted_set, wanted, store);
        Ok(())
    }

    /// Whether the shards in `present` determine all others. Slots the scheme does not have count for nothing.
    ///
    /// Counting decides for MDS codes. For the others the rank does: below 20 us at n = 28, and the answers of recent
    /// patterns are kept (codes of up to 62 slots).
    pub fn decodable(&self, present: &SlotSet) -> bool {
        let present = present.intersection(&SlotSet::first(self.scheme().n()));
        if present.len() < self.scheme().k() {
            return false;
        }
        // Any k rows of a Reed-Solomon generator are independent (all patterns of small shapes are tested).
        let rank = || solve::decodable(self.code().generator(), &present);
        self.scheme().is_mds() || self.shared.verdicts.get_or(&present, rank)
    }

    /// What to compute for `wanted` from `present`, from the cache if it has been asked before.
    fn decoding(&self, present: &SlotSet, wanted: &SlotSet) -> Result<Arc<Decoding>, CodecError> {
        let k = self.scheme().k();
        let is_mds = self.scheme().is_mds();
        if is_mds && present.len() < k {
            return Err(CodecError::TooFewShards { needed: k, present: present.len() });
        }
        // Of an MDS code the first k decide, so that patterns which differ only beyond are one.
        let present = if is_mds { present.iter().take(k).collect() } else { *present };
        let pattern = Pattern { present, wanted: *wanted };
        if let Some(known) = self.shared.cache.get(&pattern) {
            return Ok(known);
        }
        let inputs = if is_mds { present } else { self.cheapest(wanted, &present, &|_| 1)? };
        let decoding = Arc::new(Decoding { combination: self.express(&inputs, wanted, &present)?, inputs });
        self.shared.cache.put(pattern, decoding.clone());
        Ok(decoding)
    }

    /// Coefficients for `wanted` over `inputs`, which were chosen from `present`.
    fn express(&self, inputs: &SlotSet, wanted: &SlotSet, present: &SlotSet) -> Result<Combination, CodecError> {
        let rows = solve::express(self.code().generator(), inputs, wanted).ok_or_else(|| self.insufficient(present))?;
        let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
        Ok(Combination::new(inputs.len(), &rows))
    }

    /// Why these shards do not suffice.
    fn insufficient(&self, present: &SlotSet) -> CodecError {
        let (needed, present) = (self.scheme().k(), present.len());
        if present < needed {
            CodecError::TooFewShards { needed, present }
        } else {
            CodecError::Undecodable { present }
        }
    }

    /// Runs a combination whose inputs and outputs are the slots of two sets, ascending, on slices in any order.
    fn run(
        &self,
        combination: &Combination,
        inputs: &SlotSet,
        sources: &[(usize, &[u8])],
        outputs: &SlotSet,
        targets: &mut [(usize, &mut [u8])],
        store: Store,
    ) {
        if self.scheme().n() <= SLICES_FEW {
            self.run_in_order::<SLICES_FEW>(combination, inputs, sources, outputs, targets, store);
        } else {
            self.run_in_order::<{ crate::scheme::SHARD_COUNT_MAX }>(
                combination,
                inputs,
                sources,
                outputs,
                targets,
                store,
            );
        }
    }

    fn run_in_order<const N: usize>(
        &self,
        combination: &Combination,
        inputs: &SlotSet,
        sources: &[(usize, &[u8])],
        outputs: &SlotSet,
        targets: &mut [(usize, &mut [u8])],
        store: Store,
    ) {
        let mut from: [&[u8]; N] = [&[]; N];
        for &(slot, bytes) in sources.iter().filter(|(slot, _)| inputs.contains(*slot)) {
            from[inputs.rank(slot)] = bytes;
        }
        let mut to: [&mut [u8]; N] = std::array::from_fn(|_| Default::default());
        for (slot, bytes) in targets {
            to[outputs.rank(*slot)] = bytes;
        }
        self.shared.engine.combine(combination, &from[..inputs.len()], &mut to[..outputs.len()], store);
    }

    fn check_parity(&self, parity: &[&mut [u8]]) -> Result<(), CodecError> {
        let expected = self.scheme().m();
        if parity.len() == expected { Ok(()) } else { Err(CodecError::ParityCount { expected, got: parity.len() }) }
    }
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Codec({}, {})", self.scheme(), self.engine_name())
    }
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
