//! Tells the cluster where this node is reached and which backends it has, until a coordinator has put it on record; again
//! after every start and whenever a backend was added.

use super::files::NodeFiles;
use super::network::Network;
use holdfast_coordinator::membership::{Announcement, announce};
use holdfast_proto::NodeId;
use holdfast_proto::cluster::NodeAddresses;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// First wait after nobody could be told; doubled each time.
const RETRY_WAIT: Duration = Duration::from_millis(250);
/// Longest wait.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);
/// Told again at least this often: a coordinator's map may have been set back by hand.
const PERIOD: Duration = Duration::from_secs(600);

/// Runs until `shutdown`. `again` asks for another round at once.
pub(crate) async fn run(
    network: Arc<Network>,
    addresses: NodeAddresses,
    coordinators: impl Fn() -> Vec<NodeId>,
    again: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let mut wait = RETRY_WAIT;
    loop {
        let told = tokio::select! {
            told = tell(&network, &addresses, &coordinators) => told,
            () = shutdown.cancelled() => return,
        };
        let rest = if told {
            wait = RETRY_WAIT;
            PERIOD
        } else {
            wait = (wait * 2).min(RETRY_WAIT_MAX);
            wait
        };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = again.notified() => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn tell(network: &Network, addresses: &NodeAddresses, coordinators: &impl Fn() -> Vec<NodeId>) -> bool {
    let backends = match network.files.backends() {
        Ok(backends) => backends.unwrap_or_default(),
        Err(failure) => {
            tracing::error!(error = %failure.message, "read the list of backends");
            return false;
        }
    };
    let announcement = Announcement {
        addresses: addresses.clone(),
        backends: backends.iter().map(|b| (b.id, b.location.clone(), !b.is_announced)).collect(),
        now_ms: network.clock.now_ms(),
    };
    for via in coordinators() {
        match announce(network.transport.as_ref(), via, &announcement).await {
            Ok((epoch, strangers)) => {
                tracing::info!(%via, epoch = epoch.0, "this node is on record");
                for backend in strangers {
                    tracing::warn!(%backend, "a backend of this node is not part of the cluster: it was removed");
                }
                return mark_announced(&network.files);
            }
            Err(error) => tracing::info!(%via, %error, "announce this node"),
        }
    }
    false
}

fn mark_announced(files: &NodeFiles) -> bool {
    let marked = files.change_backends(|backends| backends.iter_mut().for_each(|b| b.is_announced = true));
    marked.inspect_err(|failure| tracing::error!(error = %failure.message, "keep the list of backends")).is_ok()
}
