//! How a node without a certificate dials the cluster it wants to join: it knows the CA by the fingerprint in its join
//! token, and shows nothing of its own.

use crate::authority::{RootPin, root_cluster};
use crate::identity::{identity_of, node_name};
use crate::live::{provider, root_store};
use crate::tls::{UnixClock, alpn, no_tls12, tls13};
use crate::{JoinToken, TrustError};
use holdfast_proto::ClusterId;
use holdfast_proto::cluster::Role;
use holdfast_proto::rpc::Plane;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// Settings to dial the control plane named in a token. Any coordinator of the token's cluster is accepted, whatever
/// server name is asked for, if its chain ends in the root with the token's fingerprint.
pub fn stranger_config(token: &JoinToken, clock: &UnixClock) -> Result<ClientConfig, Error> {
    let verifier = Pinned { pin: token.root, cluster: token.cluster };
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = alpn(Plane::Control);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// Accepts what the pinned root signed.
#[derive(Debug)]
struct Pinned {
    pin: RootPin,
    cluster: ClusterId,
}

impl Pinned {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = others.iter().find(|other| RootPin::of(other) == self.pin);
        let Some(root) = pinned else {
            return Err(TrustError::WrongAuthority { pin: self.pin.to_string() }.into());
        };
        let identity = identity_of(certificate)?;
        for found in [root_cluster(root)?, identity.cluster] {
            if found != self.cluster {
                return Err(TrustError::ForeignCluster { expected: self.cluster, found }.into());
            }
        }
        if !identity.roles.has(Role::Coordinator) {
            return Err(TrustError::NotACoordinator { node: identity.node }.into());
        }
        let name = ServerName::try_from(node_name(identity.cluster, identity.node))
            .map_err(|e| TrustError::malformed("server name", e.to_string()))?;
        let roots = root_store(&[root.clone().into_owned()])?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|e| TrustError::malformed("roots", e.to_string()))?;
        verifier.verify_server_cert(certificate, &[], &name, &[], now)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(certificate, others, now)
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
        provider().signature_verification_algorithms.supported_schemes()
    }
}
