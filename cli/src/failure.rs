//! Exit codes, and the failure that ends a command: `error HFnnnn: what, why`, then what to try.
//!
//! Invariant: scripts may rely on the exit codes; they are documented in docs/operations.md and never change meaning.

use holdfast_coordinator::admin::Code;
use holdfast_proto::admin::Verdict;
use holdfast_proto::layout_admin::StopVerdict;
use holdfast_sdk::AdminClientError;
use std::fmt;
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, and healthy where health was asked for.
    Ok = 0,
    /// It failed.
    Failed = 1,
    /// The command line or a setting is wrong.
    Usage = 2,
    /// Promises hold, some margin is below target.
    Degraded = 3,
    /// A promise is broken.
    PromiseBroken = 4,
    /// Something cannot be read any more.
    DataLost = 5,
    /// The store refuses, as it is now.
    Refused = 6,
    /// Nobody answered.
    Unreachable = 7,
    /// The key may not.
    Denied = 8,
    /// What was planned is of an older layout.
    PlanStale = 9,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Healthy => Self::Ok,
            Verdict::Degraded => Self::Degraded,
            Verdict::PromiseBroken => Self::PromiseBroken,
            Verdict::DataLost => Self::DataLost,
        }
    }
}

impl From<StopVerdict> for Exit {
    fn from(verdict: StopVerdict) -> Self {
        match verdict {
            StopVerdict::Safe => Self::Ok,
            StopVerdict::WritesStop => Self::Degraded,
            StopVerdict::ReadsBreak => Self::PromiseBroken,
        }
    }
}

/// Why a command ended without doing what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// `HFnnnn`.
    pub(crate) code: String,
    /// What and why.
    pub(crate) message: String,
    /// What to do next; may be empty.
    pub(crate) next_step: String,
    /// The exit code.
    pub(crate) exit: Exit,
}

impl Failure {
    /// A failure with exit code 1 and no next step.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code.text().to_owned(), message: message.into(), next_step: String::new(), exit: Exit::Failed }
    }

    /// A mistake on the command line or in the settings.
    pub(crate) fn usage(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, message).exits(Exit::Usage)
    }

    /// With another exit code.
    pub(crate) fn exits(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// With what to do next.
    pub(crate) fn or_try(mut self, next_step: impl Into<String>) -> Self {
        self.next_step = next_step.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error {}: {}", self.code, self.message)?;
        if !self.next_step.is_empty() {
            writeln!(f, "  try: {}", self.next_step)?;
        }
        Ok(())
    }
}

impl From<AdminClientError> for Failure {
    fn from(error: AdminClientError) -> Self {
        let message = error.to_string();
        let exit = match &error {
            AdminClientError::InvalidEndpoint { .. } | AdminClientError::Invalid(_) => Exit::Usage,
            AdminClientError::Unreachable { .. } | AdminClientError::TimedOut { .. } => Exit::Unreachable,
            AdminClientError::Denied(_) => Exit::Denied,
            AdminClientError::Refused(answer) if answer.code == Code::PlanStale.text() => Exit::PlanStale,
            AdminClientError::Refused(_) => Exit::Refused,
            AdminClientError::UnexpectedAnswer { .. }
            | AdminClientError::NotFound(_)
            | AdminClientError::Busy(_)
            | AdminClientError::Failed(_) => Exit::Failed,
        };
        if let Some(answer) = error.answer() {
            return Self { code: answer.code.clone(), message, next_step: answer.next_step.clone(), exit };
        }
        let (code, next_step) = match &error {
            AdminClientError::InvalidEndpoint { .. } => (Code::InvalidArgument, "--admin http://127.0.0.1:9001"),
            AdminClientError::TimedOut { .. } => (Code::TimedOut, "holdfast status, before trying again"),
            AdminClientError::UnexpectedAnswer { .. } => {
                (Code::UnexpectedAnswer, "check that --admin names the administration port, not the S3 port")
            }
            _ => (Code::Unreachable, "start the server, or give its administration address with --admin"),
        };
        Self::new(code, message).or_try(next_step).exits(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::admin::AdminError;

    #[test]
    fn every_kind_of_answer_has_its_exit_code() {
        let answer =
            || AdminError { code: "HF2104".into(), message: "d1 holds shards".into(), next_step: "wait".into() };
        let place = || "http://h:1".to_owned();
        let reason = || "r".to_owned();
        let cases = [
            (AdminClientError::InvalidEndpoint { endpoint: place(), reason: reason() }, 2),
            (AdminClientError::Unreachable { endpoint: place(), reason: reason() }, 7),
            (AdminClientError::TimedOut { endpoint: place(), seconds: 1 }, 7),
            (AdminClientError::UnexpectedAnswer { endpoint: place(), status: 200, reason: reason() }, 1),
            (AdminClientError::Denied(answer()), 8),
            (AdminClientError::NotFound(answer()), 1),
            (AdminClientError::Invalid(answer()), 2),
            (AdminClientError::Refused(answer()), 6),
            (AdminClientError::Refused(AdminError { code: "HF3302".into(), ..answer() }), 9),
            (AdminClientError::Busy(answer()), 1),
            (AdminClientError::Failed(answer()), 1),
        ];
        for (error, code) in cases {
            let failure = Failure::from(error.clone());
            assert_eq!(failure.exit as u8, code, "{error:?}");
            assert!(!failure.next_step.is_empty(), "{error:?}");
        }
        for verdict in [Verdict::Healthy, Verdict::Degraded, Verdict::PromiseBroken, Verdict::DataLost] {
            assert_eq!(Exit::from(verdict) as u8, verdict.exit_code());
        }
        for verdict in [StopVerdict::Safe, StopVerdict::WritesStop, StopVerdict::ReadsBreak] {
            assert_eq!(Exit::from(verdict) as u8, verdict.exit_code());
        }
    }

    #[test]
    fn a_failure_reads_as_documented() {
        let failure = Failure::new(Code::Unreachable, "no answer from http://h:1: refused").or_try("start it");
        assert_eq!(failure.to_string(), "error HF1201: no answer from http://h:1: refused\n  try: start it\n");
        assert_eq!(Failure::new(Code::Internal, "x").to_string(), "error HF9001: x\n");
    }
}
