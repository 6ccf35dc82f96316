//! Shows the layout and its history.

use super::MaintenanceResult;
use super::error::MaintenanceError;
use super::health;
use super::layout_change::candidates_for;
use super::shared::Shared;
use crate::rebalance::{history_view, layout_view};
use holdfast_proto::layout_admin::{LayoutChangeView, LayoutView};

/// The layout as it is, by a report taken now.
pub(super) async fn show(shared: &Shared) -> MaintenanceResult<LayoutView> {
    health::check(shared).await;
    let map = shared.layout.current();
    let candidates = candidates_for(shared, &map);
    let statuses = shared.health.lock().statuses.clone();
    layout_view(&map, &candidates, &statuses).map_err(|error| MaintenanceError::Placement { reason: error.to_string() })
}

/// The last changes, newest first.
pub(super) async fn history(shared: &Shared) -> MaintenanceResult<Vec<LayoutChangeView>> {
    Ok(history_view(shared.metadata.map_history().await?))
}
