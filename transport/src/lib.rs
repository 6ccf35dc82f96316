//! How nodes talk: one layer of RPCs and streams, over QUIC between machines, in process between the roles of one node,
//! and simulated in tests. It moves frames and decides who may call; what the frames mean is for those who serve and
//! call.
//!
//! **Invariant:** no service sees a call that the role matrix (`proto::rpc`) does not allow.

mod channel;
#[doc(hidden)]
pub mod contract;
mod error;
mod faulty;
mod local;
pub mod quic;
mod retry_budget;

pub use channel::{Call, CallOptions, Caller, Channel, Frame, Service, Transport};
pub use error::TransportError;
pub use faulty::{FaultyTransport, LinkFaults};
pub use local::{LinkConditions, LocalNetwork, LocalOptions, LocalTransport};
pub use retry_budget::RetryBudget;
