//! `holdfast layout`, `holdfast policy` and `holdfast rebalance`.

use super::Context;
use crate::Outcome;
use crate::arguments::{LayoutVerb, PolicyArgs, PolicyVerb, RebalanceVerb};
use crate::failure::Exit;
use crate::output::{layout, moves, policy, print};
use holdfast_proto::layout_admin::PolicyAsk;

impl Context {
    pub(super) async fn layout(&self, verb: LayoutVerb) -> Outcome {
        match verb {
            LayoutVerb::Show => {
                let answer = self.client.layout_show().await?;
                print(self.format, &answer, layout::table)?;
            }
            LayoutVerb::History => {
                let answer = self.client.layout_history().await?;
                print(self.format, &answer, |a| layout::history(a, self.look.now_ms))?;
            }
        }
        Ok(Exit::Ok)
    }

    pub(super) async fn policy(&self, verb: PolicyVerb) -> Outcome {
        let answer = match verb {
            PolicyVerb::List => {
                let answer = self.client.policy_list().await?;
                print(self.format, &answer, |a| policy::list(a))?;
                return Ok(Exit::Ok);
            }
            PolicyVerb::Plan(args) => self.client.policy_plan(&asked(args)).await?,
            PolicyVerb::Create(args) => self.client.policy_create(&asked(args)).await?,
        };
        print(self.format, &answer, policy::plan)?;
        Ok(if answer.is_kept { Exit::Ok } else { Exit::Refused })
    }

    pub(super) async fn rebalance(&self, verb: RebalanceVerb) -> Outcome {
        let answer = match verb {
            RebalanceVerb::Plan => {
                let answer = self.client.rebalance_plan().await?;
                print(self.format, &answer, moves::plan)?;
                return Ok(Exit::Ok);
            }
            RebalanceVerb::Apply { plan } => {
                let answer = self.client.rebalance_apply(&plan).await?;
                print(self.format, &answer, moves::table)?;
                return Ok(Exit::Ok);
            }
            RebalanceVerb::Status => self.client.rebalance_status().await?,
            RebalanceVerb::Pause => self.client.rebalance_pause().await?,
            RebalanceVerb::Resume => self.client.rebalance_resume().await?,
            RebalanceVerb::Undo => self.client.rebalance_undo().await?,
        };
        print(self.format, &answer, moves::status)?;
        Ok(Exit::Ok)
    }
}

fn asked(args: PolicyArgs) -> PolicyAsk {
    PolicyAsk { survive: args.survive }
}
