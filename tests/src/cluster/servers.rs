//! A cluster of servers, begun and joined as an operator does it: the first server, a token for each other, `--join`.

use super::history::History;
use super::link_faults::Party;
use super::network::Network;
use super::node::Node;
use super::system::DIRECTORY_PREFIX;
use super::workload::{Workload, WorkloadOptions};
use super::{freshness, is_soak};
use crate::server::{ACCESS_KEY, SECRET_KEY, describe, holdfast_binary};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest until a node is ready: its recovery and an election.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// One cluster at a time in a test process: times that are measured would measure the other.
static TURN: Mutex<()> = Mutex::new(());

/// What cluster to start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Server processes, each on a host.
    pub nodes: usize,
    /// `--scheme` of the first. With the default disks (six a node) three nodes hold two of the six shards of 2+4 each:
    /// with a node lost, four are left, and writes, which want three, go on.
    pub scheme: String,
    /// `--backend` of each node, as paths below its directory; none for the default disks.
    pub backends: Vec<PathBuf>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { nodes: 3, scheme: "2+4".to_owned(), backends: Vec::new() }
    }
}

/// Servers and their network. All of it goes away when dropped: servers, then network, then files.
pub struct Cluster {
    /// By number. Endpoint N of a workload is node N.
    pub nodes: Vec<Node>,
    /// To be cut.
    pub network: Network,
    options: ClusterOptions,
    directory: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts all nodes and waits until they are ready; `None` where the test is to be skipped.
    pub fn start(options: ClusterOptions) -> Option<Self> {
        let mut cluster = Self::prepare(options)?;
        cluster.start_first();
        for number in 1..cluster.nodes.len() {
            cluster.join(number);
        }
        Some(cluster)
    }

    /// One server that is a cluster of its own.
    pub fn start_one() -> Option<Self> {
        let mut cluster = Self::prepare(ClusterOptions { nodes: 1, scheme: "4+2".to_owned(), backends: Vec::new() })?;
        cluster.nodes[0].spawn(&["--scheme".to_owned(), "4+2".to_owned()]);
        cluster.nodes[0].wait_ready(READY_LIMIT);
        Some(cluster)
    }

    /// Network and nodes, none of them started.
    pub fn prepare(options: ClusterOptions) -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let network = Network::with_hosts(options.nodes)?;
        let prefix = format!("{DIRECTORY_PREFIX}{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory");
        let nodes = (0..options.nodes).map(|number| node_of(&network, directory.path(), number)).collect();
        Some(Self { nodes, network, options, directory, _turn: turn })
    }

    /// A place for a test's own files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
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
        for backend in &self.options.backends {
            let path = self.directory.path().join(format!("node{number}")).join(backend);
            flags.extend(["--backend".to_owned(), format!("disk:{}", path.display())]);
        }
        flags
    }

    /// What a later start needs beside its data directory. Nothing of it for a server that is a cluster of its own.
    fn listeners(&self, number: usize) -> Vec<String> {
        if self.options.nodes == 1 {
            return Vec::new();
        }
        vec!["--cluster-listen".to_owned(), self.nodes[number].cluster().to_string()]
    }

    /// Starts a node again that has run before, without waiting.
    pub fn spawn_again(&mut self, number: usize) {
        let listeners = self.listeners(number);
        self.nodes[number].spawn(&listeners);
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

    /// Puts a node that has never run in the place of one that is gone for good: its host, and empty disks.
    pub fn replace_host(&mut self, number: usize) {
        self.nodes[number].kill();
        self.nodes[number].wipe();
        self.nodes[number] = node_of(&self.network, self.directory.path(), number);
    }

    /// Cuts the power of all nodes at one moment. What the file system would lose is not in it.
    pub fn cut_power(&mut self) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            node.strike();
        }
        for node in &mut self.nodes {
            node.kill();
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

    /// Clients on all nodes.
    pub fn workload(&self, options: WorkloadOptions) -> Workload {
        Workload::start(&self.endpoints(), options)
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
        assert!(output.status.success(), "holdfast {arguments:?} at node {number}: {}", describe(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", describe(&output)))
    }

    /// Waits until a running node's `holdfast status` says healthy (exit 0): every promise at its full margin.
    pub fn wait_healthy(&self, number: usize, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            let output = self.cli_at(number, &["status"]);
            if output.status.code() == Some(0) {
                return;
            }
            let repair = || describe(&self.cli_at(number, &["repair", "status"]));
            assert!(Instant::now() < end, "not healthy in {limit:?}: {}\nrepair: {}", describe(&output), repair());
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

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
