//! Every kernel against the crate `md-5`, over stream counts, lengths and partitions.

use super::*;
use md5::{Digest, Md5};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn random_bytes(rng: &mut StdRng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.random()).collect()
}

/// Hashes each message through the lanes in `calls` calls of random whole blocks each, the rest by `finalize`.
fn check(kernel: Kernel, rng: &mut StdRng, messages: &[Vec<u8>], calls: usize) {
    let mut states = vec![Md5State::new(); messages.len()];
    let mut taken = vec![0usize; messages.len()];
    for _ in 0..calls {
        let mut streams = Vec::new();
        for ((state, taken), message) in states.iter_mut().zip(&mut taken).zip(messages) {
            let blocks = rng.random_range(0..=(message.len() - *taken) / BLOCK_BYTES);
            streams.push((state, &message[*taken..*taken + blocks * BLOCK_BYTES]));
            *taken += blocks * BLOCK_BYTES;
        }
        update_lanes_by(kernel, &mut streams).unwrap();
    }
    for (stream, ((state, taken), message)) in states.into_iter().zip(taken).zip(messages).enumerate() {
        assert_eq!(usize::try_from(state.bytes()).unwrap(), taken);
        let digest: [u8; 16] = Md5::digest(message).into();
        assert_eq!(state.finalize(&message[taken..]), digest, "{kernel:?}: stream {stream} of {}", messages.len());
    }
}

#[test]
fn the_test_suite_of_rfc_1321() {
    let cases = [
        ("", "d41d8cd98f00b204e9800998ecf8427e"),
        ("a", "0cc175b9c0f1b6a831c399e269772661"),
        ("abc", "900150983cd24fb0d6963f7d28e17f72"),
        ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
        ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"),
        (
            "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
            "57edf4a22be3c955ac49da2e2107b67a",
        ),
    ];
    for (message, expected) in cases {
        let digest = Md5State::new().finalize(message.as_bytes());
        let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, expected, "{message:?}");
    }
}

#[test]
fn every_tail_length() {
    let mut rng = StdRng::seed_from_u64(1);
    for len in 0..=260 {
        let message = random_bytes(&mut rng, len);
        let digest: [u8; 16] = Md5::digest(&message).into();
        assert_eq!(Md5State::new().finalize(&message), digest, "{len} bytes");
    }
}

#[test]
fn every_stream_count_on_every_kernel() {
    let mut rng = StdRng::seed_from_u64(2);
    for kernel in Kernel::available() {
        for count in 0..=40 {
            let messages: Vec<Vec<u8>> = (0..count).map(|_| random_bytes(&mut rng, 1000)).collect();
            check(kernel, &mut rng, &messages, 1);
        }
    }
}

#[test]
fn random_lengths_and_partitions_on_every_kernel() {
    for seed in 0..60 {
        for kernel in Kernel::available() {
            let mut rng = StdRng::seed_from_u64(seed);
            let count = rng.random_range(1..=36);
            let messages: Vec<Vec<u8>> = (0..count)
                .map(|_| {
                    let len = rng.random_range(0..5000);
                    random_bytes(&mut rng, len)
                })
                .collect();
            let calls = rng.random_range(0..5);
            check(kernel, &mut rng, &messages, calls);
        }
    }
}

#[test]
fn a_partial_block_is_refused_and_no_stream_advances() {
    let (mut a, mut b) = (Md5State::new(), Md5State::new());
    let bytes = [0u8; 128];
    let result = update_lanes(&mut [(&mut a, &bytes[..]), (&mut b, &bytes[..65])]);
    assert_eq!(result, Err(Md5LanesError::PartialBlock { stream: 1, got: 65 }));
    assert_eq!((a, b), (Md5State::new(), Md5State::new()));
}

#[test]
fn the_kernels_this_machine_should_have_are_found() {
    let names: Vec<_> = Kernel::available().map(|kernel| kernel.name).collect();
    assert_eq!(names.last(), Some(&"scalar"));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(names.contains(&"avx512"), is_x86_feature_detected!("avx512f"));
}
