//! Which code a segment is written with, and the four bytes that say so in every shard header and manifest.
//!
//! Not here: matrices (`code`), cells and stripes (`geometry`).
//!
//! **Invariant:** a code id names the field, the matrix family and the shape; nothing about the bytes on disk is ever
//! taken from a library's default. An id never changes meaning, no two ids mean the same code, and an id this build
//! does not know is refused, never guessed.
//!
//! | field | family | byte 2 | byte 3 | code |
//! |---|---|---|---|---|
//! | 0x1D | 1 | k | m | RS(k, m), k + m <= 255 |
//! | 0x1D | 2 | k | m | one of the four tables of [`GeoTable`] |
//! | 0x1D | 3 | k | 0x22 | LRC(k, 2, 2) with Azure's global parities, k even and <= 30 |
//! | 0x1D | 4 | k | l * 16 + g | LRC(k, l, g) with Cauchy global parities, every other shape |

mod text;

#[cfg(test)]
mod tests;

/// First byte of a code id: GF(2^8) with the polynomial 0x11D (its low byte).
pub const FIELD_GF256_11D: u8 = 0x1D;
/// Second byte of a code id: the systematic Vandermonde matrix, `V[r][c] = r^c` times the inverse of its top k rows;
/// the same bytes as the crate `reed-solomon-erasure` 6.0.
pub const FAMILY_REED_SOLOMON: u8 = 1;
/// Second byte of a code id: a fixed geo-LRC table, named by its k and m.
pub const FAMILY_GEO: u8 = 2;
/// Second byte of a code id: two local groups and two global parities with the weights `a` and `a^2`.
pub const FAMILY_AZURE_LRC: u8 = 3;
/// Second byte of a code id: local XOR groups and Cauchy global parities.
pub const FAMILY_CAUCHY_LRC: u8 = 4;
/// Most shards of one segment: slots are counted in one byte (`proto::Slot`) and 255 leaves one value spare.
pub const SHARD_COUNT_MAX: usize = 255;
/// Most local groups and most global parities of an LRC: each is four bits of the code id.
pub const LRC_PARITIES_MAX: usize = 15;
/// Widest LRC(k, 2, 2) with Azure's weights: 15 non-zero weights of four bits for each of the two groups.
pub const AZURE_K_MAX: usize = 30;

/// A code family and its shape. Small, copied freely.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scheme {
    family: Family,
    k: u8,
    m: u8,
}

/// The matrix families this build writes and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Maximum distance separable: any k of the n shards decode.
    ReedSolomon,
    /// A fixed code over several regions with a local parity in each.
    Geo(GeoTable),
    /// LRC(k, 2, 2) that decodes every pattern any such code can.
    AzureLrc,
    /// LRC(k, `groups`, `globals`) that decodes any `globals + 1` losses.
    CauchyLrc {
        /// Local groups, each of k / `groups` data shards and one parity.
        groups: u8,
        /// Global parities.
        globals: u8,
    },
}

/// The geo-LRC codes. Each is (R, g, l): R regions, each with g shards of one Cauchy code and l local parities over
/// them; k = (R - 1) g, so that one region's loss leaves enough. New ones are added only with their proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GeoTable {
    /// GEO-6, geo-LRC(3, 3, 1): 3 x (2 data + 1 global + 1 local), 2.00x.
    Geo6,
    /// GEO-12, geo-LRC(3, 6, 1): 3 x (4 data + 2 global + 1 local), 1.75x.
    Geo12,
    /// GEO-12+, geo-LRC(3, 6, 2): 3 x (4 data + 2 global + 2 local), 2.00x.
    Geo12Plus,
    /// GEO-12/4R, geo-LRC(4, 4, 1): 4 x (3 data + 1 global + 1 local), 1.67x.
    Geo12Regions4,
}

/// The numbers that make a geo-LRC code; part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeoShape {
    /// Its name.
    pub name: &'static str,
    /// R.
    pub regions: usize,
    /// Data shards of each region.
    pub data: usize,
    /// Global parities of each region; `data + globals` is g.
    pub globals: usize,
    /// Local parities of each region: l.
    pub locals: usize,
    /// The Cauchy point of each global parity, region by region: global i is the sum of `d_j / (points[i] + j)`.
    pub points: &'static [u8],
    /// Any so many losses decode (proven in `code/proofs.rs`).
    pub losses_survived: usize,
}

impl GeoTable {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Geo6, Self::Geo12, Self::Geo12Plus, Self::Geo12Regions4];

    /// Its numbers.
    pub const fn shape(self) -> &'static GeoShape {
        match self {
            // The first three points (in lexicographic order) with which every pattern decodes that any code of these
            // groups can decode; 6, 7, 8 would miss 2 of the 924 six-loss patterns.
            Self::Geo6 => &GeoShape {
                name: "GEO-6",
                regions: 3,
                data: 2,
                globals: 1,
                locals: 1,
                points: &[6, 8, 10],
                losses_survived: 5,
            },
            Self::Geo12 => &GeoShape {
                name: "GEO-12",
                regions: 3,
                data: 4,
                globals: 2,
                locals: 1,
                points: &[12, 13, 14, 15, 16, 17],
                losses_survived: 7,
            },
            Self::Geo12Plus => &GeoShape {
                name: "GEO-12+",
                regions: 3,
                data: 4,
                globals: 2,
                locals: 2,
                points: &[12, 13, 14, 15, 16, 17],
                losses_survived: 8,
            },
            Self::Geo12Regions4 => &GeoShape {
                name: "GEO-12/4R",
                regions: 4,
                data: 3,
                globals: 1,
                locals: 1,
                points: &[12, 13, 14, 50],
                losses_survived: 6,
            },
        }
    }
}

impl GeoShape {
    /// Data shards: slots `0..k`, region by region.
    pub const fn k(&self) -> usize {
        self.regions * self.data
    }

    /// Parity shards: slots `k..n`, first the globals region by region, then the locals region by region.
    pub const fn m(&self) -> usize {
        self.regions * (self.globals + self.locals)
    }
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
    /// An LRC that does not exist.
    #[error(
        "no LRC({k},{groups},{globals}): 1 to {LRC_PARITIES_MAX} groups of equally many data shards, 1 to \
         {LRC_PARITIES_MAX} global parities, at most {SHARD_COUNT_MAX} shards"
    )]
    LrcShape {
        /// Data shards asked for.
        k: usize,
        /// Local groups asked for.
        groups: usize,
        /// Global parities asked for.
        globals: usize,
    },
    /// The code id names a geo table this build does not know.
    #[error("code id {code:02x?} names a geo table this build does not know")]
    Table {
        /// The whole id.
        code: [u8; 4],
    },
    /// The code id names a shape that has its id in another family.
    #[error("code id {code:02x?} is not how that shape is named: the same code has one id")]
    Alias {
        /// The whole id.
        code: [u8; 4],
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
    /// Text that names no scheme.
    #[error("not a scheme: {got:?}; write it as K+M, for example 4+2, as lrc-K-L-G or as geo-6")]
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
        Self::of(Family::ReedSolomon, k, m).ok_or(SchemeError::Shape { k, m })
    }

    /// Locally repairable: `k` data shards in `groups` equal groups, each with an XOR parity, and `globals` parities
    /// over all of them. m is `groups + globals`. LRC(k, 2, 2) with an even k up to 30 has Azure's weights, which
    /// decode whatever can be decoded; every other shape has Cauchy weights, which decode any `globals + 1` losses.
    ///
    /// # Errors
    /// [`SchemeError::LrcShape`] unless `groups` divides `k`, both counts are 1 to 15, and there are at most 255
    /// shards.
    pub fn lrc(k: usize, groups: usize, globals: usize) -> Result<Self, SchemeError> {
        let refused = SchemeError::LrcShape { k, groups, globals };
        let counts = 1..=LRC_PARITIES_MAX;
        if !counts.contains(&groups) || !counts.contains(&globals) || k == 0 || !k.is_multiple_of(groups) {
            return Err(refused);
        }
        let family = match (u8::try_from(groups), u8::try_from(globals)) {
            (Ok(2), Ok(2)) if k <= AZURE_K_MAX => Family::AzureLrc,
            (Ok(groups), Ok(globals)) => Family::CauchyLrc { groups, globals },
            _ => return Err(refused),
        };
        Self::of(family, k, groups + globals).ok_or(refused)
    }

    /// One of the fixed geo codes.
    pub fn geo(table: GeoTable) -> Self {
        let shape = table.shape();
        // The shapes are constants; a test makes each.
        Self::of(Family::Geo(table), shape.k(), shape.m()).expect("a geo table has at most 255 shards")
    }

    fn of(family: Family, k: usize, m: usize) -> Option<Self> {
        if k == 0 || m == 0 || k.saturating_add(m) > SHARD_COUNT_MAX {
            return None;
        }
        Some(Self { family, k: u8::try_from(k).ok()?, m: u8::try_from(m).ok()? })
    }

    /// Reads a code id; the table is in the module's documentation.
    ///
    /// # Errors
    /// An id with an unknown field, family or table, or a shape that does not exist.
    pub fn from_code(code: [u8; 4]) -> Result<Self, SchemeError> {
        let [field, family, a, b] = code;
        if field != FIELD_GF256_11D {
            return Err(SchemeError::Field { code, field });
        }
        let (k, m) = (usize::from(a), usize::from(b));
        match family {
            FAMILY_REED_SOLOMON => Self::reed_solomon(k, m),
            FAMILY_GEO => {
                let table = GeoTable::ALL.into_iter().find(|table| (table.shape().k(), table.shape().m()) == (k, m));
                table.map(Self::geo).ok_or(SchemeError::Table { code })
            }
            FAMILY_AZURE_LRC | FAMILY_CAUCHY_LRC => {
                let scheme = Self::lrc(k, usize::from(b >> 4), usize::from(b & 15))?;
                if scheme.code() == code { Ok(scheme) } else { Err(SchemeError::Alias { code }) }
            }
            _ => Err(SchemeError::Family { code, family }),
        }
    }

    /// The code id, as stored; the table is in the module's documentation.
    pub fn code(&self) -> [u8; 4] {
        let (family, last) = match self.family {
            Family::ReedSolomon => (FAMILY_REED_SOLOMON, self.m),
            Family::Geo(_) => (FAMILY_GEO, self.m),
            Family::AzureLrc => (FAMILY_AZURE_LRC, 0x22),
            Family::CauchyLrc { groups, globals } => (FAMILY_CAUCHY_LRC, groups << 4 | globals),
        };
        [FIELD_GF256_11D, family, self.k, last]
    }

    /// Its matrix family.
    pub fn family(&self) -> Family {
        self.family
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
        matches!(self.family, Family::ReedSolomon)
    }

    /// The largest t such that the loss of **any** t shards is survived. For codes that are not MDS some larger losses
    /// are survived too; only [`Codec::decodable`](crate::Codec::decodable) knows which.
    pub fn losses_survived(&self) -> usize {
        match self.family {
            Family::ReedSolomon => self.m(),
            Family::Geo(table) => table.shape().losses_survived,
            Family::AzureLrc => 3,
            Family::CauchyLrc { globals, .. } => usize::from(globals) + 1,
        }
    }
}
