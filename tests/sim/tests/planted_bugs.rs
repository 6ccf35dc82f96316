//! Promise: the simulator finds what it is there to find: each planted bug within a few seeds.

use holdfast_simulator::cluster::Shape;
use holdfast_simulator::{Bug, Options, run};

/// Seeds in which a bug must show.
const SEEDS: u64 = 6;

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        // Small clusters: what a bug does shows there as well, and sooner.
        let found = (0..SEEDS).find_map(|seed| {
            let shape = Shape::of_seed(seed % 5);
            let report = run(Options { bug: Some(bug), shape, ..Options::of_seed(seed) }).unwrap();
            report.violations.first().map(|first| (seed, first.clone()))
        });
        match found {
            Some((seed, violation)) => println!("{bug:?}: seed {seed}: {violation}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}
