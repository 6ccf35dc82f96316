//! Commands of the root group about trust: the CA and the join tokens, and the rows they keep.
//!
//! **Invariant:** a token is used up and its node numbered by one command, so of many who show it one gets through, and
//! no number is given twice (`of_many_who_show_a_token_one_gets_through`).

use super::super::command::Reply;
use super::super::kv::{Family, KvError, KvResult, KvView, Scan};
use super::super::membership_commands::{AuthoritySet, TokenRedeem, TrustOutcome, TrustReply};
use super::{Apply, Step, decode, invalid, read_u64};
use holdfast_proto::NodeId;
use holdfast_proto::membership::{AuthorityRow, TokenRow, TokenUseRow};
use holdfast_trust::{Asked, KeyHash, Redemption, SecretHash, TokenId, TokenRecord, TokenScope, TokenUse, redeem};
use prost::Message;

const AUTHORITY: &[u8] = b"authority";
const NEXT_NODE: &[u8] = b"next-node";
const TOKENS: &[u8] = b"token/";
/// More tokens at once are a mistake; a list of them must stay one answer.
const TOKENS_MAX: usize = 1000;
/// A token is remembered so long after its end, to say that it has expired, and whom it admitted.
const TOKEN_KEPT_MS: u64 = 30 * 86_400_000;
/// Certificates and key of a CA have below 4 KiB; four roots fit.
const AUTHORITY_BYTES_MAX: usize = 64 << 10;

fn token_row(id: &[u8]) -> Vec<u8> {
    [TOKENS, id].concat()
}

fn answer(outcome: TrustOutcome) -> Step<Reply> {
    Ok(Reply::Trust(Box::new(TrustReply { outcome: Some(outcome) })))
}

impl<V: KvView> Apply<'_, V> {
    pub(super) fn authority_set(&mut self, command: &AuthoritySet) -> Step<Reply> {
        let stored = authority(self.view)?;
        let generation = stored.as_ref().map_or(0, |row| row.generation);
        match stored {
            // A retry, or somebody was first.
            Some(stored) if generation != command.expected => return answer(TrustOutcome::Authority(stored)),
            None if command.expected != 0 => return Err(invalid("there is no CA to replace")),
            _ => {}
        }
        if command.row.generation != generation + 1 {
            return Err(invalid(format!("CA generation {} after {generation}", command.row.generation)));
        }
        let bytes = command.row.encode_to_vec();
        if bytes.len() > AUTHORITY_BYTES_MAX {
            return Err(invalid(format!("a CA of {} bytes, {AUTHORITY_BYTES_MAX} allowed", bytes.len())));
        }
        self.batch.put(Family::Root, AUTHORITY.to_vec(), bytes);
        answer(TrustOutcome::Authority(command.row.clone()))
    }

    pub(super) fn token_create(&mut self, row: &TokenRow) -> Step<Reply> {
        let record = record_of(row).map_err(invalid)?;
        record.check().map_err(|e| invalid(e.to_string()))?;
        if record.used_by.is_some() {
            return Err(invalid("a token that is used before it is made"));
        }
        let at = token_row(&row.id);
        if let Some(stored) = self.view.get(Family::Root, &at)? {
            let stored: TokenRow = decode(Family::Root, &stored)?;
            let unused = TokenRow { used_by: None, ..stored };
            return if unused == *row { Ok(Reply::Done) } else { Err(invalid("a token of this id exists")) };
        }
        let mut count = 0;
        for stored in token_rows(self.view)? {
            if stored.expires_ms.saturating_add(TOKEN_KEPT_MS) < row.created_ms {
                self.batch.delete(Family::Root, token_row(&stored.id));
            } else {
                count += 1;
            }
        }
        if count >= TOKENS_MAX {
            return Err(invalid(format!("{count} join tokens exist; revoke some")));
        }
        self.batch.put(Family::Root, at, row.encode_to_vec());
        Ok(Reply::Done)
    }

    pub(super) fn token_revoke(&mut self, id: &[u8]) -> Step<Reply> {
        let at = token_row(id);
        let is_there = self.view.get(Family::Root, &at)?.is_some();
        if is_there {
            self.batch.delete(Family::Root, at);
        }
        answer(TrustOutcome::Revoked(is_there))
    }

    pub(super) fn token_redeem(&mut self, command: &TokenRedeem) -> Step<Reply> {
        let shown = hash32(&command.secret_hash).map(SecretHash).map_err(invalid)?;
        let asked = asked_of(&command.key_hash, &command.roles, &command.region, &command.zone).map_err(invalid)?;
        let record = match TokenId::from_slice(&command.id) {
            Some(id) => token(self.view, id)?,
            None => None,
        };
        match redeem(record.as_ref(), &shown, &asked, command.now_ms) {
            Err(refusal) => answer(TrustOutcome::Refused(refusal.number())),
            Ok(Redemption::Again(used)) => answer(TrustOutcome::Redeemed(use_row(&used))),
            Ok(Redemption::Fresh) => {
                let mut record = record.ok_or_else(|| invalid("a token that is not there was accepted"))?;
                let used = TokenUse { node: self.take_node(command.above)?, asked, used_ms: command.now_ms };
                let row = use_row(&used);
                record.used_by = Some(used);
                self.batch.put(Family::Root, token_row(&command.id), row_of(&record).encode_to_vec());
                answer(TrustOutcome::Redeemed(row))
            }
        }
    }

    /// The next number that no node has had.
    fn take_node(&mut self, above: u64) -> Step<NodeId> {
        let next = read_u64(self.view.get(Family::Root, NEXT_NODE)?).max(NodeId::FIRST.0 + 1);
        let node = next.max(above.saturating_add(1));
        let after = node.checked_add(1).ok_or_else(|| invalid("no node number is left"))?;
        self.batch.put(Family::Root, NEXT_NODE.to_vec(), after.to_be_bytes().to_vec());
        Ok(NodeId(node))
    }
}

/// The CA, if there is one.
pub(in super::super) fn authority<V: KvView>(view: &V) -> KvResult<Option<AuthorityRow>> {
    view.get(Family::Root, AUTHORITY)?.map(|stored| decode(Family::Root, &stored)).transpose()
}

/// A token.
pub(in super::super) fn token<V: KvView>(view: &V, id: TokenId) -> KvResult<Option<TokenRecord>> {
    let Some(stored) = view.get(Family::Root, &token_row(&id.0))? else { return Ok(None) };
    damaged_unless(record_of(&decode(Family::Root, &stored)?)).map(Some)
}

/// All tokens by id.
pub(in super::super) fn tokens<V: KvView>(view: &V) -> KvResult<Vec<TokenRecord>> {
    token_rows(view)?.iter().map(|row| damaged_unless(record_of(row))).collect()
}

fn token_rows<V: KvView>(view: &V) -> KvResult<Vec<TokenRow>> {
    let mut found = Vec::new();
    view.scan(Family::Root, TOKENS, &mut |key, value, _| {
        if !key.starts_with(TOKENS) {
            return Ok(Scan::Stop);
        }
        found.push(decode(Family::Root, value)?);
        Ok(Scan::Next)
    })?;
    Ok(found)
}

fn damaged_unless<T>(read: Result<T, &'static str>) -> KvResult<T> {
    read.map_err(|reason| KvError { reason: format!("damaged join token: {reason}") })
}

fn hash32(bytes: &[u8]) -> Result<[u8; 32], &'static str> {
    bytes.try_into().map_err(|_| "a hash has 32 bytes")
}

fn asked_of(key_hash: &[u8], roles: &str, region: &str, zone: &str) -> Result<Asked, &'static str> {
    Ok(Asked {
        key: KeyHash(hash32(key_hash)?),
        roles: roles.parse().map_err(|_| "not a list of roles")?,
        region: region.to_owned(),
        zone: zone.to_owned(),
    })
}

/// Reads a stored use.
pub(in super::super) fn use_of(row: &TokenUseRow) -> Result<TokenUse, &'static str> {
    let asked = asked_of(&row.key_hash, &row.roles, &row.region, &row.zone)?;
    Ok(TokenUse { node: NodeId(row.node), asked, used_ms: row.used_ms })
}

fn use_row(used: &TokenUse) -> TokenUseRow {
    TokenUseRow {
        node: used.node.0,
        key_hash: used.asked.key.0.to_vec(),
        roles: used.asked.roles.to_string(),
        region: used.asked.region.clone(),
        zone: used.asked.zone.clone(),
        used_ms: used.used_ms,
    }
}

fn record_of(row: &TokenRow) -> Result<TokenRecord, &'static str> {
    let bound = |text: &String| (!text.is_empty()).then(|| text.clone());
    let roles = bound(&row.roles).map(|text| text.parse().map_err(|_| "not a list of roles")).transpose()?;
    Ok(TokenRecord {
        id: TokenId::from_slice(&row.id).ok_or("an id has 16 bytes")?,
        secret_hash: SecretHash(hash32(&row.secret_hash)?),
        scope: TokenScope { roles, region: bound(&row.region), zone: bound(&row.zone) },
        created_ms: row.created_ms,
        expires_ms: row.expires_ms,
        used_by: row.used_by.as_ref().map(use_of).transpose()?,
    })
}

/// The stored form of a token.
pub(in super::super) fn row_of(record: &TokenRecord) -> TokenRow {
    TokenRow {
        id: record.id.0.to_vec(),
        secret_hash: record.secret_hash.0.to_vec(),
        roles: record.scope.roles.map(|roles| roles.to_string()).unwrap_or_default(),
        region: record.scope.region.clone().unwrap_or_default(),
        zone: record.scope.zone.clone().unwrap_or_default(),
        created_ms: record.created_ms,
        expires_ms: record.expires_ms,
        used_by: record.used_by.as_ref().map(use_row),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::api::MetadataError;
    use super::super::super::command::{Command, Kind};
    use super::super::super::kv::memory::MemoryKv;
    use super::super::apply;
    use super::*;
    use holdfast_proto::cluster::{Role, Roles};
    use holdfast_trust::TokenRefusal;
    use std::collections::BTreeSet;

    fn carry_out(kv: &mut MemoryKv, kind: Kind) -> Result<Reply, MetadataError> {
        let (result, batch) = apply(kv, 0, 1, &Command { kind: Some(kind), once: None }).unwrap();
        kv.write(batch);
        result
    }

    fn outcome(kv: &mut MemoryKv, kind: Kind) -> TrustOutcome {
        match carry_out(kv, kind) {
            Ok(Reply::Trust(reply)) => reply.outcome.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn row(id: u8) -> TokenRow {
        TokenRow {
            id: vec![id; 16],
            secret_hash: vec![id; 32],
            roles: "storage".to_owned(),
            region: "eu".to_owned(),
            zone: String::new(),
            created_ms: 10,
            expires_ms: 100,
            used_by: None,
        }
    }

    fn redeeming(id: u8, key: u8, now_ms: u64) -> TokenRedeem {
        TokenRedeem {
            id: vec![id; 16],
            secret_hash: vec![id; 32],
            key_hash: vec![key; 32],
            roles: "storage".to_owned(),
            region: "eu".to_owned(),
            zone: "a".to_owned(),
            above: 1,
            now_ms,
        }
    }

    fn redeemed(kv: &mut MemoryKv, command: TokenRedeem) -> Result<TokenUseRow, TokenRefusal> {
        match outcome(kv, Kind::TokenRedeem(command)) {
            TrustOutcome::Redeemed(used) => Ok(used),
            TrustOutcome::Refused(number) => Err(TokenRefusal::from_number(number).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_many_who_show_a_token_one_gets_through() {
        let mut kv = MemoryKv::default();
        for id in 1..=3 {
            assert_eq!(carry_out(&mut kv, Kind::TokenCreate(row(id))), Ok(Reply::Done));
        }
        let mut numbers = BTreeSet::new();
        for id in 1..=3 {
            let first = redeemed(&mut kv, redeeming(id, 50, 20)).unwrap();
            assert!(numbers.insert(first.node), "{first:?}");
            for other in 51..60 {
                assert_eq!(redeemed(&mut kv, redeeming(id, other, 21)), Err(TokenRefusal::Used));
            }
            let before = kv.clone();
            assert_eq!(redeemed(&mut kv, redeeming(id, 50, 5_000)), Ok(first), "a retry is answered as it was");
            assert_eq!(kv, before, "and changes nothing");
        }
        assert_eq!(numbers, BTreeSet::from([2, 3, 4]));
        carry_out(&mut kv, Kind::TokenCreate(row(4))).unwrap();
        let above = TokenRedeem { above: 40, ..redeeming(4, 60, 20) };
        assert_eq!(redeemed(&mut kv, above).unwrap().node, 41, "numbers in the map are not given again");
    }

    #[test]
    fn refusals_leave_the_token_as_it_is() {
        let mut kv = MemoryKv::default();
        carry_out(&mut kv, Kind::TokenCreate(row(1))).unwrap();
        let before = kv.clone();
        let good = || redeeming(1, 50, 20);
        let cases = [
            (redeeming(9, 50, 20), TokenRefusal::Unknown),
            (TokenRedeem { id: vec![1; 3], ..good() }, TokenRefusal::Unknown),
            (TokenRedeem { secret_hash: vec![7; 32], ..good() }, TokenRefusal::WrongSecret),
            (TokenRedeem { now_ms: 100, ..good() }, TokenRefusal::Expired),
            (TokenRedeem { roles: "coordinator,storage".to_owned(), ..good() }, TokenRefusal::Role),
            (TokenRedeem { region: "us".to_owned(), ..good() }, TokenRefusal::Region),
        ];
        for (command, expected) in cases {
            assert_eq!(redeemed(&mut kv, command.clone()), Err(expected), "{command:?}");
        }
        for malformed in [
            TokenRedeem { secret_hash: vec![1; 31], ..good() },
            TokenRedeem { key_hash: Vec::new(), ..good() },
            TokenRedeem { roles: "root".to_owned(), ..good() },
        ] {
            assert!(carry_out(&mut kv, Kind::TokenRedeem(malformed)).is_err());
        }
        assert_eq!(kv, before);
        assert_eq!(outcome(&mut kv, Kind::TokenRevoke(vec![1; 16])), TrustOutcome::Revoked(true));
        assert_eq!(outcome(&mut kv, Kind::TokenRevoke(vec![1; 16])), TrustOutcome::Revoked(false));
        assert_eq!(redeemed(&mut kv, good()), Err(TokenRefusal::Unknown));
    }

    #[test]
    fn tokens_are_made_once_and_forgotten_long_after_their_end() {
        let mut kv = MemoryKv::default();
        carry_out(&mut kv, Kind::TokenCreate(row(1))).unwrap();
        redeemed(&mut kv, redeeming(1, 50, 20)).unwrap();
        assert_eq!(carry_out(&mut kv, Kind::TokenCreate(row(1))), Ok(Reply::Done), "a late retry");
        let record = token(&kv, TokenId([1; 16])).unwrap().unwrap();
        assert_eq!(record.used_by.as_ref().map(|used| used.node), Some(NodeId(2)));
        assert_eq!(record.scope.roles, Some(Roles::only(Role::Storage)));
        assert_eq!(record_of(&row_of(&record)), Ok(record));
        for bad in [
            TokenRow { expires_ms: 200, ..row(1) },
            TokenRow { id: vec![2; 15], ..row(2) },
            TokenRow { secret_hash: Vec::new(), ..row(2) },
            TokenRow { roles: "x".to_owned(), ..row(2) },
            TokenRow { region: " ".to_owned(), ..row(2) },
            TokenRow { expires_ms: 10, ..row(2) },
            TokenRow {
                used_by: Some(TokenUseRow { key_hash: vec![0; 32], roles: "storage".into(), ..Default::default() }),
                ..row(2)
            },
        ] {
            assert!(carry_out(&mut kv, Kind::TokenCreate(bad.clone())).is_err(), "{bad:?}");
        }
        let later = TokenRow { created_ms: 101 + TOKEN_KEPT_MS, expires_ms: u64::MAX, ..row(2) };
        carry_out(&mut kv, Kind::TokenCreate(later)).unwrap();
        let left: Vec<_> = tokens(&kv).unwrap().into_iter().map(|record| record.id).collect();
        assert_eq!(left, [TokenId([2; 16])]);
    }

    #[test]
    fn tokens_are_bounded() {
        let mut kv = MemoryKv::default();
        for number in 0..TOKENS_MAX {
            let id = (number as u128).to_be_bytes().to_vec();
            carry_out(&mut kv, Kind::TokenCreate(TokenRow { id, ..row(0) })).unwrap();
        }
        assert!(carry_out(&mut kv, Kind::TokenCreate(row(0xff))).is_err());
        assert_eq!(tokens(&kv).unwrap().len(), TOKENS_MAX);
    }

    #[test]
    fn the_first_authority_wins_and_others_follow_by_compare_and_set() {
        let mut kv = MemoryKv::default();
        let ca = |generation, key: &str| AuthorityRow { generation, key: key.to_owned(), ..AuthorityRow::default() };
        let set = |expected, row| Kind::AuthoritySet(AuthoritySet { expected, row });
        assert!(carry_out(&mut kv, set(1, ca(2, "a"))).is_err(), "nothing to replace");
        assert!(carry_out(&mut kv, set(0, ca(2, "a"))).is_err(), "generations have no gaps");
        let steps = [
            (0, ca(1, "a"), "a"),
            (0, ca(1, "a"), "a"),
            (0, ca(1, "b"), "a"),
            (1, ca(2, "c"), "c"),
            (1, ca(2, "d"), "c"),
        ];
        for (expected, row, holds) in steps {
            let TrustOutcome::Authority(now) = outcome(&mut kv, set(expected, row)) else { panic!("no CA") };
            assert_eq!(now.key, holds);
            assert_eq!(authority(&kv).unwrap(), Some(now));
        }
        let large = ca(3, &"x".repeat(AUTHORITY_BYTES_MAX));
        assert!(carry_out(&mut kv, set(2, large)).is_err());
    }
}
