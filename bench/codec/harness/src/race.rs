//! Interleaved timing.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use std::time::Instant;

/// Someone to be timed.
pub struct Contestant<'a> {
    /// For the table.
    pub name: String,
    /// One call, which treats `bytes`.
    pub run: Box<dyn FnMut() + 'a>,
}

impl<'a> Contestant<'a> {
    /// A contestant.
    pub fn new(name: &str, run: impl FnMut() + 'a) -> Self {
        Self { name: name.to_owned(), run: Box::new(run) }
    }
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Race {
    /// Rounds; the medians are over these.
    pub rounds: usize,
    /// CPU seconds each contestant gets in a round, at least one call.
    pub seconds: f64,
}

impl Race {
    /// Times everyone; GB (10^9 bytes) per CPU second by contestant and round, where a call treats `bytes`.
    pub fn run(&self, bytes: usize, contestants: &mut [Contestant<'_>]) -> Vec<Vec<f64>> {
        let calls: Vec<usize> = contestants.iter_mut().map(|contestant| self.calibrate(contestant)).collect();
        let mut figures = vec![Vec::with_capacity(self.rounds); contestants.len()];
        for round in 0..self.rounds {
            for turn in 0..contestants.len() {
                let number = (round + turn) % contestants.len();
                let run = &mut contestants[number].run;
                // Untimed: brings code, tables and data into the cache.
                run();
                let before = cpu_seconds();
                for _ in 0..calls[number] {
                    run();
                }
                let seconds = cpu_seconds() - before;
                figures[number].push(bytes as f64 * calls[number] as f64 / seconds / 1e9);
            }
        }
        figures
    }

    /// How many calls fill the time.
    fn calibrate(&self, contestant: &mut Contestant<'_>) -> usize {
        (contestant.run)();
        let mut calls = 1;
        loop {
            let before = cpu_seconds();
            for _ in 0..calls {
                (contestant.run)();
            }
            let seconds = cpu_seconds() - before;
            if seconds >= self.seconds / 8.0 {
                return ((self.seconds / seconds * calls as f64) as usize).max(1);
            }
            calls *= 4;
        }
    }
}

/// CPU time of this process so far.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Pins the process to the last core it may use, and says which.
pub fn pin() -> usize {
    let allowed = sched_getaffinity(None).expect("read the affinity of this process");
    let core = (0..CpuSet::MAX_CPU).rev().find(|&core| allowed.is_set(core)).expect("some core is allowed");
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one).expect("pin this process to one core");
    core
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Median over rounds of the quotient within a round: what happened to one of two neighbours happened to both.
pub fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(&ours.iter().zip(theirs).map(|(a, b)| a / b).collect::<Vec<_>>())
}

/// Geometric mean.
pub fn geomean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

/// What the figures were taken on: processor, load, flags, seed.
pub fn print_machine(core: usize, race: &Race, seed: u64) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        line.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("machine: {} family {} model {}", field("model name"), field("cpu family"), field("model\t"));
    println!("core {core}, {} rounds of {} CPU ms, seed {seed}, load {}", race.rounds, race.seconds * 1e3, load.trim());
}

/// Wall seconds of something, for a note of how long the whole took.
pub fn wall(begin: Instant) -> String {
    format!("{:.0} s", begin.elapsed().as_secs_f64())
}
