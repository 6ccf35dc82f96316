//! What the clients of a workload asked and were answered, on the clock of the test process.
//!
//! Kept and written as the checker of linearizability reads it: one JSON object a line with the same names, and the
//! endpoint that was asked besides, which the checker passes over.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// What a client asked of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Operation {
    /// PUT of bytes with this ETag.
    Put {
        /// Known before they are sent.
        etag: String,
    },
    /// PUT with `If-None-Match: *`.
    PutIfNoneMatch {
        /// As for `Put`.
        etag: String,
    },
    /// PUT with `If-Match`.
    PutIfMatch {
        /// What the key must have.
        expected: String,
        /// As for `Put`.
        etag: String,
    },
    /// GET of the whole object; its bytes were held against what was written.
    Get,
    /// DELETE without a version.
    Delete,
    /// A listing of one page. The key of the record is the prefix.
    List {
        /// The keys strictly after this one: always empty here, from the beginning.
        after: String,
        /// And up to this one; empty for all.
        until: String,
    },
}

impl Operation {
    /// The ETag it writes, if it writes.
    pub fn writes(&self) -> Option<&str> {
        match self {
            Self::Put { etag } | Self::PutIfNoneMatch { etag } | Self::PutIfMatch { etag, .. } => Some(etag),
            Self::Get | Self::Delete | Self::List { .. } => None,
        }
    }

    /// Whether it may change the key.
    pub fn is_change(&self) -> bool {
        self.writes().is_some() || *self == Self::Delete
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// A change was acknowledged.
    Done,
    /// A read found this.
    Found {
        /// Its ETag.
        etag: String,
    },
    /// There is no such key.
    Absent,
    /// 412: the condition did not hold.
    PreconditionFailed,
    /// A page: key and ETag of each entry, in order.
    Listed {
        /// In order.
        entries: Vec<(String, String)>,
    },
    /// Refused, or never sent: certainly without effect.
    Failed,
    /// No answer, or one that leaves open whether it happened.
    Unknown,
}

/// The end of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    /// When the answer was there: nanoseconds.
    pub at: u64,
    /// What it said.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who asked.
    pub client: u32,
    /// Which endpoint, counted from 0.
    pub endpoint: usize,
    /// Of which key; a listing's prefix.
    pub key: String,
    /// What.
    #[serde(flatten)]
    pub operation: Operation,
    /// When it was sent: nanoseconds.
    pub invoked: u64,
    /// How it ended.
    pub returned: Returned,
}

impl Record {
    /// Whether it was answered as meant: a change acknowledged, a read answered.
    pub fn is_success(&self) -> bool {
        !matches!(self.returned.outcome, Outcome::Failed | Outcome::Unknown)
    }
}

/// All operations of a workload.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In order of `invoked`.
    pub records: Vec<Record>,
    /// Answers that no store may give, whatever the order: wrong bytes, an ETag of other bytes, a malformed answer.
    pub wrong_answers: Vec<String>,
}

impl History {
    /// How many changes were acknowledged.
    pub fn changes_done(&self) -> usize {
        self.records.iter().filter(|r| r.operation.is_change() && r.returned.outcome == Outcome::Done).count()
    }

    /// How many reads and listings were answered.
    pub fn reads_answered(&self) -> usize {
        self.records.iter().filter(|r| !r.operation.is_change() && r.is_success()).count()
    }

    /// Reads sent to `endpoint` at or after `from` that were not answered.
    pub fn failed_reads(&self, endpoint: usize, from: Duration) -> Vec<&Record> {
        let from = nanoseconds(from);
        let asked = self.records.iter().filter(|r| r.endpoint == endpoint && r.invoked >= from);
        asked.filter(|r| !r.operation.is_change() && !r.is_success()).collect()
    }

    /// How long after `from` the first change that was sent to `endpoint` after `from` was acknowledged.
    pub fn resumed_after(&self, endpoint: usize, from: Duration) -> Option<Duration> {
        let from = nanoseconds(from);
        let done = self.records.iter().filter(|r| r.endpoint == endpoint && r.invoked >= from);
        let done = done.filter(|r| r.operation.is_change() && r.returned.outcome == Outcome::Done);
        done.map(|r| r.returned.at).min().map(|at| Duration::from_nanos(at - from))
    }

    /// How changes and reads that were sent to `endpoint` at or after `from` ended, counted.
    pub fn outcomes_since(&self, endpoint: usize, from: Duration) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for record in self.records.iter().filter(|r| r.endpoint == endpoint && r.invoked >= nanoseconds(from)) {
            let what = if record.operation.is_change() { "changes" } else { "reads" };
            let outcome = format!("{:?}", record.returned.outcome);
            let word = outcome.split(' ').next().unwrap_or_default();
            *counts.entry(format!("{what} {word}")).or_default() += 1;
        }
        counts
    }

    /// One JSON object a line, as the checker reads it.
    pub fn write_to(&self, mut to: impl Write) -> std::io::Result<()> {
        for record in &self.records {
            writeln!(to, "{}", serde_json::to_string(record)?)?;
        }
        Ok(())
    }
}

/// Since the workload began.
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("a test takes less than 500 years")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(operation: Operation, outcome: Outcome, invoked: u64, at: u64) -> Record {
        Record { client: 1, endpoint: 2, key: "k".to_owned(), operation, invoked, returned: Returned { at, outcome } }
    }

    #[test]
    fn a_record_is_written_with_the_names_that_the_checker_reads() {
        let expected = "old".to_owned();
        let put = Operation::PutIfMatch { expected, etag: "new".to_owned() };
        let history = History {
            records: vec![
                record(put, Outcome::PreconditionFailed, 5, 9),
                record(Operation::Get, Outcome::Found { etag: "e".to_owned() }, 6, 7),
            ],
            wrong_answers: Vec::new(),
        };
        let mut text = Vec::new();
        history.write_to(&mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            concat!(
                r#"{"client":1,"endpoint":2,"key":"k","operation":"put-if-match","expected":"old","etag":"new","#,
                r#""invoked":5,"returned":{"at":9,"outcome":"precondition-failed"}}"#,
                "\n",
                r#"{"client":1,"endpoint":2,"key":"k","operation":"get","#,
                r#""invoked":6,"returned":{"at":7,"outcome":"found","etag":"e"}}"#,
                "\n",
            )
        );
    }

    #[test]
    fn a_write_resumes_with_the_first_that_was_sent_after_and_acknowledged() {
        let put = || Operation::Put { etag: "e".to_owned() };
        let history = History {
            records: vec![
                record(put(), Outcome::Done, 90, 130),
                record(put(), Outcome::Unknown, 105, 140),
                record(Operation::Get, Outcome::Unknown, 110, 150),
                record(put(), Outcome::Done, 120, 170),
            ],
            wrong_answers: Vec::new(),
        };
        assert_eq!(history.resumed_after(2, Duration::from_nanos(100)), Some(Duration::from_nanos(70)));
        assert_eq!(history.resumed_after(2, Duration::from_nanos(121)), None);
        assert_eq!(history.resumed_after(0, Duration::ZERO), None);
        assert_eq!(history.failed_reads(2, Duration::from_nanos(100)).len(), 1);
        assert_eq!((history.changes_done(), history.reads_answered()), (2, 0));
        let expected = [("changes Done", 1), ("changes Unknown", 1), ("reads Unknown", 1)];
        let counts = history.outcomes_since(2, Duration::from_nanos(100));
        assert_eq!(counts.iter().map(|(what, count)| (what.as_str(), *count)).collect::<Vec<_>>(), expected);
    }
}
