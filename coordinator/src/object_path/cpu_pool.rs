//! A few threads for coding and hashing, so that long work of the processor never holds up the async threads.
//!
//! Shell: this file makes threads. Not here: what they compute; how much may be waiting (bounded by `budget`: every job
//! works on buffers whose permits its caller holds).
//!
//! **Invariant:** a job that panics fails alone: its caller gets [`CpuLost`], the thread goes on.

use crate::surroundings::Computing;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::oneshot;

/// A job ended without an answer: it panicked, or the pool was shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a coding job ended without an answer")]
pub(crate) struct CpuLost;

type Job = Box<dyn FnOnce() + Send>;

struct Queue {
    jobs: Mutex<(VecDeque<Job>, bool)>,
    changed: Condvar,
}

/// A fixed number of threads and one queue, first come first served. Dropping it ends the threads after the jobs
/// already queued.
pub(crate) struct CpuPool {
    queue: Arc<Queue>,
    computing: Computing,
}

impl CpuPool {
    /// One thread per processor this process may use; none, if jobs are to run where they are queued.
    pub(crate) fn new(computing: Computing) -> Self {
        let threads = match computing {
            Computing::Threads => std::thread::available_parallelism().map_or(2, usize::from),
            Computing::Inline => 0,
        };
        let queue = Arc::new(Queue { jobs: Mutex::default(), changed: Condvar::new() });
        for number in 0..threads {
            let queue = queue.clone();
            let made = std::thread::Builder::new().name(format!("coding-{number}")).spawn(move || work(&queue));
            if let Err(error) = made {
                tracing::warn!(%error, number, "start coding thread");
            }
        }
        Self { queue, computing }
    }

    /// Queues `job` at once; the future gives its result. Dropping the future does not take the job back.
    pub(crate) fn run<T, F>(&self, job: F) -> impl Future<Output = Result<T, CpuLost>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = move || {
            // The caller may be gone by now.
            let _ = answer.send(job());
        };
        match self.computing {
            Computing::Inline => perform(job),
            Computing::Threads => {
                self.queue.jobs.lock().0.push_back(Box::new(job));
                self.queue.changed.notify_one();
            }
        }
        async move { answered.await.map_err(|_| CpuLost) }
    }
}

impl Drop for CpuPool {
    fn drop(&mut self) {
        self.queue.jobs.lock().1 = true;
        self.queue.changed.notify_all();
    }
}

fn work(queue: &Queue) {
    while let Some(job) = next(queue) {
        perform(job);
    }
}

fn perform(job: impl FnOnce()) {
    // What the job touched is dropped with it; nothing is shared half-changed.
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a coding job panicked");
    }
}

fn next(queue: &Queue) -> Option<Job> {
    let mut jobs = queue.jobs.lock();
    loop {
        if let Some(job) = jobs.0.pop_front() {
            return Some(job);
        }
        if jobs.1 {
            return None;
        }
        queue.changed.wait(&mut jobs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_and_a_panic_stays_alone() {
        for computing in [Computing::Threads, Computing::Inline] {
            let pool = CpuPool::new(computing);
            for _ in 0..20 {
                let lost: Result<(), CpuLost> = pool.run(|| panic!("on purpose")).await;
                assert_eq!(lost, Err(CpuLost));
            }
            let sums = (0..100u64).map(|i| pool.run(move || i * i));
            let sums: Vec<u64> = futures::future::try_join_all(sums).await.unwrap();
            assert_eq!(sums.iter().sum::<u64>(), 328_350);
        }
    }

    #[test]
    fn inline_jobs_run_at_once_on_the_thread_that_queues_them() {
        let run = CpuPool::new(Computing::Inline).run(|| std::thread::current().id());
        let answer = futures::FutureExt::now_or_never(run);
        assert_eq!(answer, Some(Ok(std::thread::current().id())));
    }
}
