//! Holds repair or moves back, and lets them go on. What is held is a part of the cluster map: it outlives this process, and
//! whoever leads next holds it, too.

use super::MaintenanceResult;
use super::layout_change::change;
use super::shared::Shared;
use crate::metadata::{ClusterMap, Holds, MapChange};

/// Changes what is held back; `cause` is what the operator asked for. Work under way ends.
pub(super) async fn set(shared: &Shared, cause: &str, set: impl Fn(&mut Holds) + Send + Sync) -> MaintenanceResult<()> {
    let held = |map: &ClusterMap| {
        let mut held = map.held;
        set(&mut held);
        let is_news = held != map.held;
        Ok(is_news.then(|| ClusterMap { held, change: MapChange::asked(cause), ..map.clone() }))
    };
    change(shared, held).await?;
    shared.wake.notify_one();
    Ok(())
}
