//! Commands of multipart uploads. Uploads and parts are keyed under the same (bucket, key) as the object to be, so that
//! completion is one command of one group.

use super::super::api::MetadataError;
use super::super::command::{KeyAndId, PartPut, Reply, UploadComplete, UploadCreate};
use super::super::keys;
use super::super::kv::{Family, KvResult, KvView, Scan};
use super::objects::{check_conditions, find_version};
use super::{Apply, Step, decode, invalid, version_of};
use crate::metadata::VersionSelector;
use bytes::Bytes;
use holdfast_proto::manifest::{ObjectVersion, Part, PartInfo, Upload};
use holdfast_proto::{BucketId, VersionId};
use prost::Message;

/// How long a completed upload is remembered, so that a retried completion is answered as the first was.
const COMPLETED_KEPT_MS: u64 = 7 * 24 * 3600 * 1000;
/// Old memories dropped by each completion: more than one, so that they never pile up.
const COMPLETED_DROPPED_PER_COMMAND: usize = 4;
/// S3's limits.
const PART_NUMBER_MAX: u32 = 10_000;

impl<V: KvView> Apply<'_, V> {
    pub(super) fn upload_create(&mut self, command: &UploadCreate) -> Step<Reply> {
        let bucket = BucketId(command.bucket);
        self.check_fence(bucket)?;
        let at = keys::upload(bucket, &command.key, version_of(&command.upload.upload));
        self.batch.put(Family::Uploads, at, command.upload.encode_to_vec());
        Ok(Reply::Done)
    }

    pub(super) fn part_put(&mut self, command: &PartPut) -> Step<Reply> {
        let bucket = BucketId(command.bucket);
        let upload = version_of(&command.upload);
        if command.part.number == 0 || command.part.number > PART_NUMBER_MAX {
            return Err(invalid(format!("part number {} is not in 1..={PART_NUMBER_MAX}", command.part.number)));
        }
        if load_upload(self.view, bucket, &command.key, upload)?.is_none() {
            return Err(MetadataError::NoSuchUpload { upload }.into());
        }
        let at = keys::part(bucket, &command.key, upload, command.part.number);
        if let Some(stored) = self.view.get(Family::Uploads, &at)? {
            let replaced: Part = decode(Family::Uploads, &stored)?;
            if is_same(&replaced, &command.part) {
                return Ok(Reply::Done);
            }
            self.free_segments(&replaced.segments)?;
        }
        self.index_segments(bucket, &command.key, upload, Some(command.part.number), &command.part.segments);
        self.batch.put(Family::Uploads, at, command.part.encode_to_vec());
        Ok(Reply::Done)
    }

    pub(super) fn upload_complete(&mut self, command: &UploadComplete) -> Step<Reply> {
        let put = &command.put;
        let (bucket, key) = (BucketId(put.bucket), put.key.as_str());
        let upload = version_of(&command.upload);
        if load_upload(self.view, bucket, key, upload)?.is_none() {
            return self.answer_again(bucket, key, upload);
        }
        self.check_fence(bucket)?;
        let current = find_version(self.view, bucket, key, VersionSelector::Current)?.map(|(_, v)| v);
        check_conditions(&put.conditions, current.as_ref())?;

        let mut version = put.version.clone();
        self.assemble(command, bucket, upload, &mut version)?;
        let stored = self.make_current(bucket, key, version, put.versioning, current)?;
        self.batch.delete(Family::Uploads, keys::upload(bucket, key, upload));
        self.remember(upload, &stored)?;
        Ok(Reply::Version(Box::new(stored)))
    }

    /// Moves the named parts into `version`; the others become garbage.
    fn assemble(
        &mut self,
        command: &UploadComplete,
        bucket: BucketId,
        upload: VersionId,
        version: &mut ObjectVersion,
    ) -> Step<()> {
        let key = command.put.key.as_str();
        let stored = list_parts(self.view, bucket, key, upload, 0, usize::MAX)?;
        let mut wanted = command.parts.iter().peekable();
        if !command.parts.is_sorted_by(|a, b| a.number < b.number) {
            return Err(invalid("parts are not in ascending order"));
        }
        version.segments.clear();
        version.parts.clear();
        version.object_bytes = 0;
        let mut inline = Vec::new();
        for part in stored {
            self.batch.delete(Family::Uploads, keys::part(bucket, key, upload, part.number));
            let Some(name) = wanted.next_if(|name| name.number == part.number) else {
                if let Some(name) = wanted.peek().filter(|name| name.number < part.number) {
                    return Err(MetadataError::InvalidPart { number: name.number }.into());
                }
                self.free_segments(&part.segments)?;
                continue;
            };
            if name.etag != part.etag {
                return Err(MetadataError::InvalidPart { number: part.number }.into());
            }
            version.object_bytes += part.part_bytes;
            version.parts.push(PartInfo { number: part.number, bytes: part.part_bytes, checksums: part.checksums });
            inline.extend_from_slice(&part.inline);
            version.segments.extend(part.segments);
        }
        if let Some(name) = wanted.next() {
            return Err(MetadataError::InvalidPart { number: name.number }.into());
        }
        if !inline.is_empty() && !version.segments.is_empty() {
            return Err(invalid("an upload cannot mix inline and coded parts"));
        }
        version.inline = Bytes::from(inline);
        Ok(())
    }

    fn remember(&mut self, upload: VersionId, version: &ObjectVersion) -> Step<()> {
        self.batch.put(Family::Groups, keys::completed(self.range, upload), version.version.to_vec());
        let prefix = keys::group_row(self.range, "done/");
        let horizon = version.modified_ms.saturating_sub(COMPLETED_KEPT_MS);
        let mut old = Vec::new();
        self.view.scan(Family::Groups, &prefix, &mut |stored, _, _| {
            let id = stored.strip_prefix(prefix.as_slice()).and_then(VersionId::from_slice);
            match id {
                Some(id) if id.unix_ms() < horizon && old.len() < COMPLETED_DROPPED_PER_COMMAND => {
                    old.push(stored.to_vec());
                    Ok(Scan::Next)
                }
                _ => Ok(Scan::Stop),
            }
        })?;
        for row in old {
            self.batch.delete(Family::Groups, row);
        }
        Ok(())
    }

    fn answer_again(&self, bucket: BucketId, key: &str, upload: VersionId) -> Step<Reply> {
        let stored = self.view.get(Family::Groups, &keys::completed(self.range, upload))?;
        let version = match stored.as_deref().and_then(VersionId::from_slice) {
            Some(id) => find_version(self.view, bucket, key, VersionSelector::Id(id))?,
            None => None,
        };
        match version {
            Some((_, version)) => Ok(Reply::Version(Box::new(version))),
            None => Err(MetadataError::NoSuchUpload { upload }.into()),
        }
    }

    pub(super) fn upload_abort(&mut self, command: &KeyAndId) -> Step<Reply> {
        let bucket = BucketId(command.bucket);
        let upload = version_of(&command.id);
        if load_upload(self.view, bucket, &command.key, upload)?.is_none() {
            return Err(MetadataError::NoSuchUpload { upload }.into());
        }
        for part in list_parts(self.view, bucket, &command.key, upload, 0, usize::MAX)? {
            self.free_segments(&part.segments)?;
            self.batch.delete(Family::Uploads, keys::part(bucket, &command.key, upload, part.number));
        }
        self.batch.delete(Family::Uploads, keys::upload(bucket, &command.key, upload));
        Ok(Reply::Done)
    }
}

/// Whether a part sent is the one stored, sent again. Its segments decide: what else the record says of them may have
/// changed since (repair), and to replace it by itself would free them.
fn is_same(stored: &Part, sent: &Part) -> bool {
    let ids = |part: &Part| part.segments.iter().map(|segment| segment.id.clone()).collect::<Vec<_>>();
    stored == sent || (!sent.segments.is_empty() && ids(stored) == ids(sent))
}

/// An upload's record.
pub(in super::super) fn load_upload<V: KvView>(
    view: &V,
    bucket: BucketId,
    key: &str,
    upload: VersionId,
) -> KvResult<Option<Upload>> {
    view.get(Family::Uploads, &keys::upload(bucket, key, upload))?.map(|v| decode(Family::Uploads, &v)).transpose()
}

/// Parts with a number above `after`, ascending, at most `limit`.
pub(in super::super) fn list_parts<V: KvView>(
    view: &V,
    bucket: BucketId,
    key: &str,
    upload: VersionId,
    after: u32,
    limit: usize,
) -> KvResult<Vec<Part>> {
    let prefix = keys::upload(bucket, key, upload);
    let mut found = Vec::new();
    if limit == 0 || after >= PART_NUMBER_MAX {
        return Ok(found);
    }
    view.scan(Family::Uploads, &keys::part(bucket, key, upload, after + 1), &mut |stored, value, _| {
        if !stored.starts_with(&prefix) || stored.len() != prefix.len() + 4 {
            return Ok(Scan::Stop);
        }
        found.push(decode(Family::Uploads, value)?);
        Ok(if found.len() < limit { Scan::Next } else { Scan::Stop })
    })?;
    Ok(found)
}
