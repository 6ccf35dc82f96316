//! `apply` against a naive model of a versioned bucket, by random commands.

use super::super::api::{ListRequest, ListVersionsRequest, VersionSelector};
use super::super::command::{Command, Conditions, Delete, Kind, Put};
use super::super::kv::memory::MemoryKv;
use super::super::kv::{Family, KvView};
use super::super::listing;
use super::*;
use bytes::Bytes;
use holdfast_proto::manifest::Versioning;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const BUCKET: BucketId = BucketId(3);

/// The model: versions of each key, newest first, as (id, is null, is marker).
type Model = BTreeMap<String, Vec<(VersionId, bool, bool)>>;

#[derive(Clone, Debug)]
enum Step {
    Put(u8, Versioning),
    Delete(u8, Versioning),
    DeleteNth(u8, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let versioning = prop_oneof![Just(Versioning::Enabled), Just(Versioning::Suspended), Just(Versioning::Unversioned)];
    let step = prop_oneof![
        3 => (0..4u8, versioning.clone()).prop_map(|(k, v)| Step::Put(k, v)),
        1 => (0..4u8, versioning).prop_map(|(k, v)| Step::Delete(k, v)),
        1 => (0..4u8, 0..4u8).prop_map(|(k, n)| Step::DeleteNth(k, n)),
    ];
    // A bucket is unversioned until versioning is first set, never after.
    proptest::collection::vec(step, 0..40).prop_map(|mut steps| {
        let mut ever = false;
        for step in &mut steps {
            if let Step::Put(_, v) | Step::Delete(_, v) = step {
                ever |= *v != Versioning::Unversioned;
                if ever && *v == Versioning::Unversioned {
                    *v = Versioning::Suspended;
                }
            }
        }
        steps
    })
}

fn key(number: u8) -> String {
    ["a", "a\0b", "b/1", "b/2"][usize::from(number)].to_owned()
}

fn id(number: u64) -> VersionId {
    VersionId::from_parts(number, [0; 10])
}

fn segment(number: u64) -> Segment {
    Segment { id: Bytes::copy_from_slice(&id(number).0), segment_bytes: 10, ..Segment::default() }
}

fn put(number: u64, key: &str, versioning: Versioning) -> Command {
    let version = ObjectVersion {
        version: Bytes::copy_from_slice(&id(number).0),
        object_bytes: 10,
        etag: format!("e{number}"),
        segments: vec![segment(number)],
        ..ObjectVersion::default()
    };
    let put = Put {
        bucket: BUCKET.0,
        key: key.to_owned(),
        version,
        versioning: versioning as i32,
        conditions: Conditions::default(),
    };
    Command { kind: Some(Kind::Put(put)) }
}

fn delete(number: u64, key: &str, selector: VersionSelector, versioning: Versioning) -> Command {
    let delete = Delete {
        bucket: BUCKET.0,
        key: key.to_owned(),
        selector: selector.into(),
        versioning: versioning as i32,
        marker: Bytes::copy_from_slice(&id(number).0),
        now_ms: number,
        owner: "o".to_owned(),
        conditions: Conditions::default(),
    };
    Command { kind: Some(Kind::Delete(delete)) }
}

fn add(model: &mut Model, key: String, entry: (VersionId, bool, bool)) {
    let versions = model.entry(key).or_default();
    if entry.1 {
        versions.retain(|(_, null, _)| !null);
    }
    versions.insert(0, entry);
}

fn run(steps: &[Step]) -> (MemoryKv, Model) {
    let mut kv = MemoryKv::default();
    let mut model = Model::new();
    for (number, step) in steps.iter().enumerate() {
        let number = number as u64 + 1;
        let command = match step {
            Step::Put(k, versioning) => {
                let null = *versioning != Versioning::Enabled;
                add(&mut model, key(*k), (id(number), null, false));
                put(number, &key(*k), *versioning)
            }
            Step::Delete(k, versioning) => {
                match versioning {
                    Versioning::Unversioned => drop(model.remove(&key(*k))),
                    v => add(&mut model, key(*k), (id(number), *v == Versioning::Suspended, true)),
                }
                delete(number, &key(*k), VersionSelector::Current, *versioning)
            }
            Step::DeleteNth(k, nth) => {
                let versions = model.entry(key(*k)).or_default();
                let Some(&(found, null, _)) = versions.get(usize::from(*nth)) else { continue };
                versions.remove(usize::from(*nth));
                let selector = if null { VersionSelector::Null } else { VersionSelector::Id(found) };
                delete(number, &key(*k), selector, Versioning::Enabled)
            }
        };
        let (result, batch) = apply(&kv, 1, &command).unwrap();
        result.unwrap_or_else(|e| panic!("step {number}: {e}"));
        kv.write(batch);
        // The same command again is a retry: nothing changes.
        if matches!(step, Step::Put(..)) {
            let (_, again) = apply(&kv, 1, &command).unwrap();
            assert!(again.writes.is_empty(), "a retried put wrote again");
        }
    }
    model.retain(|_, versions| !versions.is_empty());
    (kv, model)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn versions_are_those_of_the_model(steps in steps()) {
        let (kv, model) = run(&steps);
        let request = ListVersionsRequest { limit: 1000, ..ListVersionsRequest::default() };
        let page = listing::list_versions(&kv, BUCKET, &request).unwrap();
        let mut found: BTreeMap<String, Vec<(String, bool, bool)>> = BTreeMap::new();
        for entry in page.entries {
            found.entry(entry.entry.key).or_default().push((entry.version, entry.is_latest, entry.delete_marker));
        }
        let expected: BTreeMap<String, Vec<(String, bool, bool)>> = model
            .iter()
            .map(|(key, versions)| {
                let shown = versions.iter().enumerate().map(|(i, (id, null, marker))| {
                    (if *null { "null".to_owned() } else { id.to_string() }, i == 0, *marker)
                });
                (key.clone(), shown.collect())
            })
            .collect();
        prop_assert_eq!(found, expected);

        let listed: Vec<String> = listing::list(&kv, BUCKET, &ListRequest { limit: 1000, ..ListRequest::default() })
            .unwrap().entries.into_iter().map(|e| e.key).collect();
        let current: Vec<String> = model.iter().filter(|(_, v)| !v[0].2).map(|(k, _)| k.clone()).collect();
        prop_assert_eq!(listed, current);

        // Every segment ever written is referenced by a living version or is garbage, never both, never neither.
        let living: BTreeSet<_> = model.values().flatten().filter(|(_, _, marker)| !marker).map(|(id, ..)| *id).collect();
        let mut garbage = BTreeSet::new();
        for ((family, _), value) in &kv.map {
            if *family == Family::Garbage {
                let freed: Segment = decode(Family::Garbage, value).unwrap();
                prop_assert!(garbage.insert(freed.segment_id().0), "freed twice");
            }
        }
        for (number, step) in steps.iter().enumerate() {
            if matches!(step, Step::Put(..)) {
                let segment = id(number as u64 + 1);
                let owned = kv.get(Family::Segments, &segment.0).unwrap().is_some();
                prop_assert_eq!(owned, living.contains(&segment));
                prop_assert_eq!(garbage.contains(&segment.0), !living.contains(&segment));
            }
        }
    }
}
