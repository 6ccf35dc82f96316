//! Copies of ranges that move from node to node.

use super::*;

/// A voter that was given up comes back with a copy that nobody feeds: it goes, and the node can be given a new one.
#[tokio::test(start_paused = true)]
async fn a_copy_that_has_moved_off_a_node_is_removed_and_can_come_back() {
    for seed in 50..54 {
        let mut cluster = Cluster::start(seed, 4).await;
        let bucket = BucketId(cluster.store(1).bucket_create("b", "o", 1).await.unwrap().id);
        let before = cluster.voters(1);
        let leader = cluster.leader(1).unwrap();
        let mut number = 0;
        let mut write = async |cluster: &Cluster, node: u64| {
            for _ in 0..100 {
                number += 1;
                cluster
                    .store(node)
                    .put_version(put(bucket, ["a", "n", "z"][number as usize % 3], number, None))
                    .await
                    .unwrap();
            }
        };
        write(&cluster, leader).await;
        cluster.store(leader).split_at(bucket, "m").await.unwrap();
        write(&cluster, leader).await;
        let away = *before.iter().find(|node| **node != leader).unwrap();
        cluster.crash(away, 0).await;
        let is_elsewhere =
            |c: &Cluster| (1..=2).all(|range| c.voters(range).len() == 3 && !c.voters(range).contains(&away));
        cluster.wait("other voters", is_elsewhere).await;
        write(&cluster, leader).await;
        cluster.restart(away).await;
        cluster
            .wait("both copies gone", |c| (1..=2).all(|range| c.stores[&away].inner.groups.get(range).is_none()))
            .await;
        let families = [Family::Objects, Family::Versions, Family::Inline, Family::Uploads, Family::Garbage];
        let rows_left = |c: &Cluster| rows(&c.store(away)).iter().filter(|row| families.contains(&row.0)).count();
        cluster.wait("no row left of ranges that are elsewhere", |c| rows_left(c) == 0).await;
        // It reads and writes through the others, and a restart does not bring the copies back.
        let expected = value(&cluster.store(leader), bucket, "n").await.unwrap();
        assert_eq!(value(&cluster.store(away), bucket, "n").await.unwrap(), expected);
        cluster.crash(away, 0).await;
        cluster.restart(away).await;
        write(&cluster, away).await;

        // It is the only one left to take the place of the next.
        let next = *cluster
            .voters(1)
            .iter()
            .find(|node| Some(**node) != cluster.leader(1) && Some(**node) != cluster.leader(2))
            .unwrap();
        cluster.crash(next, 0).await;
        cluster.wait("a voter again", |c| (1..=2).all(|range| c.voters(range).contains(&away))).await;
        let there = (1..=4).find(|node| *node != next && *node != away).unwrap();
        write(&cluster, there).await;
        sleep(Duration::from_secs(5)).await;
        assert!(rows(&cluster.store(there)) == rows(&cluster.store(away)), "seed {seed}");
        cluster.stop().await;
    }
}
