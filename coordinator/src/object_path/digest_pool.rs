//! One thread that computes the MD5 ETags of all uploads together: whatever streams have bytes waiting advance side by
//! side in the lanes of `codec::md5_lanes`, so that 16 uploads cost about what two would alone. CRCs are computed here
//! too, of the bytes just read (0.02 ns a byte; combining the CRCs of batches coded apart took 100 us each).
//!
//! Shell: this file makes a thread. Not here: the hash (`codec`); how many bytes may be waiting (every run of bytes
//! carries the permit of its batch).
//!
//! **Invariant:** the bytes of one stream are taken in the order they were pushed.

use super::api::ObjectError;
use super::checksum::Crc;
use crate::surroundings::Computing;
use bytes::Bytes;
use holdfast_codec::md5_lanes::{BLOCK_BYTES, Md5State, update_lanes};
use parking_lot::Mutex;
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use tokio::sync::oneshot;

/// What keeps the permit of a batch until its bytes are hashed.
pub(crate) type Keep = Arc<dyn Any + Send + Sync>;

/// The pool. Dropping it and all its streams ends the thread.
pub(crate) struct DigestPool {
    orders: Orders,
    next_stream: AtomicU64,
}

/// The way to what computes.
#[derive(Clone)]
enum Orders {
    Thread(mpsc::Sender<Order>),
    /// Carried out at once, by whoever gives the order.
    Inline(Arc<Mutex<Lanes>>),
}

/// The digests of one upload's bytes.
pub(crate) struct Digests {
    pub(crate) md5: [u8; 16],
    /// If one was asked for.
    pub(crate) crc: Option<Box<Crc>>,
}

/// One upload's MD5 and CRC. Dropped unfinished, they are forgotten.
pub(crate) struct DigestStream {
    orders: Orders,
    stream: u64,
    /// Fewer than a block's bytes that wait for the rest of it.
    carry: Vec<u8>,
}

enum Order {
    Push { stream: u64, blocks: Bytes, keep: Option<Keep> },
    Begin { stream: u64, crc: Option<Box<Crc>> },
    Finish { stream: u64, tail: Vec<u8>, answer: oneshot::Sender<Digests> },
    Forget { stream: u64 },
}

impl DigestPool {
    pub(crate) fn new(computing: Computing) -> Self {
        let orders = match computing {
            Computing::Threads => Orders::Thread(start_thread()),
            Computing::Inline => Orders::Inline(Arc::default()),
        };
        Self { orders, next_stream: AtomicU64::new(0) }
    }

    /// A new stream, with this (empty) CRC beside the MD5.
    pub(crate) fn stream(&self, crc: Option<Crc>) -> DigestStream {
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let new = DigestStream { orders: self.orders.clone(), stream, carry: Vec::new() };
        new.order(Order::Begin { stream, crc: crc.map(Box::new) });
        new
    }
}

impl DigestStream {
    /// Queues the stream's next bytes. `keep` is dropped when they are hashed. Does not wait.
    pub(crate) fn push(&mut self, mut bytes: Bytes, keep: &Keep) {
        if !self.carry.is_empty() {
            let missing = bytes.split_to(bytes.len().min(BLOCK_BYTES - self.carry.len()));
            self.carry.extend_from_slice(&missing);
            if self.carry.len() < BLOCK_BYTES {
                return;
            }
            let block = std::mem::take(&mut self.carry);
            self.order(Order::Push { stream: self.stream, blocks: block.into(), keep: None });
        }
        let rest = bytes.split_off(bytes.len() - bytes.len() % BLOCK_BYTES);
        self.carry.extend_from_slice(&rest);
        if !bytes.is_empty() {
            self.order(Order::Push { stream: self.stream, blocks: bytes, keep: Some(keep.clone()) });
        }
    }

    /// The digests of all that was pushed.
    pub(crate) async fn finish(mut self) -> Result<Digests, ObjectError> {
        let (answer, answered) = oneshot::channel();
        let tail = std::mem::take(&mut self.carry);
        self.order(Order::Finish { stream: self.stream, tail, answer });
        answered.await.map_err(|_| ObjectError::Internal { reason: "the digest thread is gone".to_owned() })
    }

    fn order(&self, order: Order) {
        match &self.orders {
            Orders::Thread(orders) => {
                // Without its thread the pool answers nothing, and `finish` says so.
                let _ = orders.send(order);
            }
            Orders::Inline(lanes) => {
                let mut lanes = lanes.lock();
                lanes.take_order(order);
                lanes.round();
                lanes.answer();
            }
        }
    }
}

impl Drop for DigestStream {
    fn drop(&mut self) {
        self.order(Order::Forget { stream: self.stream });
    }
}

fn start_thread() -> mpsc::Sender<Order> {
    let (orders, inbox) = mpsc::channel();
    let made = std::thread::Builder::new().name("digests".to_owned()).spawn(move || Lanes::default().run(&inbox));
    if let Err(error) = made {
        tracing::warn!(%error, "start digest thread");
    }
    orders
}

/// What is worked on.
#[derive(Default)]
struct Lanes {
    streams: HashMap<u64, Lane>,
}

#[derive(Default)]
struct Lane {
    state: Md5State,
    waiting: VecDeque<(Bytes, Option<Keep>)>,
    crc: Option<Box<Crc>>,
    finish: Option<(Vec<u8>, oneshot::Sender<Digests>)>,
}

impl Lanes {
    fn run(mut self, inbox: &mpsc::Receiver<Order>) {
        loop {
            let is_idle = self.streams.values().all(|lane| lane.waiting.is_empty());
            if is_idle {
                let Ok(order) = inbox.recv() else { return };
                self.take_order(order);
            }
            // All that came meanwhile joins the next round: the more streams, the fuller the lanes.
            while let Ok(order) = inbox.try_recv() {
                self.take_order(order);
            }
            self.round();
            self.answer();
        }
    }

    fn take_order(&mut self, order: Order) {
        match order {
            Order::Begin { stream, crc } => {
                self.streams.entry(stream).or_default().crc = crc;
            }
            Order::Push { stream, blocks, keep } => {
                self.streams.entry(stream).or_default().waiting.push_back((blocks, keep));
            }
            Order::Finish { stream, tail, answer } => {
                self.streams.entry(stream).or_default().finish = Some((tail, answer));
            }
            Order::Forget { stream } => {
                // After `Finish` this comes too; the answer is owed still.
                if self.streams.get(&stream).is_some_and(|lane| lane.finish.is_none()) {
                    self.streams.remove(&stream);
                }
            }
        }
    }

    /// Every stream takes in its first waiting run (a cell: short enough that new streams soon join).
    fn round(&mut self) {
        let mut runs: Vec<(&mut Md5State, &[u8])> = self
            .streams
            .values_mut()
            .filter_map(|lane| lane.waiting.front().map(|(bytes, _)| (&mut lane.state, bytes.as_ref())))
            .collect();
        if runs.is_empty() {
            return;
        }
        let done = update_lanes(&mut runs);
        debug_assert!(done.is_ok(), "only whole blocks are queued");
        for lane in self.streams.values_mut() {
            if let (Some((bytes, _keep)), Some(crc)) = (lane.waiting.pop_front(), &mut lane.crc) {
                crc.update(&bytes);
            }
        }
    }

    fn answer(&mut self) {
        self.streams.retain(|_, lane| {
            if !lane.waiting.is_empty() {
                return true;
            }
            let Some((tail, answer)) = lane.finish.take() else { return true };
            let mut crc = lane.crc.take();
            if let Some(crc) = &mut crc {
                crc.update(&tail);
            }
            // The upload may have been given up.
            let _ = answer.send(Digests { md5: std::mem::take(&mut lane.state).finalize(&tail), crc });
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::ChecksumAlgorithm;
    use super::super::checksum::checksum_of;
    use super::*;
    use md5::{Digest, Md5};

    fn bytes(len: usize, seed: u8) -> Bytes {
        (0..len).map(|i| (i as u8).wrapping_mul(31) ^ seed ^ ((i >> 8) as u8)).collect()
    }

    /// Pushes `len` bytes in pieces of `piece` and compares with the reference.
    async fn check(pool: &DigestPool, len: usize, piece: usize, seed: u8) {
        let all = bytes(len, seed);
        let algorithm = ChecksumAlgorithm::Crc32c;
        let mut stream = pool.stream(Crc::new(algorithm));
        let keep: Keep = Arc::new(());
        for at in (0..len).step_by(piece) {
            stream.push(all.slice(at..(at + piece).min(len)), &keep);
        }
        let expected: [u8; 16] = Md5::digest(&all).into();
        let digests = stream.finish().await.unwrap();
        assert_eq!(digests.md5, expected, "{len} bytes in pieces of {piece}");
        assert_eq!(digests.crc.unwrap().value(), checksum_of(algorithm, &all), "{len} bytes in pieces of {piece}");
        assert_eq!(Arc::strong_count(&keep), 1, "permits are given back");
    }

    #[tokio::test]
    async fn one_stream_in_any_pieces() {
        for computing in [Computing::Threads, Computing::Inline] {
            let pool = DigestPool::new(computing);
            for (len, piece) in
                [(0, 1), (1, 1), (63, 7), (64, 64), (65, 64), (1000, 1), (1000, 63), (70_000, 65_536), (130, 65)]
            {
                check(&pool, len, piece, 3).await;
            }
        }
    }

    #[tokio::test]
    async fn many_streams_at_once_and_some_given_up() {
        let pool = DigestPool::new(Computing::Threads);
        let keep: Keep = Arc::new(());
        let mut given_up = pool.stream(None);
        given_up.push(bytes(640, 9), &keep);
        let checks = (0..40u8).map(|i| check(&pool, 1000 * usize::from(i) + 17, 4096 + usize::from(i), i));
        futures::future::join_all(checks).await;
        drop(given_up);
        check(&pool, 5000, 640, 1).await;
    }
}
