//! The CA and the join tokens of the store.

use super::super::api::{MetadataError, MetadataResult};
use super::super::command::{Kind, Reply};
use super::super::group::done;
use super::super::membership_api::{MembershipMetadata, RedeemToken};
use super::super::membership_commands::{AuthoritySet, TrustOutcome};
use super::super::state;
use super::{MetadataStore, unexpected};
use async_trait::async_trait;
use holdfast_proto::membership::AuthorityRow;
use holdfast_trust::{TokenId, TokenRecord, TokenRefusal, TokenUse};

impl MetadataStore {
    async fn propose_trust(&self, kind: Kind) -> MetadataResult<TrustOutcome> {
        match self.propose_root(kind).await? {
            Reply::Trust(reply) => reply.outcome.ok_or_else(|| unreadable("an answer without content")),
            other => Err(unexpected(other)),
        }
    }
}

fn unreadable(reason: &str) -> MetadataError {
    MetadataError::Unavailable { reason: reason.to_owned() }
}

fn other(outcome: TrustOutcome) -> MetadataError {
    unexpected(Reply::Trust(Box::new(super::super::membership_commands::TrustReply { outcome: Some(outcome) })))
}

#[async_trait]
impl MembershipMetadata for MetadataStore {
    async fn authority(&self) -> MetadataResult<Option<AuthorityRow>> {
        self.read_root(state::authority).await
    }

    async fn authority_set(&self, expected: u64, row: AuthorityRow) -> MetadataResult<AuthorityRow> {
        match self.propose_trust(Kind::AuthoritySet(AuthoritySet { expected, row })).await? {
            TrustOutcome::Authority(row) => Ok(row),
            outcome => Err(other(outcome)),
        }
    }

    async fn token_create(&self, record: TokenRecord) -> MetadataResult<()> {
        done(self.propose_root(Kind::TokenCreate(state::token_row_of(&record))).await?)
    }

    async fn token(&self, id: TokenId) -> MetadataResult<Option<TokenRecord>> {
        self.read_root(|state| state::token(state, id)).await
    }

    async fn token_list(&self) -> MetadataResult<Vec<TokenRecord>> {
        self.read_root(state::tokens).await
    }

    async fn token_revoke(&self, id: TokenId) -> MetadataResult<bool> {
        match self.propose_trust(Kind::TokenRevoke(id.0.to_vec())).await? {
            TrustOutcome::Revoked(was_there) => Ok(was_there),
            outcome => Err(other(outcome)),
        }
    }

    async fn token_redeem(&self, redeem: RedeemToken) -> MetadataResult<Result<TokenUse, TokenRefusal>> {
        match self.propose_trust(Kind::TokenRedeem((&redeem).into())).await? {
            TrustOutcome::Redeemed(used) => Ok(Ok(state::token_use_of(&used).map_err(unreadable)?)),
            TrustOutcome::Refused(number) => match TokenRefusal::from_number(number) {
                Some(refusal) => Ok(Err(refusal)),
                None => Err(unreadable("a refusal this build does not know")),
            },
            outcome => Err(other(outcome)),
        }
    }
}
