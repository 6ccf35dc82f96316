//! Buffers.

/// Cells whose lengths are a multiple of 4096 would lie on the same sets of the cache if they followed each other; an
/// odd number of lines between them prevents it.
const STAGGER: usize = 320;

/// Deterministic bytes: a linear congruence, upper byte of each.
pub fn fill(bytes: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for byte in bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
}

/// Some equally long cells in one block of memory, each at a multiple of 64.
pub struct Stripe {
    memory: Vec<u8>,
    begin: usize,
    stride: usize,
    /// Length of each.
    pub cell_bytes: usize,
    /// How many.
    pub cells: usize,
}

impl Stripe {
    /// Cells of zeros.
    pub fn new(cells: usize, cell_bytes: usize) -> Self {
        let stride = cell_bytes.next_multiple_of(64) + STAGGER;
        let memory = vec![0u8; cells * stride + 64];
        let begin = memory.as_ptr().align_offset(64);
        Self { memory, begin, stride, cell_bytes, cells }
    }

    /// Cells of seeded bytes.
    pub fn filled(cells: usize, cell_bytes: usize, seed: u64) -> Self {
        let mut stripe = Self::new(cells, cell_bytes);
        fill(&mut stripe.memory, seed);
        stripe
    }

    /// All cells.
    pub fn views(&self) -> Vec<&[u8]> {
        (0..self.cells).map(|cell| &self.memory[self.begin + cell * self.stride..][..self.cell_bytes]).collect()
    }

    /// All cells, to be written.
    pub fn views_mut(&mut self) -> Vec<&mut [u8]> {
        let cell_bytes = self.cell_bytes;
        let cells = self.memory[self.begin..].chunks_mut(self.stride).take(self.cells);
        cells.map(|cell| &mut cell[..cell_bytes]).collect()
    }
}
