//! Several servers, the same cells, one interleaved run: in each round every cell is run against every server in turn
//! (the order turns, too), so that a slow minute of the machine meets all of them. Figures are medians over the rounds.
//!
//! The ratio of a write is against the best peer that syncs before it acknowledges, as the first target does; of a read
//! or listing against the best of all peers.

use crate::arguments::CompareArgs;
use crate::body::Bodies;
use crate::load::{self, LIST_KEYS, Operation, Plan, Preloaded};
use crate::report::Report;
use crate::s3::Target;
use crate::{machine, note, say};
use anyhow::Context;
use holdfast_sdk::Credentials;
use serde::Serialize;
use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Objects of listings: small, as only their keys matter.
const LIST_OBJECT_BYTES: u64 = 64;

/// Something every server is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    operation: Operation,
    size: u64,
    concurrency: u32,
}

/// What of a cell is counted, each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Operations,
    Mib,
    Keys,
}

struct Named {
    name: String,
    synced: bool,
    target: Target,
}

/// Every cell of the benchmark.
fn all_cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for operation in [Operation::Put, Operation::Get] {
        for size in [4 * KIB, MIB, 64 * MIB] {
            for concurrency in [1, 16] {
                cells.push(Cell { operation, size, concurrency });
            }
        }
    }
    cells.push(Cell { operation: Operation::List, size: LIST_OBJECT_BYTES, concurrency: 1 });
    cells
}

impl Cell {
    fn name(self) -> String {
        match self.operation {
            Operation::List => format!("LIST-{LIST_KEYS}-c{}", self.concurrency),
            _ if self.size >= MIB => {
                format!("{}-{}MiB-c{}", self.operation.name().to_uppercase(), self.size / MIB, self.concurrency)
            }
            _ => format!("{}-{}KiB-c{}", self.operation.name().to_uppercase(), self.size / KIB, self.concurrency),
        }
    }

    fn measure(self) -> Measure {
        match self.operation {
            Operation::List => Measure::Keys,
            _ if self.size >= MIB => Measure::Mib,
            _ => Measure::Operations,
        }
    }

    fn value(self, report: &Report) -> f64 {
        match self.measure() {
            Measure::Operations => report.operations_per_second,
            Measure::Mib => report.mib_per_second,
            Measure::Keys => report.keys_per_second,
        }
    }

    fn is_write(self) -> bool {
        self.operation == Operation::Put
    }

    fn plan(self, arguments: &CompareArgs) -> Plan {
        let mut plan = Plan::new(self.operation, self.size, self.concurrency);
        plan.duration = Duration::from_secs_f64(arguments.seconds);
        // A large object takes longer than a warm-up; its connections warm up within it.
        plan.warmup = if self.size >= 64 * MIB { Duration::ZERO } else { Duration::from_millis(500) };
        plan.threads = arguments.threads;
        plan.seed = arguments.seed;
        plan.keep = true;
        plan
    }
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    cell: String,
    target: String,
    synced: bool,
    round: u32,
    value: f64,
    report: Report,
}

/// Everything that was measured, for the file.
#[derive(Serialize)]
struct Document<'a> {
    machine: String,
    rounds: u32,
    seconds: f64,
    seed: u64,
    lines: &'a [String],
    samples: &'a [Sample],
}

/// Runs all cells and prints one line each; `false` if any operation failed or any byte was wrong.
pub(crate) fn run(arguments: &CompareArgs) -> anyhow::Result<bool> {
    let targets: Vec<Named> = arguments.targets.iter().map(|spec| parse_target(spec)).collect::<anyhow::Result<_>>()?;
    // Whole words between dashes: `c1` is not `c16`.
    let has = |cell: &Cell, words: &str| format!("-{}-", cell.name()).contains(&format!("-{words}-"));
    let wanted = |cell: &Cell| arguments.cells.is_empty() || arguments.cells.iter().any(|words| has(cell, words));
    let cells: Vec<Cell> = all_cells().into_iter().filter(wanted).collect();
    anyhow::ensure!(!cells.is_empty(), "no cell has a name with {:?}", arguments.cells);
    anyhow::ensure!(arguments.seconds > 0.0 && arguments.seconds < 1e6, "--seconds must be above 0");
    let bodies = Bodies::new(arguments.seed);
    for target in &targets {
        load::prepare_bucket(&target.target)?;
    }
    let mut samples = Vec::new();
    let mut prepared: Vec<(usize, Operation, u64, Preloaded)> = Vec::new();
    let measured = measure_all(arguments, &targets, &cells, &bodies, &mut prepared, &mut samples);
    let reported = measured.and_then(|()| report_all(arguments, &targets, &cells, &samples));
    for (target, _, _, preloaded) in &prepared {
        if let Err(error) = load::clean(&targets[*target].target, preloaded) {
            note(&format!("{}: {error:#}", targets[*target].name));
        }
    }
    reported?;
    Ok(samples.iter().all(|sample| sample.report.is_clean()))
}

fn report_all(arguments: &CompareArgs, targets: &[Named], cells: &[Cell], samples: &[Sample]) -> anyhow::Result<()> {
    let lines: Vec<String> = cells.iter().map(|cell| line(*cell, targets, samples)).collect();
    for line in &lines {
        say(&format!("{line}\n"));
    }
    write_document(arguments, &lines, samples)
}

fn measure_all(
    arguments: &CompareArgs,
    targets: &[Named],
    cells: &[Cell],
    bodies: &Bodies,
    prepared: &mut Vec<(usize, Operation, u64, Preloaded)>,
    samples: &mut Vec<Sample>,
) -> anyhow::Result<()> {
    for round in 1..=arguments.rounds {
        for cell in cells {
            for turn in 0..targets.len() {
                let at = (turn + round as usize) % targets.len();
                let named = &targets[at];
                let report = measure_one(arguments, *cell, at, &named.target, bodies, prepared)
                    .with_context(|| format!("{} on {}", cell.name(), named.name))?;
                let value = cell.value(&report);
                let errors = if report.is_clean() { String::new() } else { format!("  errors {:?}", report.errors) };
                note(&format!("round {round} {} {} {value:.1}{errors}", cell.name(), named.name));
                let (target, synced) = (named.name.clone(), named.synced);
                samples.push(Sample { cell: cell.name(), target, synced, round, value, report });
            }
        }
    }
    Ok(())
}

fn measure_one(
    arguments: &CompareArgs,
    cell: Cell,
    at: usize,
    target: &Target,
    bodies: &Bodies,
    prepared: &mut Vec<(usize, Operation, u64, Preloaded)>,
) -> anyhow::Result<Report> {
    let plan = cell.plan(arguments);
    if cell.is_write() {
        let preloaded = load::preload(target, &plan, bodies, 0)?;
        settle(arguments);
        let report = load::measure(target, &plan, bodies, &preloaded);
        load::clean(target, &preloaded)?;
        return report;
    }
    let same = |(of, operation, size, _): &&(usize, Operation, u64, Preloaded)| {
        (*of, *operation, *size) == (at, cell.operation, cell.size)
    };
    if prepared.iter().find(same).is_none() {
        let preloaded = load::preload(target, &plan, bodies, plan.objects)?;
        prepared.push((at, cell.operation, cell.size, preloaded));
    }
    settle(arguments);
    let found = prepared.iter().find(same).context("objects were put there")?;
    load::measure(target, &plan, bodies, &found.3)
}

fn settle(arguments: &CompareArgs) {
    if !arguments.no_sync {
        machine::sync();
    }
}

fn line(cell: Cell, targets: &[Named], samples: &[Sample]) -> String {
    let name = cell.name();
    let medians: Vec<(bool, f64)> = targets
        .iter()
        .map(|target| {
            let values = samples.iter().filter(|s| s.cell == name && s.target == target.name).map(|s| s.value);
            (target.synced, median(values.collect()))
        })
        .collect();
    let Some(((_, ours), peers)) = medians.split_first() else { return String::new() };
    let best = |synced_only: bool| {
        peers.iter().filter(|(synced, _)| *synced || !synced_only).map(|(_, v)| *v).reduce(f64::max)
    };
    let (synced, any) = (best(true), best(false));
    let against = if cell.is_write() { synced } else { any };
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
    let ratio = against.filter(|v| *v > 0.0).map_or_else(|| "-".to_owned(), |v| format!("{:.2}", ours / v));
    format!("cell={name} ours={ours:.1} best_synced_peer={} best_any_peer={} ratio={ratio}", shown(synced), shown(any))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

fn parse_target(spec: &str) -> anyhow::Result<Named> {
    let form = "NAME=ENDPOINT,ACCESS_KEY,SECRET_KEY,BUCKET,synced|unsynced[,REGION]";
    let (name, rest) = spec.split_once('=').with_context(|| format!("a target is {form}"))?;
    let parts: Vec<&str> = rest.split(',').collect();
    let (endpoint, access_key, secret_key, bucket, synced, region) = match parts.as_slice() {
        [endpoint, access_key, secret_key, bucket, synced] => {
            (endpoint, access_key, secret_key, bucket, synced, "us-east-1")
        }
        [endpoint, access_key, secret_key, bucket, synced, region] => {
            (endpoint, access_key, secret_key, bucket, synced, *region)
        }
        _ => anyhow::bail!("target {name}: {form}"),
    };
    let synced = match *synced {
        "synced" => true,
        "unsynced" => false,
        other => anyhow::bail!("target {name}: {other:?} is neither synced nor unsynced"),
    };
    let credentials = Credentials { access_key: (*access_key).to_owned(), secret_key: (*secret_key).to_owned() };
    Ok(Named { name: name.to_owned(), synced, target: Target::new(endpoint, credentials, region, bucket)? })
}

fn write_document(arguments: &CompareArgs, lines: &[String], samples: &[Sample]) -> anyhow::Result<()> {
    let document = Document {
        machine: machine::description(),
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        seed: arguments.seed,
        lines,
        samples,
    };
    let text = serde_json::to_string_pretty(&document).context("encode the figures")?;
    std::fs::write(&arguments.output, text).with_context(|| format!("write {}", arguments.output.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Samples;

    fn target(name: &str, synced: &str) -> Named {
        parse_target(&format!("{name}=http://127.0.0.1:1,a,s,b,{synced}")).unwrap()
    }

    fn sample(cell: Cell, target: &Named, round: u32, value: f64) -> Sample {
        let plan = Plan::new(cell.operation, cell.size, cell.concurrency);
        let report = Report::new(&target.target, &plan, &Samples::new().unwrap(), 0.0, false);
        Sample { cell: cell.name(), target: target.name.clone(), synced: target.synced, round, value, report }
    }

    #[test]
    fn lines_take_the_right_peer_and_the_median() {
        let targets = [target("ours", "synced"), target("slow", "synced"), target("fast", "unsynced")];
        let put = Cell { operation: Operation::Put, size: 4096, concurrency: 16 };
        let get = Cell { operation: Operation::Get, size: 64 * MIB, concurrency: 1 };
        let mut samples = Vec::new();
        for cell in [put, get] {
            for (round, ours) in [(1, 90.0), (2, 300.0), (3, 10_000.0)] {
                samples.push(sample(cell, &targets[0], round, ours));
                samples.push(sample(cell, &targets[1], round, 100.0));
                samples.push(sample(cell, &targets[2], round, 600.0));
            }
        }
        assert_eq!(
            line(put, &targets, &samples),
            "cell=PUT-4KiB-c16 ours=300.0 best_synced_peer=100.0 best_any_peer=600.0 ratio=3.00"
        );
        assert_eq!(
            line(get, &targets, &samples),
            "cell=GET-64MiB-c1 ours=300.0 best_synced_peer=100.0 best_any_peer=600.0 ratio=0.50"
        );
        let alone = [target("ours", "synced"), target("fast", "unsynced")];
        assert_eq!(
            line(put, &alone, &samples),
            "cell=PUT-4KiB-c16 ours=300.0 best_synced_peer=- best_any_peer=600.0 ratio=-"
        );
    }

    #[test]
    fn the_cells_are_those_of_the_benchmark() {
        let names: Vec<String> = all_cells().into_iter().map(Cell::name).collect();
        let expected = [
            "PUT-4KiB-c1",
            "PUT-4KiB-c16",
            "PUT-1MiB-c1",
            "PUT-1MiB-c16",
            "PUT-64MiB-c1",
            "PUT-64MiB-c16",
            "GET-4KiB-c1",
            "GET-4KiB-c16",
            "GET-1MiB-c1",
            "GET-1MiB-c16",
            "GET-64MiB-c1",
            "GET-64MiB-c16",
            "LIST-10000-c1",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn targets_are_checked_and_medians_right() {
        for bad in ["x", "x=http://h:1", "x=http://127.0.0.1:1,a,s,b,maybe", "x=http://127.0.0.1:1,a,s,b,synced,r,z"] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
