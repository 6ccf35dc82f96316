//! What a plan costs and risks, before it is applied: shards and bytes by the links they cross, how near that is to the
//! least there could be, how even the fill becomes, and which scenarios hold before, during and after.
//!
//! Not here: time and money (they need speeds and prices), carrying it out (`coordinator`).

use crate::candidate::CandidateRole;
use crate::domain::DomainKind;
use crate::error::PlacementError;
use crate::loss_case::PgSide;
use crate::proof::{Counterexample, Examiner, numbered};
use crate::scenario::Scenario;
use crate::setting::Setting;
use crate::solver::{LayoutPlan, check_shape, named, slots_changed};
use crate::topology::{Census, Topology};
use holdfast_codec::Scheme;
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::{BackendId, Epoch};
use std::collections::{BTreeMap, BTreeSet};

/// Shards and bytes over one kind of link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkLoad {
    /// Slots of PGs: every segment of the PG moves one shard for each.
    pub slots: usize,
    /// Bytes, by the sizes given.
    pub bytes: u64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct MoveSummary {
    /// Epoch of the layout the plan was made from.
    pub base: Epoch,
    /// Slots whose target changes; some come from lost backends and are rebuilt.
    pub slots: usize,
    /// The fewest slots whose change could bring the same fill.
    pub least_slots: usize,
    /// Copied within a node.
    pub same_node: LinkLoad,
    /// Copied between nodes of a zone.
    pub same_zone: LinkLoad,
    /// Copied between zones of a region.
    pub same_region: LinkLoad,
    /// Copied between regions.
    pub wan: LinkLoad,
    /// Rebuilt from the other shards of their segments, because where they were is lost.
    pub rebuilt: LinkLoad,
    /// Slots that stay on a lost or draining backend, because no other was found.
    pub unhoused: usize,
    /// The fullest active backend before, as a multiple of its share.
    pub worst_fill_before: f64,
    /// The fullest active backend after.
    pub worst_fill_after: f64,
    /// What holds at each step, besides what is lost already.
    pub scenarios: Vec<ScenarioSteps>,
}

/// When a scenario of the promise holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioSteps {
    /// Which.
    pub scenario: Scenario,
    /// Where shards are now.
    pub before: bool,
    /// While they move, in every mixture of old and new places.
    pub during: bool,
    /// When all have moved.
    pub after: bool,
}

/// Sums up what `plan` changes on `before`, the table it was made from. `shard_bytes` are the bytes one slot of each PG
/// holds; PGs it does not reach count as 0.
///
/// # Errors
/// A table that is damaged or of another scheme.
pub fn summarize_moves(
    before: &PgTable,
    plan: &LayoutPlan,
    topology: &Topology,
    shard_bytes: &[u64],
) -> Result<MoveSummary, PlacementError> {
    let after = &plan.table;
    let scheme = Scheme::from_code(after.scheme)?;
    check_shape(before, scheme.n())?;
    check_shape(after, scheme.n())?;
    let census = Census::new(topology, named(before).chain(named(after)));
    let is_lost = |id: BackendId| census.roles.get(census.index(id)) == Some(&CandidateRole::Lost);

    let [mut same_node, mut same_zone, mut same_region, mut wan, mut rebuilt] = [LinkLoad::default(); 5];
    for (number, (old, new)) in before.pgs.iter().zip(&after.pgs).enumerate() {
        let bytes = shard_bytes.get(number).copied().unwrap_or(0);
        for slot in (0..scheme.n()).filter(|&slot| old.target[slot] != new.target[slot]) {
            let (from, to) = (old.committed[slot], new.target[slot]);
            if from == to {
                // It was to leave, and stays.
                continue;
            }
            let load = match (is_lost(from), narrowest_common(topology, from, to)) {
                (true, _) => &mut rebuilt,
                (_, Some(DomainKind::Backend | DomainKind::Node)) => &mut same_node,
                (_, Some(DomainKind::Zone)) => &mut same_zone,
                (_, Some(DomainKind::Region)) => &mut same_region,
                _ => &mut wan,
            };
            load.slots += 1;
            load.bytes = load.bytes.saturating_add(bytes);
        }
    }

    let targets: Vec<Vec<usize>> =
        after.pgs.iter().map(|pg| pg.target.iter().map(|id| census.index(*id)).collect()).collect();
    let ideal = Setting::new(&plan.caps, scheme, topology, &census, &targets).ideal(&census);
    let lost: BTreeSet<BackendId> = census.ids.iter().copied().filter(|id| is_lost(*id)).collect();
    Ok(MoveSummary {
        base: plan.base,
        slots: slots_changed(before, after),
        least_slots: least_slots(before, &ideal),
        same_node,
        same_zone,
        same_region,
        wan,
        rebuilt,
        unhoused: plan.unhoused,
        worst_fill_before: worst_fill(before, &ideal),
        worst_fill_after: worst_fill(after, &ideal),
        scenarios: steps(plan, topology, &lost)?,
    })
}

/// The narrowest nested domain both are in; `None` if they have no region in common, or one is unknown.
fn narrowest_common(topology: &Topology, a: BackendId, b: BackendId) -> Option<DomainKind> {
    if a == b {
        return Some(DomainKind::Backend);
    }
    let (a, b) = (topology.place(a)?, topology.place(b)?);
    [DomainKind::Node, DomainKind::Zone, DomainKind::Region].into_iter().find(|&kind| a.domain(kind) == b.domain(kind))
}

fn loads(table: &PgTable) -> BTreeMap<BackendId, usize> {
    let mut loads = BTreeMap::new();
    for id in table.pgs.iter().flat_map(|pg| &pg.target) {
        *loads.entry(*id).or_default() += 1;
    }
    loads
}

/// Whoever holds more than its share rounded up must give the rest away, whoever holds less than its share rounded down
/// must be given it; one move can do one of each.
fn least_slots(table: &PgTable, ideal: &BTreeMap<BackendId, f64>) -> usize {
    // A share of 12.0000001 slots is 12.
    const GRAIN: f64 = 1e-6;
    let loads = loads(table);
    let share = |id: &BackendId| ideal.get(id).copied().unwrap_or(0.0);
    let float = |load: usize| f64::from(u32::try_from(load).unwrap_or(u32::MAX));
    let above: f64 = loads.iter().map(|(id, load)| (float(*load) - (share(id) - GRAIN).ceil()).max(0.0)).sum();
    let held = |id: &BackendId| float(loads.get(id).copied().unwrap_or(0));
    let below: f64 = ideal.iter().map(|(id, share)| ((share + GRAIN).floor() - held(id)).max(0.0)).sum();
    let least = above.max(below);
    // Whole numbers below 2^24.
    (0..=table.pgs.len() * table.pgs.first().map_or(0, |pg| pg.target.len())).rfind(|&n| float(n) <= least).unwrap_or(0)
}

fn worst_fill(table: &PgTable, ideal: &BTreeMap<BackendId, f64>) -> f64 {
    let loads = loads(table);
    let fill = |(id, share): (&BackendId, &f64)| {
        let load = f64::from(u32::try_from(loads.get(id).copied().unwrap_or(0)).unwrap_or(u32::MAX));
        if *share > 0.0 { load / share } else { 0.0 }
    };
    ideal.iter().map(fill).fold(0.0, f64::max)
}

fn steps(
    plan: &LayoutPlan,
    topology: &Topology,
    lost: &BTreeSet<BackendId>,
) -> Result<Vec<ScenarioSteps>, Counterexample> {
    let mut examiner = Examiner::new(&plan.table, topology)?;
    let mut holds = |side: PgSide, scenario: &Scenario| {
        numbered(&plan.table).all(|(id, pg)| examiner.check(id, pg, side, scenario, lost).is_ok())
    };
    let scenarios = plan.proof.promise.scenarios().iter().map(|scenario| ScenarioSteps {
        before: holds(PgSide::Committed, scenario),
        during: holds(PgSide::Moving, scenario),
        after: holds(PgSide::Target, scenario),
        scenario: scenario.clone(),
    });
    Ok(scenarios.collect())
}
