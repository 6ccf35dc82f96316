//! Faults, for the operator: told to every node they concern, or to none.
//!
//! The rules live in the memory of the nodes that carry them out; this coordinator keeps nothing, so that the next leader
//! shows the same. **Invariant:** a fault is set on all nodes it names, each of which was started for that, or nowhere
//! (`a_fault_is_set_on_all_nodes_it_names_or_on_none`).

use super::{AdminFailure, AdminResult, AdminState, Code, Shared, decode, finish};
use crate::layout::Layout;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use futures::future::join_all;
use holdfast_faults::resolve;
use holdfast_proto::cluster::{NodeAddresses, NodeIntent, NodeRecord, Role, Roles};
use holdfast_proto::faults::{FaultAdd, FaultList, FaultOrder, FaultReply, FaultRule, FaultView};
use holdfast_proto::rpc::Rpc;
use holdfast_proto::{ErrorKind, NodeId};
use holdfast_transport::{CallOptions, Frame, Transport};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Longest for one node to answer an order.
const ORDER_LIMIT: Duration = Duration::from_secs(3);

/// Carries out what this node is told about faults.
pub trait FaultStation: Send + Sync {
    /// Changes the rules of this node, and says which stand.
    fn order(&self, order: FaultOrder) -> FaultReply;
}

/// What the endpoints of faults need.
pub struct FaultParts {
    /// Of this node.
    pub station: Arc<dyn FaultStation>,
    /// This node.
    pub own: NodeId,
    /// The way to the others; `None` on a server that is alone.
    pub peers: Option<Arc<dyn Transport>>,
    /// The cluster map.
    pub layout: Layout,
}

impl FaultParts {
    /// The nodes of the cluster; on a store that was never more than one server, that one.
    fn nodes(&self) -> Vec<NodeRecord> {
        let map = self.layout.current();
        let mut nodes: Vec<NodeRecord> = map.nodes.clone();
        nodes.retain(|node| node.intent != NodeIntent::Removed);
        if nodes.is_empty() {
            nodes.push(NodeRecord {
                id: self.own,
                name: format!("n{}", self.own.0),
                roles: Roles::BOTH,
                region: String::new(),
                zone: String::new(),
                addresses: NodeAddresses::default(),
                intent: NodeIntent::Active,
                joined_ms: 0,
            });
        }
        nodes
    }

    /// Gives one node an order.
    async fn order(&self, node: &NodeRecord, order: FaultOrder) -> Result<FaultReply, String> {
        if node.id == self.own {
            return Ok(self.station.order(order));
        }
        let peers = self.peers.as_ref().ok_or("this server listens to no other nodes")?;
        let rpc = if node.roles.has(Role::Coordinator) { Rpc::CoordinatorFaultSet } else { Rpc::FaultSet };
        let options = CallOptions { deadline: ORDER_LIMIT, epoch: None, request_id: 0 };
        let frame = Frame::head_only(order.encode_to_vec().into());
        let answer = peers.call(node.id, rpc, frame, options).await.map_err(|e| e.to_string())?;
        FaultReply::decode(answer.head).map_err(|e| e.to_string())
    }

    /// Gives all of `nodes` an order at once; who said what.
    async fn order_all(
        &self,
        nodes: &[NodeRecord],
        order: &FaultOrder,
    ) -> Vec<(NodeRecord, Result<FaultReply, String>)> {
        let asked = nodes.iter().map(|node| async move { (node.clone(), self.order(node, order.clone()).await) });
        join_all(asked).await
    }

    /// Sets a rule on the nodes that are to carry it out, or on none.
    async fn set(&self, rule: &FaultRule) -> AdminResult<()> {
        let mut nodes = self.nodes();
        nodes.retain(|node| rule.at.contains(&node.id.0));
        // First asked, then told: a server that was not started for faults is found before any other has one.
        let asked = self.order_all(&nodes, &FaultOrder::default()).await;
        let refusing = asked.iter().filter(|(_, reply)| reply.as_ref().is_ok_and(|reply| !reply.is_allowed));
        let refusing: Vec<&str> = refusing.map(|(node, _)| node.name.as_str()).collect();
        if !refusing.is_empty() {
            let reason = format!("not started for faults: {}", refusing.join(", "));
            return Err(refused(reason).or_try("start these servers with --allow-faults"));
        }
        let told = self.order_all(&nodes, &FaultOrder { add: Some(rule.clone()), ..FaultOrder::default() }).await;
        let failed: Vec<String> = told.iter().filter_map(failure).collect();
        if failed.is_empty() {
            return Ok(());
        }
        // Those that did set it end it again; one that cannot be reached now ends it by itself.
        let undo = FaultOrder { clear: vec![rule.id.clone()], ..FaultOrder::default() };
        self.order_all(&nodes, &undo).await;
        Err(refused(failed.join("; ")).or_try("all nodes that a fault names must be up: holdfast node list"))
    }

    /// What stands anywhere.
    async fn list(&self) -> FaultList {
        let nodes = self.nodes();
        list_of(&nodes, &self.order_all(&nodes, &FaultOrder::default()).await)
    }
}

fn failure((node, reply): &(NodeRecord, Result<FaultReply, String>)) -> Option<String> {
    match reply {
        Ok(reply) if reply.refusal.is_empty() => None,
        Ok(reply) => Some(format!("{}: {}", node.name, reply.refusal)),
        Err(reason) => Some(format!("{}: {reason}", node.name)),
    }
}

fn refused(reason: String) -> AdminFailure {
    AdminFailure::new(Code::FaultRefused, ErrorKind::Conflict, reason)
}

/// What the nodes said, rule by rule: a rule that several keep is one.
fn list_of(nodes: &[NodeRecord], replies: &[(NodeRecord, Result<FaultReply, String>)]) -> FaultList {
    let names = |ids: &[u64]| {
        let name = |id: &u64| nodes.iter().find(|node| node.id.0 == *id).map_or(format!("n{id}"), |n| n.name.clone());
        ids.iter().map(name).collect()
    };
    let mut faults: BTreeMap<&str, FaultView> = BTreeMap::new();
    let mut list = FaultList::default();
    for (node, reply) in replies {
        let Ok(reply) = reply else {
            list.unreachable.push(node.name.clone());
            continue;
        };
        if !reply.is_allowed {
            list.not_allowed.push(node.name.clone());
        }
        for rule in &reply.rules {
            let view = faults.entry(&rule.id).or_insert_with(|| FaultView {
                id: rule.id.clone(),
                kind: rule.kind.clone(),
                at: names(&rule.at),
                to: names(&rule.to),
                backends: rule.backends.clone(),
                amount: rule.amount,
                percent: f64::from(rule.per_million) / 10_000.0,
                seed: rule.seed,
                remaining_seconds: 0,
            });
            view.remaining_seconds = view.remaining_seconds.max(rule.ttl_ms.div_ceil(1_000));
        }
    }
    list.faults = faults.into_values().collect();
    list
}

/// One sentence for each fault that stands, for `holdfast status`. Asks nobody where this server was not started for
/// faults.
pub(super) async fn findings(state: &AdminState) -> Vec<String> {
    if !state.faults.station.order(FaultOrder::default()).is_allowed {
        return Vec::new();
    }
    let sentence = |fault: FaultView| {
        let to = if fault.to.is_empty() { String::new() } else { format!(" to {}", fault.to.join(", ")) };
        format!(
            "fault {} is injected: {} at {}{to}, for {} s more; `holdfast fault clear {}`",
            fault.id,
            fault.kind,
            fault.at.join(", "),
            fault.remaining_seconds,
            fault.id
        )
    };
    state.faults.list().await.faults.into_iter().map(sentence).collect()
}

pub(crate) async fn add(State(state): Shared, body: Bytes) -> AdminResult<Json<FaultView>> {
    let add: FaultAdd = decode(&body)?;
    let id = hex::encode(rand::random::<[u8; 3]>());
    let nodes = state.faults.nodes();
    let rule = resolve(&add, &nodes, &id, rand::random()).map_err(|error| {
        AdminFailure::new(Code::FaultRefused, ErrorKind::Invalid, error.reason).or_try(error.next_step)
    })?;
    check_backends(&state.faults.layout, &rule)?;
    tracing::warn!(id, kind = rule.kind, at = ?rule.at, to = ?rule.to, seconds = rule.ttl_ms / 1_000, "fault add");
    finish(async move {
        state.faults.set(&rule).await?;
        let reply = FaultReply { rules: vec![rule], is_allowed: true, refusal: String::new() };
        let mut list = list_of(&nodes, &[(nodes[0].clone(), Ok(reply))]);
        Ok(Json(list.faults.remove(0)))
    })
    .await
}

/// Backends that a rule names must be on the nodes it names.
fn check_backends(layout: &Layout, rule: &FaultRule) -> AdminResult<()> {
    let map = layout.current();
    let there: Vec<_> = map.backends.iter().filter(|backend| rule.at.contains(&backend.node.0)).collect();
    for name in &rule.backends {
        if !there.iter().any(|backend| backend.name == *name || backend.id.to_string() == *name) {
            let known: Vec<&str> = there.iter().map(|backend| backend.name.as_str()).collect();
            let reason = format!("no backend {name:?} on the nodes named; there are {}", known.join(", "));
            let failure = AdminFailure::new(Code::NoSuchBackend, ErrorKind::NotFound, reason);
            return Err(failure.or_try("holdfast backend list"));
        }
    }
    Ok(())
}

pub(crate) async fn list(State(state): Shared) -> AdminResult<Json<FaultList>> {
    Ok(Json(state.faults.list().await))
}

pub(crate) async fn clear_all(State(state): Shared) -> AdminResult<Json<FaultList>> {
    tracing::info!("fault clear");
    finish(async move {
        let nodes = state.faults.nodes();
        let order = FaultOrder { clear_all: true, ..FaultOrder::default() };
        Ok(Json(list_of(&nodes, &state.faults.order_all(&nodes, &order).await)))
    })
    .await
}

pub(crate) async fn clear(State(state): Shared, Path(id): Path<String>) -> AdminResult<Json<FaultList>> {
    tracing::info!(id, "fault clear");
    finish(async move {
        if !state.faults.list().await.faults.iter().any(|fault| fault.id == id) {
            let failure = AdminFailure::new(Code::NoSuchFault, ErrorKind::NotFound, format!("no fault {id:?} stands"));
            return Err(failure.or_try("holdfast fault list"));
        }
        let nodes = state.faults.nodes();
        let order = FaultOrder { clear: vec![id], ..FaultOrder::default() };
        Ok(Json(list_of(&nodes, &state.faults.order_all(&nodes, &order).await)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::ClusterMap;
    use async_trait::async_trait;
    use holdfast_faults::Board;
    use holdfast_proto::cluster::NodeIdentity;
    use holdfast_proto::pg_table::PgTable;
    use holdfast_proto::{ClusterId, Epoch};
    use holdfast_transport::{Call, Channel, LocalNetwork, LocalOptions, Service, TransportError};
    use parking_lot::Mutex;

    const CLUSTER: ClusterId = ClusterId([3; 16]);

    struct Station {
        is_allowed: bool,
        board: Mutex<Board>,
    }

    impl Station {
        fn new(is_allowed: bool) -> Arc<Self> {
            Arc::new(Self { is_allowed, board: Mutex::default() })
        }
    }

    impl FaultStation for Station {
        fn order(&self, order: FaultOrder) -> FaultReply {
            let mut board = self.board.lock();
            let refusal = order.add.and_then(|rule| board.add(rule, 0).err()).unwrap_or_default();
            if order.clear_all || !order.clear.is_empty() {
                board.clear(&order.clear);
            }
            FaultReply { refusal, is_allowed: self.is_allowed, rules: board.rules(0) }
        }
    }

    #[async_trait]
    impl Service for Station {
        async fn serve(&self, call: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
            let order = FaultOrder::decode(channel.receive().await?.unwrap().head).unwrap();
            assert!(matches!(call.rpc, Rpc::FaultSet | Rpc::CoordinatorFaultSet));
            channel.send(Frame::head_only(self.order(order).encode_to_vec().into())).await?;
            channel.finish().await
        }
    }

    /// Node 1 asks; the roles of all, and whether each was started for faults.
    fn parts(nodes: &[(Roles, bool)]) -> (FaultParts, Vec<Arc<Station>>, LocalNetwork) {
        let network = LocalNetwork::new(LocalOptions::default());
        let mut records = Vec::new();
        let mut stations = Vec::new();
        let mut peers: Option<Arc<dyn Transport>> = None;
        for (at, &(roles, is_allowed)) in nodes.iter().enumerate() {
            let id = NodeId(at as u64 + 1);
            let station = Station::new(is_allowed);
            let (region, zone) = ("r".to_owned(), format!("z{id}"));
            let identity =
                NodeIdentity { cluster: CLUSTER, node: id, roles, region: region.clone(), zone: zone.clone() };
            let transport = network.join(identity, station.clone());
            peers.get_or_insert_with(|| Arc::new(transport));
            stations.push(station);
            let (name, addresses) = (format!("n{}", id.0), NodeAddresses::default());
            records.push(NodeRecord {
                id,
                name,
                roles,
                region,
                zone,
                addresses,
                intent: NodeIntent::Active,
                joined_ms: 0,
            });
        }
        let table = PgTable { epoch: Epoch(1), scheme: [0; 4], pgs: Vec::new() };
        let layout = Layout::new(ClusterMap { nodes: records, ..ClusterMap::new(CLUSTER, table) });
        (FaultParts { station: stations[0].clone(), own: NodeId(1), peers, layout }, stations, network)
    }

    fn rule(at: &[u64]) -> FaultRule {
        let (id, kind) = ("0a0b0c".to_owned(), "partition".to_owned());
        FaultRule { id, kind, at: at.to_vec(), to: vec![1, 2, 3], ttl_ms: 5_000, ..FaultRule::default() }
    }

    fn standing(stations: &[Arc<Station>]) -> Vec<usize> {
        stations.iter().map(|station| station.board.lock().rules(0).len()).collect()
    }

    #[tokio::test]
    async fn a_fault_is_set_on_all_nodes_it_names_or_on_none() {
        let storage = Roles::only(Role::Storage);
        let (parts, stations, network) =
            parts(&[(Roles::BOTH, true), (storage, true), (Roles::BOTH, false), (Roles::BOTH, true)]);
        parts.set(&rule(&[1, 2])).await.unwrap();
        assert_eq!(standing(&stations), [1, 1, 0, 0]);
        let list = parts.list().await;
        assert_eq!((list.not_allowed, list.unreachable), (vec!["n3".to_owned()], vec![]));
        assert_eq!((list.faults[0].at.join(","), list.faults[0].remaining_seconds), ("n1,n2".to_owned(), 5));

        let other = FaultRule { id: "other".to_owned(), ..rule(&[1, 3, 4]) };
        let refusal = parts.set(&other).await.unwrap_err();
        assert_eq!((refusal.code, refusal.message.as_str()), (Code::FaultRefused, "not started for faults: n3"));
        assert_eq!(standing(&stations), [1, 1, 0, 0]);

        network.kill(NodeId(4));
        let refusal = parts.set(&FaultRule { at: vec![1, 4], ..other }).await.unwrap_err();
        assert!(refusal.message.starts_with("n4: "), "{}", refusal.message);
        assert_eq!(standing(&stations), [1, 1, 0, 0], "node 1 has ended it again");
        assert_eq!(parts.list().await.unreachable, ["n4"]);
    }

    #[tokio::test]
    async fn a_server_that_is_alone_is_its_only_node() {
        let (parts, stations, _network) = parts(&[(Roles::BOTH, true)]);
        let table = PgTable { epoch: Epoch(1), scheme: [0; 4], pgs: Vec::new() };
        let alone = FaultParts { peers: None, layout: Layout::new(ClusterMap::new(CLUSTER, table)), ..parts };
        let full = FaultRule { kind: "disk-full".to_owned(), to: Vec::new(), ..rule(&[1]) };
        alone.set(&full).await.unwrap();
        assert_eq!(standing(&stations), [1]);
        assert_eq!(alone.list().await.faults[0].at, ["n1"]);
    }

    #[test]
    fn backends_that_are_not_there_are_named() {
        let (parts, _, _network) = parts(&[(Roles::BOTH, true)]);
        let refusal = check_backends(&parts.layout, &FaultRule { backends: vec!["d9".to_owned()], ..rule(&[1]) });
        assert!(refusal.unwrap_err().message.contains("no backend \"d9\""));
    }
}
