//! Fuzz target: every public call of the codec with arguments made of the input. `cargo +nightly fuzz run codec`, in
//! the folder `codec`.

#![no_main]

mod body;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| body::run(bytes));
