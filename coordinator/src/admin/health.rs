//! `/health/live`, `/health/ready` and `/metrics`: open to all, so bounded in what they cost.
//!
//! Live: this process answers. Ready: the metadata answers and enough backends take writes for a PUT to be
//! acknowledged. Invariant: however often they are asked, the backends are probed at most once per
//! `PROBE_REUSED_FOR`.

use super::{AdminState, Shared, metrics};
use crate::metadata::Metadata;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long a probe's answer is given again: shorter than any orchestrator's period, long enough to bound a flood.
pub(crate) const PROBE_REUSED_FOR: Duration = Duration::from_millis(200);
/// Longest a probe may take. A hanging disk must show as not ready, not as a hanging probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Asks whether the store can read and write now, and remembers the answer for a moment.
pub(crate) struct ReadinessProbe {
    writable_backends_min: usize,
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl ReadinessProbe {
    pub(crate) fn new(writable_backends_min: usize) -> Self {
        Self { writable_backends_min, last: Mutex::new(None) }
    }

    async fn ask(&self, state: &AdminState) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some((_, answer)) = last.as_ref().filter(|(when, _)| when.elapsed() < PROBE_REUSED_FOR) {
            return answer.clone();
        }
        let answer = match tokio::time::timeout(PROBE_TIMEOUT, self.probe(state)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", PROBE_TIMEOUT.as_secs())),
        };
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn probe(&self, state: &AdminState) -> Result<(), String> {
        let metadata: &dyn Metadata = state.metadata.as_ref();
        match metadata.cluster_map().await {
            Ok(Some(_)) => {}
            Ok(None) => return Err("no cluster map yet".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        let backends = state.node.backends().await;
        let writable = backends.iter().filter(|b| b.health.can_write()).count();
        if writable < self.writable_backends_min {
            let needed = self.writable_backends_min;
            return Err(format!("{writable} of {} backends take writes, {needed} are needed", backends.len()));
        }
        Ok(())
    }
}

pub(crate) async fn live() -> &'static str {
    "live\n"
}

pub(crate) async fn ready(State(state): Shared) -> Response {
    match state.readiness.ask(&state).await {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

pub(crate) async fn metrics(State(state): Shared) -> Response {
    // One scrape at a time: a flood of them queues here instead of probing the disks.
    let mut named = state.scrape.lock().await;
    let ready = state.readiness.ask(&state).await.is_ok();
    let status = tokio::time::timeout(PROBE_TIMEOUT, state.operations.cluster_status()).await;
    metrics::record(ready, status.ok().and_then(Result::ok).as_ref(), &mut named);
    let text = (state.render_metrics)();
    drop(named);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
