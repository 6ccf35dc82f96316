//! What rebuilding promises: the same shards as before, or none.

use super::*;

fn context(version: &ObjectVersion) -> RebuildContext {
    RebuildContext { bucket: BucketId(7), key_hash: key_hash("k"), version: version.version_id() }
}

fn wanted(slots: &[usize], to: &[usize]) -> Vec<(Slot, BackendId)> {
    slots.iter().zip(to).map(|(&slot, &number)| (Slot(slot as u8), backend(number))).collect()
}

#[tokio::test]
async fn every_one_or_two_lost_shards_come_back_the_same() {
    for size in [1 + INLINE, STRIPE - 1, SEGMENT] {
        for first in 0..N {
            for second in first..N {
                let world = World::new();
                let version = world.put("k", &sample(size, 3)).await.unwrap().version;
                let segment = &version.segments[0];
                let slots: Vec<usize> = if first == second { vec![first] } else { vec![first, second] };
                let at =
                    |slot: usize, number: usize| world.node.on(number, |b| b.shards[&shard(segment, slot)].clone());
                let before: Vec<_> = slots.iter().map(|&slot| at(slot, world.home(segment, slot))).collect();
                slots.iter().for_each(|&slot| world.remove_shard(segment, slot));
                let wanted = wanted(&slots, &[N, N + 1]);
                let bytes = world.path.rebuild(segment, context(&version), &wanted).await.unwrap();
                assert_eq!(bytes, before.iter().map(|stored| stored.header.shard_bytes).sum::<u64>());
                for (number, (slot, before)) in slots.iter().zip(&before).enumerate() {
                    let after = at(*slot, N + number);
                    assert_eq!((after.root, &after.cells), (before.root, &before.cells));
                    let header = holdfast_proto::shard_header::ShardHeader {
                        created_ms: before.header.created_ms,
                        ..after.header
                    };
                    assert_eq!(header, before.header);
                }
            }
        }
    }
}

/// Three shards damaged, none wholly: the good cells of each help to rebuild the others.
#[tokio::test]
async fn good_cells_of_damaged_shards_are_used_when_needed() {
    let world = World::new();
    let version = world.put("k", &sample(SEGMENT, 3)).await.unwrap().version;
    let segment = &version.segments[0];
    world.remove_shard(segment, 0);
    for (slot, cell) in [(1, 0), (2, 1)] {
        let id = shard(segment, slot);
        world.node.on(world.home(segment, slot), |b| b.shards.get_mut(&id).unwrap().damaged.insert(cell));
    }
    let to = [world.home(segment, 0), world.home(segment, 1), world.home(segment, 2)];
    world.path.rebuild(segment, context(&version), &wanted(&[0, 1, 2], &to)).await.unwrap();
    for (slot, number) in to.into_iter().enumerate() {
        let stored = world.node.on(number, |b| b.shards[&shard(segment, slot)].clone());
        assert!(stored.damaged.is_empty());
        assert_eq!(Some(stored.root), segment.shard_root(Slot(slot as u8)));
    }
}

#[tokio::test]
async fn a_shard_whose_root_does_not_hold_is_not_written() {
    let world = World::new();
    let version = world.put("k", &sample(SEGMENT, 3)).await.unwrap().version;
    let mut segment = version.segments[0].clone();
    world.remove_shard(&segment, 5);
    let mut roots = segment.shard_roots.to_vec();
    roots[5 * 32] ^= 1;
    segment.shard_roots = roots.into();
    let error = world.path.rebuild(&segment, context(&version), &wanted(&[5], &[N])).await.unwrap_err();
    assert!(matches!(error, ObjectError::TooFewBackends { durable: 0, needed: 1, .. }), "{error}");
    // Over a network the news that a writer was given up takes a moment.
    eventually(|| world.node.on(N, |b| (b.shards.len(), b.writers)) == (0, 0)).await;
}

#[tokio::test]
async fn one_target_that_fails_does_not_keep_the_other_from_being_written() {
    let world = World::new();
    let version = world.put("k", &sample(SEGMENT, 3)).await.unwrap().version;
    let segment = &version.segments[0];
    [1, 4].into_iter().for_each(|slot| world.remove_shard(segment, slot));
    world.node.fault(N, Faults { is_full: true, ..Faults::default() });
    let error = world.path.rebuild(segment, context(&version), &wanted(&[1, 4], &[N, N + 1])).await.unwrap_err();
    assert!(matches!(error, ObjectError::TooFewBackends { durable: 1, needed: 2, full: true, .. }), "{error}");
    assert!(world.node.on(N + 1, |b| b.shards.contains_key(&shard(segment, 4))));
}

#[tokio::test]
async fn with_too_few_shards_left_nothing_is_written() {
    let mut world = World::new();
    let version = world.put("k", &sample(SEGMENT, 3)).await.unwrap().version;
    let segment = &version.segments[0];
    [1, 2, 4].into_iter().for_each(|slot| world.remove_shard(segment, slot));
    let error = world.path.rebuild(segment, context(&version), &wanted(&[1], &[N])).await.unwrap_err();
    assert!(matches!(error, ObjectError::Unreadable { present: 3, needed: 4, .. }), "{error}");
    // Over a network the news that a writer was given up takes a moment.
    eventually(|| world.node.on(N, |b| (b.shards.len(), b.writers)) == (0, 0)).await;
    assert_eq!(world.drain_hints(), [], "repair does not hint to itself");
    let error = world.path.rebuild(segment, context(&version), &wanted(&[6], &[N])).await.unwrap_err();
    assert!(matches!(error, ObjectError::Internal { .. }), "{error}");
}
