//! The least an implementer owes: put, get, stat, delete, list, scrub and how it is. The calls are those of
//! `proto::node::NodeClient` for one backend, so that a node only has to pick the backend.

use async_trait::async_trait;
use holdfast_proto::node::{BackendStatus, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, PgId, ShardId};

/// One place that keeps shards. Every call may be dropped midway: then it either happened as a whole or not at all.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Which backend this is; its errors name it.
    fn id(&self) -> BackendId;

    /// Begins a shard. The header says how many bytes will come. `Full` if they would not fit, `Invalid` if the
    /// header belongs to another cluster or names an impossible shape.
    async fn begin(&self, header: ShardHeader) -> Result<Box<dyn ShardWriter>, ShardError>;

    /// Reads cells `first..first + count`, verifies each, and the shard's root against `expected_root` if given.
    /// A range past the last cell is `Invalid`. Damaged cells come back as zeros and are listed.
    async fn read(
        &self,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError>;

    /// What it holds of the shard; `None` if nothing, or only a quarantined record. Looks at the index only.
    async fn stat(&self, shard: ShardId) -> Result<Option<ShardStat>, ShardError>;

    /// Frees shards; one that is not there is fine. After a crash a shard freed shortly before may be back, whole.
    /// `Full` if there is not even room to note it.
    async fn delete(&self, shards: Vec<ShardId>) -> Result<(), ShardError>;

    /// Up to `limit` shards of `pg` after `after` in id order. Quarantined ones, which take room, are among them, without
    /// their root (`ShardStat::NO_ROOT`).
    async fn list(&self, pg: PgId, after: Option<ShardId>, limit: usize) -> Result<Vec<ShardStat>, ShardError>;

    /// Verifies shards after `after` until about `budget_bytes` were read (at least one shard). Shards that fail are
    /// quarantined: `stat` leaves them out and `list` tells no root of them until they are written again, while `read`
    /// still hands out their good cells, which may be the ones a decode needs.
    async fn scrub(&self, after: Option<ShardId>, budget_bytes: u64) -> Result<ScrubStep, ShardError>;

    /// How it is now; probes it, so that a directory that vanished is seen.
    async fn status(&self) -> BackendStatus;

    /// Stops taking work, makes everything durable and lets go of the place. Later calls answer `Unavailable`.
    /// Dropping the backend does the same, blocking.
    async fn close(&self) -> Result<(), ShardError> {
        Ok(())
    }
}
