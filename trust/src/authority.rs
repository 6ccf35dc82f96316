//! The cluster's certificate authority: makes itself, and makes certificates for nodes.
//!
//! It signs what it is told: who may have which identity is decided before (join tokens, the root group's records).

use crate::identity::{identity_uri, node_name, parse_certificate};
use crate::key::NodeKey;
use crate::pem::{certificates_from_pem, certificates_to_pem};
use crate::redeem::KeyHash;
use crate::{DAY_MS, TrustError, Validity, check_place};
use holdfast_proto::ClusterId;
use holdfast_proto::cluster::NodeIdentity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData,
    SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use time::OffsetDateTime;

/// How long a node's certificate holds. It is renewed after two thirds (60 days), which leaves a month to notice that
/// renewing fails, or for a node to be switched off; a stolen one is refused at once when its node is removed.
pub const NODE_DAYS: u64 = 90;
/// How long a CA holds. Long, because exchanging it means a visit to every node; it warns before its end like any other.
pub const AUTHORITY_DAYS: u64 = 3650;
/// How far back a certificate's validity reaches, so that a node whose clock is behind accepts it: the largest skew
/// with which a node is let in at all.
pub const CLOCK_SLACK_MS: u64 = 10 * 60_000;
/// Longest request that is looked at: one with an RSA key of 4096 bits has 1.3 KiB.
const REQUEST_BYTES_MAX: usize = 4 << 10;
/// What a CA's common name begins with; its cluster's id follows.
const SUBJECT: &str = "Holdfast cluster ";

/// The SHA-256 of a CA's certificate: what `openssl x509 -fingerprint -sha256` shows, and what a join token carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootPin(pub [u8; 32]);

impl RootPin {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for RootPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for RootPin {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let mut pin = [0; 32];
        hex::decode_to_slice(text, &mut pin)
            .map_err(|_| TrustError::malformed("fingerprint", "not 64 hexadecimal digits"))?;
        Ok(Self(pin))
    }
}

/// A request for a certificate whose asker has proven to hold the private key.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    public_key: rcgen::PublicKey,
}

impl CertificateRequest {
    /// Reads a request in DER and verifies its signature. Names and usages it asks for are ignored. Keys other than
    /// Ed25519 and ECDSA P-256 are refused.
    pub fn from_der(request: &[u8]) -> Result<Self, TrustError> {
        let refused = |reason: String| TrustError::malformed("certificate request", reason);
        if request.len() > REQUEST_BYTES_MAX {
            return Err(refused(format!("{} bytes, {REQUEST_BYTES_MAX} allowed", request.len())));
        }
        let parsed = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request));
        let public_key = parsed.map_err(|e| refused(e.to_string()))?.public_key;
        if ![&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256].contains(&public_key.algorithm()) {
            return Err(refused("its key is neither Ed25519 nor ECDSA P-256".to_owned()));
        }
        Ok(Self { public_key })
    }

    /// Names the key: the same for every request made with it.
    pub fn key_hash(&self) -> KeyHash {
        KeyHash(*blake3::hash(&self.public_key.subject_public_key_info()).as_bytes())
    }
}

/// The CA of one cluster: certificate and private key. Its `Debug` shows no secret.
pub struct ClusterAuthority {
    cluster: ClusterId,
    key: NodeKey,
    root: CertificateDer<'static>,
    validity: Validity,
}

impl ClusterAuthority {
    /// Makes the CA of a cluster. The seed is its secret: 32 bytes from the operating system's generator.
    pub fn create(cluster: ClusterId, seed: &[u8; 32], now_ms: u64) -> Result<Self, TrustError> {
        let key = NodeKey::from_seed(seed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{SUBJECT}{cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(serial(&[key.public_key(), &now_ms.to_be_bytes()]));
        params.not_before = date(now_ms.saturating_sub(CLOCK_SLACK_MS))?;
        params.not_after = date(now_ms.saturating_add(AUTHORITY_DAYS * DAY_MS))?;
        let root = params.self_signed(key.pair()).map_err(|e| unsigned(&e))?.der().clone();
        Self::from_parts(root, key)
    }

    /// Reads what `certificate_pem` and `key_pem` wrote; certificate and key must belong together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, TrustError> {
        let mut found = certificates_from_pem(certificate)?;
        let (Some(root), true) = (found.pop(), found.is_empty()) else {
            return Err(TrustError::malformed("CA certificate", "more than one in the text"));
        };
        Self::from_parts(root, NodeKey::from_pem(key)?)
    }

    fn from_parts(root: CertificateDer<'static>, key: NodeKey) -> Result<Self, TrustError> {
        let (cluster, validity) = {
            let parsed = parse_certificate(&root)?;
            if parsed.public_key().subject_public_key.data.as_ref() != key.public_key() {
                return Err(TrustError::Mismatch { reason: "the CA's certificate is not of its key".to_owned() });
            }
            (root_cluster(&root)?, Validity::of(&root)?)
        };
        Ok(Self { cluster, key, root, validity })
    }

    /// Whose CA it is.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// From when to when it holds.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The certificate as text; no secret.
    pub fn certificate_pem(&self) -> String {
        certificates_to_pem(std::slice::from_ref(&self.root))
    }

    /// The certificate in DER; no secret.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The private key as text: whoever has it is the cluster.
    pub fn key_pem(&self) -> String {
        self.key.to_pem()
    }

    /// What join tokens carry.
    pub fn fingerprint(&self) -> RootPin {
        RootPin::of(&self.root)
    }

    /// Makes a certificate that says its holder is `identity`, in DER. Valid from a little before `now_ms` for
    /// `NODE_DAYS`, or until the CA ends; refused after that. The same arguments give the same bytes.
    pub fn sign(
        &self,
        request: &CertificateRequest,
        identity: &NodeIdentity,
        now_ms: u64,
    ) -> Result<CertificateDer<'static>, TrustError> {
        if identity.cluster != self.cluster {
            return Err(TrustError::ForeignCluster { expected: self.cluster, found: identity.cluster });
        }
        if now_ms >= self.validity.not_after_ms {
            return Err(TrustError::malformed("time", "after the end of the CA"));
        }
        let uri = identity_uri(identity)?;
        let name = node_name(identity.cluster, identity.node);
        let ascii = |text: &str| text.try_into().map_err(|_| TrustError::malformed("identity", "not ASCII"));
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial(&[request.public_key.der_bytes(), uri.as_bytes(), &now_ms.to_be_bytes()]));
        params.subject_alt_names = vec![SanType::URI(ascii(&uri)?), SanType::DnsName(ascii(&name)?)];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Holdfast node {}", identity.node));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = date(now_ms.saturating_sub(CLOCK_SLACK_MS))?;
        params.not_after = date(now_ms.saturating_add(NODE_DAYS * DAY_MS).min(self.validity.not_after_ms))?;
        let issuer = Issuer::from_ca_cert_der(&self.root, self.key.pair()).map_err(|e| unsigned(&e))?;
        let signed = params.signed_by(&request.public_key, &issuer).map_err(|e| unsigned(&e))?;
        Ok(signed.der().clone())
    }
}

impl fmt::Debug for ClusterAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterAuthority")
            .field("cluster", &self.cluster)
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

/// The cluster whose CA a certificate is; an error if it is no CA of Holdfast.
pub(crate) fn root_cluster(certificate: &[u8]) -> Result<ClusterId, TrustError> {
    let parsed = parse_certificate(certificate)?;
    let refused = || TrustError::malformed("CA certificate", "not of a Holdfast cluster");
    if !parsed.is_ca() {
        return Err(refused());
    }
    let mut names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let name = names.next().and_then(|name| name.strip_prefix(SUBJECT)).ok_or_else(refused)?;
    name.parse().map_err(|_| refused())
}

/// Whether a region and a zone can be written into a certificate.
pub(crate) fn check_places(region: &str, zone: &str) -> Result<(), TrustError> {
    check_place(region).and_then(|()| check_place(zone))
}

/// A positive number of 16 bytes that depends on all of the parts.
fn serial(parts: &[&[u8]]) -> SerialNumber {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    let mut number = [0; 16];
    number.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    // Neither negative nor with a leading zero: DER has one form for it.
    number[0] = (number[0] & 0x3f) | 0x40;
    SerialNumber::from_slice(&number)
}

fn date(unix_ms: u64) -> Result<OffsetDateTime, TrustError> {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| TrustError::malformed("time", "after the year 9999"))
}

fn unsigned(error: &rcgen::Error) -> TrustError {
    TrustError::malformed("certificate", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity_of;
    use holdfast_proto::NodeId;
    use holdfast_proto::cluster::Roles;

    const CLUSTER: ClusterId = ClusterId([3; 16]);
    const NOW: u64 = 1_795_000_000_123;

    fn identity() -> NodeIdentity {
        let (region, zone) = ("eu west".to_owned(), "a/1".to_owned());
        NodeIdentity { cluster: CLUSTER, node: NodeId(7), roles: Roles::BOTH, region, zone }
    }

    fn request() -> CertificateRequest {
        CertificateRequest::from_der(&NodeKey::from_seed(&[9; 32]).unwrap().request().unwrap()).unwrap()
    }

    #[test]
    fn a_certificate_says_who_and_until_when() {
        let authority = ClusterAuthority::create(CLUSTER, &[1; 32], NOW).unwrap();
        let certificate = authority.sign(&request(), &identity(), NOW).unwrap();
        assert_eq!(identity_of(&certificate), Ok(identity()));
        let validity = Validity::of(&certificate).unwrap();
        let second = |ms: u64| ms / 1000 * 1000;
        assert_eq!(validity.not_before_ms, second(NOW - CLOCK_SLACK_MS));
        assert_eq!(validity.not_after_ms, second(NOW + 90 * DAY_MS));
        assert_eq!(authority.sign(&request(), &identity(), NOW).unwrap(), certificate, "the same again");
    }

    #[test]
    fn text_brings_the_same_authority_back() {
        let authority = ClusterAuthority::create(CLUSTER, &[1; 32], NOW).unwrap();
        let again = ClusterAuthority::from_pem(&authority.certificate_pem(), &authority.key_pem()).unwrap();
        assert_eq!((again.cluster(), again.fingerprint()), (CLUSTER, authority.fingerprint()));
        assert_eq!(authority.fingerprint().to_string().parse(), Ok(authority.fingerprint()));
        let (a, b) = (authority.sign(&request(), &identity(), NOW), again.sign(&request(), &identity(), NOW));
        assert_eq!(a, b);
        assert!(!format!("{authority:?}").contains("PRIVATE"));
    }

    #[test]
    fn one_line_per_refusal() {
        let authority = ClusterAuthority::create(CLUSTER, &[1; 32], NOW).unwrap();
        let other = ClusterAuthority::create(CLUSTER, &[2; 32], NOW).unwrap();
        let certificate = authority.sign(&request(), &identity(), NOW).unwrap();
        let node_pem = certificates_to_pem(&[certificate]);
        let both = format!("{}{}", authority.certificate_pem(), other.certificate_pem());
        for (certificate, key) in [
            (other.certificate_pem(), authority.key_pem()),
            (node_pem, NodeKey::from_seed(&[9; 32]).unwrap().to_pem()),
            (both, authority.key_pem()),
            (String::new(), authority.key_pem()),
            (authority.certificate_pem(), String::new()),
        ] {
            assert!(ClusterAuthority::from_pem(&certificate, &key).is_err());
        }
        let foreign = NodeIdentity { cluster: ClusterId([4; 16]), ..identity() };
        let unplaced = NodeIdentity { zone: String::new(), ..identity() };
        for refused in [foreign, unplaced] {
            assert!(authority.sign(&request(), &refused, NOW).is_err(), "{refused:?}");
        }
        let end = authority.validity().not_after_ms;
        let last = authority.sign(&request(), &identity(), end - 1).unwrap();
        assert_eq!(Validity::of(&last).unwrap().not_after_ms, end, "ends with the CA");
        for late in [end, u64::MAX] {
            assert!(authority.sign(&request(), &identity(), late).is_err());
        }
        assert!(ClusterAuthority::create(CLUSTER, &[1; 32], u64::MAX).is_err());
        assert!(identity_of(authority.certificate_der()).is_err(), "a CA is no node");
    }

    #[test]
    fn a_request_with_any_flipped_bit_is_refused() {
        let der = NodeKey::from_seed(&[9; 32]).unwrap().request().unwrap();
        for at in 0..der.len() {
            for bit in 0..8 {
                let mut flipped = der.clone();
                flipped[at] ^= 1 << bit;
                // What is signed, or the signature: all but the head of the outer sequence and how the signature's own
                // algorithm is spelled has to hold; where a flip is accepted it must not have changed the key.
                if let Ok(accepted) = CertificateRequest::from_der(&flipped) {
                    assert_eq!(accepted.key_hash(), request().key_hash(), "byte {at} bit {bit}");
                }
            }
        }
        assert!(CertificateRequest::from_der(&vec![0x30; REQUEST_BYTES_MAX + 1]).is_err());
        assert!(CertificateRequest::from_der(&[]).is_err());
    }
}
