//! The bars of placement, measured: movement against the least there could be, worst fill, and how long a layout of
//! 4096 PGs takes to be solved and proven. Prints one line for each change; exits with 1 if a bar is missed.
//!
//! `cargo run --release -p holdfast-placement --example movement`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that measures and prints")]

use holdfast_codec::Scheme;
use holdfast_placement::{
    BackendPlace, CandidateRole, LayoutPlan, MoveSummary, Promise, Topology, commit_pgs, initial_layout, plan_layout,
    prove_layout, summarize_moves,
};
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::{BackendId, PgId};
use std::collections::BTreeMap;
use std::time::Instant;

const MOVED_MAX: f64 = 1.05;
const FILL_MAX: f64 = 1.02;
const SECONDS_MAX: f64 = 2.0;

/// Node `number` in one of `regions` regions; nodes of unequal weight, 4 to 12 TiB.
fn place(number: u16, regions: u16) -> BackendPlace {
    let mut id = [7; 16];
    id[14..].copy_from_slice(&number.to_be_bytes());
    let region = number % regions;
    BackendPlace {
        id: BackendId(id),
        name: format!("d{number}"),
        weight_bytes: (4 + u64::from(number) * 5 % 9) << 40,
        role: CandidateRole::Active,
        node: format!("n{number}"),
        zone: format!("z{}", number / regions % 3),
        region: format!("r{region}"),
        geography: String::new(),
        labels: BTreeMap::new(),
    }
}

fn settled(table: &PgTable) -> PgTable {
    let all: Vec<PgId> = (0..u32::try_from(table.pgs.len()).unwrap()).map(PgId).collect();
    commit_pgs(table, &all)
}

struct Case {
    name: &'static str,
    scheme: &'static str,
    promise: &'static str,
    regions: u16,
    pgs: u32,
}

struct Bars {
    missed: usize,
}

impl Bars {
    fn report(&mut self, case: &Case, change: &str, seconds: f64, summary: &MoveSummary) {
        let ratio = match summary.least_slots {
            0 => 1.0,
            least => f64::from(u32::try_from(summary.slots).unwrap()) / f64::from(u32::try_from(least).unwrap()),
        };
        // While a lost node is being rebuilt the promise cannot hold besides; but no move may make it worse.
        let is_held = summary.scenarios.iter().all(|steps| steps.after && (steps.during || !steps.before));
        let is_whole = summary.scenarios.iter().all(|steps| steps.before);
        let is_missed = ratio > MOVED_MAX || summary.worst_fill_after > FILL_MAX || seconds > SECONDS_MAX || !is_held;
        self.missed += usize::from(is_missed);
        println!(
            "{:<10} {:<16} {:<14} moved {:>6} least {:>6} ratio {:.3}x  fill {:.3} -> {:.3}  {:.2} s  promise {}{}",
            case.name,
            case.promise,
            change,
            summary.slots,
            summary.least_slots,
            ratio,
            summary.worst_fill_before,
            summary.worst_fill_after,
            seconds,
            match (is_held, is_whole) {
                (true, true) => "holds throughout",
                (true, false) => "holds again after",
                (false, _) => "BROKEN on the way",
            },
            if is_missed { "  MISSED" } else { "" },
        );
    }

    fn change(&mut self, case: &Case, table: &PgTable, places: &[BackendPlace], name: &str) -> LayoutPlan {
        let topology = Topology::new(places.iter().cloned()).unwrap();
        let promise: Promise = case.promise.parse().unwrap();
        let begin = Instant::now();
        let plan = plan_layout(table, &promise, &topology).unwrap();
        prove_layout(&plan.table, &promise, &topology).unwrap();
        let seconds = begin.elapsed().as_secs_f64();
        let summary = summarize_moves(table, &plan, &topology, &[]).unwrap();
        self.report(case, name, seconds, &summary);
        plan
    }

    fn run(&mut self, case: &Case) {
        let scheme: Scheme = case.scheme.parse().unwrap();
        let promise: Promise = case.promise.parse().unwrap();
        let places: Vec<BackendPlace> = (0..36).map(|number| place(number, case.regions)).collect();
        let topology = Topology::new(places.clone()).unwrap();
        let begin = Instant::now();
        let first = initial_layout(scheme, case.pgs, &promise, &topology).unwrap();
        let proof = prove_layout(&first.table, &promise, &topology).unwrap();
        let seconds = begin.elapsed().as_secs_f64();
        self.missed += usize::from(seconds > SECONDS_MAX);
        println!(
            "{:<10} {:<16} first table    {} PGs x {} slots over {} nodes, solved and proven in {seconds:.2} s: {} cases, {} loss sets, exhaustive {}",
            case.name,
            case.promise,
            case.pgs,
            scheme.n(),
            places.len(),
            proof.cases,
            proof.loss_sets,
            proof.is_exhaustive
        );
        let table = first.table;

        let plus = |count: u16, weight: u64| {
            let added = (0..count).map(|number| BackendPlace {
                weight_bytes: weight << 40,
                ..place(100 + number * case.regions, case.regions)
            });
            places.iter().cloned().chain(added).collect::<Vec<_>>()
        };
        let with = |number: usize, edit: &dyn Fn(&mut BackendPlace)| {
            let mut changed = places.clone();
            edit(&mut changed[number]);
            changed
        };
        let grown = self.change(case, &table, &plus(1, 8), "+1 node");
        self.change(case, &table, &plus(1, 2), "+1 small node");
        self.change(case, &table, &plus(1, 40), "+1 huge node");
        self.change(case, &table, &plus(4, 8), "+4 nodes");
        self.change(case, &table, &with(5, &|place| place.role = CandidateRole::Draining), "-1 drained");
        self.change(case, &table, &with(7, &|place| place.role = CandidateRole::Lost), "-1 lost");
        self.change(case, &table, &with(3, &|place| place.weight_bytes *= 2), "one doubled");
        self.change(case, &table, &with(3, &|place| place.weight_bytes /= 2), "one halved");
        self.change(case, &settled(&grown.table), &places, "back to 36");
    }
}

fn main() {
    let mut bars = Bars { missed: 0 };
    for case in [
        Case { name: "12+9", scheme: "12+9", promise: "node:9", regions: 1, pgs: 4096 },
        Case { name: "12+9", scheme: "12+9", promise: "region:1+node:2", regions: 3, pgs: 4096 },
        Case { name: "GEO-12", scheme: "geo-12", promise: "region:1+node:1", regions: 3, pgs: 4096 },
        Case { name: "4+2", scheme: "4+2", promise: "zone:1, node:2", regions: 1, pgs: 1024 },
        Case { name: "7+5", scheme: "7+5", promise: "region:1+node:1", regions: 3, pgs: 1024 },
        Case { name: "4+2", scheme: "4+2", promise: "node:1", regions: 1, pgs: 1024 },
    ] {
        bars.run(&case);
    }
    println!("bars: moved <= {MOVED_MAX}x, fill <= {FILL_MAX}, <= {SECONDS_MAX} s; missed: {}", bars.missed);
    std::process::exit(i32::from(bars.missed > 0));
}
