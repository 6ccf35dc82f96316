//! Object bytes that can be made again from a seed, so that what comes back is checked byte by byte without keeping it.

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use std::fs;
use std::path::Path;

/// `len` incompressible bytes, the same for the same seed.
pub fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Makes a tree of `files` files below `root`: many small, some at the borders of cells, stripes and parts, a few
/// large; names with spaces, plus signs, unicode and dots.
pub fn make_tree(root: &Path, files: usize, seed: u64) {
    const SIZES: [usize; 12] =
        [0, 1, 100, 4_096, 16_384, 16_385, 65_536, 262_143, 262_145, 1 << 20, 3_000_000, 9_000_001];
    for i in 0..files {
        let directory = root.join(format!("dir {}/ünder+score/{}", i % 7, i % 3));
        fs::create_dir_all(&directory).expect("create a directory");
        // The two largest sizes only for every 40th file: the tree stays some tens of MiB.
        let size = if i % 40 == 0 { SIZES[10 + (i / 40) % 2] } else { SIZES[i % 10] };
        fs::write(directory.join(format!("file {i}.v1.bin")), bytes_of(seed + i as u64, size)).expect("write a file");
    }
}

/// Panics unless both trees hold the same files with the same bytes (`diff -r`).
pub fn assert_same_tree(one: &Path, other: &Path) {
    let output = std::process::Command::new("diff").arg("-r").arg(one).arg(other).output().expect("run diff");
    assert!(output.status.success(), "trees differ:\n{}", String::from_utf8_lossy(&output.stdout));
}
