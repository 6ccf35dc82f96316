//! The judgement: each state's way in and out, no flapping under jitter, no death by a single observer, and an end to
//! every suspicion.

use super::machine::*;
use holdfast_proto::NodeId;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const PING: Duration = Duration::from_millis(500);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Node 1 among coordinators 1..=coordinators and storage nodes after them.
fn machine(coordinators: u64, nodes: u64, now: Instant) -> HealthMachine {
    let mut machine = HealthMachine::new(A);
    let members: Vec<Member> =
        (1..=nodes).map(|node| Member { node: NodeId(node), is_observer: node <= coordinators }).collect();
    machine.handle_members(&members, now);
    machine
}

fn says(machine: &mut HealthMachine, observer: NodeId, suspects: &[NodeId], now: Instant) {
    machine.handle_opinions(observer, suspects.iter().copied().collect(), now);
}

/// Pings for `span`: `answers(node)` says who does. Observers in `witnesses` share what they think each time.
fn run(
    machine: &mut HealthMachine,
    start: Instant,
    span: Duration,
    answers: impl Fn(NodeId) -> bool,
    witnesses: &[(NodeId, &[NodeId])],
) -> Instant {
    let mut now = start;
    while now < start + span {
        now += PING;
        let nodes: Vec<NodeId> = machine.states().into_keys().collect();
        for node in nodes {
            if answers(node) {
                machine.handle_beat(node, now);
            } else {
                machine.handle_miss(node, None, now);
            }
        }
        for (observer, suspects) in witnesses {
            says(machine, *observer, suspects, now);
        }
        machine.handle_tick(now);
    }
    now
}

fn transitions(machine: &mut HealthMachine) -> Vec<(NodeId, NodeState)> {
    std::iter::from_fn(|| machine.poll_transition()).map(|change| (change.node, change.to)).collect()
}

#[test]
fn a_node_dies_and_comes_back_through_every_state() {
    let start = Instant::now();
    let mut machine = machine(3, 3, start);
    let now = run(&mut machine, start, ms(3000), |_| true, &[]);
    let now = run(&mut machine, now, ms(2000), |node| node != B, &[(C, &[])]);
    assert_eq!(machine.state(B), NodeState::Suspect);
    assert_eq!(machine.suspects(), BTreeSet::from([B]));
    let now = run(&mut machine, now, ms(20_000), |node| node != B, &[(C, &[])]);
    assert_eq!(machine.state(B), NodeState::Suspect, "nobody else says so");
    let now = run(&mut machine, now, ms(500), |node| node != B, &[(C, &[B])]);
    assert_eq!(machine.state(B), NodeState::Lost);
    let now = run(&mut machine, now, ms(1000), |_| true, &[]);
    assert_eq!(machine.state(B), NodeState::Lost, "two answers are not enough");
    let now = run(&mut machine, now, ms(500), |_| true, &[]);
    assert_eq!(machine.state(B), NodeState::Returned);
    run(&mut machine, now, PROVING, |_| true, &[]);
    assert_eq!(machine.state(B), NodeState::Up);
    let states = [NodeState::Suspect, NodeState::Lost, NodeState::Returned, NodeState::Up];
    assert_eq!(transitions(&mut machine), states.map(|state| (B, state)));
}

#[test]
fn a_killed_node_is_suspect_within_two_seconds_and_after_three_broken_calls_at_once() {
    let start = Instant::now();
    let mut silent = machine(3, 3, start);
    let now = run(&mut silent, start, ms(1500), |node| node != B, &[]);
    assert_eq!(silent.state(B), NodeState::Up);
    run(&mut silent, now, ms(500), |node| node != B, &[]);
    assert_eq!(silent.state(B), NodeState::Suspect);
    let mut broken = machine(3, 3, start);
    for (number, expected) in [NodeState::Up, NodeState::Up, NodeState::Suspect].into_iter().enumerate() {
        broken.handle_signal(B, Signal::Broken, start + ms(number as u64));
        assert_eq!(broken.state(B), expected, "call {number}");
    }
    let mut mixed = machine(3, 3, start);
    for number in 0..50 {
        let signal = if number % 3 == 2 { Signal::Answered } else { Signal::Broken };
        mixed.handle_signal(B, signal, start + ms(number));
    }
    assert_eq!(mixed.state(B), NodeState::Up);
}

/// Who must agree, by how many coordinators there are.
#[test]
fn what_makes_a_node_lost_depends_on_who_there_is_to_ask() {
    let start = Instant::now();
    let minute = Duration::from_secs(60);
    let lost_after = |coordinators: u64, nodes: u64, witnesses: &[(NodeId, &[NodeId])], dead: &[NodeId]| {
        let mut machine = machine(coordinators, nodes, start);
        run(&mut machine, start, minute, |node| !dead.contains(&node), witnesses);
        machine.state(dead[0])
    };
    // Two nodes: nobody to ask.
    assert_eq!(lost_after(2, 2, &[], &[B]), NodeState::Lost);
    assert_eq!(lost_after(1, 3, &[], &[C]), NodeState::Lost);
    // Two coordinators, one dead: nobody left to ask about it.
    assert_eq!(lost_after(2, 3, &[], &[B]), NodeState::Lost);
    // The other coordinator reaches the storage node: a broken link, no death.
    assert_eq!(lost_after(2, 3, &[(B, &[])], &[C]), NodeState::Suspect);
    assert_eq!(lost_after(2, 3, &[(B, &[C])], &[C]), NodeState::Lost);
    // Cut off from all: the one who is cut off declares nothing.
    assert_eq!(lost_after(3, 5, &[], &[B, C, NodeId(4), NodeId(5)]), NodeState::Suspect);
    // What a node says of itself does not count.
    assert_eq!(lost_after(3, 3, &[(B, &[B])], &[B]), NodeState::Suspect);
}

#[test]
fn old_opinions_and_those_of_nobody_do_not_count() {
    let start = Instant::now();
    let mut machine = machine(3, 4, start);
    says(&mut machine, C, &[B], start);
    let now = run(&mut machine, start, ms(20_000), |node| node != B, &[]);
    assert_eq!(machine.state(B), NodeState::Suspect, "said long ago");
    says(&mut machine, NodeId(4), &[B], now);
    assert_eq!(machine.state(B), NodeState::Suspect, "a storage node does not observe");
    says(&mut machine, NodeId(77), &[B], now);
    assert_eq!(machine.state(B), NodeState::Suspect, "not a member");
    says(&mut machine, C, &[B], now);
    assert_eq!(machine.state(B), NodeState::Lost);
}

#[test]
fn members_come_and_go() {
    let start = Instant::now();
    let mut machine = machine(3, 3, start);
    assert_eq!((machine.state(A), machine.state(NodeId(9))), (NodeState::Up, NodeState::Lost));
    run(&mut machine, start, ms(5000), |node| node != B, &[]);
    machine.handle_members(&[Member { node: C, is_observer: true }], start + ms(5000));
    assert_eq!(machine.states().into_keys().collect::<Vec<_>>(), [C]);
    machine.handle_beat(B, start + ms(5001));
    assert_eq!(machine.state(B), NodeState::Lost, "no member");
}

proptest! {
    /// Answers that come late or get lost now and then, but never are away for two seconds: nothing changes, ever.
    #[test]
    fn no_flapping_under_jitter(delays in prop::collection::vec((0u64..1400, prop::bool::weighted(0.3)), 200)) {
        let start = Instant::now();
        let mut machine = machine(3, 3, start);
        let mut heard = start;
        let mut now = start;
        for (delay, is_lost) in delays {
            // The next ping is answered `delay` late; a loss is only made up while it stays within the bound.
            let at = now + PING + ms(delay / 4);
            let may_be_lost = at + PING + ms(1400 / 4) < heard + SUSPECT_AFTER;
            if is_lost && may_be_lost {
                machine.handle_miss(B, None, at);
            } else {
                machine.handle_beat(B, at);
                heard = at;
            }
            machine.handle_beat(C, at);
            says(&mut machine, C, &[B], at);
            machine.handle_tick(at);
            now = at;
            prop_assert_eq!(machine.poll_transition(), None);
        }
    }

    /// Whatever happened before: once every node answers, all are up in the end, and stay so.
    #[test]
    fn all_come_back(events in prop::collection::vec((0u8..5, 2u64..5, 0u64..3000), 0..200)) {
        let start = Instant::now();
        let mut machine = machine(3, 4, start);
        let mut now = start;
        for (kind, node, pause) in events {
            now += ms(pause);
            let node = NodeId(node);
            match kind {
                0 => machine.handle_beat(node, now),
                1 => machine.handle_miss(node, Some(Signal::Broken), now),
                2 => machine.handle_signal(node, Signal::Broken, now),
                3 => says(&mut machine, node, &[B, C, NodeId(4)], now),
                _ => machine.handle_tick(now),
            }
        }
        let now = run(&mut machine, now, PROVING + ms(5000), |_| true, &[]);
        prop_assert!(machine.states().values().all(|state| *state == NodeState::Up), "{:?}", machine.states());
        transitions(&mut machine);
        run(&mut machine, now, ms(60_000), |_| true, &[(B, &[C]), (C, &[B])]);
        prop_assert_eq!(machine.poll_transition(), None);
    }

    /// No node is lost while this observer or every other one hears it.
    #[test]
    fn never_lost_by_one_observer(
        steps in prop::collection::vec((any::<bool>(), any::<bool>(), 100u64..1500), 1..300),
        own_is_deaf in any::<bool>(),
    ) {
        let start = Instant::now();
        let mut machine = machine(3, 3, start);
        let mut now = start;
        for (hears, witness, pause) in steps {
            now += ms(pause);
            // Either this observer is deaf and the other never agrees, or the other always accuses and this one hears.
            if own_is_deaf && !hears {
                machine.handle_miss(B, None, now);
            } else {
                machine.handle_beat(B, now);
            }
            machine.handle_beat(C, now);
            if own_is_deaf {
                says(&mut machine, C, &[], now);
            } else if witness {
                says(&mut machine, C, &[B], now);
            }
            machine.handle_tick(now);
            prop_assert_ne!(machine.state(B), NodeState::Lost);
        }
    }

    /// A node that stays dead is lost in bounded time when another observer agrees.
    #[test]
    fn the_dead_are_lost_in_the_end(before in prop::collection::vec((any::<bool>(), 0u64..900), 0..50)) {
        let start = Instant::now();
        let mut machine = machine(3, 3, start);
        let mut now = start;
        for (answered, pause) in before {
            now += ms(pause);
            if answered { machine.handle_beat(B, now) } else { machine.handle_miss(B, None, now) }
        }
        run(&mut machine, now, SUSPECT_AFTER + LOST_AFTER + ms(1000), |node| node != B, &[(C, &[B])]);
        prop_assert_eq!(machine.state(B), NodeState::Lost);
    }
}
