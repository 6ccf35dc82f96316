//! Answers that take several ranges: pages of listings in the order of keys, and whatever concerns all ranges.

use super::super::api::{
    Garbage, ListPage, ListRequest, ListVersionsRequest, MetadataError, MetadataResult, SegmentOwner, UploadPage,
    VersionPage,
};
use super::super::command::{GarbageDone, Kind};
use super::super::group::done;
use super::super::keys;
use super::super::query::{Found, Query};
use super::{FIRST_RANGE, MetadataStore, unexpected_found};
use holdfast_proto::manifest::Segment;
use holdfast_proto::{BucketId, SegmentId};
use std::collections::BTreeMap;

/// Where the number of a range begins in a place in the queue of all garbage. Below it is the place in the range's own
/// queue: enough for 30 years at a thousand a second.
const RANGE_SHIFT: u32 = 40;

/// Where the next range of a bucket begins after one that ends at `end`; `None` if nothing of the prefix can be there.
fn next_border(end: &[u8], floor: &[u8]) -> Option<Vec<u8>> {
    if end.is_empty() {
        return None;
    }
    let past = keys::after_prefix(floor);
    (past.is_empty() || end < past.as_slice()).then(|| end.to_vec())
}

/// Where a page begins: at its prefix, or at its marker if that comes later.
fn begin(bucket: BucketId, prefix: &str, marker: &str) -> Vec<u8> {
    keys::object(bucket, prefix).max(keys::object(bucket, marker))
}

impl MetadataStore {
    /// A page of current versions. Each range adds what is left of the page; a common prefix that goes on in the next
    /// range is passed there as the marker, so it is not met twice.
    pub(super) async fn list_ranges(&self, bucket: BucketId, request: ListRequest) -> MetadataResult<ListPage> {
        let floor = keys::object(bucket, &request.prefix);
        let mut from = begin(bucket, &request.prefix, &request.after);
        let mut page = ListPage::default();
        let mut request = request;
        loop {
            let limit = request.limit - page.entries.len() - page.common_prefixes.len();
            // A full page needs to know only whether there is more.
            let asked = ListRequest { limit: limit.max(usize::from(request.limit > 0)), ..request.clone() };
            let found = self.inner.query(Query::List { bucket, request: asked, from: from.clone() }).await?;
            let Found::List(part, end) = found else { return Err(unexpected_found(found)) };
            if limit == 0 && !(part.entries.is_empty() && part.common_prefixes.is_empty()) {
                page.next_after = Some(request.after);
                return Ok(page);
            }
            let last = last_of(part.entries.last().map(|e| e.key.as_str()), part.common_prefixes.last());
            if let Some(last) = last {
                request.after = last;
            }
            page.entries.extend(part.entries);
            page.common_prefixes.extend(part.common_prefixes);
            if part.next_after.is_some() || request.limit == 0 {
                page.next_after = part.next_after;
                return Ok(page);
            }
            match next_border(&end, &floor) {
                Some(next) => from = next,
                None => return Ok(page),
            }
        }
    }

    /// A page of versions, as above.
    pub(super) async fn list_version_ranges(
        &self,
        bucket: BucketId,
        request: ListVersionsRequest,
    ) -> MetadataResult<VersionPage> {
        let floor = keys::object(bucket, &request.prefix);
        let mut from = begin(bucket, &request.prefix, &request.key_marker);
        let mut page = VersionPage::default();
        let mut request = request;
        loop {
            let limit = request.limit - page.entries.len() - page.common_prefixes.len();
            let asked = ListVersionsRequest { limit: limit.max(usize::from(request.limit > 0)), ..request.clone() };
            let found = self.inner.query(Query::Versions { bucket, request: asked, from: from.clone() }).await?;
            let Found::Versions(part, end) = found else { return Err(unexpected_found(found)) };
            if limit == 0 && !(part.entries.is_empty() && part.common_prefixes.is_empty()) {
                page.next = Some((request.key_marker, request.version_marker));
                return Ok(page);
            }
            let last_key = part.entries.last().map(|e| e.entry.key.as_str());
            if let Some(last) = last_of(last_key, part.common_prefixes.last()) {
                let entry = part.entries.last().filter(|entry| entry.entry.key == last);
                request.version_marker = entry.map(|entry| entry.version.clone()).unwrap_or_default();
                request.key_marker = last;
            }
            page.entries.extend(part.entries);
            page.common_prefixes.extend(part.common_prefixes);
            if part.next.is_some() || request.limit == 0 {
                page.next = part.next;
                return Ok(page);
            }
            match next_border(&end, &floor) {
                Some(next) => from = next,
                None => return Ok(page),
            }
        }
    }

    /// A page of uploads, as above.
    pub(super) async fn list_upload_ranges(
        &self,
        bucket: BucketId,
        request: ListVersionsRequest,
    ) -> MetadataResult<UploadPage> {
        let floor = keys::object(bucket, &request.prefix);
        let mut from = begin(bucket, &request.prefix, &request.key_marker);
        let mut page = UploadPage::default();
        let mut request = request;
        loop {
            let limit = request.limit - page.entries.len() - page.common_prefixes.len();
            let asked = ListVersionsRequest { limit: limit.max(usize::from(request.limit > 0)), ..request.clone() };
            let found = self.inner.query(Query::Uploads { bucket, request: asked, from: from.clone() }).await?;
            let Found::Uploads(part, end) = found else { return Err(unexpected_found(found)) };
            if limit == 0 && !(part.entries.is_empty() && part.common_prefixes.is_empty()) {
                page.next = Some((request.key_marker, request.version_marker));
                return Ok(page);
            }
            let last_key = part.entries.last().map(|e| e.key.as_str());
            if let Some(last) = last_of(last_key, part.common_prefixes.last()) {
                let entry = part.entries.last().filter(|entry| entry.key == last);
                let id = entry.and_then(|entry| holdfast_proto::VersionId::from_slice(&entry.upload.upload));
                request.version_marker = id.map(|id| id.to_string()).unwrap_or_default();
                request.key_marker = last;
            }
            page.entries.extend(part.entries);
            page.common_prefixes.extend(part.common_prefixes);
            if part.next.is_some() || request.limit == 0 {
                page.next = part.next;
                return Ok(page);
            }
            match next_border(&end, &floor) {
                Some(next) => from = next,
                None => return Ok(page),
            }
        }
    }

    pub(super) async fn garbage_of_ranges(&self, limit: usize) -> MetadataResult<Vec<Garbage>> {
        let mut all = Vec::new();
        for range in self.inner.range_numbers() {
            if all.len() == limit {
                break;
            }
            let found = self.inner.query_range(range, Query::Garbage { limit: limit - all.len() }).await?;
            let Found::Garbage(found) = found else { return Err(unexpected_found(found)) };
            let offset = u64::from(range - FIRST_RANGE) << RANGE_SHIFT;
            all.extend(found.into_iter().map(|g| Garbage { sequence: offset | g.sequence, segment: g.segment }));
        }
        Ok(all)
    }

    pub(super) async fn garbage_done_in_ranges(&self, sequences: Vec<u64>) -> MetadataResult<()> {
        let mut by_range: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for sequence in sequences {
            let own = sequence & ((1 << RANGE_SHIFT) - 1);
            by_range.entry(sequence >> RANGE_SHIFT).or_default().push(own);
        }
        for (range, sequences) in by_range {
            let range = u32::try_from(range + u64::from(FIRST_RANGE))
                .map_err(|_| MetadataError::Invalid { reason: "no such range".to_owned() })?;
            done(self.inner.propose(range, Kind::GarbageDone(GarbageDone { sequences })).await?)?;
        }
        Ok(())
    }

    pub(super) async fn segment_owner_in_ranges(
        &self,
        segment: SegmentId,
    ) -> MetadataResult<Option<(SegmentOwner, Segment)>> {
        // Along the keys, not by the list of ranges: one that is just being split off must not be left out, for what has
        // no owner is freed.
        let mut from = Vec::new();
        loop {
            let found = self.inner.query(Query::Owner { segment, from }).await?;
            match found {
                Found::Owner(Some(owner), _) => return Ok(Some(*owner)),
                Found::Owner(None, end) if end.is_empty() => return Ok(None),
                Found::Owner(None, end) => from = end,
                other => return Err(unexpected_found(other)),
            }
        }
    }

    /// The first `limit` of all ranges together, in the order of ids.
    pub(super) async fn segments_of_ranges(
        &self,
        after: Option<SegmentId>,
        limit: usize,
    ) -> MetadataResult<Vec<(SegmentOwner, Segment)>> {
        let mut all = Vec::new();
        let mut from = Vec::new();
        loop {
            let is_first = from.is_empty();
            let found = self.inner.query(Query::Segments { after, limit, from }).await?;
            let Found::Segments(found, end) = found else { return Err(unexpected_found(found)) };
            all.extend(found);
            if !is_first {
                all.sort_by_key(|(_, segment)| segment.segment_id());
                all.truncate(limit);
            }
            if end.is_empty() {
                return Ok(all);
            }
            from = end;
        }
    }
}

/// The last of a page: a key or a common prefix, whichever comes later.
fn last_of(key: Option<&str>, common: Option<&String>) -> Option<String> {
    key.max(common.map(String::as_str)).map(str::to_owned)
}
