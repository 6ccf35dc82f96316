//! Commands on object versions: put, delete, tags, and what becomes garbage by them.
//!
//! Invariant: a key's newest version is in `Objects`, all others are in `Versions`; at most one version of a key is
//! `null`; a segment is in the reverse index exactly while a version or part refers to it.

use super::super::api::{Deleted, MetadataError, SegmentOwner, VersionSelector};
use super::super::command::{Conditions, Delete, Etags, Put, Reply, SegmentDurable, SetTags};
use super::super::keys;
use super::super::kv::{Family, KvResult, KvView, Scan};
use super::{Apply, Step, decode, has_inline, has_prefix, invalid, version_of};
use bytes::Bytes;
use holdfast_proto::manifest::{ObjectVersion, Part, Segment, Versioning};
use holdfast_proto::{BucketId, SegmentId, VersionId};
use prost::Message;

/// Who refers to a segment, as stored.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SegmentRow {
    #[prost(uint64, tag = "1")]
    bucket: u64,
    #[prost(string, tag = "2")]
    key: String,
    /// Version or, with a part number, upload.
    #[prost(bytes = "bytes", tag = "3")]
    version: Bytes,
    #[prost(uint32, optional, tag = "4")]
    part: Option<u32>,
}

/// Where a version was found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Place {
    Current,
    Older,
}

impl<V: KvView> Apply<'_, V> {
    pub(super) fn put(&mut self, command: &Put) -> Step<Reply> {
        let bucket = BucketId(command.bucket);
        let id = version_of(&command.version.version);
        if let Some((_, stored)) = find_version(self.view, bucket, &command.key, VersionSelector::Id(id))? {
            return Ok(Reply::Version(Box::new(with_inline(stored, &command.version))));
        }
        if let Some(stored) = self.made_under_another_id(command)? {
            return Ok(Reply::Version(Box::new(stored)));
        }
        self.check_fence(bucket)?;
        let current = current(self.view, bucket, &command.key)?;
        check_conditions(&command.conditions, current.as_ref())?;
        let stored = self.make_current(bucket, &command.key, command.version.clone(), command.versioning, current)?;
        Ok(Reply::Version(Box::new(stored)))
    }

    /// The version that this command made before, had its id to be raised (`make_current`). Without this a retry would
    /// free the very segments it refers to.
    fn made_under_another_id(&self, command: &Put) -> Step<Option<ObjectVersion>> {
        let Some(first) = command.version.segments.first() else { return Ok(None) };
        let Some(row) = segment_row(self.view, first.segment_id())? else { return Ok(None) };
        if row.bucket != command.bucket || row.key != command.key || row.part.is_some() {
            return Err(invalid("a segment of this version belongs to another object"));
        }
        let selector = VersionSelector::Id(version_of(&row.version));
        Ok(find_version(self.view, BucketId(row.bucket), &row.key, selector)?.map(|(_, stored)| stored))
    }

    /// Makes `version` the newest of its key, by the bucket's versioning; what it replaces becomes garbage or an older
    /// version.
    pub(super) fn make_current(
        &mut self,
        bucket: BucketId,
        key: &str,
        mut version: ObjectVersion,
        versioning: i32,
        current: Option<ObjectVersion>,
    ) -> Step<ObjectVersion> {
        version.is_null = versioning != Versioning::Enabled as i32;
        // A clock that went back must not put a newer version behind an older one.
        if let Some(current) = &current {
            let (new, old) = (version.version_id(), current.version_id());
            if new <= old {
                version.version = Bytes::copy_from_slice(&successor(old).0);
            }
        }
        self.displace(bucket, key, current, version.is_null)?;
        self.index_segments(bucket, key, version.version_id(), None, &version.segments);
        self.write_version(Place::Current, bucket, key, &version);
        Ok(version)
    }

    /// Takes the current version out of the way of a new one: kept as an older version, or freed where the new one
    /// is `null` too. A `null` version among the older ones is freed if the new one is `null`.
    fn displace(&mut self, bucket: BucketId, key: &str, current: Option<ObjectVersion>, null: bool) -> Step<()> {
        let mut current_was_null = false;
        if let Some(current) = current {
            current_was_null = current.is_null;
            if current.is_null && null {
                self.free_version(bucket, &current)?;
            } else {
                self.write_record(Place::Older, bucket, key, &current);
            }
        }
        if null
            && !current_was_null
            && let Some(older) = older_null(self.view, bucket, key)?
        {
            self.batch.delete(Family::Versions, keys::version(bucket, key, older.version_id()));
            self.free_version(bucket, &older)?;
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, command: &Delete) -> Step<Reply> {
        let bucket = BucketId(command.bucket);
        let key = command.key.as_str();
        let current = current(self.view, bucket, key)?;
        let marker = version_of(&command.marker);
        if let Some(current) = &current {
            // The answer to a retry: this very marker is in place.
            if current.delete_marker && current.version_id() == marker {
                return Ok(Reply::Deleted(Deleted { version: Some(current.s3_version_id()), delete_marker: true }));
            }
        }
        match command.selector.to_api() {
            VersionSelector::Current => {
                check_delete_conditions(&command.conditions, current.as_ref())?;
                self.delete_current(command, bucket, marker, current)
            }
            selector => self.delete_one(&command.conditions, bucket, key, selector),
        }
    }

    fn delete_current(
        &mut self,
        command: &Delete,
        bucket: BucketId,
        marker: VersionId,
        current: Option<ObjectVersion>,
    ) -> Step<Reply> {
        let key = command.key.as_str();
        // Versioning may have been switched on after the caller looked: what was written since is not to be lost, so
        // the delete is made by a marker then.
        let mut versioning = command.versioning;
        if versioning == Versioning::Unversioned as i32
            && (current.as_ref().is_some_and(|current| !current.is_null)
                || has_prefix(self.view, Family::Versions, &keys::key_prefix(bucket, key))?)
        {
            versioning = Versioning::Suspended as i32;
        }
        if versioning == Versioning::Unversioned as i32 {
            if let Some(current) = current {
                self.free_version(bucket, &current)?;
                self.batch.delete(Family::Objects, keys::object(bucket, key));
            }
            return Ok(Reply::Deleted(Deleted { version: None, delete_marker: false }));
        }
        self.check_fence(bucket)?;
        let version = ObjectVersion {
            version: Bytes::copy_from_slice(&marker.0),
            delete_marker: true,
            modified_ms: command.now_ms,
            owner: command.owner.clone(),
            ..ObjectVersion::default()
        };
        let stored = self.make_current(bucket, key, version, versioning, current)?;
        Ok(Reply::Deleted(Deleted { version: Some(stored.s3_version_id()), delete_marker: true }))
    }

    fn delete_one(
        &mut self,
        conditions: &Conditions,
        bucket: BucketId,
        key: &str,
        selector: VersionSelector,
    ) -> Step<Reply> {
        let asked = match selector {
            VersionSelector::Id(id) => id.to_string(),
            _ => "null".to_owned(),
        };
        let found = find_version(self.view, bucket, key, selector)?;
        check_delete_conditions(conditions, found.as_ref().map(|(_, v)| v))?;
        let Some((place, version)) = found else {
            return Ok(Reply::Deleted(Deleted { version: Some(asked), delete_marker: false }));
        };
        self.free_version(bucket, &version)?;
        match place {
            Place::Older => self.batch.delete(Family::Versions, keys::version(bucket, key, version.version_id())),
            Place::Current => match newest_older(self.view, bucket, key)? {
                Some(next) => {
                    self.batch.delete(Family::Versions, keys::version(bucket, key, next.version_id()));
                    self.write_record(Place::Current, bucket, key, &next);
                }
                None => self.batch.delete(Family::Objects, keys::object(bucket, key)),
            },
        }
        Ok(Reply::Deleted(Deleted { version: Some(asked), delete_marker: version.delete_marker }))
    }

    pub(super) fn set_tags(&mut self, command: &SetTags) -> Step<Reply> {
        let bucket = BucketId(command.bucket);
        let selector = command.selector.to_api();
        let Some((place, mut version)) = find_version(self.view, bucket, &command.key, selector)? else {
            return Err(missing(selector).into());
        };
        if version.delete_marker {
            return Err(missing(selector).into());
        }
        version.attributes.get_or_insert_default().tags = command.tags.clone();
        self.write_record(place, bucket, &command.key, &version);
        Ok(Reply::VersionName(version.s3_version_id()))
    }

    pub(super) fn segment_durable(&mut self, command: &SegmentDurable) -> Step<Reply> {
        let Some(id) = SegmentId::from_slice(&command.segment) else { return Ok(Reply::Done) };
        let Some(row) = segment_row(self.view, id)? else { return Ok(Reply::Done) };
        let bucket = BucketId(row.bucket);
        let mark = |segments: &mut [Segment]| {
            for segment in segments.iter_mut().filter(|s| s.segment_id() == id) {
                segment.durable_slots = command.durable_slots;
            }
        };
        let owner = version_of(&row.version);
        if let Some(number) = row.part {
            let at = keys::part(bucket, &row.key, owner, number);
            if let Some(stored) = self.view.get(Family::Uploads, &at)? {
                let mut part: Part = decode(Family::Uploads, &stored)?;
                mark(&mut part.segments);
                self.batch.put(Family::Uploads, at, part.encode_to_vec());
            }
        } else if let Some((place, mut version)) =
            find_version(self.view, bucket, &row.key, VersionSelector::Id(owner))?
        {
            mark(&mut version.segments);
            self.write_record(place, bucket, &row.key, &version);
        }
        Ok(Reply::Done)
    }

    /// Writes a new version: its record, and its inline bytes apart.
    fn write_version(&mut self, place: Place, bucket: BucketId, key: &str, version: &ObjectVersion) {
        if has_inline(version) {
            self.batch.put(Family::Inline, keys::inline(bucket, version.version_id()), version.inline.to_vec());
        }
        self.write_record(place, bucket, key, version);
    }

    fn write_record(&mut self, place: Place, bucket: BucketId, key: &str, version: &ObjectVersion) {
        let record = ObjectVersion { inline: Bytes::new(), ..version.clone() }.encode_to_vec();
        match place {
            Place::Current => self.batch.put(Family::Objects, keys::object(bucket, key), record),
            Place::Older => self.batch.put(Family::Versions, keys::version(bucket, key, version.version_id()), record),
        }
    }

    pub(super) fn index_segments(
        &mut self,
        bucket: BucketId,
        key: &str,
        version: VersionId,
        part: Option<u32>,
        segments: &[Segment],
    ) {
        let row =
            SegmentRow { bucket: bucket.0, key: key.to_owned(), version: Bytes::copy_from_slice(&version.0), part }
                .encode_to_vec();
        for segment in segments {
            self.batch.put(Family::Segments, keys::segment(segment.segment_id()), row.clone());
        }
    }

    /// Frees what a version holds (its record is its caller's to remove).
    fn free_version(&mut self, bucket: BucketId, version: &ObjectVersion) -> Step<()> {
        if has_inline(version) {
            self.batch.delete(Family::Inline, keys::inline(bucket, version.version_id()));
        }
        self.free_segments(&version.segments)
    }
}

/// The next id after `id`: one more in its random part.
fn successor(id: VersionId) -> VersionId {
    VersionId(u128::from_be_bytes(id.0).wrapping_add(1).to_be_bytes())
}

fn missing(selector: VersionSelector) -> MetadataError {
    match selector {
        VersionSelector::Current => MetadataError::NoSuchKey,
        VersionSelector::Null => MetadataError::NoSuchVersion { version: "null".to_owned() },
        VersionSelector::Id(id) => MetadataError::NoSuchVersion { version: id.to_string() },
    }
}

fn with_inline(stored: ObjectVersion, sent: &ObjectVersion) -> ObjectVersion {
    ObjectVersion { inline: sent.inline.clone(), ..stored }
}

fn etag_matches(condition: &Etags, version: &ObjectVersion) -> bool {
    condition.any || condition.list.contains(&version.etag)
}

/// `If-Match` and `If-None-Match` of a write against the current version; a delete marker counts as none.
pub(super) fn check_conditions(conditions: &Conditions, current: Option<&ObjectVersion>) -> Step<()> {
    let live = current.filter(|v| !v.delete_marker);
    if let Some(condition) = &conditions.if_match {
        match live {
            None => return Err(MetadataError::NoSuchKey.into()),
            Some(version) if !etag_matches(condition, version) => {
                return Err(MetadataError::PreconditionFailed { condition: "If-Match" }.into());
            }
            Some(_) => {}
        }
    }
    if let (Some(condition), Some(version)) = (&conditions.if_none_match, live)
        && etag_matches(condition, version)
    {
        return Err(MetadataError::PreconditionFailed { condition: "If-None-Match" }.into());
    }
    Ok(())
}

/// Conditions of a DELETE. `If-Match` on a key that is not there fails with `NoSuchKey`, and on a delete marker with
/// `PreconditionFailed`; size and time, as S3 has them, let a key that is not there pass, for then nothing is removed.
fn check_delete_conditions(conditions: &Conditions, version: Option<&ObjectVersion>) -> Step<()> {
    let failed = |condition| Err(MetadataError::PreconditionFailed { condition }.into());
    if conditions.if_match.is_some() && version.is_some_and(|v| v.delete_marker) {
        return failed("If-Match");
    }
    check_conditions(conditions, version)?;
    let Some(version) = version else { return Ok(()) };
    if conditions.if_match_modified_ms.is_some_and(|ms| ms / 1000 != version.modified_ms / 1000) {
        return failed("x-amz-if-match-last-modified-time");
    }
    if conditions.if_match_bytes.is_some_and(|bytes| bytes != version.object_bytes) {
        return failed("x-amz-if-match-size");
    }
    Ok(())
}

fn current<V: KvView>(view: &V, bucket: BucketId, key: &str) -> KvResult<Option<ObjectVersion>> {
    view.get(Family::Objects, &keys::object(bucket, key))?.map(|v| decode(Family::Objects, &v)).transpose()
}

/// The first older version of a key that `wanted` accepts, newest first.
fn older<V: KvView>(
    view: &V,
    bucket: BucketId,
    key: &str,
    wanted: impl Fn(&ObjectVersion) -> bool,
) -> KvResult<Option<ObjectVersion>> {
    let prefix = keys::key_prefix(bucket, key);
    let mut found = None;
    view.scan(Family::Versions, &prefix, &mut |stored, value, _| {
        if !stored.starts_with(&prefix) {
            return Ok(Scan::Stop);
        }
        let version: ObjectVersion = decode(Family::Versions, value)?;
        if wanted(&version) {
            found = Some(version);
            return Ok(Scan::Stop);
        }
        Ok(Scan::Next)
    })?;
    Ok(found)
}

fn older_null<V: KvView>(view: &V, bucket: BucketId, key: &str) -> KvResult<Option<ObjectVersion>> {
    older(view, bucket, key, |v| v.is_null)
}

fn newest_older<V: KvView>(view: &V, bucket: BucketId, key: &str) -> KvResult<Option<ObjectVersion>> {
    older(view, bucket, key, |_| true)
}

/// A version and where it is, without its inline bytes.
pub(in super::super) fn find_version<V: KvView>(
    view: &V,
    bucket: BucketId,
    key: &str,
    selector: VersionSelector,
) -> KvResult<Option<(Place, ObjectVersion)>> {
    let current = current(view, bucket, key)?;
    let matches = |v: &ObjectVersion| match selector {
        VersionSelector::Current => true,
        VersionSelector::Null => v.is_null,
        VersionSelector::Id(id) => v.version_id() == id,
    };
    if let Some(version) = current.filter(matches) {
        return Ok(Some((Place::Current, version)));
    }
    let older = match selector {
        VersionSelector::Current => None,
        VersionSelector::Null => older_null(view, bucket, key)?,
        VersionSelector::Id(id) => {
            let stored = view.get(Family::Versions, &keys::version(bucket, key, id))?;
            stored.map(|v| decode(Family::Versions, &v)).transpose()?
        }
    };
    Ok(older.map(|v| (Place::Older, v)))
}

/// Fills in the inline bytes of a version that has some.
pub(in super::super) fn load_inline<V: KvView>(
    view: &V,
    bucket: BucketId,
    mut version: ObjectVersion,
) -> KvResult<ObjectVersion> {
    if has_inline(&version) {
        let stored = view.get(Family::Inline, &keys::inline(bucket, version.version_id()))?;
        let bytes = stored.filter(|b| b.len() as u64 == version.object_bytes).ok_or_else(|| super::KvError {
            reason: format!("inline bytes of version {} are missing or cut", version.version_id()),
        })?;
        version.inline = bytes.into();
    }
    Ok(version)
}

/// The bucket and key that a row of `Segments` names.
pub(in super::super) fn owner_of(row: &[u8]) -> KvResult<(BucketId, String)> {
    let row: SegmentRow = decode(Family::Segments, row)?;
    Ok((BucketId(row.bucket), row.key))
}

fn segment_row<V: KvView>(view: &V, id: SegmentId) -> KvResult<Option<SegmentRow>> {
    view.get(Family::Segments, &keys::segment(id))?.map(|v| decode(Family::Segments, &v)).transpose()
}

/// Who refers to a segment, and its record.
pub(in super::super) fn segment_record<V: KvView>(
    view: &V,
    id: SegmentId,
) -> KvResult<Option<(SegmentOwner, Segment)>> {
    let Some(row) = segment_row(view, id)? else { return Ok(None) };
    let bucket = BucketId(row.bucket);
    let version = version_of(&row.version);
    let segments = match row.part {
        Some(number) => view
            .get(Family::Uploads, &keys::part(bucket, &row.key, version, number))?
            .map(|v| decode::<Part>(Family::Uploads, &v))
            .transpose()?
            .map(|p| p.segments),
        None => find_version(view, bucket, &row.key, VersionSelector::Id(version))?.map(|(_, v)| v.segments),
    };
    let found = segments.into_iter().flatten().find(|s| s.segment_id() == id);
    Ok(found.map(|segment| (SegmentOwner { bucket, key: row.key, version, part: row.part }, segment)))
}
