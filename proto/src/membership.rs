//! What nodes say to each other on the control plane, and the root group's rows about trust: join tokens and the CA.
//!
//! prost messages with hand-written tags (docs/formats.md): unknown fields are skipped, tags are never reused. Messages
//! that hold a secret show none of it in `Debug`.

use crate::cluster::NodeAddresses;
use crate::error_kind::ErrorKind;
use crate::ids::BackendId;
use std::fmt;
use std::net::SocketAddr;

/// Addresses of one plane a node may announce: every interface of a machine, within reason.
pub const ADDRESSES_MAX: usize = 16;
/// Longest S3 or administration endpoint.
pub const ENDPOINT_BYTES_MAX: usize = 256;
/// Backends a node may announce at once.
pub const BACKENDS_MAX: usize = 1024;
/// Longest location of a backend.
pub const LOCATION_BYTES_MAX: usize = 4096;

/// `NodeAddresses` on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Addresses {
    /// `IP:PORT` each.
    #[prost(string, repeated, tag = "1")]
    pub data: Vec<String>,
    /// `IP:PORT` each.
    #[prost(string, repeated, tag = "2")]
    pub consensus: Vec<String>,
    /// `IP:PORT` each.
    #[prost(string, repeated, tag = "3")]
    pub control: Vec<String>,
    /// Endpoint as clients reach it.
    #[prost(string, tag = "4")]
    pub s3: String,
    /// Endpoint of the operator.
    #[prost(string, tag = "5")]
    pub admin: String,
}

/// Addresses that are too many, too long, or none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not addresses of a node: {reason}")]
pub struct AddressesError {
    /// What is wrong with them.
    pub reason: String,
}

impl From<&NodeAddresses> for Addresses {
    fn from(addresses: &NodeAddresses) -> Self {
        let texts = |plane: &[SocketAddr]| plane.iter().map(ToString::to_string).collect();
        Self {
            data: texts(&addresses.data),
            consensus: texts(&addresses.consensus),
            control: texts(&addresses.control),
            s3: addresses.s3.clone(),
            admin: addresses.admin.clone(),
        }
    }
}

impl TryFrom<&Addresses> for NodeAddresses {
    type Error = AddressesError;

    fn try_from(wire: &Addresses) -> Result<Self, AddressesError> {
        let endpoint = |text: &String| match text.len() <= ENDPOINT_BYTES_MAX {
            true => Ok(text.clone()),
            false => Err(AddressesError { reason: format!("an endpoint of {} bytes", text.len()) }),
        };
        Ok(Self {
            data: parsed(&wire.data)?,
            consensus: parsed(&wire.consensus)?,
            control: parsed(&wire.control)?,
            s3: endpoint(&wire.s3)?,
            admin: endpoint(&wire.admin)?,
        })
    }
}

fn parsed(texts: &[String]) -> Result<Vec<SocketAddr>, AddressesError> {
    if texts.len() > ADDRESSES_MAX {
        return Err(AddressesError { reason: format!("{} of one plane, {ADDRESSES_MAX} allowed", texts.len()) });
    }
    let unread = |text: &String| AddressesError {
        reason: format!("{:?} is not IP:PORT", text.chars().take(64).collect::<String>()),
    };
    texts.iter().map(|text| text.parse().map_err(|_| unread(text))).collect()
}

/// `Rpc::Join`: a new node shows its token and asks for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct JoinRequest {
    /// The token's id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub token: Vec<u8>,
    /// The token's secret, 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub secret: Vec<u8>,
    /// The cluster the token is of, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub cluster: Vec<u8>,
    /// PKCS#10 request in DER: the node's public key, and that it holds the private one.
    #[prost(bytes = "vec", tag = "4")]
    pub request: Vec<u8>,
    /// `coordinator,storage`.
    #[prost(string, tag = "5")]
    pub roles: String,
    /// Where it stands.
    #[prost(string, tag = "6")]
    pub region: String,
    /// Zone within the region.
    #[prost(string, tag = "7")]
    pub zone: String,
    /// Where it will listen; may be empty and announced later.
    #[prost(message, optional, tag = "8")]
    pub addresses: Option<Addresses>,
    /// The node's clock.
    #[prost(uint64, tag = "9")]
    pub now_ms: u64,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("token", &hex::encode(&self.token))
            .field("roles", &self.roles)
            .field("region", &self.region)
            .field("zone", &self.zone)
            .finish_non_exhaustive()
    }
}

/// A certificate that was granted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Granted {
    /// The node's number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Its certificate, X.509 in DER.
    #[prost(bytes = "vec", tag = "2")]
    pub certificate: Vec<u8>,
    /// Every root that is believed now, X.509 in DER, the one that signs first.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub roots: Vec<Vec<u8>>,
}

/// Something was refused.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refusal {
    /// `RefusalCause` by its number.
    #[prost(uint32, tag = "1")]
    pub cause: u32,
    /// What to tell the operator.
    #[prost(string, tag = "2")]
    pub reason: String,
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $kind:ident;)*) => {
        /// Why a call on the control plane was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum RefusalCause { $($(#[$doc])* $name,)* }

        impl RefusalCause {
            /// Every cause there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// Its number on the wire; never used for another.
            pub fn number(self) -> u32 { match self { $(Self::$name => $number,)* } }
            /// The cause of a number; `Unknown` for one this build does not know.
            pub fn from_number(number: u32) -> Self { match number { $($number => Self::$name,)* _ => Self::Unknown } }
            /// Its name in logs and metrics.
            pub fn name(self) -> &'static str { match self { $(Self::$name => stringify!($name),)* } }
            /// What can be done about it.
            pub fn kind(self) -> ErrorKind { match self { $(Self::$name => ErrorKind::$kind,)* } }
        }
    };
}

causes! {
    /// A cause that this build does not know.
    Unknown = 0, Denied;
    /// No such token, or not its secret: which of the two is told to the cluster's log only.
    TokenNotAccepted = 1, Denied;
    /// The token has expired.
    TokenExpired = 2, Denied;
    /// The token has admitted another node.
    TokenUsed = 3, Conflict;
    /// The token does not allow these roles.
    TokenRole = 4, Denied;
    /// The token is for another region.
    TokenRegion = 5, Denied;
    /// The token is for another zone.
    TokenZone = 6, Denied;
    /// The node was removed from the cluster.
    NodeRemoved = 7, Denied;
    /// The token is of another cluster.
    WrongCluster = 8, Denied;
    /// The request is malformed: key, names or addresses.
    Malformed = 9, Invalid;
    /// The clocks differ by too much.
    Clock = 10, Denied;
    /// Too many are joining at once.
    Busy = 11, Retry;
    /// The metadata cannot be reached.
    Unavailable = 12, Retry;
    /// The cluster map knows no such node.
    NoSuchNode = 13, Denied;
}

/// Answer to `Join` and `Renew`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateReply {
    /// One of the two.
    #[prost(oneof = "CertificateOutcome", tags = "1, 2")]
    pub outcome: Option<CertificateOutcome>,
}

/// Granted or refused.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum CertificateOutcome {
    /// The certificate.
    #[prost(message, tag = "1")]
    Granted(Granted),
    /// Why not.
    #[prost(message, tag = "2")]
    Refused(Refusal),
}

/// `Rpc::Renew`: a node asks for a new certificate. What it will say is what the cluster map says of the node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RenewRequest {
    /// PKCS#10 request in DER.
    #[prost(bytes = "vec", tag = "1")]
    pub request: Vec<u8>,
}

/// A backend as its node announces it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnnouncedBackend {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// `disk:PATH`.
    #[prost(string, tag = "2")]
    pub location: String,
    /// The node formatted it for this cluster and has not been told that the map knows it: it is to be added. A backend
    /// that is not in the map and not fresh was removed, and stays out.
    #[prost(bool, tag = "3")]
    pub fresh: bool,
}

impl AnnouncedBackend {
    /// Its id, if it is one.
    pub fn backend_id(&self) -> Option<BackendId> {
        BackendId::from_slice(&self.id)
    }
}

/// `Rpc::Announce`: where a node listens, and what backends it has.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnnounceRequest {
    /// All of its addresses; they replace what the map had.
    #[prost(message, optional, tag = "1")]
    pub addresses: Option<Addresses>,
    /// Its backends.
    #[prost(message, repeated, tag = "2")]
    pub backends: Vec<AnnouncedBackend>,
    /// The node's clock.
    #[prost(uint64, tag = "3")]
    pub now_ms: u64,
}

/// Answer to `Announce`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnnounceReply {
    /// Set if nothing was done.
    #[prost(message, optional, tag = "1")]
    pub refused: Option<Refusal>,
    /// Epoch of the map that holds what was announced.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Announced backends that are not in the map, 16 bytes each.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub not_in_map: Vec<Vec<u8>>,
    /// The answering node's clock.
    #[prost(uint64, tag = "4")]
    pub now_ms: u64,
}

/// `Rpc::ClusterMap`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ClusterMapRequest {
    /// The epoch the caller has; 0 for none.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
}

/// Answer to `ClusterMap`. The map, as JSON, is the frame's body: empty if the caller has the newest.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ClusterMapReply {
    /// Set if there is no answer.
    #[prost(message, optional, tag = "1")]
    pub refused: Option<Refusal>,
    /// The newest epoch.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
}

/// The root group's row of a join token.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct TokenRow {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// BLAKE3 of its secret, 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub secret_hash: Vec<u8>,
    /// Roles it is bound to; empty for any.
    #[prost(string, tag = "3")]
    pub roles: String,
    /// Region it is bound to; empty for any.
    #[prost(string, tag = "4")]
    pub region: String,
    /// Zone it is bound to; empty for any.
    #[prost(string, tag = "5")]
    pub zone: String,
    /// When it was made.
    #[prost(uint64, tag = "6")]
    pub created_ms: u64,
    /// When it ends.
    #[prost(uint64, tag = "7")]
    pub expires_ms: u64,
    /// Whom it admitted.
    #[prost(message, optional, tag = "8")]
    pub used_by: Option<TokenUseRow>,
}

impl fmt::Debug for TokenRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRow")
            .field("id", &hex::encode(&self.id))
            .field("expires_ms", &self.expires_ms)
            .field("used_by", &self.used_by)
            .finish_non_exhaustive()
    }
}

/// The node a token admitted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TokenUseRow {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// BLAKE3 of its public key, 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub key_hash: Vec<u8>,
    /// Roles it asked for.
    #[prost(string, tag = "3")]
    pub roles: String,
    /// Region it asked for.
    #[prost(string, tag = "4")]
    pub region: String,
    /// Zone it asked for.
    #[prost(string, tag = "5")]
    pub zone: String,
    /// When.
    #[prost(uint64, tag = "6")]
    pub used_ms: u64,
}

/// The root group's row of the CA. Changed as a whole, by compare-and-set on its generation.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct AuthorityRow {
    /// Ever-growing number, from 1.
    #[prost(uint64, tag = "1")]
    pub generation: u64,
    /// Certificate of the CA that signs, PEM.
    #[prost(string, tag = "2")]
    pub certificate: String,
    /// Its private key, PEM.
    #[prost(string, tag = "3")]
    pub key: String,
    /// Certificates of other roots that are believed, PEM, one after another; empty unless a CA is being exchanged.
    #[prost(string, tag = "4")]
    pub other_roots: String,
}

impl fmt::Debug for AuthorityRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityRow").field("generation", &self.generation).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn addresses_come_back_and_bad_ones_are_refused() {
        let addresses = NodeAddresses {
            data: vec!["10.0.0.1:7001".parse().unwrap(), "[fd00::1]:7001".parse().unwrap()],
            consensus: Vec::new(),
            control: vec!["10.0.0.1:7003".parse().unwrap()],
            s3: "http://10.0.0.1:9000".to_owned(),
            admin: String::new(),
        };
        let wire = Addresses::from(&addresses);
        assert_eq!(NodeAddresses::try_from(&wire), Ok(addresses));
        for bad in [
            Addresses { data: vec!["host:1".to_owned()], ..wire.clone() },
            Addresses { consensus: vec!["10.0.0.1".to_owned()], ..wire.clone() },
            Addresses { control: vec!["10.0.0.1:1".to_owned(); ADDRESSES_MAX + 1], ..wire.clone() },
            Addresses { s3: "x".repeat(ENDPOINT_BYTES_MAX + 1), ..wire.clone() },
            Addresses { admin: "x".repeat(ENDPOINT_BYTES_MAX + 1), ..wire },
        ] {
            assert!(NodeAddresses::try_from(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn causes_are_distinct_and_lead_back() {
        let numbers: BTreeSet<u32> = RefusalCause::ALL.iter().map(|cause| cause.number()).collect();
        assert_eq!(numbers.len(), RefusalCause::ALL.len());
        for &cause in RefusalCause::ALL {
            assert_eq!(RefusalCause::from_number(cause.number()), cause);
        }
        assert_eq!(RefusalCause::from_number(u32::MAX), RefusalCause::Unknown);
    }

    #[test]
    fn no_secret_shows() {
        let secret = "53454352455453454352";
        let join = JoinRequest { secret: vec![0x53; 32], token: vec![1; 16], ..JoinRequest::default() };
        let authority = AuthorityRow { key: secret.to_owned(), ..AuthorityRow::default() };
        let token = TokenRow { secret_hash: vec![0x53; 32], ..TokenRow::default() };
        for shown in [format!("{join:?}"), format!("{authority:?}"), format!("{token:?}")] {
            assert!(!shown.contains("83, 83") && !shown.contains("5353") && !shown.contains(secret), "{shown}");
        }
    }
}
