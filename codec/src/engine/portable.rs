//! Plain code without tables: XOR of inputs, bit plane by bit plane, and doublings in between (Horner's rule).
//!
//! With the coefficients of an output written in binary, the output is the sum over bits b of `2^b` times the sum of
//! the inputs whose coefficient has bit b. From the highest bit down: double what there is, add those inputs. Adding is
//! XOR and doubling is a shift and a conditional XOR, both of which compilers turn into whatever vectors there are. The
//! crate `reed-solomon-erasure` looks each byte's product up instead, at four to six times the cost.
//!
//! Source: Bloemer et al., "An XOR-Based Erasure-Resilient Coding Scheme" (1995), for coding by bit planes.

use super::{Combination, Engine, Store};

/// Columns computed at a time: 8 registers of 16 bytes, half of what the smallest machines have.
const WIDTH: usize = 64;

/// For each output and bit the inputs whose coefficient has that bit.
#[derive(Clone, Debug)]
pub(super) struct Planes {
    /// Numbers of inputs, output by output, from bit 7 to bit 0. No combination has more than 255 inputs.
    inputs: Vec<u8>,
    /// Where each list ends.
    ends: Vec<u32>,
}

impl Planes {
    pub(super) fn new(combination: &Combination) -> Self {
        let (mut inputs, mut ends) = (Vec::new(), Vec::new());
        for output in 0..combination.outputs() {
            for bit in (0..8).rev() {
                let has_bit = |input: &u8| combination.coefficient(usize::from(*input), output) >> bit & 1 == 1;
                let count = u8::try_from(combination.inputs()).expect("a combination has at most 255 inputs");
                inputs.extend((0..count).filter(has_bit));
                ends.push(u32::try_from(inputs.len()).expect("255 outputs of 255 inputs are 8 * 65025 numbers"));
            }
        }
        Self { inputs, ends }
    }

    /// The lists of an output, from bit 7 to bit 0.
    fn of(&self, output: usize) -> impl Iterator<Item = &[u8]> {
        (output * 8..output * 8 + 8).map(|list| {
            let begin = if list == 0 { 0 } else { self.ends[list - 1] };
            &self.inputs[begin as usize..self.ends[list] as usize]
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Portable;

impl Engine for Portable {
    fn name(&self) -> &'static str {
        "portable"
    }

    fn combine(&self, combination: &Combination, inputs: &[&[u8]], outputs: &mut [&mut [u8]], store: Store) {
        let len = combination.checked_len(inputs, outputs);
        let planes = combination.planes();
        let mut offset = 0;
        while offset + WIDTH <= len {
            for (row, output) in outputs.iter_mut().enumerate() {
                let sum = column(planes, row, inputs, offset);
                let target = &mut output[offset..offset + WIDTH];
                match store {
                    Store::Add => target.iter_mut().zip(sum).for_each(|(byte, sum)| *byte ^= sum),
                    Store::Replace | Store::Stream => target.copy_from_slice(&sum),
                }
            }
            offset += WIDTH;
        }
        for (row, output) in outputs.iter_mut().enumerate() {
            for at in offset..len {
                let product = planes.of(row).fold(0, |sum, list| {
                    list.iter().fold(double(sum), |sum, &input| sum ^ inputs[usize::from(input)][at])
                });
                output[at] = if store == Store::Add { output[at] ^ product } else { product };
            }
        }
    }
}

/// Output `row` of the columns from `offset` on.
#[inline]
fn column(planes: &Planes, row: usize, inputs: &[&[u8]], offset: usize) -> [u8; WIDTH] {
    let mut sum = [0u8; WIDTH];
    for list in planes.of(row) {
        for byte in &mut sum {
            *byte = double(*byte);
        }
        for &input in list {
            let source = &inputs[usize::from(input)][offset..offset + WIDTH];
            for (byte, source) in sum.iter_mut().zip(source) {
                *byte ^= source;
            }
        }
    }
    sum
}

/// Twice a byte in the field.
#[inline]
fn double(byte: u8) -> u8 {
    let reduction = if byte & 0x80 == 0 { 0 } else { 0x1D };
    byte << 1 ^ reduction
}
