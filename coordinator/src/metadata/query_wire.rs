//! Queries and what they find, as they cross the wire (`MetadataRead`). Prost messages: tags never used twice.

use super::api::{
    Garbage, ListEntry, ListPage, ListRequest, ListVersionsRequest, SegmentOwner, UploadEntry, UploadPage,
    VersionEntry, VersionPage, VersionSelector,
};
use super::command::Selector;
use super::query::{Found, Query};
use bytes::Bytes;
use holdfast_proto::manifest::{ObjectVersion, Part, Segment, Upload};
use holdfast_proto::{BucketId, SegmentId, VersionId};

/// A page asks for no more than this, whatever a peer says.
const LIMIT_MAX: u64 = 100_000;

/// A `Query`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireQuery {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint64, tag = "2")]
    bucket: u64,
    #[prost(string, tag = "3")]
    key: String,
    #[prost(message, optional, tag = "4")]
    selector: Option<Selector>,
    #[prost(string, tag = "5")]
    prefix: String,
    #[prost(string, tag = "6")]
    delimiter: String,
    /// `after` of a plain listing, the key marker of the others.
    #[prost(string, tag = "7")]
    after: String,
    #[prost(string, tag = "8")]
    version_marker: String,
    #[prost(uint64, tag = "9")]
    limit: u64,
    #[prost(bytes = "bytes", tag = "10")]
    id: Bytes,
    #[prost(uint32, tag = "11")]
    number: u32,
    #[prost(bytes = "bytes", tag = "12")]
    from: Bytes,
}

const VERSION: u32 = 1;
const LIST: u32 = 2;
const VERSIONS: u32 = 3;
const UPLOADS: u32 = 4;
const UPLOAD: u32 = 5;
const PARTS: u32 = 6;
const GARBAGE: u32 = 7;
const OWNER: u32 = 8;
const SEGMENTS: u32 = 9;
const IS_EMPTY: u32 = 10;
const MEMBERS: u32 = 11;

impl WireQuery {
    pub(super) fn of(query: &Query) -> Self {
        let id = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        match query {
            Query::Version { bucket, key, selector } => Self {
                kind: VERSION,
                bucket: bucket.0,
                key: key.clone(),
                selector: Some((*selector).into()),
                ..Self::default()
            },
            Query::List { bucket, request, from } => Self {
                kind: LIST,
                bucket: bucket.0,
                prefix: request.prefix.clone(),
                delimiter: request.delimiter.clone(),
                after: request.after.clone(),
                limit: request.limit as u64,
                from: id(from),
                ..Self::default()
            },
            Query::Versions { bucket, request, from } => Self::of_versions(VERSIONS, *bucket, request, from),
            Query::Uploads { bucket, request, from } => Self::of_versions(UPLOADS, *bucket, request, from),
            Query::Upload { bucket, key, upload } => {
                Self { kind: UPLOAD, bucket: bucket.0, key: key.clone(), id: id(&upload.0), ..Self::default() }
            }
            Query::Parts { bucket, key, upload, after, limit } => Self {
                kind: PARTS,
                bucket: bucket.0,
                key: key.clone(),
                id: id(&upload.0),
                number: *after,
                limit: *limit as u64,
                ..Self::default()
            },
            Query::Garbage { limit } => Self { kind: GARBAGE, limit: *limit as u64, ..Self::default() },
            Query::Owner { segment, from } => {
                Self { kind: OWNER, id: id(&segment.0), from: id(from), ..Self::default() }
            }
            Query::Segments { after, limit, from } => Self {
                from: id(from),
                kind: SEGMENTS,
                id: after.map(|after| id(&after.0)).unwrap_or_default(),
                limit: *limit as u64,
                ..Self::default()
            },
            Query::IsEmpty { bucket, from } => {
                Self { kind: IS_EMPTY, bucket: bucket.0, from: id(from), ..Self::default() }
            }
            Query::Members => Self { kind: MEMBERS, ..Self::default() },
        }
    }

    fn of_versions(kind: u32, bucket: BucketId, request: &ListVersionsRequest, from: &[u8]) -> Self {
        Self {
            kind,
            bucket: bucket.0,
            prefix: request.prefix.clone(),
            delimiter: request.delimiter.clone(),
            after: request.key_marker.clone(),
            version_marker: request.version_marker.clone(),
            limit: request.limit as u64,
            from: Bytes::copy_from_slice(from),
            ..Self::default()
        }
    }

    /// `None` for one this build does not know.
    pub(super) fn into_query(self) -> Option<Query> {
        let bucket = BucketId(self.bucket);
        let limit = usize::try_from(self.limit.min(LIMIT_MAX)).ok()?;
        let upload = VersionId::from_slice(&self.id);
        let versions = ListVersionsRequest {
            prefix: self.prefix.clone(),
            delimiter: self.delimiter.clone(),
            key_marker: self.after.clone(),
            version_marker: self.version_marker,
            limit,
        };
        let from = self.from.to_vec();
        Some(match self.kind {
            VERSION => {
                let selector = self.selector.map_or(VersionSelector::Current, |selector| selector.to_api());
                Query::Version { bucket, key: self.key, selector }
            }
            LIST => {
                let request = ListRequest { prefix: self.prefix, delimiter: self.delimiter, after: self.after, limit };
                Query::List { bucket, request, from }
            }
            VERSIONS => Query::Versions { bucket, request: versions, from },
            UPLOADS => Query::Uploads { bucket, request: versions, from },
            UPLOAD => Query::Upload { bucket, key: self.key, upload: upload? },
            PARTS => Query::Parts { bucket, key: self.key, upload: upload?, after: self.number, limit },
            GARBAGE => Query::Garbage { limit },
            OWNER => Query::Owner { segment: SegmentId::from_slice(&self.id)?, from },
            SEGMENTS => Query::Segments { after: SegmentId::from_slice(&self.id), limit, from },
            IS_EMPTY => Query::IsEmpty { bucket, from },
            MEMBERS => Query::Members,
            _ => return None,
        })
    }
}

/// What a query found. One message for all kinds: lists that do not belong to a kind stay empty.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireFound {
    /// As in `WireQuery`; 0: the range does not hold it.
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(bool, tag = "2")]
    is_there: bool,
    #[prost(message, repeated, tag = "3")]
    versions: Vec<ObjectVersion>,
    #[prost(message, repeated, tag = "4")]
    entries: Vec<WireEntry>,
    #[prost(string, repeated, tag = "5")]
    common_prefixes: Vec<String>,
    #[prost(string, repeated, tag = "6")]
    next: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    uploads: Vec<WireUpload>,
    #[prost(message, repeated, tag = "8")]
    parts: Vec<Part>,
    #[prost(message, repeated, tag = "9")]
    segments: Vec<WireSegment>,
    #[prost(bytes = "bytes", tag = "10")]
    end: Bytes,
    #[prost(uint64, repeated, tag = "11")]
    members: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint64, tag = "2")]
    object_bytes: u64,
    #[prost(string, tag = "3")]
    etag: String,
    #[prost(uint64, tag = "4")]
    modified_ms: u64,
    #[prost(string, tag = "5")]
    owner: String,
    #[prost(string, repeated, tag = "6")]
    checksum_algorithms: Vec<String>,
    #[prost(string, tag = "7")]
    storage_class: String,
    #[prost(string, tag = "8")]
    version: String,
    #[prost(bool, tag = "9")]
    is_latest: bool,
    #[prost(bool, tag = "10")]
    delete_marker: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireUpload {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, required, tag = "2")]
    upload: Upload,
}

/// A segment with its owner, or with its place in the queue of garbage.
#[derive(Clone, PartialEq, prost::Message)]
struct WireSegment {
    #[prost(message, required, tag = "1")]
    segment: Segment,
    #[prost(uint64, tag = "2")]
    sequence: u64,
    #[prost(uint64, tag = "3")]
    bucket: u64,
    #[prost(string, tag = "4")]
    key: String,
    #[prost(bytes = "bytes", tag = "5")]
    version: Bytes,
    #[prost(uint32, optional, tag = "6")]
    part: Option<u32>,
}

impl From<ListEntry> for WireEntry {
    fn from(entry: ListEntry) -> Self {
        Self {
            key: entry.key,
            object_bytes: entry.object_bytes,
            etag: entry.etag,
            modified_ms: entry.modified_ms,
            owner: entry.owner,
            checksum_algorithms: entry.checksum_algorithms,
            storage_class: entry.storage_class,
            ..Self::default()
        }
    }
}

impl From<WireEntry> for ListEntry {
    fn from(entry: WireEntry) -> Self {
        Self {
            key: entry.key,
            object_bytes: entry.object_bytes,
            etag: entry.etag,
            modified_ms: entry.modified_ms,
            owner: entry.owner,
            checksum_algorithms: entry.checksum_algorithms,
            storage_class: entry.storage_class,
        }
    }
}

impl From<VersionEntry> for WireEntry {
    fn from(entry: VersionEntry) -> Self {
        Self {
            version: entry.version,
            is_latest: entry.is_latest,
            delete_marker: entry.delete_marker,
            ..entry.entry.into()
        }
    }
}

impl From<WireEntry> for VersionEntry {
    fn from(mut entry: WireEntry) -> Self {
        Self {
            version: std::mem::take(&mut entry.version),
            is_latest: entry.is_latest,
            delete_marker: entry.delete_marker,
            entry: entry.into(),
        }
    }
}

fn owned((owner, segment): (SegmentOwner, Segment)) -> WireSegment {
    WireSegment {
        segment,
        sequence: 0,
        bucket: owner.bucket.0,
        key: owner.key,
        version: Bytes::copy_from_slice(&owner.version.0),
        part: owner.part,
    }
}

fn owner_and_segment(segment: WireSegment) -> (SegmentOwner, Segment) {
    let owner = SegmentOwner {
        bucket: BucketId(segment.bucket),
        key: segment.key,
        version: VersionId::from_slice(&segment.version).unwrap_or_default(),
        part: segment.part,
    };
    (owner, segment.segment)
}

fn pair_of(next: Vec<String>) -> Option<(String, String)> {
    let mut next = next.into_iter();
    Some((next.next()?, next.next()?))
}

impl WireFound {
    pub(super) fn of(found: Found) -> Self {
        let end = |end: Vec<u8>| Bytes::from(end);
        let pair = |next: Option<(String, String)>| next.map(|(a, b)| vec![a, b]).unwrap_or_default();
        match found {
            Found::WrongRange => Self::default(),
            Found::Version(version) => {
                Self { kind: VERSION, versions: version.map(|v| *v).into_iter().collect(), ..Self::default() }
            }
            Found::List(page, to) => Self {
                kind: LIST,
                entries: page.entries.into_iter().map(WireEntry::from).collect(),
                common_prefixes: page.common_prefixes,
                next: page.next_after.into_iter().collect(),
                end: end(to),
                ..Self::default()
            },
            Found::Versions(page, to) => Self {
                kind: VERSIONS,
                entries: page.entries.into_iter().map(WireEntry::from).collect(),
                common_prefixes: page.common_prefixes,
                next: pair(page.next),
                end: end(to),
                ..Self::default()
            },
            Found::Uploads(page, to) => Self {
                kind: UPLOADS,
                uploads: page.entries.into_iter().map(|e| WireUpload { key: e.key, upload: e.upload }).collect(),
                common_prefixes: page.common_prefixes,
                next: pair(page.next),
                end: end(to),
                ..Self::default()
            },
            Found::Upload(upload) => {
                let uploads = upload.map(|upload| WireUpload { key: String::new(), upload }).into_iter().collect();
                Self { kind: UPLOAD, uploads, ..Self::default() }
            }
            Found::Parts(parts) => {
                Self { kind: PARTS, is_there: parts.is_some(), parts: parts.unwrap_or_default(), ..Self::default() }
            }
            Found::Garbage(garbage) => {
                let segments = garbage.into_iter().map(|garbage| WireSegment {
                    segment: garbage.segment,
                    sequence: garbage.sequence,
                    ..WireSegment::default()
                });
                Self { kind: GARBAGE, segments: segments.collect(), ..Self::default() }
            }
            Found::Owner(owner, to) => {
                let segments = owner.map(|found| owned(*found)).into_iter().collect();
                Self { kind: OWNER, segments, end: end(to), ..Self::default() }
            }
            Found::Segments(found, to) => {
                let segments = found.into_iter().map(owned).collect();
                Self { kind: SEGMENTS, segments, end: end(to), ..Self::default() }
            }
            Found::IsEmpty(is_empty, to) => {
                Self { kind: IS_EMPTY, is_there: !is_empty, end: end(to), ..Self::default() }
            }
            Found::Members(members) => Self { kind: MEMBERS, members, ..Self::default() },
        }
    }

    /// `None` for one this build does not know.
    pub(super) fn into_found(self) -> Option<Found> {
        let end = self.end.to_vec();
        let common_prefixes = self.common_prefixes;
        Some(match self.kind {
            0 => Found::WrongRange,
            VERSION => Found::Version(self.versions.into_iter().next().map(Box::new)),
            LIST => {
                let entries = self.entries.into_iter().map(ListEntry::from).collect();
                Found::List(ListPage { entries, common_prefixes, next_after: self.next.into_iter().next() }, end)
            }
            VERSIONS => {
                let entries = self.entries.into_iter().map(VersionEntry::from).collect();
                Found::Versions(VersionPage { entries, common_prefixes, next: pair_of(self.next) }, end)
            }
            UPLOADS => {
                let uploads = self.uploads.into_iter();
                let entries = uploads.map(|u| UploadEntry { key: u.key, upload: u.upload }).collect();
                Found::Uploads(UploadPage { entries, common_prefixes, next: pair_of(self.next) }, end)
            }
            UPLOAD => Found::Upload(self.uploads.into_iter().next().map(|found| found.upload)),
            PARTS => Found::Parts(self.is_there.then_some(self.parts)),
            GARBAGE => {
                let segments = self.segments.into_iter();
                Found::Garbage(segments.map(|s| Garbage { sequence: s.sequence, segment: s.segment }).collect())
            }
            OWNER => {
                let owner = self.segments.into_iter().next();
                Found::Owner(owner.map(|found| Box::new(owner_and_segment(found))), end)
            }
            SEGMENTS => Found::Segments(self.segments.into_iter().map(owner_and_segment).collect(), end),
            IS_EMPTY => Found::IsEmpty(!self.is_there, end),
            MEMBERS => Found::Members(self.members),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn every_query_and_answer_comes_back() {
        let (bucket, key, id) = (BucketId(7), "k".to_owned(), VersionId([3; 16]));
        let request = ListVersionsRequest {
            prefix: "p".into(),
            delimiter: "/".into(),
            key_marker: "m".into(),
            version_marker: "v".into(),
            limit: 5,
        };
        let plain = ListRequest { prefix: "p".into(), delimiter: "/".into(), after: "a".into(), limit: 9 };
        let from = vec![1, 2];
        let queries = [
            Query::Version { bucket, key: key.clone(), selector: VersionSelector::Null },
            Query::Version { bucket, key: key.clone(), selector: VersionSelector::Id(id) },
            Query::List { bucket, request: plain, from: from.clone() },
            Query::Versions { bucket, request: request.clone(), from: from.clone() },
            Query::Uploads { bucket, request, from: from.clone() },
            Query::Upload { bucket, key: key.clone(), upload: id },
            Query::Parts { bucket, key: key.clone(), upload: id, after: 4, limit: 6 },
            Query::Garbage { limit: 3 },
            Query::Owner { segment: SegmentId([5; 16]), from: from.clone() },
            Query::Segments { after: Some(SegmentId([5; 16])), limit: 2, from: Vec::new() },
            Query::Segments { after: None, limit: 2, from: from.clone() },
            Query::IsEmpty { bucket, from: from.clone() },
            Query::Members,
        ];
        for query in queries {
            let bytes = WireQuery::of(&query).encode_to_vec();
            assert_eq!(WireQuery::decode(bytes.as_slice()).unwrap().into_query(), Some(query));
        }
        let entry = ListEntry {
            key: key.clone(),
            object_bytes: 1,
            etag: "e".into(),
            modified_ms: 2,
            owner: "o".into(),
            checksum_algorithms: vec!["CRC32".into()],
            storage_class: "S".into(),
        };
        let version = VersionEntry { entry: entry.clone(), version: "v".into(), is_latest: true, delete_marker: true };
        let upload = UploadEntry { key: key.clone(), upload: Upload { created_ms: 4, ..Upload::default() } };
        let segment = Segment { pg: 3, ..Segment::default() };
        let owner = SegmentOwner { bucket, key, version: id, part: Some(2) };
        let (prefixes, next) = (vec!["c/".to_owned()], Some(("a".to_owned(), "b".to_owned())));
        let found = [
            Found::WrongRange,
            Found::Version(None),
            Found::Version(Some(Box::new(ObjectVersion { object_bytes: 3, ..ObjectVersion::default() }))),
            Found::List(
                ListPage { entries: vec![entry], common_prefixes: prefixes.clone(), next_after: Some("n".into()) },
                from.clone(),
            ),
            Found::Versions(
                VersionPage { entries: vec![version], common_prefixes: prefixes.clone(), next: next.clone() },
                from.clone(),
            ),
            Found::Uploads(UploadPage { entries: vec![upload.clone()], common_prefixes: prefixes, next }, from.clone()),
            Found::Upload(Some(upload.upload)),
            Found::Parts(None),
            Found::Parts(Some(vec![Part { number: 1, ..Part::default() }])),
            Found::Garbage(vec![Garbage { sequence: 9, segment: segment.clone() }]),
            Found::Owner(Some(Box::new((owner.clone(), segment.clone()))), from.clone()),
            Found::Owner(None, Vec::new()),
            Found::Segments(vec![(owner, segment)], from.clone()),
            Found::IsEmpty(true, from.clone()),
            Found::IsEmpty(false, Vec::new()),
            Found::Members(vec![1, 5]),
        ];
        for found in found {
            let bytes = WireFound::of(found.clone()).encode_to_vec();
            assert_eq!(WireFound::decode(bytes.as_slice()).unwrap().into_found(), Some(found));
        }
    }
}
