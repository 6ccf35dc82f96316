//! What a node holds to be believed: its key, its certificate with the CA's behind it, and the roots it believes.

use crate::authority::root_cluster;
use crate::identity::{identity_of, parse_certificate};
use crate::key::NodeKey;
use crate::pem::{certificates_from_pem, certificates_to_pem};
use crate::{RootPin, TrustError};
use holdfast_proto::cluster::NodeIdentity;
use rustls_pki_types::CertificateDer;
use std::fmt;

/// More roots than this are refused: two while a CA is exchanged, and room for one that was forgotten.
const ROOTS_MAX: usize = 4;

/// From when to when a certificate holds, milliseconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before_ms: u64,
    /// Last moment.
    pub not_after_ms: u64,
}

impl Validity {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Result<Self, TrustError> {
        let parsed = parse_certificate(certificate)?;
        let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
        let validity = parsed.validity();
        let (not_before_ms, not_after_ms) = (ms(validity.not_before.timestamp()), ms(validity.not_after.timestamp()));
        if not_after_ms <= not_before_ms {
            return Err(TrustError::malformed("certificate", "it ends before it begins"));
        }
        Ok(Self { not_before_ms, not_after_ms })
    }
}

/// Key, certificate and roots of one node; they belong together. `Debug` shows no secret.
pub struct NodeCredentials {
    key: NodeKey,
    certificate: CertificateDer<'static>,
    roots: Vec<CertificateDer<'static>>,
    identity: NodeIdentity,
    validity: Validity,
}

impl NodeCredentials {
    /// Puts them together and proves that they fit: the certificate is of the key and of the roots' cluster, and one of
    /// the roots signed it. Says nothing about time: a certificate may have ended.
    pub fn new(
        key: NodeKey,
        certificate: CertificateDer<'static>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TrustError> {
        if roots.is_empty() || roots.len() > ROOTS_MAX {
            let reason = format!("{} roots, 1..={ROOTS_MAX} allowed", roots.len());
            return Err(TrustError::Mismatch { reason });
        }
        let identity = identity_of(&certificate)?;
        let validity = Validity::of(&certificate)?;
        let parsed = parse_certificate(&certificate)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key() {
            return Err(TrustError::Mismatch { reason: "the certificate is of another key".to_owned() });
        }
        let mut is_signed = false;
        for root in &roots {
            let found = root_cluster(root)?;
            if found != identity.cluster {
                return Err(TrustError::ForeignCluster { expected: identity.cluster, found });
            }
            let authority = parse_certificate(root)?;
            is_signed |= parsed.verify_signature(Some(authority.public_key())).is_ok();
        }
        if !is_signed {
            return Err(TrustError::Mismatch { reason: "none of the roots signed the certificate".to_owned() });
        }
        Ok(Self { key, certificate, roots, identity, validity })
    }

    /// From what `key_pem`, `certificate_pem` and `roots_pem` gave.
    pub fn from_pem(key: &str, certificate: &str, roots: &str) -> Result<Self, TrustError> {
        let mut found = certificates_from_pem(certificate)?;
        let (Some(certificate), true) = (found.pop(), found.is_empty()) else {
            return Err(TrustError::malformed("certificate", "more than one in the text"));
        };
        Self::new(NodeKey::from_pem(key)?, certificate, certificates_from_pem(roots)?)
    }

    /// The private key as text, for a file that only the server's user can read.
    pub fn key_pem(&self) -> String {
        self.key.to_pem()
    }

    /// The node's certificate as text.
    pub fn certificate_pem(&self) -> String {
        certificates_to_pem(std::slice::from_ref(&self.certificate))
    }

    /// The roots as text.
    pub fn roots_pem(&self) -> String {
        certificates_to_pem(&self.roots)
    }

    /// Who this node is.
    pub fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// From when to when the certificate holds.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The end of the root that ends first.
    pub fn roots_end_ms(&self) -> Result<u64, TrustError> {
        let mut end = u64::MAX;
        for root in &self.roots {
            end = end.min(Validity::of(root)?.not_after_ms);
        }
        Ok(end)
    }

    /// The key, to ask for the next certificate with.
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// The roots that are believed.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Fingerprints of the roots.
    pub fn root_pins(&self) -> Vec<RootPin> {
        self.roots.iter().map(|root| RootPin::of(root)).collect()
    }

    /// What is shown in a handshake: the certificate, and the roots behind it, for a stranger that knows one only by its
    /// fingerprint.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        std::iter::once(&self.certificate).chain(&self.roots).cloned().collect()
    }
}

impl fmt::Debug for NodeCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeCredentials")
            .field("identity", &self.identity)
            .field("validity", &self.validity)
            .field("roots", &self.root_pins())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CertificateRequest, ClusterAuthority};
    use holdfast_proto::cluster::Roles;
    use holdfast_proto::{ClusterId, NodeId};

    const NOW: u64 = 1_795_000_000_000;

    fn authority(cluster: u8, seed: u8) -> ClusterAuthority {
        ClusterAuthority::create(ClusterId([cluster; 16]), &[seed; 32], NOW).unwrap()
    }

    fn key() -> NodeKey {
        NodeKey::from_seed(&[9; 32]).unwrap()
    }

    fn certificate(authority: &ClusterAuthority) -> CertificateDer<'static> {
        let identity = NodeIdentity {
            cluster: authority.cluster(),
            node: NodeId(2),
            roles: Roles::BOTH,
            region: "r".to_owned(),
            zone: "z".to_owned(),
        };
        let request = CertificateRequest::from_der(&key().request().unwrap()).unwrap();
        authority.sign(&request, &identity, NOW).unwrap()
    }

    #[test]
    fn text_brings_the_same_credentials_back() {
        let (old, new) = (authority(1, 1), authority(1, 2));
        let roots = vec![new.certificate_der().clone(), old.certificate_der().clone()];
        let made = NodeCredentials::new(key(), certificate(&old), roots).unwrap();
        let again = NodeCredentials::from_pem(&made.key_pem(), &made.certificate_pem(), &made.roots_pem()).unwrap();
        assert_eq!(again.chain(), made.chain());
        assert_eq!(again.identity(), made.identity());
        assert_eq!(again.root_pins(), [new.fingerprint(), old.fingerprint()]);
        assert_eq!(again.roots_end_ms(), Ok(old.validity().not_after_ms));
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let ours = authority(1, 1);
        let root = || vec![ours.certificate_der().clone()];
        let other_key = NodeKey::from_seed(&[8; 32]).unwrap();
        let mismatch = |result: Result<NodeCredentials, TrustError>| matches!(result, Err(TrustError::Mismatch { .. }));
        assert!(mismatch(NodeCredentials::new(other_key, certificate(&ours), root())));
        assert!(mismatch(NodeCredentials::new(key(), certificate(&authority(1, 2)), root())));
        assert!(mismatch(NodeCredentials::new(key(), certificate(&ours), Vec::new())));
        let many = vec![ours.certificate_der().clone(); ROOTS_MAX + 1];
        assert!(mismatch(NodeCredentials::new(key(), certificate(&ours), many)));
        let foreign = NodeCredentials::new(key(), certificate(&authority(2, 1)), root());
        assert!(matches!(foreign, Err(TrustError::ForeignCluster { .. })));
        let no_root = NodeCredentials::new(key(), certificate(&ours), vec![certificate(&ours)]);
        assert!(matches!(no_root, Err(TrustError::Malformed { .. })));
    }
}
