//! Promise: a seed is the same run every time, event by event.

use holdfast_simulator::cluster::Shape;
use holdfast_simulator::{Options, run};
use std::time::Duration;

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in [1, 4, 7, 11] {
        let options = Options { safety: Duration::from_secs(240), ..Options::of_seed(seed) };
        let (first, second) = (run(options).unwrap(), run(options).unwrap());
        assert!(first.trace.1 > 2000, "only {} events", first.trace.1);
        assert_eq!(first, second, "seed {seed} of {:?}", Shape::of_seed(seed));
    }
}

#[test]
fn another_seed_is_another_run() {
    let short = |seed| Options { safety: Duration::from_secs(60), shape: Shape::of_seed(0), ..Options::of_seed(seed) };
    assert_ne!(run(short(1)).unwrap().trace, run(short(2)).unwrap().trace);
}
