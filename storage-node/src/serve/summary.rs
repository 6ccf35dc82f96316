//! How the backends were a moment ago, for heartbeats: they are answered from memory, so that a disk that hangs is seen
//! as such and not as a dead node.

use holdfast_proto::node::NodeClient;
use holdfast_proto::node_rpc::BackendSummary;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Older ones are renewed when asked for.
const FRESH: Duration = Duration::from_secs(1);
/// A look that takes longer is given up; what is known stays.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Default)]
struct State {
    backends: Vec<BackendSummary>,
    looked_at: Option<Instant>,
    is_looking: bool,
}

/// The last look. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Summary {
    state: Arc<Mutex<State>>,
}

impl Summary {
    /// What is known; has a look taken in the background when that is old.
    pub(super) fn get(&self, node: &Arc<dyn NodeClient>) -> Vec<BackendSummary> {
        let mut state = self.state.lock();
        let is_old = state.looked_at.is_none_or(|at| at.elapsed() >= FRESH);
        if is_old && !state.is_looking {
            state.is_looking = true;
            tokio::spawn(look(self.clone(), node.clone()));
        }
        state.backends.clone()
    }
}

async fn look(summary: Summary, node: Arc<dyn NodeClient>) {
    let looked = timeout(LOOK_TIMEOUT, node.backends()).await;
    let mut state = summary.state.lock();
    state.is_looking = false;
    state.looked_at = Some(Instant::now());
    if let Ok(statuses) = looked {
        state.backends = statuses.iter().map(|status| BackendSummary::new(status.id, status.health)).collect();
    }
}
