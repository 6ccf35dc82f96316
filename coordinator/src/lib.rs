//! Coordinator of Holdfast: the S3 endpoint, metadata, the object path, repair and the administration API.
//!
//! Pure modules decide; everything that touches a socket, a disk or a clock says so at its head.
#![recursion_limit = "256"]

pub mod admin;
pub mod clock;
pub mod health;
pub mod layout;
pub mod leader;
pub mod maintenance;
pub mod membership;
pub mod metadata;
pub mod object_path;
pub mod peers;
pub mod rebalance;
pub mod repair;
pub mod runtime;
pub mod s3;
pub mod surroundings;
