//! A linear code as one type, whatever its family: generator matrix, local groups, and the region of each slot.
//!
//! Every code here is systematic over GF(2^8) modulo 0x11D: shard s of a stripe is the sum of `generator[s][j] * d_j`
//! over the k data shards d, and the top k rows are the identity. + is XOR. How the parity rows come about:
//!
//! * **RS(k, m)**: `V[r][c] = r^c` for the n rows r = 0, 1, .. (`0^0 = 1`), times the inverse of its top k rows.
//! * **LRC(k, 2, 2)**, k even and at most 30 (Azure's construction): slots k and k + 1 are the XOR of the first and of
//!   the second half of the data. The global parities are `sum a_j d_j` and `sum a_j^2 d_j`, with `a_j = 16 (j + 1)` in
//!   the first half, and `a_j = j - k/2 + 1` in the second. A pattern with two unknowns left after the local parities
//!   decodes if two sums of a's (of two of a group, or single ones) are distinct and not zero: sums within a group have
//!   no bits below (above) bit 4, and a's of a group are distinct, so every such pattern does.
//! * **LRC(k, l, g)**, all other shapes: data in l runs of k / l, an XOR for each run in slots k..k + l, then g global
//!   parities `sum d_j / (k + i + j)`: a Cauchy matrix with the points k + i and j. An all-ones row
//!   may be added to a Cauchy matrix (its point at infinity) and any square part of it is still invertible. So
//!   t <= g + 1 lost data shards decode: the XOR of all local parities is that row, and with a local parity lost the
//!   globals alone are enough. Hence any g + 1 losses are survived, the most such a code can (Singleton-like bound).
//! * **geo-LRC(R, g, l)**: data region by region; globals `sum d_j / (x_i + j)` with the points x of
//!   [`GeoShape::points`](crate::scheme::GeoShape::points), region by region; then for each region its l locals: the
//!   XOR of its data and its globals, and (l = 2) the sum of `2^(g r + i)` times its i-th shard, data first.
//!
//! In these sums `x + j` is the field's addition of the two numbers as bytes, and `/` its division.
//!
//! Not here: bytes (`engine`), which shards to read (`repair_plan`).
//!
//! **Invariant:** what a scheme's matrix is never changes: `tests.rs` holds each table frozen.
//!
//! Sources: Plank, Ding, "Note: Correction to the 1997 Tutorial on Reed-Solomon Coding" (2003); Huang et al., "Erasure
//! Coding in Windows Azure Storage" (ATC'12), section 2; Gopalan et al., "On the Locality of Codeword Symbols" (2012).

mod matrices;
pub(crate) mod solve;

#[cfg(test)]
mod proofs;
#[cfg(test)]
pub(crate) mod tests;

use crate::error::CodecError;
use crate::matrix::Matrix;
use crate::scheme::{Family, Scheme};
use crate::slot_set::SlotSet;

/// A run of shards that repair each other: the loss of any `parities` of them is mended by the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalGroup {
    /// All its slots, local parities included.
    pub members: SlotSet,
    /// How many losses it mends by itself.
    pub parities: usize,
}

impl LocalGroup {
    /// How many members must be read to mend the others.
    pub fn reads(&self) -> usize {
        self.members.len() - self.parities
    }
}

/// A parity that is the plain XOR of a run of data shards and of some other parities: kernels make it by the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct XorParity {
    /// Its row among the parities.
    pub(crate) row: usize,
    /// The data slots, `begin..end`.
    pub(crate) data: (usize, usize),
    /// Rows of the parities that are summed up in it too.
    pub(crate) parities: Vec<usize>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Code {
    scheme: Scheme,
    /// n rows of k: the identity, then one row per parity shard.
    generator: Matrix,
    groups: Vec<LocalGroup>,
    regions: usize,
    region_of: Vec<usize>,
    xor_parities: Vec<XorParity>,
}

impl Code {
    /// The code of a scheme. Schemes that know no regions (RS, LRC) lie in one.
    pub fn new(scheme: Scheme) -> Self {
        let (k, m) = (scheme.k(), scheme.m());
        match scheme.family() {
            Family::ReedSolomon => {
                let generator = Matrix::reed_solomon(k, m)
                    .expect("a Vandermonde matrix of at most 255 distinct points is invertible");
                Self::plain(scheme, generator, Vec::new(), Vec::new())
            }
            Family::AzureLrc => {
                let (groups, xors) = runs(k, 2);
                Self::plain(scheme, matrices::azure_lrc(k), groups, xors)
            }
            Family::CauchyLrc { groups, globals } => {
                let (count, globals) = (usize::from(groups), usize::from(globals));
                let (groups, xors) = runs(k, count);
                Self::plain(scheme, matrices::cauchy_lrc(k, count, globals), groups, xors)
            }
            Family::Geo(table) => {
                let shape = table.shape();
                let region_of: Vec<usize> = (0..scheme.n()).map(|slot| shape.region_of(slot)).collect();
                let members = |region| (0..scheme.n()).filter(|&slot| region_of[slot] == region).collect();
                let groups = (0..shape.regions)
                    .map(|region| LocalGroup { members: members(region), parities: shape.locals })
                    .collect();
                let xor_parities = (0..shape.regions)
                    .map(|region| XorParity {
                        row: shape.local_slot(region, 0) - k,
                        data: (region * shape.data, (region + 1) * shape.data),
                        parities: (region * shape.globals..(region + 1) * shape.globals).collect(),
                    })
                    .collect();
                let generator = matrices::geo(shape);
                Self { scheme, generator, groups, regions: shape.regions, region_of, xor_parities }
            }
        }
    }

    fn plain(scheme: Scheme, generator: Matrix, groups: Vec<LocalGroup>, xor_parities: Vec<XorParity>) -> Self {
        let region_of = vec![0; scheme.n()];
        Self { scheme, generator, groups, regions: 1, region_of, xor_parities }
    }

    /// A plain code over `regions` regions: slot s lies in region `s mod regions`, so that data and parities are
    /// spread evenly (7+5 and 6+6 over three regions have four shards in each). The bytes and the code id are those
    /// of the scheme: which backends hold a slot is the placement's word, this only says what it is meant to be.
    ///
    /// # Errors
    /// [`CodecError::RegionCount`] for no region, more regions than slots, or a geo code, which has its own regions.
    pub fn over_regions(scheme: Scheme, regions: usize) -> Result<Self, CodecError> {
        let has_own = matches!(scheme.family(), Family::Geo(_));
        if has_own || regions == 0 || regions > scheme.n() {
            return Err(CodecError::RegionCount { regions, slot_count: scheme.n() });
        }
        let region_of = (0..scheme.n()).map(|slot| slot % regions).collect();
        Ok(Self { regions, region_of, ..Self::new(scheme) })
    }

    /// Its scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Row `slot` of the generator: one coefficient per data shard. `None` for a slot that does not exist.
    pub fn row(&self, slot: usize) -> Option<&[u8]> {
        (slot < self.generator.rows()).then(|| self.generator.row(slot))
    }

    /// The local groups; disjoint, but some slots (global parities of an LRC, all of RS) may be in none.
    pub fn groups(&self) -> &[LocalGroup] {
        &self.groups
    }

    /// The group a slot is in, if any.
    pub fn group_of(&self, slot: usize) -> Option<&LocalGroup> {
        self.groups.iter().find(|group| group.members.contains(slot))
    }

    /// How many regions it is over.
    pub fn regions(&self) -> usize {
        self.regions
    }

    /// The region of a slot; `None` for a slot that does not exist.
    pub fn region_of(&self, slot: usize) -> Option<usize> {
        self.region_of.get(slot).copied()
    }

    /// The slots of a region, none for a region that does not exist.
    pub fn slots_in(&self, region: usize) -> SlotSet {
        (0..self.scheme.n()).filter(|&slot| self.region_of[slot] == region).collect()
    }

    pub(crate) fn generator(&self) -> &Matrix {
        &self.generator
    }

    pub(crate) fn xor_parities(&self) -> &[XorParity] {
        &self.xor_parities
    }
}

/// The local groups of an LRC: `count` runs of the data, each with its XOR in slot k + its number.
fn runs(k: usize, count: usize) -> (Vec<LocalGroup>, Vec<XorParity>) {
    let run = k / count;
    let group = |number: usize| {
        let data = (number * run, (number + 1) * run);
        let members = (data.0..data.1).chain([k + number]).collect();
        (LocalGroup { members, parities: 1 }, XorParity { row: number, data, parities: Vec::new() })
    };
    (0..count).map(group).unzip()
}
