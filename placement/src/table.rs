//! The first table of a pool, and the step from "shall be" to "is".
//!
//! Not here: changes of backends (`solver`).

use crate::candidate::{Candidate, CandidateRole};
use crate::caps::{Caps, possible_caps};
use crate::error::PlacementError;
use crate::fill::{Demand, Group, Quota, Share, quotas};
use crate::mix::Sequence;
use crate::scenario::Promise;
use crate::setting::{Setting, roomy_domains};
use crate::solver::{Ground, LayoutPlan, Task, named, solve};
use crate::topology::{Census, Topology};
use holdfast_codec::{Code, Scheme};
use holdfast_proto::pg_table::{Pg, PgTable};
use holdfast_proto::{BackendId, Epoch, PgId};
use std::collections::{BTreeMap, BTreeSet};

/// Most placement groups of a pool. Measured with n = 14 on a busy machine: a backend added to 60 with 4096 PGs is
/// planned and proven in 0.4 s, one added to 200 with 65536 PGs in 9 s. More would need a faster solver first.
pub const PG_COUNT_MAX: u32 = 1 << 16;

/// Exchanges tried per slot when the first table is shuffled: every slot is expected to change hands many times. A test
/// holds the spread of partners; the whole first table of 4096 PGs of 14 takes half a second on a busy machine.
const EXCHANGES_PER_SLOT: usize = 10;

/// Most passes over all PGs to even out how often a backend has each slot. It stops early once nothing changes.
const SLOT_PASSES_MAX: usize = 8;

/// The first table of a store that promises `backend:m` and knows nothing else of its backends; see
/// [`initial_layout`]. `n` is the number of shards of the scheme with code id `scheme`.
///
/// # Errors
/// As [`initial_layout`]; another n than the scheme's.
pub fn initial_table(
    scheme: [u8; 4],
    n: usize,
    pg_count: u32,
    candidates: &[Candidate],
) -> Result<PgTable, PlacementError> {
    let known = Scheme::from_code(scheme)?;
    if known.n() != n {
        return Err(PlacementError::SlotCount { expected: known.n(), got: n });
    }
    let promise = Promise::any_backends(known.losses_survived());
    initial_layout(known, pg_count, &promise, &Topology::of_one_node(candidates)?).map(|plan| plan.table)
}

/// The first table of a pool: epoch 1, `committed` equal to `target`, every PG on n different active backends so that
/// it keeps the promise, load by weight to within rounding as far as the promise allows, each backend with its even
/// part of every slot.
///
/// `pg_count` is a power of two up to [`PG_COUNT_MAX`]. Backends that are not active take nothing.
///
/// # Errors
/// [`PlacementError::NotEnoughBackends`] with fewer than n active backends; [`PlacementError::Infeasible`] where no
/// layout on them keeps the promise; a number of PGs that is no power of two; a table that cannot be proven.
pub fn initial_layout(
    scheme: Scheme,
    pg_count: u32,
    promise: &Promise,
    topology: &Topology,
) -> Result<LayoutPlan, PlacementError> {
    if !pg_count.is_power_of_two() || pg_count > PG_COUNT_MAX {
        return Err(PlacementError::PgCount { got: pg_count, max: PG_COUNT_MAX });
    }
    let count = |role| topology.places().filter(|place| place.role == role).count();
    let active = count(CandidateRole::Active);
    if active < scheme.n() {
        let (draining, lost) = (count(CandidateRole::Draining), count(CandidateRole::Lost));
        return Err(PlacementError::NotEnoughBackends { needed: scheme.n(), active, draining, lost });
    }
    let pg_count = usize::try_from(pg_count).unwrap_or(usize::MAX);
    let possible = possible_caps(scheme, promise, topology, &|place| place.role == CandidateRole::Active)?;
    let census = Census::new(topology, std::iter::empty());
    let dealt = possible.into_iter().map(|caps| {
        let seats = seats(&caps, scheme, topology, &census, pg_count);
        let setting = Setting::new(&caps, scheme, topology, &census, &seats);
        ((setting.deviation_steps(&census), caps.clone()), setting)
    });
    let Some((_, setting)) = dealt.min_by(|(a, _), (b, _)| a.cmp(b)) else {
        return Err(PlacementError::NotEnoughBackends { needed: scheme.n(), active, draining: 0, lost: 0 });
    };
    let order = by_place(topology, &census);
    let quotas = setting.quotas(&census, &[]);
    let mut pgs = deal(&quotas, &order, &setting, scheme.n(), pg_count);
    let classes = setting.tie.as_ref().map_or_else(|| vec![0; scheme.n()], |tie| tie.class_of.clone());
    exchange(&mut pgs, &setting, &classes);
    let list = |pg: &Vec<usize>| pg.iter().map(|&backend| census.ids[backend]).collect::<Vec<BackendId>>();
    let lists = |pg| Pg { committed: list(pg), target: list(pg) };
    let table = PgTable { epoch: Epoch(0), scheme: scheme.code(), pgs: pgs.iter().map(lists).collect() };
    // What dealing by nested domains leaves to do: labels that cut across them.
    let census = Census::new(topology, named(&table));
    let mut plan = solve(&Task { table: &table, scheme, promise, topology, census }, Ground::Fresh)?;
    settle_slots(&mut plan.table, &classes);
    plan.proof = crate::proof::prove_targets(&plan.table, promise, topology)?;
    Ok(plan)
}

/// Orders the slots of each PG evenly, and makes its targets what it is.
fn settle_slots(table: &mut PgTable, classes: &[usize]) {
    let ids: Vec<BackendId> =
        table.pgs.iter().flat_map(|pg| pg.target.iter().copied()).collect::<BTreeSet<_>>().into_iter().collect();
    let index: BTreeMap<BackendId, usize> = ids.iter().enumerate().map(|(index, id)| (*id, index)).collect();
    let mut pgs: Vec<Vec<usize>> = table.pgs.iter().map(|pg| pg.target.iter().map(|id| index[id]).collect()).collect();
    even_slots(&mut pgs, ids.len(), classes);
    for (pg, slots) in table.pgs.iter_mut().zip(pgs) {
        pg.target = slots.into_iter().map(|index| ids[index]).collect();
        pg.committed.clone_from(&pg.target);
    }
}

/// The table once all shards of these PGs are where they shall be: epoch one higher, their `committed` becomes their
/// `target`. Ids that are not of this table are left out.
pub fn commit_pgs(table: &PgTable, pgs: &[PgId]) -> PgTable {
    let done: BTreeSet<usize> = pgs.iter().filter_map(|pg| usize::try_from(pg.0).ok()).collect();
    let mut next = table.clone();
    next.epoch = Epoch(table.epoch.0.saturating_add(1));
    for (index, pg) in next.pgs.iter_mut().enumerate() {
        if done.contains(&index) {
            pg.committed.clone_from(&pg.target);
        }
    }
    next
}

/// Where the classes of a tied code get their homes: one backend of the right domain for each slot, to be read by
/// [`Setting::new`]. Domains get PGs by weight, and each class in turn. Without a tie any backends will do.
fn seats(caps: &Caps, scheme: Scheme, topology: &Topology, census: &Census, pg_count: usize) -> Vec<Vec<usize>> {
    let code = Code::new(scheme);
    let Some(kind) = caps.tie else { return vec![vec![0; scheme.n()]; pg_count] };
    let domain_of = census.division(topology, kind).domain_of;
    let roomy = roomy_domains(kind, caps, &code, topology, census, &domain_of);
    let active = || census.with_role(CandidateRole::Active);
    let weight = |domain: usize| {
        active().filter(|&b| domain_of[b] == domain).map(|b| census.weights[b]).fold(0, u64::saturating_add)
    };
    let shares: Vec<Share> =
        roomy.iter().map(|&domain| Share { weight: weight(domain), held: 0, most: pg_count }).collect();
    let blocks = quotas(&Demand { slots: pg_count * code.regions(), shares: &shares, groups: &[] as &[Group] });
    let mut homes: Vec<Vec<usize>> = vec![Vec::new(); pg_count];
    let mut next = 0;
    for (domain, quota) in blocks.iter().enumerate() {
        for _ in 0..quota.slots {
            homes[next % pg_count].push(domain);
            next += 1;
        }
    }
    let representative = |domain: usize| active().find(|&backend| domain_of[backend] == domain).unwrap_or(0);
    let of_pg = |(pg, homes): (usize, &Vec<usize>)| {
        let home = |slot| {
            let class = code.region_of(slot).unwrap_or(0);
            homes.get((class + pg) % homes.len().max(1)).map_or(0, |&home| representative(roomy[home]))
        };
        (0..scheme.n()).map(home).collect()
    };
    homes.iter().enumerate().map(of_pg).collect()
}

/// Active backends so that those of a domain stand together, for each of the nested kinds.
fn by_place(topology: &Topology, census: &Census) -> Vec<usize> {
    let mut order: Vec<usize> = census.with_role(CandidateRole::Active).collect();
    order.sort_by_key(|&backend| {
        let place = topology.place(census.ids[backend]);
        place.map(|place| (&place.geography, &place.region, &place.zone, &place.node, backend))
    });
    order
}

/// Deals each backend's quota out over consecutive PGs (of a tie: over those with a class at home in its domain), round
/// and round. No quota is above the number of PGs, so none meets a PG twice; and as the backends of a domain stand
/// together, none meets a domain more often than its cap. (McNaughton's wrap-around rule, 1959.)
fn deal(
    quotas: &[Option<Quota>],
    order: &[usize],
    setting: &Setting,
    slot_count: usize,
    pg_count: usize,
) -> Vec<Vec<usize>> {
    // (PG, its slots) by home; one home for all without a tie.
    let mut blocks: BTreeMap<usize, Vec<(usize, Vec<usize>)>> = BTreeMap::new();
    for pg in 0..pg_count {
        match &setting.tie {
            None => blocks.entry(0).or_default().push((pg, (0..slot_count).collect())),
            Some(tie) => {
                for (class, &home) in tie.homes[pg].iter().enumerate() {
                    let slots = (0..slot_count).filter(|&slot| tie.class_of[slot] == class).collect();
                    blocks.entry(home).or_default().push((pg, slots));
                }
            }
        }
    }
    let mut pgs = vec![vec![order.first().copied().unwrap_or(0); slot_count]; pg_count];
    let mut dealt: BTreeMap<usize, usize> = BTreeMap::new();
    for &backend in order {
        let home = setting.tie.as_ref().map_or(0, |tie| tie.domain_of[backend]);
        let Some(blocks) = blocks.get(&home) else { continue };
        let next = dealt.entry(home).or_default();
        for _ in 0..quotas[backend].map_or(0, |quota| quota.slots) {
            let (pg, slots) = &blocks[*next % blocks.len()];
            if let Some(&slot) = slots.get(*next / blocks.len()) {
                pgs[*pg][slot] = backend;
            }
            *next += 1;
        }
    }
    pgs
}

/// Exchanges slots between PGs at random, so that a backend shares PGs with all others and its repair reads from all
/// of them. Loads stay as they are, no domain comes above its cap, and tied slots change hands only within their domain.
fn exchange(pgs: &mut [Vec<usize>], setting: &Setting, classes: &[usize]) {
    let slots: usize = pgs.iter().map(Vec::len).sum();
    let mut sequence = Sequence::new(1);
    for _ in 0..slots * EXCHANGES_PER_SLOT {
        let (a, b) = (sequence.below(pgs.len()), sequence.below(pgs.len()));
        let (x, y) = (sequence.below(pgs[a].len()), sequence.below(pgs[b].len()));
        let (left, right) = (pgs[a][x], pgs[b][y]);
        let may_take = |pg: &[usize], slot: usize, taker: usize| {
            // The first limit is that of backends, which stand for themselves.
            !pg.contains(&taker)
                && setting.limits.limits.iter().skip(1).all(|limit| {
                    let domain = limit.domain_of[taker];
                    let others = pg
                        .iter()
                        .enumerate()
                        .filter(|&(other, &held)| other != slot && limit.domain_of[held] == domain);
                    others.count() < usize::from(limit.cap)
                })
        };
        let is_tied_alike = setting.tie.as_ref().is_none_or(|tie| tie.domain_of[left] == tie.domain_of[right]);
        let may_swap = a != b && left != right && is_tied_alike && classes[x] == classes[y];
        if may_swap && may_take(&pgs[a], x, right) && may_take(&pgs[b], y, left) {
            pgs[a][x] = right;
            pgs[b][y] = left;
        }
    }
}

/// Orders each PG so that every backend has each slot about equally often: reads go to data slots first, so a backend
/// with data slots only would serve more than its part. Swaps two slots of a class whenever that evens out their two
/// backends.
fn even_slots(pgs: &mut [Vec<usize>], backend_count: usize, classes: &[usize]) {
    let slot_count = pgs.first().map_or(0, Vec::len);
    if classes.iter().all(|&class| class == 0) {
        for (index, pg) in pgs.iter_mut().enumerate() {
            pg.rotate_left(index % slot_count.max(1));
        }
    }
    let mut held = vec![vec![0i64; slot_count]; backend_count];
    for pg in pgs.iter() {
        for (slot, &backend) in pg.iter().enumerate() {
            held[backend][slot] += 1;
        }
    }
    let pairs = (0..slot_count).flat_map(|x| (x + 1..slot_count).map(move |y| (x, y)));
    let pairs: Vec<(usize, usize)> = pairs.filter(|&(x, y)| classes[x] == classes[y]).collect();
    for _ in 0..SLOT_PASSES_MAX {
        let mut is_changed = false;
        for pg in pgs.iter_mut() {
            for &(x, y) in &pairs {
                let (a, b) = (pg[x], pg[y]);
                // Half the change of the sum of squares when a goes from slot x to y and b from y to x.
                let change = held[a][y] - held[a][x] + 1 + held[b][x] - held[b][y] + 1;
                if change < 0 {
                    pg.swap(x, y);
                    held[a][x] -= 1;
                    held[a][y] += 1;
                    held[b][y] -= 1;
                    held[b][x] += 1;
                    is_changed = true;
                }
            }
        }
        if !is_changed {
            return;
        }
    }
}
