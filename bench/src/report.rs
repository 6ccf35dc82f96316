//! Samples of a run, and the report made of them: throughput, latency at p50, p99 and p99.9, errors by name, and what
//! the client itself cost.

use crate::load::{Moved, Operation, Plan};
use crate::machine;
use crate::s3::Target;
use anyhow::Context;
use hdrhistogram::Histogram;
use holdfast_sdk::byte_size;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest latency told apart, in microseconds: an hour.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// What one or more connections saw.
pub(crate) struct Samples {
    latency_us: Histogram<u64>,
    operations: u64,
    bytes: u64,
    keys: u64,
    errors: BTreeMap<String, u64>,
    last_end: Duration,
}

impl Samples {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            latency_us: Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).context("make a histogram")?,
            operations: 0,
            bytes: 0,
            keys: 0,
            errors: BTreeMap::new(),
            last_end: Duration::ZERO,
        })
    }

    /// One operation, begun and ended so long after the measured part began.
    pub(crate) fn take(&mut self, began: Duration, ended: Duration, result: Result<Moved, String>) {
        self.last_end = self.last_end.max(ended);
        match result {
            Ok(moved) => {
                let latency = ended.saturating_sub(began).as_micros();
                self.latency_us.saturating_record(u64::try_from(latency).unwrap_or(LATENCY_MAX_US));
                self.operations += 1;
                self.bytes += moved.bytes;
                self.keys += moved.keys;
            }
            Err(name) => *self.errors.entry(name).or_default() += 1,
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) -> anyhow::Result<()> {
        self.latency_us.add(&other.latency_us).context("add histograms")?;
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.keys += other.keys;
        for (name, count) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += count;
        }
        self.last_end = self.last_end.max(other.last_end);
        Ok(())
    }
}

/// A run in figures. Latencies are of operations that succeeded, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) endpoint: String,
    pub(crate) operation: &'static str,
    pub(crate) size_bytes: u64,
    pub(crate) concurrency: u32,
    pub(crate) rate: Option<f64>,
    pub(crate) verified: bool,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) operations: u64,
    pub(crate) operations_per_second: f64,
    pub(crate) mib_per_second: f64,
    pub(crate) keys_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) gave_up: bool,
    pub(crate) client_cpu_seconds: f64,
    pub(crate) load_average: f64,
    pub(crate) machine: String,
}

impl Report {
    pub(crate) fn new(target: &Target, plan: &Plan, samples: &Samples, cpu_seconds: f64, gave_up: bool) -> Self {
        let seconds = samples.last_end.as_secs_f64();
        let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        let at = |quantile: f64| samples.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            endpoint: target.endpoint.clone(),
            operation: plan.operation.name(),
            size_bytes: plan.size,
            concurrency: plan.concurrency,
            rate: plan.rate,
            verified: plan.verify && matches!(plan.operation, Operation::Get | Operation::Mixed),
            seed: plan.seed,
            seconds,
            operations: samples.operations,
            operations_per_second: per_second(samples.operations as f64),
            mib_per_second: per_second(samples.bytes as f64 / f64::from(1 << 20)),
            keys_per_second: per_second(samples.keys as f64),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: samples.latency_us.max() as f64 / 1000.0,
            errors: samples.errors.clone(),
            gave_up,
            client_cpu_seconds: cpu_seconds,
            load_average: machine::load_average(),
            machine: machine::description(),
        }
    }

    /// Whether every operation did what it should, and there was one.
    pub(crate) fn is_clean(&self) -> bool {
        self.errors.is_empty() && !self.gave_up && self.operations > 0
    }

    pub(crate) fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self).context("encode the report")? + "\n")
    }

    pub(crate) fn to_text(&self) -> String {
        let size = byte_size::format(self.size_bytes);
        let rate = self.rate.map_or_else(String::new, |rate| format!(", {rate} ops/s asked for"));
        let mut text = format!(
            "{} {size} c{}{rate}: {} operations in {:.2} s\n",
            self.operation, self.concurrency, self.operations, self.seconds
        );
        text += &format!("  {:.1} ops/s", self.operations_per_second);
        if self.mib_per_second > 0.0 {
            text += &format!("  {:.1} MiB/s", self.mib_per_second);
        }
        if self.keys_per_second > 0.0 {
            text += &format!("  {:.0} keys/s", self.keys_per_second);
        }
        text += &format!(
            "\n  p50 {:.2} ms  p99 {:.2} ms  p99.9 {:.2} ms  max {:.2} ms\n",
            self.p50_ms, self.p99_ms, self.p999_ms, self.max_ms
        );
        let verified = if self.verified { ", every byte read compared" } else { "" };
        text += &format!("  client CPU {:.2} s, load {:.2}{verified}\n", self.client_cpu_seconds, self.load_average);
        for (name, count) in &self.errors {
            text += &format!("  error {name}: {count}\n");
        }
        if self.gave_up {
            text += "  gave up: too many failures\n";
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_add_up() {
        let ms = Duration::from_millis;
        let moved = |bytes| Ok(Moved { bytes, keys: 0 });
        let mut one = Samples::new().unwrap();
        one.take(ms(0), ms(10), moved(100));
        one.take(ms(10), ms(30), Err("503 SlowDown".into()));
        let mut two = Samples::new().unwrap();
        two.take(ms(5), ms(2000), moved(100));
        two.take(ms(5), ms(6), Err("503 SlowDown".into()));
        one.merge(&two).unwrap();
        assert_eq!((one.operations, one.bytes, one.errors["503 SlowDown"]), (2, 200, 2));
        assert_eq!(one.last_end, ms(2000));
        let p50 = one.latency_us.value_at_quantile(0.5) as f64 / 1000.0;
        assert!((9.9..10.1).contains(&p50), "{p50}");
    }
}
