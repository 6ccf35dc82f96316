//! Preconditions of a PUT judged early, to refuse before a body is read. `apply` judges them again, and its word counts.
//!
//! Pure.

use crate::metadata::{EtagCondition, MetadataError, Preconditions};
use holdfast_proto::manifest::ObjectVersion;

/// Whether there is anything to judge.
pub(crate) fn has_conditions(preconditions: &Preconditions) -> bool {
    preconditions.if_match.is_some() || preconditions.if_none_match.is_some()
}

/// Judges a PUT against the key's current version; a delete marker counts as none.
pub(crate) fn judge(preconditions: &Preconditions, current: Option<&ObjectVersion>) -> Result<(), MetadataError> {
    let current = current.filter(|version| !version.delete_marker);
    if let Some(condition) = &preconditions.if_match {
        let Some(version) = current else { return Err(MetadataError::NoSuchKey) };
        if !matches(condition, version) {
            return Err(MetadataError::PreconditionFailed { condition: "If-Match" });
        }
    }
    match (&preconditions.if_none_match, current) {
        (Some(condition), Some(version)) if matches(condition, version) => {
            Err(MetadataError::PreconditionFailed { condition: "If-None-Match" })
        }
        _ => Ok(()),
    }
}

fn matches(condition: &EtagCondition, version: &ObjectVersion) -> bool {
    match condition {
        EtagCondition::Any => true,
        EtagCondition::OneOf(etags) => etags.contains(&version.etag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let version =
            |etag: &str, delete_marker| ObjectVersion { etag: etag.into(), delete_marker, ..Default::default() };
        let one = |etag: &str| Some(EtagCondition::OneOf(vec!["zz".into(), etag.into()]));
        let any = || Some(EtagCondition::Any);
        let check = |if_match, if_none_match, current: Option<&ObjectVersion>| {
            let preconditions = Preconditions { if_match, if_none_match, ..Default::default() };
            judge(&preconditions, current).map_err(|error| error.to_string())
        };
        let (there, deleted) = (version("aa", false), version("aa", true));
        let failed = |condition: &str| Err(format!("precondition failed: {condition}"));
        assert_eq!(check(None, None, None), Ok(()));
        assert_eq!(check(None, any(), None), Ok(()));
        assert_eq!(check(None, any(), Some(&deleted)), Ok(()));
        assert_eq!(check(None, any(), Some(&there)), failed("If-None-Match"));
        assert_eq!(check(None, one("aa"), Some(&there)), failed("If-None-Match"));
        assert_eq!(check(None, one("bb"), Some(&there)), Ok(()));
        assert_eq!(check(any(), None, Some(&there)), Ok(()));
        assert_eq!(check(one("aa"), None, Some(&there)), Ok(()));
        assert_eq!(check(one("bb"), None, Some(&there)), failed("If-Match"));
        assert_eq!(check(any(), None, None), Err("no such key".to_owned()));
        assert_eq!(check(one("aa"), None, Some(&deleted)), Err("no such key".to_owned()));
    }
}
