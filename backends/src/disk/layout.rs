//! Bytes of an extent file: its header block, and records made of frame, shard header, cells and hash trailer
//! (docs/formats.md, "Extents"). Pure: bytes in, values out.
//!
//! ```text
//! extent header, 4096 B    magic 0..8  version 8..10  number 12..16  cluster 16..32  backend 32..48  uuid 48..64
//!                          created_ms 64..72  crc32c of 0..124 at 124..128
//! record, on a 4 KiB boundary, a multiple of 4 KiB long
//!   frame, 64 B            magic 0..8  extent uuid 8..24  own offset 24..32  record bytes 32..40
//!                          data offset 40..48  crc32c of 0..60 at 60..64
//!   shard header, 256 B    proto::shard_header
//!   cells                  from 320 in records up to 128 KiB, from 4096 in longer ones
//!   hash trailer           magic 0..8  sequence 8..16  record offset 16..24  cells 24..32  32 B per cell
//!                          root 32 B  crc32c of all before
//! ```
//! Numbers are little-endian.
//!
//! Invariant: a frame names its extent's random id and its own offset, so that no object's bytes can pass for a record
//! in a scan, nor a record copied or written to the wrong place for one that belongs there.

use holdfast_proto::cell_buffer::CELL_ALIGNMENT;
use holdfast_proto::node::shard_root;
use holdfast_proto::shard_header::{SHARD_HEADER_BYTES, ShardHeader, crc32c};
use holdfast_proto::{BackendId, ClusterId};

/// Records begin and end on this boundary, the one O_DIRECT asks for.
pub(crate) const BLOCK_BYTES: u64 = CELL_ALIGNMENT as u64;
/// The extent's own header fills its first block.
pub(crate) const EXTENT_HEADER_BYTES: u64 = BLOCK_BYTES;
/// A record's frame and shard header together.
pub(crate) const HEAD_BYTES: usize = FRAME_BYTES + SHARD_HEADER_BYTES;
/// Records up to this size are built in one buffer, head, cells and trailer back to back. Copying 64 KiB costs
/// about 10 us, far less than the sync it shares; a block of its own for the head would waste a third of a small one.
pub(crate) const PACKED_RECORD_BYTES_MAX: u64 = 128 * 1024;
/// Most cells of one shard: its trailer then takes 2 MiB.
pub(crate) const CELLS_MAX: u32 = 65_536;

const FRAME_BYTES: usize = 64;
const EXTENT_MAGIC: [u8; 8] = *b"HFEXTNT\x01";
const FRAME_MAGIC: [u8; 8] = *b"HFRECRD\x01";
const TRAILER_MAGIC: [u8; 8] = *b"HFTRAIL\x01";
const EXTENT_FORMAT_VERSION: u16 = 1;
const EXTENT_CHECKED_BYTES: usize = 124;
const TRAILER_FIXED_BYTES: usize = 32;
const HASH_BYTES: usize = 32;
const CRC_BYTES: usize = 4;

/// What the first block of an extent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExtentHeader {
    pub(crate) cluster: ClusterId,
    pub(crate) backend: BackendId,
    /// Random, made with the file, in every frame.
    pub(crate) uuid: [u8; 16],
    /// The number its file name shows.
    pub(crate) number: u32,
    pub(crate) created_ms: u64,
}

impl ExtentHeader {
    pub(crate) fn encode(&self) -> [u8; EXTENT_HEADER_BYTES as usize] {
        let mut out = [0u8; EXTENT_HEADER_BYTES as usize];
        out[0..8].copy_from_slice(&EXTENT_MAGIC);
        out[8..10].copy_from_slice(&EXTENT_FORMAT_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..32].copy_from_slice(&self.cluster.0);
        out[32..48].copy_from_slice(&self.backend.0);
        out[48..64].copy_from_slice(&self.uuid);
        out[64..72].copy_from_slice(&self.created_ms.to_le_bytes());
        let crc = crc32c(&out[..EXTENT_CHECKED_BYTES]);
        out[EXTENT_CHECKED_BYTES..EXTENT_CHECKED_BYTES + CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the block, or says in a few words why it is no extent's.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.get(..EXTENT_CHECKED_BYTES + CRC_BYTES).ok_or("shorter than an extent header")?;
        if bytes[..8] != EXTENT_MAGIC {
            return Err("not an extent: wrong magic".to_owned());
        }
        if crc32c(&bytes[..EXTENT_CHECKED_BYTES]) != u32_at(bytes, EXTENT_CHECKED_BYTES) {
            return Err("extent header fails its checksum".to_owned());
        }
        let version = u16::from_le_bytes(array(bytes, 8));
        if version != EXTENT_FORMAT_VERSION {
            return Err(format!("extent format {version} is not known to this build"));
        }
        Ok(Self {
            number: u32_at(bytes, 12),
            cluster: ClusterId(array(bytes, 16)),
            backend: BackendId(array(bytes, 32)),
            uuid: array(bytes, 48),
            created_ms: u64_at(bytes, 64),
        })
    }
}

/// Where the pieces of a record lie, from its shard header alone. Offsets count from the record's begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordLayout {
    pub(crate) cell_count: u32,
    pub(crate) data_offset: u64,
    pub(crate) trailer_offset: u64,
    pub(crate) trailer_bytes: u64,
    /// Whole record, a multiple of [`BLOCK_BYTES`].
    pub(crate) record_bytes: u64,
}

impl RecordLayout {
    /// `Err` names what makes the header's shape impossible.
    pub(crate) fn of(header: &ShardHeader) -> Result<Self, String> {
        if header.cell_bytes == 0 {
            return Err("cells of 0 bytes".to_owned());
        }
        let cells = header.shard_bytes.div_ceil(u64::from(header.cell_bytes));
        let cell_count = u32::try_from(cells).ok().filter(|&count| count <= CELLS_MAX);
        let Some(cell_count) = cell_count else {
            return Err(format!("{cells} cells in a shard, at most {CELLS_MAX} are taken"));
        };
        let trailer_bytes = trailer_bytes(cell_count) as u64;
        let packed = (HEAD_BYTES as u64 + header.shard_bytes + trailer_bytes).next_multiple_of(BLOCK_BYTES);
        let data_offset = if packed <= PACKED_RECORD_BYTES_MAX { HEAD_BYTES as u64 } else { BLOCK_BYTES };
        let trailer_offset = data_offset + header.shard_bytes;
        let record_bytes = (trailer_offset + trailer_bytes).next_multiple_of(BLOCK_BYTES);
        Ok(Self { cell_count, data_offset, trailer_offset, trailer_bytes, record_bytes })
    }

    /// Bytes of the hash trailer of a shard of `cell_count` cells.
    pub(crate) fn trailer_bytes(cell_count: u32) -> u64 {
        trailer_bytes(cell_count) as u64
    }

    /// Whether the whole record is built in one buffer.
    pub(crate) fn is_packed(&self) -> bool {
        self.record_bytes <= PACKED_RECORD_BYTES_MAX
    }
}

/// What a record says before its cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub(crate) header: ShardHeader,
    pub(crate) layout: RecordLayout,
}

impl RecordHead {
    /// Frame and shard header of a record at `offset` of the extent `uuid`.
    pub(crate) fn encode(
        header: &ShardHeader,
        layout: &RecordLayout,
        uuid: &[u8; 16],
        offset: u64,
    ) -> [u8; HEAD_BYTES] {
        let mut out = [0u8; HEAD_BYTES];
        out[0..8].copy_from_slice(&FRAME_MAGIC);
        out[8..24].copy_from_slice(uuid);
        out[24..32].copy_from_slice(&offset.to_le_bytes());
        out[32..40].copy_from_slice(&layout.record_bytes.to_le_bytes());
        out[40..48].copy_from_slice(&layout.data_offset.to_le_bytes());
        let crc = crc32c(&out[..FRAME_BYTES - CRC_BYTES]);
        out[FRAME_BYTES - CRC_BYTES..FRAME_BYTES].copy_from_slice(&crc.to_le_bytes());
        out[FRAME_BYTES..].copy_from_slice(&header.encode());
        out
    }

    /// Reads what `encode` wrote at that place; the words say what does not hold.
    pub(crate) fn decode(bytes: &[u8], uuid: &[u8; 16], offset: u64) -> Result<Self, String> {
        let bytes = bytes.get(..HEAD_BYTES).ok_or("record cut short")?;
        if bytes[..8] != FRAME_MAGIC {
            return Err("no record frame there".to_owned());
        }
        if crc32c(&bytes[..FRAME_BYTES - CRC_BYTES]) != u32_at(bytes, FRAME_BYTES - CRC_BYTES) {
            return Err("record frame fails its checksum".to_owned());
        }
        if bytes[8..24] != uuid[..] || u64_at(bytes, 24) != offset {
            return Err("record frame belongs to another place".to_owned());
        }
        let header = ShardHeader::decode(&bytes[FRAME_BYTES..]).map_err(|error| error.to_string())?;
        let layout = RecordLayout::of(&header)?;
        if u64_at(bytes, 32) != layout.record_bytes || u64_at(bytes, 40) != layout.data_offset {
            return Err("record frame and shard header disagree on lengths".to_owned());
        }
        Ok(Self { header, layout })
    }

    /// Whether a block may begin a record of the extent: a cheap look before `decode`.
    pub(crate) fn may_begin(block: &[u8], uuid: &[u8; 16]) -> bool {
        block.len() >= HEAD_BYTES && block[..8] == FRAME_MAGIC && block[8..24] == uuid[..]
    }
}

/// The hashes behind a record's cells, and the order number of its writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// Grows with every finished record of the backend: of two records of one shard the greater is the newer.
    pub(crate) sequence: u64,
    pub(crate) hashes: Vec<[u8; 32]>,
    pub(crate) root: [u8; 32],
}

impl Trailer {
    pub(crate) fn new(sequence: u64, hashes: Vec<[u8; 32]>) -> Self {
        let root = shard_root(hashes.iter().copied());
        Self { sequence, hashes, root }
    }

    /// Stored form for the record at `offset`.
    pub(crate) fn encode(&self, offset: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER_FIXED_BYTES + (self.hashes.len() + 1) * HASH_BYTES + CRC_BYTES);
        out.extend_from_slice(&TRAILER_MAGIC);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&(self.hashes.len() as u64).to_le_bytes());
        for hash in &self.hashes {
            out.extend_from_slice(hash);
        }
        out.extend_from_slice(&self.root);
        out.extend_from_slice(&crc32c(&out).to_le_bytes());
        out
    }

    /// Reads and checks the trailer of the record at `offset`, its root against its hashes included.
    pub(crate) fn decode(bytes: &[u8], cell_count: u32, offset: u64) -> Result<Self, String> {
        let length = trailer_bytes(cell_count);
        let bytes = bytes.get(..length).ok_or("hash trailer cut short")?;
        if bytes[..8] != TRAILER_MAGIC {
            return Err("no hash trailer behind its cells".to_owned());
        }
        if crc32c(&bytes[..length - CRC_BYTES]) != u32_at(bytes, length - CRC_BYTES) {
            return Err("hash trailer fails its checksum".to_owned());
        }
        if u64_at(bytes, 16) != offset || u64_at(bytes, 24) != u64::from(cell_count) {
            return Err("hash trailer belongs to another record".to_owned());
        }
        let hashes_end = TRAILER_FIXED_BYTES + cell_count as usize * HASH_BYTES;
        let hashes =
            bytes[TRAILER_FIXED_BYTES..hashes_end].chunks_exact(HASH_BYTES).map(|hash| array(hash, 0)).collect();
        let trailer = Self::new(u64_at(bytes, 8), hashes);
        if trailer.root[..] != bytes[hashes_end..hashes_end + HASH_BYTES] {
            return Err("root does not follow from the cell hashes".to_owned());
        }
        Ok(trailer)
    }
}

fn trailer_bytes(cell_count: u32) -> usize {
    TRAILER_FIXED_BYTES + (cell_count as usize + 1) * HASH_BYTES + CRC_BYTES
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0u8; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::sample_header;

    const UUID: [u8; 16] = [9; 16];

    #[test]
    fn layouts_follow_the_size() {
        // shard bytes, cell bytes -> data offset, record bytes
        for (shard_bytes, cell_bytes, data_offset, record_bytes) in [
            (0, 4096, 320, 4096),
            (1, 4096, 320, 4096),
            (3_600, 65_536, 320, 4096),
            (65_536, 65_536, 320, 69_632),
            (130_000, 65_536, 320, 131_072),
            (131_072, 65_536, 4096, 139_264),
            (16 << 20, 65_536, 4096, (16 << 20) + 4096 + 12_288),
        ] {
            let header = ShardHeader { shard_bytes, cell_bytes, ..sample_header(1) };
            let layout = RecordLayout::of(&header).unwrap();
            assert_eq!((layout.data_offset, layout.record_bytes), (data_offset, record_bytes), "{shard_bytes}");
            assert_eq!(layout.is_packed(), data_offset == 320);
        }
        let header = ShardHeader { cell_bytes: 0, ..sample_header(1) };
        assert!(RecordLayout::of(&header).is_err());
        let header = ShardHeader { cell_bytes: 64, shard_bytes: u64::MAX - 5, ..sample_header(1) };
        assert!(RecordLayout::of(&header).is_err());
    }

    #[test]
    fn heads_trailers_and_extent_headers_round_trip_and_refuse_any_flipped_bit() {
        let header = sample_header(3);
        let layout = RecordLayout::of(&header).unwrap();
        let head = RecordHead::encode(&header, &layout, &UUID, 8192);
        assert_eq!(RecordHead::decode(&head, &UUID, 8192), Ok(RecordHead { header, layout }));
        assert!(RecordHead::decode(&head, &UUID, 4096).is_err());
        assert!(RecordHead::decode(&head, &[8; 16], 8192).is_err());
        refuses_flips(&head, |bytes| RecordHead::decode(bytes, &UUID, 8192).is_err());

        let trailer = Trailer::new(77, vec![[1; 32], [2; 32]]);
        let stored = trailer.encode(4096);
        assert_eq!(Trailer::decode(&stored, 2, 4096), Ok(trailer));
        assert!(Trailer::decode(&stored, 1, 4096).is_err());
        assert!(Trailer::decode(&stored, 2, 8192).is_err());
        refuses_flips(&stored, |bytes| Trailer::decode(bytes, 2, 4096).is_err());

        let extent = ExtentHeader {
            cluster: ClusterId([1; 16]),
            backend: BackendId([2; 16]),
            uuid: UUID,
            number: 7,
            created_ms: 1_795_000_000_000,
        };
        assert_eq!(ExtentHeader::decode(&extent.encode()), Ok(extent.clone()));
        refuses_flips(&extent.encode()[..128], |bytes| ExtentHeader::decode(bytes).is_err());
    }

    #[test]
    fn golden_bytes_of_version_1() {
        // Frozen: a change here is a new format version, not a new expectation.
        let header = sample_header(3);
        let layout = RecordLayout::of(&header).unwrap();
        let extent = ExtentHeader {
            cluster: ClusterId([1; 16]),
            backend: BackendId([2; 16]),
            uuid: UUID,
            number: 7,
            created_ms: 1_795_000_000_000,
        };
        let mut all = extent.encode().to_vec();
        all.extend_from_slice(&RecordHead::encode(&header, &layout, &UUID, 8192));
        all.extend_from_slice(&Trailer::new(77, vec![[1; 32], [2; 32]]).encode(8192));
        assert_eq!(&blake3::hash(&all).to_hex()[..16], GOLDEN_V1);
    }
    const GOLDEN_V1: &str = "4a01593c0d8637aa";

    fn refuses_flips(good: &[u8], refused: impl Fn(&[u8]) -> bool) {
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&bad), "bit {bit} flipped and still accepted");
        }
    }
}
