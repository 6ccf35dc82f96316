//! A node's credentials while it runs: shared by every listener and dialler, and exchanged under them when renewed.
//!
//! **Invariant:** a handshake sees one set of credentials from beginning to end of each of its steps, and the next
//! handshake sees the newest (`renewed_credentials_take_effect_without_restart`).

use crate::identity::{identity_of, node_name};
use crate::{NodeCredentials, TrustError};
use holdfast_proto::NodeId;
use holdfast_proto::cluster::NodeIdentity;
use parking_lot::RwLock;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The algorithms of every handshake here.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Roots as rustls wants them.
pub(crate) fn root_store(roots: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TrustError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|e| TrustError::malformed("CA certificate", e.to_string()))?;
    }
    Ok(Arc::new(store))
}

/// What one set of credentials comes to.
struct Current {
    credentials: Arc<NodeCredentials>,
    certified: Arc<CertifiedKey>,
    of_clients: Arc<dyn ClientCertVerifier>,
    of_servers: Arc<WebPkiServerVerifier>,
}

impl Current {
    fn new(credentials: NodeCredentials) -> Result<Self, TrustError> {
        let key = aws_lc_rs::sign::any_supported_type(&credentials.key().to_der())
            .map_err(|_| TrustError::malformed("private key", "not one that signs"))?;
        let roots = root_store(credentials.roots())?;
        let unusable = |e: rustls::server::VerifierBuilderError| TrustError::malformed("roots", e.to_string());
        let of_clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
        let of_servers = WebPkiServerVerifier::builder_with_provider(roots, provider());
        Ok(Self {
            certified: Arc::new(CertifiedKey::new(credentials.chain(), key)),
            of_clients: of_clients.build().map_err(unusable)?,
            of_servers: of_servers.build().map_err(unusable)?,
            credentials: Arc::new(credentials),
        })
    }
}

/// The credentials of a running node, and which nodes it no longer believes.
pub struct LiveCredentials {
    current: RwLock<Arc<Current>>,
    removed: RwLock<Arc<BTreeSet<NodeId>>>,
}

impl LiveCredentials {
    /// Begins with these; nobody is removed.
    pub fn new(credentials: NodeCredentials) -> Result<Arc<Self>, TrustError> {
        let current = RwLock::new(Arc::new(Current::new(credentials)?));
        Ok(Arc::new(Self { current, removed: RwLock::default() }))
    }

    /// Exchanges them: every later handshake uses the new ones, connections that are open stay. Another node's or
    /// cluster's are refused.
    pub fn replace(&self, credentials: NodeCredentials) -> Result<(), TrustError> {
        let (ours, theirs) = (self.identity(), credentials.identity());
        if ours.cluster != theirs.cluster {
            return Err(TrustError::ForeignCluster { expected: ours.cluster, found: theirs.cluster });
        }
        if ours.node != theirs.node {
            return Err(TrustError::WrongNode { expected: ours.node, found: theirs.node });
        }
        let next = Arc::new(Current::new(credentials)?);
        *self.current.write() = next;
        Ok(())
    }

    /// The credentials now.
    pub fn credentials(&self) -> Arc<NodeCredentials> {
        self.current().credentials.clone()
    }

    /// Who this node is.
    pub fn identity(&self) -> NodeIdentity {
        self.current().credentials.identity().clone()
    }

    /// Sets which nodes were removed from the cluster: their handshakes are refused from now on. Connections they have
    /// open are the transport's to close (`is_removed`).
    pub fn set_removed(&self, removed: BTreeSet<NodeId>) {
        *self.removed.write() = Arc::new(removed);
    }

    /// Whether a node was removed.
    pub fn is_removed(&self, node: NodeId) -> bool {
        self.removed.read().contains(&node)
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().clone()
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.current().certified.clone()
    }

    pub(crate) fn schemes(&self) -> Vec<SignatureScheme> {
        self.current().of_servers.supported_verify_schemes()
    }

    /// Who the holder of a certificate is, if it is a node of this cluster that was not removed.
    fn member(&self, certificate: &CertificateDer<'_>) -> Result<NodeIdentity, TrustError> {
        let identity = identity_of(certificate)?;
        let cluster = self.current().credentials.identity().cluster;
        if identity.cluster != cluster {
            return Err(TrustError::ForeignCluster { expected: cluster, found: identity.cluster });
        }
        if self.is_removed(identity.node) {
            return Err(TrustError::NodeRemoved { node: identity.node });
        }
        Ok(identity)
    }

    pub(crate) fn verify_client(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.current().of_clients.verify_client_cert(certificate, others, now)?;
        self.member(certificate)?;
        Ok(verified)
    }

    pub(crate) fn verify_server(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.current().of_servers.verify_server_cert(certificate, others, name, &[], now)?;
        let identity = self.member(certificate)?;
        // The library has compared the name with those in the certificate; this one is ours to compare.
        if name.to_str() != node_name(identity.cluster, identity.node) {
            return Err(TrustError::malformed("certificate", "not of the node that was dialled").into());
        }
        Ok(verified)
    }
}

impl fmt::Debug for LiveCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveCredentials")
            .field("credentials", &self.credentials())
            .field("removed", &self.removed.read())
            .finish()
    }
}
