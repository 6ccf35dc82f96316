//! What a data directory keeps of its place in a cluster: `DIR/node/` with the node's key, its certificate, the roots it
//! believes, and what it was told when it joined.
//!
//! **Invariants:** the key never leaves this machine; it is on stable storage before anybody is asked to sign it, so that
//! a join that was cut off anywhere goes on as the same node.

use crate::failure::Failure;
use crate::server::durable_file::{self, Readers};
use holdfast_coordinator::admin::Code;
use holdfast_proto::BackendId;
use holdfast_proto::cluster::NodeRecord;
use holdfast_trust::{NodeCredentials, NodeKey};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
const ROOTS: &str = "roots.pem";
const LISTEN: &str = "listen.json";
const NODES: &str = "nodes.json";
const BACKENDS: &str = "backends.json";

/// A backend of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeBackend {
    pub(crate) id: BackendId,
    pub(crate) name: String,
    pub(crate) location: String,
    /// Whether the cluster map was told of it.
    pub(crate) is_announced: bool,
}

/// The folder.
#[derive(Clone, Debug)]
pub(crate) struct NodeFiles {
    directory: PathBuf,
    changing: Arc<Mutex<()>>,
}

impl NodeFiles {
    /// Of a data directory that is there; nothing is made in it yet.
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self { directory: data_dir.join("node"), changing: Arc::default() }
    }

    /// The key, made from `seed` if there is none yet. On return it is on stable storage.
    pub(crate) fn key(&self, seed: &[u8; 32]) -> Result<NodeKey, Failure> {
        let unusable = |e: holdfast_trust::TrustError| self.failed(KEY, &e);
        if let Some(text) = self.read(KEY)? {
            return NodeKey::from_pem(&text).map_err(unusable);
        }
        durable_file::make_directory(&self.directory).map_err(|e| self.failed(KEY, &e))?;
        let key = NodeKey::from_seed(seed).map_err(unusable)?;
        self.write(KEY, key.to_pem().as_bytes(), Readers::Owner)?;
        Ok(key)
    }

    /// Key, certificate and roots; `None` before this node belongs to a cluster.
    pub(crate) fn credentials(&self) -> Result<Option<NodeCredentials>, Failure> {
        let (key, certificate, roots) = (self.read(KEY)?, self.read(CERTIFICATE)?, self.read(ROOTS)?);
        let (Some(key), Some(certificate), Some(roots)) = (key, certificate, roots) else { return Ok(None) };
        NodeCredentials::from_pem(&key, &certificate, &roots).map(Some).map_err(|e| self.failed(CERTIFICATE, &e))
    }

    /// Keeps a new certificate and its roots. The roots go first: with the old certificate they hold as well.
    pub(crate) fn keep_credentials(&self, credentials: &NodeCredentials) -> Result<(), Failure> {
        self.write(ROOTS, credentials.roots_pem().as_bytes(), Readers::Anybody)?;
        self.write(CERTIFICATE, credentials.certificate_pem().as_bytes(), Readers::Anybody)
    }

    /// Where the control plane listened last; `None` before this node belonged to a cluster.
    pub(crate) fn listen(&self) -> Result<Option<SocketAddr>, Failure> {
        self.read_json(LISTEN)
    }

    /// Keeps it.
    pub(crate) fn keep_listen(&self, listen: SocketAddr) -> Result<(), Failure> {
        self.write_json(LISTEN, &listen)
    }

    /// The nodes of the newest cluster map this node has seen: whom to call before the map can be read again.
    pub(crate) fn nodes(&self) -> Result<Vec<NodeRecord>, Failure> {
        Ok(self.read_json(NODES)?.unwrap_or_default())
    }

    /// Keeps them.
    pub(crate) fn keep_nodes(&self, nodes: &[NodeRecord]) -> Result<(), Failure> {
        self.write_json(NODES, &nodes)
    }

    /// The backends planned or formatted here; `None` before any were.
    pub(crate) fn backends(&self) -> Result<Option<Vec<NodeBackend>>, Failure> {
        self.read_json(BACKENDS)
    }

    /// Keeps the list.
    pub(crate) fn keep_backends(&self, backends: &[NodeBackend]) -> Result<(), Failure> {
        self.write_json(BACKENDS, &backends)
    }

    /// Changes the list, one change at a time.
    pub(crate) fn change_backends(&self, change: impl FnOnce(&mut Vec<NodeBackend>)) -> Result<(), Failure> {
        let _one_at_a_time = self.changing.lock();
        let before = self.backends()?.unwrap_or_default();
        let mut after = before.clone();
        change(&mut after);
        if after == before { Ok(()) } else { self.keep_backends(&after) }
    }

    fn read(&self, name: &str) -> Result<Option<String>, Failure> {
        let bytes = durable_file::read(&self.directory.join(name)).map_err(|e| self.failed(name, &e))?;
        bytes.map(|bytes| String::from_utf8(bytes).map_err(|e| self.failed(name, &e))).transpose()
    }

    fn write(&self, name: &str, bytes: &[u8], readers: Readers) -> Result<(), Failure> {
        durable_file::replace(&self.directory.join(name), bytes, readers).map_err(|e| self.failed(name, &e))
    }

    fn read_json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        let text = self.read(name)?;
        text.map(|text| serde_json::from_str(&text).map_err(|e| self.failed(name, &e))).transpose()
    }

    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(value).map_err(|e| self.failed(name, &e))?;
        durable_file::make_directory(&self.directory).map_err(|e| self.failed(name, &e))?;
        self.write(name, &text, Readers::Anybody)
    }

    fn failed(&self, name: &str, error: &dyn std::fmt::Display) -> Failure {
        let path = self.directory.join(name);
        Failure::new(Code::StartFailed, format!("use {}: {error}", path.display()))
            .or_try("the file as it was, from a backup; without it this node can only join anew")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::cluster::{NodeIdentity, Roles};
    use holdfast_proto::{ClusterId, NodeId};
    use holdfast_trust::{CertificateRequest, ClusterAuthority};

    #[test]
    fn a_key_is_made_once_and_the_rest_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let files = NodeFiles::of(directory.path());
        assert!(files.credentials().unwrap().is_none());
        let key = files.key(&[1; 32]).unwrap();
        assert_eq!(files.key(&[2; 32]).unwrap().public_key(), key.public_key(), "a later seed changes nothing");
        assert!(files.credentials().unwrap().is_none(), "a key alone is no membership");

        let cluster = ClusterId([7; 16]);
        let authority = ClusterAuthority::create(cluster, &[3; 32], 1_800_000_000_000).unwrap();
        let identity =
            NodeIdentity { cluster, node: NodeId(2), roles: Roles::BOTH, region: "r".into(), zone: "z".into() };
        let request = CertificateRequest::from_der(&key.request().unwrap()).unwrap();
        let certificate = authority.sign(&request, &identity, 1_800_000_000_000).unwrap();
        let credentials = NodeCredentials::new(key, certificate, vec![authority.certificate_der().clone()]).unwrap();
        files.keep_credentials(&credentials).unwrap();
        assert_eq!(files.credentials().unwrap().unwrap().identity(), &identity);

        let listen: SocketAddr = "127.0.0.1:9010".parse().unwrap();
        files.keep_listen(listen).unwrap();
        assert_eq!(files.listen().unwrap(), Some(listen));
        assert_eq!(files.nodes().unwrap(), Vec::new());
        let backend = NodeBackend {
            id: BackendId([9; 16]),
            name: "n2-d1".into(),
            location: "disk:/d".into(),
            is_announced: false,
        };
        files.keep_backends(std::slice::from_ref(&backend)).unwrap();
        assert_eq!(files.backends().unwrap(), Some(vec![backend]));
        std::fs::write(directory.path().join("node").join(LISTEN), "{").unwrap();
        assert!(files.listen().is_err());
    }
}
