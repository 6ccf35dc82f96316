//! The shell around `state::apply` that openraft drives: applies entries to the state database in order, remembers how
//! far in the same batch, and answers whoever waits.
//!
//! To "build a snapshot" is to flush: afterwards the log up to there is not needed to restart. What a peer that is behind
//! is sent is read from the state when it is asked for (`snapshot.rs`).

use super::api::MetadataError;
use super::bounds::Bounds;
use super::command::{Kind, Reply};
use super::keys;
use super::kv::{Batch, Family, KvError, KvView};
use super::network::Lineage;
use super::raft_types::{Answer, LogId, Proposal, SnapshotMeta, StoredMembership, TypeConfig, index_of, log_id};
use super::snapshot::{self, SnapshotSource};
use super::state::{self, RangeRecord, SplitRecord};
use super::state_store::StateStore;
use super::wire::WireGroup;
use futures::{Stream, TryStreamExt};
use holdfast_proto::manifest::{AccessKey, Bucket};
use openraft::entry::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{BasicNode, Membership};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// The root group's rows that every request needs, kept in memory.
#[derive(Default)]
pub(super) struct RootCache {
    pub(super) buckets: HashMap<String, Bucket>,
    pub(super) keys: HashMap<String, AccessKey>,
    /// By where they begin.
    pub(super) ranges: BTreeMap<Vec<u8>, RangeRecord>,
    pub(super) splits: Vec<SplitRecord>,
}

/// What a group's state machine shares with the store.
pub(super) struct GroupState {
    pub(super) group: u32,
    pub(super) store: Arc<StateStore>,
    me: u64,
    /// Filled for the root group.
    root: Option<Arc<RwLock<RootCache>>>,
    /// Rung when a split has made a group.
    new_groups: Arc<Notify>,
    applied: Mutex<Applied>,
    lineage: RwLock<WireGroup>,
    is_lone: AtomicBool,
    has_failed: AtomicBool,
    /// Held while rows are written; `true` once none may be any more.
    is_closed: Mutex<bool>,
}

/// How a group's state is opened.
pub(super) struct GroupStateParts {
    pub(super) group: u32,
    pub(super) me: u64,
    pub(super) store: Arc<StateStore>,
    pub(super) root: Option<Arc<RwLock<RootCache>>>,
    pub(super) new_groups: Arc<Notify>,
}

impl GroupState {
    /// Reads how far the group has applied. The root group's keeps `root` up to date.
    pub(super) fn open(parts: GroupStateParts) -> io::Result<Self> {
        let GroupStateParts { group, me, store, root, new_groups } = parts;
        let state = Self {
            group,
            store,
            me,
            root,
            new_groups,
            applied: Mutex::default(),
            lineage: RwLock::default(),
            is_lone: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            is_closed: Mutex::new(false),
        };
        state.reload().map_err(io::Error::other)?;
        Ok(state)
    }

    /// Whether an entry of the log could not be applied: the state has stopped before it.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// From the return on nothing is written to the state for this group, whatever its tasks still do.
    pub(super) fn close(&self) {
        *self.is_closed.lock() = true;
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        let is_closed = self.is_closed.lock();
        if *is_closed {
            return Err(io::Error::other("the group was closed"));
        }
        self.store.write(batch).map_err(io::Error::other)
    }

    /// Whether this node is the group's only voter.
    pub(super) fn is_lone(&self) -> bool {
        self.is_lone.load(Ordering::Acquire)
    }

    /// Index of the last entry applied.
    pub(super) fn applied_index(&self) -> u64 {
        index_of(self.applied.lock().last)
    }

    /// Whether the group knows its members: whether it has ever got anything.
    pub(super) fn has_members(&self) -> bool {
        self.applied.lock().membership.membership().voter_ids().next().is_some()
    }

    /// Refuses a state that lacks something the log no longer has: a state of another day, or a lost one. To go on would
    /// call every object an orphan that is missing here.
    pub(super) fn check_reaches(&self, purged: Option<LogId>) -> io::Result<()> {
        let applied = self.applied.lock().last;
        if applied >= purged {
            return Ok(());
        }
        let reason =
            format!("the state ends at entry {}, the log begins after entry {}", index_of(applied), index_of(purged));
        Err(io::Error::new(io::ErrorKind::InvalidData, reason))
    }

    /// Reads what is kept in memory of the state.
    fn reload(&self) -> Result<(), KvError> {
        let row = keys::group_row(self.group, keys::APPLIED_ROW);
        let stored = self.store.get(Family::Groups, &row)?;
        let applied: Option<Applied> = stored
            .map(|stored| serde_json::from_slice(&stored))
            .transpose()
            .map_err(|e| KvError { reason: format!("how far group {} has applied: {e}", self.group) })?;
        self.set_applied(applied.unwrap_or_default());
        self.reload_bounds()?;
        self.reload_root()
    }

    fn reload_bounds(&self) -> Result<(), KvError> {
        let bounds = Bounds::load(self.store.as_ref(), self.group)?;
        *self.lineage.write() = WireGroup { group: self.group, start: bounds.start, end: bounds.end };
        Ok(())
    }

    fn set_applied(&self, applied: Applied) {
        let membership = applied.membership.membership();
        let is_lone = membership.get_joint_config().len() == 1 && membership.voter_ids().eq([self.me]);
        self.is_lone.store(is_lone, Ordering::Release);
        *self.applied.lock() = applied;
    }

    /// Reads the root group's rows into memory.
    fn reload_root(&self) -> Result<(), KvError> {
        let Some(cache) = &self.root else { return Ok(()) };
        let view = self.store.view();
        let ranges = state::range_rows(&view)?;
        *cache.write() = RootCache {
            buckets: state::bucket_rows(&view)?.into_iter().map(|b| (b.name.clone(), b)).collect(),
            keys: state::key_rows(&view)?.into_iter().map(|k| (k.access_key.clone(), k)).collect(),
            ranges: ranges.into_iter().map(|record| (record.start.to_vec(), record)).collect(),
            splits: state::split_rows(&view)?,
        };
        Ok(())
    }
}

impl Lineage for GroupState {
    fn wire_group(&self) -> WireGroup {
        self.lineage.read().clone()
    }
}

#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
struct Applied {
    last: Option<LogId>,
    membership: StoredMembership,
}

/// Voters and learners of a group, as far as applied.
pub(super) fn members_row<V: KvView>(view: &V, group: u32) -> Result<Vec<u64>, KvError> {
    let Some(stored) = view.get(Family::Groups, &keys::group_row(group, keys::APPLIED_ROW))? else {
        return Ok(Vec::new());
    };
    let applied: Applied = serde_json::from_slice(&stored)
        .map_err(|e| KvError { reason: format!("how far group {group} has applied: {e}") })?;
    Ok(applied.membership.membership().nodes().map(|(node, _)| *node).collect())
}

/// The state machine of one group.
pub(super) struct StateMachine {
    state: Arc<GroupState>,
}

type SnapshotOf = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotSource>;

impl StateMachine {
    pub(super) fn new(state: Arc<GroupState>) -> Self {
        Self { state }
    }

    fn apply_one(&self, payload: &EntryPayload<Proposal, u64, BasicNode>, id: LogId) -> io::Result<Answer> {
        let state = &self.state;
        let mut next = state.applied.lock().clone();
        next.last = Some(id);
        let (result, mut batch) = match payload {
            EntryPayload::Blank => (Ok(Reply::Done), Batch::default()),
            EntryPayload::Normal(proposal) => {
                state::apply(state.store.as_ref(), state.group, id.index, &proposal.0).map_err(io::Error::other)?
            }
            EntryPayload::Membership(membership) => {
                next.membership = StoredMembership::new(Some(id), membership.clone());
                (Ok(Reply::Done), Batch::default())
            }
        };
        let has_changed = !batch.writes.is_empty();
        let kind = match payload {
            EntryPayload::Normal(proposal) if result.is_ok() => proposal.0.kind.as_ref(),
            _ => None,
        };
        let split = match kind {
            // Not the second time: the child has come further by then.
            Some(Kind::RangeSplit(split))
                if batch.puts(Family::Groups, &keys::group_row(split.child, keys::RANGE_ROW)) =>
            {
                Some(split.child)
            }
            _ => None,
        };
        if let Some(child) = split {
            batch.put(Family::Groups, keys::group_row(child, keys::APPLIED_ROW), first_row_of_child(&next)?);
        }
        let row = serde_json::to_vec(&next).map_err(io::Error::other)?;
        batch.put(Family::Groups, keys::group_row(state.group, keys::APPLIED_ROW), row);
        state.write(batch)?;
        state.set_applied(next);
        if state.root.is_some() && has_changed && changes_root_rows(kind) {
            state.reload_root().map_err(io::Error::other)?;
        }
        if split.is_some() {
            state.reload_bounds().map_err(io::Error::other)?;
            state.new_groups.notify_one();
        }
        Ok(Answer(result))
    }
}

/// A child begins where a group begins whose members were agreed on at entry 0, all of which its base already holds: the
/// same on every member of its parent. While the parent's members are changing, the child has those it is changing to.
fn first_row_of_child(parent: &Applied) -> io::Result<Vec<u8>> {
    let members = parent.membership.membership();
    let voters: BTreeSet<u64> = members.get_joint_config().last().cloned().unwrap_or_default();
    let nodes: BTreeMap<u64, BasicNode> = members.nodes().map(|(id, node)| (*id, node.clone())).collect();
    let members = Membership::new(vec![voters], nodes).map_err(io::Error::other)?;
    let base = log_id(0, 0, 0);
    let applied = Applied { last: Some(base), membership: StoredMembership::new(Some(base), members) };
    serde_json::to_vec(&applied).map_err(io::Error::other)
}

fn changes_root_rows(kind: Option<&Kind>) -> bool {
    let others = |kind: &Kind| {
        use Kind::{AuthoritySet, MapSet, TokenCreate, TokenRedeem, TokenRevoke};
        matches!(kind, MapSet(_) | AuthoritySet(_) | TokenCreate(_) | TokenRevoke(_) | TokenRedeem(_))
    };
    kind.is_some_and(|kind| !others(kind))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotSource;
    type SnapshotBuilder = Flusher;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.state.applied.lock();
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
        Flusher { state: self.state.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, source: SnapshotSource) -> io::Result<()> {
        let SnapshotSource::Staged(staged) = source else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "only a staged snapshot is installed"));
        };
        let applied = Applied { last: meta.last_log_id, membership: meta.last_membership.clone() };
        let row = serde_json::to_vec(&applied).map_err(io::Error::other)?;
        let group = self.state.group;
        let state = self.state.clone();
        // A closed group's rows may be under removal already.
        let install = move |store: &StateStore| match state.is_closed.lock() {
            is_closed if *is_closed => Err(KvError { reason: "the group was closed".to_owned() }),
            _not_closed_meanwhile => snapshot::install(store, group, row, &staged),
        };
        let installed = self.state.store.off_thread(install).await;
        installed.and_then(|()| self.state.reload()).map_err(|error| {
            tracing::error!(%error, group, "a snapshot cannot be installed; the group stops here");
            self.state.has_failed.store(true, Ordering::Release);
            io::Error::other(error)
        })
    }

    /// The state as it is, flushed first: openraft may drop the log up to there.
    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        let applied = self.state.applied.lock().clone();
        if applied.last.is_none() {
            return Ok(None);
        }
        let store = &self.state.store;
        store.off_thread(|store| store.flush()).await.map_err(io::Error::other)?;
        let snapshot = SnapshotSource::read(store, self.state.group).await.map_err(io::Error::other)?;
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership };
        Ok(Some(Snapshot { meta, snapshot }))
    }
}

/// Builds a "snapshot": flushes.
pub(super) struct Flusher {
    state: Arc<GroupState>,
}

impl RaftSnapshotBuilder<TypeConfig> for Flusher {
    type SnapshotData = SnapshotSource;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        // What was applied before the flush began is in it; more may be, which only makes the log longer than needed.
        let applied = self.state.applied.lock().clone();
        self.state.store.off_thread(|store| store.flush()).await.map_err(io::Error::other)?;
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership };
        Ok(Snapshot { meta, snapshot: SnapshotSource::Flushed })
    }
}

/// The error of a state that cannot be read.
pub(super) fn state_error(error: KvError) -> MetadataError {
    MetadataError::Unavailable { reason: error.to_string() }
}
