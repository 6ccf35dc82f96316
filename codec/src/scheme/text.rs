//! Schemes as people write them: `4+2`, `lrc-12-2-2`, `geo-6`, `geo-12`, `geo-12+`, `geo-12/4r`; and as we print them.

use super::{Family, GeoTable, Scheme, SchemeError};
use std::fmt;
use std::str::FromStr;

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family() {
            Family::ReedSolomon => write!(f, "RS({},{})", self.k(), self.m()),
            Family::Geo(table) => f.write_str(table.shape().name),
            Family::AzureLrc => write!(f, "LRC({},2,2)", self.k()),
            Family::CauchyLrc { groups, globals } => write!(f, "LRC({},{groups},{globals})", self.k()),
        }
    }
}

impl fmt::Debug for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads `K+M`, as in the flag `--scheme 4+2`, `lrc-K-L-G`, or the name of a geo table in any case. Numbers are digits
/// only: no sign, no space.
impl FromStr for Scheme {
    type Err = SchemeError;
    fn from_str(text: &str) -> Result<Self, SchemeError> {
        if let Some(table) = GeoTable::ALL.into_iter().find(|table| table.shape().name.eq_ignore_ascii_case(text)) {
            return Ok(Self::geo(table));
        }
        let refused = || SchemeError::Text { got: text.chars().take(64).collect() };
        if let Some(counts) = text.strip_prefix("lrc-") {
            let counts: Option<Vec<usize>> = counts.split('-').map(count).collect();
            return match counts.as_deref() {
                Some(&[k, groups, globals]) => Self::lrc(k, groups, globals),
                _ => Err(refused()),
            };
        }
        let counts = text.split_once('+').and_then(|(k, m)| Some((count(k)?, count(m)?)));
        let (k, m) = counts.ok_or_else(refused)?;
        Self::reed_solomon(k, m)
    }
}

fn count(digits: &str) -> Option<usize> {
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}
