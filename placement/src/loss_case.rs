//! One PG against one scenario: every combination of domains the scenario can take away, each judged by the codec.
//!
//! A PG is seen from one side: where shards are, where they shall be, or, while it moves, both: then each shard may be
//! at either place, so a slot counts as lost when the domain of its old or of its new place is. Whatever mixture of old
//! and new there is, it has lost no more.
//!
//! Not here: which PGs and sides a layout is judged by (`proof`).
//!
//! **Invariant:** judged by `Codec::decodable`. Counting alone decides only for MDS codes, and only where a bound on
//! the slots that can be lost is within m, or the combinations are too many to walk.

use crate::domain::{Domain, DomainKind};
use crate::scenario::Scenario;
use crate::topology::{Census, Division, Topology};
use holdfast_codec::slot_set::SLOTS_MAX;
use holdfast_codec::{Codec, SlotSet};
use holdfast_proto::BackendId;
use holdfast_proto::pg_table::Pg;
use std::collections::{BTreeMap, BTreeSet};

/// Most combinations walked one by one for one case: about a second. RS(20,10) has 30 million; RS(17,3) has 1140.
pub(crate) const LOSS_SETS_MAX: u64 = 20_000_000;

/// From where a PG is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PgSide {
    /// Where shards are.
    Committed,
    /// Where shards shall be.
    Target,
    /// While they move: each is at either place, in any mixture.
    Moving,
}

impl std::fmt::Display for PgSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Committed => "committed",
            Self::Target => "target",
            Self::Moving => "moving",
        })
    }
}

/// What a combination of losses does to a PG that does not survive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    /// The domains lost.
    pub(crate) lost: Vec<Domain>,
    /// How many shards are left.
    pub(crate) left: usize,
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It survives. `loss_sets` combinations were asked about; not all there are if not `is_exhaustive`.
    Survives { loss_sets: u64, is_exhaustive: bool },
    /// It does not.
    Breaks(Breach),
    /// There are too many combinations to say.
    TooMany,
}

/// How to go about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rigour {
    /// Walk every combination.
    Walk,
    /// Let a bound decide where it can, which for an MDS code is proof as well.
    BoundFirst,
}

/// What the judge of a layout knows: the code, and who is in which domain.
pub(crate) struct Judge<'a> {
    pub(crate) codec: Codec,
    pub(crate) census: Census,
    topology: &'a Topology,
    divisions: BTreeMap<DomainKind, Division>,
}

/// The domains of each kind of a scenario that a PG touches, each with its slots, in order of first appearance.
pub(crate) struct Case {
    kinds: Vec<Kind>,
    gone: SlotSet,
}

struct Kind {
    kind: DomainKind,
    count: usize,
    domains: Vec<(usize, SlotSet)>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(codec: Codec, topology: &'a Topology, named: impl Iterator<Item = BackendId>) -> Self {
        Self { codec, census: Census::new(topology, named), topology, divisions: BTreeMap::new() }
    }

    /// The case of a PG seen from a side, with the shards on the `absent` backends gone already.
    pub(crate) fn case(&mut self, pg: &Pg, side: PgSide, scenario: &Scenario, absent: &BTreeSet<BackendId>) -> Case {
        for (kind, _) in scenario.counts() {
            if !self.divisions.contains_key(&kind) {
                self.divisions.insert(kind, self.census.division(self.topology, kind));
            }
        }
        let lists = lists(pg, side);
        let indexed: Vec<Vec<usize>> =
            lists.iter().map(|list| list.iter().map(|id| self.census.index(*id)).collect()).collect();
        let mut gone = SlotSet::new();
        for list in lists.iter().filter(|_| !absent.is_empty()) {
            gone.extend((0..list.len()).filter(|&slot| absent.contains(&list[slot])));
        }
        let kinds = scenario.counts().map(|(kind, count)| {
            let mut domains: Vec<(usize, SlotSet)> = Vec::new();
            for (slot, &backend) in indexed.iter().flat_map(|list| list.iter().enumerate()) {
                let domain = self.divisions[&kind].domain_of.get(backend).copied().unwrap_or(usize::MAX);
                match domains.iter_mut().find(|(known, _)| *known == domain) {
                    Some((_, slots)) => drop(slots.insert(slot)),
                    None => domains.push((domain, SlotSet::from_iter([slot]))),
                }
            }
            Kind { kind, count, domains }
        });
        Case { kinds: kinds.collect(), gone }
    }

    /// Whether the case survives.
    pub(crate) fn check(&self, case: &Case, rigour: Rigour) -> Verdict {
        if rigour == Rigour::BoundFirst && self.is_bounded(case) {
            return Verdict::Survives { loss_sets: 1, is_exhaustive: false };
        }
        if case.combinations() > LOSS_SETS_MAX {
            return self.check_the_worst(case);
        }
        let mut walk = Walk { codec: &self.codec, all: self.slots(), loss_sets: 0, chosen: Vec::new() };
        match walk.kinds(&case.kinds, case.gone) {
            Ok(()) => Verdict::Survives { loss_sets: walk.loss_sets, is_exhaustive: true },
            Err(left) => Verdict::Breaks(Breach { lost: self.domains(&walk.chosen), left }),
        }
    }

    fn slots(&self) -> SlotSet {
        SlotSet::first(self.codec.scheme().n())
    }

    fn domains(&self, chosen: &[(DomainKind, usize)]) -> Vec<Domain> {
        let domain = |(kind, number): &(DomainKind, usize)| self.divisions[kind].domains.get(*number).cloned();
        chosen.iter().filter_map(domain).collect()
    }

    /// Whether even the fullest domains of each kind together cannot take more than m slots from an MDS code.
    fn is_bounded(&self, case: &Case) -> bool {
        let most: usize =
            case.kinds.iter().map(|kind| kind.fullest().map(|(_, slots)| slots.len()).sum::<usize>()).sum();
        self.codec.scheme().is_mds() && most + case.gone.len() <= self.codec.scheme().m()
    }

    /// For more combinations than can be walked: the bound, else the fullest domains, which may be a breach. Of one
    /// kind whose domains share no slot they are the worst loss there is.
    fn check_the_worst(&self, case: &Case) -> Verdict {
        if !self.codec.scheme().is_mds() {
            return Verdict::TooMany;
        }
        if self.is_bounded(case) {
            return Verdict::Survives { loss_sets: 1, is_exhaustive: false };
        }
        let fullest =
            case.kinds.iter().flat_map(|kind| kind.fullest().map(|(number, slots)| (kind.kind, *number, slots)));
        let fullest: Vec<(DomainKind, usize, &SlotSet)> = fullest.collect();
        let lost = fullest.iter().fold(case.gone, |lost, (_, _, slots)| lost.union(slots));
        let left = self.slots().difference(&lost);
        if self.codec.decodable(&left) {
            return Verdict::TooMany;
        }
        let chosen: Vec<(DomainKind, usize)> = fullest.iter().map(|(kind, number, _)| (*kind, *number)).collect();
        Verdict::Breaks(Breach { lost: self.domains(&chosen), left: left.len() })
    }

    /// Cases of the same key have the same verdict.
    pub(crate) fn key(&self, case: &Case) -> Vec<SlotSet> {
        let canonical = if self.codec.scheme().is_mds() && case.gone.is_empty() { case.canonical() } else { None };
        canonical.unwrap_or_else(|| {
            let sets =
                |kind: &Kind| kind.domains.iter().map(|(_, slots)| *slots).chain([SlotSet::new()]).collect::<Vec<_>>();
            [case.gone].into_iter().chain(case.kinds.iter().flat_map(sets)).collect()
        })
    }
}

/// The lists that matter from a side: two while shards move.
fn lists(pg: &Pg, side: PgSide) -> Vec<&[BackendId]> {
    match side {
        PgSide::Committed => vec![&pg.committed],
        PgSide::Target => vec![&pg.target],
        PgSide::Moving if pg.is_moving() => vec![&pg.target, &pg.committed],
        PgSide::Moving => vec![&pg.target],
    }
}

impl Kind {
    /// As many of the domains with most slots as the scenario takes away.
    fn fullest(&self) -> impl Iterator<Item = &(usize, SlotSet)> {
        let mut order: Vec<&(usize, SlotSet)> = self.domains.iter().collect();
        order.sort_by_key(|(_, slots)| std::cmp::Reverse(slots.len()));
        order.into_iter().take(self.count)
    }

    fn is_disjoint(&self) -> bool {
        let slots: usize = self.domains.iter().map(|(_, slots)| slots.len()).sum();
        slots == self.domains.iter().fold(SlotSet::new(), |all, (_, slots)| all.union(slots)).len()
    }
}

impl Case {
    fn combinations(&self) -> u64 {
        self.kinds.iter().fold(1, |sets, kind| sets.saturating_mul(choices(kind.domains.len(), kind.count)))
    }

    /// Where only counts matter, and domains share no slots, slots may change places: how many are in each domain, for
    /// one kind or for a kind within another, says it all. `None` for any other case.
    fn canonical(&self) -> Option<Vec<SlotSet>> {
        if !self.kinds.iter().all(Kind::is_disjoint) {
            return None;
        }
        let mut sizes: Vec<Vec<usize>> = match self.kinds.as_slice() {
            [kind] => kind.domains.iter().map(|(_, slots)| vec![slots.len()]).collect(),
            [inner, outer] => {
                let inside = |slots: &SlotSet| {
                    let within = inner.domains.iter().filter(|(_, inner)| inner.is_subset(slots));
                    let mut sizes: Vec<usize> = within.map(|(_, inner)| inner.len()).collect();
                    sizes.sort_unstable();
                    (sizes.iter().sum::<usize>() == slots.len()).then_some(sizes)
                };
                outer.domains.iter().map(|(_, slots)| inside(slots)).collect::<Option<_>>()?
            }
            _ => return None,
        };
        sizes.sort_unstable();
        // Sets stand for sizes here: the first so many slots. The mark in front is what no set of lost slots can be.
        let sets =
            |sizes: Vec<usize>| sizes.into_iter().map(SlotSet::first).chain([SlotSet::new()]).collect::<Vec<_>>();
        Some([SlotSet::first(SLOTS_MAX)].into_iter().chain(sizes.into_iter().flat_map(sets)).collect())
    }
}

struct Walk<'a> {
    codec: &'a Codec,
    all: SlotSet,
    loss_sets: u64,
    chosen: Vec<(DomainKind, usize)>,
}

impl Walk<'_> {
    /// Every combination of the kinds that are left, on top of what is lost. Fewer losses are contained in those:
    /// whatever decodes with more lost decodes with fewer. The error is how many shards a fatal one leaves; then
    /// `chosen` says which.
    fn kinds(&mut self, kinds: &[Kind], lost: SlotSet) -> Result<(), usize> {
        match kinds.split_first() {
            Some((kind, rest)) => self.domains(kind, 0, kind.count.min(kind.domains.len()), rest, lost),
            None => {
                self.loss_sets += 1;
                let left = self.all.difference(&lost);
                if self.codec.decodable(&left) { Ok(()) } else { Err(left.len()) }
            }
        }
    }

    fn domains(&mut self, kind: &Kind, from: usize, count: usize, rest: &[Kind], lost: SlotSet) -> Result<(), usize> {
        if count == 0 {
            return self.kinds(rest, lost);
        }
        for at in from..=kind.domains.len() - count {
            let (number, slots) = &kind.domains[at];
            self.chosen.push((kind.kind, *number));
            self.domains(kind, at + 1, count - 1, rest, lost.union(slots))?;
            self.chosen.pop();
        }
        Ok(())
    }
}

/// How many sets of `size` out of `count` there are (of all, if there are no more); saturating.
pub(crate) fn choices(count: usize, size: usize) -> u64 {
    let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let size = size.min(count);
    let size = size.min(count - size);
    (0..size).fold(1u64, |sets, i| sets.saturating_mul(wide(count - i)) / wide(i + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_counted() {
        let check = |count, size, expected| assert_eq!(choices(count, size), expected, "{size} of {count}");
        check(0, 0, 1);
        check(6, 2, 15);
        check(6, 6, 1);
        check(6, 9, 1);
        check(21, 5, 20_349);
        assert!(choices(255, 127) > LOSS_SETS_MAX);
    }
}
