//! S3 clients that write, read, delete and list a few keys over all endpoints at once, and take down what they see.
//!
//! Every client is a task with one connection; it stays with an endpoint for some operations, and goes to the next when
//! it fails. It does not retry: a write without an answer is in the history as unknown.

use super::body::{BODY_BYTES_MIN, Origin, etag_of, verify_body};
use super::history::{History, Operation, Outcome, Record, Returned, nanoseconds};
use super::s3_connection::{Answer, Ask, NoAnswer, S3Connection, parse_listing};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Most operations of one client, so that a history stays small enough to be checked: at the pause below, ten minutes.
const OPERATIONS_MAX: u64 = 60_000;
/// Between two operations of a client. The load is there to be seen through, not to fill the machine.
const PAUSE: Duration = Duration::from_millis(10);
/// After an operation that failed: a refused connection must not become a busy loop.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);
/// Operations on one endpoint before a client goes to another, and the longest it stays there: on a machine that is slow
/// the others must not wait for it.
const STAY: u64 = 20;
const STAY_TIME: Duration = Duration::from_secs(1);
/// Longest until an endpoint acknowledges changes again. The store is asked for three seconds after a kill; then a client
/// has to come back to that endpoint, having waited for an answer elsewhere, on two cores that run all servers and other
/// tests.
pub const RESUME_LIMIT: Duration = Duration::from_secs(30);
/// Below and above what is kept in the record, and across several cells.
const SIZES: [usize; 6] = [BODY_BYTES_MIN, 200, 4_096, 20_000, 70_000, 400_000];

/// What to run.
#[derive(Clone, Debug)]
pub struct WorkloadOptions {
    /// Clients at once.
    pub clients: u32,
    /// Keys that they share.
    pub keys: usize,
    /// Of sizes, keys and operations. The order in which answers come is not in it.
    pub seed: u64,
    /// Made by the workload.
    pub bucket: String,
    /// Longest for one request.
    pub request_limit: Duration,
}

impl Default for WorkloadOptions {
    fn default() -> Self {
        let bucket = "workload".to_owned();
        Self { clients: 6, keys: 8, seed: 1, bucket, request_limit: Duration::from_secs(5) }
    }
}

/// What all clients share.
struct Shared {
    options: WorkloadOptions,
    endpoints: Vec<SocketAddr>,
    began: Instant,
    is_over: AtomicBool,
    history: Mutex<History>,
}

impl Shared {
    fn now(&self) -> u64 {
        nanoseconds(self.began.elapsed())
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no client panics while it holds the history")
    }
}

/// Clients at work, until `stop`.
pub struct Workload {
    runtime: Runtime,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Makes the bucket and lets the clients begin.
    pub fn start(endpoints: &[SocketAddr], options: WorkloadOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("start the clients' runtime");
        let mut first = S3Connection::new(endpoints[0], options.request_limit);
        let path = format!("/{}", options.bucket);
        let made = runtime.block_on(first.ask(&Ask { method: "PUT", path: &path, ..Ask::default() }));
        assert!(made.as_ref().is_ok_and(|answer| [200, 409].contains(&answer.status)), "make the bucket: {made:?}");
        let shared = Arc::new(Shared {
            options,
            endpoints: endpoints.to_vec(),
            began: Instant::now(),
            is_over: AtomicBool::new(false),
            history: Mutex::default(),
        });
        let clients = (0..shared.options.clients)
            .map(|number| runtime.spawn(Client::new(number, Arc::clone(&shared)).run()))
            .collect();
        Self { runtime, shared, clients }
    }

    /// Since it began: the clock of the history.
    pub fn elapsed(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// Changes acknowledged so far.
    pub fn changes_done(&self) -> usize {
        self.shared.history().changes_done()
    }

    /// Waits until each of `endpoints` has acknowledged a change that was sent to it after `from`; how long after
    /// `from` the last of them did, or the first endpoint that did not within `limit`.
    pub fn wait_resumed(&self, endpoints: &[usize], from: Duration, limit: Duration) -> Result<Duration, usize> {
        loop {
            let resumed: Vec<(usize, Option<Duration>)> = {
                let history = self.shared.history();
                endpoints.iter().map(|&endpoint| (endpoint, history.resumed_after(endpoint, from))).collect()
            };
            let missing = resumed.iter().find(|(_, after)| after.is_none()).map(|(endpoint, _)| *endpoint);
            match missing {
                None => return Ok(resumed.into_iter().filter_map(|(_, after)| after).max().unwrap_or_default()),
                Some(endpoint) if self.elapsed() > from + limit => return Err(endpoint),
                Some(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// The same within `RESUME_LIMIT`; fails the test otherwise. Returns how long it took.
    pub fn must_resume(&self, scenario: &str, when: &str, endpoints: &[usize], from: Duration) -> Duration {
        let resumed = self.wait_resumed(endpoints, from, RESUME_LIMIT);
        let took = resumed.unwrap_or_else(|node| {
            let seen = self.shared.history().outcomes_since(node, from);
            panic!(
                "{scenario}: node {node} acknowledges no change within {RESUME_LIMIT:?}, {when}; since then {seen:?}"
            )
        });
        println!("{scenario}: changes acknowledged by {endpoints:?} within {took:?}, {when}");
        took
    }

    /// Ends the clients; then reads every key once at every endpoint of `readers`, which must answer. What was seen, the
    /// last reads included.
    pub fn stop(self, readers: &[usize]) -> History {
        let Self { runtime, shared, clients } = self;
        shared.is_over.store(true, Ordering::Relaxed);
        for client in clients {
            runtime.block_on(client).expect("a client does not panic");
        }
        for &endpoint in readers {
            let mut client = Client::new(shared.options.clients, Arc::clone(&shared));
            client.go_to(endpoint);
            for key in keys(&shared.options) {
                let answered = runtime.block_on(client.perform(&key, Operation::Get, &[]));
                assert!(answered.is_some(), "endpoint {endpoint} does not read {key} after the load");
            }
        }
        let mut history = std::mem::take(&mut *shared.history());
        history.records.sort_by_key(|record| record.invoked);
        history
    }
}

/// The keys of a workload: half of them below a prefix that is listed.
fn keys(options: &WorkloadOptions) -> Vec<String> {
    (0..options.keys).map(|number| format!("{}/k{number}", if number % 2 == 0 { "even" } else { "odd" })).collect()
}

struct Client {
    number: u32,
    shared: Arc<Shared>,
    random: StdRng,
    endpoint: usize,
    connection: S3Connection,
    came: Instant,
    operations: u64,
    /// ETag of each key as last seen, for `If-Match`.
    seen: BTreeMap<String, String>,
}

impl Client {
    fn new(number: u32, shared: Arc<Shared>) -> Self {
        let endpoint = number as usize % shared.endpoints.len();
        let connection = S3Connection::new(shared.endpoints[endpoint], shared.options.request_limit);
        let random = StdRng::seed_from_u64(shared.options.seed.wrapping_mul(1_000_003) + u64::from(number));
        Self {
            number,
            shared,
            random,
            endpoint,
            connection,
            came: Instant::now(),
            operations: 0,
            seen: BTreeMap::new(),
        }
    }

    fn go_to(&mut self, endpoint: usize) {
        self.endpoint = endpoint;
        self.came = Instant::now();
        self.connection = S3Connection::new(self.shared.endpoints[endpoint], self.shared.options.request_limit);
    }

    async fn run(mut self) {
        let keys = keys(&self.shared.options);
        while self.operations < OPERATIONS_MAX && !self.shared.is_over.load(Ordering::Relaxed) {
            let key = keys.choose(&mut self.random).expect("a workload has keys").clone();
            let (operation, body) = self.choose(&key);
            let is_answered = match operation {
                Operation::List { .. } => {
                    let prefix = key.split_inclusive('/').next().expect("a first part").to_owned();
                    self.perform(&prefix, operation, &body).await.is_some()
                }
                _ => self.perform(&key, operation, &body).await.is_some(),
            };
            let has_stayed = self.operations.is_multiple_of(STAY) || self.came.elapsed() >= STAY_TIME;
            if !is_answered || has_stayed {
                self.go_to((self.endpoint + 1) % self.shared.endpoints.len());
            }
            tokio::time::sleep(if is_answered { PAUSE } else { PAUSE_AFTER_FAILURE }).await;
        }
    }

    /// What to do with a key, and the bytes to send.
    fn choose(&mut self, key: &str) -> (Operation, Vec<u8>) {
        let pick = self.random.random_range(0..100);
        if pick >= 90 {
            let list = Operation::List { after: String::new(), until: String::new() };
            return (if pick < 95 { Operation::Delete } else { list }, Vec::new());
        }
        if pick >= 50 {
            return (Operation::Get, Vec::new());
        }
        let bytes = *SIZES.choose(&mut self.random).expect("there are sizes");
        let body = Origin { client: self.number, number: self.operations, key: key.to_owned(), bytes }.body();
        let etag = etag_of(&body);
        let operation = match (pick, self.seen.get(key)) {
            (0..10, _) => Operation::PutIfNoneMatch { etag },
            (10..25, Some(expected)) => Operation::PutIfMatch { expected: expected.clone(), etag },
            _ => Operation::Put { etag },
        };
        (operation, body)
    }

    /// Performs an operation and takes it down; `None` if it failed or its outcome is unknown.
    async fn perform(&mut self, key: &str, operation: Operation, body: &[u8]) -> Option<()> {
        self.operations += 1;
        let invoked = self.shared.now();
        let answer = self.ask(key, &operation, body).await;
        let at = self.shared.now();
        let (outcome, wrong) = judge(key, &operation, &answer);
        match (&outcome, operation.writes()) {
            (Outcome::Found { etag }, _) => drop(self.seen.insert(key.to_owned(), etag.clone())),
            (Outcome::Done, Some(etag)) => drop(self.seen.insert(key.to_owned(), etag.to_owned())),
            _ => {}
        }
        let record = Record {
            client: self.number,
            endpoint: self.endpoint,
            key: key.to_owned(),
            operation,
            invoked,
            returned: Returned { at, outcome },
        };
        let is_success = record.is_success();
        let mut history = self.shared.history();
        history.wrong_answers.extend(wrong.map(|wrong| format!("endpoint {}: {wrong}", self.endpoint)));
        history.records.push(record);
        is_success.then_some(())
    }

    async fn ask(&mut self, key: &str, operation: &Operation, body: &[u8]) -> Result<Answer, NoAnswer> {
        let bucket = &self.shared.options.bucket;
        let path = format!("/{bucket}/{key}");
        let at = |method| Ask { method, path: &path, body, ..Ask::default() };
        match operation {
            Operation::Get => self.connection.ask(&at("GET")).await,
            Operation::Delete => self.connection.ask(&at("DELETE")).await,
            Operation::Put { .. } => self.connection.ask(&at("PUT")).await,
            Operation::PutIfNoneMatch { .. } => {
                self.connection.ask(&Ask { headers: &[("if-none-match", "*")], ..at("PUT") }).await
            }
            Operation::PutIfMatch { expected, .. } => {
                let quoted = format!("\"{expected}\"");
                self.connection.ask(&Ask { headers: &[("if-match", &quoted)], ..at("PUT") }).await
            }
            Operation::List { .. } => {
                let (path, query) = (format!("/{bucket}"), [("list-type", "2"), ("prefix", key)]);
                self.connection.ask(&Ask { method: "GET", path: &path, query: &query, ..Ask::default() }).await
            }
        }
    }
}

/// What an answer says, and what is wrong with it if no store may answer so.
fn judge(key: &str, operation: &Operation, answer: &Result<Answer, NoAnswer>) -> (Outcome, Option<String>) {
    let answer = match answer {
        Ok(answer) => answer,
        Err(NoAnswer::NotSent) => return (Outcome::Failed, None),
        Err(NoAnswer::Lost) => return (Outcome::Unknown, None),
    };
    let text = || String::from_utf8_lossy(&answer.body).chars().take(300).collect::<String>();
    let unexpected = || Some(format!("{key}, {operation:?}: unexpected {}: {}", answer.status, text()));
    match (answer.status, operation) {
        (200, Operation::Get) => {
            let etag = answer.etag.clone();
            let wrong = match verify_body(key, &answer.body) {
                Ok(_) if etag != etag_of(&answer.body) => Some(format!("{key}: ETag {etag} on other bytes")),
                Ok(_) => None,
                Err(wrong) => Some(wrong),
            };
            (Outcome::Found { etag }, wrong)
        }
        (200, Operation::List { .. }) => match parse_listing(&String::from_utf8_lossy(&answer.body)) {
            Some(entries) => (Outcome::Listed { entries }, None),
            None => (Outcome::Unknown, unexpected()),
        },
        (200, _) if operation.writes().is_some() => {
            let is_right = operation.writes() == Some(answer.etag.as_str());
            (Outcome::Done, (!is_right).then(|| format!("{key}, {operation:?}: acknowledged as {}", answer.etag)))
        }
        (204, Operation::Delete) => (Outcome::Done, None),
        (404, Operation::Get | Operation::PutIfMatch { .. }) if text().contains("<Code>NoSuchKey<") => {
            (Outcome::Absent, None)
        }
        (412, Operation::PutIfNoneMatch { .. } | Operation::PutIfMatch { .. }) => (Outcome::PreconditionFailed, None),
        // Refused beside another conditional write of the same key.
        (409, Operation::PutIfNoneMatch { .. } | Operation::PutIfMatch { .. }) => (Outcome::Failed, None),
        // A refusal of a store in trouble may come after the deed.
        (500..=599, _) => (Outcome::Unknown, None),
        _ => (Outcome::Unknown, unexpected()),
    }
}
