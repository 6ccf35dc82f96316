//! Questions of rank, and the coefficients that express some shards by others.
//!
//! All of it works on the part of the matrix that matters: the columns of the data shards that are not at hand, which
//! are at most m, and the rows of the parities that are.

use crate::field;
use crate::matrix::{Matrix, add_scaled};
use crate::slot_set::SlotSet;

/// Whether the shards `present` determine all data (so everything).
pub(crate) fn decodable(generator: &Matrix, present: &SlotSet) -> bool {
    let k = generator.columns();
    let lost: Vec<usize> = SlotSet::first(k).difference(present).iter().collect();
    let mut rows: Vec<u8> = Vec::with_capacity(generator.rows() * lost.len());
    let mut count = 0;
    for slot in present.iter().filter(|&slot| (k..generator.rows()).contains(&slot)) {
        let row = generator.row(slot);
        rows.extend(lost.iter().map(|&column| row[column]));
        count += 1;
    }
    count >= lost.len() && has_full_rank(&mut rows, lost.len())
}

/// Whether rows of `columns` bytes each have that rank. Destroys them.
fn has_full_rank(rows: &mut [u8], columns: usize) -> bool {
    if columns == 0 {
        return true;
    }
    let count = rows.len() / columns;
    for column in 0..columns {
        let Some(pivot) = (column..count).find(|&row| rows[row * columns + column] != 0) else { return false };
        for c in column..columns {
            rows.swap(pivot * columns + c, column * columns + c);
        }
        let (above, below) = rows.split_at_mut((column + 1) * columns);
        let pivot = &above[column * columns + column..];
        let Some(scale) = field::inverse(pivot[0]) else { return false };
        for row in below.chunks_exact_mut(columns) {
            let factor = field::mul(row[column], scale);
            add_scaled(&mut row[column..], factor, pivot);
        }
    }
    true
}

/// Coefficients over `inputs` (in that order) for each of `wanted`, or `None` if the inputs do not determine all of
/// them. The inputs need not determine the whole stripe, nor be independent; coefficients that are not needed are 0.
pub(crate) fn express(generator: &Matrix, inputs: &SlotSet, wanted: &SlotSet) -> Option<Vec<Vec<u8>>> {
    let k = generator.columns();
    let parities: Vec<usize> = inputs.iter().filter(|&slot| slot >= k).collect();
    let lost: Vec<usize> = SlotSet::first(k).difference(inputs).iter().collect();
    let wanted: Vec<usize> = wanted.iter().collect();

    // For each wanted shard the weights y of the parities with y * P = w, both on the columns of the lost data.
    // Transposed: one equation per lost column, one unknown per parity, one right side per wanted shard.
    let (unknowns, width) = (parities.len(), parities.len() + wanted.len());
    let mut system = Matrix::zero(lost.len(), width);
    for (equation, &column) in lost.iter().enumerate() {
        for (c, &slot) in parities.iter().chain(&wanted).enumerate() {
            system.set(equation, c, generator.get(slot, column));
        }
    }
    let pivots = reduce(&mut system, unknowns)?;

    let row_of = |(number, &slot): (usize, &usize)| {
        let mut weights = vec![0; unknowns];
        for (equation, &unknown) in pivots.iter().enumerate() {
            weights[unknown] = system.get(equation, unknowns + number);
        }
        // What the weighted parities hold of the data at hand goes to that data's coefficients.
        let mut data = generator.row(slot).to_vec();
        for (&parity, &weight) in parities.iter().zip(&weights) {
            add_scaled(&mut data, weight, generator.row(parity));
        }
        let mut weights = weights.into_iter();
        inputs.iter().map(|input| if input < k { data[input] } else { weights.next().unwrap_or(0) }).collect()
    };
    Some(wanted.iter().enumerate().map(row_of).collect())
}

/// Gauss-Jordan on the first `unknowns` columns: the unknown solved by each of the first rows. `None` if an equation
/// without unknowns has a right side that is not zero.
fn reduce(system: &mut Matrix, unknowns: usize) -> Option<Vec<usize>> {
    let (rows, width) = (system.rows(), system.columns());
    let mut pivots = Vec::new();
    for unknown in 0..unknowns {
        let at = pivots.len();
        let Some(found) = (at..rows).find(|&row| system.get(row, unknown) != 0) else { continue };
        system.swap_rows(found, at);
        system.scale_row(at, field::inverse(system.get(at, unknown))?);
        let pivot = system.row(at).to_vec();
        for row in (0..rows).filter(|&row| row != at) {
            let factor = system.get(row, unknown);
            add_scaled(system.row_mut(row), factor, &pivot);
        }
        pivots.push(unknown);
    }
    let solvable = (pivots.len()..rows).all(|row| (unknowns..width).all(|c| system.get(row, c) == 0));
    solvable.then_some(pivots)
}

/// Of the slots in `order`, those that add to the rank of the ones before: a basis of what all of them determine, the
/// first in the order preferred. Stops at rank k.
pub(crate) fn basis(generator: &Matrix, order: impl Iterator<Item = usize>) -> SlotSet {
    let k = generator.columns();
    let (mut chosen, mut reduced) = (SlotSet::new(), Vec::<(usize, Vec<u8>)>::new());
    for slot in order {
        let mut row = generator.row(slot).to_vec();
        for (pivot, known) in &reduced {
            let factor = row[*pivot];
            add_scaled(&mut row, factor, known);
        }
        let Some(pivot) = row.iter().position(|&cell| cell != 0) else { continue };
        let Some(scale) = field::inverse(row[pivot]) else { continue };
        for cell in &mut row {
            *cell = field::mul(*cell, scale);
        }
        chosen.insert(slot);
        reduced.push((pivot, row));
        if reduced.len() == k {
            break;
        }
    }
    chosen
}
