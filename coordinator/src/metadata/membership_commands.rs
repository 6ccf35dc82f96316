//! Commands of the root group about trust, tags 40 to 59 of `Kind`, and what `apply` answers to them.

use super::membership_api::RedeemToken;
use holdfast_proto::membership::{AuthorityRow, TokenUseRow};

/// Replaces the CA.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AuthoritySet {
    #[prost(uint64, tag = "1")]
    pub(super) expected: u64,
    #[prost(message, required, tag = "2")]
    pub(super) row: AuthorityRow,
}

/// Uses up a token. The secret itself never gets into the log.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct TokenRedeem {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) secret_hash: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) key_hash: Vec<u8>,
    #[prost(string, tag = "4")]
    pub(super) roles: String,
    #[prost(string, tag = "5")]
    pub(super) region: String,
    #[prost(string, tag = "6")]
    pub(super) zone: String,
    #[prost(uint64, tag = "7")]
    pub(super) above: u64,
    #[prost(uint64, tag = "8")]
    pub(super) now_ms: u64,
}

impl std::fmt::Debug for TokenRedeem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRedeem").field("id", &self.id).finish_non_exhaustive()
    }
}

impl From<&RedeemToken> for TokenRedeem {
    fn from(redeem: &RedeemToken) -> Self {
        Self {
            id: redeem.id.0.to_vec(),
            secret_hash: redeem.shown.0.to_vec(),
            key_hash: redeem.asked.key.0.to_vec(),
            roles: redeem.asked.roles.to_string(),
            region: redeem.asked.region.clone(),
            zone: redeem.asked.zone.clone(),
            above: redeem.above.0,
            now_ms: redeem.now_ms,
        }
    }
}

/// What `apply` answers to these commands; a message, so that it can go to a coordinator that is not the leader.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TrustReply {
    #[prost(oneof = "TrustOutcome", tags = "1, 2, 3, 4")]
    pub(super) outcome: Option<TrustOutcome>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum TrustOutcome {
    /// The CA that there is now.
    #[prost(message, tag = "1")]
    Authority(AuthorityRow),
    /// Whom the token has admitted.
    #[prost(message, tag = "2")]
    Redeemed(TokenUseRow),
    /// `TokenRefusal` by its number.
    #[prost(uint32, tag = "3")]
    Refused(u32),
    /// Whether the revoked token was there.
    #[prost(bool, tag = "4")]
    Revoked(bool),
}
