//! Which nodes are alive: what this coordinator hears of them itself, and what the others say, come to one judgement.
//!
//! Pure: events and times in, transitions out.
//!
//!     handle_members    who there is            handle_beat / handle_miss   an answer to a ping, or none
//!     handle_signal     what other calls met    handle_opinions             what another coordinator thinks
//!     handle_tick       time passes             poll_transition             what changed
//!
//! States of a node:
//!
//!     Up -- silent, or calls break --> Suspect -- for long, and another observer agrees --> Lost
//!     Up <-- answers twice in a row -- Suspect                                               |
//!     Up <-- answered for a while -- Returned <-- answers thrice in a row -------------------+
//!
//! A suspect is avoided at once, which costs little when it is wrong. Lost is dear (moves and repair begin), so no
//! observer declares it alone: one that is cut off itself would declare all others. Where there is no third coordinator
//! to ask (a cluster of one or two), the own observation counts alone, after longer. Where there are others, but none
//! of them is heard, nothing is declared: then it is this node that is cut off, or a majority is gone.
//!
//! **Invariant:** a node is Lost only if this observer suspects it and, where another observer exists, one of them said so
//! within `OPINION_LIFE`. A node that goes on answering does not stay Suspect.

use holdfast_proto::NodeId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Silence that makes a node suspect: four missed pings, so that one lost packet or a pause of a second does not. With
/// the ping's period it bounds how long a write waits for a node that was killed (3 s in all).
pub const SUSPECT_AFTER: Duration = Duration::from_secs(2);
/// So many calls in a row that broke (not: that were late) make a node suspect without waiting for the silence.
pub const BROKEN_CALLS_MAX: u32 = 3;
/// A suspect that others suspect too is lost after so long.
pub const LOST_AFTER: Duration = Duration::from_secs(5);
/// Without another observer it takes so long: a restart of the process fits into it.
pub const LOST_ALONE_AFTER: Duration = Duration::from_secs(15);
/// What another observer said counts so long.
pub const OPINION_LIFE: Duration = Duration::from_secs(3);
/// Answers in a row that clear a suspect.
pub const CLEARING_BEATS: u32 = 2;
/// Answers in a row that bring a lost node back.
pub const RETURNING_BEATS: u32 = 3;
/// A node that returned is taken for well after so long without a miss.
pub const PROVING: Duration = Duration::from_secs(10);

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Answers.
    Up,
    /// Does not answer this observer: avoided.
    Suspect,
    /// Does not answer two observers.
    Lost,
    /// Was lost, answers again, and has to prove itself.
    Returned,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeTransition {
    /// Of which node.
    pub node: NodeId,
    /// Before.
    pub from: NodeState,
    /// Now.
    pub to: NodeState,
}

/// What a call that was made for other reasons met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It was answered.
    Answered,
    /// The connection broke, or could not be made.
    Broken,
}

/// A node to be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub node: NodeId,
    /// Whether it observes others itself: a coordinator.
    pub is_observer: bool,
}

/// The judgement of one coordinator.
pub struct HealthMachine {
    own: NodeId,
    members: BTreeMap<NodeId, Watched>,
    /// Whom each other observer suspects, and when it said so.
    opinions: BTreeMap<NodeId, (Instant, BTreeSet<NodeId>)>,
    transitions: VecDeque<NodeTransition>,
}

#[derive(Debug)]
struct Watched {
    is_observer: bool,
    state: NodeState,
    /// Since when it is in that state.
    since: Instant,
    last_heard: Instant,
    answers_in_a_row: u32,
    broken_in_a_row: u32,
}

impl HealthMachine {
    /// The judgement of node `own`, which knows nobody yet.
    pub fn new(own: NodeId) -> Self {
        Self { own, members: BTreeMap::new(), opinions: BTreeMap::new(), transitions: VecDeque::new() }
    }

    /// Who is to be watched from now on, besides this node itself. New ones are taken for up until they are silent.
    pub fn handle_members(&mut self, members: &[Member], now: Instant) {
        let is_member = |node: &NodeId| members.iter().any(|member| member.node == *node);
        self.members.retain(|node, _| is_member(node));
        self.opinions.retain(|node, _| is_member(node));
        for member in members.iter().filter(|member| member.node != self.own) {
            let fresh = || Watched {
                is_observer: member.is_observer,
                state: NodeState::Up,
                since: now,
                last_heard: now,
                answers_in_a_row: 0,
                broken_in_a_row: 0,
            };
            self.members.entry(member.node).or_insert_with(fresh).is_observer = member.is_observer;
        }
    }

    /// A ping was answered.
    pub fn handle_beat(&mut self, node: NodeId, now: Instant) {
        let Some(watched) = self.members.get_mut(&node) else { return };
        watched.last_heard = now;
        watched.answers_in_a_row = watched.answers_in_a_row.saturating_add(1);
        watched.broken_in_a_row = 0;
        self.judge(node, now);
    }

    /// A ping was not answered in time, or broke.
    pub fn handle_miss(&mut self, node: NodeId, signal: Option<Signal>, now: Instant) {
        let Some(watched) = self.members.get_mut(&node) else { return };
        watched.answers_in_a_row = 0;
        if signal == Some(Signal::Broken) {
            watched.broken_in_a_row = watched.broken_in_a_row.saturating_add(1);
        }
        if watched.state == NodeState::Returned {
            // It proves itself from the start.
            watched.since = now;
        }
        self.judge(node, now);
    }

    /// Another call met this. Answers keep a node from being suspected, but do not clear it: only pings do, which come at
    /// an even pace.
    pub fn handle_signal(&mut self, node: NodeId, signal: Signal, now: Instant) {
        let Some(watched) = self.members.get_mut(&node) else { return };
        match signal {
            Signal::Answered => {
                watched.last_heard = now;
                watched.broken_in_a_row = 0;
            }
            Signal::Broken => watched.broken_in_a_row = watched.broken_in_a_row.saturating_add(1),
        }
        self.judge(node, now);
    }

    /// Another coordinator says whom it suspects; all others it holds for up.
    pub fn handle_opinions(&mut self, observer: NodeId, suspects: BTreeSet<NodeId>, now: Instant) {
        if self.members.get(&observer).is_some_and(|watched| watched.is_observer) {
            self.opinions.insert(observer, (now, suspects));
            self.handle_tick(now);
        }
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Instant) {
        let nodes: Vec<NodeId> = self.members.keys().copied().collect();
        for node in nodes {
            self.judge(node, now);
        }
    }

    /// The next change, in the order they happened.
    pub fn poll_transition(&mut self) -> Option<NodeTransition> {
        self.transitions.pop_front()
    }

    /// How a node is; this node itself is up, one that is not a member is lost.
    pub fn state(&self, node: NodeId) -> NodeState {
        if node == self.own {
            return NodeState::Up;
        }
        self.members.get(&node).map_or(NodeState::Lost, |watched| watched.state)
    }

    /// All nodes watched and how they are.
    pub fn states(&self) -> BTreeMap<NodeId, NodeState> {
        self.members.iter().map(|(node, watched)| (*node, watched.state)).collect()
    }

    /// Whom this coordinator suspects by its own observation: what it tells the others. What others said is not in it, so
    /// that no rumour feeds itself.
    pub fn suspects(&self) -> BTreeSet<NodeId> {
        let is_suspect = |watched: &Watched| matches!(watched.state, NodeState::Suspect | NodeState::Lost);
        self.members.iter().filter(|(_, watched)| is_suspect(watched)).map(|(node, _)| *node).collect()
    }

    fn judge(&mut self, node: NodeId, now: Instant) {
        let has_witness = self.has_witness(node, now);
        let can_observe = |watched: &Watched| watched.is_observer && watched.state != NodeState::Lost;
        let has_other_observers = self.members.iter().any(|(other, watched)| *other != node && can_observe(watched));
        let Some(watched) = self.members.get_mut(&node) else { return };
        let silent_for = now.saturating_duration_since(watched.last_heard);
        let is_silent = silent_for >= SUSPECT_AFTER || watched.broken_in_a_row >= BROKEN_CALLS_MAX;
        let in_state_for = now.saturating_duration_since(watched.since);
        let next = match watched.state {
            NodeState::Up | NodeState::Returned if is_silent => NodeState::Suspect,
            NodeState::Returned if in_state_for >= PROVING => NodeState::Up,
            NodeState::Suspect if watched.answers_in_a_row >= CLEARING_BEATS => NodeState::Up,
            NodeState::Suspect if has_other_observers && has_witness && in_state_for >= LOST_AFTER => NodeState::Lost,
            NodeState::Suspect if !has_other_observers && in_state_for >= LOST_ALONE_AFTER => NodeState::Lost,
            NodeState::Lost if watched.answers_in_a_row >= RETURNING_BEATS => NodeState::Returned,
            same => same,
        };
        if next != watched.state {
            self.transitions.push_back(NodeTransition { node, from: watched.state, to: next });
            watched.state = next;
            watched.since = now;
            if next == NodeState::Suspect {
                watched.answers_in_a_row = 0;
            }
        }
    }

    /// Whether another observer, heard just now, suspects the node too.
    fn has_witness(&self, node: NodeId, now: Instant) -> bool {
        self.opinions.iter().any(|(observer, (said_at, suspects))| {
            let is_fresh = now.saturating_duration_since(*said_at) <= OPINION_LIFE;
            *observer != node && is_fresh && suspects.contains(&node)
        })
    }
}
