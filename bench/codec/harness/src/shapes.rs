//! The shapes compared, and how their figures are printed.

/// k and m of each.
pub const SHAPES: [(usize, usize); 7] = [(4, 2), (6, 3), (8, 4), (10, 4), (12, 4), (17, 3), (20, 10)];
/// Bytes of all n cells of an L2-resident stripe.
pub const L2_STRIPE_BYTES: usize = 384 << 10;
/// Data bytes of a stripe beyond every cache.
pub const LARGE_DATA_BYTES: usize = 64 << 20;

/// Length of each of n cells of an L2-resident stripe: a multiple of 64.
pub fn l2_cell_bytes(n: usize) -> usize {
    L2_STRIPE_BYTES / n / 64 * 64
}

/// One line of a table: a name and a figure for each shape.
pub fn print_row(name: &str, figures: &[f64]) {
    let cells: String = figures.iter().map(|figure| format!("{figure:>8.2}")).collect();
    println!("{name:<44}{cells}");
}

/// The head of a table over all shapes.
pub fn print_head(title: &str) {
    let shapes: String = SHAPES.iter().map(|(k, m)| format!("{:>8}", format!("{k}+{m}"))).collect();
    println!("\n{title:<44}{shapes}");
}
