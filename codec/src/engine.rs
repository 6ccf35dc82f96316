//! The kernels: linear combinations of byte slices over GF(2^8), picked at run time by what the processor can do.
//!
//! Encoding and decoding are the same work with other coefficients: each output is a sum of coefficients times inputs.
//! The fast kernels hold all outputs of a column of bytes in registers while they read each input once.
//!
//! Not here: which coefficients (`codec`), argument errors (`Codec` has refused them before an engine sees them).
//!
//! **Invariant:** every engine gives the same bytes as `reference`, for every shape and length (`engine/tests.rs`).

mod reference;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod gfni256;
#[cfg(target_arch = "x86_64")]
mod gfni512;

#[cfg(test)]
mod tests;

use crate::field;

/// Columns are worked through in blocks of this many bytes when there are more outputs than a kernel has registers
/// for: 20 inputs of 2 KiB are 40 KiB, read from L1 or L2 again for the next outputs rather than from memory.
const BLOCK_BYTES: usize = 2 << 10;

/// The coefficients of some outputs over some inputs, laid out as the kernels read them.
#[derive(Clone, PartialEq, Eq)]
pub struct Combination {
    inputs: usize,
    outputs: usize,
    /// `[input][output]`.
    coefficients: Vec<u8>,
    /// The same as bit matrices for `gf2p8affineqb`.
    affine: Vec<u64>,
}

impl Combination {
    /// From one row of coefficients per output, each with one coefficient per input.
    pub(crate) fn new(inputs: usize, rows: &[&[u8]]) -> Self {
        debug_assert!(rows.iter().all(|row| row.len() == inputs));
        let outputs = rows.len();
        let mut coefficients = Vec::with_capacity(inputs * outputs);
        for input in 0..inputs {
            coefficients.extend(rows.iter().map(|row| row.get(input).copied().unwrap_or(0)));
        }
        let affine = coefficients.iter().map(|&c| field::AFFINE[usize::from(c)]).collect();
        Self { inputs, outputs, coefficients, affine }
    }

    /// How many inputs it reads.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// How many outputs it makes.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The factor of `input` in `output`; both must exist.
    pub fn coefficient(&self, input: usize, output: usize) -> u8 {
        self.coefficients[input * self.outputs + output]
    }

    /// Bytes of memory it holds, for the cache's bound.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.coefficients.len() + self.affine.len() * size_of::<u64>()
    }

    /// Holds the caller to the contract of [`Engine::combine`] and gives the common length. The unsafe kernels rely
    /// on it, so it stays on in release builds: it costs n comparisons per call of at least some hundred bytes.
    fn checked_len(&self, inputs: &[&[u8]], outputs: &[&mut [u8]]) -> usize {
        assert_eq!(inputs.len(), self.inputs, "one slice per input");
        assert_eq!(outputs.len(), self.outputs, "one slice per output");
        let len = outputs.first().map_or(0, |output| output.len());
        assert!(outputs.iter().all(|output| output.len() == len), "outputs are equally long");
        assert!(inputs.iter().all(|input| input.len() == len) || outputs.is_empty(), "inputs are as long as outputs");
        len
    }
}

impl std::fmt::Debug for Combination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Combination({} outputs of {} inputs)", self.outputs, self.inputs)
    }
}

/// One way to compute combinations.
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// Its name, for logs and benchmarks.
    fn name(&self) -> &'static str;

    /// Overwrites every output with its combination of the inputs.
    ///
    /// `inputs` are `combination.inputs()` slices and `outputs` are `combination.outputs()` slices, all of one length
    /// (any, also 0); anything else is a fault of the program and asserted. What the outputs held before does not
    /// matter.
    fn combine(&self, combination: &Combination, inputs: &[&[u8]], outputs: &mut [&mut [u8]]);
}

/// The obvious engine, which runs everywhere: the reference of all others and the fallback.
pub fn reference() -> &'static dyn Engine {
    &reference::Reference
}

/// Every engine this processor can run, best first; the last is the reference.
pub fn available() -> Vec<&'static dyn Engine> {
    let mut found: Vec<&'static dyn Engine> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        found.extend(gfni512::Gfni512::detect().map(|engine| engine as &dyn Engine));
        found.extend(gfni256::Gfni256::detect().map(|engine| engine as &dyn Engine));
        found.extend(avx2::Avx2::detect().map(|engine| engine as &dyn Engine));
    }
    found.push(reference());
    found
}

/// The best engine this processor can run.
pub fn best() -> &'static dyn Engine {
    available().into_iter().next().unwrap_or(reference())
}

/// Splits `outputs` rows into runs of at most `max`, as even as possible, and calls `run(first_row, rows, from, to)`
/// for each run and each block of columns. With one run there is one block: the whole length.
#[cfg(target_arch = "x86_64")]
fn for_each_run(outputs: usize, max: usize, len: usize, mut run: impl FnMut(usize, usize, usize, usize)) {
    let runs = outputs.div_ceil(max);
    let block = if runs <= 1 { len.max(1) } else { BLOCK_BYTES };
    for from in (0..len).step_by(block) {
        let to = len.min(from + block);
        let mut first = 0;
        for index in 0..runs {
            let rows = (outputs - first).div_ceil(runs - index);
            run(first, rows, from, to);
            first += rows;
        }
    }
}
