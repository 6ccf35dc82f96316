//! Promise: what does not belong to the cluster gets nowhere and costs its clients nothing: noise on every port, a node of
//! another cluster at a member's address, a data directory put together from two, one whose metadata are gone.
//!
//! Elsewhere, without processes: tokens (`cluster.rs`), certificates and clocks (`trust/src/tests.rs`), wire versions and
//! every RPC by every caller (`transport/src/quic/tests/`).

use holdfast_tests::cluster::{Cluster, ClusterOptions, Node, Party};
use holdfast_tests::content::bytes_of;
use holdfast_tests::server::{http_status, metric, raw_request, remove_directory};
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PLANES: [&str; 3] = ["control", "consensus", "data"];
/// Datagrams for each port: more than the handshakes a listener takes at once, and more than a socket's queue.
const DATAGRAMS: u64 = 3_000;
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);

#[test]
fn strangers_and_mixed_up_directories_get_nowhere() {
    let options = ClusterOptions {
        nodes: 3,
        scheme: "1+2".to_owned(),
        first_disks: 3,
        disks: 1,
        promise: "zone:1+node:1",
        voters: 3,
    };
    let Some(mut cluster) = Cluster::prepare(options) else { return };
    let mut intruder = another_cluster(&cluster);
    cluster.start_all();
    noise(&mut cluster);
    intrusion(&mut cluster, &mut intruder);
    mixed_up(&mut cluster);
    forgotten(&mut cluster);
}

/// A cluster of its own, made on the host that node 2 will have.
fn another_cluster(cluster: &Cluster) -> Node {
    let address = cluster.network.address(Party::Host(2));
    let directory = cluster.directory().join("intruder");
    let mut intruder = Node::new(9, cluster.network.namespace(2), address, directory);
    let mut flags = vec!["--scheme".to_owned(), "1+1".to_owned(), "--cluster-listen".to_owned()];
    flags.push(intruder.cluster().to_string());
    for disk in [1, 2] {
        flags.extend(["--backend".to_owned(), format!("disk:{}", intruder.disk(disk).display())]);
    }
    intruder.spawn(&flags);
    intruder.wait_ready(Duration::from_secs(30));
    assert!(intruder.terminate().success());
    intruder
}

fn noise(cluster: &mut Cluster) {
    cluster.under_load("noise", |cluster, workload| {
        let began = workload.elapsed();
        let sender = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        for number in cluster.all() {
            let control = cluster.nodes[number].cluster();
            for plane in 0..3u16 {
                let port = SocketAddr::new(control.ip(), control.port() + plane);
                for seed in 0..DATAGRAMS {
                    let mut bytes = bytes_of(seed, usize::try_from(1 + seed % 1_400).unwrap());
                    // Each second one looks like the beginning of a QUIC handshake.
                    if seed % 2 == 0 && bytes.len() > 5 {
                        bytes[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
                    }
                    sender.send_to(&bytes, port).unwrap();
                }
            }
            for port in [cluster.nodes[number].s3(), cluster.nodes[number].admin()] {
                // Answered with an error or closed; what counts is that the others go on.
                let _ = raw_request(port, &bytes_of(7, 5_000));
            }
        }
        workload.must_resume("noise", "noise came to every port", &cluster.all(), began);
    });
    for number in cluster.all() {
        for plane in PLANES {
            let sample = format!("holdfast_transport_foreign_datagrams_total{{plane=\"{plane}\"}}");
            let counted = metric(cluster.nodes[number].admin(), &sample).unwrap_or(0.0);
            assert!(counted >= 500.0, "node {number} counted {counted} foreign datagrams on its {plane} plane");
        }
    }
}

/// A node of another cluster answers where node 2 did.
fn intrusion(cluster: &mut Cluster, intruder: &mut Node) {
    cluster.under_load("intrusion", |cluster, workload| {
        cluster.nodes[2].kill();
        // Clients would rightly be told that it knows no such bucket.
        cluster.network.cut(&[Party::Clients], &[Party::Host(2)]);
        intruder.spawn(&["--cluster-listen".to_owned(), intruder.cluster().to_string()]);
        let is_ready = || http_status(intruder.admin(), "/health/ready") == Some(200);
        let end = Instant::now() + Duration::from_secs(30);
        while !cluster.network.inside(2, is_ready) {
            assert!(Instant::now() < end, "the stranger does not start:\n{}", intruder.log_tail());
            sleep(Duration::from_millis(50));
        }
        let there_at = workload.elapsed();
        workload.must_resume("intrusion", "a stranger took a member's place", &[0, 1], there_at);
        sleep(Duration::from_secs(4));
        let nodes = cluster.cli_json(&["node", "list"]);
        let listed = nodes.as_array().unwrap();
        assert_eq!(listed.len(), 3, "{nodes}");
        assert!(["suspect", "lost"].contains(&listed[2]["state"].as_str().unwrap()), "{nodes}");
        intruder.kill();
        cluster.network.heal();
        cluster.restart(2);
    });
}

/// The certificate of one node beside the metadata of another.
fn mixed_up(cluster: &mut Cluster) {
    cluster.nodes[2].kill();
    let (own, kept) = (cluster.nodes[2].data().join("node"), cluster.nodes[2].data().join("node.kept"));
    fs::rename(&own, &kept).unwrap();
    let copied =
        std::process::Command::new("cp").arg("-a").arg(cluster.nodes[1].data().join("node")).arg(&own).status();
    assert!(copied.unwrap().success());
    cluster.spawn_again(2);
    let (status, log) = cluster.nodes[2].wait_refusal(REFUSAL_LIMIT);
    assert_eq!(status.code(), Some(6), "{log}");
    assert!(log.contains("HF1111") && log.contains("node 2") && log.contains("node 3"), "{log}");
    remove_directory(&own);
    fs::rename(&kept, &own).unwrap();
    cluster.restart(2);
    cluster.wait_whole();
}

/// A voter that has forgotten what it voted does not come back; a new node does, in its place.
fn forgotten(cluster: &mut Cluster) {
    cluster.nodes[2].kill();
    let (metadata, kept) = (cluster.nodes[2].data().join("metadata"), cluster.nodes[2].data().join("kept"));
    fs::rename(&metadata, &kept).unwrap();
    cluster.spawn_again(2);
    let (status, log) = cluster.nodes[2].wait_refusal(REFUSAL_LIMIT);
    assert_eq!(status.code(), Some(6), "{log}");
    assert!(log.contains("HF1111") && log.contains("--join with a new token"), "{log}");
    assert!(!metadata.exists(), "nothing was made");
    fs::rename(&kept, &metadata).unwrap();
    cluster.restart(2);
    cluster.wait_whole();
}
