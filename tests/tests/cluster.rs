//! Promise: three servers joined by tokens are one store; with one of them killed nothing acknowledged is lost, reads go on
//! and writes resume, of objects as well that need five backends of which the scheme leaves four: others stand in; when it
//! is back, full margin comes back by itself, and another may be lost.

use holdfast_tests::clients::aws_client;
use holdfast_tests::loopback_cluster::{cluster_address, join, settled, token, up_and_voting, wait_for};
use holdfast_tests::objects::{self, size_of};
use holdfast_tests::server::{Server, describe};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const BUCKET: &str = "cluster";
/// Objects up to this need no shards.
const INLINE: usize = 16 << 10;
/// Writes must go on within so long after a kill. Three seconds are asked of the store on a machine of its own; CI shares
/// two cores among three servers, their clients and other tests.
const RESUME_LIMIT: Duration = Duration::from_secs(20);
/// How long the load goes on after the kill.
const LOAD_AFTER_KILL: Duration = Duration::from_secs(25);
/// Objects written around the kill that are looked at one by one.
const INSPECTED_MAX: usize = 200;

/// What was acknowledged, by key: the object's number and when.
type Written = Arc<Mutex<BTreeMap<String, (u64, Instant)>>>;

async fn put(client: &aws_sdk_s3::Client, written: &Written, key: String, seed: u64) -> bool {
    let is_done = objects::put(client, BUCKET, &key, seed).await.is_ok();
    if is_done {
        written.lock().unwrap().insert(key, (seed, Instant::now()));
    }
    is_done
}

/// Reads all that was acknowledged, through `by`.
async fn read_all(by: &Server, written: &Written, when: &str) {
    let client = aws_client(&by.endpoint());
    let all = written.lock().unwrap().clone();
    for (key, (seed, _)) in all {
        if let Err(why) = objects::check(&client, BUCKET, &key, seed).await {
            let inspected = describe(&by.cli(&["object", "inspect", &format!("s3://{BUCKET}/{key}")]));
            panic!("{when}, acknowledged: {why}\n{inspected}\n{}", by.log_tail());
        }
    }
}

/// A store that says it is healthy has every shard of every object in its place; of those written around the kill that is
/// looked at.
fn check_whole(by: &Server, keys: &[String], all: [&Server; 3]) {
    for key in keys.iter().take(INSPECTED_MAX) {
        let object = by.cli_json(&["object", "inspect", &format!("s3://{BUCKET}/{key}")], &[0]);
        let segments = object["segments"].as_array().unwrap();
        let shards = segments.iter().flat_map(|segment| segment["shards"].as_array().unwrap());
        let broken: Vec<_> = shards.filter(|shard| shard["state"] != "ok").collect();
        let logs = || all.map(Server::log_tail).join("\n---\n");
        assert!(broken.is_empty(), "{key} is not whole in a healthy store: {object:#}\n{}", logs());
    }
}

#[test]
fn three_nodes_outlive_the_loss_of_one_and_then_of_another() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut first = Server::start_with(&["--scheme", "4+2", "--zone", "a", "--cluster-listen", &cluster_address()]);
    let mut second = join(&first, "b");
    let third = join(&first, "c");
    wait_for(&third, &["node", "list"], "three nodes up and voting", |nodes| up_and_voting(nodes) == 3);
    settled(&second, "zone:1");
    first.wait_healthy(Duration::from_secs(60));

    let written: Written = Arc::default();
    let clients = [&first, &second, &third].map(|server| aws_client(&server.endpoint()));
    runtime.block_on(async {
        clients[0].create_bucket().bucket(BUCKET).send().await.unwrap();
        for seed in 0..30 {
            let client = &clients[usize::try_from(seed).unwrap() % 3];
            assert!(put(client, &written, format!("before-{seed}"), seed).await, "write {seed} with all nodes up");
        }
        read_all(&third, &written, "all nodes up").await;
    });

    // The first node leads: it made the cluster. Under load it is killed.
    let stop = Arc::new(AtomicBool::new(false));
    let outcomes: Arc<Mutex<Vec<(Instant, bool, usize)>>> = Arc::default();
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let (client, written) = (clients[1 + usize::try_from(writer).unwrap() % 2].clone(), written.clone());
            let (stop, outcomes) = (stop.clone(), outcomes.clone());
            runtime.spawn(async move {
                let mut seed = 1_000 * (writer + 1);
                while !stop.load(Ordering::Relaxed) {
                    let is_done = put(&client, &written, format!("during-{writer}-{seed}"), seed).await;
                    outcomes.lock().unwrap().push((Instant::now(), is_done, size_of(seed)));
                    seed += 1;
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    first.kill();
    let killed = Instant::now();
    std::thread::sleep(LOAD_AFTER_KILL);
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        runtime.block_on(writer).unwrap();
    }
    let outcomes = outcomes.lock().unwrap().clone();
    let refused = outcomes.iter().filter(|(_, done, _)| !done).count();
    for (least, what) in [(0, "writes"), (INLINE + 1, "writes of shards")] {
        let done = outcomes.iter().filter(|(at, done, size)| *done && *at > killed && *size >= least);
        let resumed = done.map(|(at, ..)| *at - killed).min();
        let resumed = resumed.unwrap_or_else(|| panic!("no {what} succeeded after the kill\n{}", second.log_tail()));
        println!("{what} resumed {resumed:?} after the kill; {refused} of all {} were refused", outcomes.len());
        assert!(resumed < RESUME_LIMIT, "{what} resumed only {resumed:?} after the kill");
    }
    runtime.block_on(read_all(&second, &written, "one node killed"));

    // It comes back with only its data directory and its listeners, and what it missed is repaired.
    first.restart();
    wait_for(&third, &["node", "list"], "three nodes up again", |nodes| up_and_voting(nodes) == 3);
    third.wait_healthy(Duration::from_secs(120));
    let around: Vec<String> = {
        let written = written.lock().unwrap();
        let is_around = |at: Instant| at + Duration::from_secs(1) > killed && at < killed + Duration::from_secs(4);
        written.iter().filter(|(_, (_, at))| is_around(*at)).map(|(key, _)| key.clone()).collect()
    };
    check_whole(&third, &around, [&first, &second, &third]);
    second.kill();
    runtime.block_on(read_all(&third, &written, "another node killed"));
}

#[test]
fn a_token_admits_one_node_and_wrong_ones_are_refused_plainly() {
    let first = Server::start_with(&["--zone", "a", "--cluster-listen", &cluster_address()]);
    let used = token(&first);
    let second = Server::start_with(&["--cluster-listen", &cluster_address(), "--join", &used]);
    let spoilt = format!("{}A", &used[..used.len() - 1]);
    let revoked = {
        let made = first.cli_json(&["token", "create"], &[0]);
        let output = first.cli(&["token", "revoke", made["id"].as_str().unwrap()]);
        assert!(output.status.success(), "{}", describe(&output));
        made["token"].as_str().unwrap().to_owned()
    };
    for (token, why) in [(&used, "used"), (&spoilt, "spoilt"), (&revoked, "revoked")] {
        let data = second.scratch(&format!("join-{why}"));
        let output = std::process::Command::new(holdfast_tests::server::holdfast_binary())
            .args(["server", "--s3-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--cluster-listen", &cluster_address(), "--join", token, "--data-dir"])
            .arg(&data)
            .output()
            .unwrap();
        let text = describe(&output);
        assert!(matches!(output.status.code(), Some(2 | 6)), "{why}: {text}");
        assert!(text.contains("HF1301"), "{why}: {text}");
        assert!(!data.join("metadata").exists(), "{why}: nothing was made");
    }
    let alone = Server::start();
    let output = alone.cli(&["token", "create"]);
    assert!(!output.status.success() && describe(&output).contains("--cluster-listen"), "{}", describe(&output));
}
