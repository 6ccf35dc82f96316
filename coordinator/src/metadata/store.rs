//! `MetadataStore`: opens the groups, routes each call to its group, and answers reads from the applied state.
//!
//! Groups: 0 is the root group; ranges follow. One range covers everything until ranges split; nothing outside
//! `range_of` knows that.

use super::api::*;
use super::command::{self, Command, Kind, Reply};
use super::consensus::Consensus;
use super::group::{Group, done};
use super::keys;
use super::kv::{Family, KvResult, KvView, Scan};
use super::listing;
use super::log_store::LogDatabase;
use super::raft_machine::{GroupState, RootCache, state_error};
use super::state;
use super::state_store::{FLUSH_BYTES, StateStore, StateView};
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_proto::manifest::{AccessKey, Bucket, ObjectVersion, Pair, Part, Segment, Upload, Versioning};
use holdfast_proto::{BucketId, ClusterId, Epoch, SegmentId, VersionId};
use parking_lot::{Mutex, RwLock};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

mod bucket_removal;
mod membership;
mod room;

use room::Room;

/// The root group's number.
const ROOT: u32 = 0;
/// The range that covers every key.
const RANGE: u32 = 1;
/// The state is flushed at least this often when something was written: bounds replay by time.
const FLUSH_PERIOD: Duration = Duration::from_secs(60);
/// How often the need to flush is looked at.
const FLUSH_TICK: Duration = Duration::from_millis(250);
/// Keys are at most this long.
const KEY_BYTES_MAX: usize = 1024;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct MetadataOptions {
    /// Holds everything; made if absent.
    pub directory: PathBuf,
    /// The cluster's id, used only when the directory is new.
    pub new_cluster_id: ClusterId,
}

/// The metadata of one machine. Cheap to clone.
#[derive(Clone)]
pub struct MetadataStore {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: ClusterId,
    root: Group,
    range: Group,
    state: Arc<StateStore>,
    log: Arc<LogDatabase>,
    cache: Arc<RwLock<RootCache>>,
    room: Room,
    flusher: Mutex<Option<JoinHandle<()>>>,
    bucket_removal: tokio::sync::Mutex<()>,
}

impl MetadataStore {
    /// Opens or makes the store. When this returns, everything ever acknowledged is there and readable. A second
    /// process on the same directory is refused.
    pub async fn open(options: MetadataOptions) -> MetadataResult<Self> {
        let directory = options.directory.clone();
        let new_id = options.new_cluster_id;
        let opened = tokio::task::spawn_blocking(move || open_files(&directory, new_id)).await;
        let (cluster, log, state) =
            opened.map_err(|e| MetadataError::Unavailable { reason: format!("open the metadata: {e}") })??;
        let cache = Arc::new(RwLock::new(RootCache::default()));
        let root_state = Arc::new(GroupState::new(ROOT, state.clone(), Some(cache.clone())));
        let range_state = Arc::new(GroupState::new(RANGE, state.clone(), None));
        let root = Group::open(ROOT, log.clone(), root_state).await?;
        let range = Group::open(RANGE, log.clone(), range_state).await?;
        let room = Room::new(options.directory);
        let (flusher, bucket_removal) = (Mutex::new(None), tokio::sync::Mutex::new(()));
        let inner = Arc::new(Inner { cluster, root, range, state, log, cache, room, flusher, bucket_removal });
        *inner.flusher.lock() = Some(tokio::spawn(flush_loop(Arc::downgrade(&inner))));
        let store = Self { inner };
        store.finish_removals().await?;
        Ok(store)
    }

    /// The cluster whose metadata this is.
    pub fn cluster_id(&self) -> ClusterId {
        self.inner.cluster
    }

    /// The group that holds a key.
    fn range_of(&self, _bucket: BucketId, _key: &str) -> &Group {
        &self.inner.range
    }

    async fn propose(&self, group: &Group, kind: Kind) -> MetadataResult<Reply> {
        self.inner.room.admit(&kind)?;
        group.propose(Command { kind: Some(kind) }).await
    }

    async fn propose_root(&self, kind: Kind) -> MetadataResult<Reply> {
        self.propose(&self.inner.root, kind).await
    }

    /// A point read, on the caller's thread: a few microseconds from cache, one disk read at worst.
    async fn read<T>(&self, group: &Group, read: impl FnOnce(&StateStore) -> KvResult<T>) -> MetadataResult<T> {
        group.read_barrier().await?;
        read(&self.inner.state).map_err(state_error)
    }

    /// A scan, off the async threads, of the state as it is at one moment.
    async fn scan<T: Send + 'static>(
        &self,
        group: &Group,
        scan: impl FnOnce(&StateView<'_>) -> KvResult<T> + Send + 'static,
    ) -> MetadataResult<T> {
        group.read_barrier().await?;
        let state = self.inner.state.clone();
        tokio::task::spawn_blocking(move || scan(&state.view()))
            .await
            .map_err(|e| MetadataError::Unavailable { reason: format!("scan: {e}") })?
            .map_err(state_error)
    }
}

fn open_files(directory: &Path, new_id: ClusterId) -> MetadataResult<(ClusterId, Arc<LogDatabase>, Arc<StateStore>)> {
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
    Ok((cluster, log, state))
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

/// Flushes by bytes and by time; the groups then drop their logs up to there.
async fn flush_loop(inner: std::sync::Weak<Inner>) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(FLUSH_TICK).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.room.look();
        let bytes = inner.state.unflushed_bytes();
        if bytes < FLUSH_BYTES && (bytes == 0 || last.elapsed() < FLUSH_PERIOD) {
            continue;
        }
        last = Instant::now();
        for group in [&inner.range, &inner.root] {
            if let Err(error) = group.flush().await {
                tracing::warn!(%error, "flush the metadata state");
            }
        }
    }
}

fn unexpected(reply: Reply) -> MetadataError {
    MetadataError::Unavailable { reason: format!("unexpected reply {reply:?}") }
}

fn version_reply(reply: Reply) -> MetadataResult<ObjectVersion> {
    match reply {
        Reply::Version(version) => Ok(*version),
        other => Err(unexpected(other)),
    }
}

fn id_bytes(id: VersionId) -> Bytes {
    Bytes::copy_from_slice(&id.0)
}

fn check_key(key: &str) -> MetadataResult<()> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(MetadataError::Invalid {
            reason: format!("a key has 1..={KEY_BYTES_MAX} bytes, not {}", key.len()),
        });
    }
    Ok(())
}

#[async_trait]
impl Metadata for MetadataStore {
    async fn cluster_map(&self) -> MetadataResult<Option<ClusterMap>> {
        self.read(&self.inner.root, state::cluster_map_row).await
    }

    async fn cluster_map_set(&self, expected: Epoch, map: ClusterMap) -> MetadataResult<()> {
        let map = serde_json::to_vec(&map).map_err(|e| MetadataError::Invalid { reason: e.to_string() })?;
        done(self.propose_root(Kind::MapSet(command::MapSet { expected: expected.0, map: map.into() })).await?)
    }

    fn access_key(&self, access_key: &str) -> Option<AccessKey> {
        self.inner.cache.read().keys.get(access_key).cloned()
    }

    async fn access_key_create(&self, key: AccessKey) -> MetadataResult<()> {
        done(self.propose_root(Kind::KeyCreate(key)).await?)
    }

    async fn access_key_list(&self) -> MetadataResult<Vec<AccessKey>> {
        self.read(&self.inner.root, state::key_rows).await
    }

    async fn access_key_delete(&self, access_key: &str) -> MetadataResult<()> {
        done(self.propose_root(Kind::KeyDelete(access_key.to_owned())).await?)
    }

    fn bucket(&self, name: &str) -> Option<Bucket> {
        self.inner.cache.read().buckets.get(name).filter(|b| !b.deleting).cloned()
    }

    async fn bucket_create(&self, name: &str, owner: &str, now_ms: u64) -> MetadataResult<Bucket> {
        let create = command::BucketCreate { name: name.to_owned(), owner: owner.to_owned(), now_ms };
        match self.propose_root(Kind::BucketCreate(create)).await? {
            Reply::Bucket(bucket) => Ok(*bucket),
            other => Err(unexpected(other)),
        }
    }

    async fn bucket_list(&self) -> MetadataResult<Vec<Bucket>> {
        let mut all = self.read(&self.inner.root, state::bucket_rows).await?;
        all.retain(|b| !b.deleting);
        Ok(all)
    }

    async fn bucket_delete(&self, name: &str) -> MetadataResult<()> {
        let (store, name) = (self.clone(), name.to_owned());
        // In a task of its own: once begun it comes to its end, whatever becomes of the caller.
        let removing = tokio::spawn(async move { store.remove_bucket(&name).await });
        removing.await.map_err(|e| MetadataError::Unavailable { reason: format!("remove a bucket: {e}") })?
    }

    async fn bucket_set_versioning(&self, name: &str, versioning: Versioning) -> MetadataResult<()> {
        let set = command::BucketVersioning { name: name.to_owned(), versioning: versioning as i32 };
        done(self.propose_root(Kind::BucketVersioning(set)).await?)
    }

    async fn bucket_set_tags(&self, name: &str, tags: Vec<Pair>) -> MetadataResult<()> {
        done(self.propose_root(Kind::BucketTags(command::BucketTags { name: name.to_owned(), tags })).await?)
    }

    async fn put_version(&self, put: PutVersion) -> MetadataResult<ObjectVersion> {
        check_key(&put.key)?;
        let range = self.range_of(put.bucket, &put.key);
        let command = command::Put {
            bucket: put.bucket.0,
            conditions: (&put.preconditions).into(),
            versioning: put.versioning as i32,
            version: put.version,
            key: put.key,
        };
        version_reply(self.propose(range, Kind::Put(command)).await?)
    }

    async fn get_version(
        &self,
        bucket: BucketId,
        key: &str,
        selector: VersionSelector,
    ) -> MetadataResult<Option<ObjectVersion>> {
        self.read(self.range_of(bucket, key), |state| find_whole(state, bucket, key, selector)).await
    }

    async fn delete_version(&self, delete: DeleteVersion) -> MetadataResult<Deleted> {
        check_key(&delete.key)?;
        let range = self.range_of(delete.bucket, &delete.key);
        let command = command::Delete {
            bucket: delete.bucket.0,
            selector: delete.selector.into(),
            versioning: delete.versioning as i32,
            marker: id_bytes(delete.marker),
            now_ms: delete.now_ms,
            owner: delete.owner,
            conditions: (&delete.preconditions).into(),
            key: delete.key,
        };
        match self.propose(range, Kind::Delete(command)).await? {
            Reply::Deleted(deleted) => Ok(deleted),
            other => Err(unexpected(other)),
        }
    }

    async fn set_tags(
        &self,
        bucket: BucketId,
        key: &str,
        selector: VersionSelector,
        tags: Vec<Pair>,
    ) -> MetadataResult<String> {
        let set = command::SetTags { bucket: bucket.0, key: key.to_owned(), selector: selector.into(), tags };
        match self.propose(self.range_of(bucket, key), Kind::SetTags(set)).await? {
            Reply::VersionName(name) => Ok(name),
            other => Err(unexpected(other)),
        }
    }

    async fn list(&self, bucket: BucketId, request: ListRequest) -> MetadataResult<ListPage> {
        self.scan(self.range_of(bucket, &request.after), move |s| listing::list(s, bucket, &request)).await
    }

    async fn list_versions(&self, bucket: BucketId, request: ListVersionsRequest) -> MetadataResult<VersionPage> {
        self.scan(self.range_of(bucket, &request.key_marker), move |s| listing::list_versions(s, bucket, &request))
            .await
    }

    async fn upload_create(&self, bucket: BucketId, key: &str, upload: Upload) -> MetadataResult<()> {
        check_key(key)?;
        let create = command::UploadCreate { bucket: bucket.0, key: key.to_owned(), upload };
        done(self.propose(self.range_of(bucket, key), Kind::UploadCreate(create)).await?)
    }

    async fn upload_get(&self, bucket: BucketId, key: &str, upload: VersionId) -> MetadataResult<Upload> {
        self.read(self.range_of(bucket, key), |s| state::load_upload(s, bucket, key, upload))
            .await?
            .ok_or(MetadataError::NoSuchUpload { upload })
    }

    async fn part_put(&self, bucket: BucketId, key: &str, upload: VersionId, part: Part) -> MetadataResult<()> {
        let put = command::PartPut { bucket: bucket.0, key: key.to_owned(), upload: id_bytes(upload), part };
        done(self.propose(self.range_of(bucket, key), Kind::PartPut(put)).await?)
    }

    async fn part_list(
        &self,
        bucket: BucketId,
        key: &str,
        upload: VersionId,
        after: u32,
        limit: usize,
    ) -> MetadataResult<Vec<Part>> {
        let owned = key.to_owned();
        self.scan(self.range_of(bucket, key), move |s| {
            if state::load_upload(s, bucket, &owned, upload)?.is_none() {
                return Ok(None);
            }
            state::list_parts(s, bucket, &owned, upload, after, limit).map(Some)
        })
        .await?
        .ok_or(MetadataError::NoSuchUpload { upload })
    }

    async fn upload_complete(&self, complete: CompleteUpload) -> MetadataResult<ObjectVersion> {
        let range = self.range_of(complete.bucket, &complete.key);
        let command = command::UploadComplete {
            put: command::Put {
                bucket: complete.bucket.0,
                key: complete.key,
                version: complete.version,
                versioning: complete.versioning as i32,
                conditions: (&complete.preconditions).into(),
            },
            upload: id_bytes(complete.upload),
            parts: complete.parts.into_iter().map(|(number, etag)| command::PartName { number, etag }).collect(),
        };
        version_reply(self.propose(range, Kind::UploadComplete(command)).await?)
    }

    async fn upload_abort(&self, bucket: BucketId, key: &str, upload: VersionId) -> MetadataResult<()> {
        let abort = command::KeyAndId { bucket: bucket.0, key: key.to_owned(), id: id_bytes(upload) };
        done(self.propose(self.range_of(bucket, key), Kind::UploadAbort(abort)).await?)
    }

    async fn upload_list(&self, bucket: BucketId, request: ListVersionsRequest) -> MetadataResult<UploadPage> {
        self.scan(self.range_of(bucket, &request.key_marker), move |s| listing::list_uploads(s, bucket, &request)).await
    }

    async fn garbage(&self, limit: usize) -> MetadataResult<Vec<Garbage>> {
        self.scan(&self.inner.range, move |s| garbage_rows(s, limit)).await
    }

    async fn garbage_done(&self, sequences: Vec<u64>) -> MetadataResult<()> {
        if sequences.is_empty() {
            return Ok(());
        }
        done(self.propose(&self.inner.range, Kind::GarbageDone(command::GarbageDone { sequences })).await?)
    }

    async fn segment_owner(&self, segment: SegmentId) -> MetadataResult<Option<(SegmentOwner, Segment)>> {
        self.read(&self.inner.range, |s| state::segment_record(&s.view(), segment)).await
    }

    async fn segments(&self, after: Option<SegmentId>, limit: usize) -> MetadataResult<Vec<(SegmentOwner, Segment)>> {
        self.scan(&self.inner.range, move |s| segment_rows(s, after, limit)).await
    }

    async fn segment_set_durable(&self, segment: SegmentId, durable_slots: u64) -> MetadataResult<()> {
        let segment = Bytes::copy_from_slice(&segment.0);
        let set = command::SegmentDurable { segment, durable_slots };
        done(self.propose(&self.inner.range, Kind::SegmentDurable(set)).await?)
    }

    async fn shutdown(&self) -> MetadataResult<()> {
        let flusher = self.inner.flusher.lock().take();
        if let Some(flusher) = flusher {
            flusher.abort();
        }
        self.inner.range.shutdown().await?;
        self.inner.root.shutdown().await?;
        let inner = self.inner.clone();
        let stopped = tokio::task::spawn_blocking(move || {
            let flushed = inner.state.flush();
            inner.log.stop();
            inner.state.stop();
            flushed
        });
        let flushed = stopped.await.map_err(|e| MetadataError::Unavailable { reason: format!("stop: {e}") })?;
        flushed.map_err(state_error)
    }
}

/// A version with its inline bytes.
fn find_whole(
    state: &StateStore,
    bucket: BucketId,
    key: &str,
    selector: VersionSelector,
) -> KvResult<Option<ObjectVersion>> {
    // Nearly every read is of a current version, and one row tells which that is. Its inline bytes are another row: a
    // write in between shows as missing bytes.
    if selector == VersionSelector::Current {
        let Some((_, version)) = state::find_version(state, bucket, key, selector)? else { return Ok(None) };
        if let Ok(whole) = state::load_inline(state, bucket, version) {
            return Ok(Some(whole));
        }
    }
    let view = state.view();
    let found = state::find_version(&view, bucket, key, selector)?;
    found.map(|(_, version)| state::load_inline(&view, bucket, version)).transpose()
}

fn garbage_rows(state: &impl KvView, limit: usize) -> KvResult<Vec<Garbage>> {
    let prefix = keys::group_row(RANGE, "");
    let mut found = Vec::new();
    state.scan(Family::Garbage, &prefix, &mut |key, value, _| {
        let Some(sequence) = key.strip_prefix(prefix.as_slice()).and_then(|s| s.try_into().ok()) else {
            return Ok(Scan::Stop);
        };
        if found.len() == limit {
            return Ok(Scan::Stop);
        }
        found.push(Garbage { sequence: u64::from_be_bytes(sequence), segment: state::decode(Family::Garbage, value)? });
        Ok(Scan::Next)
    })?;
    Ok(found)
}

fn segment_rows(state: &impl KvView, after: Option<SegmentId>, limit: usize) -> KvResult<Vec<(SegmentOwner, Segment)>> {
    let mut ids = Vec::new();
    let from = after.map(|id| [id.0.as_slice(), &[0]].concat()).unwrap_or_default();
    state.scan(Family::Segments, &from, &mut |key, _, _| {
        if ids.len() == limit {
            return Ok(Scan::Stop);
        }
        ids.extend(SegmentId::from_slice(key));
        Ok(Scan::Next)
    })?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        found.extend(state::segment_record(state, id)?);
    }
    Ok(found)
}
