//! One `holdfast server` process in a directory of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Access key of every test server.
pub const ACCESS_KEY: &str = "holdfast-test-key";
/// Secret key of every test server.
pub const SECRET_KEY: &str = "holdfast-test-secret-0123456789";
/// Longest a server may take to be ready: recovery of a large store included.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The binary under test: `HOLDFAST_BIN`, else beside the test's own executable.
pub fn holdfast_binary() -> PathBuf {
    binary("HOLDFAST_BIN", "holdfast")
}

/// The load generator: `HOLDFAST_BENCH_BIN`, else beside the test's own executable.
pub fn bench_binary() -> PathBuf {
    binary("HOLDFAST_BENCH_BIN", "holdfast-bench")
}

fn binary(variable: &str, name: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from).unwrap_or_else(|| {
        let mut path = std::env::current_exe().expect("a test knows its own executable");
        path.pop();
        path.pop();
        path.join(name)
    });
    assert!(path.exists(), "{} is not built: run `make e2e`, or `cargo build --workspace --bins`", path.display());
    path
}

/// A running server. Killed when dropped.
pub struct Server {
    child: Option<Child>,
    directory: tempfile::TempDir,
    extra: Vec<String>,
    /// Where S3 listens.
    pub s3: SocketAddr,
    /// Where administration listens.
    pub admin: SocketAddr,
}

impl Server {
    /// Starts a server with six disks, 4+2, in a fresh directory and waits until it is ready.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further arguments to `holdfast server`.
    pub fn start_with(extra: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("holdfast-e2e-").tempdir().expect("a temporary directory");
        let extra = extra.iter().map(|s| (*s).to_owned()).collect();
        let mut server = Self { child: None, directory, extra, s3: free_address(), admin: free_address() };
        server.spawn();
        server.wait_ready();
        server
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The directory of disk `dN`.
    pub fn disk(&self, number: u32) -> PathBuf {
        self.data().join("disks").join(format!("d{number}"))
    }

    /// A place for a test's own files, removed with the server.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(&path).expect("create a scratch directory");
        path
    }

    /// `http://host:port` of the S3 endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.s3)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Starts the process (again) without waiting.
    pub fn spawn(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("server.log"))
            .expect("open the server's log");
        let child = Command::new(holdfast_binary())
            .arg("server")
            .arg("--data-dir")
            .arg(self.data())
            .arg("--s3-listen")
            .arg(self.s3.to_string())
            .arg("--admin-listen")
            .arg(self.admin.to_string())
            .args(&self.extra)
            .env("HOLDFAST_ACCESS_KEY_ID", ACCESS_KEY)
            .env("HOLDFAST_SECRET_ACCESS_KEY", SECRET_KEY)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log)
            .spawn()
            .expect("start the server");
        self.child = Some(child);
    }

    /// Waits until `/health/ready` answers 200; panics with the server's log when it does not.
    pub fn wait_ready(&mut self) {
        let limit = Instant::now() + READY_LIMIT;
        while Instant::now() < limit {
            if http_status(self.admin, "/health/ready") == Some(200) {
                return;
            }
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                panic!("the server ended with {status}:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        panic!("the server was not ready in {READY_LIMIT:?}:\n{}", self.log_tail());
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill the server");
            child.wait().expect("reap the server");
        }
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server runs");
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("a pid fits")).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("send SIGTERM");
        wait_limited(&mut child, Duration::from_secs(40)).unwrap_or_else(|| {
            child.kill().expect("kill the server");
            panic!("the server did not stop within 40 s of SIGTERM:\n{}", self.log_tail())
        })
    }

    /// Starts again after `kill` or `terminate` and waits until ready.
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Runs `holdfast ARGS` against this server with the root key.
    pub fn cli(&self, args: &[&str]) -> Output {
        Command::new(holdfast_binary())
            .args(args)
            .env("HOLDFAST_ADMIN", format!("http://{}", self.admin))
            .env("HOLDFAST_ACCESS_KEY_ID", ACCESS_KEY)
            .env("HOLDFAST_SECRET_ACCESS_KEY", SECRET_KEY)
            .stdin(Stdio::null())
            .output()
            .expect("run holdfast")
    }

    /// Runs `holdfast ARGS --output json` and parses what it prints; panics unless the exit code is one of `codes`.
    pub fn cli_json(&self, args: &[&str], codes: &[i32]) -> serde_json::Value {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        let output = self.cli(&all);
        let code = output.status.code().unwrap_or(-1);
        assert!(codes.contains(&code), "holdfast {args:?} ended with {code}\n{}", describe(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}\n{}", describe(&output)))
    }

    /// Waits until `holdfast status` says healthy (exit 0).
    pub fn wait_healthy(&self, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            let output = self.cli(&["status"]);
            if output.status.code() == Some(0) {
                return;
            }
            assert!(
                Instant::now() < end,
                "not healthy within {limit:?}:\n{}\nrepair: {}\n{}",
                describe(&output),
                describe(&self.cli(&["repair", "status"])),
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Peak and present resident memory in bytes.
    pub fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("read the process status");
        let field = |name: &str| {
            let kib = status.lines().find_map(|l| l.strip_prefix(name)).and_then(|v| v.split_whitespace().next());
            kib.and_then(|v| v.parse::<u64>().ok()).expect("a size in KiB") * 1024
        };
        (field("VmHWM:"), field("VmRSS:"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- server log ---\n{}", self.log_tail());
        }
        self.kill();
    }
}

/// Standard output and error of a finished command, for messages.
pub fn describe(output: &Output) -> String {
    format!(
        "exit {:?}\n{}{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Waits for a child, at most `limit`.
pub fn wait_limited(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().expect("ask for the child's status") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// An address on loopback that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free loopback port")
}

/// Status of a plain GET; `None` when nobody answers.
pub fn http_status(address: SocketAddr, path: &str) -> Option<u16> {
    let answer = raw_request(
        address,
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1)?.parse().ok()
}

/// A sample of `/metrics`, by its name with labels; `None` when nobody answers or there is none.
pub fn metric(admin: SocketAddr, sample: &str) -> Option<f64> {
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    let answer = raw_request(admin, request.as_bytes())?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Sends bytes as they are and reads the answer until the server closes, at most 10 s.
pub fn raw_request(address: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(10))).ok()?;
    // A server that refuses early may close before all is written; its answer is what counts.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    (!answer.is_empty()).then_some(answer)
}

/// Removes a directory that a running server may still be writing into. It is gone from its place at once, as a disk is:
/// half removed it would look like a damaged one, to a probe at that moment.
pub fn remove_directory(path: &Path) {
    let aside = path.with_extension("removed");
    let path = match fs::rename(path, &aside) {
        Ok(()) => aside.as_path(),
        Err(_) => path,
    };
    for _ in 0..50 {
        match fs::remove_dir_all(path) {
            Ok(()) => return,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    assert!(!path.exists(), "could not remove {}", path.display());
}
