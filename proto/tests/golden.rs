//! Promise: what version 1 wrote is read for ever. Fixed values, encoded, are the bytes in `golden/*.hex`; those bytes,
//! decoded, are the values.
//!
//! A mismatch is a new format version with a file of its own beside the old one, never a new expectation
//! (docs/formats.md).

use bytes::Bytes;
use holdfast_proto::heartbeat::Heartbeat;
use holdfast_proto::manifest::{
    AccessKey, Attributes, Bucket, Checksum, ObjectVersion, Pair, Part, PartInfo, Segment, Upload, Versioning,
};
use holdfast_proto::node::{BackendHealth, BackendStatus, Cell, ScrubStep, ShardError, ShardRead, ShardStat};
use holdfast_proto::node_rpc::{
    AddBackend, BackendList, BackendSummary, DeleteShards, ListShards, NameBackend, NameShard, NodeLoad, Ping, Pong,
    ReadCells, ReadHead, Reply, ScrubReply, ScrubShards, StatList, StatMessage, StatReply, WriteBegin, WriteCells,
};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, BucketId, ClusterId, Epoch, NodeId, PgId, SegmentId, ShardId, Slot, VersionId};
use prost::Message;
use std::path::Path;

/// The bytes of a golden file: hex digits, blanks and line ends between them, lines of words that begin with `#`.
fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect();
    hex::decode(&digits).expect("a golden file holds hex digits")
}

fn lines_of(bytes: &[u8]) -> String {
    bytes.chunks(32).map(|line| format!("{}\n", hex::encode(line))).collect()
}

fn check_bytes(name: &str, encoded: &[u8]) {
    let frozen = golden(name);
    assert!(frozen == encoded, "{name}.hex does not hold these bytes:\n{}", lines_of(encoded));
}

fn check_message<M: Message + Default + PartialEq + std::fmt::Debug>(name: &str, value: &M) {
    check_bytes(name, &value.encode_to_vec());
    assert_eq!(M::decode(golden(name).as_slice()).as_ref(), Ok(value), "{name}");
    // A field of a later version (tag 1000, one byte) is skipped.
    let mut later = golden(name);
    later.extend_from_slice(&[0xc0, 0x3e, 0x01]);
    assert_eq!(M::decode(later.as_slice()).as_ref(), Ok(value), "{name} with a field of a later version");
}

fn segment_id() -> SegmentId {
    SegmentId::from_parts(1_795_000_000_123, [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a])
}

fn version_id() -> VersionId {
    VersionId::from_parts(1_795_000_000_456, [0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a])
}

fn pair(name: &str, value: &str) -> Pair {
    Pair { name: name.to_owned(), value: value.to_owned() }
}

fn checksum(algorithm: &str, value: &[u8], part_count: u32) -> Checksum {
    Checksum { algorithm: algorithm.to_owned(), value: Bytes::copy_from_slice(value), part_count }
}

fn segment() -> Segment {
    let roots: Vec<u8> = (0..6u8).flat_map(|slot| [0xa0 + slot; 32]).collect();
    Segment {
        id: Bytes::copy_from_slice(segment_id().as_bytes()),
        pg: 77,
        segment_bytes: 300_000,
        scheme: Bytes::from_static(&[0x1d, 1, 4, 2]),
        cell_bytes: 65_536,
        shard_roots: Bytes::from(roots),
        durable_slots: 0b01_1111,
        segment_offset: 64 << 20,
        stand_ins: Vec::new(),
    }
}

fn attributes() -> Attributes {
    Attributes {
        content_type: "image/png".to_owned(),
        headers: vec![pair("cache-control", "no-cache"), pair("x-amz-storage-class", "STANDARD_IA")],
        user_metadata: vec![pair("colour", "blue")],
        tags: vec![pair("team", "dünen")],
    }
}

#[test]
fn a_shard_id_is_its_index_key() {
    let id = ShardId { pg: PgId(0x0102_0304), segment: segment_id(), slot: Slot(5) };
    check_bytes("shard_id", &id.encode());
    assert_eq!(ShardId::decode(&golden("shard_id")), Some(id));
}

#[test]
fn a_shard_header() {
    let header = ShardHeader {
        cluster: ClusterId([0xc1; 16]),
        id: ShardId { pg: PgId(77), segment: segment_id(), slot: Slot(4) },
        bucket: BucketId(9),
        key_hash: [0x5e; 32],
        version: version_id(),
        scheme: [0x1d, 1, 4, 2],
        cell_bytes: 65_536,
        shard_bytes: 75_008,
        segment_bytes: 300_000,
        segment_offset: 64 << 20,
        created_ms: 1_795_000_000_789,
    };
    check_bytes("shard_header_1", &header.encode());
    assert_eq!(ShardHeader::decode(&golden("shard_header_1")), Ok(header));
}

#[test]
fn manifests() {
    let coded = ObjectVersion {
        version: Bytes::copy_from_slice(version_id().as_bytes()),
        is_null: true,
        object_bytes: 300_000,
        etag: "0123456789abcdef0123456789abcdef-2".to_owned(),
        modified_ms: 1_795_000_000_999,
        attributes: Some(attributes()),
        checksums: vec![checksum("CRC64NVME", &[1, 2, 3, 4, 5, 6, 7, 8], 0)],
        segments: vec![segment()],
        parts: vec![PartInfo { number: 3, bytes: 300_000, checksums: vec![checksum("SHA256", &[7; 32], 2)] }],
        owner: "AKIAEXAMPLE".to_owned(),
        ..ObjectVersion::default()
    };
    check_message("object_version_coded", &coded);
    let inline = ObjectVersion {
        version: Bytes::copy_from_slice(version_id().as_bytes()),
        object_bytes: 5,
        etag: "5d41402abc4b2a76b9719d911017c592".to_owned(),
        modified_ms: 1_795_000_000_999,
        inline: Bytes::from_static(b"hello"),
        ..ObjectVersion::default()
    };
    check_message("object_version_inline", &inline);
    let marker = ObjectVersion {
        version: Bytes::copy_from_slice(version_id().as_bytes()),
        delete_marker: true,
        modified_ms: 1_795_000_000_999,
        owner: "AKIAEXAMPLE".to_owned(),
        ..ObjectVersion::default()
    };
    check_message("object_version_delete_marker", &marker);
}

#[test]
fn uploads_and_parts() {
    let upload = Upload {
        upload: Bytes::copy_from_slice(version_id().as_bytes()),
        created_ms: 1_795_000_000_456,
        attributes: Some(attributes()),
        checksum_algorithm: "CRC32C".to_owned(),
        checksum_type: "COMPOSITE".to_owned(),
        owner: "AKIAEXAMPLE".to_owned(),
    };
    check_message("upload", &upload);
    let part = Part {
        number: 10_000,
        part_bytes: 300_000,
        etag: "0123456789abcdef0123456789abcdef".to_owned(),
        modified_ms: 1_795_000_000_999,
        checksums: vec![checksum("CRC32C", &[1, 2, 3, 4], 0)],
        inline: Bytes::new(),
        segments: vec![segment()],
    };
    check_message("part", &part);
}

#[test]
fn buckets_and_keys() {
    let bucket = Bucket {
        id: 9,
        name: "photos".to_owned(),
        created_ms: 1_795_000_000_000,
        owner: "AKIAEXAMPLE".to_owned(),
        versioning: Versioning::Suspended as i32,
        tags: vec![pair("team", "dünen")],
        deleting: true,
    };
    check_message("bucket", &bucket);
    let key = AccessKey {
        access_key: "AKIAEXAMPLE".to_owned(),
        secret_key: "not-a-secret".to_owned(),
        name: "root".to_owned(),
        created_ms: 1_795_000_000_000,
        is_root: true,
    };
    check_message("access_key", &key);
}

fn shard() -> ShardId {
    ShardId { pg: PgId(77), segment: segment_id(), slot: Slot(4) }
}

fn backend() -> BackendId {
    BackendId([0xb1; 16])
}

fn small_header() -> ShardHeader {
    ShardHeader {
        cluster: ClusterId([0xc1; 16]),
        id: shard(),
        bucket: BucketId(9),
        key_hash: [0xd1; 32],
        version: version_id(),
        scheme: [0x1d, 1, 4, 2],
        cell_bytes: 64,
        shard_bytes: 100,
        segment_bytes: 400,
        segment_offset: 0,
        created_ms: 1_795_000_000_789,
    }
}

#[test]
fn requests_between_nodes() {
    check_message("rpc_write_begin", &WriteBegin::new(backend(), &small_header()));
    let cell = |len: usize, seed: u8| Cell { bytes: Bytes::from(vec![seed; len]), hash: [seed; 32] };
    check_message("rpc_write_cells", &WriteCells::new(vec![cell(64, 1), cell(36, 2)]).0);
    check_message("rpc_read_cells", &ReadCells::new(backend(), shard(), (3, 4), Some([0xe1; 32])));
    check_message("rpc_name_shard", &NameShard::new(backend(), shard()));
    check_message("rpc_delete_shards", &DeleteShards::new(backend(), &[shard(), shard()]));
    check_message("rpc_list_shards", &ListShards::new(backend(), PgId(77), Some(shard()), 1000));
    check_message("rpc_scrub_shards", &ScrubShards::new(backend(), Some(shard()), 1 << 20));
    let add = AddBackend { location: "disk:/mnt/d7".to_owned(), name: "d7".to_owned() };
    check_message("rpc_add_backend", &add);
    check_message("rpc_name_backend", &NameBackend::new(backend()));
    check_message("rpc_ping", &Ping { minimum_epoch: 12 });
    check_message("heartbeat", &Heartbeat::new(&[NodeId(2), NodeId(300)].into()));
}

#[test]
fn replies_between_nodes() {
    let stat = ShardStat { id: shard(), shard_bytes: 100, cell_bytes: 64, root: [0xe1; 32], verified_ms: 1_795 };
    check_message("rpc_stat_reply", &StatReply { stat: Some(StatMessage::from(&stat)) });
    check_message("rpc_stat_list", &StatList::new(&[stat.clone(), stat.clone()]));
    let read = ShardRead {
        header: small_header(),
        bytes: Bytes::from_static(&[1; 100]),
        damaged: vec![1],
        cell_hashes: vec![[0xf1; 32], [0xf2; 32]],
    };
    check_message("rpc_read_head", &ReadHead::new(&read));
    let step = ScrubStep { shards: 4, bytes: 500, damaged: vec![shard()], next: Some(shard()) };
    check_message("rpc_scrub_reply", &ScrubReply::new(&step));
    let status = BackendStatus {
        id: backend(),
        name: "d1".to_owned(),
        location: "disk:/mnt/d1".to_owned(),
        health: BackendHealth::ReadOnly,
        reason: "poisoned".to_owned(),
        capacity_bytes: 1 << 40,
        free_bytes: 1 << 39,
        used_bytes: 1 << 38,
        shard_count: 77,
        scrubbed_ms: 1_795_000_000_000,
    };
    check_message("rpc_backend_list", &BackendList::new(&[status]));
    let load = NodeLoad { writers: 1, calls: 2, bytes_in_flight: 300_000 };
    let backends = vec![BackendSummary::new(backend(), BackendHealth::Failed)];
    check_message("rpc_pong", &Pong { minimum_epoch: 12, load: Some(load), backends });
    check_message("rpc_reply_ok", &Reply::ok(&StatMessage::from(&stat)));
    let io = ShardError::Io { backend: backend(), action: "sync".to_owned(), reason: "EIO".to_owned() };
    check_message("rpc_fault_io", &Reply::fault(&io));
    let damaged = ShardError::Damaged { shard: shard(), backend: backend(), reason: "root".to_owned() };
    check_message("rpc_fault_damaged", &Reply::fault(&damaged));
    let stale = ShardError::StaleEpoch { got: Epoch(11), minimum: Epoch(12) };
    check_message("rpc_fault_stale_epoch", &Reply::fault(&stale));
}
