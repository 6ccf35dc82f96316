//! What a write promises when so many of its own backends are away that others must stand in.

use super::nodes::{FAILURES, Failure};
use super::*;

const SPARES: [usize; 2] = [N, N + 1];

impl World {
    fn shards_on(&self, number: usize) -> usize {
        self.node.on(number, |b| b.shards.len())
    }
}

#[tokio::test]
async fn writes_go_on_without_two_nodes_and_what_they_wrote_outlives_two_more() {
    let bytes = sample(2 * SEGMENT + STRIPE, 11);
    for failure in FAILURES {
        let mut world = World::with_stand_ins();
        world.fail(1, failure);
        world.fail(2, failure);
        let outcome = world.put("k", &bytes).await.unwrap_or_else(|error| panic!("{failure:?}: {error}"));
        assert_eq!(outcome.receipt.to_string(), "shards=6/6, regions=1, fsync=yes, stand-ins=2", "{failure:?}");
        for segment in &outcome.version.segments {
            let stood_in: Vec<_> = (0..N).filter(|&slot| segment.stand_in(Slot(slot as u8)).is_some()).collect();
            assert!(stood_in.iter().all(|&slot| [1, 2].contains(&world.home(segment, slot))), "{failure:?}");
        }
        assert!(world.get_all(&outcome.version).await.unwrap() == bytes, "{failure:?}");
        // Repair is told of every shard that is not at home, so that it brings it there.
        let hints = world.drain_hints();
        assert!(
            hints.iter().filter(|hint| [backend(1), backend(2)].contains(&hint.backend)).count() >= 6,
            "{failure:?}"
        );
        world.fail(3, failure);
        world.fail(4, failure);
        assert!(world.get_all(&outcome.version).await.unwrap() == bytes, "{failure:?}, and two more");
    }
}

#[tokio::test]
async fn nodes_that_fail_while_an_object_is_written_are_stood_in_for() {
    let bytes = sample(6 * SEGMENT, 12);
    for failure in FAILURES {
        let world = Arc::new(World::with_stand_ins());
        let pieces: Vec<Bytes> = bytes.chunks(SEGMENT / 4).map(Bytes::copy_from_slice).collect();
        // In the middle of a segment: what it had got of that one is lost with it.
        let failing_at = pieces.len() / 2 + 2;
        let failing = world.clone();
        let stream = futures::stream::iter(pieces.into_iter().enumerate()).then(move |(number, piece)| {
            let world = failing.clone();
            async move {
                if number == failing_at {
                    world.fail(3, failure);
                    world.fail(5, failure);
                }
                Ok(piece)
            }
        });
        let outcome = world.path.put(request("k", Some(bytes.len())), stream.boxed()).await;
        let outcome = outcome.unwrap_or_else(|error| panic!("{failure:?}: {error}"));
        assert!(outcome.receipt.shards >= 5, "{failure:?}: {}", outcome.receipt);
        let last = outcome.version.segments.last().unwrap();
        assert!(!last.stand_ins.is_empty(), "{failure:?}");
        assert!(world.get_all(&outcome.version).await.unwrap() == bytes, "{failure:?}");
    }
}

#[tokio::test]
async fn who_stands_in_may_fail_as_well() {
    let world = World::with_stand_ins();
    world.fail(1, Failure::Killed);
    for spare in SPARES {
        world.node.fault(spare, Faults { is_full: spare == SPARES[0], ..Faults::default() });
    }
    let outcome = world.put("k", &sample(3 * SEGMENT, 13)).await.unwrap();
    assert_eq!(outcome.receipt.shards, 6);
    assert_eq!((world.shards_on(SPARES[0]), world.shards_on(SPARES[1])), (0, 3));
}

#[tokio::test]
async fn a_write_that_fails_leaves_nothing_on_those_who_stood_in() {
    let world = World::with_stand_ins();
    // It begins with who stands in; then the client goes away.
    world.fail(1, Failure::Killed);
    let bytes = sample(2 * SEGMENT, 14);
    let cut = body(&bytes[..SEGMENT + 100], 100)
        .chain(futures::stream::once(async { Err(BodyError::Incomplete { reason: "cut".into() }) }));
    world.path.put(request("k", Some(bytes.len())), cut.boxed()).await.unwrap_err();
    eventually(|| world.node.shard_count() == 0 && world.node.writer_count() == 0).await;
    // And where not enough answer, whoever stands in.
    [2, 3, 4].into_iter().for_each(|number| world.fail(number, Failure::Killed));
    let refused = world.put("k", &bytes).await.unwrap_err();
    assert!(matches!(refused, ObjectError::TooFewBackends { needed: 5, .. }), "{refused}");
    eventually(|| world.node.shard_count() == 0 && world.node.writer_count() == 0).await;
}

#[tokio::test]
async fn at_home_again_a_shard_is_read_there() {
    let world = World::with_stand_ins();
    world.node.fault(1, Faults { is_unavailable: true, ..Faults::default() });
    let bytes = sample(SEGMENT, 15);
    let version = world.put("k", &bytes).await.unwrap().version;
    let segment = &version.segments[0];
    let slot = (0..N).find(|&slot| segment.stand_in(Slot(slot as u8)).is_some()).unwrap();
    let taken_in = segment.stand_in(Slot(slot as u8)).unwrap();
    // What repair does when the backend is back.
    world.node.fault(1, Faults::default());
    let stored = world.node.at(taken_in, |b| b.shards.remove(&shard(segment, slot)).unwrap());
    world.node.on(1, |b| b.shards.insert(shard(segment, slot), stored));
    world.node.take_reads();
    // All but four slots are gone, the one that was away among those left.
    let gone: Vec<usize> = (0..N).filter(|&other| other != slot).take(2).collect();
    gone.iter().for_each(|&other| world.remove_shard(segment, other));
    assert!(world.get_all(&version).await.unwrap() == bytes);
}
