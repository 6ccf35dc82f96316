//! The wall clock of a coordinator: for ids, records, signatures and certificates. What measures how long something takes
//! uses `Instant`, which nobody sets.
//!
//! It can be made wrong on purpose, by the fault `clock-jump`. Touches the world: the system's clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How far it is made wrong.
static JUMP_MS: AtomicI64 = AtomicI64::new(0);

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let true_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    true_ms.saturating_add_signed(JUMP_MS.load(Ordering::Relaxed))
}

/// Makes this process's clock wrong by so much from now on; 0 makes it right.
pub fn jump(by_ms: i64) {
    JUMP_MS.store(by_ms, Ordering::Relaxed);
}
