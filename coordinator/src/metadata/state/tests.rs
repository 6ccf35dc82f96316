//! `apply` against a naive model of a versioned bucket, by random commands.

use super::super::api::{ListRequest, ListVersionsRequest, VersionSelector};
use super::super::command::{
    BucketCreate, BucketFence, BucketRemove, Command, Conditions, Delete, Kind, Once, PartPut, Put, RangeFence,
    SegmentDurable, UploadCreate, WriterOpening,
};
use super::super::kv::memory::MemoryKv;
use super::super::kv::{Family, KvView};
use super::super::listing;
use super::*;
use bytes::Bytes;
use holdfast_proto::SegmentId;
use holdfast_proto::manifest::{Part, Upload, Versioning};
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
    Command { kind: Some(Kind::Put(put)), once: None }
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
    Command { kind: Some(Kind::Delete(delete)), once: None }
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
        let (result, batch) = apply(&kv, 1, 1, &command).unwrap();
        result.unwrap_or_else(|e| panic!("step {number}: {e}"));
        kv.write(batch);
        // The same command again is a retry: nothing changes.
        if matches!(step, Step::Put(..)) {
            let (_, again) = apply(&kv, 1, 1, &command).unwrap();
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

        // In pages of any size the same, with and without rolling up.
        for delimiter in ["", "/"] {
            let whole = ListVersionsRequest { limit: 1000, delimiter: delimiter.to_owned(), ..Default::default() };
            let whole = listing::list_versions(&kv, BUCKET, &whole).unwrap();
            prop_assert_eq!(&whole.next, &None);
            for limit in 1..4 {
                let mut request = ListVersionsRequest { limit, delimiter: delimiter.to_owned(), ..Default::default() };
                let (mut entries, mut common) = (Vec::new(), Vec::new());
                loop {
                    let page = listing::list_versions(&kv, BUCKET, &request).unwrap();
                    prop_assert!(page.entries.len() + page.common_prefixes.len() <= limit);
                    entries.extend(page.entries);
                    common.extend(page.common_prefixes);
                    let Some((key, version)) = page.next else { break };
                    (request.key_marker, request.version_marker) = (key, version);
                }
                prop_assert_eq!(&entries, &whole.entries);
                prop_assert_eq!(&common, &whole.common_prefixes);
            }
        }

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

/// Applies a command and writes what it asks; it must not be refused.
fn carry_out(kv: &mut MemoryKv, kind: Kind) -> Reply {
    let (result, batch) = apply(kv, 1, 1, &Command { kind: Some(kind), once: None }).unwrap();
    kv.write(batch);
    result.unwrap()
}

fn count(kv: &MemoryKv, family: Family) -> usize {
    kv.map.keys().filter(|(found, _)| *found == family).count()
}

#[test]
fn a_retry_of_a_write_behind_the_clock_frees_nothing() {
    let mut kv = MemoryKv::default();
    for versioning in [Versioning::Unversioned, Versioning::Enabled] {
        carry_out(&mut kv, put(50, "a", versioning).kind.unwrap());
        // The clock went back: its id is raised above the one before.
        let late = put(7, "a", versioning).kind.unwrap();
        let Reply::Version(first) = carry_out(&mut kv, late.clone()) else { panic!("no version") };
        assert!(first.version_id() > id(50));
        let before = kv.clone();
        assert_eq!(carry_out(&mut kv, late), Reply::Version(first));
        assert_eq!(kv, before);
        assert!(kv.get(Family::Segments, &id(7).0).unwrap().is_some());
        kv = MemoryKv::default();
    }
}

#[test]
fn a_part_sent_again_after_repair_keeps_its_segments() {
    let mut kv = MemoryKv::default();
    let upload = Bytes::copy_from_slice(&id(9).0);
    let record = Upload { upload: upload.clone(), ..Upload::default() };
    carry_out(&mut kv, Kind::UploadCreate(UploadCreate { bucket: BUCKET.0, key: "a".into(), upload: record }));
    let part = |number: u64| {
        let part = Part { number: 1, part_bytes: 10, segments: vec![segment(number)], ..Part::default() };
        Kind::PartPut(PartPut { bucket: BUCKET.0, key: "a".into(), upload: upload.clone(), part })
    };
    carry_out(&mut kv, part(1));
    let repaired = SegmentDurable { segment: segment(1).id, durable_slots: 63 };
    carry_out(&mut kv, Kind::SegmentDurable(repaired));
    let before = kv.clone();
    carry_out(&mut kv, part(1));
    assert_eq!(kv, before);
    carry_out(&mut kv, part(2));
    assert_eq!(count(&kv, Family::Garbage), 1, "another part under the number replaces it");
    assert!(kv.get(Family::Segments, &id(2).0).unwrap().is_some());
}

#[test]
fn a_delete_that_did_not_see_versioning_come_on_loses_nothing() {
    for first in [Versioning::Unversioned, Versioning::Enabled] {
        let mut kv = MemoryKv::default();
        carry_out(&mut kv, put(1, "a", first).kind.unwrap());
        carry_out(&mut kv, put(2, "a", Versioning::Enabled).kind.unwrap());
        let late = delete(3, "a", VersionSelector::Current, Versioning::Unversioned);
        let Reply::Deleted(deleted) = carry_out(&mut kv, late.kind.unwrap()) else { panic!("not deleted") };
        assert!(deleted.delete_marker);
        for number in [2, 1] {
            let found = find_version(&kv, BUCKET, "a", VersionSelector::Id(id(number))).unwrap();
            assert_eq!(found.is_some(), number == 2 || first == Versioning::Enabled, "version {number}, {first:?}");
        }
        assert!(find_version(&kv, BUCKET, "a", VersionSelector::Current).unwrap().unwrap().1.delete_marker);
    }
}

#[test]
fn only_an_empty_range_is_fenced_and_only_the_bucket_meant_is_removed() {
    let mut kv = MemoryKv::default();
    let fence = |on| Kind::RangeFence(RangeFence { bucket: BUCKET.0, on, at: Default::default() });
    carry_out(&mut kv, put(1, "a", Versioning::Unversioned).kind.unwrap());
    assert_eq!(carry_out(&mut kv, fence(true)), Reply::Fenced { is_empty: false, end: Default::default() });
    carry_out(&mut kv, put(2, "b", Versioning::Unversioned).kind.unwrap());
    for key in ["a", "b"] {
        carry_out(&mut kv, delete(3, key, VersionSelector::Current, Versioning::Unversioned).kind.unwrap());
    }
    assert_eq!(carry_out(&mut kv, fence(true)), Reply::Fenced { is_empty: true, end: Default::default() });
    assert!(apply(&kv, 1, 1, &put(4, "c", Versioning::Unversioned)).unwrap().0.is_err());

    let create = BucketCreate { name: "n".into(), owner: "o".into(), now_ms: 1 };
    let Reply::Bucket(bucket) = carry_out(&mut kv, Kind::BucketCreate(create)) else { panic!("no bucket") };
    let remove = |id| Command { kind: Some(Kind::BucketRemove(BucketRemove { name: "n".into(), id })), once: None };
    assert!(apply(&kv, 0, 1, &remove(bucket.id)).unwrap().0.is_err(), "not fenced");
    carry_out(&mut kv, Kind::BucketFence(BucketFence { name: "n".into(), on: true }));
    assert!(apply(&kv, 0, 1, &remove(bucket.id + 1)).unwrap().0.is_err(), "another bucket");
    assert!(apply(&kv, 0, 1, &remove(bucket.id)).unwrap().0.is_ok());
}

#[test]
fn a_segment_that_belongs_to_another_object_is_refused() {
    let mut kv = MemoryKv::default();
    carry_out(&mut kv, put(1, "a", Versioning::Unversioned).kind.unwrap());
    let Some(Kind::Put(mut stolen)) = put(2, "b", Versioning::Unversioned).kind else { panic!("a put") };
    stolen.version.segments = vec![segment(1)];
    assert!(apply(&kv, 1, 1, &Command { kind: Some(Kind::Put(stolen)), once: None }).unwrap().0.is_err());
    let owner = segment_record(&kv, SegmentId(id(1).0)).unwrap().unwrap().0;
    assert_eq!(owner.key, "a");
}

#[test]
fn a_barred_session_writes_nothing_more() {
    let mut kv = MemoryKv::default();
    let mut number = 0;
    let mut written = |kv: &mut MemoryKv, node: u64, opening: u64| {
        number += 1;
        let once = Once { node, opening, sequence: number, settled: 0 };
        let command = Command { once: Some(once), ..put(number, "a", Versioning::Unversioned) };
        let (result, batch) = apply(kv, 1, number, &command).unwrap();
        kv.write(batch);
        result.map(|_| ())
    };
    let bar = |kv: &mut MemoryKv, node, opening| {
        carry_out(kv, Kind::WriterFence(WriterOpening { node, opening }));
    };
    // Of one that never wrote here, and of one that did; twice, and with an older bar after a newer one.
    for node in [2, 3] {
        if node == 3 {
            assert_eq!(written(&mut kv, node, 4), Ok(()));
        }
        bar(&mut kv, node, 5);
        bar(&mut kv, node, 5);
        bar(&mut kv, node, 2);
        assert_eq!(written(&mut kv, node, 4), Err(MetadataError::Fenced), "node {node}");
        assert_eq!(written(&mut kv, node, 5), Ok(()), "node {node}");
        assert_eq!(written(&mut kv, node, 4), Err(MetadataError::Fenced), "node {node}");
    }
    assert_eq!(written(&mut kv, 4, 1), Ok(()), "others go on");
}
