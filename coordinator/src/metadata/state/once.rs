//! Retries that are applied once: a command carries who proposes it and a number, and the group keeps the answer until its
//! proposer says that it has it.
//!
//! Only commands that changed something are remembered: one that was refused may be judged again, for it is then as if
//! the first had never been. A process whose node has started another since is refused, so what is remembered of it can go.
//!
//! **Invariant:** a command is carried out at most once, however often it is in the log (`retries_are_applied_once`).

use super::super::api::{MetadataError, VersionSelector};
use super::super::command::{ApplyResult, Command, Kind, Once, Reply};
use super::super::keys;
use super::super::kv::{Batch, Family, KvError, KvResult, KvView, Scan};
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
        let reply = answer.into_result().map_err(|e| KvError { reason: e.to_string() })?;
        Ok(Some(Ok(self.in_full(reply, command)?)))
    }

    /// Keeps the answer, forgets some that are settled.
    pub(super) fn remember_answer(&mut self, once: &Once, reply: &Reply) -> KvResult<()> {
        if matches!(reply, Reply::WrongRange) {
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
        let answer = WireAnswer::of(&Ok(in_short(reply))).encode_to_vec();
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
