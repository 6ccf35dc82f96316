//! A fixed scrambling of numbers, where the solver must choose among equals without favouring anyone.
//!
//! Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA'14), the finalizer of splitmix64.

/// Scrambles a number; the same input always gives the same output.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Scrambles a pair.
pub(crate) fn mix2(a: usize, b: usize) -> u64 {
    mix(mix(wide(a)).wrapping_add(wide(b)))
}

/// A sequence of scrambled indexes.
pub(crate) struct Sequence {
    next: u64,
}

impl Sequence {
    pub(crate) fn new(seed: u64) -> Self {
        Self { next: mix(seed) }
    }

    /// An index below `count`, which must not be 0.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.next = self.next.wrapping_add(1);
        usize::try_from(mix(self.next) % wide(count.max(1))).unwrap_or(0)
    }
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
