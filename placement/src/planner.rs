//! Turns a promise into a code: every scheme whose layouts can keep it on this topology, the cheapest first, each with
//! what it costs and survives; and what could not be promised, and why.
//!
//! Not here: text for people (`cli`), making the layout (`table`).
//!
//! **Invariant:** no scheme is offered unless there are caps under which it keeps the promise on these backends. What
//! is offered still has to be proven as a layout: a geo code, or labels that cut across each other, may fail there.

use crate::candidate::CandidateRole;
use crate::caps::{Caps, Infeasible, Lack, feasible_caps, losses_beyond};
use crate::domain::DomainKind;
use crate::durability::{Hazards, Spread, nines};
use crate::scenario::{Promise, Scenario};
use crate::topology::{BackendPlace, Topology};
use holdfast_codec::{Code, Codec, GeoTable, Scheme, SlotSet};

/// Offers for which it is asked whether they could stand the loss of a node for good: enough for a page.
const OFFERS_JUDGED_MAX: usize = 16;

/// Bounds within which schemes are looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlannerLimits {
    /// Most shards of a segment: wide stripes read from as many backends, and a small object becomes as many pieces.
    pub shards_max: usize,
    /// Most data shards.
    pub data_shards_max: usize,
    /// Most parity shards.
    pub parity_shards_max: usize,
    /// Schemes with fewer nines (without loss of a region) are ranked behind all others.
    pub nines_min: f64,
}

impl Default for PlannerLimits {
    /// Stripes of up to 24 shards; eleven nines, which is what object stores advertise.
    fn default() -> Self {
        Self { shards_max: 24, data_shards_max: 16, parity_shards_max: 12, nines_min: 11.0 }
    }
}

/// A scheme that can keep the promise.
#[derive(Clone, Debug, PartialEq)]
pub struct SchemeOffer {
    /// The scheme.
    pub scheme: Scheme,
    /// Caps under which it keeps the promise.
    pub caps: Caps,
    /// Bytes stored for each byte of data.
    pub overhead: f64,
    /// Any so many lost shards are survived.
    pub survives: usize,
    /// Whether a lost shard is mended from within a local group.
    pub is_local: bool,
    /// Shards read to rebuild a lost one, on average: times the shard's size, the bytes.
    pub repair_reads: f64,
    /// Of these, shards that come from other regions, if whole shards are sent.
    pub repair_reads_across_regions: f64,
    /// Nines of durability a year, by [`Hazards`], while no region is lost.
    pub nines: f64,
    /// The same with regions that are lost for good; `None` on a topology of one region.
    pub nines_with_region_loss: Option<f64>,
    /// Whether the promise can be kept again after the largest node is lost for good, on the nodes that are left; not
    /// asked beyond the first few offers.
    pub has_spare_node: Option<bool>,
}

/// The answer of the planner.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyPlan {
    /// The promise.
    pub promise: Promise,
    /// What the figures were computed from.
    pub hazards: Hazards,
    /// Schemes that keep it: the first is the one to take, the others are runners-up.
    pub offers: Vec<SchemeOffer>,
    /// Scenarios that no scheme within the limits can keep here, each with the lack that is least.
    pub unkept: Vec<Infeasible>,
}

/// Ranks the schemes that keep `promise` on `topology`: enough nines first, then the least overhead, then the fewest
/// reads across regions and in all for a repair, then the most nines.
pub fn plan_policy(topology: &Topology, promise: &Promise, limits: &PlannerLimits, hazards: &Hazards) -> PolicyPlan {
    let schemes = schemes(limits);
    let mut offers: Vec<SchemeOffer> = schemes
        .iter()
        .filter_map(|&scheme| {
            let promise = promise.or_any_backends(scheme.losses_survived());
            feasible_caps(scheme, &promise, topology).ok().map(|caps| offer(scheme, caps, topology, hazards))
        })
        .collect();
    let few = |offer: &SchemeOffer| offer.nines < limits.nines_min;
    offers.sort_by(|a, b| {
        let order = few(a).cmp(&few(b)).then(a.overhead.total_cmp(&b.overhead));
        let order = order.then(a.repair_reads_across_regions.total_cmp(&b.repair_reads_across_regions));
        let order = order.then(a.repair_reads.total_cmp(&b.repair_reads)).then(b.nines.total_cmp(&a.nines));
        order.then(a.scheme.cmp(&b.scheme))
    });
    let smaller = without_largest_node(topology);
    for offer in offers.iter_mut().take(OFFERS_JUDGED_MAX) {
        let promise = promise.or_any_backends(offer.survives);
        offer.has_spare_node = Some(feasible_caps(offer.scheme, &promise, &smaller).is_ok());
    }
    let unkept = promise.scenarios().iter().filter_map(|scenario| unkept(scenario, &schemes, topology)).collect();
    PolicyPlan { promise: promise.clone(), hazards: *hazards, offers, unkept }
}

/// The strongest of the usual promises that a scheme can keep on a topology: what a cluster promises unless it is told.
/// Empty (any m backends) if its backends stand together so that no other can be kept.
pub fn strongest_promise(scheme: Scheme, topology: &Topology) -> Promise {
    // With one backend more a domain may fail and writes still go on, as they need one shard beyond those that decode.
    let usual = [
        "region:1+node:1",
        "region:1+backend:1",
        "region:1",
        "zone:1+node:1",
        "zone:1+backend:1",
        "zone:1",
        "node:2",
        "node:1+backend:1",
        "node:1",
    ];
    let promises = usual.iter().filter_map(|text| text.parse::<Promise>().ok());
    let mut kept = promises.filter(|promise| feasible_caps(scheme, promise, topology).is_ok());
    kept.next().unwrap_or_default()
}

fn schemes(limits: &PlannerLimits) -> Vec<Scheme> {
    let mut found = Vec::new();
    for k in 1..=limits.data_shards_max {
        for m in 1..=limits.parity_shards_max {
            found.extend(Scheme::reed_solomon(k, m));
        }
        if k >= 4 {
            found.extend(Scheme::lrc(k, 2, 2));
        }
    }
    found.extend(GeoTable::ALL.map(Scheme::geo));
    found.retain(|scheme| scheme.n() <= limits.shards_max && scheme.k() <= limits.data_shards_max);
    found
}

fn offer(scheme: Scheme, caps: Caps, topology: &Topology, hazards: &Hazards) -> SchemeOffer {
    let regions = topology.domains(DomainKind::Region).len();
    let spread = spread(scheme, &caps, regions);
    let reads = repair_reads(scheme);
    let is_local = reads < float(scheme.k());
    let tied_regions = caps.tie == Some(DomainKind::Region);
    let in_region = spread.shards_in_region.saturating_sub(1);
    let across = match regions {
        0 | 1 => 0.0,
        _ if tied_regions && is_local => 0.0,
        _ => (reads - float(in_region)).max(0.0),
    };
    SchemeOffer {
        scheme,
        overhead: float(scheme.n()) / float(scheme.k()),
        survives: scheme.losses_survived(),
        is_local,
        repair_reads: reads,
        repair_reads_across_regions: across,
        nines: nines(hazards.losses_per_year(&spread)),
        nines_with_region_loss: (regions > 1).then(|| nines(hazards.losses_per_year_with_regions(&spread))),
        has_spare_node: None,
        caps,
    }
}

/// How the shards lie over regions: as the caps allow at the worst, or evenly where none names regions.
fn spread(scheme: Scheme, caps: &Caps, regions: usize) -> Spread {
    let (n, survives) = (scheme.n(), scheme.losses_survived());
    let even = n.div_ceil(regions.max(1));
    let in_region = caps.by_kind.get(&DomainKind::Region).copied().unwrap_or(even).clamp(even.min(n), n);
    let beyond = match caps.tie {
        Some(DomainKind::Region) => losses_beyond(&Code::new(scheme), 1),
        _ => survives.checked_sub(in_region),
    };
    Spread { shards: n, survives, regions, shards_in_region: in_region, survives_beyond_region: beyond }
}

/// Shards read to rebuild one lost shard, on average over which one it is.
fn repair_reads(scheme: Scheme) -> f64 {
    if scheme.is_mds() {
        return float(scheme.k());
    }
    let codec = Codec::new(scheme);
    let all = SlotSet::first(scheme.n());
    let reads = |slot: usize| {
        let missing = SlotSet::from_iter([slot]);
        let plan = codec.repair_plan(&missing, &all.difference(&missing), &[]);
        plan.map_or(scheme.k(), |plan| plan.read.len())
    };
    float((0..scheme.n()).map(reads).sum()) / float(scheme.n())
}

/// The topology as if the node with most weight were lost.
fn without_largest_node(topology: &Topology) -> Topology {
    let active = |id| topology.place(id).filter(|place| place.role == CandidateRole::Active);
    let weight = |ids: &Vec<holdfast_proto::BackendId>| {
        ids.iter().filter_map(|id| active(*id)).map(|place| place.weight_bytes).fold(0, u64::saturating_add)
    };
    let nodes = topology.domains(DomainKind::Node);
    let largest = nodes.iter().max_by_key(|(_, ids)| (weight(ids), ids.len())).map(|(node, _)| node.clone());
    topology.with(|place: &mut BackendPlace| {
        if Some(place.domain(DomainKind::Node)) == largest {
            place.role = CandidateRole::Lost;
        }
    })
}

/// The least lack of all schemes for one scenario by itself; `None` if one can keep it.
fn unkept(scenario: &Scenario, schemes: &[Scheme], topology: &Topology) -> Option<Infeasible> {
    let alone = Promise::new([scenario.clone()]).ok()?;
    let mut least: Option<(usize, Infeasible)> = None;
    for &scheme in schemes {
        let Err(refused) = feasible_caps(scheme, &alone, topology) else { return None };
        let missing = match refused.lack {
            Lack::Domains { needed, present, .. } => needed.saturating_sub(present),
            Lack::Room { fits, needed } => needed.saturating_sub(fits),
            // More parity would help, which another scheme has.
            Lack::Code { .. } | Lack::Together => usize::MAX,
        };
        if least.as_ref().is_none_or(|(known, _)| missing < *known) {
            least = Some((missing, refused));
        }
    }
    least.map(|(_, refused)| refused)
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::tests::place;

    fn regions(count: u16, nodes: u16) -> Topology {
        let places = (0..count * nodes).map(|n| place(n, &format!("n{n}"), "a", &format!("r{}", n / nodes)));
        Topology::new(places).unwrap()
    }

    fn plan(topology: &Topology, promise: &str) -> PolicyPlan {
        plan_policy(topology, &promise.parse().unwrap(), &PlannerLimits::default(), &Hazards::default())
    }

    fn offered<'a>(plan: &'a PolicyPlan, scheme: &str) -> Option<&'a SchemeOffer> {
        plan.offers.iter().find(|offer| offer.scheme == scheme.parse().unwrap())
    }

    #[test]
    fn offers_are_ranked_and_all_keep_the_promise() {
        let topology = regions(3, 7);
        let plan = plan(&topology, "region:1+node:1");
        let first = &plan.offers[0];
        assert!(first.nines >= 11.0);
        for pair in plan.offers.windows(2).filter(|pair| pair[1].nines >= 11.0) {
            assert!(pair[0].overhead <= pair[1].overhead);
        }
        for offer in &plan.offers {
            assert!(feasible_caps(offer.scheme, &plan.promise, &topology).is_ok());
        }
        let (mds, geo) = (offered(&plan, "7+5").unwrap(), offered(&plan, "geo-12").unwrap());
        assert!((mds.overhead - 12.0 / 7.0).abs() < 1e-9 && (geo.overhead - 1.75).abs() < 1e-9);
        assert_eq!((mds.repair_reads, mds.repair_reads_across_regions), (7.0, 4.0));
        assert_eq!((geo.repair_reads, geo.repair_reads_across_regions, geo.is_local), (6.0, 0.0, true));
        // Losing a region for good leaves one more loss to 7+5; the figure says so.
        assert!(mds.nines - mds.nines_with_region_loss.unwrap() > 3.0);
        assert!(offered(&plan, "4+2").is_none());
        assert!(plan.unkept.is_empty());
    }

    #[test]
    fn what_cannot_be_promised_is_said_with_what_is_missing() {
        let two = plan(&regions(2, 3), "region:1");
        assert!(offered(&two, "1+1").is_some(), "a mirror survives a region of two");
        assert!(two.offers.iter().all(|offer| offer.overhead >= 2.0));
        let one = plan(&regions(1, 6), "node:1, region:1");
        assert!(one.offers.is_empty());
        let reasons: Vec<String> = one.unkept.iter().map(Infeasible::to_string).collect();
        assert_eq!(reasons, ["RS(1,1) cannot promise region:1 here: needs 2 regions, there is 1"]);
    }

    #[test]
    fn a_spare_node_is_told_and_the_strongest_promise_found() {
        let six = plan(&regions(1, 6), "node:2");
        let spare = |scheme: &str| offered(&six, scheme).and_then(|offer| offer.has_spare_node);
        assert_eq!((spare("4+2"), spare("3+2")), (Some(false), Some(true)));
        let strongest =
            |scheme: &str, topology: &Topology| strongest_promise(scheme.parse().unwrap(), topology).to_string();
        assert_eq!(strongest("7+5", &regions(3, 4)), "region:1+node:1");
        assert_eq!(strongest("4+2", &regions(3, 4)), "region:1");
        assert_eq!(strongest("4+2", &regions(1, 6)), "node:2");
        let one_node = Topology::new((0..6).map(|n| place(n, "n", "a", "r"))).unwrap();
        assert_eq!(strongest("4+2", &one_node), "");
    }
}
