//! One server process on one host: its disks, its log, its listeners, and what can be done to it.

use crate::server::{ACCESS_KEY, SECRET_KEY, holdfast_binary, http_status, wait_limited};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest for a stop by SIGTERM: open requests are waited for.
const STOP_LIMIT: Duration = Duration::from_secs(40);
/// Lines of a log that are printed when a test fails.
const TAIL_LINES: usize = 60;

/// A server process that may be running or not. Killed when dropped, and the end of its log printed if a test failed.
pub struct Node {
    number: usize,
    namespace: String,
    address: Ipv4Addr,
    directory: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// A node that has never run, with its files below `directory`.
    pub fn new(number: usize, namespace: String, address: Ipv4Addr, directory: PathBuf) -> Self {
        fs::create_dir_all(&directory).expect("make a node's directory");
        Self { number, namespace, address, directory, child: None }
    }

    /// Counted from 0: its host, and its place among the endpoints.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Where S3 listens.
    pub fn s3(&self) -> SocketAddr {
        SocketAddr::from((self.address, 9000))
    }

    /// Where administration listens.
    pub fn admin(&self) -> SocketAddr {
        SocketAddr::from((self.address, 9001))
    }

    /// Where other nodes reach it.
    pub fn cluster(&self) -> SocketAddr {
        SocketAddr::from((self.address, 9010))
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The directory of its disk `dN`, counted from 1.
    pub fn disk(&self, number: usize) -> PathBuf {
        self.directory.join(format!("d{number}"))
    }

    /// Whether its process was started and not ended by us.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Starts the process without waiting: the listeners, then `extra`.
    pub fn spawn(&mut self, extra: &[String]) {
        assert!(self.child.is_none(), "node {} runs already", self.number);
        let log = File::options().create(true).append(true).open(self.log_path()).expect("open a node's log");
        // `ip netns exec` becomes the server: the child's id is the server's.
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespace])
            .arg(holdfast_binary())
            .args(["server", "--data-dir"])
            .arg(self.data())
            .args(["--s3-listen", &self.s3().to_string()])
            .args(["--admin-listen", &self.admin().to_string()])
            .args(extra)
            .env("HOLDFAST_ACCESS_KEY_ID", ACCESS_KEY)
            .env("HOLDFAST_SECRET_ACCESS_KEY", SECRET_KEY)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share a node's log"))
            .stderr(log)
            .spawn()
            .expect("start a server in its namespace");
        self.child = Some(child);
    }

    /// Waits until `/health/ready` answers 200; panics with the node's log if it ends before, or does not in time.
    pub fn wait_ready(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if http_status(self.admin(), "/health/ready") == Some(200) {
                return;
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                panic!("node {} ended with {status}:\n{}", self.number, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("node {} was not ready in {limit:?}:\n{}", self.number, self.log_tail());
    }

    /// Waits for the end of a process that is to refuse its start; its status and its log.
    pub fn wait_refusal(&mut self, limit: Duration) -> (ExitStatus, String) {
        let mut child = self.child.take().unwrap_or_else(|| panic!("node {} does not run", self.number));
        let status = wait_limited(&mut child, limit).unwrap_or_else(|| {
            child.kill().expect("kill a server");
            child.wait().expect("reap a server");
            panic!("node {} started, or waited, for {limit:?}:\n{}", self.number, self.log_tail())
        });
        (status, self.log_tail())
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("node {} does not run", self.number));
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("signal a server");
    }

    /// Sends SIGKILL without waiting for the end, so that several can be cut at one moment.
    pub fn strike(&self) {
        self.signal(Signal::KILL);
    }

    /// kill -9, and waits until it is gone. Nothing if it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill a server");
            child.wait().expect("reap a server");
        }
    }

    /// SIGSTOP: it is there, and does nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("it runs, it was signalled");
        wait_limited(&mut child, STOP_LIMIT).unwrap_or_else(|| {
            child.kill().expect("kill a server");
            child.wait().expect("reap a server");
            panic!("node {} did not stop within {STOP_LIMIT:?} of SIGTERM:\n{}", self.number, self.log_tail())
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of node {}, {} ---\n{}", self.number, self.address, self.log_tail());
        }
        // A stopped process dies by SIGKILL too.
        self.kill();
    }
}
