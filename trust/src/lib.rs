//! Who is who in a cluster: its certificate authority, the single-use tokens by which nodes join, the certificates that
//! say what a node is, and the TLS settings made of them.
//!
//! Reads no clock and opens no file by itself: time is passed in, and PEM text goes in and out. What is kept where is the
//! caller's business.
