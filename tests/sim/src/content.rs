//! What clients write: bytes that follow from the number of the write, so that what is read can be held against them.

use crate::linearizability::Value;
use bytes::Bytes;
use md5::{Digest, Md5};
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// From so many bytes on no two writes are alike, nor their ETags. Shorter ones but the empty are not written.
pub const UNIQUE_BYTES_MIN: u64 = 8;

/// Every write that was ever sent: its length and ETag.
#[derive(Default)]
pub struct Written {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By number, from 1 on.
    writes: Vec<(u64, String)>,
    by_etag: BTreeMap<String, Value>,
}

impl Written {
    /// A new write of so many bytes.
    pub fn add(&self, length: u64) -> Value {
        let mut state = self.state.lock();
        let value = Value::try_from(state.writes.len()).unwrap_or(Value::MAX) + 1;
        let etag = hex::encode(Md5::digest(body(value, length)));
        if length > 0 {
            state.by_etag.insert(etag.clone(), value);
        }
        state.writes.push((length, etag));
        value
    }

    /// Whether there was such a write.
    pub fn has(&self, value: Value) -> bool {
        self.get(value).is_some()
    }

    /// Its bytes.
    pub fn length(&self, value: Value) -> u64 {
        self.get(value).map_or(0, |(length, _)| length)
    }

    /// Its ETag.
    pub fn etag(&self, value: Value) -> String {
        self.get(value).map(|(_, etag)| etag).unwrap_or_default()
    }

    /// The write with that ETag. Writes of nothing share one.
    pub fn of_etag(&self, etag: &str) -> Option<Value> {
        self.state.lock().by_etag.get(etag).copied()
    }

    fn get(&self, value: Value) -> Option<(u64, String)> {
        let at = usize::try_from(value.checked_sub(1)?).ok()?;
        self.state.lock().writes.get(at).cloned()
    }
}

/// The bytes of a write.
pub fn body(value: Value, length: u64) -> Bytes {
    let length = usize::try_from(length).unwrap_or(0);
    let mut bytes = Vec::with_capacity(length + 8);
    // An odd factor maps no two numbers to one, and only 0 to 0.
    let mut word = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    while bytes.len() < length {
        // xorshift64 (Marsaglia, 2003): maps no two words to one.
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_differ_and_are_found_by_their_etag() {
        let written = Written::default();
        let lengths = [0, 8, 8, 9, 100, 100, 70_000];
        let values: Vec<Value> = lengths.iter().map(|&length| written.add(length)).collect();
        for (&value, &length) in values.iter().zip(&lengths) {
            assert_eq!((written.length(value), body(value, length).len() as u64), (length, length));
            let found = written.of_etag(&written.etag(value));
            assert_eq!(found, (length > 0).then_some(value), "{length}");
        }
        assert_ne!(body(values[4], 100), body(values[5], 100));
        let short: std::collections::BTreeSet<_> = (1..5000).map(|value| body(value, UNIQUE_BYTES_MIN)).collect();
        assert_eq!(short.len(), 4999);
        assert!(!written.has(0) && !written.has(8) && written.has(7));
    }
}
