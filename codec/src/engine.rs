//! The kernels: linear combinations of byte slices over GF(2^8), picked at run time by what the processor can do.
//!
//! Encoding and decoding are the same work with other coefficients: each output is a sum of coefficients times inputs.
//! The fast kernels hold all outputs of a column of bytes in registers while they read each input once; their common
//! loops are in `columns` and `grouped`, their instructions in a file each.
//!
//! Not here: which coefficients (`codec`), argument errors (`Codec` has refused them before an engine sees them).
//!
//! **Invariant:** every engine gives the same bytes as `reference`, for every shape and length (`engine/tests.rs`).

mod columns;
mod combination;
mod grouped;
mod lanes;
mod portable;
mod reference;
mod vector_engine;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod gfni256;
#[cfg(target_arch = "x86_64")]
mod gfni512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod ssse3;

#[cfg(test)]
mod tests;

pub use combination::Combination;

/// How an engine writes its outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Overwrites them; they stay in the cache for whoever reads them next.
    Replace,
    /// Overwrites them past the cache: for stripes larger than the cache that nobody reads soon. Only whole registers
    /// at aligned places go past it, and only if all outputs are misaligned by the same amount (or not at all).
    Stream,
    /// Adds to what they hold (XOR).
    Add,
}

/// One way to compute combinations.
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// Its name, for logs and benchmarks.
    fn name(&self) -> &'static str;

    /// Computes every output's combination of the inputs and stores it as `store` says.
    ///
    /// `inputs` are `combination.inputs()` slices and `outputs` are `combination.outputs()` slices, all of one length
    /// (any, also 0); anything else is a fault of the program and asserted. Nothing is allocated.
    fn combine(&self, combination: &Combination, inputs: &[&[u8]], outputs: &mut [&mut [u8]], store: Store);
}

/// The obvious engine, which runs everywhere: the reference of all others.
pub fn reference() -> &'static dyn Engine {
    &reference::Reference
}

/// Plain code without vector instructions of its own, several times as fast as the reference: what runs where no
/// vector engine can.
pub fn portable() -> &'static dyn Engine {
    &portable::Portable
}

/// Every engine this processor can run, best first; the last is the reference.
pub fn available() -> Vec<&'static dyn Engine> {
    let mut found: Vec<&'static dyn Engine> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        found.extend(gfni512::Gfni512::detect().map(|engine| engine as &dyn Engine));
        found.extend(gfni256::Gfni256::detect().map(|engine| engine as &dyn Engine));
        found.extend(avx2::Avx2::detect().map(|engine| engine as &dyn Engine));
        found.extend(ssse3::Ssse3::detect().map(|engine| engine as &dyn Engine));
    }
    #[cfg(target_arch = "aarch64")]
    found.extend(neon::Neon::detect().map(|engine| engine as &dyn Engine));
    found.push(portable());
    found.push(reference());
    found
}

/// The best engine this processor can run.
pub fn best() -> &'static dyn Engine {
    available().into_iter().next().unwrap_or(portable())
}

/// The engine of that name, if this processor can run it: to force one in tests and benchmarks.
pub fn by_name(name: &str) -> Option<&'static dyn Engine> {
    available().into_iter().find(|engine| engine.name() == name)
}
