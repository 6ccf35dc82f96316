//! What QUIC needs of the cluster's trust: who may be talked to, and who is on the other side.
//!
//! **Invariant:** every connection is proven afresh. There are no session tickets and no early data, so a certificate that
//! has ended or a node that was removed cannot come back by resuming, and nothing can be replayed.

use holdfast_proto::NodeId;
use holdfast_proto::cluster::NodeIdentity;
use holdfast_proto::rpc::Plane;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use std::sync::Arc;

/// Where the TLS settings come from. Asked again for each connection, so new certificates are used without a restart.
pub trait TlsSource: Send + Sync + 'static {
    /// Settings of the listener of a plane: asks callers for a certificate of this cluster, and on the control plane also
    /// admits those that have none.
    fn server(&self, plane: Plane) -> Arc<rustls::ServerConfig>;
    /// Settings for dialling a plane of another node.
    fn client(&self, plane: Plane) -> Arc<rustls::ClientConfig>;
    /// Whose certificate (DER) that is. It was verified before; the error says what it lacks.
    fn identity(&self, certificate: &[u8]) -> Result<NodeIdentity, String>;
    /// The name a node's certificate is made out to.
    fn server_name(&self, node: NodeId) -> String;
}

/// The name of a plane in the handshake. Its number grows with the wire version; a node offers every version it speaks,
/// and two nodes settle on the newest both know.
pub fn alpn(plane: Plane) -> &'static [u8] {
    match plane {
        Plane::Data => b"holdfast-data/1",
        Plane::Consensus => b"holdfast-consensus/1",
        Plane::Control => b"holdfast-control/1",
    }
}

pub(super) fn server_crypto(plane: Plane, settings: &rustls::ServerConfig) -> Result<Arc<QuicServerConfig>, String> {
    let mut settings = settings.clone();
    settings.alpn_protocols = vec![alpn(plane).to_vec()];
    settings.send_tls13_tickets = 0;
    settings.max_early_data_size = 0;
    QuicServerConfig::try_from(settings).map(Arc::new).map_err(|e| e.to_string())
}

pub(super) fn client_crypto(plane: Plane, settings: &rustls::ClientConfig) -> Result<Arc<QuicClientConfig>, String> {
    let mut settings = settings.clone();
    settings.alpn_protocols = vec![alpn(plane).to_vec()];
    settings.resumption = rustls::client::Resumption::disabled();
    settings.enable_early_data = false;
    QuicClientConfig::try_from(settings).map(Arc::new).map_err(|e| e.to_string())
}

/// The certificate the other side has shown; `None` if it has shown none.
pub(super) fn peer_certificate(connection: &quinn::Connection) -> Option<Vec<u8>> {
    let chain = connection.peer_identity()?.downcast::<Vec<rustls_pki_types::CertificateDer<'static>>>().ok()?;
    chain.first().map(|certificate| certificate.to_vec())
}
