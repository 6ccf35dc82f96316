//! The data plane over a transport in process and a real disk backend: what is asked is done, what is wrong is refused,
//! what is stale is fenced, what is given up leaves nothing.

use super::*;
use crate::{BackendSpec, LocalNode, LocalNodeOptions};
use holdfast_proto::cluster::{NodeIdentity, Roles};
use holdfast_proto::node::Cell;
use holdfast_proto::node_rpc::{WRITE_FRAME_BYTES_MAX, WriteBegin, WriteCells, decode, encode, stat_from};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, BucketId, ClusterId, SegmentId, ShardId, Slot, VersionId};
use holdfast_transport::{CallOptions, LocalNetwork, LocalOptions, LocalTransport, Transport};
use prost::Message;
use std::time::Duration;

const CLUSTER: ClusterId = ClusterId([3; 16]);
const BACKEND: BackendId = BackendId([1; 16]);
const SERVER: NodeId = NodeId(1);
const CELL: usize = 4096;

struct World {
    _place: tempfile::TempDir,
    node: LocalNode,
    coordinator: LocalTransport,
    storage: LocalTransport,
}

impl World {
    async fn new(limits: ServeLimits) -> Self {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("d1");
        holdfast_backends::DiskBackend::format(&directory, CLUSTER, BACKEND, "d1").unwrap();
        let location = format!("disk:{}", directory.display());
        let specs = vec![BackendSpec { id: BACKEND, name: "d1".into(), location }];
        let node = LocalNode::open(CLUSTER, specs, LocalNodeOptions::default()).await;
        let fence = Fence::open(Some(place.path().join("fence"))).unwrap();
        let listed = Fence::open(Some(place.path().join("listed"))).unwrap();
        let service = NodeService::new(SERVER, FencedNode::new(Arc::new(node.clone()), fence, listed), limits);
        let service: Arc<dyn Service> = Arc::new(service);
        let network = LocalNetwork::new(LocalOptions::default());
        let identity =
            |node, roles| NodeIdentity { cluster: CLUSTER, node, roles, region: "r".into(), zone: "z".into() };
        network.join(identity(SERVER, Roles::only(Role::Storage)), service.clone());
        let coordinator = network.join(identity(NodeId(2), Roles::only(Role::Coordinator)), service.clone());
        let storage = network.join(identity(NodeId(3), Roles::only(Role::Storage)), service);
        Self { _place: place, node, coordinator, storage }
    }

    async fn ask<M: Message + Default>(
        &self,
        rpc: Rpc,
        request: &impl Message,
        epoch: Option<u64>,
    ) -> Result<M, ShardError> {
        let options = options(epoch);
        let reply = self.coordinator.call(SERVER, rpc, Frame::head_only(encode(request)), options).await.unwrap();
        decode::<Reply>(&reply.head).unwrap().into_result().unwrap()
    }

    async fn begin(&self, shard: ShardId, epoch: Option<u64>) -> (Box<dyn Channel>, Result<Empty, ShardError>) {
        let head = encode(&WriteBegin::new(BACKEND, &header(shard)));
        let first = Frame::head_only(head);
        let mut channel = self.coordinator.open(SERVER, Rpc::ShardWrite, first, options(epoch)).await.unwrap();
        let begun = reply(&mut *channel).await;
        (channel, begun)
    }

    async fn write(&self, shard: ShardId, epoch: u64) -> Result<StatMessage, ShardError> {
        let (mut channel, begun) = self.begin(shard, Some(epoch)).await;
        begun?;
        channel.send(cells()).await.unwrap();
        channel.finish().await.unwrap();
        reply(&mut *channel).await
    }

    async fn ping(&self, transport: &LocalTransport, minimum_epoch: u64) -> Pong {
        let head = encode(&Ping { minimum_epoch });
        let reply = transport.call(SERVER, Rpc::DataPing, Frame::head_only(head), options(None)).await.unwrap();
        decode::<Reply>(&reply.head).unwrap().into_result().unwrap().unwrap()
    }

    async fn writers(&self) -> u64 {
        self.ping(&self.coordinator, 0).await.load.unwrap().writers
    }

    async fn has(&self, shard: ShardId) -> bool {
        self.node.stat_shard(BACKEND, shard).await.unwrap().is_some()
    }
}

fn options(epoch: Option<u64>) -> CallOptions {
    CallOptions { deadline: Duration::from_secs(30), epoch: epoch.map(Epoch), request_id: 1 }
}

async fn reply<M: Message + Default>(channel: &mut dyn Channel) -> Result<M, ShardError> {
    let frame = channel.receive().await.unwrap().unwrap();
    decode::<Reply>(&frame.head).unwrap().into_result().unwrap()
}

async fn eventually<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    for _ in 0..2000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("did not come true in 10 s");
}

fn shard(n: u8) -> ShardId {
    ShardId { pg: PgId(1), segment: SegmentId([n; 16]), slot: Slot(0) }
}

fn header(id: ShardId) -> ShardHeader {
    ShardHeader {
        cluster: CLUSTER,
        id,
        bucket: BucketId(1),
        key_hash: [0; 32],
        version: VersionId([0; 16]),
        scheme: [0x1d, 1, 4, 2],
        cell_bytes: CELL as u32,
        shard_bytes: 2 * CELL as u64,
        segment_bytes: 8 * CELL as u64,
        segment_offset: 0,
        created_ms: 0,
    }
}

/// Both cells of a shard.
fn cells() -> Frame {
    let cell = |seed: u8| {
        let bytes = Bytes::from(vec![seed; CELL]);
        Cell { hash: *blake3::hash(&bytes).as_bytes(), bytes }
    };
    let (head, body) = WriteCells::new(vec![cell(1), cell(2)]);
    Frame { head: encode(&head), body }
}

fn is_invalid<T: std::fmt::Debug>(result: &Result<T, ShardError>, words: &str) {
    let Err(ShardError::Invalid { reason }) = result else { panic!("{words}: {result:?}") };
    assert!(reason.contains(words), "{reason}");
}

#[tokio::test]
async fn a_shard_lives_and_dies_over_the_wire() {
    let world = World::new(ServeLimits::default()).await;
    let stat = stat_from(world.write(shard(1), 1).await.unwrap()).unwrap();
    assert_eq!(world.node.stat_shard(BACKEND, shard(1)).await.unwrap().as_ref(), Some(&stat));
    let request = ReadCells::new(BACKEND, shard(1), (1, 1), Some(stat.root));
    let frame = Frame::head_only(encode(&request));
    let reply = world.storage.call(SERVER, Rpc::ShardRead, frame, options(None)).await.unwrap();
    let head: ReadHead = decode::<Reply>(&reply.head).unwrap().into_result().unwrap().unwrap();
    let mut read = head.into_read(reply.body, (1, 1)).unwrap();
    assert_eq!(read.verify(1, Some(stat.root)), Ok(()));
    assert_eq!((&read.bytes[..], read.damaged.len()), (&[2; CELL][..], 0));
    let list: StatList =
        world.ask(Rpc::ShardList, &ListShards::new(BACKEND, PgId(1), None, 10), Some(1)).await.unwrap();
    assert_eq!(list.parse(), Ok(vec![stat.clone()]));
    let found: StatReply = world.ask(Rpc::ShardStat, &NameShard::new(BACKEND, shard(1)), Some(1)).await.unwrap();
    assert_eq!(found.stat.map(stat_from), Some(Ok(stat)));
    let step: ScrubReply = world.ask(Rpc::ShardScrub, &ScrubShards::new(BACKEND, None, 1 << 20), None).await.unwrap();
    assert_eq!((step.shards, step.parse().unwrap().next), (1, None));
    world.ask::<Empty>(Rpc::ShardDelete, &DeleteShards::new(BACKEND, &[shard(1), shard(2)]), Some(1)).await.unwrap();
    let gone: StatReply = world.ask(Rpc::ShardStat, &NameShard::new(BACKEND, shard(1)), None).await.unwrap();
    assert_eq!(gone.stat, None);
    let missing = world.ask::<ReadHead>(Rpc::ShardRead, &request, None).await;
    assert_eq!(missing, Err(ShardError::NotFound { shard: shard(1), backend: BACKEND }));
}

/// Whoever was shown a shard by a newer map may build on it; so one who still goes by an older map cannot take it away,
/// while what is garbage by its record can go by any map.
#[tokio::test]
async fn what_was_listed_is_not_deleted_by_an_older_map() {
    let world = World::new(ServeLimits::default()).await;
    let (listing, deletion) = (ListShards::new(BACKEND, PgId(1), None, 10), DeleteShards::new(BACKEND, &[shard(1)]));
    let list = |epoch| world.ask::<StatList>(Rpc::ShardList, &listing, epoch);
    let delete = |epoch| world.ask::<Empty>(Rpc::ShardDelete, &deletion, epoch);
    world.write(shard(1), 1).await.unwrap();
    delete(Some(4)).await.unwrap();
    world.write(shard(1), 4).await.unwrap();
    assert_eq!(list(Some(5)).await.unwrap().stats.len(), 1);
    assert_eq!(list(Some(3)).await.unwrap().stats.len(), 1, "an older listing is answered and lowers nothing");
    let stale = ShardError::StaleEpoch { got: Epoch(4), minimum: Epoch(5) };
    assert_eq!(delete(Some(4)).await, Err(stale.clone()));
    assert!(world.node.stat_shard(BACKEND, shard(1)).await.unwrap().is_some());
    let again = Fence::open(Some(world._place.path().join("listed"))).unwrap();
    assert_eq!(again.check(Epoch(4)), Err(stale), "a restart does not forget it");
    delete(Some(5)).await.unwrap();
    world.write(shard(1), 4).await.unwrap();
    delete(None).await.unwrap();
    assert!(world.node.stat_shard(BACKEND, shard(1)).await.unwrap().is_none());
}

#[tokio::test]
async fn backends_are_reported_added_and_removed() {
    let world = World::new(ServeLimits::default()).await;
    let location = format!("disk:{}", world._place.path().join("d2").display());
    let add = AddBackend { location, name: "d2".into() };
    let added: StatusMessage = world.ask(Rpc::BackendAdd, &add, None).await.unwrap();
    let added = node_rpc::status_from(added).unwrap();
    let list: BackendList = world.ask(Rpc::Backends, &Empty {}, None).await.unwrap();
    let ids: Vec<BackendId> = list.parse().unwrap().iter().map(|status| status.id).collect();
    assert_eq!(ids, [BACKEND, added.id]);
    world.ask::<Empty>(Rpc::BackendRemove, &NameBackend::new(added.id), None).await.unwrap();
    let again = world.ask::<Empty>(Rpc::BackendRemove, &NameBackend::new(added.id), None).await;
    assert_eq!(again, Err(ShardError::NoSuchBackend { backend: added.id }));
    // A heartbeat sums them up from memory, once they were looked at.
    eventually(|| async { world.ping(&world.storage, 0).await.backends().unwrap().len() == 1 }).await;
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_and_the_next_call_served() {
    let world = World::new(ServeLimits::default()).await;
    let garbage = Frame { head: Bytes::from_static(&[0xff; 40]), body: vec![Bytes::from_static(b"body")] };
    let served = Rpc::ALL.iter().filter(|rpc| rpc.plane() == holdfast_proto::rpc::Plane::Data);
    for &rpc in served {
        let reply = world.coordinator.call(SERVER, rpc, garbage.clone(), options(Some(1))).await.unwrap();
        let refused = decode::<Reply>(&reply.head).unwrap().into_result::<Empty>().unwrap();
        let takes_nothing = rpc == Rpc::Backends;
        assert!(takes_nothing || matches!(refused, Err(ShardError::Invalid { .. })), "{rpc:?}: {refused:?}");
    }
    is_invalid(&world.begin(shard(1), None).await.1, "by which epoch");
    let (mut channel, begun) = world.begin(shard(1), Some(1)).await;
    begun.unwrap();
    let large = Frame { body: vec![Bytes::from(vec![0; WRITE_FRAME_BYTES_MAX + 1])], ..cells() };
    channel.send(large).await.unwrap();
    is_invalid(&reply::<StatMessage>(&mut *channel).await, "bytes of cells in a frame");
    world.write(shard(2), 1).await.unwrap();
    let far = world.ask::<ReadHead>(Rpc::ShardRead, &ReadCells::new(BACKEND, shard(2), (1, 2), None), None).await;
    is_invalid(&far, "cells from");
    assert!(!world.has(shard(1)).await);
    assert_eq!(world.writers().await, 0);
}

#[tokio::test]
async fn stale_epochs_are_fenced_before_and_during_a_write() {
    let world = World::new(ServeLimits::default()).await;
    let (mut old, begun) = world.begin(shard(1), Some(4)).await;
    begun.unwrap();
    let (mut idle, begun) = world.begin(shard(2), Some(4)).await;
    begun.unwrap();
    idle.send(cells()).await.unwrap();
    assert_eq!(world.ping(&world.storage, 5).await.minimum_epoch, 0);
    assert_eq!(world.ping(&world.storage, 0).await.minimum_epoch, 0, "a storage node raises no fence");
    world.ping(&world.coordinator, 5).await;
    eventually(|| async { world.ping(&world.storage, 0).await.minimum_epoch == 5 }).await;
    let stale = ShardError::StaleEpoch { got: Epoch(4), minimum: Epoch(5) };
    // Begun before, appended to or finished after.
    old.send(cells()).await.unwrap();
    old.finish().await.unwrap();
    assert_eq!(reply::<StatMessage>(&mut *old).await, Err(stale.clone()));
    idle.finish().await.unwrap();
    assert_eq!(reply::<StatMessage>(&mut *idle).await, Err(stale.clone()));
    assert_eq!(world.begin(shard(3), Some(4)).await.1, Err(stale.clone()));
    let read = ReadCells::new(BACKEND, shard(3), (0, 1), None);
    assert_eq!(world.ask::<ReadHead>(Rpc::ShardRead, &read, Some(4)).await, Err(stale));
    world.write(shard(4), 5).await.unwrap();
    for (n, is_there) in [(1, false), (2, false), (3, false), (4, true)] {
        assert_eq!(world.has(shard(n)).await, is_there, "shard {n}");
    }
}

#[tokio::test]
async fn a_cancelled_write_gives_its_room_back_and_a_finished_one_stays() {
    let world = World::new(ServeLimits::default()).await;
    let (mut given_up, begun) = world.begin(shard(1), Some(1)).await;
    begun.unwrap();
    given_up.send(cells()).await.unwrap();
    assert_eq!(world.writers().await, 1);
    drop(given_up);
    eventually(|| async { world.writers().await == 0 }).await;
    assert!(!world.has(shard(1)).await);
    // The caller goes away without reading the reply.
    let (mut finished, begun) = world.begin(shard(2), Some(1)).await;
    begun.unwrap();
    finished.send(cells()).await.unwrap();
    finished.finish().await.unwrap();
    eventually(|| async { world.has(shard(2)).await }).await;
    drop(finished);
    eventually(|| async { world.writers().await == 0 }).await;
    assert!(world.has(shard(2)).await);
}

#[tokio::test]
async fn a_caller_with_too_many_writers_is_told_so() {
    let world = World::new(ServeLimits { writers_per_caller: 2, ..ServeLimits::default() }).await;
    let first = world.begin(shard(1), Some(1)).await;
    let second = world.begin(shard(2), Some(1)).await;
    assert!(first.1.is_ok() && second.1.is_ok());
    assert_eq!(world.begin(shard(3), Some(1)).await.1, Err(ShardError::Busy { backend: BACKEND, queued: 2 }));
    drop(first);
    eventually(|| async { world.begin(shard(3), Some(1)).await.1.is_ok() }).await;
}
