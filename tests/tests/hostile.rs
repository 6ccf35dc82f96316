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

/// Sends a head a byte at a time; how long the server put up with it.
fn slow_head(address: std::net::SocketAddr) -> Duration {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_millis(400))).expect("set a time limit");
    let started = Instant::now();
    for byte in b"GET / HTTP/1.1\r\nx-slow: ".iter().chain(std::iter::repeat(&b'a')) {
        let closed = stream.write_all(&[*byte]).is_err() || matches!(stream.read(&mut [0; 64]), Ok(0));
        if closed || started.elapsed() > SLOW_HEAD_LIMIT {
            break;
        }
    }
    started.elapsed()
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
        let slow = scope.spawn(|| slow_head(world.server.s3));
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
        let patience = slow.join().expect("the slow one ends");
        if patience >= SLOW_HEAD_LIMIT {
            wrong.push("a head sent a byte at a time was let go on".to_owned());
        }
    });
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} cases", cases.len());

    let (_, after) = world.server.memory();
    assert!(after <= before + GROWTH_MAX, "grew from {} to {} MiB", before / MIB, after / MIB);
    still_serves(&world);
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
