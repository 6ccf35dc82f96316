//! `MetadataStore`: opens the groups and answers the calls of the trait: each goes to the group that holds its key, or to
//! all of them.
//!
//! Groups: 0 is the root group, the others are ranges (1 is the first). Every coordinator keeps a copy of the root group;
//! a range is read and written from any coordinator, whether it keeps a copy of it or not (`store/routing.rs`).

use super::api::*;
use super::command::{Kind, Reply};
use super::consensus::Consensus;
use super::group::{Beginning, GroupParts};
use super::groups::Groups;
use super::heartbeats::{Heartbeats, beat};
use super::keys;
use super::kv::KvResult;
use super::log_store::LogDatabase;
use super::network::NoPeers;
use super::query::Found;
use super::raft_machine::{RootCache, state_error};
use super::removal;
use super::sequences::Sequences;
use super::service::ConsensusService;
use super::simulated_disk::SimulatedDisk;
use super::snapshot::Staging;
use super::splitting::RANGE_BYTES_MAX;
use super::state;
use super::state_store::{FLUSH_BYTES, StateStore};
use crate::leader::Leader;
use holdfast_proto::cluster::NodeRecord;
use holdfast_proto::{BucketId, ClusterId, NodeId};
use holdfast_transport::Transport;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

mod asking;
mod bucket_removal;
mod calls;
mod files;
mod keeper;
mod leaving;
mod membership;
mod pages;
mod room;
mod routing;
mod splits;
mod splitter;
mod writers;

use asking::Silent;
use files::{IdRule, Opened, open_files};
use room::Room;
use routing::AllRounds;
pub use splits::RangeInfo;

/// The root group's number.
pub(super) const ROOT: u32 = 0;
/// The range that every other was split from.
pub(super) const FIRST_RANGE: u32 = 1;
/// The state is flushed at least this often when something was written: bounds replay by time.
const FLUSH_PERIOD: Duration = Duration::from_secs(60);
/// How often the need to flush is looked at.
const FLUSH_TICK: Duration = Duration::from_millis(250);
/// Keys are at most this long.
pub(super) const KEY_BYTES_MAX: usize = 1024;

/// How to open a store that is alone.
#[derive(Clone, Debug)]
pub struct MetadataOptions {
    /// Holds everything; made if absent.
    pub directory: PathBuf,
    /// The cluster's id, used only when the directory is new.
    pub new_cluster_id: ClusterId,
}

/// Where a node keeps its metadata.
#[derive(Clone)]
pub enum MetadataFiles {
    /// In this directory; made if absent.
    Directory(PathBuf),
    /// On a simulated disk: no file, no thread, no clock but tokio's.
    Simulated(Arc<SimulatedDisk>),
}

/// How to open the metadata of a node that may have peers.
#[derive(Clone)]
pub struct NodeOptions {
    /// Where it is kept.
    pub files: MetadataFiles,
    /// The node's number; 1 for the node that makes a cluster. Never another over its life.
    pub node: NodeId,
    /// The cluster; a directory of another is refused.
    pub cluster: ClusterId,
    /// Bytes of rows after which a range is cut in two; `None`: the default.
    pub range_bytes_max: Option<u64>,
    /// Reaches the peers. What they send is served by `MetadataStore::consensus_service`.
    pub transport: Arc<dyn Transport>,
}

/// The metadata as one coordinator has it. Cheap to clone.
#[derive(Clone)]
pub struct MetadataStore {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    cluster: ClusterId,
    pub(super) me: u64,
    pub(super) me_weak: Weak<Inner>,
    pub(super) groups: Groups,
    pub(super) state: Arc<StateStore>,
    log: Arc<LogDatabase>,
    pub(super) cache: Arc<RwLock<RootCache>>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) staging: Staging,
    pub(super) sequences: Sequences,
    /// The newest session that was announced in the root group.
    announced: AtomicU64,
    /// Of each node the first session that is not barred in any range.
    barred: Mutex<BTreeMap<u64, u64>>,
    pub(super) rounds: AllRounds,
    silent: Silent,
    /// Nodes told by `set_nodes`; else those of the cluster map count.
    pub(super) nodes: RwLock<Vec<NodeRecord>>,
    /// The cluster map, and how far the root group had applied when it was read.
    pub(super) known_map: Mutex<Option<(u64, Arc<ClusterMap>)>>,
    pub(super) turn: AtomicU64,
    room: Option<Room>,
    range_bytes_max: u64,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    bucket_removal: tokio::sync::Mutex<()>,
}

impl MetadataStore {
    /// Opens or makes a store that is alone. When this returns, everything ever acknowledged is there and readable. A
    /// second process on the same directory is refused.
    pub async fn open(options: MetadataOptions) -> MetadataResult<Self> {
        let node = NodeOptions {
            files: MetadataFiles::Directory(options.directory),
            node: NodeId::FIRST,
            cluster: options.new_cluster_id,
            range_bytes_max: None,
            transport: Arc::new(NoPeers),
        };
        Self::start(node, Beginning::Here, IdRule::Keep).await
    }

    /// Opens or makes the store of the node that makes a cluster, or made it. While it is the only voter, everything ever
    /// acknowledged is readable when this returns; later, once enough of its peers are there.
    pub async fn open_first(options: NodeOptions) -> MetadataResult<Self> {
        Self::start(options, Beginning::Here, IdRule::Keep).await
    }

    /// Opens the store of a node that joined: empty at first, and fed by the leaders of the groups once they know of it.
    pub async fn join(options: NodeOptions) -> MetadataResult<Self> {
        Self::start(options, Beginning::Elsewhere, IdRule::Same).await
    }

    async fn start(options: NodeOptions, beginning: Beginning, rule: IdRule) -> MetadataResult<Self> {
        let NodeOptions { files, node, cluster, range_bytes_max, transport } = options;
        let opened = match files {
            MetadataFiles::Simulated(disk) => Opened {
                cluster,
                log: LogDatabase::simulated(disk.clone()),
                state: Arc::new(StateStore::simulated(disk)),
                staging: Staging::in_memory(),
                room: None,
            },
            MetadataFiles::Directory(directory) => {
                let opened = tokio::task::spawn_blocking(move || open_files(&directory, cluster, rule)).await;
                opened.map_err(|e| MetadataError::Unavailable { reason: format!("open the metadata: {e}") })??
            }
        };
        let Opened { cluster, log, state, staging, room } = opened;
        removal::resume(&state, &log).await.map_err(state_error)?;
        let opening = log.count_opening().await;
        let opening = opening.map_err(|e| MetadataError::Unavailable { reason: format!("open the log: {e}") })?;
        let cache = Arc::new(RwLock::new(RootCache::default()));
        let heartbeats = Arc::new(Heartbeats::new(transport.clone()));
        let parts = GroupParts { me: node.0, log: log.clone(), transport: transport.clone(), heartbeats };
        let groups = Groups::new(parts, state.clone(), cache.clone());
        let inner = Arc::new_cyclic(|weak: &Weak<Inner>| Inner {
            cluster,
            me: node.0,
            me_weak: weak.clone(),
            groups,
            state,
            log,
            cache,
            transport,
            staging,
            sequences: Sequences::new(node.0, opening),
            announced: AtomicU64::new(0),
            barred: Mutex::default(),
            rounds: AllRounds::default(),
            silent: Silent::default(),
            nodes: RwLock::default(),
            known_map: Mutex::default(),
            turn: AtomicU64::new(0),
            room,
            range_bytes_max: range_bytes_max.unwrap_or(RANGE_BYTES_MAX),
            tasks: Mutex::default(),
            bucket_removal: tokio::sync::Mutex::new(()),
        });
        inner.groups.open_all(beginning).await?;
        let store = Self { inner };
        if store.is_alone()? {
            store.finish_removals().await?;
        }
        let weak = Arc::downgrade(&store.inner);
        let tasks = [
            tokio::spawn(beat(weak.clone())),
            tokio::spawn(flush_loop(weak.clone())),
            tokio::spawn(open_loop(weak.clone())),
            tokio::spawn(keeper::keep(weak.clone())),
            tokio::spawn(splitter::cut_as_they_grow(weak.clone())),
            tokio::spawn(leaving::leave_what_has_moved(weak.clone())),
            tokio::spawn(writers::announce(weak)),
        ];
        store.inner.tasks.lock().extend(tasks);
        Ok(store)
    }

    /// The cluster whose metadata this is.
    pub fn cluster_id(&self) -> ClusterId {
        self.inner.cluster
    }

    /// Serves the consensus plane for this store.
    pub fn consensus_service(&self) -> ConsensusService {
        ConsensusService::new(&self.inner)
    }

    /// The cluster's nodes as known to the caller. Without this call those of the cluster map count. Coordinators among
    /// them are given copies of the groups, voters among these, by the leaders.
    pub fn set_nodes(&self, nodes: Vec<NodeRecord>) {
        *self.inner.nodes.write() = nodes;
    }

    /// Waits until this node holds everything the root group acknowledged before the call. The memory behind `bucket`
    /// and `access_key` is otherwise behind by the time a message takes, at most some heartbeats (1 s) on a node that
    /// the leader reaches.
    pub async fn root_barrier(&self) -> MetadataResult<()> {
        let mut backoff = routing::Backoff::new();
        loop {
            let caught_up = match self.inner.groups.get(ROOT) {
                Some(root) => self.inner.read_barrier(&root).await,
                None => Err(MetadataError::Unavailable { reason: "the root group is not here yet".to_owned() }),
            };
            match caught_up {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if let Some(root) = self.inner.groups.get(ROOT) {
                        root.check_lone()?;
                    }
                    backoff.wait(&error.to_string()).await?;
                }
            }
        }
    }

    /// Who leads the root group, as this node sees it: the one that keeps the store whole.
    pub fn leader(&self) -> Leader {
        match self.inner.groups.get(ROOT).and_then(|root| root.leader()) {
            Some(leader) if leader == self.inner.me => Leader::Here,
            Some(leader) => Leader::Node(NodeId(leader)),
            None => Leader::Unknown,
        }
    }

    /// Who votes in each group (0 is the root group): from the group itself where this node leads it, else as its leader
    /// has told the root group, else as this node's copy of the group has it.
    pub fn voters(&self) -> BTreeMap<u32, BTreeSet<NodeId>> {
        let told: BTreeMap<u32, Vec<u64>> =
            self.inner.cache.read().ranges.values().map(|record| (record.range, record.members.clone())).collect();
        let mut voters: BTreeMap<u32, BTreeSet<NodeId>> = BTreeMap::new();
        for group in self.inner.groups.all() {
            let members = group.members();
            let is_told = told.get(&group.number()).is_some_and(|told| !told.is_empty());
            if members.is_leader || !is_told {
                voters.insert(group.number(), members.voters.into_iter().map(NodeId).collect());
            }
        }
        for (range, members) in told.into_iter().filter(|(_, members)| !members.is_empty()) {
            voters.entry(range).or_insert_with(|| members.into_iter().map(NodeId).collect());
        }
        voters
    }

    /// How far this node's copy of the root group has got, as an index of its log. While it stays the same, so does what
    /// [`Self::known_cluster_map`] gives.
    pub fn root_applied(&self) -> u64 {
        self.inner.groups.get(ROOT).map_or(0, |root| root.state().applied_index())
    }

    /// The cluster map as this node's copy of the root group has it: behind by the time a message takes.
    pub fn known_cluster_map(&self) -> MetadataResult<Option<ClusterMap>> {
        state::cluster_map_row(self.inner.state.as_ref()).map_err(state_error)
    }

    fn is_alone(&self) -> MetadataResult<bool> {
        for group in self.inner.groups.all() {
            if !group.check_lone()? {
                return Ok(false);
            }
        }
        Ok(!self.inner.groups.all().is_empty())
    }

    async fn propose_root(&self, kind: Kind) -> MetadataResult<Reply> {
        self.inner.propose(ROOT, kind).await
    }

    async fn propose_key(&self, bucket: BucketId, key: &str, kind: Kind) -> MetadataResult<Reply> {
        self.inner.propose_at(&keys::object(bucket, key), kind).await
    }

    /// A read of the root group's rows, on the caller's thread: a few microseconds from cache, one disk read at worst.
    async fn read_root<T>(&self, read: impl FnOnce(&StateStore) -> KvResult<T>) -> MetadataResult<T> {
        self.root_barrier().await?;
        read(&self.inner.state).map_err(state_error)
    }
}

impl Inner {
    /// Refuses what adds to the metadata while there is no room for it here.
    pub(super) fn admit(&self, kind: Option<&Kind>) -> MetadataResult<()> {
        match (&self.room, kind) {
            (Some(room), Some(kind)) => room.admit(kind),
            _ => Ok(()),
        }
    }

    /// Runs work that may wait for the disk off the async threads, or at once in a simulation.
    pub(super) async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        if matches!(*self.state, StateStore::Memory(_)) {
            return work().map_err(|e| e.to_string());
        }
        tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }
}

/// Flushes by bytes and by time; the groups then drop their logs up to there.
async fn flush_loop(inner: Weak<Inner>) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(FLUSH_TICK).await;
        let Some(inner) = inner.upgrade() else { return };
        if let Some(room) = &inner.room {
            room.look();
        }
        let bytes = inner.state.unflushed_bytes();
        if bytes < FLUSH_BYTES && (bytes == 0 || last.elapsed() < FLUSH_PERIOD) {
            continue;
        }
        last = Instant::now();
        for group in inner.groups.all() {
            if let Err(error) = group.flush().await {
                tracing::warn!(%error, "flush the metadata state");
            }
        }
    }
}

/// Opens the groups that splits make.
async fn open_loop(inner: Weak<Inner>) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        // While it waits the store may go; it is looked at again each second.
        let _ = tokio::time::timeout(Duration::from_secs(1), inner.groups.wait_new()).await;
        if let Err(error) = inner.groups.open_new().await {
            tracing::warn!(%error, "open a group that a split has made");
        }
    }
}

fn unexpected(reply: Reply) -> MetadataError {
    MetadataError::Unavailable { reason: format!("unexpected reply {reply:?}") }
}

fn unexpected_found(found: Found) -> MetadataError {
    MetadataError::Unavailable { reason: format!("unexpected answer {found:?}") }
}
