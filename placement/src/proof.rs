//! The proof that a layout keeps its promise, or the loss that breaks it.
//!
//! Every PG is checked, as it is, as it shall be, and in every mixture while it moves, against every combination of
//! domains that any scenario of the promise takes away: the code must still decode what is left. PGs whose slots share
//! domains in the same way are one case, so a table of 4096 PGs costs some thousand questions.
//!
//! What a plan answers for are its targets. Where shards are at the moment may fall short of the promise (a backend
//! was lost: that is why there is a plan); [`crate::summarize_moves`] says what holds on the way.
//!
//! **Invariant:** no layout is called proven unless the codec was asked about each case (see `loss_case`).

use crate::candidate::{Candidate, CandidateRole};
use crate::domain::{Domain, DomainKind};
use crate::loss_case::{Breach, Judge, PgSide, Rigour, Verdict};
use crate::scenario::{Promise, Scenario};
use crate::topology::Topology;
use holdfast_codec::{Codec, Scheme, SchemeError, SlotSet};
use holdfast_proto::pg_table::{Pg, PgTable};
use holdfast_proto::{BackendId, PgId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most combinations walked for one layout: some ten seconds. Beyond, a promise is refused as too much to prove.
const LOSS_SETS_TOTAL_MAX: u64 = 200_000_000;
/// Begins what a proof's hash is taken over, so that it is the hash of nothing else.
const HASH_CONTEXT: &[u8] = b"holdfast layout proof 1\n";

/// That a layout keeps its promise, and how that was found. Stored with the layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// What was proven.
    pub promise: Promise,
    /// How many PGs were checked.
    pub pg_count: usize,
    /// In how many different ways slots share domains, over all scenarios; 1 for a sound table and `backend:m`.
    pub cases: usize,
    /// How many loss sets the codec was asked about.
    pub loss_sets: u64,
    /// Whether every loss set of every case was walked; else the rest follows from the code being MDS.
    pub is_exhaustive: bool,
    /// BLAKE3, as 64 hex digits, over the scheme, the target lists, the promise, and the domains of each backend named:
    /// [`Proof::is_of`] tells whether the record belongs to a layout.
    pub hash: String,
}

impl Proof {
    /// Whether this is the record of these targets, this promise, and backends that are where they were. Commits of
    /// PGs and changes of weight do not touch it.
    pub fn is_of(&self, table: &PgTable, promise: &Promise, topology: &Topology) -> bool {
        self.hash == hash(table, promise, topology)
    }
}

/// Why a layout does not keep its promise.
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
    /// The loss of these domains loses data.
    #[error(
        "PG {pg} ({side}) does not survive {scenario}: with {} lost, {}", names(.lost), what_is_left(*.left, *.needed)
    )]
    Loss {
        /// Which PG.
        pg: PgId,
        /// From which side.
        side: PgSide,
        /// The scenario.
        scenario: Scenario,
        /// The domains lost.
        lost: Vec<Domain>,
        /// How many shards are left then.
        left: usize,
        /// k.
        needed: usize,
    },
    /// A scenario has more combinations than can be walked, and no bound decides.
    #[error("PG {pg} ({side}) has more combinations of {scenario} than can be checked")]
    TooMany {
        /// Which PG.
        pg: PgId,
        /// From which side.
        side: PgSide,
        /// The scenario.
        scenario: Scenario,
    },
}

fn names(domains: &[Domain]) -> String {
    match domains {
        [] => "nothing".to_owned(),
        _ => domains.iter().map(Domain::to_string).collect::<Vec<_>>().join(" and "),
    }
}

fn what_is_left(left: usize, needed: usize) -> String {
    if left < needed {
        format!("{left} shards are left, {needed} are needed")
    } else {
        format!("the {left} shards that are left do not decode")
    }
}

/// Checks that with any `m` backends lost every PG of the table can still be decoded, both from its committed and from
/// its target list. `n` is the number of slots every PG must have.
///
/// # Errors
/// The first counterexample, by PG, then committed before target.
pub fn prove(table: &PgTable, n: usize, m: usize) -> Result<Proof, Counterexample> {
    let expected = Scheme::from_code(table.scheme)?.n();
    if n != expected {
        return Err(Counterexample::Slots { pg: PgId(0), side: PgSide::Committed, expected, got: n });
    }
    let topology = topology_of(table);
    prove_sides(table, &Promise::any_backends(m), &topology, &[PgSide::Committed, PgSide::Target])
}

/// The backends a table names, of which nothing else is known.
pub(crate) fn topology_of(table: &PgTable) -> Topology {
    let ids: BTreeSet<BackendId> =
        table.pgs.iter().flat_map(|pg| pg.committed.iter().chain(&pg.target)).copied().collect();
    let candidate = |id| Candidate { id, weight_bytes: 0, role: CandidateRole::Active };
    // Ids of a set are distinct, and one place has no nesting to be wrong. More backends than a topology may have
    // count each as a domain of its own, as they do in it.
    Topology::of_one_node(&ids.into_iter().map(candidate).collect::<Vec<_>>()).unwrap_or_default()
}

/// Checks that the layout keeps its promise wherever its shards are: as it is, as it shall be, and in every mixture of
/// the two while PGs move.
///
/// # Errors
/// The first counterexample, by PG, then side, then scenario.
pub fn prove_layout(table: &PgTable, promise: &Promise, topology: &Topology) -> Result<Proof, Counterexample> {
    prove_sides(table, promise, topology, &[PgSide::Committed, PgSide::Target, PgSide::Moving])
}

/// [`prove_layout`] for the target lists alone: what a plan answers for.
///
/// # Errors
/// As [`prove_layout`].
pub fn prove_targets(table: &PgTable, promise: &Promise, topology: &Topology) -> Result<Proof, Counterexample> {
    prove_sides(table, promise, topology, &[PgSide::Target])
}

fn prove_sides(
    table: &PgTable,
    promise: &Promise,
    topology: &Topology,
    sides: &[PgSide],
) -> Result<Proof, Counterexample> {
    let mut examiner = Examiner::new(table, topology)?;
    let absent = BTreeSet::new();
    for (id, pg) in numbered(table) {
        for &side in sides {
            for scenario in promise.scenarios() {
                examiner.check(id, pg, side, scenario, &absent)?;
            }
        }
    }
    Ok(Proof {
        promise: promise.clone(),
        pg_count: table.pgs.len(),
        cases: examiner.proven.values().map(BTreeSet::len).sum(),
        loss_sets: examiner.loss_sets,
        is_exhaustive: examiner.is_exhaustive,
        hash: hash(table, promise, topology),
    })
}

pub(crate) fn numbered(table: &PgTable) -> impl Iterator<Item = (PgId, &Pg)> {
    table.pgs.iter().enumerate().map(|(index, pg)| (PgId(u32::try_from(index).unwrap_or(u32::MAX)), pg))
}

/// Examines PGs one after another and remembers what it has proven.
pub(crate) struct Examiner<'a> {
    judge: Judge<'a>,
    proven: BTreeMap<Scenario, BTreeSet<Vec<SlotSet>>>,
    loss_sets: u64,
    is_exhaustive: bool,
}

impl<'a> Examiner<'a> {
    /// One for the PGs of a table, whose shape is checked here.
    pub(crate) fn new(table: &PgTable, topology: &'a Topology) -> Result<Self, Counterexample> {
        let codec = Codec::new(Scheme::from_code(table.scheme)?);
        let expected = codec.scheme().n();
        if table.pgs.is_empty() {
            return Err(Counterexample::Empty);
        }
        for (pg, lists) in numbered(table) {
            for (side, list) in [(PgSide::Committed, &lists.committed), (PgSide::Target, &lists.target)] {
                if list.len() != expected {
                    return Err(Counterexample::Slots { pg, side, expected, got: list.len() });
                }
            }
        }
        let named = table.pgs.iter().flat_map(|pg| pg.committed.iter().chain(&pg.target)).copied();
        let judge = Judge::new(codec, topology, named);
        Ok(Self { judge, proven: BTreeMap::new(), loss_sets: 0, is_exhaustive: true })
    }

    /// Whether the PG survives the scenario on top of the absence of some backends.
    pub(crate) fn check(
        &mut self,
        pg: PgId,
        lists: &Pg,
        side: PgSide,
        scenario: &Scenario,
        absent: &BTreeSet<BackendId>,
    ) -> Result<(), Counterexample> {
        if side == PgSide::Moving && !lists.is_moving() && absent.is_empty() {
            // Nothing moves: it is what its target is.
            return self.check(pg, lists, PgSide::Target, scenario, absent);
        }
        let case = self.judge.case(lists, side, scenario, absent);
        let key = self.judge.key(&case);
        let proven = self.proven.entry(scenario.clone()).or_default();
        if proven.contains(&key) {
            return Ok(());
        }
        let too_many = || Counterexample::TooMany { pg, side, scenario: scenario.clone() };
        if self.loss_sets > LOSS_SETS_TOTAL_MAX {
            return Err(too_many());
        }
        let rigour = if side == PgSide::Moving { Rigour::BoundFirst } else { Rigour::Walk };
        match self.judge.check(&case, rigour) {
            Verdict::Survives { loss_sets, is_exhaustive } => {
                self.loss_sets = self.loss_sets.saturating_add(loss_sets);
                self.is_exhaustive &= is_exhaustive;
                proven.insert(key);
                Ok(())
            }
            Verdict::TooMany => Err(too_many()),
            Verdict::Breaks(Breach { lost, left }) => {
                let needed = self.judge.codec.scheme().k();
                Err(Counterexample::Loss { pg, side, scenario: scenario.clone(), lost, left, needed })
            }
        }
    }
}

fn hash(table: &PgTable, promise: &Promise, topology: &Topology) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(HASH_CONTEXT);
    hasher.update(&table.scheme);
    hasher.update(format!("{promise}\n").as_bytes());
    let mut named = BTreeSet::new();
    for pg in &table.pgs {
        for id in &pg.target {
            hasher.update(&id.0);
            named.insert(*id);
        }
    }
    for id in named {
        hasher.update(&id.0);
        // Backends are known by their ids; a new name is no new place.
        for kind in promise.kinds().into_iter().filter(|kind| *kind != DomainKind::Backend) {
            let name = topology.place(id).map(|place| place.domain(kind).name);
            let line = name.map_or_else(|| format!("{kind}=?\n"), |name| format!("{kind}={}:{name}\n", name.len()));
            hasher.update(line.as_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::tests::place;
    use holdfast_proto::Epoch;

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
        assert_eq!((proof.promise.to_string().as_str(), proof.pg_count, proof.cases), ("backend:2", 2, 1));
        assert_eq!((proof.loss_sets, proof.is_exhaustive), (15, true));
        let three = prove(&table, 6, 3).unwrap_err();
        let Counterexample::Loss { lost, left: 3, needed: 4, .. } = three else { panic!("{three:?}") };
        assert_eq!(lost.len(), 3);
    }

    #[test]
    fn a_shared_backend_is_found_and_named() {
        let doubled =
            table(RS_4_2, &[(&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6]), (&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 2])]);
        let error = prove(&doubled, 6, 2).unwrap_err();
        assert!(matches!(&error, Counterexample::Loss { pg: PgId(1), side: PgSide::Target, left: 3, needed: 4, .. }));
        assert_eq!(
            error.to_string(),
            format!(
                "PG 1 (target) does not survive backend:2: with backend {} and backend {} lost, 3 shards are left, 4 \
                 are needed",
                "01".repeat(16),
                "02".repeat(16)
            )
        );
        // One loss alone it does survive: 4 shards are left.
        assert_eq!(prove(&doubled, 6, 1).map(|proof| proof.cases), Ok(2));
        let committed = table(RS_4_2, &[(&[1, 2, 3, 4, 5, 5], &[1, 2, 3, 4, 5, 6])]);
        assert!(matches!(prove(&committed, 6, 2), Err(Counterexample::Loss { side: PgSide::Committed, .. })));
        assert!(prove_targets(&committed, &Promise::any_backends(2), &topology_of(&committed)).is_ok());
    }

    #[test]
    fn a_mixture_of_old_and_new_places_is_judged() {
        // Both lists are sound, but 6 gives slot 5 to 7 and takes slot 4: in between it holds two.
        let moving = table(RS_4_2, &[(&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 6, 7])]);
        assert!(prove(&moving, 6, 2).is_ok());
        let promise = Promise::any_backends(2);
        let error = prove_layout(&moving, &promise, &topology_of(&moving)).unwrap_err();
        assert!(matches!(&error, Counterexample::Loss { side: PgSide::Moving, left: 3, .. }), "{error}");
        assert!(prove_layout(&moving, &Promise::any_backends(1), &topology_of(&moving)).is_ok());
    }

    #[test]
    fn zones_and_nodes_are_judged_together() {
        // Three zones of two nodes of one backend each.
        let topology = Topology::new((1..=6).map(|n| place(n, &format!("n{n}"), &format!("z{}", n % 3), "r"))).unwrap();
        let ids: Vec<BackendId> = topology.places().map(|place| place.id).collect();
        let of =
            |scheme| PgTable { epoch: Epoch(1), scheme, pgs: vec![Pg { committed: ids.clone(), target: ids.clone() }] };
        let holds = |scheme, promise: &str| prove_layout(&of(scheme), &promise.parse().unwrap(), &topology);
        assert!(holds(RS_4_2, "zone:1").is_ok());
        assert!(holds(RS_4_2, "zone:1, node:2").is_ok());
        let error = holds(RS_4_2, "zone:1+node:1").unwrap_err().to_string();
        assert_eq!(
            error,
            "PG 0 (committed) does not survive zone:1+node:1: with node n1 and zone r/z2 lost, 3 shards are left, 4 are needed"
        );
        assert!(holds([0x1D, 1, 3, 3], "zone:1+node:1").is_ok());
        assert!(holds([0x1D, 1, 3, 3], "region:1").is_err());
    }

    #[test]
    fn a_record_belongs_to_its_targets_promise_and_places() {
        let topology = Topology::new((1..=6).map(|n| place(n, &format!("n{n}"), "z", "r"))).unwrap();
        let ids: Vec<BackendId> = topology.places().map(|place| place.id).collect();
        let mut layout =
            PgTable { epoch: Epoch(1), scheme: RS_4_2, pgs: vec![Pg { committed: ids.clone(), target: ids }] };
        let promise: Promise = "node:2".parse().unwrap();
        let proof = prove_targets(&layout, &promise, &topology).unwrap();
        layout.epoch = Epoch(9);
        assert!(proof.is_of(&layout, &promise, &topology));
        assert!(proof.is_of(&layout, &promise, &topology.with(|place| place.weight_bytes = 5)));
        assert!(!proof.is_of(&layout, &promise, &topology.with(|place| place.node = "n1".to_owned())));
        assert!(!proof.is_of(&layout, &"node:1".parse().unwrap(), &topology));
        layout.pgs[0].target.swap(0, 1);
        assert!(!proof.is_of(&layout, &promise, &topology));
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
        let proof = prove(&table([0x1D, 1, 40, 20], &[(&wide, &wide)]), 60, 20).unwrap();
        assert_eq!((proof.is_exhaustive, proof.loss_sets), (false, 1));
        let mut doubled = wide.clone();
        doubled[59] = 30;
        let error = prove(&table([0x1D, 1, 40, 20], &[(&wide, &doubled)]), 60, 20).unwrap_err();
        let name = BackendId([30; 16]).to_string();
        assert!(matches!(&error, Counterexample::Loss { lost, .. } if lost.iter().any(|domain| domain.name == name)));
    }
}
