//! The rules that stand at one node, each with its end. Pure: milliseconds of any clock that only goes forward come in.

use crate::kind::FaultKind;
use crate::plan::NodePlan;
use crate::resolve::TTL_MAX;
use holdfast_proto::NodeId;
use holdfast_proto::faults::FaultRule;
use std::collections::BTreeMap;

/// Most rules at a time: an experiment has some; a script that went wild must not fill the memory.
pub const RULES_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Board {
    /// By id, with the moment each ends.
    rules: BTreeMap<String, (FaultRule, u64)>,
}

impl Board {
    /// Adds a rule, or sets it anew; why not, if it cannot be carried out here.
    pub fn add(&mut self, rule: FaultRule, now_ms: u64) -> Result<(), String> {
        rule.kind.parse::<FaultKind>()?;
        if rule.ttl_ms == 0 || rule.ttl_ms > u64::try_from(TTL_MAX.as_millis()).unwrap_or(u64::MAX) {
            return Err(format!("a fault lasts up to {} h, not {} ms", TTL_MAX.as_secs() / 3600, rule.ttl_ms));
        }
        if self.rules.len() >= RULES_MAX && !self.rules.contains_key(&rule.id) {
            return Err(format!("there are {RULES_MAX} faults already: holdfast fault clear"));
        }
        let end = now_ms.saturating_add(rule.ttl_ms);
        self.rules.insert(rule.id.clone(), (rule, end));
        Ok(())
    }

    /// Removes rules by id, or all if none is named; those that were there.
    pub fn clear(&mut self, ids: &[String]) -> Vec<FaultRule> {
        let is_meant = |id: &String| ids.is_empty() || ids.contains(id);
        self.rules.extract_if(.., |id, _| is_meant(id)).map(|(_, (rule, _))| rule).collect()
    }

    /// Removes the rules whose time is over.
    pub fn expire(&mut self, now_ms: u64) -> Vec<FaultRule> {
        self.rules.extract_if(.., |_, (_, end)| *end <= now_ms).map(|(_, (rule, _))| rule).collect()
    }

    /// When the next rule ends.
    pub fn next_end_ms(&self) -> Option<u64> {
        self.rules.values().map(|(_, end)| *end).min()
    }

    /// The rules that stand, with what is left of their time.
    pub fn rules(&self, now_ms: u64) -> Vec<FaultRule> {
        let left = |(rule, end): &(FaultRule, u64)| FaultRule { ttl_ms: end.saturating_sub(now_ms), ..rule.clone() };
        self.rules.values().map(left).collect()
    }

    /// What node `own` is to do wrong by them.
    pub fn plan(&self, own: NodeId) -> NodePlan {
        let rules: Vec<FaultRule> = self.rules.values().map(|(rule, _)| rule.clone()).collect();
        NodePlan::of(own, &rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str, ttl_ms: u64) -> FaultRule {
        let kind = FaultKind::Partition.name().to_owned();
        FaultRule { id: id.to_owned(), kind, at: vec![1], to: vec![2], ttl_ms, ..FaultRule::default() }
    }

    #[test]
    fn a_rule_ends_when_its_time_is_over() {
        let mut board = Board::default();
        assert_eq!(board.next_end_ms(), None);
        board.add(rule("a", 1_000), 5_000).unwrap();
        board.add(rule("b", 3_000), 5_000).unwrap();
        assert_eq!(board.next_end_ms(), Some(6_000));
        assert_eq!(board.rules(5_400).iter().map(|rule| rule.ttl_ms).collect::<Vec<_>>(), [600, 2_600]);
        assert!(board.expire(5_999).is_empty());
        assert_eq!(board.expire(6_000).len(), 1);
        assert!(board.plan(NodeId(1)).links[&NodeId(2)].is_cut, "the other still stands");
        assert_eq!(board.expire(u64::MAX).len(), 1);
        assert!(board.plan(NodeId(1)).is_empty());
    }

    #[test]
    fn rules_are_cleared_by_id_or_all_and_set_anew() {
        let mut board = Board::default();
        for id in ["a", "b", "c"] {
            board.add(rule(id, 1_000), 0).unwrap();
        }
        board.add(rule("a", 9_000), 0).unwrap();
        assert_eq!(board.rules(0)[0].ttl_ms, 9_000);
        assert_eq!(board.clear(&["b".to_owned(), "x".to_owned()]).len(), 1);
        assert_eq!(board.clear(&[]).len(), 2);
        assert!(board.rules(0).is_empty());
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_with_the_reason() {
        let mut board = Board::default();
        let unknown = FaultRule { kind: "flood".to_owned(), ..rule("a", 1_000) };
        for (wrong, reason) in
            [(unknown, "no fault"), (rule("a", 0), "lasts up to"), (rule("a", u64::MAX), "lasts up to")]
        {
            assert!(board.add(wrong, 0).unwrap_err().contains(reason), "{reason}");
        }
        for number in 0..RULES_MAX {
            board.add(rule(&number.to_string(), 1_000), 0).unwrap();
        }
        assert!(board.add(rule("one more", 1_000), 0).unwrap_err().contains("holdfast fault clear"));
        board.add(rule("0", 2_000), 0).expect("one that stands may be set anew");
    }
}
