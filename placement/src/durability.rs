//! How likely a segment is lost in a year, in closed form, with and without regions that can be lost for good.
//!
//! A segment of n shards that survives any t losses is lost when t more fail while the first is being repaired: per
//! year `n L C(n-1, t) q^t`, where L is the rate at which devices fail and q = L T + r S / 2 the chance that a shard is
//! gone (its device failed within the repair time T) or rotten unnoticed (at rate r, for half a scrub period S).
//! A region lost for good takes s shards; until it is refilled, which takes W, one of the n' = n - s others fails, and
//! t' = t - s more within its repair: per year `R G n' (L W + r S / 2) C(n'-1, t') q^t'`, with R regions that are lost
//! at rate G each.
//!
//! It is a bound for codes that are not MDS: some patterns of t + 1 losses they survive. It knows nothing of batches
//! that fail together, of software, or of operators; above some twelve nines those decide.
//!
//! **Invariant:** the figures of the table these formulas were made for come out to within 0.15 nines (test).

/// What may happen, and how fast it is mended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hazards {
    /// Part of all devices that fail in a year.
    pub device_failures_per_year: f64,
    /// Shards that rot unnoticed, per shard and year.
    pub rot_per_shard_year: f64,
    /// Days in which scrub reads everything once.
    pub scrub_days: f64,
    /// Hours until a lost device's shards are all whole again.
    pub repair_hours: f64,
    /// Regions lost for good, per region and year.
    pub regions_lost_per_year: f64,
    /// Hours until a lost region's shards are all whole again elsewhere.
    pub region_refill_hours: f64,
}

impl Default for Hazards {
    /// Disks as Backblaze publishes them (1.4 % a year), one rotten shard in 10^4 a year, scrub in 14 days, repair in
    /// 24 hours, a region in a thousand years, refilled in eight days.
    fn default() -> Self {
        Self {
            device_failures_per_year: 0.014,
            rot_per_shard_year: 1e-4,
            scrub_days: 14.0,
            repair_hours: 24.0,
            regions_lost_per_year: 1e-3,
            region_refill_hours: 192.0,
        }
    }
}

const HOURS_PER_YEAR: f64 = 8766.0;
const DAYS_PER_YEAR: f64 = 365.25;

/// A segment's shards, and what of them may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// n.
    pub shards: usize,
    /// Any so many lost shards are survived: t.
    pub survives: usize,
    /// Regions the shards are in.
    pub regions: usize,
    /// Most shards in one region: s.
    pub shards_in_region: usize,
    /// Any so many more are survived after the loss of a region: t'; `None` if the loss of a region is not survived.
    pub survives_beyond_region: Option<usize>,
}

impl Hazards {
    fn failure_rate(&self) -> f64 {
        -(1.0 - self.device_failures_per_year.clamp(0.0, 0.999)).ln()
    }

    fn rotten(&self) -> f64 {
        self.rot_per_shard_year * self.scrub_days / DAYS_PER_YEAR / 2.0
    }

    /// The chance that a shard is not there at some moment of a repair.
    fn gone(&self) -> f64 {
        self.failure_rate() * self.repair_hours / HOURS_PER_YEAR + self.rotten()
    }

    /// Losses of a segment per year while no region is lost.
    pub fn losses_per_year(&self, spread: &Spread) -> f64 {
        let (n, t) = (spread.shards, spread.survives);
        float(n) * self.failure_rate() * choose(n.saturating_sub(1), t) * self.gone().powi(exponent(t))
    }

    /// Losses of a segment per year with regions that are lost for good.
    pub fn losses_per_year_with_regions(&self, spread: &Spread) -> f64 {
        let per_region = match spread.survives_beyond_region {
            None => 1.0,
            Some(t) => {
                let left = spread.shards.saturating_sub(spread.shards_in_region);
                let first = self.failure_rate() * self.region_refill_hours / HOURS_PER_YEAR + self.rotten();
                float(left) * first * choose(left.saturating_sub(1), t) * self.gone().powi(exponent(t))
            }
        };
        self.losses_per_year(spread) + float(spread.regions) * self.regions_lost_per_year * per_region.min(1.0)
    }
}

/// How many nines of durability a rate of losses per year is: 11 for one in 10^11.
pub fn nines(losses_per_year: f64) -> f64 {
    if losses_per_year > 0.0 { (-losses_per_year.log10()).max(0.0) } else { f64::INFINITY }
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn exponent(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn choose(n: usize, t: usize) -> f64 {
    (0..t).fold(1.0, |product, i| product * float(n.saturating_sub(i)) / float(i + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(k: usize, m: usize, regions: usize) -> Spread {
        let in_region = (k + m).div_ceil(regions);
        Spread {
            shards: k + m,
            survives: m,
            regions,
            shards_in_region: in_region,
            survives_beyond_region: m.checked_sub(in_region),
        }
    }

    #[test]
    fn the_published_table_comes_out() {
        // (k, m, nines with repair in 156 h, 24 h, 2 h).
        for (k, m, expected) in [
            (1, 2, [8.6, 10.2, 12.0]),
            (17, 3, [8.4, 10.7, 13.4]),
            (12, 4, [11.9, 15.1, 18.7]),
            (10, 4, [12.2, 15.4, 19.0]),
            (4, 2, [7.3, 8.9, 10.7]),
            (6, 3, [9.9, 12.3, 15.0]),
            (8, 4, [12.6, 15.8, 19.4]),
            (8, 7, [22.3, 27.9, 34.2]),
            (6, 6, [19.7, 24.5, 29.8]),
        ] {
            for (repair_hours, expected) in [156.0, 24.0, 2.0].into_iter().zip(expected) {
                let hazards = Hazards { repair_hours, ..Hazards::default() };
                let found = nines(hazards.losses_per_year(&spread(k, m, 3)));
                assert!(
                    (found - expected).abs() < 0.15,
                    "{k}+{m} in {repair_hours} h: {found:.2}, {expected} expected"
                );
            }
        }
        for (k, m, regions, expected) in [
            (4, 2, 3, 5.4),
            (6, 3, 3, 5.3),
            (8, 4, 3, 5.1),
            (8, 7, 3, 12.3),
            (6, 6, 3, 12.6),
            (9, 6, 5, 15.7),
            (1, 2, 3, 9.9),
        ] {
            let found = nines(Hazards::default().losses_per_year_with_regions(&spread(k, m, regions)));
            assert!((found - expected).abs() < 0.15, "{k}+{m} over {regions}: {found:.2}, {expected} expected");
        }
    }

    #[test]
    fn a_region_that_holds_everything_takes_everything() {
        let found = nines(Hazards::default().losses_per_year_with_regions(&spread(4, 2, 1)));
        assert!((found - 3.0).abs() < 0.01, "{found}");
        assert_eq!(nines(0.0), f64::INFINITY);
    }
}
