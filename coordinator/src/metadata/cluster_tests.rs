//! Clusters of three and five stores in one thread under a paused clock: elections, partitions, killed leaders, restarts
//! that lose what was not synced, changes of members and splits while a register per key is written and read.

use super::api::*;
use super::consensus::Consensus;
use super::kv::{Family, KvView, Scan};
use super::runtime::seed_thread;
use super::service::ConsensusService;
use super::simulated_disk::SimulatedDisk;
use super::store::{MetadataFiles, MetadataStore, NodeOptions, ROOT};
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_proto::cluster::{NodeAddresses, NodeIdentity, NodeIntent, NodeRecord, Roles};
use holdfast_proto::manifest::{ObjectVersion, Segment, Versioning};
use holdfast_proto::{BucketId, ClusterId, NodeId, SegmentId, VersionId};
use holdfast_transport::{
    Call, Channel, LinkConditions, LocalNetwork, LocalOptions, Service, Transport, TransportError,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

mod links;
mod moves;
mod splits;

const CLUSTER: ClusterId = ClusterId([9; 16]);

/// Serves what is behind it now: a store is made after its transport.
#[derive(Default)]
struct Switch(Mutex<Option<Arc<ConsensusService>>>);

#[async_trait]
impl Service for Switch {
    async fn serve(&self, call: Call, channel: Box<dyn Channel>) -> Result<(), TransportError> {
        let service = self.0.lock().clone();
        match service {
            Some(service) => service.serve(call, channel).await,
            None => Err(TransportError::Cancelled),
        }
    }
}

struct Cluster {
    network: LocalNetwork,
    disks: BTreeMap<u64, Arc<SimulatedDisk>>,
    stores: BTreeMap<u64, MetadataStore>,
    records: Vec<NodeRecord>,
    range_bytes_max: Option<u64>,
}

fn record(node: u64) -> NodeRecord {
    NodeRecord {
        id: NodeId(node),
        name: format!("n{node}"),
        roles: Roles::BOTH,
        region: "r".to_owned(),
        zone: format!("z{node}"),
        addresses: NodeAddresses::default(),
        intent: NodeIntent::Active,
        joined_ms: 0,
    }
}

impl Cluster {
    /// Node 1 makes the cluster, the others join; returns once voters are as they should be.
    async fn start(seed: u64, count: u64) -> Self {
        Self::start_with(seed, count, None).await
    }

    async fn start_with(seed: u64, count: u64, range_bytes_max: Option<u64>) -> Self {
        seed_thread(seed);
        let network = LocalNetwork::new(LocalOptions { seed, ..LocalOptions::default() });
        let jitter = Duration::from_millis(2);
        network.set_every_link(LinkConditions { delay: Duration::from_millis(1), jitter, ..LinkConditions::default() });
        let mut cluster =
            Self { network, disks: BTreeMap::new(), stores: BTreeMap::new(), records: Vec::new(), range_bytes_max };
        for node in 1..=count {
            cluster.disks.insert(node, SimulatedDisk::new(Duration::from_millis(1)));
            cluster.records.push(record(node));
            cluster.open(node).await;
        }
        cluster.tell();
        let wanted = if count >= 5 { (5, 3) } else { (3, 3) };
        cluster.wait("voters", |c| c.voters(ROOT).len() == wanted.0 && c.voters(1).len() == wanted.1).await;
        cluster.wait("no thin group", |c| c.stores.values().all(|store| store.thin_groups().is_empty())).await;
        cluster
    }

    async fn open(&mut self, node: u64) {
        let identity = NodeIdentity {
            cluster: CLUSTER,
            node: NodeId(node),
            roles: Roles::BOTH,
            region: "r".to_owned(),
            zone: format!("z{node}"),
        };
        let switch = Arc::new(Switch::default());
        let transport: Arc<dyn Transport> = Arc::new(self.network.join(identity, switch.clone()));
        let files = MetadataFiles::Simulated(self.disks[&node].clone());
        let range_bytes_max = self.range_bytes_max;
        let options = NodeOptions { files, node: NodeId(node), cluster: CLUSTER, range_bytes_max, transport };
        let store =
            if node == 1 { MetadataStore::open_first(options).await } else { MetadataStore::join(options).await };
        let store = store.unwrap();
        *switch.0.lock() = Some(Arc::new(store.consensus_service()));
        store.set_nodes(self.records.clone());
        self.stores.insert(node, store);
    }

    fn tell(&self) {
        self.stores.values().for_each(|store| store.set_nodes(self.records.clone()));
    }

    /// The process ends; of its unsynced writes the first `kept` are there later.
    async fn crash(&mut self, node: u64, kept: usize) {
        self.network.kill(NodeId(node));
        self.disks[&node].crash(kept);
        if let Some(store) = self.stores.remove(&node) {
            // What it still does reaches neither disk nor network; it only frees its tasks.
            let _ = store.shutdown().await;
        }
    }

    async fn restart(&mut self, node: u64) {
        self.open(node).await;
    }

    fn leader(&self, group: u32) -> Option<u64> {
        let leads = |(node, store): (&u64, &MetadataStore)| {
            let members = store.inner.groups.get(group)?.members();
            members.is_leader.then_some(*node)
        };
        self.stores.iter().find_map(leads)
    }

    fn voters(&self, group: u32) -> BTreeSet<u64> {
        let Some(leader) = self.leader(group) else { return BTreeSet::new() };
        let members = self.stores[&leader].inner.groups.get(group).map(|group| group.members());
        members.filter(|members| !members.is_changing).map(|members| members.voters).unwrap_or_default()
    }

    async fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < Duration::from_secs(180), "{what}: not within three minutes");
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn store(&self, node: u64) -> MetadataStore {
        self.stores[&node].clone()
    }

    async fn stop(self) {
        for store in self.stores.values() {
            store.shutdown().await.unwrap();
        }
    }
}

/// Ids are unique in a bucket, not only in a key: inline bytes are kept by them.
fn version(key: &str, number: u64) -> ObjectVersion {
    let hash = blake3::hash(key.as_bytes());
    let unique = *hash.as_bytes().first_chunk().unwrap();
    ObjectVersion {
        version: Bytes::copy_from_slice(&VersionId::from_parts(number, unique).0),
        object_bytes: 8,
        inline: Bytes::copy_from_slice(&number.to_be_bytes()),
        etag: number.to_string(),
        ..ObjectVersion::default()
    }
}

fn put(bucket: BucketId, key: &str, number: u64, expected: Option<u64>) -> PutVersion {
    let if_match = expected.map(|number| EtagCondition::OneOf(vec![number.to_string()]));
    PutVersion {
        bucket,
        key: key.to_owned(),
        version: version(key, number),
        versioning: Versioning::Unversioned,
        preconditions: Preconditions { if_match, ..Preconditions::default() },
        session: None,
    }
}

async fn value(store: &MetadataStore, bucket: BucketId, key: &str) -> MetadataResult<u64> {
    let found = store.get_version(bucket, key, VersionSelector::Current).await?;
    Ok(found.map_or(0, |found| found.etag.parse().unwrap()))
}

/// Writers that count registers up by compare-and-set, each through its own node, and readers elsewhere. What a register
/// shows must never be less than what was acknowledged before the read began.
struct Registers {
    bucket: BucketId,
    keys: Vec<String>,
    acknowledged: Mutex<BTreeMap<String, u64>>,
    stopped: std::sync::atomic::AtomicBool,
}

impl Registers {
    async fn make(store: &MetadataStore, keys: &[&str]) -> Arc<Self> {
        let bucket = BucketId(store.bucket_create("registers", "o", 1).await.unwrap().id);
        for key in keys {
            store.put_version(put(bucket, key, 1, None)).await.unwrap();
        }
        let acknowledged = keys.iter().map(|key| ((*key).to_owned(), 1)).collect();
        Arc::new(Self {
            bucket,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            acknowledged: Mutex::new(acknowledged),
            stopped: false.into(),
        })
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stopped.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    fn seen(&self, key: &str) -> u64 {
        self.acknowledged.lock()[key]
    }

    /// One writer a key: what it last wrote, or may have written, is what the next write expects.
    async fn write(self: Arc<Self>, store: MetadataStore, key: String) -> u64 {
        let mut done = 0;
        while !self.is_stopped() {
            let before = self.seen(&key);
            match store.put_version(put(self.bucket, &key, before + 1, Some(before))).await {
                Ok(_) => {
                    self.acknowledged.lock().insert(key.clone(), before + 1);
                    done += 1;
                }
                // It may have been done: a read tells, and only this writer writes.
                Err(MetadataError::Unavailable { .. }) => {
                    sleep(Duration::from_millis(200)).await;
                    if let Ok(now) = value(&store, self.bucket, &key).await {
                        assert!(now == before || now == before + 1, "{key}: {before} became {now}");
                        self.acknowledged.lock().insert(key.clone(), now);
                    }
                }
                Err(other) => panic!("{key} from {before}: {other}: applied twice, or a write was lost"),
            }
            sleep(Duration::from_millis(5)).await;
        }
        done
    }

    async fn read(self: Arc<Self>, store: MetadataStore) -> u64 {
        let mut done = 0;
        while !self.is_stopped() {
            for key in self.keys.clone() {
                let before = self.seen(&key);
                if let Ok(now) = value(&store, self.bucket, &key).await {
                    assert!(now >= before, "{key}: {now} was read after {before} was acknowledged");
                    done += 1;
                }
            }
            sleep(Duration::from_millis(7)).await;
        }
        done
    }
}

type Work = Vec<tokio::task::JoinHandle<u64>>;

fn work(cluster: &Cluster, registers: &Arc<Registers>, nodes: &[u64]) -> Work {
    let mut tasks: Work = Vec::new();
    for (at, key) in registers.keys.clone().into_iter().enumerate() {
        tasks.push(tokio::spawn(registers.clone().write(cluster.store(nodes[at % nodes.len()]), key)));
    }
    for node in nodes {
        tasks.push(tokio::spawn(registers.clone().read(cluster.store(*node))));
    }
    tasks
}

async fn finish(registers: &Registers, tasks: Work) -> u64 {
    registers.stop();
    let mut done = u64::MAX;
    for task in tasks {
        done = done.min(task.await.unwrap());
    }
    done
}

#[tokio::test(start_paused = true)]
async fn one_store_grows_to_three_voters_and_every_node_reads_and_writes() {
    let cluster = Cluster::start(1, 3).await;
    let bucket = BucketId(cluster.store(2).bucket_create("b", "o", 1).await.unwrap().id);
    for node in 1..=3 {
        // Whether or not the message that tells of it has come.
        let found = cluster.store(node).find_bucket("b").await.unwrap();
        assert_eq!(found.map(|found| found.id), Some(bucket.0), "node {node}");
        assert_eq!(cluster.store(node).find_bucket("none").await.unwrap(), None);
        cluster.store(node).put_version(put(bucket, &format!("k{node}"), node, None)).await.unwrap();
    }
    for node in 1..=3 {
        for key in 1..=3 {
            assert_eq!(value(&cluster.store(node), bucket, &format!("k{key}")).await.unwrap(), key);
        }
        cluster.store(node).root_barrier().await.unwrap();
        assert_eq!(cluster.store(node).bucket("b").map(|found| found.id), Some(bucket.0));
    }
    cluster.store(3).bucket_delete("b").await.expect_err("it is not empty");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_costs_three_seconds_and_nothing_acknowledged() {
    let mut cluster = Cluster::start(2, 3).await;
    let registers = Registers::make(&cluster.store(1), &["a", "b", "c"]).await;
    for round in 0..4 {
        let leader = cluster.leader(1).unwrap();
        let others: Vec<u64> = (1..=3).filter(|node| *node != leader).collect();
        let tasks = work(&cluster, &registers, &others);
        sleep(Duration::from_secs(2)).await;
        cluster.crash(leader, round).await;
        let begun = Instant::now();
        cluster.store(others[0]).put_version(put(registers.bucket, "probe", 1, None)).await.unwrap();
        assert!(begun.elapsed() <= Duration::from_secs(3), "{:?}", begun.elapsed());
        sleep(Duration::from_secs(5)).await;
        let done = finish(&registers, tasks).await;
        assert!(done > 100, "{done} in round {round}, leader {leader}");
        registers.stopped.store(false, std::sync::atomic::Ordering::Relaxed);
        cluster.restart(leader).await;
        cluster.wait("a leader", |c| c.leader(1).is_some() && c.leader(ROOT).is_some()).await;
        for key in &registers.keys {
            let found = value(&cluster.store(leader), registers.bucket, key).await.unwrap();
            assert_eq!(found, registers.seen(key), "{key} on the node that came back");
        }
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn all_nodes_cut_at_once_lose_nothing_acknowledged() {
    let mut cluster = Cluster::start(4, 3).await;
    let registers = Registers::make(&cluster.store(1), &["a", "b", "c"]).await;
    for kept in 0..3 {
        let tasks = work(&cluster, &registers, &[1, 2, 3]);
        sleep(Duration::from_secs(3)).await;
        // Whoever is cut between a sync and an answer does not know: so stop counting first, then cut.
        registers.stop();
        for node in 1..=3 {
            cluster.crash(node, kept * node as usize).await;
        }
        for task in tasks {
            let _ = task.await;
        }
        for node in 1..=3 {
            cluster.restart(node).await;
        }
        cluster.wait("a leader", |c| c.leader(1).is_some()).await;
        let mut now = BTreeMap::new();
        for key in &registers.keys {
            let found = value(&cluster.store(2), registers.bucket, key).await.unwrap();
            let before = registers.seen(key);
            assert!(found == before || found == before + 1, "{key}: {found} after {before}");
            now.insert(key.clone(), found);
        }
        *registers.acknowledged.lock() = now;
        registers.stopped.store(false, std::sync::atomic::Ordering::Relaxed);
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_voter_is_replaced_while_writes_go_on() {
    let mut cluster = Cluster::start(5, 4).await;
    let registers = Registers::make(&cluster.store(1), &["a", "b"]).await;
    let leader = cluster.leader(1).unwrap();
    let lost = *cluster.voters(1).iter().find(|node| **node != leader).unwrap();
    let nodes: Vec<u64> = (1..=4).filter(|node| *node != lost).collect();
    let tasks = work(&cluster, &registers, &nodes);
    cluster.crash(lost, 0).await;
    sleep(Duration::from_secs(20)).await;
    assert!(cluster.voters(1).contains(&lost), "it may come back");
    let is_replaced = |c: &Cluster| {
        let (root, range) = (c.voters(ROOT), c.voters(1));
        range.len() == 3 && !range.contains(&lost) && root.len() == 3 && !root.contains(&lost)
    };
    cluster.wait("a new voter", is_replaced).await;
    assert!(finish(&registers, tasks).await > 100);
    cluster.stop().await;
}

/// What a coordinator began before it was taken for dead cannot become visible afterwards, whoever asks; what it begins
/// then can.
#[tokio::test(start_paused = true)]
async fn what_was_begun_before_a_coordinator_was_barred_stays_unseen() {
    let cluster = Cluster::start(17, 3).await;
    let (first, second) = (cluster.store(1), cluster.store(2));
    let bucket = BucketId(first.bucket_create("b", "o", 1).await.unwrap().id);
    let in_session = |number: u64, session| PutVersion { session: Some(session), ..put(bucket, "k", number, None) };
    let session = second.writer_session().await.unwrap();
    assert_eq!(second.writer_session().await.unwrap(), session, "a session lasts");
    second.put_version(in_session(1, session)).await.unwrap();

    first.writer_fence(NodeId(2)).await.unwrap();
    first.writer_fence(NodeId(2)).await.unwrap();
    assert_eq!(second.put_version(in_session(2, session)).await, Err(MetadataError::Fenced));
    assert_eq!(value(&cluster.store(3), bucket, "k").await, Ok(1));
    // Node 2 has noticed by the refusal.
    assert_eq!(second.put_version(in_session(3, session)).await, Err(MetadataError::Fenced), "not in the next session");
    let next = second.writer_session().await.unwrap();
    assert!(next > session);
    second.put_version(in_session(4, next)).await.unwrap();
    assert_eq!(value(&cluster.store(3), bucket, "k").await, Ok(4));
    // The new session is barred in its turn.
    first.writer_fence(NodeId(2)).await.unwrap();
    assert_eq!(second.put_version(in_session(5, next)).await, Err(MetadataError::Fenced));
    cluster.stop().await;
}

/// All rows of a node's state but those that say how far it has come.
fn rows(store: &MetadataStore) -> Vec<(Family, Vec<u8>, Vec<u8>)> {
    let view = store.inner.state.view();
    let mut found = Vec::new();
    for family in Family::ALL {
        view.scan(family, &[], &mut |key, value, _| {
            if !(family == Family::Groups && key.ends_with(b"applied")) {
                found.push((family, key.to_vec(), value.to_vec()));
            }
            Ok(Scan::Next)
        })
        .unwrap();
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_node_behind_the_log_is_sent_a_snapshot() {
    let mut cluster = Cluster::start(6, 3).await;
    let away = *cluster.voters(1).iter().find(|node| Some(**node) != cluster.leader(1)).unwrap();
    let others: Vec<u64> = (1..=3).filter(|node| *node != away).collect();
    let bucket = BucketId(cluster.store(1).bucket_create("b", "o", 1).await.unwrap().id);
    for number in 0..50u64 {
        cluster.store(1).put_version(put(bucket, &format!("old{number}"), number, None)).await.unwrap();
    }
    cluster.crash(away, 0).await;
    // More than the log keeps, of which much replaces what the node has.
    for number in 0..9_000u64 {
        let key = format!("new{}", number % 700);
        cluster.store(others[0]).put_version(put(bucket, &key, 100 + number, None)).await.unwrap();
    }
    cluster.store(others[0]).split_at(bucket, "new5").await.unwrap();
    sleep(Duration::from_secs(130)).await;
    cluster.restart(away).await;
    cluster.wait("all ranges", |c| c.stores[&away].inner.groups.get(2).is_some()).await;
    for key in ["new0", "new699", "old49"] {
        let expected = value(&cluster.store(others[0]), bucket, key).await.unwrap();
        assert_eq!(value(&cluster.store(away), bucket, key).await.unwrap(), expected);
    }
    sleep(Duration::from_secs(5)).await;
    let (one, other) = (rows(&cluster.store(others[0])), rows(&cluster.store(away)));
    assert_eq!(one.len(), other.len());
    assert!(one == other, "the copy made from a snapshot is the copy made from the log");
    cluster.stop().await;
}
