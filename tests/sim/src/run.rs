//! One seed from its beginning to its end: a cluster comes up; clients work while faults come and go (safety); all faults
//! end, and everything must work and become whole again by itself (liveness); then the histories are searched.

use crate::bug::Bug;
use crate::checks::Checks;
use crate::cluster::{Cluster, Shape};
use crate::faults::Faults;
use crate::requests::BUCKET;
use crate::workload::Workload;
use crate::world::World;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// After healing, requests through every coordinator succeed within this: elections, a client's patience, and a session
/// that was barred (`peers/activity.rs`) begun anew.
const SERVES_WITHIN: Duration = Duration::from_secs(180);
/// Within this everything is whole and nothing is left over: grace for those away is over, what is young is an orphan
/// after 10 minutes and is swept by the next inventory 10 minutes later, clocks were off by 2.
const SETTLES_WITHIN: Duration = Duration::from_secs(60 * 60);
/// Between two looks whether it is so.
const LOOK: Duration = Duration::from_secs(15);

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// The cluster.
    pub shape: Shape,
    /// How long faults come and go.
    pub safety: Duration,
    /// A planted bug.
    pub bug: Option<Bug>,
    /// Whether every event is written to standard error.
    pub is_told: bool,
}

impl Options {
    /// A usual run of a seed.
    pub fn of_seed(seed: u64) -> Self {
        let safety = Duration::from_secs(15 * 60);
        Self { seed, shape: Shape::of_seed(seed), safety, bug: None, is_told: false }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Virtual time.
    pub simulated: Duration,
    /// Faults injected.
    pub faults: u64,
    /// Operations of clients.
    pub operations: u64,
    /// Keys whose history was searched.
    pub keys: u64,
    /// Of these, those that could not be decided.
    pub undecided: u64,
    /// What must not have happened.
    pub violations: Vec<String>,
    /// Hash over every event, and their number: the same for the same seed.
    pub trace: (String, u64),
}

/// Runs a seed in this thread, on virtual time.
///
/// # Errors
/// No runtime can be made.
pub fn run(options: Options) -> Result<Report> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().context("make a runtime")?;
    holdfast_coordinator::metadata::seed_thread(options.seed);
    Ok(runtime.block_on(simulate(options)))
}

async fn simulate(options: Options) -> Report {
    let world = World::new(options.seed, options.is_told);
    let Options { seed, shape, safety, bug, .. } = options;
    world.note(format_args!("seed {seed} {shape:?} {safety:?} {bug:?}"));
    let (keys, undecided) = match Cluster::start(options.shape, options.seed, options.bug, world.clone()).await {
        Ok(cluster) => phases(options, cluster, &world).await,
        Err(error) => {
            world.violation(format_args!("the cluster does not come up: {error:#}"));
            (0, 0)
        }
    };
    let (faults, operations) = world.counts();
    Report {
        seed: options.seed,
        simulated: world.elapsed(),
        faults,
        operations,
        keys,
        undecided,
        violations: world.violations(),
        trace: world.trace(),
    }
}

async fn phases(options: Options, cluster: Arc<Cluster>, world: &Arc<World>) -> (u64, u64) {
    let checks = Checks::new(cluster.clone());
    let workload = Workload::new(cluster.clone(), checks.clone(), options.bug);
    let maker = &cluster.coordinators()[0];
    if let Err(error) = maker.metadata.bucket_create(BUCKET, "", world.now_ms()).await {
        world.violation(format_args!("the bucket cannot be made: {error}"));
        return (0, 0);
    }
    let stop = CancellationToken::new();
    let clients = 2 + world.pick(0..4);
    for _ in 0..clients {
        let rest = world.between(Duration::from_secs(1), Duration::from_secs(12));
        tokio::spawn(workload.clone().client(rest, stop.clone()));
    }
    tokio::spawn(checks.clone().watch(stop.clone()));
    let faults = Faults::new(cluster.clone(), checks.clone());
    tokio::spawn(faults.clone().run());

    until(options.safety, world).await;
    faults.heal();
    if !world.is_violated()
        && let Err(why) = serves(&cluster, &workload).await
    {
        world.violation(format_args!("{SERVES_WITHIN:?} after healing requests fail: {why}"));
    }
    stop.cancel();
    if !world.is_violated()
        && let Err(why) = settles(&cluster, &checks, &workload).await
    {
        world.violation(format_args!("{SETTLES_WITHIN:?} after healing: {why}"));
    }
    workload.check_histories()
}

/// Lets time pass, until something is found.
async fn until(time: Duration, world: &World) {
    let begun = Instant::now();
    while begun.elapsed() < time && !world.is_violated() {
        sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until requests through every coordinator succeed.
async fn serves(cluster: &Cluster, workload: &Workload) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let up = cluster.coordinators();
        let mut why = match up.len() as u64 == cluster.shape.coordinators {
            true => None,
            false => Some(format!("{} coordinators are up", up.len())),
        };
        for parts in &up {
            why = why.or(workload.try_everything(parts).await.err());
        }
        match why {
            None => return Ok(()),
            Some(why) if begun.elapsed() >= SERVES_WITHIN => return Err(why),
            Some(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

/// Waits until everything is whole and in its place; then reads every key through every coordinator.
async fn settles(cluster: &Cluster, checks: &Checks, workload: &Workload) -> Result<(), String> {
    let begun = Instant::now();
    while let Err(why) = checks.settled().await {
        if cluster.world.is_violated() {
            return Ok(());
        }
        if begun.elapsed() >= SETTLES_WITHIN {
            return Err(why);
        }
        sleep(LOOK).await;
    }
    for parts in cluster.coordinators() {
        if !workload.read_all(&parts).await {
            return Err(format!("a key could not be read through {}", parts.node));
        }
    }
    Ok(())
}
