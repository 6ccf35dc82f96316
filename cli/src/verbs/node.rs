//! `holdfast node`.

use super::Context;
use crate::Outcome;
use crate::arguments::NodeVerb;
use crate::failure::Exit;
use crate::output::{moves, nodes, print, stop};
use holdfast_proto::layout_admin::{Mode, NodeDrain, NodeRemove, NodeReplace};

impl Context {
    pub(super) async fn node(&self, verb: NodeVerb) -> Outcome {
        let moved = match verb {
            NodeVerb::List => {
                let answer = self.client.node_list().await?;
                print(self.format, &answer, |a| nodes::nodes(a))?;
                return Ok(Exit::Ok);
            }
            NodeVerb::SafeToStop { node } => {
                let answer = self.client.node_safe_to_stop(&node).await?;
                print(self.format, &answer, stop::table)?;
                return Ok(answer.verdict.into());
            }
            NodeVerb::Drain { node, cancel: true, .. } => self.client.node_drain_cancel(&node).await?,
            NodeVerb::Drain { node, plan, accept_loss_of, .. } => {
                self.client.node_drain(&node, &NodeDrain { mode: mode(plan), accept_loss_of }).await?
            }
            NodeVerb::Remove { node, lost, plan, accept_loss_of } => {
                self.client.node_remove(&node, &NodeRemove { mode: mode(plan), lost, accept_loss_of }).await?
            }
            NodeVerb::Replace { node, with, plan, accept_loss_of } => {
                self.client.node_replace(&node, &NodeReplace { with, mode: mode(plan), accept_loss_of }).await?
            }
        };
        print(self.format, &moved, moves::of_node)?;
        Ok(Exit::Ok)
    }
}

fn mode(is_plan: bool) -> Mode {
    if is_plan { Mode::Plan } else { Mode::Apply }
}
