//! What must survive: a scenario is a combination of failures (`zone:1+node:1`: any one zone and, wherever it is, any
//! one node), a promise a list of scenarios, each of which must leave every segment readable.
//!
//! Not here: whether a layout keeps it (`proof`), or could on some topology (`caps`).
//!
//! **Invariant:** counts are at least 1; a scenario names a kind once; a promise has no scenario twice, at most
//! [`SCENARIOS_MAX`] of them and [`KINDS_MAX`] kinds of domain. So the work of proving one is bounded.

use crate::domain::{DomainKind, DomainKindError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// Most scenarios of a promise: every one costs a proof per layout, and nobody reads more.
pub const SCENARIOS_MAX: usize = 8;
/// Most kinds of domain in one promise: the caps that keep it are searched for over their combinations.
pub const KINDS_MAX: usize = 4;
/// Most characters of a scenario or promise: all that the limits above allow fit in.
const TEXT_BYTES_MAX: usize = 1024;

/// A combination of failures: so many domains of each kind, at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scenario {
    counts: BTreeMap<DomainKind, u8>,
}

/// What a bucket or a pool promises to survive. The empty one stands for "whatever the code survives anyhow":
/// see [`Promise::or_any_backends`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Promise {
    scenarios: Vec<Scenario>,
}

/// Why a text is no scenario or no promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// A kind that there is not.
    #[error(transparent)]
    Kind(#[from] DomainKindError),
    /// A part is not `KIND:COUNT`.
    #[error("not a failure: {given:?}; write KIND:COUNT, for example node:1, and join several with +")]
    Part {
        /// The part (at most its first 32 characters).
        given: String,
    },
    /// A count of 0, or more than 255.
    #[error("{kind}:{given}: a count is a number from 1 to 255")]
    Count {
        /// The kind.
        kind: DomainKind,
        /// The count as given (at most its first 32 characters).
        given: String,
    },
    /// One kind twice in a scenario.
    #[error("{kind} is named twice in one scenario: write {kind}:2 for two of them")]
    Twice {
        /// The kind.
        kind: DomainKind,
    },
    /// Too long a text.
    #[error("{bytes} characters are too many for a promise: at most {TEXT_BYTES_MAX}")]
    Long {
        /// How many.
        bytes: usize,
    },
    /// Too many scenarios.
    #[error("{count} scenarios are too many: a promise has at most {SCENARIOS_MAX}")]
    Scenarios {
        /// How many.
        count: usize,
    },
    /// Too many kinds.
    #[error("{count} kinds of failure domain are too many: a promise has at most {KINDS_MAX}")]
    Kinds {
        /// How many.
        count: usize,
    },
}

impl Scenario {
    /// `count` domains of one kind. `None` for a count of 0 or above 255.
    pub fn of(kind: DomainKind, count: usize) -> Option<Self> {
        let count = u8::try_from(count).ok().filter(|&count| count > 0)?;
        Some(Self { counts: BTreeMap::from([(kind, count)]) })
    }

    /// How many domains of each kind, narrowest kind first.
    pub fn counts(&self) -> impl Iterator<Item = (DomainKind, usize)> + '_ {
        self.counts.iter().map(|(&kind, &count)| (kind, usize::from(count)))
    }

    /// How many domains of this kind.
    pub fn count(&self, kind: DomainKind) -> usize {
        self.counts.get(&kind).map_or(0, |&count| usize::from(count))
    }
}

/// Widest domain first: `region:1+node:1`.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (kind, count)) in self.counts.iter().rev().enumerate() {
            write!(f, "{}{kind}:{count}", if number == 0 { "" } else { "+" })?;
        }
        Ok(())
    }
}

impl FromStr for Scenario {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        check_length(text)?;
        let short = |text: &str| text.chars().take(32).collect::<String>();
        let mut counts = BTreeMap::new();
        for part in text.split('+').map(str::trim) {
            let (kind, count) = part.split_once(':').ok_or_else(|| ScenarioError::Part { given: short(part) })?;
            let (kind, count) = (kind.trim().parse::<DomainKind>()?, count.trim());
            let digits = count.bytes().all(|byte| byte.is_ascii_digit());
            let number = count.parse::<u8>().ok().filter(|&number| digits && number > 0);
            let number = number.ok_or_else(|| ScenarioError::Count { kind, given: short(count) })?;
            if counts.insert(kind, number).is_some() {
                return Err(ScenarioError::Twice { kind });
            }
        }
        Ok(Self { counts })
    }
}

fn check_length(text: &str) -> Result<(), ScenarioError> {
    if text.len() > TEXT_BYTES_MAX { Err(ScenarioError::Long { bytes: text.len() }) } else { Ok(()) }
}

impl Promise {
    /// A promise of these scenarios, in their own order; doubles count once.
    ///
    /// # Errors
    /// More than [`SCENARIOS_MAX`] scenarios or [`KINDS_MAX`] kinds.
    pub fn new(scenarios: impl IntoIterator<Item = Scenario>) -> Result<Self, ScenarioError> {
        let scenarios: BTreeSet<Scenario> = scenarios.into_iter().collect();
        if scenarios.len() > SCENARIOS_MAX {
            return Err(ScenarioError::Scenarios { count: scenarios.len() });
        }
        let promise = Self { scenarios: scenarios.into_iter().collect() };
        match promise.kinds().len() {
            count if count > KINDS_MAX => Err(ScenarioError::Kinds { count }),
            _ => Ok(promise),
        }
    }

    /// `backend:m`: any m backends, as a store on one machine promises. Empty for m = 0; more than 255 count as 255,
    /// which is all backends a segment can have.
    pub fn any_backends(m: usize) -> Self {
        Self { scenarios: Scenario::of(DomainKind::Backend, m.min(255)).into_iter().collect() }
    }

    /// This promise, or any m backends if it is empty: `m` is what the scheme survives (`Scheme::losses_survived`).
    pub fn or_any_backends(&self, m: usize) -> Self {
        if self.is_empty() { Self::any_backends(m) } else { self.clone() }
    }

    /// Whether nothing is promised in words.
    pub fn is_empty(&self) -> bool {
        self.scenarios.is_empty()
    }

    /// Its scenarios, ascending.
    pub fn scenarios(&self) -> &[Scenario] {
        &self.scenarios
    }

    /// The kinds of domain it names, narrowest first.
    pub fn kinds(&self) -> BTreeSet<DomainKind> {
        self.scenarios.iter().flat_map(|scenario| scenario.counts.keys().copied()).collect()
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, scenario) in self.scenarios.iter().enumerate() {
            write!(f, "{}{scenario}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Scenarios joined by commas.
impl FromStr for Promise {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        check_length(text)?;
        let scenarios: Result<Vec<Scenario>, ScenarioError> = text.split(',').map(str::parse).collect();
        Self::new(scenarios?)
    }
}

/// A list of texts.
impl Serialize for Promise {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.scenarios.iter().map(Scenario::to_string))
    }
}

impl<'de> Deserialize<'de> for Promise {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(d)?;
        let scenarios: Result<Vec<Scenario>, ScenarioError> = texts.iter().map(|text| text.parse()).collect();
        scenarios.and_then(Self::new).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_read_what_they_print() {
        for (text, printed) in [
            ("backend:2", "backend:2"),
            ("node:1", "node:1"),
            (" zone:1 + node:1 ", "zone:1+node:1"),
            ("node:1+region:1", "region:1+node:1"),
            ("vendor:1", "vendor:1"),
            ("backend:255", "backend:255"),
        ] {
            let scenario: Scenario = text.parse().unwrap();
            assert_eq!(scenario.to_string(), printed);
            assert_eq!(printed.parse(), Ok(scenario));
        }
        let promise: Promise = "zone:1+node:1, backend:2,backend:2".parse().unwrap();
        assert_eq!(promise.to_string(), "backend:2, zone:1+node:1");
        assert_eq!(promise.to_string().parse(), Ok(promise.clone()));
        assert_eq!(promise.scenarios().len(), 2);
    }

    #[test]
    fn wrong_texts_are_refused_by_cause() {
        let refused = |text: &str| text.parse::<Promise>().unwrap_err().to_string();
        for (text, part) in [
            ("", "write KIND:COUNT"),
            ("node", "write KIND:COUNT"),
            ("nodes:1", "did you mean node?"),
            ("node:0", "a number from 1 to 255"),
            ("node:+1", "a number from 1 to 255"),
            ("node:256", "a number from 1 to 255"),
            ("node:-1", "a number from 1 to 255"),
            ("node:1+node:1", "write node:2"),
            ("node:1,", "write KIND:COUNT"),
        ] {
            assert!(refused(text).contains(part), "{text:?}: {}", refused(text));
        }
        let many = |count: u8| (1..=count).map(|n| format!("node:{n}")).collect::<Vec<_>>().join(",");
        assert!(many(8).parse::<Promise>().is_ok());
        assert_eq!(many(9).parse::<Promise>(), Err(ScenarioError::Scenarios { count: 9 }));
        let kinds = "node:1,zone:1,region:1,vendor:1,rack:1";
        assert_eq!(kinds.parse::<Promise>(), Err(ScenarioError::Kinds { count: 5 }));
        assert_eq!("node:1+".repeat(1000).parse::<Scenario>(), Err(ScenarioError::Long { bytes: 7000 }));
    }

    #[test]
    fn empty_means_what_the_code_survives() {
        assert_eq!(Promise::default().or_any_backends(2).to_string(), "backend:2");
        assert_eq!("node:1".parse::<Promise>().unwrap().or_any_backends(2).to_string(), "node:1");
        assert!(Promise::any_backends(0).is_empty());
        assert_eq!(Promise::any_backends(usize::MAX).to_string(), "backend:255");
    }
}
