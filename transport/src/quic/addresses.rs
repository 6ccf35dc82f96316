//! Which of a peer's addresses to try, in what order, and when again. Pure: outcomes and time in, a list out.
//!
//! The address that answered last is tried first; those that failed wait, each twice as long as the time before. While
//! all of them wait nothing is dialled, and a call fails at once with the last cause.

use crate::error::TransportError;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// First wait of an address that failed: some round trips of a continent, so that a restarting process is found soon.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest wait: within the 3 s in which writes must resume after a node came back.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// What a dial should do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Try these in turn.
    Try(Vec<SocketAddr>),
    /// Nothing before this instant; the last attempt failed so.
    Wait(Instant, TransportError),
    /// There is no address.
    Nowhere,
}

/// The addresses of one plane of one peer.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    entries: Vec<Entry>,
    answered: Option<SocketAddr>,
}

#[derive(Clone, Debug)]
struct Entry {
    address: SocketAddr,
    wait: Duration,
    not_before: Option<Instant>,
    cause: Option<TransportError>,
}

impl Addresses {
    /// Takes over a new list. What is known of addresses that stay is kept.
    pub(super) fn set(&mut self, addresses: &[SocketAddr]) {
        let mut entries: Vec<Entry> = Vec::new();
        for &address in addresses {
            if entries.iter().any(|entry| entry.address == address) {
                continue;
            }
            let known = self.entries.iter().find(|entry| entry.address == address).cloned();
            entries.push(known.unwrap_or(Entry { address, wait: WAIT_MIN, not_before: None, cause: None }));
        }
        self.entries = entries;
    }

    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.entries.iter().any(|entry| entry.address == address)
    }

    /// What to dial now. Addresses that wait are left out while another does not.
    pub(super) fn plan(&self, now: Instant) -> Plan {
        let ready = |entry: &&Entry| entry.not_before.is_none_or(|at| at <= now);
        let mut order: Vec<SocketAddr> = self.entries.iter().filter(ready).map(|entry| entry.address).collect();
        order.sort_by_key(|address| Some(*address) != self.answered);
        if !order.is_empty() {
            return Plan::Try(order);
        }
        let first = self.entries.iter().filter_map(|entry| Some((entry.not_before?, entry.cause.clone()?)));
        match first.min_by_key(|(at, _)| *at) {
            Some((at, cause)) => Plan::Wait(at, cause),
            None => Plan::Nowhere,
        }
    }

    /// A peer answered there.
    pub(super) fn answered(&mut self, address: SocketAddr) {
        self.answered = Some(address);
        if let Some(entry) = self.entry(address) {
            (entry.wait, entry.not_before, entry.cause) = (WAIT_MIN, None, None);
        }
    }

    /// No peer answered there, or it stopped answering. `jitter` (0 to 255) spreads peers that failed together: up to
    /// a quarter is added to the wait.
    pub(super) fn failed(&mut self, address: SocketAddr, cause: TransportError, now: Instant, jitter: u8) {
        if self.answered == Some(address) {
            self.answered = None;
        }
        if let Some(entry) = self.entry(address) {
            entry.not_before = Some(now + entry.wait + entry.wait * u32::from(jitter) / 1024);
            entry.wait = (entry.wait * 2).min(WAIT_MAX);
            entry.cause = Some(cause);
        }
    }

    fn entry(&mut self, address: SocketAddr) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.address == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::NodeId;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 7000))
    }

    fn cause() -> TransportError {
        TransportError::Unreachable { peer: NodeId(2), reason: "no answer".into() }
    }

    fn three() -> Addresses {
        let mut addresses = Addresses::default();
        addresses.set(&[address(1), address(2), address(3), address(1)]);
        addresses
    }

    #[test]
    fn the_one_that_answered_is_first_and_those_that_failed_wait() {
        let now = Instant::now();
        let mut addresses = three();
        assert_eq!(addresses.plan(now), Plan::Try(vec![address(1), address(2), address(3)]));
        addresses.answered(address(2));
        assert_eq!(addresses.plan(now), Plan::Try(vec![address(2), address(1), address(3)]));
        addresses.failed(address(2), cause(), now, 0);
        assert_eq!(addresses.plan(now), Plan::Try(vec![address(1), address(3)]));
        assert_eq!(addresses.plan(now + WAIT_MIN), Plan::Try(vec![address(1), address(2), address(3)]));
    }

    #[test]
    fn waits_double_up_to_the_limit_and_an_answer_ends_them() {
        let mut now = Instant::now();
        let mut addresses = Addresses::default();
        assert_eq!(addresses.plan(now), Plan::Nowhere);
        addresses.set(&[address(1)]);
        let mut waits = Vec::new();
        for _ in 0..7 {
            addresses.failed(address(1), cause(), now, 0);
            let Plan::Wait(at, said) = addresses.plan(now) else { panic!("not waiting") };
            assert_eq!(said, cause());
            waits.push((at - now).as_millis());
            now = at;
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 2000, 2000]);
        addresses.failed(address(1), cause(), now, 255);
        assert!(matches!(addresses.plan(now), Plan::Wait(at, _) if at - now < WAIT_MAX * 5 / 4));
        addresses.answered(address(1));
        assert_eq!(addresses.plan(now), Plan::Try(vec![address(1)]));
    }

    #[test]
    fn a_new_list_keeps_what_is_known_of_addresses_that_stay() {
        let now = Instant::now();
        let mut addresses = three();
        addresses.failed(address(1), cause(), now, 0);
        addresses.set(&[address(4), address(1)]);
        assert_eq!(addresses.plan(now), Plan::Try(vec![address(4)]));
        assert!(addresses.contains(address(1)));
        assert!(!addresses.contains(address(2)));
        addresses.set(&[]);
        assert_eq!(addresses.plan(now), Plan::Nowhere);
    }
}
