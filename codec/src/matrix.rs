//! Small dense matrices over GF(2^8): make a generator, invert, multiply.
//!
//! Not here: anything that touches object bytes.

use crate::field;

/// A matrix, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Matrix {
    columns: usize,
    cells: Vec<u8>,
}

impl Matrix {
    /// All zero.
    pub(crate) fn zero(rows: usize, columns: usize) -> Self {
        Self { columns, cells: vec![0; rows * columns] }
    }

    /// Ones on the diagonal.
    pub(crate) fn identity(size: usize) -> Self {
        Self::systematic(size, 0)
    }

    /// `k` rows of the identity, then `m` rows of zeros.
    pub(crate) fn systematic(k: usize, m: usize) -> Self {
        let mut matrix = Self::zero(k + m, k);
        for i in 0..k {
            matrix.set(i, i, 1);
        }
        matrix
    }

    /// `V[r][c] = r^c`, with `0^0 = 1`. At most 256 rows are distinct; schemes have at most 255.
    pub(crate) fn vandermonde(rows: usize, columns: usize) -> Self {
        let mut matrix = Self::zero(rows, columns);
        for r in 0..rows {
            let point = u8::try_from(r).unwrap_or(u8::MAX);
            for c in 0..columns {
                matrix.set(r, c, field::power(point, c));
            }
        }
        matrix
    }

    /// The systematic generator of RS(k, m): `n = k + m` rows of k, the top k the identity, any k rows invertible.
    /// `None` cannot happen for k + m <= 255: a Vandermonde matrix of distinct points is invertible.
    pub(crate) fn reed_solomon(k: usize, m: usize) -> Option<Self> {
        let wide = Self::vandermonde(k + m, k);
        let mut top = Self::zero(k, k);
        for r in 0..k {
            top.row_mut(r).copy_from_slice(wide.row(r));
        }
        Some(wide.times(&top.inverse()?))
    }

    pub(crate) fn rows(&self) -> usize {
        self.cells.len().checked_div(self.columns).unwrap_or(0)
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn get(&self, row: usize, column: usize) -> u8 {
        self.cells[row * self.columns + column]
    }

    pub(crate) fn set(&mut self, row: usize, column: usize, value: u8) {
        self.cells[row * self.columns + column] = value;
    }

    pub(crate) fn row(&self, row: usize) -> &[u8] {
        &self.cells[row * self.columns..(row + 1) * self.columns]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [u8] {
        &mut self.cells[row * self.columns..(row + 1) * self.columns]
    }

    /// Product; the columns of `self` are as many as the rows of `right`.
    pub(crate) fn times(&self, right: &Self) -> Self {
        let mut product = Self::zero(self.rows(), right.columns);
        for r in 0..self.rows() {
            for (i, &factor) in self.row(r).iter().enumerate() {
                add_scaled(product.row_mut(r), factor, right.row(i));
            }
        }
        product
    }

    /// Gauss-Jordan with row exchange; `None` if the matrix is singular or not square.
    pub(crate) fn inverse(&self) -> Option<Self> {
        let size = self.rows();
        if size != self.columns {
            return None;
        }
        let (mut left, mut right) = (self.clone(), Self::identity(size));
        for column in 0..size {
            let pivot = (column..size).find(|&r| left.get(r, column) != 0)?;
            left.swap_rows(pivot, column);
            right.swap_rows(pivot, column);
            let scale = field::inverse(left.get(column, column))?;
            left.scale_row(column, scale);
            right.scale_row(column, scale);
            let (left_pivot, right_pivot) = (left.row(column).to_vec(), right.row(column).to_vec());
            for row in (0..size).filter(|&row| row != column) {
                let factor = left.get(row, column);
                add_scaled(left.row_mut(row), factor, &left_pivot);
                add_scaled(right.row_mut(row), factor, &right_pivot);
            }
        }
        Some(right)
    }

    pub(crate) fn swap_rows(&mut self, a: usize, b: usize) {
        for c in 0..self.columns {
            self.cells.swap(a * self.columns + c, b * self.columns + c);
        }
    }

    pub(crate) fn scale_row(&mut self, row: usize, factor: u8) {
        for cell in self.row_mut(row) {
            *cell = field::mul(*cell, factor);
        }
    }
}

/// `target += factor * row`.
pub(crate) fn add_scaled(target: &mut [u8], factor: u8, row: &[u8]) {
    if factor == 0 {
        return;
    }
    for (cell, &value) in target.iter_mut().zip(row) {
        *cell ^= field::mul(factor, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generators_are_systematic_for_all_sizes() {
        for (k, m) in [(1, 1), (2, 1), (4, 2), (6, 3), (17, 3), (20, 10), (100, 20), (254, 1), (1, 254)] {
            let generator = Matrix::reed_solomon(k, m).unwrap();
            assert_eq!((generator.rows(), generator.columns()), (k + m, k));
            for r in 0..k {
                assert!((0..k).all(|c| generator.get(r, c) == u8::from(r == c)), "row {r} of RS({k},{m})");
            }
        }
    }

    #[test]
    fn an_inverse_undoes_its_matrix_and_a_singular_one_has_none() {
        let square = |rows: [[u8; 3]; 3]| Matrix { columns: 3, cells: rows.concat() };
        let matrix = square([[0, 3, 5], [7, 0, 1], [2, 9, 0]]);
        assert_eq!(matrix.times(&matrix.inverse().unwrap()), Matrix::identity(3));
        assert_eq!(square([[1, 2, 3], [2, 4, 6], [0, 1, 1]]).inverse(), None);
        assert_eq!(Matrix::zero(2, 3).inverse(), None);
        assert_eq!(Matrix::zero(0, 0).inverse(), Some(Matrix::zero(0, 0)));
    }
}
