//! Commands of the root group: cluster map, access keys, buckets.

use super::super::api::{ClusterMap, MetadataError};
use super::super::command::{BucketCreate, BucketFence, BucketRemove, BucketTags, BucketVersioning, MapSet, Reply};
use super::super::kv::{Family, KvResult, KvView, Scan};
use super::super::map_change::MapChange;
use super::{Apply, Step, decode, invalid, read_u64};
use holdfast_proto::Epoch;
use holdfast_proto::manifest::{AccessKey, Bucket, Versioning};
use prost::Message;

const MAP: &[u8] = b"map";
const NEXT_BUCKET: &[u8] = b"next-bucket";
const BUCKETS: &[u8] = b"bucket/";
const KEYS: &[u8] = b"key/";
const CHANGES: &[u8] = b"change/";

/// Changes of the map that are remembered: a few months of a cluster that is at rest, a day of one that is not. Applied on
/// every replica alike, so it never gets another value.
const CHANGES_KEPT: u64 = 256;
/// One that says more is not remembered: nobody would read it.
const CHANGE_BYTES_MAX: usize = 4096;

fn change_row(epoch: u64) -> Vec<u8> {
    [CHANGES, &epoch.to_be_bytes()].concat()
}

fn row(prefix: &[u8], name: &str) -> Vec<u8> {
    [prefix, name.as_bytes()].concat()
}

impl<V: KvView> Apply<'_, V> {
    pub(super) fn map_set(&mut self, command: &MapSet) -> Step<Reply> {
        let Ok(map) = serde_json::from_slice::<ClusterMap>(&command.map) else {
            return Err(invalid("a cluster map that does not parse"));
        };
        let stored = self.view.get(Family::Root, MAP)?;
        if stored.as_deref() == Some(&command.map[..]) {
            return Ok(Reply::Done);
        }
        let current = cluster_map_row(self.view)?.map_or(Epoch(0), |m| m.table.epoch);
        let expected = Epoch(command.expected);
        if current != expected {
            return Err(MetadataError::StaleEpoch { expected, current }.into());
        }
        if map.table.epoch != Epoch(command.expected + 1) {
            return Err(invalid(format!("epoch {} after {expected}", map.table.epoch)));
        }
        self.batch.put(Family::Root, MAP.to_vec(), command.map.to_vec());
        self.remember_change(&map);
        Ok(Reply::Done)
    }

    /// Keeps what the map says of its own change, and forgets the oldest.
    fn remember_change(&mut self, map: &ClusterMap) {
        let bytes = map.change.as_ref().and_then(|change| serde_json::to_vec(change).ok());
        let epoch = map.table.epoch.0;
        if let Some(bytes) = bytes.filter(|bytes| bytes.len() <= CHANGE_BYTES_MAX) {
            self.batch.put(Family::Root, change_row(epoch), bytes);
        }
        if let Some(old) = epoch.checked_sub(CHANGES_KEPT) {
            self.batch.delete(Family::Root, change_row(old));
        }
    }

    pub(super) fn key_create(&mut self, key: &AccessKey) -> Step<Reply> {
        let at = row(KEYS, &key.access_key);
        match self.view.get(Family::Root, &at)? {
            Some(stored) if stored == key.encode_to_vec() => Ok(Reply::Done),
            Some(_) => Err(MetadataError::AccessKeyExists { access_key: key.access_key.clone() }.into()),
            None => {
                self.batch.put(Family::Root, at, key.encode_to_vec());
                Ok(Reply::Done)
            }
        }
    }

    pub(super) fn key_delete(&mut self, access_key: &str) -> Step<Reply> {
        let at = row(KEYS, access_key);
        let Some(stored) = self.view.get(Family::Root, &at)? else {
            return Err(MetadataError::NoSuchAccessKey { access_key: access_key.to_owned() }.into());
        };
        if decode::<AccessKey>(Family::Root, &stored)?.is_root {
            return Err(invalid("the root key cannot be deleted"));
        }
        self.batch.delete(Family::Root, at);
        Ok(Reply::Done)
    }

    pub(super) fn bucket_create(&mut self, command: &BucketCreate) -> Step<Reply> {
        let at = row(BUCKETS, &command.name);
        if let Some(stored) = self.view.get(Family::Root, &at)? {
            let owner = decode::<Bucket>(Family::Root, &stored)?.owner;
            return Err(MetadataError::BucketExists { bucket: command.name.clone(), owner }.into());
        }
        let id = read_u64(self.view.get(Family::Root, NEXT_BUCKET)?).max(1);
        let bucket = Bucket {
            id,
            name: command.name.clone(),
            created_ms: command.now_ms,
            owner: command.owner.clone(),
            versioning: Versioning::Unversioned as i32,
            tags: Vec::new(),
            deleting: false,
        };
        self.batch.put(Family::Root, NEXT_BUCKET.to_vec(), (id + 1).to_be_bytes().to_vec());
        self.batch.put(Family::Root, at, bucket.encode_to_vec());
        Ok(Reply::Bucket(Box::new(bucket)))
    }

    pub(super) fn bucket_fence(&mut self, command: &BucketFence) -> Step<Reply> {
        self.change_bucket(&command.name, |bucket| bucket.deleting = command.on)
    }

    pub(super) fn bucket_remove(&mut self, command: &BucketRemove) -> Step<Reply> {
        let at = row(BUCKETS, &command.name);
        let missing = || MetadataError::NoSuchBucket { bucket: command.name.clone() };
        let bucket: Bucket = decode(Family::Root, &self.view.get(Family::Root, &at)?.ok_or_else(missing)?)?;
        if bucket.id != command.id || !bucket.deleting {
            return Err(missing().into());
        }
        self.batch.delete(Family::Root, at);
        Ok(Reply::Done)
    }

    pub(super) fn bucket_versioning(&mut self, command: &BucketVersioning) -> Step<Reply> {
        if command.versioning == Versioning::Unversioned as i32 {
            return Err(invalid("versioning can be suspended but not taken back"));
        }
        self.change_bucket(&command.name, |bucket| bucket.versioning = command.versioning)
    }

    pub(super) fn bucket_tags(&mut self, command: &BucketTags) -> Step<Reply> {
        self.change_bucket(&command.name, |bucket| bucket.tags = command.tags.clone())
    }

    fn change_bucket(&mut self, name: &str, change: impl FnOnce(&mut Bucket)) -> Step<Reply> {
        let at = row(BUCKETS, name);
        let Some(stored) = self.view.get(Family::Root, &at)? else {
            return Err(MetadataError::NoSuchBucket { bucket: name.to_owned() }.into());
        };
        let mut bucket: Bucket = decode(Family::Root, &stored)?;
        change(&mut bucket);
        self.batch.put(Family::Root, at, bucket.encode_to_vec());
        Ok(Reply::Bucket(Box::new(bucket)))
    }
}

/// The cluster map, if there is one.
pub(in super::super) fn cluster_map_row<V: KvView>(view: &V) -> KvResult<Option<ClusterMap>> {
    let Some(stored) = view.get(Family::Root, MAP)? else { return Ok(None) };
    serde_json::from_slice(&stored)
        .map(Some)
        .map_err(|e| super::KvError { reason: format!("damaged cluster map: {e}") })
}

/// The remembered changes of the map, newest first.
pub(in super::super) fn change_rows<V: KvView>(view: &V) -> KvResult<Vec<MapChange>> {
    let mut found = Vec::new();
    view.scan(Family::Root, CHANGES, &mut |key, value, _| {
        if !key.starts_with(CHANGES) {
            return Ok(Scan::Stop);
        }
        let damaged = |e| super::KvError { reason: format!("damaged change of the cluster map: {e}") };
        found.push(serde_json::from_slice(value).map_err(damaged)?);
        Ok(Scan::Next)
    })?;
    found.reverse();
    Ok(found)
}

/// All buckets by name.
pub(in super::super) fn bucket_rows<V: KvView>(view: &V) -> KvResult<Vec<Bucket>> {
    rows(view, BUCKETS)
}

/// All access keys by name.
pub(in super::super) fn key_rows<V: KvView>(view: &V) -> KvResult<Vec<AccessKey>> {
    rows(view, KEYS)
}

pub(super) fn rows<V: KvView, M: Message + Default>(view: &V, prefix: &[u8]) -> KvResult<Vec<M>> {
    let mut found = Vec::new();
    view.scan(Family::Root, prefix, &mut |key, value, _| {
        if !key.starts_with(prefix) {
            return Ok(Scan::Stop);
        }
        found.push(decode(Family::Root, value)?);
        Ok(Scan::Next)
    })?;
    Ok(found)
}
