//! Bounded memory, and no deadlock at the bound.

use super::*;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

const BUDGET: u64 = 64 << 10;

/// Far more uploads than the budget holds, of known and unknown length: all arrive, and the cell buffers alive never
/// exceed the budget.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_uploads_share_a_small_budget() {
    let world = World::with(ObjectPathOptions { write_buffer_bytes: BUDGET, segment_bytes: 16 << 10, ..options() });
    let peak = Arc::new(AtomicU64::new(0));
    let (shared, seen) = (world.path.shared.clone(), peak.clone());
    let probe = move || {
        seen.fetch_max(shared.stock.live_bytes(), Ordering::SeqCst);
    };
    *world.node.state.probe.lock() = Some(Box::new(probe));
    let bytes = Arc::new(sample(100_000, 1));
    let puts = (0..40).map(|i| {
        let (path, bytes) = (world.path.clone(), bytes.clone());
        tokio::spawn(async move {
            let declared = (i % 3 != 0).then_some(bytes.len());
            path.put(request(&format!("k{i}"), declared), body(&bytes, 1000 + i)).await
        })
    });
    let outcomes = futures::future::join_all(puts);
    for outcome in tokio::time::timeout(Duration::from_secs(60), outcomes).await.expect("no deadlock") {
        assert_eq!(outcome.unwrap().unwrap().receipt.shards, 6);
    }
    let peak = peak.load(Ordering::SeqCst);
    assert!(peak > 0 && peak <= BUDGET, "{peak} bytes of cells alive at once");
    let versions = world.metadata.versions.lock().clone();
    for version in versions.values() {
        assert_eq!(world.get_all(version).await.unwrap(), *bytes);
    }
    *world.node.state.probe.lock() = None;
    assert_eq!(world.path.shared.stock.live_bytes(), 0);
    assert_eq!(world.path.shared.write_budget.bytes_in_use(), 0);
}

/// Uploads whose clients have stopped sending hold one stripe each; another upload still passes.
#[tokio::test]
async fn slow_clients_do_not_hold_up_others() {
    let world = World::with(ObjectPathOptions { write_buffer_bytes: BUDGET, ..options() });
    let bytes = sample(3 * SEGMENT, 1);
    // A stripe takes one unit of 4 KiB here: 12 of 16 are held.
    let slow: Vec<_> = (0..12)
        .map(|i| {
            let (path, stuck) = (world.path.clone(), body(&bytes[..50], 50).chain(futures::stream::pending()).boxed());
            tokio::spawn(async move { path.put(request(&format!("slow{i}"), Some(SEGMENT)), stuck).await })
        })
        .collect();
    eventually(|| world.path.shared.write_budget.bytes_in_use() >= 12 * 4096).await;
    tokio::time::timeout(Duration::from_secs(5), world.put("quick", &bytes)).await.unwrap().unwrap();
    slow.iter().for_each(|task| task.abort());
    eventually(|| world.path.shared.write_budget.bytes_in_use() == 0).await;
}

/// More readers than the budget has room for: all get their bytes, in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_reads_share_a_small_budget() {
    let world = World::with(ObjectPathOptions { read_buffer_bytes: 16 << 10, ..options() });
    let bytes = sample(10 * SEGMENT + 7, 1);
    let version = Arc::new(world.put("k", &bytes).await.unwrap().version);
    let reads = (0..30).map(|_| {
        let request = ReadRequest { version: version.clone(), range: 0..version.object_bytes };
        tokio::spawn(world.path.read(request).try_collect::<Vec<Bytes>>())
    });
    let reads = tokio::time::timeout(Duration::from_secs(30), futures::future::join_all(reads)).await;
    for read in reads.expect("no deadlock") {
        assert_eq!(read.unwrap().unwrap().concat(), bytes);
    }
    assert_eq!(world.path.shared.read_budget.bytes_in_use(), 0);
}

/// Many readers that stop reading leave room for others, and for repair.
#[tokio::test]
async fn stopped_readers_do_not_hold_up_others() {
    let world = World::with(ObjectPathOptions { read_buffer_bytes: 8 << 20, segment_bytes: 1 << 20, ..options() });
    let bytes = sample(12 << 20, 1);
    let version = Arc::new(world.put("k", &bytes).await.unwrap().version);
    let mut stopped = Vec::new();
    for _ in 0..40 {
        let mut reader = world.path.read(ReadRequest { version: version.clone(), range: 0..version.object_bytes });
        tokio::time::timeout(Duration::from_secs(5), reader.next()).await.expect("a buffer").unwrap().unwrap();
        stopped.push(reader);
    }
    let other = world.get(&version, 0..1 << 20);
    let other = tokio::time::timeout(Duration::from_secs(60), other).await.expect("a buffer");
    assert!(other.unwrap() == bytes[..1 << 20]);
    let segment = &version.segments[0];
    world.remove_shard(segment, 1);
    let context = RebuildContext { bucket: BucketId(7), key_hash: key_hash("k"), version: version.version_id() };
    let wanted = [(Slot(1), backend(world.home(segment, 1)))];
    tokio::time::timeout(Duration::from_secs(60), world.path.rebuild(segment, context, &wanted))
        .await
        .unwrap()
        .unwrap();
    drop(stopped);
    eventually(|| world.path.shared.read_budget.bytes_in_use() == 0).await;
}

/// What a stream reads is known until it ends or is dropped.
#[tokio::test]
async fn what_is_being_read_is_known() {
    let world = World::new();
    let version = Arc::new(world.put("k", &sample(3 * SEGMENT, 1)).await.unwrap().version);
    let read = || world.path.read(ReadRequest { version: version.clone(), range: 0..version.object_bytes });
    assert!(world.path.activity().reading.is_empty());
    let mut streams = [read(), read()];
    streams[0].next().await.unwrap().unwrap();
    let expected: BTreeSet<_> = version.segments.iter().map(Segment::segment_id).collect();
    assert_eq!(world.path.activity().reading, expected);
    let [first, second] = streams;
    drop(first);
    assert_eq!(world.path.activity().reading, expected);
    assert_eq!(second.try_collect::<Vec<Bytes>>().await.unwrap().concat().len(), 3 * SEGMENT);
    assert!(world.path.activity().reading.is_empty());
}

/// A reader that stops reading holds its windows, not more.
#[tokio::test]
async fn a_stopped_reader_holds_a_bounded_amount() {
    let world = World::with(ObjectPathOptions { read_buffer_bytes: 8 << 20, segment_bytes: 1 << 20, ..options() });
    let bytes = sample(12 << 20, 1);
    let version = Arc::new(world.put("k", &bytes).await.unwrap().version);
    let mut stopped = world.path.read(ReadRequest { version: version.clone(), range: 0..version.object_bytes });
    stopped.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let held = world.path.shared.read_budget.bytes_in_use();
    assert!(held > 0 && held <= 6 << 20, "{held} bytes");
    let other = tokio::time::timeout(Duration::from_secs(20), world.get_all(&version)).await.unwrap();
    assert!(other.unwrap() == bytes);
    drop(stopped);
    eventually(|| world.path.shared.read_budget.bytes_in_use() == 0).await;
}
