//! Which code a segment is written with, and the four bytes that say so in every shard header and manifest.
//!
//! Not here: matrices (`codec`), cells and stripes (`geometry`).
//!
//! **Invariant:** a code id names the field, the matrix family and the shape; nothing about the bytes on disk is ever
//! taken from a library's default. An id this build does not know is refused, never guessed.

use std::fmt;
use std::str::FromStr;

/// First byte of a code id: GF(2^8) with the polynomial 0x11D (its low byte).
pub const FIELD_GF256_11D: u8 = 0x1D;
/// Second byte of a code id: the systematic Vandermonde matrix, `V[r][c] = r^c` times the inverse of its top k rows;
/// the same bytes as the crate `reed-solomon-erasure` 6.0.
pub const FAMILY_REED_SOLOMON: u8 = 1;
/// Most shards of one segment: slots are counted in one byte (`proto::Slot`) and 255 leaves one value spare.
pub const SHARD_COUNT_MAX: usize = 255;

/// A code family and its shape. Small, copied freely.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scheme {
    family: Family,
    k: u8,
    m: u8,
}

/// The matrix families this build writes and reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Family {
    ReedSolomon,
}

/// Why a scheme was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    /// k or m is 0, or k + m is more than 255.
    #[error("no scheme of {k} data and {m} parity shards: each must be at least 1, together at most {SHARD_COUNT_MAX}")]
    Shape {
        /// Data shards asked for.
        k: usize,
        /// Parity shards asked for.
        m: usize,
    },
    /// The code id names a field this build does not know.
    #[error("code id {code:02x?} names field {field:#04x}, which this build does not know")]
    Field {
        /// The whole id.
        code: [u8; 4],
        /// Its first byte.
        field: u8,
    },
    /// The code id names a matrix family this build does not know.
    #[error("code id {code:02x?} names matrix family {family}, which this build does not know")]
    Family {
        /// The whole id.
        code: [u8; 4],
        /// Its second byte.
        family: u8,
    },
    /// Text that is not `K+M`.
    #[error("not a scheme: {got:?}; write it as K+M, for example 4+2")]
    Text {
        /// What was given (at most its first 64 characters).
        got: String,
    },
}

impl Scheme {
    /// Reed-Solomon with `k` data and `m` parity shards: any k of the k + m rebuild the rest.
    ///
    /// # Errors
    /// [`SchemeError::Shape`] unless `k >= 1`, `m >= 1` and `k + m <= 255`.
    pub fn reed_solomon(k: usize, m: usize) -> Result<Self, SchemeError> {
        let refused = SchemeError::Shape { k, m };
        if k == 0 || m == 0 || k.saturating_add(m) > SHARD_COUNT_MAX {
            return Err(refused);
        }
        match (u8::try_from(k), u8::try_from(m)) {
            (Ok(k), Ok(m)) => Ok(Self { family: Family::ReedSolomon, k, m }),
            _ => Err(refused),
        }
    }

    /// Reads a code id: field, family, k, m.
    ///
    /// # Errors
    /// An id with an unknown field or family, or a shape that does not exist.
    pub fn from_code(code: [u8; 4]) -> Result<Self, SchemeError> {
        let [field, family, k, m] = code;
        if field != FIELD_GF256_11D {
            return Err(SchemeError::Field { code, field });
        }
        match family {
            FAMILY_REED_SOLOMON => Self::reed_solomon(usize::from(k), usize::from(m)),
            _ => Err(SchemeError::Family { code, family }),
        }
    }

    /// The code id, as stored: field, family, k, m.
    pub fn code(&self) -> [u8; 4] {
        let family = match self.family {
            Family::ReedSolomon => FAMILY_REED_SOLOMON,
        };
        [FIELD_GF256_11D, family, self.k, self.m]
    }

    /// Data shards: slots `0..k`.
    pub fn k(&self) -> usize {
        usize::from(self.k)
    }

    /// Parity shards: slots `k..n`.
    pub fn m(&self) -> usize {
        usize::from(self.m)
    }

    /// All shards.
    pub fn n(&self) -> usize {
        self.k() + self.m()
    }

    /// Whether every k of the n shards decode (maximum distance separable), so that counting survivors decides.
    pub fn is_mds(&self) -> bool {
        match self.family {
            Family::ReedSolomon => true,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family {
            Family::ReedSolomon => write!(f, "RS({},{})", self.k, self.m),
        }
    }
}

impl fmt::Debug for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads `K+M`, as in the flag `--scheme 4+2`. Digits only: no sign, no space.
impl FromStr for Scheme {
    type Err = SchemeError;
    fn from_str(text: &str) -> Result<Self, SchemeError> {
        let count = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse::<usize>().ok(),
            false => None,
        };
        let counts = text.split_once('+').and_then(|(k, m)| Some((count(k)?, count(m)?)));
        let Some((k, m)) = counts else {
            return Err(SchemeError::Text { got: text.chars().take(64).collect() });
        };
        Self::reed_solomon(k, m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_that_exists_round_trips_and_no_other_is_made() {
        for k in 0..=257usize {
            for m in 0..=257usize {
                let legal = k >= 1 && m >= 1 && k + m <= 255;
                match Scheme::reed_solomon(k, m) {
                    Ok(scheme) => {
                        assert!(legal, "{k}+{m} must be refused");
                        assert_eq!(Scheme::from_code(scheme.code()), Ok(scheme));
                        assert_eq!(format!("{k}+{m}").parse(), Ok(scheme));
                        assert_eq!((scheme.k(), scheme.m(), scheme.n()), (k, m, k + m));
                    }
                    Err(error) => {
                        assert!(!legal, "{k}+{m} must be accepted");
                        assert_eq!(error, SchemeError::Shape { k, m });
                    }
                }
            }
        }
        assert!(Scheme::reed_solomon(usize::MAX, usize::MAX).is_err());
    }

    #[test]
    fn the_code_id_is_frozen() {
        assert_eq!(Scheme::reed_solomon(4, 2).unwrap().code(), [0x1D, 1, 4, 2]);
        assert_eq!(Scheme::reed_solomon(4, 2).unwrap().to_string(), "RS(4,2)");
    }

    #[test]
    fn unknown_ids_are_refused_by_cause() {
        assert!(matches!(Scheme::from_code([0x1B, 1, 4, 2]), Err(SchemeError::Field { field: 0x1B, .. })));
        assert!(matches!(Scheme::from_code([0x1D, 2, 4, 2]), Err(SchemeError::Family { family: 2, .. })));
        assert!(matches!(Scheme::from_code([0x1D, 1, 0, 2]), Err(SchemeError::Shape { k: 0, m: 2 })));
        assert!(matches!(Scheme::from_code([0x1D, 1, 255, 255]), Err(SchemeError::Shape { .. })));
        assert!(Scheme::from_code([0; 4]).is_err());
    }

    #[test]
    fn text_that_is_not_k_plus_m_is_refused() {
        for text in
            ["", "4", "4+", "+2", "4+2+1", " 4+2", "4 + 2", "-4+2", "4+x", "++", "4,2", "99999999999999999999+1"]
        {
            assert!(text.parse::<Scheme>().is_err(), "{text:?} was accepted");
        }
    }
}
