//! Failure domains: what may fail at once, by kind and name.
//!
//! Five kinds are nested: backend < node < zone < region < geography. The others cut across: a vendor, an account, a
//! rack, a power feed, a batch of disks, a software version may fail as one wherever its backends stand.
//!
//! Not here: which backends are in which domain (`topology`).

use std::fmt;
use std::str::FromStr;

/// Characters of a wrong word that are repeated in an error, and compared with the valid ones.
const WORD_CHARS_MAX: usize = 32;
/// A wrong word is taken for a slip of a valid one if at most so many characters differ.
const SLIP_CHARS_MAX: usize = 3;

/// A kind of failure domain; ordered from the narrowest to the widest, then those that cut across.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DomainKind {
    /// One disk or one vendor bucket.
    Backend,
    /// One machine.
    Node,
    /// One building or room: what shares power, network and roof.
    Zone,
    /// One metropolitan area: zones a few milliseconds apart.
    Region,
    /// One country or theatre: regions that one event or one authority can take away.
    Geography,
    /// Label: machines in one rack.
    Rack,
    /// Label: machines on one power feed.
    Power,
    /// Label: backends of one company.
    Vendor,
    /// Label: backends paid for by one account.
    Account,
    /// Label: disks of one batch.
    Batch,
    /// Label: machines that run one version of software.
    Version,
}

impl DomainKind {
    /// All kinds, narrowest first.
    pub const ALL: [Self; 11] = [
        Self::Backend,
        Self::Node,
        Self::Zone,
        Self::Region,
        Self::Geography,
        Self::Rack,
        Self::Power,
        Self::Vendor,
        Self::Account,
        Self::Batch,
        Self::Version,
    ];

    /// Its name in a scenario.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Node => "node",
            Self::Zone => "zone",
            Self::Region => "region",
            Self::Geography => "geography",
            Self::Rack => "rack",
            Self::Power => "power",
            Self::Vendor => "vendor",
            Self::Account => "account",
            Self::Batch => "batch",
            Self::Version => "version",
        }
    }

    /// Its name for several of them.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Backend => "backends",
            Self::Node => "nodes",
            Self::Zone => "zones",
            Self::Region => "regions",
            Self::Geography => "geographies",
            Self::Rack => "racks",
            Self::Power => "power feeds",
            Self::Vendor => "vendors",
            Self::Account => "accounts",
            Self::Batch => "batches",
            Self::Version => "versions",
        }
    }

    /// Whether it is one of the five that lie one within another.
    pub fn is_nested(self) -> bool {
        self <= Self::Geography
    }
}

impl fmt::Display for DomainKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no kind of domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no kind of failure domain is called {given:?}; {}", advice(*.nearest))]
pub struct DomainKindError {
    /// What was given (at most its first 32 characters).
    pub given: String,
    /// What was probably meant.
    pub nearest: Option<DomainKind>,
}

fn advice(nearest: Option<DomainKind>) -> String {
    match nearest {
        Some(kind) => format!("did you mean {kind}?"),
        None => format!("there are {}", DomainKind::ALL.map(DomainKind::name).join(", ")),
    }
}

impl FromStr for DomainKind {
    type Err = DomainKindError;

    fn from_str(text: &str) -> Result<Self, DomainKindError> {
        if let Some(kind) = Self::ALL.into_iter().find(|kind| kind.name() == text) {
            return Ok(kind);
        }
        let given: String = text.chars().take(WORD_CHARS_MAX).collect();
        let word = given.to_lowercase();
        let distance = |kind: &Self| distance(&word, kind.name()).min(distance(&word, kind.plural()));
        let nearest = Self::ALL.into_iter().min_by_key(distance);
        // Half the word must be right, or any short word would be taken for another.
        let is_slip = |kind: &Self| distance(kind) <= SLIP_CHARS_MAX.min(word.chars().count() / 2);
        Err(DomainKindError { nearest: nearest.filter(is_slip), given })
    }
}

/// How many characters must be put in, taken out or changed to make one word of the other. (Levenshtein, 1966.)
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// One failure domain: zone eu-1/a, node n3.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain {
    /// Its kind.
    pub kind: DomainKind,
    /// Its name, unique among its kind; a zone's is its region's, a slash and its own. Empty for the backends that
    /// lack this label.
    pub name: String,
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "everything without a {}", self.kind),
            name => write!(f, "{} {name}", self.kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_what_they_print_and_slips_are_told() {
        for kind in DomainKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let nearest = |text: &str| text.parse::<DomainKind>().unwrap_err().nearest;
        assert_eq!(nearest("zones"), Some(DomainKind::Zone));
        assert_eq!(nearest("Node"), Some(DomainKind::Node));
        assert_eq!(nearest("regoin"), Some(DomainKind::Region));
        assert_eq!(nearest("vendors"), Some(DomainKind::Vendor));
        for far in ["", "x", "datacenter", &"z".repeat(1 << 20)] {
            assert_eq!(nearest(far), None);
        }
        assert_eq!(
            "zonne".parse::<DomainKind>().unwrap_err().to_string(),
            "no kind of failure domain is called \"zonne\"; did you mean zone?"
        );
        assert!("".parse::<DomainKind>().unwrap_err().to_string().contains("backend, node, zone"));
    }
}
