//! How many slots of one PG find a place within caps: a maximal flow from the widest domains down to backends, each
//! edge as wide as its cap, and on through the first label that cuts across. (Ford, Fulkerson, 1956.)
//!
//! A second label that cuts across both is not in the flow, as no flow can hold it; the answer is then an upper bound,
//! and the proof of the finished table decides.

use crate::domain::DomainKind;
use crate::topology::BackendPlace;
use std::collections::{BTreeMap, VecDeque};

/// Most slots, up to `wanted`, that can be put on these backends, one each, within the caps.
pub(crate) fn most_slots(places: &[&BackendPlace], caps: &BTreeMap<DomainKind, usize>, wanted: usize) -> usize {
    let mut network = Network::new(places, caps);
    let mut found = 0;
    while found < wanted && network.push_one() {
        found += 1;
    }
    found
}

struct Network {
    /// (from, to, room); an edge and its reverse are neighbours.
    edges: Vec<(usize, usize, usize)>,
    out: Vec<Vec<usize>>,
}

const SOURCE: usize = 0;
const SINK: usize = 1;

impl Network {
    fn new(places: &[&BackendPlace], caps: &BTreeMap<DomainKind, usize>) -> Self {
        let mut network = Self { edges: Vec::new(), out: vec![Vec::new(), Vec::new()] };
        let nested: Vec<DomainKind> =
            caps.keys().rev().copied().filter(|kind| kind.is_nested() && *kind != DomainKind::Backend).collect();
        let label = caps.keys().copied().find(|kind| !kind.is_nested());
        let mut vertices = BTreeMap::new();
        for place in places {
            let mut at = SOURCE;
            let labels = label.iter().copied();
            for kind in nested.iter().copied() {
                at = network.vertex(&mut vertices, place, kind, at, caps);
            }
            let backend = network.add();
            network.edge(at, backend, 1);
            let mut end = SINK;
            for kind in labels {
                let count = vertices.len();
                let next = *vertices.entry((place.domain(kind), SINK)).or_insert_with(|| network.add());
                if vertices.len() > count {
                    network.edge(next, SINK, caps[&kind]);
                }
                end = next;
            }
            network.edge(backend, end, 1);
        }
        network
    }

    /// The vertex of a place's domain below another one, made when it is first met.
    fn vertex(
        &mut self,
        vertices: &mut BTreeMap<(crate::domain::Domain, usize), usize>,
        place: &BackendPlace,
        kind: DomainKind,
        above: usize,
        caps: &BTreeMap<DomainKind, usize>,
    ) -> usize {
        let key = (place.domain(kind), above);
        if let Some(&known) = vertices.get(&key) {
            return known;
        }
        let made = self.add();
        self.edge(above, made, caps.get(&kind).copied().unwrap_or(1));
        vertices.insert(key, made);
        made
    }

    fn add(&mut self) -> usize {
        self.out.push(Vec::new());
        self.out.len() - 1
    }

    fn edge(&mut self, from: usize, to: usize, room: usize) {
        self.out[from].push(self.edges.len());
        self.edges.push((from, to, room));
        self.out[to].push(self.edges.len());
        self.edges.push((to, from, 0));
    }

    /// Sends one more slot along a shortest path with room; false if there is none.
    fn push_one(&mut self) -> bool {
        let mut by = vec![usize::MAX; self.out.len()];
        let mut queue = VecDeque::from([SOURCE]);
        while let Some(at) = queue.pop_front() {
            if at == SINK {
                break;
            }
            for &edge in &self.out[at] {
                let (_, to, room) = self.edges[edge];
                if room > 0 && by[to] == usize::MAX && to != SOURCE {
                    by[to] = edge;
                    queue.push_back(to);
                }
            }
        }
        if by[SINK] == usize::MAX {
            return false;
        }
        let mut at = SINK;
        while at != SOURCE {
            let edge = by[at];
            self.edges[edge].2 -= 1;
            self.edges[edge ^ 1].2 += 1;
            at = self.edges[edge].0;
        }
        true
    }
}
