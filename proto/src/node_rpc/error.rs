//! `ShardError` over the wire, and the two ways a call can be answered.

use super::{Malformed, backend_bytes, backend_from, shard_bytes, shard_from, text_bounded, text_from};
use crate::ids::Epoch;
use crate::node::ShardError;
use bytes::Bytes;

const NOT_FOUND: u32 = 1;
const DAMAGED: u32 = 2;
const NO_SUCH_BACKEND: u32 = 3;
const UNAVAILABLE: u32 = 4;
const READ_ONLY: u32 = 5;
const FULL: u32 = 6;
const BUSY: u32 = 7;
const IO: u32 = 8;
const INVALID: u32 = 9;
const STALE_EPOCH: u32 = 10;

/// Why a call failed: a `ShardError`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Fault {
    /// Which variant; numbers are never used twice.
    #[prost(uint32, tag = "1")]
    pub cause: u32,
    /// 16 bytes; empty where the variant names none.
    #[prost(bytes = "bytes", tag = "2")]
    pub backend: Bytes,
    /// 21 bytes; empty where the variant names none.
    #[prost(bytes = "bytes", tag = "3")]
    pub shard: Bytes,
    /// The reason.
    #[prost(string, tag = "4")]
    pub reason: String,
    /// Of an IO error: what was being done.
    #[prost(string, tag = "5")]
    pub action: String,
    /// Free bytes; queued operations; the caller's epoch.
    #[prost(uint64, tag = "6")]
    pub first: u64,
    /// Bytes of the reserve; the node's minimum epoch.
    #[prost(uint64, tag = "7")]
    pub second: u64,
}

/// The head of every answer: a result, encoded in it, or a fault.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Reply {
    /// Set if the call failed.
    #[prost(message, optional, tag = "1")]
    pub fault: Option<Fault>,
    /// The result's message otherwise.
    #[prost(bytes = "bytes", tag = "2")]
    pub result: Bytes,
}

impl Reply {
    /// A result's reply.
    pub fn ok(result: &impl prost::Message) -> Self {
        Self { fault: None, result: super::encode(result) }
    }

    /// A failure's reply.
    pub fn fault(error: &ShardError) -> Self {
        Self { fault: Some(Fault::from(error)), result: Bytes::new() }
    }

    /// The result's message, or the fault.
    ///
    /// # Errors
    /// The outer: not what it should be. The inner: the fault.
    pub fn into_result<M: prost::Message + Default>(self) -> Result<Result<M, ShardError>, Malformed> {
        match self.fault {
            Some(fault) => Ok(Err(fault.try_into()?)),
            None => Ok(Ok(super::decode(&self.result)?)),
        }
    }
}

impl From<&ShardError> for Fault {
    fn from(error: &ShardError) -> Self {
        let empty = Self::default;
        match error {
            ShardError::NotFound { shard, backend } => {
                Self { cause: NOT_FOUND, backend: backend_bytes(*backend), shard: shard_bytes(*shard), ..empty() }
            }
            ShardError::Damaged { shard, backend, reason } => Self {
                cause: DAMAGED,
                backend: backend_bytes(*backend),
                shard: shard_bytes(*shard),
                reason: text_bounded(reason),
                ..empty()
            },
            ShardError::NoSuchBackend { backend } => {
                Self { cause: NO_SUCH_BACKEND, backend: backend_bytes(*backend), ..empty() }
            }
            ShardError::Unavailable { backend, reason } => {
                Self { cause: UNAVAILABLE, backend: backend_bytes(*backend), reason: text_bounded(reason), ..empty() }
            }
            ShardError::ReadOnly { backend, reason } => {
                Self { cause: READ_ONLY, backend: backend_bytes(*backend), reason: text_bounded(reason), ..empty() }
            }
            ShardError::Full { backend, free_bytes, reserve_bytes } => Self {
                cause: FULL,
                backend: backend_bytes(*backend),
                first: *free_bytes,
                second: *reserve_bytes,
                ..empty()
            },
            ShardError::Busy { backend, queued } => {
                let first = u64::try_from(*queued).unwrap_or(u64::MAX);
                Self { cause: BUSY, backend: backend_bytes(*backend), first, ..empty() }
            }
            ShardError::Io { backend, action, reason } => Self {
                cause: IO,
                backend: backend_bytes(*backend),
                action: text_bounded(action),
                reason: text_bounded(reason),
                ..empty()
            },
            ShardError::Invalid { reason } => Self { cause: INVALID, reason: text_bounded(reason), ..empty() },
            ShardError::StaleEpoch { got, minimum } => {
                Self { cause: STALE_EPOCH, first: got.0, second: minimum.0, ..empty() }
            }
        }
    }
}

impl TryFrom<Fault> for ShardError {
    type Error = Malformed;

    fn try_from(fault: Fault) -> Result<Self, Malformed> {
        let Fault { cause, backend, shard, reason, action, first, second } = fault;
        let (reason, action) = (text_from(reason)?, text_from(action)?);
        let backend = || backend_from(&backend);
        let shard = || shard_from(&shard);
        Ok(match cause {
            NOT_FOUND => Self::NotFound { shard: shard()?, backend: backend()? },
            DAMAGED => Self::Damaged { shard: shard()?, backend: backend()?, reason },
            NO_SUCH_BACKEND => Self::NoSuchBackend { backend: backend()? },
            UNAVAILABLE => Self::Unavailable { backend: backend()?, reason },
            READ_ONLY => Self::ReadOnly { backend: backend()?, reason },
            FULL => Self::Full { backend: backend()?, free_bytes: first, reserve_bytes: second },
            BUSY => Self::Busy { backend: backend()?, queued: usize::try_from(first).unwrap_or(usize::MAX) },
            IO => Self::Io { backend: backend()?, action, reason },
            INVALID => Self::Invalid { reason },
            STALE_EPOCH => Self::StaleEpoch { got: Epoch(first), minimum: Epoch(second) },
            other => return Err(Malformed::new(format!("a fault of unknown cause {other}"))),
        })
    }
}
