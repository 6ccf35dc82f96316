//! Whether the metadata's file system has room for more: what would add to it is refused while there is little left.
//!
//! Without this a full disk would stop the log or a flush midway, and with it the whole store until its next start, and
//! deleting (which makes room) would be impossible, too.
//!
//! Touches the world: asks the file system.

use super::super::api::{MetadataError, MetadataResult};
use super::super::command::Kind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Kept free: a flush writes up to 64 MiB and the compaction after it as much again, the log takes 64 MiB, and half of it
/// all is spare.
const RESERVE_BYTES: u64 = 256 << 20;
/// But not more than one part in so many of the file system, so that small ones can be used.
const RESERVE_PARTS: u64 = 20;

/// The room that was left when last looked at.
pub(super) struct Room {
    directory: PathBuf,
    missing_bytes: AtomicU64,
}

impl Room {
    /// Of the file system that `directory` is on.
    pub(super) fn new(directory: PathBuf) -> Self {
        let room = Self { directory, missing_bytes: AtomicU64::new(0) };
        room.look();
        room
    }

    /// Asks the file system: some microseconds.
    pub(super) fn look(&self) {
        // One that cannot be asked is not taken for full: writing to it will tell.
        let Ok(found) = rustix::fs::statvfs(&self.directory) else { return };
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        let missing = missing_bytes(bytes(found.f_bavail), bytes(found.f_blocks));
        if missing > 0 && self.missing_bytes.load(Ordering::Relaxed) == 0 {
            tracing::warn!(directory = %self.directory.display(), missing, "no room for metadata: writes are refused");
        }
        self.missing_bytes.store(missing, Ordering::Relaxed);
    }

    /// Refuses a command that adds to the metadata if there is no room; whatever frees or repairs goes on.
    pub(super) fn admit(&self, kind: &Kind) -> MetadataResult<()> {
        let missing = self.missing_bytes.load(Ordering::Relaxed);
        if missing == 0 || !adds(kind) {
            return Ok(());
        }
        let directory = self.directory.display();
        Err(MetadataError::Full {
            reason: format!("free {} MiB on the file system of {directory}", missing.div_ceil(1 << 20)),
        })
    }

    #[cfg(test)]
    pub(super) fn pretend_missing(&self, bytes: u64) {
        self.missing_bytes.store(bytes, Ordering::Relaxed);
    }
}

fn missing_bytes(free: u64, capacity: u64) -> u64 {
    RESERVE_BYTES.min(capacity / RESERVE_PARTS).saturating_sub(free)
}

fn adds(kind: &Kind) -> bool {
    match kind {
        Kind::KeyCreate(_)
        | Kind::BucketCreate(_)
        | Kind::BucketTags(_)
        | Kind::Put(_)
        | Kind::SetTags(_)
        | Kind::UploadCreate(_)
        | Kind::PartPut(_)
        | Kind::UploadComplete(_)
        | Kind::TokenCreate(_) => true,
        Kind::MapSet(_)
        | Kind::KeyDelete(_)
        | Kind::BucketFence(_)
        | Kind::BucketRemove(_)
        | Kind::BucketVersioning(_)
        | Kind::Delete(_)
        | Kind::UploadAbort(_)
        | Kind::GarbageDone(_)
        | Kind::SegmentDurable(_)
        | Kind::RangeFence(_)
        | Kind::AuthoritySet(_)
        | Kind::TokenRevoke(_)
        | Kind::TokenRedeem(_)
        | Kind::WriterOpen(_)
        | Kind::WriterFence(_)
        | Kind::RangeSplit(_)
        | Kind::SplitBegin(_)
        | Kind::SplitEnd(_)
        | Kind::RangeMembers(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_case() {
        let (gib, mib) = (1 << 30, 1 << 20);
        assert_eq!(missing_bytes(100 * gib, 1000 * gib), 0);
        assert_eq!(missing_bytes(256 * mib, 1000 * gib), 0);
        assert_eq!(missing_bytes(200 * mib, 1000 * gib), 56 * mib);
        assert_eq!(missing_bytes(60 * mib, gib), 0, "a twentieth of a small one is enough");
        assert_eq!(missing_bytes(0, 1000 * gib), 256 * mib);
    }

    #[test]
    fn what_makes_room_is_always_admitted() {
        let root = tempfile::tempdir().unwrap();
        let room = Room::new(root.path().to_owned());
        room.pretend_missing(3 << 20);
        let refused = room.admit(&Kind::Put(Default::default())).unwrap_err();
        assert!(refused.to_string().contains("free 3 MiB"), "{refused}");
        room.admit(&Kind::Delete(Default::default())).unwrap();
        room.admit(&Kind::GarbageDone(Default::default())).unwrap();
        room.look();
        assert_eq!(room.admit(&Kind::Put(Default::default())), Ok(()), "there is room on this machine");
    }
}
