//! How many bytes of buffers requests may hold: a fair count, acquired all or nothing, in the order asked.
//!
//! Not here: the buffers themselves (`cell_stock`).
//!
//! **Invariant:** the permits handed out never add up to more than the budget. Nobody waits for a permit while holding
//! memory that nobody else is working on (see `upload`), so waiting always ends.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits count in these: fine enough for the smallest cells, and 16 TiB still fit the semaphore's `u32` requests.
const UNIT_BYTES: u64 = 4096;

/// A budget of bytes shared by many requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ByteBudget {
    semaphore: Arc<Semaphore>,
    units: u32,
}

/// Some bytes of a budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _units: OwnedSemaphorePermit,
}

impl ByteBudget {
    /// A budget of `bytes`, at least one unit.
    pub(crate) fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 3);
        let count = usize::try_from(units).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Self { semaphore: Arc::new(Semaphore::new(count)), units }
    }

    /// Waits for `bytes`, behind everybody who asked before. A request larger than the whole budget gets all of it:
    /// one very wide stripe may then pass, alone.
    pub(crate) async fn acquire(&self, bytes: u64) -> Permit {
        let units = self.units_for(bytes);
        let permit = self.semaphore.clone().acquire_many_owned(units).await;
        Permit { _units: permit.expect("the semaphore is never closed") }
    }

    /// `bytes`, if they are free now and nobody waits.
    pub(crate) fn try_acquire(&self, bytes: u64) -> Option<Permit> {
        let units = self.units_for(bytes);
        Some(Permit { _units: self.semaphore.clone().try_acquire_many_owned(units).ok()? })
    }

    /// Whether more than one part in `parts` of it is free now.
    pub(crate) fn has_free(&self, parts: usize) -> bool {
        self.semaphore.available_permits().saturating_mul(parts) > usize::try_from(self.units).unwrap_or(usize::MAX)
    }

    /// Bytes handed out.
    #[cfg(test)]
    pub(crate) fn bytes_in_use(&self) -> u64 {
        let free = u64::try_from(self.semaphore.available_permits()).unwrap_or(0);
        (u64::from(self.units) - free) * UNIT_BYTES
    }

    fn units_for(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_budget_is_never_exceeded_and_comes_back() {
        let budget = ByteBudget::new(10 * UNIT_BYTES);
        let seven = budget.try_acquire(7 * UNIT_BYTES - 5).unwrap();
        assert!(budget.try_acquire(4 * UNIT_BYTES).is_none());
        let three = budget.try_acquire(3 * UNIT_BYTES).unwrap();
        assert_eq!(budget.bytes_in_use(), 10 * UNIT_BYTES);
        drop((seven, three));
        assert_eq!(budget.bytes_in_use(), 0);
        // More than there is: all of it, not a wait for ever.
        let _all = budget.acquire(99 * UNIT_BYTES).await;
        assert!(budget.try_acquire(1).is_none());
    }

    #[tokio::test]
    async fn nobody_overtakes_who_waits() {
        let budget = ByteBudget::new(4 * UNIT_BYTES);
        let held = budget.acquire(3 * UNIT_BYTES).await;
        let mut large = Box::pin(budget.acquire(4 * UNIT_BYTES));
        assert!(futures::poll!(&mut large).is_pending());
        assert!(budget.try_acquire(UNIT_BYTES).is_none(), "a small request may not pass a waiting large one");
        drop(held);
        large.await;
    }
}
