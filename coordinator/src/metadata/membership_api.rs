//! What membership asks of the metadata, beside what everybody does: the CA and the join tokens. Rows of the root group.
//!
//! The nodes themselves are in the cluster map and change with it, by compare-and-set (ADR 6).

use super::api::{Metadata, MetadataResult};
use async_trait::async_trait;
use holdfast_proto::NodeId;
use holdfast_proto::membership::AuthorityRow;
use holdfast_trust::{Asked, SecretHash, TokenId, TokenRecord, TokenRefusal, TokenUse};

/// A node shows a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedeemToken {
    /// Which token.
    pub id: TokenId,
    /// Hash of the secret it showed.
    pub shown: SecretHash,
    /// Who it asks to be.
    pub asked: Asked,
    /// The greatest number in the cluster map: a new one is greater.
    pub above: NodeId,
    /// The time, by the clock of whoever lets it in.
    pub now_ms: u64,
}

/// The CA and the join tokens. The promises of `Metadata` hold: durable on return, linearizable reads, retries answered
/// as the first call was.
#[async_trait]
pub trait MembershipMetadata: Metadata {
    /// The CA; `None` on a store that never was more than one node.
    async fn authority(&self) -> MetadataResult<Option<AuthorityRow>>;
    /// Replaces the CA if its generation is still `expected` (0 for none); the new one must be `expected + 1`. Returns the
    /// CA that there is afterwards: another than `row` if somebody else was first.
    async fn authority_set(&self, expected: u64, row: AuthorityRow) -> MetadataResult<AuthorityRow>;

    /// Records a token that was not used. Forgets tokens that ended more than 30 days before it was made.
    async fn token_create(&self, record: TokenRecord) -> MetadataResult<()>;
    /// A token.
    async fn token(&self, id: TokenId) -> MetadataResult<Option<TokenRecord>>;
    /// All tokens by id; there are never more than 1000.
    async fn token_list(&self) -> MetadataResult<Vec<TokenRecord>>;
    /// Forgets a token, so that it admits nobody; a node that it has admitted stays. Whether it was there.
    async fn token_revoke(&self, id: TokenId) -> MetadataResult<bool>;
    /// Uses up a token and gives its node a number, in one: of many who show it at once one gets through. Shown again by
    /// the same key for the same role and place it answers as it did. The node is not in the map by this.
    async fn token_redeem(&self, redeem: RedeemToken) -> MetadataResult<Result<TokenUse, TokenRefusal>>;
}
