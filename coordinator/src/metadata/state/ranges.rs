//! Commands that cut ranges: the cut itself, in the range's group, and the map of all ranges, in the root group.
//!
//! A split takes three commands, and whoever carries it out may stop between any two: `SplitBegin` (root) gives the child
//! its number and notes the split, `RangeSplit` (the range) makes it, `SplitEnd` (root) changes the map. Each may be
//! proposed again. No row of an object moves.

use super::super::api::MetadataError;
use super::super::bounds::{Bounds, RangeView};
use super::super::command::{Kind, RangeMembers, RangeSplit, Reply, SplitBegin, SplitEnd};
use super::super::keys;
use super::super::kv::{Family, KvResult, KvView, Scan};
use super::super::store::FIRST_RANGE;
use super::{Apply, Step, decode, invalid, once, read_u64};
use bytes::Bytes;
use holdfast_proto::BucketId;
use prost::Message;
use std::collections::VecDeque;

const RANGES: &[u8] = b"range/";
const SPLITS: &[u8] = b"split/";
const NEXT_RANGE: &[u8] = b"next-range";
/// Completed uploads that a child remembers of its parent: a retried completion comes within minutes.
const COMPLETED_COPIED_MAX: usize = 10_000;

/// A range in the root group's map.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in super::super) struct RangeRecord {
    #[prost(uint32, tag = "1")]
    pub(in super::super) range: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(in super::super) start: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(in super::super) end: Bytes,
    #[prost(uint64, tag = "4")]
    pub(in super::super) epoch: u64,
    /// Nodes that keep a copy, as the range's leader last said: a hint for those that keep none.
    #[prost(uint64, repeated, tag = "5")]
    pub(in super::super) members: Vec<u64>,
}

/// A split that was begun.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in super::super) struct SplitRecord {
    #[prost(uint32, tag = "1")]
    pub(in super::super) parent: u32,
    #[prost(uint32, tag = "2")]
    pub(in super::super) child: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(in super::super) border: Bytes,
}

fn row(prefix: &[u8], range: u32) -> Vec<u8> {
    [prefix, &range.to_be_bytes()].concat()
}

impl<V: KvView> Apply<'_, RangeView<'_, V>> {
    pub(super) fn range_split(&mut self, command: &RangeSplit) -> Step<Reply> {
        let bounds = self.view.bounds().clone();
        let child_row = keys::group_row(command.child, keys::RANGE_ROW);
        // Done before. Whether this machine keeps the child says nothing: it may have been sent the range as it is now.
        if bounds.end == command.border && !command.border.is_empty() {
            return Ok(Reply::Range(command.child));
        }
        if !bounds.contains(&command.border) || bounds.start == command.border || command.border.is_empty() {
            return Err(invalid("the border of a split lies outside the range"));
        }
        let child = Bounds {
            start: command.border.clone(),
            end: bounds.end.clone(),
            epoch: 1,
            parent: self.range,
            split_index: self.index,
        };
        let left = Bounds { end: command.border.clone(), epoch: bounds.epoch + 1, ..bounds };
        self.batch.put(Family::Groups, keys::group_row(self.range, keys::RANGE_ROW), left.encode_to_vec());
        self.batch.put(Family::Groups, child_row, child.encode_to_vec());
        for rows in ["fence/", "once/"] {
            let (from, to) = (keys::group_row(self.range, rows), keys::group_row(command.child, rows));
            once::copy_to_child(self.view, &mut self.batch, &from, &to)?;
        }
        self.copy_completed(command.child)?;
        Ok(Reply::Range(command.child))
    }

    /// Which of the completed uploads are the child's is not in their rows: it gets the newest of them all.
    fn copy_completed(&mut self, child: u32) -> KvResult<()> {
        let prefix = keys::group_row(self.range, "done/");
        let mut newest = VecDeque::new();
        self.view.scan(Family::Groups, &prefix, &mut |stored, value, _| {
            let Some(upload) = stored.strip_prefix(prefix.as_slice()) else { return Ok(Scan::Stop) };
            if newest.len() == COMPLETED_COPIED_MAX {
                newest.pop_front();
            }
            newest.push_back((upload.to_vec(), value.to_vec()));
            Ok(Scan::Next)
        })?;
        let to = keys::group_row(child, "done/");
        for (upload, value) in newest {
            self.batch.put(Family::Groups, [to.as_slice(), &upload].concat(), value);
        }
        Ok(())
    }
}

impl<V: KvView> Apply<'_, V> {
    pub(super) fn split_begin(&mut self, command: &SplitBegin) -> Step<Reply> {
        let at = row(SPLITS, command.parent);
        if let Some(stored) = self.view.get(Family::Root, &at)? {
            let begun: SplitRecord = decode(Family::Root, &stored)?;
            if begun.border == command.border {
                return Ok(Reply::Range(begun.child));
            }
            return Err(invalid(format!("range {} is being split already", command.parent)));
        }
        let parent = self.range_record(command.parent)?;
        let bounds = Bounds { start: parent.start.clone(), end: parent.end, ..Bounds::default() };
        if !bounds.contains(&command.border) || command.border.is_empty() || parent.start == command.border {
            return Err(invalid(format!("the border lies outside range {}", command.parent)));
        }
        let next = read_u64(self.view.get(Family::Root, NEXT_RANGE)?).max(u64::from(FIRST_RANGE) + 1);
        let child = u32::try_from(next).map_err(|_| invalid("no more numbers for ranges"))?;
        let begun = SplitRecord { parent: command.parent, child, border: command.border.clone() };
        self.batch.put(Family::Root, NEXT_RANGE.to_vec(), (next + 1).to_be_bytes().to_vec());
        self.batch.put(Family::Root, at, begun.encode_to_vec());
        Ok(Reply::Range(child))
    }

    pub(super) fn split_end(&mut self, command: &SplitEnd) -> Step<Reply> {
        let at = row(SPLITS, command.parent);
        let stored = self.view.get(Family::Root, &at)?;
        let begun: Option<SplitRecord> = stored.map(|stored| decode(Family::Root, &stored)).transpose()?;
        // One that is not noted has ended before.
        let Some(begun) = begun.filter(|begun| begun.child == command.child) else { return Ok(Reply::Done) };
        self.batch.delete(Family::Root, at);
        if command.is_done {
            let parent = self.range_record(command.parent)?;
            let child = RangeRecord {
                range: begun.child,
                start: begun.border.clone(),
                end: parent.end.clone(),
                epoch: 1,
                members: parent.members.clone(),
            };
            let parent = RangeRecord { end: begun.border, epoch: parent.epoch + 1, ..parent };
            for record in [parent, child] {
                self.batch.put(Family::Root, row(RANGES, record.range), record.encode_to_vec());
            }
        }
        Ok(Reply::Done)
    }

    pub(super) fn range_members(&mut self, command: &RangeMembers) -> Step<Reply> {
        let record = RangeRecord { members: command.members.clone(), ..self.range_record(command.range)? };
        self.batch.put(Family::Root, row(RANGES, command.range), record.encode_to_vec());
        Ok(Reply::Done)
    }

    fn range_record(&self, range: u32) -> Step<RangeRecord> {
        match self.view.get(Family::Root, &row(RANGES, range))? {
            Some(stored) => Ok(decode(Family::Root, &stored)?),
            None if range == FIRST_RANGE => Ok(first_record()),
            None => Err(MetadataError::Invalid { reason: format!("there is no range {range}") }.into()),
        }
    }
}

fn first_record() -> RangeRecord {
    RangeRecord { range: FIRST_RANGE, epoch: 1, ..RangeRecord::default() }
}

/// The map of all ranges, by number.
pub(in super::super) fn range_rows<V: KvView>(view: &V) -> KvResult<Vec<RangeRecord>> {
    let mut found: Vec<RangeRecord> = super::root::rows(view, RANGES)?;
    if found.iter().all(|record| record.range != FIRST_RANGE) {
        found.insert(0, first_record());
    }
    Ok(found)
}

/// Splits that were begun and have not ended.
pub(in super::super) fn split_rows<V: KvView>(view: &V) -> KvResult<Vec<SplitRecord>> {
    super::root::rows(view, SPLITS)
}

/// The border of the key that a command is about, if it is about one.
pub(in super::super) fn border_of(kind: &Kind) -> Option<Vec<u8>> {
    key_of(kind).map(|(bucket, key)| keys::object(bucket, key))
}

/// Whether what a command is about lies within a range. Commands on no key of their own always do.
pub(super) fn is_within(bounds: &Bounds, kind: &Kind) -> bool {
    match kind {
        Kind::RangeFence(c) if c.at.is_empty() => bounds.contains(&keys::bucket_prefix(BucketId(c.bucket))),
        Kind::RangeFence(c) => bounds.contains(&c.at),
        _ => key_of(kind).is_none_or(|(bucket, key)| bounds.contains_key(bucket, key)),
    }
}

fn key_of(kind: &Kind) -> Option<(BucketId, &str)> {
    let (bucket, key) = match kind {
        Kind::Put(c) => (c.bucket, &c.key),
        Kind::Delete(c) => (c.bucket, &c.key),
        Kind::SetTags(c) => (c.bucket, &c.key),
        Kind::UploadCreate(c) => (c.bucket, &c.key),
        Kind::PartPut(c) => (c.bucket, &c.key),
        Kind::UploadComplete(c) => (c.put.bucket, &c.put.key),
        Kind::UploadAbort(c) => (c.bucket, &c.key),
        _ => return None,
    };
    Some((BucketId(bucket), key))
}
