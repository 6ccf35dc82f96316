//! Membership as a whole: real metadata on files, real certificates, calls handed over in process.

use super::nodes::change;
use super::*;
use crate::metadata::{ClusterMap, MembershipMetadata, Metadata, MetadataOptions, MetadataStore};
use async_trait::async_trait;
use holdfast_proto::cluster::{NodeAddresses, NodeIdentity, NodeIntent, Role, Roles};
use holdfast_proto::membership::{CertificateOutcome, CertificateReply, JoinRequest, RefusalCause};
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::rpc::Rpc;
use holdfast_proto::{BackendId, ClusterId, Epoch, ErrorKind, NodeId};
use holdfast_transport::{Call, CallOptions, Caller, Channel, Frame, Service, Transport, TransportError};
use holdfast_trust::{
    CLOCK_SLACK_MS, JoinToken, LiveCredentials, NodeCredentials, NodeKey, TokenId, TokenScope, TokenSecret, UnixClock,
    identity_of,
};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

const CLUSTER: ClusterId = ClusterId([1; 16]);
const START: u64 = 1_795_000_000_000;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

/// A cluster of one coordinator whose calls are handed over in process.
struct World {
    metadata: Arc<MetadataStore>,
    services: Vec<Arc<MembershipService>>,
    now: Arc<AtomicU64>,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = MetadataOptions { directory: directory.path().to_owned(), new_cluster_id: CLUSTER };
        let metadata = Arc::new(MetadataStore::open(options).await.unwrap());
        let table = PgTable { epoch: Epoch(1), scheme: [0; 4], pgs: Vec::new() };
        let map = ClusterMap::new(CLUSTER, table);
        metadata.cluster_map_set(Epoch(0), map).await.unwrap();
        let now = Arc::new(AtomicU64::new(START));
        // Two coordinators on the same metadata: whatever one decides the other must not contradict.
        let service = |node| Arc::new(MembershipService::new(metadata.clone(), NodeId(node), clock(&now)));
        let services = vec![service(1), service(2)];
        Self { metadata, services, now, _directory: directory }
    }

    async fn founded() -> Self {
        let world = Self::new().await;
        world.found(1).await.unwrap();
        world
    }

    async fn found(&self, key: u8) -> Result<NodeCredentials, MembershipError> {
        let founder = Founder {
            key: &NodeKey::from_seed(&[key; 32]).unwrap(),
            roles: Roles::BOTH,
            region: "eu".to_owned(),
            zone: "a".to_owned(),
            addresses: NodeAddresses::default(),
            authority_seed: [key | 0x80; 32],
            now_ms: self.now_ms(),
        };
        found(self.metadata.as_ref(), founder).await
    }

    fn now_ms(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    async fn token(&self, number: u8, scope: TokenScope) -> JoinToken {
        let new = NewToken {
            id: TokenId([number; 16]),
            secret: TokenSecret([number; 32]),
            scope,
            ttl_ms: HOUR,
            addresses: vec!["10.0.0.1:7003".parse().unwrap()],
            now_ms: self.now_ms(),
        };
        create_token(self.metadata.as_ref(), new).await.unwrap()
    }

    async fn remove(&self, node: NodeId) {
        let without = |map: &ClusterMap| Ok(with_intent(map, node, NodeIntent::Removed)?);
        change(self.metadata.as_ref(), 1, without).await.unwrap();
    }

    async fn map(&self) -> ClusterMap {
        self.metadata.cluster_map().await.unwrap().unwrap()
    }

    /// Joins through one of the services.
    async fn join(&self, service: usize, token: &JoinToken, key: u8) -> Result<Joined, MembershipError> {
        let key = NodeKey::from_seed(&[key; 32]).unwrap();
        join(&self.dial(service), options(token, &key, clock(&self.now))).await
    }

    fn dial(&self, service: usize) -> InProcess {
        InProcess { service: self.services[service].clone(), caller: Caller::Stranger }
    }

    fn node(&self, identity: &NodeIdentity) -> InProcess {
        InProcess { service: self.services[0].clone(), caller: Caller::Node(Arc::new(identity.clone())) }
    }

    /// The cause for which a request to join is refused.
    async fn refusal(&self, request: &JoinRequest) -> RefusalCause {
        let first = Frame::head_only(request.encode_to_vec().into());
        let reply = self.dial(0).open_call(Rpc::Join, first).await.receive().await.unwrap().unwrap();
        match CertificateReply::decode(reply.head).unwrap().outcome {
            Some(CertificateOutcome::Refused(refusal)) => RefusalCause::from_number(refusal.cause),
            other => panic!("{other:?}"),
        }
    }
}

fn clock(now: &Arc<AtomicU64>) -> UnixClock {
    let now = now.clone();
    UnixClock::new(move || now.load(Ordering::SeqCst))
}

fn options<'a>(token: &'a JoinToken, key: &'a NodeKey, clock: UnixClock) -> JoinOptions<'a> {
    let data = vec!["10.0.0.9:7001".parse().unwrap()];
    JoinOptions {
        token,
        key,
        roles: Roles::only(Role::Storage),
        region: "eu west/1".to_owned(),
        zone: "b".to_owned(),
        addresses: NodeAddresses { data, ..NodeAddresses::default() },
        clock,
    }
}

fn request(token: &JoinToken, now_ms: u64) -> JoinRequest {
    JoinRequest {
        token: token.id.0.to_vec(),
        secret: token.secret.0.to_vec(),
        cluster: token.cluster.0.to_vec(),
        request: NodeKey::from_seed(&[77; 32]).unwrap().request().unwrap(),
        roles: "storage".to_owned(),
        region: "eu".to_owned(),
        zone: "b".to_owned(),
        addresses: None,
        now_ms,
    }
}

/// Hands calls to a service as if from `caller`.
#[derive(Clone)]
struct InProcess {
    service: Arc<MembershipService>,
    caller: Caller,
}

struct End {
    out: mpsc::Sender<Frame>,
    inward: mpsc::Receiver<Frame>,
    first: Option<Frame>,
}

#[async_trait]
impl Channel for End {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.out.send(frame).await.map_err(|_| TransportError::Cancelled)
    }
    async fn finish(&mut self) -> Result<(), TransportError> {
        Ok(())
    }
    async fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        Ok(self.inward.recv().await)
    }
}

impl InProcess {
    async fn open_call(&self, rpc: Rpc, first: Frame) -> Box<dyn Channel> {
        let (to_server, from_client) = mpsc::channel(1);
        let (to_client, from_server) = mpsc::channel(1);
        let served = End { out: to_client, inward: from_client, first: Some(first) };
        let deadline = Duration::from_secs(10);
        let call = Call { caller: self.caller.clone(), rpc, epoch: None, request_id: 0, deadline };
        let service = self.service.clone();
        tokio::spawn(async move { service.serve(call, Box::new(served)).await });
        Box::new(End { out: to_server, inward: from_server, first: None })
    }
}

#[async_trait]
impl StrangerDial for InProcess {
    async fn open(
        &self,
        _: SocketAddr,
        _: &JoinToken,
        rpc: Rpc,
        first: Frame,
        _: CallOptions,
    ) -> Result<Box<dyn Channel>, TransportError> {
        Ok(self.open_call(rpc, first).await)
    }
}

#[async_trait]
impl Transport for InProcess {
    async fn open(
        &self,
        _: NodeId,
        rpc: Rpc,
        first: Frame,
        _: CallOptions,
    ) -> Result<Box<dyn Channel>, TransportError> {
        Ok(self.open_call(rpc, first).await)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_a_founded_cluster() {
    let world = World::founded().await;
    let mut numbers = BTreeSet::new();
    for number in 1..=3 {
        let token = world.token(number, TokenScope::default()).await;
        let joined = world.join(0, &token, 10 + number).await.unwrap();
        let identity = joined.credentials.identity();
        assert_eq!((identity.cluster, identity.region.as_str(), identity.zone.as_str()), (CLUSTER, "eu west/1", "b"));
        assert_eq!(identity.roles, Roles::only(Role::Storage));
        let record = joined.map.nodes.iter().find(|record| record.id == identity.node).unwrap();
        assert_eq!(record.addresses.data, ["10.0.0.9:7001".parse().unwrap()]);
        assert_eq!((record.name.clone(), record.joined_ms), (format!("n{}", identity.node), START));
        assert_eq!(joined.map, world.map().await);
        numbers.insert(identity.node.0);
    }
    assert_eq!(numbers, BTreeSet::from([2, 3, 4]));
    assert_eq!(world.map().await.table.epoch, Epoch(5), "one epoch for each change of the nodes");
    let tokens = world.metadata.token_list().await.unwrap();
    assert!(tokens.iter().all(|record| record.used_by.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founding_again_gives_the_same_cluster() {
    let world = World::new().await;
    let unfounded = create_token(
        world.metadata.as_ref(),
        NewToken {
            id: TokenId([1; 16]),
            secret: TokenSecret([1; 32]),
            scope: TokenScope::default(),
            ttl_ms: HOUR,
            addresses: vec!["10.0.0.1:1".parse().unwrap()],
            now_ms: START,
        },
    );
    assert!(matches!(unfounded.await, Err(MembershipError::NotFounded { .. })));
    let (first, again) = (world.found(1).await.unwrap(), world.found(2).await.unwrap());
    assert_eq!(first.root_pins(), again.root_pins(), "the first CA stays");
    assert_eq!(first.identity(), again.identity());
    assert_eq!(world.map().await.nodes.len(), 1);
    let row = world.metadata.authority().await.unwrap().unwrap();
    assert!(Authority::from_row(&row, ClusterId([2; 16])).is_err(), "another cluster's CA");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_given_again_and_only_to_the_same_key() {
    let world = World::founded().await;
    let token = world.token(1, TokenScope::default()).await;
    let first = world.join(0, &token, 20).await.unwrap();
    world.now.fetch_add(2 * HOUR, Ordering::SeqCst);
    let again = world.join(1, &token, 20).await.unwrap();
    assert_eq!(first.credentials.certificate_pem(), again.credentials.certificate_pem(), "byte for byte");
    assert_eq!(first.map, again.map);
    let other = world.join(1, &token, 21).await.unwrap_err();
    assert!(matches!(other, MembershipError::Refused { cause: RefusalCause::TokenUsed, .. }), "{other}");
    world.remove(first.credentials.identity().node).await;
    let removed = world.join(0, &token, 20).await.unwrap_err();
    assert!(matches!(removed, MembershipError::Refused { cause: RefusalCause::NodeRemoved, .. }), "{removed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_join_at_once_each_token_admits_one() {
    let world = Arc::new(World::founded().await);
    let token = world.token(1, TokenScope::default()).await;
    let mut racing = tokio::task::JoinSet::new();
    for key in 0..12u8 {
        let (world, token) = (world.clone(), token.clone());
        racing.spawn(async move { world.join(usize::from(key) % 2, &token, 100 + key).await });
    }
    let mut admitted = Vec::new();
    while let Some(result) = racing.join_next().await {
        match result.unwrap() {
            Ok(joined) => admitted.push(joined.credentials.identity().node),
            Err(error) => {
                assert!(matches!(error, MembershipError::Refused { cause: RefusalCause::TokenUsed, .. }), "{error}");
            }
        }
    }
    assert_eq!(admitted.len(), 1);

    for number in 2..=7u8 {
        let token = world.token(number, TokenScope::default()).await;
        let world = world.clone();
        racing.spawn(async move { world.join(usize::from(number) % 2, &token, 120 + number).await });
    }
    let mut numbers: BTreeSet<NodeId> = admitted.into_iter().collect();
    while let Some(result) = racing.join_next().await {
        assert!(numbers.insert(result.unwrap().unwrap().credentials.identity().node), "a number was given twice");
    }
    assert_eq!(numbers.len(), 7);
    let in_map: BTreeSet<NodeId> = world.map().await.nodes.iter().map(|record| record.id).collect();
    assert!(numbers.is_subset(&in_map));
    assert_eq!(in_map.len(), 8, "and node 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_their_cause_and_change_nothing() {
    let world = World::founded().await;
    let scope = TokenScope {
        roles: Some(Roles::only(Role::Storage)),
        region: Some("eu".to_owned()),
        zone: Some("b".to_owned()),
    };
    let token = world.token(1, scope).await;
    let good = || request(&token, START);
    let skewed = |now_ms| JoinRequest { now_ms, ..good() };
    let addresses = Some(holdfast_proto::membership::Addresses { data: vec!["x".to_owned()], ..Default::default() });
    use RefusalCause::*;
    let cases = [
        ("unknown token", JoinRequest { token: vec![9; 16], ..good() }, TokenNotAccepted),
        ("wrong secret", JoinRequest { secret: vec![9; 32], ..good() }, TokenNotAccepted),
        ("short secret", JoinRequest { secret: vec![1; 31], ..good() }, Malformed),
        ("short id", JoinRequest { token: vec![1; 15], ..good() }, Malformed),
        ("another cluster", JoinRequest { cluster: vec![2; 16], ..good() }, WrongCluster),
        ("no cluster", JoinRequest { cluster: Vec::new(), ..good() }, WrongCluster),
        ("clock ahead", skewed(START + CLOCK_SLACK_MS + 1), Clock),
        ("clock hours behind", skewed(START - 5 * HOUR), Clock),
        ("no clock", skewed(0), Clock),
        ("no request", JoinRequest { request: Vec::new(), ..good() }, Malformed),
        ("damaged request", JoinRequest { request: vec![0x30; 200], ..good() }, Malformed),
        ("no roles", JoinRequest { roles: String::new(), ..good() }, Malformed),
        ("foreign role", JoinRequest { roles: "admin".to_owned(), ..good() }, Malformed),
        ("too many roles", JoinRequest { roles: "coordinator,storage".to_owned(), ..good() }, TokenRole),
        ("another region", JoinRequest { region: "us".to_owned(), ..good() }, TokenRegion),
        ("no region", JoinRequest { region: String::new(), ..good() }, Malformed),
        ("another zone", JoinRequest { zone: "c".to_owned(), ..good() }, TokenZone),
        ("a zone of control characters", JoinRequest { zone: "c\n".to_owned(), ..good() }, Malformed),
        ("not an address", JoinRequest { addresses, ..good() }, Malformed),
        ("too large", JoinRequest { region: "x".repeat(64 << 10), ..good() }, Malformed),
    ];
    let before = (world.map().await, world.metadata.token_list().await.unwrap());
    for (what, request, expected) in cases {
        assert_eq!(world.refusal(&request).await, expected, "{what}");
    }
    world.now.fetch_add(HOUR, Ordering::SeqCst);
    assert_eq!(world.refusal(&request(&token, START + HOUR)).await, TokenExpired);
    assert_eq!((world.map().await, world.metadata.token_list().await.unwrap()), before);
    assert!(world.metadata.token_revoke(token.id).await.unwrap());
    assert_eq!(world.refusal(&request(&token, START + HOUR)).await, TokenNotAccepted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_says_what_the_map_says() {
    let world = World::founded().await;
    let token = world.token(1, TokenScope::default()).await;
    let joined = world.join(0, &token, 30).await.unwrap();
    let old = joined.credentials;
    world.now.fetch_add(61 * DAY, Ordering::SeqCst);
    // The operator moved the node to another zone meanwhile.
    let mut map = world.map().await;
    let expected = map.table.epoch;
    map.table.epoch = Epoch(expected.0 + 1);
    map.nodes.iter_mut().find(|record| record.id == old.identity().node).unwrap().zone = "c".to_owned();
    world.metadata.cluster_map_set(expected, map).await.unwrap();

    let transport = world.node(old.identity());
    let renewed = renew(&transport, NodeId(1), &old).await.unwrap();
    assert_eq!(renewed.identity(), &NodeIdentity { zone: "c".to_owned(), ..old.identity().clone() });
    assert_eq!(renewed.validity().not_after_ms, old.validity().not_after_ms + 61 * DAY);

    let cause = |result: Result<NodeCredentials, MembershipError>| match result {
        Err(MembershipError::Refused { cause, .. }) => cause,
        other => panic!("{other:?}"),
    };
    world.remove(old.identity().node).await;
    assert_eq!(cause(renew(&transport, NodeId(1), &old).await), RefusalCause::NodeRemoved);
    let unknown = NodeIdentity { node: NodeId(99), ..old.identity().clone() };
    assert_eq!(cause(renew(&world.node(&unknown), NodeId(1), &old).await), RefusalCause::NoSuchNode);
    let foreign = NodeIdentity { cluster: ClusterId([2; 16]), ..old.identity().clone() };
    assert_eq!(cause(renew(&world.node(&foreign), NodeId(1), &old).await), RefusalCause::WrongCluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_get_no_answer_but_to_join() {
    let world = World::founded().await;
    for rpc in [Rpc::Renew, Rpc::Announce, Rpc::ClusterMap] {
        let mut channel = world.dial(0).open_call(rpc, Frame::default()).await;
        assert_eq!(channel.receive().await, Ok(None), "{rpc:?}");
    }
    let node = world.found(1).await.unwrap();
    let mut channel = world.node(node.identity()).open_call(Rpc::ShardRead, Frame::default()).await;
    assert_eq!(channel.receive().await, Ok(None), "another plane's call");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_answered_with_a_refusal() {
    let world = World::founded().await;
    let node = world.found(1).await.unwrap();
    let before = world.map().await;
    let mut seed = 7u64;
    for length in 0..300usize {
        let mut bytes = Vec::with_capacity(length);
        for _ in 0..length {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push((seed >> 56) as u8);
        }
        for rpc in [Rpc::Join, Rpc::Renew, Rpc::Announce, Rpc::ClusterMap] {
            let frame = Frame::head_only(bytes.clone().into());
            let mut channel = world.node(node.identity()).open_call(rpc, frame).await;
            let reply = channel.receive().await.unwrap();
            assert!(reply.is_some(), "{rpc:?} {}", hex::encode(&bytes));
        }
    }
    let after = world.map().await;
    assert_eq!((after.nodes.len(), after.backends.len()), (before.nodes.len(), before.backends.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_announce_themselves_and_fetch_the_map() {
    let world = World::founded().await;
    let token = world.token(1, TokenScope::default()).await;
    let joined = world.join(0, &token, 40).await.unwrap();
    let transport = world.node(joined.credentials.identity());
    let known = joined.map.table.epoch;
    assert_eq!(fetch_cluster_map(&transport, NodeId(1), known).await.unwrap(), None);
    assert_eq!(fetch_cluster_map(&transport, NodeId(1), Epoch(0)).await.unwrap(), Some(joined.map.clone()));

    let (fresh, stale) = (BackendId([5; 16]), BackendId([6; 16]));
    let announcement = Announcement {
        addresses: NodeAddresses { data: vec!["10.0.0.9:7001".parse().unwrap()], ..NodeAddresses::default() },
        backends: vec![(fresh, "disk:/a".to_owned(), true), (stale, "disk:/b".to_owned(), false)],
        now_ms: START,
    };
    let (epoch, not_in_map) = announce(&transport, NodeId(1), &announcement).await.unwrap();
    assert_eq!((epoch, not_in_map), (Epoch(known.0 + 1), vec![stale]));
    let map = fetch_cluster_map(&transport, NodeId(1), known).await.unwrap().unwrap();
    let backends: BTreeMap<_, _> = map.backends.iter().map(|b| (b.id, (b.node, b.name.as_str()))).collect();
    assert_eq!(backends, BTreeMap::from([(fresh, (joined.credentials.identity().node, "d1"))]));
    let again = announce(&transport, NodeId(1), &announcement).await.unwrap();
    assert_eq!(again.0, epoch, "what changes nothing makes no epoch");

    let mut many = announcement.clone();
    many.backends = vec![(fresh, "disk:/a".to_owned(), false); holdfast_proto::membership::BACKENDS_MAX + 1];
    assert_eq!(announce(&transport, NodeId(1), &many).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_renews_itself_and_is_kept_before_it_is_used() {
    let world = World::founded().await;
    let credentials = world.found(1).await.unwrap();
    let first_end = credentials.validity().not_after_ms;
    let live = LiveCredentials::new(credentials).unwrap();
    let kept = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let keep = {
        let (kept, live) = (kept.clone(), live.clone());
        move |new: &NodeCredentials| {
            assert_ne!(live.credentials().certificate_pem(), new.certificate_pem(), "in use before it is kept");
            kept.lock().push(new.validity().not_after_ms);
            Ok(())
        }
    };
    world.now.fetch_add(60 * DAY, Ordering::SeqCst);
    let renewals = Renewals {
        live: live.clone(),
        transport: Arc::new(world.node(&live.identity())),
        coordinators: Box::new(|| vec![NodeId(1)]),
        keep: Box::new(keep),
        clock: clock(&world.now),
        seed: 1,
    };
    let running = tokio::spawn(renewals.run());
    let is_renewed = async {
        while live.credentials().validity().not_after_ms == first_end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), is_renewed).await.expect("renewed");
    running.abort();
    assert_eq!(*kept.lock(), [first_end + 60 * DAY]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_what_was_asked_for_is_refused() {
    /// Answers with the certificate of somebody else.
    struct Liar(Frame);
    #[async_trait]
    impl StrangerDial for Liar {
        async fn open(
            &self,
            _: SocketAddr,
            _: &JoinToken,
            _: Rpc,
            _: Frame,
            _: CallOptions,
        ) -> Result<Box<dyn Channel>, TransportError> {
            let (out, _) = mpsc::channel(1);
            let (_, inward) = mpsc::channel(1);
            Ok(Box::new(End { out, inward, first: Some(self.0.clone()) }))
        }
    }
    let world = World::founded().await;
    let token = world.token(1, TokenScope::default()).await;
    let mut asking = request(&token, START);
    asking.request = NodeKey::from_seed(&[50; 32]).unwrap().request().unwrap();
    let first = Frame::head_only(asking.encode_to_vec().into());
    let reply = world.dial(0).open_call(Rpc::Join, first).await.receive().await.unwrap().unwrap();
    let Some(CertificateOutcome::Granted(granted)) = CertificateReply::decode(reply.head.clone()).unwrap().outcome
    else {
        panic!("not granted")
    };
    assert_eq!(identity_of(&granted.certificate).unwrap().region, "eu");
    for (key, region) in [(51, "eu"), (50, "us")] {
        let key = NodeKey::from_seed(&[key; 32]).unwrap();
        let mut options = options(&token, &key, clock(&world.now));
        (options.region, options.zone) = (region.to_owned(), "b".to_owned());
        let joining = client::join_at(&Liar(reply.clone()), token.addresses[0], &options).await;
        assert!(joining.is_err(), "{joining:?}");
    }
    let key = NodeKey::from_seed(&[50; 32]).unwrap();
    let mut options = options(&token, &key, clock(&world.now));
    (options.region, options.zone) = ("eu".to_owned(), "b".to_owned());
    assert!(client::join_at(&Liar(reply), token.addresses[0], &options).await.is_ok());
}
