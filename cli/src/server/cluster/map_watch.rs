//! Brings every newer cluster map to where it counts: to requests, to the network, to the file that the next start reads.

use super::network::Network;
use holdfast_coordinator::layout::Layout;
use holdfast_coordinator::leader::Leader;
use holdfast_coordinator::membership::fetch_cluster_map;
use holdfast_coordinator::metadata::{ClusterMap, MetadataStore};
use holdfast_proto::NodeId;
use holdfast_proto::cluster::{NodeIntent, NodeRecord, Role};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a coordinator looks at its own copy of the metadata: a look into memory.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// How often a storage node asks coordinators for the map. It needs it to know its peers, not to serve.
const FETCH_PERIOD: Duration = Duration::from_secs(2);

/// On a coordinator: follows its own copy of the metadata, and says whether this coordinator leads.
pub(crate) async fn follow(
    store: MetadataStore,
    layout: Layout,
    network: Option<Arc<Network>>,
    leads: watch::Sender<bool>,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(LOOK_PERIOD);
    // What was applied when the map was read last, and the epoch the network knows. The layout does not tell the latter:
    // it may have been advanced by whoever stored a map, or by the map this process began with.
    let mut seen = None;
    let mut met = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        // Read before the map, so that what is applied in between is seen next time.
        let applied = store.root_applied();
        if seen != Some(applied) {
            match store.known_cluster_map() {
                Ok(map) => {
                    seen = Some(applied);
                    // While this copy still catches up, what the layout began with is newer.
                    let newest = layout.current().table.epoch;
                    let is_news = |map: &ClusterMap| met < Some(map.table.epoch) && map.table.epoch >= newest;
                    if let Some(map) = map.filter(is_news) {
                        met = Some(map.table.epoch);
                        take(network.as_ref(), &layout, map).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "read the cluster map"),
            }
        }
        let is_leading = store.leader() == Leader::Here;
        leads.send_if_modified(|leads| std::mem::replace(leads, is_leading) != is_leading);
    }
}

async fn take(network: Option<&Arc<Network>>, layout: &Layout, map: ClusterMap) {
    tracing::debug!(epoch = map.table.epoch.0, nodes = map.nodes.len(), "a newer cluster map");
    let nodes = map.nodes.clone();
    let Some(network) = network else { return layout.advance(map) };
    network.meet(&nodes);
    layout.advance(map);
    let network = network.clone();
    let kept = tokio::task::spawn_blocking(move || network.files.keep_nodes(&nodes)).await;
    match kept {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => tracing::warn!(error = %failure.message, "keep the list of nodes"),
        Err(error) => tracing::warn!(%error, "keep the list of nodes"),
    }
}

/// On a node that is no coordinator: asks for the map until `shutdown`.
pub(crate) async fn fetch(network: Arc<Network>, layout: Layout, shutdown: CancellationToken) {
    loop {
        let known = layout.current();
        for via in coordinators(&known.nodes, network.own()) {
            match fetch_cluster_map(network.transport.as_ref(), via, known.table.epoch).await {
                Ok(Some(map)) => take(Some(&network), &layout, map).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%via, %error, "ask for the cluster map");
                    continue;
                }
            }
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(FETCH_PERIOD) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// The coordinators among `nodes`, this node first.
pub(crate) fn coordinators(nodes: &[NodeRecord], own: NodeId) -> Vec<NodeId> {
    let works = |node: &&NodeRecord| node.roles.has(Role::Coordinator) && node.intent != NodeIntent::Removed;
    let mut found: Vec<NodeId> = nodes.iter().filter(works).map(|node| node.id).collect();
    found.sort_by_key(|&node| (node != own, node));
    found
}
