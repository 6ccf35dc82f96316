//! A cluster of servers, begun and joined as an operator does it: the first server, a token for each other, `--join`.

use super::history::History;
use super::link_faults::Party;
use super::network::Network;
use super::node::Node;
use super::system::DIRECTORY_PREFIX;
use super::workload::{Workload, WorkloadOptions};
use super::{freshness, is_soak};
use crate::server::{ACCESS_KEY, SECRET_KEY, describe, holdfast_binary, metric};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest until a node is ready: its recovery and an election.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Longest until all nodes are up and every object is at full margin again.
const WHOLE_LIMIT: Duration = Duration::from_secs(90);
/// A scenario with fewer acknowledged changes, or answered reads, has shown nothing.
const CHANGES_MIN: usize = 40;
/// One cluster at a time in a test process: times that are measured would measure the other.
static TURN: Mutex<()> = Mutex::new(());

/// What cluster to start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Server processes, each on a host and in a zone of its own.
    pub nodes: usize,
    /// `--scheme` of the first.
    pub scheme: String,
    /// Disks of the first node; as many as the scheme has shards, for it begins alone.
    pub first_disks: usize,
    /// Disks of each other node.
    pub disks: usize,
    /// What is promised once all have joined, as `status` shows it.
    pub promise: &'static str,
    /// Voters of each metadata group then.
    pub voters: u32,
}

impl Default for ClusterOptions {
    /// Five nodes that hold one shard of five each. What is promised: with two nodes lost, cut off or stopped the other
    /// three hold one shard more than reading needs and three of five votes, so reads and writes go on; with three lost
    /// nothing acknowledged is lost, and all goes on when one of them is back.
    fn default() -> Self {
        Self { nodes: 5, scheme: "2+3".to_owned(), first_disks: 5, disks: 2, promise: "zone:1+node:1", voters: 5 }
    }
}

/// Servers and their network. All of it goes away when dropped: servers, then network, then files.
pub struct Cluster {
    /// By number. Endpoint N of a workload is node N.
    pub nodes: Vec<Node>,
    /// To be cut.
    pub network: Network,
    /// Further flags of every start.
    pub extra: Vec<String>,
    options: ClusterOptions,
    directory: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts all nodes and waits until they are one store at full margin; `None` where the test is to be skipped.
    pub fn start(options: ClusterOptions) -> Option<Self> {
        let mut cluster = Self::prepare(options)?;
        cluster.start_all();
        Some(cluster)
    }

    /// The same for a cluster that was prepared.
    pub fn start_all(&mut self) {
        self.start_first();
        for number in 1..self.nodes.len() {
            self.join(number);
        }
        let end = Instant::now() + WHOLE_LIMIT;
        while self.cli_json(&["status"])["promise"] != self.options.promise || !self.has_voters() {
            assert!(Instant::now() < end, "not so within {WHOLE_LIMIT:?}: {:?}", self.options);
            std::thread::sleep(Duration::from_millis(200));
        }
        self.wait_whole();
    }

    /// Network and nodes, none of them started.
    pub fn prepare(options: ClusterOptions) -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let network = Network::with_hosts(options.nodes)?;
        let prefix = format!("{DIRECTORY_PREFIX}{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory");
        let nodes = (0..options.nodes).map(|number| node_of(&network, directory.path(), number)).collect();
        Some(Self { nodes, network, extra: Vec::new(), options, directory, _turn: turn })
    }

    /// A place for a test's own files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Whether root group and first range have their voters, as whoever leads them says.
    fn has_voters(&self) -> bool {
        [0, 1].into_iter().all(|group| {
            let sample = format!("holdfast_metadata_voters{{group=\"{group}\"}}");
            let expected = Some(f64::from(self.options.voters));
            self.nodes.iter().any(|node| metric(node.admin(), &sample) == expected)
        })
    }

    fn start_first(&mut self) {
        let mut extra = vec!["--scheme".to_owned(), self.options.scheme.clone()];
        extra.extend(self.standing(0));
        self.nodes[0].spawn(&extra);
        self.nodes[0].wait_ready(READY_LIMIT);
    }

    /// Has a fresh node join by a token that any running node makes, and waits until it is ready.
    pub fn join(&mut self, number: usize) {
        let name = format!("z{number}");
        let made = self.cli_json(&["token", "create", "--region", "us-east-1", "--zone", &name, "--ttl", "1h"]);
        let token = made["token"].as_str().unwrap_or_else(|| panic!("no token in {made}")).to_owned();
        let mut extra = vec!["--join".to_owned(), token];
        extra.extend(self.standing(number));
        self.nodes[number].spawn(&extra);
        self.nodes[number].wait_ready(READY_LIMIT);
    }

    /// What a first start says of where a node stands and what it has.
    fn standing(&self, number: usize) -> Vec<String> {
        let zone = format!("z{number}");
        let mut flags = self.listeners(number);
        flags.extend(["--region", "us-east-1", "--zone", &zone].map(str::to_owned));
        let disks = if number == 0 { self.options.first_disks } else { self.options.disks };
        for disk in 1..=disks {
            flags.extend(["--backend".to_owned(), format!("disk:{}", self.nodes[number].disk(disk).display())]);
        }
        flags.extend(self.extra.clone());
        flags
    }

    /// What every start needs beside the data directory.
    fn listeners(&self, number: usize) -> Vec<String> {
        vec!["--cluster-listen".to_owned(), self.nodes[number].cluster().to_string()]
    }

    /// Starts a node again that has run before, without waiting.
    pub fn spawn_again(&mut self, number: usize) {
        let mut flags = self.listeners(number);
        flags.extend(self.extra.clone());
        self.nodes[number].spawn(&flags);
    }

    /// The same, and waits until it is ready.
    pub fn restart(&mut self, number: usize) {
        self.spawn_again(number);
        self.nodes[number].wait_ready(READY_LIMIT);
    }

    /// Waits until a running node is ready.
    pub fn wait_ready(&mut self, number: usize) {
        self.nodes[number].wait_ready(READY_LIMIT);
    }

    /// kill -9 of several nodes at one moment. What a file system would lose in a power cut besides is not in it.
    pub fn strike(&mut self, numbers: &[usize]) {
        for &number in numbers {
            self.nodes[number].strike();
        }
        for &number in numbers {
            self.nodes[number].kill();
        }
    }

    /// S3 of all nodes, by number.
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::s3).collect()
    }

    /// Numbers of all nodes but one.
    pub fn others(&self, number: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&other| other != number).collect()
    }

    /// Numbers of all nodes.
    pub fn all(&self) -> Vec<usize> {
        (0..self.nodes.len()).collect()
    }

    /// Has clients work on all nodes while `trouble` happens and until it is over: afterwards links are whole, every node
    /// runs, every endpoint acknowledges writes again within `RESUME_LIMIT` and reads every key; the history must hold no
    /// contradiction, and the store comes back to full margin by itself. Returns what the clients saw.
    ///
    /// `name` is the bucket's too: a scenario begins with absent keys.
    pub fn under_load(&mut self, name: &str, trouble: impl FnOnce(&mut Self, &Workload)) -> History {
        let options = WorkloadOptions { bucket: name.to_owned(), ..WorkloadOptions::default() };
        let workload = Workload::start(&self.endpoints(), options);
        let all = self.all();
        workload.must_resume(name, "before anything happened", &all, Duration::ZERO);
        trouble(self, &workload);
        self.network.heal();
        workload.must_resume(name, "once all was well again", &all, workload.elapsed());
        let history = workload.stop(&all);
        assert_history(name, &history, CHANGES_MIN);
        self.wait_whole();
        history
    }

    /// Runs `holdfast ARGS` against one node with the root key.
    pub fn cli_at(&self, number: usize, arguments: &[&str]) -> Output {
        Command::new(holdfast_binary())
            .args(arguments)
            .args(["--output", "json"])
            .env("HOLDFAST_ADMIN", format!("http://{}", self.nodes[number].admin()))
            .env("HOLDFAST_ACCESS_KEY_ID", ACCESS_KEY)
            .env("HOLDFAST_SECRET_ACCESS_KEY", SECRET_KEY)
            .stdin(Stdio::null())
            .output()
            .expect("run holdfast")
    }

    /// Runs a command that must succeed against the first running node; what it prints.
    pub fn cli_json(&self, arguments: &[&str]) -> serde_json::Value {
        let number = self.nodes.iter().position(Node::is_running).expect("a node runs");
        let output = self.cli_at(number, arguments);
        // 3 to 5 are verdicts of `status`, with its answer.
        assert!(
            matches!(output.status.code(), Some(0 | 3..=5)),
            "holdfast {arguments:?} at node {number}: {}",
            describe(&output)
        );
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", describe(&output)))
    }

    /// Which node leads a metadata group, by its own word, once one does: 0 is the root group, 1 the first range.
    pub fn leader_of(&self, group: u32) -> usize {
        let sample = format!("holdfast_metadata_voters{{group=\"{group}\"}}");
        let end = Instant::now() + READY_LIMIT;
        loop {
            let leads =
                |node: &Node| node.is_running() && metric(node.admin(), &sample).is_some_and(|voters| voters > 0.0);
            match self.nodes.iter().position(leads) {
                Some(leader) => return leader,
                None => assert!(Instant::now() < end, "nobody leads group {group}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until every running node answers the others, and the store is at full margin.
    pub fn wait_whole(&self) {
        let running = self.nodes.iter().filter(|node| node.is_running()).count();
        let end = Instant::now() + WHOLE_LIMIT;
        loop {
            let first = self.nodes.iter().position(Node::is_running).expect("a node runs");
            let (nodes, status) = (self.cli_at(first, &["node", "list"]), self.cli_at(first, &["status"]));
            let listed: serde_json::Value = serde_json::from_slice(&nodes.stdout).unwrap_or_default();
            // One that returned answers, and has yet to prove itself.
            let is_up = |node: &&serde_json::Value| node["state"] == "up" || node["state"] == "returned";
            let up = listed.as_array().into_iter().flatten().filter(is_up).count();
            if up == running && status.status.code() == Some(0) {
                return;
            }
            if Instant::now() >= end {
                let repair = describe(&self.cli_at(first, &["repair", "status"]));
                let (nodes, status) = (describe(&nodes), describe(&status));
                panic!("not whole in {WHOLE_LIMIT:?}, {up} of {running} nodes up: {nodes}\n{status}\n{repair}");
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

/// A host's node, not started, with its files below `directory`.
fn node_of(network: &Network, directory: &Path, number: usize) -> Node {
    let address = network.address(Party::Host(number));
    Node::new(number, network.namespace(number), address, directory.join(format!("node{number}")))
}

/// Panics unless the history holds enough work to mean something and no contradiction; keeps it in a file if it does.
pub fn assert_history(name: &str, history: &History, changes_min: usize) {
    let (changes, reads) = (history.changes_done(), history.reads_answered());
    assert!(changes >= changes_min, "{name}: the load did too little to prove anything: {changes} changes");
    assert!(reads >= changes_min, "{name}: the load did too little to prove anything: {reads} reads");
    let found = freshness::contradictions(history);
    if !found.is_empty() {
        let kept = std::env::temp_dir().join(format!("holdfast-history-{name}-{}.jsonl", std::process::id()));
        let written = std::fs::File::create(&kept).and_then(|file| history.write_to(std::io::BufWriter::new(file)));
        panic!("{name}: history kept in {}: {written:?}\n{}", kept.display(), found.join("\n"));
    }
    if is_soak() {
        println!("{name}: {changes} changes and {reads} reads, no contradiction");
    }
}
