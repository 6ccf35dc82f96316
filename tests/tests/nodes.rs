//! Promise: a store grows by one node and shrinks by another while it is read; what would break the promise is refused with
//! the scenario; a removed node is admitted nowhere.

use aws_sdk_s3::Client;
use holdfast_tests::clients::aws_client;
use holdfast_tests::loopback_cluster::{cluster_address, join, up_and_voting, wait_for};
use holdfast_tests::objects;
use holdfast_tests::server::{Server, describe};
use std::time::{Duration, Instant};

const BUCKET: &str = "nodes";
const OBJECTS: u64 = 24;

async fn put(client: &Client, seed: u64) {
    objects::put(client, BUCKET, &format!("k{seed}"), seed).await.unwrap();
}

async fn read_all(client: &Client, upto: u64, when: &str) {
    for seed in 0..upto {
        let read = objects::check(client, BUCKET, &format!("k{seed}"), seed).await;
        read.unwrap_or_else(|why| panic!("{when}: {why}"));
    }
}

/// Runs a command that is to be refused.
fn refused(of: &Server, args: &[&str], code: &str, part: &str) {
    let output = of.cli(args);
    let text = describe(&output);
    assert_eq!(output.status.code(), Some(6), "{args:?}: {text}");
    assert!(text.contains(code) && text.contains(part), "{args:?}: {text}");
}

/// A node's record in `holdfast node list`.
fn is_so(nodes: &serde_json::Value, name: &str, holds: impl Fn(&serde_json::Value) -> bool) -> bool {
    nodes.as_array().expect("a list of nodes").iter().any(|node| node["name"] == name && holds(node))
}

fn slots(layout: &serde_json::Value, node: &str) -> u64 {
    let domains = layout["domains"].as_array().expect("domains");
    let found = domains.iter().find(|domain| domain["kind"] == "node" && domain["name"] == node);
    found.and_then(|domain| domain["slots"].as_u64()).unwrap_or(0)
}

#[test]
fn a_node_joins_and_another_is_drained_and_removed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let first = Server::start_with(&["--scheme", "3+3", "--zone", "a", "--cluster-listen", &cluster_address()]);
    let mut second = join(&first, "b");
    let mut third = join(&first, "c");
    wait_for(&third, &["node", "list"], "three nodes up and voting", |nodes| up_and_voting(nodes) == 3);
    wait_for(&first, &["status"], "the promise of three zones", |status| status["promise"] == "zone:1+backend:1");
    first.wait_healthy(Duration::from_secs(60));
    let clients = [&first, &second, &third].map(|server| aws_client(&server.endpoint()));
    runtime.block_on(async {
        clients[0].create_bucket().bucket(BUCKET).send().await.unwrap();
        for seed in 0..OBJECTS {
            put(&clients[usize::try_from(seed).unwrap() % 3], seed).await;
        }
    });

    // With three zones none can be spared: a stop is survived, a loss for good is not what was promised.
    let stop = third.cli_json(&["node", "safe-to-stop", "n2"], &[0]);
    assert_eq!((stop["verdict"].as_str(), stop["unwritable_pgs"].as_u64()), (Some("safe"), Some(0)), "{stop}");
    refused(&second, &["node", "drain", "n3"], "HF3301", "--accept-loss-of");
    refused(&second, &["node", "remove", "n3", "--lost"], "HF1305", "n3 answers");
    refused(&second, &["node", "remove", "n3"], "HF1305", "holdfast node drain n3");
    refused(&second, &["policy", "create", "--survive", "zone:2"], "HF3301", "zone:2");

    // One more.
    let fourth = join(&first, "d");
    wait_for(&first, &["layout", "show"], "the fourth node has its share, in place", |layout| {
        slots(layout, "n4") > 300 && layout["moving_slots"] == 0 && layout["proof"]["is_current"] == true
    });
    first.wait_healthy(Duration::from_secs(120));
    let plan = first.cli_json(&["node", "drain", "n2", "--plan"], &[0]);
    assert!(plan["moves"]["slots"].as_u64() > Some(300) && plan["moves"]["bytes"].as_u64() > Some(0), "{plan}");

    // One less, while it is written and read. The second asks, the leader does.
    second.cli_json(&["node", "drain", "n2"], &[0]);
    runtime.block_on(async {
        for seed in OBJECTS..OBJECTS + 6 {
            put(&clients[usize::try_from(seed).unwrap() % 3], seed).await;
        }
        read_all(&clients[1], OBJECTS + 6, "while n2 drains").await;
    });
    wait_for(&third, &["node", "list"], "n2 is drained and votes no more", |nodes| {
        is_so(nodes, "n2", |node| node["intent"] == "drained" && node["is_voter"] == false && node["pg_slots"] == 0)
    });
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        // A range's votes may take a moment longer.
        let output = third.cli(&["node", "remove", "n2"]);
        match output.status.code() {
            Some(0) => break,
            code => assert!(code == Some(6) && Instant::now() < end, "{}", describe(&output)),
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    // Each coordinator learns of it from its own copy of the metadata, within moments.
    while second.cli(&["status"]).status.success() {
        assert!(Instant::now() < end, "a removed node is still admitted");
        std::thread::sleep(Duration::from_millis(100));
    }
    second.kill();
    wait_for(&fourth, &["node", "list"], "three nodes up and voting", |nodes| {
        is_so(nodes, "n2", |node| node["state"] == "removed") && up_and_voting(nodes) == 3
    });
    runtime.block_on(read_all(&aws_client(&fourth.endpoint()), OBJECTS + 6, "n2 is gone"));
    third.wait_healthy(Duration::from_secs(120));
    let history = fourth.cli_json(&["layout", "history"], &[0]);
    let causes: Vec<&str> = history.as_array().unwrap().iter().filter_map(|change| change["cause"].as_str()).collect();
    let orders: Vec<&&str> = causes.iter().filter(|cause| cause.starts_with("node ")).collect();
    assert_eq!(orders, [&"node remove n2", &"node drain n2"], "{history}");

    // What is held stays held, whoever answers; and with a node away another may not be stopped.
    fourth.cli_json(&["repair", "pause"], &[0]);
    assert_eq!(third.cli_json(&["repair", "status"], &[0, 3, 4])["state"], "paused");
    fourth.cli_json(&["repair", "resume"], &[0]);
    third.kill();
    wait_for(&first, &["node", "list"], "n3 is missed", |nodes| is_so(nodes, "n3", |node| node["state"] != "up"));
    let stop = first.cli_json(&["node", "safe-to-stop", "n4"], &[4]);
    assert!(!stop["groups_without_quorum"].as_array().unwrap().is_empty(), "{stop}");
    runtime.block_on(read_all(&aws_client(&fourth.endpoint()), OBJECTS + 6, "n3 is away"));
}
