//! Choosing the shards a repair reads, and running plans and partial sums.

use super::{Codec, check_lengths, check_slots};
use crate::code::solve;
use crate::engine::Store;
use crate::error::CodecError;
use crate::repair_plan::{PartialSum, RepairPlan};
use crate::slot_set::SlotSet;

impl Codec {
    /// Chooses which shards to read in order to rebuild the `missing` ones: local groups where they can mend
    /// themselves, else the cheapest shards that determine them, whichever costs less.
    ///
    /// `costs` has one cost per slot (bytes to move, expected latency, price: any unit; [`CostWeights`] makes them of
    /// all three), or is empty when all cost the same. Equal costs are decided by the lower slot, so data shards come
    /// first and the plan is deterministic. With nothing missing there is nothing to read.
    ///
    /// For MDS codes the set is the cheapest there is. For others it is the cheapest of three candidates (local groups
    /// alone; the rest built upon them; the cheapest of independent rank), each without the shards that turn out not to
    /// be needed. Finding the true minimum is as hard as finding short codewords.
    ///
    /// [`CostWeights`]: crate::repair_plan::CostWeights
    ///
    /// # Errors
    /// [`CodecError::TooFewShards`] or [`CodecError::Undecodable`] if the available shards do not suffice; a slot that
    /// does not exist or is both missing and available; a wrong number of costs.
    pub fn repair_plan(&self, missing: &SlotSet, available: &SlotSet, costs: &[u64]) -> Result<RepairPlan, CodecError> {
        let n = self.scheme().n();
        check_slots(missing.iter().chain(available.iter()), n).map_err(|error| match error {
            CodecError::DuplicateSlot { slot } => CodecError::PresentAndWanted { slot },
            other => other,
        })?;
        if !costs.is_empty() && costs.len() != n {
            return Err(CodecError::CostCount { expected: n, got: costs.len() });
        }
        if missing.is_empty() {
            return Ok(RepairPlan::default());
        }
        let cost = |slot: usize| costs.get(slot).copied().unwrap_or(1);
        let read = if self.scheme().is_mds() {
            self.cheapest_of_all(available, &cost)?
        } else {
            self.cheapest(missing, available, &cost)?
        };
        let combination = self.express(&read, missing, available)?;
        let is_local = self.local_reads(missing, available, &cost).1.is_empty() && !self.code().groups().is_empty();
        let is_local = is_local && self.is_within_groups(missing, &read);
        let total = sum_of(&read, &cost);
        Ok(RepairPlan::new(&read, missing, total, is_local, combination))
    }

    /// Rebuilds the slots of a plan from the shards it reads: whole, or the same byte range of each.
    ///
    /// `sources` are exactly the plan's `read` slots and `targets` its `write` slots, in any order.
    ///
    /// # Errors
    /// A slot that is not in the plan, is missing or comes twice; lengths that differ. Then nothing is written.
    pub fn repair(
        &self,
        plan: &RepairPlan,
        sources: &[(usize, &[u8])],
        targets: &mut [(usize, &mut [u8])],
    ) -> Result<(), CodecError> {
        let (read, write) = (plan.read.iter().copied().collect(), plan.write.iter().copied().collect());
        self.check_exact(&read, &write, sources, targets)?;
        self.run(plan.combination(), &read, sources, &write, targets, Store::Replace);
        Ok(())
    }

    /// Computes a helper's share of a repair: for each slot the plan rebuilds one vector, to be added to those of the
    /// other helpers by [`Codec::add_partial`].
    ///
    /// # Errors
    /// As [`Codec::repair`].
    pub fn partial_sum(
        &self,
        part: &PartialSum,
        sources: &[(usize, &[u8])],
        targets: &mut [(usize, &mut [u8])],
    ) -> Result<(), CodecError> {
        let (read, write) = (part.read.iter().copied().collect(), part.write.iter().copied().collect());
        self.check_exact(&read, &write, sources, targets)?;
        self.run(part.combination(), &read, sources, &write, targets, Store::Replace);
        Ok(())
    }

    /// Adds (XOR) a helper's vector to the sum of those before; the sum of all is the rebuilt shard. Begin with zeros,
    /// or with the first helper's vector.
    ///
    /// # Errors
    /// Lengths that differ; then `sum` is untouched.
    pub fn add_partial(&self, partial: &[u8], sum: &mut [u8]) -> Result<(), CodecError> {
        check_lengths([(0, sum.len()), (0, partial.len())].into_iter())?;
        for (sum, byte) in sum.iter_mut().zip(partial) {
            *sum ^= byte;
        }
        Ok(())
    }

    fn check_exact(
        &self,
        read: &SlotSet,
        write: &SlotSet,
        sources: &[(usize, &[u8])],
        targets: &[(usize, &mut [u8])],
    ) -> Result<(), CodecError> {
        let n = self.scheme().n();
        let given = check_slots(sources.iter().map(|&(slot, _)| slot), n)?;
        let asked = check_slots(targets.iter().map(|(slot, _)| *slot), n)?;
        if let Some(slot) = given.difference(read).union(&asked.difference(write)).iter().next() {
            return Err(CodecError::NotInPlan { slot });
        }
        for (set, expected) in [(given, read), (asked, write)] {
            if set.len() != expected.len() {
                return Err(CodecError::SliceCount { expected: expected.len(), got: set.len() });
            }
        }
        // A plan of another, wider scheme may name slots this codec does not have.
        let lengths = sources.iter().map(|(slot, cell)| (*slot, cell.len()));
        check_lengths(lengths.chain(targets.iter().map(|(slot, cell)| (*slot, cell.len()))))
    }

    /// The k cheapest of all: what an MDS code reads.
    fn cheapest_of_all(&self, available: &SlotSet, cost: &dyn Fn(usize) -> u64) -> Result<SlotSet, CodecError> {
        let k = self.scheme().k();
        if available.len() < k {
            return Err(CodecError::TooFewShards { needed: k, present: available.len() });
        }
        Ok(by_cost(available, cost).into_iter().take(k).collect())
    }

    /// A cheap set of shards that determine `wanted`; see [`Codec::repair_plan`].
    pub(super) fn cheapest(
        &self,
        wanted: &SlotSet,
        available: &SlotSet,
        cost: &dyn Fn(usize) -> u64,
    ) -> Result<SlotSet, CodecError> {
        let (local, rest) = self.local_reads(wanted, available, cost);
        let mut candidates = Vec::new();
        if rest.is_empty() {
            candidates.push(local);
        }
        let generator = self.code().generator();
        let others = by_cost(available, cost);
        let upon_local = local.iter().chain(others.iter().copied().filter(|slot| !local.contains(*slot)));
        candidates.extend(self.needed_of(&solve::basis(generator, upon_local), wanted));
        candidates.extend(self.needed_of(&solve::basis(generator, others.into_iter()), wanted));
        let cheapest = candidates.into_iter().min_by_key(|set| (sum_of(set, cost), set.len()));
        cheapest.ok_or_else(|| self.insufficient(available))
    }

    /// What local groups read to mend those of their members that are wanted, and the wanted shards that no group can
    /// mend.
    fn local_reads(&self, wanted: &SlotSet, available: &SlotSet, cost: &dyn Fn(usize) -> u64) -> (SlotSet, SlotSet) {
        let (mut reads, mut rest) = (SlotSet::new(), *wanted);
        for group in self.code().groups() {
            let here = group.members.intersection(available);
            if group.members.intersection(wanted).is_empty() || here.len() < group.reads() {
                continue;
            }
            reads.extend(by_cost(&here, cost).into_iter().take(group.reads()));
            rest = rest.difference(&group.members);
        }
        (reads, rest)
    }

    /// Whether every read is in the group of some missing shard, and every missing shard in a group.
    fn is_within_groups(&self, missing: &SlotSet, read: &SlotSet) -> bool {
        let touched = self.code().groups().iter().filter(|group| !group.members.intersection(missing).is_empty());
        let members = touched.fold(SlotSet::new(), |all, group| all.union(&group.members));
        read.is_subset(&members) && missing.is_subset(&members)
    }

    /// Those of `inputs` that have a part in `wanted`; `None` if they do not determine it.
    fn needed_of(&self, inputs: &SlotSet, wanted: &SlotSet) -> Option<SlotSet> {
        let rows = solve::express(self.code().generator(), inputs, wanted)?;
        let is_needed = |&(index, _): &(usize, usize)| rows.iter().any(|row| row[index] != 0);
        Some(inputs.iter().enumerate().filter(is_needed).map(|(_, slot)| slot).collect())
    }
}

/// The slots of a set, the cheapest first, equal ones from the lowest.
fn by_cost(slots: &SlotSet, cost: &dyn Fn(usize) -> u64) -> Vec<usize> {
    let mut slots: Vec<usize> = slots.iter().collect();
    slots.sort_by_key(|&slot| (cost(slot), slot));
    slots
}

fn sum_of(slots: &SlotSet, cost: &dyn Fn(usize) -> u64) -> u64 {
    slots.iter().fold(0, |sum, slot| sum.saturating_add(cost(slot)))
}
