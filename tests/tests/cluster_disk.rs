//! Promise: a full disk, a wiped disk and a node that lost all its disks cost no request and nothing acknowledged; what can
//! be put right without an operator comes back to full margin by itself.

use holdfast_tests::cluster::{Cluster, ClusterOptions, SmallDisk, load_time};
use holdfast_tests::server::{describe, remove_directory};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Of a small disk: the reserve that a backend keeps (256 MiB), and room for a long load. Its file is sparse.
const SMALL_DISK_BYTES: u64 = 2 << 30;
/// What is left of a full one: its index has to be kept somewhere, as on a real disk that fills up.
const LEFT_BYTES: u64 = 1 << 20;
/// Longest until a backend says that it is full, or no longer.
const NOTICE_LIMIT: Duration = Duration::from_secs(20);

#[test]
fn full_and_wiped_disks_cost_nothing() {
    let Some(mut cluster) = Cluster::prepare(ClusterOptions::default()) else { return };
    // All disks of one node, so that every object has a shard on one of them.
    let disks = [1, 2].map(|disk| SmallDisk::mount(&cluster.nodes[2].disk(disk), SMALL_DISK_BYTES));
    cluster.start_all();
    disks_full(&mut cluster, &disks);
    disk_wiped(&mut cluster);
    all_disks_of_a_node_wiped(&mut cluster);
    // Servers first: the small disks are theirs.
    drop(cluster);
}

/// The backends of a node, as `backend list` has them.
fn backends_of(cluster: &Cluster, number: usize) -> Vec<serde_json::Value> {
    let listed = cluster.cli_json(&["backend", "list"]);
    let is_there = |backend: &&serde_json::Value| {
        let within = format!("/node{number}/");
        backend["location"].as_str().is_some_and(|location| location.contains(&within))
    };
    listed.as_array().expect("a list of backends").iter().filter(is_there).cloned().collect()
}

/// Waits until both backends of a node have this health.
fn wait_health(cluster: &Cluster, number: usize, expected: &str) {
    let end = Instant::now() + NOTICE_LIMIT;
    loop {
        let backends = backends_of(cluster, number);
        if backends.iter().filter(|backend| backend["health"] == expected).count() == 2 {
            return;
        }
        assert!(Instant::now() < end, "not {expected} within {NOTICE_LIMIT:?}: {backends:?}");
        sleep(Duration::from_millis(200));
    }
}

fn disks_full(cluster: &mut Cluster, disks: &[SmallDisk]) {
    let name = "disks-full";
    let history = cluster.under_load(name, |cluster, workload| {
        disks.iter().for_each(|disk| disk.fill(LEFT_BYTES));
        wait_health(cluster, 2, "read-only");
        let full_at = workload.elapsed();
        workload.must_resume(name, "all disks of a node are full", &cluster.all(), full_at);
        sleep(load_time());
        disks.iter().for_each(SmallDisk::empty);
        wait_health(cluster, 2, "online");
    });
    let failed: Vec<_> = cluster.all().into_iter().flat_map(|n| history.failed_reads(n, Duration::ZERO)).collect();
    assert!(failed.is_empty(), "{name}: {} reads failed, the first: {:?}", failed.len(), failed[0]);
}

/// Its shards are rebuilt onto the other disk of its node: the promise wants them in that zone. `wait_whole`, at the end of
/// the scenario, is the proof.
fn disk_wiped(cluster: &mut Cluster) {
    let name = "disk-wiped";
    cluster.under_load(name, |cluster, workload| {
        sleep(load_time() / 2);
        remove_directory(&cluster.nodes[1].disk(1));
        std::fs::create_dir(cluster.nodes[1].disk(1)).expect("an empty disk in its place");
        let wiped_at = workload.elapsed();
        workload.must_resume(name, "a disk was wiped", &cluster.all(), wiped_at);
        sleep(load_time() / 2);
    });
}

/// With no disk left in a zone there is nothing to rebuild onto, until the operator gives it new ones.
fn all_disks_of_a_node_wiped(cluster: &mut Cluster) {
    let name = "node-wiped";
    cluster.under_load(name, |cluster, workload| {
        cluster.nodes[3].kill();
        for disk in [1, 2] {
            remove_directory(&cluster.nodes[3].disk(disk));
            std::fs::create_dir(cluster.nodes[3].disk(disk)).expect("an empty disk in its place");
        }
        cluster.restart(3);
        sleep(load_time() / 2);
        wait_health(cluster, 3, "wiped");
        for backend in backends_of(cluster, 3) {
            let (id, location) = (backend["id"].as_str().unwrap(), backend["location"].as_str().unwrap());
            let output = cluster.cli_at(0, &["backend", "replace", id, location]);
            assert!(output.status.success(), "replace {id}: {}", describe(&output));
        }
        let replaced_at = workload.elapsed();
        workload.must_resume(name, "its disks were replaced", &cluster.all(), replaced_at);
    });
}
