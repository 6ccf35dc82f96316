//! Promise: malformed, hostile and oversized requests get the right S3 error with a request id, in bounded time and
//! memory, and reach nothing they may not.
//!
//! A battery of requests as tables, one case a line, in `hostile/`, sent to a real server as bytes. The attacker has a
//! key and a bucket; the vault is somebody else's.

#[path = "hostile/bodies.rs"]
mod bodies;
#[path = "hostile/case.rs"]
mod case;
#[path = "hostile/documents.rs"]
mod documents;
#[path = "hostile/forms.rs"]
mod forms;
#[path = "hostile/http.rs"]
mod http;
#[path = "hostile/signatures.rs"]
mod signatures;
#[path = "hostile/targets.rs"]
mod targets;

use case::{SECRET, SMALL, World};
use holdfast_tests::server::raw_request;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Resident memory the whole battery may add: far below the least of the sizes that requests in it claim to have.
const GROWTH_MAX: u64 = 96 * MIB;
/// Longest a server lets a head take (20 s), and some.
const SLOW_HEAD_LIMIT: Duration = Duration::from_secs(40);
/// Cases under way at once.
const SENDERS: usize = 4;

/// Heads that never end: what is sent first, and what again and again after it.
const SLOW_HEADS: [(&str, &[u8], &[u8]); 3] = [
    ("a head sent a byte at a time", b"GET / HTTP/1.1\r\nx-slow: ", b"a"),
    ("a head that stops", b"GET / HTTP/1.1\r\nhost", b""),
    ("empty lines", b"\r\n", b"\r\n"),
];

/// Sends a head that never ends; whether the server put an end to it.
fn is_cut_off(address: std::net::SocketAddr, first: &[u8], again: &[u8]) -> bool {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_millis(400))).expect("set a time limit");
    let started = Instant::now();
    let mut next = first;
    while started.elapsed() < SLOW_HEAD_LIMIT {
        if stream.write_all(next).is_err() || matches!(stream.read(&mut [0; 64]), Ok(0)) {
            return true;
        }
        next = again;
    }
    false
}

#[test]
fn hostile_requests_are_refused_and_reach_nothing() {
    let world = World::new();
    let cases: Vec<_> = [
        signatures::cases(&world),
        bodies::cases(&world),
        targets::cases(&world),
        documents::cases(&world),
        forms::cases(&world),
        http::cases(&world),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(cases.len() >= 100, "only {} cases", cases.len());
    let (_, before) = world.server.memory();
    let next = AtomicUsize::new(0);
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        let address = world.server.s3;
        let slow =
            SLOW_HEADS.map(|(name, first, again)| (name, scope.spawn(move || is_cut_off(address, first, again))));
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut wrong = Vec::new();
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        wrong.extend(world.check(case).err());
                    }
                    wrong
                })
            })
            .collect();
        wrong.extend(senders.into_iter().flat_map(|sender| sender.join().expect("a sender ends")));
        for (name, slow) in slow {
            if !slow.join().expect("a slow one ends") {
                wrong.push(format!("{name}: was let go on"));
            }
        }
    });
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} cases", cases.len());

    let (_, after) = world.server.memory();
    assert!(after <= before + GROWTH_MAX, "grew from {} to {} MiB", before / MIB, after / MIB);
    still_serves(&world);
}

/// A client that waits for `100 Continue` and is refused does not send its body, and some go on with their next
/// request: its first bytes must not be read as that body.
#[test]
fn a_refused_expectation_ends_the_connection() {
    let world = World::new();
    let head =
        format!("PUT /vault/x HTTP/1.1\r\nhost: {}\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n", world.host);
    let next = world.ask("GET", "/hostile/small").sign();
    let answer = raw_request(world.server.s3, &[head.into_bytes(), next].concat()).expect("an answer");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 403"), "{text}");
    assert!(text.contains("\r\nconnection: close\r\n"), "{text}");
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
}

/// No bytes are asked for with `100 Continue`, so the answer comes at once. botocore reads the next answer on such a
/// connection with the status of this one, and waits for ever for its end.
#[test]
fn an_expectation_without_a_body_ends_the_connection() {
    let world = World::new();
    let put = |body: &str| world.ask("PUT", "/hostile/small").header("expect", "100-continue").body(body).sign();
    let next = world.ask("GET", "/hostile/small").sign();
    let answer = raw_request(world.server.s3, &[put(""), next].concat()).expect("an answer");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("\r\nconnection: close\r\n"), "{text}");
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
}

/// The vault holds what it held, and the attacker's bucket only what was let in.
fn still_serves(world: &World) {
    let text = |request: Vec<u8>| {
        let answer = world.send(&request).expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    assert_eq!(text(world.vault("GET", "/vault/secret").sign()), SECRET);
    assert_eq!(text(world.ask("GET", "/hostile/small").sign()), SMALL);
    let keys = |list: &str| -> Vec<String> {
        let all = list.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        all.map(|(key, _)| key.to_owned()).collect()
    };
    assert_eq!(keys(&text(world.vault("GET", "/vault?list-type=2").sign())), ["secret"]);
    assert_eq!(keys(&text(world.vault("GET", "/vault?uploads").sign())), [""; 0]);
    let long = "k".repeat(1024);
    let let_in = ["chunks", "form/x", long.as_str(), "length", "small", "trailers"];
    assert_eq!(keys(&text(world.ask("GET", "/hostile?list-type=2").sign())), let_in);
    let buckets = text(world.ask("GET", "/").sign());
    assert_eq!(buckets.matches("<Name>").count(), 1, "{buckets}");
}
