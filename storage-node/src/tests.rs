//! A node over real directories: what happens to them while it runs is noticed, and undone when they come back.

use super::*;
use bytes::Bytes;
use holdfast_proto::node::{BackendHealth, BackendStatus, Cell, NodeClient, ShardError};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{
    BackendId, BucketId, ClusterId, Epoch, ErrorKind, NodeId, PgId, SegmentId, ShardId, Slot, VersionId,
};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const CLUSTER: ClusterId = ClusterId([3; 16]);
const LIMIT: Duration = Duration::from_secs(20);

struct Place {
    base: tempfile::TempDir,
    specs: Vec<BackendSpec>,
}

impl Place {
    /// `count` formatted backends d1, d2, ... under one directory.
    fn new(count: u8) -> Self {
        let base = tempfile::tempdir().unwrap();
        let mut specs = Vec::new();
        for n in 1..=count {
            let directory = base.path().join(format!("d{n}"));
            let id = BackendId([n; 16]);
            holdfast_backends::DiskBackend::format(&directory, CLUSTER, id, &format!("d{n}")).unwrap();
            specs.push(BackendSpec { id, name: format!("d{n}"), location: format!("disk:{}", directory.display()) });
        }
        Self { base, specs }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }
    fn location(&self, name: &str) -> String {
        format!("disk:{}", self.path(name).display())
    }
    async fn open(&self) -> LocalNode {
        let options = LocalNodeOptions { probe_period: Duration::from_millis(50), ..LocalNodeOptions::default() };
        LocalNode::open(CLUSTER, self.specs.clone(), options).await
    }
}

fn id(n: u8) -> BackendId {
    BackendId([n; 16])
}

fn shard(n: u8) -> ShardId {
    ShardId { pg: PgId(1), segment: SegmentId([n; 16]), slot: Slot(0) }
}

async fn put(node: &LocalNode, backend: BackendId, shard: ShardId) -> Result<(), ShardError> {
    let bytes = Bytes::from(vec![shard.segment.0[0]; 4096]);
    let header = ShardHeader {
        cluster: CLUSTER,
        id: shard,
        bucket: BucketId(1),
        key_hash: [0; 32],
        version: VersionId([0; 16]),
        scheme: [0x1d, 1, 4, 2],
        cell_bytes: 65_536,
        shard_bytes: 4096,
        segment_bytes: 4 * 4096,
        segment_offset: 0,
        created_ms: 0,
    };
    let mut writer = node.begin_shard(backend, header, Epoch(1)).await?;
    let hash = blake3_of(&bytes);
    writer.append(vec![Cell { bytes, hash }]).await?;
    writer.finish().await.map(|_| ())
}

fn blake3_of(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

async fn read(node: &LocalNode, backend: BackendId, shard: ShardId) -> Result<Bytes, ShardError> {
    node.read_shard(backend, shard, 0, 1, None).await.map(|read| read.bytes)
}

/// Waits without asking for a probe: the node must notice by itself.
async fn until(node: &LocalNode, backend: BackendId, expected: BackendHealth) -> BackendStatus {
    let end = Instant::now() + LIMIT;
    loop {
        let status = node.inspect(backend).unwrap();
        if status.health == expected {
            return status;
        }
        assert!(Instant::now() < end, "not {expected:?} but {status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_directory_is_missing_and_one_put_back_is_used_again() {
    let place = Place::new(2);
    let node = place.open().await;
    assert!(node.backends().await.iter().all(|s| s.health == BackendHealth::Online));
    put(&node, id(1), shard(1)).await.unwrap();
    put(&node, id(2), shard(2)).await.unwrap();

    std::fs::rename(place.path("d1"), place.path("away")).unwrap();
    until(&node, id(1), BackendHealth::Missing).await;
    let gone = read(&node, id(1), shard(1)).await.unwrap_err();
    assert!(matches!(&gone, ShardError::Unavailable { backend, .. } if *backend == id(1)), "{gone}");
    assert_eq!(read(&node, id(2), shard(2)).await.unwrap()[0], 2);

    std::fs::create_dir(place.path("d1")).unwrap();
    until(&node, id(1), BackendHealth::Wiped).await;
    std::fs::remove_dir(place.path("d1")).unwrap();
    std::fs::rename(place.path("away"), place.path("d1")).unwrap();
    until(&node, id(1), BackendHealth::Online).await;
    assert_eq!(read(&node, id(1), shard(1)).await.unwrap()[0], 1);
    node.shutdown().await;
    assert!(matches!(read(&node, id(1), shard(1)).await, Err(ShardError::Unavailable { .. })));
}

/// Extents stay open and writable when their names are gone; what is written there then is lost at the next close.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_into_a_directory_that_was_deleted_moved_or_replaced() {
    for change in ["deleted", "moved", "replaced"] {
        let place = Place::new(2);
        // Probed so seldom that only the writes themselves can notice.
        let options = LocalNodeOptions { probe_period: Duration::from_secs(3600), ..LocalNodeOptions::default() };
        let node = LocalNode::open(CLUSTER, place.specs.clone(), options).await;
        let writing = tokio::spawn({
            let node = node.clone();
            async move {
                let mut begun = Instant::now();
                // As long as they are acknowledged; tells when the last of those was begun.
                for n in (0..100).cycle() {
                    let now = Instant::now();
                    match put(&node, id(1), shard(n)).await {
                        Ok(()) => begun = now,
                        Err(error) => return (begun, error),
                    }
                    assert!(now.elapsed() < LIMIT, "still acknowledged");
                }
                unreachable!("an endless loop")
            }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let d1 = place.path("d1");
        match change {
            "deleted" => std::fs::remove_dir_all(&d1).unwrap(),
            "moved" => std::fs::rename(&d1, place.path("away")).unwrap(),
            _ => {
                std::fs::rename(&d1, place.path("away")).unwrap();
                std::fs::create_dir(&d1).unwrap();
            }
        }
        let changed = Instant::now();
        let (last_begun, error) = tokio::time::timeout(LIMIT, writing).await.unwrap().unwrap();
        assert!(last_begun <= changed, "{change}: acknowledged afterwards; in the end {error}");
        // The refused write asked for a probe. Which state it meets depends on how far the removal had come.
        assert!(put(&node, id(1), shard(1)).await.is_err());
        while node.inspect(id(1)).unwrap().health.can_read() {
            assert!(changed.elapsed() < LIMIT, "{change}: {:?}", node.inspect(id(1)));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        put(&node, id(2), shard(2)).await.unwrap();
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_whose_directory_was_deleted_is_made_anew_in_the_same_place() {
    let place = Place::new(2);
    let node = place.open().await;
    put(&node, id(1), shard(1)).await.unwrap();
    let taken = node.add_backend(NodeId::FIRST, &place.location("d1"), "again").await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Invalid, "{taken}");
    std::fs::remove_dir_all(place.path("d1")).unwrap();
    until(&node, id(1), BackendHealth::Missing).await;
    // Anything that lies there keeps it from being formatted, and stays.
    std::fs::create_dir(place.path("d1")).unwrap();
    std::fs::write(place.path("d1").join("notes"), "mine").unwrap();
    let refused = node.add_backend(NodeId::FIRST, &place.location("d1"), "d1").await.unwrap_err();
    assert!(refused.to_string().contains("notes"), "{refused}");
    assert_eq!(std::fs::read(place.path("d1").join("notes")).unwrap(), b"mine");
    std::fs::remove_file(place.path("d1").join("notes")).unwrap();

    let fresh = node.add_backend(NodeId::FIRST, &place.location("d1"), "d1").await.unwrap();
    assert_eq!((fresh.health, fresh.shard_count), (BackendHealth::Online, 0));
    assert_ne!(fresh.id, id(1));
    put(&node, fresh.id, shard(3)).await.unwrap();
    until(&node, id(1), BackendHealth::Foreign).await;
    node.remove_backend(id(1)).await.unwrap();
    assert_eq!(node.backends().await.len(), 2);
    assert_eq!(node.remove_backend(id(1)).await.unwrap_err().kind(), ErrorKind::NotFound);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_that_changed_places_are_recognised_stopped_or_running() {
    let place = Place::new(3);
    let node = place.open().await;
    for n in 1..=3 {
        put(&node, id(n), shard(n)).await.unwrap();
    }
    let swap = || {
        std::fs::rename(place.path("d1"), place.path("x")).unwrap();
        std::fs::rename(place.path("d2"), place.path("d1")).unwrap();
        std::fs::rename(place.path("x"), place.path("d2")).unwrap();
    };
    swap();
    let end = Instant::now() + LIMIT;
    // Noticed, let go, and found again, each in the other's place.
    while node.inspect(id(1)).unwrap().location != place.location("d2")
        || node.inspect(id(2)).unwrap().location != place.location("d1")
    {
        assert!(Instant::now() < end, "{:?}", node.backends().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for n in 1..=3 {
        until(&node, id(n), BackendHealth::Online).await;
        assert_eq!(read(&node, id(n), shard(n)).await.unwrap()[0], n);
    }
    node.shutdown().await;
    let node = place.open().await;
    let statuses = node.backends().await;
    assert!(statuses.iter().all(|s| s.health == BackendHealth::Online), "{statuses:?}");
    for n in 1..=3 {
        assert_eq!(read(&node, id(n), shard(n)).await.unwrap()[0], n);
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_wrong_at_start_is_reported_and_the_others_serve() {
    let place = Place::new(5);
    std::fs::remove_dir_all(place.path("d1")).unwrap();
    std::fs::remove_dir_all(place.path("d2")).unwrap();
    std::fs::create_dir(place.path("d2")).unwrap();
    std::fs::remove_dir_all(place.path("d3")).unwrap();
    holdfast_backends::DiskBackend::format(&place.path("d3"), ClusterId([9; 16]), id(3), "d3").unwrap();
    std::fs::write(place.path("d4").join("identity.json"), "{").unwrap();
    let mut specs = place.specs.clone();
    specs.push(BackendSpec { id: id(6), name: "d6".into(), location: "tape:/dev/st0".into() });
    let node = LocalNode::open(CLUSTER, specs, LocalNodeOptions::default()).await;
    let statuses = node.backends().await;
    let health: Vec<_> = statuses.iter().map(|s| s.health).collect();
    use BackendHealth::{Failed, Foreign, Missing, Online, Wiped};
    assert_eq!(health, [Missing, Wiped, Foreign, Failed, Online, Missing], "{statuses:?}");
    assert!(statuses.iter().all(|s| s.reason.is_empty() == (s.health == Online)), "{statuses:?}");
    assert!(statuses[2].reason.contains("another store"), "{}", statuses[2].reason);
    assert!(statuses[5].reason.contains("tape"), "{}", statuses[5].reason);
    put(&node, id(5), shard(5)).await.unwrap();
    assert!(matches!(put(&node, id(9), shard(5)).await, Err(ShardError::NoSuchBackend { .. })));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_backend_needs_a_place_of_its_own_and_outlives_a_restart() {
    let place = Place::new(1);
    let node = place.open().await;
    let inside = format!("{}/inside", place.location("d1"));
    for (location, part) in [
        (inside.as_str(), "d1 is at"),
        (&place.location(""), "d1 is at"),
        ("s3:bucket", "\"s3\""),
        ("/mnt/x", "disk:PATH"),
    ] {
        let error = node.add_backend(NodeId::FIRST, location, "d2").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(part), "{location}: {error}");
    }
    let added = node.add_backend(NodeId::FIRST, &place.location("new/d2"), "d2").await.unwrap();
    put(&node, added.id, shard(7)).await.unwrap();
    let listed = node.list_shards(added.id, PgId(1), None, 10, Epoch(1)).await.unwrap();
    assert_eq!(listed.len(), 1);
    node.shutdown().await;

    let mut specs = place.specs.clone();
    specs.push(BackendSpec { id: added.id, name: added.name.clone(), location: added.location.clone() });
    let node = LocalNode::open(CLUSTER, specs, LocalNodeOptions::default()).await;
    assert_eq!(read(&node, added.id, shard(7)).await.unwrap()[0], 7);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_another_process_holds_is_waited_for() {
    let place = Place::new(1);
    let first = place.open().await;
    let second = place.open().await;
    let status = second.inspect(id(1)).unwrap();
    assert_eq!(status.health, BackendHealth::Missing);
    assert!(status.reason.contains("in use"), "{}", status.reason);
    first.shutdown().await;
    until(&second, id(1), BackendHealth::Online).await;
    second.shutdown().await;
}
