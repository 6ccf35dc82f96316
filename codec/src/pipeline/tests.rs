//! The pipeline against coding, hashing and checking each by itself.

use super::*;
use crate::scheme::Scheme;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A CRC bit by bit, reflected.
fn crc(bytes: &[u8], polynomial: u64, ones: u64) -> u64 {
    let step = |crc: u64, byte: &u8| {
        (0..8).fold(crc ^ u64::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ polynomial } else { crc >> 1 })
    };
    bytes.iter().fold(ones, step) ^ ones
}

fn check(text: &str, cell_bytes: usize, object_bytes: usize) {
    let scheme: Scheme = text.parse().unwrap();
    let codec = Codec::new(scheme);
    let mut rng = StdRng::seed_from_u64(8);
    let data: Vec<Vec<u8>> = (0..scheme.k()).map(|_| (0..cell_bytes).map(|_| rng.random()).collect()).collect();
    let cells: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let mut expected = vec![vec![0u8; cell_bytes]; scheme.m()];
    codec.encode(&cells, &mut expected.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>()).unwrap();

    let mut coder = StripeCoder::new(codec);
    let mut parity = vec![vec![0xEEu8; cell_bytes]; scheme.m()];
    let mut hashes = vec![[0u8; 32]; scheme.n()];
    let (mut crc64, mut crc32c) = (Crc64Nvme::new(), Crc32c::default());
    for _ in 0..2 {
        (crc64, crc32c) = (Crc64Nvme::default(), Crc32c::new());
        let stripe = StripeData { cells: &cells, object_bytes };
        let mut targets: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        coder.code(stripe, &mut targets, &mut hashes, &mut [&mut crc64, &mut crc32c]).unwrap();
    }
    assert!(parity == expected, "{text}: parity");
    let all: Vec<&[u8]> = cells.iter().copied().chain(expected.iter().map(Vec::as_slice)).collect();
    for (slot, (hash, cell)) in hashes.iter().zip(&all).enumerate() {
        assert_eq!(hash, blake3::hash(cell).as_bytes(), "{text}: slot {slot}");
    }
    let object = &data.concat()[..object_bytes.min(scheme.k() * cell_bytes)];
    assert_eq!(crc64.value(), crc(object, 0x9A6C_9329_AC4B_C9B5, u64::MAX), "{text}: CRC64NVME");
    assert_eq!(u64::from(crc32c.value()), crc(object, 0x82F6_3B78, u64::from(u32::MAX)), "{text}: CRC32C");

    // A repair of two shards from all others.
    let present: Vec<CheckedCell<'_>> =
        (2..scheme.n()).map(|slot| CheckedCell { slot, bytes: all[slot], hash: &hashes[slot] }).collect();
    let (mut a, mut b) = (vec![0xEE; cell_bytes], vec![0xEE; cell_bytes]);
    let mut rebuilt = [[0u8; 32]; 2];
    coder.rebuild(&present, &mut [(1, &mut a), (0, &mut b)], &mut rebuilt).unwrap();
    assert!(a == data[1] && b == data[0] && rebuilt == [hashes[1], hashes[0]], "{text}: repair");
}

#[test]
fn stripes_of_all_sizes() {
    for (text, cell_bytes) in [
        ("4+2", 0),
        ("4+2", 64),
        ("8+4", 5000),
        ("8+4", 65536),
        ("10+4", 65536),
        ("12+4", 65537),
        ("4+2", 300_000),
        ("geo-6", 200_064),
    ] {
        let k = text.parse::<Scheme>().unwrap().k();
        for object_bytes in [0, 1, cell_bytes, k * cell_bytes, k * cell_bytes + 1] {
            check(text, cell_bytes, object_bytes);
        }
    }
    check("250+5", 20_000, 3_000_000);
    check("20+10", 32_768, 20 * 32_768);
}

#[test]
fn a_cell_that_is_not_its_hash_stops_a_repair() {
    let codec = Codec::new("2+1".parse().unwrap());
    let mut coder = StripeCoder::new(codec);
    let (good, bad) = ([1u8; 64], [2u8; 64]);
    let (hash, mut hashes) = (hash_of(&good), [[7u8; 32]; 1]);
    let present =
        |bytes| [CheckedCell { slot: 0, bytes: &good, hash: &hash }, CheckedCell { slot: 2, bytes, hash: &hash }];
    let mut cell = [0xEE; 64];
    let result = coder.rebuild(&present(&bad[..]), &mut [(1, &mut cell)], &mut hashes);
    assert_eq!(result, Err(CodecError::HashDiffers { slot: 2 }));
    assert_eq!((cell, hashes), ([0xEE; 64], [[7; 32]]), "nothing is written");
    let result = coder.rebuild(&present(&good[..]), &mut [(1, &mut cell)], &mut []);
    assert_eq!(result, Err(CodecError::SliceCount { expected: 1, got: 0 }));
    let many = vec![present(&good[..])[0]; 256];
    let result = coder.rebuild(&many, &mut [(1, &mut cell)], &mut hashes);
    assert_eq!(result, Err(CodecError::SliceCount { expected: 255, got: 256 }));
    assert_eq!(cell, [0xEE; 64]);
}

#[test]
fn wrong_arguments_move_nothing() {
    for len in [64, 1 << 20] {
        let mut coder = StripeCoder::new(Codec::new("2+1".parse().unwrap()));
        let bytes = vec![1u8; len];
        let (mut parity, mut hashes, mut crc) = (vec![0xEEu8; len], [[7u8; 32]; 3], Crc64Nvme::new());
        let before = crc.value();
        let cells: [&[u8]; 2] = [&bytes, &bytes[1..]];
        let stripe = StripeData { cells: &cells, object_bytes: 10 };
        let result = coder.code(stripe, &mut [&mut parity], &mut hashes, &mut [&mut crc]);
        assert_eq!(result, Err(CodecError::LengthsDiffer { slot: 1, expected: len, got: len - 1 }));
        let stripe = StripeData { cells: &[&bytes, &bytes], object_bytes: 10 };
        let result = coder.code(stripe, &mut [&mut parity], &mut hashes[..2], &mut [&mut crc]);
        assert_eq!(result, Err(CodecError::SliceCount { expected: 3, got: 2 }));
        assert!(parity.iter().all(|&byte| byte == 0xEE) && hashes == [[7; 32]; 3] && crc.value() == before);
    }
}
