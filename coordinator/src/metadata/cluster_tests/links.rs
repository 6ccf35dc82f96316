//! Links that are cut, both ways or one, while the nodes themselves are well.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_partitioned_minority_neither_writes_nor_reads_stale() {
    let cluster = Cluster::start(3, 5).await;
    let registers = Registers::make(&cluster.store(1), &["a", "b"]).await;
    let leader = cluster.leader(1).unwrap();
    let voters = cluster.voters(1);
    let others: Vec<u64> = voters.iter().copied().filter(|node| *node != leader).collect();
    let tasks = work(&cluster, &registers, &others);
    let rest: Vec<NodeId> = (1..=5).filter(|node| *node != leader).map(NodeId).collect();
    cluster.network.partition(&[NodeId(leader)], &rest);
    let cut_off = cluster.store(leader);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        let before = registers.seen("a");
        if let Ok(Ok(found)) =
            tokio::time::timeout(Duration::from_secs(2), value(&cut_off, registers.bucket, "a")).await
        {
            assert!(found >= before, "{found} was read on the side that is cut off, after {before}");
        }
        sleep(Duration::from_millis(100)).await;
    }
    cut_off.put_version(put(registers.bucket, "z", 1, None)).await.expect_err("nobody hears it");
    assert!(finish(&registers, tasks).await > 100, "the majority goes on");
    cluster.network.heal();
    cluster.wait("one leader", |c| c.leader(1).is_some()).await;
    assert_eq!(value(&cut_off, registers.bucket, "a").await.unwrap(), registers.seen("a"));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_heard_and_hears_nobody_gives_way() {
    let cluster = Cluster::start(7, 3).await;
    let bucket = BucketId(cluster.store(1).bucket_create("b", "o", 1).await.unwrap().id);
    let deaf = cluster.leader(1).unwrap();
    let others: Vec<u64> = (1..=3).filter(|node| *node != deaf).collect();
    cluster.store(others[0]).put_version(put(bucket, "k", 1, None)).await.unwrap();
    for &other in &others {
        cluster.network.set_link(NodeId(other), NodeId(deaf), LinkConditions::CUT);
    }
    let begun = Instant::now();
    cluster.store(others[0]).put_version(put(bucket, "k", 2, None)).await.unwrap();
    // Three seconds until it knows, one until it looks, 2.4 until the others elect, and the election.
    assert!(begun.elapsed() <= Duration::from_secs(9), "{:?}", begun.elapsed());
    assert_eq!(value(&cluster.store(others[1]), bucket, "k").await.unwrap(), 2);
    cluster.network.heal();
    cluster.wait("one leader", |c| c.leader(1).is_some_and(|leader| leader != deaf)).await;
    assert_eq!(value(&cluster.store(deaf), bucket, "k").await.unwrap(), 2);
    cluster.stop().await;
}

/// One direction between two nodes is cut: the one that the leader does not hear reads and writes through the third.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_not_heard_from_here_is_asked_through_another_node() {
    let cluster = Cluster::start(9, 3).await;
    let bucket = BucketId(cluster.store(1).bucket_create("b", "o", 1).await.unwrap().id);
    let leader = cluster.leader(1).unwrap();
    let unheard = (1..=3).find(|node| *node != leader).unwrap();
    let store = cluster.store(unheard);
    store.put_version(put(bucket, "k", 1, None)).await.unwrap();
    cluster.network.set_link(NodeId(unheard), NodeId(leader), LinkConditions::CUT);

    let begun = Instant::now();
    store.put_version(put(bucket, "k", 2, None)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    // It is known now, so that nothing else waits.
    let begun = Instant::now();
    for number in 3..50 {
        store.put_version(put(bucket, "k", number, Some(number - 1))).await.unwrap();
        assert_eq!(value(&store, bucket, "k").await, Ok(number));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // Half a minute of it: now and then it is tried whether the leader hears, and the voter it does not hear makes the
    // others move their leader.
    for number in 50..80 {
        let begun = Instant::now();
        store.put_version(put(bucket, "k", number, Some(number - 1))).await.unwrap();
        assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
        sleep(Duration::from_secs(1)).await;
    }

    cluster.network.heal();
    sleep(Duration::from_secs(6)).await;
    for number in 80..90 {
        store.put_version(put(bucket, "k", number, Some(number - 1))).await.unwrap();
        assert_eq!(value(&store, bucket, "k").await, Ok(number));
    }
    cluster.stop().await;
}
