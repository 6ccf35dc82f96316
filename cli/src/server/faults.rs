//! The faults of this process: the rules that stand, told by an operator, carried out by its transport, its backends and
//! its clock, and ended when their time is over.
//!
//! Touches the world: tokio's clock, and a task that waits for the next end.

use async_trait::async_trait;
use holdfast_coordinator::admin::FaultStation;
use holdfast_coordinator::clock;
use holdfast_faults::Board;
use holdfast_proto::NodeId;
use holdfast_proto::faults::{FaultOrder, FaultReply, FaultRule};
use holdfast_storage_node::DiskFaults;
use holdfast_transport::{Call, Channel, Frame, LinkFaults, Service, TransportError};
use parking_lot::Mutex;
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Faults of one node.
pub(crate) struct Faults {
    own: NodeId,
    is_allowed: bool,
    board: Mutex<Board>,
    started: Instant,
    links: Arc<LinkFaults>,
    disks: Arc<DiskFaults>,
    changed: Notify,
}

impl Faults {
    /// Of node `own`; without `is_allowed` every fault is refused.
    pub(crate) fn new(own: NodeId, is_allowed: bool) -> Arc<Self> {
        if is_allowed {
            tracing::warn!("started with --allow-faults: whoever holds the root key can make this server fail");
            metrics::describe_gauge!("holdfast_faults", "Faults that stand on this node");
            metrics::describe_counter!("holdfast_faults_injected_total", "Calls that were made to fail, by kind");
        }
        Arc::new(Self {
            own,
            is_allowed,
            board: Mutex::default(),
            started: Instant::now(),
            links: Arc::default(),
            disks: Arc::default(),
            changed: Notify::new(),
        })
    }

    /// Those of calls to other nodes; `None` where there can be none.
    pub(crate) fn links(&self) -> Option<Arc<LinkFaults>> {
        self.is_allowed.then(|| self.links.clone())
    }

    /// Those of backends; `None` where there can be none.
    pub(crate) fn disks(&self) -> Option<Arc<DiskFaults>> {
        self.is_allowed.then(|| self.disks.clone())
    }

    /// Ends rules when their time is over.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let next_end = self.board.lock().next_end_ms();
            let end = async {
                match next_end {
                    Some(end_ms) => tokio::time::sleep_until(self.started + Duration::from_millis(end_ms)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = end => {}
                () = self.changed.notified() => {}
                () = shutdown.cancelled() => return,
            }
            let mut board = self.board.lock();
            let over = board.expire(self.now_ms());
            self.carry_out(&board);
            log("a fault has ended", &over);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn carry_out(&self, board: &Board) {
        if !self.is_allowed {
            return;
        }
        let plan = board.plan(self.own);
        self.links.set(plan.links.clone());
        clock::jump(plan.clock_ms);
        metrics::gauge!("holdfast_faults").set(u32::try_from(board.rules(0).len()).unwrap_or(u32::MAX));
        self.disks.set(plan);
    }

    fn add(&self, board: &mut Board, rule: FaultRule) -> Result<(), String> {
        if !self.is_allowed {
            return Err("this server was not started with --allow-faults".to_owned());
        }
        board.add(rule.clone(), self.now_ms())?;
        log("a fault is injected", &[rule]);
        Ok(())
    }
}

fn log(what: &str, rules: &[FaultRule]) {
    for rule in rules {
        let FaultRule { id, kind, to, backends, amount, per_million, seed, .. } = rule;
        tracing::warn!(id, kind, ?to, ?backends, amount, per_million, seed, "{what}");
    }
}

impl FaultStation for Faults {
    fn order(&self, order: FaultOrder) -> FaultReply {
        let mut board = self.board.lock();
        let mut refusal = String::new();
        let is_change = order != FaultOrder::default();
        if let Some(rule) = order.add {
            refusal = self.add(&mut board, rule).err().unwrap_or_default();
        }
        if order.clear_all || !order.clear.is_empty() {
            log("a fault was ended", &board.clear(&order.clear));
        }
        if is_change {
            self.carry_out(&board);
            self.changed.notify_one();
        }
        FaultReply { refusal, is_allowed: self.is_allowed, rules: board.rules(self.now_ms()) }
    }
}

#[async_trait]
impl Service for Faults {
    async fn serve(&self, _: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
        let frame = channel.receive().await?.ok_or(TransportError::Cancelled)?;
        let malformed = |e: prost::DecodeError| TransportError::Malformed { reason: e.to_string() };
        let reply = self.order(FaultOrder::decode(frame.head).map_err(malformed)?);
        channel.send(Frame::head_only(reply.encode_to_vec().into())).await?;
        channel.finish().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: &str, ttl_ms: u64) -> FaultOrder {
        let (id, kind) = (id.to_owned(), "partition".to_owned());
        let rule = FaultRule { id, kind, at: vec![1], to: vec![2], ttl_ms, ..FaultRule::default() };
        FaultOrder { add: Some(rule), ..FaultOrder::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_forgotten_fault_ends_by_itself_and_a_cleared_one_at_once() {
        let faults = Faults::new(NodeId(1), true);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(faults.clone().run(shutdown.clone()));
        faults.order(order("a", 10_000));
        assert_eq!(faults.order(order("b", 5_000)).rules.len(), 2);
        tokio::time::sleep(Duration::from_secs(6)).await;
        let left = faults.order(FaultOrder::default());
        assert_eq!((left.rules.len(), left.rules[0].id.as_str(), left.is_allowed), (1, "a", true));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(faults.order(FaultOrder::default()).rules.is_empty());
        faults.order(order("c", 10_000));
        let cleared = faults.order(FaultOrder { clear: vec!["c".to_owned()], ..FaultOrder::default() });
        assert!(cleared.rules.is_empty());
        shutdown.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_was_not_started_for_faults_has_none() {
        let faults = Faults::new(NodeId(1), false);
        let reply = faults.order(order("a", 10_000));
        assert!(reply.refusal.contains("--allow-faults") && !reply.is_allowed && reply.rules.is_empty(), "{reply:?}");
        assert!(faults.links().is_none() && faults.disks().is_none());
    }
}
