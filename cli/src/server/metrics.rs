//! The recorder behind every counter, gauge and histogram of the process, and its rendering for `/metrics`.

use crate::failure::Failure;
use holdfast_coordinator::admin::{Code, RenderMetrics};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Upper bounds of latency histograms, in seconds: from a cached small read (0.2 ms) to a slow large upload (60 s),
/// about two and a half times apart; one fdatasync here takes 3-4 ms.
const LATENCY_BUCKETS: [f64; 16] =
    [0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 4.0, 15.0, 60.0];
/// Samples of histograms wait in memory until they are drained.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Installs the recorder; from here on every metric of the process is kept.
pub(crate) fn install() -> Result<PrometheusHandle, Failure> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|e| Failure::new(Code::StartFailed, format!("install the metrics recorder: {e}")))
}

/// What `/metrics` answers.
pub(crate) fn renderer(handle: PrometheusHandle) -> RenderMetrics {
    Arc::new(move || handle.render())
}

/// Drains histograms until `shutdown`.
pub(crate) async fn keep(handle: PrometheusHandle, shutdown: CancellationToken) {
    while tokio::time::timeout(UPKEEP_EVERY, shutdown.cancelled()).await.is_err() {
        handle.run_upkeep();
    }
}
