//! Which nodes should take part in a group: voters, learners, leader. Pure: what is known goes in, at most one step comes
//! out, and the next look, after it, gives the next step.
//!
//! Every coordinator has a copy of the root group; a range is on its voters. Voters are 1 of fewer than three
//! coordinators (two would stop at the loss of either), else 3; 5 where there are as many, of the root group and of every
//! range whose objects are to outlive the loss of two domains at once; spread over regions, then zones. Nobody is made a
//! voter who has not caught up, no voter is dropped while its group would be left with less than a quorum of nodes that are
//! heard of, and a voter that is silent is replaced only after a while.

use super::consensus::{MemberChange, Members};
use holdfast_placement::{DomainKind, Promise, Scenario};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A voter is given up after so long: a restart takes seconds, and moving a copy costs its bytes.
pub(super) const STABILISATION: Duration = Duration::from_secs(30);
/// A node not heard of for so long is taken to be away: some heartbeats.
const SILENT: Duration = Duration::from_secs(3);
/// A learner this close to the leader's log has caught up: it will be level before a change of voters is decided.
const BEHIND_MAX: u64 = 256;

/// Most voters, where there are as many coordinators.
pub(super) const VOTERS_MAX: usize = 5;
/// Most voters of a range that is to outlive one node, zone or region.
const VOTERS_MAX_FOR_ONE: usize = 3;

/// A leader that has heard no quorum for so long has lost it: ten heartbeats.
const DEAF_AFTER: Duration = Duration::from_secs(3);

/// A coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) node: u64,
    pub(super) region: String,
    pub(super) zone: String,
    /// Whether it is to stay: not draining, not removed.
    pub(super) is_staying: bool,
    /// Whether it was not removed: until then it serves clients, and follows the cluster map by its copy of the root group.
    pub(super) is_member: bool,
}

/// What a group wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// At most so many voters.
    pub(super) voters_max: usize,
    /// Whether every coordinator gets a copy.
    pub(super) is_everywhere: bool,
    /// Its number, by which leaders are spread.
    pub(super) group: u32,
}

/// Most voters of a range whose objects carry this promise: an object that outlives two nodes is of no use while the
/// record that leads to it does not.
pub(super) fn range_voters_max(promise: &Promise) -> usize {
    let beyond_backends = |scenario: &Scenario| -> usize {
        scenario.counts().filter(|(kind, _)| *kind != DomainKind::Backend).map(|(_, count)| count).sum()
    };
    match promise.scenarios().iter().map(beyond_backends).max() {
        Some(2..) => VOTERS_MAX,
        _ => VOTERS_MAX_FOR_ONE,
    }
}

/// The next step of the group that `me` leads, if there is one.
pub(super) fn plan(candidates: &[Candidate], members: &Members, wish: Wish, me: u64) -> Option<MemberChange> {
    if !members.is_leader {
        return None;
    }
    if members.is_changing {
        // A change that a leader's end had cut in two: the voters last agreed on, or what was to come, as now planned.
        return Some(MemberChange::SetVoters(target_voters(candidates, members, wish)));
    }
    let target = target_voters(candidates, members, wish);
    if let Some(node) = missing_learner(candidates, members, wish, &target) {
        return Some(MemberChange::AddLearner(node));
    }
    if let Some(voters) = next_voters(members, &target)
        && keeps_quorum(members, &voters, me)
    {
        return Some(MemberChange::SetVoters(voters));
    }
    if let Some(node) = surplus_learner(candidates, members, wish, &target) {
        return Some(MemberChange::RemoveLearner(node));
    }
    next_leader(candidates, members, wish, me).map(MemberChange::Transfer)
}

fn silence(members: &Members, node: u64) -> Duration {
    members.silent.get(&node).copied().unwrap_or(Duration::ZERO)
}

fn is_heard(members: &Members, node: u64) -> bool {
    silence(members, node) < SILENT
}

/// Whether a leader has been left by its quorum without being told: messages from the others do not arrive. As long as its
/// own do, they would follow it for ever, and nothing could be ordered. Of whom it has not heard yet says nothing.
pub(super) fn is_deaf(members: &Members, me: u64) -> bool {
    let is_lost = |voter: &&u64| **voter != me && (DEAF_AFTER..Duration::MAX).contains(&silence(members, **voter));
    let lost = members.voters.iter().filter(is_lost).count();
    members.is_leader && members.voters.len() - lost <= members.voters.len() / 2
}

fn has_caught_up(members: &Members, node: u64) -> bool {
    is_heard(members, node) && members.behind.get(&node).is_some_and(|behind| *behind <= BEHIND_MAX)
}

/// How many voters there should be of `count` nodes.
pub(super) fn voter_count(count: usize, voters_max: usize) -> usize {
    match count.min(voters_max) {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    }
}

/// Who should vote: those who do, as long as they stay and have not been silent for long; then whoever adds most spread.
fn target_voters(candidates: &[Candidate], members: &Members, wish: Wish) -> BTreeSet<u64> {
    let is_fit = |candidate: &&Candidate| {
        let is_lost = silence(members, candidate.node) >= STABILISATION;
        candidate.is_staying && !(is_lost && members.voters.contains(&candidate.node)) && {
            // One that is no voter yet must be heard of, if it was ever given a copy.
            members.voters.contains(&candidate.node)
                || !members.learners.contains(&candidate.node)
                || is_heard(members, candidate.node)
        }
    };
    let fit: Vec<&Candidate> = candidates.iter().filter(is_fit).collect();
    let known: Vec<u64> = candidates.iter().map(|candidate| candidate.node).collect();
    // A voter nobody has told us of stays: it is not for this plan to say that it is gone.
    let unknown = members.voters.iter().filter(|voter| !known.contains(voter));
    let mut chosen: BTreeSet<u64> = unknown.copied().collect();
    let staying = candidates.iter().filter(|candidate| candidate.is_staying);
    let wanted = voter_count(staying.clone().count() + chosen.len(), wish.voters_max);
    let mut regions: BTreeMap<&str, usize> = BTreeMap::new();
    let mut zones: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut left = fit;
    while chosen.len() < wanted {
        let best = left.iter().enumerate().min_by_key(|(_, candidate)| {
            let zone = (candidate.region.as_str(), candidate.zone.as_str());
            let is_new = !members.voters.contains(&candidate.node);
            let is_bare = !members.learners.contains(&candidate.node);
            let in_region = regions.get(zone.0).copied().unwrap_or(0);
            (in_region, zones.get(&zone).copied().unwrap_or(0), is_new, is_bare, candidate.node)
        });
        let Some((at, _)) = best else { break };
        let best = left.remove(at);
        *regions.entry(&best.region).or_default() += 1;
        *zones.entry((&best.region, &best.zone)).or_default() += 1;
        chosen.insert(best.node);
    }
    // Where nobody can take the place of a lost voter, it keeps it: fewer voters would not survive more.
    let kept: Vec<u64> = staying.map(|c| c.node).filter(|node| members.voters.contains(node)).collect();
    for node in kept {
        if chosen.len() < wanted {
            chosen.insert(node);
        }
    }
    if chosen.is_empty() { members.voters.clone() } else { chosen }
}

fn missing_learner(candidates: &[Candidate], members: &Members, wish: Wish, target: &BTreeSet<u64>) -> Option<u64> {
    let is_member = |node: &u64| members.voters.contains(node) || members.learners.contains(node);
    let is_wanted = |c: &&Candidate| (c.is_member && wish.is_everywhere) || (c.is_staying && target.contains(&c.node));
    let wanted = candidates.iter().filter(is_wanted);
    wanted.map(|candidate| candidate.node).find(|node| !is_member(node))
}

/// The voters to go on with: the target, as far as those in it that are no voters yet have caught up. Who is to go stays
/// until whoever replaces it is there.
fn next_voters(members: &Members, target: &BTreeSet<u64>) -> Option<BTreeSet<u64>> {
    let is_ready = |node: &&u64| members.voters.contains(node) || has_caught_up(members, **node);
    let ready: BTreeSet<u64> = target.iter().filter(is_ready).copied().collect();
    if ready == members.voters || ready.is_empty() {
        return None;
    }
    // Only whole steps: from one voter to two is a step down.
    (ready == *target).then_some(ready)
}

/// Whether both the old and the new voters have a quorum that is heard of.
fn keeps_quorum(members: &Members, voters: &BTreeSet<u64>, me: u64) -> bool {
    [&members.voters, voters].into_iter().all(|set| {
        let heard = set.iter().filter(|node| **node == me || is_heard(members, **node)).count();
        heard > set.len() / 2
    })
}

fn surplus_learner(candidates: &[Candidate], members: &Members, wish: Wish, target: &BTreeSet<u64>) -> Option<u64> {
    let is_member = |node: &u64| candidates.iter().any(|c| c.node == *node && c.is_member);
    let is_wanted = |node: &&u64| target.contains(node) || (wish.is_everywhere && is_member(node));
    // Of nodes nobody has told us of we know nothing: they stay.
    let is_known = |node: &&u64| candidates.iter().any(|c| c.node == **node);
    members.learners.iter().filter(is_known).find(|node| !is_wanted(node)).copied()
}

/// Leaders are spread by the groups' numbers over their voters: without a word between nodes, each has its share. A voter
/// that is away, behind or leaving is passed over.
fn next_leader(candidates: &[Candidate], members: &Members, wish: Wish, me: u64) -> Option<u64> {
    let is_leaving = |node: u64| candidates.iter().any(|c| c.node == node && !c.is_staying);
    let can_lead = |node: &&u64| !is_leaving(**node) && (**node == me || has_caught_up(members, **node));
    let able: Vec<u64> = members.voters.iter().filter(can_lead).copied().collect();
    let preferred = *able.get(wish.group as usize % able.len().max(1))?;
    // While a voter is away the order is another; to follow it at once would move leaders to and fro.
    let all_are_there = able.len() == members.voters.len();
    let must_go = is_leaving(me) || !members.voters.contains(&me);
    (preferred != me && (all_are_there || must_go)).then_some(preferred)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(text: &str) -> Vec<Candidate> {
        // "1:r1/z1 2:r1/z2 -3:r2/z1 x4:r2/z2": a minus for one that is leaving, an x for one that was removed.
        let parse = |word: &str| {
            let (number, place) = word.split_once(':').unwrap();
            let (region, zone) = place.split_once('/').unwrap();
            Candidate {
                node: number.trim_start_matches(['-', 'x']).parse().unwrap(),
                region: region.to_owned(),
                zone: zone.to_owned(),
                is_staying: !number.starts_with(['-', 'x']),
                is_member: !number.starts_with('x'),
            }
        };
        text.split_whitespace().map(parse).collect()
    }

    fn led_by_first(voters: &[u64], learners: &[u64]) -> Members {
        let others = || voters.iter().chain(learners).copied();
        Members {
            leader: voters.first().copied(),
            is_leader: true,
            is_changing: false,
            voters: voters.iter().copied().collect(),
            learners: learners.iter().copied().collect(),
            silent: others().map(|node| (node, Duration::ZERO)).collect(),
            behind: others().map(|node| (node, 0)).collect(),
        }
    }

    #[test]
    fn a_range_has_the_voters_that_its_promise_needs() {
        for (promise, expected) in [
            ("backend:3", 3),
            ("node:1+backend:1", 3),
            ("zone:1+backend:2", 3),
            ("zone:1,backend:2", 3),
            ("node:2", 5),
            ("zone:1+node:1", 5),
            ("region:1+node:1", 5),
            ("zone:1,node:2", 5),
        ] {
            assert_eq!(range_voters_max(&promise.parse().unwrap()), expected, "{promise}");
        }
        assert_eq!(range_voters_max(&Promise::default()), 3);
    }

    #[test]
    fn a_leader_is_deaf_when_it_hears_no_quorum() {
        let heard = |voters: &[u64], silent: &[(u64, u64)]| {
            let mut members = led_by_first(voters, &[9]);
            members.silent.extend(silent.iter().map(|&(node, seconds)| (node, Duration::from_secs(seconds))));
            members
        };
        for (voters, silent, expected) in [
            (&[1][..], &[][..], false),
            (&[1, 2, 3], &[(2, 60)], false),
            (&[1, 2, 3], &[(2, 60), (3, 2)], false),
            (&[1, 2, 3], &[(2, 60), (3, 3)], true),
            (&[1, 2, 3], &[(2, 60), (9, 60)], false),
            (&[1, 2, 3, 4, 5], &[(2, 60), (3, 60)], false),
            (&[1, 2, 3, 4, 5], &[(2, 60), (3, 60), (4, 60)], true),
        ] {
            assert_eq!(is_deaf(&heard(voters, silent), 1), expected, "{voters:?} {silent:?}");
        }
        let mut new = heard(&[1, 2, 3], &[]);
        new.silent = BTreeMap::from([(2, Duration::MAX), (3, Duration::MAX)]);
        assert!(!is_deaf(&new, 1), "elected a moment ago");
        let follower = Members { is_leader: false, ..heard(&[1, 2, 3], &[(2, 60), (3, 60)]) };
        assert!(!is_deaf(&follower, 1));
    }

    const RANGE: Wish = Wish { voters_max: 3, is_everywhere: false, group: 0 };
    const EVERYWHERE: Wish = Wish { voters_max: 5, is_everywhere: true, group: 0 };

    fn voters(nodes: &[u64]) -> Option<MemberChange> {
        Some(MemberChange::SetVoters(nodes.iter().copied().collect()))
    }

    #[test]
    fn one_line_per_case() {
        let three = nodes("1:r/z 2:r/z 3:r/z");
        let check = |candidates: &[Candidate], members: &Members, wish, expected| {
            assert_eq!(plan(candidates, members, wish, 1), expected, "{candidates:?} {members:?}");
        };
        check(&nodes("1:r/z"), &led_by_first(&[1], &[]), RANGE, None);
        check(&[], &led_by_first(&[1], &[]), RANGE, None);
        check(&nodes("1:r/z 2:r/z"), &led_by_first(&[1], &[]), EVERYWHERE, Some(MemberChange::AddLearner(2)));
        check(&nodes("1:r/z 2:r/z"), &led_by_first(&[1], &[2]), EVERYWHERE, None);
        check(&three, &led_by_first(&[1], &[2]), RANGE, Some(MemberChange::AddLearner(3)));
        check(&three, &led_by_first(&[1], &[2, 3]), RANGE, voters(&[1, 2, 3]));
        check(&three, &led_by_first(&[1, 2, 3], &[]), RANGE, None);
        let mut behind = led_by_first(&[1], &[2, 3]);
        behind.behind.insert(3, BEHIND_MAX + 1);
        check(&three, &behind, RANGE, None);
        // A range of three on four nodes has no other copies; the root group has one everywhere.
        let four = nodes("1:r/a 2:r/b 3:r/c 4:r/d");
        check(&four, &led_by_first(&[1, 2, 3], &[4]), RANGE, Some(MemberChange::RemoveLearner(4)));
        check(&four, &led_by_first(&[1, 2, 3], &[4]), EVERYWHERE, None);
        check(&nodes("1:r/z -2:r/z 3:r/z 4:r/z"), &led_by_first(&[1, 2, 3], &[4]), RANGE, voters(&[1, 3, 4]));
    }

    #[test]
    fn who_drains_gives_up_its_votes_and_keeps_its_copy_until_it_is_removed() {
        let leaving = nodes("1:r/a -2:r/b 3:r/c 4:r/d");
        assert_eq!(plan(&leaving, &led_by_first(&[1, 2, 3], &[4]), EVERYWHERE, 1), voters(&[1, 3, 4]));
        assert_eq!(plan(&leaving, &led_by_first(&[1, 3, 4], &[2]), EVERYWHERE, 1), None);
        assert_eq!(plan(&leaving, &led_by_first(&[1, 3, 4], &[]), EVERYWHERE, 1), Some(MemberChange::AddLearner(2)));
        assert_eq!(plan(&leaving, &led_by_first(&[1, 3, 4], &[2]), RANGE, 1), Some(MemberChange::RemoveLearner(2)));
        let removed = nodes("1:r/a x2:r/b 3:r/c 4:r/d");
        for wish in [RANGE, EVERYWHERE] {
            let copy = plan(&removed, &led_by_first(&[1, 3, 4], &[2]), wish, 1);
            assert_eq!(copy, Some(MemberChange::RemoveLearner(2)));
        }
        // Declared lost while it votes: it is replaced at once, not after a while.
        let mut lost = led_by_first(&[1, 2, 3], &[4]);
        lost.silent.insert(2, SILENT);
        assert_eq!(plan(&removed, &lost, EVERYWHERE, 1), voters(&[1, 3, 4]));
        // The leader goes as well, once others can vote in its place.
        let leader = nodes("-1:r/a 2:r/b 3:r/c 4:r/d");
        assert_eq!(plan(&leader, &led_by_first(&[1, 2, 3], &[4]), EVERYWHERE, 1), voters(&[2, 3, 4]));
    }

    #[test]
    fn a_silent_voter_is_replaced_after_a_while_and_never_below_quorum() {
        let four = nodes("1:r/a 2:r/b 3:r/c 4:r/d");
        let mut members = led_by_first(&[1, 2, 3], &[4]);
        members.silent.insert(3, STABILISATION - Duration::from_secs(1));
        assert_eq!(plan(&four, &members, EVERYWHERE, 1), None, "it may come back");
        members.silent.insert(3, STABILISATION);
        assert_eq!(plan(&four, &members, EVERYWHERE, 1), voters(&[1, 2, 4]));
        members.silent.insert(2, STABILISATION);
        assert_eq!(plan(&four, &members, EVERYWHERE, 1), None, "two of three are gone: nothing can be decided");
        let mut alone = led_by_first(&[1, 2, 3], &[]);
        alone.silent.insert(3, STABILISATION);
        let three = nodes("1:r/a 2:r/b 3:r/c");
        assert_eq!(plan(&three, &alone, RANGE, 1), None, "there is nobody to take its place");
    }

    #[test]
    fn voters_stand_in_as_many_regions_and_zones_as_there_are() {
        let spread = nodes("1:r1/a 2:r1/b 3:r1/c 4:r2/a 5:r3/a 6:r3/b");
        let members = led_by_first(&[1], &[2, 3, 4, 5, 6]);
        assert_eq!(plan(&spread, &members, RANGE, 1), voters(&[1, 4, 5]));
        assert_eq!(plan(&spread, &members, EVERYWHERE, 1), voters(&[1, 2, 4, 5, 6]));
        let zones = nodes("1:r/a 2:r/a 3:r/b 4:r/c");
        assert_eq!(plan(&zones, &led_by_first(&[1], &[2, 3, 4]), RANGE, 1), voters(&[1, 3, 4]));
    }

    #[test]
    fn leaders_are_spread_and_stay_while_a_voter_is_away() {
        let three = nodes("1:r/a 2:r/b 3:r/c");
        let leads = |group| plan(&three, &led_by_first(&[1, 2, 3], &[]), Wish { group, ..RANGE }, 1);
        assert_eq!(
            [leads(0), leads(1), leads(2)],
            [None, Some(MemberChange::Transfer(2)), Some(MemberChange::Transfer(3)),]
        );
        let mut members = led_by_first(&[1, 2, 3], &[]);
        members.silent.insert(3, SILENT);
        assert_eq!(plan(&three, &members, Wish { group: 1, ..RANGE }, 1), None);
    }

    #[test]
    fn plans_come_to_an_end_and_leave_what_was_wished() {
        let all = nodes("1:r1/a 2:r1/b 3:r1/c 4:r2/a 5:r2/b 6:r3/a 7:r3/b");
        for count in 1..=all.len() {
            for wish in [RANGE, EVERYWHERE] {
                let candidates = &all[..count];
                let mut members = led_by_first(&[1], &[]);
                let mut steps = 0;
                while let Some(change) = plan(candidates, &members, wish, 1) {
                    match change {
                        MemberChange::AddLearner(node) => drop(members.learners.insert(node)),
                        MemberChange::SetVoters(voters) => {
                            assert!(voters.contains(&1), "the leader stays while it does well");
                            members.learners.extend(members.voters.iter().copied());
                            members.learners.retain(|node| !voters.contains(node));
                            members.voters = voters;
                        }
                        MemberChange::RemoveLearner(node) => drop(members.learners.remove(&node)),
                        MemberChange::Transfer(_) => break,
                    }
                    for candidate in candidates {
                        members.silent.insert(candidate.node, Duration::ZERO);
                        members.behind.insert(candidate.node, 0);
                    }
                    steps += 1;
                    assert!(steps < 30, "{members:?}");
                }
                assert_eq!(members.voters.len(), voter_count(count, wish.voters_max), "{count} {wish:?}");
                if wish.is_everywhere {
                    assert_eq!(members.voters.len() + members.learners.len(), count);
                }
            }
        }
    }
}
