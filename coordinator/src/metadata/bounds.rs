//! Which keys a range holds, and a view that shows a range's keys only.
//!
//! A border is (bucket, salt, key) as in `Objects`. The families with escaped keys are in the same order, so a border has
//! a form for them, too. On one machine the rows of all its ranges lie side by side; what a command sees must not depend
//! on which other ranges that machine happens to keep, so commands and queries work on a `RangeView`.

use super::keys;
use super::kv::{Family, KvResult, KvView, Scan, Visitor};
use super::state::{decode, owner_of};
use bytes::Bytes;
use holdfast_proto::BucketId;

/// A range as its group records it (row `range` of family `groups`). Group 1 without one holds every key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Bounds {
    /// First border that belongs to it; empty: from the first key.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) start: Bytes,
    /// First border that no longer belongs to it; empty: to the last key.
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) end: Bytes,
    /// Grows with each change.
    #[prost(uint64, tag = "3")]
    pub(super) epoch: u64,
    /// The group it was split from; 0: none.
    #[prost(uint32, tag = "4")]
    pub(super) parent: u32,
    /// Index of the split in the parent's log.
    #[prost(uint64, tag = "5")]
    pub(super) split_index: u64,
}

impl Bounds {
    /// Every key.
    pub(super) fn everything() -> Self {
        Self { epoch: 1, ..Self::default() }
    }

    /// No key.
    pub(super) fn nothing() -> Self {
        // No border is so short.
        Self { start: Bytes::from_static(&[0]), end: Bytes::from_static(&[0]), ..Self::default() }
    }

    /// Whether a border lies within.
    pub(super) fn contains(&self, border: &[u8]) -> bool {
        border >= &self.start[..] && (self.end.is_empty() || border < &self.end[..])
    }

    /// Whether any border lies within both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let begins_before = |one: &Self, end: &[u8]| end.is_empty() || one.start < end;
        begins_before(self, &other.end) && begins_before(other, &self.end)
    }

    /// Whether a key lies within.
    pub(super) fn contains_key(&self, bucket: BucketId, key: &str) -> bool {
        self.is_everything() || self.contains(&keys::object(bucket, key))
    }

    fn is_everything(&self) -> bool {
        self.start.is_empty() && self.end.is_empty()
    }

    /// First and last (exclusive; empty for none) key of a family that is ordered by object key.
    pub(super) fn of_family(&self, family: Family) -> (Vec<u8>, Vec<u8>) {
        match family {
            Family::Versions | Family::Uploads => (keys::escaped_border(&self.start), keys::escaped_border(&self.end)),
            _ => (self.start.to_vec(), self.end.to_vec()),
        }
    }

    /// What group `group` records of itself.
    pub(super) fn load<V: KvView>(view: &V, group: u32) -> KvResult<Self> {
        match view.get(Family::Groups, &keys::group_row(group, keys::RANGE_ROW))? {
            Some(stored) => decode(Family::Groups, &stored),
            None => Ok(Self::everything()),
        }
    }
}

/// The families that are ordered by object key.
pub(super) const KEYED: [Family; 3] = [Family::Objects, Family::Versions, Family::Uploads];

/// What a range sees of the state.
pub(super) struct RangeView<'v, V> {
    view: &'v V,
    bounds: Bounds,
}

impl<'v, V: KvView> RangeView<'v, V> {
    /// Of group `group`, by the bounds it records.
    pub(super) fn of_group(view: &'v V, group: u32) -> KvResult<Self> {
        Ok(Self { view, bounds: Bounds::load(view, group)? })
    }

    /// Its bounds.
    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    fn owns_segment_row(&self, row: &[u8]) -> KvResult<bool> {
        let (bucket, key) = owner_of(row)?;
        Ok(self.bounds.contains_key(bucket, &key))
    }
}

impl<V: KvView> KvView for RangeView<'_, V> {
    fn get(&self, family: Family, key: &[u8]) -> KvResult<Option<Vec<u8>>> {
        let found = self.view.get(family, key)?;
        if self.bounds.is_everything() {
            return Ok(found);
        }
        let Some(value) = found else { return Ok(None) };
        let is_ours = if KEYED.contains(&family) {
            let (start, end) = self.bounds.of_family(family);
            key >= start.as_slice() && (end.is_empty() || key < end.as_slice())
        } else if family == Family::Segments {
            self.owns_segment_row(&value)?
        } else {
            true
        };
        Ok(is_ours.then_some(value))
    }

    fn scan(&self, family: Family, from: &[u8], visit: &mut Visitor<'_>) -> KvResult<()> {
        if self.bounds.is_everything() {
            return self.view.scan(family, from, visit);
        }
        if KEYED.contains(&family) {
            let (start, end) = self.bounds.of_family(family);
            let from = from.max(start.as_slice());
            return self.view.scan(family, from, &mut |key, value, seek| {
                if !end.is_empty() && key >= end.as_slice() { Ok(Scan::Stop) } else { visit(key, value, seek) }
            });
        }
        if family == Family::Segments {
            return self.view.scan(family, from, &mut |key, value, seek| {
                if self.owns_segment_row(value)? { visit(key, value, seek) } else { Ok(Scan::Next) }
            });
        }
        self.view.scan(family, from, visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::kv::memory::MemoryKv;
    use holdfast_proto::VersionId;

    #[test]
    fn a_border_parts_every_family_alike() {
        let names = ["", "a", "a\0", "a\0b", "a\u{1}", "ab", "b", "ü"];
        for border in names {
            let border_key = keys::object(BucketId(7), border);
            let escaped = keys::escaped_border(&border_key);
            for name in names {
                let is_left = name < border;
                assert_eq!(keys::object(BucketId(7), name) < border_key, is_left, "{name:?} {border:?}");
                assert_eq!(keys::version(BucketId(7), name, VersionId([0xFF; 16])) < escaped, is_left);
                assert_eq!(keys::version(BucketId(7), name, VersionId([0; 16])) < escaped, is_left);
            }
        }
    }

    #[test]
    fn a_range_sees_its_own_keys_only() {
        let mut kv = MemoryKv::default();
        for name in ["a", "m", "z"] {
            kv.map.insert((Family::Objects, keys::object(BucketId(1), name)), name.into());
        }
        let border: Bytes = keys::object(BucketId(1), "m").into();
        let left = Bounds { end: border.clone(), ..Bounds::everything() };
        let right = Bounds { start: border, ..Bounds::everything() };
        for (bounds, expected) in
            [(left, vec!["a"]), (right, vec!["m", "z"]), (Bounds::everything(), vec!["a", "m", "z"])]
        {
            let view = RangeView { view: &kv, bounds };
            let mut seen = Vec::new();
            view.scan(Family::Objects, &[], &mut |_, value, _| {
                seen.push(String::from_utf8_lossy(value).into_owned());
                Ok(Scan::Next)
            })
            .unwrap();
            assert_eq!(seen, expected);
            for name in ["a", "m", "z"] {
                let found = view.get(Family::Objects, &keys::object(BucketId(1), name)).unwrap().is_some();
                assert_eq!(found, expected.contains(&name));
            }
        }
    }
}
