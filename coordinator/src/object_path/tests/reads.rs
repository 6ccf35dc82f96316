//! What a read promises: the right bytes whatever up to m losses there are, else an error; no more read than needed.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// A way to lose a shard.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Missing,
    Damaged,
    Unavailable,
    Foreign,
}

impl World {
    /// Loses the shards on backend `number`, of all segments.
    fn lose(&self, number: usize, loss: Loss) {
        self.node.on(number, |b| match loss {
            Loss::Missing => b.shards.clear(),
            Loss::Damaged => b.shards.values_mut().for_each(|s| s.damaged = (0..s.cells.len() as u32).collect()),
            Loss::Unavailable => b.faults.is_unavailable = true,
            // A shard valid in itself, but not this one.
            Loss::Foreign => b.shards.values_mut().for_each(|s| s.root = [7; 32]),
        });
    }
}

#[tokio::test]
async fn every_pattern_of_up_to_two_losses_reads_the_same() {
    let bytes = sample(2 * SEGMENT + STRIPE + 300, 1);
    for loss in [Loss::Missing, Loss::Damaged, Loss::Unavailable, Loss::Foreign] {
        for first in 0..N {
            for second in first..N {
                let world = World::new();
                let version = world.put("k", &bytes).await.unwrap().version;
                world.lose(first, loss);
                world.lose(second, loss);
                assert!(world.get_all(&version).await.unwrap() == bytes, "{loss:?} {first} {second}");
                // Again, now that the failures are known.
                let part = world.get(&version, 1000..2100).await.unwrap();
                assert!(part == bytes[1000..2100], "{loss:?} {first} {second}");
            }
        }
    }
}

#[tokio::test]
async fn three_losses_are_an_error_and_no_wrong_byte() {
    let bytes = sample(2 * SEGMENT, 1);
    for loss in [Loss::Missing, Loss::Damaged, Loss::Unavailable] {
        let world = World::new();
        let version = Arc::new(world.put("k", &bytes).await.unwrap().version);
        [0, 2, 5].into_iter().for_each(|number| world.lose(number, loss));
        let request = ReadRequest { version: version.clone(), range: 0..version.object_bytes };
        let items: Vec<_> = world.path.read(request).collect().await;
        let [Err(ObjectError::Unreadable { present: 3, needed: 4, .. })] = &items[..] else {
            panic!("{loss:?}: {items:?}")
        };
    }
}

/// Up to two cells of every stripe damaged, each stripe its own: no shard is whole, every stripe can be decoded.
#[tokio::test]
async fn damage_spread_over_all_shards_is_decoded_around() {
    let mut world = World::new();
    let bytes = sample(SEGMENT, 1);
    let version = world.put("k", &bytes).await.unwrap().version;
    let segment = version.segments[0].clone();
    for stripe in 0..4u32 {
        for slot in [stripe as usize, (stripe as usize + 1) % N] {
            let id = shard(&segment, slot);
            world.node.on(world.home(&segment, slot), |b| b.shards.get_mut(&id).unwrap().damaged.insert(stripe));
        }
    }
    assert!(world.get_all(&version).await.unwrap() == bytes);
    let hinted: std::collections::BTreeSet<u8> = world.drain_hints().iter().map(|hint| hint.shard.slot.0).collect();
    assert!(hinted.len() >= 4, "damage found is told: {hinted:?}");
}

#[tokio::test]
async fn a_small_range_reads_only_the_cells_it_touches() {
    let world = World::new();
    let bytes = sample(3 * SEGMENT, 1);
    let version = world.put("k", &bytes).await.unwrap().version;
    let at = (SEGMENT + STRIPE + CELL + 10) as u64;
    assert_eq!(world.get(&version, at..at + 20).await.unwrap(), bytes[at as usize..at as usize + 20]);
    assert_eq!(world.node.take_reads(), [(shard(&version.segments[1], 1), 1, 1)]);
    // Over the edge of two stripes: one cell of one shard and one of another.
    let at = (2 * STRIPE - 5) as u64;
    world.get(&version, at..at + 10).await.unwrap();
    let mut reads = world.node.take_reads();
    reads.sort();
    assert_eq!(reads, [(shard(&version.segments[0], 0), 2, 1), (shard(&version.segments[0], 3), 1, 1)]);
    // A whole segment: k reads.
    world.get(&version, 0..SEGMENT as u64).await.unwrap();
    assert_eq!(world.node.take_reads().len(), K);
    assert!(world.get(&version, 5..5).await.unwrap().is_empty());
    assert!(world.node.take_reads().is_empty());
}

#[tokio::test]
async fn hints_name_the_missing_shard_and_nothing_else() {
    let mut world = World::new();
    let version = world.put("k", &sample(SEGMENT, 1)).await.unwrap().version;
    world.get_all(&version).await.unwrap();
    assert_eq!(world.drain_hints(), []);
    let segment = version.segments[0].clone();
    world.remove_shard(&segment, 1);
    world.get_all(&version).await.unwrap();
    let hint = DamageHint { shard: shard(&segment, 1), backend: backend(world.home(&segment, 1)) };
    assert_eq!(world.drain_hints(), [hint]);
}

#[tokio::test]
async fn a_backend_that_failed_is_not_asked_again_at_once() {
    let world = World::new();
    let version = world.put("k", &sample(SEGMENT, 1)).await.unwrap().version;
    let number = world.home(&version.segments[0], 2);
    world.node.fault(number, Faults { is_unavailable: true, ..Faults::default() });
    world.get_all(&version).await.unwrap();
    world.node.fault(number, Faults::default());
    world.node.take_reads();
    world.get_all(&version).await.unwrap();
    let slots: std::collections::BTreeSet<u8> = world.node.take_reads().iter().map(|read| read.0.slot.0).collect();
    // Which parity stands in is a matter of how quick each was before.
    assert!(slots.len() == K && slots.is_superset(&[0, 1, 3].into()) && !slots.contains(&2), "{slots:?}");
}

#[tokio::test]
async fn a_slow_backend_is_hedged_and_a_hung_one_avoided() {
    let world = World::new();
    let bytes = sample(2 * SEGMENT, 1);
    let version = world.put("k", &bytes).await.unwrap().version;
    world.node.fault(0, Faults { read_delay: Some(Duration::from_secs(60)), ..Faults::default() });
    let read = tokio::time::timeout(Duration::from_secs(3), world.get_all(&version)).await;
    assert!(read.expect("hedged").unwrap() == bytes);
    // Without hedges to spend, the hard deadline works around it, and the backend is remembered.
    while world.path.shared.hedge.try_hedge() {}
    let read = tokio::time::timeout(Duration::from_secs(8), world.get_all(&version)).await;
    assert!(read.expect("worked around").unwrap() == bytes);
    let started = std::time::Instant::now();
    assert!(world.get_all(&version).await.unwrap() == bytes);
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
}

/// While a PG moves, shards are read where they were, without a word to repair.
#[tokio::test]
async fn a_moving_shard_is_found_where_it_was() {
    let mut world = World::new();
    let bytes = sample(3 * SEGMENT, 1);
    let version = world.put("k", &bytes).await.unwrap().version;
    let mut map = cluster_map(2);
    for pg in &mut map.table.pgs {
        pg.target[0] = backend(N);
        pg.target[1] = backend(N + 1);
    }
    world.layout.advance(map);
    assert!(world.get_all(&version).await.unwrap() == bytes);
    assert_eq!(world.drain_hints(), []);
    let decoded = world.node.take_reads().iter().any(|read| read.0.slot.0 >= K as u8);
    assert!(!decoded, "no parity had to be read");
}

#[tokio::test]
async fn a_record_that_does_not_hold_together_is_an_error() {
    let world = World::new();
    let version = world.put("k", &sample(2 * SEGMENT, 1)).await.unwrap().version;
    let break_it: [fn(&mut ObjectVersion); 6] = [
        |v| v.object_bytes += 1,
        |v| v.segments[0].shard_roots = v.segments[0].shard_roots.slice(..64),
        |v| v.segments[0].cell_bytes = 0,
        |v| v.segments[0].scheme = Bytes::from_static(&[1, 2, 3, 4]),
        |v| v.segments[0].id = Bytes::new(),
        |v| drop(v.segments.pop()),
    ];
    for (number, change) in break_it.into_iter().enumerate() {
        let mut broken = version.clone();
        change(&mut broken);
        assert!(world.get_all(&broken).await.is_err(), "case {number}");
    }
    let inline = world.put("i", b"abc").await.unwrap().version;
    assert_eq!(world.get(&inline, 1..9).await.unwrap(), b"bc");
    let broken = ObjectVersion { object_bytes: 4, ..inline };
    assert!(world.get_all(&broken).await.is_err());
}

#[test]
fn any_range_with_any_two_losses() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let _entered = runtime.enter();
    let world = World::new();
    let bytes = sample(3 * SEGMENT + 2 * STRIPE + 77, 1);
    let version = runtime.block_on(world.put("k", &bytes)).unwrap().version;
    let kept: Vec<_> = (0..N).map(|number| world.node.on(number, |b| b.shards.clone())).collect();
    let len = bytes.len() as u64;
    let mut runner = TestRunner::new(Config { cases: 400, ..Config::default() });
    let cases = (0..=len, 0..=len, 0..N, 0..N, any::<bool>());
    let result = runner.run(&cases, |(a, b, first, second, is_damaged)| {
        let range = a.min(b)..a.max(b);
        let loss = if is_damaged { Loss::Damaged } else { Loss::Missing };
        world.lose(first, loss);
        world.lose(second, loss);
        let read = runtime.block_on(world.get(&version, range.clone()));
        for (number, shards) in kept.iter().enumerate() {
            world.node.on(number, |b| b.shards = shards.clone());
        }
        prop_assert_eq!(read.unwrap(), &bytes[range.start as usize..range.end as usize]);
        Ok(())
    });
    result.unwrap();
}
