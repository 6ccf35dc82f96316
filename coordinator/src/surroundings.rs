//! What the object path and maintenance take from outside of the program: the time of day, numbers nobody can guess, and
//! threads to compute on. The system's in the product; a simulation, which has one thread and its own time, gives its own.
//!
//! Not here: tokio's clock, which a simulation holds still by itself.

use std::sync::Arc;

/// Gives milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
/// Gives 64 random bits.
pub type RandomSource = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Where long computations run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Computing {
    /// On threads of their own.
    Threads,
    /// At once, on the caller's thread.
    Inline,
}

/// All of it.
#[derive(Clone)]
pub struct Surroundings {
    /// The time of day.
    pub clock: Clock,
    /// Makes ids unique.
    pub random: RandomSource,
    /// Where coding and hashing run.
    pub computing: Computing,
}

impl Default for Surroundings {
    /// The system's.
    fn default() -> Self {
        Self { clock: system_clock(), random: Arc::new(rand::random), computing: Computing::Threads }
    }
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("computing", &self.computing).finish_non_exhaustive()
    }
}

impl Surroundings {
    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// The random part of an id.
    pub(crate) fn random_id_bytes(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&(self.random)().to_le_bytes());
        bytes[8..].copy_from_slice(&(self.random)().to_le_bytes()[..2]);
        bytes
    }
}

/// The clock of this process.
pub fn system_clock() -> Clock {
    Arc::new(crate::clock::now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_take_their_time_and_their_random_part_from_what_was_given() {
        let given = Surroundings {
            clock: Arc::new(|| 7),
            random: Arc::new(|| 0x0807_0605_0403_0201),
            computing: Computing::Inline,
        };
        assert_eq!(given.now_ms(), 7);
        assert_eq!(given.random_id_bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 1, 2]);
        let system = Surroundings::default();
        assert!(system.now_ms() > 1_700_000_000_000);
        assert_ne!(system.random_id_bytes(), system.random_id_bytes());
    }
}
