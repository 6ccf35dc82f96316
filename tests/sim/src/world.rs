//! What everything in one simulation shares: one random source, one time, the trace of what happened, and what was found.
//!
//! **Invariant:** a run depends on its seed alone. The trace is a hash over every event in order, so that two runs of one
//! seed can be held against each other by one line.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// When a simulation begins, in milliseconds since 1970: early 2027.
const BEGIN_MS: u64 = 1_800_000_000_000;
/// Violations kept; a run that has found so many has found enough.
const VIOLATIONS_MAX: usize = 20;

/// One simulation's surroundings. Must be made within its runtime.
pub struct World {
    begun: Instant,
    random: Mutex<StdRng>,
    trace: Mutex<Trace>,
    violations: Mutex<Vec<String>>,
    faults: AtomicU64,
    operations: AtomicU64,
}

struct Trace {
    hasher: blake3::Hasher,
    events: u64,
    /// Whether events are printed as they happen.
    is_told: bool,
}

impl World {
    /// The world of a seed. `is_told`: whether its events are written to standard error.
    pub fn new(seed: u64, is_told: bool) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            trace: Mutex::new(Trace { hasher: blake3::Hasher::new(), events: 0, is_told }),
            violations: Mutex::default(),
            faults: AtomicU64::new(0),
            operations: AtomicU64::new(0),
        })
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The same in microseconds: the clock of histories.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The true time of day.
    pub fn now_ms(&self) -> u64 {
        BEGIN_MS + u64::try_from(self.elapsed().as_millis()).unwrap_or(0)
    }

    /// 64 random bits.
    pub fn random(&self) -> u64 {
        self.random.lock().random()
    }

    /// A number of a range that is not empty.
    pub fn pick(&self, range: Range<u64>) -> u64 {
        self.random.lock().random_range(range)
    }

    /// An index below `count`, which is not 0.
    pub fn index(&self, count: usize) -> usize {
        self.random.lock().random_range(0..count)
    }

    /// Whether something happens that does so in `percent` of all cases.
    pub fn chance(&self, percent: u64) -> bool {
        self.pick(0..100) < percent
    }

    /// A time between two, evenly spread in microseconds.
    pub fn between(&self, least: Duration, most: Duration) -> Duration {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.pick(us(least)..us(most).max(us(least) + 1)))
    }

    /// Takes down an event.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let at = self.now_us();
        let mut trace = self.trace.lock();
        trace.events += 1;
        let line = format!("{at} {what}\n");
        trace.hasher.update(line.as_bytes());
        if trace.is_told {
            tell(&line);
        }
    }

    /// Takes down that something happened which must not.
    pub fn violation(&self, what: fmt::Arguments<'_>) {
        self.note(format_args!("VIOLATION {what}"));
        let mut violations = self.violations.lock();
        if violations.len() < VIOLATIONS_MAX {
            let second = self.elapsed().as_secs_f64();
            violations.push(format!("at {second:.3} s: {what}"));
        }
    }

    /// What must not have happened.
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    /// Whether anything did.
    pub fn is_violated(&self) -> bool {
        !self.violations.lock().is_empty()
    }

    /// Counts a fault that was injected.
    pub fn count_fault(&self, what: fmt::Arguments<'_>) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        self.note(format_args!("fault {what}"));
    }

    /// Counts an operation of a client.
    pub fn count_operation(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    /// Faults and operations so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.faults.load(Ordering::Relaxed), self.operations.load(Ordering::Relaxed))
    }

    /// The hash over all events so far, and how many there were.
    pub fn trace(&self) -> (String, u64) {
        let trace = self.trace.lock();
        (trace.hasher.finalize().to_hex()[..16].to_owned(), trace.events)
    }
}

fn tell(line: &str) {
    use std::io::Write;
    // Nobody listens any more: the run goes on.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}
