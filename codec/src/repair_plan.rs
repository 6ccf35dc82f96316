//! What to read in order to rebuild lost shards of a segment, and how the parts add up. Made by
//! [`Codec::repair_plan`](crate::Codec::repair_plan).
//!
//! A rebuilt shard is a sum of coefficients times the shards read, byte by byte. So a plan serves whole shards and any
//! byte range of them alike; and any subset of the helpers (a region, a node with several disks) can send the one
//! vector that is its part of the sum instead of all its shards: with parts a, b, c the shard is a + b + c.
//!
//! Not here: when to repair, and from which backends (`coordinator`).

use crate::engine::Combination;
use crate::error::CodecError;
use crate::slot_set::SlotSet;
use std::ops::Range;
use std::sync::Arc;

/// A complete plan for the lost shards of one segment.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RepairPlan {
    /// Slots to read, ascending; together they determine every slot in `write`.
    pub read: Vec<usize>,
    /// Slots to rebuild, ascending.
    pub write: Vec<usize>,
    /// Sum of the costs of `read`, in the caller's unit; the number of reads when none was given.
    pub cost: u64,
    /// Whether it stays within the local groups of the lost shards.
    pub is_local: bool,
    combination: Arc<Combination>,
}

/// One read of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRead {
    /// The slot.
    pub slot: usize,
    /// Which bytes of its shard.
    pub range: Range<u64>,
}

impl RepairPlan {
    pub(crate) fn new(read: &SlotSet, write: &SlotSet, cost: u64, is_local: bool, combination: Combination) -> Self {
        let (read, write) = (read.iter().collect(), write.iter().collect());
        Self { read, write, cost, is_local, combination: Arc::new(combination) }
    }

    pub(crate) fn combination(&self) -> &Combination {
        &self.combination
    }

    /// The factor of shard `read` in shard `write`; `None` if the plan does not have them.
    pub fn coefficient(&self, read: usize, write: usize) -> Option<u8> {
        coefficient(&self.combination, &self.read, &self.write, read, write)
    }

    /// What to read for the bytes `range` of the lost shards: the same bytes of each shard in `read`. The whole shard
    /// is `0..shard_bytes`.
    pub fn reads(&self, range: Range<u64>) -> impl Iterator<Item = ShardRead> + '_ {
        self.read.iter().map(move |&slot| ShardRead { slot, range: range.clone() })
    }

    /// The part of the repair that a helper with these shards can do: `helpers` that the plan reads. The parts of
    /// disjoint sets that together are `read` add up to the lost shards.
    ///
    /// # Errors
    /// [`CodecError::NotInPlan`] for a slot that the plan does not read.
    pub fn partial_sum(&self, helpers: &SlotSet) -> Result<PartialSum, CodecError> {
        if let Some(slot) = helpers.iter().find(|slot| self.read.binary_search(slot).is_err()) {
            return Err(CodecError::NotInPlan { slot });
        }
        let numbers = self.read.iter().enumerate().filter(|(_, slot)| helpers.contains(**slot));
        let combination = self.combination.of_inputs(numbers.map(|(number, _)| number));
        Ok(PartialSum { read: helpers.iter().collect(), write: self.write.clone(), combination: Arc::new(combination) })
    }
}

/// A part of a repair: one vector for each lost shard, to be added to those of the other parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialSum {
    /// Slots it reads, ascending.
    pub read: Vec<usize>,
    /// Slots it is a part of, ascending: those of the plan.
    pub write: Vec<usize>,
    combination: Arc<Combination>,
}

impl PartialSum {
    pub(crate) fn combination(&self) -> &Combination {
        &self.combination
    }

    /// The factor of shard `read` in the vector for `write`; `None` if it does not have them. With these a helper in
    /// another process can do its part: they are all it needs to be sent.
    pub fn coefficient(&self, read: usize, write: usize) -> Option<u8> {
        coefficient(&self.combination, &self.read, &self.write, read, write)
    }
}

fn coefficient(combination: &Combination, reads: &[usize], writes: &[usize], read: usize, write: usize) -> Option<u8> {
    let (input, output) = (reads.binary_search(&read).ok()?, writes.binary_search(&write).ok()?);
    Some(combination.coefficient(input, output))
}

/// What reading a shard costs, in its three currencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardCost {
    /// The region it would be read in.
    pub region: usize,
    /// Price of moving it, in any unit (for example millionths of a currency per GiB).
    pub price: u64,
    /// How long its backend takes to answer, in microseconds.
    pub latency_us: u64,
}

/// How the currencies weigh against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostWeights {
    /// The region that repairs.
    pub home: usize,
    /// What leaving it costs per shard, in the unit of the sum.
    pub cross_region: u64,
    /// Factor of the price.
    pub price: u64,
    /// Factor of the latency.
    pub latency: u64,
}

impl CostWeights {
    /// The cost of one shard; saturating.
    pub fn cost(&self, shard: &ShardCost) -> u64 {
        let distance = if shard.region == self.home { 0 } else { self.cross_region };
        let price = shard.price.saturating_mul(self.price);
        distance.saturating_add(price).saturating_add(shard.latency_us.saturating_mul(self.latency))
    }

    /// The costs of all shards by slot, for [`Codec::repair_plan`](crate::Codec::repair_plan).
    pub fn costs(&self, shards: &[ShardCost]) -> Vec<u64> {
        shards.iter().map(|shard| self.cost(shard)).collect()
    }
}
