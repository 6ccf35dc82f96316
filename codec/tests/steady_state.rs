//! Promise: once its coefficients are known, no call of the codec or the pipeline allocates.

#![allow(unsafe_code, reason = "an allocator is an unsafe trait; this one only counts what it passes on")]

use holdfast_codec::pipeline::{CheckedCell, Crc64Nvme, StripeCoder, StripeData};
use holdfast_codec::{Codec, SlotSet, engine};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `f` twice and says how often the second run allocated.
fn second_run(mut f: impl FnMut()) -> usize {
    f();
    let before = ALLOCATIONS.with(Cell::get);
    f();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(second_run(|| drop(std::hint::black_box(Box::new(1u8)))), 1);
}

#[test]
fn nothing_is_allocated_once_coefficients_are_known() {
    for text in ["4+2", "10+4", "20+10", "100+20", "geo-6", "geo-12+", "lrc-12-2-2"] {
        for engine in engine::available() {
            let codec = Codec::with_engine(text.parse().unwrap(), engine);
            let (k, n) = (codec.scheme().k(), codec.scheme().n());
            let cells = vec![vec![7u8; 1000]; n];
            let data: Vec<&[u8]> = cells[..k].iter().map(Vec::as_slice).collect();
            let mut parity = vec![vec![0u8; 1000]; n - k];
            let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
            let present: Vec<(usize, &[u8])> = (2..n).rev().map(|slot| (slot, cells[slot].as_slice())).collect();
            let present_set: SlotSet = (2..n).collect();
            let (mut a, mut b) = (vec![0u8; 1000], vec![0u8; 1000]);
            let mut wanted = [(1, &mut a[..]), (0, &mut b[..])];
            let mut coder = StripeCoder::new(codec.clone());
            let (mut hashes, mut crc) = (vec![[0u8; 32]; n], Crc64Nvme::new());
            let missing: SlotSet = [0].into_iter().collect();
            let plan = codec.repair_plan(&missing, &SlotSet::first(n).difference(&missing), &[]).unwrap();
            let sources: Vec<(usize, &[u8])> = plan.read.iter().map(|&slot| (slot, cells[slot].as_slice())).collect();

            let at = format!("{codec:?}");
            assert_eq!(second_run(|| codec.encode(&data, &mut parity).unwrap()), 0, "{at}: encode");
            assert_eq!(second_run(|| codec.encode_streaming(&data, &mut parity).unwrap()), 0, "{at}: streaming");
            assert_eq!(second_run(|| codec.reconstruct(&present, &mut wanted).unwrap()), 0, "{at}: reconstruct");
            assert_eq!(second_run(|| codec.update(0, &cells[0], &cells[1], &mut parity).unwrap()), 0, "{at}: update");
            assert_eq!(second_run(|| assert!(codec.decodable(&present_set))), 0, "{at}: decodable");
            let mut repaired = [(0, &mut *wanted[1].1)];
            assert_eq!(second_run(|| codec.repair(&plan, &sources, &mut repaired).unwrap()), 0, "{at}: repair");
            let stripe = StripeData { cells: &data, object_bytes: 999 };
            let code = || coder.code(stripe, &mut parity, &mut hashes, &mut [&mut crc]).unwrap();
            assert_eq!(second_run(code), 0, "{at}: code and hash");
            let checked: Vec<CheckedCell<'_>> =
                (2..n).map(|slot| CheckedCell { slot, bytes: &cells[slot], hash: &hashes[0] }).collect();
            let rebuild = || coder.rebuild(&checked, &mut wanted, &mut hashes_of_two()).unwrap();
            assert_eq!(second_run(rebuild), 0, "{at}: rebuild and hash");
        }
    }
}

fn hashes_of_two() -> [[u8; 32]; 2] {
    [[0; 32]; 2]
}
