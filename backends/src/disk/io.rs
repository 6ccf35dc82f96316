//! The few file operations the engine does, behind traits, so that tests can lose, tear and refuse them.
//! `LocalIo` is the real one. RocksDB does its own file work and is not seen here.
//!
//! Invariant: every length and offset passed with `Through::Device` is a multiple of a block.

use super::layout::BLOCK_BYTES;
use bytes::Bytes;
use rustix::fs::{Advice, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// Whether an access may use the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Through {
    /// Through the page cache.
    Cache,
    /// Around it where the file system can (O_DIRECT); else through it and dropped again after a read.
    Device,
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) capacity_bytes: u64,
    pub(crate) free_bytes: u64,
}

/// File operations on extents.
pub(crate) trait DiskIo: Send + Sync + 'static {
    /// Creates an empty extent file; fails if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn ExtentFile>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ExtentFile>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names in the directory.
    fn names(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Makes creations, renames and removals in the directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    fn space(&self, directory: &Path) -> io::Result<Space>;
}

/// One extent file.
pub(crate) trait ExtentFile: Send + Sync {
    /// Writes the pieces back to back at `offset`, all of them or an error.
    fn write(&self, pieces: &[Bytes], offset: u64, through: Through) -> io::Result<()>;
    /// Fills the buffer from `offset`; fewer bytes only at the file's end.
    fn read(&self, buffer: &mut [u8], offset: u64, through: Through) -> io::Result<usize>;
    /// Makes all writes that returned durable.
    fn sync(&self) -> io::Result<()>;
    /// Makes room from `offset` on, growing the file; it reads as zeros.
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Gives the room of a range back; it reads as zeros.
    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()>;
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    fn bytes(&self) -> io::Result<u64>;
    /// Whether some directory still names it.
    fn is_linked(&self) -> io::Result<bool>;
    /// The first offset at or after `offset` that holds data, not a hole; `None` if there is none.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
}

/// The operating system's files.
#[derive(Debug, Default)]
pub(crate) struct LocalIo;

impl DiskIo for LocalIo {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn ExtentFile>> {
        Ok(Arc::new(LocalExtent::open(path, OFlags::CREATE | OFlags::EXCL)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ExtentFile>> {
        Ok(Arc::new(LocalExtent::open(path, OFlags::empty())?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn space(&self, directory: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(directory)?;
        Ok(Space {
            capacity_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

struct LocalExtent {
    cached: OwnedFd,
    /// Absent where the file system refuses O_DIRECT (tmpfs).
    device: Option<OwnedFd>,
}

impl LocalExtent {
    fn open(path: &Path, create: OFlags) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let cached = rustix::fs::open(path, flags | create, Mode::RUSR | Mode::WUSR)?;
        let device = match rustix::fs::open(path, flags | OFlags::DIRECT, Mode::empty()) {
            Ok(device) => Some(device),
            Err(Errno::INVAL | Errno::NOTSUP) => None,
            Err(errno) => return Err(errno.into()),
        };
        Ok(Self { cached, device })
    }

    fn handle(&self, through: Through) -> &OwnedFd {
        match (through, &self.device) {
            (Through::Device, Some(device)) => device,
            _ => &self.cached,
        }
    }

    /// Only advice: a file system that ignores it keeps the pages a little longer.
    fn forget_pages(&self, offset: u64, bytes: u64) {
        let length = std::num::NonZeroU64::new(bytes);
        let _ = rustix::fs::fadvise(&self.cached, offset, length, Advice::DontNeed);
    }
}

impl ExtentFile for LocalExtent {
    fn write(&self, pieces: &[Bytes], offset: u64, through: Through) -> io::Result<()> {
        let total: usize = pieces.iter().map(Bytes::len).sum();
        let mut handle = self.handle(through);
        let mut written = 0;
        while written < total {
            let slices = rest_of(pieces, written);
            match rustix::io::pwritev(handle, &slices, offset + written as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                // Some devices refuse a direct write after a partial one, or ask for wider alignment.
                Err(Errno::INVAL) if !std::ptr::eq(handle, &self.cached) => handle = &self.cached,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn read(&self, buffer: &mut [u8], offset: u64, through: Through) -> io::Result<usize> {
        let mut handle = self.handle(through);
        if through == Through::Device && self.device.is_none() {
            // Pages that a failed sync marked clean must not answer for the disk.
            self.forget_pages(offset, buffer.len() as u64);
        }
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::io::pread(handle, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) if !std::ptr::eq(handle, &self.cached) => handle = &self.cached,
                Err(errno) => return Err(errno.into()),
            }
        }
        if through == Through::Device && std::ptr::eq(handle, &self.cached) {
            self.forget_pages(offset, filled as u64);
        }
        Ok(filled)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.cached)?)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.cached, FallocateFlags::empty(), offset, bytes) {
            Err(Errno::NOTSUP | Errno::NOSYS) => self.truncate(offset + bytes),
            other => Ok(other?),
        }
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.cached, flags, offset, bytes) {
            // The room then stays taken until the extent is compacted; its first block must not be found again.
            Err(Errno::NOTSUP | Errno::NOSYS) => {
                let zeros = Bytes::from(vec![0u8; BLOCK_BYTES as usize]);
                self.write(&[zeros], offset, Through::Cache)
            }
            other => Ok(other?),
        }
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.cached, bytes)?)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(&self.cached)?.st_size).unwrap_or(0))
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(rustix::fs::fstat(&self.cached)?.st_nlink > 0)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.cached, rustix::fs::SeekFrom::Data(offset)) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::NOTSUP) => Ok(Some(offset)),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Whether the process or the machine is short of descriptors or memory: that says nothing about the disk.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN])
}

/// Whether the device or the file system below failed.
pub(crate) fn is_device_error(error: &io::Error) -> bool {
    let errnos = [Errno::IO, Errno::NXIO, Errno::NODEV, Errno::REMOTEIO, Errno::UCLEAN, Errno::BADMSG, Errno::ILSEQ];
    is_one_of(error, &errnos)
}

fn is_one_of(error: &io::Error, errnos: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|code| errnos.iter().any(|errno| errno.raw_os_error() == code))
}

/// The pieces after the first `skip` bytes, at most as many as one call takes.
fn rest_of(pieces: &[Bytes], mut skip: usize) -> Vec<IoSlice<'_>> {
    const PIECES_MAX: usize = 1024; // IOV_MAX of Linux
    let mut slices = Vec::with_capacity(pieces.len().min(PIECES_MAX));
    for piece in pieces {
        if skip >= piece.len() {
            skip -= piece.len();
            continue;
        }
        if slices.len() == PIECES_MAX {
            break;
        }
        slices.push(IoSlice::new(&piece[skip..]));
        skip = 0;
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::cell_buffer::CellBuffer;

    #[test]
    fn direct_and_cached_accesses_see_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let file = LocalIo.create(&path).unwrap();
        assert!(LocalIo.create(&path).is_err(), "an extent must never be created over another");
        file.allocate(0, 4 * BLOCK_BYTES).unwrap();
        let mut block = CellBuffer::new(8192);
        block.fill(7);
        let block = block.freeze();
        file.write(&[block.slice(..4096), block.slice(4096..)], 4096, Through::Device).unwrap();
        file.sync().unwrap();
        let mut back = CellBuffer::new(16384);
        assert_eq!(file.read(&mut back, 0, Through::Cache).unwrap(), 16384);
        assert!(back[..4096].iter().all(|&b| b == 0));
        assert!(back[4096..12288].iter().all(|&b| b == 7));
        file.punch(4096, 4096).unwrap();
        let mut block = CellBuffer::new(4096);
        assert_eq!(file.read(&mut block, 4096, Through::Device).unwrap(), 4096);
        assert!(block.iter().all(|&b| b == 0));
        file.truncate(8192).unwrap();
        assert_eq!(file.read(&mut back, 4096, Through::Cache).unwrap(), 4096);
        assert!(file.is_linked().unwrap());
        LocalIo.remove(&path).unwrap();
        assert!(!file.is_linked().unwrap());
    }

    #[test]
    fn a_partial_write_goes_on_where_it_stopped() {
        let pieces = [Bytes::from_static(b"abc"), Bytes::from_static(b""), Bytes::from_static(b"defg")];
        for (skip, rest) in [(0, "abcdefg"), (2, "cdefg"), (3, "defg"), (6, "g"), (7, "")] {
            let got: Vec<u8> = rest_of(&pieces, skip).iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(got, rest.as_bytes());
        }
    }
}
