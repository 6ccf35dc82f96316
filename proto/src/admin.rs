//! Messages of the administration API (JSON over HTTP on the admin port), shared by the coordinator that answers and
//! the client that asks. Sizes are bytes, times milliseconds since 1970; scripts see exactly these with
//! `--output json`, so fields are added, never renamed.

use crate::cluster::{NodeRecord, Roles};
use crate::ids::{BackendId, Epoch, NodeId};
use crate::node::BackendStatus;
use serde::{Deserialize, Serialize};

/// Verdict over the whole store; also the CLI's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every object has full margin (exit 0).
    Healthy,
    /// Nothing is lost and every object can lose a shard, but some margin is below target, or some scenario is not proven
    /// before moves are complete (exit 3).
    Degraded,
    /// Some object would not survive what was promised (margin 0) (exit 4).
    PromiseBroken,
    /// Some object has fewer than k shards (exit 5).
    DataLost,
}

impl Verdict {
    /// The process exit code of `holdfast status` and its kin.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Degraded => 3,
            Self::PromiseBroken => 4,
            Self::DataLost => 5,
        }
    }
}

/// What an operator has asked of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendIntent {
    /// Holds shards.
    Active,
    /// Its shards are being moved away; it takes no new ones.
    Draining,
    /// Nothing is left on it; it can be removed.
    Drained,
}

/// A backend with its intent and what is still to do on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendView {
    /// As its node sees it.
    #[serde(flatten)]
    pub status: BackendStatus,
    /// As the operator wants it.
    pub intent: BackendIntent,
    /// PG slots placed on it (target).
    pub pg_slots: u32,
}

/// Objects and bytes at one margin: how many more shards each segment can lose and still be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarginRow {
    /// Shards it can still lose; -1 for fewer than k left.
    pub margin: i32,
    /// Segments there.
    pub segments: u64,
    /// Object bytes there.
    pub bytes: u64,
}

/// `holdfast repair status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// `idle`, `scanning`, `repairing` or `paused`.
    pub state: String,
    /// Full margin of the scheme: m.
    pub margin_target: i32,
    /// Fewest first; the row at `margin_target` is what is whole.
    pub margins: Vec<MarginRow>,
    /// Shards still to write.
    pub shards_to_write: u64,
    /// Bytes still to write.
    pub bytes_to_write: u64,
    /// Bytes written since this run of repair began.
    pub bytes_written: u64,
    /// Bytes a second over the last seconds.
    pub bytes_per_second: u64,
    /// Seconds to go at that rate; absent while unknown.
    pub eta_seconds: Option<u64>,
    /// Segments that could not be repaired, with the reason of the first few.
    pub failed_segments: u64,
    /// Reasons (at most 10).
    pub failures: Vec<String>,
    /// When the inventory behind these figures was last complete; 0 for never.
    pub scanned_ms: u64,
}

/// `holdfast scrub status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// `idle` or `running`.
    pub state: String,
    /// Shards verified in this run.
    pub shards: u64,
    /// Bytes verified in this run.
    pub bytes: u64,
    /// Bytes to verify in this run, as far as known.
    pub bytes_total: u64,
    /// Shards found damaged in this run.
    pub damaged: u64,
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// When the last full run ended; 0 for never.
    pub finished_ms: u64,
}

/// `holdfast status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's id.
    pub cluster: String,
    /// This build's version.
    pub version: String,
    /// Over all.
    pub verdict: Verdict,
    /// One sentence a person can act on, per finding.
    pub findings: Vec<String>,
    /// K+M.
    pub scheme: String,
    /// What the promise says now in words: `any 2 backends`.
    pub promise: String,
    /// What every object survives now in words.
    pub survives_now: String,
    /// Buckets.
    pub bucket_count: u64,
    /// Layout epoch.
    pub epoch: Epoch,
    /// S3 endpoint.
    pub s3_endpoint: String,
    /// Seconds since start.
    pub uptime_seconds: u64,
    /// The backends.
    pub backends: Vec<BackendView>,
    /// Repair in brief.
    pub repair: RepairStatus,
}

/// One shard of `holdfast object inspect`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardView {
    /// Slot.
    pub slot: u8,
    /// `data` or `parity`.
    pub role: String,
    /// Where it should be.
    pub backend: BackendId,
    /// That backend's name.
    pub backend_name: String,
    /// `ok`, `missing`, `damaged` or `unavailable`.
    pub state: String,
    /// When its cells were last verified; 0 if unknown.
    pub verified_ms: u64,
    /// Bytes of its cells.
    pub shard_bytes: u64,
}

/// One segment of `holdfast object inspect`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentView {
    /// Its id.
    pub segment: String,
    /// Its PG.
    pub pg: u32,
    /// Where it begins in the object.
    pub offset: u64,
    /// Object bytes in it.
    pub bytes: u64,
    /// Its shards.
    pub shards: Vec<ShardView>,
}

/// `holdfast object inspect`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectView {
    /// Bucket name.
    pub bucket: String,
    /// Key.
    pub key: String,
    /// S3 version id.
    pub version: String,
    /// Bytes.
    pub bytes: u64,
    /// ETag.
    pub etag: String,
    /// When written.
    pub modified_ms: u64,
    /// K+M.
    pub scheme: String,
    /// Whether its bytes live in the metadata record.
    pub inline: bool,
    /// Fewest shards any of its segments can still lose.
    pub margin: i32,
    /// Its segments.
    pub segments: Vec<SegmentView>,
}

/// An access key; the secret is present only in the answer that creates it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// What requests name.
    pub access_key: String,
    /// What signs them, once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub secret_key: Option<String>,
    /// For people.
    pub name: String,
    /// When created.
    pub created_ms: u64,
    /// Whether it administers.
    pub is_root: bool,
}

/// Body of key creation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCreate {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Given or generated.
    #[serde(default)]
    pub access_key: Option<String>,
    /// Given or generated.
    #[serde(default)]
    pub secret_key: Option<String>,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketView {
    /// Name.
    pub name: String,
    /// When created.
    pub created_ms: u64,
    /// `unversioned`, `enabled` or `suspended`.
    pub versioning: String,
    /// Owner's access key.
    pub owner: String,
}

/// Body of backend addition and replacement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendAdd {
    /// `disk:PATH`.
    pub location: String,
    /// Name; chosen when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// The node it is on, by name or number; may be absent where there is one node. (Of a replacement: the node of the
    /// backend replaced.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Body of token creation: what the token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreate {
    /// Roles the node may have; any when absent.
    #[serde(default)]
    pub roles: Option<Roles>,
    /// Region it must stand in; any when absent.
    #[serde(default)]
    pub region: Option<String>,
    /// Zone it must stand in; any when absent.
    #[serde(default)]
    pub zone: Option<String>,
    /// How long it admits; an hour when absent.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
}

/// A join token. Its text is a secret, and present only in the answer that creates it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// Its id, hexadecimal.
    pub id: String,
    /// What `holdfast server --join` takes, once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<String>,
    /// Roles it is bound to.
    pub roles: Option<Roles>,
    /// Region it is bound to.
    pub region: Option<String>,
    /// Zone it is bound to.
    pub zone: Option<String>,
    /// When it was made.
    pub created_ms: u64,
    /// When it ends.
    pub expires_ms: u64,
    /// The node it has admitted.
    pub used_by: Option<NodeId>,
}

/// A node with how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// As the cluster map has it.
    #[serde(flatten)]
    pub record: NodeRecord,
    /// `up`, `suspect`, `lost`, `returned` or `removed`.
    pub state: String,
    /// Whether it keeps the store whole: plans placement, repairs.
    pub is_leader: bool,
    /// Whether it votes in the root group: a majority of those who do must be up.
    pub is_voter: bool,
    /// Answers far later than the others.
    pub is_slow: bool,
    /// Backends on it.
    pub backends: u32,
    /// Of which this many take no reads or writes.
    pub backends_offline: u32,
    /// Bytes of their file systems.
    pub capacity_bytes: u64,
    /// Bytes their shards take.
    pub used_bytes: u64,
    /// Slots of placement groups whose shards are on them or are to come to them.
    #[serde(default)]
    pub pg_slots: u32,
}

/// Every failed call answers this, with the HTTP status of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminError {
    /// HFnnnn.
    pub code: String,
    /// What and why.
    pub message: String,
    /// What to do next; may be empty.
    pub next_step: String,
}
