//! The metadata store as a whole, on real files: what was acknowledged is there after any kind of end.

use bytes::Bytes;
use holdfast_coordinator::metadata::*;
use holdfast_proto::manifest::{AccessKey, ObjectVersion, Pair, Part, Segment, Upload, Versioning};
use holdfast_proto::{BucketId, ClusterId, SegmentId, VersionId};
use std::path::Path;
use std::sync::Arc;

async fn open(directory: &Path) -> MetadataStore {
    let options = MetadataOptions { directory: directory.to_owned(), new_cluster_id: ClusterId([7; 16]) };
    MetadataStore::open(options).await.expect("open the metadata")
}

fn id(number: u64) -> VersionId {
    VersionId::from_parts(1_000 + number, [1; 10])
}

fn segment(number: u64) -> Segment {
    Segment {
        id: Bytes::copy_from_slice(&SegmentId::from_parts(number, [2; 10]).0),
        pg: 3,
        segment_bytes: 100_000,
        scheme: Bytes::from_static(&[0x1d, 1, 4, 2]),
        cell_bytes: 65_536,
        shard_roots: Bytes::from(vec![0; 192]),
        durable_slots: 0b11_1111,
        segment_offset: 0,
        stand_ins: Vec::new(),
    }
}

fn coded(number: u64) -> ObjectVersion {
    ObjectVersion {
        version: Bytes::copy_from_slice(&id(number).0),
        object_bytes: 100_000,
        etag: format!("e{number}"),
        modified_ms: number,
        segments: vec![segment(number)],
        ..ObjectVersion::default()
    }
}

fn small(number: u64, bytes: &[u8]) -> ObjectVersion {
    ObjectVersion {
        version: Bytes::copy_from_slice(&id(number).0),
        object_bytes: bytes.len() as u64,
        etag: format!("e{number}"),
        modified_ms: number,
        inline: Bytes::copy_from_slice(bytes),
        ..ObjectVersion::default()
    }
}

fn put(bucket: BucketId, key: &str, version: ObjectVersion, versioning: Versioning) -> PutVersion {
    PutVersion {
        bucket,
        key: key.to_owned(),
        version,
        versioning,
        preconditions: Preconditions::default(),
        session: None,
    }
}

fn delete(
    bucket: BucketId,
    key: &str,
    selector: VersionSelector,
    versioning: Versioning,
    marker: u64,
) -> DeleteVersion {
    DeleteVersion {
        bucket,
        key: key.to_owned(),
        selector,
        versioning,
        marker: id(marker),
        now_ms: marker,
        owner: "me".to_owned(),
        preconditions: Preconditions::default(),
    }
}

async fn bucket(store: &MetadataStore, name: &str) -> BucketId {
    BucketId(store.bucket_create(name, "me", 1).await.expect("a new bucket").id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_end_and_a_copy_taken_while_running_both_hold_everything() {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("live");
    let store = open(&live).await;
    let b = bucket(&store, "b").await;
    for i in 0..200 {
        store
            .put_version(put(b, &format!("k{i:03}"), small(i, &[i as u8; 300]), Versioning::Unversioned))
            .await
            .unwrap();
    }
    // What kill -9 leaves: the files as they are now, the state's memory lost.
    let copy = directory.path().join("copy");
    let status = std::process::Command::new("cp").arg("-r").arg(&live).arg(&copy).status().unwrap();
    assert!(status.success());
    store.put_version(put(b, "later", small(900, b"x"), Versioning::Unversioned)).await.unwrap();
    store.shutdown().await.unwrap();
    drop(store);

    for (path, count) in [(&live, 201), (&copy, 200)] {
        let store = open(path).await;
        assert_eq!(store.cluster_id(), ClusterId([7; 16]));
        assert_eq!(store.bucket("b").map(|b| b.id), Some(b.0));
        let page = store.list(b, ListRequest { limit: 1000, ..ListRequest::default() }).await.unwrap();
        assert_eq!(page.entries.len(), count);
        for i in 0..200 {
            let found = store.get_version(b, &format!("k{i:03}"), VersionSelector::Current).await.unwrap().unwrap();
            assert_eq!(found.inline, vec![i as u8; 300]);
        }
        store.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_store_on_the_same_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let options = MetadataOptions { directory: directory.path().to_owned(), new_cluster_id: ClusterId([8; 16]) };
    let error = MetadataStore::open(options).await.err().expect("a refusal");
    assert!(error.to_string().contains("in use"), "{error}");
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_and_markers_follow_s3() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let b = bucket(&store, "b").await;
    let on = Versioning::Enabled;
    store.put_version(put(b, "k", coded(1), Versioning::Unversioned)).await.unwrap();
    store.put_version(put(b, "k", coded(2), on)).await.unwrap();
    store.put_version(put(b, "k", coded(3), on)).await.unwrap();
    let names = |page: &VersionPage| page.entries.iter().map(|e| (e.version.clone(), e.is_latest)).collect::<Vec<_>>();
    let request = ListVersionsRequest { limit: 100, ..ListVersionsRequest::default() };
    let page = store.list_versions(b, request.clone()).await.unwrap();
    assert_eq!(names(&page), [(id(3).to_string(), true), (id(2).to_string(), false), ("null".to_owned(), false)]);
    assert!(store.garbage(10).await.unwrap().is_empty(), "no version may lose its segments");

    let marker = store.delete_version(delete(b, "k", VersionSelector::Current, on, 4)).await.unwrap();
    assert_eq!(marker, Deleted { version: Some(id(4).to_string()), delete_marker: true });
    assert!(store.get_version(b, "k", VersionSelector::Current).await.unwrap().unwrap().delete_marker);
    assert!(store.list(b, ListRequest { limit: 10, ..ListRequest::default() }).await.unwrap().entries.is_empty());
    let gone = store.delete_version(delete(b, "k", VersionSelector::Id(id(4)), on, 5)).await.unwrap();
    assert_eq!(gone, Deleted { version: Some(id(4).to_string()), delete_marker: true });
    let current = store.get_version(b, "k", VersionSelector::Current).await.unwrap().unwrap();
    assert_eq!(current.version_id(), id(3), "the next newest is current again");

    // A null version written while suspended replaces the null version only.
    store.put_version(put(b, "k", coded(6), Versioning::Suspended)).await.unwrap();
    let page = store.list_versions(b, request.clone()).await.unwrap();
    assert_eq!(names(&page), [("null".to_owned(), true), (id(3).to_string(), false), (id(2).to_string(), false)]);
    let garbage = store.garbage(10).await.unwrap();
    assert_eq!(garbage.iter().map(|g| g.segment.segment_id()).collect::<Vec<_>>(), [segment(1).segment_id()]);
    assert!(store.segment_owner(segment(1).segment_id()).await.unwrap().is_none());
    let (owner, found) = store.segment_owner(segment(2).segment_id()).await.unwrap().unwrap();
    assert_eq!((owner.version, found), (id(2), segment(2)));
    store.segment_set_durable(segment(2).segment_id(), 0b111).await.unwrap();
    assert_eq!(store.segment_owner(segment(2).segment_id()).await.unwrap().unwrap().1.durable_slots, 0b111);
    assert_eq!(store.segments(None, 100).await.unwrap().len(), 3);
    store.garbage_done(garbage.iter().map(|g| g.sequence).collect()).await.unwrap();
    assert!(store.garbage(10).await.unwrap().is_empty());

    // Pages of one, with markers, give the same as one page.
    let mut paged = Vec::new();
    let mut marker = (String::new(), String::new());
    loop {
        let (key_marker, version_marker) = marker;
        let page = ListVersionsRequest { limit: 1, key_marker, version_marker, ..ListVersionsRequest::default() };
        let page = store.list_versions(b, page).await.unwrap();
        paged.extend(names(&page));
        match page.next {
            Some(next) => marker = next,
            None => break,
        }
    }
    assert_eq!(paged, names(&store.list_versions(b, request.clone()).await.unwrap()));

    // A page goes on behind a version that was removed since: emptying a bucket page by page leaves nothing.
    let mut marker = (String::new(), String::new());
    loop {
        let (key_marker, version_marker) = marker;
        let page = ListVersionsRequest { limit: 1, key_marker, version_marker, ..ListVersionsRequest::default() };
        let page = store.list_versions(b, page).await.unwrap();
        for (version, _) in names(&page) {
            let selector = version.parse().map_or(VersionSelector::Null, VersionSelector::Id);
            store.delete_version(delete(b, "k", selector, on, 7)).await.unwrap();
        }
        match page.next {
            Some(next) => marker = next,
            None => break,
        }
    }
    assert!(store.list_versions(b, request).await.unwrap().entries.is_empty());
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preconditions_are_judged_where_writes_are_ordered() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let b = bucket(&store, "b").await;
    let absent = Preconditions { if_none_match: Some(EtagCondition::Any), ..Preconditions::default() };
    let writers: Vec<_> = (0..16)
        .map(|i| {
            let (store, absent) = (store.clone(), absent.clone());
            let put = PutVersion { preconditions: absent, ..put(b, "once", small(i, b"x"), Versioning::Unversioned) };
            tokio::spawn(async move { store.put_version(put).await.is_ok() })
        })
        .collect();
    let mut winners = 0;
    for writer in writers {
        winners += usize::from(writer.await.unwrap());
    }
    assert_eq!(winners, 1);

    let matching = |etag: &str| Preconditions {
        if_match: Some(EtagCondition::OneOf(vec![etag.to_owned()])),
        ..Preconditions::default()
    };
    store.put_version(put(b, "k", small(100, b"1"), Versioning::Unversioned)).await.unwrap();
    let swap = PutVersion { preconditions: matching("e100"), ..put(b, "k", small(101, b"2"), Versioning::Unversioned) };
    store.put_version(swap.clone()).await.unwrap();
    // The same command again is a retry and gives the same answer; a different one with the old ETag fails.
    assert_eq!(store.put_version(swap).await.unwrap().etag, "e101");
    let stale =
        PutVersion { preconditions: matching("e100"), ..put(b, "k", small(102, b"3"), Versioning::Unversioned) };
    let error = store.put_version(stale).await.unwrap_err();
    assert_eq!(error, MetadataError::PreconditionFailed { condition: "If-Match" });
    let nothing =
        PutVersion { preconditions: matching("x"), ..put(b, "none", small(103, b"4"), Versioning::Unversioned) };
    assert_eq!(store.put_version(nothing).await.unwrap_err(), MetadataError::NoSuchKey);

    // Of a DELETE: what is not there fails an ETag, and passes size and time; a marker fails them all.
    let failed = |condition| Err(MetadataError::PreconditionFailed { condition });
    let size = |bytes| Preconditions { if_match_bytes: Some(bytes), ..Preconditions::default() };
    let time = |ms| Preconditions { if_match_modified_ms: Some(ms), ..Preconditions::default() };
    let on = Versioning::Enabled;
    store.put_version(put(b, "marked", small(110, b"1"), on)).await.unwrap();
    store.delete_version(delete(b, "marked", VersionSelector::Current, on, 111)).await.unwrap();
    let table = [
        ("none", matching("x"), Err(MetadataError::NoSuchKey)),
        ("none", size(9), Ok(())),
        ("none", time(9), Ok(())),
        ("marked", matching("x"), failed("If-Match")),
        ("marked", size(9), failed("x-amz-if-match-size")),
        ("marked", time(9_999_999), failed("x-amz-if-match-last-modified-time")),
        ("k", size(9), failed("x-amz-if-match-size")),
        ("k", matching("e100"), failed("If-Match")),
        ("k", matching("e101"), Ok(())),
    ];
    for (i, (key, preconditions, expected)) in table.into_iter().enumerate() {
        let plain = delete(b, key, VersionSelector::Current, Versioning::Unversioned, 200 + i as u64);
        let delete = DeleteVersion { preconditions, ..plain };
        assert_eq!(store.delete_version(delete).await.map(|_| ()), expected, "case {i}");
    }
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_complete_once_and_unused_parts_become_garbage() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let b = bucket(&store, "b").await;
    let upload = Upload { upload: Bytes::copy_from_slice(&id(1).0), created_ms: 1, ..Upload::default() };
    store.upload_create(b, "k", upload).await.unwrap();
    let part = |number: u32, seg: u64| Part {
        number,
        part_bytes: 100_000,
        etag: format!("p{seg}"),
        segments: vec![segment(seg)],
        ..Part::default()
    };
    for (number, seg) in [(1, 11), (2, 12), (2, 13), (3, 14), (4, 15)] {
        store.part_put(b, "k", id(1), part(number, seg), None).await.unwrap();
    }
    assert_eq!(
        store.part_list(b, "k", id(1), 1, 2).await.unwrap().iter().map(|p| p.number).collect::<Vec<_>>(),
        [2, 3]
    );
    let listed =
        store.upload_list(b, ListVersionsRequest { limit: 10, ..ListVersionsRequest::default() }).await.unwrap();
    assert_eq!(listed.entries.len(), 1);
    let complete = |parts: &[(u32, &str)]| CompleteUpload {
        bucket: b,
        key: "k".to_owned(),
        upload: id(1),
        parts: parts.iter().map(|(n, e)| (*n, (*e).to_owned())).collect(),
        version: ObjectVersion {
            version: Bytes::copy_from_slice(&id(2).0),
            etag: "whole-2".into(),
            ..Default::default()
        },
        versioning: Versioning::Unversioned,
        preconditions: Preconditions::default(),
    };
    for (parts, number) in [(&[(1, "p11"), (2, "p12")][..], 2), (&[(1, "p11"), (9, "p")][..], 9), (&[(0, "p")][..], 0)]
    {
        let error = store.upload_complete(complete(parts)).await.unwrap_err();
        assert_eq!(error, MetadataError::InvalidPart { number });
    }
    let done = store.upload_complete(complete(&[(1, "p11"), (3, "p14")])).await.unwrap();
    assert_eq!((done.object_bytes, done.segments.len(), done.parts.len()), (200_000, 2, 2));
    assert_eq!(store.upload_complete(complete(&[(1, "p11"), (3, "p14")])).await.unwrap(), done, "a retry");
    let mut garbage: Vec<_> = store.garbage(10).await.unwrap().iter().map(|g| g.segment.segment_id()).collect();
    garbage.sort_unstable();
    assert_eq!(garbage, [12, 13, 15].map(|s| segment(s).segment_id()));
    assert_eq!(store.segment_owner(segment(14).segment_id()).await.unwrap().unwrap().0.part, None);
    assert!(matches!(store.upload_abort(b, "k", id(1)).await, Err(MetadataError::NoSuchUpload { .. })));
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_and_keys() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let b = bucket(&store, "b").await;
    assert!(
        matches!(store.bucket_create("b", "you", 2).await, Err(MetadataError::BucketExists { owner, .. }) if owner == "me")
    );
    store.put_version(put(b, "k", small(1, b"x"), Versioning::Unversioned)).await.unwrap();
    assert_eq!(store.bucket_delete("b").await.unwrap_err(), MetadataError::BucketNotEmpty { bucket: "b".into() });
    store.put_version(put(b, "k2", small(2, b"x"), Versioning::Unversioned)).await.expect("the fence was lifted");
    for (i, key) in ["k", "k2"].iter().enumerate() {
        let gone = delete(b, key, VersionSelector::Current, Versioning::Unversioned, 10 + i as u64);
        store.delete_version(gone).await.unwrap();
    }
    store.bucket_delete("b").await.unwrap();
    assert!(store.bucket("b").is_none());
    let late = store.put_version(put(b, "k3", small(3, b"x"), Versioning::Unversioned)).await;
    assert!(matches!(late, Err(MetadataError::NoSuchBucket { .. })), "a write that raced the deletion: {late:?}");
    assert!(bucket(&store, "b").await > b, "numbers are not reused");

    let key = AccessKey { access_key: "a".into(), secret_key: "s".into(), is_root: true, ..AccessKey::default() };
    store.access_key_create(key.clone()).await.unwrap();
    assert_eq!(store.access_key("a"), Some(key));
    assert!(matches!(store.access_key_delete("a").await, Err(MetadataError::Invalid { .. })));
    store.bucket_set_versioning("b", Versioning::Enabled).await.unwrap();
    assert_eq!(store.bucket("b").unwrap().versioning, Versioning::Enabled as i32);
    let tags = vec![Pair { name: "a".into(), value: "b".into() }];
    store.bucket_set_tags("b", tags.clone()).await.unwrap();
    assert_eq!(store.bucket("b").unwrap().tags, tags);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_roll_up_and_page() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let b = bucket(&store, "b").await;
    let other = bucket(&store, "c").await;
    let keys = ["a", "b/1", "b/2", "b/c/3", "c", "d/", "d/x", "e\u{10FFFF}", "ü/1"];
    for (i, key) in keys.iter().enumerate() {
        store.put_version(put(b, key, small(i as u64, b"x"), Versioning::Unversioned)).await.unwrap();
        store.put_version(put(other, key, small(50 + i as u64, b"x"), Versioning::Unversioned)).await.unwrap();
    }
    for limit in 1..=10 {
        for (prefix, delimiter, expected) in [
            ("", "", keys.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>()),
            ("", "/", ["a", "b/", "c", "d/", "e\u{10FFFF}", "ü/"].map(str::to_owned).to_vec()),
            ("b/", "/", ["b/1", "b/2", "b/c/"].map(str::to_owned).to_vec()),
            ("d", "/", ["d/"].map(str::to_owned).to_vec()),
            ("x", "", vec![]),
        ] {
            let mut found = Vec::new();
            let mut after = String::new();
            for _ in 0..20 {
                let request = ListRequest { prefix: prefix.into(), delimiter: delimiter.into(), after, limit };
                let page = store.list(b, request).await.unwrap();
                assert!(page.entries.len() + page.common_prefixes.len() <= limit);
                let mut both: Vec<_> = page.entries.into_iter().map(|e| e.key).chain(page.common_prefixes).collect();
                both.sort_unstable();
                found.extend(both);
                match page.next_after {
                    Some(next) => after = next,
                    None => {
                        after = String::from("done");
                        break;
                    }
                }
            }
            assert_eq!(after, "done", "{prefix:?} {delimiter:?} {limit}: never ended");
            assert_eq!(found, expected, "prefix {prefix:?} delimiter {delimiter:?} limit {limit}");
        }
    }
    store.shutdown().await.unwrap();
}

/// Not a benchmark: sixteen writers must share syncs, which shows in far fewer syncs than writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writes_all_land() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()).await);
    let b = bucket(&store, "b").await;
    let writers: Vec<_> = (0..16_u64)
        .map(|w| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0..100 {
                    let version = small(w * 1000 + i, &[w as u8; 4096]);
                    store.put_version(put(b, &format!("{w}/{i}"), version, Versioning::Unversioned)).await.unwrap();
                }
            })
        })
        .collect();
    let started = std::time::Instant::now();
    for writer in writers {
        writer.await.unwrap();
    }
    println!("1600 puts in {:?}", started.elapsed());
    let page = store.list(b, ListRequest { limit: 1000, ..ListRequest::default() }).await.unwrap();
    assert_eq!(page.entries.len(), 1000);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_is_found_while_its_version_moves() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let b = bucket(&store, "b").await;
    let on = Versioning::Enabled;
    store.put_version(put(b, "k", coded(1), on)).await.unwrap();
    let moving = tokio::spawn({
        let store = store.clone();
        async move {
            // Overwritten and brought back, over and over: its record goes to the older versions and back.
            for number in 2..300 {
                store.put_version(put(b, "k", coded(number), on)).await.unwrap();
                store.delete_version(delete(b, "k", VersionSelector::Id(id(number)), on, 0)).await.unwrap();
            }
        }
    });
    let watched = SegmentId::from_slice(&segment(1).id).unwrap();
    let watching = tokio::task::spawn_blocking({
        let store = store.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                while !moving.is_finished() {
                    assert!(store.segment_owner(watched).await.unwrap().is_some(), "called an orphan");
                    let found = store.get_version(b, "k", VersionSelector::Id(id(1))).await.unwrap();
                    assert!(found.is_some(), "called missing");
                }
                moving.await.unwrap();
            });
        }
    });
    watching.await.unwrap();
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_without_its_log_and_a_log_without_its_state_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("live");
    let store = open(&live).await;
    let b = bucket(&store, "b").await;
    // Enough for the state to be flushed and the log before it to be dropped.
    for number in 0..400 {
        let version = small(number, &vec![7; 100_000]);
        store.put_version(put(b, &format!("k{number}"), version, Versioning::Unversioned)).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    store.put_version(put(b, "last", small(900, b"x"), Versioning::Unversioned)).await.unwrap();
    store.shutdown().await.unwrap();
    drop(store);
    for (part, why) in [("log", "has a state but no log"), ("state", "the log begins after entry")] {
        let aside = directory.path().join("aside");
        std::fs::rename(live.join(part), &aside).unwrap();
        let options = MetadataOptions { directory: live.clone(), new_cluster_id: ClusterId([7; 16]) };
        let error = MetadataStore::open(options).await.err().expect("a refusal").to_string();
        assert!(error.contains(why), "{error}");
        let _ = std::fs::remove_dir_all(live.join(part));
        std::fs::rename(&aside, live.join(part)).unwrap();
    }
    let store = open(&live).await;
    let page = store.list(b, ListRequest { limit: 1000, ..ListRequest::default() }).await.unwrap();
    assert_eq!(page.entries.len(), 401);
    store.shutdown().await.unwrap();
}
