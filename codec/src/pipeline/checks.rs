//! Checksums over an object's bytes in order, computed beside the coding. The CRCs are those of the crate `crc-fast`,
//! kept behind a trait so that another can take its place.

use crc_fast::{CrcAlgorithm, Digest};

/// Something that takes in bytes in order.
pub trait ByteCheck {
    /// Takes in the next bytes.
    fn update(&mut self, bytes: &[u8]);
}

/// CRC-64/NVME, S3's default checksum.
#[derive(Clone, Debug)]
pub struct Crc64Nvme(Digest);

/// CRC-32C (Castagnoli).
#[derive(Clone, Debug)]
pub struct Crc32c(Digest);

impl Crc64Nvme {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Nvme))
    }

    /// Of the bytes so far.
    pub fn value(&self) -> u64 {
        self.0.finalize()
    }
}

impl Crc32c {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Of the bytes so far.
    pub fn value(&self) -> u32 {
        // A 32-bit CRC leaves the upper half empty.
        u32::try_from(self.0.finalize() & u64::from(u32::MAX)).unwrap_or(u32::MAX)
    }
}

impl Default for Crc64Nvme {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

impl ByteCheck for Crc64Nvme {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl ByteCheck for Crc32c {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}
