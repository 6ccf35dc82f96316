//! Sessions of those who write: announced in the root group before their first write, barred in the ranges when their
//! coordinator is taken for dead.
//!
//! **Invariant:** in a range where a session was barred, nothing of it is carried out any more
//! (`a_barred_session_writes_nothing_more`).

use super::super::command::{Reply, WriterOpening};
use super::super::kv::{Family, KvResult, KvView};
use super::{Apply, Step, read_u64};

const WRITERS: &[u8] = b"writer/";

fn row(node: u64) -> Vec<u8> {
    [WRITERS, &node.to_be_bytes()].concat()
}

impl<V: KvView> Apply<'_, V> {
    /// Notes a node's newest session.
    pub(super) fn writer_open(&mut self, command: &WriterOpening) -> Step<Reply> {
        if writer_opening(self.view, command.node)?.is_none_or(|known| known < command.opening) {
            self.batch.put(Family::Root, row(command.node), command.opening.to_be_bytes().to_vec());
        }
        Ok(Reply::Done)
    }

    /// Bars every session of a node before the one named.
    pub(super) fn writer_fence(&mut self, command: &WriterOpening) -> Step<Reply> {
        self.bar_before(command.node, command.opening)?;
        Ok(Reply::Done)
    }
}

/// The newest session a node has announced.
pub(in super::super) fn writer_opening(view: &impl KvView, node: u64) -> KvResult<Option<u64>> {
    Ok(view.get(Family::Root, &row(node))?.map(|stored| read_u64(Some(stored))))
}
