//! What the metadata asks of consensus, so that the library behind it can be replaced: propose, read barrier, flush,
//! stop. Membership, transfer and snapshots to peers join when groups have several voters.

use super::api::MetadataResult;
use super::command::{ApplyResult, Command};
use async_trait::async_trait;

/// One group.
#[async_trait]
pub(super) trait Consensus: Send + Sync {
    /// Orders a command. On return it is durable and applied; the answer is what `apply` gave. An `Unavailable` error
    /// leaves open whether it will be.
    async fn propose(&self, command: Command) -> ApplyResult;

    /// On return, the state in this process holds everything acknowledged before the call.
    async fn read_barrier(&self) -> MetadataResult<()>;

    /// Asks for the state to be flushed and the log before it to be dropped, soon.
    async fn flush(&self) -> MetadataResult<()>;

    /// Stops the group. What was acknowledged stays.
    async fn shutdown(&self) -> MetadataResult<()>;
}
