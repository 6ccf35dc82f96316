//! A node's private key: Ed25519, made from a seed that the caller draws.
//!
//! Ed25519 because its signatures need no randomness: signing a request again gives the same bytes (ADR 6).

use crate::TrustError;
use crate::pem::{key_from_pem, key_to_pem};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;

/// What comes before the 32 bytes of the seed in PKCS#8 of an Ed25519 key (RFC 8410, section 7): a sequence of version 0,
/// the algorithm's OID 1.3.101.112, and an octet string in an octet string.
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A private key. Its `Debug` shows none of it.
pub struct NodeKey {
    pair: KeyPair,
}

impl NodeKey {
    /// The key of a seed. The seed is the secret: 32 bytes from the operating system's generator.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, TrustError> {
        let mut pkcs8 = Vec::with_capacity(48);
        pkcs8.extend_from_slice(&PKCS8_HEAD);
        pkcs8.extend_from_slice(seed);
        Self::from_pkcs8(&PrivatePkcs8KeyDer::from(pkcs8))
    }

    fn from_pkcs8(pkcs8: &PrivatePkcs8KeyDer<'_>) -> Result<Self, TrustError> {
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(pkcs8, &PKCS_ED25519)
            .map_err(|_| TrustError::malformed("private key", "not an Ed25519 key in PKCS#8"))?;
        Ok(Self { pair })
    }

    /// Reads what `to_pem` wrote.
    pub fn from_pem(text: &str) -> Result<Self, TrustError> {
        Self::from_pkcs8(&key_from_pem(text)?)
    }

    /// The secret as text, to be kept in a file that only the server's user can read.
    pub fn to_pem(&self) -> String {
        key_to_pem(self.pair.serialized_der())
    }

    /// A request for a certificate, in DER: the public key and the proof that we hold the private one. It names nobody:
    /// who the key belongs to is decided by whoever signs.
    pub fn request(&self) -> Result<Vec<u8>, TrustError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.pair);
        let request = request.map_err(|e| TrustError::malformed("certificate request", e.to_string()))?;
        Ok(request.der().to_vec())
    }

    /// The 32 bytes of the public key.
    pub fn public_key(&self) -> &[u8] {
        self.pair.der_bytes()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    pub(crate) fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pair.serialized_der().to_vec()))
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_key_and_request() {
        let key = NodeKey::from_seed(&[7; 32]).unwrap();
        let again = NodeKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(key.public_key(), again.public_key());
        assert_eq!(key.request().unwrap(), again.request().unwrap());
        assert_ne!(key.public_key(), NodeKey::from_seed(&[8; 32]).unwrap().public_key());
    }

    /// The key of RFC 8032, section 7.1, test 1.
    #[test]
    fn the_public_key_of_the_standard() {
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = NodeKey::from_seed(&seed.try_into().unwrap()).unwrap();
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(hex::encode(key.public_key()), public);
    }

    #[test]
    fn nothing_shows_the_secret() {
        let key = NodeKey::from_seed(&[0xab; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "NodeKey(..)");
        let damaged = key.to_pem().replace("MC4CAQ", "MC4CAg");
        let refused = NodeKey::from_pem(&damaged).unwrap_err().to_string();
        assert!(!refused.contains("q6ur"), "{refused}");
    }
}
