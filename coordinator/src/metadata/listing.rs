//! Pages of keys, versions and uploads over the ordered view. A page reads what it returns and one seek for each common
//! prefix, never what lies below one.

use super::api::{
    ListEntry, ListPage, ListRequest, ListVersionsRequest, UploadEntry, UploadPage, VersionEntry, VersionPage,
};
use super::keys;
use super::kv::{Family, KvResult, KvView, Scan};
use super::state::decode;
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
/// `Objects` and `Versions` are merged key by key: both are in key order, so one key is gathered at a time.
pub(super) fn list_versions<V: KvView>(
    view: &V,
    bucket: BucketId,
    request: &ListVersionsRequest,
) -> KvResult<VersionPage> {
    let mut page = VersionPage::default();
    if request.limit == 0 {
        return Ok(page);
    }
    // First the marker's own key, from the version named on.
    let mut position = Position::start(request);
    let mut last = (request.key_marker.clone(), request.version_marker.clone());
    while let Some(key) = next_key(view, bucket, &request.prefix, &position)? {
        if let Some(common) = rolled_up(&key, &request.prefix, &request.delimiter) {
            let common = common.to_owned();
            if page.entries.len() + page.common_prefixes.len() == request.limit {
                page.next = Some(last);
                return Ok(page);
            }
            last = (common.clone(), String::new());
            position = Position::AfterPrefix(common.clone());
            page.common_prefixes.push(common);
            continue;
        }
        let resume = (key == request.key_marker).then_some(request.version_marker.as_str()).filter(|m| !m.is_empty());
        let full = gather_versions(view, bucket, &key, resume, request.limit, &mut page, &mut last)?;
        if full {
            page.next = Some(last);
            return Ok(page);
        }
        position = Position::AfterKey(key);
    }
    Ok(page)
}

/// Where a version listing goes on.
enum Position {
    At(String),
    AfterKey(String),
    AfterPrefix(String),
}

impl Position {
    fn start(request: &ListVersionsRequest) -> Self {
        let marker = &request.key_marker;
        if marker.is_empty() {
            return Self::At(String::new());
        }
        if !request.version_marker.is_empty() {
            return Self::At(marker.clone());
        }
        match rolled_up(marker, &request.prefix, &request.delimiter) {
            Some(common) if common == marker => Self::AfterPrefix(marker.clone()),
            _ => Self::AfterKey(marker.clone()),
        }
    }
}

/// The first key with the prefix at or after a position, in either family.
fn next_key<V: KvView>(view: &V, bucket: BucketId, prefix: &str, position: &Position) -> KvResult<Option<String>> {
    let floor = keys::object(bucket, prefix);
    let plain = match position {
        Position::At(key) => keys::object(bucket, key),
        Position::AfterKey(key) => [keys::object(bucket, key).as_slice(), &[0]].concat(),
        Position::AfterPrefix(common) => keys::after_prefix(&keys::object(bucket, common)),
    };
    let mut found: Option<String> = None;
    view.scan(Family::Objects, &plain.max(floor.clone()), &mut |stored, _, _| {
        found = stored.starts_with(&floor).then(|| keys::object_key(stored).map(str::to_owned)).flatten();
        Ok(Scan::Stop)
    })?;

    let floor = keys::escaped_start(bucket, prefix);
    let escaped = match position {
        Position::At(key) => keys::escaped_start(bucket, key),
        Position::AfterKey(key) => keys::after_prefix(&keys::key_prefix(bucket, key)),
        Position::AfterPrefix(common) => keys::after_prefix(&keys::escaped_start(bucket, common)),
    };
    view.scan(Family::Versions, &escaped.max(floor.clone()), &mut |stored, _, _| {
        if stored.starts_with(&floor)
            && let Some((key, _)) = keys::split_escaped(stored)
        {
            found = Some(found.take().map_or(key.clone(), |f| f.min(key)));
        }
        Ok(Scan::Stop)
    })?;
    Ok(found)
}

/// Adds the versions of one key after `resume` (an S3 version id); true when the page was full before all were in.
fn gather_versions<V: KvView>(
    view: &V,
    bucket: BucketId,
    key: &str,
    resume: Option<&str>,
    limit: usize,
    page: &mut VersionPage,
    last: &mut (String, String),
) -> KvResult<bool> {
    let mut passed = resume.is_none();
    let mut full = false;
    let mut add = |version: &ObjectVersion, is_latest: bool| {
        let name = version.s3_version_id();
        if !passed {
            passed = Some(name.as_str()) == resume;
            return true;
        }
        if page.entries.len() + page.common_prefixes.len() == limit {
            full = true;
            return false;
        }
        *last = (key.to_owned(), name.clone());
        page.entries.push(VersionEntry {
            entry: entry_of(key, version),
            version: name,
            is_latest,
            delete_marker: version.delete_marker,
        });
        true
    };
    let mut go_on = true;
    if let Some(stored) = view.get(Family::Objects, &keys::object(bucket, key))? {
        go_on = add(&decode(Family::Objects, &stored)?, true);
    }
    if go_on {
        let prefix = keys::key_prefix(bucket, key);
        view.scan(Family::Versions, &prefix, &mut |stored, value, _| {
            if !stored.starts_with(&prefix) {
                return Ok(Scan::Stop);
            }
            Ok(if add(&decode(Family::Versions, value)?, false) { Scan::Next } else { Scan::Stop })
        })?;
    }
    Ok(full)
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
