//! One bounded step of a scrub: reads whole records around the page cache and verifies them. Where it is and how fast
//! it goes is the caller's affair.
//!
//! Invariant: what fails twice is quarantined and reported, never changed.

use super::engine::{Engine, now_ms};
use super::index::Entry;
use super::io::Through;
use super::read::{RecordFault, is_lasting};
use holdfast_proto::ShardId;
use holdfast_proto::node::{ScrubStep, ShardError, ShardRead};

/// What a look at one shard found.
enum Verdict {
    Sound,
    Damaged,
    /// Freed or moved meanwhile.
    Elsewhere,
}

impl Engine {
    pub(crate) fn scrub(&self, after: Option<ShardId>, budget_bytes: u64) -> Result<ScrubStep, ShardError> {
        let mut step = ScrubStep::default();
        let mut last = after;
        for item in self.ledger.index().shards(None, after) {
            self.gate.fault.check_read()?;
            let (shard, entry) = item.map_err(|error| self.index_unreadable("walk index", &error))?;
            if step.shards > 0 && step.bytes + entry.room.bytes > budget_bytes {
                step.next = last;
                return Ok(step);
            }
            match self.examine(shard, &entry)? {
                Verdict::Sound | Verdict::Elsewhere => {}
                Verdict::Damaged => step.damaged.push(shard),
            }
            step.shards += 1;
            step.bytes += entry.room.bytes;
            last = Some(shard);
        }
        if self.gate.fault.is_none() {
            self.ledger.set_scrubbed(now_ms()).map_err(|error| self.index_failed("note scrub", &error))?;
        }
        Ok(step)
    }

    fn examine(&self, shard: ShardId, entry: &Entry) -> Result<Verdict, ShardError> {
        if entry.is_quarantined {
            return Ok(Verdict::Damaged); // still waits to be written again
        }
        for _ in 0..2 {
            let result = self.read_record(shard, entry, 0..entry.cell_count(), Through::Device);
            self.meters.scrubbed_bytes.increment(entry.room.bytes);
            if is_sound(&result) {
                if self.gate.fault.is_none() && self.check_index_room().is_ok() {
                    self.ledger
                        .update(shard, entry, |entry| entry.verified_ms = now_ms())
                        .map_err(|error| self.index_failed("note scrub", &error))?;
                }
                return Ok(Verdict::Sound);
            }
            self.gate.fault.check_read()?;
            let now = self.entry(shard)?;
            if now.is_none_or(|now| now.room != entry.room) {
                return Ok(Verdict::Elsewhere);
            }
            if let Err(RecordFault::Io(error)) = &result
                && !is_lasting(&result)
            {
                return Err(self.gate.io_error("scrub shard", error));
            }
        }
        self.quarantine(shard, entry);
        Ok(Verdict::Damaged)
    }
}

fn is_sound(result: &Result<ShardRead, RecordFault>) -> bool {
    result.as_ref().is_ok_and(|read| read.damaged.is_empty())
}
