//! Keeps a node's certificate young: the shell of `trust::RenewalSchedule`.
//!
//! Touches the world: sleeps (virtual time in the simulator), asks other nodes, and hands what it got to be kept.

use super::client::renew;
use super::error::MembershipError;
use holdfast_proto::NodeId;
use holdfast_transport::Transport;
use holdfast_trust::{Expiring, LiveCredentials, NodeCredentials, RenewalAction, RenewalSchedule, UnixClock, Warning};
use std::sync::Arc;
use std::time::Duration;

/// The clock is looked at least this often: it may jump, and the machine may have slept.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// And not more often than this.
const SLEEP_MIN: Duration = Duration::from_secs(1);

/// Keeps credentials durably.
pub type KeepCredentials = dyn Fn(&NodeCredentials) -> std::io::Result<()> + Send + Sync;

/// What renewing one node's certificate needs.
pub struct Renewals {
    /// Exchanged when a new certificate has come.
    pub live: Arc<LiveCredentials>,
    /// Reaches the coordinators.
    pub transport: Arc<dyn Transport>,
    /// Whom to ask, in order; asked for each time. The node's own number is fine: a coordinator asks itself.
    pub coordinators: Box<dyn Fn() -> Vec<NodeId> + Send + Sync>,
    /// Keeps the credentials durably, before they are used. A failure counts as a failed renewal.
    pub keep: Box<KeepCredentials>,
    /// The time.
    pub clock: UnixClock,
    /// Spreads the renewals of different nodes.
    pub seed: u64,
}

impl Renewals {
    /// Runs until it is dropped.
    pub async fn run(self) {
        let now = self.live.credentials();
        let mut schedule = RenewalSchedule::new(now.validity(), roots_end_ms(&now), self.seed);
        loop {
            let now_ms = self.clock.now_ms();
            match schedule.poll(now_ms) {
                Some(RenewalAction::Warn(warning)) => warn(&warning),
                Some(RenewalAction::Renew) => self.renew(&mut schedule).await,
                None => {
                    self.show_days_left(now_ms);
                    let wait = Duration::from_millis(schedule.next_ms().saturating_sub(now_ms));
                    tokio::time::sleep(wait.clamp(SLEEP_MIN, SLEEP_MAX)).await;
                }
            }
        }
    }

    fn show_days_left(&self, now_ms: u64) {
        let credentials = self.live.credentials();
        let ends = [("node", credentials.validity().not_after_ms), ("authority", roots_end_ms(&credentials))];
        for (what, end_ms) in ends {
            let days = end_ms.saturating_sub(now_ms) / 86_400_000;
            metrics::gauge!("holdfast_certificate_days_left", "of" => what).set(days as f64);
        }
    }

    async fn renew(&self, schedule: &mut RenewalSchedule) {
        match self.try_renew().await {
            Ok(credentials) => schedule.renewed(credentials.validity(), roots_end_ms(&credentials)),
            Err(error) => {
                tracing::warn!(%error, "the node's certificate could not be renewed");
                schedule.failed(self.clock.now_ms());
            }
        }
    }

    async fn try_renew(&self) -> Result<Arc<NodeCredentials>, MembershipError> {
        let current = self.live.credentials();
        let mut last = MembershipError::NotFounded { missing: "a coordinator to ask" };
        for via in (self.coordinators)() {
            match renew(self.transport.as_ref(), via, &current).await {
                Ok(renewed) => {
                    (self.keep)(&renewed)
                        .map_err(|e| MembershipError::answer(format!("keep the new certificate: {e}")))?;
                    self.live.replace(renewed)?;
                    tracing::info!("the node's certificate was renewed");
                    return Ok(self.live.credentials());
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn roots_end_ms(credentials: &NodeCredentials) -> u64 {
    credentials.roots_end_ms().unwrap_or(u64::MAX)
}

fn warn(warning: &Warning) {
    let what = match warning.what {
        Expiring::NodeCertificate => "the node's certificate",
        Expiring::Authority => "the cluster's CA",
    };
    tracing::warn!(days_left = warning.days_left, expires_ms = warning.expires_ms, "{what} ends soon");
}
