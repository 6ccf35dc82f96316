//! Heartbeats of all groups to one peer in one message, so that what an idle range costs is not a message to each of its
//! followers three times a second.
//!
//! The groups that a node leads beat in step (`beat`), so what goes to one peer is there at one moment and goes together.
//! A heartbeat that a read has asked for (read index) goes at once, with whatever else is there then: nothing waits for
//! company.
//!
//! **Invariant:** what is handed over is answered, or given up at its limit, whatever becomes of who handed over the others.

use super::group::HEARTBEAT;
use super::store::Inner;
use super::wire::{Append, AppendReply, Beats, BeatsReply, head};
use futures::future::join_all;
use holdfast_proto::NodeId;
use holdfast_proto::rpc::Rpc;
use holdfast_transport::{CallOptions, Frame, Transport};
use parking_lot::Mutex;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, timeout};

/// How often others are let go first, so that what they hand over goes along: nothing where nobody else is ready.
const YIELDS: usize = 3;
/// Heartbeats of one message: with the longest keys as bounds of each range some 2 MiB, half of what a head holds. More in one
/// are refused.
pub(super) const BEATS_MAX: usize = 1_024;

/// Gathers what is to be sent to each peer.
pub(super) struct Heartbeats {
    transport: Arc<dyn Transport>,
    waiting: Mutex<BTreeMap<NodeId, Vec<Waiting>>>,
}

struct Waiting {
    beat: Append,
    answer: oneshot::Sender<Result<AppendReply, String>>,
}

impl Heartbeats {
    pub(super) fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, waiting: Mutex::default() }
    }

    /// Sends one group's heartbeat, with the others' of this moment. Answered within a heartbeat's interval.
    pub(super) async fn send(self: &Arc<Self>, to: NodeId, beat: Append) -> Result<AppendReply, String> {
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.lock();
            let of_peer = waiting.entry(to).or_default();
            of_peer.push(Waiting { beat, answer });
            of_peer.len() == 1
        };
        if is_first {
            // In a task of its own: the first may be given up, the others are not.
            tokio::spawn(self.clone().send_waiting(to));
        }
        answered.await.unwrap_or_else(|_| Err("heartbeats are not sent any more".to_owned()))
    }

    async fn send_waiting(self: Arc<Self>, to: NodeId) {
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
        }
        let mut waiting = self.waiting.lock().remove(&to).unwrap_or_default();
        let mut messages = Vec::new();
        while !waiting.is_empty() {
            let rest = waiting.split_off(waiting.len().min(BEATS_MAX));
            messages.push(self.send_one(to, waiting));
            waiting = rest;
        }
        join_all(messages).await;
    }

    async fn send_one(&self, to: NodeId, waiting: Vec<Waiting>) {
        let (beats, answers): (Vec<_>, Vec<_>) = waiting.into_iter().map(|w| (w.beat, w.answer)).unzip();
        let mut replies = self.call(to, beats).await.map(Vec::into_iter);
        for answer in answers {
            let reply = match &mut replies {
                Ok(replies) => replies.next().ok_or_else(|| format!("node {to} left a heartbeat unanswered")),
                Err(reason) => Err(reason.clone()),
            };
            // Who has given up waiting is not told.
            let _ = answer.send(reply);
        }
    }

    async fn call(&self, to: NodeId, beats: Vec<Append>) -> Result<Vec<AppendReply>, String> {
        let options = CallOptions { deadline: HEARTBEAT, epoch: None, request_id: 0 };
        let call = self.transport.call(to, Rpc::RaftBeats, Frame::head_only(head(&Beats { beats })), options);
        let late = || format!("node {to} did not answer in time");
        let frame = timeout(HEARTBEAT, call).await.map_err(|_| late())?.map_err(|error| error.to_string())?;
        Ok(BeatsReply::decode(frame.head).map_err(|error| format!("node {to}: {error}"))?.replies)
    }
}

/// Has every group that is led here beat at the same moment, until the store is gone.
pub(super) async fn beat(inner: Weak<Inner>) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let groups = inner.groups.all();
        let beats = join_all(groups.iter().filter(|group| group.leads_others()).map(|group| group.beat()));
        // One whose queue is full does not keep the others from the next beat.
        let _ = timeout(HEARTBEAT, beats).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::KEY_BYTES_MAX;
    use super::super::wire::{WireGroup, WireLogId, WireVote};
    use super::*;
    use async_trait::async_trait;
    use holdfast_proto::ClusterId;
    use holdfast_proto::cluster::{NodeIdentity, Roles};
    use holdfast_transport::{Call, Channel, LinkConditions, LocalNetwork, LocalOptions, Service, TransportError};
    use std::time::Duration;

    const OWN: NodeId = NodeId(1);
    const PEER: NodeId = NodeId(2);

    /// Answers each heartbeat with its group's number, but for the last where it is told to; counts messages.
    #[derive(Default)]
    struct Peer {
        messages: Mutex<Vec<usize>>,
        forgets_one: bool,
    }

    #[async_trait]
    impl Service for Peer {
        async fn serve(&self, call: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
            assert_eq!(call.rpc, Rpc::RaftBeats);
            let first = channel.receive().await?.unwrap();
            let beats = Beats::decode(first.head).unwrap().beats;
            self.messages.lock().push(beats.len());
            let mut replies: Vec<_> =
                beats.iter().map(|beat| AppendReply::failed(beat.group.group.to_string())).collect();
            if self.forgets_one {
                replies.pop();
            }
            channel.send(Frame::head_only(head(&BeatsReply { replies }))).await?;
            channel.finish().await
        }
    }

    fn world(forgets_one: bool) -> (LocalNetwork, Arc<Peer>, Arc<Heartbeats>) {
        let network = LocalNetwork::new(LocalOptions::default());
        let peer = Arc::new(Peer { forgets_one, ..Peer::default() });
        let identity = |node| NodeIdentity {
            cluster: ClusterId::default(),
            node,
            roles: Roles::BOTH,
            region: "r".into(),
            zone: "z".into(),
        };
        let transport = network.join(identity(OWN), peer.clone());
        network.join(identity(PEER), peer.clone());
        (network, peer, Arc::new(Heartbeats::new(Arc::new(transport))))
    }

    fn of_group(group: usize) -> Append {
        let group = WireGroup { group: u32::try_from(group).unwrap(), ..WireGroup::default() };
        Append { group, ..Append::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_at_one_moment_goes_together_and_each_gets_its_own_answer() {
        let (_network, peer, heartbeats) = world(false);
        let sent = |count: usize| {
            let heartbeats = heartbeats.clone();
            async move {
                let all = (0..count).map(|group| heartbeats.send(PEER, of_group(group)));
                for (group, reply) in join_all(all).await.into_iter().enumerate() {
                    assert_eq!(reply.unwrap(), AppendReply::failed(group.to_string()));
                }
            }
        };
        sent(20).await;
        sent(1).await;
        sent(BEATS_MAX + 1).await;
        let mut messages = peer.messages.lock().clone();
        messages[2..].sort_unstable();
        assert_eq!(messages, [20, 1, 1, BEATS_MAX]);
        assert!(heartbeats.waiting.lock().is_empty());
    }

    #[test]
    fn a_full_message_fits_into_a_head() {
        let longest = bytes::Bytes::from(vec![b'k'; KEY_BYTES_MAX + 16]);
        let group = WireGroup { group: u32::MAX, start: longest.clone(), end: longest };
        let id = Some(WireLogId { term: u64::MAX, node: u64::MAX, index: u64::MAX });
        let vote = WireVote { term: u64::MAX, node: u64::MAX, committed: true };
        let beat = Append { group, vote, previous: id, committed: id, lengths: Vec::new() };
        let beats = Beats { beats: vec![beat; BEATS_MAX] };
        assert!(head(&beats).len() < Frame::HEAD_BYTES_MAX, "{}", head(&beats).len());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gives_up_or_gets_no_answer_takes_no_other_with_it() {
        let (network, peer, heartbeats) = world(true);
        let first = tokio::spawn({
            let heartbeats = heartbeats.clone();
            async move { heartbeats.send(PEER, of_group(7)).await }
        });
        tokio::task::yield_now().await;
        let (second, third) = (heartbeats.send(PEER, of_group(8)), heartbeats.send(PEER, of_group(9)));
        let (second, third) = tokio::join!(
            async {
                first.abort();
                second.await
            },
            third
        );
        assert_eq!(*peer.messages.lock(), [3]);
        assert_eq!(second.unwrap(), AppendReply::failed("8".to_owned()));
        assert!(third.unwrap_err().contains("unanswered"));
        network.set_link(OWN, PEER, LinkConditions::delayed(Duration::from_secs(60)));
        let begun = tokio::time::Instant::now();
        assert!(heartbeats.send(PEER, of_group(1)).await.is_err());
        assert!(begun.elapsed() <= HEARTBEAT + Duration::from_millis(1), "{:?}", begun.elapsed());
    }
}
