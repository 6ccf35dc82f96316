//! Which caps keep a promise: how many slots of a PG may share a domain of each kind, so that no scenario can take
//! more than the code survives; and, where no caps will do, which scenario is in the way and what is missing.
//!
//! With caps c(kind), a scenario of a(kind) domains takes at most the sum of a x c slots. If that is at most t, the
//! losses the code survives whichever they are, every PG within the caps keeps the promise. For MDS codes t is m and
//! nothing is given away. A geo code survives more than any t shards when its own regions are kept apart: then its
//! slots are *tied* to domains, and the proof of the finished table is what decides.
//!
//! Not here: the proof (`proof`), the choice among caps that will do (`solver`).

use crate::domain::DomainKind;
use crate::flow::most_slots;
use crate::scenario::{Promise, Scenario};
use crate::topology::{BackendPlace, Topology};
use holdfast_codec::{Code, Scheme};
use std::collections::BTreeMap;
use std::fmt;

/// Most combinations of caps looked at for one promise: a fraction of a second. Four kinds over a code of m = 20 have
/// 8000 at most.
const COMBINATIONS_MAX: usize = 20_000;

/// How many slots of a PG may share a domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caps {
    /// Most slots of a PG in one domain, by kind. A backend's is 1, always.
    pub by_kind: BTreeMap<DomainKind, usize>,
    /// The kind over whose domains the code's own regions are laid, one each, if they are.
    pub tie: Option<DomainKind>,
}

/// Why a promise cannot be kept by a scheme on a topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{scheme} cannot promise {scenario} here: {lack}")]
pub struct Infeasible {
    /// The scheme.
    pub scheme: Scheme,
    /// The first scenario that cannot be kept, by itself or together with those before it.
    pub scenario: Scenario,
    /// What is missing.
    pub lack: Lack,
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The code survives fewer shards than the scenario takes, wherever they are.
    Code {
        /// What it survives.
        survives: usize,
        /// What the scenario takes at least.
        takes: usize,
    },
    /// There are too few domains of a kind.
    Domains {
        /// The kind.
        kind: DomainKind,
        /// How many it needs.
        needed: usize,
        /// How many there are.
        present: usize,
    },
    /// There are enough domains, but not enough backends in them.
    Room {
        /// How many shards find a place.
        fits: usize,
        /// How many need one.
        needed: usize,
    },
    /// Each scenario could be kept, but not this one with those before it.
    Together,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code { survives, takes } => {
                write!(f, "it survives any {survives} lost shards, the scenario takes at least {takes}")
            }
            Self::Domains { kind, needed, present } => {
                let are = if *present == 1 { "is" } else { "are" };
                write!(f, "needs {needed} {}, there {are} {present}", kind.plural())
            }
            Self::Room { fits, needed } => {
                write!(f, "only {fits} of {needed} shards find a place: some domains have too few backends")
            }
            Self::Together => f.write_str("together with the scenarios before it, no placement is left"),
        }
    }
}

/// All largest caps that keep the promise and leave every PG room on the backends `is_usable` accepts. Never empty.
///
/// # Errors
/// The first scenario that cannot be kept, and what is missing.
pub(crate) fn possible_caps(
    scheme: Scheme,
    promise: &Promise,
    topology: &Topology,
    is_usable: &dyn Fn(&BackendPlace) -> bool,
) -> Result<Vec<Caps>, Infeasible> {
    let places: Vec<&BackendPlace> = topology.places().filter(|place| is_usable(place)).collect();
    let ground = Ground { scheme, places };
    let scenarios = promise.scenarios();
    let found = ground.caps(scenarios);
    if !found.is_empty() {
        return Ok(found);
    }
    let ends = 1..=scenarios.len();
    let end = ends.into_iter().find(|&end| ground.caps(&scenarios[..end]).is_empty()).unwrap_or(scenarios.len());
    let Some(scenario) = end.checked_sub(1).and_then(|last| scenarios.get(last)).cloned() else {
        // Nothing is promised but that every shard has a backend of its own.
        let (needed, present) = (scheme.n(), ground.places.len());
        let scenario = Scenario::of(DomainKind::Backend, 1).expect("one backend is a scenario");
        return Err(Infeasible {
            scheme,
            scenario,
            lack: Lack::Domains { kind: DomainKind::Backend, needed, present },
        });
    };
    let lack = ground.lack(&scenario);
    Err(Infeasible { scheme, scenario, lack })
}

/// Whether a scheme can keep a promise on the backends of a topology that take shards, and with which caps: those that
/// leave most freedom.
///
/// # Errors
/// The first scenario that cannot be kept, and what is missing.
pub fn feasible_caps(scheme: Scheme, promise: &Promise, topology: &Topology) -> Result<Caps, Infeasible> {
    let is_active = |place: &BackendPlace| place.role == crate::CandidateRole::Active;
    let possible = possible_caps(scheme, promise, topology, &is_active)?;
    let freest = possible.into_iter().max_by_key(|caps| (caps.tie.is_none(), caps.by_kind.values().sum::<usize>()));
    Ok(freest.unwrap_or_else(|| Caps { by_kind: BTreeMap::from([(DomainKind::Backend, 1)]), tie: None }))
}

struct Ground<'a> {
    scheme: Scheme,
    places: Vec<&'a BackendPlace>,
}

impl Ground<'_> {
    /// Sizes of the domains of a kind.
    fn sizes(&self, kind: DomainKind) -> Vec<usize> {
        if kind == DomainKind::Backend {
            return vec![1; self.places.len()];
        }
        let mut sizes: BTreeMap<_, usize> = BTreeMap::new();
        for place in &self.places {
            *sizes.entry(place.domain(kind)).or_default() += 1;
        }
        sizes.into_values().collect()
    }

    /// The smallest cap under which n slots fit, looking at this kind alone.
    fn least_cap(&self, kind: DomainKind) -> Option<usize> {
        let sizes = self.sizes(kind);
        let room = |cap: usize| sizes.iter().map(|&size| size.min(cap)).sum::<usize>();
        (1..=self.scheme.n()).find(|&cap| room(cap) >= self.scheme.n())
    }

    fn caps(&self, scenarios: &[Scenario]) -> Vec<Caps> {
        let plain = self.plain_caps(scenarios);
        if !plain.is_empty() || self.scheme.is_mds() { plain } else { self.tied_caps(scenarios) }
    }

    /// Caps that count shards only.
    fn plain_caps(&self, scenarios: &[Scenario]) -> Vec<Caps> {
        let losses = self.scheme.losses_survived();
        let mut kinds: Vec<DomainKind> = Vec::new();
        for (kind, _) in scenarios.iter().flat_map(Scenario::counts) {
            if kind != DomainKind::Backend && !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds.sort_unstable();
        let mut ranges = Vec::new();
        for &kind in &kinds {
            let Some(least) = self.least_cap(kind) else { return Vec::new() };
            let most = self.sizes(kind).into_iter().max().unwrap_or(0).min(losses);
            ranges.push((kind, least, most));
        }
        let is_kept = |caps: &BTreeMap<DomainKind, usize>| scenarios.iter().all(|s| taken(s, caps) <= losses);
        let mut kept = Vec::new();
        let base = BTreeMap::from([(DomainKind::Backend, 1)]);
        walk(&ranges, &base, &is_kept, &mut kept, &mut 0);
        // Of caps that only restrict more than others nobody is the better for.
        let is_largest = |caps: &BTreeMap<DomainKind, usize>| {
            ranges.iter().all(|&(kind, _, most)| {
                let mut more = caps.clone();
                let cap = more.entry(kind).or_default();
                *cap += 1;
                *cap > most || !is_kept(&more)
            })
        };
        kept.retain(|caps| is_largest(caps));
        kept.retain(|caps| most_slots(&self.places, caps, self.scheme.n()) >= self.scheme.n());
        kept.into_iter().map(|by_kind| Caps { by_kind, tie: None }).collect()
    }

    /// The code's own regions laid over regions, or over zones where there are too few regions. Within a region one
    /// slot a domain, or two where there is no room for that; the proof of the table decides.
    fn tied_caps(&self, scenarios: &[Scenario]) -> Vec<Caps> {
        let code = Code::new(self.scheme);
        if code.regions() < 2 {
            return Vec::new();
        }
        let width = (0..code.regions()).map(|region| code.slots_in(region).len()).max().unwrap_or(0);
        let mut found = Vec::new();
        for tie in [DomainKind::Region, DomainKind::Zone] {
            for inner in 1..=2 {
                let mut by_kind = BTreeMap::from([(DomainKind::Backend, 1), (tie, width)]);
                for (kind, _) in scenarios.iter().flat_map(Scenario::counts).filter(|(kind, _)| *kind < tie) {
                    by_kind.entry(kind).or_insert(inner);
                }
                let whole = self.whole_domains(tie, &by_kind, width);
                let names_only_narrower = scenarios.iter().flat_map(Scenario::counts).all(|(kind, _)| kind <= tie);
                if found.is_empty()
                    && names_only_narrower
                    && whole >= code.regions()
                    && scenarios.iter().all(|scenario| tied_survives(&code, scenario, tie, inner))
                {
                    found.push(Caps { by_kind, tie: Some(tie) });
                }
            }
        }
        found
    }

    /// How many domains of a kind have room for `width` slots by themselves.
    fn whole_domains(&self, kind: DomainKind, caps: &BTreeMap<DomainKind, usize>, width: usize) -> usize {
        let mut members: BTreeMap<_, Vec<&BackendPlace>> = BTreeMap::new();
        for place in &self.places {
            members.entry(place.domain(kind)).or_default().push(place);
        }
        members.values().filter(|places| most_slots(places, caps, width) >= width).count()
    }

    fn lack(&self, scenario: &Scenario) -> Lack {
        let (n, losses) = (self.scheme.n(), self.scheme.losses_survived());
        if !self.caps(std::slice::from_ref(scenario)).is_empty() {
            return Lack::Together;
        }
        if self.places.len() < n {
            return Lack::Domains { kind: DomainKind::Backend, needed: n, present: self.places.len() };
        }
        let takes: usize = scenario.counts().map(|(_, count)| count).sum();
        if takes > losses {
            return Lack::Code { survives: losses, takes };
        }
        // The widest kind that has too few domains even if every other kind takes one slot a domain.
        let kinds: Vec<(DomainKind, usize)> = scenario.counts().collect();
        for &(kind, count) in kinds.iter().rev() {
            let cap = (losses - (takes - count)) / count;
            let (needed, present) = (n.div_ceil(cap.max(1)), self.sizes(kind).len());
            if present < needed {
                return Lack::Domains { kind, needed, present };
            }
        }
        let caps = |kind: DomainKind, count: usize| (kind, ((losses - (takes - count)) / count).max(1));
        let loosest: BTreeMap<DomainKind, usize> = kinds.iter().map(|&(kind, count)| caps(kind, count)).collect();
        let mut fits = most_slots(&self.places, &loosest, n);
        if fits >= n {
            // Each kind has room if it may take all that the others leave; all at once they do not.
            let evened: BTreeMap<DomainKind, usize> =
                kinds.iter().map(|&(kind, _)| (kind, (losses / takes).max(1))).collect();
            fits = most_slots(&self.places, &evened, n).min(n - 1);
        }
        Lack::Room { fits, needed: n }
    }
}

/// Whether a tied code survives a scenario in a PG laid out as the caps have it: `inner` slots to each narrower domain.
/// The largest combinations are asked about on one such PG; the proof asks about every PG there is.
fn tied_survives(code: &Code, scenario: &Scenario, tie: DomainKind, inner: usize) -> bool {
    let narrow: usize = scenario
        .counts()
        .filter(|(kind, _)| *kind < tie)
        .map(|(kind, count)| if kind == DomainKind::Backend { count } else { count * inner })
        .sum();
    let wide = scenario.count(tie);
    if wide >= code.regions() {
        return false;
    }
    losses_beyond(code, wide).is_some_and(|beyond| beyond >= narrow)
}

/// How many more losses, whichever they are, a code over regions survives after the loss of any `regions` of its
/// regions; `None` if not even that. Up to three: more are not promised and would take long to ask.
pub(crate) fn losses_beyond(code: &Code, regions: usize) -> Option<usize> {
    let codec = holdfast_codec::Codec::of_code(code.clone(), holdfast_codec::engine::best());
    let all = holdfast_codec::SlotSet::first(code.scheme().n());
    let mut beyond = None;
    for more in 0..=3 {
        let survives = subsets(code.regions(), regions).iter().all(|gone| {
            let lost =
                gone.iter().fold(holdfast_codec::SlotSet::new(), |lost, &region| lost.union(&code.slots_in(region)));
            let left: Vec<usize> = all.difference(&lost).iter().collect();
            subsets(left.len(), more).iter().all(|set| {
                let further: holdfast_codec::SlotSet = set.iter().map(|&index| left[index]).collect();
                codec.decodable(&all.difference(&lost).difference(&further))
            })
        });
        if !survives {
            break;
        }
        beyond = Some(more);
    }
    beyond
}

/// All sets of `size` numbers below `count`.
fn subsets(count: usize, size: usize) -> Vec<Vec<usize>> {
    let mut sets = vec![Vec::new()];
    for _ in 0..size {
        let longer = |set: &Vec<usize>| {
            let from = set.last().map_or(0, |&last| last + 1);
            let set = set.clone();
            (from..count).map(move |next| [set.as_slice(), &[next]].concat())
        };
        sets = sets.iter().flat_map(longer).collect();
    }
    sets
}

/// Most slots a scenario can take from a PG within the caps.
fn taken(scenario: &Scenario, caps: &BTreeMap<DomainKind, usize>) -> usize {
    scenario.counts().map(|(kind, count)| count * caps.get(&kind).copied().unwrap_or(1)).sum()
}

/// All combinations of caps within the ranges that are kept; larger ones of a kind only while smaller ones were.
fn walk(
    ranges: &[(DomainKind, usize, usize)],
    base: &BTreeMap<DomainKind, usize>,
    is_kept: &dyn Fn(&BTreeMap<DomainKind, usize>) -> bool,
    kept: &mut Vec<BTreeMap<DomainKind, usize>>,
    asked: &mut usize,
) {
    let Some((&(kind, least, most), rest)) = ranges.split_first() else {
        *asked += 1;
        if is_kept(base) {
            kept.push(base.clone());
        }
        return;
    };
    for cap in least..=most {
        let mut caps = base.clone();
        caps.insert(kind, cap);
        // The kinds still to come take no less than their least.
        let mut smallest = caps.clone();
        smallest.extend(rest.iter().map(|&(kind, least, _)| (kind, least)));
        if *asked >= COMBINATIONS_MAX || !is_kept(&smallest) {
            return;
        }
        walk(rest, &caps, is_kept, kept, asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::tests::place;

    /// `zones` zones of `nodes` nodes of `disks` backends, in one region.
    fn site(zones: u16, nodes: u16, disks: u16) -> Topology {
        let places = (0..zones * nodes * disks).map(|n| {
            let node = n / disks;
            place(n, &format!("n{node}"), &format!("z{}", node / nodes), "r")
        });
        Topology::new(places).unwrap()
    }

    #[test]
    fn one_line_per_case() {
        let check = |scheme: &str, promise: &str, topology: &Topology, expected: &str| {
            let found = feasible_caps(scheme.parse().unwrap(), &promise.parse().unwrap(), topology);
            let found = match found {
                Ok(caps) => {
                    caps.by_kind.iter().map(|(kind, cap)| format!("{kind}<={cap}")).collect::<Vec<_>>().join(" ")
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{scheme}, {promise}");
        };
        check("4+2", "backend:2", &site(1, 1, 6), "backend<=1");
        check(
            "4+2",
            "backend:2",
            &site(1, 1, 5),
            "RS(4,2) cannot promise backend:2 here: needs 6 backends, there are 5",
        );
        check(
            "4+2",
            "backend:3",
            &site(1, 1, 9),
            "RS(4,2) cannot promise backend:3 here: it survives any 2 lost shards, the scenario takes at least 3",
        );
        check("4+2", "node:1", &site(1, 3, 2), "backend<=1 node<=2");
        check("4+2", "node:2", &site(1, 6, 2), "backend<=1 node<=1");
        check("4+2", "node:1", &site(1, 2, 6), "RS(4,2) cannot promise node:1 here: needs 3 nodes, there are 2");
        check("4+2", "zone:1", &site(2, 4, 2), "RS(4,2) cannot promise zone:1 here: needs 3 zones, there are 2");
        check("4+2", "zone:1, node:2", &site(3, 4, 1), "backend<=1 node<=1 zone<=2");
        check(
            "4+2",
            "zone:1+node:1",
            &site(3, 4, 1),
            "RS(4,2) cannot promise zone:1+node:1 here: needs 6 zones, there are 3",
        );
        check("7+5", "zone:1+node:1", &site(3, 4, 1), "backend<=1 node<=1 zone<=4");
        check("2+1", "zone:1", &site(3, 1, 1), "backend<=1 zone<=1");
        check("6+6", "zone:1+node:1", &site(3, 3, 2), "backend<=1 node<=2 zone<=4");
        check("4+2", "region:1", &site(3, 4, 1), "RS(4,2) cannot promise region:1 here: needs 3 regions, there is 1");
        check("4+2", "vendor:1", &site(3, 4, 1), "RS(4,2) cannot promise vendor:1 here: needs 3 vendors, there is 1");
        // Three zones, but one of them has only one backend.
        let mut places: Vec<BackendPlace> = site(3, 4, 1).places().cloned().collect();
        places.truncate(9);
        let uneven = Topology::new(places).unwrap();
        check(
            "4+2",
            "zone:1",
            &uneven,
            "RS(4,2) cannot promise zone:1 here: only 5 of 6 shards find a place: some domains have too few backends",
        );
    }

    #[test]
    fn geo_codes_lay_their_regions_over_regions_or_zones() {
        let geo: Scheme = "geo-12".parse().unwrap();
        let regions = |nodes: u16| {
            let places = (0..3 * nodes).map(|n| place(n, &format!("n{n}"), "a", &format!("r{}", n / nodes)));
            Topology::new(places).unwrap()
        };
        let promise: Promise = "region:1+node:1".parse().unwrap();
        let caps = feasible_caps(geo, &promise, &regions(7)).unwrap();
        assert_eq!((caps.tie, caps.by_kind[&DomainKind::Region]), (Some(DomainKind::Region), 7));
        assert!(feasible_caps(geo, &promise, &regions(6)).is_err());
        // Two nodes beyond a region it survives only with two local parities.
        let two: Promise = "region:1+node:2".parse().unwrap();
        assert!(feasible_caps(geo, &two, &regions(8)).is_err());
        assert!(feasible_caps("geo-12+".parse().unwrap(), &two, &regions(8)).is_ok());
        let zones = feasible_caps(geo, &"zone:1+node:1".parse().unwrap(), &site(3, 7, 1)).unwrap();
        assert_eq!(zones.tie, Some(DomainKind::Zone));
    }

    #[test]
    fn labels_that_cut_across_are_counted_together_with_zones() {
        // Three zones, two vendors in each: zone:1 needs 2 slots a zone, vendor:1 with 3+3 at most 3 a vendor.
        let places = (0..12u16).map(|n| {
            let mut place = place(n, &format!("n{n}"), &format!("z{}", n % 3), "r");
            place.labels.insert(DomainKind::Vendor, if n % 2 == 0 { "x" } else { "y" }.to_owned());
            place
        });
        let topology = Topology::new(places).unwrap();
        let promise: Promise = "zone:1, vendor:1".parse().unwrap();
        let caps = feasible_caps("3+3".parse().unwrap(), &promise, &topology).unwrap();
        assert_eq!(caps.by_kind[&DomainKind::Vendor], 3);
        let error = feasible_caps("4+2".parse().unwrap(), &promise, &topology).unwrap_err();
        assert_eq!(error.lack, Lack::Domains { kind: DomainKind::Vendor, needed: 3, present: 2 });
    }
}
