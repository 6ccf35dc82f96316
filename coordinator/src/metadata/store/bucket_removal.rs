//! How a bucket is removed: looked at, fenced in the root group, fenced in its ranges if they are empty, forgotten.
//!
//! **Invariant:** a bucket that holds anything is neither hidden nor closed for writes by an attempt to remove it, and an
//! attempt that ends halfway (a crash) is carried to its end by the next start.

use super::super::api::{MetadataError, MetadataResult};
use super::super::command::{BucketFence, BucketRemove, Kind, RangeFence, Reply};
use super::super::group::done;
use super::super::keys;
use super::super::query::{Found, Query};
use super::{MetadataStore, unexpected, unexpected_found};
use bytes::Bytes;
use holdfast_proto::BucketId;
use holdfast_proto::manifest::Bucket;

impl MetadataStore {
    /// Removes the bucket if it is empty. One at a time: each undoes its own fence only.
    pub(super) async fn remove_bucket(&self, name: &str) -> MetadataResult<()> {
        let _one_at_a_time = self.inner.bucket_removal.lock().await;
        let found = self.inner.cache.read().buckets.get(name).cloned();
        let bucket = found.ok_or_else(|| MetadataError::NoSuchBucket { bucket: name.to_owned() })?;
        let id = BucketId(bucket.id);
        // The usual refusal; so that requests under way do not meet a fence for a moment.
        if !bucket.deleting && !self.looks_empty(id).await? {
            return Err(MetadataError::BucketNotEmpty { bucket: name.to_owned() });
        }
        let fence = |on| Kind::BucketFence(BucketFence { name: name.to_owned(), on });
        match self.propose_root(fence(true)).await? {
            Reply::Bucket(fenced) if fenced.id == bucket.id => {}
            other => return Err(unexpected(other)),
        }
        if self.fence_ranges(id, true).await? {
            let remove = BucketRemove { name: name.to_owned(), id: id.0 };
            return done(self.propose_root(Kind::BucketRemove(remove)).await?);
        }
        self.fence_ranges(id, false).await?;
        self.propose_root(fence(false)).await?;
        Err(MetadataError::BucketNotEmpty { bucket: name.to_owned() })
    }

    async fn looks_empty(&self, bucket: BucketId) -> MetadataResult<bool> {
        let (mut from, past) = borders(bucket);
        loop {
            let found = self.inner.query(Query::IsEmpty { bucket, from }).await?;
            let Found::IsEmpty(is_empty, end) = found else { return Err(unexpected_found(found)) };
            if !is_empty || end.is_empty() || end >= past {
                return Ok(is_empty);
            }
            from = end;
        }
    }

    /// Fences the ranges that hold keys of the bucket, or opens them again, one after the other along the keys: each says
    /// where it ends, so that one split off meanwhile is not left out. Returns whether all are empty; stops at the first
    /// that is to be fenced and is not.
    async fn fence_ranges(&self, bucket: BucketId, on: bool) -> MetadataResult<bool> {
        let (mut from, past) = borders(bucket);
        loop {
            // Where the bucket begins goes without saying, as it did when there was one range.
            let at = if from == keys::bucket_prefix(bucket) { Bytes::new() } else { Bytes::from(from.clone()) };
            let fence = RangeFence { bucket: bucket.0, on, at };
            let (is_empty, end) = match self.inner.propose_at(&from, Kind::RangeFence(fence)).await? {
                Reply::Fenced { is_empty, end } => (is_empty, end),
                other => return Err(unexpected(other)),
            };
            if (on && !is_empty) || end.is_empty() || end[..] >= past[..] {
                return Ok(is_empty);
            }
            from = end.to_vec();
        }
    }

    /// Carries removals to their end that a crash had cut short: until then such a bucket is hidden.
    pub(super) async fn finish_removals(&self) -> MetadataResult<()> {
        let is_begun = |bucket: &&Bucket| bucket.deleting;
        let begun: Vec<String> =
            self.inner.cache.read().buckets.values().filter(is_begun).map(|bucket| bucket.name.clone()).collect();
        for name in begun {
            match self.remove_bucket(&name).await {
                Ok(()) => tracing::info!(bucket = name, "a removal that had been cut short is done"),
                Err(MetadataError::BucketNotEmpty { .. }) => {
                    tracing::info!(bucket = name, "a removal that had been cut short is undone: the bucket is in use");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Where a bucket's keys begin, and where those of the next do.
fn borders(bucket: BucketId) -> (Vec<u8>, Vec<u8>) {
    let prefix = keys::bucket_prefix(bucket);
    let past = keys::after_prefix(&prefix);
    (prefix, past)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{ListRequest, Metadata, MetadataOptions, Preconditions, PutVersion};
    use holdfast_proto::manifest::{ObjectVersion, Versioning};
    use holdfast_proto::{ClusterId, VersionId};
    use std::path::Path;

    async fn open(directory: &Path) -> MetadataStore {
        let options = MetadataOptions { directory: directory.to_owned(), new_cluster_id: ClusterId([7; 16]) };
        MetadataStore::open(options).await.unwrap()
    }

    async fn put(store: &MetadataStore, bucket: &Bucket, key: &str) -> MetadataResult<ObjectVersion> {
        let version = ObjectVersion {
            version: Bytes::copy_from_slice(&VersionId::from_parts(5, [1; 10]).0),
            object_bytes: 1,
            inline: Bytes::from_static(b"x"),
            ..ObjectVersion::default()
        };
        let put = PutVersion {
            bucket: BucketId(bucket.id),
            key: key.to_owned(),
            version,
            versioning: Versioning::Unversioned,
            preconditions: Preconditions::default(),
            session: None,
        };
        store.put_version(put).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_removal_cut_short_is_undone_or_done_by_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        let (full, empty) = (store.bucket_create("full", "o", 1).await, store.bucket_create("empty", "o", 1).await);
        let (full, empty) = (full.unwrap(), empty.unwrap());
        put(&store, &full, "k").await.unwrap();
        for bucket in [&full, &empty] {
            let fence = BucketFence { name: bucket.name.clone(), on: true };
            store.propose_root(Kind::BucketFence(fence)).await.unwrap();
            store.fence_ranges(BucketId(bucket.id), true).await.unwrap();
        }
        assert_eq!(store.bucket("full"), None, "hidden while it is being removed");
        store.shutdown().await.unwrap();
        drop(store);

        let store = open(directory.path()).await;
        assert_eq!(store.bucket("full").map(|bucket| bucket.id), Some(full.id));
        put(&store, &full, "another").await.expect("writes are taken again");
        assert_eq!(store.bucket("empty"), None);
        let anew = store.bucket_create("empty", "o", 2).await.expect("the name is free");
        // What a removal of the bucket before it proposed late.
        let late = BucketRemove { name: "empty".to_owned(), id: empty.id };
        let refused = store.propose_root(Kind::BucketRemove(late)).await;
        assert_eq!(refused, Err(MetadataError::NoSuchBucket { bucket: "empty".to_owned() }));
        assert_eq!(store.bucket("empty").map(|bucket| bucket.id), Some(anew.id));
        store.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_bucket_in_use_stays_in_use_while_it_is_tried_to_be_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        let bucket = store.bucket_create("b", "o", 1).await.unwrap();
        put(&store, &bucket, "k").await.unwrap();
        let removals = tokio::spawn({
            let store = store.clone();
            async move {
                for _ in 0..50 {
                    let refused = store.bucket_delete("b").await;
                    assert_eq!(refused, Err(MetadataError::BucketNotEmpty { bucket: "b".to_owned() }));
                }
            }
        });
        let mut writes = 0;
        while !removals.is_finished() || writes == 0 {
            assert!(store.bucket("b").is_some());
            put(&store, &bucket, &format!("k{writes}")).await.unwrap();
            writes += 1;
        }
        removals.await.unwrap();
        // A caller that goes away does not stop a removal halfway.
        store.bucket_create("gone", "o", 1).await.unwrap();
        drop(futures::poll!(Box::pin(store.bucket_delete("gone"))));
        let _ = store.bucket_delete("gone").await;
        assert_eq!(store.bucket("gone"), None);
        let page = store.list(BucketId(bucket.id), ListRequest { limit: 10, ..ListRequest::default() }).await.unwrap();
        assert!(!page.entries.is_empty());
        store.shutdown().await.unwrap();
    }
}
