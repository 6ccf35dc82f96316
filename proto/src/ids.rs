//! Newtypes for every id, epoch and index. An id is opaque bytes or a number with one meaning; none converts into
//! another by accident.
//!
//! `SegmentId` and `VersionId` begin with their creation time in milliseconds, big-endian, so byte order is time order
//! and an orphan sweep can tell an old segment from one being written.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An id that could not be read: wrong length or a character that is not hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected {expected} hexadecimal characters, got {got:?}")]
pub struct IdError {
    /// How many characters a text form of this id has.
    pub expected: usize,
    /// What was given (at most its first 64 characters).
    pub got: String,
}

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The bytes as stored and sent.
            pub fn as_bytes(&self) -> &[u8] { &self.0 }
            /// Reads the stored form; `None` unless it is exactly 16 bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> { Some(Self(bytes.try_into().ok()?)) }
            /// Builds a time-ordered id: 48 bits of `unix_ms`, then 80 bits of `random`.
            pub fn from_parts(unix_ms: u64, random: [u8; 10]) -> Self {
                let mut id = [0u8; 16];
                id[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
                id[6..].copy_from_slice(&random);
                Self(id)
            }
            /// The creation time in milliseconds since 1970 that `from_parts` put in.
            pub fn unix_ms(&self) -> u64 {
                let mut ms = [0u8; 8];
                ms[2..].copy_from_slice(&self.0[..6]);
                u64::from_be_bytes(ms)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&hex::encode(self.0)) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex::encode(self.0))
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                let mut id = [0u8; 16];
                hex::decode_to_slice(s, &mut id)
                    .map_err(|_| IdError { expected: 32, got: s.chars().take(64).collect() })?;
                Ok(Self(id))
            }
        }
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.collect_str(self) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id16!(
    /// One cluster, made once at its first start; every durable thing carries it.
    ClusterId
);
id16!(
    /// One backend: a disk directory, or later a vendor bucket. A replaced disk gets a new one.
    BackendId
);
id16!(
    /// One segment: up to 64 MiB of object bytes placed and coded as one.
    SegmentId
);
id16!(
    /// One version of one key. Newer versions of a key sort after older ones.
    VersionId
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $int);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    };
}

number!(
    /// A bucket, numbered by the root group; never reused.
    BucketId(u64)
);
number!(
    /// A node, numbered by the root group when it joins; never reused. Also its number as a Raft voter.
    NodeId(u64)
);
number!(
    /// A placement group: one ordered list of backends, one per slot.
    PgId(u32)
);
number!(
    /// A position in a placement group: 0..k are data, k..k+m parity.
    Slot(u8)
);
number!(
    /// The ever-growing number of a cluster map or PG table.
    Epoch(u64)
);

impl NodeId {
    /// The node that makes a cluster.
    pub const FIRST: Self = Self(1);
}

/// Names one shard. Shards are immutable: the same id always means the same bytes.
/// Ordered by PG, then segment, then slot, as backends index them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId {
    /// The placement group the segment was hashed to.
    pub pg: PgId,
    /// The segment this is a shard of.
    pub segment: SegmentId,
    /// Which of the segment's n shards.
    pub slot: Slot,
}

impl ShardId {
    /// Bytes of the stored form.
    pub const ENCODED_BYTES: usize = 21;

    /// PG, segment and slot, big-endian: byte order is id order.
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut out = [0u8; Self::ENCODED_BYTES];
        out[..4].copy_from_slice(&self.pg.0.to_be_bytes());
        out[4..20].copy_from_slice(&self.segment.0);
        out[20] = self.slot.0;
        out
    }

    /// Reads what `encode` wrote; `None` for any other length.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::ENCODED_BYTES] = bytes.try_into().ok()?;
        let mut pg = [0u8; 4];
        pg.copy_from_slice(&bytes[..4]);
        Some(Self {
            pg: PgId(u32::from_be_bytes(pg)),
            segment: SegmentId::from_slice(&bytes[4..20])?,
            slot: Slot(bytes[20]),
        })
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.pg, self.segment, self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_round_trip() {
        let id = SegmentId::from_parts(1_795_000_000_123, [7; 10]);
        assert_eq!(id.to_string().parse::<SegmentId>().unwrap(), id);
        assert_eq!(id.unix_ms(), 1_795_000_000_123);
        let shard = ShardId { pg: PgId(258), segment: id, slot: Slot(5) };
        assert_eq!(ShardId::decode(&shard.encode()), Some(shard));
        assert_eq!(ShardId::decode(&shard.encode()[1..]), None);
        assert!("zz".parse::<SegmentId>().is_err());
    }

    #[test]
    fn later_ids_sort_after_earlier_ones() {
        let early = VersionId::from_parts(1_000, [255; 10]);
        let late = VersionId::from_parts(1_001, [0; 10]);
        assert!(early < late);
    }
}
