//! Calls about nodes, layout, policy and moves.

use crate::admin::AdminClient;
use crate::admin_error::AdminClientError;
use holdfast_proto::layout_admin::{
    LayoutChangeView, LayoutView, MoveView, NodeDrain, NodeMoveView, NodeRemove, NodeReplace, PolicyAsk,
    PolicyPlanView, PolicyView, RebalanceApply, RebalanceView, StopView,
};

impl AdminClient {
    /// What goes on while a node (by name or number) is stopped.
    pub async fn node_safe_to_stop(&self, node: &str) -> Result<StopView, AdminClientError> {
        self.get(format!("/v1/nodes/{node}/safe-to-stop")).await
    }

    /// Begins to move everything off a node, or says what that would move.
    pub async fn node_drain(&self, node: &str, ask: &NodeDrain) -> Result<NodeMoveView, AdminClientError> {
        self.send("POST", format!("/v1/nodes/{node}/drain"), ask).await
    }

    /// Lets a node stay that was draining.
    pub async fn node_drain_cancel(&self, node: &str) -> Result<NodeMoveView, AdminClientError> {
        self.delete(format!("/v1/nodes/{node}/drain")).await
    }

    /// Forgets a node that is drained, or that is declared lost.
    pub async fn node_remove(&self, node: &str, ask: &NodeRemove) -> Result<NodeMoveView, AdminClientError> {
        self.send("POST", format!("/v1/nodes/{node}/remove"), ask).await
    }

    /// Declares a node lost in whose place another has joined.
    pub async fn node_replace(&self, node: &str, ask: &NodeReplace) -> Result<NodeMoveView, AdminClientError> {
        self.send("POST", format!("/v1/nodes/{node}/replace"), ask).await
    }

    /// The layout with its proof, and what each domain holds.
    pub async fn layout_show(&self) -> Result<LayoutView, AdminClientError> {
        self.get("/v1/layout".into()).await
    }

    /// The last changes of the layout, newest first.
    pub async fn layout_history(&self) -> Result<Vec<LayoutChangeView>, AdminClientError> {
        self.get("/v1/layout/history".into()).await
    }

    /// What the store promises, with its proof.
    pub async fn policy_list(&self) -> Result<Vec<PolicyView>, AdminClientError> {
        self.get("/v1/policies".into()).await
    }

    /// What another promise would take.
    pub async fn policy_plan(&self, ask: &PolicyAsk) -> Result<PolicyPlanView, AdminClientError> {
        self.send("POST", "/v1/policies/plan".into(), ask).await
    }

    /// Chooses the promise.
    pub async fn policy_create(&self, ask: &PolicyAsk) -> Result<PolicyPlanView, AdminClientError> {
        self.send("POST", "/v1/policies".into(), ask).await
    }

    /// How moves stand.
    pub async fn rebalance_status(&self) -> Result<RebalanceView, AdminClientError> {
        self.get("/v1/rebalance".into()).await
    }

    /// What it would take to balance the layout.
    pub async fn rebalance_plan(&self) -> Result<MoveView, AdminClientError> {
        self.get("/v1/rebalance/plan".into()).await
    }

    /// Carries out a plan that was shown.
    pub async fn rebalance_apply(&self, plan: &str) -> Result<MoveView, AdminClientError> {
        self.send("POST", "/v1/rebalance/apply".into(), &RebalanceApply { plan: plan.to_owned() }).await
    }

    /// Holds moves back until they are resumed.
    pub async fn rebalance_pause(&self) -> Result<RebalanceView, AdminClientError> {
        self.post("/v1/rebalance/pause".into()).await
    }

    /// Lets moves go on.
    pub async fn rebalance_resume(&self) -> Result<RebalanceView, AdminClientError> {
        self.post("/v1/rebalance/resume".into()).await
    }

    /// Takes moves back that are under way.
    pub async fn rebalance_undo(&self) -> Result<RebalanceView, AdminClientError> {
        self.post("/v1/rebalance/undo".into()).await
    }
}
