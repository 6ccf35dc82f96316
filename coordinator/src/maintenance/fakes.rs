//! A node, metadata and an object path in memory, for the tests of maintenance: as strict as the real ones where
//! maintenance could go wrong (compare-and-set, roots, distinct places), and with loss on demand.

use super::activity::{ActivitySource, ActivityUnknown};
use super::shared::ShardRebuilder;
use crate::metadata::*;
use crate::object_path::{Activity, ObjectError, RebuildContext};
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_codec::{Geometry, Scheme};
use holdfast_proto::manifest::{AccessKey, Bucket, ObjectVersion, Pair, Part, Segment, Upload, Versioning};
use holdfast_proto::node::{
    BackendHealth, BackendStatus, Cell, NodeClient, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter,
    shard_root,
};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, BucketId, ClusterId, Epoch, NodeId, PgId, SegmentId, ShardId, Slot, VersionId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub(super) const CELL_BYTES: u32 = 64;
pub(super) const SEGMENT_BYTES: u64 = 512;
pub(super) const SCHEME: [u8; 4] = [0x1d, 1, 4, 2];
pub(super) const CLUSTER: ClusterId = ClusterId([7; 16]);

/// The bytes every copy of a shard must have.
pub(super) fn content(shard: ShardId) -> Vec<u8> {
    let bytes = Geometry::new(4, CELL_BYTES, SEGMENT_BYTES).shard_bytes();
    let seed = blake3::hash(&shard.encode());
    (0..usize::try_from(bytes).unwrap()).map(|at| seed.as_bytes()[at % 32]).collect()
}

fn root_of(bytes: &[u8]) -> [u8; 32] {
    shard_root(bytes.chunks(CELL_BYTES as usize).map(|cell| *blake3::hash(cell).as_bytes()))
}

fn header_of(shard: ShardId) -> ShardHeader {
    ShardHeader {
        cluster: CLUSTER,
        id: shard,
        bucket: BucketId(1),
        key_hash: [0; 32],
        version: VersionId([0; 16]),
        scheme: SCHEME,
        cell_bytes: CELL_BYTES,
        shard_bytes: u64::try_from(content(shard).len()).unwrap(),
        segment_bytes: SEGMENT_BYTES,
        segment_offset: 0,
        created_ms: 0,
    }
}

#[derive(Clone)]
struct StoredShard {
    bytes: Vec<u8>,
    root: [u8; 32],
    is_rotten: bool,
    is_quarantined: bool,
}

struct FakeBackend {
    name: String,
    location: String,
    health: BackendHealth,
    shards: BTreeMap<ShardId, StoredShard>,
}

/// Something that happens in the middle of a call.
type Interruption = Box<dyn FnOnce() + Send>;

/// A node whose backends can be lost.
#[derive(Clone, Default)]
pub(super) struct FakeNode {
    backends: Arc<Mutex<BTreeMap<BackendId, FakeBackend>>>,
    next: Arc<AtomicU64>,
    /// Shards in the order they were written.
    pub(super) written: Arc<Mutex<Vec<ShardId>>>,
    /// Every write takes so long.
    pub(super) write_delay: Arc<Mutex<Duration>>,
    /// Backends that never answer.
    hung: Arc<Mutex<BTreeSet<BackendId>>>,
    /// Backends whose next listing fails although they answer.
    pub(super) unlisted: Arc<Mutex<BTreeSet<BackendId>>>,
    /// Done once, when a listing is asked for.
    pub(super) on_list: Arc<Mutex<Option<Interruption>>>,
}

impl FakeNode {
    pub(super) fn attach(&self, location: &str, name: &str) -> BackendId {
        let number = u8::try_from(self.next.fetch_add(1, Ordering::Relaxed) + 1).unwrap();
        let id = BackendId([number; 16]);
        let backend = FakeBackend {
            name: name.into(),
            location: location.into(),
            health: BackendHealth::Online,
            shards: BTreeMap::new(),
        };
        self.backends.lock().insert(id, backend);
        id
    }
    pub(super) fn set_health(&self, id: BackendId, health: BackendHealth) {
        let mut backends = self.backends.lock();
        let backend = backends.get_mut(&id).unwrap();
        backend.health = health;
        if health == BackendHealth::Wiped {
            backend.shards.clear();
        }
    }
    pub(super) fn hang(&self, id: BackendId) {
        self.hung.lock().insert(id);
    }
    async fn answer(&self, id: BackendId) {
        if self.hung.lock().contains(&id) {
            std::future::pending::<()>().await;
        }
    }
    pub(super) fn put(&self, id: BackendId, shard: ShardId) {
        let bytes = content(shard);
        let stored = StoredShard { root: root_of(&bytes), bytes, is_rotten: false, is_quarantined: false };
        self.backends.lock().get_mut(&id).unwrap().shards.insert(shard, stored);
    }
    pub(super) fn drop_shard(&self, id: BackendId, shard: ShardId) {
        assert!(self.backends.lock().get_mut(&id).unwrap().shards.remove(&shard).is_some());
    }
    /// What a slot of a PG has on one backend is on another instead.
    pub(super) fn move_slot(&self, pg: PgId, slot: Slot, from: BackendId, to: BackendId) {
        let mut backends = self.backends.lock();
        let mut moved = BTreeMap::new();
        backends.get_mut(&from).unwrap().shards.retain(|id, stored| {
            let stays = (id.pg, id.slot) != (pg, slot);
            if !stays {
                moved.insert(*id, stored.clone());
            }
            stays
        });
        assert!(!moved.is_empty());
        backends.get_mut(&to).unwrap().shards.extend(moved);
    }
    pub(super) fn rot(&self, id: BackendId, shard: ShardId) {
        self.backends.lock().get_mut(&id).unwrap().shards.get_mut(&shard).unwrap().is_rotten = true;
    }
    pub(super) fn holds_good(&self, id: BackendId, shard: ShardId) -> bool {
        let backends = self.backends.lock();
        let stored = backends.get(&id).and_then(|b| b.shards.get(&shard));
        stored.is_some_and(|s| !s.is_rotten && !s.is_quarantined && s.bytes == content(shard))
    }
    pub(super) fn count(&self, id: BackendId) -> usize {
        self.backends.lock().get(&id).map_or(0, |b| b.shards.len())
    }
    pub(super) fn can_read(&self, id: BackendId) -> bool {
        self.backends.lock().get(&id).is_some_and(|b| b.health.can_read())
    }
    fn with<T>(
        &self,
        id: BackendId,
        is_write: bool,
        act: impl FnOnce(&mut FakeBackend) -> Result<T, ShardError>,
    ) -> Result<T, ShardError> {
        let mut backends = self.backends.lock();
        let backend = backends.get_mut(&id).ok_or(ShardError::NoSuchBackend { backend: id })?;
        if is_write && !backend.health.can_write() || !backend.health.can_read() {
            return Err(ShardError::Unavailable { backend: id, reason: format!("{:?}", backend.health) });
        }
        act(backend)
    }
}

struct FakeWriter {
    node: FakeNode,
    backend: BackendId,
    header: ShardHeader,
    bytes: Vec<u8>,
}

#[async_trait]
impl ShardWriter for FakeWriter {
    async fn append(&mut self, cells: Vec<Cell>) -> Result<(), ShardError> {
        for cell in cells {
            assert_eq!(cell.hash, *blake3::hash(&cell.bytes).as_bytes());
            self.bytes.extend_from_slice(&cell.bytes);
        }
        Ok(())
    }
    async fn finish(self: Box<Self>) -> Result<ShardStat, ShardError> {
        let delay = *self.node.write_delay.lock();
        tokio::time::sleep(delay).await;
        assert_eq!(u64::try_from(self.bytes.len()).unwrap(), self.header.shard_bytes);
        let root = root_of(&self.bytes);
        let stored = StoredShard { root, bytes: self.bytes.clone(), is_rotten: false, is_quarantined: false };
        self.node.with(self.backend, true, |backend| {
            backend.shards.insert(self.header.id, stored);
            Ok(())
        })?;
        self.node.written.lock().push(self.header.id);
        Ok(stat(self.header.id, root, self.header.shard_bytes))
    }
}

fn stat(id: ShardId, root: [u8; 32], shard_bytes: u64) -> ShardStat {
    ShardStat { id, shard_bytes, cell_bytes: CELL_BYTES, root, verified_ms: 1 }
}

#[async_trait]
impl NodeClient for FakeNode {
    async fn begin_shard(
        &self,
        backend: BackendId,
        header: ShardHeader,
        _: Epoch,
    ) -> Result<Box<dyn ShardWriter>, ShardError> {
        self.with(backend, true, |_| Ok(()))?;
        Ok(Box::new(FakeWriter { node: self.clone(), backend, header, bytes: Vec::new() }))
    }
    async fn read_shard(
        &self,
        backend: BackendId,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        self.with(backend, false, |b| {
            let stored = b.shards.get(&shard).ok_or(ShardError::NotFound { shard, backend })?;
            if expected_root.is_some_and(|root| root != stored.root) {
                return Err(ShardError::Damaged { shard, backend, reason: "root".into() });
            }
            let cell = CELL_BYTES as usize;
            let range = first as usize * cell..((first + count) as usize * cell).min(stored.bytes.len());
            let damaged = if stored.is_rotten { vec![first] } else { Vec::new() };
            let cell_hashes = stored.bytes.chunks(cell).map(|cell| *blake3::hash(cell).as_bytes()).collect();
            let bytes = Bytes::copy_from_slice(&stored.bytes[range]);
            Ok(ShardRead { header: header_of(shard), bytes, damaged, cell_hashes })
        })
    }
    async fn stat_shard(&self, backend: BackendId, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        self.answer(backend).await;
        self.with(backend, false, |b| {
            let found = b.shards.get(&shard).filter(|s| !s.is_quarantined);
            Ok(found.map(|s| stat(shard, s.root, u64::try_from(s.bytes.len()).unwrap())))
        })
    }
    async fn delete_shards(
        &self,
        backend: BackendId,
        shards: Vec<ShardId>,
        _: Option<Epoch>,
    ) -> Result<(), ShardError> {
        self.answer(backend).await;
        self.with(backend, false, |b| {
            for shard in &shards {
                b.shards.remove(shard);
            }
            Ok(())
        })
    }
    async fn list_shards(
        &self,
        backend: BackendId,
        pg: PgId,
        after: Option<ShardId>,
        limit: usize,
        _: Epoch,
    ) -> Result<Vec<ShardStat>, ShardError> {
        self.answer(backend).await;
        if self.unlisted.lock().remove(&backend) {
            return Err(ShardError::Unavailable { backend, reason: "a hiccup".into() });
        }
        let once = self.on_list.lock().take();
        if let Some(once) = once {
            once();
        }
        let first = ShardId { pg, segment: SegmentId([0; 16]), slot: Slot(0) };
        self.with(backend, false, |b| {
            let from = after.filter(|a| *a >= first).unwrap_or(first);
            let shards = b.shards.range(from..).filter(|(id, s)| Some(**id) != after && !s.is_quarantined);
            let listed = shards.take_while(|(id, _)| id.pg == pg).take(limit);
            Ok(listed.map(|(id, s)| stat(*id, s.root, u64::try_from(s.bytes.len()).unwrap())).collect())
        })
    }
    async fn scrub_shards(
        &self,
        backend: BackendId,
        after: Option<ShardId>,
        _budget_bytes: u64,
    ) -> Result<ScrubStep, ShardError> {
        self.with(backend, false, |b| {
            let mut step = ScrubStep::default();
            let ids: Vec<ShardId> =
                b.shards.keys().filter(|id| after.is_none_or(|a| **id > a)).take(10).copied().collect();
            for id in &ids {
                let shard = b.shards.get_mut(id).unwrap();
                step.shards += 1;
                step.bytes += u64::try_from(shard.bytes.len()).unwrap();
                if shard.is_rotten && !shard.is_quarantined {
                    shard.is_quarantined = true;
                    step.damaged.push(*id);
                }
            }
            step.next = ids.last().copied();
            Ok(step)
        })
    }
    async fn backends(&self) -> Vec<BackendStatus> {
        let status = |(id, b): (&BackendId, &FakeBackend)| BackendStatus {
            id: *id,
            name: b.name.clone(),
            location: b.location.clone(),
            health: b.health,
            reason: String::new(),
            capacity_bytes: if b.health.can_read() { 100 << 30 } else { 0 },
            free_bytes: 50 << 30,
            used_bytes: 0,
            shard_count: u64::try_from(b.shards.len()).unwrap(),
            scrubbed_ms: 0,
        };
        self.backends.lock().iter().map(status).collect()
    }
    async fn add_backend(&self, _: NodeId, location: &str, name: &str) -> Result<BackendStatus, ShardError> {
        let id = self.attach(location, name);
        Ok(self.backends().await.into_iter().find(|s| s.id == id).unwrap())
    }
    async fn remove_backend(&self, backend: BackendId) -> Result<(), ShardError> {
        self.backends.lock().remove(&backend).map(|_| ()).ok_or(ShardError::NoSuchBackend { backend })
    }
}

/// Metadata that knows a cluster map, segments and garbage; everything else is unavailable.
#[derive(Default)]
pub(super) struct FakeMetadata {
    pub(super) map: Mutex<Option<ClusterMap>>,
    pub(super) changes: Mutex<Vec<MapChange>>,
    pub(super) segments: Mutex<BTreeMap<SegmentId, (SegmentOwner, Segment)>>,
    pub(super) garbage: Mutex<BTreeMap<u64, Segment>>,
    pub(super) versions: Mutex<BTreeMap<String, ObjectVersion>>,
}

fn unavailable<T>() -> MetadataResult<T> {
    Err(MetadataError::Unavailable { reason: "not in this fake".into() })
}

#[async_trait]
impl Metadata for FakeMetadata {
    async fn cluster_map(&self) -> MetadataResult<Option<ClusterMap>> {
        Ok(self.map.lock().clone())
    }
    async fn cluster_map_set(&self, expected: Epoch, map: ClusterMap) -> MetadataResult<()> {
        let mut current = self.map.lock();
        let epoch = current.as_ref().map_or(Epoch(0), |m| m.table.epoch);
        if epoch != expected {
            return Err(MetadataError::StaleEpoch { expected, current: epoch });
        }
        assert_eq!(map.table.epoch.0, expected.0 + 1);
        let names: BTreeSet<_> = map.backends.iter().map(|b| b.name.clone()).collect();
        assert_eq!(names.len(), map.backends.len(), "names are unique");
        for pg in &map.table.pgs {
            assert_eq!(pg.target.iter().collect::<BTreeSet<_>>().len(), 6, "targets are distinct");
        }
        self.changes.lock().extend(map.change.clone());
        *current = Some(map);
        Ok(())
    }
    async fn map_history(&self) -> MetadataResult<Vec<MapChange>> {
        Ok(self.changes.lock().iter().rev().cloned().collect())
    }
    fn access_key(&self, _: &str) -> Option<AccessKey> {
        None
    }
    async fn access_key_create(&self, _: AccessKey) -> MetadataResult<()> {
        unavailable()
    }
    async fn access_key_list(&self) -> MetadataResult<Vec<AccessKey>> {
        unavailable()
    }
    async fn access_key_delete(&self, _: &str) -> MetadataResult<()> {
        unavailable()
    }
    fn bucket(&self, name: &str) -> Option<Bucket> {
        (name == "b").then(|| Bucket { id: 1, name: "b".into(), ..Bucket::default() })
    }
    async fn find_bucket(&self, name: &str) -> MetadataResult<Option<Bucket>> {
        Ok(self.bucket(name))
    }
    async fn bucket_create(&self, _: &str, _: &str, _: u64) -> MetadataResult<Bucket> {
        unavailable()
    }
    async fn bucket_list(&self) -> MetadataResult<Vec<Bucket>> {
        Ok(self.bucket("b").into_iter().collect())
    }
    async fn bucket_delete(&self, _: &str) -> MetadataResult<()> {
        unavailable()
    }
    async fn bucket_set_versioning(&self, _: &str, _: Versioning) -> MetadataResult<()> {
        unavailable()
    }
    async fn bucket_set_tags(&self, _: &str, _: Vec<Pair>) -> MetadataResult<()> {
        unavailable()
    }
    async fn writer_session(&self) -> MetadataResult<WriterSession> {
        Ok(WriterSession(1))
    }
    async fn writer_fence(&self, _: NodeId) -> MetadataResult<()> {
        Ok(())
    }
    async fn put_version(&self, _: PutVersion) -> MetadataResult<ObjectVersion> {
        unavailable()
    }
    async fn get_version(&self, _: BucketId, key: &str, _: VersionSelector) -> MetadataResult<Option<ObjectVersion>> {
        Ok(self.versions.lock().get(key).cloned())
    }
    async fn set_tags(&self, _: BucketId, _: &str, _: VersionSelector, _: Vec<Pair>) -> MetadataResult<String> {
        unavailable()
    }
    async fn delete_version(&self, _: DeleteVersion) -> MetadataResult<Deleted> {
        unavailable()
    }
    async fn list(&self, _: BucketId, _: ListRequest) -> MetadataResult<ListPage> {
        unavailable()
    }
    async fn list_versions(&self, _: BucketId, _: ListVersionsRequest) -> MetadataResult<VersionPage> {
        unavailable()
    }
    async fn upload_create(&self, _: BucketId, _: &str, _: Upload) -> MetadataResult<()> {
        unavailable()
    }
    async fn upload_get(&self, _: BucketId, _: &str, _: VersionId) -> MetadataResult<Upload> {
        unavailable()
    }
    async fn part_put(
        &self,
        _: BucketId,
        _: &str,
        _: VersionId,
        _: Part,
        _: Option<WriterSession>,
    ) -> MetadataResult<()> {
        unavailable()
    }
    async fn part_list(&self, _: BucketId, _: &str, _: VersionId, _: u32, _: usize) -> MetadataResult<Vec<Part>> {
        unavailable()
    }
    async fn upload_complete(&self, _: CompleteUpload) -> MetadataResult<ObjectVersion> {
        unavailable()
    }
    async fn upload_abort(&self, _: BucketId, _: &str, _: VersionId) -> MetadataResult<()> {
        unavailable()
    }
    async fn upload_list(&self, _: BucketId, _: ListVersionsRequest) -> MetadataResult<UploadPage> {
        unavailable()
    }
    async fn garbage(&self, limit: usize) -> MetadataResult<Vec<Garbage>> {
        let garbage = self.garbage.lock();
        Ok(garbage
            .iter()
            .take(limit)
            .map(|(sequence, s)| Garbage { sequence: *sequence, segment: s.clone() })
            .collect())
    }
    async fn garbage_done(&self, sequences: Vec<u64>) -> MetadataResult<()> {
        self.garbage.lock().retain(|sequence, _| !sequences.contains(sequence));
        Ok(())
    }
    async fn segment_owner(&self, segment: SegmentId) -> MetadataResult<Option<(SegmentOwner, Segment)>> {
        Ok(self.segments.lock().get(&segment).cloned())
    }
    async fn segments(&self, after: Option<SegmentId>, limit: usize) -> MetadataResult<Vec<(SegmentOwner, Segment)>> {
        let segments = self.segments.lock();
        let page = segments.range(after.unwrap_or_default()..).filter(|(id, _)| Some(**id) != after).take(limit);
        Ok(page.map(|(_, found)| found.clone()).collect())
    }
    async fn segment_set_durable(&self, segment: SegmentId, durable_slots: u64) -> MetadataResult<()> {
        if let Some((_, record)) = self.segments.lock().get_mut(&segment) {
            record.durable_slots = durable_slots;
        }
        Ok(())
    }
    async fn shutdown(&self) -> MetadataResult<()> {
        Ok(())
    }
}

/// Rebuilds by counting: with k good shards where the table says, any other can be made.
pub(super) struct FakeRebuilder {
    pub(super) node: FakeNode,
    pub(super) layout: crate::layout::Layout,
    pub(super) in_flight: Mutex<HashSet<SegmentId>>,
    pub(super) being_read: Mutex<HashSet<SegmentId>>,
    pub(super) rebuilt: AtomicU64,
    /// What a write under way is said to place its shards by.
    pub(super) oldest_epoch: Mutex<Option<Epoch>>,
    /// Some coordinator does not say what it does.
    pub(super) is_silent: AtomicBool,
}

impl FakeRebuilder {
    pub(super) fn new(node: &FakeNode, layout: &crate::layout::Layout) -> Arc<Self> {
        Arc::new(Self {
            node: node.clone(),
            layout: layout.clone(),
            in_flight: Mutex::new(HashSet::new()),
            being_read: Mutex::new(HashSet::new()),
            rebuilt: AtomicU64::new(0),
            oldest_epoch: Mutex::new(None),
            is_silent: AtomicBool::new(false),
        })
    }
}

#[async_trait]
impl ShardRebuilder for FakeRebuilder {
    async fn rebuild(
        &self,
        segment: &Segment,
        _context: RebuildContext,
        wanted: &[(Slot, BackendId)],
    ) -> Result<u64, ObjectError> {
        let map = self.layout.current();
        let needed = Scheme::from_code(SCHEME).unwrap().k();
        let is_present = |slot: Slot| {
            let places = map.table.locations(PgId(segment.pg), slot);
            places.iter().any(|b| self.node.can_read(*b) && self.node.holds_good(*b, segment.shard(slot)))
        };
        let present = (0..6).map(Slot).filter(|slot| is_present(*slot)).count();
        if present < needed {
            return Err(ObjectError::Unreadable {
                segment: segment.segment_id().to_string(),
                present: u32::try_from(present).unwrap(),
                needed: 4,
            });
        }
        let mut bytes = 0;
        for (slot, backend) in wanted {
            let shard = segment.shard(*slot);
            let failed = |e: ShardError| ObjectError::Internal { reason: e.to_string() };
            let mut writer = self.node.begin_shard(*backend, header_of(shard), Epoch(1)).await.map_err(failed)?;
            let all = content(shard);
            for cell in all.chunks(CELL_BYTES as usize) {
                let cell = Cell { hash: *blake3::hash(cell).as_bytes(), bytes: Bytes::copy_from_slice(cell) };
                writer.append(vec![cell]).await.map_err(failed)?;
            }
            writer.finish().await.map_err(failed)?;
            bytes += u64::try_from(all.len()).unwrap();
            self.rebuilt.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes)
    }
}

#[async_trait]
impl ActivitySource for FakeRebuilder {
    async fn activity(&self, epoch: Epoch) -> Result<Activity, ActivityUnknown> {
        if self.is_silent.load(Ordering::Relaxed) {
            return Err(ActivityUnknown { reason: "a coordinator is silent".into() });
        }
        let mut writing: BTreeMap<SegmentId, Epoch> = self.in_flight.lock().iter().map(|id| (*id, epoch)).collect();
        writing.extend(self.oldest_epoch.lock().map(|oldest| (SegmentId([0xEE; 16]), oldest)));
        Ok(Activity { writing, reading: self.being_read.lock().iter().copied().collect() })
    }
}

/// A record of a segment whose shards are `content`.
pub(super) fn segment_record(id: SegmentId, pg: u32) -> Segment {
    let mut segment = Segment {
        id: Bytes::copy_from_slice(id.as_bytes()),
        pg,
        segment_bytes: SEGMENT_BYTES,
        scheme: Bytes::copy_from_slice(&SCHEME),
        cell_bytes: CELL_BYTES,
        shard_roots: Bytes::new(),
        durable_slots: 0b11_1111,
        segment_offset: 0,
        stand_ins: Vec::new(),
    };
    let roots: Vec<u8> = (0..6).flat_map(|slot| root_of(&content(segment.shard(Slot(slot))))).collect();
    segment.shard_roots = Bytes::from(roots);
    segment
}
