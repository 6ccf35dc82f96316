//! Ids of connections and the key of stateless resets, both made from a secret that a node keeps over restarts.
//!
//! A peer that sends to a process that is no more gets a reset it can believe, and dials anew at once, instead of waiting
//! until the connection has been silent for long.

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};
use std::fmt;
use std::time::Duration;

const NONCE_BYTES: usize = 4;
const IDS_CONTEXT: &str = "holdfast 2026 quic connection ids v1";
const RESETS_CONTEXT: &str = "holdfast 2026 quic stateless resets v1";

/// Makes ids that can be told from random bytes by whoever has the secret: a nonce and the first bytes of its MAC.
#[derive(Clone)]
pub(super) struct ConnectionIds {
    key: [u8; 32],
}

/// Signs the tokens of stateless resets.
pub(super) struct ResetKey {
    key: [u8; 32],
}

impl ConnectionIds {
    /// Bytes of an id.
    pub(super) const BYTES: usize = 2 * NONCE_BYTES;

    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self { key: blake3::derive_key(IDS_CONTEXT, &secret) }
    }

    pub(super) fn make(&self) -> [u8; Self::BYTES] {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let mut id = [0; Self::BYTES];
        id[..NONCE_BYTES].copy_from_slice(&nonce);
        id[NONCE_BYTES..].copy_from_slice(&self.mac(&nonce));
        id
    }

    /// Whether this node made that id, now or before a restart.
    pub(super) fn made(&self, id: &[u8]) -> bool {
        id.len() == Self::BYTES && self.mac(&id[..NONCE_BYTES]) == id[NONCE_BYTES..]
    }

    fn mac(&self, nonce: &[u8]) -> [u8; NONCE_BYTES] {
        let mut mac = [0; NONCE_BYTES];
        mac.copy_from_slice(&blake3::keyed_hash(&self.key, nonce).as_bytes()[..NONCE_BYTES]);
        mac
    }
}

impl fmt::Debug for ConnectionIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionIds")
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.make())
    }

    fn cid_len(&self) -> usize {
        Self::BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

impl ResetKey {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self { key: blake3::derive_key(RESETS_CONTEXT, &secret) }
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        blake3::Hasher::new_keyed(&self.key).update(data).finalize_xof().fill(signature_out);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = blake3::keyed_hash(&self.key, data);
        // `blake3::Hash` compares in constant time.
        let given = blake3::Hash::from_slice(signature).map_err(|_| CryptoError)?;
        if expected == given { Ok(()) } else { Err(CryptoError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_known_again_after_a_restart_and_no_others_are() {
        let id = ConnectionIds::new([7; 32]).make();
        assert!(ConnectionIds::new([7; 32]).made(&id));
        assert!(!ConnectionIds::new([8; 32]).made(&id));
        assert!(!ConnectionIds::new([7; 32]).made(&id[1..]));
        for at in 0..id.len() {
            let mut other = id;
            other[at] ^= 1;
            assert!(!ConnectionIds::new([7; 32]).made(&other));
        }
    }

    #[test]
    fn a_reset_is_believed_by_the_same_secret_only() {
        let mut token = [0; 32];
        ResetKey::new([7; 32]).sign(b"id", &mut token);
        assert!(ResetKey::new([7; 32]).verify(b"id", &token).is_ok());
        assert!(ResetKey::new([8; 32]).verify(b"id", &token).is_err());
        assert!(ResetKey::new([7; 32]).verify(b"id", &token[..16]).is_err());
    }
}
