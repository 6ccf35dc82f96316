//! Promise: `holdfast fault` makes servers fail as it is told, only where each was started for that, shows what stands, and
//! ends it in time; what fails so costs clients no read and nothing acknowledged.

use holdfast_tests::cluster::s3_connection::{Ask, S3Connection};
use holdfast_tests::cluster::{Cluster, ClusterOptions, load_time};
use holdfast_tests::server::{describe, metric};
use serde_json::Value;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest for something to show, or to be over.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn faults_are_injected_where_that_was_allowed_and_end() {
    let options = ClusterOptions {
        nodes: 3,
        scheme: "1+2".to_owned(),
        first_disks: 3,
        disks: 1,
        promise: "zone:1+node:1",
        voters: 3,
    };
    let Some(mut cluster) = Cluster::start(options) else { return };
    refused(&mut cluster);
    let leader = cluster.leader_of(1);
    one_way_partition(&mut cluster, "fault-partition", leader, (leader + 1) % 3);
    // Who does not reach the leader of the objects' metadata reaches it through the third.
    let leader = cluster.leader_of(1);
    one_way_partition(&mut cluster, "fault-unheard-leader", (leader + 1) % 3, leader);
    slow_and_broken_links(&mut cluster);
    full_and_failing_disks(&mut cluster);
    clock_hours_off(&cluster);
}

/// Refused as long as one of the servers named was not started for faults, and then set nowhere.
fn refused(cluster: &mut Cluster) {
    cluster.extra = vec!["--allow-faults".to_owned()];
    for number in [0, 1] {
        cluster.nodes[number].terminate();
        cluster.restart(number);
    }
    cluster.wait_whole();
    let output = cluster.cli_at(0, &["fault", "add", "disk-full", "--ttl", "1m"]);
    let text = describe(&output);
    assert_eq!(output.status.code(), Some(6), "{text}");
    assert!(text.contains("HF1401") && text.contains("not started for faults: n3"), "{text}");
    assert!(text.contains("--allow-faults"), "{text}");
    let list = cluster.cli_json(&["fault", "list"]);
    assert_eq!((&list["faults"], &list["not_allowed"]), (&serde_json::json!([]), &serde_json::json!(["n3"])));
    cluster.nodes[2].terminate();
    cluster.restart(2);
    cluster.wait_whole();
}

/// Asks the node that leads, for what the others pass on to it goes over links that may be at fault.
fn ask_leader(cluster: &Cluster, arguments: &[&str]) -> Value {
    let output = cluster.cli_at(cluster.leader_of(0), arguments);
    assert!(matches!(output.status.code(), Some(0 | 3..=5)), "{arguments:?}: {}", describe(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", describe(&output)))
}

fn add(cluster: &Cluster, arguments: &[&str]) -> String {
    let fault = ask_leader(cluster, &[&["fault", "add"], arguments].concat());
    fault["id"].as_str().unwrap_or_else(|| panic!("no id in {fault}")).to_owned()
}

fn injected(cluster: &Cluster, number: usize, kind: &str) -> f64 {
    let sample = format!("holdfast_faults_injected_total{{kind=\"{kind}\"}}");
    metric(cluster.nodes[number].admin(), &sample).unwrap_or(0.0)
}

fn standing(cluster: &Cluster) -> Vec<Value> {
    ask_leader(cluster, &["fault", "list"])["faults"].as_array().expect("a list").clone()
}

/// What `from` begins does not reach `to`; what `to` begins reaches everybody.
fn one_way_partition(cluster: &mut Cluster, scenario: &str, from: usize, to: usize) {
    let others: Vec<usize> = (0..3).filter(|node| *node != to).collect();
    let cut_before = [0, 1, 2].map(|node| injected(cluster, node, "partition"));
    let history = cluster.under_load(scenario, |cluster, workload| {
        let (from_name, to_name) = (format!("n{}", from + 1), format!("n{}", to + 1));
        let id = add(cluster, &["partition", "--from", &from_name, "--to", &to_name, "--ttl", "5m"]);
        let began = workload.elapsed();
        let status = ask_leader(cluster, &["status"]);
        let findings = status["findings"].as_array().unwrap();
        let shown =
            findings.iter().any(|finding| finding.as_str().unwrap().contains(&format!("fault {id} is injected")));
        assert!(shown, "{status}");
        workload.must_resume(scenario, "a direction is cut", &others, began);
        sleep(load_time());
        assert!(injected(cluster, from, "partition") > cut_before[from], "node {from} made no call that was cut");
        assert_eq!(injected(cluster, to, "partition"), cut_before[to], "the other direction is whole");
        let left = ask_leader(cluster, &["fault", "clear", &id]);
        assert_eq!(left["faults"], serde_json::json!([]));
    });
    // The one that is not called is behind, and may have to wait to be read; the others are not.
    let failed: Vec<_> = others.into_iter().flat_map(|n| history.failed_reads(n, Duration::ZERO)).collect();
    assert!(failed.is_empty(), "{} reads failed, the first: {:?}", failed.len(), failed[0]);
}

fn slow_and_broken_links(cluster: &mut Cluster) {
    cluster.under_load("fault-links", |cluster, workload| {
        add(cluster, &["delay", "--amount", "30ms", "--percent", "20", "--seed", "7"]);
        add(cluster, &["error", "--percent", "2", "--seed", "8"]);
        add(cluster, &["bandwidth", "--at", "zone:z1", "--amount", "4MiB"]);
        assert_eq!(standing(cluster).len(), 3);
        let began = workload.elapsed();
        workload.must_resume("fault-links", "links are slow and break", &cluster.all(), began);
        sleep(load_time());
        for kind in ["delay", "error"] {
            assert!(
                cluster.all().into_iter().any(|n| injected(cluster, n, kind) > 0.0),
                "{kind}: nothing was injected"
            );
        }
        ask_leader(cluster, &["fault", "clear", "--all"]);
    });
}

fn health_of_third(cluster: &Cluster) -> String {
    let backends = cluster.cli_json(&["backend", "list"]);
    let on_third = |b: &&Value| b["location"].as_str().is_some_and(|location| location.contains("/node2/"));
    backends.as_array().unwrap().iter().find(on_third).expect("its backend")["health"].as_str().unwrap().to_owned()
}

fn full_and_failing_disks(cluster: &mut Cluster) {
    cluster.under_load("fault-disks", |cluster, workload| {
        add(cluster, &["disk-full", "--at", "n3", "--ttl", "5m"]);
        let began = workload.elapsed();
        workload.must_resume("fault-disks", "a disk is full", &cluster.all(), began);
        sleep(load_time() / 2);
        assert!(injected(cluster, 2, "disk-full") > 0.0, "no shard was refused");
        ask_leader(cluster, &["fault", "clear", "--all"]);
        // A failed sync ends writing there, and outlives the fault until the server starts again.
        add(cluster, &["fsync-error", "--at", "n3", "--ttl", "5m"]);
        let end = Instant::now() + LIMIT;
        while health_of_third(cluster) != "read-only" {
            assert!(Instant::now() < end, "no sync failed within {LIMIT:?}");
            sleep(Duration::from_millis(200));
        }
        let began = workload.elapsed();
        workload.must_resume("fault-disks", "a sync failed", &cluster.all(), began);
        ask_leader(cluster, &["fault", "clear", "--all"]);
        assert_eq!(health_of_third(cluster), "read-only");
        cluster.nodes[2].terminate();
        cluster.restart(2);
    });
}

/// A coordinator whose clock is hours behind refuses signed requests and says why, and stays a member; the others go on. The
/// fault ends by itself.
fn clock_hours_off(cluster: &Cluster) {
    let ask = |number: usize| {
        let mut connection = S3Connection::new(cluster.nodes[number].s3(), Duration::from_secs(5));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let list = Ask { method: "GET", path: "/fault-disks", query: &[("list-type", "2")], ..Ask::default() };
        let answer = runtime.block_on(connection.ask(&list)).expect("an answer");
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    };
    let wrong = (cluster.leader_of(0) + 1) % 3;
    let set = Instant::now();
    add(cluster, &["clock-jump", "--at", &format!("n{}", wrong + 1), "--amount=-5h", "--ttl", "5s"]);
    let (status, text) = ask(wrong);
    assert!(status == 403 && text.contains("RequestTimeTooSkewed"), "{status}: {text}");
    assert_eq!(ask((wrong + 1) % 3).0, 200);
    while ask(wrong).0 != 200 {
        assert!(set.elapsed() < LIMIT, "the fault does not end");
        sleep(Duration::from_millis(200));
    }
    assert!(set.elapsed() >= Duration::from_secs(4), "it ended after {:?}", set.elapsed());
    assert!(standing(cluster).is_empty());
    cluster.wait_whole();
}
