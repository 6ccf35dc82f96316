//! MD5 of one stream, in plain code.

use super::{BLOCK_BYTES, Words};

/// Takes in whole blocks; bytes after the last whole block are left out.
pub(super) fn compress(state: &mut Words, bytes: &[u8]) {
    let [mut a, mut b, mut c, mut d] = *state;
    for block in bytes.chunks_exact(BLOCK_BYTES) {
        let mut w = [0u32; 16];
        for (word, bytes) in w.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let before = [a, b, c, d];
        macro_rules! step {
            ($round:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:literal, $shift:literal, $constant:literal) => {
                let sum = $a.wrapping_add(w[$word]).wrapping_add($constant);
                $a = $round(sum, $b, $c, $d).rotate_left($shift).wrapping_add($b);
            };
        }
        md5_steps!(step, a, b, c, d);
        a = a.wrapping_add(before[0]);
        b = b.wrapping_add(before[1]);
        c = c.wrapping_add(before[2]);
        d = d.wrapping_add(before[3]);
    }
    *state = [a, b, c, d];
}

/// One stream after the other.
pub(super) fn advance(words: &mut [&mut Words], inputs: &[&[u8]]) {
    for (words, input) in words.iter_mut().zip(inputs) {
        compress(words, input);
    }
}

// The round functions, each added to the sum that does not depend on the newest word, b.

fn f(sum: u32, b: u32, c: u32, d: u32) -> u32 {
    sum.wrapping_add(d ^ (b & (c ^ d)))
}

/// The two halves have no bit in common, so they may be added one by one: the half without b is off the critical path.
fn g(sum: u32, b: u32, c: u32, d: u32) -> u32 {
    sum.wrapping_add(c & !d).wrapping_add(b & d)
}

fn h(sum: u32, b: u32, c: u32, d: u32) -> u32 {
    sum.wrapping_add(b ^ (c ^ d))
}

fn i(sum: u32, b: u32, c: u32, d: u32) -> u32 {
    sum.wrapping_add(c ^ (b | !d))
}
