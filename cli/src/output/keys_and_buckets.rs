//! Tables of access keys and buckets.

use super::{columns, words};
use holdfast_proto::admin::{BucketView, KeyView};

/// One line each, never a secret.
pub(crate) fn keys(keys: &[KeyView], now_ms: u64) -> String {
    let rows = keys
        .iter()
        .map(|key| {
            let role = if key.is_root { "root" } else { "s3" };
            vec![key.access_key.clone(), key.name.clone(), role.to_owned(), words::ago(key.created_ms, now_ms)]
        })
        .collect();
    columns(&["ACCESS KEY", "NAME", "ROLE", "CREATED"], rows, &[])
}

/// A new key, in a form a shell takes.
pub(crate) fn new_key(key: &KeyView) -> String {
    let secret = key.secret_key.as_deref().unwrap_or_default();
    format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={secret}\n", key.access_key)
}

/// One line each.
pub(crate) fn buckets(buckets: &[BucketView], now_ms: u64) -> String {
    let rows = buckets
        .iter()
        .map(|bucket| {
            let created = words::ago(bucket.created_ms, now_ms);
            vec![bucket.name.clone(), bucket.versioning.clone(), bucket.owner.clone(), created]
        })
        .collect();
    columns(&["BUCKET", "VERSIONING", "OWNER", "CREATED"], rows, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots() {
        let key = KeyView {
            access_key: "HFABC".into(),
            secret_key: Some("s3cret".into()),
            name: "ci".into(),
            created_ms: 1_000,
            is_root: false,
        };
        let root = KeyView { access_key: "root-key".into(), is_root: true, ..key.clone() };
        let expected = "\
ACCESS KEY  NAME  ROLE  CREATED
HFABC       ci    s3    9 s ago
root-key    ci    root  9 s ago
";
        assert_eq!(keys(&[key.clone(), root], 10_000), expected);
        assert_eq!(new_key(&key), "AWS_ACCESS_KEY_ID=HFABC\nAWS_SECRET_ACCESS_KEY=s3cret\n");
        let bucket = BucketView {
            name: "photos".into(),
            created_ms: 1_000,
            versioning: "enabled".into(),
            owner: "HFABC".into(),
        };
        let expected = "\
BUCKET  VERSIONING  OWNER  CREATED
photos  enabled     HFABC  9 s ago
";
        assert_eq!(buckets(&[bucket], 10_000), expected);
    }
}
