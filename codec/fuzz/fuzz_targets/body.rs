//! What the fuzz target does with its input, shared with a test of the crate: the bytes choose a scheme, an engine and
//! the arguments of each call, mostly wrong ones. Calls that succeed must give right bytes, calls that refuse must
//! leave every buffer as it was.

use holdfast_codec::pipeline::{CheckedCell, StripeCoder, StripeData};
use holdfast_codec::{Code, Codec, Geometry, Scheme, SlotSet, engine};

/// Deals out the input byte by byte; zeros when it is used up.
struct Dealer<'a> {
    bytes: &'a [u8],
}

impl Dealer<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        first
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    fn wide(&mut self) -> u64 {
        (0..8).fold(0, |value, _| value << 8 | u64::from(self.byte()))
    }

    /// A slot: nearly always one of the scheme's, sometimes none at all.
    fn slot(&mut self, n: usize) -> usize {
        match self.byte() {
            255 => usize::MAX,
            254 => n,
            byte => usize::from(byte) % n,
        }
    }

    /// A length: nearly always `usual`.
    fn len(&mut self, usual: usize) -> usize {
        if self.byte() > 250 { self.below(300) } else { usual }
    }

    /// A count: nearly always `usual`.
    fn count(&mut self, usual: usize) -> usize {
        if self.byte() > 250 { self.below(20) } else { usual }
    }
}

/// What buffers hold that nobody has written.
const UNTOUCHED: u8 = 0xEE;

fn buffers(lens: &[usize]) -> Vec<Vec<u8>> {
    lens.iter().map(|&len| vec![UNTOUCHED; len]).collect()
}

fn assert_untouched(buffers: &[Vec<u8>]) {
    assert!(buffers.iter().flatten().all(|&byte| byte == UNTOUCHED), "a refused call wrote");
}

/// See the module.
pub(crate) fn run(bytes: &[u8]) {
    let mut dealer = Dealer { bytes };
    let code = [0x1D - dealer.byte() / 250, dealer.byte() % 6, dealer.byte() % 34, dealer.byte() % 52];
    let texts = ["4+2", "1+1", "geo-6", "geo-12+", "lrc-12-2-2", "lrc-6-3-2", "10+4"];
    let Ok(scheme) = Scheme::from_code(code).or_else(|_| texts[dealer.below(texts.len())].parse::<Scheme>()) else {
        return;
    };
    let engines = engine::available();
    let engine = engines[dealer.below(engines.len())];
    let (k, m, n) = (scheme.k(), scheme.m(), scheme.n());
    let _ = Code::over_regions(scheme, dealer.below(300));
    let codec = Codec::with_engine(scheme, engine);
    let len = dealer.below(200);
    let shards = whole_stripe(&codec, len, &mut dealer);

    encode_and_update(&codec, &shards, len, &mut dealer);
    reconstruct(&codec, &shards, len, &mut dealer);
    repair(&codec, &shards, &mut dealer);
    pipeline(&codec, &shards, len, &mut dealer);
    let geometry =
        Geometry::new(dealer.below(40), dealer.wide() as u32 >> dealer.below(32), dealer.wide() >> dealer.below(64));
    let stripe = geometry.stripe(dealer.wide() as u32);
    let _ = (stripe.data_range(dealer.slot(n)), geometry.stripes_for(dealer.wide()..dealer.wide()), k + m);
}

fn whole_stripe(codec: &Codec, len: usize, dealer: &mut Dealer<'_>) -> Vec<Vec<u8>> {
    let (k, m) = (codec.scheme().k(), codec.scheme().m());
    let seed = dealer.byte();
    let mut shards: Vec<Vec<u8>> =
        (0..k).map(|slot| (0..len).map(|i| (slot * 31 + i * 7) as u8 ^ seed).collect()).collect();
    let mut parity = vec![vec![0; len]; m];
    let data: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
    codec.encode(&data, &mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>()).expect("right arguments");
    shards.extend(parity);
    shards
}

fn encode_and_update(codec: &Codec, shards: &[Vec<u8>], len: usize, dealer: &mut Dealer<'_>) {
    let (k, m) = (codec.scheme().k(), codec.scheme().m());
    let data: Vec<&[u8]> = (0..dealer.count(k)).map(|i| &shards[i % k][..dealer.len(len).min(len)]).collect();
    let lens: Vec<usize> = (0..dealer.count(m)).map(|_| dealer.len(len)).collect();
    let mut parity = buffers(&lens);
    let mut targets: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    match codec.encode(&data, &mut targets) {
        Ok(()) => assert!(parity == shards[k..], "encode"),
        Err(_) => assert_untouched(&parity),
    }
    let slot = dealer.slot(k);
    let (old, new) = (dealer.len(len).min(len), dealer.len(len).min(len));
    let mut parity = buffers(&lens);
    let mut targets: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    if codec.update(slot, &shards[0][..old], &shards[k - 1][..new], &mut targets).is_err() {
        assert_untouched(&parity);
    }
}

fn reconstruct(codec: &Codec, shards: &[Vec<u8>], len: usize, dealer: &mut Dealer<'_>) {
    let n = codec.scheme().n();
    let skipped: Vec<usize> = (0..dealer.below(8)).map(|_| dealer.slot(n)).collect();
    let mut present: Vec<usize> = (0..n).filter(|slot| !skipped.contains(slot)).collect();
    if dealer.byte() > 240 {
        present.push(dealer.slot(n));
    }
    let given: Vec<(usize, &[u8])> =
        present.iter().map(|&slot| (slot, &shards[slot.min(n - 1)][..dealer.len(len).min(len)])).collect();
    let wanted: Vec<usize> = (0..dealer.below(4)).map(|i| skipped.get(i).copied().unwrap_or(dealer.slot(n))).collect();
    let lens: Vec<usize> = wanted.iter().map(|_| dealer.len(len)).collect();
    let mut made = buffers(&lens);
    let mut targets: Vec<(usize, &mut [u8])> =
        wanted.iter().copied().zip(made.iter_mut().map(Vec::as_mut_slice)).collect();
    let set: SlotSet = present.iter().copied().collect();
    match codec.reconstruct(&given, &mut targets) {
        Ok(()) => {
            assert!(wanted.iter().zip(&made).all(|(&slot, cell)| cell[..] == shards[slot][..cell.len()]), "reconstruct")
        }
        Err(_) => assert_untouched(&made),
    }
    let _ = codec.decodable(&set);
}

fn repair(codec: &Codec, shards: &[Vec<u8>], dealer: &mut Dealer<'_>) {
    let n = codec.scheme().n();
    let missing: SlotSet = (0..dealer.below(5)).map(|_| dealer.slot(n)).collect();
    let mut available = SlotSet::first(n).difference(&missing);
    for _ in 0..dealer.below(6) {
        available.remove(dealer.slot(n));
    }
    if dealer.byte() > 250 {
        available.insert(dealer.slot(n));
    }
    let costs: Vec<u64> = (0..if dealer.byte() > 128 { dealer.count(n) } else { 0 }).map(|_| dealer.wide()).collect();
    let Ok(plan) = codec.repair_plan(&missing, &available, &costs) else { return };
    let mut slots = plan.read.clone();
    if dealer.byte() > 240 {
        slots.push(dealer.slot(n));
    }
    let sources: Vec<(usize, &[u8])> = slots.iter().map(|&slot| (slot, shards[slot.min(n - 1)].as_slice())).collect();
    let mut made = buffers(&vec![shards[0].len(); plan.write.len()]);
    let mut targets: Vec<(usize, &mut [u8])> =
        plan.write.iter().copied().zip(made.iter_mut().map(Vec::as_mut_slice)).collect();
    match codec.repair(&plan, &sources, &mut targets) {
        Ok(()) => assert!(plan.write.iter().zip(&made).all(|(&slot, cell)| *cell == shards[slot]), "repair"),
        Err(_) => assert_untouched(&made),
    }
    let helpers: SlotSet = (0..dealer.below(4)).map(|_| dealer.slot(n)).collect();
    if let Ok(part) = plan.partial_sum(&helpers) {
        let sources: Vec<(usize, &[u8])> = part.read.iter().map(|&slot| (slot, shards[slot].as_slice())).collect();
        let mut targets: Vec<(usize, &mut [u8])> =
            plan.write.iter().copied().zip(made.iter_mut().map(Vec::as_mut_slice)).collect();
        codec.partial_sum(&part, &sources, &mut targets).expect("right arguments");
    }
    let _ = (plan.coefficient(dealer.slot(n), dealer.slot(n)), plan.reads(0..dealer.wide()).count());
    // A plan of another code.
    let other = Codec::new(Scheme::reed_solomon(2, 1).expect("a shape that exists"));
    let _ = other.repair(&plan, &[], &mut []);
}

fn pipeline(codec: &Codec, shards: &[Vec<u8>], len: usize, dealer: &mut Dealer<'_>) {
    let (k, m, n) = (codec.scheme().k(), codec.scheme().m(), codec.scheme().n());
    let mut coder = StripeCoder::new(codec.clone());
    let cells: Vec<&[u8]> = (0..dealer.count(k)).map(|i| &shards[i % k][..dealer.len(len).min(len)]).collect();
    let mut parity = buffers(&vec![len; m]);
    let mut targets: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    let mut hashes = vec![[0u8; 32]; dealer.count(n)];
    let stripe = StripeData { cells: &cells, object_bytes: dealer.wide() as usize };
    match coder.code(stripe, &mut targets, &mut hashes, &mut []) {
        Ok(()) => assert!(parity == shards[k..], "code"),
        Err(_) => assert_untouched(&parity),
    }
    let present: Vec<CheckedCell<'_>> = (0..hashes.len().min(n))
        .map(|slot| CheckedCell {
            slot: slot + usize::from(dealer.byte() > 253),
            bytes: &shards[slot],
            hash: &hashes[slot],
        })
        .skip(1)
        .collect();
    let mut made = buffers(&[len]);
    let mut targets: Vec<(usize, &mut [u8])> = made.iter_mut().map(|cell| (0, cell.as_mut_slice())).collect();
    match coder.rebuild(&present, &mut targets, &mut [[0; 32]]) {
        Ok(()) => assert!(made[0] == shards[0], "rebuild"),
        Err(_) => assert_untouched(&made),
    }
}
