//! Metadata in memory: what the object path calls, and refusals as told. Everything else answers `Unavailable`.

use crate::metadata::*;
use async_trait::async_trait;
use holdfast_proto::manifest::{AccessKey, Bucket, ObjectVersion, Pair, Part, Segment, Upload, Versioning};
use holdfast_proto::{BucketId, Epoch, NodeId, SegmentId, VersionId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Semaphore;

pub(crate) struct FakeMetadata {
    pub(crate) versions: Mutex<BTreeMap<String, ObjectVersion>>,
    pub(crate) parts: Mutex<BTreeMap<u32, Part>>,
    pub(crate) uploads: Mutex<Vec<VersionId>>,
    /// What the next writes answer.
    pub(crate) refusal: Mutex<Option<MetadataError>>,
    /// Writes panic.
    pub(crate) panics: AtomicBool,
    /// Writes take a permit each.
    pub(crate) gate: Semaphore,
    pub(crate) session: AtomicU64,
    /// What is stored, if it is newer than what the object path knows.
    pub(crate) newer_map: Mutex<Option<ClusterMap>>,
}

impl Default for FakeMetadata {
    fn default() -> Self {
        Self {
            versions: Mutex::default(),
            parts: Mutex::default(),
            uploads: Mutex::default(),
            refusal: Mutex::default(),
            panics: AtomicBool::default(),
            gate: Semaphore::new(1_000_000),
            session: AtomicU64::new(1),
            newer_map: Mutex::default(),
        }
    }
}

fn absent<T>() -> MetadataResult<T> {
    Err(MetadataError::Unavailable { reason: "not in this fake".into() })
}

impl FakeMetadata {
    async fn pass(&self) -> MetadataResult<()> {
        self.gate.acquire().await.unwrap().forget();
        assert!(!self.panics.load(Ordering::SeqCst), "on purpose");
        self.refusal.lock().clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Metadata for FakeMetadata {
    async fn cluster_map(&self) -> MetadataResult<Option<ClusterMap>> {
        Ok(self.newer_map.lock().clone())
    }
    async fn cluster_map_set(&self, _: Epoch, _: ClusterMap) -> MetadataResult<()> {
        absent()
    }
    fn access_key(&self, _: &str) -> Option<AccessKey> {
        None
    }
    async fn access_key_create(&self, _: AccessKey) -> MetadataResult<()> {
        absent()
    }
    async fn access_key_list(&self) -> MetadataResult<Vec<AccessKey>> {
        absent()
    }
    async fn access_key_delete(&self, _: &str) -> MetadataResult<()> {
        absent()
    }
    fn bucket(&self, _: &str) -> Option<Bucket> {
        None
    }
    async fn find_bucket(&self, name: &str) -> MetadataResult<Option<Bucket>> {
        Ok(self.bucket(name))
    }
    async fn bucket_create(&self, _: &str, _: &str, _: u64) -> MetadataResult<Bucket> {
        absent()
    }
    async fn bucket_list(&self) -> MetadataResult<Vec<Bucket>> {
        absent()
    }
    async fn bucket_delete(&self, _: &str) -> MetadataResult<()> {
        absent()
    }
    async fn bucket_set_versioning(&self, _: &str, _: Versioning) -> MetadataResult<()> {
        absent()
    }
    async fn bucket_set_tags(&self, _: &str, _: Vec<Pair>) -> MetadataResult<()> {
        absent()
    }
    async fn writer_session(&self) -> MetadataResult<WriterSession> {
        Ok(WriterSession(self.session.load(Ordering::SeqCst)))
    }
    async fn writer_fence(&self, _: NodeId) -> MetadataResult<()> {
        Ok(())
    }
    async fn put_version(&self, put: PutVersion) -> MetadataResult<ObjectVersion> {
        self.pass().await?;
        self.versions.lock().insert(put.key, put.version.clone());
        Ok(put.version)
    }
    async fn get_version(&self, _: BucketId, key: &str, _: VersionSelector) -> MetadataResult<Option<ObjectVersion>> {
        Ok(self.versions.lock().get(key).cloned())
    }
    async fn delete_version(&self, _: DeleteVersion) -> MetadataResult<Deleted> {
        absent()
    }
    async fn set_tags(&self, _: BucketId, _: &str, _: VersionSelector, _: Vec<Pair>) -> MetadataResult<String> {
        absent()
    }
    async fn list(&self, _: BucketId, _: ListRequest) -> MetadataResult<ListPage> {
        absent()
    }
    async fn list_versions(&self, _: BucketId, _: ListVersionsRequest) -> MetadataResult<VersionPage> {
        absent()
    }
    async fn upload_create(&self, _: BucketId, _: &str, _: Upload) -> MetadataResult<()> {
        absent()
    }
    async fn upload_get(&self, _: BucketId, _: &str, upload: VersionId) -> MetadataResult<Upload> {
        match self.uploads.lock().contains(&upload) {
            true => Ok(Upload::default()),
            false => Err(MetadataError::NoSuchUpload { upload }),
        }
    }
    async fn part_put(
        &self,
        _: BucketId,
        _: &str,
        _: VersionId,
        part: Part,
        _: Option<WriterSession>,
    ) -> MetadataResult<()> {
        self.pass().await?;
        self.parts.lock().insert(part.number, part);
        Ok(())
    }
    async fn part_list(&self, _: BucketId, _: &str, _: VersionId, _: u32, _: usize) -> MetadataResult<Vec<Part>> {
        absent()
    }
    async fn upload_complete(&self, _: CompleteUpload) -> MetadataResult<ObjectVersion> {
        absent()
    }
    async fn upload_abort(&self, _: BucketId, _: &str, _: VersionId) -> MetadataResult<()> {
        absent()
    }
    async fn upload_list(&self, _: BucketId, _: ListVersionsRequest) -> MetadataResult<UploadPage> {
        absent()
    }
    async fn garbage(&self, _: usize) -> MetadataResult<Vec<Garbage>> {
        absent()
    }
    async fn garbage_done(&self, _: Vec<u64>) -> MetadataResult<()> {
        absent()
    }
    async fn segment_owner(&self, _: SegmentId) -> MetadataResult<Option<(SegmentOwner, Segment)>> {
        absent()
    }
    async fn segments(&self, _: Option<SegmentId>, _: usize) -> MetadataResult<Vec<(SegmentOwner, Segment)>> {
        absent()
    }
    async fn segment_set_durable(&self, _: SegmentId, _: u64) -> MetadataResult<()> {
        absent()
    }
    async fn shutdown(&self) -> MetadataResult<()> {
        Ok(())
    }
}
