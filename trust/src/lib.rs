//! Who is who in a cluster: its certificate authority, the single-use tokens by which nodes join, the certificates that
//! say what a node is, and the TLS settings made of them.
//!
//! Reads no clock, draws no random number and opens no file by itself: time and seeds are passed in, and PEM text goes
//! in and out. (TLS handshakes and nothing else draw randomness, inside the library.) What is kept where is the caller's
//! business. Why it is so: ADR 6.
//!
//! Start at `ClusterAuthority`, which makes certificates, then `NodeCredentials`, what a node holds, then
//! `LiveCredentials`, the same while running, from which `server_config` and `client_config` are made.

mod authority;
mod credentials;
mod error;
mod identity;
mod key;
mod live;
mod pem;
mod pinned;
mod redeem;
mod renewal;
#[cfg(test)]
mod tests;
mod tls;
mod token;

pub use authority::{AUTHORITY_DAYS, CLOCK_SLACK_MS, CertificateRequest, ClusterAuthority, NODE_DAYS, RootPin};
pub use credentials::{NodeCredentials, Validity};
pub use error::TrustError;
pub use identity::{PLACE_BYTES_MAX, check_place, identity_of, identity_uri, node_name, parse_identity_uri};
pub use key::NodeKey;
pub use live::LiveCredentials;
pub use pinned::stranger_config;
pub use redeem::{
    Asked, KeyHash, Redemption, SecretHash, TokenId, TokenRecord, TokenRefusal, TokenScope, TokenUse, redeem,
};
pub use renewal::{Expiring, RenewalAction, RenewalSchedule, Warning};
pub use tls::{UnixClock, alpn, client_config, server_config};
pub use token::{JoinToken, TokenSecret};

/// Milliseconds of a day.
pub(crate) const DAY_MS: u64 = 86_400_000;
