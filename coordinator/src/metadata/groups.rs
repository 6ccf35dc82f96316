//! The groups of this node: those found at a start, those that a split makes, and those that other nodes begin to send
//! (a node that joins, a copy that moves here).
//!
//! A node that keeps a parent, or an older ancestor, takes part in a child only after it has applied the splits: until then
//! the rows the child begins with are not there, and nothing may be built on their absence (`apart.rs`).

use super::apart::held;
use super::api::{MetadataError, MetadataResult};
use super::bounds::Bounds;
use super::group::{Beginning, Group, GroupParts};
use super::keys;
use super::kv::{Family, KvResult, KvView, Scan};
use super::raft_machine::{GroupState, GroupStateParts, RootCache, state_error};
use super::state_store::StateStore;
use super::store::{FIRST_RANGE, ROOT};
use super::wire::WireGroup;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// Groups a node may keep: ten times what a large coordinator is meant for.
const GROUPS_MAX: usize = 4_096;

/// All groups of a node.
pub(super) struct Groups {
    parts: GroupParts,
    pub(super) state: Arc<StateStore>,
    cache: Arc<RwLock<RootCache>>,
    new_groups: Arc<Notify>,
    running: RwLock<BTreeMap<u32, Arc<Group>>>,
    /// Held while a group is opened, so that none is opened twice; `false` once the node stops.
    is_open: tokio::sync::Mutex<bool>,
    /// Not to be opened: their copies are being removed. With the keys that they may still take up.
    closed: RwLock<BTreeMap<u32, Bounds>>,
    /// Held while it is looked whether a copy may begin (`apart.rs`).
    pub(super) beginning: tokio::sync::Mutex<()>,
}

impl Groups {
    pub(super) fn new(parts: GroupParts, state: Arc<StateStore>, cache: Arc<RwLock<RootCache>>) -> Self {
        Self {
            parts,
            state,
            cache,
            new_groups: Arc::default(),
            running: RwLock::default(),
            is_open: tokio::sync::Mutex::new(true),
            closed: RwLock::default(),
            beginning: tokio::sync::Mutex::default(),
        }
    }

    /// A group that runs here.
    pub(super) fn get(&self, number: u32) -> Option<Arc<Group>> {
        self.running.read().get(&number).cloned()
    }

    /// All groups that run here.
    pub(super) fn all(&self) -> Vec<Arc<Group>> {
        self.running.read().values().cloned().collect()
    }

    /// Opens the root group and the first range, and every other group whose rows are here.
    pub(super) async fn open_all(&self, beginning: Beginning) -> MetadataResult<()> {
        for number in [ROOT, FIRST_RANGE] {
            let is_here = beginning == Beginning::Here || self.parts.log.has_group(number).map_err(|e| failed(&e))?;
            if is_here {
                self.open(number, beginning).await?;
            }
        }
        self.open_new().await
    }

    /// Opens groups that a split, or a snapshot before the last start, has put here.
    pub(super) async fn open_new(&self) -> MetadataResult<()> {
        let mut result = Ok(());
        for number in self.numbers().map_err(state_error)? {
            let opened = match self.get(number) {
                // It was opened for a message before its parent's copy here made the split: it begins anew from what that put here.
                Some(running) if !running.state().has_members() => match self.close(number).await {
                    Ok(()) => self.let_open(number, true).await,
                    Err(error) => Err(error),
                },
                Some(_) => Ok(()),
                None if self.closed.read().contains_key(&number) => Ok(()),
                None => self.open(number, Beginning::Elsewhere).await.map(|_| ()),
            };
            result = opened.and(result);
        }
        result
    }

    /// Waits until a split has been applied here.
    pub(super) async fn wait_new(&self) {
        self.new_groups.notified().await;
    }

    /// The numbers of the groups that have applied something here.
    fn numbers(&self) -> KvResult<Vec<u32>> {
        let mut found = Vec::new();
        self.state.scan(Family::Groups, &[], &mut |key, _, seek| {
            let Some((number, row)) = key.split_first_chunk::<4>() else { return Ok(Scan::Next) };
            let number = u32::from_be_bytes(*number);
            let applied = keys::group_row(number, keys::APPLIED_ROW);
            if row == keys::APPLIED_ROW.as_bytes() {
                found.push(number);
            } else if *key < applied[..] {
                *seek = applied;
                return Ok(Scan::Seek);
            }
            let Some(next) = number.checked_add(1) else { return Ok(Scan::Stop) };
            *seek = next.to_be_bytes().to_vec();
            Ok(Scan::Seek)
        })?;
        Ok(found)
    }

    async fn open(&self, number: u32, beginning: Beginning) -> MetadataResult<Arc<Group>> {
        if let Some(running) = self.get(number) {
            return Ok(running);
        }
        let is_open = self.is_open.lock().await;
        if let Some(running) = self.get(number) {
            return Ok(running);
        }
        if !*is_open {
            return Err(MetadataError::Unavailable { reason: "the metadata is stopping".to_owned() });
        }
        if self.closed.read().contains_key(&number) {
            return Err(MetadataError::Unavailable {
                reason: format!("the copy of range {number} here is being removed"),
            });
        }
        if self.running.read().len() >= GROUPS_MAX {
            return Err(MetadataError::Unavailable { reason: format!("{GROUPS_MAX} groups are all a node keeps") });
        }
        let state = GroupState::open(GroupStateParts {
            group: number,
            me: self.parts.me,
            store: self.state.clone(),
            root: (number == ROOT).then(|| self.cache.clone()),
            new_groups: self.new_groups.clone(),
        });
        let state = Arc::new(state.map_err(|e| failed(&e))?);
        let group = Arc::new(Group::open(number, &self.parts, state, beginning).await?);
        self.running.write().insert(number, group.clone());
        Ok(group)
    }

    /// Makes the group that a message of another node is for, empty; what it lacks will be sent. Not to be given up midway: a
    /// group that was half opened would go on beside the next one, on the same log.
    pub(super) async fn open_for_message(&self, wire: &WireGroup) -> MetadataResult<Arc<Group>> {
        self.check_first_key(wire)?;
        self.open(wire.group, Beginning::Elsewhere).await
    }

    /// Ends a group here, and keeps it from being opened until `let_open`. Its keys stay taken. On return nothing is written
    /// for it any more.
    pub(super) async fn close(&self, number: u32) -> MetadataResult<()> {
        use super::consensus::Consensus;
        let group = {
            let _beginning = self.beginning.lock().await;
            let _is_open = self.is_open.lock().await;
            let Some(group) = self.get(number) else { return Ok(()) };
            let bounds = held(self.state.as_ref(), number, group.has_begun()).map_err(state_error)?;
            let claimed = group.claimed();
            // The wider of the two: of a copy that is being replaced, the old.
            self.closed.write().insert(number, bounds.or(claimed).unwrap_or_else(Bounds::nothing));
            self.running.write().remove(&number);
            group
        };
        // An error is that its task has ended badly, and ended it has.
        if let Err(error) = group.shutdown().await {
            tracing::warn!(group = number, %error, "end a group");
        }
        group.close_state().await.map_err(state_error)
    }

    /// The groups that are closed, and the keys that they may still take up.
    pub(super) fn closed(&self) -> Vec<(u32, Bounds)> {
        self.closed.read().iter().map(|(number, bounds)| (*number, bounds.clone())).collect()
    }

    /// Lets a closed group be opened again, and does so if its copy is still here.
    pub(super) async fn let_open(&self, number: u32, is_here: bool) -> MetadataResult<()> {
        let _beginning = self.beginning.lock().await;
        self.closed.write().remove(&number);
        if is_here { self.open(number, Beginning::Elsewhere).await.map(|_| ()) } else { Ok(()) }
    }

    /// Stops all groups, and opens none any more.
    pub(super) async fn shutdown(&self) -> MetadataResult<()> {
        use super::consensus::Consensus;
        *self.is_open.lock().await = false;
        let mut result = Ok(());
        for group in self.all().into_iter().rev() {
            result = group.shutdown().await.and(result);
        }
        result
    }
}

fn failed(error: &std::io::Error) -> MetadataError {
    MetadataError::Unavailable { reason: format!("open a group: {error}") }
}
