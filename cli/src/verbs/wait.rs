//! Waiting for repair and scrub to end, as `--wait` does.
//!
//! The server says what it is doing; when that counts as ended is decided by `RepairWait` and `ScrubWait`, which see
//! one answer after another and no clock but the one handed in.

use super::progress::Progress;
use crate::output::{note, repair};
use holdfast_proto::admin::{RepairStatus, ScrubStatus};
use holdfast_sdk::{AdminClient, AdminClientError};
use std::time::{Duration, Instant};

/// Between two questions: a person sees it move, the server hardly notices.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long an idle server is watched before its idleness counts although no new scan was seen: it may have begun
/// and ended between two questions on an empty store.
const IDLE_COUNTS_AFTER: Duration = Duration::from_secs(10);
/// Questions in a row that may go unanswered (a restart) before waiting fails.
const UNANSWERED_MAX: u32 = 20;

/// Whether to go on waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    GoOn,
    Ended,
    Paused,
}

/// Ends once a scan younger than the start is complete and nothing is left to write.
struct RepairWait {
    scanned_before_ms: u64,
    idle_since: Option<Duration>,
}

impl RepairWait {
    fn handle(&mut self, status: &RepairStatus, elapsed: Duration) -> Step {
        if status.state == "paused" {
            return Step::Paused;
        }
        if status.state != "idle" {
            self.idle_since = None;
            return Step::GoOn;
        }
        let idle_since = *self.idle_since.get_or_insert(elapsed);
        let scanned = status.scanned_ms > self.scanned_before_ms;
        if scanned || elapsed.saturating_sub(idle_since) >= IDLE_COUNTS_AFTER { Step::Ended } else { Step::GoOn }
    }
}

/// Ends once a run younger than the start is complete.
struct ScrubWait {
    finished_before_ms: u64,
    idle_since: Option<Duration>,
}

impl ScrubWait {
    fn handle(&mut self, status: &ScrubStatus, elapsed: Duration) -> Step {
        if status.state != "idle" {
            self.idle_since = None;
            return Step::GoOn;
        }
        let idle_since = *self.idle_since.get_or_insert(elapsed);
        let finished = status.finished_ms > self.finished_before_ms;
        if finished || elapsed.saturating_sub(idle_since) >= IDLE_COUNTS_AFTER { Step::Ended } else { Step::GoOn }
    }
}

/// Starts repair and returns its last answer once nothing is left, or once somebody paused it.
pub(crate) async fn repair(client: &AdminClient) -> Result<RepairStatus, AdminClientError> {
    let before = client.repair_status().await?;
    let mut wait = RepairWait { scanned_before_ms: before.scanned_ms, idle_since: None };
    let mut answer = client.repair_start().await?;
    let started = Instant::now();
    let mut progress = Progress::start();
    loop {
        let total = answer.bytes_written.saturating_add(answer.bytes_to_write);
        progress.show(answer.bytes_written, total, &repair::repair_line(&answer));
        match wait.handle(&answer, started.elapsed()) {
            Step::GoOn => {}
            Step::Ended => break,
            Step::Paused => {
                note("repair is paused; `holdfast repair resume` lets it go on");
                break;
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
        answer = patiently(ASK_EVERY, || client.repair_status()).await?;
    }
    progress.end();
    Ok(answer)
}

/// Starts a scrub and returns its last answer once it is through.
pub(crate) async fn scrub(client: &AdminClient) -> Result<ScrubStatus, AdminClientError> {
    let before = client.scrub_status().await?;
    let mut wait = ScrubWait { finished_before_ms: before.finished_ms, idle_since: None };
    let mut answer = client.scrub_start().await?;
    let started = Instant::now();
    let mut progress = Progress::start();
    loop {
        progress.show(answer.bytes, answer.bytes_total, &repair::scrub_line(&answer));
        if wait.handle(&answer, started.elapsed()) == Step::Ended {
            break;
        }
        tokio::time::sleep(ASK_EVERY).await;
        answer = patiently(ASK_EVERY, || client.scrub_status()).await?;
    }
    progress.end();
    Ok(answer)
}

/// Asks again while nobody answers: long work survives a restart of the server, so waiting for it should, too.
async fn patiently<T, F>(pause: Duration, mut ask: impl FnMut() -> F) -> Result<T, AdminClientError>
where
    F: Future<Output = Result<T, AdminClientError>>,
{
    let mut unanswered = 0;
    loop {
        match ask().await {
            Err(AdminClientError::Unreachable { .. } | AdminClientError::Busy(_)) if unanswered < UNANSWERED_MAX => {
                unanswered += 1;
                tokio::time::sleep(pause).await;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repair_ends_after_a_newer_scan() {
        let status =
            |state: &str, scanned_ms| RepairStatus { state: state.into(), scanned_ms, ..RepairStatus::default() };
        let at = Duration::from_secs;
        let mut wait = RepairWait { scanned_before_ms: 100, idle_since: None };
        let cases = [
            (status("idle", 100), at(0), Step::GoOn),
            (status("scanning", 100), at(1), Step::GoOn),
            (status("repairing", 200), at(2), Step::GoOn),
            (status("idle", 200), at(3), Step::Ended),
            (status("paused", 200), at(4), Step::Paused),
        ];
        for (answer, elapsed, expected) in cases {
            assert_eq!(wait.handle(&answer, elapsed), expected, "{answer:?}");
        }
        let mut silent = RepairWait { scanned_before_ms: 100, idle_since: None };
        assert_eq!(silent.handle(&status("idle", 100), at(0)), Step::GoOn);
        assert_eq!(silent.handle(&status("idle", 100), at(9)), Step::GoOn);
        assert_eq!(silent.handle(&status("idle", 100), at(10)), Step::Ended, "idle for long counts");
    }

    #[test]
    fn scrub_ends_after_a_newer_run() {
        let status =
            |state: &str, finished_ms| ScrubStatus { state: state.into(), finished_ms, ..ScrubStatus::default() };
        let mut wait = ScrubWait { finished_before_ms: 0, idle_since: None };
        assert_eq!(wait.handle(&status("running", 0), Duration::ZERO), Step::GoOn);
        assert_eq!(wait.handle(&status("idle", 50), Duration::from_secs(1)), Step::Ended);
    }

    #[tokio::test]
    async fn a_restart_is_waited_out_but_not_for_ever() {
        let unreachable = || AdminClientError::Unreachable { endpoint: "e".into(), reason: "refused".into() };
        let mut asked = 0;
        let pause = Duration::from_millis(1);
        let answer = patiently(pause, || {
            asked += 1;
            let answer = if asked < 5 { Err(unreachable()) } else { Ok(7) };
            async move { answer }
        });
        assert_eq!(answer.await, Ok(7));
        assert!(patiently(pause, || async { Err::<(), _>(unreachable()) }).await.is_err());
    }
}
