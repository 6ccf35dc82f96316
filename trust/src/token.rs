//! Join tokens: the one thing that is carried by hand to a new node.
//!
//! A token says where the cluster is, which CA it has, and a secret that admits one node. **Invariant:** a token with any
//! mistyped character is refused before anybody is dialled (`any_changed_character_is_refused`), and neither `Debug` nor
//! an error shows its secret.

use crate::redeem::{SecretHash, TokenId};
use crate::{RootPin, TrustError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast_proto::ClusterId;
use prost::Message;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use subtle::ConstantTimeEq;

/// What a token begins with; the number is the version of its form.
const PREFIX: &str = "holdfast-join-1.";
/// Addresses of coordinators in a token: enough that one answers, few enough for a line of text.
const ADDRESSES_MAX: usize = 8;
/// Longest text that is read: eight IPv6 addresses and all else come to below 700 characters.
const TEXT_BYTES_MAX: usize = 2048;
/// Bytes of the checksum at the end: one mistake in four thousand million goes unseen, and then the secret is wrong.
const CHECKSUM_BYTES: usize = 4;

/// What admits a node: 32 random bytes. Compared in constant time, shown nowhere.
#[derive(Clone)]
pub struct TokenSecret(pub [u8; 32]);

impl TokenSecret {
    /// What the cluster keeps of it.
    pub fn hash(&self) -> SecretHash {
        SecretHash(*blake3::hash(&self.0).as_bytes())
    }
}

impl PartialEq for TokenSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenSecret {}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

/// A join token. It has no `Display`: its text is a secret, made by `reveal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// Control addresses of coordinators: 1..=8, tried in turn.
    pub addresses: Vec<SocketAddr>,
    /// The CA their certificates must come from.
    pub root: RootPin,
    /// The cluster.
    pub cluster: ClusterId,
    /// Which token it is.
    pub id: TokenId,
    /// What admits.
    pub secret: TokenSecret,
    /// When it ends, milliseconds since 1970. For a clear message only: the cluster decides by its own record.
    pub expires_ms: u64,
}

/// The bytes in a token's text, before its checksum (docs/formats.md, "Join token").
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct Body {
    #[prost(string, repeated, tag = "1")]
    addresses: Vec<String>,
    #[prost(bytes = "vec", tag = "2")]
    root: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    cluster: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    secret: Vec<u8>,
    #[prost(uint64, tag = "6")]
    expires_ms: u64,
}

impl JoinToken {
    /// The token as text: a secret, for the operator's eyes.
    pub fn reveal(&self) -> Result<String, TrustError> {
        check_addresses(self.addresses.len())?;
        let body = Body {
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            root: self.root.0.to_vec(),
            cluster: self.cluster.0.to_vec(),
            id: self.id.0.to_vec(),
            secret: self.secret.0.to_vec(),
            expires_ms: self.expires_ms,
        };
        let mut bytes = body.encode_to_vec();
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }
}

impl FromStr for JoinToken {
    type Err = TrustError;

    /// Reads what `reveal` gave; white space around it is allowed. No error quotes the text.
    fn from_str(text: &str) -> Result<Self, TrustError> {
        let refused = |reason: &str| TrustError::malformed("join token", reason);
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(refused("too long"));
        }
        let coded = text.strip_prefix(PREFIX).ok_or_else(|| refused("it does not begin with holdfast-join-1."))?;
        let bytes = URL_SAFE_NO_PAD.decode(coded).map_err(|_| refused("mistyped or cut short"))?;
        let at = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or_else(|| refused("cut short"))?;
        let (body, sum) = bytes.split_at(at);
        if checksum(body) != sum {
            return Err(refused("mistyped or cut short"));
        }
        let body = Body::decode(body).map_err(|_| refused("not a token"))?;
        check_addresses(body.addresses.len())?;
        let addresses: Result<Vec<SocketAddr>, _> = body.addresses.iter().map(|text| text.parse()).collect();
        let bytes32 = |bytes: &[u8], what| <[u8; 32]>::try_from(bytes).map_err(|_| refused(what));
        Ok(Self {
            addresses: addresses.map_err(|_| refused("an address that is none"))?,
            root: RootPin(bytes32(&body.root, "no fingerprint")?),
            cluster: ClusterId::from_slice(&body.cluster).ok_or_else(|| refused("no cluster id"))?,
            id: TokenId::from_slice(&body.id).ok_or_else(|| refused("no token id"))?,
            secret: TokenSecret(bytes32(&body.secret, "no secret")?),
            expires_ms: body.expires_ms,
        })
    }
}

fn check_addresses(count: usize) -> Result<(), TrustError> {
    if count == 0 || count > ADDRESSES_MAX {
        return Err(TrustError::malformed("join token", format!("{count} addresses, 1..={ADDRESSES_MAX} allowed")));
    }
    Ok(())
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::hash(bytes);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hash.as_bytes()[..CHECKSUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> impl Strategy<Value = JoinToken> {
        let addresses = proptest::collection::vec(any::<SocketAddr>(), 1..=ADDRESSES_MAX);
        let fields = (addresses, any::<[u8; 32]>(), any::<[u8; 16]>(), any::<[u8; 16]>(), any::<[u8; 32]>());
        (fields, any::<u64>()).prop_map(|((addresses, root, cluster, id, secret), expires_ms)| {
            let mut addresses = addresses;
            for address in &mut addresses {
                // Flow and scope of an address mean something on one machine only, and have no text.
                if let SocketAddr::V6(v6) = address {
                    v6.set_flowinfo(0);
                    v6.set_scope_id(0);
                }
            }
            JoinToken {
                addresses,
                root: RootPin(root),
                cluster: ClusterId(cluster),
                id: TokenId(id),
                secret: TokenSecret(secret),
                expires_ms,
            }
        })
    }

    proptest! {
        #[test]
        fn tokens_read_what_they_reveal(token in token()) {
            let text = token.reveal().unwrap();
            prop_assert!(text.len() < TEXT_BYTES_MAX / 2, "{}", text.len());
            prop_assert_eq!(text.parse::<JoinToken>(), Ok(token.clone()));
            prop_assert_eq!(format!(" {text}\n").parse::<JoinToken>(), Ok(token));
        }

        #[test]
        fn any_changed_character_is_refused(token in token(), at: usize, to in "[A-Za-z0-9_.-]") {
            let text = token.reveal().unwrap();
            let at = at % text.len();
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            if changed != text {
                prop_assert!(changed.parse::<JoinToken>().is_err(), "{changed}");
            }
            prop_assert!(text[..at].parse::<JoinToken>().is_err());
        }

        #[test]
        fn no_text_makes_the_reader_panic(text: String, bytes: Vec<u8>) {
            prop_assert!(text.parse::<JoinToken>().is_err());
            let coded = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes));
            prop_assert!(coded.parse::<JoinToken>().is_err());
            let mut summed = bytes.clone();
            summed.extend_from_slice(&checksum(&bytes));
            let coded = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&summed));
            prop_assert!(coded.parse::<JoinToken>().is_err());
        }

        #[test]
        fn the_secret_shows_nowhere(token in token()) {
            let shown = format!("{token:?}");
            prop_assert!(!shown.contains(&hex::encode(token.secret.0)));
            let listed = format!("{:?}", token.secret.0);
            prop_assert!(!shown.contains(&listed));
            prop_assert!(shown.contains("TokenSecret(..)"));
        }
    }

    /// The message's bytes as docs/formats.md gives them; a mismatch is version 2.
    #[test]
    fn version_1_is_still_what_is_written() {
        let body = [
            "0a0d31302e302e302e313a37303033",
            "0a0e5b666430303a3a315d3a37303033",
            &format!("1220{}", "01".repeat(32)),
            &format!("1a10{}", "02".repeat(16)),
            &format!("2210{}", "03".repeat(16)),
            &format!("2a20{}", "04".repeat(32)),
            "3080bcd9f29e34",
        ];
        let mut bytes = hex::decode(body.concat()).unwrap();
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(&sum.as_bytes()[..4]);
        let token = JoinToken {
            addresses: vec!["10.0.0.1:7003".parse().unwrap(), "[fd00::1]:7003".parse().unwrap()],
            root: RootPin([1; 32]),
            cluster: ClusterId([2; 16]),
            id: TokenId([3; 16]),
            secret: TokenSecret([4; 32]),
            expires_ms: 1_795_000_000_000,
        };
        assert_eq!(token.reveal().unwrap(), format!("holdfast-join-1.{}", URL_SAFE_NO_PAD.encode(bytes)));
    }

    #[test]
    fn one_line_per_refusal() {
        let good = Body {
            addresses: vec!["10.0.0.1:7000".to_owned()],
            root: vec![1; 32],
            cluster: vec![2; 16],
            id: vec![3; 16],
            secret: vec![4; 32],
            expires_ms: 5,
        };
        let text = |body: &Body| {
            let mut bytes = body.encode_to_vec();
            bytes.extend_from_slice(&checksum(&body.encode_to_vec()));
            format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
        };
        assert!(text(&good).parse::<JoinToken>().is_ok());
        let many = vec!["10.0.0.1:7000".to_owned(); ADDRESSES_MAX + 1];
        for bad in [
            Body { addresses: Vec::new(), ..good.clone() },
            Body { addresses: many, ..good.clone() },
            Body { addresses: vec!["host:7000".to_owned()], ..good.clone() },
            Body { root: vec![1; 31], ..good.clone() },
            Body { cluster: Vec::new(), ..good.clone() },
            Body { id: vec![3; 17], ..good.clone() },
            Body { secret: vec![4; 33], ..good.clone() },
        ] {
            assert!(text(&bad).parse::<JoinToken>().is_err());
        }
        let later = text(&good).replace("holdfast-join-1.", "holdfast-join-2.");
        for bad in ["", PREFIX, "holdfast-join-1.####", later.as_str(), &"x".repeat(TEXT_BYTES_MAX + 1)] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
        }
    }
}
