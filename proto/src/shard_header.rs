//! The fixed binary header that makes every shard explain itself (docs/formats.md, "Shard header").
//!
//! 256 bytes, little-endian numbers, CRC-32C over all that precedes it. An unknown version is refused, never guessed.

use crate::ids::{BucketId, ClusterId, PgId, SegmentId, ShardId, Slot, VersionId};

/// Bytes of an encoded header.
pub const SHARD_HEADER_BYTES: usize = 256;
/// First bytes of every shard record.
pub const SHARD_MAGIC: [u8; 8] = *b"HFSHARD\x01";
/// The only header version so far.
pub const SHARD_FORMAT_VERSION: u16 = 1;

/// What a shard says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardHeader {
    /// The cluster that wrote it.
    pub cluster: ClusterId,
    /// PG, segment and slot.
    pub id: ShardId,
    /// Bucket of the object.
    pub bucket: BucketId,
    /// BLAKE3 of the object's key.
    pub key_hash: [u8; 32],
    /// Version of the object (for a part: the upload's id).
    pub version: VersionId,
    /// Code id: field, family, k, m (`codec::Scheme::code`).
    pub scheme: [u8; 4],
    /// Bytes of a full cell; the last cell of the shard may be shorter.
    pub cell_bytes: u32,
    /// Bytes of this shard's cells together, the same for all shards of the segment.
    pub shard_bytes: u64,
    /// Object bytes in the segment.
    pub segment_bytes: u64,
    /// Where the segment begins in its object or part.
    pub segment_offset: u64,
    /// Milliseconds since 1970 when it was written.
    pub created_ms: u64,
}

/// Why bytes are not a shard header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardHeaderError {
    /// Fewer bytes than a header has.
    #[error("shard header cut short: {got} of {SHARD_HEADER_BYTES} bytes")]
    Short {
        /// How many were given.
        got: usize,
    },
    /// The first bytes are not a shard's.
    #[error("not a shard header: wrong magic")]
    Magic,
    /// A format this build does not know.
    #[error("shard header version {version} is not known to this build")]
    Version {
        /// The version found.
        version: u16,
    },
    /// The checksum does not hold.
    #[error("shard header fails its checksum")]
    Checksum,
}

/// CRC-32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes)).expect("a CRC-32 has 32 bits")
}

impl ShardHeader {
    /// How many cells the shard has.
    pub fn cell_count(&self) -> u32 {
        u32::try_from(self.shard_bytes.div_ceil(u64::from(self.cell_bytes.max(1)))).unwrap_or(u32::MAX)
    }

    /// The stored form.
    pub fn encode(&self) -> [u8; SHARD_HEADER_BYTES] {
        let mut out = [0u8; SHARD_HEADER_BYTES];
        out[0..8].copy_from_slice(&SHARD_MAGIC);
        out[8..10].copy_from_slice(&SHARD_FORMAT_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.scheme);
        out[16..32].copy_from_slice(&self.cluster.0);
        out[32..48].copy_from_slice(&self.id.segment.0);
        out[48..52].copy_from_slice(&self.id.pg.0.to_le_bytes());
        out[52] = self.id.slot.0;
        out[56..64].copy_from_slice(&self.bucket.0.to_le_bytes());
        out[64..96].copy_from_slice(&self.key_hash);
        out[96..112].copy_from_slice(&self.version.0);
        out[112..116].copy_from_slice(&self.cell_bytes.to_le_bytes());
        out[120..128].copy_from_slice(&self.shard_bytes.to_le_bytes());
        out[128..136].copy_from_slice(&self.segment_bytes.to_le_bytes());
        out[136..144].copy_from_slice(&self.segment_offset.to_le_bytes());
        out[144..152].copy_from_slice(&self.created_ms.to_le_bytes());
        let crc = crc32c(&out[..SHARD_HEADER_BYTES - 4]);
        out[SHARD_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the stored form, checking magic, version and checksum.
    pub fn decode(bytes: &[u8]) -> Result<Self, ShardHeaderError> {
        let b: &[u8; SHARD_HEADER_BYTES] = bytes
            .get(..SHARD_HEADER_BYTES)
            .and_then(|b| b.try_into().ok())
            .ok_or(ShardHeaderError::Short { got: bytes.len() })?;
        if b[0..8] != SHARD_MAGIC {
            return Err(ShardHeaderError::Magic);
        }
        if crc32c(&b[..SHARD_HEADER_BYTES - 4]) != u32_at(b, SHARD_HEADER_BYTES - 4) {
            return Err(ShardHeaderError::Checksum);
        }
        let version = u16::from_le_bytes([b[8], b[9]]);
        if version != SHARD_FORMAT_VERSION {
            return Err(ShardHeaderError::Version { version });
        }
        Ok(Self {
            scheme: array(b, 12),
            cluster: ClusterId(array(b, 16)),
            id: ShardId { pg: PgId(u32_at(b, 48)), segment: SegmentId(array(b, 32)), slot: Slot(b[52]) },
            bucket: BucketId(u64_at(b, 56)),
            key_hash: array(b, 64),
            version: VersionId(array(b, 96)),
            cell_bytes: u32_at(b, 112),
            shard_bytes: u64_at(b, 120),
            segment_bytes: u64_at(b, 128),
            segment_offset: u64_at(b, 136),
            created_ms: u64_at(b, 144),
        })
    }
}

fn array<const N: usize>(b: &[u8; SHARD_HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0u8; N];
    out.copy_from_slice(&b[at..at + N]);
    out
}
fn u32_at(b: &[u8; SHARD_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(array(b, at))
}
fn u64_at(b: &[u8; SHARD_HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(array(b, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ShardHeader {
        ShardHeader {
            cluster: ClusterId([1; 16]),
            id: ShardId { pg: PgId(77), segment: SegmentId([2; 16]), slot: Slot(4) },
            bucket: BucketId(9),
            key_hash: [3; 32],
            version: VersionId([4; 16]),
            scheme: [0x1d, 1, 4, 2],
            cell_bytes: 65536,
            shard_bytes: 70000,
            segment_bytes: 280_000,
            segment_offset: 64 << 20,
            created_ms: 1_795_000_000_000,
        }
    }

    #[test]
    fn round_trip_and_cell_count() {
        let header = sample();
        assert_eq!(ShardHeader::decode(&header.encode()), Ok(header.clone()));
        assert_eq!(header.cell_count(), 2);
    }

    #[test]
    fn golden_bytes_of_version_1() {
        // Frozen: a change here is a new format version, not a new expectation.
        let hash = blake3::hash(&sample().encode()).to_hex();
        assert_eq!(&hash[..16], GOLDEN_V1);
    }
    const GOLDEN_V1: &str = "788ba6459533df88";

    #[test]
    fn any_flipped_bit_is_refused() {
        let good = sample().encode();
        for bit in 0..SHARD_HEADER_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ShardHeader::decode(&bad).is_err(), "bit {bit} flipped and still accepted");
        }
        assert_eq!(ShardHeader::decode(&good[..255]), Err(ShardHeaderError::Short { got: 255 }));
    }
}
