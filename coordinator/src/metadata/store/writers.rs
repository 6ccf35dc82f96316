//! Sessions of this process as a writer, and the barring of others.
//!
//! A session is announced in the root group before the first segment is written in it. Whoever takes a coordinator for
//! dead reads there which session that is, and bars it in every range; what the coordinator had begun can then no longer
//! become visible, and its segments are nobody's. The coordinator, should it live, notices by the first refusal, and begins
//! another session.

use super::super::api::{MetadataError, MetadataResult, WriterSession};
use super::super::command::{Kind, WriterOpening};
use super::super::group::done;
use super::super::state;
use super::{Inner, MetadataStore};
use holdfast_proto::NodeId;
use std::collections::BTreeSet;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often it is looked whether there is a session to announce.
const ANNOUNCE_PERIOD: Duration = Duration::from_secs(1);

impl MetadataStore {
    /// The session, announced.
    pub(super) async fn open_session(&self) -> MetadataResult<WriterSession> {
        let inner = &self.inner;
        loop {
            let opening = inner.sequences.opening();
            if inner.announced.load(Ordering::Acquire) >= opening || self.is_alone()? {
                return Ok(WriterSession(opening));
            }
            let open = WriterOpening { node: inner.me, opening };
            done(self.propose_root(Kind::WriterOpen(open)).await?)?;
            inner.announced.fetch_max(opening, Ordering::AcqRel);
        }
    }

    /// Bars the session that `node` has announced last.
    pub(super) async fn fence_sessions(&self, node: NodeId) -> MetadataResult<()> {
        let opening = match self.read_root(|state| state::writer_opening(state, node.0)).await? {
            Some(opening) => opening,
            // It may have begun to write while it was alone, when nobody needed to be told.
            None if node == NodeId::FIRST => {
                let reason = "node 1 has not announced itself as a writer yet".to_owned();
                return Err(MetadataError::Unavailable { reason });
            }
            None => return Ok(()),
        };
        let fence = WriterOpening { node: node.0, opening: opening + 1 };
        if self.inner.barred.lock().get(&node.0).is_some_and(|barred| *barred >= fence.opening) {
            return Ok(());
        }
        let mut fenced = BTreeSet::new();
        loop {
            self.root_barrier().await?;
            let (ranges, is_splitting) = {
                let numbers: BTreeSet<u32> = self.inner.range_numbers().into_iter().collect();
                (numbers, !self.inner.cache.read().splits.is_empty())
            };
            let open: Vec<u32> = ranges.difference(&fenced).copied().collect();
            if open.is_empty() {
                // A child that the map does not show yet would have been left out.
                return match is_splitting {
                    false => {
                        // Ranges split off later have it from their parents.
                        self.inner.barred.lock().insert(fence.node, fence.opening);
                        Ok(())
                    }
                    true => Err(MetadataError::Unavailable { reason: "a range is being split just now".to_owned() }),
                };
            }
            for range in open {
                done(self.inner.propose(range, Kind::WriterFence(fence)).await?)?;
                fenced.insert(range);
            }
        }
    }
}

/// Announces the session of a store that is no longer alone, without waiting for a write.
pub(super) async fn announce(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(ANNOUNCE_PERIOD).await;
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = (MetadataStore { inner }).open_session().await {
            tracing::debug!(%error, "announce this coordinator as a writer");
        }
    }
}

impl Inner {
    /// Begins another session after `opening` was fenced.
    pub(super) async fn renew_session(&self, opening: u64) -> MetadataResult<()> {
        if self.sequences.opening() != opening {
            return Ok(());
        }
        let counted = self.log.count_opening().await;
        let next = counted
            .map_err(|e| MetadataError::Unavailable { reason: format!("begin another session in the log: {e}") })?;
        self.sequences.reopen(next);
        tracing::warn!(
            session = next,
            "the other coordinators had taken this one for dead; what it had begun is refused, it goes on afresh"
        );
        Ok(())
    }
}
