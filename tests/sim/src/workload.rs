//! Clients that put, get, delete and list keys through whichever coordinator they like, one request at a time each, and
//! the history of every key.
//!
//! A key is given up after a while and a new one taken, so that its history stays short enough to be searched.

use crate::bug::Bug;
use crate::checks::Checks;
use crate::cluster::Cluster;
use crate::content::{UNIQUE_BYTES_MIN, Written};
use crate::linearizability::{Answer, Event, Operation, Value, Verdict, check};
use crate::node::Parts;
use crate::requests::{Outcome, Remembered, Requests};
use crate::world::World;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Keys in use at a time.
const KEYS: u64 = 8;
/// Operations of a key before another takes its place.
const KEY_OPERATIONS: usize = 48;
/// A client gives up after so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Positions of a history that are looked at at most.
const SEARCH_MAX: usize = 300_000;

/// All clients.
pub struct Workload {
    /// Where they ask.
    pub cluster: Arc<Cluster>,
    /// What they have sent.
    pub written: Arc<Written>,
    /// What is held against what they are told.
    pub checks: Arc<Checks>,
    bug: Option<Bug>,
    state: Mutex<State>,
    /// Only with a bug: what each coordinator remembers.
    remembered: Mutex<BTreeMap<u64, Arc<Mutex<Remembered>>>>,
}

#[derive(Default)]
struct State {
    histories: BTreeMap<String, Vec<Event>>,
    /// How often the key of each place was replaced.
    generations: BTreeMap<u64, u64>,
}

impl Workload {
    /// Clients of a cluster.
    pub fn new(cluster: Arc<Cluster>, checks: Arc<Checks>, bug: Option<Bug>) -> Arc<Self> {
        let (written, state, remembered) = (Arc::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { cluster, written, checks, bug, state, remembered })
    }

    fn world(&self) -> &Arc<World> {
        &self.cluster.world
    }

    /// One client: asks, and rests up to `rest`, until told to stop.
    pub async fn client(self: Arc<Self>, rest: Duration, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = self.world().between(Duration::ZERO, rest);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
            let up = self.cluster.coordinators();
            if up.is_empty() {
                continue;
            }
            let parts = up[self.world().index(up.len())].clone();
            match self.world().pick(0..100) {
                0..4 => self.list(parts).await,
                _ => {
                    let (key, operation) = self.choose();
                    self.ask(parts, &key, operation).await;
                }
            }
        }
    }

    /// A key in use, and what to ask of it.
    fn choose(&self) -> (String, Operation) {
        let world = self.world();
        let place = world.pick(0..KEYS);
        let key = self.key(place);
        let last = {
            let state = self.state.lock();
            let history = state.histories.get(&key);
            let written = |event: &Event| match event.operation {
                Operation::Put(value) | Operation::PutIfAbsent(value) | Operation::PutIfMatch { value, .. } => {
                    Some(value)
                }
                Operation::Delete | Operation::Get => None,
            };
            history.and_then(|history| history.iter().rev().find_map(written))
        };
        let operation = match world.pick(0..100) {
            0..40 => Operation::Get,
            40..62 => Operation::Put(self.new_value()),
            62..74 => Operation::PutIfAbsent(self.new_value()),
            74..86 => match last {
                // Of an empty object the ETag says nothing.
                Some(expected) if self.written.length(expected) > 0 => {
                    Operation::PutIfMatch { expected, value: self.new_value() }
                }
                _ => Operation::Put(self.new_value()),
            },
            _ => Operation::Delete,
        };
        (key, operation)
    }

    fn new_value(&self) -> Value {
        const INLINE: u64 = 16 << 10;
        let world = self.world();
        let length = match world.pick(0..100) {
            0..5 => 0,
            5..10 => UNIQUE_BYTES_MIN,
            10..30 => world.pick(UNIQUE_BYTES_MIN..2000),
            30..40 => world.pick(INLINE - 2..INLINE + 1),
            40..55 => world.pick(INLINE + 1..INLINE + 20),
            55..90 => world.pick(INLINE..40 << 10),
            _ => world.pick(40 << 10..120 << 10),
        };
        self.written.add(length)
    }

    fn key(&self, place: u64) -> String {
        let mut state = self.state.lock();
        let generation = state.generations.entry(place).or_default();
        let key = name(place, *generation);
        if state.histories.get(&key).is_none_or(|history| history.len() < KEY_OPERATIONS) {
            return key;
        }
        let generation = state.generations.entry(place).or_default();
        *generation += 1;
        name(place, *generation)
    }

    fn requests(&self, parts: Parts) -> Requests {
        let node = parts.node.0;
        let remembered = self.remembered.lock().entry(node).or_default().clone();
        let (world, written) = (self.world().clone(), self.written.clone());
        Requests { parts, world, written, bug: self.bug, remembered }
    }

    /// Sends one request and takes down what came of it.
    pub async fn ask(&self, parts: Parts, key: &str, operation: Operation) -> Outcome {
        let world = self.world().clone();
        let (life, damage) = (parts.life.clone(), self.checks.damage_count());
        let requests = self.requests(parts);
        let invoked = world.now_us();
        let outcome = tokio::select! {
            biased;
            () = life.cancelled() => Outcome::Unknown("the process ended".to_owned()),
            asked = timeout(PATIENCE, requests.perform(key, operation)) => {
                asked.unwrap_or_else(|_| Outcome::Unknown("no answer in time".to_owned()))
            }
        };
        world.count_operation();
        let returned = world.now_us();
        let answer = match &outcome {
            Outcome::Done(_) => Some(Answer::Done),
            Outcome::Refused => Some(Answer::Refused),
            Outcome::Found(value) => Some(Answer::Found(*value)),
            Outcome::Unknown(_) if operation != Operation::Get => Some(Answer::Unknown),
            Outcome::Unknown(_) | Outcome::Failed(_) => None,
        };
        world.note(format_args!("{key} {operation:?} {}", told(&outcome)));
        if let Outcome::Done(Some(version)) = &outcome {
            self.checks.acknowledged(key, version, damage);
        }
        if let Some(answer) = answer {
            self.take_down(key, Event { invoked, returned, operation, answer });
        }
        outcome
    }

    fn take_down(&self, key: &str, event: Event) {
        self.state.lock().histories.entry(key.to_owned()).or_default().push(event);
    }

    /// Lists everything: for every key in use that is as good as a read of it.
    async fn list(&self, parts: Parts) {
        let world = self.world().clone();
        let life = parts.life.clone();
        let requests = self.requests(parts);
        let keys: Vec<String> = (0..KEYS).map(|place| self.key(place)).collect();
        let invoked = world.now_us();
        let listed = tokio::select! {
            biased;
            () = life.cancelled() => return,
            listed = timeout(PATIENCE, requests.list("k")) => listed,
        };
        world.count_operation();
        let Ok(Ok(listed)) = listed else { return };
        let returned = world.now_us();
        world.note(format_args!("list {} keys", listed.len()));
        for key in keys {
            let found = match listed.get(&key) {
                // Empty: it is there, and nobody knows of which write.
                Some(None) => continue,
                Some(value) => *value,
                None => None,
            };
            let (operation, answer) = (Operation::Get, Answer::Found(found));
            self.take_down(&key, Event { invoked, returned, operation, answer });
        }
    }

    /// Reads every key that was ever used, from one coordinator. `false` if one could not be read.
    pub async fn read_all(&self, parts: &Parts) -> bool {
        let keys: Vec<String> = self.state.lock().histories.keys().cloned().collect();
        for key in keys {
            let outcome = self.ask(parts.clone(), &key, Operation::Get).await;
            if !matches!(outcome, Outcome::Found(_)) {
                self.world().note(format_args!("{key} could not be read: {}", told(&outcome)));
                return false;
            }
        }
        true
    }

    /// Puts, reads and deletes one key. Says what failed.
    pub async fn try_everything(&self, parts: &Parts) -> Result<(), String> {
        let key = format!("probe-{}", parts.node);
        let operations = |length| [Operation::Put(self.written.add(length)), Operation::Get, Operation::Delete];
        for operation in operations(10).into_iter().chain(operations(50_000)) {
            let outcome = self.ask(parts.clone(), &key, operation).await;
            if !matches!(outcome, Outcome::Done(_) | Outcome::Found(_)) {
                return Err(format!("{operation:?} through {}: {}", parts.node, told(&outcome)));
            }
        }
        Ok(())
    }

    /// Checks the history of every key. Returns how many keys there were, and how many could not be decided.
    pub fn check_histories(&self) -> (u64, u64) {
        let (mut keys, mut undecided) = (0, 0);
        for (key, history) in &self.state.lock().histories {
            keys += 1;
            match check(history, SEARCH_MAX) {
                Verdict::Linearizable => {}
                Verdict::Undecided => undecided += 1,
                Verdict::Violated => {
                    let count = history.len();
                    self.world().violation(format_args!("{key}: its {count} answers are not linearizable"));
                    for event in history {
                        self.world().note(format_args!("{key} {event:?}"));
                    }
                }
            }
        }
        (keys, undecided)
    }
}

fn name(place: u64, generation: u64) -> String {
    format!("k{place}-{generation:03}")
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(_) => "done".to_owned(),
        Outcome::Refused => "refused".to_owned(),
        Outcome::Found(value) => format!("found {value:?}"),
        Outcome::Failed(why) => format!("failed: {why}"),
        Outcome::Unknown(why) => format!("unknown: {why}"),
    }
}
