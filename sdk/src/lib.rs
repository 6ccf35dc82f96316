//! Client library of Holdfast: request signing (Signature Version 4) and the administration client.
//!
//! No server code and no policy: what a call means is decided by the coordinator that answers it.

pub mod admin;
pub mod admin_error;
pub mod byte_size;
mod layout_admin;
pub mod sign;

pub use admin::{AdminClient, AdminClientOptions};
pub use admin_error::AdminClientError;
pub use sign::{Credentials, Payload, Presign, RequestToSign, SignedRequest, Signer};

/// Region in the credential scope of administration requests: administration is of the whole store, not of a region.
pub const ADMIN_REGION: &str = "holdfast";
/// Service in the credential scope of administration requests, so that a signature made for S3 opens nothing there.
pub const ADMIN_SERVICE: &str = "holdfast-admin";
