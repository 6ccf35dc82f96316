//! Stand-ins for the metadata and for maintenance in this module's tests: keys, buckets and backends in memory.
//! Whatever the administration API never asks answers `Unavailable`.

use super::{AdminFailure, AdminOperations, AdminResult, Code, LayoutOperations};
use crate::metadata::*;
use async_trait::async_trait;
use holdfast_proto::admin::*;
use holdfast_proto::layout_admin::*;
use holdfast_proto::manifest::{AccessKey, Bucket, ObjectVersion, Pair, Part, Segment, Upload, Versioning};
use holdfast_proto::node::{
    BackendHealth, BackendStatus, NodeClient, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter,
};
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, BucketId, ClusterId, Epoch, ErrorKind, NodeId, PgId, SegmentId, ShardId, VersionId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Default)]
pub(crate) struct FakeMetadata {
    pub(crate) keys: Mutex<BTreeMap<String, AccessKey>>,
    pub(crate) buckets: Mutex<BTreeMap<String, Bucket>>,
    pub(crate) down: Mutex<bool>,
    pub(crate) fenced: Mutex<Vec<NodeId>>,
}

fn not_asked<T>() -> MetadataResult<T> {
    Err(MetadataError::Unavailable { reason: "not part of the stand-in".into() })
}

#[async_trait]
impl Metadata for FakeMetadata {
    async fn cluster_map(&self) -> MetadataResult<Option<ClusterMap>> {
        if *self.down.lock() {
            return Err(MetadataError::Unavailable { reason: "log disk gone".into() });
        }
        let table = PgTable { epoch: Epoch(1), scheme: [0; 4], pgs: Vec::new() };
        Ok(Some(ClusterMap::new(ClusterId::default(), table)))
    }
    async fn cluster_map_set(&self, _: Epoch, _: ClusterMap) -> MetadataResult<()> {
        not_asked()
    }
    fn access_key(&self, access_key: &str) -> Option<AccessKey> {
        self.keys.lock().get(access_key).cloned()
    }
    async fn access_key_create(&self, key: AccessKey) -> MetadataResult<()> {
        let mut keys = self.keys.lock();
        if keys.contains_key(&key.access_key) {
            return Err(MetadataError::AccessKeyExists { access_key: key.access_key });
        }
        keys.insert(key.access_key.clone(), key);
        Ok(())
    }
    async fn access_key_list(&self) -> MetadataResult<Vec<AccessKey>> {
        Ok(self.keys.lock().values().cloned().collect())
    }
    async fn access_key_delete(&self, access_key: &str) -> MetadataResult<()> {
        self.keys.lock().remove(access_key);
        Ok(())
    }
    fn bucket(&self, name: &str) -> Option<Bucket> {
        self.buckets.lock().get(name).cloned()
    }
    async fn find_bucket(&self, name: &str) -> MetadataResult<Option<Bucket>> {
        Ok(self.bucket(name))
    }
    async fn bucket_create(&self, name: &str, owner: &str, now_ms: u64) -> MetadataResult<Bucket> {
        let mut buckets = self.buckets.lock();
        if let Some(bucket) = buckets.get(name) {
            return Err(MetadataError::BucketExists { bucket: name.into(), owner: bucket.owner.clone() });
        }
        let bucket = Bucket { name: name.into(), owner: owner.into(), created_ms: now_ms, ..Bucket::default() };
        buckets.insert(name.into(), bucket.clone());
        Ok(bucket)
    }
    async fn bucket_list(&self) -> MetadataResult<Vec<Bucket>> {
        Ok(self.buckets.lock().values().cloned().collect())
    }
    async fn bucket_delete(&self, name: &str) -> MetadataResult<()> {
        if name == "full" {
            return Err(MetadataError::BucketNotEmpty { bucket: name.into() });
        }
        self.buckets.lock().remove(name);
        Ok(())
    }
    async fn bucket_set_versioning(&self, _: &str, _: Versioning) -> MetadataResult<()> {
        not_asked()
    }
    async fn bucket_set_tags(&self, _: &str, _: Vec<Pair>) -> MetadataResult<()> {
        not_asked()
    }
    async fn writer_session(&self) -> MetadataResult<WriterSession> {
        Ok(WriterSession(1))
    }
    async fn writer_fence(&self, node: NodeId) -> MetadataResult<()> {
        if *self.down.lock() {
            return Err(MetadataError::Unavailable { reason: "log disk gone".into() });
        }
        self.fenced.lock().push(node);
        Ok(())
    }
    async fn put_version(&self, _: PutVersion) -> MetadataResult<ObjectVersion> {
        not_asked()
    }
    async fn get_version(&self, _: BucketId, _: &str, _: VersionSelector) -> MetadataResult<Option<ObjectVersion>> {
        not_asked()
    }
    async fn delete_version(&self, _: DeleteVersion) -> MetadataResult<Deleted> {
        not_asked()
    }
    async fn set_tags(&self, _: BucketId, _: &str, _: VersionSelector, _: Vec<Pair>) -> MetadataResult<String> {
        not_asked()
    }
    async fn list(&self, _: BucketId, _: ListRequest) -> MetadataResult<ListPage> {
        not_asked()
    }
    async fn list_versions(&self, _: BucketId, _: ListVersionsRequest) -> MetadataResult<VersionPage> {
        not_asked()
    }
    async fn upload_create(&self, _: BucketId, _: &str, _: Upload) -> MetadataResult<()> {
        not_asked()
    }
    async fn upload_get(&self, _: BucketId, _: &str, _: VersionId) -> MetadataResult<Upload> {
        not_asked()
    }
    async fn part_put(
        &self,
        _: BucketId,
        _: &str,
        _: VersionId,
        _: Part,
        _: Option<WriterSession>,
    ) -> MetadataResult<()> {
        not_asked()
    }
    async fn part_list(&self, _: BucketId, _: &str, _: VersionId, _: u32, _: usize) -> MetadataResult<Vec<Part>> {
        not_asked()
    }
    async fn upload_complete(&self, _: CompleteUpload) -> MetadataResult<ObjectVersion> {
        not_asked()
    }
    async fn upload_abort(&self, _: BucketId, _: &str, _: VersionId) -> MetadataResult<()> {
        not_asked()
    }
    async fn upload_list(&self, _: BucketId, _: ListVersionsRequest) -> MetadataResult<UploadPage> {
        not_asked()
    }
    async fn garbage(&self, _: usize) -> MetadataResult<Vec<Garbage>> {
        not_asked()
    }
    async fn garbage_done(&self, _: Vec<u64>) -> MetadataResult<()> {
        not_asked()
    }
    async fn segment_owner(&self, _: SegmentId) -> MetadataResult<Option<(SegmentOwner, Segment)>> {
        not_asked()
    }
    async fn segments(&self, _: Option<SegmentId>, _: usize) -> MetadataResult<Vec<(SegmentOwner, Segment)>> {
        not_asked()
    }
    async fn segment_set_durable(&self, _: SegmentId, _: u64) -> MetadataResult<()> {
        not_asked()
    }
    async fn shutdown(&self) -> MetadataResult<()> {
        Ok(())
    }
}

/// Six backends, `missing` of them gone.
#[derive(Default)]
pub(crate) struct FakeOperations {
    pub(crate) missing: AtomicUsize,
    pub(crate) probes: AtomicUsize,
    /// Set once a slow `backend_drain` has come to its end.
    pub(crate) drained: Arc<AtomicUsize>,
}

impl FakeOperations {
    fn view(&self, number: usize) -> BackendView {
        let gone = number <= self.missing.load(Ordering::SeqCst);
        let status = BackendStatus {
            id: BackendId([u8::try_from(number).unwrap(); 16]),
            name: format!("d{number}"),
            location: format!("disk:/srv/d{number}"),
            health: if gone { BackendHealth::Missing } else { BackendHealth::Online },
            reason: if gone { "no such directory".into() } else { String::new() },
            capacity_bytes: 1000,
            free_bytes: 900,
            used_bytes: 100,
            shard_count: 5,
            scrubbed_ms: 0,
        };
        BackendView { status, intent: BackendIntent::Active, pg_slots: 64 }
    }
    fn find(&self, backend: &str) -> AdminResult<BackendView> {
        (1..=6).map(|n| self.view(n)).find(|v| v.status.name == backend).ok_or_else(|| {
            AdminFailure::new(Code::NoSuchBackend, ErrorKind::NotFound, format!("no backend {backend:?}"))
        })
    }
}

#[async_trait]
impl AdminOperations for FakeOperations {
    async fn cluster_status(&self) -> AdminResult<ClusterStatus> {
        Ok(ClusterStatus {
            cluster: "c".into(),
            version: "0".into(),
            verdict: Verdict::Healthy,
            findings: Vec::new(),
            scheme: "4+2".into(),
            promise: "any 2 backends".into(),
            survives_now: "any 2 backends".into(),
            bucket_count: 0,
            epoch: Epoch(1),
            s3_endpoint: "http://x".into(),
            uptime_seconds: 1,
            backends: self.backend_list().await?,
            repair: self.repair_status().await?,
        })
    }
    async fn backend_list(&self) -> AdminResult<Vec<BackendView>> {
        self.probes.fetch_add(1, Ordering::SeqCst);
        Ok((1..=6).map(|n| self.view(n)).collect())
    }
    async fn backend_add(&self, add: BackendAdd) -> AdminResult<BackendView> {
        let mut view = self.view(6);
        view.status.location = add.location;
        Ok(view)
    }
    async fn backend_drain(&self, backend: &str) -> AdminResult<BackendView> {
        let found = self.find(backend)?;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        self.drained.fetch_add(1, Ordering::SeqCst);
        Ok(found)
    }
    async fn backend_remove(&self, backend: &str) -> AdminResult<BackendView> {
        let found = self.find(backend)?;
        let message = format!("{} still holds 5 shards", found.status.name);
        Err(AdminFailure::new(Code::BackendNotDrained, ErrorKind::Conflict, message))
    }
    async fn backend_replace(&self, backend: &str, _: BackendAdd) -> AdminResult<BackendView> {
        self.find(backend)
    }
    async fn repair_status(&self) -> AdminResult<RepairStatus> {
        Ok(RepairStatus { state: "idle".into(), margin_target: 2, ..RepairStatus::default() })
    }
    async fn repair_start(&self) -> AdminResult<RepairStatus> {
        self.repair_status().await
    }
    async fn repair_pause(&self) -> AdminResult<RepairStatus> {
        self.repair_status().await
    }
    async fn repair_resume(&self) -> AdminResult<RepairStatus> {
        self.repair_status().await
    }
    async fn scrub_start(&self) -> AdminResult<ScrubStatus> {
        self.scrub_status().await
    }
    async fn scrub_status(&self) -> AdminResult<ScrubStatus> {
        Ok(ScrubStatus { state: "idle".into(), ..ScrubStatus::default() })
    }
    async fn object_inspect(&self, bucket: &str, key: &str, version: Option<&str>) -> AdminResult<ObjectView> {
        Ok(ObjectView {
            bucket: bucket.into(),
            key: key.into(),
            version: version.unwrap_or("null").into(),
            bytes: 0,
            etag: String::new(),
            modified_ms: 0,
            scheme: "4+2".into(),
            inline: true,
            margin: 2,
            segments: Vec::new(),
        })
    }
}

/// It knows no nodes.
#[async_trait]
impl LayoutOperations for FakeOperations {
    async fn node_safe_to_stop(&self, node: &str) -> AdminResult<StopView> {
        Err(no_such_node(node))
    }
    async fn node_drain(&self, node: &str, _: NodeDrain) -> AdminResult<NodeMoveView> {
        Err(no_such_node(node))
    }
    async fn node_drain_cancel(&self, node: &str) -> AdminResult<NodeMoveView> {
        Err(no_such_node(node))
    }
    async fn node_remove(&self, node: &str, _: NodeRemove) -> AdminResult<NodeMoveView> {
        Err(no_such_node(node))
    }
    async fn node_replace(&self, node: &str, _: NodeReplace) -> AdminResult<NodeMoveView> {
        Err(no_such_node(node))
    }
    async fn layout_show(&self) -> AdminResult<LayoutView> {
        Ok(LayoutView {
            epoch: Epoch(1),
            scheme: "4+2".into(),
            promise: "any 2 backends".into(),
            is_promise_chosen: false,
            pg_count: 1,
            proof: None,
            moving_pgs: 0,
            moving_slots: 0,
            is_repair_paused: false,
            are_moves_paused: false,
            domains: Vec::new(),
        })
    }
    async fn layout_history(&self) -> AdminResult<Vec<LayoutChangeView>> {
        Ok(vec![LayoutChangeView { epoch: Epoch(1), at_ms: 1, cause: String::new(), what: vec!["made".into()] }])
    }
    async fn policy_list(&self) -> AdminResult<Vec<PolicyView>> {
        Ok(Vec::new())
    }
    async fn policy_plan(&self, ask: PolicyAsk) -> AdminResult<PolicyPlanView> {
        let survive = ask.survive.unwrap_or_default();
        Ok(PolicyPlanView {
            survive,
            scheme: "4+2".into(),
            is_kept: false,
            refusal: "no".into(),
            unkept: Vec::new(),
            schemes: Vec::new(),
            moves: None,
        })
    }
    async fn policy_create(&self, ask: PolicyAsk) -> AdminResult<PolicyPlanView> {
        let message = format!("{} cannot be kept", ask.survive.unwrap_or_default());
        Err(AdminFailure::new(Code::PromiseRefused, ErrorKind::Conflict, message))
    }
    async fn rebalance_plan(&self) -> AdminResult<MoveView> {
        Err(AdminFailure::new(Code::NoLeader, ErrorKind::Retry, "not part of the stand-in"))
    }
    async fn rebalance_apply(&self, plan: &str) -> AdminResult<MoveView> {
        Err(AdminFailure::new(Code::PlanStale, ErrorKind::Conflict, format!("plan {plan}")))
    }
    async fn rebalance_status(&self) -> AdminResult<RebalanceView> {
        Ok(RebalanceView { state: "idle".into(), ..RebalanceView::default() })
    }
    async fn rebalance_pause(&self) -> AdminResult<RebalanceView> {
        self.rebalance_status().await
    }
    async fn rebalance_resume(&self) -> AdminResult<RebalanceView> {
        self.rebalance_status().await
    }
    async fn rebalance_undo(&self) -> AdminResult<RebalanceView> {
        Err(AdminFailure::new(Code::MovesRefused, ErrorKind::Conflict, "nothing moves"))
    }
}

fn no_such_node(node: &str) -> AdminFailure {
    AdminFailure::new(Code::NoSuchNode, ErrorKind::NotFound, format!("no node named {node}"))
}

/// The same backends as a node reports them; it keeps no shards.
#[async_trait]
impl NodeClient for FakeOperations {
    async fn begin_shard(&self, backend: BackendId, _: ShardHeader, _: Epoch) -> ShardResult<Box<dyn ShardWriter>> {
        Err(ShardError::NoSuchBackend { backend })
    }
    async fn read_shard(
        &self,
        backend: BackendId,
        _: ShardId,
        _: u32,
        _: u32,
        _: Option<[u8; 32]>,
    ) -> ShardResult<ShardRead> {
        Err(ShardError::NoSuchBackend { backend })
    }
    async fn stat_shard(&self, backend: BackendId, _: ShardId) -> ShardResult<Option<ShardStat>> {
        Err(ShardError::NoSuchBackend { backend })
    }
    async fn delete_shards(&self, backend: BackendId, _: Vec<ShardId>, _: Option<Epoch>) -> ShardResult<()> {
        Err(ShardError::NoSuchBackend { backend })
    }
    async fn list_shards(
        &self,
        backend: BackendId,
        _: PgId,
        _: Option<ShardId>,
        _: usize,
        _: Epoch,
    ) -> ShardResult<Vec<ShardStat>> {
        Err(ShardError::NoSuchBackend { backend })
    }
    async fn scrub_shards(&self, backend: BackendId, _: Option<ShardId>, _: u64) -> ShardResult<ScrubStep> {
        Err(ShardError::NoSuchBackend { backend })
    }
    async fn backends(&self) -> Vec<BackendStatus> {
        self.backend_list().await.unwrap().into_iter().map(|view| view.status).collect()
    }
    async fn add_backend(&self, _: NodeId, _: &str, _: &str) -> ShardResult<BackendStatus> {
        Err(ShardError::NoSuchBackend { backend: BackendId::default() })
    }
    async fn remove_backend(&self, backend: BackendId) -> ShardResult<()> {
        Err(ShardError::NoSuchBackend { backend })
    }
}

type ShardResult<T> = Result<T, ShardError>;
