//! The administration verbs: each asks once (or until done), prints, and says how it ended.

mod faults;
mod layout;
mod node;
mod progress;
mod wait;

use crate::Outcome;
use crate::arguments::{
    AdminArgs, AdminCommand, BackendVerb, BucketVerb, KeyVerb, ObjectVerb, OutputFormat, RepairVerb, ScrubVerb,
    TokenVerb,
};
use crate::connection::connect;
use crate::failure::{Exit, Failure};
use crate::output::{Look, backends, keys_and_buckets, nodes, note, object, print, repair, status};
use holdfast_coordinator::admin::Code;
use holdfast_proto::admin::{BackendAdd, BackendView, KeyCreate, TokenCreate, TokenView};
use holdfast_sdk::AdminClient;

/// Carries out one verb.
pub(crate) fn run(command: AdminCommand) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Code::Internal, format!("start the runtime: {e}")))?;
    runtime.block_on(async {
        let arguments: AdminArgs = command.admin().clone();
        let context = Context { client: connect(&arguments)?, format: arguments.output, look: Look::detect() };
        match command {
            AdminCommand::Status { .. } => context.status().await,
            AdminCommand::Backend { verb, .. } => context.backend(verb).await,
            AdminCommand::Repair { verb, .. } => context.repair(verb).await,
            AdminCommand::Scrub { verb, .. } => context.scrub(verb).await,
            AdminCommand::Object { verb, .. } => context.object(verb).await,
            AdminCommand::Key { verb, .. } => context.key(verb).await,
            AdminCommand::Bucket { verb, .. } => context.bucket(verb).await,
            AdminCommand::Token { verb, .. } => context.token(verb).await,
            AdminCommand::Node { verb, .. } => context.node(verb).await,
            AdminCommand::Fault { verb, .. } => context.fault(verb).await,
            AdminCommand::Layout { verb, .. } => context.layout(verb).await,
            AdminCommand::Policy { verb, .. } => context.policy(verb).await,
            AdminCommand::Rebalance { verb, .. } => context.rebalance(verb).await,
        }
    })
}

struct Context {
    client: AdminClient,
    format: OutputFormat,
    look: Look,
}

impl Context {
    async fn status(&self) -> Outcome {
        let answer = self.client.cluster_status().await?;
        print(self.format, &answer, |a| status::table(a, self.look))?;
        Ok(answer.verdict.into())
    }

    async fn backend(&self, verb: BackendVerb) -> Outcome {
        let changed = match verb {
            BackendVerb::List => {
                let answer = self.client.backend_list().await?;
                print(self.format, &answer, |a| backends::table(a, self.look))?;
                return Ok(Exit::Ok);
            }
            BackendVerb::Add { location, name, node } => {
                self.client.backend_add(&BackendAdd { location: absolute(&location)?, name, node }).await?
            }
            BackendVerb::Drain { backend } => self.client.backend_drain(&backend).await?,
            BackendVerb::Remove { backend } => {
                let answer = self.client.backend_remove(&backend).await?;
                print(self.format, &answer, |a: &BackendView| {
                    format!("{} ({}) is removed; its files stay as they are\n", a.status.name, a.status.location)
                })?;
                return Ok(Exit::Ok);
            }
            BackendVerb::Replace { backend, location, name } => {
                let add = BackendAdd { location: absolute(&location)?, name, node: None };
                self.client.backend_replace(&backend, &add).await?
            }
        };
        print(self.format, &changed, backends::sentence)?;
        Ok(Exit::Ok)
    }

    async fn repair(&self, verb: RepairVerb) -> Outcome {
        let answer = match verb {
            RepairVerb::Status => self.client.repair_status().await?,
            RepairVerb::Start { wait: true } => wait::repair(&self.client).await?,
            RepairVerb::Start { wait: false } => self.client.repair_start().await?,
            RepairVerb::Pause => self.client.repair_pause().await?,
            RepairVerb::Resume => self.client.repair_resume().await?,
        };
        print(self.format, &answer, |a| repair::repair_table(a, self.look.now_ms))?;
        match verb {
            RepairVerb::Status => Ok(repair::repair_verdict(&answer).into()),
            RepairVerb::Start { wait: true } => Ok(self.client.cluster_status().await?.verdict.into()),
            RepairVerb::Start { wait: false } | RepairVerb::Pause | RepairVerb::Resume => Ok(Exit::Ok),
        }
    }

    async fn scrub(&self, verb: ScrubVerb) -> Outcome {
        let (answer, waited) = match verb {
            ScrubVerb::Status => (self.client.scrub_status().await?, false),
            ScrubVerb::Start { wait: false } => (self.client.scrub_start().await?, false),
            ScrubVerb::Start { wait: true } => (wait::scrub(&self.client).await?, true),
        };
        print(self.format, &answer, |a| repair::scrub_table(a, self.look.now_ms))?;
        if waited { Ok(self.client.cluster_status().await?.verdict.into()) } else { Ok(Exit::Ok) }
    }

    async fn object(&self, verb: ObjectVerb) -> Outcome {
        let ObjectVerb::Inspect { object, version_id } = verb;
        let (bucket, key) = split_object(&object)?;
        let answer = self.client.object_inspect(bucket, key, version_id.as_deref()).await?;
        print(self.format, &answer, |a| object::table(a, self.look))?;
        Ok(Exit::Ok)
    }

    async fn token(&self, verb: TokenVerb) -> Outcome {
        match verb {
            TokenVerb::Create { role, region, zone, ttl } => {
                let create = TokenCreate { roles: role, region, zone, ttl_seconds: Some(ttl.as_secs()) };
                let answer = self.client.token_create(&create).await?;
                print(self.format, &answer, nodes::new_token)?;
                note("it admits one node and is not shown again");
            }
            TokenVerb::List => {
                let answer = self.client.token_list().await?;
                print(self.format, &answer, |a| nodes::tokens(a, self.look.now_ms))?;
            }
            TokenVerb::Revoke { id } => {
                let answer = self.client.token_revoke(&id).await?;
                print(self.format, &answer, |a: &TokenView| format!("token {} is revoked\n", a.id))?;
            }
        }
        Ok(Exit::Ok)
    }

    async fn key(&self, verb: KeyVerb) -> Outcome {
        match verb {
            KeyVerb::Create { name, access_key, secret_key } => {
                let answer = self.client.key_create(&KeyCreate { name, access_key, secret_key }).await?;
                print(self.format, &answer, keys_and_buckets::new_key)?;
                note("the secret is not shown again");
            }
            KeyVerb::List => {
                let answer = self.client.key_list().await?;
                print(self.format, &answer, |a| keys_and_buckets::keys(a, self.look.now_ms))?;
            }
            KeyVerb::Delete { access_key } => {
                let answer = self.client.key_delete(&access_key).await?;
                print(self.format, &answer, |a| format!("access key {} is deleted\n", a.access_key))?;
            }
        }
        Ok(Exit::Ok)
    }

    async fn bucket(&self, verb: BucketVerb) -> Outcome {
        match verb {
            BucketVerb::Create { name } => {
                let answer = self.client.bucket_create(&name).await?;
                print(self.format, &answer, |a| format!("bucket {} is made\n", a.name))?;
            }
            BucketVerb::List => {
                let answer = self.client.bucket_list().await?;
                print(self.format, &answer, |a| keys_and_buckets::buckets(a, self.look.now_ms))?;
            }
            BucketVerb::Delete { name } => {
                let answer = self.client.bucket_delete(&name).await?;
                print(self.format, &answer, |a| format!("bucket {} is deleted\n", a.name))?;
            }
        }
        Ok(Exit::Ok)
    }
}

/// `disk:PATH` with an absolute path: the server does not know in which directory this command runs.
fn absolute(location: &str) -> Result<String, Failure> {
    let wrong = |why: String| Failure::usage(Code::InvalidArgument, why).or_try("disk:/path/to/an/empty/directory");
    let path = location.strip_prefix("disk:").filter(|p| !p.is_empty());
    let path = path.ok_or_else(|| wrong(format!("{location:?} is not the place of a backend")))?;
    let path = std::path::absolute(path).map_err(|e| wrong(format!("{location:?}: {e}")))?;
    Ok(format!("disk:{}", path.display()))
}

/// Bucket and key of `s3://BUCKET/KEY`.
fn split_object(object: &str) -> Result<(&str, &str), Failure> {
    let parts = object.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
    parts.filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty()).ok_or_else(|| {
        Failure::usage(Code::InvalidArgument, format!("{object:?} does not name an object")).or_try("s3://BUCKET/KEY")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_places_are_taken_apart() {
        assert_eq!(split_object("s3://b/k/with/slashes"), Ok(("b", "k/with/slashes")));
        for bad in ["b/k", "s3://b", "s3://b/", "s3:///k", ""] {
            assert_eq!(split_object(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
        assert_eq!(absolute("disk:/a/b"), Ok("disk:/a/b".to_owned()));
        assert!(absolute("disk:x").unwrap().starts_with("disk:/"));
        for bad in ["", "disk:", "/a/b", "s3://bucket"] {
            assert_eq!(absolute(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }
}
