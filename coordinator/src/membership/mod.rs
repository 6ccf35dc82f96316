//! Who belongs to the cluster: how nodes come in, renew their certificates, say where they are, and go.
//!
//! `nodes` is pure: a cluster map and a change give another map or a refusal. `authority` makes and reads the CA.
//! `service` serves the control plane on coordinators; `client` is its other end, on every node; `renewals` keeps a
//! node's certificate young. What is stored: the CA and the join tokens are rows of the root group; the nodes are in the
//! cluster map and change by compare-and-set (ADR 6).
//!
//! **Invariant:** a certificate is signed only for a node that the cluster map has, with what the map says of it
//! (`a_certificate_says_what_the_map_says`).

mod authority;
mod client;
mod error;
mod nodes;
mod renewals;
mod service;
#[cfg(test)]
mod tests;

pub use authority::{Authority, Founder, NewToken, create_token, ensure_authority, found};
pub use client::{Announcement, JoinOptions, Joined, StrangerDial, announce, fetch_cluster_map, join, renew};
pub use error::MembershipError;
pub(crate) use nodes::with_intent;
pub use nodes::{NodeRefusal, removed_nodes};
pub use renewals::{KeepCredentials, Renewals};
pub use service::MembershipService;
