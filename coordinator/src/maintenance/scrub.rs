//! Scrub: has every backend verify all it holds, paced, and hands what is damaged to repair.

use super::rate::ByteBudget;
use super::shared::{ScrubState, Shared, as_ms};
use futures::future::join_all;
use holdfast_proto::BackendId;
use holdfast_proto::admin::ScrubStatus;
use std::sync::Arc;
use std::time::Duration;

/// Bytes verified in one call: at the default pace an eighth of a second.
const STEP_BYTES: u64 = 8 << 20;
/// How often to look whether a scrub is due.
const PERIOD: Duration = Duration::from_secs(600);
/// A backend never scrubbed is first scrubbed after the process has run so long.
const FIRST_AFTER_MS: u64 = 86_400_000;
/// Failed steps in a row after which a backend is left.
const FAILURES_MAX: u32 = 5;

/// Marks a scrub as begun; `false` if one is running.
pub(crate) fn begin(shared: &Shared) -> bool {
    let bytes_total = shared.health.lock().statuses.iter().filter(|s| s.health.can_read()).map(|s| s.used_bytes).sum();
    let mut scrub = shared.scrub.lock();
    if scrub.is_running {
        return false;
    }
    let finished_ms = scrub.status.finished_ms;
    *scrub = ScrubState { is_running: true, ..ScrubState::default() };
    scrub.status = ScrubStatus { bytes_total, finished_ms, ..ScrubStatus::default() };
    true
}

/// `holdfast scrub status`.
pub(crate) fn status(shared: &Shared) -> ScrubStatus {
    let now_ms = shared.now_ms();
    let last = shared.health.lock().statuses.iter().map(|s| s.scrubbed_ms).min().unwrap_or(0);
    let mut scrub = shared.scrub.lock();
    let bytes_per_second = scrub.rate.bytes_per_second(now_ms);
    let mut status = scrub.status.clone();
    status.state = if scrub.is_running { "running" } else { "idle" }.to_owned();
    status.bytes_per_second = bytes_per_second;
    status.bytes_total = status.bytes_total.max(status.bytes);
    status.finished_ms = status.finished_ms.max(last);
    status
}

/// Scrubs every backend that answers, all at once, each at its own pace. `begin` was called.
pub(crate) async fn run_once(shared: Arc<Shared>) {
    let backends: Vec<BackendId> = shared.reach().readable().collect();
    let all = join_all(backends.iter().map(|backend| scrub_backend(&shared, *backend)));
    let ended = tokio::select! {
        biased;
        ended = all => ended,
        () = shared.cancel.cancelled() => Vec::new(),
    };
    let is_complete = !ended.is_empty() && ended.iter().all(|through| *through);
    let now_ms = shared.now_ms();
    let mut scrub = shared.scrub.lock();
    scrub.is_running = false;
    if is_complete {
        scrub.status.finished_ms = now_ms;
    }
    let status = &scrub.status;
    tracing::info!(shards = status.shards, bytes = status.bytes, damaged = status.damaged, is_complete, "scrub ended");
}

/// Returns whether the backend was gone through.
async fn scrub_backend(shared: &Shared, backend: BackendId) -> bool {
    let mut budget = ByteBudget::new(shared.options.scrub_bytes_per_second_max);
    let mut after = None;
    let mut failures = 0;
    loop {
        let step = match shared.node.scrub_shards(backend, after, STEP_BYTES).await {
            Ok(step) => step,
            Err(error) => {
                failures += 1;
                tracing::warn!(backend = %shared.backend_name(backend), %error, "scrub");
                if failures >= FAILURES_MAX
                    || !shared.reach().can_read(backend)
                    || !shared.rest(shared.options.health_period).await
                {
                    return false;
                }
                continue;
            }
        };
        failures = 0;
        let now_ms = shared.now_ms();
        for shard in &step.damaged {
            tracing::warn!(backend = %shared.backend_name(backend), %shard, "scrub found a damaged shard");
        }
        metrics::counter!("holdfast_scrub_shards_total").increment(step.shards);
        metrics::counter!("holdfast_scrub_bytes_total").increment(step.bytes);
        metrics::counter!("holdfast_scrub_damaged_shards_total")
            .increment(u64::try_from(step.damaged.len()).unwrap_or(0));
        // Queued before they are counted: nobody sees a scrub with damage and repair without work.
        shared.suspect(step.damaged.iter().copied());
        {
            let mut scrub = shared.scrub.lock();
            scrub.status.shards += step.shards;
            scrub.status.bytes += step.bytes;
            scrub.status.damaged += u64::try_from(step.damaged.len()).unwrap_or(0);
            scrub.rate.add(step.bytes, now_ms);
        }
        match step.next {
            None => return true,
            // A backend that does not get on would be asked for ever.
            Some(next) if after.is_some_and(|before| next <= before) => return false,
            next => after = next,
        }
        let wait_ms = budget.spend(step.bytes, now_ms);
        if wait_ms > 0 && !shared.rest(Duration::from_millis(wait_ms)).await {
            return false;
        }
    }
}

/// Begins a scrub whenever the last one is too long ago.
pub(crate) async fn run_periodically(shared: Arc<Shared>) {
    let period_ms = as_ms(shared.options.scrub_period);
    if period_ms == 0 {
        return;
    }
    while shared.rest(PERIOD.min(shared.options.scrub_period)).await {
        let now_ms = shared.now_ms();
        let never = shared.started_ms + FIRST_AFTER_MS.min(period_ms);
        let due_ms = |scrubbed_ms: u64| if scrubbed_ms == 0 { never } else { scrubbed_ms.saturating_add(period_ms) };
        let is_due = {
            let health = shared.health.lock();
            health.statuses.iter().any(|s| s.health.can_read() && now_ms >= due_ms(s.scrubbed_ms))
        };
        let finished_ms = shared.scrub.lock().status.finished_ms;
        // A backend that does not remember its scrubs must not be scrubbed without end.
        if is_due && now_ms.saturating_sub(finished_ms) >= period_ms.min(FIRST_AFTER_MS) && begin(&shared) {
            run_once(shared.clone()).await;
        }
    }
}
