//! Promise: whatever part of the network fails, a majority that hears each other goes on, nobody else acknowledges, nothing
//! stale is read anywhere, and all goes on when the network is whole again. A slow or lossy link makes it slow, not wrong.

use holdfast_tests::cluster::link_faults::hosts;
use holdfast_tests::cluster::{Cluster, ClusterOptions, Outcome, Party, load_time};
use std::thread::sleep;
use std::time::Duration;

#[test]
fn cut_and_flapping_and_slow_links_lose_nothing_and_show_nothing_stale() {
    let Some(mut cluster) = Cluster::start(ClusterOptions::default()) else { return };
    leader_in_the_minority(&mut cluster);
    half_partition(&mut cluster);
    deaf_leader(&mut cluster);
    mute_follower(&mut cluster);
    flapping(&mut cluster);
    unplugged(&mut cluster);
    slow_links(&mut cluster);
}

/// The full partition, with clients on both sides: the leader of the objects' records and one other against three.
fn leader_in_the_minority(cluster: &mut Cluster) {
    let leader = cluster.leader_of(1);
    let other = (leader + 1) % 5;
    let majority: Vec<usize> = cluster.all().into_iter().filter(|n| ![leader, other].contains(n)).collect();
    let (mut cut_at, mut healed_at) = (Duration::ZERO, Duration::ZERO);
    let history = cluster.under_load("full", |cluster, workload| {
        cluster.network.partition(&[&[leader, other], &majority]);
        cut_at = workload.elapsed();
        workload.must_resume("full", "cut in two", &majority, cut_at);
        sleep(load_time());
        healed_at = workload.elapsed();
    });
    // What was sent a second into the cut and answered a second before its end, at the side without a majority.
    let second = 1_000_000_000;
    let (from, to) = (nanoseconds(cut_at) + second, nanoseconds(healed_at).saturating_sub(second));
    let alone = history.records.iter().filter(|r| [leader, other].contains(&r.endpoint) && r.invoked > from);
    let done: Vec<_> = alone.filter(|r| r.returned.at < to && r.returned.outcome == Outcome::Done).collect();
    assert!(done.is_empty(), "full: acknowledged by a minority: {:?}", done.first());
}

fn nanoseconds(time: Duration) -> u64 {
    holdfast_tests::cluster::history::nanoseconds(time)
}

/// Leader and a follower do not hear each other; everybody else hears both.
fn half_partition(cluster: &mut Cluster) {
    let leader = cluster.leader_of(1);
    let (cut_off, others) = (((leader + 2) % 5), cluster.others((leader + 2) % 5));
    cluster.under_load("half", |cluster, workload| {
        cluster.network.cut(&[Party::Host(leader)], &[Party::Host(cut_off)]);
        let cut_at = workload.elapsed();
        workload.must_resume("half", "one link cut", &others, cut_at);
        sleep(load_time());
    });
}

/// What the leader sends arrives; what it is sent does not.
fn deaf_leader(cluster: &mut Cluster) {
    let leader = cluster.leader_of(1);
    let others = cluster.others(leader);
    cluster.under_load("deaf-leader", |cluster, workload| {
        cluster.network.cut_one_way(&hosts(&others), &[Party::Host(leader)]);
        let cut_at = workload.elapsed();
        workload.must_resume("deaf-leader", "the leader hears nothing", &others, cut_at);
        sleep(load_time());
    });
}

/// A follower hears the others and is heard by none.
fn mute_follower(cluster: &mut Cluster) {
    let mute = (cluster.leader_of(1) + 3) % 5;
    let others = cluster.others(mute);
    cluster.under_load("mute-follower", |cluster, workload| {
        cluster.network.cut_one_way(&[Party::Host(mute)], &hosts(&others));
        let cut_at = workload.elapsed();
        workload.must_resume("mute-follower", "a follower is not heard", &others, cut_at);
        sleep(load_time());
    });
}

/// The leader loses all others for 300 ms, has them back for 300 ms, and so on.
fn flapping(cluster: &mut Cluster) {
    let leader = cluster.leader_of(1);
    let others = cluster.others(leader);
    cluster.under_load("flapping", |cluster, _| {
        let period = Duration::from_millis(300);
        let rounds = usize::try_from(load_time().as_millis() / (2 * period.as_millis())).unwrap();
        cluster.network.flap(&[Party::Host(leader)], &hosts(&others), period, rounds);
    });
}

/// A node without any network, not even to its clients.
fn unplugged(cluster: &mut Cluster) {
    let victim = (cluster.leader_of(1) + 1) % 5;
    let others = cluster.others(victim);
    cluster.under_load("unplugged", |cluster, workload| {
        cluster.network.unplug(victim);
        let cut_at = workload.elapsed();
        workload.must_resume("unplugged", "a cable pulled", &others, cut_at);
        sleep(load_time());
    });
}

/// One node behind 4 Mbit/s, and one packet of fifty lost between all.
fn slow_links(cluster: &mut Cluster) {
    let slow = (cluster.leader_of(1) + 2) % 5;
    let others = cluster.others(slow);
    cluster.under_load("slow", |cluster, workload| {
        cluster.network.narrow(slow, Some(4_000));
        cluster.network.lose(&hosts(&cluster.all()), &hosts(&cluster.all()), 0.02);
        let slow_at = workload.elapsed();
        workload.must_resume("slow", "one node is slow and packets get lost", &others, slow_at);
        sleep(load_time());
        cluster.network.narrow(slow, None);
    });
}
