//! What the door learned of a request and hands to the operations behind it, in the request's extensions. There is no
//! way to reach an operation without one.

use crate::object_path::TrailerSource;

/// Who signed the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The access key; also the owner id of what it creates.
    pub access_key: String,
    /// Display name.
    pub name: String,
    /// Whether it is the root key.
    pub is_root: bool,
}

/// One authenticated request.
#[derive(Clone)]
pub struct RequestContext {
    /// Given to the client as `x-amz-request-id`, and in every log line of the request.
    pub request_id: String,
    /// Who signed.
    pub principal: Principal,
    /// Decoded bytes of the body, where the client said (never the framed length).
    pub body_bytes: Option<u64>,
    /// At most this many body bytes (POST policy content-length-range).
    pub body_bytes_max: Option<u64>,
    /// Trailing headers of an aws-chunked body, readable once it has ended.
    pub trailers: Option<TrailerSource>,
}
