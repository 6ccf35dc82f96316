//! Asking other nodes about a group. A leader that is not heard from here may well be heard elsewhere (a link, or one
//! direction of it, is cut), so what it does not answer at once goes to it through another node as well.
//!
//! Both ways may reach the leader: a proposal carries its number and is carried out once (`state/once.rs`), and a question
//! may be answered twice. A call is passed on once and never further.

use super::super::consensus::Consensus;
use super::super::wire::{GroupCall, GroupOutcome, GroupReply, head};
use super::{Inner, ROOT};
use bytes::Bytes;
use holdfast_proto::NodeId;
use holdfast_proto::rpc::Rpc;
use holdfast_transport::{CallOptions, Frame};
use parking_lot::Mutex;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// One try at another node.
pub(super) const TRY_LIMIT: Duration = Duration::from_secs(4);
/// A leader that has not answered by then is asked through another node as well. Well above a commit on a busy disk, well
/// below what a client notices as an outage.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a node that passes a call on waits for the leader: its asker's limit is `TRY_LIMIT - PATIENCE`.
const PASS_ON_LIMIT: Duration = Duration::from_millis(2_500);
/// A leader that did not answer is asked through others alone for that long; then one call tries it again.
const SILENCE: Duration = Duration::from_secs(5);

/// What one try came to.
pub(super) enum Try<T> {
    Answered(T),
    /// Another node, or the same a little later. With who leads, if that is known.
    Elsewhere(Option<u64>),
    /// It may have been done.
    Failed(String),
}

/// Leaders that did not answer from here, and until when they are not asked directly. As many as there are coordinators.
#[derive(Default)]
pub(in super::super) struct Silent(Mutex<BTreeMap<u64, Instant>>);

impl Silent {
    /// Whether to leave `node` alone. Of those who come after the silence one is told to try; the others wait for it.
    fn is_on(&self, node: u64) -> bool {
        let mut silent = self.0.lock();
        let Some(until) = silent.get_mut(&node) else { return false };
        let now = Instant::now();
        if now < *until {
            return true;
        }
        *until = now + TRY_LIMIT;
        false
    }

    fn begin(&self, node: u64) {
        self.0.lock().insert(node, Instant::now() + SILENCE);
    }

    fn end(&self, node: u64) {
        self.0.lock().remove(&node);
    }
}

impl Inner {
    /// Asks the node that leads `group`, through another if it does not answer from here.
    pub(super) async fn ask_leader(&self, leader: u64, rpc: Rpc, group: u32, payload: Bytes) -> Try<Bytes> {
        let around = self.some_member_but(group, leader);
        let Some(around) = around else { return self.ask(leader, rpc, group, payload).await };
        let through =
            self.call(around, rpc, GroupCall { group, payload: payload.clone(), pass_on: true }, TRY_LIMIT - PATIENCE);
        let direct = self.call(leader, rpc, GroupCall { group, payload, pass_on: false }, TRY_LIMIT);
        tokio::pin!(direct, through);
        if self.silent.is_on(leader) {
            return match through.await {
                Ok(answer @ (Try::Answered(_) | Try::Elsewhere(Some(_)))) => answer,
                // The other way has failed: perhaps this one works again.
                no_better => {
                    let answer = direct.await;
                    self.note(leader, answer.is_ok());
                    answer.or(no_better).unwrap_or_else(Try::Failed)
                }
            };
        }
        let first = match timeout(PATIENCE, &mut direct).await {
            Ok(answer) => answer,
            Err(_) => tokio::select! {
                biased;
                answer = &mut direct => answer,
                answer = &mut through => match answer {
                    Ok(Try::Answered(answer)) => {
                        self.silent.begin(leader);
                        return Try::Answered(answer);
                    }
                    Ok(Try::Elsewhere(Some(other))) if other != leader => return Try::Elsewhere(Some(other)),
                    // No better: so the leader's own answer is waited for, and nobody else is left to ask.
                    no_better => {
                        let answer = direct.await;
                        self.note(leader, answer.is_ok());
                        return answer.or(no_better).unwrap_or_else(Try::Failed);
                    }
                },
            },
        };
        self.note(leader, first.is_ok());
        match first {
            Ok(answer) => answer,
            Err(reason) => through.await.unwrap_or(Try::Failed(reason)),
        }
    }

    fn note(&self, leader: u64, has_answered: bool) {
        if has_answered { self.silent.end(leader) } else { self.silent.begin(leader) }
    }

    /// Asks a node, which need not lead the group.
    pub(super) async fn ask(&self, target: u64, rpc: Rpc, group: u32, payload: Bytes) -> Try<Bytes> {
        let call = GroupCall { group, payload, pass_on: false };
        self.call(target, rpc, call, TRY_LIMIT).await.unwrap_or_else(Try::Failed)
    }

    /// For another node that does not hear the leader: what the leader answers.
    pub(in super::super) async fn pass_on(&self, leader: u64, rpc: Rpc, group: u32, payload: Bytes) -> GroupOutcome {
        let call = GroupCall { group, payload, pass_on: false };
        match self.call(leader, rpc, call, PASS_ON_LIMIT).await {
            Ok(Try::Answered(answer)) => GroupOutcome::Answer(answer),
            Ok(Try::Elsewhere(leader)) => GroupOutcome::NotLeader(leader.unwrap_or(0)),
            Ok(Try::Failed(reason)) | Err(reason) => GroupOutcome::Failed(reason),
        }
    }

    /// One call. The error is that `target` did not answer, or not so that this build understands it.
    async fn call(&self, target: u64, rpc: Rpc, call: GroupCall, limit: Duration) -> Result<Try<Bytes>, String> {
        let options = CallOptions { deadline: limit, epoch: None, request_id: 0 };
        let frame = Frame::head_only(head(&call));
        let answer = match timeout(limit, self.transport.call(NodeId(target), rpc, frame, options)).await {
            Ok(answer) => answer.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("node {target} did not answer in time")),
        };
        let reply = GroupReply::decode(answer.head).map_err(|error| error.to_string())?;
        Ok(match reply.outcome {
            Some(GroupOutcome::Answer(answer)) => Try::Answered(answer),
            Some(GroupOutcome::NotLeader(leader)) => Try::Elsewhere(Some(leader).filter(|leader| *leader != 0)),
            Some(GroupOutcome::NotHere(_)) => Try::Elsewhere(None),
            Some(GroupOutcome::Failed(reason)) => Try::Failed(reason),
            None => return Err(format!("node {target} answers what this build does not know")),
        })
    }

    /// A node to ask about a group, another each time: who keeps it as far as known, or else any coordinator.
    pub(super) fn some_member(&self, group: u32) -> Option<u64> {
        self.some_member_but(group, self.me)
    }

    fn some_member_but(&self, group: u32, but: u64) -> Option<u64> {
        let mut members: Vec<u64> = {
            let cache = self.cache.read();
            let record = cache.ranges.values().find(|record| record.range == group);
            record.map(|record| record.members.clone()).unwrap_or_default()
        };
        if let Some(here) = self.groups.get(group) {
            let known = here.members();
            members.extend(known.voters);
        }
        if members.is_empty()
            && let Some(root) = self.groups.get(ROOT)
        {
            members.extend(root.members().voters);
        }
        if members.is_empty() {
            members.extend(self.nodes.read().iter().map(|node| node.id.0));
        }
        members.retain(|member| *member != self.me && *member != but);
        members.sort_unstable();
        members.dedup();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        members.get(turn as usize % members.len().max(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_leader_is_tried_by_one_call_at_a_time() {
        let silent = Silent::default();
        assert!(!silent.is_on(1), "nobody was silent");
        silent.begin(1);
        assert!(silent.is_on(1) && !silent.is_on(2));
        tokio::time::advance(SILENCE).await;
        assert!(!silent.is_on(1), "the first to come tries");
        assert!(silent.is_on(1) && silent.is_on(1), "the others wait for it");
        // It never said what came of it.
        tokio::time::advance(TRY_LIMIT).await;
        assert!(!silent.is_on(1));
        silent.end(1);
        assert!(!silent.is_on(1) && !silent.is_on(1), "it has answered");
    }
}
