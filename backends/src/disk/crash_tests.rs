//! The engine on a disk that loses power, refuses writes and fails syncs. After every such end the directory is opened
//! anew: what was acknowledged must be there whole, and nothing may come out that was never written.

use super::simulated::{Injected, SimulatedDisk};
use super::*;
use crate::contract::{CLUSTER, get, joined, sample_cells, sample_header};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

const BACKEND: BackendId = BackendId([0xb2; 16]);
const SHARDS: u64 = 8;
/// Packed, at the boundary, and written in several runs.
const SIZES: [u64; 6] = [100, 9_000, 120_000, 131_072, 300_000, 700_000];

fn header(shard: u64, version: u64) -> ShardHeader {
    ShardHeader { shard_bytes: SIZES[usize::try_from((shard + version) % 6).unwrap()], ..sample_header(shard) }
}

/// What a shard may turn out to be after a crash: a version, or not there.
type Outcomes = BTreeSet<Option<u64>>;

/// Backends in succession, each on what the one before left.
struct Story {
    /// Goes before its directory does.
    backend: Option<DiskBackend>,
    disk: SimulatedDisk,
    place: tempfile::TempDir,
    allowed: BTreeMap<u64, Outcomes>,
    versions: u64,
    random: StdRng,
    runtime: tokio::runtime::Runtime,
}

impl Story {
    fn begin(seed: u64) -> Self {
        let place = temporary();
        DiskBackend::format(place.path(), CLUSTER, BACKEND, "d1").unwrap();
        let allowed = (0..SHARDS).map(|shard| (shard, Outcomes::from([None]))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let disk = SimulatedDisk::new(seed);
        let random = StdRng::seed_from_u64(seed);
        let mut story = Self { disk, place, backend: None, allowed, versions: 0, random, runtime };
        story.open();
        story
    }

    fn options(&self) -> DiskOptions {
        DiskOptions {
            reserve_bytes: Some(0),
            extent_bytes_max: 2 << 20,
            upkeep: Upkeep::Manual,
            ..DiskOptions::default()
        }
    }

    fn open(&mut self) {
        let options = self.options();
        let disk = Arc::new(self.disk.clone());
        let backend = DiskBackend::open_on(disk, self.place.path(), CLUSTER, BACKEND, options).unwrap();
        assert_eq!(backend.findings(), [""; 0], "a crash is nothing to report");
        self.backend = Some(backend);
    }

    /// Plans the fault; when the power goes, the index is set aside as it is in that moment.
    fn inject(&self, injected: Option<Injected>) {
        let (from, to) = (self.place.path().join(INDEX_NAME), self.place.path().join("index.at-cut"));
        self.disk.inject(injected, move || copy_index(&from, &to));
    }

    /// Ends this backend by a power cut, if it has not come yet, and opens the next on what is left.
    fn crash(&mut self, keep_index: bool) {
        let seed = self.random.random();
        let disk = self.disk.after_power_cut(seed);
        self.backend = None;
        let place = temporary();
        let copy = |name: &str| std::fs::copy(self.place.path().join(name), place.path().join(name)).unwrap();
        copy(identity::IDENTITY_NAME);
        if keep_index {
            std::fs::rename(self.place.path().join("index.at-cut"), place.path().join(INDEX_NAME)).unwrap();
        }
        self.place = place;
        self.disk = disk;
        self.open();
    }

    fn backend(&self) -> &DiskBackend {
        self.backend.as_ref().unwrap()
    }

    /// One random step. Errors are expected once the power is gone.
    fn step(&mut self) {
        match self.random.random_range(0..10) {
            0..4 => {
                let shard = self.random.random_range(0..SHARDS);
                self.put(&[shard]);
            }
            4..6 => {
                let shards: Vec<u64> = (0..SHARDS).filter(|_| self.random.random()).collect();
                self.put(&shards);
            }
            6..8 => self.delete(),
            8 => self.abandon(),
            _ => self.maintain(),
        }
    }

    /// Writes shards at the same time, so that they share a sync.
    fn put(&mut self, shards: &[u64]) {
        let mut writes = Vec::new();
        for &shard in shards {
            self.versions += 1;
            writes.push((shard, self.versions));
            self.allowed.get_mut(&shard).unwrap().insert(Some(self.versions));
        }
        let backend = self.backend.as_ref().unwrap();
        let puts = writes.iter().map(async |&(shard, version)| {
            let header = header(shard, version);
            crate::contract::put(backend, &header, sample_cells(&header, version)).await.is_ok()
        });
        let acknowledged = self.runtime.block_on(futures::future::join_all(puts));
        for ((shard, version), is_acknowledged) in writes.into_iter().zip(acknowledged) {
            if is_acknowledged {
                self.allowed.insert(shard, Outcomes::from([Some(version)]));
            }
        }
    }

    fn delete(&mut self) {
        let shard = self.random.random_range(0..SHARDS);
        self.allowed.get_mut(&shard).unwrap().insert(None);
        // An acknowledged delete may be undone by a crash: the old outcomes stay possible.
        let _ = self.runtime.block_on(self.backend().delete(vec![header(shard, 0).id]));
    }

    fn abandon(&mut self) {
        let shard = self.random.random_range(0..SHARDS);
        let header = header(shard, 5);
        let taken = self.random.random_range(0..=header.cell_count() as usize);
        let backend = self.backend.as_ref().unwrap();
        self.runtime.block_on(async {
            if let Ok(mut writer) = backend.begin(header.clone()).await {
                let _ = writer.append(sample_cells(&header, u64::MAX)[..taken].to_vec()).await;
            }
        });
    }

    fn maintain(&mut self) {
        let before: BTreeMap<u64, bool> = (0..SHARDS).map(|shard| (shard, self.is_there(shard))).collect();
        // An index flushed after the power went is not in what the cut left.
        if self.backend().maintain().is_ok() && !self.disk.is_cut() {
            for (shard, is_there) in before {
                if !is_there {
                    self.allowed.insert(shard, Outcomes::from([None]));
                }
            }
        }
    }

    fn is_there(&self, shard: u64) -> bool {
        let stat = self.runtime.block_on(self.backend().stat(header(shard, 0).id));
        !matches!(stat, Ok(None))
    }

    /// Every shard is one of the things it may be; from now on it is that.
    fn check(&mut self, context: &str) {
        for shard in 0..SHARDS {
            let allowed = &self.allowed[&shard];
            let stat = self.runtime.block_on(self.backend().stat(header(shard, 0).id)).unwrap();
            let found = stat.map(|_| self.version_of(shard, allowed, context));
            assert!(allowed.contains(&found), "{context}: shard {shard} is {found:?}, may be {allowed:?}");
            self.allowed.insert(shard, Outcomes::from([found]));
        }
    }

    fn version_of(&self, shard: u64, allowed: &Outcomes, context: &str) -> u64 {
        let cells = |version| header(shard, version).cell_count();
        for version in allowed.iter().flatten() {
            let read = self.runtime.block_on(self.backend().read(header(shard, 0).id, 0, cells(*version), None));
            let Ok(read) = read else { continue };
            assert!(read.damaged.is_empty(), "{context}: shard {shard} lost cells {:?}", read.damaged);
            if read.bytes == joined(&sample_cells(&header(shard, *version), *version)) {
                return *version;
            }
        }
        let engine = self.backend().running.lock().as_ref().unwrap().engine.clone();
        let entry = engine.ledger.index().get(&header(shard, 0).id);
        let read = self.runtime.block_on(self.backend().read(header(shard, 0).id, 0, 1, None)).map(|read| read.damaged);
        let others = (0..=self.versions).filter(|&version| {
            let header = header(shard, version);
            let read = self.runtime.block_on(get(self.backend(), &header));
            read.is_ok_and(|read| read.bytes == joined(&sample_cells(&header, version)))
        });
        let others: Vec<u64> = others.collect();
        panic!("{context}: shard {shard} is none of {allowed:?} but {others:?}; {entry:?} {read:?}");
    }
}

/// In memory where there is such a place: only the index is really written, some thousands of times.
fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// An image of an index in use, as a power cut in some one moment might leave it. RocksDB's tables are whole and synced
/// before its manifest names them and never change; the manifest grows with every change of what it names. So where no
/// name came or went and the manifest did not grow while all was copied, the image is what was there all that time. It
/// is not a checkpoint of RocksDB's: that would flush what the cut must lose.
fn copy_index(from: &Path, to: &Path) {
    for _ in 0..1_000 {
        let _ = std::fs::remove_dir_all(to);
        std::fs::create_dir(to).unwrap();
        let before = state_of(from);
        let is_copied = before.keys().filter(|name| *name != "LOCK").all(|name| {
            let (source, target) = (from.join(name), to.join(name));
            let is_table = name.ends_with(".sst");
            let done =
                if is_table { std::fs::hard_link(source, target) } else { std::fs::copy(source, target).map(drop) };
            done.is_ok() // else a compaction or a flush has just taken it away
        });
        if is_copied && state_of(from) == before {
            return;
        }
    }
    panic!("the index never held still");
}

/// The names there, and the length of the manifest.
fn state_of(directory: &Path) -> BTreeMap<String, Option<u64>> {
    let entries = std::fs::read_dir(directory).unwrap().filter_map(Result::ok);
    let state = entries.map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let is_manifest = name.starts_with("MANIFEST");
        (name, if is_manifest { entry.metadata().ok().map(|found| found.len()) } else { None })
    });
    state.collect()
}

/// Power cuts at random moments, several in a row on the same data.
fn crash_stories(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut story = Story::begin(seed);
        for round in 0..4 {
            let context = format!("seed {seed}, round {round}");
            let cut = story.random.random_range(1..120);
            story.inject(Some(Injected::PowerCut(cut)));
            for _ in 0..25 {
                story.step();
            }
            story.crash(true);
            story.check(&context);
        }
    }
}

#[test]
fn power_cuts_lose_nothing_acknowledged() {
    // More of them, or one that failed: HOLDFAST_CRASH_SEEDS=17..18
    let asked = std::env::var("HOLDFAST_CRASH_SEEDS").ok();
    let range = asked.as_deref().and_then(|text| text.split_once(".."));
    let seeds = range.map_or(0..25, |(from, to)| from.parse().unwrap()..to.parse().unwrap());
    crash_stories(seeds);
}

/// Every single moment of one fixed story.
#[test]
fn a_power_cut_at_any_call_loses_nothing_acknowledged() {
    let tell = |cut: Option<u64>| {
        let mut story = Story::begin(99);
        story.inject(cut.map(Injected::PowerCut));
        story.put(&[0, 1]);
        story.put(&[2]);
        story.delete();
        story.put(&[0, 3]);
        story.maintain();
        story.put(&[4, 2]);
        story.abandon();
        story.delete();
        story.maintain();
        story.put(&[5]);
        let changes = story.disk.changes();
        story.crash(true);
        story.check(&format!("cut at {cut:?}"));
        // And life goes on.
        story.put(&[0, 1, 2, 3, 4, 5, 6, 7]);
        story.check(&format!("after the cut at {cut:?}"));
        assert!(story.allowed.values().all(|outcomes| !outcomes.contains(&None)));
        changes
    };
    let changes = tell(None);
    assert!(changes > 20, "only {changes} moments to cut at");
    for cut in 1..=changes {
        tell(Some(cut));
    }
}

#[test]
fn a_power_cut_and_a_lost_index_lose_nothing_acknowledged() {
    for seed in 200..212 {
        let mut story = Story::begin(seed);
        story.inject(Some(Injected::PowerCut(story.random.clone().random_range(20..120))));
        for _ in 0..6 {
            let shards: Vec<u64> = (0..SHARDS).filter(|_| story.random.random()).collect();
            story.put(&shards);
            story.abandon();
        }
        story.crash(false);
        story.check(&format!("seed {seed}"));
    }
}

#[test]
fn a_failed_sync_ends_writing_and_acknowledges_nothing() {
    for number in 1..6 {
        let mut story = Story::begin(300 + number);
        story.put(&[0, 1]);
        story.inject(Some(Injected::SyncError(number)));
        for shard in [2, 3, 4, 5, 6, 7, 0] {
            story.put(&[shard]);
        }
        let backend = story.backend();
        let status = story.runtime.block_on(backend.status());
        assert_eq!(status.health, BackendHealth::ReadOnly, "sync {number}: {}", status.reason);
        let begun = story.runtime.block_on(backend.begin(header(0, 0))).map(|_| ());
        assert!(matches!(begun, Err(ShardError::ReadOnly { .. })), "{begun:?}");
        let read = story.runtime.block_on(get(backend, &header(1, 2)));
        assert!(read.is_ok(), "what was acknowledged before is still served: {read:?}");
        story.crash(true);
        story.check(&format!("sync {number}"));
    }
}

#[test]
fn a_failed_write_ends_writing_and_no_room_is_only_a_refusal() {
    for number in 1..6 {
        let mut story = Story::begin(400 + number);
        story.put(&[0, 1]);
        story.inject(Some(Injected::WriteError(number)));
        (2..8).for_each(|shard| story.put(&[shard]));
        assert_eq!(story.runtime.block_on(story.backend().status()).health, BackendHealth::ReadOnly, "write {number}");
        story.crash(true);
        story.check(&format!("write {number}"));

        let mut story = Story::begin(500 + number);
        story.put(&[0, 1]);
        story.inject(Some(Injected::NoSpace(number)));
        (2..8).for_each(|shard| story.put(&[shard]));
        assert_eq!(story.runtime.block_on(story.backend().status()).health, BackendHealth::Online, "write {number}");
        let refused = (2..8).filter(|shard| story.allowed[shard].len() > 1).count();
        assert_eq!(refused, 1, "one write found no room");
        story.maintain();
        story.put(&[2, 3, 4, 5, 6, 7]);
        story.check(&format!("no room at write {number}"));
        story.crash(true);
        story.check(&format!("no room at write {number}, after a crash"));
    }
}

#[test]
fn a_flipped_bit_in_the_tail_costs_one_shard_at_most() {
    for offset in (4_096..400_000).step_by(37_003) {
        let mut story = Story::begin(600);
        (0..SHARDS).for_each(|shard| story.put(&[shard]));
        let engine = story.backend().running.lock().as_ref().unwrap().engine.clone();
        let hit: Vec<u64> = (0..SHARDS)
            .filter(|&shard| {
                let room = engine.ledger.index().get(&header(shard, 0).id).unwrap().unwrap().room;
                room.extent == 1 && (room.offset..room.end()).contains(&(offset as u64))
            })
            .collect();
        drop(engine);
        story.inject(None);
        story.disk.cut_power();
        story.disk.flip("00000001.ext", offset);
        story.crash(true);
        for shard in 0..SHARDS {
            let is_there = story.is_there(shard);
            assert!(is_there || hit.contains(&shard), "offset {offset}: shard {shard} is gone, hit was {hit:?}");
        }
    }
}

#[test]
fn room_given_up_at_the_end_of_an_extent_is_nothing_to_report_after_a_cut() {
    for seed in 0..24 {
        let mut story = Story::begin(700 + seed);
        story.put(&[0, 1]);
        let header = ShardHeader { shard_bytes: 700_000, ..sample_header(3) };
        // The last of them begins an extent, whose growth nobody syncs.
        for _ in 0..3 {
            story.runtime.block_on(async {
                let mut writer = story.backend().begin(header.clone()).await.unwrap();
                writer.append(sample_cells(&header, 1)).await.unwrap();
            });
            let backend = story.backend().running.lock();
            while backend.as_ref().unwrap().engine.abandoned.is_empty() {
                std::thread::yield_now();
            }
            backend.as_ref().unwrap().engine.free_abandoned().unwrap();
        }
        // The index learns that the room was given up; the growth is lost with the power before the hole is made.
        story.inject(Some(Injected::PowerCut(1)));
        story.maintain();
        story.crash(true);
        story.check(&format!("seed {seed}"));
        story.put(&[0, 1, 2, 3]);
        story.check(&format!("seed {seed}, after the cut"));
    }
}

#[test]
fn what_the_device_does_not_read_today_is_not_forgotten() {
    for is_all in [true, false] {
        let mut story = Story::begin(800);
        story.put(&[0, 1, 2]);
        story.maintain();
        story.put(&[3]); // in no checkpoint: only a scan finds them
        story.put(&[4]);
        let engine = story.backend().running.lock().as_ref().unwrap().engine.clone();
        let tail = engine.ledger.index().get(&header(3, 0).id).unwrap().unwrap().room.offset;
        drop(engine);
        story.inject(None);
        story.disk.cut_power();
        let seed = story.random.random();
        let disk = story.disk.after_power_cut(seed);
        story.backend = None;
        let index = story.place.path().join(INDEX_NAME);
        std::fs::remove_dir_all(&index).unwrap();
        std::fs::rename(story.place.path().join("index.at-cut"), &index).unwrap();

        let options = story.options();
        let place = story.place.path();
        let open = || DiskBackend::open_on(Arc::new(disk.clone()), place, CLUSTER, BACKEND, options.clone()).unwrap();
        disk.set_unreadable(Some(("00000001.ext", if is_all { 0 } else { tail })));
        let backend = open();
        assert!(
            backend.findings().iter().any(|finding| finding.contains("cannot be read")),
            "{:?}",
            backend.findings()
        );
        for shard in 0..5 {
            let stat = story.runtime.block_on(backend.stat(header(shard, 0).id)).unwrap();
            assert_eq!(stat.is_some(), !is_all && shard < 3, "shard {shard} counts as missing");
        }
        drop(backend);
        disk.set_unreadable(None);
        let backend = open();
        assert_eq!(backend.findings(), [""; 0]);
        for (shard, version) in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)] {
            let header = header(shard, version);
            let read = story.runtime.block_on(get(&backend, &header)).unwrap();
            assert_eq!(read.bytes, joined(&sample_cells(&header, version)), "shard {shard}");
        }
    }
}

#[test]
fn a_shortage_of_descriptors_refuses_one_shard_and_no_more() {
    let mut story = Story::begin(900);
    story.inject(Some(Injected::NoDescriptor));
    story.put(&[0]);
    assert_eq!(story.allowed[&0].len(), 2, "the shard was refused");
    let status = story.runtime.block_on(story.backend().status());
    assert_eq!(status.health, BackendHealth::Online, "{}", status.reason);
    story.put(&[0, 1]);
    story.check("after the shortage");
}

#[test]
fn an_index_that_finds_no_room_is_not_flushed_and_goes_on_when_there_is() {
    let mut story = Story::begin(1_000);
    story.put(&[0, 1, 2]);
    story.disk.set_free(1 << 20);
    let backend = story.backend();
    let full = story.runtime.block_on(backend.delete(vec![header(0, 0).id]));
    assert!(matches!(full, Err(ShardError::Full { .. })), "{full:?}");
    let full = backend.maintain();
    assert!(matches!(full, Err(ShardError::Full { .. })), "{full:?}");
    let read = story.runtime.block_on(get(backend, &header(1, 2)));
    assert!(read.is_ok(), "{read:?}");
    story.disk.set_free(1 << 30);
    assert_eq!(story.runtime.block_on(story.backend().status()).health, BackendHealth::Online);
    story.delete();
    story.maintain();
    story.put(&[3]);
    story.inject(None);
    story.crash(true);
    story.check("after the cut");
}

#[test]
fn beginning_a_shard_waits_for_no_disk() {
    let story = Story::begin(1_100);
    let before = story.disk.space_calls();
    for shard in 0..20 {
        drop(story.runtime.block_on(story.backend().begin(header(shard, 0))).unwrap());
    }
    assert_eq!(story.disk.space_calls(), before, "asking a file system for its room may take for ever");
}
