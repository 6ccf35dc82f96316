//! Keys of the state's column families (docs/formats.md, "Metadata state"). Byte order is listing order.
//!
//! An object key is opaque UTF-8 and may hold any byte but is never a prefix of the fields after it: where fields follow
//! it, zero bytes are escaped (00 -> 00 FF) and the key ends with 00 01.

use holdfast_proto::{BucketId, SegmentId, VersionId};

/// 0 = plain range: keys of a bucket in one order. Other salts are for buckets created with several ranges.
const SALT_PLAIN: u8 = 0;
/// Bucket and salt.
const BUCKET_PREFIX_BYTES: usize = 9;

/// Rows of a group, after its number in `Groups`.
pub(super) const APPLIED_ROW: &str = "applied";
/// A range's bounds.
pub(super) const RANGE_ROW: &str = "range";
/// A snapshot that is being installed.
pub(super) const INSTALLING_ROW: &str = "installing";
/// Says that a copy of a range is being removed, and what bounds it had.
pub(super) const REMOVING_ROW: &str = "removing";

/// Prefix of all of a bucket's keys in `Objects`, `Versions` and `Uploads`.
pub(super) fn bucket_prefix(bucket: BucketId) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&bucket.0.to_be_bytes());
    out.push(SALT_PLAIN);
    out
}

/// `Objects`: bucket, salt, key as it is.
pub(super) fn object(bucket: BucketId, key: &str) -> Vec<u8> {
    let mut out = bucket_prefix(bucket);
    out.extend_from_slice(key.as_bytes());
    out
}

/// The object key in a key of `Objects`.
pub(super) fn object_key(stored: &[u8]) -> Option<&str> {
    std::str::from_utf8(stored.get(9..)?).ok()
}

/// `Versions`, `Uploads`: bucket, salt, escaped key, terminator.
pub(super) fn key_prefix(bucket: BucketId, key: &str) -> Vec<u8> {
    let mut out = bucket_prefix(bucket);
    escape_into(key, &mut out);
    out.extend_from_slice(&[0, 1]);
    out
}

/// Where keys that begin with `prefix` begin in an escaped family.
pub(super) fn escaped_start(bucket: BucketId, prefix: &str) -> Vec<u8> {
    let mut out = bucket_prefix(bucket);
    escape_into(prefix, &mut out);
    out
}

fn escape_into(key: &str, out: &mut Vec<u8>) {
    escape_bytes_into(key.as_bytes(), out);
}

fn escape_bytes_into(key: &[u8], out: &mut Vec<u8>) {
    for &byte in key {
        out.push(byte);
        if byte == 0 {
            out.push(0xFF);
        }
    }
}

/// A border (bucket, salt, key as in `Objects`) in the families with escaped keys: all versions of a key lie on one side.
pub(super) fn escaped_border(border: &[u8]) -> Vec<u8> {
    let (prefix, key) = border.split_at(border.len().min(BUCKET_PREFIX_BYTES));
    let mut out = prefix.to_vec();
    escape_bytes_into(key, &mut out);
    out
}

/// Splits a stored escaped key into the object key and what follows it.
pub(super) fn split_escaped(stored: &[u8]) -> Option<(String, &[u8])> {
    let mut key = Vec::new();
    let mut rest = stored.get(9..)?;
    loop {
        match rest {
            [0, 1, tail @ ..] => return Some((String::from_utf8(key).ok()?, tail)),
            [0, 0xFF, tail @ ..] => {
                key.push(0);
                rest = tail;
            }
            [byte, tail @ ..] if *byte != 0 => {
                key.push(*byte);
                rest = tail;
            }
            _ => return None,
        }
    }
}

/// `Versions`: key prefix, then the version id inverted, so that newer ones come first.
pub(super) fn version(bucket: BucketId, key: &str, version: VersionId) -> Vec<u8> {
    let mut out = key_prefix(bucket, key);
    out.extend(version.0.iter().map(|b| !b));
    out
}

/// `Inline`: the version's id (unique over the cluster), after its bucket.
pub(super) fn inline(bucket: BucketId, version: VersionId) -> Vec<u8> {
    let mut out = version.0.to_vec();
    out.extend_from_slice(&bucket.0.to_be_bytes());
    out
}

/// `Uploads`: key prefix, upload id; the upload's record.
pub(super) fn upload(bucket: BucketId, key: &str, upload: VersionId) -> Vec<u8> {
    let mut out = key_prefix(bucket, key);
    out.extend_from_slice(&upload.0);
    out
}

/// `Uploads`: the upload's key, part number.
pub(super) fn part(bucket: BucketId, key: &str, upload_id: VersionId, number: u32) -> Vec<u8> {
    let mut out = upload(bucket, key, upload_id);
    out.extend_from_slice(&number.to_be_bytes());
    out
}

/// `Garbage`: range, sequence.
pub(super) fn garbage(range: u32, sequence: u64) -> Vec<u8> {
    let mut out = range.to_be_bytes().to_vec();
    out.extend_from_slice(&sequence.to_be_bytes());
    out
}

/// `Segments`: the id.
pub(super) fn segment(id: SegmentId) -> Vec<u8> {
    id.0.to_vec()
}

/// `Groups`: range-local rows: applied state, next garbage sequence, fenced buckets, completed uploads.
pub(super) fn group_row(range: u32, row: &str) -> Vec<u8> {
    let mut out = range.to_be_bytes().to_vec();
    out.extend_from_slice(row.as_bytes());
    out
}

/// `Groups`: a bucket that takes no writes.
pub(super) fn fence(range: u32, bucket: BucketId) -> Vec<u8> {
    let mut out = group_row(range, "fence/");
    out.extend_from_slice(&bucket.0.to_be_bytes());
    out
}

/// `Groups`: an upload that was completed, by upload id (time order), kept a while for retries.
pub(super) fn completed(range: u32, upload: VersionId) -> Vec<u8> {
    let mut out = group_row(range, "done/");
    out.extend_from_slice(&upload.0);
    out
}

/// `Groups`: what a group remembers of commands of a node's process, so that a retry is not applied twice.
pub(super) fn once_client(range: u32, node: u64) -> Vec<u8> {
    let mut out = group_row(range, "once/");
    out.extend_from_slice(&node.to_be_bytes());
    out
}

/// `Groups`: the answer to one such command.
pub(super) fn once_answer(range: u32, node: u64, sequence: u64) -> Vec<u8> {
    let mut out = once_client(range, node);
    out.extend_from_slice(&sequence.to_be_bytes());
    out
}

/// The smallest byte string greater than every one that begins with `prefix`; empty if there is none.
pub(super) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut out = prefix.to_vec();
    while let Some(last) = out.pop() {
        if last < 0xFF {
            out.push(last + 1);
            return out;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_order_is_key_order_and_keys_come_back() {
        let bucket = BucketId(7);
        let keys = ["", "a", "a\0", "a\0b", "a\u{1}", "ab", "b", "ü", "\u{10FFFF}"];
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        let stored: Vec<Vec<u8>> = sorted.iter().map(|k| version(bucket, k, VersionId([9; 16]))).collect();
        assert!(stored.is_sorted());
        for (key, stored) in sorted.iter().zip(&stored) {
            let (back, tail) = split_escaped(stored).unwrap();
            assert_eq!(&back, key);
            assert_eq!(tail, [!9; 16]);
        }
    }

    #[test]
    fn newer_versions_come_first_and_prefixes_end() {
        let old = version(BucketId(1), "k", VersionId::from_parts(1, [0; 10]));
        let new = version(BucketId(1), "k", VersionId::from_parts(2, [0; 10]));
        assert!(new < old);
        assert_eq!(after_prefix(b"a\xFF"), b"b".to_vec());
        assert_eq!(after_prefix(b"\xFF"), Vec::<u8>::new());
    }
}
