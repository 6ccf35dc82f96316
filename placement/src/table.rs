//! The first table of a pool, and the step from "shall be" to "is".
//!
//! Not here: changes of backends (`solver`).

use crate::candidate::{Candidate, CandidateRole};
use crate::error::PlacementError;
use crate::mix::Sequence;
use crate::proof::prove;
use crate::quota::{Quota, Share, quotas};
use crate::solver::by_id;
use holdfast_codec::Scheme;
use holdfast_proto::pg_table::{Pg, PgTable};
use holdfast_proto::{BackendId, Epoch, PgId};
use std::collections::BTreeSet;

/// Most placement groups of a pool. 4096 are enough for 1000 backends (some 25 slots each at n = 6); 65536 leave room
/// and keep a table of 20 slots at 42 MB.
pub const PG_COUNT_MAX: u32 = 1 << 16;

/// Exchanges per slot when the first table is shuffled. After 3 to 4 the partners of a backend are as random as they
/// get; 10 cost 20 ms for 4096 PGs of 14.
const EXCHANGES_PER_SLOT: usize = 10;

/// Passes over all PGs to even out how often a backend has each slot; it stops changing after 3 to 5.
const SLOT_PASSES_MAX: usize = 8;

/// The first table of a pool: epoch 1, `committed` equal to `target`, every PG on n different active backends, load by
/// weight to within rounding, each backend with its even part of every slot.
///
/// `scheme` is the code id of what will be written, `n` its number of shards, `pg_count` a power of two up to
/// [`PG_COUNT_MAX`]. Candidates that are not active take nothing.
///
/// # Errors
/// [`PlacementError::NotEnoughBackends`] with fewer than n active candidates; an unknown scheme, another n than the
/// scheme's; a number of PGs that is no power of two; a candidate given twice.
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
    if !pg_count.is_power_of_two() || pg_count > PG_COUNT_MAX {
        return Err(PlacementError::PgCount { got: pg_count, max: PG_COUNT_MAX });
    }
    let candidates = by_id(candidates)?;
    let active: Vec<&Candidate> = candidates.values().filter(|c| c.role == CandidateRole::Active).collect();
    if active.len() < n {
        let count = |role| candidates.values().filter(|c| c.role == role).count();
        let (draining, lost) = (count(CandidateRole::Draining), count(CandidateRole::Lost));
        return Err(PlacementError::NotEnoughBackends { needed: n, active: active.len(), draining, lost });
    }

    let pg_count = usize::try_from(pg_count).unwrap_or(usize::MAX);
    let shares: Vec<Share> = active.iter().map(|c| Share { weight: c.weight_bytes, held: 0 }).collect();
    let mut pgs = deal(&quotas(&shares, pg_count * n, pg_count), pg_count);
    exchange(&mut pgs);
    even_slots(&mut pgs, active.len());

    let list = |pg: &Vec<usize>| pg.iter().map(|&backend| active[backend].id).collect::<Vec<BackendId>>();
    let pgs = pgs.iter().map(|pg| Pg { committed: list(pg), target: list(pg) }).collect();
    let table = PgTable { epoch: Epoch(1), scheme, pgs };
    prove(&table, n, known.m())?;
    Ok(table)
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

/// Deals each backend's quota out over consecutive PGs, round and round. No quota is above the number of PGs, so none
/// meets a PG twice. (McNaughton's wrap-around rule, 1959.)
fn deal(quotas: &[Quota], pg_count: usize) -> Vec<Vec<usize>> {
    let mut pgs = vec![Vec::new(); pg_count];
    let mut next = 0;
    for (backend, &quota) in quotas.iter().enumerate() {
        for _ in 0..quota.slots {
            pgs[next % pg_count].push(backend);
            next += 1;
        }
    }
    pgs
}

/// Exchanges slots between PGs at random, so that a backend shares PGs with all others and its repair reads from all
/// of them. Loads stay as they are, and no PG gets a backend twice.
fn exchange(pgs: &mut [Vec<usize>]) {
    let slots: usize = pgs.iter().map(Vec::len).sum();
    let mut sequence = Sequence::new(1);
    for _ in 0..slots * EXCHANGES_PER_SLOT {
        let (a, b) = (sequence.below(pgs.len()), sequence.below(pgs.len()));
        let (x, y) = (sequence.below(pgs[a].len()), sequence.below(pgs[b].len()));
        let (left, right) = (pgs[a][x], pgs[b][y]);
        if !pgs[a].contains(&right) && !pgs[b].contains(&left) {
            pgs[a][x] = right;
            pgs[b][y] = left;
        }
    }
}

/// Orders each PG so that every backend has each slot about equally often: reads go to data slots first, so a backend
/// with data slots only would serve more than its part. Swaps two slots whenever that evens out their two backends.
fn even_slots(pgs: &mut [Vec<usize>], backend_count: usize) {
    let slot_count = pgs.first().map_or(0, Vec::len);
    for (index, pg) in pgs.iter_mut().enumerate() {
        pg.rotate_left(index % slot_count.max(1));
    }
    let mut held = vec![vec![0i64; slot_count]; backend_count];
    for pg in pgs.iter() {
        for (slot, &backend) in pg.iter().enumerate() {
            held[backend][slot] += 1;
        }
    }
    for _ in 0..SLOT_PASSES_MAX {
        let mut is_changed = false;
        for pg in pgs.iter_mut() {
            for (x, y) in (0..slot_count).flat_map(|x| (x + 1..slot_count).map(move |y| (x, y))) {
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
