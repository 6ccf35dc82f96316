//! Ranges that are split while they are written, and while a node is away.

use super::*;

/// A range's log must not begin here before its ancestors' have come to its border: they would be replayed over it.
#[tokio::test(start_paused = true)]
async fn what_was_before_two_splits_does_not_come_back_on_a_node_that_was_away() {
    for seed in 12..18 {
        let mut cluster = Cluster::start(seed, 3).await;
        let away = *cluster.voters(1).iter().find(|node| Some(**node) != cluster.leader(1)).unwrap();
        let there = (1..=3).find(|node| *node != away).unwrap();
        let bucket = BucketId(cluster.store(1).bucket_create("b", "o", 1).await.unwrap().id);
        cluster.crash(away, 0).await;
        let mut number = 0;
        for border in ["", "m", "t"] {
            if !border.is_empty() {
                cluster.store(there).split_at(bucket, border).await.unwrap();
            }
            for _ in 0..300 {
                number += 1;
                let key = ["a", "n", "z"][number as usize % 3];
                cluster.store(there).put_version(put(bucket, key, number, None)).await.unwrap();
            }
        }
        cluster.restart(away).await;
        cluster.wait("all ranges", |c| (1..=3).all(|range| c.stores[&away].inner.groups.get(range).is_some())).await;
        sleep(Duration::from_secs(10)).await;
        for key in ["a", "n", "z"] {
            let expected = value(&cluster.store(there), bucket, key).await.unwrap();
            assert_eq!(value(&cluster.store(away), bucket, key).await.unwrap(), expected, "{key}, seed {seed}");
        }
        assert!(rows(&cluster.store(there)) == rows(&cluster.store(away)), "seed {seed}");
        cluster.stop().await;
    }
}

/// Whichever range comes first to a node that has nothing yet, none writes over another.
#[tokio::test(start_paused = true)]
async fn a_node_that_joins_after_splits_gets_each_range_as_it_is() {
    for seed in 30..38 {
        let mut cluster = Cluster::start(seed, 3).await;
        let bucket = BucketId(cluster.store(1).bucket_create("b", "o", 1).await.unwrap().id);
        let mut number = 0;
        for border in ["", "m", "t"] {
            if !border.is_empty() {
                cluster.store(1).split_at(bucket, border).await.unwrap();
            }
            for _ in 0..100 {
                number += 1;
                cluster
                    .store(1)
                    .put_version(put(bucket, ["a", "n", "z"][number as usize % 3], number, None))
                    .await
                    .unwrap();
            }
        }
        // One of the three is gone, and the new one takes its place everywhere.
        let gone = *cluster.voters(1).iter().find(|node| Some(**node) != cluster.leader(1)).unwrap();
        cluster.crash(gone, 0).await;
        cluster.disks.insert(4, SimulatedDisk::new(Duration::from_millis(1)));
        cluster.records.push(record(4));
        cluster.open(4).await;
        cluster.tell();
        let there = (1..=3).find(|node| *node != gone).unwrap();
        cluster.wait("a new voter", |c| (1..=3).all(|range| c.voters(range).contains(&4))).await;
        for key in ["a", "n", "z"] {
            let expected = value(&cluster.store(there), bucket, key).await.unwrap();
            assert_eq!(value(&cluster.store(4), bucket, key).await.unwrap(), expected, "{key}, seed {seed}");
        }
        sleep(Duration::from_secs(5)).await;
        assert!(rows(&cluster.store(there)) == rows(&cluster.store(4)), "seed {seed}");
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn ranges_split_under_writes_and_list_in_order() {
    let cluster = Cluster::start(7, 3).await;
    let names = ["a", "f", "m", "t"];
    let registers = Registers::make(&cluster.store(1), &names).await;
    let bucket = registers.bucket;
    for number in 0..200u64 {
        let key = format!("{}/{number:03}", names[number as usize % 4]);
        let segment = Segment {
            id: Bytes::copy_from_slice(&SegmentId::from_parts(number, [3; 10]).0),
            segment_bytes: 8,
            ..Segment::default()
        };
        let mut object = put(bucket, &key, 1_000 + number, None);
        object.version.inline = Bytes::new();
        object.version.segments = vec![segment];
        cluster.store(1 + number % 3).put_version(object).await.unwrap();
    }
    let tasks = work(&cluster, &registers, &[1, 2, 3]);
    let borders = ["f", "m", "m/050", "t", "a/100", "f/101", "t/151"];
    for (at, border) in borders.iter().enumerate() {
        cluster.store(1 + at as u64 % 3).split_at(bucket, border).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert!(finish(&registers, tasks).await > 100);
    assert_eq!(cluster.store(2).ranges().len(), borders.len() + 1);

    for node in 1..=3 {
        let store = cluster.store(node);
        for limit in [1, 7, 1000] {
            let mut keys = Vec::new();
            let mut after = String::new();
            loop {
                let request = ListRequest { limit, after, ..ListRequest::default() };
                let page = store.list(bucket, request).await.unwrap();
                keys.extend(page.entries.into_iter().map(|entry| entry.key));
                match page.next_after {
                    Some(next) => after = next,
                    None => break,
                }
            }
            assert_eq!(keys.len(), 204, "pages of {limit}");
            assert!(keys.is_sorted());
        }
        let rolled = ListRequest { limit: 1000, delimiter: "/".to_owned(), ..ListRequest::default() };
        let page = store.list(bucket, rolled).await.unwrap();
        assert_eq!(page.common_prefixes, ["a/", "f/", "m/", "t/"]);
        let first = SegmentId::from_parts(0, [0; 10]);
        let mut after = Some(first);
        let mut found = Vec::new();
        loop {
            let part = store.segments(after, 33).await.unwrap();
            let Some((_, last)) = part.last() else { break };
            after = Some(last.segment_id());
            found.extend(part.into_iter().map(|(_, segment)| segment.segment_id()));
        }
        assert_eq!(found, (0..200).map(|number| SegmentId::from_parts(number, [3; 10])).collect::<Vec<_>>());
        let (owner, _) = store.segment_owner(SegmentId::from_parts(151, [3; 10])).await.unwrap().unwrap();
        assert_eq!(owner.key, "t/151");
    }
    // What is deleted becomes garbage of its range, and all of it is found.
    let versions = cluster.store(1).list(bucket, ListRequest { limit: 1000, ..ListRequest::default() }).await.unwrap();
    for entry in &versions.entries {
        let delete = DeleteVersion {
            bucket,
            key: entry.key.clone(),
            selector: VersionSelector::Current,
            versioning: Versioning::Unversioned,
            marker: VersionId([8; 16]),
            now_ms: 1,
            owner: "o".to_owned(),
            preconditions: Preconditions::default(),
        };
        cluster.store(2).delete_version(delete).await.unwrap();
    }
    let garbage = cluster.store(3).garbage(1000).await.unwrap();
    assert_eq!(garbage.len(), 200);
    cluster.store(1).garbage_done(garbage.iter().map(|g| g.sequence).collect()).await.unwrap();
    assert_eq!(cluster.store(2).garbage(1000).await.unwrap(), []);
    cluster.store(3).bucket_delete("registers").await.unwrap();
    cluster.stop().await;
}

/// As ranges grow they are cut, their leaders are spread, and a listing goes through all of them in order.
#[tokio::test(start_paused = true)]
async fn ranges_are_cut_as_they_grow() {
    let mut cluster = Cluster::start_with(60, 3, Some(8 << 10)).await;
    let bucket = BucketId(cluster.store(1).bucket_create("b", "o", 1).await.unwrap().id);
    let key = |number: u64| format!("{:05}", number * 7_919 % 10_000);
    for number in 0..2_000u64 {
        cluster.store(1 + number % 3).put_version(put(bucket, &key(number), number, None)).await.unwrap();
        if number % 200 == 0 {
            sleep(Duration::from_secs(10)).await;
        }
    }
    sleep(Duration::from_secs(60)).await;
    let ranges = cluster.store(1).ranges();
    assert!((8..=40).contains(&ranges.len()), "{} ranges", ranges.len());
    let numbers: Vec<u32> = ranges.iter().map(|range| range.range).collect();
    cluster.wait("leaders", |c| numbers.iter().all(|range| c.leader(*range).is_some())).await;
    let leaders: BTreeSet<u64> = numbers.iter().filter_map(|range| cluster.leader(*range)).collect();
    assert_eq!(leaders.len(), 3, "every node leads some");
    // Half of what is cut is more than a quarter of the largest allowed, if the middle was met.
    let state = cluster.store(1).inner.state.clone();
    for range in &numbers {
        let bounds = super::super::bounds::Bounds::load(state.as_ref(), *range).unwrap();
        let bytes = state.bytes_between(Family::Objects, &bounds.start, &bounds.end).unwrap();
        assert!((1 << 10..=8 << 10).contains(&bytes), "range {range} has {bytes} bytes");
    }
    cluster.crash(2, 0).await;
    cluster.restart(2).await;
    for node in 1..=3 {
        let request = ListRequest { limit: 5_000, ..ListRequest::default() };
        let page = cluster.store(node).list(bucket, request).await.unwrap();
        let mut expected: Vec<String> = (0..2_000).map(key).collect();
        expected.sort_unstable();
        assert_eq!(page.entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), expected);
    }
    cluster.stop().await;
}
