//! What a node answers: the results within a `Reply`.

use super::requests::joined;
use super::{
    LIST_SHARDS_MAX, Malformed, backend_bytes, backend_from, hash_from, optional_shard_from, shard_bytes, shard_from,
    shards_bytes, shards_from, text_bounded, text_from,
};
use crate::ids::BackendId;
use crate::node::{BackendHealth, BackendStatus, ScrubStep, ShardRead, ShardStat};
use crate::shard_header::ShardHeader;
use bytes::Bytes;

/// Backends a node may report; a machine has tens.
const BACKENDS_MAX: usize = 4096;
/// Damaged shards one step of scrub may report: as many as a listing's page.
const DAMAGED_MAX: usize = 100_000;

/// A result without content: begun, deleted, removed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// What a backend holds of a shard.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StatMessage {
    /// 21 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// Bytes of its cells.
    #[prost(uint64, tag = "2")]
    pub shard_bytes: u64,
    /// Bytes of a full cell.
    #[prost(uint32, tag = "3")]
    pub cell_bytes: u32,
    /// 32 bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub root: Bytes,
    /// When verified last.
    #[prost(uint64, tag = "5")]
    pub verified_ms: u64,
}

/// ShardStat: what there is, if anything.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StatReply {
    /// Absent if the backend does not hold it.
    #[prost(message, optional, tag = "1")]
    pub stat: Option<StatMessage>,
}

/// ShardList.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StatList {
    /// In id order.
    #[prost(message, repeated, tag = "1")]
    pub stats: Vec<StatMessage>,
}

/// ShardRead: the cells themselves are the frame's body.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReadHead {
    /// The stored form of the shard header, 256 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub header: Bytes,
    /// Indexes of the cells that failed their hash; their bytes are zeros.
    #[prost(uint32, repeated, tag = "2")]
    pub damaged: Vec<u32>,
    /// The hashes of all cells of the shard in order, 32 bytes each, so that the reader can hold them against the root
    /// and the cells against them.
    #[prost(bytes = "bytes", tag = "3")]
    pub cell_hashes: Bytes,
}

/// ShardScrub.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ScrubReply {
    /// Shards read.
    #[prost(uint64, tag = "1")]
    pub shards: u64,
    /// Bytes read.
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    /// 21 bytes each.
    #[prost(bytes = "bytes", tag = "3")]
    pub damaged: Bytes,
    /// Where to go on, 21 bytes; empty when through.
    #[prost(bytes = "bytes", tag = "4")]
    pub next: Bytes,
}

/// A backend as its node sees it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StatusMessage {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// Short name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// `disk:PATH`.
    #[prost(string, tag = "3")]
    pub location: String,
    /// 1 online, 2 read-only, 3 missing, 4 wiped, 5 foreign, 6 failed.
    #[prost(uint32, tag = "4")]
    pub health: u32,
    /// Why it is not online.
    #[prost(string, tag = "5")]
    pub reason: String,
    /// Bytes of its file system.
    #[prost(uint64, tag = "6")]
    pub capacity_bytes: u64,
    /// Bytes free there.
    #[prost(uint64, tag = "7")]
    pub free_bytes: u64,
    /// Bytes its shards take.
    #[prost(uint64, tag = "8")]
    pub used_bytes: u64,
    /// Shards it holds.
    #[prost(uint64, tag = "9")]
    pub shard_count: u64,
    /// When the last full scrub ended; 0 for never.
    #[prost(uint64, tag = "10")]
    pub scrubbed_ms: u64,
}

/// Backends: all of a node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BackendList {
    /// In id order.
    #[prost(message, repeated, tag = "1")]
    pub backends: Vec<StatusMessage>,
}

/// DataPing: a backend in short.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BackendSummary {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// As in `StatusMessage`.
    #[prost(uint32, tag = "2")]
    pub health: u32,
}

impl From<&ShardStat> for StatMessage {
    fn from(stat: &ShardStat) -> Self {
        Self {
            id: shard_bytes(stat.id),
            shard_bytes: stat.shard_bytes,
            cell_bytes: stat.cell_bytes,
            root: Bytes::copy_from_slice(&stat.root),
            verified_ms: stat.verified_ms,
        }
    }
}

/// Reads a stat.
///
/// # Errors
/// An id or hash of another length.
pub fn stat_from(message: StatMessage) -> Result<ShardStat, Malformed> {
    Ok(ShardStat {
        id: shard_from(&message.id)?,
        shard_bytes: message.shard_bytes,
        cell_bytes: message.cell_bytes,
        root: hash_from(&message.root)?,
        verified_ms: message.verified_ms,
    })
}

impl StatList {
    /// A page.
    pub fn new(stats: &[ShardStat]) -> Self {
        Self { stats: stats.iter().map(StatMessage::from).collect() }
    }

    /// The stats.
    ///
    /// # Errors
    /// One that is malformed, or more than a page holds.
    pub fn parse(self) -> Result<Vec<ShardStat>, Malformed> {
        if self.stats.len() > LIST_SHARDS_MAX {
            return Err(Malformed::new(format!("a page of {} shards", self.stats.len())));
        }
        self.stats.into_iter().map(stat_from).collect()
    }
}

impl ReadHead {
    /// The head for what was read.
    pub fn new(read: &ShardRead) -> Self {
        Self {
            header: Bytes::copy_from_slice(&read.header.encode()),
            damaged: read.damaged.clone(),
            cell_hashes: read.cell_hashes.concat().into(),
        }
    }

    /// The cells that `body` carries for a request of cells `first..first + count`. What they are is not verified yet
    /// (`ShardRead::verify`).
    ///
    /// # Errors
    /// A header that fails its check; another number of cells or bytes than asked for; damaged cells that were not
    /// asked for.
    pub fn into_read(self, body: Vec<Bytes>, (first, count): (u32, u32)) -> Result<ShardRead, Malformed> {
        let header = ShardHeader::decode(&self.header).map_err(|error| Malformed::new(error.to_string()))?;
        let cell_bytes = u64::from(header.cell_bytes.max(1));
        let from = u64::from(first) * cell_bytes;
        let to = (u64::from(first) + u64::from(count)).saturating_mul(cell_bytes).min(header.shard_bytes);
        let bytes = joined(body);
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) != to.saturating_sub(from) {
            return Err(Malformed::new(format!("{} bytes for cells {first}+{count}", bytes.len())));
        }
        let asked = u64::from(first)..u64::from(first) + u64::from(count);
        if self.damaged.len() > bytes.len() || self.damaged.iter().any(|&cell| !asked.contains(&u64::from(cell))) {
            return Err(Malformed::new("damaged cells that were not asked for"));
        }
        if !self.cell_hashes.len().is_multiple_of(32) {
            return Err(Malformed::new(format!("{} bytes of hashes", self.cell_hashes.len())));
        }
        let cell_hashes = self.cell_hashes.chunks_exact(32).map(hash_from).collect::<Result<_, _>>()?;
        Ok(ShardRead { header, bytes, damaged: self.damaged, cell_hashes })
    }
}

impl ScrubReply {
    /// What a step found.
    pub fn new(step: &ScrubStep) -> Self {
        let damaged = &step.damaged[..step.damaged.len().min(DAMAGED_MAX)];
        let next = step.next.map_or_else(Bytes::new, shard_bytes);
        Self { shards: step.shards, bytes: step.bytes, damaged: shards_bytes(damaged), next }
    }

    /// The step.
    ///
    /// # Errors
    /// An id of another length.
    pub fn parse(&self) -> Result<ScrubStep, Malformed> {
        Ok(ScrubStep {
            shards: self.shards,
            bytes: self.bytes,
            damaged: shards_from(&self.damaged, DAMAGED_MAX)?,
            next: optional_shard_from(&self.next)?,
        })
    }
}

impl From<&BackendStatus> for StatusMessage {
    fn from(status: &BackendStatus) -> Self {
        Self {
            id: backend_bytes(status.id),
            name: text_bounded(&status.name),
            location: text_bounded(&status.location),
            health: health_code(status.health),
            reason: text_bounded(&status.reason),
            capacity_bytes: status.capacity_bytes,
            free_bytes: status.free_bytes,
            used_bytes: status.used_bytes,
            shard_count: status.shard_count,
            scrubbed_ms: status.scrubbed_ms,
        }
    }
}

/// Reads a status.
///
/// # Errors
/// An id of another length, a text too long, a health this build does not know.
pub fn status_from(message: StatusMessage) -> Result<BackendStatus, Malformed> {
    Ok(BackendStatus {
        id: backend_from(&message.id)?,
        name: text_from(message.name)?,
        location: text_from(message.location)?,
        health: health_from(message.health)?,
        reason: text_from(message.reason)?,
        capacity_bytes: message.capacity_bytes,
        free_bytes: message.free_bytes,
        used_bytes: message.used_bytes,
        shard_count: message.shard_count,
        scrubbed_ms: message.scrubbed_ms,
    })
}

impl BackendList {
    /// All backends.
    pub fn new(backends: &[BackendStatus]) -> Self {
        Self { backends: backends.iter().take(BACKENDS_MAX).map(StatusMessage::from).collect() }
    }

    /// The backends.
    ///
    /// # Errors
    /// One that is malformed, or more than a machine has.
    pub fn parse(self) -> Result<Vec<BackendStatus>, Malformed> {
        if self.backends.len() > BACKENDS_MAX {
            return Err(Malformed::new(format!("{} backends", self.backends.len())));
        }
        self.backends.into_iter().map(status_from).collect()
    }
}

impl BackendSummary {
    /// Of a backend.
    pub fn new(id: BackendId, health: BackendHealth) -> Self {
        Self { id: backend_bytes(id), health: health_code(health) }
    }

    /// Which, and how it is.
    ///
    /// # Errors
    /// An id of another length, a health this build does not know.
    pub fn parse(&self) -> Result<(BackendId, BackendHealth), Malformed> {
        Ok((backend_from(&self.id)?, health_from(self.health)?))
    }
}

fn health_code(health: BackendHealth) -> u32 {
    match health {
        BackendHealth::Online => 1,
        BackendHealth::ReadOnly => 2,
        BackendHealth::Missing => 3,
        BackendHealth::Wiped => 4,
        BackendHealth::Foreign => 5,
        BackendHealth::Failed => 6,
    }
}

fn health_from(code: u32) -> Result<BackendHealth, Malformed> {
    Ok(match code {
        1 => BackendHealth::Online,
        2 => BackendHealth::ReadOnly,
        3 => BackendHealth::Missing,
        4 => BackendHealth::Wiped,
        5 => BackendHealth::Foreign,
        6 => BackendHealth::Failed,
        other => return Err(Malformed::new(format!("unknown health {other}"))),
    })
}
