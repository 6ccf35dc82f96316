//! Where the backends are: each with its weight, its node, zone, region and geography, and the labels that cut across.
//!
//! Not here: who holds what (`proto::pg_table`), what may fail at once (`scenario`).
//!
//! **Invariant:** a backend is in exactly one domain of each kind. Backends without a label, or without a geography,
//! together form one domain of that kind: nothing says that they do not fail together.

use crate::candidate::{Candidate, CandidateRole};
use crate::domain::{Domain, DomainKind};
use holdfast_proto::BackendId;
use std::collections::BTreeMap;

/// Most backends of a topology: with more, tables of counts would need gigabytes at 65536 PGs.
pub const BACKENDS_MAX: usize = 4096;

/// One backend and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendPlace {
    /// Which.
    pub id: BackendId,
    /// Short name for people.
    pub name: String,
    /// Its share of the data is in proportion to this: its capacity in bytes.
    pub weight_bytes: u64,
    /// What may be done with it.
    pub role: CandidateRole,
    /// Its node; unique in the cluster.
    pub node: String,
    /// Its zone within the region.
    pub zone: String,
    /// Its region.
    pub region: String,
    /// Its region's geography; empty if none is known.
    pub geography: String,
    /// Labels by kind (rack, power, vendor, account, batch, version); nested kinds given here are left out of account.
    pub labels: BTreeMap<DomainKind, String>,
}

/// Why a topology was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A backend was given twice.
    #[error("backend {id} was given twice")]
    DuplicateBackend {
        /// Which.
        id: BackendId,
    },
    /// A domain lies in two wider ones.
    #[error("{inner} is in {first} and in {second}: it must be in one")]
    Torn {
        /// The narrower domain.
        inner: Domain,
        /// A wider one it is in.
        first: Domain,
        /// Another it is in, too.
        second: Domain,
    },
    /// Too many backends.
    #[error("{count} backends: at most {BACKENDS_MAX}")]
    Size {
        /// How many.
        count: usize,
    },
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Topology {
    places: BTreeMap<BackendId, BackendPlace>,
}

impl Topology {
    /// A topology of these backends.
    ///
    /// # Errors
    /// A backend given twice; a node in two zones, a region in two geographies; more than [`BACKENDS_MAX`].
    pub fn new(places: impl IntoIterator<Item = BackendPlace>) -> Result<Self, TopologyError> {
        let mut known = BTreeMap::new();
        for place in places {
            let id = place.id;
            if known.insert(id, place).is_some() {
                return Err(TopologyError::DuplicateBackend { id });
            }
        }
        if known.len() > BACKENDS_MAX {
            return Err(TopologyError::Size { count: known.len() });
        }
        let topology = Self { places: known };
        topology.check_nesting(DomainKind::Node, DomainKind::Zone)?;
        topology.check_nesting(DomainKind::Region, DomainKind::Geography)?;
        Ok(topology)
    }

    /// Backends of which nothing is known but their weight: all on one node.
    ///
    /// # Errors
    /// As [`Topology::new`].
    pub fn of_one_node(candidates: &[Candidate]) -> Result<Self, TopologyError> {
        Self::new(candidates.iter().map(|candidate| BackendPlace {
            id: candidate.id,
            name: candidate.id.to_string(),
            weight_bytes: candidate.weight_bytes,
            role: candidate.role,
            node: String::new(),
            zone: String::new(),
            region: String::new(),
            geography: String::new(),
            labels: BTreeMap::new(),
        }))
    }

    fn check_nesting(&self, inner: DomainKind, outer: DomainKind) -> Result<(), TopologyError> {
        let mut around: BTreeMap<Domain, Domain> = BTreeMap::new();
        for place in self.places.values() {
            let (inner, second) = (place.domain(inner), place.domain(outer));
            if let Some(first) = around.insert(inner.clone(), second.clone())
                && first != second
            {
                return Err(TopologyError::Torn { inner, first, second });
            }
        }
        Ok(())
    }

    /// All backends, by id.
    pub fn places(&self) -> impl Iterator<Item = &BackendPlace> {
        self.places.values()
    }

    /// One backend.
    pub fn place(&self, id: BackendId) -> Option<&BackendPlace> {
        self.places.get(&id)
    }

    /// The domains of a kind with the backends in each that take shards or could again: all but the lost ones.
    pub fn domains(&self, kind: DomainKind) -> BTreeMap<Domain, Vec<BackendId>> {
        let mut domains: BTreeMap<Domain, Vec<BackendId>> = BTreeMap::new();
        for place in self.places.values().filter(|place| place.role != CandidateRole::Lost) {
            domains.entry(place.domain(kind)).or_default().push(place.id);
        }
        domains
    }

    /// The backends of a domain, lost ones included; a backend is found by its name or its id, a zone by its name with
    /// or without its region's.
    pub fn backends_in(&self, domain: &Domain) -> Vec<BackendId> {
        let is_in = |place: &&BackendPlace| {
            let by_id = domain.kind == DomainKind::Backend && place.id.to_string() == domain.name;
            let by_zone = domain.kind == DomainKind::Zone && place.zone == domain.name && !place.zone.is_empty();
            by_id || by_zone || place.domain(domain.kind) == *domain
        };
        self.places.values().filter(is_in).map(|place| place.id).collect()
    }

    /// This topology with other roles or weights: what `change` makes of each backend.
    pub fn with(&self, change: impl Fn(&mut BackendPlace)) -> Self {
        let mut next = self.clone();
        next.places.values_mut().for_each(|place| {
            let id = place.id;
            change(place);
            place.id = id;
        });
        next
    }
}

impl BackendPlace {
    /// The domain of a kind that it is in.
    pub fn domain(&self, kind: DomainKind) -> Domain {
        let name = match kind {
            DomainKind::Backend => self.name.clone(),
            DomainKind::Node => self.node.clone(),
            DomainKind::Zone if self.region.is_empty() => self.zone.clone(),
            DomainKind::Zone => format!("{}/{}", self.region, self.zone),
            DomainKind::Region => self.region.clone(),
            DomainKind::Geography => self.geography.clone(),
            label => self.labels.get(&label).cloned().unwrap_or_default(),
        };
        Domain { kind, name }
    }
}

/// Everyone who matters for a table, by index, ascending by id: the backends of the topology and whoever else the
/// table names. Those count as lost, and each as a domain of its own.
pub(crate) struct Census {
    pub(crate) ids: Vec<BackendId>,
    pub(crate) roles: Vec<CandidateRole>,
    pub(crate) weights: Vec<u64>,
    index: BTreeMap<BackendId, usize>,
}

/// The domains of one kind, by index, and which one each backend of a census is in.
pub(crate) struct Division {
    pub(crate) kind: DomainKind,
    pub(crate) domain_of: Vec<usize>,
    pub(crate) domains: Vec<Domain>,
}

impl Census {
    pub(crate) fn new(topology: &Topology, named: impl Iterator<Item = BackendId>) -> Self {
        let mut known: BTreeMap<BackendId, (CandidateRole, u64)> =
            topology.places().map(|place| (place.id, (place.role, place.weight_bytes))).collect();
        for id in named {
            known.entry(id).or_insert((CandidateRole::Lost, 0));
        }
        Self {
            ids: known.keys().copied().collect(),
            roles: known.values().map(|(role, _)| *role).collect(),
            weights: known.values().map(|(_, weight)| *weight).collect(),
            index: known.keys().enumerate().map(|(index, id)| (*id, index)).collect(),
        }
    }

    /// The index of a backend that is in the topology or was named; of any other, one past the last.
    pub(crate) fn index(&self, id: BackendId) -> usize {
        self.index.get(&id).copied().unwrap_or(self.ids.len())
    }

    pub(crate) fn with_role(&self, role: CandidateRole) -> impl Iterator<Item = usize> + '_ {
        (0..self.ids.len()).filter(move |&index| self.roles[index] == role)
    }

    /// Backends by themselves: two of one name are still two.
    pub(crate) fn division(&self, topology: &Topology, kind: DomainKind) -> Division {
        let mut seen: BTreeMap<Domain, usize> = BTreeMap::new();
        let mut division = Division { kind, domain_of: Vec::with_capacity(self.ids.len()), domains: Vec::new() };
        for &id in &self.ids {
            let next = division.domains.len();
            let (domain, number) = match topology.place(id) {
                Some(place) if kind == DomainKind::Backend => (place.domain(kind), next),
                Some(place) => {
                    let domain = place.domain(kind);
                    let number = *seen.entry(domain.clone()).or_insert(next);
                    (domain, number)
                }
                None => (Domain { kind, name: format!("of backend {id}, which is unknown") }, next),
            };
            if number == next {
                division.domains.push(domain);
            }
            division.domain_of.push(number);
        }
        division
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A backend n in node, zone, region; active, of weight 1 TiB.
    pub(crate) fn place(number: u16, node: &str, zone: &str, region: &str) -> BackendPlace {
        let mut id = [0; 16];
        id[14..].copy_from_slice(&number.to_be_bytes());
        BackendPlace {
            id: BackendId(id),
            name: format!("d{number}"),
            weight_bytes: 1 << 40,
            role: CandidateRole::Active,
            node: node.to_owned(),
            zone: zone.to_owned(),
            region: region.to_owned(),
            geography: String::new(),
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn torn_and_double_domains_are_refused() {
        let twice = Topology::new([place(1, "n1", "a", "r"), place(1, "n2", "a", "r")]);
        assert!(matches!(twice, Err(TopologyError::DuplicateBackend { .. })));
        let torn = Topology::new([place(1, "n1", "a", "r"), place(2, "n1", "b", "r")]).unwrap_err();
        assert_eq!(torn.to_string(), "node n1 is in zone r/a and in zone r/b: it must be in one");
        let mut away = place(2, "n2", "b", "r");
        away.geography = "eu".to_owned();
        assert!(matches!(Topology::new([place(1, "n1", "a", "r"), away]), Err(TopologyError::Torn { .. })));
    }

    #[test]
    fn zones_of_two_regions_are_two_and_what_has_no_label_is_one() {
        let topology =
            Topology::new([place(1, "n1", "a", "r"), place(2, "n2", "a", "s"), place(3, "n3", "b", "s")]).unwrap();
        assert_eq!(topology.domains(DomainKind::Zone).len(), 3);
        assert_eq!(topology.domains(DomainKind::Region).len(), 2);
        let vendors = topology.domains(DomainKind::Vendor);
        assert_eq!(vendors.keys().map(Domain::to_string).collect::<Vec<_>>(), ["everything without a vendor"]);
        let domain = |kind, name: &str| Domain { kind, name: name.to_owned() };
        assert_eq!(topology.backends_in(&domain(DomainKind::Zone, "s/a")).len(), 1);
        assert_eq!(topology.backends_in(&domain(DomainKind::Zone, "a")).len(), 2);
        assert_eq!(topology.backends_in(&domain(DomainKind::Backend, "d3")).len(), 1);
        assert!(topology.backends_in(&domain(DomainKind::Node, "n9")).is_empty());
    }
}
