//! Opens the files of the metadata: the cluster's id, the log, the state, and snapshots that were being received.
//!
//! Durable on return: the directory itself and `cluster-id`. A crash between any two steps leaves what the next start
//! makes whole: a log without a state, both without an id, an install that was cut off.
//!
//! **Invariant:** a state without its log is refused, never opened afresh.

use super::super::api::{MetadataError, MetadataResult};
use super::super::log_store::LogDatabase;
use super::super::raft_machine::state_error;
use super::super::snapshot::{self, Staging};
use super::super::state_store::StateStore;
use super::room::Room;
use holdfast_proto::ClusterId;
use std::path::Path;
use std::sync::Arc;

/// Which cluster id a directory may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IdRule {
    /// Its own, whatever was given.
    Keep,
    /// The one given.
    Same,
}

/// What is open.
pub(super) struct Opened {
    pub(super) cluster: ClusterId,
    pub(super) log: Arc<LogDatabase>,
    pub(super) state: Arc<StateStore>,
    pub(super) staging: Staging,
    pub(super) room: Option<Room>,
}

/// Opens or makes the metadata in `directory`, whose cluster is `new_id` if it is made now. Blocks.
///
/// # Errors
/// Files that cannot be opened or are of another cluster; a state whose log is gone.
pub(super) fn open_files(directory: &Path, new_id: ClusterId, rule: IdRule) -> MetadataResult<Opened> {
    let failed = |what: &str, e: std::io::Error| MetadataError::Unavailable {
        reason: format!("{what} {}: {e}", directory.display()),
    };
    std::fs::create_dir_all(directory).map_err(|e| failed("make", e))?;
    // The directory's own name must outlive a power cut, too.
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(|e| failed("make durable", e))?;
    // RocksDB makes this file last. The log is made first, so a state alone has lost its log, and with it whatever was
    // acknowledged since the state was last flushed.
    let is_made = |name: &str| directory.join(name).join("CURRENT").exists();
    if is_made("state") && !is_made("log") {
        let reason =
            format!("{} has a state but no log: what was acknowledged last is in the log", directory.display());
        return Err(MetadataError::Unavailable { reason });
    }
    let log = LogDatabase::open(&directory.join("log"))?;
    let state = Arc::new(StateStore::open(&directory.join("state"))?);
    let cluster = cluster_file(directory, new_id).map_err(|e| failed("read the cluster id in", e))?;
    if rule == IdRule::Same && cluster != new_id {
        let reason = format!("{} belongs to cluster {cluster}, not to {new_id}", directory.display());
        return Err(MetadataError::Unavailable { reason });
    }
    snapshot::resume_installs(&state).map_err(state_error)?;
    let staging = Staging::open(directory.join("incoming")).map_err(|e| failed("make", e))?;
    staging.clean().map_err(|e| failed("clean", e))?;
    let room = Some(Room::new(directory.to_owned()));
    Ok(Opened { cluster, log, state, staging, room })
}

/// Reads `DIR/cluster-id`, or makes it: written aside, synced, renamed, directory synced.
fn cluster_file(directory: &Path, new_id: ClusterId) -> std::io::Result<ClusterId> {
    use std::io::Write;
    let path = directory.join("cluster-id");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            text.trim().parse().map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{e}")))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let aside = directory.join("cluster-id.new");
            let mut file = std::fs::File::create(&aside)?;
            writeln!(file, "{new_id}")?;
            file.sync_all()?;
            std::fs::rename(&aside, &path)?;
            std::fs::File::open(directory)?.sync_all()?;
            Ok(new_id)
        }
        Err(e) => Err(e),
    }
}
