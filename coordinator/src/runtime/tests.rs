//! One remote node that does not behave: it lies, breaks off, is busy, answers nonsense, or many pages. In virtual time.

use super::*;
use crate::layout::Layout;
use crate::metadata::ClusterMap;
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_proto::cluster::{NodeIdentity, Roles};
use holdfast_proto::node::{NodeClient, ShardError, ShardRead, ShardStat, shard_root};
use holdfast_proto::node_rpc::{self, LIST_SHARDS_MAX, ListShards, ReadHead, Reply, StatList};
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::rpc::Rpc;
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, BucketId, ClusterId, Epoch, NodeId, PgId, SegmentId, ShardId, Slot, VersionId};
use holdfast_transport::{Call, Channel, Frame, LocalNetwork, LocalOptions, Service, TransportError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const CLUSTER: ClusterId = ClusterId([6; 16]);
const BACKEND: BackendId = BackendId([1; 16]);
const CELL: u32 = 64;

/// What the node answers to the call with this number; `None` breaks it off.
type Script = Box<dyn Fn(usize, &Call, &Frame) -> Option<Frame> + Send + Sync>;

struct Scripted {
    script: Script,
    calls: Mutex<Vec<Call>>,
}

#[async_trait]
impl Service for Scripted {
    async fn serve(&self, call: Call, mut channel: Box<dyn Channel>) -> Result<(), TransportError> {
        let first = channel.receive().await?.ok_or(TransportError::Cancelled)?;
        let number = {
            let mut calls = self.calls.lock();
            calls.push(call.clone());
            calls.len() - 1
        };
        let reply = (self.script)(number, &call, &first).ok_or(TransportError::Cancelled)?;
        channel.send(reply).await?;
        channel.finish().await
    }
}

fn node(script: Script) -> (RemoteNode, Arc<Scripted>) {
    let network = LocalNetwork::new(LocalOptions::default());
    let identity =
        |node| NodeIdentity { cluster: CLUSTER, node, roles: Roles::BOTH, region: "r".into(), zone: "z".into() };
    let scripted = Arc::new(Scripted { script, calls: Mutex::default() });
    network.join(identity(NodeId(2)), scripted.clone());
    let transport = Arc::new(network.join(identity(NodeId(1)), scripted.clone()));
    let table = PgTable { epoch: Epoch(7), scheme: [0x1d, 1, 4, 2], pgs: Vec::new() };
    let layout = Layout::new(ClusterMap::new(CLUSTER, table));
    (RemoteNode::new(transport, NodeId(1), NodeId(2), layout), scripted)
}

fn shard(n: u8) -> ShardId {
    ShardId { pg: PgId(1), segment: SegmentId([n; 16]), slot: Slot(0) }
}

/// Two cells of ones and twos.
fn good_read() -> ShardRead {
    let bytes: Bytes = [vec![1; CELL as usize], vec![2; CELL as usize]].concat().into();
    let header = ShardHeader {
        cluster: CLUSTER,
        id: shard(1),
        bucket: BucketId(1),
        key_hash: [0; 32],
        version: VersionId([0; 16]),
        scheme: [0x1d, 1, 4, 2],
        cell_bytes: CELL,
        shard_bytes: 2 * u64::from(CELL),
        segment_bytes: 8 * u64::from(CELL),
        segment_offset: 0,
        created_ms: 0,
    };
    let cell_hashes = bytes.chunks(CELL as usize).map(|cell| *blake3::hash(cell).as_bytes()).collect();
    ShardRead { header, bytes, damaged: Vec::new(), cell_hashes }
}

fn root() -> [u8; 32] {
    shard_root(good_read().cell_hashes)
}

fn framed(read: &ShardRead) -> Frame {
    Frame { head: node_rpc::encode(&Reply::ok(&ReadHead::new(read))), body: vec![read.bytes.clone()] }
}

async fn read_from(answer: Frame) -> Result<ShardRead, ShardError> {
    let (node, _) = node(Box::new(move |_, _, _| Some(answer.clone())));
    node.read_shard(BACKEND, shard(1), 0, 2, Some(root())).await
}

#[tokio::test(start_paused = true)]
async fn no_lie_about_bytes_passes() {
    let good = read_from(framed(&good_read())).await.unwrap();
    assert_eq!((good.bytes, good.damaged), (good_read().bytes, Vec::new()));
    // One cell bent: an erasure, the other is good.
    let mut bent = good_read();
    bent.bytes = [vec![1; CELL as usize], vec![3; CELL as usize]].concat().into();
    assert_eq!(read_from(framed(&bent)).await.unwrap().damaged, [1]);
    // With hashes to match: then the root does not hold.
    bent.cell_hashes[1] = *blake3::hash(&[3; CELL as usize]).as_bytes();
    assert!(matches!(read_from(framed(&bent)).await, Err(ShardError::Damaged { .. })));
    // Another shard, whole in itself.
    let mut other = good_read();
    other.header.id = shard(2);
    assert!(matches!(read_from(framed(&other)).await, Err(ShardError::Damaged { .. })));
    // Fewer cells than asked for, or more.
    for len in [0, CELL as usize, 3 * CELL as usize] {
        let other = ShardRead { bytes: Bytes::from(vec![1; len]), ..good_read() };
        assert!(matches!(read_from(framed(&other)).await, Err(ShardError::Unavailable { .. })), "{len} bytes");
    }
    // Nonsense.
    for head in [&b""[..], &[0xff; 9], &[0x0a, 0x02, 0x08, 0x63]] {
        let answer = read_from(Frame::head_only(Bytes::from_static(head))).await;
        assert!(matches!(answer, Err(ShardError::Unavailable { .. })), "{head:?}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_be_repeated_is_a_bounded_number_of_times() {
    let missing = || Frame::head_only(node_rpc::encode(&Reply::ok(&node_rpc::StatReply { stat: None })));
    // Broken off twice, then answered.
    let (patient, calls) = node(Box::new(move |number, _, _| (number >= 2).then(missing)));
    assert_eq!(patient.stat_shard(BACKEND, shard(1)).await, Ok(None));
    assert_eq!(calls.calls.lock().len(), 3);
    // Broken off always.
    let (broken, calls) = node(Box::new(|_, _, _| None));
    assert!(matches!(broken.stat_shard(BACKEND, shard(1)).await, Err(ShardError::Unavailable { .. })));
    assert_eq!(calls.calls.lock().len(), 3);
    calls.calls.lock().clear();
    assert!(broken.read_shard(BACKEND, shard(1), 0, 1, None).await.is_err());
    assert_eq!(calls.calls.lock().len(), 2, "a read has its hedge");
    calls.calls.lock().clear();
    assert!(broken.add_backend(NodeId(2), "disk:/d", "d").await.is_err());
    assert!(broken.remove_backend(BACKEND).await.is_err());
    assert!(broken.begin_shard(BACKEND, good_read().header, Epoch(7)).await.is_err());
    assert_eq!(calls.calls.lock().len(), 3, "what is not the same twice is asked once");
}

#[tokio::test(start_paused = true)]
async fn faults_come_through_and_are_not_asked_for_again() {
    let fault = ShardError::Full { backend: BACKEND, free_bytes: 1, reserve_bytes: 2 };
    let reply = Frame::head_only(node_rpc::encode(&Reply::fault(&fault)));
    let (full, calls) = node(Box::new(move |_, _, _| Some(reply.clone())));
    assert_eq!(full.stat_shard(BACKEND, shard(1)).await, Err(fault.clone()));
    assert_eq!(full.begin_shard(BACKEND, good_read().header, Epoch(3)).await.err(), Some(fault));
    let calls = calls.calls.lock();
    assert_eq!(calls.len(), 2);
    // A write goes by the epoch it was placed by, everything else by the newest known.
    let epochs: Vec<(Rpc, Option<Epoch>)> = calls.iter().map(|call| (call.rpc, call.epoch)).collect();
    assert_eq!(epochs, [(Rpc::ShardStat, Some(Epoch(7))), (Rpc::ShardWrite, Some(Epoch(3)))]);
    assert_ne!(calls[0].request_id, calls[1].request_id);
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_costs_its_deadline_and_no_second_one() {
    struct Silent;
    #[async_trait]
    impl Service for Silent {
        async fn serve(&self, _: Call, _channel: Box<dyn Channel>) -> Result<(), TransportError> {
            std::future::pending().await
        }
    }
    let network = LocalNetwork::new(LocalOptions::default());
    let identity =
        |node| NodeIdentity { cluster: CLUSTER, node, roles: Roles::BOTH, region: "r".into(), zone: "z".into() };
    network.join(identity(NodeId(2)), Arc::new(Silent));
    let transport = Arc::new(network.join(identity(NodeId(1)), Arc::new(Silent)));
    let table = PgTable { epoch: Epoch(7), scheme: [0x1d, 1, 4, 2], pgs: Vec::new() };
    let layout = Layout::new(ClusterMap::new(CLUSTER, table));
    let silent = RemoteNode::new(transport, NodeId(1), NodeId(2), layout);
    let started = Instant::now();
    assert!(matches!(silent.stat_shard(BACKEND, shard(1)).await, Err(ShardError::Unavailable { .. })));
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    let started = Instant::now();
    assert!(silent.begin_shard(BACKEND, good_read().header, Epoch(7)).await.is_err());
    assert_eq!(started.elapsed(), Duration::from_secs(20));
}

/// A node with `total` shards of a PG. One that repeats itself forever does not hold the caller.
#[tokio::test(start_paused = true)]
async fn long_listings_are_fetched_page_by_page() {
    let stat = |n: u32| {
        let mut segment = [0; 16];
        segment[..4].copy_from_slice(&n.to_be_bytes());
        let id = ShardId { pg: PgId(1), segment: SegmentId(segment), slot: Slot(0) };
        ShardStat { id, shard_bytes: 1, cell_bytes: 1, root: [0; 32], verified_ms: 0 }
    };
    let total = LIST_SHARDS_MAX as u32 * 2 + 5;
    let page = move |_: usize, _: &Call, first: &Frame| {
        let request: ListShards = node_rpc::decode(&first.head).unwrap();
        let (_, after) = request.parse().unwrap();
        let from = after.map_or(0, |id| u32::from_be_bytes(id.segment.0[..4].try_into().unwrap()) + 1);
        let stats: Vec<ShardStat> = (from..total.min(from + request.limit)).map(stat).collect();
        Some(Frame::head_only(node_rpc::encode(&Reply::ok(&StatList::new(&stats)))))
    };
    let (many, calls) = node(Box::new(page));
    for (limit, expected, asked) in
        [(10, 10, 1), (LIST_SHARDS_MAX + 1, LIST_SHARDS_MAX + 1, 2), (1 << 20, total as usize, 3)]
    {
        calls.calls.lock().clear();
        let found = many.list_shards(BACKEND, PgId(1), None, limit, Epoch(1)).await.unwrap();
        assert_eq!((found.len(), calls.calls.lock().len()), (expected, asked), "limit {limit}");
        assert!(found.iter().zip(0..).all(|(found, n)| *found == stat(n)));
    }
    let same: Vec<ShardStat> = (0..LIST_SHARDS_MAX as u32).map(stat).collect();
    let same = Frame::head_only(node_rpc::encode(&Reply::ok(&StatList::new(&same))));
    let (circle, calls) = node(Box::new(move |_, _, _| Some(same.clone())));
    circle.list_shards(BACKEND, PgId(1), None, usize::MAX, Epoch(1)).await.unwrap();
    assert_eq!(calls.calls.lock().len(), 2);
}
