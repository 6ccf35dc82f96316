//! The obvious engine: one table look-up per byte and coefficient, by the crate `reed-solomon-erasure` (without its
//! C code). Reference of the fast engines.

use super::{Combination, Engine, Store};
use reed_solomon_erasure::galois_8;

/// See the module.
#[derive(Debug)]
pub(super) struct Reference;

impl Engine for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn combine(&self, combination: &Combination, inputs: &[&[u8]], outputs: &mut [&mut [u8]], store: Store) {
        combination.checked_len(inputs, outputs);
        for (row, output) in outputs.iter_mut().enumerate() {
            if store != Store::Add {
                output.fill(0);
            }
            for (index, input) in inputs.iter().enumerate() {
                galois_8::mul_slice_xor(combination.coefficient(index, row), input, output);
            }
        }
    }
}
