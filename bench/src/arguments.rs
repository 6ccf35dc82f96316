//! The command line.

use crate::load::{Operation, Plan};
use crate::s3::Target;
use clap::{Args, Parser, Subcommand};
use holdfast_sdk::{Credentials, byte_size};
use std::path::PathBuf;
use std::time::Duration;

/// A load generator for any S3 server.
#[derive(Debug, Parser)]
#[command(name = "holdfast-bench", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What it does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One operation against one server.
    S3(S3Args),
    /// The same cells against several servers, interleaved, with ratios.
    Compare(CompareArgs),
    /// Many objects, then one listing: how long a page of 1000 takes at its start and at its end.
    Pages(PagesArgs),
}

/// Flags of `holdfast-bench pages`.
#[derive(Args, Debug)]
pub(crate) struct PagesArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Objects to put there first.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) objects: u64,
    /// Bytes of each.
    #[arg(long, default_value = "64B", value_parser = byte_size::parse)]
    pub(crate) size: u64,
    /// Connections that put them there.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) concurrency: u32,
    /// Seed of names and bodies.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// The server a run is against, and the bucket in it.
#[derive(Args, Debug)]
pub(crate) struct ServerArgs {
    /// http://host:port
    #[arg(long)]
    pub(crate) endpoint: String,
    /// Access key.
    #[arg(long, env = "AWS_ACCESS_KEY_ID")]
    pub(crate) access_key: String,
    /// Its secret.
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub(crate) secret_key: String,
    /// Region to sign for.
    #[arg(long, default_value = "us-east-1")]
    pub(crate) region: String,
    /// Bucket; made if it is not there.
    #[arg(long, default_value = "holdfast-bench")]
    pub(crate) bucket: String,
}

impl ServerArgs {
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        let credentials = Credentials { access_key: self.access_key.clone(), secret_key: self.secret_key.clone() };
        Target::new(&self.endpoint, credentials, &self.region, &self.bucket)
    }
}

/// Flags of `holdfast-bench s3`.
#[derive(Args, Debug)]
pub(crate) struct S3Args {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// What to do.
    #[arg(long, value_enum)]
    pub(crate) op: Operation,
    /// Bytes of each object: 4KiB, 1MiB, ...
    #[arg(long, default_value = "4KiB", value_parser = byte_size::parse)]
    pub(crate) size: u64,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) concurrency: u32,
    /// How long new operations are begun after the warm-up.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Seconds before it whose operations are not counted.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
    /// Open loop: begin so many operations a second, whether or not earlier ones have ended; latency then counts from
    /// when an operation was due.
    #[arg(long, value_name = "OPS")]
    pub(crate) rate: Option<f64>,
    /// Objects put there beforehand for get, mixed, list and delete [default: by operation and size].
    #[arg(long)]
    pub(crate) objects: Option<u64>,
    /// In mixed: how many of 100 operations are GET.
    #[arg(long, default_value_t = 70, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) get_percent: u32,
    /// Compare every byte read with what was written; `--verify=false` only counts them.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) verify: bool,
    /// Leave the objects there.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Threads that drive the connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
    /// Seed of names, bodies and choices.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl S3Args {
    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        anyhow::ensure!(self.seconds > 0.0 && self.seconds < 1e6, "--seconds must be above 0");
        anyhow::ensure!((0.0..1e6).contains(&self.warmup), "--warmup must not be negative");
        anyhow::ensure!(self.rate.is_none_or(|r| r > 0.0 && r < 1e7), "--rate must be above 0");
        let mut plan = Plan::new(self.op, self.size, self.concurrency);
        plan.duration = Duration::from_secs_f64(self.seconds);
        // Each object can be deleted once: a warm-up would use them up uncounted.
        plan.warmup = Duration::from_secs_f64(if self.op == Operation::Delete { 0.0 } else { self.warmup });
        plan.rate = self.rate;
        plan.get_percent = self.get_percent;
        plan.verify = self.verify;
        plan.keep = self.keep;
        plan.threads = self.threads;
        plan.seed = self.seed;
        if let Some(objects) = self.objects {
            anyhow::ensure!(objects > 0, "--objects must be above 0");
            plan.objects = objects;
        }
        Ok(plan)
    }
}

/// Flags of `holdfast-bench compare`.
#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// A server: NAME=ENDPOINT,ACCESS_KEY,SECRET_KEY,BUCKET,synced|unsynced[,REGION]. The first is ours.
    #[arg(long = "target", required = true, value_name = "SPEC")]
    pub(crate) targets: Vec<String>,
    /// Rounds over all cells and servers; figures are medians over them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// How long new operations are begun in each cell.
    #[arg(long, default_value_t = 4.0)]
    pub(crate) seconds: f64,
    /// Only cells whose name has these words, once for each: PUT-4KiB, c16, LIST.
    #[arg(long = "cell", value_name = "TEXT")]
    pub(crate) cells: Vec<String>,
    /// Where every single figure is written.
    #[arg(long, default_value = "bench-compare.json")]
    pub(crate) output: PathBuf,
    /// Threads that drive the connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
    /// Seed of names, bodies and choices.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Do not sync the machine's file systems between cells (which keeps one server's unwritten data from slowing
    /// down the next).
    #[arg(long)]
    pub(crate) no_sync: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_contract_parses() {
        Cli::command().debug_assert();
        let line = "holdfast-bench s3 --endpoint http://127.0.0.1:9000 --access-key a --secret-key s --region r \
                    --bucket b --op put --size 4KiB --concurrency 16 --seconds 5 --rate 100 --objects 10 --verify \
                    --json --warmup 0";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::S3(arguments) = cli.command else { panic!("not s3") };
        let plan = arguments.plan().unwrap();
        assert_eq!((plan.size, plan.concurrency, plan.objects, plan.verify), (4096, 16, 10, true));
        let off = Cli::try_parse_from([
            "holdfast-bench",
            "s3",
            "--endpoint",
            "http://h:1",
            "--access-key",
            "a",
            "--secret-key",
            "s",
            "--op",
            "get",
            "--verify=false",
        ]);
        let Command::S3(arguments) = off.unwrap().command else { panic!("not s3") };
        assert!(!arguments.verify);
    }
}
