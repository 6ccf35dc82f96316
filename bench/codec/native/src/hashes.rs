//! Coding with hashing, and MD5 in lanes.

use codec_bench_harness::race::{median, ratio};
use codec_bench_harness::{Contestant, Race, Stripe, memory::fill};
use holdfast_codec::md5_lanes::{Md5State, update_lanes};
use holdfast_codec::pipeline::{Crc64Nvme, StripeCoder, StripeData};
use holdfast_codec::{Codec, default_cell_bytes};
use md5::{Digest, Md5};
use std::hint::black_box;

/// Bytes of the object that is coded and hashed.
const OBJECT_BYTES: usize = 64 << 20;

/// Encode and BLAKE3 of all cells of a 64 MiB object, stripe by stripe; against BLAKE3 alone, and against a pass of
/// coding followed by a pass of hashing. The worst ratio over the shapes of each.
pub fn hot(race: &Race) -> (f64, f64) {
    println!("\n{:<44}{:>8}", "64 MiB object, all n cells hashed", "GB/s of data");
    let (mut vs_alone, mut vs_passes) = (f64::INFINITY, f64::INFINITY);
    for text in ["8+4", "4+2"] {
        let codec = Codec::new(text.parse().expect("a scheme"));
        let (k, m, n) = (codec.scheme().k(), codec.scheme().m(), codec.scheme().n());
        let cell_bytes = default_cell_bytes(k) as usize;
        let count = OBJECT_BYTES / k / cell_bytes;
        let stripes: Vec<Stripe> = (0..count).map(|i| Stripe::filled(k, cell_bytes, i as u64)).collect();
        let data: Vec<Vec<&[u8]>> = stripes.iter().map(Stripe::views).collect();
        let mut parities: Vec<Stripe> = (0..3 * count).map(|_| Stripe::new(m, cell_bytes)).collect();
        let mut parities: Vec<Vec<&mut [u8]>> = parities.iter_mut().map(Stripe::views_mut).collect();
        for (data, parity) in data.iter().zip(&mut parities[2 * count..]) {
            codec.encode(data, parity).expect("right arguments");
        }
        let (hot, rest) = parities.split_at_mut(count);
        let (cold, alone) = rest.split_at_mut(count);
        let mut coder = StripeCoder::new(codec.clone());
        let mut coder_crc = coder.clone();
        let (mut hashes, mut hashes_crc) = (vec![[0u8; 32]; n], vec![[0u8; 32]; n]);
        let hash_all = |data: &[&[u8]], parity: &[&mut [u8]]| {
            data.iter().for_each(|cell| _ = black_box(blake3::hash(cell)));
            parity.iter().for_each(|cell| _ = black_box(blake3::hash(cell)));
        };
        let hot_parity = std::cell::RefCell::new(hot);
        let mut contestants = [
            Contestant::new("hot: code and hash each stripe", || {
                for (cells, parity) in data.iter().zip(hot_parity.borrow_mut().iter_mut()) {
                    let stripe = StripeData { cells, object_bytes: usize::MAX };
                    coder.code(stripe, parity, &mut hashes, &mut []).expect("right arguments");
                }
            }),
            Contestant::new("BLAKE3 alone of the same cells", || {
                data.iter().zip(alone.iter()).for_each(|(data, parity)| hash_all(data, parity));
            }),
            Contestant::new("two passes: code all, then hash all", || {
                data.iter().zip(cold.iter_mut()).for_each(|(d, p)| codec.encode(d, p).expect("right arguments"));
                data.iter().zip(cold.iter()).for_each(|(data, parity)| hash_all(data, parity));
            }),
            Contestant::new("hot, with CRC64NVME of the object", || {
                let mut crc = Crc64Nvme::new();
                for (cells, parity) in data.iter().zip(hot_parity.borrow_mut().iter_mut()) {
                    let stripe = StripeData { cells, object_bytes: usize::MAX };
                    coder_crc.code(stripe, parity, &mut hashes_crc, &mut [&mut crc]).expect("right arguments");
                }
                black_box(crc.value());
            }),
        ];
        let figures = race.run(OBJECT_BYTES, &mut contestants);
        for (contestant, figures) in contestants.iter().zip(&figures) {
            println!("{:<44}{:>8.2}", format!("{text} {}", contestant.name), median(figures));
        }
        let (alone, passes) = (ratio(&figures[0], &figures[1]), ratio(&figures[0], &figures[2]));
        println!(
            "{:<44}{alone:>8.3}\n{:<44}{passes:>8.3}",
            format!("{text} ratio hot / alone"),
            format!("{text} ratio hot / two passes")
        );
        vs_alone = vs_alone.min(alone);
        vs_passes = vs_passes.min(passes);
    }
    (vs_alone, vs_passes)
}

/// MD5 of 16 streams in lanes against one stream, both ours, and the crate `md-5`.
pub fn md5(race: &Race) -> f64 {
    const STREAM_BYTES: usize = 64 << 10;
    let mut streams = vec![vec![0u8; STREAM_BYTES]; 16];
    streams.iter_mut().enumerate().for_each(|(i, stream)| fill(stream, i as u64));
    let run = |count: usize| {
        let mut states = vec![Md5State::new(); count];
        let mut lanes: Vec<(&mut Md5State, &[u8])> =
            states.iter_mut().zip(&streams).map(|(state, stream)| (state, stream.as_slice())).collect();
        update_lanes(&mut lanes).expect("whole blocks");
        black_box(states);
    };
    println!("\n{:<44}{:>8}", "MD5, 64 KiB of each stream", "GB/s over all streams");
    let one = race.run(
        STREAM_BYTES,
        &mut [
            Contestant::new("one stream", || run(1)),
            Contestant::new("one stream, crate md-5", || _ = black_box(Md5::digest(&streams[0]))),
        ],
    );
    // A second race, since its calls are sixteen times as long: the ratio is of medians.
    let counts = [2, 4, 8, 16];
    println!("{:<44}{:>8.2}\n{:<44}{:>8.2}", "1", median(&one[0]), "1, crate md-5", median(&one[1]));
    let mut last = f64::NAN;
    for count in counts {
        let figures = race.run(STREAM_BYTES * count, &mut [Contestant::new("streams", || run(count))]);
        last = median(&figures[0]);
        println!("{count:<44}{last:>8.2}");
    }
    last / median(&one[0])
}
