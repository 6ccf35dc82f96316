//! The fixed threads that do a backend's disk work, and the queue before them. Callers wait for a permit before they
//! queue anything, so the queue is never longer than the permits there are.
//!
//! Invariant: a job runs at most once; one that never runs is dropped, and whoever waits for its answer learns that.

use super::engine::Engine;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A piece of work for an IO thread.
pub(crate) type Job = Box<dyn FnOnce(&Arc<Engine>) + Send>;

/// First in, first out, for several threads.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    is_stopped: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { items: VecDeque::new(), is_stopped: false }), ready: Condvar::new() }
    }

    /// Queues the item, or gives it back if the queue was stopped.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.is_stopped {
            return Err(item);
        }
        state.items.push_back(item);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for an item; `None` once stopped and empty.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Some(item);
            }
            if state.is_stopped {
                return None;
            }
            self.ready.wait(&mut state);
        }
    }

    /// Waits for items and takes all; `None` once stopped and empty.
    pub(crate) fn pop_all(&self) -> Option<Vec<T>> {
        let mut state = self.state.lock();
        while state.items.is_empty() {
            if state.is_stopped {
                return None;
            }
            self.ready.wait(&mut state);
        }
        Some(state.items.drain(..).collect())
    }

    /// Takes what is there without waiting.
    pub(crate) fn take(&self) -> Vec<T> {
        self.state.lock().items.drain(..).collect()
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().items.is_empty()
    }

    /// Refuses new items. What is queued is still handed out.
    pub(crate) fn stop(&self) {
        self.state.lock().is_stopped = true;
        self.ready.notify_all();
    }
}

/// What an IO thread does until the queue stops.
pub(crate) fn run_jobs(engine: &Arc<Engine>, jobs: &Queue<Job>) {
    while let Some(job) = jobs.pop() {
        // A bug in one job must not take the thread from all others; its caller learns by the dropped answer.
        if catch_unwind(AssertUnwindSafe(|| job(engine))).is_err() {
            tracing::error!(backend = %engine.identity.id, "a disk job panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_queue_hands_out_the_rest_and_refuses_more() {
        let queue = Queue::new();
        queue.push(1).unwrap();
        queue.push(2).unwrap();
        queue.stop();
        assert_eq!(queue.push(3), Err(3));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.pop_all(), Some(vec![2]));
        assert_eq!((queue.pop(), queue.pop_all()), (None, None));
    }
}
