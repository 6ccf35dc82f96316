//! Faults that an operator injects: what the administration API takes and gives, and what nodes are told. What they do is
//! in the crate `faults`.

use serde::{Deserialize, Serialize};

/// `POST /v1/faults`: a fault in an operator's words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultAdd {
    /// Its name: `partition`, `disk-full`, ...
    pub kind: String,
    /// Where it happens: nodes, `zone:NAME`, `region:NAME`; none for everywhere. Of a fault between nodes: who calls.
    #[serde(default)]
    pub at: Vec<String>,
    /// Of a fault between nodes: who is called; none for everybody.
    #[serde(default)]
    pub to: Vec<String>,
    /// Of a fault of disks: names or ids of backends; none for all of the node.
    #[serde(default)]
    pub backends: Vec<String>,
    /// Milliseconds, or bytes a second, as the kind has it.
    #[serde(default)]
    pub amount: Option<i64>,
    /// How often it happens; 100 if absent.
    #[serde(default)]
    pub percent: Option<f64>,
    /// What its chances follow from; any if absent.
    #[serde(default)]
    pub seed: Option<u64>,
    /// How long it lasts; ten minutes if absent.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
}

/// A fault as it stands in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub kind: String,
    /// Names of the nodes that carry it out.
    pub at: Vec<String>,
    /// Of a fault between nodes: names of the nodes that are called.
    pub to: Vec<String>,
    /// Of a fault of disks: which; none for all.
    pub backends: Vec<String>,
    /// Milliseconds, or bytes a second; 0 if the kind has no amount.
    pub amount: i64,
    /// How often it happens.
    pub percent: f64,
    /// What its chances follow from.
    pub seed: u64,
    /// What is left of its time.
    pub remaining_seconds: u64,
}

/// `GET /v1/faults`: all that stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultList {
    /// By id.
    pub faults: Vec<FaultView>,
    /// Names of nodes that did not answer: what stands there is not known, and ends by itself.
    pub unreachable: Vec<String>,
    /// Names of nodes that were not started for faults.
    pub not_allowed: Vec<String>,
}

/// A fault as nodes keep it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FaultRule {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Numbers of the nodes that carry it out.
    #[prost(uint64, repeated, tag = "3")]
    pub at: Vec<u64>,
    /// Of a fault between nodes: numbers of the nodes that are called.
    #[prost(uint64, repeated, tag = "4")]
    pub to: Vec<u64>,
    /// Of a fault of disks: names or ids; none for all.
    #[prost(string, repeated, tag = "5")]
    pub backends: Vec<String>,
    /// How often it happens, of a million times.
    #[prost(uint32, tag = "6")]
    pub per_million: u32,
    /// What its chances follow from.
    #[prost(uint64, tag = "7")]
    pub seed: u64,
    /// What is left of its time.
    #[prost(uint64, tag = "8")]
    pub ttl_ms: u64,
    /// Milliseconds, or bytes a second.
    #[prost(sint64, tag = "9")]
    pub amount: i64,
}

/// What a node is told about faults; the answer is always a `FaultReply`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FaultOrder {
    /// Sets this rule.
    #[prost(message, optional, tag = "1")]
    pub add: Option<FaultRule>,
    /// Removes rules, by id.
    #[prost(string, repeated, tag = "2")]
    pub clear: Vec<String>,
    /// Removes all rules.
    #[prost(bool, tag = "3")]
    pub clear_all: bool,
}

/// What a node says of its faults.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FaultReply {
    /// Why a rule was not set; empty if nothing was refused.
    #[prost(string, tag = "1")]
    pub refusal: String,
    /// Whether the server was started for faults.
    #[prost(bool, tag = "2")]
    pub is_allowed: bool,
    /// The rules that stand after the order.
    #[prost(message, repeated, tag = "3")]
    pub rules: Vec<FaultRule>,
}
