//! The calls of the trait: each goes to the group that holds its key, to the root group, or to all ranges.

use super::super::api::*;
use super::super::command::{self, Kind, Reply};
use super::super::group::done;
use super::super::keys;
use super::super::map_change::MapChange;
use super::super::query::{Found, Query};
use super::super::raft_machine::state_error;
use super::super::state;
use super::{KEY_BYTES_MAX, MetadataStore, ROOT, unexpected, unexpected_found};
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_proto::manifest::{AccessKey, Bucket, ObjectVersion, Pair, Part, Segment, Upload, Versioning};
use holdfast_proto::{BucketId, Epoch, NodeId, SegmentId, VersionId};
use std::collections::BTreeSet;

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
        self.read_root(state::cluster_map_row).await
    }

    async fn map_history(&self) -> MetadataResult<Vec<MapChange>> {
        self.read_root(state::change_rows).await
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
        self.read_root(state::key_rows).await
    }

    async fn access_key_delete(&self, access_key: &str) -> MetadataResult<()> {
        done(self.propose_root(Kind::KeyDelete(access_key.to_owned())).await?)
    }

    fn bucket(&self, name: &str) -> Option<Bucket> {
        self.inner.cache.read().buckets.get(name).filter(|b| !b.deleting).cloned()
    }

    async fn find_bucket(&self, name: &str) -> MetadataResult<Option<Bucket>> {
        if let Some(bucket) = self.bucket(name) {
            return Ok(Some(bucket));
        }
        self.root_barrier().await?;
        Ok(self.bucket(name))
    }

    async fn bucket_create(&self, name: &str, owner: &str, now_ms: u64) -> MetadataResult<Bucket> {
        let create = command::BucketCreate { name: name.to_owned(), owner: owner.to_owned(), now_ms };
        match self.propose_root(Kind::BucketCreate(create)).await? {
            Reply::Bucket(bucket) => Ok(*bucket),
            other => Err(unexpected(other)),
        }
    }

    async fn bucket_list(&self) -> MetadataResult<Vec<Bucket>> {
        let mut all = self.read_root(state::bucket_rows).await?;
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

    async fn writer_session(&self) -> MetadataResult<WriterSession> {
        self.open_session().await
    }

    async fn writer_fence(&self, node: NodeId) -> MetadataResult<()> {
        self.fence_sessions(node).await
    }

    async fn put_version(&self, put: PutVersion) -> MetadataResult<ObjectVersion> {
        check_key(&put.key)?;
        let (bucket, key) = (put.bucket, put.key.clone());
        let command = command::Put {
            bucket: put.bucket.0,
            conditions: (&put.preconditions).into(),
            versioning: put.versioning as i32,
            version: put.version,
            key: put.key,
        };
        let session = put.session.map(|session| session.0);
        let at = keys::object(bucket, &key);
        version_reply(self.inner.propose_in(session, &at, Kind::Put(command)).await?)
    }

    async fn get_version(
        &self,
        bucket: BucketId,
        key: &str,
        selector: VersionSelector,
    ) -> MetadataResult<Option<ObjectVersion>> {
        match self.inner.query(Query::Version { bucket, key: key.to_owned(), selector }).await? {
            Found::Version(version) => Ok(version.map(|version| *version)),
            other => Err(unexpected_found(other)),
        }
    }

    async fn delete_version(&self, delete: DeleteVersion) -> MetadataResult<Deleted> {
        check_key(&delete.key)?;
        let (bucket, key) = (delete.bucket, delete.key.clone());
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
        match self.propose_key(bucket, &key, Kind::Delete(command)).await? {
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
        match self.propose_key(bucket, key, Kind::SetTags(set)).await? {
            Reply::VersionName(name) => Ok(name),
            other => Err(unexpected(other)),
        }
    }

    async fn list(&self, bucket: BucketId, request: ListRequest) -> MetadataResult<ListPage> {
        self.list_ranges(bucket, request).await
    }

    async fn list_versions(&self, bucket: BucketId, request: ListVersionsRequest) -> MetadataResult<VersionPage> {
        self.list_version_ranges(bucket, request).await
    }

    async fn upload_create(&self, bucket: BucketId, key: &str, upload: Upload) -> MetadataResult<()> {
        check_key(key)?;
        let create = command::UploadCreate { bucket: bucket.0, key: key.to_owned(), upload };
        done(self.propose_key(bucket, key, Kind::UploadCreate(create)).await?)
    }

    async fn upload_get(&self, bucket: BucketId, key: &str, upload: VersionId) -> MetadataResult<Upload> {
        match self.inner.query(Query::Upload { bucket, key: key.to_owned(), upload }).await? {
            Found::Upload(found) => found.ok_or(MetadataError::NoSuchUpload { upload }),
            other => Err(unexpected_found(other)),
        }
    }

    async fn part_put(
        &self,
        bucket: BucketId,
        key: &str,
        upload: VersionId,
        part: Part,
        session: Option<WriterSession>,
    ) -> MetadataResult<()> {
        let put = command::PartPut { bucket: bucket.0, key: key.to_owned(), upload: id_bytes(upload), part };
        let session = session.map(|session| session.0);
        done(self.inner.propose_in(session, &keys::object(bucket, key), Kind::PartPut(put)).await?)
    }

    async fn part_list(
        &self,
        bucket: BucketId,
        key: &str,
        upload: VersionId,
        after: u32,
        limit: usize,
    ) -> MetadataResult<Vec<Part>> {
        match self.inner.query(Query::Parts { bucket, key: key.to_owned(), upload, after, limit }).await? {
            Found::Parts(found) => found.ok_or(MetadataError::NoSuchUpload { upload }),
            other => Err(unexpected_found(other)),
        }
    }

    async fn upload_complete(&self, complete: CompleteUpload) -> MetadataResult<ObjectVersion> {
        let (bucket, key) = (complete.bucket, complete.key.clone());
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
        version_reply(self.propose_key(bucket, &key, Kind::UploadComplete(command)).await?)
    }

    async fn upload_abort(&self, bucket: BucketId, key: &str, upload: VersionId) -> MetadataResult<()> {
        let abort = command::KeyAndId { bucket: bucket.0, key: key.to_owned(), id: id_bytes(upload) };
        done(self.propose_key(bucket, key, Kind::UploadAbort(abort)).await?)
    }

    async fn upload_list(&self, bucket: BucketId, request: ListVersionsRequest) -> MetadataResult<UploadPage> {
        self.list_upload_ranges(bucket, request).await
    }

    async fn garbage(&self, limit: usize) -> MetadataResult<Vec<Garbage>> {
        self.garbage_of_ranges(limit).await
    }

    async fn garbage_done(&self, sequences: Vec<u64>) -> MetadataResult<()> {
        self.garbage_done_in_ranges(sequences).await
    }

    async fn segment_owner(&self, segment: SegmentId) -> MetadataResult<Option<(SegmentOwner, Segment)>> {
        self.segment_owner_in_ranges(segment).await
    }

    async fn segments(&self, after: Option<SegmentId>, limit: usize) -> MetadataResult<Vec<(SegmentOwner, Segment)>> {
        self.segments_of_ranges(after, limit).await
    }

    async fn segment_set_durable(&self, segment: SegmentId, durable_slots: u64) -> MetadataResult<()> {
        // Its range follows from who refers to it; a segment without an owner has nothing to mark.
        let Some((owner, _)) = self.segment_owner_in_ranges(segment).await? else { return Ok(()) };
        let set = command::SegmentDurable { segment: Bytes::copy_from_slice(&segment.0), durable_slots };
        done(self.propose_key(owner.bucket, &owner.key, Kind::SegmentDurable(set)).await?)
    }

    fn thin_groups(&self) -> Vec<ThinGroup> {
        let (of_root, of_range) = self.inner.wanted_voters();
        let thin = |(group, voters): (u32, BTreeSet<NodeId>)| {
            let (voters, wanted) = (voters.len(), if group == ROOT { of_root } else { of_range });
            (voters < wanted).then_some(ThinGroup { group, voters, wanted })
        };
        self.voters().into_iter().filter_map(thin).collect()
    }

    async fn shutdown(&self) -> MetadataResult<()> {
        for task in self.inner.tasks.lock().drain(..) {
            task.abort();
        }
        self.inner.groups.shutdown().await?;
        let inner = self.inner.clone();
        let flushed = self.inner.state.off_thread(move |state| {
            let flushed = state.flush();
            inner.log.stop();
            state.stop();
            flushed
        });
        flushed.await.map_err(state_error)
    }
}
