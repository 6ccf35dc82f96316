//! A run: objects put there first where needed, operations by a schedule over so many connections, samples of each,
//! and the bucket left as it was found.
//!
//! What counts: operations begun after the warm-up. No new ones begin after the end, those under way are finished, and
//! the time is that of the last one; so a figure never counts an operation that was not acknowledged.

use crate::body::{Bodies, mix};
use crate::cleanup;
use crate::connection::Connection;
use crate::machine;
use crate::report::{Report, Samples};
use crate::s3::{OperationError, Target};
use crate::schedule::{Schedule, Ticket};
use anyhow::Context;
use futures::stream::{FuturesUnordered, StreamExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of objects put there beforehand unless told otherwise: more than any processor's cache, and put there within
/// seconds.
const PRELOAD_BYTES: u64 = 256 << 20;
/// Keys of a listing unless told otherwise, as in the benchmark's cell.
pub(crate) const LIST_KEYS: u64 = 10_000;
/// Connections for putting objects there (at least) and for cleaning up.
const PRELOAD_CONCURRENCY: u32 = 16;
/// A run with this many failures ends early: it measures nothing any more.
const FAILURES_MAX: u64 = 1000;

/// What each connection does over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Operation {
    /// Store new objects.
    Put,
    /// Read objects that are there, at random.
    Get,
    /// Both.
    Mixed,
    /// List all keys, in pages of 1000.
    List,
    /// Delete objects that are there, each once.
    Delete,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Mixed => "mixed",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// All of a run but the server.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) operation: Operation,
    pub(crate) size: u64,
    pub(crate) concurrency: u32,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    pub(crate) rate: Option<f64>,
    pub(crate) objects: u64,
    pub(crate) get_percent: u32,
    pub(crate) verify: bool,
    pub(crate) keep: bool,
    pub(crate) threads: u32,
    pub(crate) seed: u64,
}

impl Plan {
    /// With the usual settings.
    pub(crate) fn new(operation: Operation, size: u64, concurrency: u32) -> Self {
        let objects = match operation {
            Operation::List | Operation::Delete => LIST_KEYS,
            _ => (PRELOAD_BYTES / size.max(1)).clamp(4, 2000),
        };
        Self {
            operation,
            size,
            concurrency,
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(1),
            rate: None,
            objects,
            get_percent: 70,
            verify: true,
            keep: false,
            threads: 1,
            seed: 1,
        }
    }

    fn needs_objects(&self) -> bool {
        self.operation != Operation::Put
    }
}

/// What all connections of a run share.
struct Shared<'a> {
    target: &'a Target,
    plan: &'a Plan,
    bodies: &'a Bodies,
    prefix: String,
    schedule: Schedule,
    /// The next object to store.
    next_object: AtomicU64,
    failures: AtomicU64,
    gave_up: AtomicBool,
}

/// Objects put there for several runs.
pub(crate) struct Preloaded {
    prefix: String,
}

impl Preloaded {
    /// What the names of the objects begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// One run from beginning to end.
pub(crate) fn run(target: &Target, plan: &Plan) -> anyhow::Result<Report> {
    let bodies = Bodies::new(plan.seed);
    prepare_bucket(target)?;
    let preloaded = preload(target, plan, &bodies, plan.objects)?;
    let report = measure(target, plan, &bodies, &preloaded)?;
    if !plan.keep {
        clean(target, &preloaded)?;
    }
    Ok(report)
}

/// Makes the bucket if it is not there.
pub(crate) fn prepare_bucket(target: &Target) -> anyhow::Result<()> {
    let made = runtime()?.block_on(async { target.make_bucket(&mut target.connect()).await });
    made.with_context(|| format!("make bucket {} at {}", target.bucket, target.endpoint))
}

/// Puts objects `0..objects` there, if the operation needs them. Every run has a prefix of its own.
pub(crate) fn preload(target: &Target, plan: &Plan, bodies: &Bodies, objects: u64) -> anyhow::Result<Preloaded> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let prefix = format!("bench-{:016x}/", mix(nanos as u64 ^ plan.seed));
    let preloaded = Preloaded { prefix };
    if !plan.needs_objects() {
        return Ok(preloaded);
    }
    let next = AtomicU64::new(0);
    runtime()?
        .block_on(async {
            let workers = (0..plan.concurrency.max(PRELOAD_CONCURRENCY)).map(|_| async {
                let mut connection = target.connect();
                loop {
                    let object = next.fetch_add(1, Ordering::Relaxed);
                    if object >= objects {
                        return Ok(());
                    }
                    target
                        .put(&mut connection, &key(&preloaded.prefix, object), bodies.body(object, plan.size))
                        .await?;
                }
            });
            join_all(workers.collect()).await.into_iter().collect::<Result<Vec<()>, OperationError>>()
        })
        .context("put objects there beforehand")?;
    Ok(preloaded)
}

/// Removes everything under the run's prefix.
pub(crate) fn clean(target: &Target, preloaded: &Preloaded) -> anyhow::Result<()> {
    runtime()?.block_on(cleanup::remove_all(target, &preloaded.prefix, PRELOAD_CONCURRENCY)).context("clean up")
}

/// The measured part.
pub(crate) fn measure(target: &Target, plan: &Plan, bodies: &Bodies, preloaded: &Preloaded) -> anyhow::Result<Report> {
    let limit = if plan.operation == Operation::Delete { plan.objects } else { u64::MAX };
    let shared = Shared {
        target,
        plan,
        bodies,
        prefix: preloaded.prefix.clone(),
        schedule: Schedule::start(plan.warmup + plan.duration, plan.rate, limit),
        next_object: AtomicU64::new(if plan.needs_objects() { plan.objects } else { 0 }),
        failures: AtomicU64::new(0),
        gave_up: AtomicBool::new(false),
    };
    let cpu_before = machine::cpu_seconds();
    let threads = plan.threads.min(plan.concurrency).max(1);
    let samples = std::thread::scope(|scope| -> anyhow::Result<Samples> {
        let drivers: Vec<_> = (0..threads)
            .map(|thread| {
                let shared = &shared;
                let connections = (plan.concurrency + threads - 1 - thread) / threads;
                scope.spawn(move || drive(shared, thread, connections))
            })
            .collect();
        let mut all = Samples::new()?;
        for driver in drivers {
            let samples = driver.join().map_err(|_| anyhow::anyhow!("a driving thread broke"))??;
            all.merge(&samples)?;
        }
        Ok(all)
    })?;
    let cpu = machine::cpu_seconds() - cpu_before;
    Ok(Report::new(target, plan, &samples, cpu, shared.gave_up.load(Ordering::Relaxed)))
}

/// One thread's connections, all on one runtime of its own.
fn drive(shared: &Shared<'_>, thread: u32, connections: u32) -> anyhow::Result<Samples> {
    runtime()?.block_on(async {
        let workers =
            (0..connections).map(|number| work(shared, u64::from(thread) << 32 | u64::from(number))).collect();
        let mut all = Samples::new()?;
        for samples in join_all(workers).await {
            all.merge(&samples?)?;
        }
        Ok(all)
    })
}

/// One connection: one operation after another until the schedule ends.
async fn work(shared: &Shared<'_>, worker: u64) -> anyhow::Result<Samples> {
    let mut samples = Samples::new()?;
    let mut connection = shared.target.connect();
    while let Some(ticket) = shared.schedule.next() {
        if shared.gave_up.load(Ordering::Relaxed) {
            break;
        }
        shared.schedule.wait(ticket).await;
        let began = if shared.plan.rate.is_some() { ticket.due } else { shared.schedule.elapsed() };
        let result = operate(shared, &mut connection, ticket, worker).await;
        let ended = shared.schedule.elapsed();
        if result.is_err() && shared.failures.fetch_add(1, Ordering::Relaxed) >= FAILURES_MAX {
            shared.gave_up.store(true, Ordering::Relaxed);
        }
        if began >= shared.plan.warmup {
            let bytes_and_keys = result.map_err(|error| error.name());
            samples.take(
                began.saturating_sub(shared.plan.warmup),
                ended.saturating_sub(shared.plan.warmup),
                bytes_and_keys,
            );
        }
    }
    Ok(samples)
}

/// Bytes moved and keys listed by one operation.
pub(crate) struct Moved {
    pub(crate) bytes: u64,
    pub(crate) keys: u64,
}

async fn operate(
    shared: &Shared<'_>,
    connection: &mut Connection,
    ticket: Ticket,
    worker: u64,
) -> Result<Moved, OperationError> {
    let (target, plan) = (shared.target, shared.plan);
    let choice = mix(plan.seed ^ mix(ticket.number) ^ worker.rotate_left(17));
    let operation = match plan.operation {
        Operation::Mixed if choice % 100 < u64::from(plan.get_percent) => Operation::Get,
        Operation::Mixed => Operation::Put,
        other => other,
    };
    match operation {
        Operation::Put => {
            let object = shared.next_object.fetch_add(1, Ordering::Relaxed);
            target.put(connection, &key(&shared.prefix, object), shared.bodies.body(object, plan.size)).await?;
            Ok(Moved { bytes: plan.size, keys: 0 })
        }
        Operation::Get | Operation::Mixed => {
            let object = (choice >> 8) % plan.objects;
            let expected = shared.bodies.body(object, plan.size);
            target.get(connection, &key(&shared.prefix, object), expected, plan.verify).await?;
            Ok(Moved { bytes: plan.size, keys: 0 })
        }
        Operation::List => {
            let keys = target.list(connection, &shared.prefix).await?;
            if keys != plan.objects {
                return Err(OperationError::WrongListing { got: keys, expected: plan.objects });
            }
            Ok(Moved { bytes: 0, keys })
        }
        Operation::Delete => {
            target.delete(connection, &key(&shared.prefix, ticket.number)).await?;
            Ok(Moved { bytes: 0, keys: 1 })
        }
    }
}

/// Names spread over the key space, so that neighbours in time are not neighbours in the index.
fn key(prefix: &str, object: u64) -> String {
    format!("{prefix}{:08x}-{object:08}", mix(object) as u32)
}

/// A runtime of one thread, this one.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")
}

/// Runs all on this thread until each has ended; only those with something to do are polled.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    futures.into_iter().collect::<FuturesUnordered<F>>().collect().await
}
