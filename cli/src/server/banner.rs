//! What a person sees when a server has started: where it is, with which key, and a first command that works.

use super::credentials::RootKey;
use super::lock::reachable;
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What there is to say.
pub(crate) struct Banner {
    pub(crate) s3: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) region: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) scheme: String,
    pub(crate) backends: usize,
    pub(crate) backends_online: usize,
    pub(crate) survives: usize,
    /// The root key, at the first start only.
    pub(crate) root_key: Option<RootKey>,
}

/// To standard output; a closed one is no reason to stop.
pub(crate) fn print(banner: &Banner) {
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "{banner}").and_then(|()| out.flush());
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", reachable(self.s3));
        let data = self.data_dir.display();
        writeln!(f, "Holdfast {} is ready", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "  S3       {endpoint}  region {}", self.region)?;
        writeln!(f, "  admin    http://{}  (holdfast status --data-dir {data})", reachable(self.admin))?;
        writeln!(f, "  data     {data}")?;
        writeln!(
            f,
            "  promise  scheme {} on {} backends: any {} may be lost",
            self.scheme, self.backends, self.survives
        )?;
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
                writeln!(f, "  keys     as at the first start")?;
                return writeln!(f, "  try      aws --endpoint-url {endpoint} s3 ls");
            }
        };
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
            s3: "0.0.0.0:9000".parse().unwrap(),
            admin: "127.0.0.1:9001".parse().unwrap(),
            tls: false,
            region: "us-east-1".into(),
            data_dir: "/srv/data".into(),
            scheme: "4+2".into(),
            backends: 6,
            backends_online: 6,
            survives: 2,
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
