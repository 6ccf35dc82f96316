//! What the solver works under: caps as limits over indexed backends, the homes of tied slots, and how many slots each
//! active backend shall hold.
//!
//! Not here: moving slots (`rebalance`), which caps are possible (`caps`).

use crate::assignment::{Limit, Limits, Tie};
use crate::candidate::CandidateRole;
use crate::caps::Caps;
use crate::domain::DomainKind;
use crate::fill::{Demand, Group, Quota, Share, quotas, shares};
use crate::topology::{Census, Topology};
use holdfast_codec::{Code, Scheme};
use holdfast_proto::BackendId;
use std::collections::BTreeMap;

/// Differences of fill smaller than one part in this are no reason to prefer other caps.
const FILL_STEPS: f64 = 200.0;

/// See the module.
pub(crate) struct Setting {
    pub(crate) limits: Limits,
    pub(crate) tie: Option<Tie>,
    /// Active backends, ascending by index; quotas and shares are in this order.
    active: Vec<usize>,
    groups: Vec<Group>,
    /// By active backend: in how many PGs it can be.
    most: Vec<usize>,
    slots: usize,
}

impl Setting {
    /// `pgs` as they are, by backend index; for a tie their homes are read from them.
    pub(crate) fn new(caps: &Caps, scheme: Scheme, topology: &Topology, census: &Census, pgs: &[Vec<usize>]) -> Self {
        let active: Vec<usize> = census.with_role(CandidateRole::Active).collect();
        let mut limits = Limits { limits: Vec::new(), domain_count: 0 };
        let mut kinds: Vec<DomainKind> = Vec::new();
        for (&kind, &cap) in &caps.by_kind {
            let division = census.division(topology, kind);
            let domain_of = division.domain_of.iter().map(|domain| limits.domain_count + domain).collect();
            limits.domain_count += division.domains.len();
            // A PG has at most 255 slots; a larger cap is no cap.
            limits.limits.push(Limit { cap: u8::try_from(cap).unwrap_or(u8::MAX), domain_of });
            kinds.push(division.kind);
        }
        let tie = caps.tie.map(|kind| tie(kind, caps, scheme, topology, census, pgs));
        let mut setting =
            Self { limits, tie, active, groups: Vec::new(), most: Vec::new(), slots: pgs.len() * scheme.n() };
        setting.most = setting.active.iter().map(|&backend| setting.blocks(backend, pgs.len())).collect();
        setting.groups = setting.groups_of(&kinds, caps.tie, pgs.len());
        setting
    }

    /// In how many PGs a backend can be: of a tie, those with a class whose home is its domain.
    fn blocks(&self, backend: usize, pg_count: usize) -> usize {
        self.tie.as_ref().map_or(pg_count, |tie| {
            let domain = tie.domain_of[backend];
            tie.homes.iter().filter(|homes| homes.contains(&domain)).count()
        })
    }

    fn groups_of(&self, kinds: &[DomainKind], tie: Option<DomainKind>, pg_count: usize) -> Vec<Group> {
        let mut groups = Vec::new();
        for (limit, kind) in self.limits.limits.iter().zip(kinds).filter(|(_, kind)| **kind != DomainKind::Backend) {
            let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for (number, &backend) in self.active.iter().enumerate() {
                members.entry(limit.domain_of[backend]).or_default().push(number);
            }
            // A label's domain, or one around the homes of a tie, may hold slots of every PG.
            let is_within = tie.is_none_or(|tie| *kind <= tie);
            for members in members.into_values() {
                let blocks = members.first().filter(|_| is_within).map_or(pg_count, |&first| self.most[first]);
                groups.push(Group { limit: usize::from(limit.cap) * blocks, members });
            }
        }
        groups
    }

    fn shares_given(&self, census: &Census, held: &[usize]) -> Vec<Share> {
        let share = |(&backend, &most): (&usize, &usize)| Share {
            weight: census.weights[backend],
            held: held.get(backend).copied().unwrap_or(0),
            most,
        };
        self.active.iter().zip(&self.most).map(share).collect()
    }

    /// Quotas by backend; those that are not active have none. `held`: slots each holds now.
    pub(crate) fn quotas(&self, census: &Census, held: &[usize]) -> Vec<Option<Quota>> {
        let given = self.shares_given(census, held);
        let quotas = quotas(&Demand { slots: self.slots, shares: &given, groups: &self.groups });
        let mut by_backend = vec![None; census.ids.len()];
        for (&backend, quota) in self.active.iter().zip(quotas) {
            by_backend[backend] = Some(quota);
        }
        by_backend
    }

    /// The ideal share of each active backend, in slots; fractions included.
    pub(crate) fn ideal(&self, census: &Census) -> BTreeMap<BackendId, f64> {
        let given = self.shares_given(census, &[]);
        let filled = shares(&Demand { slots: self.slots, shares: &given, groups: &self.groups });
        self.active.iter().zip(filled).map(|(&backend, share)| (census.ids[backend], share)).collect()
    }

    /// How far the best fill under these caps is from weight alone: the part of all slots that is on another backend
    /// than it would be, in steps.
    pub(crate) fn deviation_steps(&self, census: &Census) -> u64 {
        let given = self.shares_given(census, &[]);
        let filled = shares(&Demand { slots: self.slots, shares: &given, groups: &self.groups });
        let free = shares(&Demand { slots: self.slots, shares: &given, groups: &[] });
        let off: f64 = filled.iter().zip(&free).map(|(a, b)| (a - b).abs()).sum();
        let slots: f64 = free.iter().sum();
        let steps = (off / slots.max(1.0) * FILL_STEPS).round();
        // A few hundred at most.
        (0u64..1000).find(|&step| f64::from(u32::try_from(step).unwrap_or(0)) >= steps).unwrap_or(1000)
    }

    /// How many slots are above a cap or away from their home: what would have to move to get under these caps.
    pub(crate) fn misplaced(&self, pgs: &[Vec<usize>]) -> usize {
        pgs.iter().enumerate().map(|(pg, slots)| self.misplaced_slots(pg, slots).len()).sum()
    }

    /// The slots of a PG that are above a cap or away from their home, the later ones of each domain.
    pub(crate) fn misplaced_slots(&self, pg: usize, slots: &[usize]) -> Vec<usize> {
        let mut counts = BTreeMap::new();
        let mut found = Vec::new();
        for (slot, &backend) in slots.iter().enumerate() {
            let away = self.tie.as_ref().is_some_and(|tie| tie.domain_of[backend] != tie.homes[pg][tie.class_of[slot]]);
            let is_over = |limit: &Limit| counts.get(&limit.domain_of[backend]).copied().unwrap_or(0u8) >= limit.cap;
            if away || self.limits.limits.iter().any(is_over) {
                found.push(slot);
                continue;
            }
            for limit in &self.limits.limits {
                *counts.entry(limit.domain_of[backend]).or_default() += 1;
            }
        }
        found
    }
}

/// Reads the homes of each PG's classes: the domain that holds most of a class, the clearest cases first; for a class
/// that is nowhere, the first domain with room that no other class of the PG has.
fn tie(kind: DomainKind, caps: &Caps, scheme: Scheme, topology: &Topology, census: &Census, pgs: &[Vec<usize>]) -> Tie {
    let code = Code::new(scheme);
    let class_of: Vec<usize> = (0..scheme.n()).map(|slot| code.region_of(slot).unwrap_or(0)).collect();
    let domain_of = census.division(topology, kind).domain_of;
    let roomy = roomy_domains(kind, caps, &code, topology, census, &domain_of);
    let homes = pgs.iter().map(|slots| homes_of(slots, &class_of, code.regions(), &domain_of, &roomy)).collect();
    Tie { domain_of, class_of, homes }
}

/// Domains in which a whole class finds room.
pub(crate) fn roomy_domains(
    kind: DomainKind,
    caps: &Caps,
    code: &Code,
    topology: &Topology,
    census: &Census,
    domain_of: &[usize],
) -> Vec<usize> {
    let width = (0..code.regions()).map(|region| code.slots_in(region).len()).max().unwrap_or(0);
    let mut places: BTreeMap<usize, Vec<&crate::topology::BackendPlace>> = BTreeMap::new();
    for backend in census.with_role(CandidateRole::Active) {
        if let Some(place) = topology.place(census.ids[backend]) {
            places.entry(domain_of[backend]).or_default().push(place);
        }
    }
    let within: BTreeMap<DomainKind, usize> =
        caps.by_kind.iter().filter(|(k, _)| **k <= kind).map(|(k, c)| (*k, *c)).collect();
    let has_room = |places: &[&crate::topology::BackendPlace]| crate::flow::most_slots(places, &within, width) >= width;
    places.into_iter().filter(|(_, places)| has_room(places)).map(|(domain, _)| domain).collect()
}

fn homes_of(slots: &[usize], class_of: &[usize], classes: usize, domain_of: &[usize], roomy: &[usize]) -> Vec<usize> {
    let mut counts: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (&backend, &class) in slots.iter().zip(class_of) {
        let domain = domain_of[backend];
        if roomy.contains(&domain) {
            *counts.entry((class, domain)).or_default() += 1;
        }
    }
    let mut order: Vec<((usize, usize), usize)> = counts.into_iter().collect();
    order.sort_by_key(|&(pair, count)| (std::cmp::Reverse(count), pair));
    let mut homes = vec![None; classes];
    for ((class, domain), _) in order {
        if homes[class].is_none() && !homes.contains(&Some(domain)) {
            homes[class] = Some(domain);
        }
    }
    for class in 0..classes {
        if homes[class].is_none() {
            homes[class] = roomy.iter().copied().find(|domain| !homes.contains(&Some(*domain)));
        }
    }
    // Without a home (too few domains are left) a class has no place at all: its slots stay where they are.
    homes.into_iter().map(|home| home.unwrap_or(usize::MAX)).collect()
}
