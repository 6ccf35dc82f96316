//! Promise: a backend directory of format 1 is read for ever, and this build still writes it so. The files in `golden/`
//! were made from docs/formats.md alone.
//!
//! A mismatch is a new format version with files of its own beside the old ones, never a new expectation.

use holdfast_backends::{Backend, DiskBackend};
use holdfast_proto::node::{Cell, shard_root};
use holdfast_proto::shard_header::{ShardHeader, crc32c};
use holdfast_proto::{BackendId, BucketId, ClusterId, PgId, SegmentId, ShardId, Slot, VersionId};
use rocksdb::{DB, IteratorMode, Options};
use std::fs;
use std::path::Path;

const CLUSTER: ClusterId = ClusterId([0xc1; 16]);
const BACKEND: BackendId = BackendId([0xb2; 16]);
const EXTENT: &str = "extents/00000001.ext";
/// Where the extent header keeps its random id, its time and its checksum.
const UUID: std::ops::Range<usize> = 48..64;
const CREATED: std::ops::Range<usize> = 64..72;
/// Where the record's frame begins.
const FRAME: usize = 4096;
/// Where an index entry keeps the time of its last verification.
const VERIFIED: std::ops::Range<usize> = 50..58;

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    fs::read_to_string(path).expect("a golden file")
}

/// The two words of each line that is not a comment.
fn pairs(name: &str) -> Vec<(String, String)> {
    let words = |line: &str| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
    text(name).lines().filter(|line| !line.starts_with('#')).filter_map(words).collect()
}

fn bytes(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn extent() -> Vec<u8> {
    let mut all = vec![0u8; 8192];
    for (offset, digits) in pairs("extent_1.hex") {
        let (at, part) = (offset.parse::<usize>().expect("an offset"), bytes(&digits));
        all[at..at + part.len()].copy_from_slice(&part);
    }
    all
}

fn index() -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs("index_1.hex").iter().map(|(key, value)| (bytes(key), bytes(value))).collect()
}

fn header() -> ShardHeader {
    let random = |from: u8| std::array::from_fn(|at| from + u8::try_from(at).expect("ten bytes"));
    ShardHeader {
        cluster: CLUSTER,
        id: ShardId { pg: PgId(77), segment: SegmentId::from_parts(1_795_000_000_123, random(0x11)), slot: Slot(4) },
        bucket: BucketId(9),
        key_hash: [0x5e; 32],
        version: VersionId::from_parts(1_795_000_000_456, random(0x21)),
        scheme: [0x1d, 1, 4, 2],
        cell_bytes: 64,
        shard_bytes: 100,
        segment_bytes: 400,
        segment_offset: 0,
        created_ms: 1_795_000_000_789,
    }
}

/// The shard's bytes: 0, 1, 2, ...
fn content() -> Vec<u8> {
    (0..100).collect()
}

fn cells() -> Vec<Cell> {
    let cell = |bytes: &[u8]| Cell { hash: *blake3::hash(bytes).as_bytes(), bytes: bytes.to_vec().into() };
    content().chunks(64).map(cell).collect()
}

fn index_rows(directory: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let db = DB::open_for_read_only(&Options::default(), directory.join("index"), false).expect("open the index");
    let rows = db.iterator(IteratorMode::Start).map(|row| row.expect("read the index"));
    rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

/// Seals what was changed in a block again: its checksum is over all before it.
fn seal(block: &mut [u8], checked: usize) {
    let crc = crc32c(&block[..checked]);
    block[checked..checked + 4].copy_from_slice(&crc.to_le_bytes());
}

#[tokio::test]
async fn a_directory_of_format_1_is_read() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("extents")).unwrap();
    fs::write(base.path().join("identity.json"), text("identity_1.json")).unwrap();
    fs::write(base.path().join(EXTENT), extent()).unwrap();

    let identity = DiskBackend::identify(base.path()).unwrap();
    assert_eq!((identity.name.as_str(), identity.created_ms), ("d1", 1_795_000_000_000));
    // The index is not there: it is made from the extent.
    let backend = DiskBackend::open(base.path(), CLUSTER, BACKEND).unwrap();
    assert_eq!(backend.findings(), [] as [&str; 0]);
    let root = shard_root(cells().iter().map(|cell| cell.hash));
    let read = backend.read(header().id, 0, 2, Some(root)).await.unwrap();
    assert_eq!((read.header, read.bytes.to_vec(), read.damaged), (header(), content(), vec![]));
    backend.close().await.unwrap();
}

#[tokio::test]
async fn an_index_of_format_1_is_read() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("extents")).unwrap();
    fs::write(base.path().join("identity.json"), text("identity_1.json")).unwrap();
    fs::write(base.path().join(EXTENT), extent()).unwrap();
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, base.path().join("index")).unwrap();
    for (key, mut value) in index() {
        if key[0] == b's' {
            value[VERIFIED].copy_from_slice(&5u64.to_le_bytes());
        }
        db.put(key, value).unwrap();
    }
    db.flush().unwrap();
    drop(db);

    let backend = DiskBackend::open(base.path(), CLUSTER, BACKEND).unwrap();
    assert_eq!(backend.findings(), [] as [&str; 0]);
    let stat = backend.stat(header().id).await.unwrap().unwrap();
    // A time that only the golden row holds: the entry was taken over, not made anew.
    assert_eq!((stat.verified_ms, stat.shard_bytes, stat.cell_bytes), (5, 100, 64));
    backend.close().await.unwrap();
}

#[tokio::test]
async fn format_1_is_still_what_is_written() {
    let base = tempfile::tempdir().unwrap();
    let directory = base.path().join("d1");
    DiskBackend::format(&directory, CLUSTER, BACKEND, "d1").unwrap();
    let backend = DiskBackend::open(&directory, CLUSTER, BACKEND).unwrap();
    let mut writer = backend.begin(header()).await.unwrap();
    writer.append(cells()).await.unwrap();
    writer.finish().await.unwrap();
    backend.close().await.unwrap();
    drop(backend);

    check_identity(&fs::read_to_string(directory.join("identity.json")).unwrap());
    let written = fs::read(directory.join(EXTENT)).unwrap();
    let mut expected = extent();
    let uuid = written[UUID].to_vec();
    expected[UUID].copy_from_slice(&uuid);
    expected[CREATED].copy_from_slice(&written[CREATED]);
    seal(&mut expected, 124);
    expected[FRAME + 8..FRAME + 24].copy_from_slice(&uuid);
    seal(&mut expected[FRAME..], 60);
    assert!(written == expected, "the extent differs from golden/extent_1.hex in more than its id and time");

    let rows = index_rows(&directory);
    let expected: Vec<_> = index().into_iter().map(|(key, value)| with_chance(key, value, &uuid, &rows)).collect();
    assert_eq!(rows, expected);
}

/// The golden row with what is not the same twice: the extent's id, and when the shard was verified.
fn with_chance(key: Vec<u8>, mut value: Vec<u8>, uuid: &[u8], rows: &[(Vec<u8>, Vec<u8>)]) -> (Vec<u8>, Vec<u8>) {
    match key[0] {
        b'e' => value[2..18].copy_from_slice(uuid),
        b's' => {
            if let Some((_, found)) = rows.iter().find(|(found, _)| *found == key) {
                value[VERIFIED].copy_from_slice(&found[VERIFIED]);
            }
        }
        _ => {}
    }
    (key, value)
}

/// The golden identity but for the time, and the checksum that follows from it.
fn check_identity(written: &str) {
    let written: serde_json::Value = serde_json::from_str(written).expect("identity.json is JSON");
    let mut expected: serde_json::Value = serde_json::from_str(&text("identity_1.json")).expect("golden JSON");
    let created_ms = written["created_ms"].as_u64().expect("a time");
    let mut checked = 1u32.to_le_bytes().to_vec();
    checked.extend_from_slice(&CLUSTER.0);
    checked.extend_from_slice(&BACKEND.0);
    checked.extend_from_slice(&created_ms.to_le_bytes());
    checked.extend_from_slice(b"d1");
    expected["created_ms"] = created_ms.into();
    expected["checksum"] = format!("crc32c:{:08x}", crc32c(&checked)).into();
    assert_eq!(written, expected);
}
