//! Several servers on loopback, joined to one store by tokens. No network is cut here: `cluster` does that.

use crate::server::Server;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Three UDP ports in a row that are free now, and not given to another test of this process.
pub fn cluster_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + u16::try_from(std::process::id() % 9_000).unwrap();
    for _ in 0..1_000 {
        let port = base + NEXT.fetch_add(3, Ordering::Relaxed);
        if (port..port + 3).all(|port| UdpSocket::bind(("127.0.0.1", port)).is_ok()) {
            return format!("127.0.0.1:{port}");
        }
    }
    panic!("no three free ports in a row above {base}");
}

/// A fresh join token.
pub fn token(of: &Server) -> String {
    let token = of.cli_json(&["token", "create"], &[0]);
    token["token"].as_str().expect("a token").to_owned()
}

/// Starts a server that joins `to` in a zone of its own.
pub fn join(to: &Server, zone: &str) -> Server {
    let (address, token) = (cluster_address(), token(to));
    Server::start_with(&["--zone", zone, "--cluster-listen", &address, "--join", &token])
}

/// Waits until `is_so` of `holdfast ARGS`.
pub fn wait_for(of: &Server, args: &[&str], what: &str, is_so: impl Fn(&serde_json::Value) -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let found = of.cli_json(args, &[0, 3, 4, 7]);
        if is_so(&found) {
            return;
        }
        assert!(Instant::now() < end, "not within two minutes: {what}; now {found}\n{}", of.log_tail());
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Waits until `promise` is kept in place: every placement group lies where the newest layout wants it. Until then the loss
/// of a node may take what was written by an older one.
pub fn settled(of: &Server, promise: &str) {
    wait_for(of, &["status"], "the promise", |status| status["promise"] == promise);
    let is_in_place = |layout: &serde_json::Value| layout["moving_slots"] == 0 && layout["proof"]["is_current"] == true;
    wait_for(of, &["layout", "show"], "no placement group is on its way", is_in_place);
}

/// How many of the listed nodes are up and vote.
pub fn up_and_voting(nodes: &serde_json::Value) -> usize {
    let nodes = nodes.as_array().expect("a list of nodes");
    nodes.iter().filter(|node| node["state"] == "up" && node["is_voter"] == true).count()
}
