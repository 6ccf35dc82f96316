//! What the administration API asks of maintenance about nodes, layout, policy and moves. A node is named by its name or
//! its number.
//!
//! Not here: the metadata's voters and the health of nodes, which the endpoints ask themselves (`nodes`).

use super::operations::AdminResult;
use async_trait::async_trait;
use holdfast_proto::layout_admin::{
    LayoutChangeView, LayoutView, MoveView, NodeDrain, NodeMoveView, NodeRemove, NodeReplace, PolicyAsk,
    PolicyPlanView, PolicyView, RebalanceView, StopView,
};

/// See the module.
#[async_trait]
pub trait LayoutOperations: Send + Sync + 'static {
    /// What goes on while a node is stopped.
    async fn node_safe_to_stop(&self, node: &str) -> AdminResult<StopView>;
    /// Begins to move everything off a node. `Conflict` where the promise would not hold without it and was not given up.
    async fn node_drain(&self, node: &str, ask: NodeDrain) -> AdminResult<NodeMoveView>;
    /// Lets a node that was draining stay.
    async fn node_drain_cancel(&self, node: &str) -> AdminResult<NodeMoveView>;
    /// Forgets a node: one that is drained, or one that is declared lost.
    async fn node_remove(&self, node: &str, ask: NodeRemove) -> AdminResult<NodeMoveView>;
    /// Declares a node lost in whose place another has joined. `Conflict` where that one cannot take its place.
    async fn node_replace(&self, node: &str, ask: NodeReplace) -> AdminResult<NodeMoveView>;
    /// The layout with its proof.
    async fn layout_show(&self) -> AdminResult<LayoutView>;
    /// The last changes of the cluster map, newest first.
    async fn layout_history(&self) -> AdminResult<Vec<LayoutChangeView>>;
    /// What the store promises.
    async fn policy_list(&self) -> AdminResult<Vec<PolicyView>>;
    /// What another promise would take.
    async fn policy_plan(&self, ask: PolicyAsk) -> AdminResult<PolicyPlanView>;
    /// Chooses the promise. `Conflict` where it cannot be kept.
    async fn policy_create(&self, ask: PolicyAsk) -> AdminResult<PolicyPlanView>;
    /// What it would take to balance the layout.
    async fn rebalance_plan(&self) -> AdminResult<MoveView>;
    /// Carries a plan out. `Conflict` once the layout has changed.
    async fn rebalance_apply(&self, plan: &str) -> AdminResult<MoveView>;
    /// How moves stand.
    async fn rebalance_status(&self) -> AdminResult<RebalanceView>;
    /// Holds moves back until they are resumed.
    async fn rebalance_pause(&self) -> AdminResult<RebalanceView>;
    /// Lets moves go on.
    async fn rebalance_resume(&self) -> AdminResult<RebalanceView>;
    /// Takes moves back that are under way.
    async fn rebalance_undo(&self) -> AdminResult<RebalanceView>;
}
