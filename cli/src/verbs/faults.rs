//! `holdfast fault`.

use super::Context;
use crate::Outcome;
use crate::arguments::FaultVerb;
use crate::failure::{Exit, Failure};
use crate::fault_arguments::amount;
use crate::output::{faults, note, print};
use holdfast_coordinator::admin::Code;
use holdfast_proto::faults::{FaultAdd, FaultList};

impl Context {
    /// Carries out one verb.
    pub(super) async fn fault(&self, verb: FaultVerb) -> Outcome {
        let left = match verb {
            FaultVerb::Add { kind, at, to, backend, amount: text, percent, seed, ttl } => {
                let amount = text.map(|text| amount(kind, &text)).transpose();
                let amount = amount.map_err(|why| Failure::usage(Code::InvalidArgument, why))?;
                let add = FaultAdd {
                    kind: kind.name().to_owned(),
                    at,
                    to,
                    backends: backend,
                    amount,
                    percent,
                    seed,
                    ttl_seconds: Some(ttl.as_secs()),
                };
                let fault = self.client.fault_add(&add).await?;
                print(self.format, &fault, |fault| faults::table(std::slice::from_ref(fault)))?;
                return Ok(Exit::Ok);
            }
            FaultVerb::List => self.client.fault_list().await?,
            FaultVerb::Clear { id, .. } => self.client.fault_clear(id.as_deref()).await?,
        };
        print(self.format, &left, |left: &FaultList| faults::table(&left.faults))?;
        if !left.unreachable.is_empty() {
            note(&format!("not asked, for they do not answer: {}", left.unreachable.join(", ")));
        }
        if !left.not_allowed.is_empty() {
            note(&format!("not started with --allow-faults: {}", left.not_allowed.join(", ")));
        }
        Ok(Exit::Ok)
    }
}
