//! Promise: each page of `docs/operate` does what it says, command by command.

use holdfast_tests::clients::aws_client;
use holdfast_tests::loopback_cluster::{cluster_address, join, settled, up_and_voting, wait_for};
use holdfast_tests::objects;
use holdfast_tests::runbook::Runbook;
use holdfast_tests::server::{Server, remove_directory};
use std::time::Duration;

const BUCKET: &str = "runbook";
const LIMIT: Duration = Duration::from_secs(120);

/// Objects that must be there afterwards.
struct Objects {
    runtime: tokio::runtime::Runtime,
    keys: u64,
}

impl Objects {
    fn put(to: &Server, count: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut objects = Self { runtime, keys: 0 };
        let client = aws_client(&to.endpoint());
        objects.runtime.block_on(async { client.create_bucket().bucket(BUCKET).send().await }).unwrap();
        objects.add(to, count);
        objects
    }

    fn add(&mut self, to: &Server, count: u64) {
        let client = aws_client(&to.endpoint());
        for key in self.keys..self.keys + count {
            let put = self.runtime.block_on(objects::put(&client, BUCKET, &key.to_string(), key));
            put.unwrap_or_else(|why| panic!("{why}\n{}", to.log_tail()));
        }
        self.keys += count;
    }

    fn assert_there(&self, of: &Server, when: &str) {
        let client = aws_client(&of.endpoint());
        for key in 0..self.keys {
            let read = self.runtime.block_on(objects::check(&client, BUCKET, &key.to_string(), key));
            read.unwrap_or_else(|why| panic!("{when}: {why}"));
        }
    }
}

#[test]
fn a_disk_died() {
    let server = Server::start();
    let objects = Objects::put(&server, 20);
    let mut page = Runbook::open("a-disk-died");
    remove_directory(&server.disk(3));
    wait_for(&server, &["status"], "the loss is noticed", |status| status["verdict"] != "healthy");
    assert!(page.run(&server, "status", &[], &[3, 4]).contains("d3"));
    assert!(page.run(&server, "backend list", &[], &[0, 3, 4]).contains("d3"));
    let new = server.scratch("newdisk").display().to_string();
    page.run(&server, "backend replace d3 disk:/mnt/newdisk", &[("/mnt/newdisk", &new)], &[0]);
    page.run(&server, "repair start --wait", &[], &[0]);
    page.run(&server, "status", &[], &[0]);
    page.assert_done();
    // As good as before: any two others may go.
    remove_directory(&server.disk(1));
    remove_directory(&server.disk(6));
    objects.assert_there(&server, "two other disks died");
}

#[test]
fn add_a_node() {
    let first = Server::start_with(&["--zone", "a", "--cluster-listen", &cluster_address()]);
    let (second, third) = (join(&first, "b"), join(&first, "c"));
    settled(&second, "zone:1");
    let objects = Objects::put(&second, 20);
    let mut page = Runbook::open("add-a-node");
    let printed = page.run(&third, "token create --zone d", &[], &[0]);
    let token = token_in(&printed);
    let address = cluster_address();
    let command = page.next(
        "server --data-dir DIR --zone d --cluster-listen HOST --join TOKEN",
        &[("HOST", &address), ("TOKEN", token)],
    );
    // The server of a test has a data directory already.
    let further: Vec<&str> = command.iter().skip(3).map(String::as_str).collect();
    let fourth = Server::start_with(&further);
    let up = |nodes: &serde_json::Value| {
        let nodes = nodes.as_array().expect("a list of nodes");
        nodes.iter().filter(|node| node["state"] == "up").count()
    };
    wait_for(&first, &["node", "list"], "four nodes up", |nodes| up(nodes) == 4);
    assert!(page.run(&first, "node list", &[], &[0]).contains("up"));
    first.wait_healthy(LIMIT);
    page.run(&first, "status", &[], &[0]);
    page.assert_done();
    objects.assert_there(&fourth, "through the new node");
    let own = fourth.data().display().to_string();
    wait_for(&first, &["backend", "list"], "every disk of the new node has slots", |backends| {
        let backends = backends.as_array().expect("a list of backends");
        let new = backends.iter().filter(|b| b["location"].as_str().is_some_and(|at| at.contains(&own)));
        let slots: Vec<_> = new.map(|b| b["pg_slots"].as_u64().unwrap_or(0)).collect();
        slots.len() == 6 && slots.iter().all(|slots| *slots > 0)
    });
}

#[test]
fn a_node_is_gone() {
    let first = Server::start_with(&["--zone", "a", "--cluster-listen", &cluster_address()]);
    let (mut second, third) = (join(&first, "b"), join(&first, "c"));
    settled(&second, "zone:1");
    third.wait_healthy(LIMIT);
    let objects = Objects::put(&second, 20);
    second.kill();
    let mut page = Runbook::open("a-node-is-gone");
    let is_missed = |nodes: &serde_json::Value| {
        nodes.as_array().expect("a list of nodes").iter().any(|node| node["name"] == "n2" && node["state"] == "lost")
    };
    wait_for(&third, &["node", "list"], "n2 is missed", is_missed);
    assert!(page.run(&third, "node list", &[], &[0]).contains("lost"));
    page.run(&third, "status", &[], &[3, 4]);
    let printed = page.run(&first, "token create --zone b", &[], &[0]);
    let address = cluster_address();
    let command = page.next(
        "server --data-dir DIR --zone b --cluster-listen HOST --join TOKEN",
        &[("HOST", &address), ("TOKEN", token_in(&printed))],
    );
    let fourth = Server::start_with(&command.iter().skip(3).map(String::as_str).collect::<Vec<_>>());
    let is_up = |nodes: &serde_json::Value| {
        let nodes = nodes.as_array().expect("a list of nodes");
        nodes.iter().any(|node| node["name"] == "n4" && node["state"] == "up" && node["backends"] == 6)
    };
    wait_for(&first, &["node", "list"], "n4 is up with its backends", is_up);
    assert!(page.run(&first, "node list", &[], &[0]).contains("n4"));
    page.run(&first, "node replace n2 --with n4 --plan", &[], &[0]);
    page.run(&first, "node replace n2 --with n4", &[], &[0]);
    page.run(&first, "repair start --wait", &[], &[0]);
    third.wait_healthy(LIMIT);
    page.run(&first, "status", &[], &[0]);
    page.assert_done();
    objects.assert_there(&fourth, "through the new node");
    // As good as before: another node may go.
    drop(third);
    objects.assert_there(&fourth, "another node is gone");
}

/// The token among what was printed.
fn token_in(printed: &str) -> &str {
    printed.split_whitespace().find(|word| word.len() > 60).unwrap_or_else(|| panic!("no token: {printed}"))
}

#[test]
fn rolling_restart() {
    let first = Server::start_with(&["--zone", "a", "--cluster-listen", &cluster_address()]);
    let (second, third) = (join(&first, "b"), join(&first, "c"));
    settled(&second, "zone:1");
    wait_for(&second, &["node", "list"], "three nodes up and voting", |nodes| up_and_voting(nodes) == 3);
    first.wait_healthy(LIMIT);
    let mut objects = Objects::put(&first, 10);
    let mut servers = [first, second, third];
    let mut page = Runbook::open("rolling-restart");
    for at in 0..servers.len() {
        let other = (at + 1) % servers.len();
        page.run(&servers[other], "status", &[], &[0]);
        let name = format!("n{}", at + 1);
        page.run(&servers[other], "node safe-to-stop n2", &[("n2", &name)], &[0]);
        assert!(servers[at].terminate().success());
        objects.add(&servers[other], 10);
        page.next("server --data-dir DIR", &[]);
        servers[at].restart();
        wait_for(&servers[other], &["node", "list"], "the node is up again", |nodes| up_and_voting(nodes) == 3);
        assert!(page.run(&servers[other], "node list", &[], &[0]).contains("up"));
        servers[other].wait_healthy(LIMIT);
        page.run(&servers[other], "status", &[], &[0]);
        objects.assert_there(&servers[at], "through the node that was restarted");
        page.again();
    }
}
