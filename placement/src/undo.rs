//! Takes moves back while they are under way.
//!
//! A PG whose moves are taken back moves the other way: where its shards were is where they shall be, and where they were
//! to go is where some of them may be. So no place that may hold a shard is forgotten, whatever was copied and whatever
//! was written meanwhile, and the way back is an ordinary move: repair copies what is only at the one place, commits, and
//! frees the rest.
//!
//! Not here: whether the layout before keeps the promise of today; prove what comes out.
//!
//! **Invariant:** every slot names the same backends as before (`no_place_of_a_shard_is_forgotten`).

use holdfast_proto::pg_table::{Pg, PgTable};
use holdfast_proto::{BackendId, Epoch};

/// The table with the moves of all PGs taken back of which `takes_back` accepts every backend that would get slots again;
/// epoch one higher. Also how many PGs these are.
pub fn undo_moves(table: &PgTable, takes_back: impl Fn(BackendId) -> bool) -> (PgTable, usize) {
    let mut next = table.clone();
    next.epoch = Epoch(table.epoch.0.saturating_add(1));
    let mut undone = 0;
    for pg in next.pgs.iter_mut().filter(|pg| pg.is_moving() && can_go_back(pg, &takes_back)) {
        std::mem::swap(&mut pg.committed, &mut pg.target);
        undone += 1;
    }
    (next, undone)
}

fn can_go_back(pg: &Pg, takes_back: &impl Fn(BackendId) -> bool) -> bool {
    let moving = pg.committed.iter().zip(&pg.target).filter(|(committed, target)| committed != target);
    moving.map(|(committed, _)| *committed).all(takes_back)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::tests::place;
    use crate::{CandidateRole, Promise, Topology, commit_pgs, initial_layout, plan_layout, prove_layout};
    use holdfast_proto::PgId;
    use std::collections::BTreeSet;

    fn nodes(count: u16) -> Topology {
        Topology::new((0..count).map(|n| place(n, &format!("n{n}"), &format!("z{n}"), "r"))).unwrap()
    }

    #[test]
    fn no_place_of_a_shard_is_forgotten() {
        let promise: Promise = "zone:1".parse().unwrap();
        let before = initial_layout("4+2".parse().unwrap(), 64, &promise, &nodes(7)).unwrap().table;
        let moving = plan_layout(&before, &promise, &nodes(9)).unwrap().table;
        let pgs = moving.pgs.iter().filter(|pg| pg.is_moving()).count();
        assert!(pgs > 10);
        let (back, undone) = undo_moves(&moving, |_| true);
        assert_eq!((undone, back.epoch), (pgs, Epoch(moving.epoch.0 + 1)));
        for (was, is) in moving.pgs.iter().zip(&back.pgs) {
            assert_eq!(is.target, was.committed, "it goes back");
            for (slot, (committed, target)) in is.committed.iter().zip(&is.target).enumerate() {
                let named = BTreeSet::from([was.committed[slot], was.target[slot]]);
                assert_eq!(BTreeSet::from([*committed, *target]), named);
            }
        }
        prove_layout(&back, &promise, &nodes(9)).unwrap();
        let all: Vec<PgId> = (0..64).map(PgId).collect();
        assert_eq!(commit_pgs(&back, &all).pgs, before.pgs, "as if nothing had been");
        let (forth, _) = undo_moves(&back, |_| true);
        assert_eq!(forth.pgs, moving.pgs, "undone twice it goes on");
    }

    #[test]
    fn what_cannot_take_shards_back_gets_none() {
        let promise: Promise = "zone:1".parse().unwrap();
        let seven = nodes(7);
        let before = initial_layout("4+2".parse().unwrap(), 64, &promise, &seven).unwrap().table;
        let gone = before.pgs[0].target[0];
        let without = seven.with(|place| {
            if place.id == gone {
                place.role = CandidateRole::Draining;
            }
        });
        let moving = plan_layout(&before, &promise, &without).unwrap().table;
        let (back, undone) = undo_moves(&moving, |id| id != gone);
        assert_eq!(back.pgs.iter().filter(|pg| pg.target.contains(&gone)).count(), 0);
        let others = moving.pgs.iter().filter(|pg| pg.is_moving() && !pg.committed.contains(&gone)).count();
        assert_eq!(undone, others);
        assert_eq!(undo_moves(&before, |_| true).1, 0, "nothing moves, nothing is undone");
    }
}
