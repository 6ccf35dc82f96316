//! A quick look at a history for what no order can excuse: a read that missed a write acknowledged before it was sent, a
//! value that came back after it was replaced, a value from nowhere, a condition that held though it could not, two
//! conditional writes that both replaced one version.
//!
//! Necessary for linearizability, not sufficient: the checker of linearizability decides, this one says in a sentence
//! what was lost. Linear in reads times writes of one key, which a workload keeps to some hundreds.

use super::history::{History, Operation, Outcome, Record};
use std::collections::BTreeMap;

/// What each contradiction is, at most `REPORTED_MAX`; empty if nothing was found.
pub fn contradictions(history: &History) -> Vec<String> {
    /// More than these say nothing new.
    const REPORTED_MAX: usize = 10;
    let mut changes: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in history.records.iter().filter(|record| record.operation.is_change()) {
        if !matches!(record.returned.outcome, Outcome::Failed | Outcome::PreconditionFailed | Outcome::Absent) {
            changes.entry(&record.key).or_default().push(record);
        }
    }
    let mut found = history.wrong_answers.clone();
    // No two writes have one ETag, so a version that was replaced never comes back to be replaced again.
    let mut replaced: BTreeMap<(&str, &str), &Record> = BTreeMap::new();
    for record in &history.records {
        let judge = |key: &str, seen: Option<&str>| {
            let changes = changes.get(key).map_or(&[][..], Vec::as_slice);
            contradiction(changes, record, seen).map(|what| format!("{key}: {what}: {record:?}"))
        };
        match (&record.operation, &record.returned.outcome) {
            (Operation::Get, Outcome::Found { etag }) => found.extend(judge(&record.key, Some(etag))),
            (Operation::Get | Operation::PutIfMatch { .. }, Outcome::Absent) => found.extend(judge(&record.key, None)),
            // What a condition that held has seen, its change has seen.
            (Operation::PutIfNoneMatch { .. }, Outcome::Done) => found.extend(judge(&record.key, None)),
            (Operation::PutIfMatch { expected, .. }, Outcome::Done) => {
                found.extend(judge(&record.key, Some(expected)));
                if let Some(other) = replaced.insert((&record.key, expected), record) {
                    found.push(format!("{}: replaced twice, by {other:?} and {record:?}", record.key));
                }
            }
            (Operation::List { .. }, Outcome::Listed { entries }) => {
                let listed: BTreeMap<&str, &str> =
                    entries.iter().map(|(key, etag)| (key.as_str(), etag.as_str())).collect();
                let within = changes.keys().copied().filter(|key| key.starts_with(&record.key));
                for key in within.chain(listed.keys().copied().filter(|key| !changes.contains_key(*key))) {
                    found.extend(judge(key, listed.get(key).copied()));
                }
            }
            _ => {}
        }
    }
    found.truncate(REPORTED_MAX);
    found
}

/// Why `read` cannot have seen `seen`.
fn contradiction(changes: &[&Record], read: &Record, seen: Option<&str>) -> Option<String> {
    // An acknowledged change that was over before the read began, and began after `earlier` was over: what `earlier`
    // left was gone by then.
    let replaced_since = |earlier: u64| {
        let done = changes.iter().filter(|change| change.returned.outcome == Outcome::Done);
        done.filter(|change| change.invoked > earlier && change.returned.at < read.invoked).max_by_key(|c| c.invoked)
    };
    let end = |change: &Record| match change.returned.outcome {
        Outcome::Done => change.returned.at,
        // It may take effect at any later time.
        _ => u64::MAX,
    };
    match seen {
        Some(etag) => {
            let Some(write) = changes.iter().find(|change| change.operation.writes() == Some(etag)) else {
                return Some(format!("read {etag}, which nobody wrote"));
            };
            if write.invoked > read.returned.at {
                return Some("read before it was written".to_owned());
            }
            replaced_since(end(write)).map(|later| format!("stale: replaced by {later:?}"))
        }
        None => {
            // Absent from the beginning, or by a deletion; the best excuse is the one that may have happened last.
            let deletions = changes.iter().filter(|c| c.operation == Operation::Delete && c.invoked < read.returned.at);
            let last_excuse = deletions.map(|deletion| end(deletion)).max();
            let written =
                changes.iter().filter(|c| c.operation.writes().is_some() && c.returned.outcome == Outcome::Done);
            let lost =
                written.filter(|c| c.returned.at < read.invoked).find(|c| last_excuse.is_none_or(|e| c.invoked > e));
            lost.map(|lost| format!("absent, but acknowledged: {lost:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::Returned;
    use super::*;

    fn at(invoked: u64, returned: u64, operation: Operation, outcome: Outcome) -> Record {
        let returned = Returned { at: returned, outcome };
        Record { client: 0, endpoint: 0, key: "a/k".to_owned(), operation, invoked, returned }
    }

    fn put(etag: &str) -> Operation {
        Operation::Put { etag: etag.to_owned() }
    }

    fn create(etag: &str) -> Operation {
        Operation::PutIfNoneMatch { etag: etag.to_owned() }
    }

    fn replace(expected: &str, etag: &str) -> Operation {
        Operation::PutIfMatch { expected: expected.to_owned(), etag: etag.to_owned() }
    }

    fn read(invoked: u64, returned: u64, etag: Option<&str>) -> Record {
        let outcome = etag.map_or(Outcome::Absent, |etag| Outcome::Found { etag: etag.to_owned() });
        at(invoked, returned, Operation::Get, outcome)
    }

    fn list(invoked: u64, returned: u64, etag: Option<&str>) -> Record {
        let entries = etag.map(|etag| ("a/k".to_owned(), etag.to_owned())).into_iter().collect();
        let list = Operation::List { after: String::new(), until: String::new() };
        Record { key: "a/".to_owned(), ..at(invoked, returned, list, Outcome::Listed { entries }) }
    }

    #[test]
    fn what_no_order_excuses_is_found_and_nothing_else() {
        let one = || at(10, 20, put("1"), Outcome::Done);
        let two = || at(30, 40, put("2"), Outcome::Done);
        let delete = |from, to, outcome| at(from, to, Operation::Delete, outcome);
        let cases: Vec<(&str, Vec<Record>, bool)> = vec![
            ("the newest", vec![one(), two(), read(50, 60, Some("2"))], true),
            ("replaced before", vec![one(), two(), read(50, 60, Some("1"))], false),
            ("replaced meanwhile", vec![one(), two(), read(35, 60, Some("1"))], true),
            ("from nowhere", vec![one(), read(50, 60, Some("9"))], false),
            ("from the future", vec![read(5, 8, Some("1")), one()], false),
            ("lost", vec![one(), read(50, 60, None)], false),
            ("not yet there", vec![one(), read(15, 60, None)], true),
            ("deleted", vec![one(), delete(30, 40, Outcome::Done), read(50, 60, None)], true),
            ("back from the dead", vec![one(), delete(30, 40, Outcome::Done), read(50, 60, Some("1"))], false),
            ("deleted before it was written", vec![delete(2, 5, Outcome::Done), one(), read(50, 60, None)], false),
            ("perhaps deleted", vec![delete(2, 5, Outcome::Unknown), one(), read(50, 60, None)], true),
            ("refused deletion", vec![one(), delete(30, 40, Outcome::Failed), read(50, 60, None)], false),
            ("late write", vec![at(10, 20, put("1"), Outcome::Unknown), two(), read(50, 60, Some("1"))], true),
            ("of two at once", vec![one(), at(15, 40, put("2"), Outcome::Done), read(50, 60, Some("1"))], true),
            ("refused write", vec![at(10, 20, put("1"), Outcome::PreconditionFailed), read(50, 60, Some("1"))], false),
            ("created twice", vec![one(), at(50, 60, create("2"), Outcome::Done)], false),
            ("created anew", vec![one(), delete(30, 40, Outcome::Done), at(50, 60, create("2"), Outcome::Done)], true),
            ("created beside", vec![one(), at(15, 60, create("2"), Outcome::Done)], true),
            ("replaced", vec![one(), at(50, 60, replace("1", "2"), Outcome::Done)], true),
            ("replaced what was gone", vec![one(), two(), at(50, 60, replace("1", "3"), Outcome::Done)], false),
            (
                "replaced twice at once",
                vec![one(), at(50, 60, replace("1", "2"), Outcome::Done), at(50, 60, replace("1", "3"), Outcome::Done)],
                false,
            ),
            (
                "replaced once, and perhaps again",
                vec![
                    one(),
                    at(50, 60, replace("1", "2"), Outcome::Done),
                    at(50, 60, replace("1", "3"), Outcome::Unknown),
                ],
                true,
            ),
            ("nothing to replace", vec![one(), at(50, 60, replace("1", "2"), Outcome::Absent)], false),
            ("listed", vec![one(), list(50, 60, Some("1"))], true),
            ("not listed", vec![one(), list(50, 60, None)], false),
            ("listed as it was", vec![one(), two(), list(50, 60, Some("1"))], false),
            ("listed from nowhere", vec![list(50, 60, Some("1"))], false),
        ];
        for (name, records, is_good) in cases {
            let found = contradictions(&History { records, wrong_answers: Vec::new() });
            assert_eq!(found.is_empty(), is_good, "{name}: {found:?}");
        }
    }
}
