//! Which packets do not arrive: pure, from a table of links to the packet filter of each host.
//!
//! A link is one direction between two parties. What goes to a host is dropped at that host, as it comes in; what goes
//! to the clients is dropped as it leaves the host, so that the filter of the machine itself is never touched.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// The test process and its S3 clients.
    Clients,
    /// A host, counted from 0.
    Host(usize),
}

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LinkFault {
    /// Nothing arrives.
    Cut,
    /// This share of the packets does not arrive, 0 to 1, each at random.
    Loss(f64),
}

/// All faults of a network.
#[derive(Clone, Debug, Default)]
pub struct LinkFaults {
    by_link: BTreeMap<(Party, Party), LinkFault>,
}

impl LinkFaults {
    /// From now on, the fault of what goes from any of `from` to any of `to`, in this direction alone.
    pub fn set(&mut self, from: &[Party], to: &[Party], fault: LinkFault) {
        for &from in from {
            for &to in to.iter().filter(|&&to| to != from) {
                self.by_link.insert((from, to), fault);
            }
        }
    }

    /// No faults any more.
    pub fn clear(&mut self) {
        self.by_link.clear();
    }

    /// The whole filter of one host, as `iptables-restore` reads it.
    pub fn filter_of(&self, host: usize, address_of: impl Fn(Party) -> Ipv4Addr) -> String {
        let mut text = String::from("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
        for (&(from, to), fault) in &self.by_link {
            let side = match (from, to) {
                (_, Party::Host(to)) if to == host => format!("INPUT -s {}", address_of(from)),
                (Party::Host(from), Party::Clients) if from == host => format!("OUTPUT -d {}", address_of(to)),
                _ => continue,
            };
            let share = match fault {
                LinkFault::Cut => String::new(),
                LinkFault::Loss(share) => format!(" -m statistic --mode random --probability {share:.4}"),
            };
            writeln!(text, "-A {side}{share} -j DROP").expect("a string takes any text");
        }
        text.push_str("COMMIT\n");
        text
    }
}

/// The hosts of these numbers.
pub fn hosts(numbers: &[usize]) -> Vec<Party> {
    numbers.iter().map(|&number| Party::Host(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(faults: &LinkFaults, host: usize) -> Vec<String> {
        let address = |party| match party {
            Party::Clients => Ipv4Addr::new(198, 18, 0, 1),
            Party::Host(number) => Ipv4Addr::new(198, 18, 0, 10 + u8::try_from(number).unwrap()),
        };
        let text = faults.filter_of(host, address);
        assert!(text.starts_with("*filter\n") && text.ends_with("COMMIT\n"), "{text}");
        text.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect()
    }

    #[test]
    fn a_fault_stands_where_its_packets_arrive_and_in_one_direction() {
        let mut faults = LinkFaults::default();
        faults.set(&[Party::Host(0)], &[Party::Host(1)], LinkFault::Cut);
        faults.set(&[Party::Host(2), Party::Clients], &[Party::Host(2)], LinkFault::Loss(0.25));
        faults.set(&[Party::Host(1)], &[Party::Clients], LinkFault::Cut);
        assert!(rules(&faults, 0).is_empty());
        assert_eq!(rules(&faults, 1), ["-A INPUT -s 198.18.0.10 -j DROP", "-A OUTPUT -d 198.18.0.1 -j DROP"]);
        let loss = "-A INPUT -s 198.18.0.1 -m statistic --mode random --probability 0.2500 -j DROP";
        assert_eq!(rules(&faults, 2), [loss], "a host has no link to itself");
        faults.clear();
        assert!(rules(&faults, 1).is_empty());
    }
}
