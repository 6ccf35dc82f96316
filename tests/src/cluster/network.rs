//! A network of hosts, each a namespace with one cable to a switch that is a namespace too; the test process is on it.
//!
//!     test process, 198.18.N.1 --uplink-- [switch: bridge] --cable-- [host 0: eth0, 198.18.N.10]
//!                                                         \--cable-- [host 1: eth0, 198.18.N.11] ...
//!
//! The switch has a namespace of its own so that no packet filter of the machine sees what hosts say to each other.
//! 198.18.0.0/15 is set aside for tests of networks (RFC 2544); N is claimed by the name of the uplink, which the kernel
//! gives out once. There is no delay: this harness asks for no kernel module beyond a bridge, a filter and `tbf`.

use super::link_faults::{LinkFault, LinkFaults, Party, hosts};
use super::system::{
    NAMESPACE_PREFIX, NAMESPACES, must_run, namespaces_are_permitted, remove_namespace, run, run_with_input,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Most hosts on one network: more than the nine that the largest scenario asks for.
pub const HOSTS_MAX: usize = 16;
/// Networks that fit into 198.18.0.0/15 with 256 addresses each.
const NETWORKS_MAX: u32 = 512;
/// The last part of host 0's address; the test process has 1.
const FIRST_HOST: u8 = 10;

/// Namespaces and cables. Removed when dropped, with whatever still runs on them.
pub struct Network {
    name: String,
    number: u32,
    host_count: usize,
    faults: LinkFaults,
}

impl Network {
    /// A network of this many hosts without faults; `None` where a test is to be skipped (see `system`).
    pub fn with_hosts(count: usize) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        if !namespaces_are_permitted() {
            return None;
        }
        assert!((1..=HOSTS_MAX).contains(&count), "1 to {HOSTS_MAX} hosts, not {count}");
        let name = format!("{NAMESPACE_PREFIX}{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let mut network = Self { name, number: 0, host_count: count, faults: LinkFaults::default() };
        network.make_switch();
        for host in 0..count {
            network.make_host(host);
        }
        Some(network)
    }

    fn make_switch(&mut self) {
        let switch = self.switch();
        must_run("ip", &["netns", "add", &switch]);
        self.number = (0..NETWORKS_MAX)
            .map(|tried| (std::process::id() + tried) % NETWORKS_MAX)
            .find(|&number| {
                // The name is taken, by another test process: the next number. Any other error shows at once below.
                let uplink = uplink_of(number);
                run("ip", &["link", "add", &uplink, "type", "veth", "peer", "name", "uplink", "netns", &switch]).is_ok()
            })
            .unwrap_or_else(|| {
                let again =
                    ["link", "add", "hf-up", "type", "veth", "peer", "name", "uplink", "netns", switch.as_str()];
                panic!("no cable to the switch: {:?}", run("ip", &again))
            });
        let own = format!("{}/24", self.address(Party::Clients));
        let uplink = uplink_of(self.number);
        must_run("ip", &["address", "add", &own, "dev", &uplink]);
        must_run("ip", &["link", "set", &uplink, "up"]);
        self.ip_in(&switch, &["link", "add", "bridge", "type", "bridge", "forward_delay", "0"]);
        self.ip_in(&switch, &["link", "set", "bridge", "up"]);
        self.plug_in("uplink");
    }

    fn make_host(&self, host: usize) {
        let namespace = self.namespace(host);
        let port = format!("port{host}");
        must_run("ip", &["netns", "add", &namespace]);
        self.ip_in(
            &self.switch(),
            &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace],
        );
        self.plug_in(&port);
        let address = format!("{}/24", self.address(Party::Host(host)));
        self.ip_in(&namespace, &["address", "add", &address, "dev", "eth0"]);
        self.ip_in(&namespace, &["link", "set", "lo", "up"]);
        self.ip_in(&namespace, &["link", "set", "eth0", "up"]);
    }

    fn plug_in(&self, port: &str) {
        self.ip_in(&self.switch(), &["link", "set", port, "master", "bridge", "up"]);
    }

    fn ip_in(&self, namespace: &str, arguments: &[&str]) {
        must_run("ip", &[&["-netns", namespace], arguments].concat());
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    /// The name of a host's namespace, for `ip netns exec`.
    pub fn namespace(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    /// What every namespace of this network is called at the beginning.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface of the machine that leads to this network.
    pub fn uplink(&self) -> String {
        uplink_of(self.number)
    }

    /// How many hosts there are.
    pub fn host_count(&self) -> usize {
        self.host_count
    }

    /// Where a party is.
    pub fn address(&self, party: Party) -> Ipv4Addr {
        let last = match party {
            Party::Clients => 1,
            Party::Host(host) => FIRST_HOST + u8::try_from(host).expect("at most HOSTS_MAX hosts"),
        };
        let upper = 18 + u8::try_from(self.number / 256).expect("at most NETWORKS_MAX networks");
        Ipv4Addr::new(198, upper, u8::try_from(self.number % 256).expect("a remainder"), last)
    }

    /// Runs `work` on a thread of this process that stands in the host's namespace. Sockets made there stay there,
    /// whoever uses them later.
    pub fn inside<T: Send>(&self, host: usize, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new(NAMESPACES).join(self.namespace(host))).expect("open the namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("move a thread into the namespace");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Drops what goes from `from` to `to`, in this direction alone.
    pub fn cut_one_way(&mut self, from: &[Party], to: &[Party]) {
        self.faults.set(from, to, LinkFault::Cut);
        self.apply();
    }

    /// Drops what goes between `one` and `other`. Everybody else still reaches both: with single hosts on both sides and
    /// others beside them, this is the half partition.
    pub fn cut(&mut self, one: &[Party], other: &[Party]) {
        self.faults.set(one, other, LinkFault::Cut);
        self.faults.set(other, one, LinkFault::Cut);
        self.apply();
    }

    /// The full partition: no two hosts of different sets hear each other. Clients reach all.
    pub fn partition(&mut self, sets: &[&[usize]]) {
        for (at, one) in sets.iter().enumerate() {
            for other in &sets[at + 1..] {
                self.faults.set(&hosts(one), &hosts(other), LinkFault::Cut);
                self.faults.set(&hosts(other), &hosts(one), LinkFault::Cut);
            }
        }
        self.apply();
    }

    /// Cuts a host off from everybody, clients too.
    pub fn unplug(&mut self, host: usize) {
        let mut others = hosts(&(0..self.host_count).collect::<Vec<_>>());
        others.push(Party::Clients);
        self.cut(&[Party::Host(host)], &others);
    }

    /// `rounds` times: cut between `one` and `other` for `period`, then whole for `period`. Blocks all the while.
    pub fn flap(&mut self, one: &[Party], other: &[Party], period: Duration, rounds: usize) {
        for _ in 0..rounds {
            self.cut(one, other);
            std::thread::sleep(period);
            self.heal();
            std::thread::sleep(period);
        }
    }

    /// Loses this share of the packets from `from` to `to`.
    pub fn lose(&mut self, from: &[Party], to: &[Party], share: f64) {
        assert!((0.0..=1.0).contains(&share), "a share is 0 to 1, not {share}");
        self.faults.set(from, to, LinkFault::Loss(share));
        self.apply();
    }

    /// Ends all cuts and losses. Narrow cables stay narrow.
    pub fn heal(&mut self) {
        self.faults.clear();
        self.apply();
    }

    fn apply(&self) {
        for host in 0..self.host_count {
            let filter = self.faults.filter_of(host, |party| self.address(party));
            let namespace = self.namespace(host);
            run_with_input("ip", &["netns", "exec", &namespace, "iptables-restore", "-w", "10"], &filter)
                .unwrap_or_else(|error| panic!("{error}\n{filter}"));
        }
    }

    /// Lets this many kilobits a second through a host's cable, each way; `None` makes it wide again.
    pub fn narrow(&self, host: usize, kilobits: Option<u32>) {
        let (namespace, switch, port) = (self.namespace(host), self.switch(), format!("port{host}"));
        for (end, device) in [(namespace.as_str(), "eth0"), (switch.as_str(), port.as_str())] {
            match kilobits {
                Some(kilobits) => {
                    let rate = format!("{kilobits}kbit");
                    // A burst of two dozen packets, and a queue that a packet leaves within 100 ms or never enters.
                    let shape = ["root", "tbf", "rate", &rate, "burst", "32kb", "latency", "100ms"];
                    must_run("tc", &[&["-netns", end, "qdisc", "replace", "dev", device], &shape[..]].concat());
                }
                // Fails if it is wide already.
                None => drop(run("tc", &["-netns", end, "qdisc", "delete", "dev", device, "root"])),
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..self.host_count {
            remove_namespace(&self.namespace(host));
        }
        // At once: the kernel takes the cables of a removed namespace out later, and the name would still be taken.
        let _ = run("ip", &["link", "delete", &self.uplink()]);
        remove_namespace(&self.switch());
    }
}

fn uplink_of(number: u32) -> String {
    format!("hf-up{number}")
}
