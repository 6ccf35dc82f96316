//! What a link between two nodes does to the frames on it: delay, jitter, bandwidth, loss, a cut. Told by tests and by
//! the simulator; the default does nothing.
//!
//! **Invariant:** frames of one direction of one call arrive in the order they were sent, or not at all from the first
//! lost one on: as on a connection that breaks.

use rand::Rng;
use rand::rngs::StdRng;
use std::time::Duration;
use tokio::time::Instant;

/// One direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkConditions {
    /// Every frame takes at least so long.
    pub delay: Duration,
    /// And up to so much longer, evenly spread.
    pub jitter: Duration,
    /// What passes in a second, all calls together; `None` for no limit.
    pub bytes_per_second: Option<u64>,
    /// Of a million frames so many are lost. The rest of their call is lost with them.
    pub lost_per_million: u32,
    /// Nothing passes. What is on its way still arrives.
    pub is_cut: bool,
}

impl LinkConditions {
    /// Nothing passes.
    pub const CUT: Self = Self {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        bytes_per_second: None,
        lost_per_million: 0,
        is_cut: true,
    };

    /// Every frame takes so long.
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }
}

/// One direction of a link: its conditions and until when it is busy with what was sent before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    pub(super) conditions: LinkConditions,
    busy_until: Option<Instant>,
}

impl Link {
    pub(super) fn new(conditions: LinkConditions) -> Self {
        Self { conditions, busy_until: None }
    }

    /// When something of `bytes` sent at `now` arrives; `None` if it never does.
    pub(super) fn arrival(&mut self, bytes: usize, now: Instant, random: &mut StdRng) -> Option<Instant> {
        let LinkConditions { delay, jitter, bytes_per_second, lost_per_million, is_cut } = self.conditions;
        if is_cut || (lost_per_million > 0 && random.random_range(0..1_000_000) < lost_per_million) {
            return None;
        }
        let mut at = now;
        if let Some(rate) = bytes_per_second {
            let seconds = bytes as f64 / rate.max(1) as f64;
            at = self.busy_until.map_or(now, |busy| busy.max(now)) + Duration::from_secs_f64(seconds.min(86_400.0));
            self.busy_until = Some(at);
        }
        let extra = if jitter.is_zero() { Duration::ZERO } else { jitter.mul_f64(random.random_range(0.0..1.0)) };
        Some(at + delay + extra)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_link_delays_spreads_and_loses_as_told() {
        let (now, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut link = Link::default();
        assert_eq!(link.arrival(1 << 20, now, &mut random), Some(now));
        link.conditions = LinkConditions::CUT;
        assert_eq!(link.arrival(1, now, &mut random), None);
        link.conditions = LinkConditions { bytes_per_second: Some(1000), ..Default::default() };
        assert_eq!(link.arrival(500, now, &mut random), Some(now + Duration::from_millis(500)));
        assert_eq!(link.arrival(500, now, &mut random), Some(now + Duration::from_secs(1)));
        let ms = Duration::from_millis;
        link.conditions =
            LinkConditions { delay: ms(10), jitter: ms(10), lost_per_million: 500_000, ..Default::default() };
        let arrivals: Vec<_> = (0..1000).filter_map(|_| link.arrival(1, now, &mut random)).collect();
        assert!((400..600).contains(&arrivals.len()), "{}", arrivals.len());
        assert!(arrivals.iter().all(|at| (ms(10)..ms(20)).contains(&(*at - now))));
        assert!(arrivals.iter().max() > arrivals.iter().min());
    }
}
