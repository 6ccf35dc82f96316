//! Promise: metadata of format 1 is read for ever, and this build still writes it so. The files in `golden/` were made
//! from docs/formats.md alone.
//!
//! A mismatch is a new format version with files of its own beside the old ones, never a new expectation. Terms, log
//! indexes and openraft's own rows are not frozen here.

use bytes::Bytes;
use holdfast_coordinator::metadata::*;
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::cluster::{Role, Roles};
use holdfast_proto::manifest::{AccessKey, ObjectVersion, Pair, Part, Segment, Upload, Versioning};
use holdfast_proto::membership::AuthorityRow;
use holdfast_proto::pg_table::{Pg, PgTable};
use holdfast_proto::{BackendId, BucketId, ClusterId, Epoch, NodeId, SegmentId, VersionId};
use holdfast_trust::{Asked, KeyHash, SecretHash, TokenId, TokenRecord, TokenScope};
use rocksdb::{DB, IteratorMode, Options};
use std::path::Path;

const FAMILIES: [&str; 9] =
    ["default", "groups", "root", "objects", "versions", "inline", "uploads", "garbage", "segments"];
/// Bytes of a log entry before its payload; the last of them says what the payload is.
const ENTRY_HEAD_BYTES: usize = 26;
const COMMAND: u8 = 1;
const PHOTOS: BucketId = BucketId(1);

type Row = (String, Vec<u8>, Vec<u8>);

/// The lines of a golden file as words, without its comments.
fn golden(name: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = std::fs::read_to_string(path).expect("a golden file");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

fn golden_state() -> Vec<Row> {
    golden_rows("metadata_state_1.hex")
}

fn golden_rows(name: &str) -> Vec<Row> {
    let bytes = |digits: &str| hex::decode(digits).expect("hex digits");
    golden(name).iter().map(|w| (w[0].clone(), bytes(&w[1]), bytes(&w[2]))).collect()
}

/// All rows but openraft's own.
fn state_rows(directory: &Path) -> Vec<Row> {
    let path = directory.join("state");
    let db = DB::open_cf_for_read_only(&Options::default(), path, FAMILIES, false).expect("open the state");
    let mut rows = Vec::new();
    for family in FAMILIES {
        let handle = db.cf_handle(family).expect("the family");
        for row in db.iterator_cf(handle, IteratorMode::Start) {
            let (key, value) = row.expect("read the state");
            if !(family == "groups" && key.ends_with(b"applied")) {
                rows.push((family.to_owned(), key.to_vec(), value.to_vec()));
            }
        }
    }
    rows.sort();
    rows
}

/// The commands in the log, as lines of the golden file.
fn log_commands(directory: &Path) -> Vec<Vec<String>> {
    let db = DB::open_for_read_only(&Options::default(), directory.join("log"), false).expect("open the log");
    let mut found = Vec::new();
    for row in db.iterator(IteratorMode::Start) {
        let (key, value) = row.expect("read the log");
        if key[4] != 4 {
            continue;
        }
        assert_eq!(value[0], 1, "format of an entry");
        assert_eq!(value[17..25], key[5..13], "an entry names its index");
        if value[ENTRY_HEAD_BYTES - 1] == COMMAND {
            found.push(vec![key[3].to_string(), hex::encode(&value[ENTRY_HEAD_BYTES..])]);
        }
    }
    found
}

async fn open(directory: &Path) -> MetadataStore {
    let options = MetadataOptions { directory: directory.to_owned(), new_cluster_id: ClusterId([7; 16]) };
    MetadataStore::open(options).await.expect("open the metadata")
}

fn id(number: u64) -> VersionId {
    VersionId::from_parts(1_000 + number, [1; 10])
}

fn id_bytes(number: u64) -> Bytes {
    Bytes::copy_from_slice(id(number).as_bytes())
}

fn segment_id(number: u64) -> SegmentId {
    SegmentId::from_parts(number, [2; 10])
}

fn segment(number: u64) -> Segment {
    Segment {
        id: Bytes::copy_from_slice(segment_id(number).as_bytes()),
        pg: 3,
        segment_bytes: 100_000,
        scheme: Bytes::from_static(&[0x1d, 1, 4, 2]),
        cell_bytes: 65_536,
        shard_roots: Bytes::from(vec![0xab; 192]),
        durable_slots: 0b11_1111,
        segment_offset: 0,
        stand_ins: Vec::new(),
    }
}

fn version(number: u64) -> ObjectVersion {
    ObjectVersion {
        version: id_bytes(number),
        etag: format!("e{number}"),
        modified_ms: number,
        ..ObjectVersion::default()
    }
}

fn coded(number: u64) -> ObjectVersion {
    ObjectVersion { object_bytes: 100_000, segments: vec![segment(number)], ..version(number) }
}

fn small(number: u64, bytes: &'static [u8]) -> ObjectVersion {
    ObjectVersion { object_bytes: bytes.len() as u64, inline: Bytes::from_static(bytes), ..version(number) }
}

fn put(key: &str, version: ObjectVersion, versioning: Versioning) -> PutVersion {
    PutVersion {
        bucket: PHOTOS,
        key: key.to_owned(),
        version,
        versioning,
        preconditions: Preconditions::default(),
        session: None,
    }
}

fn upload(number: u64) -> Upload {
    Upload { upload: id_bytes(number), created_ms: number, owner: "me".to_owned(), ..Upload::default() }
}

fn part(etag: &str, segment_number: u64) -> Part {
    Part {
        number: 1,
        part_bytes: 100_000,
        etag: etag.to_owned(),
        modified_ms: 7,
        segments: vec![segment(segment_number)],
        ..Part::default()
    }
}

fn tags() -> Vec<Pair> {
    vec![Pair { name: "team".to_owned(), value: "x".to_owned() }]
}

fn cluster_map() -> ClusterMap {
    let backend = BackendId([0xb2; 16]);
    ClusterMap {
        cluster: ClusterId([7; 16]),
        nodes: Vec::new(),
        backends: vec![BackendRecord {
            id: backend,
            name: "d1".to_owned(),
            location: "disk:/mnt/d1".to_owned(),
            intent: BackendIntent::Active,
            node: NodeId::FIRST,
        }],
        table: PgTable {
            epoch: Epoch(1),
            scheme: [0x1d, 1, 4, 2],
            pgs: vec![Pg { committed: vec![backend], target: vec![backend] }],
        },
        promise: Default::default(),
        is_promise_chosen: false,
        proof: None,
        held: Default::default(),
        change: None,
    }
}

fn access_key() -> AccessKey {
    AccessKey {
        access_key: "AKIAEXAMPLE".to_owned(),
        secret_key: "not-a-secret".to_owned(),
        name: "root".to_owned(),
        created_ms: 5,
        is_root: true,
    }
}

/// Something of every kind of row.
async fn fill(store: &MetadataStore) -> MetadataResult<()> {
    store.cluster_map_set(Epoch(0), cluster_map()).await?;
    store.access_key_create(access_key()).await?;
    store.bucket_create("photos", "me", 1000).await?;
    store.bucket_create("gone", "me", 1000).await?;
    store.bucket_set_tags("photos", tags()).await?;
    store.bucket_set_versioning("photos", Versioning::Enabled).await?;
    store.bucket_delete("gone").await?;

    store.put_version(put("k\0", small(11, b"hello"), Versioning::Enabled)).await?;
    store.put_version(put("k\0", coded(12), Versioning::Enabled)).await?;
    store.put_version(put("z", coded(13), Versioning::Unversioned)).await?;
    let mut conditional = put("z", small(14, b"abc"), Versioning::Unversioned);
    conditional.preconditions.if_match = Some(EtagCondition::OneOf(vec!["e13".to_owned()]));
    store.put_version(conditional).await?;
    let delete = DeleteVersion {
        bucket: PHOTOS,
        key: "m".to_owned(),
        selector: VersionSelector::Current,
        versioning: Versioning::Enabled,
        marker: id(15),
        now_ms: 15,
        owner: "me".to_owned(),
        preconditions: Preconditions::default(),
    };
    store.delete_version(delete).await?;

    store.upload_create(PHOTOS, "u", upload(21)).await?;
    store.part_put(PHOTOS, "u", id(21), part("p1", 30), None).await?;
    store.upload_create(PHOTOS, "w", upload(22)).await?;
    store.part_put(PHOTOS, "w", id(22), part("p2", 31), None).await?;
    let complete = CompleteUpload {
        bucket: PHOTOS,
        key: "w".to_owned(),
        upload: id(22),
        parts: vec![(1, "p2".to_owned())],
        version: ObjectVersion { etag: "m".to_owned(), ..version(23) },
        versioning: Versioning::Unversioned,
        preconditions: Preconditions::default(),
    };
    store.upload_complete(complete).await?;
    store.segment_set_durable(segment_id(12), 0b1_1111).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn format_1_is_still_what_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    fill(&store).await.unwrap();
    store.shutdown().await.unwrap();
    drop(store);

    assert_eq!(std::fs::read_to_string(directory.path().join("cluster-id")).unwrap(), format!("{}\n", "07".repeat(16)));
    let (written, expected) = (state_rows(directory.path()), golden_state());
    for row in &expected {
        assert!(written.contains(row), "no such row: {} {:?} {}", row.0, row.1, hex::encode(&row.2));
    }
    assert_eq!(written.len(), expected.len(), "{written:?}");
    assert_eq!(log_commands(directory.path()), golden("metadata_log_1.hex"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_format_1_are_read() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).await.shutdown().await.unwrap();
    let db = DB::open_cf(&Options::default(), directory.path().join("state"), FAMILIES).unwrap();
    for (family, key, value) in golden_state() {
        db.put_cf(db.cf_handle(&family).unwrap(), key, value).unwrap();
    }
    drop(db);

    let store = open(directory.path()).await;
    assert_eq!(store.cluster_map().await.unwrap(), Some(cluster_map()));
    assert_eq!(store.access_key("AKIAEXAMPLE"), Some(access_key()));
    let bucket = store.bucket("photos").unwrap();
    assert_eq!((bucket.id, bucket.versioning(), bucket.tags), (1, Versioning::Enabled, tags()));
    for (key, selector, expected) in [
        ("k\0", VersionSelector::Current, {
            let mut version = coded(12);
            version.segments[0].durable_slots = 0b1_1111;
            version
        }),
        ("k\0", VersionSelector::Id(id(11)), small(11, b"hello")),
        ("z", VersionSelector::Null, ObjectVersion { is_null: true, ..small(14, b"abc") }),
    ] {
        assert_eq!(store.get_version(PHOTOS, key, selector).await.unwrap(), Some(expected), "{key:?}");
    }
    let marker = store.get_version(PHOTOS, "m", VersionSelector::Current).await.unwrap().unwrap();
    assert!(marker.delete_marker);
    assert_eq!(store.upload_get(PHOTOS, "u", id(21)).await.unwrap(), upload(21));
    assert_eq!(store.part_list(PHOTOS, "u", id(21), 0, 10).await.unwrap(), [part("p1", 30)]);
    let owners: Vec<_> = store.segments(None, 10).await.unwrap().into_iter().map(|(o, _)| (o.key, o.part)).collect();
    assert_eq!(owners, [("k\0".to_owned(), None), ("u".to_owned(), Some(1)), ("w".to_owned(), None)]);
    assert_eq!(store.garbage(10).await.unwrap(), [Garbage { sequence: 0, segment: segment(13) }]);
    // The bucket that was deleted stays closed to writes that come late, and its number is not used again.
    let late = PutVersion { bucket: BucketId(2), ..put("late", small(40, b"x"), Versioning::Unversioned) };
    assert!(matches!(store.put_version(late).await, Err(MetadataError::NoSuchBucket { .. })));
    assert_eq!(store.bucket_create("next", "me", 1).await.unwrap().id, 3);
    store.shutdown().await.unwrap();
}

/// The CA, a token that is used, one that is revoked.
async fn fill_trust(store: &MetadataStore) -> MetadataResult<()> {
    let authority = AuthorityRow {
        generation: 1,
        certificate: "CERTIFICATE".to_owned(),
        key: "KEY".to_owned(),
        other_roots: "OTHERS".to_owned(),
    };
    store.authority_set(0, authority).await?;
    let storage = Roles::only(Role::Storage);
    let scope = TokenScope { roles: Some(storage), region: Some("eu".to_owned()), zone: None };
    for (id, scope) in [(0x11, scope), (0x12, TokenScope::default())] {
        let secret_hash = SecretHash([0x22; 32]);
        let id = TokenId([id; 16]);
        store
            .token_create(TokenRecord { id, secret_hash, scope, created_ms: 1000, expires_ms: 2000, used_by: None })
            .await?;
    }
    let asked = Asked { key: KeyHash([0x33; 32]), roles: storage, region: "eu".to_owned(), zone: "a".to_owned() };
    let (id, shown) = (TokenId([0x11; 16]), SecretHash([0x22; 32]));
    let redeemed = store.token_redeem(RedeemToken { id, shown, asked, above: NodeId::FIRST, now_ms: 1500 }).await?;
    assert_eq!(redeemed.map(|used| used.node), Ok(NodeId(2)));
    assert!(store.token_revoke(TokenId([0x12; 16])).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trust_in_format_1_is_still_what_is_written_and_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    fill_trust(&store).await.unwrap();
    store.shutdown().await.unwrap();
    drop(store);
    assert_eq!(state_rows(directory.path()), golden_rows("trust_state_1.hex"));
    assert_eq!(log_commands(directory.path()), golden("trust_log_1.hex"));

    let store = open(directory.path()).await;
    assert_eq!(store.authority().await.unwrap().unwrap().key, "KEY");
    let [token] = store.token_list().await.unwrap().try_into().unwrap();
    assert_eq!((token.id, token.used_by.map(|used| used.node)), (TokenId([0x11; 16]), Some(NodeId(2))));
    store.shutdown().await.unwrap();
}
