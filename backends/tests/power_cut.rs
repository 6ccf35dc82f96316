//! Promise: what a disk backend acknowledged outlives a power cut, on a real file system.
//!
//! ```text
//! backend -> ext4 -> loop device -> file on an outer ext4 -> loop device -> file
//! ```
//! Shutting the outer file system down without a flush of its log (the `FS_IOC_SHUTDOWN` of ext4 and XFS) is the cut: the
//! backend's file system loses what it had not written, and its device what it had not been told to flush, like a
//! drive with a volatile cache. Both journals are then replayed by mounting again, and the backend is opened on that.
//!
//! Needs root, loop devices, ext4 and perl; says so and passes where they are not to be had. What is torn and reordered
//! within a device is the part of the simulated disk (`disk/crash_tests.rs`).

#![allow(clippy::unwrap_used)] // the whole file is one test; clippy sees that of functions marked so only

use holdfast_backends::contract::{CLUSTER, get, joined, put, sample_cells, sample_header};
use holdfast_backends::{Backend, DiskBackend, DiskOptions};
use holdfast_proto::BackendId;
use holdfast_proto::shard_header::ShardHeader;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const BACKEND: BackendId = BackendId([0xb4; 16]);
const OUTER_BYTES: u64 = 256 << 20;
const INNER_BYTES: u64 = 176 << 20;
const ROUNDS: u64 = 3;
const WRITERS: u64 = 8;
const SHARDS_PER_WRITER: u64 = 6;
/// Packed, at the boundary, and written directly in one and in several runs.
const SIZES: [u64; 5] = [100, 9_000, 120_000, 300_000, 900_000];
/// `FS_IOC_SHUTDOWN` with "do not flush the log".
const SHUT_DOWN: &str = r#"open(F, "<", $ARGV[0]) or die "open: $!"; my $how = pack("L", 2); ioctl(F, 0x8004587D, $how) or die "ioctl: $!";"#;

/// The file systems, one within the other.
struct Stack {
    base: tempfile::TempDir,
}

impl Stack {
    /// Makes both, or says why that is not possible here.
    fn new() -> Result<Self, String> {
        run("perl", &["-e", "1"])?;
        let base = tempfile::tempdir().map_err(|error| error.to_string())?;
        let stack = Self { base };
        for directory in [stack.outer(), stack.inner()] {
            std::fs::create_dir(directory).unwrap();
        }
        let outer_image = File::create(stack.outer_image()).unwrap();
        outer_image.set_len(OUTER_BYTES).unwrap();
        make_file_system(&stack.outer_image())?;
        mount(&stack.outer_image(), &stack.outer())?;
        // Written out, so that the outer file system overwrites in place, as a drive does.
        let mut inner_image = File::create(stack.inner_image()).unwrap();
        let zeros = vec![0u8; 1 << 20];
        (0..INNER_BYTES >> 20).try_for_each(|_| inner_image.write_all(&zeros)).map_err(|error| error.to_string())?;
        make_file_system(&stack.inner_image())?;
        inner_image.sync_all().map_err(|error| error.to_string())?;
        mount(&stack.inner_image(), &stack.inner())?;
        Ok(stack)
    }

    fn outer_image(&self) -> PathBuf {
        self.base.path().join("outer.img")
    }
    fn outer(&self) -> PathBuf {
        self.base.path().join("outer")
    }
    fn inner_image(&self) -> PathBuf {
        self.outer().join("inner.img")
    }
    fn inner(&self) -> PathBuf {
        self.base.path().join("inner")
    }

    fn cut_power(&self) {
        run("perl", &["-e", SHUT_DOWN, &text(&self.outer())]).unwrap();
    }

    /// After a cut, with nothing open any more.
    fn mount_again(&self) {
        for directory in [self.inner(), self.outer()] {
            unmount(&directory).unwrap();
        }
        mount(&self.outer_image(), &self.outer()).unwrap();
        mount(&self.inner_image(), &self.inner()).unwrap();
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for directory in [self.inner(), self.outer()] {
            if unmount(&directory).is_err() {
                let _ = run("umount", &["--lazy", &text(&directory)]); // nothing is left mounted, whatever happened
            }
        }
    }
}

fn make_file_system(image: &Path) -> Result<(), String> {
    run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", &text(image)])
}

fn mount(image: &Path, directory: &Path) -> Result<(), String> {
    run("mount", &["-t", "ext4", "-o", "loop", &text(image), &text(directory)])
}

fn unmount(directory: &Path) -> Result<(), String> {
    let once = || run("umount", &[&text(directory)]);
    (0..50).find_map(|_| once().ok().or_else(|| pause(20))).map_or_else(once, Ok)
}

fn pause<T>(millis: u64) -> Option<T> {
    std::thread::sleep(Duration::from_millis(millis));
    None
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program} {}: {}", arguments.join(" "), errors.trim())) }
}

/// What one shard may be after a cut: a version, or not there.
struct Expected {
    shard: u64,
    outcomes: BTreeSet<Option<u64>>,
    versions: u64,
}

fn header(shard: u64, version: u64) -> ShardHeader {
    let size = SIZES[usize::try_from((shard + version) % 5).unwrap()];
    ShardHeader { shard_bytes: size, ..sample_header(shard) }
}

/// Writes and deletes until told to stop or refused; keeps account of what was acknowledged.
async fn write(
    backend: Arc<DiskBackend>,
    mut shards: Vec<Expected>,
    stop: Arc<AtomicBool>,
    seed: u64,
) -> Vec<Expected> {
    let mut random = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        let index = random.random_range(0..shards.len());
        let expected = &mut shards[index];
        if random.random_bool(0.2) {
            expected.outcomes.insert(None); // a delete may be undone, never half done
            let _ = backend.delete(vec![header(expected.shard, 0).id]).await;
            continue;
        }
        expected.versions += 1;
        let version = expected.versions;
        expected.outcomes.insert(Some(version));
        let header = header(expected.shard, version);
        if put(&*backend, &header, sample_cells(&header, version)).await.is_err() {
            break;
        }
        expected.outcomes = BTreeSet::from([Some(version)]);
    }
    shards
}

async fn check(backend: &DiskBackend, expected: &mut Expected, context: &str) {
    let stat = backend.stat(header(expected.shard, 0).id).await.unwrap();
    let mut found = None;
    for version in expected.outcomes.iter().copied().flatten().filter(|_| stat.is_some()) {
        let header = header(expected.shard, version);
        let read = get(backend, &header).await;
        if read.is_ok_and(|read| read.damaged.is_empty() && read.bytes == joined(&sample_cells(&header, version))) {
            found = Some(version);
        }
    }
    let (shard, outcomes) = (expected.shard, &expected.outcomes);
    assert!(found.is_some() || stat.is_none(), "{context}: shard {shard} is there and none of {outcomes:?}");
    assert!(outcomes.contains(&found), "{context}: shard {shard} is {found:?}, may be {outcomes:?}");
    expected.outcomes = BTreeSet::from([found]);
}

fn open(directory: &Path) -> DiskBackend {
    let options = DiskOptions {
        reserve_bytes: Some(48 << 20),
        extent_bytes_max: 8 << 20,
        checkpoint_interval: Duration::from_millis(200),
        ..DiskOptions::default()
    };
    let backend = DiskBackend::open_with(directory, CLUSTER, BACKEND, options).unwrap();
    assert_eq!(backend.findings(), [""; 0], "a power cut is nothing to report");
    backend
}

#[test]
fn a_power_cut_loses_nothing_acknowledged_on_a_real_file_system() {
    let stack = match Stack::new() {
        Ok(stack) => stack,
        Err(reason) => return eprintln!("skipped, no file system to cut the power of can be made here: {reason}"),
    };
    let seed = std::env::var("HOLDFAST_CRASH_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    eprintln!("HOLDFAST_CRASH_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let place = stack.inner().join("d1");
    DiskBackend::format(&place, CLUSTER, BACKEND, "d1").unwrap();
    let mut shards: Vec<Expected> = (0..WRITERS * SHARDS_PER_WRITER)
        .map(|shard| Expected { shard, outcomes: BTreeSet::from([None]), versions: 0 })
        .collect();
    let (mut acknowledged, mut lost_controls) = (0, 0);
    for round in 0..ROUNDS {
        let backend = Arc::new(open(&place));
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        while !shards.is_empty() {
            let own = shards.split_off(shards.len() - usize::try_from(SHARDS_PER_WRITER).unwrap());
            tasks.push(runtime.spawn(write(backend.clone(), own, stop.clone(), random.random())));
        }
        std::thread::sleep(Duration::from_millis(random.random_range(200..1_500)));
        // Nobody synced this: if it survives, the cut is none.
        let control = stack.inner().join(format!("control-{round}"));
        std::fs::write(&control, [7; 100_000]).unwrap();
        stack.cut_power();
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            shards.extend(runtime.block_on(task).unwrap());
        }
        let _ = runtime.block_on(backend.close()); // there is nothing left to close it on
        drop(backend);
        stack.mount_again();

        lost_controls += u64::from(std::fs::read(&control).map_or(true, |bytes| bytes != [7; 100_000]));
        let backend = open(&place);
        for expected in &mut shards {
            runtime.block_on(check(&backend, expected, &format!("seed {seed}, round {round}")));
        }
        acknowledged += shards.iter().map(|expected| expected.versions).sum::<u64>();
    }
    assert!(lost_controls > 0, "nothing was ever lost: these are no power cuts");
    assert!(acknowledged > WRITERS * ROUNDS, "only {acknowledged} shards were written");
}
