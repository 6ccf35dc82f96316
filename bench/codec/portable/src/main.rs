//! The portable engine beside `reed-solomon-erasure` without its C kernels, which this binary must be built without.
//!
//! Arguments: the number of rounds (11) and the CPU milliseconds each contestant gets in a round (20).

use codec_bench_harness::race::{geomean, median, pin, print_machine, ratio};
use codec_bench_harness::shapes::{SHAPES, l2_cell_bytes, print_head, print_row};
use codec_bench_harness::{Contestant, Race, Stripe};
use holdfast_codec::{Codec, engine};
use reed_solomon_erasure::galois_8::ReedSolomon;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().expect("a number"));
    let rounds = arguments.next().unwrap_or(11);
    let race = Race { rounds, seconds: arguments.next().unwrap_or(20) as f64 / 1e3 };
    let core = pin();
    print_machine(core, &race, 1);
    let mut rows = [Vec::new(), Vec::new(), Vec::new()];
    for (k, m) in SHAPES {
        let cell_bytes = l2_cell_bytes(k + m);
        let codec = Codec::with_engine(format!("{k}+{m}").parse().expect("a shape"), engine::portable());
        let named = ReedSolomon::new(k, m).expect("a shape");
        let stripe = Stripe::filled(k, cell_bytes, 1);
        let data = stripe.views();
        let (mut a, mut b) = (Stripe::new(m, cell_bytes), Stripe::new(m, cell_bytes));
        let (mut a, mut b) = (a.views_mut(), b.views_mut());
        codec.encode(&data, &mut a).expect("right arguments");
        named.encode_sep(&data, &mut b).expect("right arguments");
        assert!(a == b, "{k}+{m}: other bytes");
        let mut contestants = [
            Contestant::new("holdfast portable", || codec.encode(&data, &mut a).expect("right arguments")),
            Contestant::new("reed-solomon-erasure", || named.encode_sep(&data, &mut b).expect("right arguments")),
        ];
        let figures = race.run(k * cell_bytes, &mut contestants);
        rows[0].push(median(&figures[0]));
        rows[1].push(median(&figures[1]));
        rows[2].push(ratio(&figures[0], &figures[1]));
    }
    print_head("encode without vector engines, GB/s of data");
    print_row("holdfast portable", &rows[0]);
    print_row("reed-solomon-erasure 6.0, no simd-accel", &rows[1]);
    print_row("ratio", &rows[2]);
    println!("also portable_vs_named_crate_geomean={:.3}", geomean(&rows[2]));
}
