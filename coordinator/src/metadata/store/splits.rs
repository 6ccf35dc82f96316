//! Splitting ranges: the three steps of a split, by whoever asks for it, and carrying on what somebody else has begun.

use super::super::api::{MetadataError, MetadataResult};
use super::super::command::{Kind, RangeSplit, Reply, SplitBegin, SplitEnd};
use super::super::group::done;
use super::super::keys;
use super::super::state::SplitRecord;
use super::{Inner, MetadataStore, ROOT, unexpected};
use holdfast_proto::BucketId;

/// A range as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeInfo {
    /// Its number.
    pub range: u32,
    /// Where it begins: bucket and key; `None`: at the first key of all.
    pub start: Option<(BucketId, String)>,
    /// Grows with each change of its borders.
    pub epoch: u64,
    /// Nodes that keep a copy, as last told.
    pub members: Vec<u64>,
}

impl MetadataStore {
    /// Cuts the range that holds `key` at that key, which becomes the first of the new range. Returns its number. On
    /// return the map shows it. If the call fails midway, the split is carried on by itself.
    pub async fn split_at(&self, bucket: BucketId, key: &str) -> MetadataResult<u32> {
        self.root_barrier().await?;
        self.inner.split(keys::object(bucket, key)).await
    }

    /// All ranges in the order of their keys, as known here.
    pub fn ranges(&self) -> Vec<RangeInfo> {
        let cache = self.inner.cache.read();
        let info = cache.ranges.values().map(|record| RangeInfo {
            range: record.range,
            start: start_of(&record.start),
            epoch: record.epoch,
            members: record.members.clone(),
        });
        info.collect()
    }
}

fn start_of(border: &[u8]) -> Option<(BucketId, String)> {
    let bucket = border.first_chunk::<8>().map(|bucket| BucketId(u64::from_be_bytes(*bucket)))?;
    Some((bucket, String::from_utf8_lossy(border.get(9..).unwrap_or_default()).into_owned()))
}

impl Inner {
    /// Cuts whichever range holds the border.
    pub(super) async fn split(&self, border: Vec<u8>) -> MetadataResult<u32> {
        let parent = self.range_at(&border);
        let begin = SplitBegin { parent, border: border.clone().into() };
        let child = match self.propose(ROOT, Kind::SplitBegin(begin)).await? {
            Reply::Range(child) => child,
            other => return Err(unexpected(other)),
        };
        self.carry_on(&SplitRecord { parent, child, border: border.into() }).await?;
        Ok(child)
    }

    /// The two steps that follow the first. Each may be done already.
    pub(super) async fn carry_on(&self, split: &SplitRecord) -> MetadataResult<()> {
        let SplitRecord { parent, child, border } = split.clone();
        let cut = match self.propose(parent, Kind::RangeSplit(RangeSplit { child, border })).await {
            Ok(Reply::Range(made)) if made == child => Ok(()),
            Ok(other) => return Err(unexpected(other)),
            Err(error @ MetadataError::Invalid { .. }) => Err(error),
            // Whether it is done is not known; the note stays, and whoever leads the root group carries on.
            Err(error) => return Err(error),
        };
        let end = SplitEnd { parent, child, is_done: cut.is_ok() };
        done(self.propose(ROOT, Kind::SplitEnd(end)).await?)?;
        cut
    }
}
