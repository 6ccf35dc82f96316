//! The command line, as clap reads it. Names here are a contract with scripts.

mod cluster;

pub(crate) use crate::fault_arguments::FaultVerb;
pub(crate) use cluster::{LayoutVerb, NodeVerb, PolicyArgs, PolicyVerb, RebalanceVerb};

use clap::{Args, Parser, Subcommand, ValueEnum};
use holdfast_proto::cluster::Roles;
use std::path::PathBuf;
use std::time::Duration;

/// Holdfast: an S3-compatible object store that proves what it survives.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 healthy or done, 1 failed, 2 usage, 3 degraded, 4 a promise broken, \
                        5 data lost, 6 refused, 7 unreachable, 8 denied, 9 plan stale.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Everything `holdfast` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a store on this machine.
    Server(Box<ServerArgs>),
    #[command(flatten)]
    Admin(Box<AdminCommand>),
}

/// Flags of `holdfast server`. Each is also a key of the settings file (`data_dir`, `tls.cert`, ...) and a variable
/// (`HOLDFAST_DATA_DIR`, `HOLDFAST_TLS__CERT`, ...); a flag wins over a variable, a variable over the file.
#[derive(Args, Debug, Default)]
pub(crate) struct ServerArgs {
    /// Where metadata, credentials and, without --backend, the disks d1 to d6 live.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,
    /// Where S3 listens [default: 127.0.0.1:9000].
    #[arg(long, value_name = "ADDR")]
    pub(crate) s3_listen: Option<String>,
    /// Where administration, health and metrics listen [default: 127.0.0.1:9001].
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin_listen: Option<String>,
    /// A backend: disk:PATH, once for each. Read at the first start; later `holdfast backend add`.
    #[arg(long = "backend", value_name = "disk:PATH")]
    pub(crate) backends: Vec<String>,
    /// Data and parity shards [default: 4+2]. Read at the first start.
    #[arg(long, value_name = "K+M")]
    pub(crate) scheme: Option<String>,
    /// Settings file (TOML).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Region this node stands in, and that clients of its endpoint sign for [default: us-east-1].
    #[arg(long, value_name = "NAME")]
    pub(crate) region: Option<String>,
    /// Zone within the region: what fails together there, a rack or a room [default: default].
    #[arg(long, value_name = "NAME")]
    pub(crate) zone: Option<String>,
    /// Join a cluster: the token that `holdfast token create` printed there. Needed once.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) join: Option<String>,
    /// What this node does: coordinator, storage, or both [default: coordinator,storage]. Read when it joins.
    #[arg(long, value_name = "ROLES")]
    pub(crate) role: Option<String>,
    /// Where other nodes reach this one (UDP): control on this port, consensus and data on the next two. Without it a
    /// server is a cluster of its own; it can be given at any later start [default port: 9010].
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) cluster_listen: Option<String>,
    /// Domain for virtual-host style requests (BUCKET.DOMAIN), once for each.
    #[arg(long = "domain", value_name = "DOMAIN")]
    pub(crate) domains: Vec<String>,
    /// Certificate chain (PEM) for S3 over TLS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<String>,
    /// Private key (PEM) of the certificate.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<String>,
    /// Form of the log on standard error [default: auto].
    #[arg(long, value_name = "auto|text|json")]
    pub(crate) log_format: Option<String>,
    /// Lets `holdfast fault` make this server fail on purpose. Not for a store whose data matter.
    #[arg(long)]
    pub(crate) allow_faults: bool,
}

/// Whom to ask, as whom, and how to print.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminArgs {
    /// Administration endpoint of the server [default: the server of --data-dir, else http://127.0.0.1:9001].
    #[arg(long, global = true, env = "HOLDFAST_ADMIN", value_name = "URL")]
    pub(crate) admin: Option<String>,
    /// Data directory of a local server: its credentials file and address are used.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// File with the root key, as in DATA_DIR/credentials. Without it and --data-dir: HOLDFAST_ACCESS_KEY_ID and
    /// HOLDFAST_SECRET_ACCESS_KEY.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,
    /// A table for people or JSON for scripts.
    #[arg(long, short = 'o', global = true, value_enum, default_value_t = OutputFormat::Table)]
    pub(crate) output: OutputFormat,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Aligned columns.
    Table,
    /// One JSON document.
    Json,
}

/// Verbs that ask the administration port.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// What is at risk, what could fail next without harm. The exit code is the verdict.
    Status {
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// The disks that hold shards.
    Backend {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: BackendVerb,
    },
    /// Restore lost redundancy.
    Repair {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: RepairVerb,
    },
    /// Read and verify every shard.
    Scrub {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: ScrubVerb,
    },
    /// Look into single objects.
    Object {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: ObjectVerb,
    },
    /// Access keys for S3.
    Key {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: KeyVerb,
    },
    /// Buckets.
    Bucket {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: BucketVerb,
    },
    /// Join tokens: what a new node needs to come in.
    Token {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Make servers fail on purpose; each must have been started with --allow-faults.
    Fault {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: FaultVerb,
    },
    /// The machines of the cluster.
    Node {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: NodeVerb,
    },
    /// Where shards go, and why.
    Layout {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: LayoutVerb,
    },
    /// What must survive.
    Policy {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: PolicyVerb,
    },
    /// Move healthy shards until every backend has its share.
    Rebalance {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: RebalanceVerb,
    },
}

impl AdminCommand {
    /// Whom to ask.
    pub(crate) fn admin(&self) -> &AdminArgs {
        match self {
            Self::Status { admin }
            | Self::Backend { admin, .. }
            | Self::Repair { admin, .. }
            | Self::Scrub { admin, .. }
            | Self::Object { admin, .. }
            | Self::Key { admin, .. }
            | Self::Bucket { admin, .. }
            | Self::Token { admin, .. }
            | Self::Fault { admin, .. }
            | Self::Node { admin, .. }
            | Self::Layout { admin, .. }
            | Self::Policy { admin, .. }
            | Self::Rebalance { admin, .. } => admin,
        }
    }
}

/// Verbs of `holdfast backend`.
#[derive(Debug, Subcommand)]
pub(crate) enum BackendVerb {
    /// All backends, missing ones too.
    List,
    /// Format an empty or absent directory as a new backend; data begins to move onto it.
    Add {
        /// disk:PATH on the server.
        location: String,
        /// A short name; chosen when absent.
        #[arg(long)]
        name: Option<String>,
        /// The storage node it is on, by name or number; needed where there are several.
        #[arg(long)]
        node: Option<String>,
    },
    /// Move everything off a backend. It can be removed once `backend list` shows it as drained.
    Drain {
        /// Name or id.
        backend: String,
    },
    /// Forget a backend on which nothing is left. Its files stay as they are.
    Remove {
        /// Name or id.
        backend: String,
    },
    /// Put a new, empty backend in the place of a lost one; its shards are rebuilt onto it.
    Replace {
        /// Name or id of the lost one.
        backend: String,
        /// disk:PATH on the server of the new one.
        location: String,
        /// A short name; the old one's when absent.
        #[arg(long)]
        name: Option<String>,
    },
}

/// Verbs of `holdfast repair`.
#[derive(Debug, Subcommand)]
pub(crate) enum RepairVerb {
    /// What is left to repair, by remaining margin, with rate and time to go.
    Status,
    /// Scan and repair now.
    Start {
        /// Wait until nothing is left to repair; the exit code is then the verdict.
        #[arg(long)]
        wait: bool,
    },
    /// Hold repair until it is resumed.
    Pause,
    /// Let repair go on.
    Resume,
}

/// Verbs of `holdfast scrub`.
#[derive(Debug, Subcommand)]
pub(crate) enum ScrubVerb {
    /// Verify every shard now.
    Start {
        /// Wait until it is through; the exit code is then the verdict.
        #[arg(long)]
        wait: bool,
    },
    /// How far it is.
    Status,
}

/// Verbs of `holdfast object`.
#[derive(Debug, Subcommand)]
pub(crate) enum ObjectVerb {
    /// Where each shard of an object is, how it is, and when it was verified.
    Inspect {
        /// s3://BUCKET/KEY
        object: String,
        /// A version; the newest when absent.
        #[arg(long, value_name = "ID")]
        version_id: Option<String>,
    },
}

/// Verbs of `holdfast key`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// Make an access key. Its secret is shown once.
    Create {
        /// A name for people.
        #[arg(long, default_value = "")]
        name: String,
        /// Use this access key instead of a generated one.
        #[arg(long, requires = "secret_key")]
        access_key: Option<String>,
        /// And this secret.
        #[arg(long, requires = "access_key")]
        secret_key: Option<String>,
    },
    /// All access keys, without secrets.
    List,
    /// Remove an access key.
    Delete {
        /// Which.
        access_key: String,
    },
}

/// Verbs of `holdfast bucket`.
#[derive(Debug, Subcommand)]
pub(crate) enum BucketVerb {
    /// Make a bucket.
    Create {
        /// Its name.
        name: String,
    },
    /// All buckets.
    List,
    /// Remove an empty bucket.
    Delete {
        /// Its name.
        name: String,
    },
}

/// Verbs of `holdfast token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a token that admits one node. It is shown once.
    Create {
        /// Roles the node may have: coordinator, storage, or both [default: any].
        #[arg(long, value_name = "ROLES")]
        role: Option<Roles>,
        /// Region the node must stand in [default: any].
        #[arg(long, value_name = "NAME")]
        region: Option<String>,
        /// Zone the node must stand in [default: any].
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
        /// How long it admits: 30m, 1h, 2d.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
        ttl: Duration,
    },
    /// All tokens, without their text.
    List,
    /// Make a token useless. A node it has admitted stays.
    Revoke {
        /// Its id.
        id: String,
    },
}

/// A number with s, m, h or d after it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time: a number and s, m, h or d, for instance 1h");
    let (number, seconds) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).filter(|&s| s > 0).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_contract_parses() {
        let lines = [
            "server --data-dir d",
            "server --data-dir d --s3-listen a:1 --admin-listen a:2 --backend disk:a --backend disk:b --scheme 2+1 \
             --config f --region r --domain x --tls-cert c --tls-key k --log-format json",
            "server --data-dir d --join t --region r --zone z --role coordinator,storage --cluster-listen h:1",
            "status",
            "status --admin http://h:1 --output json",
            "backend list --output json",
            "backend --admin http://h:1 list",
            "backend add disk:/x --name d7",
            "backend drain d1",
            "backend remove d1",
            "backend replace d1 disk:/x",
            "repair status --data-dir d",
            "repair start --wait --data-dir d",
            "repair pause",
            "repair resume",
            "scrub start --wait",
            "scrub status",
            "object inspect s3://b/k --version-id null",
            "key create --name ci --access-key a --secret-key s",
            "key list",
            "key delete a",
            "bucket create b",
            "token create --role coordinator,storage --region r --zone z --ttl 30m --output json",
            "token list",
            "token revoke 00ff",
            "node list",
            "fault add partition --at n1 --to n2 --to zone:b --ttl 5m",
            "fault add delay --amount 50ms --percent 30 --seed 7 -o json",
            "fault add clock-jump --at n2 --amount=-2h",
            "fault add disk-full --at region:fra --backend d1",
            "fault list",
            "fault clear 0a0b0c",
            "fault clear --all",
            "node safe-to-stop n2 --output json",
            "node drain n2",
            "node drain n2 --plan --accept-loss-of zone:1+backend:1 --accept-loss-of metadata",
            "node drain n2 --cancel",
            "node remove n2",
            "node remove n2 --lost --accept-loss-of data",
            "node replace n2 --with n4 --plan",
            "layout show",
            "layout history --output json",
            "policy list",
            "policy plan --survive zone:1+node:1,backend:2",
            "policy create --survive zone:1",
            "policy create --follow-nodes",
            "rebalance plan --output json",
            "rebalance apply 118-7a3f90c1",
            "rebalance status",
            "rebalance pause",
            "rebalance resume",
            "rebalance undo",
            "bucket list",
            "bucket delete b --credentials f",
        ];
        for line in lines {
            let parsed = Cli::try_parse_from(std::iter::once("holdfast").chain(line.split_whitespace()));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
    }

    #[test]
    fn mistakes_name_the_nearest() {
        let cases = [
            ("server --data-dri x", "--data-dir"),
            ("bucket lst", "list"),
            ("stats", "status"),
            ("key create --access-key a", "--secret-key"),
            ("token create --role admin", "coordinator"),
            ("token create --ttl 5x", "1h"),
            ("fault add partitoin", "partition"),
            ("fault clear", "--all"),
            ("node drain n2 --cancel --plan", "--plan"),
            ("node replace n2", "--with"),
            ("policy create", "--survive"),
            ("policy plan --survive zone:1 --follow-nodes", "--follow-nodes"),
        ];
        for (line, nearest) in cases {
            let error = Cli::try_parse_from(std::iter::once("holdfast").chain(line.split_whitespace())).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(nearest), "{line}: {error}");
        }
    }
}
