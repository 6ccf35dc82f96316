//! A disk in memory that can lose power: what was not synced is then kept, lost or torn, sector by sector, as a seed
//! says. For tests only.
//!
//! Faults it never exceeds: what was synced stays; a call that failed did all, nothing or a part of its work.

use super::io::{DiskIo, ExtentFile, Space, Through};
use super::layout::BLOCK_BYTES;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

const SECTOR_BYTES: usize = 512;
const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

/// What a test asks the disk to do wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Injected {
    /// The power goes at the n-th call that changes something, counted from 1.
    PowerCut(u64),
    /// The n-th sync fails, and what it should have made durable is lost in the next power cut.
    SyncError(u64),
    /// The n-th write fails with an IO error halfway.
    WriteError(u64),
    /// The n-th write finds no room.
    NoSpace(u64),
    /// The next file cannot be made for want of descriptors.
    NoDescriptor,
}

/// A simulated disk; clones share it.
#[derive(Clone)]
pub(crate) struct SimulatedDisk(Arc<Mutex<World>>);

struct World {
    files: BTreeMap<String, File>,
    injected: Option<Injected>,
    /// A file the device does not read from that offset on.
    unreadable: Option<(String, u64)>,
    free_bytes: u64,
    space_calls: u64,
    random: StdRng,
    changes: u64,
    syncs: u64,
    writes: u64,
    is_cut: bool,
    /// Called once, at the moment the power goes.
    on_cut: Option<Box<dyn FnOnce() + Send>>,
}

#[derive(Clone, Default)]
struct File {
    /// What reads see.
    live: Vec<u8>,
    /// What a power cut leaves for sure.
    synced: Vec<u8>,
    pending: Vec<Change>,
    /// Whether a power cut may take the name away, or bring a removed one back.
    is_name_synced: bool,
    is_removed: bool,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Grow { bytes: usize },
    Cut { bytes: usize },
}

impl SimulatedDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            files: BTreeMap::new(),
            injected: None,
            unreadable: None,
            free_bytes: 1 << 39,
            space_calls: 0,
            random: StdRng::seed_from_u64(seed),
            changes: 0,
            syncs: 0,
            writes: 0,
            is_cut: false,
            on_cut: None,
        })))
    }

    /// Plans a fault, its number counted from now on, and what to do when the power goes.
    pub(crate) fn inject(&self, injected: Option<Injected>, on_cut: impl FnOnce() + Send + 'static) {
        let mut world = self.0.lock();
        world.injected = injected;
        (world.changes, world.syncs, world.writes) = (0, 0, 0);
        world.on_cut = Some(Box::new(on_cut));
    }

    /// Calls that changed something since `inject`.
    pub(crate) fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    /// Whether the power is gone.
    pub(crate) fn is_cut(&self) -> bool {
        self.0.lock().is_cut
    }

    /// Takes the power away, if it is not gone yet.
    pub(crate) fn cut_power(&self) {
        self.0.lock().cut();
    }

    /// A disk with what the power cut left.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        let mut world = self.0.lock();
        world.cut();
        let files = std::mem::take(&mut world.files);
        let mut random = StdRng::seed_from_u64(seed);
        let left = files.into_iter().filter_map(|(name, file)| Some((name, file.after_power_cut(&mut random)?)));
        let disk = Self::new(seed);
        disk.0.lock().files = left.collect();
        disk
    }

    /// Lets reads of a file beyond an offset fail from now on, or none.
    pub(crate) fn set_unreadable(&self, place: Option<(&str, u64)>) {
        self.0.lock().unreadable = place.map(|(name, offset)| (name.to_owned(), offset));
    }

    /// Sets what is free besides what the engine takes.
    pub(crate) fn set_free(&self, bytes: u64) {
        self.0.lock().free_bytes = bytes;
    }

    /// How often anybody asked for the room there is.
    pub(crate) fn space_calls(&self) -> u64 {
        self.0.lock().space_calls
    }

    /// Flips a bit of what is stored.
    pub(crate) fn flip(&self, name: &str, offset: usize) {
        let mut world = self.0.lock();
        let file = world.files.get_mut(name).unwrap();
        file.live[offset] ^= 4;
        file.synced[offset] ^= 4;
    }
}

impl World {
    fn cut(&mut self) {
        self.is_cut = true;
        if let Some(on_cut) = self.on_cut.take() {
            on_cut();
        }
    }

    /// Counts a change; says whether the power goes with it.
    fn change(&mut self) -> io::Result<bool> {
        if self.is_cut {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.changes += 1;
        let goes = self.injected == Some(Injected::PowerCut(self.changes));
        Ok(goes)
    }

    /// Does the change; if the power goes with it, it is done or not done, and fails.
    fn apply(&mut self, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        let goes = self.change()?;
        if !goes || self.random.random() {
            change(self);
        }
        if goes {
            self.cut();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(())
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        self.files.get_mut(name).filter(|file| !file.is_removed).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl File {
    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.live, None);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.synced, None);
        }
    }

    fn after_power_cut(mut self, random: &mut StdRng) -> Option<File> {
        if !self.is_name_synced && random.random() {
            self.is_removed = !self.is_removed;
        }
        if self.is_removed {
            return None;
        }
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.synced, Some(random));
        }
        Some(File { live: self.synced.clone(), synced: self.synced, is_name_synced: true, ..File::default() })
    }
}

impl Change {
    /// Applies all of it, or with a source of chance a part of it.
    fn apply(self, to: &mut Vec<u8>, mut chance: Option<&mut StdRng>) {
        if let Some(random) = &mut chance
            && random.random_bool(0.3)
        {
            return;
        }
        match self {
            Self::Write { offset, bytes } => {
                let is_torn = chance.as_mut().is_some_and(|random| random.random_bool(0.5));
                for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    if is_torn && chance.as_mut().is_some_and(|random| random.random()) {
                        continue;
                    }
                    let begin = offset + index * SECTOR_BYTES;
                    to.resize(to.len().max(begin + sector.len()), 0);
                    to[begin..begin + sector.len()].copy_from_slice(sector);
                }
            }
            Self::Grow { bytes } => to.resize(to.len().max(bytes), 0),
            Self::Cut { bytes } => to.truncate(bytes),
        }
    }
}

impl DiskIo for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn ExtentFile>> {
        let name = name_of(path);
        let mut world = self.0.lock();
        if world.file(&name).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if world.injected == Some(Injected::NoDescriptor) {
            world.injected = None;
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        world.apply(|world| drop(world.files.insert(name.clone(), File::default())))?;
        drop(world);
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ExtentFile>> {
        let name = name_of(path);
        self.0.lock().file(&name)?;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), name }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let name = name_of(path);
        let mut world = self.0.lock();
        world.file(&name)?;
        world.apply(|world| {
            if let Ok(file) = world.file(&name) {
                file.is_removed = true;
                file.is_name_synced = false;
            }
        })
    }

    fn names(&self, _directory: &Path) -> io::Result<Vec<String>> {
        let world = self.0.lock();
        Ok(world.files.iter().filter(|(_, file)| !file.is_removed).map(|(name, _)| name.clone()).collect())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        self.0.lock().apply(|world| world.files.values_mut().for_each(|file| file.is_name_synced = true))
    }

    fn space(&self, _directory: &Path) -> io::Result<Space> {
        let mut world = self.0.lock();
        world.space_calls += 1;
        Ok(Space { capacity_bytes: 1 << 40, free_bytes: world.free_bytes })
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    name: String,
}

impl SimulatedFile {
    fn change(&self, change: Change) -> io::Result<()> {
        self.disk.0.lock().apply(|world| {
            if let Some(file) = world.files.get_mut(&self.name) {
                file.change(change);
            }
        })
    }
}

impl ExtentFile for SimulatedFile {
    fn write(&self, pieces: &[Bytes], offset: u64, through: Through) -> io::Result<()> {
        let bytes = pieces.concat();
        if through == Through::Device {
            assert!(offset.is_multiple_of(BLOCK_BYTES), "direct writes begin at a block");
            assert!(pieces.iter().all(super::buffers::is_aligned), "direct writes are of aligned blocks");
        }
        let offset = usize::try_from(offset).unwrap();
        {
            let mut world = self.disk.0.lock();
            world.writes += 1;
            let number = world.writes;
            match world.injected {
                Some(Injected::NoSpace(n)) if n == number => return Err(io::Error::from_raw_os_error(ENOSPC)),
                Some(Injected::WriteError(n)) if n == number => {
                    let half = bytes[..bytes.len() / 2].to_vec();
                    if let Some(file) = world.files.get_mut(&self.name) {
                        file.change(Change::Write { offset, bytes: half });
                    }
                    return Err(io::Error::from_raw_os_error(EIO));
                }
                _ => {}
            }
        }
        self.change(Change::Write { offset, bytes })
    }

    fn read(&self, buffer: &mut [u8], offset: u64, through: Through) -> io::Result<usize> {
        if through == Through::Device {
            assert!(offset.is_multiple_of(BLOCK_BYTES) && (buffer.len() as u64).is_multiple_of(BLOCK_BYTES));
        }
        let mut world = self.disk.0.lock();
        let end = offset + buffer.len() as u64;
        let is_unreadable = world.unreadable.as_ref().is_some_and(|(name, from)| *name == self.name && end > *from);
        if world.is_cut || is_unreadable {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let Some(file) = world.files.get_mut(&self.name) else { return Ok(0) };
        let begin = usize::try_from(offset).unwrap().min(file.live.len());
        let count = buffer.len().min(file.live.len() - begin);
        buffer[..count].copy_from_slice(&file.live[begin..begin + count]);
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        world.syncs += 1;
        if world.injected == Some(Injected::SyncError(world.syncs)) {
            if let Some(file) = world.files.get_mut(&self.name) {
                file.pending.clear(); // marked clean, and not on the disk
            }
            return Err(io::Error::from_raw_os_error(EIO));
        }
        world.apply(|world| {
            if let Some(file) = world.files.get_mut(&self.name) {
                file.sync();
            }
        })
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.change(Change::Grow { bytes: usize::try_from(offset + bytes).unwrap() })
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let bytes = vec![0; usize::try_from(bytes).unwrap()];
        self.change(Change::Write { offset: usize::try_from(offset).unwrap(), bytes })
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.change(Change::Cut { bytes: usize::try_from(bytes).unwrap() })
    }

    fn bytes(&self) -> io::Result<u64> {
        let mut world = self.disk.0.lock();
        Ok(world.file(&self.name)?.live.len() as u64)
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self.disk.0.lock().file(&self.name).is_ok())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok((offset < self.bytes()?).then_some(offset))
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
