//! Who takes a shard in when the backend of its slot does not answer: one backend for one shard of one segment, until
//! that backend is back or given up.
//!
//! Not here: the table, which stays as it is. A stand-in is written into the segment's record, so no promise is proven
//! of it; it is chosen so that the fewest shards share a domain.

use crate::candidate::CandidateRole;
use crate::domain::DomainKind;
use crate::mix::mix;
use crate::topology::{BackendPlace, Topology};
use holdfast_proto::BackendId;

/// Domains in the order in which sharing one is avoided.
const KINDS: [DomainKind; 3] = [DomainKind::Region, DomainKind::Zone, DomainKind::Node];

/// The active backend that `may_take` the shard and shares the fewest regions, then zones, then nodes with `holders`, which
/// have the segment's other shards; among equals one that `seed` picks, so that segments spread. None of `holders` itself.
pub fn choose_stand_in(
    topology: &Topology,
    holders: &[BackendId],
    may_take: impl Fn(BackendId) -> bool,
    seed: u64,
) -> Option<BackendId> {
    let held: Vec<&BackendPlace> = holders.iter().filter_map(|id| topology.place(*id)).collect();
    let crowds = |place: &BackendPlace| {
        KINDS.map(|kind| {
            let own = place.domain(kind);
            held.iter().filter(|holder| holder.domain(kind) == own).count()
        })
    };
    topology
        .places()
        .filter(|place| place.role == CandidateRole::Active && !holders.contains(&place.id) && may_take(place.id))
        .min_by_key(|place| (crowds(place), mix(seed ^ number(place.id)), place.id))
        .map(|place| place.id)
}

/// The random part of an id.
fn number(id: BackendId) -> u64 {
    id.0.iter().fold(0, |number, byte| mix(number ^ u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn b(n: u8) -> BackendId {
        BackendId([n; 16])
    }

    /// Backend 10 * z + d is disk d of the one node in zone z.
    fn topology(zones: u8, disks: u8) -> Topology {
        let place = |zone: u8, disk: u8| BackendPlace {
            id: b(10 * zone + disk),
            name: format!("d{zone}{disk}"),
            weight_bytes: 1,
            role: CandidateRole::Active,
            node: format!("n{zone}"),
            zone: format!("z{zone}"),
            region: "r".to_owned(),
            geography: String::new(),
            labels: BTreeMap::new(),
        };
        Topology::new((1..=zones).flat_map(|zone| (1..=disks).map(move |disk| place(zone, disk)))).unwrap()
    }

    #[test]
    fn the_emptiest_zone_is_taken_and_nobody_twice() {
        let topology = topology(3, 3);
        // Zone 1 does not answer: its two shards go one to zone 2 and one to zone 3.
        let mut holders = vec![b(21), b(22), b(31), b(32)];
        let is_up = |id: BackendId| id.0[0] / 10 != 1;
        let first = choose_stand_in(&topology, &holders, is_up, 7).unwrap();
        holders.push(first);
        let second = choose_stand_in(&topology, &holders, is_up, 7).unwrap();
        holders.push(second);
        assert_eq!(BTreeSet::from([first, second]), BTreeSet::from([b(23), b(33)]));
        assert_eq!(choose_stand_in(&topology, &holders, is_up, 7), None, "no seventh disk answers");
    }

    #[test]
    fn segments_spread_over_equals() {
        let topology = topology(4, 6);
        let holders = [b(11), b(21), b(31)];
        let mut taken: BTreeMap<BackendId, usize> = BTreeMap::new();
        for seed in 0..600 {
            *taken.entry(choose_stand_in(&topology, &holders, |_| true, seed).unwrap()).or_default() += 1;
        }
        assert_eq!(taken.len(), 6, "the six disks of the zone that holds none");
        assert!(taken.iter().all(|(id, count)| id.0[0] / 10 == 4 && (60..140).contains(count)), "{taken:?}");
    }
}
