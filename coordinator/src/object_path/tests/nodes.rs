//! What reads and writes promise when whole nodes fail: killed, hung, cut off, in the middle of it.

use super::*;
use holdfast_proto::node::{BackendHealth, ShardError};
use holdfast_transport::LinkConditions;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A way for a node to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Killed,
    CutOff,
    /// What it is sent arrives, what it says does not.
    Mute,
    /// Its process runs, its disk does not answer.
    Hung,
}

pub(super) const FAILURES: [Failure; 4] = [Failure::Killed, Failure::CutOff, Failure::Mute, Failure::Hung];

impl World {
    pub(super) fn fail(&self, number: usize, failure: Failure) {
        let (own, node) = (node_id(0), node_id(number));
        match failure {
            Failure::Killed => self.network.kill(node),
            Failure::CutOff => self.network.partition(&[own], &[node]),
            Failure::Mute => self.network.set_link(node, own, LinkConditions::CUT),
            Failure::Hung => self.node.fault(
                number,
                Faults {
                    hang_begin: true,
                    hang_append: true,
                    read_delay: Some(Duration::from_secs(600)),
                    ..Faults::default()
                },
            ),
        }
    }
}

#[tokio::test]
async fn reads_survive_any_two_nodes_whatever_became_of_them() {
    let bytes = sample(2 * SEGMENT + STRIPE + 300, 1);
    for failure in FAILURES {
        for (first, second) in [(1, 2), (3, 5), (1, 5)] {
            let world = World::over_nodes();
            let version = world.put("k", &bytes).await.unwrap().version;
            world.fail(first, failure);
            world.fail(second, failure);
            assert!(world.get_all(&version).await.unwrap() == bytes, "{failure:?} {first} {second}");
            // Now that it is known, nobody waits for them.
            let started = Instant::now();
            assert!(world.get_all(&version).await.unwrap() == bytes, "{failure:?} {first} {second}");
            assert!(started.elapsed() < Duration::from_secs(2), "{failure:?} again took {:?}", started.elapsed());
        }
    }
}

#[tokio::test]
async fn a_third_dead_node_is_an_error_and_no_wrong_byte() {
    let world = World::over_nodes();
    let version = world.put("k", &sample(2 * SEGMENT, 1)).await.unwrap().version;
    [1, 3, 5].into_iter().for_each(|number| world.fail(number, Failure::Killed));
    let request = ReadRequest { version: Arc::new(version.clone()), range: 0..version.object_bytes };
    let items: Vec<_> = world.path.read(request).collect().await;
    assert!(matches!(&items[..], [Err(ObjectError::Unreadable { present: 3, needed: 4, .. })]), "{items:?}");
}

#[tokio::test]
async fn nodes_that_fail_while_an_object_is_read_cost_no_byte_of_it() {
    let bytes = sample(40 * SEGMENT, 3);
    for failure in FAILURES {
        let world = World::over_nodes();
        let version = world.put("k", &bytes).await.unwrap().version;
        let request = ReadRequest { version: Arc::new(version.clone()), range: 0..version.object_bytes };
        let mut stream = Box::pin(world.path.read(request));
        let mut read = stream.next().await.unwrap().unwrap().to_vec();
        world.fail(2, failure);
        world.fail(4, failure);
        while let Some(piece) = stream.next().await {
            read.extend_from_slice(&piece.unwrap());
        }
        assert!(read == bytes, "{failure:?}");
    }
}

#[tokio::test]
async fn a_node_that_fails_while_an_object_is_written_costs_only_its_shards() {
    let bytes = sample(8 * SEGMENT, 4);
    for failure in FAILURES {
        let world = Arc::new(World::over_nodes());
        let pieces: Vec<Bytes> = bytes.chunks(SEGMENT / 2).map(Bytes::copy_from_slice).collect();
        let half = pieces.len() / 2;
        let failing = world.clone();
        let stream = futures::stream::iter(pieces.into_iter().enumerate()).then(move |(number, piece)| {
            let world = failing.clone();
            async move {
                if number == half {
                    world.fail(3, failure);
                }
                Ok(piece)
            }
        });
        let outcome = world.path.put(request("k", Some(bytes.len())), stream.boxed()).await.unwrap();
        assert!(outcome.receipt.shards >= 5, "{failure:?}: {}", outcome.receipt);
        let last = outcome.version.segments.last().unwrap();
        assert_eq!(last.durable_slots.count_ones(), 5, "{failure:?}");
        assert!(world.get_all(&outcome.version).await.unwrap() == bytes, "{failure:?}");
    }
}

#[tokio::test]
async fn a_write_that_lost_two_nodes_fails_and_leaves_nothing_on_the_others() {
    for failure in [Failure::Killed, Failure::CutOff] {
        let world = World::over_nodes();
        world.fail(1, failure);
        world.fail(2, failure);
        let refused = world.put("k", &sample(2 * SEGMENT, 1)).await.unwrap_err();
        assert!(matches!(refused, ObjectError::TooFewBackends { needed: 5, .. }), "{failure:?}: {refused}");
        eventually(|| world.node.shard_count() == 0 && world.node.writer_count() == 0).await;
    }
}

#[tokio::test]
async fn a_stale_coordinator_writes_nothing() {
    let world = World::over_nodes();
    for fence in &world.fences {
        fence.raise(Epoch(2)).await.unwrap();
    }
    let refused = world.put("k", &sample(SEGMENT, 1)).await.unwrap_err();
    assert!(refused.to_string().contains("epoch 1 is stale"), "{refused}");
    assert_eq!(world.node.shard_count(), 0);
    world.layout.advance(cluster_map(2));
    let bytes = sample(SEGMENT, 2);
    let version = world.put("k", &bytes).await.unwrap().version;
    assert!(world.get_all(&version).await.unwrap() == bytes);
}

/// A write begun before the fence was raised does not become durable after it, wherever its client goes on.
#[tokio::test]
async fn a_write_overtaken_by_the_fence_fails() {
    let world = World::over_nodes();
    let overtaken = Arc::new(AtomicBool::new(false));
    let (fences, raised) = (world.fences.clone(), overtaken.clone());
    let pieces: Vec<Bytes> = sample(2 * SEGMENT, 1).chunks(STRIPE).map(Bytes::copy_from_slice).collect();
    let stream = futures::stream::iter(pieces.into_iter().enumerate()).then(move |(number, piece)| {
        let (fences, raised) = (fences.clone(), raised.clone());
        async move {
            if number == 3 {
                for fence in &fences {
                    fence.raise(Epoch(2)).await.unwrap();
                }
                raised.store(true, Ordering::SeqCst);
            }
            Ok(piece)
        }
    });
    let refused = world.path.put(request("k", Some(2 * SEGMENT)), stream.boxed()).await;
    assert!(overtaken.load(Ordering::SeqCst));
    assert!(matches!(refused, Err(ObjectError::TooFewBackends { .. })), "{refused:?}");
    eventually(|| world.node.shard_count() == 0).await;
}

#[tokio::test]
async fn backends_of_silent_nodes_are_missing_with_the_reason_and_hold_up_nobody() {
    let world = World::over_nodes();
    let all = world.client.backends().await;
    assert_eq!(all.len(), N + 2);
    assert!(all.iter().all(|status| status.health == BackendHealth::Online), "{all:?}");
    world.fail(2, Failure::Killed);
    world.fail(4, Failure::CutOff);
    let started = Instant::now();
    let report = world.client.backends().await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    for (number, status) in report.iter().enumerate() {
        let expected = match number {
            2 => (BackendHealth::Missing, "node n3 does not answer"),
            4 => (BackendHealth::Missing, "node n5 does not answer"),
            _ => (BackendHealth::Online, ""),
        };
        assert_eq!((status.id, status.health, &*status.reason), (backend(number), expected.0, expected.1));
        // What was known of its size stays known: placement goes by it.
        assert_eq!(status.capacity_bytes, all[number].capacity_bytes);
    }
}

#[tokio::test]
async fn a_backend_nobody_has_is_told_so() {
    let world = World::over_nodes();
    let unknown = BackendId([99; 16]);
    let shard = ShardId { pg: holdfast_proto::PgId(0), segment: holdfast_proto::SegmentId([1; 16]), slot: Slot(0) };
    let answer = world.client.stat_shard(unknown, shard).await;
    assert_eq!(answer, Err(ShardError::NoSuchBackend { backend: unknown }));
    // On the node, but not by the map: added a moment ago, or gone from it.
    assert_eq!(world.client.stat_shard(backend(7), shard).await, Ok(None));
}
