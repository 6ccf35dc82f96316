//! Faults of this node's disks, put in front of every backend of a server that was started for them.

use holdfast_backends::{Backend, FaultHandle, Faulty};
use holdfast_faults::NodePlan;
use parking_lot::Mutex;
use std::sync::Arc;

/// Hands out backends that fail as planned, and has them follow a new plan. Without it backends are used as they are.
#[derive(Debug, Default)]
pub struct DiskFaults {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    plan: NodePlan,
    /// Of backends that are, or were, open; those that are gone are dropped at the next change.
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    name: String,
    id: String,
    handle: FaultHandle,
}

impl DiskFaults {
    /// From now on backends fail as `plan` says, those that are opened later too.
    pub fn set(&self, plan: NodePlan) {
        let mut state = self.state.lock();
        state.open.retain(|open| open.handle.is_in_use());
        for open in &state.open {
            let (plan, seed) = plan.disk(&open.name, &open.id);
            open.handle.set(plan, seed);
        }
        state.plan = plan;
    }

    /// `backend`, failing as planned.
    pub(crate) fn wrap<B: Backend>(&self, name: &str, backend: B) -> Arc<dyn Backend> {
        let mut state = self.state.lock();
        let (name, id) = (name.to_owned(), backend.id().to_string());
        let (plan, seed) = state.plan.disk(&name, &id);
        let backend = Faulty::new(backend, plan, seed);
        state.open.push(Open { name, id, handle: backend.handle() });
        Arc::new(backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_backends::MemoryBackend;
    use holdfast_proto::faults::FaultRule;
    use holdfast_proto::node::ShardError;
    use holdfast_proto::{BackendId, ClusterId, NodeId, PgId};

    fn memory(id: u8) -> MemoryBackend {
        MemoryBackend::new(ClusterId([2; 16]), BackendId([id; 16]), 1 << 20)
    }

    #[tokio::test]
    async fn open_backends_and_those_opened_later_follow_the_plan_until_it_ends() {
        let faults = DiskFaults::default();
        let d1 = faults.wrap("d1", memory(1));
        let list = async |backend: &Arc<dyn Backend>| backend.list(PgId(0), None, 10).await;
        list(&d1).await.expect("nothing is to fail");
        let (kind, backends) = ("disk-error".to_owned(), vec!["d1".to_owned(), "d3".to_owned()]);
        let rule = FaultRule { kind, backends, at: vec![1], per_million: 1_000_000, ..FaultRule::default() };
        faults.set(NodePlan::of(NodeId(1), &[rule]));
        let (d2, d3) = (faults.wrap("d2", memory(2)), faults.wrap("d3", memory(3)));
        for (name, backend, fails) in [("d1", &d1, true), ("d2", &d2, false), ("d3", &d3, true)] {
            let answer = list(backend).await;
            assert_eq!(matches!(answer, Err(ShardError::Io { .. })), fails, "{name}: {answer:?}");
        }
        drop(d2);
        faults.set(NodePlan::default());
        list(&d1).await.expect("it has ended");
        list(&d3).await.expect("it has ended");
        assert_eq!(faults.state.lock().open.len(), 2, "a backend that was closed is forgotten");
    }
}
