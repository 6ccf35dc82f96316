//! What each code survives, by the rank of every loss pattern: exhaustively up to two million patterns of a size, a
//! seeded sample beyond. The expected counts are those of an independent brute force made before this crate was.

use super::*;
use crate::scheme::GeoTable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Most patterns of one size that are all checked.
const EXHAUSTIVE_MAX: u64 = 2_000_000;
/// Patterns of a sample.
const SAMPLE: u64 = 200_000;

/// Loss patterns of one size: how many there are (or were drawn), how many cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    patterns: u64,
    fatal: u64,
}

fn choose(n: u64, t: u64) -> u64 {
    (0..t).fold(1, |count, i| count * (n - i) / (i + 1))
}

/// Calls `f` with every set of `size` of the first `n` slots.
fn each_set(n: usize, size: usize, f: &mut dyn FnMut(&SlotSet)) {
    fn walk(from: usize, n: usize, left: usize, set: &mut SlotSet, f: &mut dyn FnMut(&SlotSet)) {
        if left == 0 {
            return f(set);
        }
        for slot in from..=n - left {
            set.insert(slot);
            walk(slot + 1, n, left - 1, set, f);
            set.remove(slot);
        }
    }
    walk(0, n, size, &mut SlotSet::new(), f);
}

fn is_fatal(code: &Code, lost: &SlotSet) -> bool {
    let present = SlotSet::first(code.scheme().n()).difference(lost);
    !solve::decodable(code.generator(), &present)
}

/// Every pattern of `losses` lost shards, or a sample of them.
fn count(code: &Code, losses: usize) -> Count {
    let n = code.scheme().n();
    let all = choose(u64::try_from(n).unwrap(), u64::try_from(losses).unwrap());
    let mut fatal = 0;
    if all <= EXHAUSTIVE_MAX {
        each_set(n, losses, &mut |lost| fatal += u64::from(is_fatal(code, lost)));
        return Count { patterns: all, fatal };
    }
    let mut rng = StdRng::seed_from_u64(0x484F_4C44);
    for _ in 0..SAMPLE {
        let mut lost = SlotSet::new();
        while lost.len() < losses {
            lost.insert(rng.random_range(0..n));
        }
        fatal += u64::from(is_fatal(code, &lost));
    }
    Count { patterns: SAMPLE, fatal }
}

/// A whole region lost, and any `more` of the other shards.
fn region_and(code: &Code, more: usize) -> Count {
    let n = code.scheme().n();
    let mut found = Count { patterns: 0, fatal: 0 };
    for region in 0..code.regions() {
        let gone = code.slots_in(region);
        let rest: Vec<usize> = (0..n).filter(|&slot| !gone.contains(slot)).collect();
        each_set(rest.len(), more, &mut |set| {
            let lost = set.iter().map(|index| rest[index]).chain(gone.iter()).collect();
            found.patterns += 1;
            found.fatal += u64::from(is_fatal(code, &lost));
        });
    }
    found
}

/// How many patterns of `losses` no code with these groups can decode: the shards that count are, of each group, at
/// most as many as it has independent ones, and of the others all.
fn hopeless(code: &Code, losses: usize) -> u64 {
    let (n, k) = (code.scheme().n(), code.scheme().k());
    let mut fatal = 0;
    each_set(n, losses, &mut |lost| {
        let present = SlotSet::first(n).difference(lost);
        let grouped: usize = code.groups().iter().map(|g| g.members.intersection(&present).len().min(g.reads())).sum();
        let free = present.iter().filter(|&slot| code.group_of(slot).is_none()).count();
        fatal += u64::from(grouped + free < k);
    });
    fatal
}

/// Every count is exact: the size was walked through.
#[track_caller]
fn check(code: &Code, expected: &[(usize, u64, u64)]) {
    for &(losses, patterns, fatal) in expected {
        assert_eq!(count(code, losses), Count { patterns, fatal }, "{}: {losses} losses", code.scheme());
    }
}

fn geo(table: GeoTable) -> Code {
    Code::new(Scheme::geo(table))
}

#[test]
fn geo_6_decodes_whatever_can_be_decoded() {
    let code = geo(GeoTable::Geo6);
    // 84 of 924 is 9.09 %.
    check(&code, &[(5, 792, 0), (6, 924, 84)]);
    for losses in 0..=12 {
        assert_eq!(count(&code, losses).fatal, hopeless(&code, losses), "{losses} losses");
    }
    assert_eq!(region_and(&code, 1), Count { patterns: 24, fatal: 0 });
    // 42.9 %: both further losses in one region.
    assert_eq!(region_and(&code, 2), Count { patterns: 84, fatal: 36 });
}

#[test]
fn geo_12_survives_any_seven() {
    let code = geo(GeoTable::Geo12);
    // 0.075 % and 2.92 % (at best 2.04 %).
    check(&code, &[(7, 116_280, 0), (8, 203_490, 152), (9, 293_930, 8584)]);
    assert_eq!(hopeless(&code, 9), 6006);
    assert_eq!(region_and(&code, 1), Count { patterns: 42, fatal: 0 });
    assert_eq!(region_and(&code, 2), Count { patterns: 273, fatal: 126 });
}

#[test]
fn geo_12_plus_survives_a_region_and_any_two() {
    let code = geo(GeoTable::Geo12Plus);
    check(&code, &[(6, 134_596, 0), (7, 346_104, 0), (8, 735_471, 0), (9, 1_307_504, 1), (10, 1_961_256, 132)]);
    assert_eq!(region_and(&code, 1), Count { patterns: 48, fatal: 0 });
    assert_eq!(region_and(&code, 2), Count { patterns: 360, fatal: 0 });
    // 20 %: all three in one region.
    assert_eq!(region_and(&code, 3), Count { patterns: 1680, fatal: 336 });
}

#[test]
fn geo_12_over_four_regions_survives_any_six() {
    let code = geo(GeoTable::Geo12Regions4);
    // 0.99 %, at best 0.93 %.
    check(&code, &[(6, 38_760, 0), (7, 77_520, 770)]);
    assert_eq!(hopeless(&code, 7), 720);
    assert_eq!(region_and(&code, 1), Count { patterns: 60, fatal: 0 });
    assert_eq!(region_and(&code, 2), Count { patterns: 420, fatal: 120 });
}

#[test]
fn azure_lrcs_decode_whatever_can_be_decoded() {
    let code = Code::new("lrc-12-2-2".parse().unwrap());
    // 13.85 %.
    check(&code, &[(3, 560, 0), (4, 1820, 252)]);
    for k in (2..=30).step_by(2) {
        let code = Code::new(Scheme::lrc(k, 2, 2).unwrap());
        for losses in 3..=4 {
            assert_eq!(count(&code, losses).fatal, hopeless(&code, losses), "{}: {losses} losses", code.scheme());
        }
    }
}

#[test]
fn cauchy_lrcs_survive_one_loss_more_than_they_have_globals() {
    for (k, groups, globals) in
        [(12, 3, 2), (6, 1, 4), (20, 4, 3), (5, 5, 1), (32, 2, 2), (12, 2, 3), (60, 15, 2), (9, 3, 5)]
    {
        let code = Code::new(Scheme::lrc(k, groups, globals).unwrap());
        assert_eq!(count(&code, globals + 1).fatal, 0, "{}", code.scheme());
    }
}

#[test]
fn plain_codes_over_three_regions_survive_a_region_and_what_is_left_of_m() {
    for (text, more) in [("7+5", 1), ("6+6", 2)] {
        let code = Code::over_regions(text.parse().unwrap(), 3).unwrap();
        let m = code.scheme().m();
        assert_eq!(count(&code, m).fatal, 0);
        assert_eq!(count(&code, m + 1).fatal, choose(12, u64::try_from(m).unwrap() + 1));
        assert_eq!(region_and(&code, more).fatal, 0);
        assert_eq!(region_and(&code, more + 1).fatal, region_and(&code, more + 1).patterns);
    }
}

#[test]
fn small_reed_solomon_codes_are_mds() {
    for (k, m) in [(1, 1), (2, 1), (4, 2), (6, 3), (8, 4), (10, 4), (12, 4), (17, 3)] {
        let code = Code::new(Scheme::reed_solomon(k, m).unwrap());
        assert_eq!(count(&code, m).fatal, 0, "{}", code.scheme());
    }
    // 30 million patterns: a sample.
    assert_eq!(count(&Code::new("20+10".parse().unwrap()), 10), Count { patterns: SAMPLE, fatal: 0 });
}

#[test]
fn what_a_scheme_says_it_survives_is_the_most() {
    for table in GeoTable::ALL {
        let code = geo(table);
        let losses = code.scheme().losses_survived();
        assert_eq!(count(&code, losses).fatal, 0, "{}", code.scheme());
        assert!(count(&code, losses + 1).fatal > 0, "{}", code.scheme());
    }
}
