//! Who is slow: learns how long each of many peers usually takes, sends those that are far slower than the others to the
//! end of the queue for a while, and lets them back little by little.
//!
//! Pure: times come in as arguments. Used for backends (times of reads) and nodes (times of pings).
//!
//!     Trusted -- far slower than the median --> Ejected -- its time is over --> Returning -- SLOW_START --> Trusted
//!                                                  ^------- still slow ------------+
//!
//! Ejected means "asked last", never "not asked": nothing becomes unreadable by it. So that an overloaded system does not
//! eject itself away, at most a third of the peers are ejected at a time, and only by comparison with the others: if
//! all are slow, none is.
//!
//! The 95th percentile is followed by stochastic approximation (Robbins and Monro, 1951): a step up for a time above the
//! estimate, a nineteenth of it down for one below; the step is a share of the estimate itself.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// So many times the median of the others is slow.
const SLOW_FACTOR: f64 = 4.0;
/// Nobody is slow below this: a disk that syncs or reads ahead takes it now and then.
const SLOW_MIN: Duration = Duration::from_millis(50);
/// Times a peer is judged by at least.
const SAMPLES_MIN: u32 = 16;
/// While it returns, so few suffice to send it off again.
const RETURN_SAMPLES_MIN: u32 = 4;
/// First ejection; each one that follows without a time of trust between is twice as long.
const EJECTED_MIN: Duration = Duration::from_secs(10);
const EJECTED_MAX: Duration = Duration::from_secs(160);
/// Over so long a returning peer's share grows from `SHARE_MIN` to the whole.
const SLOW_START: Duration = Duration::from_secs(30);
const SHARE_MIN: f64 = 0.05;
/// A time counts with so much in the mean.
const WEIGHT: f64 = 1.0 / 16.0;
/// Step of the percentile's estimate, as a share of it.
const STEP: f64 = 0.05;

/// What is known of one peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Mean in seconds, recent times counting more.
    mean: f64,
    /// Estimate of the 95th percentile in seconds.
    p95: f64,
    samples: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    Trusted,
    Ejected {
        until: Instant,
    },
    /// `credit` is what it may be asked: a whole one is one turn.
    Returning {
        since: Instant,
        credit: f64,
    },
}

#[derive(Debug)]
struct Peer {
    latency: Latency,
    standing: Standing,
    /// Ejections since it was trusted last for a whole slow start.
    times: u32,
}

/// The judgement over peers named by `K`.
#[derive(Debug)]
pub struct SlowJudge<K> {
    peers: BTreeMap<K, Peer>,
}

impl Latency {
    const NONE: Self = Self { mean: 0.0, p95: 0.0, samples: 0 };

    fn record(&mut self, seconds: f64) {
        if self.samples == 0 {
            (self.mean, self.p95) = (seconds, seconds);
        } else {
            // The first times make the mean together, later ones change it a little.
            let weight = WEIGHT.max(1.0 / f64::from(self.samples + 1));
            self.mean += (seconds - self.mean) * weight;
            let step = STEP * self.p95.max(1e-6);
            self.p95 += if seconds > self.p95 { step } else { -step / 19.0 };
        }
        self.samples = self.samples.saturating_add(1);
    }

    /// The usual time.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.mean)
    }

    /// The time that one in twenty exceeds.
    pub fn p95(&self) -> Duration {
        Duration::from_secs_f64(self.p95)
    }
}

impl<K> Default for SlowJudge<K> {
    fn default() -> Self {
        Self { peers: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> SlowJudge<K> {
    /// A peer answered after `took`.
    pub fn handle_answer(&mut self, peer: K, took: Duration, now: Instant) {
        let fresh = || Peer { latency: Latency::NONE, standing: Standing::Trusted, times: 0 };
        let known = self.peers.entry(peer).or_insert_with(fresh);
        known.latency.record(took.as_secs_f64().min(3600.0));
        self.judge(peer, now);
    }

    /// It was not waited for any longer after `waited`: the time it would have taken is at least that. Counts if that is
    /// longer than usual.
    pub fn handle_abandoned(&mut self, peer: K, waited: Duration, now: Instant) {
        if self.latency(peer).is_some_and(|latency| waited >= latency.mean()) {
            self.handle_answer(peer, waited, now);
        }
    }

    /// Forgets all but these.
    pub fn retain(&mut self, is_known: impl Fn(&K) -> bool) {
        self.peers.retain(|peer, _| is_known(peer));
    }

    /// What is known of a peer; `None` before its first answer.
    pub fn latency(&self, peer: K) -> Option<Latency> {
        self.peers.get(&peer).map(|known| known.latency).filter(|latency| latency.samples > 0)
    }

    /// Whether it is its turn to be asked among the first. A returning peer's turns grow in number.
    pub fn takes_turn(&mut self, peer: K, now: Instant) -> bool {
        let Some(known) = self.peers.get_mut(&peer) else { return true };
        if let Standing::Ejected { until } = known.standing
            && now >= until
        {
            known.standing = Standing::Returning { since: now, credit: 1.0 };
            // It is judged by how it is now.
            known.latency = Latency::NONE;
        }
        match &mut known.standing {
            Standing::Trusted => true,
            Standing::Ejected { .. } => false,
            Standing::Returning { since, credit } => {
                let grown = now.saturating_duration_since(*since).as_secs_f64() / SLOW_START.as_secs_f64();
                *credit += grown.clamp(SHARE_MIN, 1.0);
                let is_due = *credit >= 1.0;
                if is_due {
                    *credit -= 1.0;
                }
                is_due
            }
        }
    }

    /// A rank by usual time, the same for times that differ by less than a factor of about two: what is about as quick
    /// keeps its own order. 0 for what is not known.
    pub fn rank(&self, peer: K) -> u32 {
        let micros = self.latency(peer).map_or(0, |latency| latency.mean().as_micros());
        // Below two milliseconds all are alike.
        128 - (micros / 2048).leading_zeros()
    }

    /// Whether it is ejected now.
    pub fn is_ejected(&self, peer: K, now: Instant) -> bool {
        let standing = self.peers.get(&peer).map(|known| known.standing);
        matches!(standing, Some(Standing::Ejected { until }) if now < until)
    }

    fn judge(&mut self, peer: K, now: Instant) {
        let is_slow = self.is_slow(peer);
        let may_eject = 3 * (self.ejected(now) + 1) <= self.peers.len();
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let samples = known.latency.samples;
        match known.standing {
            Standing::Trusted if is_slow && may_eject && samples >= SAMPLES_MIN => known.eject(now),
            Standing::Returning { .. } if is_slow && may_eject && samples >= RETURN_SAMPLES_MIN => known.eject(now),
            Standing::Returning { since, .. } if now.saturating_duration_since(since) >= SLOW_START => {
                known.standing = Standing::Trusted;
                known.times = 0;
            }
            _ => {}
        }
    }

    fn ejected(&self, now: Instant) -> usize {
        self.peers.keys().filter(|peer| self.is_ejected(**peer, now)).count()
    }

    /// Against the median of the others that are known well and not ejected themselves; there must be two.
    fn is_slow(&self, peer: K) -> bool {
        let is_measure = |known: &Peer| known.latency.samples >= SAMPLES_MIN && known.standing == Standing::Trusted;
        let others = self.peers.iter().filter(|(other, known)| **other != peer && is_measure(known));
        let mut means: Vec<f64> = others.map(|(_, known)| known.latency.mean).collect();
        if means.len() < 2 {
            return false;
        }
        means.sort_by(f64::total_cmp);
        let median = means[(means.len() - 1) / 2];
        let limit = (SLOW_FACTOR * median).max(SLOW_MIN.as_secs_f64());
        self.peers.get(&peer).is_some_and(|known| known.latency.mean > limit)
    }
}

impl Peer {
    fn eject(&mut self, now: Instant) {
        let span = EJECTED_MIN.saturating_mul(1 << self.times.min(10)).min(EJECTED_MAX);
        self.times = self.times.saturating_add(1);
        self.standing = Standing::Ejected { until: now + span };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Peers 0..n answer `rounds` times, each after its own time.
    fn answer(judge: &mut SlowJudge<u32>, times: &[Duration], rounds: usize, start: Instant) -> Instant {
        let mut now = start;
        for _ in 0..rounds {
            now += ms(10);
            for (peer, took) in (0..).zip(times) {
                judge.handle_answer(peer, *took, now);
            }
        }
        now
    }

    #[test]
    fn the_slow_one_is_ejected_returns_slowly_and_is_sent_off_for_longer_if_still_slow() {
        let mut judge = SlowJudge::default();
        let start = Instant::now();
        let now = answer(&mut judge, &[ms(5), ms(6), ms(7), ms(400)], 20, start);
        let ejected: Vec<bool> = (0..4).map(|peer| judge.is_ejected(peer, now)).collect();
        assert_eq!(ejected, [false, false, false, true]);
        assert!(!judge.takes_turn(3, now) && judge.takes_turn(0, now));
        // Its time over, it is asked now and then; still slow, it goes again, for twice as long.
        let now = now + EJECTED_MIN;
        assert!(judge.takes_turn(3, now));
        let turns = (0..100).filter(|_| judge.takes_turn(3, now)).count();
        assert!((4..=6).contains(&turns), "{turns} of 100 turns at first");
        for _ in 0..RETURN_SAMPLES_MIN {
            judge.handle_answer(3, ms(400), now);
        }
        assert!(judge.is_ejected(3, now + EJECTED_MIN * 2 - ms(1)) && !judge.is_ejected(3, now + EJECTED_MIN * 2));
        // Quick again: half its turns halfway through, all of them in the end, and trusted.
        let now = now + EJECTED_MIN * 2;
        assert!(judge.takes_turn(3, now));
        let halfway = now + SLOW_START / 2;
        let turns = (0..100).filter(|_| judge.takes_turn(3, halfway)).count();
        assert!((45..=55).contains(&turns), "{turns} of 100 turns halfway");
        for _ in 0..30 {
            judge.handle_answer(3, ms(6), halfway);
        }
        judge.handle_answer(3, ms(6), now + SLOW_START);
        assert!((0..100).all(|_| judge.takes_turn(3, now + SLOW_START)));
        assert_eq!(judge.peers[&3].standing, Standing::Trusted);
        assert_eq!(judge.peers[&3].times, 0);
    }

    #[test]
    fn all_slow_is_nobody_slow_and_few_peers_are_not_compared() {
        let start = Instant::now();
        for times in [vec![ms(900); 6], vec![ms(5), ms(900)], vec![ms(1), ms(2), ms(3), ms(49)]] {
            let mut judge = SlowJudge::default();
            let now = answer(&mut judge, &times, 50, start);
            assert!((0..times.len() as u32).all(|peer| judge.takes_turn(peer, now)), "{times:?}");
        }
    }

    #[test]
    fn percentile_and_mean_follow_the_times() {
        let mut judge = SlowJudge::default();
        let now = Instant::now();
        for number in 0..4000u64 {
            // 0..100 ms evenly, in a fixed shuffle.
            judge.handle_answer(1, ms(number * 37 % 100), now);
        }
        let latency = judge.latency(1).unwrap();
        assert!(latency.p95() > ms(85) && latency.p95() < ms(102), "{:?}", latency.p95());
        assert!(latency.mean() > ms(30) && latency.mean() < ms(70), "{:?}", latency.mean());
        assert_eq!(judge.latency(2), None);
    }

    #[test]
    fn who_is_given_up_on_counts_as_slow_and_ranks_ignore_small_differences() {
        let mut judge = SlowJudge::default();
        let now = answer(&mut judge, &[ms(5), ms(5), ms(5), ms(5)], 20, Instant::now());
        judge.handle_abandoned(3, ms(1), now);
        assert!(judge.latency(3).unwrap().mean() <= ms(6), "less than usual says nothing");
        for _ in 0..10 {
            judge.handle_abandoned(3, ms(2000), now);
        }
        assert!(judge.is_ejected(3, now));
        let mut judge = SlowJudge::default();
        answer(&mut judge, &[ms(0), ms(1), ms(9), ms(11), ms(100)], 1, now);
        let ranks: Vec<u32> = (0..6).map(|peer| judge.rank(peer)).collect();
        assert_eq!(ranks[0], ranks[1]);
        assert!(ranks[1] < ranks[2] && ranks[2] <= ranks[3] && ranks[3] < ranks[4], "{ranks:?}");
        assert_eq!(ranks[5], 0, "unknown");
    }

    proptest! {
        /// Never more than a third are ejected, and whoever is quick from some time on is trusted in the end.
        #[test]
        fn bounded_and_forgiving(times in prop::collection::vec(prop::collection::vec(0u64..2000, 7), 0..60)) {
            let mut judge = SlowJudge::default();
            let mut now = Instant::now();
            for round in &times {
                now += ms(100);
                for (peer, took) in (0..).zip(round) {
                    judge.handle_answer(peer, ms(*took), now);
                    prop_assert!(judge.ejected(now) <= 2, "{} of 7", judge.ejected(now));
                }
            }
            let ends = now + EJECTED_MAX + SLOW_START * 4;
            while now < ends {
                now += ms(500);
                for peer in 0..7u32 {
                    judge.takes_turn(peer, now);
                    judge.handle_answer(peer, ms(5), now);
                }
            }
            prop_assert!((0..7).all(|peer| judge.takes_turn(peer, now)));
        }
    }
}
