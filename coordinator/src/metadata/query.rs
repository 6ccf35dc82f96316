//! Reads of one range, as values: run here on the range's view of the state, or sent to a node that keeps the range.

use super::api::{
    Garbage, ListPage, ListRequest, ListVersionsRequest, SegmentOwner, UploadPage, VersionPage, VersionSelector,
};
use super::bounds::RangeView;
use super::keys;
use super::kv::{Family, KvResult, KvView, Scan};
use super::listing;
use super::raft_machine::members_row;
use super::state;
use holdfast_proto::manifest::{ObjectVersion, Part, Segment, Upload};
use holdfast_proto::{BucketId, SegmentId, VersionId};

/// What is asked of a range.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Query {
    Version {
        bucket: BucketId,
        key: String,
        selector: VersionSelector,
    },
    /// Of the part of the bucket that the range holds, from `from` on (a border).
    List {
        bucket: BucketId,
        request: ListRequest,
        from: Vec<u8>,
    },
    Versions {
        bucket: BucketId,
        request: ListVersionsRequest,
        from: Vec<u8>,
    },
    Uploads {
        bucket: BucketId,
        request: ListVersionsRequest,
        from: Vec<u8>,
    },
    Upload {
        bucket: BucketId,
        key: String,
        upload: VersionId,
    },
    Parts {
        bucket: BucketId,
        key: String,
        upload: VersionId,
        after: u32,
        limit: usize,
    },
    Garbage {
        limit: usize,
    },
    /// Of a segment that a key of this range refers to; the range is the one that holds `from`.
    Owner {
        segment: SegmentId,
        from: Vec<u8>,
    },
    Segments {
        after: Option<SegmentId>,
        limit: usize,
        from: Vec<u8>,
    },
    IsEmpty {
        bucket: BucketId,
        from: Vec<u8>,
    },
    /// Of the group: voters and learners.
    Members,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    /// The range does not hold what was asked for (any more).
    WrongRange,
    Version(Option<Box<ObjectVersion>>),
    /// Pages come with where the range ends (empty: never), so that the next is known.
    List(ListPage, Vec<u8>),
    Versions(VersionPage, Vec<u8>),
    Uploads(UploadPage, Vec<u8>),
    Upload(Option<Upload>),
    /// `None`: there is no such upload.
    Parts(Option<Vec<Part>>),
    Garbage(Vec<Garbage>),
    Owner(Option<Box<(SegmentOwner, Segment)>>, Vec<u8>),
    Segments(Vec<(SegmentOwner, Segment)>, Vec<u8>),
    IsEmpty(bool, Vec<u8>),
    Members(Vec<u64>),
}

impl Query {
    /// Where in the order of keys the answer is; `None` for a question to the range as a whole.
    pub(super) fn border(&self) -> Option<Vec<u8>> {
        match self {
            Self::Version { bucket, key, .. } | Self::Upload { bucket, key, .. } | Self::Parts { bucket, key, .. } => {
                Some(keys::object(*bucket, key))
            }
            Self::List { from, .. }
            | Self::Versions { from, .. }
            | Self::Uploads { from, .. }
            | Self::Owner { from, .. }
            | Self::Segments { from, .. }
            | Self::IsEmpty { from, .. } => Some(from.clone()),
            Self::Garbage { .. } | Self::Members => None,
        }
    }

    /// Whether the answer takes one row or so: then it is read on the caller's thread.
    pub(super) fn is_short(&self) -> bool {
        matches!(self, Self::Version { .. } | Self::Upload { .. } | Self::Owner { .. } | Self::Members)
    }

    /// Reads the answer from the state of `group`, all of it as of one moment.
    pub(super) fn run<V: KvView>(&self, view: &V, group: u32) -> KvResult<Found> {
        let view = RangeView::of_group(view, group)?;
        if self.border().is_some_and(|border| !view.bounds().contains(&border)) {
            return Ok(Found::WrongRange);
        }
        let end = || view.bounds().end.to_vec();
        Ok(match self {
            Self::Version { bucket, key, selector } => {
                let found = state::find_version(&view, *bucket, key, *selector)?;
                let whole = found.map(|(_, version)| state::load_inline(&view, *bucket, version)).transpose()?;
                Found::Version(whole.map(Box::new))
            }
            Self::List { bucket, request, .. } => Found::List(listing::list(&view, *bucket, request)?, end()),
            Self::Versions { bucket, request, .. } => {
                Found::Versions(listing::list_versions(&view, *bucket, request)?, end())
            }
            Self::Uploads { bucket, request, .. } => {
                Found::Uploads(listing::list_uploads(&view, *bucket, request)?, end())
            }
            Self::Upload { bucket, key, upload } => Found::Upload(state::load_upload(&view, *bucket, key, *upload)?),
            Self::Parts { bucket, key, upload, after, limit } => {
                match state::load_upload(&view, *bucket, key, *upload)? {
                    None => Found::Parts(None),
                    Some(_) => Found::Parts(Some(state::list_parts(&view, *bucket, key, *upload, *after, *limit)?)),
                }
            }
            Self::Garbage { limit } => Found::Garbage(garbage_rows(&view, group, *limit)?),
            Self::Owner { segment, .. } => Found::Owner(state::segment_record(&view, *segment)?.map(Box::new), end()),
            Self::Segments { after, limit, .. } => Found::Segments(segment_rows(&view, *after, *limit)?, end()),
            Self::IsEmpty { bucket, .. } => Found::IsEmpty(state::is_empty(&view, *bucket)?, end()),
            Self::Members => Found::Members(members_row(&view, group)?),
        })
    }
}

/// The current version of a key from one row, if it has no inline bytes or they are still there: nearly every read.
pub(super) fn find_current<V: KvView>(view: &V, bucket: BucketId, key: &str) -> KvResult<Option<ObjectVersion>> {
    let found = state::find_version(view, bucket, key, VersionSelector::Current)?;
    Ok(found.and_then(|(_, version)| state::load_inline(view, bucket, version).ok()))
}

fn garbage_rows<V: KvView>(state: &V, group: u32, limit: usize) -> KvResult<Vec<Garbage>> {
    let prefix = keys::group_row(group, "");
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

fn segment_rows<V: KvView>(view: &V, after: Option<SegmentId>, limit: usize) -> KvResult<Vec<(SegmentOwner, Segment)>> {
    let mut ids = Vec::new();
    let from = after.map(|id| [id.0.as_slice(), &[0]].concat()).unwrap_or_default();
    view.scan(Family::Segments, &from, &mut |key, _, _| {
        if ids.len() == limit {
            return Ok(Scan::Stop);
        }
        ids.extend(SegmentId::from_slice(key));
        Ok(Scan::Next)
    })?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        found.extend(state::segment_record(view, id)?);
    }
    Ok(found)
}
