//! `holdfast-sim`: runs the simulator from a seed on, until so many hours are simulated. Ends with one line of figures;
//! exit code 1 if anything was violated.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use holdfast_simulator::cluster::Shape;
use holdfast_simulator::{Bug, Options, Report, run};
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs whole clusters on virtual time. Everything follows from the seed: one that fails fails again.
#[derive(Parser)]
#[command(name = "holdfast-sim")]
struct Arguments {
    /// The first seed; the next ones follow. Chosen from the time when absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Simulated hours to run, rounded up to whole seeds; 0 runs the first seed alone.
    #[arg(long, default_value_t = 0.0)]
    hours: f64,
    /// Ends after so many real seconds at the latest, between two seeds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Runs nine nodes of 4+2 instead of the shapes of the seeds.
    #[arg(long)]
    nine: bool,
    /// Plants a bug, by name.
    #[arg(long)]
    bug: Option<String>,
    /// Writes every event to standard error.
    #[arg(long)]
    trace: bool,
    /// Writes what the product logs to standard error: debug, info, warn.
    #[arg(long)]
    log: Option<String>,
}

/// What all seeds together were.
#[derive(Default)]
struct Sum {
    seeds: u64,
    simulated: Duration,
    faults: u64,
    operations: u64,
    undecided: u64,
    violations: usize,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let bug = match &arguments.bug {
        Some(name) => Some(Bug::from_name(name).with_context(|| format!("no bug {name}; there are {:?}", Bug::ALL))?),
        None => None,
    };
    ensure!(arguments.hours.is_finite() && arguments.hours >= 0.0, "--hours is a number from 0 on");
    if let Some(level) = &arguments.log {
        let filter = tracing_subscriber::EnvFilter::try_new(level).context("read --log")?;
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    }
    let first = match arguments.seed {
        Some(seed) => seed,
        None => std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
    };
    let begun = Instant::now();
    let mut sum = Sum::default();
    let mut out = std::io::stdout().lock();
    for seed in first.. {
        let mut options = Options { bug, is_told: arguments.trace, ..Options::of_seed(seed) };
        if arguments.nine {
            options.shape = Shape::NINE;
        }
        let seed_begun = Instant::now();
        let report = run(options)?;
        tell(&mut out, &options, &report, seed_begun.elapsed())?;
        sum.add(&report);
        let is_long = arguments.seconds.is_some_and(|seconds| begun.elapsed() >= Duration::from_secs(seconds));
        if is_long || sum.simulated.as_secs_f64() >= arguments.hours * 3600.0 {
            break;
        }
    }
    let hours = sum.simulated.as_secs_f64() / 3600.0;
    let speed = sum.simulated.as_secs_f64() / begun.elapsed().as_secs_f64();
    writeln!(out, "{speed:.0} times real time; {} histories undecided", sum.undecided)?;
    writeln!(
        out,
        "summary hours={hours:.2} seeds={} faults={} operations={} violations={}",
        sum.seeds, sum.faults, sum.operations, sum.violations
    )?;
    Ok(if sum.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(out: &mut impl Write, options: &Options, report: &Report, took: Duration) -> Result<()> {
    let Shape { k, m, nodes, .. } = options.shape;
    let (trace, events) = &report.trace;
    let simulated = report.simulated.as_secs();
    writeln!(
        out,
        "seed {}: {nodes} nodes, {k}+{m}, {simulated} s in {:.1} s, faults {}, operations {}, undecided {}, {events} \
         events, trace {trace}",
        report.seed,
        took.as_secs_f64(),
        report.faults,
        report.operations,
        report.undecided,
    )?;
    for violation in &report.violations {
        writeln!(out, "  VIOLATION {violation}")?;
    }
    if !report.violations.is_empty() {
        writeln!(out, "  again: make sim SEED={}", report.seed)?;
    }
    out.flush()?;
    Ok(())
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.simulated += report.simulated;
        self.faults += report.faults;
        self.operations += report.operations;
        self.undecided += report.undecided;
        self.violations += report.violations.len();
    }
}
