//! The object path over a node and metadata in memory that fail as told: 4+2 over six backends (and two spare ones), in
//! cells of 256 bytes and segments of 4 KiB, so that every boundary is near.
//!
//! Compiled twice: as `tests` with the node called directly, as `tests_over_nodes` with every backend on a node of its
//! own: the first is the coordinator's, the others are behind the transport and the service of storage nodes.

mod memory;
mod metadata;
mod node;
mod nodes;
mod reads;
mod rebuilds;
mod stand_ins;
mod writes;

use super::*;
use crate::metadata::{BackendRecord, ClusterMap, Preconditions};
use crate::runtime::{ClusterNodes, ClusterNodesOptions};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use holdfast_codec::Scheme;
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::cluster::{NodeIdentity, Role, Roles};
use holdfast_proto::manifest::{Attributes, Bucket};
use holdfast_proto::pg_table::{Pg, PgTable};
use holdfast_proto::{ClusterId, Epoch, NodeId, ShardId};
use holdfast_storage_node::{Fence, FencedNode, NodeService, ServeLimits};
use holdfast_transport::{LocalNetwork, LocalOptions};
use metadata::FakeMetadata;
use node::{FakeNode, Faults, backend};
use std::ops::Range;
use std::time::Duration;

const K: usize = 4;
const N: usize = 6;
const CELL: usize = 256;
const STRIPE: usize = K * CELL;
const SEGMENT: usize = 4 * STRIPE;
const INLINE: usize = 100;
const PGS: usize = 8;

struct World {
    node: FakeNode,
    /// Between the nodes, where there are several.
    network: LocalNetwork,
    client: Arc<dyn NodeClient>,
    fences: Vec<Arc<Fence>>,
    metadata: Arc<FakeMetadata>,
    layout: Layout,
    path: ObjectPath,
    hints: mpsc::Receiver<DamageHint>,
}

fn options() -> ObjectPathOptions {
    ObjectPathOptions {
        inline_bytes_max: INLINE as u64,
        segment_bytes: SEGMENT as u64,
        write_buffer_bytes: 1 << 20,
        read_buffer_bytes: 1 << 20,
        ..ObjectPathOptions::default()
    }
}

/// Slot s of PG p is on backend (s + p) mod 6. The spare ones take nothing in.
fn cluster_map(epoch: u64) -> ClusterMap {
    let pg = |p: usize| {
        let backends: Vec<BackendId> = (0..N).map(|slot| backend((slot + p) % N)).collect();
        Pg { committed: backends.clone(), target: backends }
    };
    let scheme = Scheme::reed_solomon(K, N - K).unwrap().code();
    let table = PgTable { epoch: Epoch(epoch), scheme, pgs: (0..PGS).map(pg).collect() };
    let record = |number: usize| BackendRecord {
        id: backend(number),
        name: format!("d{number}"),
        location: format!("disk:/d{number}"),
        intent: if number < N { BackendIntent::Active } else { BackendIntent::Drained },
        node: node_id(number),
    };
    ClusterMap { backends: (0..N + 2).map(record).collect(), ..ClusterMap::new(ClusterId([3; 16]), table) }
}

/// The node that has backend `number`.
fn node_id(number: usize) -> NodeId {
    NodeId(number as u64 + 1)
}

/// Puts every backend of `node` on a node of its own; the first one's is this process.
fn over_nodes(node: &FakeNode, layout: &Layout) -> (LocalNetwork, Arc<dyn NodeClient>, Vec<Arc<Fence>>) {
    let network = LocalNetwork::new(LocalOptions { silence_max: Duration::from_secs(3), ..LocalOptions::default() });
    let join = |number: usize| {
        let fence = Fence::open(None).unwrap();
        let fenced = FencedNode::new(Arc::new(node.only(number)), fence.clone(), Fence::open(None).unwrap());
        let service = NodeService::new(node_id(number), fenced.clone(), ServeLimits::default());
        let identity = NodeIdentity {
            cluster: ClusterId([3; 16]),
            node: node_id(number),
            roles: if number == 0 { Roles::BOTH } else { Roles::only(Role::Storage) },
            region: "r".into(),
            zone: "z".into(),
        };
        (network.join(identity, Arc::new(service)), fenced, fence)
    };
    let (transport, own, fence) = join(0);
    let mut fences = vec![fence];
    fences.extend((1..N + 2).map(|number| join(number).2));
    let options = ClusterNodesOptions { report_timeout: Duration::from_millis(500) };
    let nodes = ClusterNodes::new(node_id(0), Some(Arc::new(own)), Arc::new(transport), layout.clone(), options);
    (network, Arc::new(nodes), fences)
}

impl World {
    fn new() -> Self {
        Self::with(options())
    }

    fn with(options: ObjectPathOptions) -> Self {
        Self::reached(options, module_path!().contains("over_nodes"))
    }

    /// Every backend on a node of its own.
    fn over_nodes() -> Self {
        Self::reached(options(), true)
    }

    /// As `over_nodes`; the spare ones may stand in for others.
    fn with_stand_ins() -> Self {
        let world = Self::over_nodes();
        let mut map = cluster_map(2);
        map.backends.iter_mut().for_each(|record| record.intent = BackendIntent::Active);
        world.layout.advance(map);
        world
    }

    fn reached(options: ObjectPathOptions, is_over_nodes: bool) -> Self {
        let (node, metadata, layout) =
            (FakeNode::new(N + 2), Arc::new(FakeMetadata::default()), Layout::new(cluster_map(1)));
        let (sender, hints) = mpsc::channel(1000);
        let patience = Patience {
            step: Duration::from_secs(5),
            // Long enough for a healthy backend on a machine that is starved while the tests run.
            begin_grace: Duration::from_millis(500),
            stand_in_after: Duration::from_millis(500),
            append_grace: Duration::from_millis(500)..=Duration::from_secs(1),
            rebuild_grace: Duration::from_millis(500)..=Duration::from_secs(1),
            finish_grace: Duration::from_millis(250)..=Duration::from_millis(500),
        };
        let tuning = (Some(CELL as u32), patience);
        let (network, nodes, fences) = over_nodes(&node, &layout);
        let client: Arc<dyn NodeClient> = if is_over_nodes { nodes } else { Arc::new(node.clone()) };
        let path = ObjectPath::tuned(metadata.clone(), client.clone(), layout.clone(), options, sender, tuning);
        Self { node, network, client, fences, metadata, layout, path, hints }
    }

    async fn put(&self, key: &str, bytes: &[u8]) -> Result<PutOutcome, ObjectError> {
        self.path.put(request(key, Some(bytes.len())), body(bytes, 700)).await
    }

    async fn get(&self, version: &ObjectVersion, range: Range<u64>) -> Result<Vec<u8>, ObjectError> {
        let request = ReadRequest { version: Arc::new(version.clone()), range };
        let bytes: Vec<Bytes> = self.path.read(request).try_collect().await?;
        Ok(bytes.concat())
    }

    async fn get_all(&self, version: &ObjectVersion) -> Result<Vec<u8>, ObjectError> {
        self.get(version, 0..version.object_bytes).await
    }

    /// The number of the backend that holds a slot of a segment.
    fn home(&self, segment: &Segment, slot: usize) -> usize {
        (slot + segment.pg as usize) % N
    }

    fn remove_shard(&self, segment: &Segment, slot: usize) {
        let removed = self.node.on(self.home(segment, slot), |b| b.shards.remove(&shard(segment, slot)));
        assert!(removed.is_some());
    }

    /// Waits until nothing of a request is left: no task, no shard, no buffer.
    async fn assert_nothing_left(&self) {
        let is_clean = || {
            self.node.shard_count() == 0
                && self.node.writer_count() == 0
                && self.path.activity().writing.is_empty()
                && self.path.shared.stock.live_bytes() == 0
                && self.path.shared.write_budget.bytes_in_use() == 0
        };
        eventually(is_clean).await;
        assert!(self.metadata.versions.lock().is_empty());
    }

    fn drain_hints(&mut self) -> Vec<DamageHint> {
        std::iter::from_fn(|| self.hints.try_recv().ok()).collect()
    }
}

async fn eventually(condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("did not come true in 10 s");
}

fn shard(segment: &Segment, slot: usize) -> ShardId {
    segment.shard(Slot(slot as u8))
}

fn request(key: &str, object_bytes: Option<usize>) -> PutRequest {
    PutRequest {
        bucket: Bucket { id: 7, name: "b".into(), ..Default::default() },
        key: key.into(),
        attributes: Attributes::default(),
        owner: "o".into(),
        object_bytes: object_bytes.map(|bytes| bytes as u64),
        object_bytes_max: None,
        expect: ChecksumExpectation::default(),
        preconditions: Preconditions::default(),
    }
}

/// A body in pieces of `piece` bytes.
fn body(bytes: &[u8], piece: usize) -> BodyStream {
    let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    futures::stream::iter(pieces).boxed()
}

/// Bytes that differ everywhere.
fn sample(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Sizes at and around every boundary.
fn sizes() -> Vec<usize> {
    let around = [INLINE, CELL, STRIPE, SEGMENT, SEGMENT + STRIPE, 2 * SEGMENT, 3 * SEGMENT];
    let near = around.into_iter().flat_map(|size| [size - 1, size, size + 1]);
    [0, 1, 63, 64, 65].into_iter().chain(near).chain([5 * SEGMENT + 777]).collect()
}
