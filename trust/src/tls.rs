//! TLS settings between nodes: TLS 1.3 only, both ends proven, one protocol name per plane, nothing resumed.
//!
//! Resumption is off on both sides because a resumed session verifies no certificate: a removed node or an ended
//! certificate would live on in its tickets. Connections between nodes are long, so a full handshake costs nothing.
//!
//! **Invariant:** only the control plane lets somebody in without a certificate, and nobody with a wrong one
//! (`strangers_reach_only_the_control_plane`, `wrong_certificates_are_refused_on_every_plane`).

use crate::live::{LiveCredentials, provider};
use holdfast_proto::rpc::{Plane, WIRE_VERSION, WIRE_VERSION_MIN};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Milliseconds since 1970 as TLS asks for them.
#[derive(Clone)]
pub struct UnixClock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl UnixClock {
    /// Asks `now_ms` for the time whenever a certificate is verified.
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// The time now.
    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for UnixClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnixClock")
    }
}

impl TimeProvider for UnixClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.now_ms())))
    }
}

/// The protocol names (ALPN) of a plane, the newest first. Two nodes that share none, because their planes or their
/// versions differ, do not talk.
pub fn alpn(plane: Plane) -> Vec<Vec<u8>> {
    let name = match plane {
        Plane::Data => "data",
        Plane::Consensus => "consensus",
        Plane::Control => "control",
    };
    (WIRE_VERSION_MIN..=WIRE_VERSION).rev().map(|version| format!("holdfast-{name}/{version}").into_bytes()).collect()
}

/// Settings of a plane's listener. Who called is read by `identity_of` from the first certificate the peer showed; on
/// the control plane it may have shown none.
pub fn server_config(live: &Arc<LiveCredentials>, plane: Plane, clock: &UnixClock) -> Result<ServerConfig, Error> {
    let verifier = Arc::new(OfClients { live: live.clone(), admits_strangers: plane == Plane::Control });
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Own(live.clone())));
    config.alpn_protocols = alpn(plane);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// Settings to dial a plane of another node; the server's name is `node_name` of whom is meant.
pub fn client_config(live: &Arc<LiveCredentials>, plane: Plane, clock: &UnixClock) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OfServers(live.clone())))
        .with_client_cert_resolver(Arc::new(Own(live.clone())));
    config.alpn_protocols = alpn(plane);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// This node's own certificate, on both sides.
#[derive(Debug)]
struct Own(Arc<LiveCredentials>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// TLS 1.2 is not offered; a peer that gets here all the same is refused.
pub(crate) fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
}

pub(crate) fn tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
}

/// Judges who dials us.
#[derive(Debug)]
struct OfClients {
    live: Arc<LiveCredentials>,
    admits_strangers: bool,
}

impl ClientCertVerifier for OfClients {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        !self.admits_strangers
    }

    /// No hints: while a CA is exchanged they would be stale, and a node has one certificate to show anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.live.verify_client(certificate, others, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.live.schemes()
    }
}

/// Judges whom we dial.
#[derive(Debug)]
struct OfServers(Arc<LiveCredentials>);

impl ServerCertVerifier for OfServers {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify_server(certificate, others, name, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}
