//! The shell around `state::apply` that openraft drives: applies entries to the state database in order, remembers how
//! far in the same batch, and answers whoever waits.
//!
//! A "snapshot" of a lone voter is a flush: afterwards the log up to there is not needed to restart.

use super::api::MetadataError;
use super::command::{Kind, Reply};
use super::group::{Answer, LogId, StoredMembership, TypeConfig};
use super::keys;
use super::kv::{Batch, Family, KvError, KvView};
use super::state;
use super::state_store::StateStore;
use futures::{Stream, TryStreamExt};
use holdfast_proto::manifest::{AccessKey, Bucket};
use openraft::entry::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The root group's rows that every request needs, kept in memory.
#[derive(Default)]
pub(super) struct RootCache {
    pub(super) buckets: HashMap<String, Bucket>,
    pub(super) keys: HashMap<String, AccessKey>,
}

/// What a group's state machine shares with the store.
pub(super) struct GroupState {
    pub(super) group: u32,
    pub(super) store: Arc<StateStore>,
    /// Filled for the root group.
    pub(super) root: Option<Arc<RwLock<RootCache>>>,
    has_failed: AtomicBool,
}

impl GroupState {
    /// Of group `group`; the root group's keeps `root` up to date.
    pub(super) fn new(group: u32, store: Arc<StateStore>, root: Option<Arc<RwLock<RootCache>>>) -> Self {
        Self { group, store, root, has_failed: AtomicBool::new(false) }
    }

    /// Whether an entry of the log could not be applied: the state has stopped before it.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    fn applied(&self) -> io::Result<Option<Applied>> {
        let row = keys::group_row(self.group, "applied");
        let stored = self.store.get(Family::Groups, &row).map_err(io::Error::other)?;
        stored.map(|stored| serde_json::from_slice(&stored).map_err(io::Error::other)).transpose()
    }

    /// Refuses a state that lacks something the log no longer has: a state of another day, or a lost one. To go on would
    /// call every object an orphan that is missing here.
    pub(super) fn check_reaches(&self, purged: Option<LogId>) -> io::Result<()> {
        let applied = self.applied()?.and_then(|applied| applied.last);
        if applied >= purged {
            return Ok(());
        }
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        let reason =
            format!("the state ends at entry {}, the log begins after entry {}", index(applied), index(purged));
        Err(io::Error::new(io::ErrorKind::InvalidData, reason))
    }

    /// Reads the root group's rows into memory.
    pub(super) fn reload_root(&self) -> Result<(), KvError> {
        let Some(cache) = &self.root else { return Ok(()) };
        let buckets = state::bucket_rows(self.store.as_ref())?;
        let keys = state::key_rows(self.store.as_ref())?;
        *cache.write() = RootCache {
            buckets: buckets.into_iter().map(|b| (b.name.clone(), b)).collect(),
            keys: keys.into_iter().map(|k| (k.access_key.clone(), k)).collect(),
        };
        Ok(())
    }
}

#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
struct Applied {
    last: Option<LogId>,
    membership: StoredMembership,
}

/// The state machine of one group.
pub(super) struct StateMachine {
    state: Arc<GroupState>,
    applied: Arc<Mutex<Applied>>,
    snapshot: Arc<Mutex<Option<SnapshotMetaOf>>>,
}

type SnapshotMetaOf = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
type SnapshotOf = openraft::type_config::alias::SnapshotOf<TypeConfig, ()>;

impl StateMachine {
    pub(super) fn new(state: Arc<GroupState>) -> Self {
        Self { state, applied: Arc::default(), snapshot: Arc::default() }
    }

    fn apply_one(
        &self,
        payload: &EntryPayload<super::group::Proposal, u64, openraft::BasicNode>,
        id: LogId,
    ) -> io::Result<Answer> {
        let mut applied = self.applied.lock();
        let mut next = applied.clone();
        next.last = Some(id);
        let (result, mut batch) = match payload {
            EntryPayload::Blank => (Ok(Reply::Done), Batch::default()),
            EntryPayload::Normal(proposal) => {
                state::apply(self.state.store.as_ref(), self.state.group, &proposal.0).map_err(io::Error::other)?
            }
            EntryPayload::Membership(membership) => {
                next.membership = StoredMembership::new(Some(id), membership.clone());
                (Ok(Reply::Done), Batch::default())
            }
        };
        let row = serde_json::to_vec(&next).map_err(io::Error::other)?;
        batch.put(Family::Groups, keys::group_row(self.state.group, "applied"), row);
        self.state.store.write(batch).map_err(io::Error::other)?;
        *applied = next;
        drop(applied);
        if let (EntryPayload::Normal(proposal), Ok(_)) = (payload, &result)
            && self.state.root.is_some()
            && changes_root_rows(proposal.0.kind.as_ref())
        {
            self.state.reload_root().map_err(io::Error::other)?;
        }
        Ok(Answer(result))
    }
}

fn changes_root_rows(kind: Option<&Kind>) -> bool {
    let others = |kind: &Kind| {
        use Kind::{AuthoritySet, MapSet, TokenCreate, TokenRedeem, TokenRevoke};
        matches!(kind, MapSet(_) | AuthoritySet(_) | TokenCreate(_) | TokenRevoke(_) | TokenRedeem(_))
    };
    kind.is_some_and(|kind| !others(kind))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = ();
    type SnapshotBuilder = Flusher;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        if let Some(stored) = self.state.applied()? {
            *self.applied.lock() = stored;
        }
        self.state.reload_root().map_err(io::Error::other)?;
        let applied = self.applied.lock();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let answer = self.apply_one(&entry.payload, entry.log_id).inspect_err(|error| {
                tracing::error!(%error, "the metadata state cannot be written; metadata stops here");
                self.state.has_failed.store(true, Ordering::Release);
            })?;
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Flusher {
        Flusher { state: self.state.clone(), applied: self.applied.clone(), snapshot: self.snapshot.clone() }
    }

    async fn install_snapshot(&mut self, _: &SnapshotMetaOf, (): ()) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a group of one voter installs no snapshot"))
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        Ok(self.snapshot.lock().clone().map(|meta| Snapshot { meta, snapshot: () }))
    }
}

/// Builds a "snapshot": flushes.
pub(super) struct Flusher {
    state: Arc<GroupState>,
    applied: Arc<Mutex<Applied>>,
    snapshot: Arc<Mutex<Option<SnapshotMetaOf>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Flusher {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        // What was applied before the flush began is in it; more may be, which only makes the log longer than needed.
        let applied = self.applied.lock().clone();
        let store = self.state.store.clone();
        tokio::task::spawn_blocking(move || store.flush())
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership };
        *self.snapshot.lock() = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: () })
    }
}

/// The error of a state that cannot be read.
pub(super) fn state_error(error: KvError) -> MetadataError {
    MetadataError::Unavailable { reason: error.to_string() }
}
