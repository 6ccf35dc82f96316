//! `apply`, pure: a view of the state and one command give a reply and a batch. The same commands on the same state
//! give the same bytes on every replica, for ever.
//!
//! Retries: a command that was applied before (same version id, same upload) is answered as it was then.

mod membership;
mod objects;
mod once;
mod ranges;
mod root;
mod uploads;
mod writers;

use super::api::MetadataError;
use super::bounds::RangeView;
use super::command::{ApplyResult, Command, Kind, RangeFence, Reply};
use super::keys;
use super::kv::{Batch, Family, KvError, KvResult, KvView, Scan};
use holdfast_proto::manifest::{ObjectVersion, Segment};
use holdfast_proto::{BucketId, VersionId};
use prost::Message;

pub(super) use membership::{authority, row_of as token_row_of, token, tokens, use_of as token_use_of};
pub(super) use objects::{find_version, load_inline, owner_of, segment_record};
pub(super) use ranges::{RangeRecord, SplitRecord, border_of, range_rows, split_rows};
pub(super) use root::{bucket_rows, change_rows, cluster_map_row, key_rows};
pub(super) use uploads::{list_parts, load_upload};
pub(super) use writers::writer_opening;

/// Applies one command to the state that `view` shows. An error in the outer result means the state cannot be read;
/// a refusal is an inner one, and the batch then holds nothing but that answer, for retries. `index` is that of the command
/// in the group's log.
pub(super) fn apply<V: KvView>(view: &V, range: u32, index: u64, command: &Command) -> KvResult<(ApplyResult, Batch)> {
    let view = RangeView::of_group(view, range)?;
    let mut apply = Apply { view: &view, range, index, batch: Batch::default(), next_garbage: None };
    if let Some(once) = &command.once
        && let Some(answered) = apply.answered_before(once, command)?
    {
        return Ok((answered, Batch::default()));
    }
    let result = match &command.kind {
        Some(kind) if !ranges::is_within(view.bounds(), kind) => Ok(Reply::WrongRange),
        _ => apply.run(command),
    };
    let result = match result {
        Ok(reply) => Ok(reply),
        Err(Refusal::State(error)) => return Err(error),
        Err(Refusal::Caller(error)) => {
            apply.batch = Batch::default();
            Err(error)
        }
    };
    if let Some(once) = &command.once {
        apply.remember_answer(once, &result)?;
    }
    Ok((result, apply.batch))
}

/// Why a command was not carried out: its caller's fault, or the state cannot be read.
enum Refusal {
    Caller(MetadataError),
    State(KvError),
}

impl From<KvError> for Refusal {
    fn from(error: KvError) -> Self {
        Self::State(error)
    }
}

impl From<MetadataError> for Refusal {
    fn from(error: MetadataError) -> Self {
        Self::Caller(error)
    }
}

type Step<T> = Result<T, Refusal>;

/// One command at work.
struct Apply<'a, V> {
    view: &'a V,
    range: u32,
    index: u64,
    batch: Batch,
    next_garbage: Option<u64>,
}

impl<V: KvView> Apply<'_, RangeView<'_, V>> {
    fn run(&mut self, command: &Command) -> Step<Reply> {
        match &command.kind {
            None => Err(invalid("a command of a kind this build does not know")),
            Some(Kind::MapSet(c)) => self.map_set(c),
            Some(Kind::KeyCreate(c)) => self.key_create(c),
            Some(Kind::KeyDelete(c)) => self.key_delete(c),
            Some(Kind::BucketCreate(c)) => self.bucket_create(c),
            Some(Kind::BucketFence(c)) => self.bucket_fence(c),
            Some(Kind::BucketRemove(c)) => self.bucket_remove(c),
            Some(Kind::BucketVersioning(c)) => self.bucket_versioning(c),
            Some(Kind::BucketTags(c)) => self.bucket_tags(c),
            Some(Kind::Put(c)) => self.put(c),
            Some(Kind::Delete(c)) => self.delete(c),
            Some(Kind::SetTags(c)) => self.set_tags(c),
            Some(Kind::UploadCreate(c)) => self.upload_create(c),
            Some(Kind::PartPut(c)) => self.part_put(c),
            Some(Kind::UploadComplete(c)) => self.upload_complete(c),
            Some(Kind::UploadAbort(c)) => self.upload_abort(c),
            Some(Kind::GarbageDone(c)) => self.garbage_done(&c.sequences),
            Some(Kind::SegmentDurable(c)) => self.segment_durable(c),
            Some(Kind::RangeFence(c)) => self.range_fence(c),
            Some(Kind::RangeSplit(c)) => self.range_split(c),
            Some(Kind::SplitBegin(c)) => self.split_begin(c),
            Some(Kind::SplitEnd(c)) => self.split_end(c),
            Some(Kind::RangeMembers(c)) => self.range_members(c),
            Some(Kind::WriterOpen(c)) => self.writer_open(c),
            Some(Kind::WriterFence(c)) => self.writer_fence(c),
            Some(Kind::AuthoritySet(c)) => self.authority_set(c),
            Some(Kind::TokenCreate(c)) => self.token_create(c),
            Some(Kind::TokenRevoke(c)) => self.token_revoke(c),
            Some(Kind::TokenRedeem(c)) => self.token_redeem(c),
        }
    }
}

impl<V: KvView> Apply<'_, V> {
    /// Queues segments to be freed and drops them from the reverse index.
    fn free_segments(&mut self, segments: &[Segment]) -> Step<()> {
        for segment in segments {
            let sequence = self.take_garbage_sequence()?;
            self.batch.put(Family::Garbage, keys::garbage(self.range, sequence), segment.encode_to_vec());
            self.batch.delete(Family::Segments, keys::segment(segment.segment_id()));
        }
        Ok(())
    }

    fn take_garbage_sequence(&mut self) -> Step<u64> {
        let row = keys::group_row(self.range, "garbage");
        let sequence = match self.next_garbage {
            Some(next) => next,
            None => read_u64(self.view.get(Family::Groups, &row)?),
        };
        self.next_garbage = Some(sequence + 1);
        self.batch.put(Family::Groups, row, (sequence + 1).to_be_bytes().to_vec());
        Ok(sequence)
    }

    fn garbage_done(&mut self, sequences: &[u64]) -> Step<Reply> {
        for &sequence in sequences {
            self.batch.delete(Family::Garbage, keys::garbage(self.range, sequence));
        }
        Ok(Reply::Done)
    }

    /// Refuses writes to a bucket that is being deleted.
    fn check_fence(&self, bucket: BucketId) -> Step<()> {
        match self.view.get(Family::Groups, &keys::fence(self.range, bucket))? {
            None => Ok(()),
            Some(_) => Err(MetadataError::NoSuchBucket { bucket: bucket.to_string() }.into()),
        }
    }
}

impl<V: KvView> Apply<'_, RangeView<'_, V>> {
    /// Looked at and fenced in one: a range that holds something of the bucket goes on taking writes.
    fn range_fence(&mut self, command: &RangeFence) -> Step<Reply> {
        let bucket = BucketId(command.bucket);
        let row = keys::fence(self.range, bucket);
        let is_empty = is_empty(self.view, bucket)?;
        match command.on {
            true if is_empty => self.batch.put(Family::Groups, row, vec![1]),
            true => {}
            false => self.batch.delete(Family::Groups, row),
        }
        Ok(Reply::Fenced { is_empty, end: self.view.bounds().end.clone() })
    }
}

/// Whether nothing of a bucket is there: no version, no marker, no upload.
pub(super) fn is_empty<V: KvView>(view: &V, bucket: BucketId) -> KvResult<bool> {
    let prefix = keys::bucket_prefix(bucket);
    for family in [Family::Objects, Family::Versions, Family::Uploads] {
        if has_prefix(view, family, &prefix)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn invalid(reason: impl Into<String>) -> Refusal {
    MetadataError::Invalid { reason: reason.into() }.into()
}

/// Whether any key begins so.
pub(super) fn has_prefix<V: KvView>(view: &V, family: Family, prefix: &[u8]) -> KvResult<bool> {
    let mut found = false;
    view.scan(family, prefix, &mut |key, _, _| {
        found = key.starts_with(prefix);
        Ok(Scan::Stop)
    })?;
    Ok(found)
}

fn read_u64(value: Option<Vec<u8>>) -> u64 {
    value.and_then(|v| <[u8; 8]>::try_from(v).ok()).map_or(0, u64::from_be_bytes)
}

/// Decodes a stored record; a damaged one is an error that names the family, never a guess.
pub(super) fn decode<M: Message + Default>(family: Family, bytes: &[u8]) -> KvResult<M> {
    M::decode(bytes).map_err(|e| KvError { reason: format!("damaged record in {}: {e}", family.name()) })
}

/// The id in a record's bytes field.
pub(super) fn version_of(bytes: &[u8]) -> VersionId {
    VersionId::from_slice(bytes).unwrap_or_default()
}

/// Whether a version's bytes are in `Family::Inline`.
pub(super) fn has_inline(version: &ObjectVersion) -> bool {
    !version.delete_marker && version.segments.is_empty() && version.object_bytes > 0
}

#[cfg(test)]
mod tests;
