//! The codec beside its C and Rust peers; `make bench-codec` runs it. The last line is for machines.
//!
//! Arguments: the number of rounds (11) and the CPU milliseconds each contestant gets in a round (20).

mod coding;
mod hashes;
mod isal;
mod limits;

use codec_bench_harness::Race;
use codec_bench_harness::race::{geomean, pin, print_machine, wall};
use std::time::Instant;

fn main() {
    let begin = Instant::now();
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().expect("a number"));
    let rounds = arguments.next().unwrap_or(11);
    let race = Race { rounds, seconds: arguments.next().unwrap_or(20) as f64 / 1e3 };
    let core = pin();
    print_machine(core, &race, 1);

    let mut outcome = coding::Outcome::default();
    coding::l2(&race, &mut outcome);
    coding::large(&race, &mut outcome);
    coding::short(&race);
    coding::decodable(&race);
    let geo = coding::geo(&race);
    let (hot_vs_blake3, hot_vs_two_passes) = hashes::hot(&race);
    let md5 = hashes::md5(&race);

    let all = outcome.encode_vs_isal.iter().chain(&outcome.decode_vs_isal);
    let least = |values: &mut dyn Iterator<Item = &f64>| values.copied().fold(f64::INFINITY, f64::min);
    println!("\ntook {}", wall(begin));
    println!(
        "also avx2_vs_isal_avx2_geomean={:.3} geo6_vs_rs66={geo:.3} hot_vs_two_passes={hot_vs_two_passes:.3}",
        geomean(&outcome.avx2_vs_isal_avx2)
    );
    println!(
        "summary encode_vs_isal_geomean={:.3} decode_vs_isal_geomean={:.3} min_vs_isal={:.3} \
         vs_named_crate_geomean={:.3} min_fraction_of_limit={:.3} large_vs_isal_geomean={:.3} hot_vs_blake3={:.3} \
         md5_16_vs_1={:.3}",
        geomean(&outcome.encode_vs_isal),
        geomean(&outcome.decode_vs_isal),
        least(&mut all.into_iter()),
        geomean(&outcome.vs_named_crate),
        least(&mut outcome.fraction_of_limit.iter()),
        geomean(&outcome.large_vs_isal),
        hot_vs_blake3,
        md5,
    );
}
