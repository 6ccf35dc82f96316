//! The proof that a table survives the loss of any m backends, or the loss that breaks it.
//!
//! Every PG is checked, both as it is and as it shall be, against every set of m of its backends: with them lost, the
//! code must still decode what is left. PGs whose slots share backends in the same way are one case (all PGs of a sound
//! table are: every slot has a backend of its own), so a table of 4096 PGs costs one run over the sets.
//!
//! **Invariant:** judged by the codec's own `decodable`, never by counting alone, unless the sets are too many to walk;
//! then [`Proof::is_exhaustive`] is false and the argument is that the code is MDS, where only the number lost counts.

use holdfast_codec::{Codec, Scheme, SchemeError, SlotSet};
use holdfast_proto::pg_table::PgTable;
use holdfast_proto::{BackendId, PgId};
use std::collections::BTreeSet;

/// Most loss sets walked one by one for one case: about a second. RS(20,10) has 30 million; RS(17,3) has 1140.
const LOSS_SETS_MAX: u64 = 20_000_000;

/// That a table keeps its promise, and how that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// How many backends may be lost at once.
    pub losses: usize,
    /// How many PGs were checked, each as it is and as it shall be.
    pub pg_count: usize,
    /// In how many different ways slots share backends; 1 for a sound table.
    pub cases: usize,
    /// How many loss sets the codec was asked about.
    pub loss_sets: u64,
    /// Whether every loss set of every case was walked; else the rest follows from the code being MDS.
    pub is_exhaustive: bool,
}

/// Which of a PG's two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PgSide {
    /// Where shards are.
    Committed,
    /// Where shards shall be.
    Target,
}

impl std::fmt::Display for PgSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Committed => "committed",
            Self::Target => "target",
        })
    }
}

/// Why a table does not keep its promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Counterexample {
    /// The table's code is not known to this build, so nothing can be said.
    #[error("the table cannot be judged: {0}")]
    Scheme(#[from] SchemeError),
    /// The table has no PG.
    #[error("the table has no PG")]
    Empty,
    /// A PG has another number of slots than the scheme.
    #[error("PG {pg} has {got} {side} slots where the scheme has {expected}")]
    Slots {
        /// Which PG.
        pg: PgId,
        /// Which of its lists.
        side: PgSide,
        /// n.
        expected: usize,
        /// How many it has.
        got: usize,
    },
    /// The loss of these backends loses data.
    #[error(
        "PG {pg} ({side}) cannot be decoded when {} are lost: {left} shards are left, {needed} are needed", names(.lost)
    )]
    Loss {
        /// Which PG.
        pg: PgId,
        /// Which of its lists.
        side: PgSide,
        /// The backends lost; at most m.
        lost: Vec<BackendId>,
        /// How many shards are left then.
        left: usize,
        /// k.
        needed: usize,
    },
}

fn names(backends: &[BackendId]) -> String {
    match backends {
        [] => "no backends".to_owned(),
        _ => backends.iter().map(BackendId::to_string).collect::<Vec<_>>().join(" and "),
    }
}

/// Checks that with any `m` backends lost every PG of the table can still be decoded, both from its committed and from
/// its target list. `n` is the number of slots every PG must have.
///
/// # Errors
/// The first counterexample, by PG, then committed before target.
pub fn prove(table: &PgTable, n: usize, m: usize) -> Result<Proof, Counterexample> {
    prove_sides(table, n, m, &[PgSide::Committed, PgSide::Target])
}

/// [`prove`] for the target lists alone: what a new plan answers for.
pub(crate) fn prove_targets(table: &PgTable, n: usize, m: usize) -> Result<Proof, Counterexample> {
    prove_sides(table, n, m, &[PgSide::Target])
}

fn prove_sides(table: &PgTable, n: usize, m: usize, sides: &[PgSide]) -> Result<Proof, Counterexample> {
    let codec = Codec::new(Scheme::from_code(table.scheme)?);
    if table.pgs.is_empty() {
        return Err(Counterexample::Empty);
    }
    let mut proven: BTreeSet<Vec<usize>> = BTreeSet::new();
    let mut proof = Proof { losses: m, pg_count: table.pgs.len(), cases: 0, loss_sets: 0, is_exhaustive: true };
    for (index, pg) in table.pgs.iter().enumerate() {
        let id = PgId(u32::try_from(index).unwrap_or(u32::MAX));
        for &side in sides {
            let list = match side {
                PgSide::Committed => &pg.committed,
                PgSide::Target => &pg.target,
            };
            let expected = codec.scheme().n();
            if list.len() != expected || n != expected {
                let got = if list.len() == expected { n } else { list.len() };
                return Err(Counterexample::Slots { pg: id, side, expected, got });
            }
            let case = Case::of(list);
            if proven.contains(&case.domain_of_slot) {
                continue;
            }
            let verdict = case.check(&codec, m);
            proof.loss_sets = proof.loss_sets.saturating_add(verdict.loss_sets);
            proof.is_exhaustive &= verdict.is_exhaustive;
            if let Some(lost) = verdict.fatal {
                let left = case.left(&lost).len();
                let lost = lost.iter().filter_map(|&domain| case.backend(list, domain)).collect();
                return Err(Counterexample::Loss { pg: id, side, lost, left, needed: codec.scheme().k() });
            }
            proven.insert(case.domain_of_slot);
            proof.cases += 1;
        }
    }
    Ok(proof)
}

/// How the slots of a PG share backends: for each slot the number of its backend, in order of first appearance.
struct Case {
    domain_of_slot: Vec<usize>,
    slots_of_domain: Vec<Vec<usize>>,
}

struct Verdict {
    /// Domains whose loss is fatal.
    fatal: Option<Vec<usize>>,
    loss_sets: u64,
    is_exhaustive: bool,
}

impl Case {
    fn of(list: &[BackendId]) -> Self {
        let mut seen: Vec<BackendId> = Vec::new();
        let mut slots_of_domain: Vec<Vec<usize>> = Vec::new();
        let mut domain_of_slot = Vec::with_capacity(list.len());
        for (slot, backend) in list.iter().enumerate() {
            let domain = seen.iter().position(|known| known == backend).unwrap_or_else(|| {
                seen.push(*backend);
                slots_of_domain.push(Vec::new());
                seen.len() - 1
            });
            slots_of_domain[domain].push(slot);
            domain_of_slot.push(domain);
        }
        Self { domain_of_slot, slots_of_domain }
    }

    fn backend(&self, list: &[BackendId], domain: usize) -> Option<BackendId> {
        self.slots_of_domain.get(domain).and_then(|slots| list.get(*slots.first()?)).copied()
    }

    /// The slots that are left when the domains are lost.
    fn left(&self, lost: &[usize]) -> SlotSet {
        (0..self.domain_of_slot.len()).filter(|&slot| !lost.contains(&self.domain_of_slot[slot])).collect()
    }

    /// Asks about every set of `m` domains (of all of them, if there are no more). Fewer losses are contained in those:
    /// whatever decodes with more lost decodes with fewer.
    fn check(&self, codec: &Codec, m: usize) -> Verdict {
        let domains = self.slots_of_domain.len();
        let m = m.min(domains);
        if sets(domains, m) > LOSS_SETS_MAX && codec.scheme().is_mds() {
            return self.check_the_worst(codec, m);
        }
        let mut lost: Vec<usize> = (0..m).collect();
        let mut loss_sets = 0;
        loop {
            loss_sets += 1;
            if !codec.decodable(&self.left(&lost)) {
                return Verdict { fatal: Some(lost), loss_sets, is_exhaustive: true };
            }
            if !next_set(&mut lost, domains) {
                return Verdict { fatal: None, loss_sets, is_exhaustive: true };
            }
        }
    }

    /// For a code in which only the number of shards counts, the m domains with most slots are the worst loss.
    fn check_the_worst(&self, codec: &Codec, m: usize) -> Verdict {
        let mut lost: Vec<usize> = (0..self.slots_of_domain.len()).collect();
        lost.sort_by_key(|&domain| (std::cmp::Reverse(self.slots_of_domain[domain].len()), domain));
        lost.truncate(m);
        let fatal = (!codec.decodable(&self.left(&lost))).then_some(lost);
        Verdict { fatal, loss_sets: 1, is_exhaustive: false }
    }
}

/// The next set of numbers below `count` in lexicographic order, in place; false after the last.
fn next_set(set: &mut [usize], count: usize) -> bool {
    let size = set.len();
    let Some(at) = (0..size).rev().find(|&i| set[i] < count - (size - i)) else { return false };
    set[at] += 1;
    for i in at + 1..size {
        set[i] = set[i - 1] + 1;
    }
    true
}

/// How many sets of `size` out of `count` there are; saturating.
fn sets(count: usize, size: usize) -> u64 {
    let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let size = size.min(count - size.min(count));
    (0..size).fold(1u64, |sets, i| sets.saturating_mul(wide(count - i)) / wide(i + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::Epoch;
    use holdfast_proto::pg_table::Pg;

    fn backends(numbers: &[u8]) -> Vec<BackendId> {
        numbers.iter().map(|&number| BackendId([number; 16])).collect()
    }

    fn table(scheme: [u8; 4], pgs: &[(&[u8], &[u8])]) -> PgTable {
        let pgs = pgs.iter().map(|(c, t)| Pg { committed: backends(c), target: backends(t) }).collect();
        PgTable { epoch: Epoch(1), scheme, pgs }
    }

    const RS_4_2: [u8; 4] = [0x1D, 1, 4, 2];

    #[test]
    fn distinct_backends_are_proven_with_every_loss_set_walked() {
        let table =
            table(RS_4_2, &[(&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 7]), (&[6, 5, 4, 3, 2, 1], &[6, 5, 4, 3, 2, 1])]);
        let proof = prove(&table, 6, 2).unwrap();
        assert_eq!(proof, Proof { losses: 2, pg_count: 2, cases: 1, loss_sets: 15, is_exhaustive: true });
        let three = prove(&table, 6, 3).unwrap_err();
        let Counterexample::Loss { lost, left: 3, needed: 4, .. } = three else { panic!("{three:?}") };
        assert_eq!(lost.len(), 3);
    }

    #[test]
    fn a_shared_backend_is_found_and_named() {
        let doubled =
            table(RS_4_2, &[(&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6]), (&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 2])]);
        let error = prove(&doubled, 6, 2).unwrap_err();
        let lost = backends(&[1, 2]);
        assert_eq!(error, Counterexample::Loss { pg: PgId(1), side: PgSide::Target, lost, left: 3, needed: 4 });
        assert_eq!(
            error.to_string(),
            format!(
                "PG 1 (target) cannot be decoded when {} and {} are lost: 3 shards are left, 4 are needed",
                "01".repeat(16),
                "02".repeat(16)
            )
        );
        // One loss alone it does survive: 4 shards are left.
        assert_eq!(prove(&doubled, 6, 1).map(|proof| proof.cases), Ok(2));
        let committed = table(RS_4_2, &[(&[1, 2, 3, 4, 5, 5], &[1, 2, 3, 4, 5, 6])]);
        assert!(matches!(prove(&committed, 6, 2), Err(Counterexample::Loss { side: PgSide::Committed, .. })));
        assert!(prove_targets(&committed, 6, 2).is_ok());
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        let good: &[u8] = &[1, 2, 3, 4, 5, 6];
        assert_eq!(prove(&table(RS_4_2, &[]), 6, 2), Err(Counterexample::Empty));
        assert!(matches!(prove(&table([9; 4], &[(good, good)]), 6, 2), Err(Counterexample::Scheme(_))));
        assert!(matches!(
            prove(&table(RS_4_2, &[(good, &good[1..])]), 6, 2),
            Err(Counterexample::Slots { side: PgSide::Target, expected: 6, got: 5, .. })
        ));
        assert!(matches!(
            prove(&table(RS_4_2, &[(good, good)]), 5, 2),
            Err(Counterexample::Slots { expected: 6, got: 5, .. })
        ));
        assert!(prove(&table(RS_4_2, &[(good, good)]), 6, usize::MAX).is_err());
    }

    #[test]
    fn too_many_sets_to_walk_are_decided_by_the_worst_one_and_said_so() {
        let wide: Vec<u8> = (0..60).collect();
        let mut proof = prove(&table([0x1D, 1, 40, 20], &[(&wide, &wide)]), 60, 20).unwrap();
        assert!(!proof.is_exhaustive);
        proof.is_exhaustive = true;
        let mut doubled = wide.clone();
        doubled[59] = 30;
        let error = prove(&table([0x1D, 1, 40, 20], &[(&wide, &doubled)]), 60, 20).unwrap_err();
        assert!(matches!(&error, Counterexample::Loss { lost, .. } if lost.contains(&BackendId([30; 16]))));
    }

    #[test]
    fn sets_are_walked_once_each_and_counted() {
        for count in 0..9 {
            for size in 0..=count {
                let mut set: Vec<usize> = (0..size).collect();
                let mut seen = BTreeSet::from([set.clone()]);
                while next_set(&mut set, count) {
                    assert!(set.windows(2).all(|w| w[0] < w[1]) && set.iter().all(|&i| i < count));
                    assert!(seen.insert(set.clone()));
                }
                assert_eq!(u64::try_from(seen.len()).unwrap(), sets(count, size));
            }
        }
        assert!(sets(255, 127) > LOSS_SETS_MAX);
    }
}
