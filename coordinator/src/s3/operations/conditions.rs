//! Conditional requests: reads judged here by RFC 9110's order of precedence, writes handed on as preconditions.

use crate::metadata::{EtagCondition, Preconditions};
use holdfast_proto::manifest::ObjectVersion;
use s3s::dto::{ETagCondition, Timestamp};

/// Conditions of a read or of a copy's source.
#[derive(Default)]
pub(super) struct ReadConditions<'r> {
    pub(super) if_match: Option<&'r ETagCondition>,
    pub(super) if_none_match: Option<&'r ETagCondition>,
    pub(super) if_modified_since: Option<&'r Timestamp>,
    pub(super) if_unmodified_since: Option<&'r Timestamp>,
}

/// What a read's conditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Proceed,
    NotModified,
    Failed,
}

impl ReadConditions<'_> {
    /// If-Match decides over If-Unmodified-Since, If-None-Match over If-Modified-Since (RFC 9110, 13.2.2). Times are
    /// compared in whole seconds, as HTTP writes them.
    pub(super) fn judge(&self, version: &ObjectVersion) -> Verdict {
        let modified = version.modified_ms / 1000;
        match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) if !matches(condition, &version.etag) => return Verdict::Failed,
            (None, Some(since)) if modified > super::millis(since) / 1000 => return Verdict::Failed,
            _ => {}
        }
        match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) if matches(condition, &version.etag) => Verdict::NotModified,
            (None, Some(since)) if modified <= super::millis(since) / 1000 => Verdict::NotModified,
            _ => Verdict::Proceed,
        }
    }
}

fn matches(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(tag) => tag.value() == etag,
    }
}

/// A write's condition in the metadata's form.
pub(super) fn condition(condition: Option<&ETagCondition>) -> Option<EtagCondition> {
    condition.map(|c| match c {
        ETagCondition::Any => EtagCondition::Any,
        ETagCondition::ETag(tag) => EtagCondition::OneOf(vec![tag.value().to_owned()]),
    })
}

/// The preconditions of a write.
pub(super) fn preconditions(if_match: Option<&ETagCondition>, if_none_match: Option<&ETagCondition>) -> Preconditions {
    Preconditions { if_match: condition(if_match), if_none_match: condition(if_none_match), ..Preconditions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use s3s::dto::ETag;

    #[test]
    fn precedence_of_read_conditions() {
        let version = ObjectVersion { etag: "a".into(), modified_ms: 10_000_500, ..ObjectVersion::default() };
        let tag = |t: &str| ETagCondition::ETag(ETag::Strong(t.to_owned()));
        let (same, other) = (tag("a"), tag("b"));
        let (before, at, after) = (
            super::super::timestamp(9_999_000),
            super::super::timestamp(10_000_000),
            super::super::timestamp(10_001_000),
        );
        let none = ReadConditions::default;
        let table = [
            (none(), Verdict::Proceed),
            (ReadConditions { if_match: Some(&same), ..none() }, Verdict::Proceed),
            (ReadConditions { if_match: Some(&other), ..none() }, Verdict::Failed),
            (ReadConditions { if_match: Some(&same), if_unmodified_since: Some(&before), ..none() }, Verdict::Proceed),
            (ReadConditions { if_unmodified_since: Some(&before), ..none() }, Verdict::Failed),
            (ReadConditions { if_unmodified_since: Some(&at), ..none() }, Verdict::Proceed),
            (ReadConditions { if_none_match: Some(&same), ..none() }, Verdict::NotModified),
            (
                ReadConditions { if_none_match: Some(&other), if_modified_since: Some(&after), ..none() },
                Verdict::Proceed,
            ),
            (ReadConditions { if_modified_since: Some(&at), ..none() }, Verdict::NotModified),
            (ReadConditions { if_modified_since: Some(&before), ..none() }, Verdict::Proceed),
        ];
        for (i, (conditions, expected)) in table.iter().enumerate() {
            assert_eq!(conditions.judge(&version), *expected, "case {i}");
        }
    }
}
