//! Encode and decode beside the peers, in L2 and beyond all caches. Every contestant's bytes are checked first.

use crate::isal::{Isal, Kernel};
use crate::limits;
use codec_bench_harness::race::{geomean, median, ratio};
use codec_bench_harness::shapes::{LARGE_DATA_BYTES, SHAPES, l2_cell_bytes, print_head, print_row};
use codec_bench_harness::{Contestant, Race, Stripe};
use holdfast_codec::{Codec, SlotSet, engine};
use reed_solomon_erasure::galois_8::ReedSolomon;

/// What the last line says of coding.
#[derive(Default)]
pub struct Outcome {
    pub encode_vs_isal: Vec<f64>,
    pub decode_vs_isal: Vec<f64>,
    pub vs_named_crate: Vec<f64>,
    pub fraction_of_limit: Vec<f64>,
    pub avx2_vs_isal_avx2: Vec<f64>,
    pub large_vs_isal: Vec<f64>,
}

/// A table being filled: names in order, a figure for each shape.
#[derive(Default)]
struct Table {
    rows: Vec<(String, Vec<f64>)>,
}

impl Table {
    fn put(&mut self, name: &str, figure: f64) {
        match self.rows.iter_mut().find(|(known, _)| known == name) {
            Some((_, figures)) => figures.push(figure),
            None => self.rows.push((name.to_owned(), vec![figure])),
        }
    }

    fn print(&self, title: &str) {
        print_head(title);
        for (name, figures) in &self.rows {
            print_row(name, figures);
        }
    }
}

/// Coefficients of the parity rows, row by row.
fn parity_rows(codec: &Codec) -> Vec<u8> {
    let slots = codec.scheme().k()..codec.scheme().n();
    slots.flat_map(|slot| codec.code().row(slot).expect("the slot exists").to_vec()).collect()
}

/// Coefficients that rebuild the slots `0..lost` from the k after them, row by row.
fn decode_rows(codec: &Codec, lost: usize) -> Vec<u8> {
    let missing = SlotSet::first(lost);
    let available = SlotSet::first(codec.scheme().n()).difference(&missing);
    let plan = codec.repair_plan(&missing, &available, &[]).expect("few enough are lost");
    let coefficient = |write: usize, read: &usize| plan.coefficient(*read, write).expect("both are in the plan");
    (0..lost).flat_map(|write| plan.read.iter().map(|read| coefficient(write, read)).collect::<Vec<_>>()).collect()
}

/// Times one coefficient matrix over given inputs: the contestants that take any matrix.
struct Job<'a> {
    inputs: &'a [&'a [u8]],
    expected: &'a [Vec<u8>],
    rows: &'a [u8],
}

impl Job<'_> {
    fn check(&self, name: &str, outputs: &[&mut [u8]]) {
        let same = outputs.iter().zip(self.expected).all(|(output, expected)| **output == expected[..]);
        assert!(same && outputs.len() == self.expected.len(), "{name}: other bytes");
    }
}

/// GB/s of data by name; the pairs the outcome needs.
fn race_l2(race: &Race, is_decode: bool, outcome: &mut Outcome, gfni_peak: f64) -> (Table, Table) {
    let (mut table, mut ratios) = (Table::default(), Table::default());
    for (k, m) in SHAPES {
        let cell_bytes = l2_cell_bytes(k + m);
        let codec = Codec::new(format!("{k}+{m}").parse().expect("a shape"));
        let stripe = Stripe::filled(k, cell_bytes, 1);
        let data = stripe.views();
        let mut coded = Stripe::new(m, cell_bytes);
        codec.encode(&data, &mut coded.views_mut()).expect("right arguments");
        let parity = coded.views();
        let lost = if is_decode { k.min(m) } else { 0 };

        let all: Vec<&[u8]> = data.iter().chain(&parity).copied().collect();
        let inputs: Vec<&[u8]> = all[lost..lost + k].to_vec();
        let wanted = if is_decode { &all[..lost] } else { &all[k..] };
        let expected: Vec<Vec<u8>> = wanted.iter().map(|cell| cell.to_vec()).collect();
        let rows = if is_decode { decode_rows(&codec, lost) } else { parity_rows(&codec) };
        let job = Job { inputs: &inputs, expected: &expected, rows: &rows };
        let present: Vec<(usize, &[u8])> = all.iter().copied().enumerate().skip(lost).collect();

        let count = expected.len();
        let mut outputs: Vec<Stripe> = (0..16).map(|_| Stripe::new(count, cell_bytes)).collect();
        let mut outputs = outputs.iter_mut();
        let mut next = || outputs.next().expect("as many as contestants").views_mut();
        let mut contestants: Vec<Contestant<'_>> = Vec::new();

        let mut limit = next();
        let read = inputs.clone();
        contestants.push(Contestant::new("L2 traffic (XOR only)", move || limits::traffic(&read, &mut limit)));
        for name in ["avx512-gfni", "avx2-gfni", "avx2", "ssse3"] {
            let Some(engine) = engine::by_name(name) else { continue };
            let codec = Codec::with_engine(codec.scheme(), engine);
            let mut to = next();
            if is_decode {
                let given = present.clone();
                let mut targets: Vec<(usize, &mut [u8])> = to.into_iter().enumerate().collect();
                codec.reconstruct(&given, &mut targets).expect("right arguments");
                let made: Vec<&mut [u8]> = targets.iter_mut().map(|(_, cell)| &mut **cell).collect();
                job.check(name, &made);
                drop(made);
                contestants.push(Contestant::new(&format!("holdfast {name}"), move || {
                    codec.reconstruct(&given, &mut targets).expect("right arguments");
                }));
            } else {
                codec.encode(&data, &mut to).expect("right arguments");
                job.check(name, &to);
                let data = data.clone();
                contestants.push(Contestant::new(&format!("holdfast {name}"), move || {
                    codec.encode(&data, &mut to).expect("right arguments");
                }));
            }
        }
        for kernel in Kernel::available() {
            let (mut isal, mut to) = (Isal::new(kernel, k, job.rows), next());
            isal.run(job.inputs, &mut to);
            job.check("ISA-L", &to);
            let inputs = inputs.clone();
            contestants.push(Contestant::new(&format!("ISA-L 2.32 {kernel:?}"), move || isal.run(&inputs, &mut to)));
        }
        contestants.push(named_crate(k, m, is_decode, &data, &parity, next(), &job));
        contestants.extend(rusty_erasure(k, m, is_decode, lost, &all, next(), &job));
        if !is_decode {
            contestants.push(reed_solomon_simd(k, m, &data));
        }

        let figures = race.run(k * cell_bytes, &mut contestants);
        let names: Vec<String> = contestants.iter().map(|contestant| contestant.name.clone()).collect();
        for (name, figures) in names.iter().zip(&figures) {
            table.put(name, median(figures));
        }
        let of = |name: &str| names.iter().position(|known| known == name).map(|number| &figures[number]);
        let ours = &figures[1];
        let best = ["ISA-L 2.32 Auto", "ISA-L 2.32 Avx512Gfni", "ISA-L 2.32 Avx2Gfni"];
        let best = best.iter().filter_map(|name| of(name)).max_by(|a, b| median(a).total_cmp(&median(b)));
        let vs_isal = best.map_or(f64::NAN, |theirs| ratio(ours, theirs));
        let crate_ = of("reed-solomon-erasure simd-accel").map_or(f64::NAN, |theirs| ratio(ours, theirs));
        let bound = (gfni_peak / count as f64).min(median(&figures[0]));
        let fraction = median(ours) / bound;
        ratios.put("ours / ISA-L's best", vs_isal);
        ratios.put("ours / reed-solomon-erasure simd-accel", crate_);
        ratios.put("ours / min(GFNI peak / m, L2 traffic)", fraction);
        if let (Some(ours), Some(theirs)) = (of("holdfast avx2"), of("ISA-L 2.32 Avx2")) {
            ratios.put("AVX2: ours / ISA-L's", ratio(ours, theirs));
            outcome.avx2_vs_isal_avx2.push(ratio(ours, theirs));
        }
        if is_decode { &mut outcome.decode_vs_isal } else { &mut outcome.encode_vs_isal }.push(vs_isal);
        outcome.vs_named_crate.push(crate_);
        outcome.fraction_of_limit.push(fraction);
    }
    (table, ratios)
}

fn named_crate<'a>(
    k: usize,
    m: usize,
    is_decode: bool,
    data: &[&'a [u8]],
    parity: &[&'a [u8]],
    mut to: Vec<&'a mut [u8]>,
    job: &Job<'_>,
) -> Contestant<'a> {
    let codec = ReedSolomon::new(k, m).expect("a shape");
    let name = "reed-solomon-erasure simd-accel";
    let data = data.to_vec();
    if !is_decode {
        codec.encode_sep(&data, &mut to).expect("right arguments");
        job.check(name, &to);
        return Contestant::new(name, move || codec.encode_sep(&data, &mut to).expect("right arguments"));
    }
    // It rebuilds in place: its own copies of all cells, of which the lost ones are marked absent before each call.
    let lost = to.len();
    let mut cells: Vec<Vec<u8>> = data.iter().chain(parity).map(|cell| cell.to_vec()).collect();
    cells[..lost].iter_mut().for_each(|cell| cell.fill(0));
    let mut run = move |check: Option<&Job<'_>>| {
        let mut shards: Vec<(&mut [u8], bool)> =
            cells.iter_mut().enumerate().map(|(slot, cell)| (cell.as_mut_slice(), slot >= lost)).collect();
        codec.reconstruct_data(&mut shards).expect("right arguments");
        if let Some(job) = check {
            let made: Vec<&mut [u8]> = shards.iter_mut().take(lost).map(|(cell, _)| &mut **cell).collect();
            job.check(name, &made);
        }
    };
    run(Some(job));
    Contestant::new(name, move || run(None))
}

fn rusty_erasure<'a>(
    k: usize,
    m: usize,
    is_decode: bool,
    lost: usize,
    all: &[&'a [u8]],
    mut to: Vec<&'a mut [u8]>,
    job: &Job<'_>,
) -> Option<Contestant<'a>> {
    let name = "rusty_erasure 0.4.3";
    let coder = rusty_erasure::coder(rusty_erasure::compat::reed_solomon_erasure_matrix(k, m).ok()?).ok()?;
    if !is_decode {
        let data = all[..k].to_vec();
        coder.encode(&data, &mut to).ok()?;
        job.check(name, &to);
        return Some(Contestant::new(name, move || coder.encode(&data, &mut to).expect("right arguments")));
    }
    let present: Vec<bool> = (0..k + m).map(|slot| slot >= lost).collect();
    let plan = coder.decode_plan(&present, &(0..lost).collect::<Vec<_>>()).ok()?;
    let shards: Vec<Option<&[u8]>> = all.iter().enumerate().map(|(s, cell)| (s >= lost).then_some(*cell)).collect();
    coder.recover_with(&plan, &shards, &mut to).ok()?;
    job.check(name, &to);
    Some(Contestant::new(name, move || coder.recover_with(&plan, &shards, &mut to).expect("right arguments")))
}

/// Another code (an FFT over GF(2^16)): its bytes are its own and are not compared.
fn reed_solomon_simd<'a>(k: usize, m: usize, data: &[&'a [u8]]) -> Contestant<'a> {
    let data = data.to_vec();
    let mut encoder = reed_solomon_simd::ReedSolomonEncoder::new(k, m, data[0].len()).expect("a shape");
    Contestant::new("reed-solomon-simd 3.1 (another code)", move || {
        for cell in &data {
            encoder.add_original_shard(cell).expect("as long as the others");
        }
        std::hint::black_box(encoder.encode().expect("all were added").recovery(0));
    })
}

/// Both directions in L2.
pub fn l2(race: &Race, outcome: &mut Outcome) {
    let peak = race.run(limits::PEAK_BYTES, &mut [Contestant::new("peak", limits::gfni_peak)]);
    let peak = median(&peak[0]);
    println!("\nGFNI peak {peak:.0} GB/s of products");
    for is_decode in [false, true] {
        let what = if is_decode { "decode (min(k, m) data cells lost)" } else { "encode" };
        let (table, ratios) = race_l2(race, is_decode, outcome, peak);
        table.print(&format!("{what}, 384 KiB stripes, GB/s of data"));
        ratios.print("ratios (medians of rounds)");
    }
    println!("\ngeomean AVX2: ours / ISA-L's {:.3}", geomean(&outcome.avx2_vs_isal_avx2));
}

/// Encode beyond all caches.
pub fn large(race: &Race, outcome: &mut Outcome) {
    let mut table = Table::default();
    for (k, m) in SHAPES {
        let cell_bytes = LARGE_DATA_BYTES / k / 64 * 64;
        let codec = Codec::new(format!("{k}+{m}").parse().expect("a shape"));
        let stripe = Stripe::filled(k, cell_bytes, 2);
        let data = stripe.views();
        let mut parities: Vec<Stripe> = (0..4).map(|_| Stripe::new(m, cell_bytes)).collect();
        let mut parities = parities.iter_mut();
        let mut next = || parities.next().expect("as many as contestants").views_mut();
        let (mut a, mut b, mut c, mut d) = (next(), next(), next(), next());
        codec.encode_streaming(&data, &mut a).expect("right arguments");
        codec.encode(&data, &mut b).expect("right arguments");
        let mut isal = Isal::new(Kernel::Auto, k, &parity_rows(&codec));
        isal.run(&data, &mut c);
        let named = ReedSolomon::new(k, m).expect("a shape");
        named.encode_sep(&data, &mut d).expect("right arguments");
        assert!(a == b && b == c && c == d, "{k}+{m}: other bytes");
        let mut copy = Stripe::new(k, cell_bytes);
        let mut copy = copy.views_mut();
        let mut contestants = [
            Contestant::new("holdfast, streaming stores", || codec.encode_streaming(&data, &mut a).expect("right")),
            Contestant::new("holdfast, plain stores", || codec.encode(&data, &mut b).expect("right")),
            Contestant::new("ISA-L 2.32 Auto", || isal.run(&data, &mut c)),
            Contestant::new("reed-solomon-erasure simd-accel", || named.encode_sep(&data, &mut d).expect("right")),
            Contestant::new("memcpy of the data", || {
                copy.iter_mut().zip(&data).for_each(|(to, from)| to.copy_from_slice(from));
            }),
        ];
        let figures = race.run(k * cell_bytes, &mut contestants);
        for (contestant, figures) in contestants.iter().zip(&figures) {
            table.put(&contestant.name, median(figures));
        }
        let vs_isal = ratio(&figures[0], &figures[2]);
        table.put("ratio: streaming / ISA-L", vs_isal);
        outcome.large_vs_isal.push(vs_isal);
    }
    table.print("encode, 64 MiB of data, GB/s of data");
}

/// Short cells, where the cost of a call shows: nanoseconds per call.
pub fn short(race: &Race) {
    println!("\n{:<44}{:>8}{:>8}{:>8}", "short cells of 8+4, ns per call", "64 B", "512 B", "4 KiB");
    let codec = Codec::new("8+4".parse().expect("a shape"));
    let (encode, decode) = (parity_rows(&codec), decode_rows(&codec, 4));
    let mut table: Vec<(String, Vec<f64>)> = Vec::new();
    for cell_bytes in [64, 512, 4096] {
        let stripe = Stripe::filled(12, cell_bytes, 4);
        let cells = stripe.views();
        let present: Vec<(usize, &[u8])> = cells.iter().copied().enumerate().skip(4).collect();
        let mut outputs: Vec<Stripe> = (0..4).map(|_| Stripe::new(4, cell_bytes)).collect();
        let mut outputs = outputs.iter_mut().map(Stripe::views_mut);
        let mut next = || outputs.next().expect("as many as contestants");
        let (mut a, b, mut c, mut d) = (next(), next(), next(), next());
        let mut b: Vec<(usize, &mut [u8])> = b.into_iter().enumerate().collect();
        let (mut isal_encode, mut isal_decode) =
            (Isal::new(Kernel::Auto, 8, &encode), Isal::new(Kernel::Auto, 8, &decode));
        let mut contestants = [
            Contestant::new("holdfast encode", || codec.encode(&cells[..8], &mut a).expect("right arguments")),
            Contestant::new("ISA-L 2.32 encode", || isal_encode.run(&cells[..8], &mut c)),
            Contestant::new("holdfast decode, from the cache", || codec.reconstruct(&present, &mut b).expect("right")),
            Contestant::new("ISA-L 2.32 decode, tables at hand", || isal_decode.run(&cells[4..], &mut d)),
        ];
        let figures = race.run(8 * cell_bytes, &mut contestants);
        for (contestant, figures) in contestants.iter().zip(&figures) {
            let nanoseconds = 8.0 * cell_bytes as f64 / median(figures);
            match table.iter_mut().find(|(name, _)| *name == contestant.name) {
                Some((_, row)) => row.push(nanoseconds),
                None => table.push((contestant.name.clone(), vec![nanoseconds])),
            }
        }
    }
    for (name, row) in table {
        println!("{name:<44}{}", row.iter().map(|ns| format!("{ns:>8.0}")).collect::<String>());
    }
}

/// How long the question takes whether a pattern decodes: asked for the first time and again.
pub fn decodable(race: &Race) {
    println!("\n{:<44}{:>8}{:>8}", "decodable, ns per question", "cold", "cached");
    for text in ["lrc-20-4-4", "geo-6", "geo-12", "geo-12+", "geo-12/4r"] {
        let codec = Codec::new(text.parse().expect("a scheme"));
        let (k, n) = (codec.scheme().k(), codec.scheme().n());
        // As many lost as can be, spread by a step that visits every slot; each pattern once.
        let patterns: Vec<SlotSet> = (0..20_000usize)
            .map(|number| {
                let mut present = SlotSet::first(n);
                let (mut state, mut lost) = (number.wrapping_mul(0x9E37_79B9) | 1, 0);
                while lost < n - k {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    lost += usize::from(present.remove((state >> 33) % n));
                }
                present
            })
            .collect();
        let (mut next, mut count) = (patterns.iter().cycle(), 0usize);
        let mut contestants = [
            Contestant::new("cold", || count += usize::from(codec.decodable(next.next().expect("it goes round")))),
            Contestant::new("cached", || assert!(codec.decodable(&SlotSet::first(k)))),
        ];
        let figures = race.run(1, &mut contestants);
        println!(
            "{:<44}{:>8.0}{:>8.0}",
            format!("{text} (n = {n})"),
            1.0 / median(&figures[0]),
            1.0 / median(&figures[1])
        );
    }
}

/// A geo code beside a plain one of the same shape, by the same engine.
pub fn geo(race: &Race) -> f64 {
    println!("\n{:<44}{:>8}{:>12}", "geo codes, 384 KiB stripes", "GB/s", "of traffic");
    let figures_of = |texts: [&str; 2]| {
        let codecs = texts.map(|text| Codec::new(text.parse().expect("a scheme")));
        let (k, n) = (codecs[0].scheme().k(), codecs[0].scheme().n());
        let cell_bytes = l2_cell_bytes(n);
        let stripe = Stripe::filled(k, cell_bytes, 3);
        let data = stripe.views();
        let mut parities: Vec<Stripe> = (0..3).map(|_| Stripe::new(n - k, cell_bytes)).collect();
        let mut last = Stripe::new(n - k, cell_bytes);
        let mut last = last.views_mut();
        let mut contestants: Vec<Contestant<'_>> = Vec::new();
        for ((codec, text), parity) in codecs.iter().zip(texts).zip(&mut parities[..]) {
            let mut parity = parity.views_mut();
            let data = &data;
            contestants.push(Contestant::new(text, move || codec.encode(data, &mut parity).expect("right arguments")));
        }
        contestants.push(Contestant::new("traffic", || limits::traffic(&data, &mut last)));
        let figures = race.run(k * cell_bytes, &mut contestants);
        for (contestant, figure) in contestants.iter().zip(&figures) {
            let share = ratio(figure, &figures[2]);
            println!("{:<44}{:>8.2}{:>12.2}", contestant.name, median(figure), share);
        }
        ratio(&figures[0], &figures[1])
    };
    let geo6 = figures_of(["geo-6", "6+6"]);
    for (geo, plain) in [("geo-12", "12+9"), ("geo-12+", "12+12"), ("geo-12/4r", "12+8"), ("lrc-12-2-2", "12+4")] {
        let ratio = figures_of([geo, plain]);
        println!("{:<44}{ratio:>8.2}", format!("ratio {geo} / {plain}"));
    }
    println!("{:<44}{geo6:>8.2}", "ratio geo-6 / 6+6");
    geo6
}
