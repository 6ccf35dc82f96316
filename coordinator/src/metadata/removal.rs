//! Removing a range's copy from a node: its rows, its log, and last the marker that says that this has begun.
//!
//! Durable when, and what a crash leaves: the marker takes the place of the row that says how far the copy has applied, in one
//! flushed batch; from then on there is no copy, only rows to be cleared, and the next start goes on with that before any
//! group runs. The vote stays: a node that is made a member again must not vote twice in one term.

use super::apart::held;
use super::bounds::Bounds;
use super::keys;
use super::kv::{Batch, Family, KvError, KvResult, KvView, Scan};
use super::log_store::LogDatabase;
use super::snapshot::{clear_keys, clear_own};
use super::state::decode;
use super::state_store::StateStore;
use prost::Message;
use std::sync::Arc;

/// Begins to remove the copy of `range`, whose group must have ended here for good: after this there is none, and `finish`
/// must be called until it succeeds. An error: nothing has changed.
pub(super) async fn begin(state: &Arc<StateStore>, range: u32) -> KvResult<()> {
    state.off_thread(move |state| mark(state, range)).await
}

/// Goes on with what a crash had cut short. Called before any group runs.
pub(super) async fn resume(state: &Arc<StateStore>, log: &LogDatabase) -> KvResult<()> {
    let mut begun = Vec::new();
    state.scan(Family::Groups, &[], &mut |key, _, _| {
        if let Some((number, row)) = key.split_first_chunk::<4>()
            && row == keys::REMOVING_ROW.as_bytes()
        {
            begun.push(u32::from_be_bytes(*number));
        }
        Ok(Scan::Next)
    })?;
    for range in begun {
        finish(state, log, range).await?;
        tracing::info!(range, "a copy of a range whose removal had been cut short is removed");
    }
    Ok(())
}

fn mark(state: &StateStore, range: u32) -> KvResult<()> {
    let applied = keys::group_row(range, keys::APPLIED_ROW);
    // It may never have had anything but a log.
    let bounds = held(state, range, state.get(Family::Groups, &applied)?.is_some())?.unwrap_or_else(Bounds::nothing);
    let mut batch = Batch::default();
    batch.put(Family::Groups, keys::group_row(range, keys::REMOVING_ROW), bounds.encode_to_vec());
    batch.delete(Family::Groups, applied);
    state.write(batch)?;
    state.flush()
}

/// Goes on with a removal that has begun. May be called again after an error.
pub(super) async fn finish(state: &Arc<StateStore>, log: &LogDatabase, range: u32) -> KvResult<()> {
    let marker = keys::group_row(range, keys::REMOVING_ROW);
    let cleared = {
        let marker = marker.clone();
        state.off_thread(move |state| {
            let Some(bounds) = state.get(Family::Groups, &marker)? else { return Ok(()) };
            clear_keys(state, &decode::<Bounds>(Family::Groups, &bounds)?)?;
            clear_own(state, range, &[keys::REMOVING_ROW])?;
            state.flush()
        })
    };
    cleared.await?;
    log.forget(range).await.map_err(|e| KvError { reason: format!("remove the log of range {range}: {e}") })?;
    let mut batch = Batch::default();
    batch.delete(Family::Groups, marker);
    state.off_thread(move |state| state.write(batch).and_then(|()| state.flush())).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::log_store::GroupLog;
    use crate::metadata::simulated_disk::SimulatedDisk;
    use bytes::Bytes;
    use holdfast_proto::BucketId;
    use holdfast_proto::manifest::ObjectVersion;
    use openraft::storage::{RaftLogReader, RaftLogStorage};
    use std::time::Duration;

    const RANGE: u32 = 7;

    fn rows(state: &StateStore) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        for family in Family::ALL {
            let visit = &mut |key: &[u8], _: &[u8], _: &mut Vec<u8>| {
                found.push(key.to_vec());
                Ok(Scan::Next)
            };
            state.scan(family, &[], visit).unwrap();
        }
        found
    }

    /// Wherever a crash cuts it short, the next start ends with nothing of the range but its vote, and all of its neighbour.
    #[tokio::test(start_paused = true)]
    async fn a_removal_that_is_cut_short_is_carried_on() {
        for stage in 0..4 {
            let disk = SimulatedDisk::new(Duration::from_millis(1));
            let state = Arc::new(StateStore::simulated(disk.clone()));
            let log = LogDatabase::simulated(disk.clone());
            let border = |key: &str| keys::object(BucketId(1), key);
            let bounds = Bounds { start: border("m").into(), end: Bytes::new(), ..Bounds::everything() };
            let mut batch = Batch::default();
            for row in [keys::APPLIED_ROW, "once/1", "fence/1"] {
                batch.put(Family::Groups, keys::group_row(RANGE, row), b"{}".to_vec());
            }
            batch.put(Family::Groups, keys::group_row(RANGE, keys::RANGE_ROW), bounds.encode_to_vec());
            batch.put(Family::Groups, keys::group_row(RANGE + 1, keys::APPLIED_ROW), b"{}".to_vec());
            for key in ["a", "m", "z"] {
                batch.put(Family::Objects, border(key), ObjectVersion::default().encode_to_vec());
            }
            state.write(batch).unwrap();
            state.flush().unwrap();
            let mut group_log = GroupLog::open(log.clone(), RANGE).unwrap();
            let vote = crate::metadata::raft_types::Vote::new(3, 2);
            group_log.save_vote(&vote).await.unwrap();
            group_log.purge(crate::metadata::raft_types::log_id(1, 1, 9)).await.unwrap();

            match stage {
                0 => {}
                1 => mark(&state, RANGE).unwrap(),
                2 => {
                    mark(&state, RANGE).unwrap();
                    clear_keys(&state, &bounds).unwrap();
                }
                _ => {
                    begin(&state, RANGE).await.unwrap();
                    finish(&state, &log, RANGE).await.unwrap();
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            log.stop();
            disk.crash(0);
            let state = Arc::new(StateStore::simulated(disk.clone()));
            let log = LogDatabase::simulated(disk.clone());
            resume(&state, &log).await.unwrap();
            let mut group_log = GroupLog::open(log.clone(), RANGE).unwrap();
            assert_eq!(group_log.read_vote().await.unwrap(), Some(vote), "stage {stage}");
            let neighbour = [keys::group_row(RANGE + 1, keys::APPLIED_ROW), border("a")];
            match stage {
                0 => assert_eq!(
                    (rows(&state).len(), group_log.last().is_some()),
                    (8, true),
                    "not begun, nothing is gone"
                ),
                _ => assert_eq!((rows(&state), group_log.last()), (neighbour.to_vec(), None), "stage {stage}"),
            }
        }
    }
}
