//! A server as a node of a cluster: how it joins, what it keeps of that, its network, and how it follows the cluster map.

pub(crate) mod announce;
pub(crate) mod backend_list;
pub(crate) mod files;
pub(crate) mod join;
pub(crate) mod late_transport;
pub(crate) mod map_watch;
pub(crate) mod metadata_owner;
pub(crate) mod network;
pub(crate) mod planes;
mod tls_source;
