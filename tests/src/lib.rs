//! Whole-system tests: real `holdfast` processes on loopback, real S3 clients, real loss.
//!
//! What is here is the harness; `tests/*.rs` has one file per promise kept. Every process a test starts is stopped by
//! its pid when the test ends, passed or not, and every wait has a limit.

pub mod clients;
pub mod cluster;
pub mod content;
pub mod loopback_cluster;
pub mod objects;
pub mod runbook;
pub mod server;
pub mod signing;
