//! The oldest epoch this node still takes orders by. It only grows, outlives the process, and is in force only when no
//! write by an older map can become durable any more.
//!
//! Two are kept by a node. The first is raised by pings, for writes: nothing raises it today, for a move is committed only
//! after every coordinator was asked what it writes, or barred. The second is raised by listings, for deletions of what a
//! newer map superseded. Each is kept in a file (docs/formats.md, "Fence"): a node that forgot it at a restart would take
//! an order that it has promised to refuse.
//!
//! **Invariant:** `in_force` says e only after everything below e was refused or has ended, and e is on stable storage.

use holdfast_proto::Epoch;
use holdfast_proto::node::ShardError;
use holdfast_proto::shard_header::crc32c;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Notify;

const MAGIC: [u8; 8] = *b"HFFENCE\x01";
const VERSION: u16 = 1;
const FILE_BYTES: usize = 32;

/// The fence.
pub struct Fence {
    file: Option<PathBuf>,
    state: Mutex<State>,
    /// A write ended.
    ended: Notify,
    /// One raise at a time.
    raising: Arc<tokio::sync::Mutex<()>>,
}

struct State {
    /// What is older is refused.
    announced: Epoch,
    in_force: Epoch,
    /// Shards becoming durable now, by the epoch they were begun by.
    finishing: BTreeMap<Epoch, usize>,
}

/// Keeps a write counted until dropped.
pub(crate) struct Passage {
    fence: Arc<Fence>,
    epoch: Epoch,
}

impl Fence {
    /// The fence as it was left in `file`; without one it is forgotten with the process.
    ///
    /// # Errors
    /// The file cannot be read, or is none of ours: the node must not serve then, for it cannot know what to refuse.
    pub fn open(file: Option<PathBuf>) -> io::Result<Arc<Self>> {
        let epoch = match file.as_deref().map(fs::read) {
            Some(Ok(bytes)) => decode(&bytes)?,
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Some(Err(_)) | None => Epoch(0),
        };
        let state = State { announced: epoch, in_force: epoch, finishing: BTreeMap::new() };
        let state = Mutex::new(state);
        Ok(Arc::new(Self { file, state, ended: Notify::new(), raising: Arc::default() }))
    }

    /// The minimum that is in force.
    pub fn in_force(&self) -> Epoch {
        self.state.lock().in_force
    }

    /// Refuses what is older than the minimum.
    ///
    /// # Errors
    /// `StaleEpoch`.
    pub fn check(&self, epoch: Epoch) -> Result<(), ShardError> {
        let minimum = self.state.lock().announced;
        if epoch < minimum { Err(ShardError::StaleEpoch { got: epoch, minimum }) } else { Ok(()) }
    }

    /// Lets a write become durable, unless it is too old by now.
    pub(crate) fn pass(self: &Arc<Self>, epoch: Epoch) -> Result<Passage, ShardError> {
        let mut state = self.state.lock();
        if epoch < state.announced {
            return Err(ShardError::StaleEpoch { got: epoch, minimum: state.announced });
        }
        *state.finishing.entry(epoch).or_default() += 1;
        Ok(Passage { fence: self.clone(), epoch })
    }

    /// Refuses from now on what is older than `minimum`, and returns when that is in force: what was becoming durable
    /// has ended. A lower minimum than the present one changes nothing. Dropped midway, it goes on refusing.
    ///
    /// # Errors
    /// It could not be made durable; it holds for this process then, but is not in force.
    pub async fn raise(self: &Arc<Self>, minimum: Epoch) -> io::Result<()> {
        if self.in_force() >= minimum {
            return Ok(());
        }
        {
            let mut state = self.state.lock();
            state.announced = state.announced.max(minimum);
        }
        let one_at_a_time = self.raising.clone().lock_owned().await;
        if self.in_force() >= minimum {
            return Ok(());
        }
        let mut _kept = None;
        if let Some(file) = self.file.clone() {
            // The turn goes with the write: it ends when the file is whole, though the caller may be gone by then.
            let storing = tokio::task::spawn_blocking(move || store(&file, minimum).map(|()| one_at_a_time));
            _kept = Some(storing.await.map_err(io::Error::other)??);
        }
        while !self.try_enforce(minimum) {
            // An end between the look and this wait is kept for it.
            self.ended.notified().await;
        }
        Ok(())
    }

    /// Puts the minimum in force if nothing older is becoming durable.
    fn try_enforce(&self, minimum: Epoch) -> bool {
        let mut state = self.state.lock();
        let is_clear = state.finishing.first_key_value().is_none_or(|(&oldest, _)| oldest >= minimum);
        if is_clear {
            state.in_force = state.in_force.max(minimum);
        }
        is_clear
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let mut state = self.fence.state.lock();
        if let Some(count) = state.finishing.get_mut(&self.epoch) {
            *count -= 1;
            if *count == 0 {
                state.finishing.remove(&self.epoch);
            }
        }
        drop(state);
        self.fence.ended.notify_one();
    }
}

fn encode(epoch: Epoch) -> [u8; FILE_BYTES] {
    let mut bytes = [0; FILE_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&epoch.0.to_le_bytes());
    let crc = crc32c(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> io::Result<Epoch> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("not a fence: {what}"));
    let bytes: &[u8; FILE_BYTES] = bytes.try_into().map_err(|_| wrong("another length"))?;
    if bytes[..8] != MAGIC {
        return Err(wrong("another magic"));
    }
    if crc32c(&bytes[..28]).to_le_bytes() != bytes[28..] {
        return Err(wrong("its checksum does not hold"));
    }
    if bytes[8..10] != VERSION.to_le_bytes() {
        return Err(wrong("a version this build does not know"));
    }
    let mut epoch = [0; 8];
    epoch.copy_from_slice(&bytes[16..24]);
    Ok(Epoch(u64::from_le_bytes(epoch)))
}

/// Replaces the file as a whole, durably.
fn store(file: &Path, epoch: Epoch) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut out = File::create(&new)?;
    out.write_all(&encode(epoch))?;
    out.sync_all()?;
    fs::rename(&new, file)?;
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn stale(got: u64, minimum: u64) -> ShardError {
        ShardError::StaleEpoch { got: Epoch(got), minimum: Epoch(minimum) }
    }

    #[test]
    fn the_file_reads_what_was_written_and_nothing_else() {
        let good = encode(Epoch(0x0102_0304_0506_0708));
        // Frozen: a change here is a new version.
        assert_eq!(good[..24], *b"HFFENCE\x01\x01\0\0\0\0\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01");
        assert_eq!(decode(&good).unwrap(), Epoch(0x0102_0304_0506_0708));
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        assert!(decode(&good[1..]).is_err());
        assert!(decode(&[]).is_err());
    }

    #[tokio::test]
    async fn it_outlives_the_process_and_never_falls() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("fence");
        let fence = Fence::open(Some(file.clone())).unwrap();
        assert_eq!(fence.check(Epoch(0)), Ok(()));
        fence.raise(Epoch(7)).await.unwrap();
        fence.raise(Epoch(5)).await.unwrap();
        assert_eq!((fence.in_force(), fence.check(Epoch(6))), (Epoch(7), Err(stale(6, 7))));
        let again = Fence::open(Some(file.clone())).unwrap();
        assert_eq!(
            (again.in_force(), again.check(Epoch(6)), again.check(Epoch(7))),
            (Epoch(7), Err(stale(6, 7)), Ok(()))
        );
        fs::write(&file, b"something else").unwrap();
        assert!(Fence::open(Some(file)).is_err());
    }

    #[tokio::test]
    async fn it_is_in_force_only_when_older_writes_have_ended() {
        let fence = Fence::open(None).unwrap();
        let old = fence.pass(Epoch(3)).unwrap();
        let new = fence.pass(Epoch(5)).unwrap();
        let raising = tokio::spawn({
            let fence = fence.clone();
            async move { fence.raise(Epoch(5)).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!raising.is_finished());
        assert_eq!(fence.in_force(), Epoch(0));
        assert!(fence.pass(Epoch(4)).is_err(), "refused from the moment it is known");
        drop(old);
        raising.await.unwrap().unwrap();
        assert_eq!(fence.in_force(), Epoch(5));
        drop(new);
    }
}
