//! A transport whose calls to other nodes fail as an operator says: late, never answered, broken, slow, or cut in one
//! direction.
//!
//! A fault is carried out where a call is made, so a direction is that of calls: with the link from n1 to n2 cut, n2 still
//! calls n1 and is answered. Calls that order faults are never harmed, or nobody could end them. While no fault is set a
//! call costs one look at a flag more.

use crate::channel::{CallOptions, Channel, Frame, Transport};
use crate::error::TransportError;
use async_trait::async_trait;
use holdfast_faults::{Dice, LinkPlan};
use holdfast_proto::NodeId;
use holdfast_proto::rpc::Rpc;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Counts what was done to calls.
const INJECTED: &str = "holdfast_faults_injected_total";

/// The faults of the links from this node to others. Shared by all its transports and channels.
#[derive(Debug, Default)]
pub struct LinkFaults {
    is_on: AtomicBool,
    links: RwLock<BTreeMap<NodeId, Arc<Link>>>,
}

#[derive(Debug)]
struct Link {
    plan: LinkPlan,
    dice: Dice,
    /// When the bytes that were let through have passed, at the rate of the plan.
    passed: Mutex<Instant>,
}

impl LinkFaults {
    /// From now on these plans hold, and no others. A link whose plan stays as it is goes on where it was.
    pub fn set(&self, plans: BTreeMap<NodeId, LinkPlan>) {
        let mut links = self.links.write();
        let before = std::mem::take(&mut *links);
        for (node, plan) in plans {
            let kept = before.get(&node).filter(|link| link.plan == plan).cloned();
            links.insert(node, kept.unwrap_or_else(|| Arc::new(Link::new(plan))));
        }
        self.is_on.store(!links.is_empty(), Ordering::Release);
    }

    fn link(&self, to: NodeId) -> Option<Arc<Link>> {
        if !self.is_on.load(Ordering::Acquire) {
            return None;
        }
        self.links.read().get(&to).cloned()
    }
}

impl Link {
    fn new(plan: LinkPlan) -> Self {
        let dice = Dice::new(plan.seed);
        Self { plan, dice, passed: Mutex::new(Instant::now()) }
    }

    /// What becomes of a call: it may go on now, or how it ends.
    async fn meet_call(&self, to: NodeId, deadline: Instant) -> Result<(), TransportError> {
        self.meet_cut(to, deadline).await?;
        if self.dice.falls(self.plan.error) {
            injected("error");
            return Err(TransportError::Unreachable { peer: to, reason: "injected fault".to_owned() });
        }
        if self.dice.falls(self.plan.dropped) {
            injected("drop");
            return unanswered(to, deadline).await;
        }
        if self.dice.falls(self.plan.delayed) {
            injected("delay");
            sleep(self.plan.delay.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
        Ok(())
    }

    async fn meet_cut(&self, to: NodeId, deadline: Instant) -> Result<(), TransportError> {
        if !self.plan.is_cut {
            return Ok(());
        }
        injected("partition");
        unanswered(to, deadline).await
    }

    /// Waits until the link has let so many bytes through.
    async fn meet_bytes(&self, bytes: usize, deadline: Instant) {
        let Some(rate) = self.plan.bytes_per_second else { return };
        let takes = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let passed = {
            let mut passed = self.passed.lock();
            *passed = (*passed).max(Instant::now()) + takes;
            *passed
        };
        injected("bandwidth");
        sleep_until(passed.min(deadline)).await;
    }
}

async fn unanswered<T>(to: NodeId, deadline: Instant) -> Result<T, TransportError> {
    sleep_until(deadline).await;
    Err(TransportError::Timeout { peer: to })
}

fn injected(kind: &'static str) {
    metrics::counter!(INJECTED, "kind" => kind).increment(1);
}

/// A transport with faults.
pub struct FaultyTransport {
    /// Carries what gets through.
    pub inner: Arc<dyn Transport>,
    /// What goes wrong.
    pub faults: Arc<LinkFaults>,
}

#[async_trait]
impl Transport for FaultyTransport {
    async fn open(
        &self,
        to: NodeId,
        rpc: Rpc,
        first: Frame,
        mut options: CallOptions,
    ) -> Result<Box<dyn Channel>, TransportError> {
        if matches!(rpc, Rpc::FaultSet | Rpc::CoordinatorFaultSet) {
            return self.inner.open(to, rpc, first, options).await;
        }
        let deadline = Instant::now() + options.deadline;
        if let Some(link) = self.faults.link(to) {
            link.meet_call(to, deadline).await?;
            link.meet_bytes(first.head.len() + first.body_bytes(), deadline).await;
            options.deadline = deadline.saturating_duration_since(Instant::now());
        }
        let inner = self.inner.open(to, rpc, first, options).await?;
        Ok(Box::new(FaultyChannel { inner, faults: self.faults.clone(), to, deadline }))
    }
}

/// A call under way: what is sent later meets the faults that stand then, also those set after it was begun.
struct FaultyChannel {
    inner: Box<dyn Channel>,
    faults: Arc<LinkFaults>,
    to: NodeId,
    deadline: Instant,
}

#[async_trait]
impl Channel for FaultyChannel {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        if let Some(link) = self.faults.link(self.to) {
            link.meet_cut(self.to, self.deadline).await?;
            link.meet_bytes(frame.head.len() + frame.body_bytes(), self.deadline).await;
        }
        self.inner.send(frame).await
    }

    async fn finish(&mut self) -> Result<(), TransportError> {
        self.inner.finish().await
    }

    async fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        self.inner.receive().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, LocalNetwork, LocalOptions, Service};
    use bytes::Bytes;
    use holdfast_proto::ClusterId;
    use holdfast_proto::cluster::{NodeIdentity, Roles};

    /// Answers each frame with itself.
    struct Echo;

    #[async_trait]
    impl Service for Echo {
        async fn serve(&self, _: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
            while let Some(frame) = channel.receive().await? {
                channel.send(frame).await?;
            }
            channel.finish().await
        }
    }

    struct Pair {
        one: FaultyTransport,
        two: FaultyTransport,
    }

    const ONE: NodeId = NodeId(1);
    const TWO: NodeId = NodeId(2);
    const SECOND: Duration = Duration::from_secs(1);

    fn pair() -> Pair {
        let network = LocalNetwork::new(LocalOptions::default());
        let node = |node| {
            let (region, zone) = ("r".to_owned(), "z".to_owned());
            let identity = NodeIdentity { cluster: ClusterId([1; 16]), node, roles: Roles::BOTH, region, zone };
            let inner: Arc<dyn Transport> = Arc::new(network.join(identity, Arc::new(Echo)));
            FaultyTransport { inner, faults: Arc::default() }
        };
        Pair { one: node(ONE), two: node(TWO) }
    }

    fn frame(bytes: usize) -> Frame {
        Frame { head: Bytes::from_static(b"h"), body: vec![Bytes::from(vec![7; bytes])] }
    }

    async fn call(from: &FaultyTransport, to: NodeId, rpc: Rpc) -> (Result<(), TransportError>, Duration) {
        let began = Instant::now();
        let options = CallOptions { deadline: 4 * SECOND, epoch: None, request_id: 0 };
        let answer = from.call(to, rpc, frame(1_000), options).await.map(drop);
        (answer, began.elapsed())
    }

    fn set(transport: &FaultyTransport, to: NodeId, plan: LinkPlan) {
        transport.faults.set(BTreeMap::from([(to, plan)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_is_one_way_and_silent_and_ends() {
        let pair = pair();
        set(&pair.one, TWO, LinkPlan { is_cut: true, ..LinkPlan::default() });
        let (answer, took) = call(&pair.one, TWO, Rpc::DataPing).await;
        assert_eq!(answer, Err(TransportError::Timeout { peer: TWO }));
        assert!(took >= 4 * SECOND, "{took:?}");
        assert_eq!(call(&pair.two, ONE, Rpc::DataPing).await.0, Ok(()), "the other direction");
        assert_eq!(call(&pair.one, ONE, Rpc::DataPing).await.0, Ok(()), "itself");
        for rpc in [Rpc::FaultSet, Rpc::CoordinatorFaultSet] {
            assert_eq!(call(&pair.one, TWO, rpc).await.0, Ok(()), "whoever ends faults gets through");
        }
        pair.one.faults.set(BTreeMap::new());
        assert_eq!(call(&pair.one, TWO, Rpc::DataPing).await.0, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_was_begun_before_the_cut_is_cut_too() {
        let pair = pair();
        let options = CallOptions { deadline: 60 * SECOND, epoch: None, request_id: 0 };
        let mut channel = pair.one.open(TWO, Rpc::ShardWrite, frame(1), options).await.unwrap();
        channel.receive().await.unwrap().unwrap();
        set(&pair.one, TWO, LinkPlan { is_cut: true, ..LinkPlan::default() });
        assert_eq!(channel.send(frame(1)).await, Err(TransportError::Timeout { peer: TWO }));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_drops_and_delays_come_as_planned() {
        let pair = pair();
        set(&pair.one, TWO, LinkPlan { error: 1.0, ..LinkPlan::default() });
        let (answer, took) = call(&pair.one, TWO, Rpc::DataPing).await;
        assert!(matches!(answer, Err(TransportError::Unreachable { .. })), "{answer:?}");
        assert_eq!(took, Duration::ZERO);
        set(&pair.one, TWO, LinkPlan { dropped: 1.0, ..LinkPlan::default() });
        assert_eq!(call(&pair.one, TWO, Rpc::DataPing).await.0, Err(TransportError::Timeout { peer: TWO }));
        set(&pair.one, TWO, LinkPlan { delayed: 1.0, delay: SECOND, ..LinkPlan::default() });
        let (answer, took) = call(&pair.one, TWO, Rpc::DataPing).await;
        assert_eq!(answer, Ok(()));
        assert!((SECOND..2 * SECOND).contains(&took), "{took:?}");
        set(&pair.one, TWO, LinkPlan { delayed: 1.0, delay: 60 * SECOND, ..LinkPlan::default() });
        let (answer, took) = call(&pair.one, TWO, Rpc::DataPing).await;
        assert!(answer.is_err() && took < 5 * SECOND, "a delay beyond the deadline is the deadline: {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_fails_the_same_calls_and_an_unchanged_plan_goes_on() {
        let run = async |seed: u64, set_again: bool| {
            let pair = pair();
            let plan = LinkPlan { error: 0.5, seed, ..LinkPlan::default() };
            set(&pair.one, TWO, plan.clone());
            let mut outcomes = Vec::new();
            for _ in 0..64 {
                if set_again {
                    set(&pair.one, TWO, plan.clone());
                }
                outcomes.push(call(&pair.one, TWO, Rpc::DataPing).await.0.is_ok());
            }
            outcomes
        };
        let first = run(3, false).await;
        assert_eq!(first, run(3, true).await);
        assert_ne!(first, run(4, false).await);
        assert!((16..48).contains(&first.iter().filter(|ok| **ok).count()), "{first:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_go_no_faster_than_planned_in_calls_and_in_streams() {
        let pair = pair();
        set(&pair.one, TWO, LinkPlan { bytes_per_second: Some(100_000), ..LinkPlan::default() });
        let options = CallOptions { deadline: 60 * SECOND, epoch: None, request_id: 0 };
        let began = Instant::now();
        let mut channel = pair.one.open(TWO, Rpc::ShardWrite, frame(99_999), options).await.unwrap();
        for _ in 0..4 {
            channel.send(frame(99_999)).await.unwrap();
            channel.receive().await.unwrap().unwrap();
        }
        let took = began.elapsed();
        assert!((5 * SECOND..6 * SECOND).contains(&took), "500,000 bytes took {took:?}");
        // A cut that comes later holds for what is still to be sent.
        set(&pair.one, TWO, LinkPlan { is_cut: true, ..LinkPlan::default() });
        assert_eq!(channel.send(frame(1)).await, Err(TransportError::Timeout { peer: TWO }));
    }
}
