//! The generator matrices of the locally repairable families, from their points. `code` says how and why.

use crate::field;
use crate::matrix::{Matrix, add_scaled};
use crate::scheme::GeoShape;

impl GeoShape {
    /// The region of a slot: data, globals and locals are each laid out region by region.
    pub(crate) fn region_of(&self, slot: usize) -> usize {
        let (k, globals) = (self.k(), self.regions * self.globals);
        if slot < k {
            slot / self.data
        } else if slot < k + globals {
            (slot - k) / self.globals
        } else {
            (slot - k - globals) / self.locals
        }
    }

    /// The slot of a region's local parity.
    pub(crate) fn local_slot(&self, region: usize, local: usize) -> usize {
        self.k() + self.regions * self.globals + region * self.locals + local
    }
}

/// `1 / (x + j)` for each data shard j.
fn cauchy_row(x: usize, k: usize) -> Vec<u8> {
    let inverse = |j: usize| {
        let sum = u8::try_from(x ^ j).ok().and_then(field::inverse);
        sum.expect("points are bytes and none is the number of a data shard")
    };
    (0..k).map(inverse).collect()
}

pub(super) fn azure_lrc(k: usize) -> Matrix {
    let mut generator = Matrix::systematic(k, 4);
    for j in 0..k {
        let half = k / 2;
        let weight = if j < half { 16 * (j + 1) } else { j - half + 1 };
        let weight = u8::try_from(weight).expect("at most 15 weights of four bits");
        generator.set(k + j / half, j, 1);
        generator.set(k + 2, j, weight);
        generator.set(k + 3, j, field::mul(weight, weight));
    }
    generator
}

pub(super) fn cauchy_lrc(k: usize, groups: usize, globals: usize) -> Matrix {
    let mut generator = Matrix::systematic(k, groups + globals);
    for j in 0..k {
        generator.set(k + j / (k / groups), j, 1);
    }
    for i in 0..globals {
        generator.row_mut(k + groups + i).copy_from_slice(&cauchy_row(k + i, k));
    }
    generator
}

pub(super) fn geo(shape: &GeoShape) -> Matrix {
    let k = shape.k();
    let mut generator = Matrix::systematic(k, shape.m());
    for (i, &point) in shape.points.iter().enumerate() {
        generator.row_mut(k + i).copy_from_slice(&cauchy_row(usize::from(point), k));
    }
    for region in 0..shape.regions {
        let data = region * shape.data..(region + 1) * shape.data;
        let globals = k + region * shape.globals..k + (region + 1) * shape.globals;
        for local in 0..shape.locals {
            let slot = shape.local_slot(region, local);
            for (i, member) in data.clone().chain(globals.clone()).enumerate() {
                let weight = field::power(2, local * (region * (shape.data + shape.globals) + i));
                let row = generator.row(member).to_vec();
                add_scaled(generator.row_mut(slot), weight, &row);
            }
        }
    }
    generator
}
