//! An operator's words come to node numbers: names, zones and regions by the cluster map as it is now. Nodes that come
//! later are not in it.

use crate::kind::{FaultKind, Layer};
use holdfast_proto::cluster::{NodeIntent, NodeRecord};
use holdfast_proto::faults::{FaultAdd, FaultRule};
use std::fmt;
use std::time::Duration;

/// Longest life of a fault: one that is forgotten is gone the next day.
pub const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Life of a fault that names none.
const TTL: Duration = Duration::from_secs(600);

/// Why a fault cannot be understood, with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultError {
    /// What is wrong.
    pub reason: String,
    /// What to try.
    pub next_step: String,
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

fn wrong(reason: impl Into<String>, next_step: impl Into<String>) -> FaultError {
    FaultError { reason: reason.into(), next_step: next_step.into() }
}

/// The rule that `add` asks for, under this id, with this seed if it names none.
pub fn resolve(add: &FaultAdd, nodes: &[NodeRecord], id: &str, seed: u64) -> Result<FaultRule, FaultError> {
    let kind: FaultKind = add.kind.parse().map_err(|reason: String| wrong(reason, "holdfast fault add --help"))?;
    let per_million = per_million(kind, add.percent)?;
    let amount = amount(kind, add.amount)?;
    let ttl = add.ttl_seconds.map_or(TTL, Duration::from_secs);
    if ttl.is_zero() || ttl > TTL_MAX {
        return Err(wrong(format!("a fault lasts 1 s to {} h", TTL_MAX.as_secs() / 3600), "--ttl 10m"));
    }
    let at = select(&add.at, nodes)?;
    let is_link = kind.layer() == Layer::Link;
    let to = if is_link { select(&add.to, nodes)? } else { Vec::new() };
    if !is_link && !add.to.is_empty() {
        return Err(wrong(
            format!("{kind} is not a fault between nodes"),
            "leave out --to; --at says where it happens",
        ));
    }
    if is_link && !at.iter().any(|at| to.iter().any(|to| to != at)) {
        return Err(wrong("there is no link between the nodes named", "--from and --to with different nodes"));
    }
    if kind.layer() != Layer::Disk && !add.backends.is_empty() {
        return Err(wrong(format!("{kind} is not a fault of backends"), "leave out --backend"));
    }
    Ok(FaultRule {
        id: id.to_owned(),
        kind: kind.name().to_owned(),
        at,
        to,
        backends: add.backends.clone(),
        per_million,
        seed: add.seed.unwrap_or(seed),
        ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        amount,
    })
}

fn per_million(kind: FaultKind, percent: Option<f64>) -> Result<u32, FaultError> {
    let percent = percent.unwrap_or(100.0);
    if !kind.has_chance() && percent < 100.0 {
        return Err(wrong(format!("{kind} holds all the time and has no percentage"), "leave out --percent"));
    }
    if !(percent > 0.0 && percent <= 100.0) {
        return Err(wrong(format!("{percent} is not a percentage above 0 up to 100"), "--percent 30"));
    }
    // Within 1 to 1,000,000 by the check before; at least the least.
    Ok(((percent * 10_000.0).round() as u32).clamp(1, 1_000_000))
}

fn amount(kind: FaultKind, amount: Option<i64>) -> Result<i64, FaultError> {
    let (least, most) = kind.amounts();
    let unit = kind.amount_unit();
    match amount {
        None if unit.is_empty() => Ok(0),
        Some(_) if unit.is_empty() => Err(wrong(format!("{kind} has no amount"), "leave out --amount")),
        Some(0) | None => Err(wrong(format!("{kind} needs an amount"), example(kind))),
        Some(amount) if !(least..=most).contains(&amount) => {
            Err(wrong(format!("{amount} {unit} is not within {least} to {most} {unit}"), example(kind)))
        }
        Some(amount) => Ok(amount),
    }
}

fn example(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Bandwidth => "--amount 1MiB",
        FaultKind::ClockJump => "--amount=-2h",
        _ => "--amount 50ms",
    }
}

/// Numbers of the nodes that any of `selectors` names, ascending; all nodes if there are none.
fn select(selectors: &[String], nodes: &[NodeRecord]) -> Result<Vec<u64>, FaultError> {
    let present = || nodes.iter().filter(|node| node.intent != NodeIntent::Removed);
    let mut chosen: Vec<u64> = Vec::new();
    for selector in selectors {
        let (kind, name) = selector.split_once(':').unwrap_or(("node", selector));
        let is_named = |node: &NodeRecord| match kind {
            "node" => node.name == name || node.id.0.to_string() == name,
            "zone" => node.zone == name,
            "region" => node.region == name,
            _ => false,
        };
        let before = chosen.len();
        chosen.extend(present().filter(|node| is_named(node)).map(|node| node.id.0));
        if chosen.len() == before {
            let known: Vec<&str> = present().map(|node| node.name.as_str()).collect();
            let reason = format!("{selector:?} names no node; there are {}", known.join(", "));
            return Err(wrong(reason, "a node (n1), zone:NAME or region:NAME"));
        }
    }
    if selectors.is_empty() {
        chosen.extend(present().map(|node| node.id.0));
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::NodeId;
    use holdfast_proto::cluster::{NodeAddresses, Roles};

    fn nodes() -> Vec<NodeRecord> {
        let node = |id: u64, region: &str, zone: &str, intent| NodeRecord {
            id: NodeId(id),
            name: format!("n{id}"),
            roles: Roles::BOTH,
            region: region.to_owned(),
            zone: zone.to_owned(),
            addresses: NodeAddresses::default(),
            intent,
            joined_ms: 0,
        };
        vec![
            node(1, "fra", "a", NodeIntent::Active),
            node(2, "fra", "b", NodeIntent::Active),
            node(3, "ams", "a", NodeIntent::Active),
            node(4, "ams", "b", NodeIntent::Removed),
        ]
    }

    fn add(kind: &str, at: &[&str], to: &[&str]) -> FaultAdd {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        FaultAdd { kind: kind.to_owned(), at: owned(at), to: owned(to), ..FaultAdd::default() }
    }

    #[test]
    fn nodes_are_named_by_name_number_zone_and_region() {
        for (at, to, expected) in [
            (&["n1"][..], &["n2"][..], (vec![1], vec![2])),
            (&["node:1"], &["zone:b"], (vec![1], vec![2])),
            (&["zone:a"], &["region:ams"], (vec![1, 3], vec![3])),
            (&["zone:a", "n1"], &[], (vec![1, 3], vec![1, 2, 3])),
            (&[], &["3"], (vec![1, 2, 3], vec![3])),
        ] {
            let rule = resolve(&add("partition", at, to), &nodes(), "x", 5).unwrap();
            assert_eq!((rule.at, rule.to), expected, "{at:?} {to:?}");
        }
        let rule = resolve(&add("disk-full", &["n2"], &[]), &nodes(), "x", 5).unwrap();
        assert_eq!(
            (rule.at, rule.to, rule.seed, rule.ttl_ms, rule.per_million),
            (vec![2], vec![], 5, 600_000, 1_000_000)
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_next_step() {
        let with = |change: fn(&mut FaultAdd), kind: &str| {
            let mut add = add(kind, &["n1"], if kind == "delay" { &["n2"] } else { &[] });
            change(&mut add);
            add
        };
        for (add, reason) in [
            (add("flood", &[], &[]), "there is no fault"),
            (add("partition", &["n9"], &["n1"]), "\"n9\" names no node; there are n1, n2, n3"),
            (add("partition", &["rack:1"], &["n1"]), "names no node"),
            (add("partition", &["n4"], &["n1"]), "names no node"),
            (add("partition", &["n1"], &["n1"]), "no link"),
            (add("disk-full", &["n1"], &["n2"]), "not a fault between nodes"),
            (with(|add| add.amount = None, "delay"), "needs an amount"),
            (with(|add| add.amount = Some(0), "delay"), "needs an amount"),
            (with(|add| add.amount = Some(60_001), "delay"), "is not within"),
            (with(|add| add.amount = Some(5), "disk-full"), "has no amount"),
            (with(|add| add.percent = Some(0.0), "disk-full"), "not a percentage"),
            (with(|add| add.percent = Some(f64::NAN), "disk-full"), "not a percentage"),
            (with(|add| add.percent = Some(100.1), "disk-full"), "not a percentage"),
            (with(|add| (add.percent, add.amount) = (Some(50.0), Some(1)), "clock-jump"), "has no percentage"),
            (
                with(|add| (add.backends, add.amount) = (vec!["d1".into()], Some(1)), "clock-jump"),
                "not a fault of backends",
            ),
            (with(|add| add.ttl_seconds = Some(0), "disk-full"), "lasts 1 s"),
            (with(|add| add.ttl_seconds = Some(90_000), "disk-full"), "lasts 1 s"),
        ] {
            let error = resolve(&add, &nodes(), "x", 1).unwrap_err();
            assert!(error.reason.contains(reason), "{add:?}: {error}");
            assert!(!error.next_step.is_empty(), "{add:?}");
        }
    }

    #[test]
    fn a_small_percentage_is_not_none() {
        let add = FaultAdd { percent: Some(0.000_01), ..add("disk-error", &["n1"], &[]) };
        assert_eq!(resolve(&add, &nodes(), "x", 1).unwrap().per_million, 1);
    }
}
