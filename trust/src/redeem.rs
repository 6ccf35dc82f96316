//! Whether a shown token admits a node. Pure, and part of what every replica of the root group applies.
//!
//! **Invariant:** a token admits one key: shown again with that key it gives the answer it gave first, with any other it
//! is used (`every_refusal_has_its_cause`).
//!
//! `redeem` decides inside a replicated state machine: the same command must give the same answer in every version for
//! ever. A new rule is a new field of the record, off by default, never another meaning of what is there.

use crate::TrustError;
use crate::authority::check_places;
use holdfast_proto::cluster::Roles;
use holdfast_proto::{ErrorKind, NodeId};
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;

/// Names a token; no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 16]);

impl TokenId {
    /// Reads the stored form: exactly 16 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl FromStr for TokenId {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id)
            .map_err(|_| TrustError::malformed("token id", "not 32 hexadecimal digits"))?;
        Ok(Self(id))
    }
}

/// The BLAKE3 of a token's secret: what the cluster keeps, and what a redemption carries. Compared in constant time.
#[derive(Clone, Copy)]
pub struct SecretHash(pub [u8; 32]);

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// The BLAKE3 of a public key (its SubjectPublicKeyInfo): who asks, before it has a number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({})", hex::encode(self.0))
    }
}

/// What a token is bound to; `None` binds to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenScope {
    /// The node may have these roles, or fewer.
    pub roles: Option<Roles>,
    /// The node must stand in this region.
    pub region: Option<String>,
    /// The node must stand in this zone.
    pub zone: Option<String>,
}

/// The node a token was used by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUse {
    /// The number it was given.
    pub node: NodeId,
    /// What it had asked for.
    pub asked: Asked,
    /// When, by the clock of whoever let it in.
    pub used_ms: u64,
}

/// A token as the root group records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Which.
    pub id: TokenId,
    /// Of its secret.
    pub secret_hash: SecretHash,
    /// What it is bound to.
    pub scope: TokenScope,
    /// When it was made.
    pub created_ms: u64,
    /// From when on it admits nobody new.
    pub expires_ms: u64,
    /// Whom it has admitted.
    pub used_by: Option<TokenUse>,
}

/// Who a node asks to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its public key.
    pub key: KeyHash,
    /// What it wants to do.
    pub roles: Roles,
    /// Where it stands.
    pub region: String,
    /// Zone within the region.
    pub zone: String,
}

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redemption {
    /// It admits the node, which gets a new number.
    Fresh,
    /// It had admitted this very node: the same answer again.
    Again(TokenUse),
}

/// Why a token does not admit a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum TokenRefusal {
    /// No such token: never made, revoked, or forgotten long after its end.
    #[error("no such join token; it may have been revoked")]
    Unknown,
    /// The secret is not this token's.
    #[error("the secret is not the join token's")]
    WrongSecret,
    /// It has ended.
    #[error("the join token has expired; make a new one with `holdfast token create`")]
    Expired,
    /// It has admitted another node, or this one as something else.
    #[error("the join token was used already; each admits one node")]
    Used,
    /// The token is for other roles.
    #[error("the join token does not allow these roles")]
    Role,
    /// The token is for another region.
    #[error("the join token is for another region")]
    Region,
    /// The token is for another zone.
    #[error("the join token is for another zone")]
    Zone,
}

impl TokenRefusal {
    /// Every refusal there is.
    pub const ALL: [Self; 7] =
        [Self::Unknown, Self::WrongSecret, Self::Expired, Self::Used, Self::Role, Self::Region, Self::Zone];

    /// Its number in stored and sent messages; never used for another.
    pub fn number(self) -> u32 {
        match self {
            Self::Unknown => 1,
            Self::WrongSecret => 2,
            Self::Expired => 3,
            Self::Used => 4,
            Self::Role => 5,
            Self::Region => 6,
            Self::Zone => 7,
        }
    }

    /// The refusal of a number; `None` for one this build does not know.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.number() == number)
    }

    /// What can be done about it.
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Unknown => ErrorKind::NotFound,
            Self::Used => ErrorKind::Conflict,
            Self::WrongSecret | Self::Expired | Self::Role | Self::Region | Self::Zone => ErrorKind::Denied,
        }
    }
}

impl TokenRecord {
    /// A record is made only with names of places that a certificate can carry.
    pub fn check(&self) -> Result<(), TrustError> {
        let place = |name: &Option<String>| name.clone().unwrap_or_else(|| "any".to_owned());
        check_places(&place(&self.scope.region), &place(&self.scope.zone))?;
        if self.expires_ms <= self.created_ms {
            return Err(TrustError::malformed("join token", "it ends before it begins"));
        }
        Ok(())
    }
}

/// Whether the token `record`, shown with a secret whose hash is `shown`, admits a node that asks to be `asked`.
///
/// The secret is judged before anything that tells of the token's state, and a second asking by the same key before its
/// end: a node that did not hear the answer may ask again even then.
pub fn redeem(
    record: Option<&TokenRecord>,
    shown: &SecretHash,
    asked: &Asked,
    now_ms: u64,
) -> Result<Redemption, TokenRefusal> {
    let record = record.ok_or(TokenRefusal::Unknown)?;
    if record.secret_hash != *shown {
        return Err(TokenRefusal::WrongSecret);
    }
    match &record.used_by {
        Some(used) if used.asked == *asked => return Ok(Redemption::Again(used.clone())),
        Some(_) => return Err(TokenRefusal::Used),
        None => {}
    }
    if now_ms >= record.expires_ms {
        return Err(TokenRefusal::Expired);
    }
    let TokenScope { roles, region, zone } = &record.scope;
    if roles.is_some_and(|allowed| !asked.roles.within(allowed)) {
        return Err(TokenRefusal::Role);
    }
    if region.as_ref().is_some_and(|allowed| *allowed != asked.region) {
        return Err(TokenRefusal::Region);
    }
    if zone.as_ref().is_some_and(|allowed| *allowed != asked.zone) {
        return Err(TokenRefusal::Zone);
    }
    Ok(Redemption::Fresh)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::cluster::Role as NodeRole;
    use std::collections::BTreeSet;

    const RIGHT: SecretHash = SecretHash([1; 32]);
    const WRONG: SecretHash = SecretHash([2; 32]);

    fn asked(key: u8, roles: Roles, region: &str, zone: &str) -> Asked {
        Asked { key: KeyHash([key; 32]), roles, region: region.to_owned(), zone: zone.to_owned() }
    }

    fn record(scope: TokenScope, used_by: Option<TokenUse>) -> TokenRecord {
        TokenRecord { id: TokenId([9; 16]), secret_hash: RIGHT, scope, created_ms: 50, expires_ms: 100, used_by }
    }

    #[test]
    fn every_refusal_has_its_cause() {
        let storage = Roles::only(NodeRole::Storage);
        let usual = asked(7, storage, "eu", "a");
        let bound = |roles, region: Option<&str>, zone: Option<&str>| TokenScope {
            roles,
            region: region.map(str::to_owned),
            zone: zone.map(str::to_owned),
        };
        let free = || record(TokenScope::default(), None);
        let used = TokenUse { node: NodeId(4), asked: usual.clone(), used_ms: 60 };
        let spent = || record(TokenScope::default(), Some(used.clone()));
        let again = || Ok(Redemption::Again(used.clone()));
        let full = bound(Some(Roles::BOTH), Some("eu"), Some("a"));
        use TokenRefusal::*;
        let cases = [
            ("free", Some(free()), RIGHT, usual.clone(), 60, Ok(Redemption::Fresh)),
            ("last moment", Some(free()), RIGHT, usual.clone(), 99, Ok(Redemption::Fresh)),
            ("bound and kept", Some(record(full, None)), RIGHT, usual.clone(), 60, Ok(Redemption::Fresh)),
            ("unknown", None, RIGHT, usual.clone(), 60, Err(Unknown)),
            ("wrong secret", Some(free()), WRONG, usual.clone(), 60, Err(WrongSecret)),
            ("wrong secret, expired", Some(free()), WRONG, usual.clone(), 100, Err(WrongSecret)),
            ("wrong secret, used by us", Some(spent()), WRONG, usual.clone(), 60, Err(WrongSecret)),
            ("expired", Some(free()), RIGHT, usual.clone(), 100, Err(Expired)),
            ("used by us", Some(spent()), RIGHT, usual.clone(), 60, again()),
            ("used by us, expired since", Some(spent()), RIGHT, usual.clone(), 100, again()),
            ("used by another", Some(spent()), RIGHT, asked(8, storage, "eu", "a"), 60, Err(Used)),
            ("used by us as else", Some(spent()), RIGHT, asked(7, Roles::BOTH, "eu", "a"), 60, Err(Used)),
            ("used by us elsewhere", Some(spent()), RIGHT, asked(7, storage, "us", "a"), 60, Err(Used)),
            (
                "more roles",
                Some(record(bound(Some(storage), None, None), None)),
                RIGHT,
                asked(7, Roles::BOTH, "eu", "a"),
                60,
                Err(Role),
            ),
            (
                "other role",
                Some(record(bound(Some(storage), None, None), None)),
                RIGHT,
                asked(7, Roles::only(NodeRole::Coordinator), "eu", "a"),
                60,
                Err(Role),
            ),
            ("region", Some(record(bound(None, Some("us"), None), None)), RIGHT, usual.clone(), 60, Err(Region)),
            ("zone", Some(record(bound(None, Some("eu"), Some("b")), None)), RIGHT, usual.clone(), 60, Err(Zone)),
        ];
        let mut met = BTreeSet::new();
        for (what, record, shown, asked, now, expected) in cases {
            let found = redeem(record.as_ref(), &shown, &asked, now);
            assert_eq!(found, expected, "{what}");
            met.extend(found.err());
        }
        assert_eq!(met, TokenRefusal::ALL.into_iter().collect(), "every cause is met");
        let numbers = TokenRefusal::ALL.map(TokenRefusal::number);
        assert_eq!(numbers.map(TokenRefusal::from_number), TokenRefusal::ALL.map(Some));
        assert_eq!(TokenRefusal::from_number(0), None);
    }

    #[test]
    fn records_are_checked_and_hashes_hidden() {
        let mut named = record(TokenScope { region: Some(" x".to_owned()), ..TokenScope::default() }, None);
        assert!(named.check().is_err());
        named.scope.region = None;
        assert_eq!(named.check(), Ok(()));
        named.expires_ms = named.created_ms;
        assert!(named.check().is_err());
        assert!(!format!("{named:?}").contains("01, 01"));
        assert_eq!(TokenId([9; 16]).to_string().parse(), Ok(TokenId([9; 16])));
    }
}
