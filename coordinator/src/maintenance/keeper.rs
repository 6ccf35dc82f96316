//! Runs maintenance on the coordinator that leads, and nowhere else: started when this one begins to lead, stopped when
//! it no longer does.
//!
//! For a moment two coordinators may both believe that they lead. What each does holds against the other: the cluster map
//! changes by compare-and-set, records are asked of consensus, and a storage node that was listed by a newer map refuses
//! to delete by an older one.

use super::{Maintenance, MaintenanceOptions, MaintenanceParts};
use crate::object_path::DamageHint;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Reports of damage that may wait for repair; more are dropped, as inventories find the damage anyway.
const HINTS_MAX: usize = 4096;
/// How long work under way is waited for when leadership is lost. What takes longer ends by itself, beside the next
/// leader's; what is left undone is found again by the next inventory.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Maintenance of this process and where it takes hints; `None` while another coordinator leads.
#[derive(Clone)]
pub struct Kept {
    /// Running.
    pub maintenance: Arc<Maintenance>,
    /// Takes damage met by requests.
    pub hints: mpsc::Sender<DamageHint>,
}

/// What is kept now.
pub type KeptView = watch::Receiver<Option<Kept>>;

/// Starts the keeper: maintenance runs while `leads` says so. Ends, with maintenance stopped, after `shutdown`.
pub fn keep(
    parts: MaintenanceParts,
    options: MaintenanceOptions,
    leads: watch::Receiver<bool>,
    shutdown: CancellationToken,
) -> (KeptView, tokio::task::JoinHandle<()>) {
    let (kept, view) = watch::channel(None);
    (view, tokio::spawn(run(parts, options, leads, shutdown, kept)))
}

async fn run(
    parts: MaintenanceParts,
    options: MaintenanceOptions,
    mut leads: watch::Receiver<bool>,
    shutdown: CancellationToken,
    kept: watch::Sender<Option<Kept>>,
) {
    loop {
        let (is_leading, is_kept) = (*leads.borrow_and_update(), kept.borrow().is_some());
        match (is_leading, is_kept) {
            (true, false) => {
                let (hints, receiver) = mpsc::channel(HINTS_MAX);
                let maintenance = Maintenance::start_with(parts.clone(), receiver, options.clone());
                tracing::info!("this coordinator keeps the store whole from now on");
                kept.send_replace(Some(Kept { maintenance, hints }));
            }
            (false, true) => {
                tracing::info!("another coordinator keeps the store whole from now on");
                let before = kept.send_replace(None);
                stop(before).await;
            }
            _ => {}
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            changed = leads.changed() => if changed.is_err() { break },
        }
    }
    let before = kept.send_replace(None);
    stop(before).await;
}

async fn stop(kept: Option<Kept>) {
    let Some(kept) = kept else { return };
    if tokio::time::timeout(STOP_TIMEOUT, kept.maintenance.shutdown()).await.is_err() {
        tracing::warn!("maintenance did not stop in time; its work is found again by the next inventory");
    }
}
