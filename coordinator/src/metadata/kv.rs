//! The ordered key-value view that `state` and `listing` work on, so that they touch no disk: RocksDB in the product, a
//! `BTreeMap` in tests.

/// Column families of the state. Order and names are part of the disk format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Family {
    /// Applied index and membership of each group.
    Groups,
    /// Everything of the root group.
    Root,
    /// Current version of each key, delete markers too, without inline bytes: all that a plain listing touches.
    Objects,
    /// Older versions of each key.
    Versions,
    /// Bytes of small objects by version: apart, so that listings do not read them.
    Inline,
    /// Uploads and their parts.
    Uploads,
    /// Segments to free, in order.
    Garbage,
    /// Segment -> who refers to it.
    Segments,
}

impl Family {
    pub(super) const ALL: [Self; 8] = [
        Self::Groups,
        Self::Root,
        Self::Objects,
        Self::Versions,
        Self::Inline,
        Self::Uploads,
        Self::Garbage,
        Self::Segments,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Groups => "groups",
            Self::Root => "root",
            Self::Objects => "objects",
            Self::Versions => "versions",
            Self::Inline => "inline",
            Self::Uploads => "uploads",
            Self::Garbage => "garbage",
            Self::Segments => "segments",
        }
    }
}

/// Reading failed: the database is damaged or gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata state: {reason}")]
pub(super) struct KvError {
    pub(super) reason: String,
}

pub(super) type KvResult<T> = Result<T, KvError>;

/// Whether a scan goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    Next,
    Stop,
    /// Go on at the first key at or after the one put into the seek buffer.
    Seek,
}

/// Sees one row: key, value, and where to put a key to go on at.
pub(super) type Visitor<'v> = dyn FnMut(&[u8], &[u8], &mut Vec<u8>) -> KvResult<Scan> + 'v;

/// An ordered view.
pub(super) trait KvView {
    fn get(&self, family: Family, key: &[u8]) -> KvResult<Option<Vec<u8>>>;

    /// Visits keys from `from` on, in order, until `visit` says stop. On `Seek` the visitor has put the next key to
    /// look for into the buffer it was given; it must be greater than the key visited.
    fn scan(&self, family: Family, from: &[u8], visit: &mut Visitor<'_>) -> KvResult<()>;
}

/// Writes to be made at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) writes: Vec<(Family, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    pub(super) fn put(&mut self, family: Family, key: Vec<u8>, value: Vec<u8>) {
        self.writes.push((family, key, Some(value)));
    }

    pub(super) fn delete(&mut self, family: Family, key: Vec<u8>) {
        self.writes.push((family, key, None));
    }

    /// Whether it writes that row.
    pub(super) fn puts(&self, family: Family, key: &[u8]) -> bool {
        self.writes.iter().any(|(of, written, value)| *of == family && written == key && value.is_some())
    }
}

#[cfg(test)]
pub(super) mod memory {
    //! The view as a map.
    use super::{Batch, Family, KvResult, KvView, Scan, Visitor};
    use std::collections::BTreeMap;

    #[derive(Clone, Debug, Default, PartialEq)]
    pub(crate) struct MemoryKv {
        pub(crate) map: BTreeMap<(Family, Vec<u8>), Vec<u8>>,
    }

    impl MemoryKv {
        pub(crate) fn write(&mut self, batch: Batch) {
            for (family, key, value) in batch.writes {
                match value {
                    Some(value) => self.map.insert((family, key), value),
                    None => self.map.remove(&(family, key)),
                };
            }
        }
    }

    impl KvView for MemoryKv {
        fn get(&self, family: Family, key: &[u8]) -> KvResult<Option<Vec<u8>>> {
            Ok(self.map.get(&(family, key.to_vec())).cloned())
        }

        fn scan(&self, family: Family, from: &[u8], visit: &mut Visitor<'_>) -> KvResult<()> {
            let mut at = from.to_vec();
            'seek: loop {
                let mut seek = Vec::new();
                for ((f, key), value) in self.map.range((family, at.clone())..) {
                    if *f != family {
                        return Ok(());
                    }
                    match visit(key, value, &mut seek)? {
                        Scan::Next => {}
                        Scan::Stop => return Ok(()),
                        Scan::Seek => {
                            at = std::mem::take(&mut seek);
                            continue 'seek;
                        }
                    }
                }
                return Ok(());
            }
        }
    }
}
