//! What a write promises: the bytes, the checksums, the ack rule, and nothing left of what failed.

use super::*;
use crate::metadata::{EtagCondition, MetadataError};
use md5::{Digest, Md5};

#[tokio::test]
async fn every_size_round_trips_with_and_without_a_declared_length() {
    let world = World::new();
    for size in sizes() {
        let bytes = sample(size, size as u64);
        for (declared, piece) in [(Some(size), 700), (None, 700), (None, 1), (Some(size), 100_000)] {
            let outcome = world.path.put(request("k", declared), body(&bytes, piece)).await.unwrap();
            let version = &outcome.version;
            assert_eq!(version.object_bytes, size as u64);
            assert_eq!(version.etag, hex::encode(Md5::digest(&bytes)), "{size} bytes, declared {declared:?}");
            let crc = checksum_of(ChecksumAlgorithm::Crc64Nvme, &bytes);
            assert_eq!((&*version.checksums[0].algorithm, &version.checksums[0].value[..]), ("CRC64NVME", &crc[..]));
            assert_eq!(outcome.receipt.inline, size <= INLINE);
            assert_eq!(version.segments.is_empty(), size <= INLINE);
            if size > INLINE {
                assert_eq!(outcome.receipt.to_string(), "shards=6/6, regions=1, fsync=yes");
            }
            let total: u64 = version.segments.iter().map(|segment| segment.segment_bytes).sum();
            assert_eq!(total, if size <= INLINE { 0 } else { size as u64 });
            let mut offset = 0;
            for segment in &version.segments {
                assert_eq!((segment.segment_offset, segment.durable_slots), (offset, 0b11_1111));
                assert!(
                    segment.segment_bytes <= SEGMENT as u64
                        && !world.path.activity().writing.contains_key(&segment.segment_id())
                );
                offset += segment.segment_bytes;
            }
            assert_eq!(world.get_all(version).await.unwrap(), bytes, "{size} bytes, declared {declared:?}");
        }
    }
    assert_eq!(world.path.shared.write_budget.bytes_in_use(), 0);
}

#[tokio::test]
async fn the_real_geometry_round_trips() {
    let (node, metadata) = (FakeNode::new(N), Arc::new(FakeMetadata::default()));
    let (hints, _kept) = mpsc::channel(10);
    let options = ObjectPathOptions { segment_bytes: 2_000_000, ..ObjectPathOptions::default() };
    let path = ObjectPath::new(metadata, Arc::new(node.clone()), Layout::new(cluster_map(1)), options, hints);
    for size in [16 << 10, (16 << 10) + 1, 20_000, 64 << 10, 1 << 20, 5_000_001] {
        let bytes = sample(size, 5);
        let version = path.put(request("k", Some(size)), body(&bytes, 65_536)).await.unwrap().version;
        let read = ReadRequest { version: Arc::new(version.clone()), range: 0..version.object_bytes };
        let read: Vec<Bytes> = path.read(read).try_collect().await.unwrap();
        assert_eq!(read.concat(), bytes, "{size} bytes");
        assert_eq!(version.etag, hex::encode(Md5::digest(&bytes)));
        // Segments are whole stripes; shards of small objects are small.
        assert!(version.segments.iter().rev().skip(1).all(|segment| segment.segment_bytes == 7 * 4 * 65_536));
    }
}

#[tokio::test]
async fn shard_headers_say_whose_they_are() {
    let world = World::new();
    let version = world.put("the key", &sample(SEGMENT + 10, 1)).await.unwrap().version;
    for (number, segment) in version.segments.iter().enumerate() {
        for slot in 0..N {
            let id = shard(segment, slot);
            let header = world.node.on(world.home(segment, slot), |b| b.shards[&id].header.clone());
            assert_eq!(header.cluster, ClusterId([3; 16]));
            assert_eq!((header.id, header.bucket, header.version), (id, BucketId(7), version.version_id()));
            assert_eq!(header.key_hash, *blake3::hash(b"the key").as_bytes());
            assert_eq!(header.segment_offset, (number * SEGMENT) as u64);
            assert_eq!(header.segment_bytes, segment.segment_bytes);
        }
    }
}

#[tokio::test]
async fn parts_become_segments_and_need_their_upload() {
    let world = World::new();
    let upload = VersionId([8; 16]);
    let part = |number, bytes: &[u8]| PutPartRequest {
        bucket: Bucket { id: 7, ..Default::default() },
        key: "k".into(),
        upload,
        number,
        part_bytes: Some(bytes.len() as u64),
        expect: ChecksumExpectation::default(),
    };
    let never = futures::stream::poll_fn(|_| panic!("the body is not read")).boxed();
    let refused = world.path.put_part(part(1, b"abc"), never).await;
    assert_eq!(refused, Err(ObjectError::Metadata(MetadataError::NoSuchUpload { upload })));
    world.metadata.uploads.lock().push(upload);
    for (number, size) in [(1, 0), (2, 1), (3, SEGMENT + 1)] {
        let bytes = sample(size, 3);
        let outcome = world.path.put_part(part(number, &bytes), body(&bytes, 500)).await.unwrap();
        assert!(outcome.part.inline.is_empty());
        assert_eq!((outcome.part.part_bytes, outcome.part.segments.len()), (size as u64, size.div_ceil(SEGMENT)));
        assert_eq!(outcome.part.etag, hex::encode(Md5::digest(&bytes)));
        assert_eq!(world.metadata.parts.lock()[&number], outcome.part);
        let id = outcome.part.segments.first().map(|segment| shard(segment, 0));
        let header =
            id.map(|id| world.node.on(world.home(&outcome.part.segments[0], 0), |b| b.shards[&id].header.version));
        assert!(header.is_none_or(|version| version == upload));
    }
}

/// The ack rule: with 4+2, five shards must be durable.
#[tokio::test]
async fn one_failing_backend_is_an_erasure_two_are_an_error() {
    let faults: [(&str, Faults); 7] = [
        ("begin", Faults { is_unavailable: true, ..Faults::default() }),
        ("full", Faults { is_full: true, ..Faults::default() }),
        ("first append", Faults { fail_append: Some(0), ..Faults::default() }),
        ("later append", Faults { fail_append: Some(1), ..Faults::default() }),
        ("hang", Faults { hang_append: true, ..Faults::default() }),
        ("finish", Faults { fail_finish: true, ..Faults::default() }),
        ("lie", Faults { lie_about_root: true, ..Faults::default() }),
    ];
    let options = ObjectPathOptions { write_buffer_bytes: 4096, ..options() };
    for (name, fault) in faults {
        let bytes = sample(2 * SEGMENT + 5, 9);
        let mut world = World::with(options.clone());
        world.node.fault(2, fault.clone());
        let outcome = world.put("k", &bytes).await.unwrap();
        assert_eq!((outcome.receipt.shards, outcome.receipt.shards_total), (5, 6), "{name}");
        let degraded: Vec<&Segment> =
            outcome.version.segments.iter().filter(|segment| segment.durable_slots.count_ones() == 5).collect();
        assert!(!degraded.is_empty());
        for segment in &degraded {
            let slot = (0..N).find(|slot| segment.durable_slots & (1 << slot) == 0).unwrap();
            assert_eq!(world.home(segment, slot), 2);
            let hint = DamageHint { shard: shard(segment, slot), backend: backend(2) };
            assert!(world.drain_hints().contains(&hint) || degraded.len() > 1, "{name}");
        }
        world.node.fault(2, Faults::default());
        assert_eq!(world.get_all(&outcome.version).await.unwrap(), bytes, "{name}");

        let world = World::with(options.clone());
        world.node.fault(2, fault.clone());
        world.node.fault(4, fault.clone());
        let error = world.put("k", &bytes).await.unwrap_err();
        let ObjectError::TooFewBackends { durable, needed: 5, full, .. } = error else { panic!("{name}: {error}") };
        assert!(durable < 5);
        assert_eq!(full, name == "full");
        // What is switched off cannot delete; it has nothing either.
        world.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn a_busy_backend_is_asked_again() {
    let world = World::new();
    world.node.fault(1, Faults { busy_begins: 2, ..Faults::default() });
    assert_eq!(world.put("k", &sample(300, 1)).await.unwrap().receipt.shards, 6);
}

#[tokio::test]
async fn a_straggler_finishes_in_the_background_and_is_told() {
    let mut world = World::new();
    world.node.fault(3, Faults { hold_finish: true, ..Faults::default() });
    let bytes = sample(500, 2);
    let outcome = tokio::time::timeout(Duration::from_secs(10), world.put("k", &bytes)).await.unwrap().unwrap();
    let segment = outcome.version.segments[0].clone();
    assert_eq!((outcome.receipt.shards, segment.durable_slots.count_ones()), (5, 5));
    let slot = (0..N).find(|&slot| world.home(&segment, slot) == 3).unwrap();
    let hint = DamageHint { shard: shard(&segment, slot), backend: backend(3) };
    assert_eq!(world.drain_hints(), std::slice::from_ref(&hint));
    assert!(world.path.activity().writing.contains_key(&segment.segment_id()), "its last shard is still being written");
    world.node.release();
    let late = tokio::time::timeout(Duration::from_secs(10), world.hints.recv()).await.unwrap();
    assert_eq!(late, Some(hint));
    assert!(!world.path.activity().writing.contains_key(&segment.segment_id()));
    assert!(world.node.on(3, |b| b.shards.contains_key(&shard(&segment, slot))));
}

#[tokio::test]
async fn a_straggler_of_a_refused_write_is_deleted() {
    let world = World::new();
    world.node.fault(3, Faults { hold_finish: true, ..Faults::default() });
    *world.metadata.refusal.lock() = Some(MetadataError::PreconditionFailed { condition: "If-Match" });
    assert!(world.put("k", &sample(500, 2)).await.is_err());
    eventually(|| world.node.shard_count() == 0).await;
    world.node.release();
    world.assert_nothing_left().await;
}

#[tokio::test]
async fn refused_by_metadata_the_shards_go_but_not_when_the_outcome_is_open() {
    let bytes = sample(SEGMENT * 2, 4);
    let world = World::new();
    *world.metadata.refusal.lock() = Some(MetadataError::PreconditionFailed { condition: "If-None-Match" });
    let error = world.put("k", &bytes).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    world.assert_nothing_left().await;

    *world.metadata.refusal.lock() = Some(MetadataError::Unavailable { reason: "lost".into() });
    let error = world.put("k", &bytes).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry);
    eventually(|| world.path.activity().oldest_epoch().is_none()).await;
    assert_eq!(world.node.shard_count(), 2 * N, "a record may refer to them");
}

#[tokio::test]
async fn preconditions_are_judged_before_the_body_is_read() {
    let world = World::new();
    world.put("k", b"old").await.unwrap();
    let mut refused = request("k", Some(1000));
    refused.preconditions.if_none_match = Some(EtagCondition::Any);
    let never = futures::stream::poll_fn(|_| panic!("the body is not read")).boxed();
    let error = world.path.put(refused, never).await.unwrap_err();
    assert_eq!(error, ObjectError::Metadata(MetadataError::PreconditionFailed { condition: "If-None-Match" }));
}

#[tokio::test]
async fn every_algorithm_is_kept_and_a_wrong_value_leaves_nothing() {
    for size in [50, SEGMENT + STRIPE + 3] {
        let bytes = sample(size, 6);
        for algorithm in ChecksumAlgorithm::ALL {
            let right = checksum_of(algorithm, &bytes);
            let world = World::new();
            let mut put = request("k", Some(size));
            put.expect = ChecksumExpectation {
                content_md5: Some(Md5::digest(&bytes).into()),
                algorithm: Some(algorithm),
                value: Some(right.clone()),
                trailer: None,
            };
            let version = world.path.put(put, body(&bytes, 300)).await.unwrap().version;
            assert_eq!(version.checksums, [crate::metadata::checksum(algorithm.name(), right.clone(), 0)]);

            let world = World::new();
            let mut put = request("k", Some(size));
            let wrong = right.iter().map(|byte| byte ^ 1).collect();
            put.expect = ChecksumExpectation { algorithm: Some(algorithm), value: Some(wrong), ..Default::default() };
            let error = world.path.put(put, body(&bytes, 300)).await.unwrap_err();
            assert!(matches!(error, ObjectError::Checksum { .. }), "{error}");
            world.assert_nothing_left().await;
        }
        let world = World::new();
        let mut put = request("k", Some(size));
        put.expect.content_md5 = Some([0; 16]);
        let error = world.path.put(put, body(&bytes, 300)).await.unwrap_err();
        assert!(matches!(error, ObjectError::ContentMd5 { .. }), "{error}");
        world.assert_nothing_left().await;
    }
}

/// The trailer's value is asked for only once the body has ended.
#[tokio::test]
async fn a_trailing_checksum_is_read_after_the_body() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let bytes = sample(SEGMENT + 1, 8);
    let has_ended = Arc::new(AtomicBool::new(false));
    let value = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        checksum_of(ChecksumAlgorithm::Crc32c, &bytes),
    );
    let seen = has_ended.clone();
    let mut put = request("k", Some(bytes.len()));
    put.expect.algorithm = Some(ChecksumAlgorithm::Crc32c);
    put.expect.trailer = Some(Arc::new(move |name| {
        assert_eq!(name, "x-amz-checksum-crc32c");
        assert!(seen.load(Ordering::SeqCst), "asked before the end");
        Some(value.clone())
    }));
    let end = futures::stream::poll_fn(move |_| {
        has_ended.store(true, Ordering::SeqCst);
        std::task::Poll::Ready(None)
    });
    let world = World::new();
    world.path.put(put, body(&bytes, 512).chain(end).boxed()).await.unwrap();
}

#[tokio::test]
async fn a_body_that_ends_wrongly_leaves_nothing() {
    let bytes = sample(SEGMENT + STRIPE, 1);
    for declared in [Some(bytes.len()), None] {
        let world = World::new();
        let signature = BodyError::Signature { reason: "last".into() };
        let wrong = body(&bytes, 512).chain(futures::stream::iter([Err(signature.clone())])).boxed();
        let error = world.path.put(request("k", declared), wrong).await.unwrap_err();
        assert_eq!(error, ObjectError::Body(signature));
        world.assert_nothing_left().await;
    }
    let world = World::new();
    let error = world.path.put(request("k", Some(bytes.len() + 1)), body(&bytes, 512)).await.unwrap_err();
    assert!(matches!(error, ObjectError::Body(BodyError::Incomplete { .. })), "{error}");
    world.assert_nothing_left().await;
    let mut limited = request("k", None);
    limited.object_bytes_max = Some(SEGMENT as u64);
    let error = world.path.put(limited, body(&bytes, 512)).await.unwrap_err();
    assert_eq!(error, ObjectError::TooLarge { limit: SEGMENT as u64 });
    world.assert_nothing_left().await;
}

#[tokio::test]
async fn a_client_that_goes_away_midway_leaves_nothing() {
    let bytes = sample(5 * SEGMENT, 1);
    for (sent, declared) in [(10, true), (STRIPE, true), (3 * SEGMENT + 100, true), (3 * SEGMENT + 100, false)] {
        let world = World::new();
        let stuck = body(&bytes[..sent], 512).chain(futures::stream::pending()).boxed();
        let put = world.path.put(request("k", declared.then_some(bytes.len())), stuck);
        let given_up = tokio::time::timeout(Duration::from_millis(50), put).await;
        assert!(given_up.is_err());
        world.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_during_the_commit_does_not_undo_it() {
    let world = World::new();
    world.metadata.gate.forget_permits(1_000_000);
    let bytes = sample(SEGMENT, 1);
    let given_up = tokio::time::timeout(Duration::from_millis(100), world.put("k", &bytes)).await;
    assert!(given_up.is_err());
    world.metadata.gate.add_permits(1);
    eventually(|| !world.metadata.versions.lock().is_empty()).await;
    eventually(|| world.path.activity().oldest_epoch().is_none()).await;
    let version = world.metadata.versions.lock()["k"].clone();
    assert_eq!(world.get_all(&version).await.unwrap(), bytes);
    assert_eq!(world.node.shard_count(), N);
}

/// Once a record may have been proposed, nothing but a refusal may delete what it refers to.
#[tokio::test]
async fn a_commit_that_breaks_leaves_the_shards() {
    for panics in [true, false] {
        let world = World::new();
        world.metadata.panics.store(panics, Ordering::SeqCst);
        if !panics {
            *world.metadata.refusal.lock() = Some(MetadataError::Invalid { reason: "refused".into() });
        }
        assert!(world.put("k", &sample(SEGMENT, 1)).await.is_err());
        eventually(|| world.path.activity().oldest_epoch().is_none()).await;
        assert_eq!(world.node.shard_count(), if panics { N } else { 0 });
    }
}

/// While bytes are written by an older map, that shows.
#[tokio::test]
async fn the_oldest_epoch_of_writes_under_way_is_known() {
    let world = World::new();
    assert_eq!(world.path.activity().oldest_epoch(), None);
    let (path, bytes) = (world.path.clone(), sample(STRIPE, 1));
    let stuck = body(&bytes, 512).chain(futures::stream::pending()).boxed();
    let put = tokio::spawn(async move { path.put(request("k", Some(2 * STRIPE)), stuck).await });
    eventually(|| world.path.activity().oldest_epoch() == Some(Epoch(1))).await;
    world.layout.advance(cluster_map(2));
    world.put("other", &sample(STRIPE, 2)).await.unwrap();
    assert_eq!(world.path.activity().oldest_epoch(), Some(Epoch(1)));
    put.abort();
    eventually(|| world.path.activity().oldest_epoch().is_none()).await;
}

/// A disk that hangs costs one write a wait, not all of them.
#[tokio::test]
async fn a_backend_that_hung_is_left_out_for_a_while() {
    for fault in [Faults { hang_append: true, ..Faults::default() }, Faults { hang_begin: true, ..Faults::default() }] {
        let world = World::new();
        world.node.fault(2, fault);
        assert_eq!(world.put("k", &sample(STRIPE, 1)).await.unwrap().receipt.shards, 5);
        // Over a network the hang shows when the end is not answered.
        eventually(|| world.path.shared.hung_writes.avoids(backend(2))).await;
        let begins = world.node.on(2, |b| b.begins);
        assert_eq!(world.put("k", &sample(STRIPE, 1)).await.unwrap().receipt.shards, 5);
        assert_eq!(world.node.on(2, |b| b.begins), begins);
        // Where it is needed it is asked all the same.
        world.node.fault(2, Faults::default());
        world.node.fault(4, Faults { is_unavailable: true, ..Faults::default() });
        let version = world.put("k", &sample(STRIPE, 1)).await.unwrap().version;
        assert_eq!(version.segments[0].durable_slots.count_ones(), 5);
        assert!(world.node.on(2, |b| b.begins) > begins);
    }
}

/// Whoever bars a coordinator goes by the map that was stored before: what the coordinator writes afterwards, in its next
/// session, must not be placed by an older one.
#[tokio::test]
async fn a_new_session_begins_with_the_newest_map() {
    let world = World::new();
    world.put("k", &sample(STRIPE, 1)).await.unwrap();
    *world.metadata.newer_map.lock() = Some(cluster_map(2));
    world.put("k", &sample(STRIPE, 1)).await.unwrap();
    assert_eq!(world.layout.current().table.epoch, Epoch(1), "not asked for at every write");
    world.metadata.session.store(2, Ordering::SeqCst);
    world.put("k", &sample(STRIPE, 1)).await.unwrap();
    assert_eq!(world.layout.current().table.epoch, Epoch(2));
}
