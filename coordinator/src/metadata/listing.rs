//! Pages of keys, versions and uploads over the ordered view. A page reads what it returns and one seek for each common
//! prefix, never what lies below one.

use super::api::{
    ListEntry, ListPage, ListRequest, ListVersionsRequest, UploadEntry, UploadPage, VersionEntry, VersionPage,
    VersionSelector,
};
use super::keys;
use super::kv::{Family, KvResult, KvView, Scan};
use super::state::{decode, find_version};
use holdfast_proto::manifest::{ObjectVersion, Upload};
use holdfast_proto::{BucketId, VersionId};

/// The common prefix `key` rolls up to, if any.
fn rolled_up<'k>(key: &'k str, prefix: &str, delimiter: &str) -> Option<&'k str> {
    if delimiter.is_empty() {
        return None;
    }
    let at = key.get(prefix.len()..)?.find(delimiter)?;
    key.get(..prefix.len() + at + delimiter.len())
}

fn entry_of(key: &str, version: &ObjectVersion) -> ListEntry {
    let class = version.attributes.iter().flat_map(|a| &a.headers).find(|h| h.name == "x-amz-storage-class");
    ListEntry {
        key: key.to_owned(),
        object_bytes: version.object_bytes,
        etag: version.etag.clone(),
        modified_ms: version.modified_ms,
        owner: version.owner.clone(),
        checksum_algorithms: version.checksums.iter().map(|c| c.algorithm.clone()).collect(),
        storage_class: class.map(|h| h.value.clone()).unwrap_or_default(),
    }
}

/// A page of current versions.
pub(super) fn list<V: KvView>(view: &V, bucket: BucketId, request: &ListRequest) -> KvResult<ListPage> {
    let mut page = ListPage::default();
    if request.limit == 0 {
        return Ok(page);
    }
    let floor = keys::object(bucket, &request.prefix);
    let mut from = floor.clone();
    if !request.after.is_empty() {
        let after = keys::object(bucket, &request.after);
        // Strictly after a key: its immediate successor. After a common prefix: past all that begins with it.
        let next = match rolled_up(&request.after, &request.prefix, &request.delimiter) {
            Some(common) if common == request.after => keys::after_prefix(&after),
            _ => [after.as_slice(), &[0]].concat(),
        };
        from = from.max(next);
    }
    let mut last = String::new();
    view.scan(Family::Objects, &from, &mut |stored, value, seek| {
        if !stored.starts_with(&floor) {
            return Ok(Scan::Stop);
        }
        let Some(key) = keys::object_key(stored) else { return Ok(Scan::Next) };
        let common = rolled_up(key, &request.prefix, &request.delimiter);
        let version: ObjectVersion = decode(Family::Objects, value)?;
        if version.delete_marker {
            return Ok(Scan::Next);
        }
        if page.entries.len() + page.common_prefixes.len() == request.limit {
            page.next_after = Some(std::mem::take(&mut last));
            return Ok(Scan::Stop);
        }
        if let Some(common) = common {
            page.common_prefixes.push(common.to_owned());
            last = common.to_owned();
            *seek = keys::after_prefix(&keys::object(bucket, common));
            return Ok(if seek.is_empty() { Scan::Stop } else { Scan::Seek });
        }
        last = key.to_owned();
        page.entries.push(entry_of(key, &version));
        Ok(Scan::Next)
    })?;
    Ok(page)
}

/// A page of all versions, newest first within a key.
///
/// Newest versions come from `Objects`, the others from `Versions`: a page's worth of rows is read of each, from where
/// the page begins, and merged. Both are in key order.
pub(super) fn list_versions<V: KvView>(
    view: &V,
    bucket: BucketId,
    request: &ListVersionsRequest,
) -> KvResult<VersionPage> {
    let mut page = VersionPage::default();
    if request.limit == 0 {
        return Ok(page);
    }
    let begin = versions_begin(view, bucket, request)?;
    let mut newest = newest_rows(view, bucket, request, &begin.objects)?.into_iter().peekable();
    let mut older = older_rows(view, bucket, request, &begin.versions)?.into_iter().peekable();
    let mut last = None;
    loop {
        // The newest version of a key comes before its others.
        let is_newest = match (newest.peek(), older.peek()) {
            (Some(one), Some(other)) => one.name() <= other.name(),
            (one, _) => one.is_some(),
        };
        let Some(row) = (if is_newest { newest.next() } else { older.next() }) else { return Ok(page) };
        // A prefix that holds keys of both families comes from both.
        if matches!(&row, VersionRow::Common(common) if page.common_prefixes.last() == Some(common)) {
            continue;
        }
        if page.entries.len() + page.common_prefixes.len() == request.limit {
            page.next = last;
            return Ok(page);
        }
        match row {
            VersionRow::Common(common) => {
                last = Some((common.clone(), String::new()));
                page.common_prefixes.push(common);
            }
            VersionRow::Version(key, version) => {
                let name = version.s3_version_id();
                // The id it is ordered by, of a `null` version too: that marker holds when the version is removed.
                last = Some((key.clone(), version.version_id().to_string()));
                page.entries.push(VersionEntry {
                    entry: entry_of(&key, &version),
                    version: name,
                    is_latest: is_newest,
                    delete_marker: version.delete_marker,
                });
            }
        }
    }
}

/// A row of a version listing, before the merge.
enum VersionRow {
    Version(String, Box<ObjectVersion>),
    Common(String),
}

impl VersionRow {
    /// What rows are ordered by. Every key that begins with a common prefix rolls up to it, so none falls between.
    fn name(&self) -> &str {
        match self {
            Self::Version(name, _) | Self::Common(name) => name,
        }
    }
}

/// Where a page of versions begins in each family.
struct VersionsBegin {
    objects: Vec<u8>,
    versions: Vec<u8>,
}

fn versions_begin<V: KvView>(view: &V, bucket: BucketId, request: &ListVersionsRequest) -> KvResult<VersionsBegin> {
    let floor = VersionsBegin {
        objects: keys::object(bucket, &request.prefix),
        versions: keys::escaped_start(bucket, &request.prefix),
    };
    let marker = request.key_marker.as_str();
    if marker.is_empty() {
        return Ok(floor);
    }
    let mut begin = VersionsBegin {
        objects: [keys::object(bucket, marker).as_slice(), &[0]].concat(),
        versions: keys::after_prefix(&keys::key_prefix(bucket, marker)),
    };
    if !request.version_marker.is_empty() {
        if let Some(after) = marked_version(view, bucket, marker, &request.version_marker)? {
            begin.versions = [keys::version(bucket, marker, after).as_slice(), &[0]].concat();
            // The version marked was the newest, and is gone by now: what is newest now was behind it.
            let newest = find_version(view, bucket, marker, VersionSelector::Current)?;
            if newest.is_some_and(|(_, newest)| newest.version_id() < after) {
                begin.objects = keys::object(bucket, marker);
            }
        }
    } else if rolled_up(marker, &request.prefix, &request.delimiter) == Some(marker) {
        begin.objects = keys::after_prefix(&keys::object(bucket, marker));
        begin.versions = keys::after_prefix(&keys::escaped_start(bucket, marker));
    }
    Ok(VersionsBegin { objects: begin.objects.max(floor.objects), versions: begin.versions.max(floor.versions) })
}

/// The id of a version that a marker names, whether it is still there or not; of a `null` one only if it is.
fn marked_version<V: KvView>(view: &V, bucket: BucketId, key: &str, marker: &str) -> KvResult<Option<VersionId>> {
    if let Ok(id) = marker.parse() {
        return Ok(Some(id));
    }
    Ok(find_version(view, bucket, key, VersionSelector::Null)?.map(|(_, version)| version.version_id()))
}

/// A page's rows of `Objects` and one more.
fn newest_rows<V: KvView>(
    view: &V,
    bucket: BucketId,
    request: &ListVersionsRequest,
    from: &[u8],
) -> KvResult<Vec<VersionRow>> {
    let floor = keys::object(bucket, &request.prefix);
    let mut rows = Vec::new();
    view.scan(Family::Objects, from, &mut |stored, value, seek| {
        if !stored.starts_with(&floor) || rows.len() > request.limit {
            return Ok(Scan::Stop);
        }
        let Some(key) = keys::object_key(stored) else { return Ok(Scan::Next) };
        if let Some(common) = rolled_up(key, &request.prefix, &request.delimiter) {
            *seek = keys::after_prefix(&keys::object(bucket, common));
            rows.push(VersionRow::Common(common.to_owned()));
            return Ok(if seek.is_empty() { Scan::Stop } else { Scan::Seek });
        }
        rows.push(VersionRow::Version(key.to_owned(), Box::new(decode(Family::Objects, value)?)));
        Ok(Scan::Next)
    })?;
    Ok(rows)
}

/// A page's rows of `Versions` and one more.
fn older_rows<V: KvView>(
    view: &V,
    bucket: BucketId,
    request: &ListVersionsRequest,
    from: &[u8],
) -> KvResult<Vec<VersionRow>> {
    let floor = keys::escaped_start(bucket, &request.prefix);
    let mut rows = Vec::new();
    view.scan(Family::Versions, from, &mut |stored, value, seek| {
        if !stored.starts_with(&floor) || rows.len() > request.limit {
            return Ok(Scan::Stop);
        }
        let Some((key, _)) = keys::split_escaped(stored) else { return Ok(Scan::Next) };
        if let Some(common) = rolled_up(&key, &request.prefix, &request.delimiter) {
            *seek = keys::after_prefix(&keys::escaped_start(bucket, common));
            rows.push(VersionRow::Common(common.to_owned()));
            return Ok(if seek.is_empty() { Scan::Stop } else { Scan::Seek });
        }
        rows.push(VersionRow::Version(key, Box::new(decode(Family::Versions, value)?)));
        Ok(Scan::Next)
    })?;
    Ok(rows)
}

/// A page of uploads in progress in (key, upload id) order.
pub(super) fn list_uploads<V: KvView>(
    view: &V,
    bucket: BucketId,
    request: &ListVersionsRequest,
) -> KvResult<UploadPage> {
    let mut page = UploadPage::default();
    if request.limit == 0 {
        return Ok(page);
    }
    let floor = keys::escaped_start(bucket, &request.prefix);
    let mut from = floor.clone();
    if !request.key_marker.is_empty() {
        let marker = &request.key_marker;
        let resume = request.version_marker.parse::<VersionId>();
        let next = match (resume, rolled_up(marker, &request.prefix, &request.delimiter)) {
            (Ok(id), _) => keys::after_prefix(&keys::upload(bucket, marker, id)),
            (_, Some(common)) if common == marker => keys::after_prefix(&keys::escaped_start(bucket, marker)),
            _ => keys::after_prefix(&keys::key_prefix(bucket, marker)),
        };
        from = from.max(next);
    }
    let mut last = (String::new(), String::new());
    view.scan(Family::Uploads, &from, &mut |stored, value, seek| {
        if !stored.starts_with(&floor) {
            return Ok(Scan::Stop);
        }
        let Some((key, tail)) = keys::split_escaped(stored) else { return Ok(Scan::Next) };
        let Some(id) = VersionId::from_slice(tail) else { return Ok(Scan::Next) };
        if page.entries.len() + page.common_prefixes.len() == request.limit {
            page.next = Some(std::mem::take(&mut last));
            return Ok(Scan::Stop);
        }
        if let Some(common) = rolled_up(&key, &request.prefix, &request.delimiter) {
            last = (common.to_owned(), String::new());
            page.common_prefixes.push(common.to_owned());
            *seek = keys::after_prefix(&keys::escaped_start(bucket, common));
            return Ok(if seek.is_empty() { Scan::Stop } else { Scan::Seek });
        }
        last = (key.clone(), id.to_string());
        page.entries.push(UploadEntry { key, upload: decode::<Upload>(Family::Uploads, value)? });
        // Past the parts of this upload.
        *seek = keys::after_prefix(stored);
        Ok(if seek.is_empty() { Scan::Stop } else { Scan::Seek })
    })?;
    Ok(page)
}
