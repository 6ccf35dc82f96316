//! How many bytes one upload may hold: its own share and everybody's budget together.

use super::budget::{ByteBudget, Permit};

/// What one upload may hold at most, in all stages together: filling, coding, being written, waiting for the digests. Enough
/// for eight batches of a 4+2 code, so that a stage that stutters does not stop the others.
const UPLOAD_BYTES_MAX: u64 = 16 << 20;

/// One upload's share of the write buffers.
pub(crate) struct UploadBudget {
    own: ByteBudget,
    all: ByteBudget,
}

/// The permits of a stripe.
pub(crate) struct StripePermit {
    _own: Permit,
    _all: Permit,
}

/// The permits of a batch of stripes; given back together.
pub(crate) struct BatchPermit {
    _stripes: Vec<StripePermit>,
}

impl UploadBudget {
    pub(crate) fn new(all: ByteBudget) -> Self {
        Self { own: ByteBudget::new(UPLOAD_BYTES_MAX), all }
    }
    /// Waits for `bytes`. The caller holds no other permit that is not being worked on.
    pub(crate) async fn acquire(&self, bytes: u64) -> StripePermit {
        let own = self.own.acquire(bytes).await;
        StripePermit { _own: own, _all: self.all.acquire(bytes).await }
    }
    /// `bytes`, if they are free now.
    pub(crate) fn try_acquire(&self, bytes: u64) -> Option<StripePermit> {
        let own = self.own.try_acquire(bytes)?;
        Some(StripePermit { _own: own, _all: self.all.try_acquire(bytes)? })
    }
}

impl BatchPermit {
    pub(crate) fn new(stripes: Vec<StripePermit>) -> Self {
        Self { _stripes: stripes }
    }
}
