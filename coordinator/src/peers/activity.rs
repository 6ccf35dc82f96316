//! What requests under way do, gathered from every coordinator.
//!
//! **Invariant:** a coordinator that does not answer is barred before it counts as doing nothing: what it had under way
//! can then no longer become visible. It is waited for a while first: whoever is barred loses every upload under way.

use super::convert::activity_of;
use crate::layout::Layout;
use crate::maintenance::{ActivitySource, ActivityUnknown};
use crate::metadata::Metadata;
use crate::object_path::Activity;
use async_trait::async_trait;
use futures::future::join_all;
use holdfast_proto::peer_rpc::{ActivityReply, ActivityRequest};
use holdfast_proto::rpc::Rpc;
use holdfast_proto::{Epoch, NodeId};
use holdfast_transport::{CallOptions, Frame, Transport, TransportError};
use parking_lot::Mutex;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a coordinator may take to answer: it looks into its own memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for one that was silent last: repair asks before every segment it may rebuild, and must not stand still for
/// as long as a coordinator is dead. A return is still noticed, across an ocean too.
const SILENT_ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a coordinator must have been silent before it is barred. Until then nobody knows what it does, and whatever
/// depends on that waits.
const BAR_AFTER: Duration = Duration::from_secs(10);
/// How often one is asked that does not know the newest map yet, and how long is waited in between. It learns of the map
/// from the root group's log, which takes a heartbeat at most.
const TRIES: u32 = 8;
const TRY_REST: Duration = Duration::from_millis(250);

/// The coordinators there are, without this one.
pub type CoordinatorList = Arc<dyn Fn() -> Vec<NodeId> + Send + Sync>;

/// Of this coordinator and all others.
pub struct ClusterActivity {
    /// This coordinator's requests.
    pub own: Arc<dyn ActivitySource>,
    /// Its cluster map.
    pub layout: Layout,
    /// Bars commits of those who do not answer.
    pub metadata: Arc<dyn Metadata>,
    /// Reaches the others.
    pub transport: Arc<dyn Transport>,
    /// The others.
    pub others: CoordinatorList,
    /// Those that did not answer last.
    pub silent: Mutex<BTreeMap<NodeId, Silence>>,
}

/// Of a coordinator that does not answer.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    since: Instant,
    seen: Instant,
    is_barred: bool,
}

impl Silence {
    fn begin(now: Instant) -> Self {
        Self { since: now, seen: now, is_barred: false }
    }

    /// It does not answer once more. If that was last seen long ago it begins anew: it may have answered in between, had
    /// it been asked.
    fn go_on(&mut self, now: Instant) {
        if !self.is_barred && now.saturating_duration_since(self.seen) > BAR_AFTER {
            self.since = now;
        }
        self.seen = now;
    }
}

#[async_trait]
impl ActivitySource for ClusterActivity {
    async fn activity(&self, epoch: Epoch) -> Result<Activity, ActivityUnknown> {
        let others = (self.others)();
        self.silent.lock().retain(|node, _| others.contains(node));
        let answers = join_all(others.iter().map(|&node| self.of_other(node, epoch))).await;
        let own_epoch = self.layout.current().table.epoch;
        if own_epoch < epoch {
            let reason = format!("this coordinator knows the cluster map of epoch {own_epoch} and not yet {epoch}");
            return Err(ActivityUnknown { reason });
        }
        let mut all = self.own.activity(epoch).await?;
        for answer in answers {
            all.merge(answer?);
        }
        Ok(all)
    }
}

impl ClusterActivity {
    /// What another coordinator does, or nothing once it is fenced.
    async fn of_other(&self, node: NodeId, epoch: Epoch) -> Result<Activity, ActivityUnknown> {
        let mut why = String::new();
        for _ in 0..TRIES {
            match self.ask(node, epoch).await {
                Ok((known, activity)) if known >= epoch => {
                    self.silent.lock().remove(&node);
                    return Ok(activity);
                }
                Ok((known, _)) => why = format!("it knows the cluster map of epoch {known} and not yet {epoch}"),
                Err(error) => {
                    why = error.to_string();
                    break;
                }
            }
            tokio::time::sleep(TRY_REST).await;
        }
        let silence = {
            let (mut silent, now) = (self.silent.lock(), Instant::now());
            let silence = silent.entry(node).or_insert_with(|| Silence::begin(now));
            silence.go_on(now);
            *silence
        };
        let unknown = |why: String| ActivityUnknown { reason: format!("node {node}: {why}") };
        if silence.since.elapsed() < BAR_AFTER {
            return Err(unknown(format!("{why}; it is barred if that lasts {} s", BAR_AFTER.as_secs())));
        }
        let barred = self.metadata.writer_fence(node).await;
        barred.map_err(|e| unknown(format!("{why}; it cannot be barred either: {e}")))?;
        if let Some(silence) = self.silent.lock().get_mut(&node)
            && !std::mem::replace(&mut silence.is_barred, true)
        {
            tracing::warn!(%node, why, "a coordinator does not tell what it writes: what it has under way is barred");
        }
        Ok(Activity::default())
    }

    async fn ask(&self, node: NodeId, epoch: Epoch) -> Result<(Epoch, Activity), TransportError> {
        let request = Frame::head_only(ActivityRequest { epoch: epoch.0 }.encode_to_vec().into());
        let was_silent = self.silent.lock().contains_key(&node);
        let deadline = if was_silent { SILENT_ANSWER_TIMEOUT } else { ANSWER_TIMEOUT };
        let options = CallOptions { deadline, epoch: Some(epoch), request_id: 0 };
        let reply = self.transport.call(node, Rpc::Activity, request, options).await?;
        let malformed = |reason: String| TransportError::Malformed { reason };
        let message = ActivityReply::decode(reply.head).map_err(|e| malformed(e.to_string()))?;
        let activity = activity_of(&message).ok_or_else(|| malformed("an id in an activity report".to_owned()))?;
        Ok((Epoch(message.epoch), activity))
    }
}

#[cfg(test)]
mod tests {
    use super::super::convert::activity_message;
    use super::*;
    use crate::admin::fake::FakeMetadata;
    use crate::metadata::ClusterMap;
    use holdfast_proto::cluster::{NodeIdentity, Roles};
    use holdfast_proto::pg_table::PgTable;
    use holdfast_proto::{ClusterId, SegmentId};
    use holdfast_transport::{Call, Channel, LinkConditions, LocalNetwork, LocalOptions, Service};

    const OWN: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn writing(number: u8) -> Activity {
        Activity { writing: BTreeMap::from([(SegmentId([number; 16]), Epoch(5))]), ..Activity::default() }
    }

    fn map(epoch: u64) -> ClusterMap {
        ClusterMap::new(ClusterId::default(), PgTable { epoch: Epoch(epoch), scheme: [0; 4], pgs: Vec::new() })
    }

    struct Own;

    #[async_trait]
    impl ActivitySource for Own {
        async fn activity(&self, _: Epoch) -> Result<Activity, ActivityUnknown> {
            Ok(writing(1))
        }
    }

    /// A coordinator that knows a newer map each time it is asked, and writes one segment.
    struct Peer {
        epoch: Mutex<u64>,
    }

    #[async_trait]
    impl Service for Peer {
        async fn serve(&self, _: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
            channel.receive().await?;
            let epoch = {
                let mut epoch = self.epoch.lock();
                *epoch += 1;
                *epoch
            };
            channel.send(Frame::head_only(activity_message(Epoch(epoch), &writing(2)).encode_to_vec().into())).await?;
            channel.finish().await
        }
    }

    struct World {
        network: LocalNetwork,
        metadata: Arc<FakeMetadata>,
        layout: Layout,
        activity: ClusterActivity,
    }

    /// This coordinator knows the map of epoch 5, the other that of `peer_epoch` when it is first asked.
    fn world(peer_epoch: u64) -> World {
        let network = LocalNetwork::new(LocalOptions::default());
        let peer = Arc::new(Peer { epoch: Mutex::new(peer_epoch - 1) });
        let identity = |node| NodeIdentity {
            cluster: ClusterId::default(),
            node,
            roles: Roles::BOTH,
            region: "r".into(),
            zone: "z".into(),
        };
        let transport = network.join(identity(OWN), peer.clone());
        network.join(identity(OTHER), peer);
        let metadata = Arc::new(FakeMetadata::default());
        let layout = Layout::new(map(5));
        let activity = ClusterActivity {
            own: Arc::new(Own),
            layout: layout.clone(),
            metadata: metadata.clone(),
            transport: Arc::new(transport),
            others: Arc::new(|| vec![OTHER]),
            silent: Default::default(),
        };
        World { network, metadata, layout, activity }
    }

    #[tokio::test(start_paused = true)]
    async fn what_all_write_is_told_once_all_know_the_map() {
        let world = world(3);
        let all = world.activity.activity(Epoch(5)).await.unwrap();
        let segments: Vec<SegmentId> = all.writing.keys().copied().collect();
        assert_eq!(segments, [SegmentId([1; 16]), SegmentId([2; 16])]);
        assert_eq!(*world.metadata.fenced.lock(), [], "it only had to catch up");
        let unknown = world.activity.activity(Epoch(6)).await.unwrap_err();
        assert!(unknown.reason.contains("epoch 5 and not yet 6"), "{unknown}");
        world.layout.advance(map(6));
        world.activity.activity(Epoch(6)).await.unwrap();
    }

    /// Asks until there is an answer, once a second.
    async fn insist(world: &World, epoch: u64) -> (Activity, Duration) {
        let begun = Instant::now();
        loop {
            match world.activity.activity(Epoch(epoch)).await {
                Ok(activity) => return (activity, begun.elapsed()),
                Err(unknown) => assert!(unknown.reason.contains("barred if that lasts"), "{unknown}"),
            }
            assert!(begun.elapsed() < Duration::from_secs(60));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_learn_of_the_map_is_barred() {
        let world = world(1);
        world.layout.advance(map(900));
        let (activity, took) = insist(&world, 900).await;
        assert_eq!(activity, writing(1));
        assert!(took >= BAR_AFTER);
        assert_eq!(*world.metadata.fenced.lock(), [OTHER]);
    }

    #[tokio::test(start_paused = true)]
    async fn two_moments_of_silence_far_apart_are_not_one_long_one() {
        let world = world(5);
        world.network.set_link(OWN, OTHER, LinkConditions::delayed(Duration::from_secs(60)));
        for _ in 0..3 {
            let unknown = world.activity.activity(Epoch(5)).await.unwrap_err();
            assert!(unknown.reason.contains("barred if that lasts"), "{unknown}");
            tokio::time::sleep(BAR_AFTER * 2).await;
        }
        assert_eq!(*world.metadata.fenced.lock(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_silent_is_barred_after_a_while_and_heard_when_it_returns() {
        let world = world(5);
        let cut = || world.network.set_link(OWN, OTHER, LinkConditions::delayed(Duration::from_secs(60)));
        let heal = || world.network.set_link(OWN, OTHER, LinkConditions::default());
        cut();
        world.activity.activity(Epoch(5)).await.unwrap_err();
        heal();
        assert_eq!(world.activity.activity(Epoch(5)).await.unwrap().writing.len(), 2, "a pause costs nothing");
        cut();
        let (activity, took) = insist(&world, 5).await;
        assert_eq!(activity, writing(1));
        assert!(took >= BAR_AFTER && took < BAR_AFTER * 2, "{took:?}");
        assert_eq!(*world.metadata.fenced.lock(), [OTHER]);

        let begun = Instant::now();
        assert_eq!(world.activity.activity(Epoch(5)).await.unwrap(), writing(1));
        assert!(begun.elapsed() <= SILENT_ANSWER_TIMEOUT * 2, "repair is not held up by the dead");
        *world.metadata.down.lock() = true;
        let unknown = world.activity.activity(Epoch(5)).await.unwrap_err();
        assert!(unknown.reason.contains("it cannot be barred either"), "{unknown}");
        *world.metadata.down.lock() = false;

        heal();
        let barred = world.metadata.fenced.lock().len();
        assert_eq!(world.activity.activity(Epoch(5)).await.unwrap().writing.len(), 2);
        assert_eq!(world.metadata.fenced.lock().len(), barred, "not once it answers");
    }
}
