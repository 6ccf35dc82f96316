//! Retries that are applied once: a command carries who proposes it and a number, and the group keeps the answer until its
//! proposer says that it has it.
//!
//! Refusals are remembered, too: whoever was refused acts on it, so a copy of the command that is ordered later must not
//! be judged anew. Only what belongs into another range is not: it is asked there. A process whose node has started
//! another since is refused, so what is remembered of it can go.
//!
//! **Invariant:** a command is carried out at most once, however often it is in the log (`retries_are_applied_once`).

use super::super::api::{MetadataError, VersionSelector};
use super::super::command::{ApplyResult, Command, Kind, Once, Reply};
use super::super::keys;
use super::super::kv::{Batch, Family, KvResult, KvView, Scan};
use super::super::wire_answer::WireAnswer;
use super::{Apply, decode, find_version, version_of};
use holdfast_proto::BucketId;
use holdfast_proto::manifest::ObjectVersion;
use prost::Message;

/// Answers forgotten by each command: more than the one it adds, so that they never pile up.
const FORGOTTEN_PER_COMMAND: usize = 4;

/// What is kept of a node's process.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ClientRow {
    #[prost(uint64, tag = "1")]
    opening: u64,
    /// No command before this one is awaited any more: what comes of them late is refused.
    #[prost(uint64, tag = "2")]
    settled: u64,
}

impl<V: KvView> Apply<'_, V> {
    /// The answer given before to this very command; `None` if it is new.
    pub(super) fn answered_before(&self, once: &Once, command: &Command) -> KvResult<Option<ApplyResult>> {
        let client = self.client_row(once.node)?;
        if client.is_some_and(|client| client.opening > once.opening) {
            return Ok(Some(Err(MetadataError::Fenced)));
        }
        let is_late = client.is_some_and(|client| client.opening == once.opening && client.settled > once.sequence);
        if is_late {
            let reason = "a command that nobody waits for any more".to_owned();
            return Ok(Some(Err(MetadataError::Unavailable { reason })));
        }
        if client.is_none_or(|client| client.opening < once.opening) {
            return Ok(None);
        }
        let row = keys::once_answer(self.range, once.node, once.sequence);
        let Some(stored) = self.view.get(Family::Groups, &row)? else { return Ok(None) };
        let answer: WireAnswer = decode(Family::Groups, &stored)?;
        Ok(Some(match answer.into_result() {
            Ok(reply) => Ok(self.in_full(reply, command)?),
            Err(refused) => Err(refused),
        }))
    }

    /// Keeps the answer, forgets some that are settled.
    pub(super) fn remember_answer(&mut self, once: &Once, result: &ApplyResult) -> KvResult<()> {
        if matches!(result, Ok(Reply::WrongRange)) {
            return Ok(());
        }
        let client = keys::once_client(self.range, once.node);
        let before = self.client_row(once.node)?;
        let is_new = before.is_none_or(|row| row.opening < once.opening);
        let settled = if is_new { u64::MAX } else { once.settled };
        forget(self.view, &mut self.batch, &client, settled, is_new)?;
        if is_new || before.is_some_and(|row| row.settled < once.settled) {
            let row = ClientRow { opening: once.opening, settled: once.settled };
            self.batch.put(Family::Groups, client, row.encode_to_vec());
        }
        let row = keys::once_answer(self.range, once.node, once.sequence);
        let answer = WireAnswer::of(&result.as_ref().map(in_short).map_err(Clone::clone)).encode_to_vec();
        self.batch.put(Family::Groups, row, answer);
        Ok(())
    }

    /// Refuses from now on what processes of `node` before `opening` propose, and forgets what was kept for them.
    pub(super) fn bar_before(&mut self, node: u64, opening: u64) -> KvResult<()> {
        if self.client_row(node)?.is_some_and(|client| client.opening >= opening) {
            return Ok(());
        }
        let client = keys::once_client(self.range, node);
        forget(self.view, &mut self.batch, &client, u64::MAX, true)?;
        self.batch.put(Family::Groups, client, ClientRow { opening, settled: 0 }.encode_to_vec());
        Ok(())
    }

    fn client_row(&self, node: u64) -> KvResult<Option<ClientRow>> {
        let stored = self.view.get(Family::Groups, &keys::once_client(self.range, node))?;
        stored.map(|stored| decode(Family::Groups, &stored)).transpose()
    }

    /// A version is remembered by its id; its record is what is stored under it, or what the command made.
    fn in_full(&self, reply: Reply, command: &Command) -> KvResult<Reply> {
        let put = match &command.kind {
            Some(Kind::Put(put)) => put,
            Some(Kind::UploadComplete(complete)) => &complete.put,
            _ => return Ok(reply),
        };
        let Reply::Version(short) = reply else { return Ok(reply) };
        let selector = VersionSelector::Id(version_of(&short.version));
        let stored = find_version(self.view, BucketId(put.bucket), &put.key, selector)?.map(|(_, version)| version);
        let made = ObjectVersion { version: short.version.clone(), is_null: short.is_null, ..put.version.clone() };
        let whole = stored.map(|stored| ObjectVersion { inline: put.version.inline.clone(), ..stored });
        Ok(Reply::Version(Box::new(whole.unwrap_or(made))))
    }
}

/// What of an answer is kept.
fn in_short(reply: &Reply) -> Reply {
    match reply {
        Reply::Version(version) => Reply::Version(Box::new(ObjectVersion {
            version: version.version.clone(),
            is_null: version.is_null,
            ..ObjectVersion::default()
        })),
        other => other.clone(),
    }
}

/// Forgets answers with numbers below `settled`: a few, or all of a process that has ended. A process keeps few
/// unsettled, so those it leaves behind are few, too.
fn forget<V: KvView>(view: &V, batch: &mut Batch, client: &[u8], settled: u64, is_all: bool) -> KvResult<()> {
    let mut gone = 0;
    view.scan(Family::Groups, client, &mut |row, _, _| {
        let Some(sequence) = row.strip_prefix(client) else { return Ok(Scan::Stop) };
        let Ok(sequence) = <[u8; 8]>::try_from(sequence) else { return Ok(Scan::Next) };
        if u64::from_be_bytes(sequence) >= settled || (gone == FORGOTTEN_PER_COMMAND && !is_all) {
            return Ok(Scan::Stop);
        }
        gone += 1;
        batch.delete(Family::Groups, row.to_vec());
        Ok(Scan::Next)
    })
}

/// Rows of a parent that its child needs, too: answers that may still be asked for.
pub(super) fn copy_to_child<V: KvView>(view: &V, batch: &mut Batch, parent: &[u8], child: &[u8]) -> KvResult<()> {
    view.scan(Family::Groups, parent, &mut |row, value, _| {
        let Some(rest) = row.strip_prefix(parent) else { return Ok(Scan::Stop) };
        batch.put(Family::Groups, [child, rest].concat(), value.to_vec());
        Ok(Scan::Next)
    })
}

#[cfg(test)]
mod tests {
    use super::super::apply;
    use super::*;
    use crate::metadata::api::{EtagCondition, Preconditions};
    use crate::metadata::command::{Put, RangeSplit};
    use crate::metadata::kv::memory::MemoryKv;
    use holdfast_proto::VersionId;

    fn put(number: u64, key: &str) -> Kind {
        Kind::Put(Put {
            bucket: 1,
            key: key.to_owned(),
            version: ObjectVersion {
                version: VersionId::from_parts(number, [1; 10]).0.to_vec().into(),
                etag: number.to_string(),
                ..ObjectVersion::default()
            },
            versioning: 0,
            conditions: (&Preconditions::default()).into(),
        })
    }

    fn run(kv: &mut MemoryKv, group: u32, kind: Kind, once: Option<Once>) -> ApplyResult {
        let (result, batch) = apply(kv, group, 7, &Command { kind: Some(kind), once }).unwrap();
        kv.write(batch);
        result
    }

    fn once(opening: u64, sequence: u64, settled: u64) -> Option<Once> {
        Some(Once { node: 2, opening, sequence, settled })
    }

    fn etag(kv: &MemoryKv) -> String {
        let found = find_version(kv, BucketId(1), "k", VersionSelector::Current).unwrap();
        found.map(|(_, version)| version.etag).unwrap_or_default()
    }

    #[test]
    fn retries_are_applied_once() {
        let mut kv = MemoryKv::default();
        let first = run(&mut kv, 1, put(1, "k"), once(1, 5, 5));
        run(&mut kv, 1, put(2, "k"), once(1, 6, 5)).unwrap();
        assert_eq!(run(&mut kv, 1, put(1, "k"), once(1, 5, 5)), first, "answered as it was");
        assert_eq!(etag(&kv), "2", "and not carried out again");
        run(&mut kv, 1, put(3, "k"), once(1, 7, 7)).unwrap();
        assert!(run(&mut kv, 1, put(1, "k"), once(1, 5, 5)).is_err(), "nobody waits for it any more");
        run(&mut kv, 1, put(4, "k"), once(2, 0, 0)).unwrap();
        assert!(run(&mut kv, 1, put(5, "k"), once(1, 8, 8)).is_err(), "its process has ended");
        assert_eq!(etag(&kv), "4");
        let kept = kv.map.keys().filter(|(family, _)| *family == Family::Groups).count();
        assert_eq!(kept, 2, "the process and its one open command");
    }

    /// Its proposer deletes what a refused command refers to; so a second copy of it in the log must stay refused.
    #[test]
    fn a_refusal_is_not_judged_anew() {
        let mut kv = MemoryKv::default();
        run(&mut kv, 1, put(1, "k"), once(1, 5, 5)).unwrap();
        let if_absent = |number| {
            let Kind::Put(put) = put(number, "k") else { unreachable!() };
            let conditions = Preconditions { if_none_match: Some(EtagCondition::Any), ..Preconditions::default() };
            Kind::Put(Put { conditions: (&conditions).into(), ..put })
        };
        let refused = run(&mut kv, 1, if_absent(2), once(1, 6, 5));
        assert!(matches!(refused, Err(MetadataError::PreconditionFailed { .. })), "{refused:?}");
        let mut gone = kv.clone();
        gone.map.retain(|(family, _), _| *family == Family::Groups);
        assert_eq!(run(&mut gone, 1, if_absent(2), once(1, 6, 5)), refused);
        assert_eq!(etag(&gone), "");
        run(&mut gone, 1, if_absent(3), once(1, 7, 5)).unwrap();
    }

    #[test]
    fn what_is_kept_is_bounded_by_what_is_open() {
        let mut kv = MemoryKv::default();
        for number in 0..1000 {
            run(&mut kv, 1, put(number, "k"), once(1, number, number.saturating_sub(20))).unwrap();
        }
        let kept = kv.map.keys().filter(|(family, _)| *family == Family::Groups).count();
        assert!(kept <= 23, "{kept}");
    }

    #[test]
    fn a_retry_after_a_split_is_answered_by_the_child() {
        let mut kv = MemoryKv::default();
        let first = run(&mut kv, 1, put(1, "k"), once(1, 5, 5));
        let border = keys::object(BucketId(1), "b");
        let split = Kind::RangeSplit(RangeSplit { child: 2, border: border.into() });
        assert_eq!(run(&mut kv, 1, split.clone(), None), Ok(Reply::Range(2)));
        assert_eq!(run(&mut kv, 1, split.clone(), None), Ok(Reply::Range(2)), "once more");
        let (again, batch) = apply(&kv, 1, 8, &Command { kind: Some(split), once: once(7, 1, 1) }).unwrap();
        assert_eq!(again, Ok(Reply::Range(2)));
        assert!(!batch.puts(Family::Groups, &keys::group_row(2, keys::RANGE_ROW)), "the child is left alone");
        assert_eq!(run(&mut kv, 1, put(9, "k"), once(1, 6, 5)), Ok(Reply::WrongRange));
        assert_eq!(run(&mut kv, 2, put(9, "a"), once(1, 6, 5)), Ok(Reply::WrongRange));
        assert_eq!(run(&mut kv, 2, put(1, "k"), once(1, 5, 5)), first);
        run(&mut kv, 2, put(2, "k"), once(1, 6, 5)).unwrap();
        assert_eq!(etag(&kv), "2");
    }
}
