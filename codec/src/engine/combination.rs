//! The coefficients of some outputs over some inputs, laid out as the kernels read them.

use super::portable::Planes;
use crate::code::XorParity;
use crate::field;
use std::sync::OnceLock;

/// The coefficients of some outputs over some inputs.
#[derive(Clone, Default)]
pub struct Combination {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// `[input][output]`.
    pub(super) coefficients: Vec<u8>,
    /// The same as bit matrices for `gf2p8affineqb`.
    pub(super) affine: Vec<u64>,
    /// The same as look-up tables for byte shuffles, made when an engine that shuffles first asks.
    tables: OnceLock<Vec<[u8; 32]>>,
    /// The same as lists of inputs, made when the portable engine first asks.
    planes: OnceLock<Planes>,
    /// Outputs that are sums without factors, for kernels that can make them by the way.
    pub(super) grouped: Option<Box<Grouped>>,
}

/// A combination in which some outputs are the XOR of a run of inputs and of some other outputs. The runs are in order
/// and cover all inputs.
#[derive(Clone)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "read by x86 kernels only"))]
pub(super) struct Grouped {
    /// The other outputs over the inputs.
    pub(super) dense: Combination,
    /// Which outputs those are, in the order of `dense`.
    pub(super) dense_rows: Vec<usize>,
    pub(super) groups: Vec<Group>,
}

/// One output that is a sum.
#[derive(Clone)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "read by x86 kernels only"))]
pub(super) struct Group {
    /// Its number among the outputs.
    pub(super) row: usize,
    /// The inputs in it begin where those of the group before end.
    pub(super) inputs_end: usize,
    /// Rows of `dense` that are in it too.
    pub(super) dense: Vec<usize>,
}

impl Grouped {
    /// Dense rows, groups, and dense rows in each group's sum, if these are the first ones group by group: what a
    /// kernel can be made for.
    pub(super) fn shape(&self) -> Option<(usize, usize, usize)> {
        let feeds = self.groups.first()?.dense.len();
        let in_order =
            |(number, group): (usize, &Group)| group.dense.iter().copied().eq(number * feeds..(number + 1) * feeds);
        let fits = self.groups.iter().enumerate().all(in_order);
        fits.then_some((self.dense_rows.len(), self.groups.len(), feeds))
    }
}

impl Combination {
    /// From one row of coefficients per output, each with one coefficient per input.
    pub(crate) fn new(inputs: usize, rows: &[&[u8]]) -> Self {
        assert!(rows.iter().all(|row| row.len() == inputs), "one coefficient per input");
        let outputs = rows.len();
        let mut coefficients = Vec::with_capacity(inputs * outputs);
        for input in 0..inputs {
            coefficients.extend(rows.iter().map(|row| row[input]));
        }
        Self::of_coefficients(inputs, outputs, coefficients)
    }

    fn of_coefficients(inputs: usize, outputs: usize, coefficients: Vec<u8>) -> Self {
        let affine = coefficients.iter().map(|&c| field::AFFINE[usize::from(c)]).collect();
        Self { inputs, outputs, coefficients, affine, ..Self::default() }
    }

    /// The same, knowing that some rows are sums. Sums that do not cover all inputs in order are of no use and ignored.
    pub(crate) fn with_sums(inputs: usize, rows: &[&[u8]], sums: &[XorParity]) -> Self {
        let mut whole = Self::new(inputs, rows);
        let mut end = 0;
        for sum in sums {
            if sum.data.0 != end {
                return whole;
            }
            end = sum.data.1;
        }
        if sums.is_empty() || end != inputs {
            return whole;
        }
        let dense_rows: Vec<usize> = (0..rows.len()).filter(|row| sums.iter().all(|sum| sum.row != *row)).collect();
        let number = |row: &usize| dense_rows.iter().position(|dense| dense == row);
        let groups = sums.iter().map(|sum| {
            let dense = sum.parities.iter().map(number).collect::<Option<Vec<usize>>>()?;
            Some(Group { row: sum.row, inputs_end: sum.data.1, dense })
        });
        if let Some(groups) = groups.collect() {
            let dense: Vec<&[u8]> = dense_rows.iter().map(|&row| rows[row]).collect();
            whole.grouped = Some(Box::new(Grouped { dense: Self::new(inputs, &dense), dense_rows, groups }));
        }
        whole
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

    /// Only the inputs with these numbers, in this order.
    pub(crate) fn of_inputs(&self, numbers: impl Iterator<Item = usize>) -> Self {
        let columns: Vec<&[u8]> =
            numbers.map(|input| &self.coefficients[input * self.outputs..][..self.outputs]).collect();
        Self::of_coefficients(columns.len(), self.outputs, columns.concat())
    }

    /// In the order of the coefficients, so that a kernel reads them one after the other.
    #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code, reason = "no such kernel"))]
    pub(super) fn tables(&self) -> &[[u8; 32]] {
        self.tables.get_or_init(|| self.coefficients.iter().map(|&c| field::NIBBLES[usize::from(c)]).collect())
    }

    pub(super) fn planes(&self) -> &Planes {
        self.planes.get_or_init(|| Planes::new(self))
    }

    /// Bytes of memory it may come to hold, for the cache's bound: a byte, a bit matrix, a table and (half the bits of a
    /// coefficient are set, each a byte of a list) four bytes of planes for each coefficient.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.coefficients.len() * (1 + size_of::<u64>() + size_of::<[u8; 32]>() + 4)
    }

    /// Holds the caller to the contract of [`Engine::combine`](super::Engine::combine) and gives the common length. The
    /// unsafe kernels rely on it, so it stays on in release builds: it costs n comparisons per call of at least some
    /// hundred bytes.
    pub(super) fn checked_len(&self, inputs: &[&[u8]], outputs: &[&mut [u8]]) -> usize {
        assert_eq!(inputs.len(), self.inputs, "one slice per input");
        assert_eq!(outputs.len(), self.outputs, "one slice per output");
        let len = outputs.first().map_or(0, |output| output.len());
        assert!(outputs.iter().all(|output| output.len() == len), "outputs are equally long");
        assert!(inputs.iter().all(|input| input.len() == len) || outputs.is_empty(), "inputs are as long as outputs");
        len
    }
}

impl PartialEq for Combination {
    fn eq(&self, other: &Self) -> bool {
        (self.inputs, self.outputs, &self.coefficients) == (other.inputs, other.outputs, &other.coefficients)
    }
}

impl Eq for Combination {}

impl std::fmt::Debug for Combination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Combination({} outputs of {} inputs)", self.outputs, self.inputs)
    }
}
