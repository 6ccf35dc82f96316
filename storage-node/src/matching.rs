//! Which closed backend is to be opened where, from what the configured locations say they hold.
//!
//! Pure. A directory is recognised by its identity, not by its path: two disks mounted in each other's place are both
//! found.
//!
//! **Invariant:** no location is given to two backends, none to a backend that its identity does not name.

use crate::location::{Location, LocationError};
use crate::opener::{Closed, Found};
use holdfast_proto::node::BackendHealth;
use holdfast_proto::{BackendId, ClusterId};
use std::collections::BTreeMap;

/// A backend that is not open.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) id: BackendId,
    pub(crate) name: String,
    /// Where it is configured, or why that is not a location.
    pub(crate) location: Result<Location, LocationError>,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// It is at its own location.
    Here(Location),
    /// It is at another's location.
    Elsewhere(Location),
    /// It is nowhere; its own location says why.
    Nowhere(Closed),
}

/// Matches closed backends with what was found at the locations that are free.
pub(crate) fn match_backends(
    cluster: ClusterId,
    wanted: &[Wanted],
    found: &BTreeMap<Location, Result<Found, Closed>>,
) -> Vec<(BackendId, Match)> {
    let is_at = |location: &Location, id: BackendId| found.get(location) == Some(&Ok(Found { cluster, id }));
    let one = |backend: &Wanted| {
        let own = backend.location.as_ref();
        let found_at = match own {
            Ok(own) if is_at(own, backend.id) => Match::Here(own.clone()),
            _ => match found.keys().find(|location| is_at(location, backend.id)) {
                Some(other) => Match::Elsewhere(other.clone()),
                None => Match::Nowhere(why(cluster, own, wanted, found)),
            },
        };
        (backend.id, found_at)
    };
    wanted.iter().map(one).collect()
}

fn why(
    cluster: ClusterId,
    own: Result<&Location, &LocationError>,
    wanted: &[Wanted],
    found: &BTreeMap<Location, Result<Found, Closed>>,
) -> Closed {
    let own = match own {
        Ok(own) => own,
        Err(error) => return Closed::missing(error.to_string()),
    };
    match found.get(own) {
        // Another backend that is open is there: its directory was put in this one's place.
        None => foreign(format!("{own} holds another backend of this store")),
        Some(Err(closed)) => closed.clone(),
        Some(Ok(other)) if other.cluster != cluster => {
            foreign(format!("{own} holds a backend of another store (cluster {})", other.cluster))
        }
        Some(Ok(other)) => {
            let name =
                wanted.iter().find(|w| w.id == other.id).map_or_else(|| other.id.to_string(), |w| w.name.clone());
            foreign(format!("{own} holds backend {name} of this store"))
        }
    }
}

fn foreign(reason: String) -> Closed {
    Closed { health: BackendHealth::Foreign, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([1; 16]);

    fn at(n: u8) -> Location {
        format!("disk:/d{n}").parse().unwrap()
    }

    /// `found`: at location n is backend b of our cluster; 0: wiped; 99: another cluster's.
    fn check(found: &[(u8, u8)], expected: &str) {
        let wanted: Vec<Wanted> =
            (1..=3).map(|n| Wanted { id: BackendId([n; 16]), name: format!("d{n}"), location: Ok(at(n)) }).collect();
        let found = found.iter().map(|(location, id)| {
            let result = match id {
                0 => Err(Closed { health: BackendHealth::Wiped, reason: String::new() }),
                99 => Ok(Found { cluster: ClusterId([9; 16]), id: BackendId([1; 16]) }),
                id => Ok(Found { cluster: CLUSTER, id: BackendId([*id; 16]) }),
            };
            (at(*location), result)
        });
        let matched = match_backends(CLUSTER, &wanted, &found.collect());
        let text: Vec<String> = matched
            .iter()
            .map(|(id, matched)| match matched {
                Match::Here(_) => format!("{} here", id.0[0]),
                Match::Elsewhere(l) => format!("{} in {l}", id.0[0]),
                Match::Nowhere(closed) => format!("{} {:?}", id.0[0], closed.health),
            })
            .collect();
        assert_eq!(text.join(", "), expected);
    }

    #[test]
    fn one_line_per_case() {
        check(&[(1, 1), (2, 2), (3, 3)], "1 here, 2 here, 3 here");
        check(&[(1, 2), (2, 1), (3, 3)], "1 in disk:/d2, 2 in disk:/d1, 3 here");
        check(&[(1, 2), (2, 3), (3, 1)], "1 in disk:/d3, 2 in disk:/d1, 3 in disk:/d2");
        check(&[(1, 0), (2, 2), (3, 1)], "1 in disk:/d3, 2 here, 3 Foreign");
        check(&[(1, 99), (2, 2), (3, 3)], "1 Foreign, 2 here, 3 here");
        check(&[(1, 0), (2, 0), (3, 0)], "1 Wiped, 2 Wiped, 3 Wiped");
        // A copy of d1 in d2's place: d1 stays where it is configured.
        check(&[(1, 1), (2, 1), (3, 3)], "1 here, 2 Foreign, 3 here");
        // d2's location is held by one that is open.
        check(&[(1, 1), (3, 3)], "1 here, 2 Foreign, 3 here");
        // An unknown backend of our cluster.
        check(&[(1, 77), (2, 2), (3, 3)], "1 Foreign, 2 here, 3 here");
    }
}
