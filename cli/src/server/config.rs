//! Settings with their types, checked: what `startup` builds the server from.

use super::settings::{Settings, invalid};
use crate::arguments::ServerArgs;
use crate::failure::Failure;
use holdfast_coordinator::admin::Code;
use holdfast_proto::cluster::Roles;
use holdfast_sdk::byte_size;
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Backends made when none are named.
pub(crate) const DEFAULT_BACKENDS: usize = 6;
/// Scheme of a first start that names none: any two of six disks may be lost at 1.5x the bytes.
pub(crate) const DEFAULT_SCHEME: SchemeShape = SchemeShape { k: 4, m: 2 };
/// Largest k+m: durable slots are one bit each of 64, and one slot a backend.
const SHARDS_MAX: usize = 64;
/// Region of a server that is told none.
pub(crate) const DEFAULT_REGION: &str = "us-east-1";
/// Control plane, where no port is given.
const CLUSTER_PORT: u16 = 9010;
/// How long requests under way may take to finish after SIGTERM.
const DRAIN_SECONDS: u64 = 30;

/// k data and m parity shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SchemeShape {
    pub(crate) k: usize,
    pub(crate) m: usize,
}

impl SchemeShape {
    /// Backends it needs.
    pub(crate) fn n(self) -> usize {
        self.k + self.m
    }
}

impl std::fmt::Display for SchemeShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", self.k, self.m)
    }
}

impl FromStr for SchemeShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a scheme: K+M, for instance 4+2");
        let (k, m) = text.split_once('+').ok_or_else(wrong)?;
        let k: usize = k.trim().parse().map_err(|_| wrong())?;
        let m: usize = m.trim().parse().map_err(|_| wrong())?;
        if k == 0 || m == 0 {
            return Err(format!("scheme {text} survives nothing: at least 1+1"));
        }
        if k.saturating_add(m) > SHARDS_MAX {
            return Err(format!("scheme {text} has more than {SHARDS_MAX} shards"));
        }
        Ok(Self { k, m })
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Coloured on a terminal, plain elsewhere.
    Auto,
    /// Plain.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" | "pretty" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is not a log format: auto, text or json")),
        }
    }
}

/// Certificate and key for S3 over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// Sizes of the object path that were set; the rest keep its defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObjectSettings {
    pub(crate) inline_bytes_max: Option<u64>,
    pub(crate) write_buffer_bytes: Option<u64>,
    pub(crate) read_buffer_bytes: Option<u64>,
}

/// What a server is told of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterSettings {
    /// Zone within the region.
    pub(crate) zone: String,
    /// Control plane; consensus and data take the next two ports, or any if it is port 0. `None`: no other node reaches
    /// this one.
    pub(crate) listen: Option<SocketAddr>,
    /// Token to join with, if this data directory has not joined yet.
    pub(crate) join: Option<String>,
    /// Roles asked for when joining.
    pub(crate) roles: Roles,
}

/// Settings of repair and scrub that were given; the rest keep maintenance's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MaintenanceSettings {
    /// How long a missing backend is waited for before its shards are rebuilt elsewhere.
    pub(crate) missing_grace_seconds: Option<u64>,
    /// 0 for no limit.
    pub(crate) repair_bytes_per_second_max: Option<u64>,
    /// On each backend; 0 for no limit.
    pub(crate) scrub_bytes_per_second_max: Option<u64>,
    /// 0 for never.
    pub(crate) scrub_period_days: Option<u32>,
}

/// All that `holdfast server` can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerConfig {
    pub(crate) data_dir: PathBuf,
    pub(crate) s3_listen: SocketAddr,
    pub(crate) admin_listen: SocketAddr,
    /// `disk:/absolute/path` each; empty when none were named.
    pub(crate) backends: Vec<String>,
    pub(crate) scheme: Option<SchemeShape>,
    pub(crate) region: String,
    pub(crate) domains: Vec<String>,
    pub(crate) cluster: ClusterSettings,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) log_format: LogFormat,
    pub(crate) drain_timeout: Duration,
    /// Whether faults may be injected.
    pub(crate) allow_faults: bool,
    /// Bytes after which a range of the metadata is cut in two, if set.
    pub(crate) range_bytes_max: Option<u64>,
    pub(crate) objects: ObjectSettings,
    pub(crate) maintenance: MaintenanceSettings,
}

impl ServerConfig {
    /// From flags, variables and the file they name, with what is odd but no error.
    pub(crate) fn load(
        arguments: &ServerArgs,
        environment: &BTreeMap<String, String>,
    ) -> Result<(Self, Vec<String>), Failure> {
        let mut settings = Settings::default();
        if let Some(file) = &arguments.config {
            settings.read_file(file)?;
        }
        settings.read_environment(environment)?;
        take_flags(&mut settings, arguments);
        let warnings = std::mem::take(&mut settings.warnings);
        Ok((Self::from_settings(&settings)?, warnings))
    }

    fn from_settings(settings: &Settings) -> Result<Self, Failure> {
        let config = Self {
            data_dir: data_dir(settings)?,
            s3_listen: settings.parsed("s3_listen", address)?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9000))),
            admin_listen: settings.parsed("admin_listen", address)?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9001))),
            backends: backends(settings)?,
            scheme: settings.parsed("scheme", SchemeShape::from_str)?,
            region: settings.parsed("region", place)?.unwrap_or_else(|| DEFAULT_REGION.to_owned()),
            domains: domains(settings)?,
            cluster: cluster(settings)?,
            tls: tls(settings)?,
            log_format: settings.parsed("log_format", LogFormat::from_str)?.unwrap_or(LogFormat::Auto),
            drain_timeout: Duration::from_secs(
                settings.parsed("drain_seconds", u64::from_str)?.unwrap_or(DRAIN_SECONDS),
            ),
            allow_faults: settings.parsed("allow_faults", bool::from_str)?.unwrap_or(false),
            range_bytes_max: settings.parsed("metadata.range_bytes_max", byte_size::parse)?,
            objects: ObjectSettings {
                inline_bytes_max: settings.parsed("objects.inline_bytes_max", byte_size::parse)?,
                write_buffer_bytes: settings.parsed("objects.write_buffer_bytes", byte_size::parse)?,
                read_buffer_bytes: settings.parsed("objects.read_buffer_bytes", byte_size::parse)?,
            },
            maintenance: MaintenanceSettings {
                missing_grace_seconds: settings.parsed("repair.missing_grace_seconds", u64::from_str)?,
                repair_bytes_per_second_max: settings.parsed("repair.bytes_per_second_max", byte_size::parse)?,
                scrub_bytes_per_second_max: settings.parsed("scrub.bytes_per_second_max", byte_size::parse)?,
                scrub_period_days: settings.parsed("scrub.period_days", u32::from_str)?,
            },
        };
        if config.s3_listen == config.admin_listen && config.s3_listen.port() != 0 {
            let both = config.s3_listen;
            return Err(Failure::usage(Code::InvalidSetting, format!("S3 and administration both listen on {both}"))
                .or_try("--admin-listen with another port"));
        }
        Ok(config)
    }
}

fn take_flags(settings: &mut Settings, arguments: &ServerArgs) {
    let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
    settings.take_flag("data_dir", "--data-dir", one(&arguments.data_dir));
    settings.take_flag("s3_listen", "--s3-listen", one(&arguments.s3_listen));
    settings.take_flag("admin_listen", "--admin-listen", one(&arguments.admin_listen));
    settings.take_flag("backends", "--backend", arguments.backends.clone());
    settings.take_flag("scheme", "--scheme", one(&arguments.scheme));
    settings.take_flag("region", "--region", one(&arguments.region));
    settings.take_flag("domains", "--domain", arguments.domains.clone());
    settings.take_flag("zone", "--zone", one(&arguments.zone));
    settings.take_flag("cluster.listen", "--cluster-listen", one(&arguments.cluster_listen));
    settings.take_flag("cluster.join", "--join", one(&arguments.join));
    settings.take_flag("cluster.role", "--role", one(&arguments.role));
    settings.take_flag("tls.cert", "--tls-cert", one(&arguments.tls_cert));
    settings.take_flag("tls.key", "--tls-key", one(&arguments.tls_key));
    settings.take_flag("log_format", "--log-format", one(&arguments.log_format));
    let allow_faults = arguments.allow_faults.then(|| "true".to_owned());
    settings.take_flag("allow_faults", "--allow-faults", one(&allow_faults));
}

fn data_dir(settings: &Settings) -> Result<PathBuf, Failure> {
    let Some((text, origin)) = settings.text("data_dir")? else {
        return Err(Failure::usage(Code::InvalidArgument, "no data directory was given").or_try("--data-dir DIR"));
    };
    if text.is_empty() {
        return Err(invalid(origin, &"an empty path"));
    }
    std::path::absolute(text).map_err(|e| invalid(origin, &e))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|e| format!("{text:?} is not an address (host:port): {e}"))?;
    found.next().ok_or_else(|| format!("{text:?} names no address"))
}

fn cluster(settings: &Settings) -> Result<ClusterSettings, Failure> {
    let settings = ClusterSettings {
        zone: settings.parsed("zone", place)?.unwrap_or_else(|| "default".to_owned()),
        listen: settings.parsed("cluster.listen", cluster_address)?,
        join: settings.text("cluster.join")?.map(|(token, _)| token.to_owned()),
        roles: settings.parsed("cluster.role", Roles::from_str)?.unwrap_or(Roles::BOTH),
    };
    if settings.join.is_some() && settings.listen.is_none() {
        let message = "a node that joins must say where the others reach it";
        return Err(Failure::usage(Code::InvalidArgument, message).or_try("--cluster-listen HOST[:PORT]"));
    }
    Ok(settings)
}

/// `HOST` or `HOST:PORT`. A wildcard is refused: other nodes are told this address.
fn cluster_address(text: &str) -> Result<SocketAddr, String> {
    let with_port = |text: &str| text.to_socket_addrs().ok().and_then(|mut found| found.next());
    let found = with_port(text).or_else(|| with_port(&format!("{text}:{CLUSTER_PORT}")));
    let found = found.ok_or_else(|| format!("{text:?} is not an address (host or host:port)"))?;
    if found.ip().is_unspecified() {
        return Err(format!("{text:?} is no address that another machine could reach"));
    }
    if found.port() > u16::MAX - 2 {
        return Err(format!("{text:?}: the next two ports are needed as well"));
    }
    Ok(found)
}

fn backends(settings: &Settings) -> Result<Vec<String>, Failure> {
    let Some((values, origin)) = settings.list("backends") else { return Ok(Vec::new()) };
    let mut found: Vec<String> = Vec::new();
    for value in values {
        let path = value.strip_prefix("disk:").filter(|path| !path.is_empty());
        let path =
            path.ok_or_else(|| invalid(origin, &format!("{value:?} is not the place of a backend: disk:PATH")))?;
        let path = std::path::absolute(path).map_err(|e| invalid(origin, &format!("{value:?}: {e}")))?;
        let location = format!("disk:{}", path.display());
        if found.contains(&location) {
            return Err(invalid(origin, &format!("{location} is there twice")));
        }
        found.push(location);
    }
    Ok(found)
}

/// The name of a region or zone.
fn place(text: &str) -> Result<String, String> {
    let fits =
        (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits { Ok(text.to_owned()) } else { Err(format!("{text:?} is not a name of letters, digits, '-' and '_'")) }
}

fn domains(settings: &Settings) -> Result<Vec<String>, Failure> {
    let Some((values, origin)) = settings.list("domains") else { return Ok(Vec::new()) };
    let lower: Vec<String> = values.iter().map(|v| v.trim_start_matches('.').to_ascii_lowercase()).collect();
    let valid = |d: &String| !d.is_empty() && d.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    match lower.iter().find(|domain| !valid(domain)) {
        Some(bad) => Err(invalid(origin, &format!("{bad:?} is not a domain name (without scheme and port)"))),
        None => Ok(lower),
    }
}

fn tls(settings: &Settings) -> Result<Option<TlsFiles>, Failure> {
    match (settings.text("tls.cert")?, settings.text("tls.key")?) {
        (Some((cert, _)), Some((key, _))) => Ok(Some(TlsFiles { cert: cert.into(), key: key.into() })),
        (None, None) => Ok(None),
        (Some((_, origin)), None) | (None, Some((_, origin))) => {
            Err(invalid(origin, &"a certificate and its key belong together").or_try("set both tls.cert and tls.key"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: &ServerArgs, variables: &[(&str, &str)]) -> Result<ServerConfig, Failure> {
        let environment = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        ServerConfig::load(flags, &environment).map(|(config, _)| config)
    }

    fn flags() -> ServerArgs {
        ServerArgs { data_dir: Some("/d".into()), ..ServerArgs::default() }
    }

    #[test]
    fn defaults() {
        let config = load(&flags(), &[]).unwrap();
        assert_eq!(config.s3_listen.to_string(), "127.0.0.1:9000");
        assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9001");
        assert_eq!((config.region.as_str(), config.scheme, config.tls.clone()), ("us-east-1", None, None));
        assert_eq!(config.drain_timeout, Duration::from_secs(30));
        assert_eq!((config.cluster.zone.as_str(), config.cluster.listen), ("default", None));
        assert_eq!(config.cluster.roles, Roles::BOTH);
        assert!(!config.allow_faults);
        let faulty = load(&ServerArgs { allow_faults: true, ..flags() }, &[("HOLDFAST_ALLOW_FAULTS", "false")]);
        assert!(faulty.unwrap().allow_faults, "flag over variable");
        assert!(config.backends.is_empty() && config.domains.is_empty());
    }

    #[test]
    fn every_source_reaches_the_config() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("h.toml");
        std::fs::write(
            &file,
            "s3_listen = \"127.0.0.1:1\"\nscheme = \"2+1\"\nbackends = [\"disk:/a\"]\ndrain_seconds = 5\n\
             [objects]\ninline_bytes_max = \"8KiB\"\nread_buffer_bytes = 1048576\n[repair]\nmissing_grace_seconds = 60\n[tls]\ncert = \"c\"\nkey = \"k\"\n",
        )
        .unwrap();
        let arguments = ServerArgs { config: Some(file), scheme: Some("3+2".into()), ..flags() };
        let config =
            load(&arguments, &[("HOLDFAST_S3_LISTEN", "127.0.0.1:2"), ("HOLDFAST_TLS__CERT", "other")]).unwrap();
        assert_eq!(config.scheme, Some(SchemeShape { k: 3, m: 2 }), "flag over file");
        assert_eq!(config.s3_listen.port(), 2, "variable over file");
        assert_eq!(config.tls, Some(TlsFiles { cert: "other".into(), key: "k".into() }));
        assert_eq!(config.objects.inline_bytes_max, Some(8192));
        assert_eq!(config.objects.read_buffer_bytes, Some(1 << 20));
        assert_eq!(config.maintenance.missing_grace_seconds, Some(60));
        assert_eq!(config.backends, ["disk:/a"]);
        let cluster = load(
            &ServerArgs { cluster_listen: Some("127.0.0.1".into()), join: Some("t".into()), ..flags() },
            &[("HOLDFAST_CLUSTER__ROLE", "storage")],
        );
        let cluster = cluster.unwrap().cluster;
        assert_eq!(cluster.listen.map(|a| a.port()), Some(CLUSTER_PORT));
        assert_eq!((cluster.join.as_deref(), cluster.roles.to_string().as_str()), (Some("t"), "storage"));
        assert_eq!(config.drain_timeout, Duration::from_secs(5));
    }

    #[test]
    fn values_that_cannot_be_used_are_refused_by_name() {
        let with = |change: fn(&mut ServerArgs)| {
            let mut arguments = flags();
            change(&mut arguments);
            arguments
        };
        let cases: Vec<(ServerArgs, &str)> = vec![
            (ServerArgs::default(), "data directory"),
            (with(|a| a.scheme = Some("4".into())), "--scheme"),
            (with(|a| a.scheme = Some("0+2".into())), "--scheme"),
            (with(|a| a.scheme = Some("4+0".into())), "--scheme"),
            (with(|a| a.scheme = Some("60+5".into())), "--scheme"),
            (with(|a| a.scheme = Some("99999999999999999999+1".into())), "--scheme"),
            (with(|a| a.s3_listen = Some("nonsense".into())), "--s3-listen"),
            (with(|a| a.s3_listen = Some("127.0.0.1:9001".into())), "127.0.0.1:9001"),
            (with(|a| a.backends = vec!["/a".into()]), "--backend"),
            (with(|a| a.backends = vec!["disk:".into()]), "--backend"),
            (with(|a| a.backends = vec!["disk:/a".into(), "disk:/a".into()]), "--backend"),
            (with(|a| a.region = Some("a/b".into())), "--region"),
            (with(|a| a.domains = vec!["http://x".into()]), "--domain"),
            (with(|a| a.zone = Some("a b".into())), "--zone"),
            (with(|a| a.role = Some("admin".into())), "--role"),
            (with(|a| a.cluster_listen = Some("0.0.0.0".into())), "--cluster-listen"),
            (with(|a| a.cluster_listen = Some("127.0.0.1:65534".into())), "--cluster-listen"),
            (with(|a| a.join = Some("token".into())), "reach it"),
            (with(|a| a.log_format = Some("xml".into())), "--log-format"),
            (with(|a| a.tls_cert = Some("c".into())), "--tls-cert"),
        ];
        for (arguments, part) in cases {
            let failure = load(&arguments, &[]).unwrap_err();
            assert_eq!(failure.exit as u8, 2, "{failure}");
            assert!(failure.message.contains(part), "{part}: {failure}");
        }
        let failure = load(&flags(), &[("HOLDFAST_OBJECTS__INLINE_BYTES_MAX", "many")]).unwrap_err();
        assert!(failure.message.contains("HOLDFAST_OBJECTS__INLINE_BYTES_MAX"), "{failure}");
    }
}
