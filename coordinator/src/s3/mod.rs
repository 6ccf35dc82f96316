//! The S3 endpoint: the door (ours) and the typed operations behind it (s3s). No s3s type leaves this folder.

pub mod context;
mod document;
mod door;
mod error;
pub mod operations;
pub mod server;
mod subresource;
mod wire;
