//! The index together with what is counted per extent and what room is to be given back. Every change of the index
//! goes through here, under one lock, as one batch.
//!
//! Invariant: room is given back only after a flush that made its removal from the index durable. So after a crash
//! the index never points to room that was given back, and what it still points to is whole.

use super::index::{Changes, Entry, Index, IndexError, Owner, Room, Tally};
use holdfast_proto::ShardId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};

/// A record that is on stable storage and wants to be found.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) id: ShardId,
    pub(crate) entry: Entry,
}

/// How far an open extent is, for a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) extent: u32,
    /// Nothing before it is still being written.
    pub(crate) scan_from: u64,
    /// Takes no more records and none is being written.
    pub(crate) is_sealed: bool,
}

/// What all extents hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) live_bytes: u64,
    pub(crate) live_records: u64,
}

/// What a checkpoint made safe to give back.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// Freed before it.
    pub(crate) frees: Vec<Room>,
    /// Sealed extents nothing in the index points to.
    pub(crate) empty: Vec<u32>,
}

/// What the ledger holds in memory.
pub(crate) struct LedgerState {
    pub(crate) owner: Owner,
    pub(crate) tallies: BTreeMap<u32, Tally>,
    /// In the index as freed, not given back yet.
    pub(crate) frees: Vec<Room>,
}

/// The index and its counts.
pub(crate) struct Ledger {
    index: Index,
    state: Mutex<LedgerState>,
}

impl Ledger {
    pub(crate) fn new(index: Index, state: LedgerState) -> Self {
        Self { index, state: Mutex::new(state) }
    }

    /// For looking things up; changes go through the ledger.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Lets finished records be found. An older record of the same shard is freed; if a newer one is there already,
    /// the finished one is.
    pub(crate) fn commit(&self, finished: &[Finished]) -> Result<(), IndexError> {
        self.change(|draft| finished.iter().try_for_each(|item| draft.commit(item)))
    }

    /// Frees shards. Returns how many were there.
    pub(crate) fn delete(&self, ids: &[ShardId]) -> Result<u64, IndexError> {
        let mut removed = 0;
        self.change(|draft| {
            for id in ids {
                if let Some(entry) = draft.get(id)? {
                    draft.remove(*id, &entry);
                    removed += 1;
                }
            }
            Ok(())
        })?;
        Ok(removed)
    }

    /// Frees room that was reserved and never finished.
    pub(crate) fn abandon(&self, rooms: &[Room]) -> Result<(), IndexError> {
        self.change(|draft| {
            rooms.iter().for_each(|room| draft.free(room));
            Ok(())
        })
    }

    /// Replaces the shard's entry by `change(entry)` if it still is the record `seen` describes. Returns whether.
    pub(crate) fn update(
        &self,
        id: ShardId,
        seen: &Entry,
        change: impl FnOnce(&mut Entry),
    ) -> Result<bool, IndexError> {
        let mut is_changed = false;
        self.change(|draft| {
            if let Some(mut entry) = draft.get(&id)?.filter(|entry| entry.room == seen.room) {
                change(&mut entry);
                assert_eq!(entry.room, seen.room, "an update moves no record");
                draft.changes.put_shard(&id, &entry);
                draft.overlay.insert(id, Some(entry));
                is_changed = true;
            }
            Ok(())
        })?;
        Ok(is_changed)
    }

    /// Lets shards count as missing until they are written again.
    pub(crate) fn quarantine(&self, ids: &[ShardId]) -> Result<(), IndexError> {
        self.change(|draft| {
            for id in ids {
                if let Some(entry) = draft.get(id)? {
                    let entry = Entry { is_quarantined: true, ..entry };
                    draft.changes.put_shard(id, &entry);
                    draft.overlay.insert(*id, Some(entry));
                }
            }
            Ok(())
        })
    }

    /// Points the index from `old` records to their synced copies; where the old one is no longer current, the copy
    /// is freed.
    pub(crate) fn relocate(&self, moves: &[(ShardId, Entry, Room)]) -> Result<(), IndexError> {
        self.change(|draft| {
            for (id, old, room) in moves {
                match draft.get(id)?.filter(|entry| entry.room == old.room) {
                    Some(entry) => {
                        draft.take_out(&entry.room);
                        draft.free(&entry.room);
                        draft.put(*id, Entry { room: *room, ..entry });
                    }
                    None => draft.free(room),
                }
            }
            Ok(())
        })
    }

    /// Adds a fresh, empty extent.
    pub(crate) fn add_extent(&self, number: u32, uuid: [u8; 16], begin: u64) -> Result<(), IndexError> {
        self.change(|draft| {
            let tally = Tally { uuid, scan_from: begin, indexed_end: begin, ..Tally::default() };
            draft.tallies.insert(number, tally);
            draft.owner.next_extent = draft.owner.next_extent.max(number.saturating_add(1));
            Ok(())
        })
    }

    /// Lets an extent take no more records, with nothing in it being written.
    pub(crate) fn seal(&self, number: u32) -> Result<(), IndexError> {
        self.change(|draft| {
            if let Some(tally) = draft.tally(number) {
                tally.is_sealed = true;
                tally.scan_from = tally.scan_from.max(tally.indexed_end);
            }
            Ok(())
        })
    }

    /// Forgets an extent without live records, with the room to be given back in it.
    pub(crate) fn forget_extent(&self, number: u32) -> Result<(), IndexError> {
        let mut state = self.state.lock();
        let mut changes = Changes::default();
        changes.remove_tally(number);
        state.frees.iter().filter(|room| room.extent == number).for_each(|room| changes.remove_free(room));
        self.index.write(changes)?;
        state.tallies.remove(&number);
        state.frees.retain(|room| room.extent != number);
        Ok(())
    }

    /// Makes the index durable as of now, with how far the open extents are.
    pub(crate) fn checkpoint(&self, marks: &[Mark], next_sequence: u64) -> Result<Settled, IndexError> {
        let settled = {
            let mut state = self.state.lock();
            let mut draft = Draft::new(&self.index, &state);
            draft.owner.next_sequence = draft.owner.next_sequence.max(next_sequence);
            for mark in marks {
                if let Some(tally) = draft.tally(mark.extent) {
                    assert!(mark.scan_from >= tally.scan_from, "a checkpoint never goes back");
                    tally.scan_from = mark.scan_from;
                    tally.is_sealed |= mark.is_sealed;
                }
            }
            let outcome = draft.into_outcome();
            outcome.apply(&self.index, &mut state)?;
            let empty = state.tallies.iter().filter(|(_, tally)| tally.is_sealed && tally.live_records == 0);
            Settled { empty: empty.map(|(number, _)| *number).collect(), frees: std::mem::take(&mut state.frees) }
        };
        if let Err(error) = self.index.flush() {
            self.state.lock().frees.extend(settled.frees);
            return Err(error);
        }
        Ok(settled)
    }

    /// Notes that the room was given back.
    pub(crate) fn given_back(&self, rooms: &[Room]) -> Result<(), IndexError> {
        let mut changes = Changes::default();
        rooms.iter().for_each(|room| changes.remove_free(room));
        if changes.is_empty() { Ok(()) } else { self.index.write(changes) }
    }

    /// Notes rooms whose giving back failed, to be tried after the next checkpoint.
    pub(crate) fn keep_frees(&self, rooms: Vec<Room>) {
        self.state.lock().frees.extend(rooms);
    }

    pub(crate) fn set_scrubbed(&self, now_ms: u64) -> Result<(), IndexError> {
        self.change(|draft| {
            draft.owner.scrubbed_ms = now_ms;
            Ok(())
        })
    }

    pub(crate) fn owner(&self) -> Owner {
        self.state.lock().owner
    }

    pub(crate) fn tally(&self, extent: u32) -> Option<Tally> {
        self.state.lock().tallies.get(&extent).copied()
    }

    pub(crate) fn tallies(&self) -> Vec<(u32, Tally)> {
        self.state.lock().tallies.iter().map(|(number, tally)| (*number, *tally)).collect()
    }

    pub(crate) fn freed_bytes(&self) -> u64 {
        self.state.lock().frees.iter().map(|room| room.bytes).sum()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.state.lock().tallies.values().fold(Totals::default(), |sum, tally| Totals {
            live_bytes: sum.live_bytes + tally.live_bytes,
            live_records: sum.live_records + tally.live_records,
        })
    }

    fn change(&self, work: impl FnOnce(&mut Draft<'_>) -> Result<(), IndexError>) -> Result<(), IndexError> {
        let mut state = self.state.lock();
        let mut draft = Draft::new(&self.index, &state);
        work(&mut draft)?;
        let outcome = draft.into_outcome();
        outcome.apply(&self.index, &mut state)
    }
}

/// A batch being put together; nothing shows before it is applied.
struct Draft<'a> {
    index: &'a Index,
    base: &'a LedgerState,
    changes: Changes,
    /// Shards changed by this batch.
    overlay: HashMap<ShardId, Option<Entry>>,
    tallies: BTreeMap<u32, Tally>,
    frees: Vec<Room>,
    owner: Owner,
}

impl<'a> Draft<'a> {
    fn new(index: &'a Index, base: &'a LedgerState) -> Self {
        Self {
            index,
            base,
            changes: Changes::default(),
            overlay: HashMap::new(),
            tallies: BTreeMap::new(),
            frees: Vec::new(),
            owner: base.owner,
        }
    }

    fn get(&self, id: &ShardId) -> Result<Option<Entry>, IndexError> {
        match self.overlay.get(id) {
            Some(entry) => Ok(entry.clone()),
            None => self.index.get(id),
        }
    }

    fn commit(&mut self, item: &Finished) -> Result<(), IndexError> {
        match self.get(&item.id)? {
            Some(newer) if newer.sequence > item.entry.sequence => {
                self.free(&item.entry.room);
                return Ok(());
            }
            Some(older) => {
                self.take_out(&older.room);
                self.free(&older.room);
            }
            None => {}
        }
        self.put(item.id, item.entry.clone());
        Ok(())
    }

    fn put(&mut self, id: ShardId, entry: Entry) {
        if let Some(tally) = self.tally(entry.room.extent) {
            tally.live_bytes += entry.room.bytes;
            tally.live_records += 1;
            tally.indexed_end = tally.indexed_end.max(entry.room.end());
        }
        self.changes.put_shard(&id, &entry);
        self.overlay.insert(id, Some(entry));
    }

    fn remove(&mut self, id: ShardId, entry: &Entry) {
        self.take_out(&entry.room);
        self.free(&entry.room);
        self.changes.remove_shard(&id);
        self.overlay.insert(id, None);
    }

    fn take_out(&mut self, room: &Room) {
        if let Some(tally) = self.tally(room.extent) {
            tally.live_bytes = tally.live_bytes.saturating_sub(room.bytes);
            tally.live_records = tally.live_records.saturating_sub(1);
        }
    }

    fn free(&mut self, room: &Room) {
        if let Some(tally) = self.tally(room.extent) {
            tally.indexed_end = tally.indexed_end.max(room.end());
            self.changes.put_free(room);
            self.frees.push(*room);
        }
    }

    fn tally(&mut self, extent: u32) -> Option<&mut Tally> {
        if !self.tallies.contains_key(&extent) {
            self.tallies.insert(extent, *self.base.tallies.get(&extent)?);
        }
        self.tallies.get_mut(&extent)
    }

    fn into_outcome(mut self) -> Outcome {
        for (number, tally) in &self.tallies {
            self.changes.put_tally(*number, tally);
        }
        if self.owner != self.base.owner {
            self.changes.put_owner(&self.owner);
        }
        Outcome { changes: self.changes, tallies: self.tallies, frees: self.frees, owner: self.owner }
    }
}

/// A finished draft: what to write, and what memory then holds.
struct Outcome {
    changes: Changes,
    tallies: BTreeMap<u32, Tally>,
    frees: Vec<Room>,
    owner: Owner,
}

impl Outcome {
    fn apply(self, index: &Index, state: &mut LedgerState) -> Result<(), IndexError> {
        if !self.changes.is_empty() {
            index.write(self.changes)?;
        }
        state.tallies.extend(self.tallies);
        state.frees.extend(self.frees);
        state.owner = self.owner;
        Ok(())
    }
}
