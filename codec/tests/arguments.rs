//! Promise: no argument of any public call panics, and a call that refuses writes nothing. The body is that of the fuzz
//! target `codec/fuzz`; here it runs on seeded random bytes, so that every test run does a little of it.

#[path = "../fuzz/fuzz_targets/body.rs"]
mod body;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[test]
fn random_arguments() {
    let mut rng = StdRng::seed_from_u64(0xF422);
    for _ in 0..20_000 {
        let len = rng.random_range(0..200);
        let bytes: Vec<u8> = (0..len).map(|_| rng.random()).collect();
        body::run(&bytes);
    }
}

#[test]
fn short_and_uniform_arguments() {
    body::run(&[]);
    for byte in 0..=255u8 {
        for len in [1, 2, 3, 8, 40, 200] {
            body::run(&vec![byte; len]);
        }
    }
}
