//! Copies of ranges that have moved off this node: found, made sure of, and removed.
//!
//! That a node is no member any more it must not take from its own copy, which nobody feeds: it asks a member, and the answer
//! is as new as what was acknowledged before. It asks again with its group closed, for until then it could be taken back
//! and acknowledge entries that would then be removed.

use super::super::consensus::Consensus;
use super::super::query::{Found, Query};
use super::super::query_wire::{WireFound, WireQuery};
use super::super::removal;
use super::super::wire::head;
use super::asking::Try;
use super::{Inner, ROOT};
use holdfast_proto::rpc::Rpc;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(1);
/// A copy that nobody counts on is kept that long: what the map says of members may be behind.
const PATIENCE: Duration = Duration::from_secs(60);

/// Removes copies that have moved away until the store is gone.
pub(super) async fn leave_what_has_moved(inner: Weak<Inner>) {
    let mut leaving = Leaving::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(inner) = inner.upgrade() else { return };
        leaving.look(&inner).await;
    }
}

#[derive(Default)]
struct Leaving {
    /// Since when ranges are said to be elsewhere.
    since: BTreeMap<u32, Instant>,
    /// Removals that have begun and met an error: their groups stay closed until they are done.
    unfinished: BTreeSet<u32>,
}

impl Leaving {
    /// Removes at most one copy.
    async fn look(&mut self, inner: &Arc<Inner>) {
        if let Some(range) = self.unfinished.pop_first() {
            self.finish(inner, range).await;
            return;
        }
        let mut elsewhere = BTreeMap::new();
        for group in inner.groups.all() {
            let number = group.number();
            let members = told_members(inner, number);
            let is_elsewhere = number != ROOT && !members.is_empty() && !members.contains(&inner.me);
            if is_elsewhere && !group.members().is_leader {
                elsewhere.insert(number, members);
            }
        }
        self.since.retain(|number, _| elsewhere.contains_key(number));
        for (number, members) in elsewhere {
            let since = self.since.entry(number).or_insert_with(Instant::now);
            if since.elapsed() >= PATIENCE {
                *since = Instant::now();
                if let Err(reason) = self.leave(inner, number, &members).await {
                    tracing::warn!(range = number, %reason, "a copy that may have moved off this node stays for now");
                }
                return;
            }
        }
    }

    async fn leave(&mut self, inner: &Arc<Inner>, range: u32, members: &[u64]) -> Result<(), String> {
        if is_member(inner, range, members).await? {
            return Ok(());
        }
        if let Err(reason) = close_and_begin(inner, range, members).await {
            inner.groups.let_open(range, true).await.map_err(|e| format!("{reason}; open it again: {e}"))?;
            return Err(reason);
        }
        self.finish(inner, range).await;
        Ok(())
    }

    async fn finish(&mut self, inner: &Arc<Inner>, range: u32) {
        if let Err(error) = removal::finish(&inner.state, &inner.log, range).await {
            tracing::warn!(range, %error, "remove a copy that has moved off this node; it is tried again");
            self.unfinished.insert(range);
            return;
        }
        tracing::info!(range, "a copy of a range that has moved off this node is removed");
        // Opens nothing.
        let _ = inner.groups.let_open(range, false).await;
    }
}

async fn close_and_begin(inner: &Inner, range: u32, members: &[u64]) -> Result<(), String> {
    inner.groups.close(range).await.map_err(|e| e.to_string())?;
    if is_member(inner, range, members).await? {
        return Err("it was taken back".to_owned());
    }
    removal::begin(&inner.state, range).await.map_err(|e| e.to_string())
}

fn told_members(inner: &Inner, range: u32) -> Vec<u64> {
    let cache = inner.cache.read();
    cache.ranges.values().find(|record| record.range == range).map(|record| record.members.clone()).unwrap_or_default()
}

/// Whether this node is a voter or learner of the range, by the first of `members` that can tell.
async fn is_member(inner: &Inner, range: u32, members: &[u64]) -> Result<bool, String> {
    let mut reason = "nobody was asked".to_owned();
    for member in members {
        let answer = inner.ask(*member, Rpc::MetadataRead, range, head(&WireQuery::of(&Query::Members))).await;
        reason = match answer {
            Try::Answered(answer) => match WireFound::decode(answer).map(WireFound::into_found) {
                Ok(Some(Found::Members(found))) => return Ok(found.contains(&inner.me)),
                _ => format!("node {member} answers what this build does not know"),
            },
            Try::Elsewhere(_) => format!("node {member} does not keep it"),
            Try::Failed(reason) => reason,
        };
    }
    Err(reason)
}
