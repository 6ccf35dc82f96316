//! Promise: kill -9 at any moment loses nothing acknowledged, and what was not acknowledged is whole or absent.

use aws_sdk_s3::primitives::ByteStream;
use holdfast_tests::clients::aws_client;
use holdfast_tests::content::bytes_of;
use holdfast_tests::server::Server;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Kills in one run; each under load of `WRITERS` writers for 150-400 ms.
const KILLS: u64 = 50;
const WRITERS: u64 = 8;
const SIZES: [usize; 6] = [100, 4_096, 20_000, 300_000, 1 << 20, 3_000_000];

/// What a key may hold: the last acknowledged content, or any later one whose answer never came.
#[derive(Default, Clone)]
struct Expected {
    acknowledged: Option<(u64, usize)>,
    unknown: Vec<(u64, usize)>,
}

#[test]
fn nothing_acknowledged_is_lost_over_fifty_kills() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut server = Server::start();
    let expected: Arc<Mutex<BTreeMap<String, Expected>>> = Arc::default();
    let seeds = Arc::new(AtomicU64::new(1));
    runtime.block_on(async { aws_client(&server.endpoint()).create_bucket().bucket("kill").send().await.unwrap() });

    for round in 0..KILLS {
        let endpoint = server.endpoint();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (client, expected, seeds) = (aws_client(&endpoint), expected.clone(), seeds.clone());
                runtime.spawn(async move {
                    loop {
                        let seed = seeds.fetch_add(1, Ordering::Relaxed);
                        let size = SIZES[(seed % SIZES.len() as u64) as usize];
                        let key = format!("k{}-{}", writer, seed % 5);
                        let state = (seed, size);
                        // Recorded as possible before it is sent: a kill may leave it done but unanswered.
                        expected.lock().unwrap().entry(key.clone()).or_default().unknown.push(state);
                        let body = ByteStream::from(bytes_of(seed, size));
                        match client.put_object().bucket("kill").key(&key).body(body).send().await {
                            Ok(_) => {
                                let mut expected = expected.lock().unwrap();
                                let entry = expected.get_mut(&key).unwrap();
                                *entry = Expected { acknowledged: Some(state), unknown: Vec::new() };
                            }
                            Err(_) => return,
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(150 + (round * 37) % 250));
        server.kill();
        for writer in writers {
            runtime.block_on(writer).unwrap();
        }
        server.restart();
        // A full check every tenth time, and at the end; a check of the keys just written otherwise.
        let full = round % 10 == 9 || round + 1 == KILLS;
        runtime.block_on(verify(&aws_client(&server.endpoint()), &expected, full, round));
    }
    let written = seeds.load(Ordering::Relaxed);
    assert!(written > KILLS * WRITERS, "the load did too little to prove anything: {written} writes");
}

async fn verify(client: &aws_sdk_s3::Client, expected: &Mutex<BTreeMap<String, Expected>>, full: bool, round: u64) {
    let keys: Vec<(String, Expected)> = expected.lock().unwrap().iter().map(|(k, e)| (k.clone(), e.clone())).collect();
    for (key, entry) in keys {
        if !full && entry.unknown.is_empty() {
            continue;
        }
        let found = match client.get_object().bucket("kill").key(&key).send().await {
            Ok(answer) => Some(answer.body.collect().await.expect("a whole body").into_bytes()),
            Err(e) => {
                let missing = e.as_service_error().is_some_and(|s| s.is_no_such_key());
                assert!(missing, "round {round}, {key}: {e:?}");
                None
            }
        };
        let matches = |state: &(u64, usize)| found.as_deref() == Some(bytes_of(state.0, state.1).as_slice());
        let settled = match (&found, &entry.acknowledged) {
            (None, acknowledged) => {
                assert!(acknowledged.is_none(), "round {round}: acknowledged {key} is gone");
                None
            }
            (Some(body), acknowledged) => {
                let state = entry.unknown.iter().chain(acknowledged).find(|s| matches(s)).copied();
                assert!(state.is_some(), "round {round}: {key} has {} bytes that were never written so", body.len());
                state
            }
        };
        // What was found stands from here on.
        expected.lock().unwrap().insert(key, Expected { acknowledged: settled, unknown: Vec::new() });
    }
}
