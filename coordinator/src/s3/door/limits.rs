//! Limits of the door, each with its reason.

use std::time::Duration;

/// Largest single upload (S3: 5 GiB).
pub(crate) const BODY_BYTES_MAX: u64 = 5 << 30;
/// Largest body of a request that is not object data: DeleteObjects of 1000 long keys stays below it.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 8 << 20;
/// Keys (S3: 1024 bytes of UTF-8).
pub(crate) const KEY_BYTES_MAX: usize = 1024;
/// Request target: a key of 1024 bytes, each escaped, and a presigned query.
pub(crate) const TARGET_BYTES_MAX: usize = 16 << 10;
/// Time a client has to send the head of a request.
pub(crate) const HEADER_TIME: Duration = Duration::from_secs(20);
/// Time between two pieces of a body (see `pace`).
pub(crate) const BODY_IDLE: Duration = Duration::from_secs(60);
/// Time in which a client must take some of an answer: one that stops reading does not keep its buffers.
pub(crate) const WRITE_IDLE: Duration = Duration::from_secs(60);
/// Time that a refused client has to read the answer while what it still sends is thrown away. Closing at once would
/// make its kernel drop the answer.
pub(crate) const LINGER: Duration = Duration::from_secs(5);
/// Head of a request: the longest target, and as much of other headers (S3 takes 8 KiB of them).
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers a signature may name; a request has fewer.
pub(crate) const SIGNED_HEADERS_MAX: usize = 128;
/// Clock difference that signatures may have (S3: 15 minutes).
pub(crate) const CLOCK_SKEW_SECONDS: u64 = 15 * 60;
/// Longest life of a presigned URL (S3: 7 days).
pub(crate) const PRESIGN_SECONDS_MAX: u64 = 7 * 24 * 3600;
/// Head of one aws-chunk: a size and a signature take 100 bytes.
pub(crate) const CHUNK_HEAD_BYTES_MAX: usize = 1024;
/// Trailers of a body together.
pub(crate) const TRAILER_BYTES_MAX: usize = 8 << 10;
/// One field of a POST form that is not the file; the policy is the largest.
pub(crate) const FORM_FIELD_BYTES_MAX: usize = 64 << 10;
/// Fields of a POST form.
pub(crate) const FORM_FIELDS_MAX: usize = 256;
/// All bytes of a POST form before its file, the form's own lines included.
pub(crate) const FORM_FIELDS_BYTES_MAX: usize = 256 << 10;
/// Connections at once; further ones wait in the listen queue.
pub(crate) const CONNECTIONS_MAX: usize = 4096;
/// Time that requests under way have after a stop was asked for.
pub(crate) const SHUTDOWN_TIME: Duration = Duration::from_secs(30);
