//! What a person sees when a server has started: where it is, with which key, and a first command that works.

use super::cluster::network::Network;
use super::credentials::RootKey;
use super::lock::reachable;
use holdfast_proto::NodeId;
use holdfast_proto::cluster::Roles;
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What there is to say.
pub(crate) struct Banner {
    /// `None` on a node that serves no S3.
    pub(crate) s3: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) region: String,
    pub(crate) data_dir: PathBuf,
    /// Scheme, and how many backends may be lost; `None` on a node that does not plan.
    pub(crate) promise: Option<(String, usize)>,
    /// This node's.
    pub(crate) backends: usize,
    pub(crate) backends_online: usize,
    /// `None` on a server that is alone.
    pub(crate) cluster: Option<ClusterPlace>,
    /// The root key, at the first start only.
    pub(crate) root_key: Option<RootKey>,
}

/// What the node is in its cluster.
pub(crate) struct ClusterPlace {
    pub(crate) node: NodeId,
    pub(crate) roles: Roles,
    pub(crate) zone: String,
    /// Where the others reach it.
    pub(crate) listen: String,
}

impl ClusterPlace {
    /// Of a node that is on the network.
    pub(crate) fn of(network: &Network) -> Self {
        let identity = &network.identity;
        let addresses = network.addresses(String::new(), String::new());
        let all = addresses.control.iter().chain(&addresses.consensus).chain(&addresses.data);
        let listen = all.map(ToString::to_string).collect::<Vec<_>>().join(" ");
        Self { node: identity.node, roles: identity.roles, zone: identity.zone.clone(), listen }
    }
}

/// To standard output; a closed one is no reason to stop.
pub(crate) fn print(banner: &Banner) {
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "{banner}").and_then(|()| out.flush());
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let endpoint = self.s3.map(|s3| format!("{scheme}://{}", reachable(s3)));
        let data = self.data_dir.display();
        writeln!(f, "Holdfast {} is ready", env!("CARGO_PKG_VERSION"))?;
        if let Some(endpoint) = &endpoint {
            writeln!(f, "  S3       {endpoint}  region {}", self.region)?;
        }
        let admin = reachable(self.admin);
        match &endpoint {
            Some(_) => writeln!(f, "  admin    http://{admin}  (holdfast status --data-dir {data})")?,
            None => writeln!(f, "  health   http://{admin}/health/ready")?,
        }
        writeln!(f, "  data     {data}")?;
        if let Some(place) = &self.cluster {
            let ClusterPlace { node, roles, zone, listen } = place;
            writeln!(f, "  cluster  node n{node} ({roles}) in {}/{zone}, reached at {listen} (UDP)", self.region)?;
        }
        match (&self.promise, self.backends) {
            (Some((scheme, survives)), 1..) if self.cluster.is_none() => {
                writeln!(f, "  promise  scheme {scheme} on {} backends: any {survives} may be lost", self.backends)?
            }
            (Some((scheme, survives)), _) => {
                writeln!(f, "  promise  scheme {scheme} over all nodes: any {survives} backends may be lost")?;
            }
            (None, _) => {}
        }
        if self.backends_online < self.backends {
            writeln!(f, "  DEGRADED {} of {} backends are online", self.backends_online, self.backends)?;
        }
        let (access_key, secret_key) = match &self.root_key {
            Some(RootKey::Generated(key)) => {
                writeln!(f, "  keys     made now, shown this once, kept in {data}/credentials")?;
                (key.access_key.as_str(), key.secret_key.as_str())
            }
            Some(RootKey::Given(key)) => {
                writeln!(f, "  keys     the root key is {} as given in the environment", key.access_key)?;
                (key.access_key.as_str(), "$HOLDFAST_SECRET_ACCESS_KEY")
            }
            None => {
                let Some(endpoint) = &endpoint else { return Ok(()) };
                let first = if self.cluster.is_some() { "those of the cluster" } else { "as at the first start" };
                writeln!(f, "  keys     {first}")?;
                return writeln!(f, "  try      aws --endpoint-url {endpoint} s3 ls");
            }
        };
        let endpoint = endpoint.unwrap_or_default();
        writeln!(f, "  try")?;
        writeln!(
            f,
            "    export AWS_ACCESS_KEY_ID={access_key} AWS_SECRET_ACCESS_KEY={secret_key} AWS_DEFAULT_REGION={}",
            self.region
        )?;
        writeln!(f, "    aws --endpoint-url {endpoint} s3 mb s3://first")?;
        writeln!(f, "    aws --endpoint-url {endpoint} s3 cp /etc/hostname s3://first/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_sdk::Credentials;

    #[test]
    fn a_secret_shows_only_when_it_was_made_here() {
        let credentials = Credentials { access_key: "HFABC".into(), secret_key: "hush-hush".into() };
        let banner = |root_key| Banner {
            s3: Some("0.0.0.0:9000".parse().unwrap()),
            admin: "127.0.0.1:9001".parse().unwrap(),
            tls: false,
            region: "us-east-1".into(),
            data_dir: "/srv/data".into(),
            promise: Some(("4+2".into(), 2)),
            backends: 6,
            backends_online: 6,
            cluster: None,
            root_key,
        };
        let generated = banner(Some(RootKey::Generated(credentials.clone()))).to_string();
        assert!(generated.contains("AWS_ACCESS_KEY_ID=HFABC AWS_SECRET_ACCESS_KEY=hush-hush"), "{generated}");
        assert!(generated.contains("aws --endpoint-url http://127.0.0.1:9000 s3 cp"), "{generated}");
        assert!(!generated.contains("DEGRADED"), "{generated}");
        for text in [banner(Some(RootKey::Given(credentials))).to_string(), banner(None).to_string()] {
            assert!(!text.contains("hush"), "{text}");
        }
        let degraded = Banner { backends_online: 4, ..banner(None) }.to_string();
        assert!(degraded.contains("DEGRADED 4 of 6"), "{degraded}");
    }
}
