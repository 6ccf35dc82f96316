//! Commands of the metadata log. They are persisted and cross versions: prost messages, tags never reused. Whatever is
//! not deterministic (time, ids) is fixed in the command before it is proposed.

use super::api::{Deleted, EtagCondition, MetadataError, Preconditions, VersionSelector};
use super::membership_commands::{AuthoritySet, TokenRedeem, TrustReply};
use bytes::Bytes;
use holdfast_proto::VersionId;
use holdfast_proto::manifest::{AccessKey, Bucket, ObjectVersion, Pair, Part, Upload};
use holdfast_proto::membership::TokenRow;

/// One entry of a group's log.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Command {
    #[prost(oneof = "Kind", tags = "1,2,3,4,5,7,8,9,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,40,41,42,43,50")]
    pub(super) kind: Option<Kind>,
    /// Who proposes it, so that a retry is applied once; absent where nobody retries.
    #[prost(message, optional, tag = "100")]
    pub(super) once: Option<Once>,
}

/// Names a command over its retries.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Once {
    /// The node whose process proposes.
    #[prost(uint64, tag = "1")]
    pub(super) node: u64,
    /// Which process of that node: later ones have greater numbers.
    #[prost(uint64, tag = "2")]
    pub(super) opening: u64,
    /// Which command of that process in this group.
    #[prost(uint64, tag = "3")]
    pub(super) sequence: u64,
    /// All before this one have been answered and will not be tried again.
    #[prost(uint64, tag = "4")]
    pub(super) settled: u64,
}

/// What to do. 1..=19, 31..=39 and, about trust, 40..=49 are the root group's, 20..=30 and 50.. the ranges'. 6 was a
/// removal of a bucket by its name alone.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(message, tag = "1")]
    MapSet(MapSet),
    #[prost(message, tag = "2")]
    KeyCreate(AccessKey),
    #[prost(string, tag = "3")]
    KeyDelete(String),
    #[prost(message, tag = "4")]
    BucketCreate(BucketCreate),
    #[prost(message, tag = "5")]
    BucketFence(BucketFence),
    #[prost(message, tag = "7")]
    BucketVersioning(BucketVersioning),
    #[prost(message, tag = "8")]
    BucketTags(BucketTags),
    #[prost(message, tag = "9")]
    BucketRemove(BucketRemove),
    #[prost(message, tag = "20")]
    Put(Put),
    #[prost(message, tag = "21")]
    Delete(Delete),
    #[prost(message, tag = "22")]
    SetTags(SetTags),
    #[prost(message, tag = "23")]
    UploadCreate(UploadCreate),
    #[prost(message, tag = "24")]
    PartPut(PartPut),
    #[prost(message, tag = "25")]
    UploadComplete(UploadComplete),
    #[prost(message, tag = "26")]
    UploadAbort(KeyAndId),
    #[prost(message, tag = "27")]
    GarbageDone(GarbageDone),
    #[prost(message, tag = "28")]
    SegmentDurable(SegmentDurable),
    #[prost(message, tag = "29")]
    RangeFence(RangeFence),
    #[prost(message, tag = "30")]
    RangeSplit(RangeSplit),
    #[prost(message, tag = "31")]
    SplitBegin(SplitBegin),
    #[prost(message, tag = "32")]
    SplitEnd(SplitEnd),
    #[prost(message, tag = "33")]
    RangeMembers(RangeMembers),
    #[prost(message, tag = "34")]
    WriterOpen(WriterOpening),
    #[prost(message, tag = "50")]
    WriterFence(WriterOpening),
    #[prost(message, tag = "40")]
    AuthoritySet(AuthoritySet),
    #[prost(message, tag = "41")]
    TokenCreate(TokenRow),
    #[prost(bytes = "vec", tag = "42")]
    TokenRevoke(Vec<u8>),
    #[prost(message, tag = "43")]
    TokenRedeem(TokenRedeem),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MapSet {
    #[prost(uint64, tag = "1")]
    pub(super) expected: u64,
    /// The cluster map as JSON (`api::ClusterMap`).
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) map: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BucketCreate {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) owner: String,
    #[prost(uint64, tag = "3")]
    pub(super) now_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BucketFence {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(bool, tag = "2")]
    pub(super) on: bool,
}

/// Removes a fenced bucket. By its id, too: a bucket made anew under the name is another one.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BucketRemove {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint64, tag = "2")]
    pub(super) id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BucketVersioning {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(int32, tag = "2")]
    pub(super) versioning: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BucketTags {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) tags: Vec<Pair>,
}

/// An ETag condition on the wire: `any`, or the list.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Etags {
    #[prost(bool, tag = "1")]
    pub(super) any: bool,
    #[prost(string, repeated, tag = "2")]
    pub(super) list: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Conditions {
    #[prost(message, optional, tag = "1")]
    pub(super) if_match: Option<Etags>,
    #[prost(message, optional, tag = "2")]
    pub(super) if_none_match: Option<Etags>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) if_match_modified_ms: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    pub(super) if_match_bytes: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Put {
    #[prost(uint64, tag = "1")]
    pub(super) bucket: u64,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(message, required, tag = "3")]
    pub(super) version: ObjectVersion,
    #[prost(int32, tag = "4")]
    pub(super) versioning: i32,
    #[prost(message, required, tag = "5")]
    pub(super) conditions: Conditions,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Delete {
    #[prost(uint64, tag = "1")]
    pub(super) bucket: u64,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(message, required, tag = "3")]
    pub(super) selector: Selector,
    #[prost(int32, tag = "4")]
    pub(super) versioning: i32,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) marker: Bytes,
    #[prost(uint64, tag = "6")]
    pub(super) now_ms: u64,
    #[prost(string, tag = "7")]
    pub(super) owner: String,
    #[prost(message, required, tag = "8")]
    pub(super) conditions: Conditions,
}

/// `null`, an id, or (neither) the current version.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Selector {
    #[prost(bool, tag = "1")]
    pub(super) null: bool,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) id: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SetTags {
    #[prost(uint64, tag = "1")]
    pub(super) bucket: u64,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(message, required, tag = "3")]
    pub(super) selector: Selector,
    #[prost(message, repeated, tag = "4")]
    pub(super) tags: Vec<Pair>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UploadCreate {
    #[prost(uint64, tag = "1")]
    pub(super) bucket: u64,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(message, required, tag = "3")]
    pub(super) upload: Upload,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PartPut {
    #[prost(uint64, tag = "1")]
    pub(super) bucket: u64,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) upload: Bytes,
    #[prost(message, required, tag = "4")]
    pub(super) part: Part,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PartName {
    #[prost(uint32, tag = "1")]
    pub(super) number: u32,
    #[prost(string, tag = "2")]
    pub(super) etag: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UploadComplete {
    #[prost(message, required, tag = "1")]
    pub(super) put: Put,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) upload: Bytes,
    #[prost(message, repeated, tag = "3")]
    pub(super) parts: Vec<PartName>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeyAndId {
    #[prost(uint64, tag = "1")]
    pub(super) bucket: u64,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) id: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GarbageDone {
    #[prost(uint64, repeated, tag = "1")]
    pub(super) sequences: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SegmentDurable {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) segment: Bytes,
    #[prost(uint64, tag = "2")]
    pub(super) durable_slots: u64,
}

/// A session of a node that writes: its process, or what of it came after a fence.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct WriterOpening {
    #[prost(uint64, tag = "1")]
    pub(super) node: u64,
    /// `Once::opening` of its commands. In a fence: all before it are barred.
    #[prost(uint64, tag = "2")]
    pub(super) opening: u64,
}

/// Bars or admits a bucket's writes in a range; the reply says whether the range holds anything of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RangeFence {
    #[prost(uint64, tag = "1")]
    pub(super) bucket: u64,
    #[prost(bool, tag = "2")]
    pub(super) on: bool,
    /// The border the range must hold; empty: where the bucket begins.
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) at: Bytes,
}

/// Cuts a range at a border: what lies at or behind it becomes the range of another group with the same members.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RangeSplit {
    #[prost(uint32, tag = "1")]
    pub(super) child: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) border: Bytes,
}

/// Gives a number to a range that is to be split off, and notes that it is.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SplitBegin {
    #[prost(uint32, tag = "1")]
    pub(super) parent: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) border: Bytes,
}

/// A split that was begun is done, or was refused by its range.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SplitEnd {
    #[prost(uint32, tag = "1")]
    pub(super) parent: u32,
    #[prost(uint32, tag = "2")]
    pub(super) child: u32,
    #[prost(bool, tag = "3")]
    pub(super) is_done: bool,
}

/// Who keeps a range, for those who do not.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RangeMembers {
    #[prost(uint32, tag = "1")]
    pub(super) range: u32,
    #[prost(uint64, repeated, tag = "2")]
    pub(super) members: Vec<u64>,
}

/// What `apply` answers. Kept in short, as a `WireAnswer`, until its proposer says that it has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    Done,
    Bucket(Box<Bucket>),
    Version(Box<ObjectVersion>),
    Deleted(Deleted),
    VersionName(String),
    /// Of a command about trust.
    Trust(Box<TrustReply>),
    /// Of a fence: whether the range holds anything of the bucket, and where the range ends (empty: never).
    Fenced {
        is_empty: bool,
        end: Bytes,
    },
    /// The number of a range.
    Range(u32),
    /// The range does not hold that key (any more). Nothing was done.
    WrongRange,
}

pub(super) type ApplyResult = Result<Reply, MetadataError>;

impl From<&EtagCondition> for Etags {
    fn from(condition: &EtagCondition) -> Self {
        match condition {
            EtagCondition::Any => Self { any: true, list: Vec::new() },
            EtagCondition::OneOf(list) => Self { any: false, list: list.clone() },
        }
    }
}

impl From<&Preconditions> for Conditions {
    fn from(p: &Preconditions) -> Self {
        Self {
            if_match: p.if_match.as_ref().map(Etags::from),
            if_none_match: p.if_none_match.as_ref().map(Etags::from),
            if_match_modified_ms: p.if_match_modified_ms,
            if_match_bytes: p.if_match_bytes,
        }
    }
}

impl From<VersionSelector> for Selector {
    fn from(selector: VersionSelector) -> Self {
        match selector {
            VersionSelector::Current => Self { null: false, id: Bytes::new() },
            VersionSelector::Null => Self { null: true, id: Bytes::new() },
            VersionSelector::Id(id) => Self { null: false, id: Bytes::copy_from_slice(id.as_bytes()) },
        }
    }
}

impl Selector {
    /// Back to the API's form.
    pub(super) fn to_api(&self) -> VersionSelector {
        match VersionId::from_slice(&self.id) {
            _ if self.null => VersionSelector::Null,
            Some(id) => VersionSelector::Id(id),
            None => VersionSelector::Current,
        }
    }
}
